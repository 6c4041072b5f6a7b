"""The same proteins predicted by the models of several cell lines, side by side.

A folder holds one comparison: below ``models/`` what `deepgps.results` writes for each model, and above it
the differences, as a table, as images and as a page. `deepgps.comparison.compare.compare_cells` writes all of
it and continues what an earlier call began.

Every protein is also drawn into two default cells. What changes within one model between these two is the
*control*: a smaller difference between models says nothing about their cell lines.
"""
