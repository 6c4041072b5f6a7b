"""What a prediction becomes on disk: one place for the command line, the website and the cluster.

A folder holds the results of one *run*: one model, one set of options, one input.

- ``results.jsonl``: one line of JSON per protein and nucleus, with everything, evidence included;
- ``results.csv``, ``results.tsv`` or ``results.parquet``: the same as a table;
- ``images/``: per row the raw images (OME-TIFF, axes ``CYX``) and a labelled PNG;
  or ``images.zarr``, one store of all;
- ``report.html``: self-contained, for reading and sending on;
- ``run.json``: the model's hash, options, versions and inputs;
- ``rejected.csv``: records that could not be used, and why.

`deepgps.results.save.save` writes all of it, streaming, and resumes what an earlier call left unfinished.
`deepgps.results.rows` makes the rows, here or on workers (`deepgps.results.parts`); only the caller writes.
"""
