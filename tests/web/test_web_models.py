"""Models of other kinds than the one that ships."""

import pytest
from visitor import API, error_of, fasta

from deepgps.bundle import write_bundle


@pytest.fixture
def install(visitor, tiny_bundle, tmp_path, monkeypatch):
    """Install a variant of the tiny model, as the only one of the visitor's own."""

    def install(**changes):
        metadata = tiny_bundle.metadata.model_dump(mode="json", exclude={"schema_version", "files"})
        encoder = {**metadata["encoder"], **changes.pop("encoder", {})}
        files = {name: tiny_bundle.read(name) for name in tiny_bundle.metadata.files}
        write_bundle(tmp_path / "models" / "variant", {**metadata, **changes, "encoder": encoder}, files)
        monkeypatch.setenv("DEEPGPS_MODELS", str(tmp_path / "models"))
        return visitor

    return install


def test_a_model_that_draws_only(install):
    visitor = install(classes=[], thresholds=[])
    job = visitor.predict(fasta(2), model="variant")
    row = visitor.rows(job, sort="confidence", order="desc")["results"][0]
    assert (row["localizations"], row["confidence"]) == ([], None)
    assert "drawn only" in visitor.page(f"/predictions/{job}/results/0")
    for address in (f"/predictions/{job}", "/predict", "/models", "/models/variant"):
        visitor.page(address)
    assert visitor.client.get(f"{API}/predictions/{job}/results.csv").text.count("\n") == 3
    answer = visitor.send(fasta(2), model="variant", pictures=False)
    assert error_of(answer, 422)["code"] == "no_labels"


def test_a_model_of_other_crops_is_drawn_into_fitting_nuclei(install):
    visitor = install(crop={"size_px": 208, "pixel_size_um": 0.3})
    job = visitor.predict(fasta(1), model="variant", nuclei=["hek-1", "u2os-1"])
    assert visitor.status(job)["status"] == "finished"
    assert visitor.rows(job)["total"] == 2


@pytest.mark.parametrize(
    ("encoder", "said"),
    [
        ({"kind": "structure", "structure_points": 64}, "looks at structures"),
        ({"kind": "esm2", "name": "esm2_unheard_of", "fingerprint": "0" * 64}, "not prepared on this site"),
    ],
)
def test_a_model_that_cannot_be_used_here_is_shown_and_not_offered(install, encoder, said):
    visitor = install(encoder=encoder)
    assert said in visitor.page("/models/variant")
    form = visitor.page("/predict?model=variant")
    assert said in form
    assert 'value="variant" disabled' in form
    assert error_of(visitor.send(model="variant"), 422)["code"] == "unusable_model"
