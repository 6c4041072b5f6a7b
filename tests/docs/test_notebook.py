"""The notebook runs from top to bottom, and its cells show what its text says."""

import pytest
from documents import ROOT, SHIPPED_MODEL

NOTEBOOK = ROOT / "docs" / "tutorials" / "notebook.ipynb"

needs_model = pytest.mark.skipif(not SHIPPED_MODEL.exists(), reason=f"no model at '{SHIPPED_MODEL}' yet")


def test_no_output_is_committed():
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(code) >= 5
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)


@needs_model
@pytest.mark.slow
def test_the_notebook_runs(tmp_path):
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    pytest.importorskip("pandas")
    from nbclient import NotebookClient

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", [])]
    pages = [data["text/html"] for data in shown if "text/html" in data]
    assert "LMNB1" in pages[0]
    assert "Known (P20700)" in pages[0]
    assert pages[0].count("data:image/png") == 2
    assert "intranuclear_fraction" in " ".join(data.get("text/plain", "") for data in shown)
    assert "residue 3" in pages[-1]
    assert (tmp_path / "mine.tif").exists()
