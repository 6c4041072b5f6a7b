"""HTML reports: one base template, one stylesheet and one chart module for every report of deepGPS.

A report is a single file that loads nothing from elsewhere: styles, charts (SVG) and images are embedded.
`deepgps.reporting.pages` renders the templates, `deepgps.reporting.charts` draws charts, and
`deepgps.reporting.images` embeds images. What a report says is decided by the package that writes it:
predictions (`deepgps.results`), comparisons, evaluations and training runs.
"""
