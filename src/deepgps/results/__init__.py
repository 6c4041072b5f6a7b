"""Predictions on disk: the same files for the command line, the website and a cluster.

A folder holds the results of one *run*: one model, one set of options, one input.

- ``results.jsonl``: one line of JSON per protein and cell, with everything, including the evidence;
- ``results.csv``, ``.tsv``, ``.parquet``, ``.xlsx`` or ``.h5ad``: the same as a table;
- ``images/``: for each row a labelled PNG and the raw images (OME-TIFF, axes ``CYX``); or ``images.zarr``,
  one store for all rows;
- ``report.html``: a self-contained page;
- ``run.json``: the model's hash, options, versions and inputs, and once it is finished
  ``ro-crate-metadata.json``, the same as an RO-Crate;
- ``rejected.csv``: records that could not be used, and why.

`deepgps.results.predict.predict_to_folder` writes all of it as a stream, and continues what an earlier call
left unfinished. `deepgps.results.rows` predicts the rows, here or on workers; only the calling process
writes.
"""
