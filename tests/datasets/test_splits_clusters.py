import os
import sys

import polars as pl
import pytest

from deepgps.datasets.splits import find_clusters, mmseqs_clusters
from deepgps.errors import DeepGPSError, InputError

# Replaces MMseqs2: sequences with the same first residue form a cluster, represented by its last.
FAKE = """#!{python}
import sys
assert sys.argv[1] == "easy-cluster" and sys.argv[5:] == "--min-seq-id 0.3 -c 0.5 --cov-mode 0".split()
lines = open(sys.argv[2]).read().split("\\n")
members = {{}}
for name, residues in zip(lines[0::2], lines[1::2]):
    members.setdefault(residues[0], []).append(name[1:])
with open(sys.argv[3] + "_cluster.tsv", "w") as file:
    for each in reversed(members.values()):
        for name in each:
            file.write(each[-1] + "\\t" + name + "\\n")
"""


def install(folder, monkeypatch, script):
    program = folder / "mmseqs"
    program.write_text(script.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)


def test_mmseqs_clusters_at_30_percent_identity(tmp_path, monkeypatch):
    install(tmp_path, monkeypatch, FAKE)
    sequences = {"b|2 x": "KA", "a": "MA", "c": "MC", "d": "WA"}
    assert mmseqs_clusters(sequences) == {"a": 0, "b|2 x": 1, "c": 0, "d": 2}


def test_a_failure_of_mmseqs_is_reported(tmp_path, monkeypatch):
    install(tmp_path, monkeypatch, "#!{python}\nimport sys\nsys.exit('no memory')\n")
    with pytest.raises(DeepGPSError, match="no memory"):
        mmseqs_clusters({"a": "MA"})


def test_clusters_of_the_table_are_used_even_if_some_are_missing(monkeypatch):
    monkeypatch.setenv("PATH", "")
    table = pl.DataFrame(
        {"protein_id": ["A", "A", "B"], "cluster": [4, 4, None], "sequence": ["M", "M", "K"]}
    )
    assert find_clusters(table) == {"A": 4}


def test_the_error_without_clusters_and_mmseqs_names_the_remedies(monkeypatch):
    monkeypatch.setenv("PATH", "")
    table = pl.DataFrame({"protein_id": ["A"], "sequence": ["M"]})
    with pytest.raises(InputError, match=r"conda install .* or give the table a column 'cluster'"):
        find_clusters(table)
    with pytest.raises(InputError, match="no sequences"):
        find_clusters(table.drop("sequence"))


def test_a_protein_of_two_clusters_is_refused():
    with pytest.raises(InputError, match="'A' is in the clusters 1 and 2"):
        find_clusters(pl.DataFrame({"protein_id": ["A", "A"], "cluster": [1, 2]}))
