"""Whole sets of proteins embedded: here, on several processes, or on a Dask cluster."""
