import polars as pl
import pytest

from conftest import replace_index
from deepgps.datasets.crops.store import CROPS_INDEX
from deepgps.errors import InputError
from deepgps.evaluation.dataset import DatasetFiles, load_dataset
from deepgps.prediction import Predictor
from evaluated_store import proteins_table, sequence, write_store


@pytest.fixture(scope="module")
def predictor(tiny_bundle):
    return Predictor(tiny_bundle, threads=1)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("loading") / "store", train=1)


def change_index(store, **columns):
    replace_index(store, pl.read_parquet(store / CROPS_INDEX).with_columns(**columns))


def test_a_store_gives_its_proteins_and_their_crops(predictor, store):
    found = load_dataset(DatasetFiles(store), predictor)
    assert [each.protein.id for each in found.proteins] == ["C1", "C2", "N1", "N2"]
    assert [found.proteins[k].protein.id for k in found.protein_of] == ["N1", "N1", "N2", "C1", "C1", "C2"]
    assert found.crop_classes.tolist() == ["nucleoplasm"] * 3 + ["cytoplasmic"] * 3
    assert len(found.training_rows) == 2
    assert len(set(found.groups.tolist())) == 4
    assert found.crops_of.tolist() == [2, 1, 2, 1]
    assert (found.left_out, found.notes) == ((), ())


def test_a_split_file_in_the_store_overrides_the_column_of_the_index(predictor, tmp_path):
    store = write_store(tmp_path / "store", train=1)
    (store / "split.csv").write_text("protein_id,split\nN1,test\nC1,train\n")
    found = load_dataset(DatasetFiles(store), predictor)
    assert [each.protein.id for each in found.proteins] == ["N1"]
    assert len(found.training_rows) == 2


def test_unusable_data_are_left_out_with_a_reason(predictor, tmp_path):
    name = pl.col("protein_id")
    changes = {
        "sequence": pl.when(name == "N1").then(pl.lit("MKJ")).otherwise(pl.col("sequence")),
        "localizations": pl.when(name == "N2").then(pl.lit("cilium")).otherwise(pl.col("localizations")),
    }
    store = write_store(tmp_path / "store", test="N1 N2 C1 C2 C3", train=1, changes=changes)
    change_index(
        store,
        protein_id=pl.when(pl.col("protein_id") == "C3").then(pl.lit("")).otherwise(pl.col("protein_id")),
        localizations=pl.when(pl.col("protein_id") == "C2")
        .then(pl.lit("plastid"))
        .otherwise(pl.col("localizations")),
    )
    found = load_dataset(DatasetFiles(store), predictor)
    assert [found.proteins[k].protein.id for k in found.protein_of] == ["C1"]
    reasons = {each.what: each.reason for each in found.left_out}
    assert reasons["N1"].startswith("Sequence 'N1' has 'J'")
    assert reasons["N2"] == "Protein 'N2' has the unknown localization 'cilium'; correct it."
    assert "not known" in reasons["crops without a protein"]
    assert reasons["crops"] == "What they show is in none of the model's classes (plastid)."


def test_leaks_are_reported(predictor, tmp_path):
    store = write_store(tmp_path / "store", train=2, changes={"cluster": pl.lit("one")})
    rows = pl.read_parquet(store / CROPS_INDEX).with_row_index("n")
    first_training = pl.col("n") == 6
    changed = rows.with_columns(
        protein_id=pl.when(first_training).then(pl.lit("N1")).otherwise(pl.col("protein_id")),
        field=pl.when(first_training).then(pl.lit("field0")).otherwise(pl.col("field")),
    )
    replace_index(store, changed.drop("n"))
    notes = " ".join(load_dataset(DatasetFiles(store), predictor).notes)
    assert "1 of the 4 proteins evaluated on have other crops in the split 'train'" in notes
    assert "1 fields have crops in both parts" in notes
    assert "4 of the 4 proteins evaluated on have a homolog" in notes


def test_stand_ins_are_reported_and_groups_are_resampled_instead_of_proteins(predictor, tmp_path):
    store = write_store(tmp_path / "store", train=1)
    change_index(store, stand_in=pl.col("split") == "test", group=pl.lit("one mosaic"))
    found = load_dataset(DatasetFiles(store), predictor)
    assert "6 of 6 crops show a protein that is not known" in found.notes[0]
    assert set(found.groups.tolist()) == {0}


def test_a_table_has_labels_and_no_crops(predictor, tmp_path):
    table = tmp_path / "proteins.csv"
    proteins_table(["N1", "C1"]).write_csv(table)
    found = load_dataset(DatasetFiles(table), predictor)
    assert (len(found.proteins), len(found.rows), found.store) == (2, 0, None)
    assert "no split" in found.notes[0]
    assert found.proteins[0].protein.sequence == sequence("N1")
    proteins_table(["N1", "C1"]).with_columns(split=pl.Series(["test", "train"])).write_csv(table)
    assert [each.protein.id for each in load_dataset(DatasetFiles(table), predictor).proteins] == ["N1"]


def test_errors_in_the_data_are_named(predictor, tmp_path, store):
    with pytest.raises(InputError, match="was not found"):
        load_dataset(DatasetFiles(tmp_path / "none.csv"), predictor)
    (tmp_path / "bad.csv").write_text("protein_id,sequence\nP1,MKV\n")
    with pytest.raises(InputError, match="no column 'localizations'"):
        load_dataset(DatasetFiles(tmp_path / "bad.csv"), predictor)
    with pytest.raises(InputError, match="no protein has the split 'validation'"):
        load_dataset(DatasetFiles(store, split="validation"), predictor)
    unsplit = write_store(tmp_path / "unsplit", train=1)
    change_index(unsplit, split=pl.lit(None, pl.String))
    with pytest.raises(InputError, match="has no split"):
        load_dataset(DatasetFiles(unsplit), predictor)


def test_a_store_may_have_a_column_named_row(predictor, tmp_path):
    """`deepgps data prepare` and `submissions export` write one: the crop's place in its field."""
    store = write_store(tmp_path / "store", train=1)
    change_index(store, row=pl.lit(7))
    found = load_dataset(DatasetFiles(store), predictor)
    assert found.rows.tolist() == [0, 1, 2, 3, 4, 5]
