"""The same proteins through the models of several cell lines, beside each other.

A folder holds one comparison: below ``models/`` what `deepgps.results` writes for each model, and above it
what differs, as a table, as images and as a page. `deepgps.comparison.compare.compare_cells` writes all of it
and goes on where an earlier call was stopped.

Every protein is also drawn into two nuclei that ship. What one model's answer changes between these two is
the *control*: a difference between models that is no larger says nothing of their cells.
"""
