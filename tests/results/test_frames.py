"""`predict_table`: a table of the same kind comes back, row by row."""

import pytest

from deepgps import Predictor, predict_table
from deepgps.errors import InputError, MissingExtraError
from deepgps.results.records import table_columns

GOOD, BETTER = "MKVLAAGIVGLCAKWDEYHR", "MSTNPKPQRKTKRNTNRRPQ"


@pytest.fixture(scope="module")
def predictor(tiny_bundle):
    return Predictor(tiny_bundle, threads=1)


def expected(predictor, sequence):
    return predictor.predict_one(sequence, images=False)


def test_pandas_comes_back_with_its_index_and_columns(predictor):
    pd = pytest.importorskip("pandas")
    given = pd.DataFrame(
        {"padj": [0.1, 0.2, 0.3, 0.4], "sequence": [GOOD, None, " " + BETTER.lower(), "MKJ"]},
        index=["w", "x", "y", "z"],
    )
    found = predict_table(given, predictor)
    assert list(found.index) == ["w", "x", "y", "z"]
    assert list(found.columns[:2]) == ["padj", "sequence"]
    assert list(given.columns) == ["padj", "sequence"]
    assert found.loc["y", "er"] == pytest.approx(expected(predictor, BETTER).probabilities["er"], abs=1e-4)
    assert found.loc["w", "Localizations"] == "|".join(expected(predictor, GOOD).localizations)
    assert found["Confidence"].dtype == "float64"
    assert found["Confidence"].isna().tolist() == [False, True, False, True]
    assert found.loc["w", "Problem"] is None
    assert "row 2" in found.loc["x", "Problem"]
    assert "row 4" in found.loc["z", "Problem"]


def test_polars_comes_back_as_polars(predictor):
    pl = pytest.importorskip("polars")
    given = pl.DataFrame({"gene": ["A", "B"], "Sequence": [GOOD, "MKJ"]})
    found = predict_table(given, predictor)
    assert isinstance(found, pl.DataFrame)
    assert found.columns[:2] == ["gene", "Sequence"]
    assert found["er"][0] == pytest.approx(expected(predictor, GOOD).probabilities["er"], abs=1e-4)
    assert found["Problem"].is_null().to_list() == [True, False]
    assert found.schema["er"] == pl.Float64
    assert predict_table(given["Sequence"], predictor).equals(found.drop("gene", "Sequence"))


def test_sequences_become_a_table_with_the_columns_of_results(predictor):
    pytest.importorskip("pandas")
    found = predict_table(iter([GOOD, BETTER]), predictor)
    assert len(found) == 2
    left_out = {"Protein_ID", "Accession", "Gene", "Intranuclear_Fraction", "Nucleus"}
    wanted = [name for name in table_columns(predictor.classes) if name not in left_out]
    assert list(found.columns) == [*wanted, "Problem"]
    assert len(predict_table([], predictor)) == 0


def test_tables_that_cannot_be_used_are_refused(predictor, monkeypatch):
    pd = pytest.importorskip("pandas")
    with pytest.raises(InputError, match=r"no column 'sequence' \(found: protein\)"):
        predict_table(pd.DataFrame({"protein": [GOOD]}), predictor)
    with pytest.raises(InputError, match="has a column 'Confidence'"):
        predict_table(pd.DataFrame({"sequence": [GOOD], "Confidence": [1]}), predictor)
    monkeypatch.setattr("deepgps.results.frames.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="pip install pandas"):
        predict_table([GOOD], predictor)
