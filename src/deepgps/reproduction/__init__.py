"""``deepgps reproduce``: the paper's datasets, models and tables again, one step after the other.

`steps` runs them, `published` holds what the paper says, and `report` puts ours beside it.
"""
