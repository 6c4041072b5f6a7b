import json

import numpy as np
import polars as pl
import pytest

from conftest import replace_index
from deepgps.datasets.crops.store import CROPS_MANIFEST, PROTEINS
from deepgps.datasets.splits import SPLIT_FILE, read_split
from deepgps.errors import InputError
from deepgps.training.joint.data import load_training_data
from joint_store import PLACES, SIZE, UM, protein, proteins, recipe, write_store
from structure_files import helix, pdb, save

OTHERS = [
    protein(60, "er|vesicles"),
    protein(61, "cytoplasmic", single_localized=False, single_2=None),
    protein(62, "golgi"),
    protein(63, "cytoplasmic", sequence=None),
    protein(64, "nucleoplasm", cell_line="U-2 OS"),
    protein(65, "cytoplasmic", sequence="MKT*AAAAAAAAAA"),
    protein(66, "cytoplasmic", single_2=None),
]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("store"), [*proteins(), *OTHERS])


def reasons(data):
    return dict(data.left_out)


def test_single_localized_proteins_of_the_classes_train_and_the_others_are_listed(store):
    data = load_training_data(recipe(cell_line="hek293t"), store)
    assert data.classes == ("cytoplasmic", "nucleoplasm")
    assert data.protein_ids == tuple(row["protein_id"] for row in proteins() if row["single_2"])
    assert data.targets.dtype == np.float32
    expected = [PLACES.index(row["localizations"]) for row in proteins() if row["single_2"]]
    np.testing.assert_array_equal(data.targets.argmax(1), expected)
    np.testing.assert_array_equal(data.targets.sum(1), 1)
    assert list(data.split) == list(data.protein_ids)
    said = reasons(data)
    assert set(said) | set(data.protein_ids) == {row["protein_id"] for row in [*proteins(), *OTHERS]}
    assert said["ENSG060"] == "It is multi-localized (er, vesicles), and 'single-2' takes one."
    assert said["ENSG061"].startswith("It is multi-localized (cytoplasmic)")
    assert said["ENSG062"] == "It is in no class of 'single-2' (golgi)."
    assert said["ENSG063"] == "It has no sequence."
    assert said["ENSG064"] == "Its crops are of other cells than hek293t (U-2 OS)."
    assert said["ENSG065"].startswith("Sequence 'ENSG065' has '*' at residue 4")
    assert said["ENSG066"] == "It is in no class of 'single-2' (cytoplasmic)."


def test_rows_are_the_crops_of_the_proteins_of_a_part(store):
    data = load_training_data(recipe(), store)
    index = data.store.index
    assert set(data.rows) == {"train", "validation", "test"}
    for part, rows in data.rows.items():
        assert rows.dtype == np.int64
        assert len(rows)
        shown = [data.protein_ids[number] for number in data.protein_of_row[rows]]
        assert shown == index[rows.tolist()]["protein_id"].to_list()
        assert {data.split[id] for id in shown} == {part}
    used = np.sort(np.concatenate(list(data.rows.values())))
    np.testing.assert_array_equal(used, np.flatnonzero(data.protein_of_row >= 0))
    assert set(index["protein_id"].to_numpy()[data.protein_of_row < 0]) == set(reasons(data))


def test_the_test_part_validates_if_asked(store):
    usual, as_paper = (
        load_training_data(recipe(split={"validate_on": part}), store) for part in ("validation", "test")
    )
    np.testing.assert_array_equal(as_paper.rows["validation"], usual.rows["test"])
    np.testing.assert_array_equal(as_paper.rows["test"], usual.rows["test"])
    both = np.union1d(usual.rows["train"], usual.rows["validation"])
    np.testing.assert_array_equal(as_paper.rows["train"], both)
    assert set(as_paper.split.values()) == {"train", "test"}


def test_a_set_of_several_classes_takes_the_multi_localized_too(store):
    data = load_training_data(recipe(class_set="all"), store)
    row = data.protein_ids.index("ENSG060")
    assert {data.classes[k] for k in np.flatnonzero(data.targets[row])} == {"er", "vesicles"}
    assert set(reasons(data)) == {"ENSG063", "ENSG065"}


def test_a_table_without_the_classes_of_a_set_is_judged_by_its_localizations(tmp_path):
    rows = [{name: row[name] for name in ("protein_id", "localizations", "sequence")} for row in proteins()]
    store = write_store(tmp_path, proteins())
    pl.DataFrame(rows).write_parquet(store / PROTEINS)
    data = load_training_data(recipe(class_set="single-4"), store)
    assert len(data.protein_ids) == len(rows)
    assert data.accessions[3] == "P00003"


def test_one_protein_in_two_cell_lines_trains_on_the_crops_of_the_one_asked_for(tmp_path):
    store = write_store(tmp_path, proteins())
    index = pl.read_parquet(store / "index.parquet")
    lines = ["U-2 OS" if number % 3 else "HEK293T" for number in range(len(index))]
    replace_index(store, index.with_columns(pl.Series("cell_line", lines)))
    data = load_training_data(recipe(cell_line="U2OS"), store)
    used = np.concatenate(list(data.rows.values()))
    assert set(np.array(lines)[used]) == {"U-2 OS"}
    assert len(used) == 2 * len(data.protein_ids)


def test_the_split_given_comes_before_that_of_the_store_and_that_before_one_made(store, tmp_path):
    own = write_store(tmp_path / "store", proteins())
    made = load_training_data(recipe(), own).split
    assert made == load_training_data(recipe(), own).split
    ids = list(made)
    lines = [f"{id},{'validation' if number % 4 == 0 else 'train'}" for number, id in enumerate(ids[2:])]
    (own / SPLIT_FILE).write_text("\n".join(["protein_id,split", *lines]) + "\n")
    data = load_training_data(recipe(), own)
    assert {**data.split} == read_split(own / SPLIT_FILE)
    assert reasons(data)[ids[0]] == "It is in no part of the split."
    assert len(data.rows["test"]) == 0
    other = tmp_path / "other.csv"
    other.write_text("protein_id,split\n" + "".join(f"{id},{made[id]}\n" for id in ids))
    assert load_training_data(recipe(), own, split=other).split == made


def test_the_split_made_is_that_of_the_command(store, tmp_path):
    from deepgps.cli.app import run

    assert run(["data", "split", str(store), "--out", str(tmp_path / SPLIT_FILE)]) == 0
    made = load_training_data(recipe(), store).split
    assert made.items() <= read_split(tmp_path / SPLIT_FILE).items()


def test_clusters_stay_together(tmp_path):
    rows = [row | {"cluster": number // 4} for number, row in enumerate(proteins(24, PLACES[:2]))]
    rows[0]["cluster"] = None
    data = load_training_data(recipe(split={"by": "cluster"}), write_store(tmp_path, rows))
    parts = {}
    for row in rows[1:]:
        assert (
            parts.setdefault(row["cluster"], data.split[row["protein_id"]]) == data.split[row["protein_id"]]
        )
    assert reasons(data) == {"ENSG000": "It is in no part of the split."}


@pytest.fixture(scope="module")
def structures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("structures")
    for number, row in enumerate(proteins()[:-2]):
        text = pdb(helix(["ALA", "LYS", "ARG"] * (number + 2)))
        save(folder / f"AF-{row['accession']}-F1-model_v4.pdb.gz", text)
    (folder / "P00005.pdb").write_text("none")
    return folder


def test_structures_are_sampled_and_missing_ones_listed(store, structures):
    both = recipe(class_set="single-4", protein={"inputs": ["structure"], "structure_points": 32})
    data = load_training_data(both, store, structures=structures)
    assert data.points.shape == (len(data.protein_ids), 32, 6)
    assert data.points.dtype == np.float32
    assert reasons(data)["ENSG022"].startswith("There is no structure of 'P00022' in")
    assert "ENSG005" in data.protein_ids
    again = load_training_data(both, store, structures=structures)
    np.testing.assert_array_equal(data.points, again.points)


def test_a_protein_without_accession_has_no_structure(tmp_path, structures):
    rows = proteins()
    rows[0] |= {"accession": None}
    settings = recipe(
        class_set="single-4", protein={"inputs": ["structure", "sequence"], "encoder": "segments-1"}
    )
    data = load_training_data(settings, write_store(tmp_path, rows), structures=structures)
    assert "no UniProt accession" in reasons(data)["ENSG000"]


def refused(*arguments, **options):
    with pytest.raises(InputError) as error:
        load_training_data(*arguments, **options)
    return str(error.value)


def test_crops_normalised_as_no_users_image_is_are_refused(tmp_path):
    store = write_store(tmp_path, proteins())
    path = store / "manifest.json"
    manifest = json.loads(path.read_text()) | {"inputs": {"settings": {"low": 3.0, "high": 99.8}}}
    path.write_text(json.dumps(manifest))
    load_training_data(recipe(), store)
    manifest["inputs"]["settings"]["high"] = 99.0
    path.write_text(json.dumps(manifest))
    assert "by the percentiles 3 and 99, and nucleus images" in refused(recipe(), store)


def test_what_cannot_be_trained_on_is_refused(store, tmp_path, structures):
    assert refused(recipe(), tmp_path).startswith(f"'{tmp_path}' is not a complete crop store")
    assert refused(recipe(crop={"size_px": 64, "pixel_size_um": UM}), store) == (
        f"Crop store '{store}' has crops of 32 px of 0.8 µm, and recipe 'toy' takes 64 px of 0.8 µm; "
        "prepare it with --size-px 64 --pixel-size-um 0.8."
    )
    assert "takes 32 px of 0.4 µm" in refused(recipe(crop={"size_px": SIZE, "pixel_size_um": UM / 2}), store)
    assert "leave --structures out" in refused(recipe(), store, structures=structures)
    looks = recipe(protein={"inputs": ["structure"]})
    assert "give their folder with --structures" in refused(looks, store)
    said = refused(recipe(cell_line="A-431"), store)
    assert said == (
        f"No protein of crop store '{store}' can be used by recipe 'toy' "
        "('ENSG000': Its crops are of other cells than A-431 (HEK293T).)."
    )


def test_pixel_sizes_with_fewer_digits_are_the_same(tmp_path):
    store = write_store(tmp_path, proteins(), um=0.8002)
    assert json.loads((store / CROPS_MANIFEST).read_text())["pixel_size_um"] == 0.8002
    assert load_training_data(recipe(), store).protein_ids


@pytest.mark.parametrize("part", ["train", "validation"])
def test_a_split_with_nothing_to_learn_or_to_judge_by_is_refused(store, tmp_path, part):
    other = "test" if part == "train" else "train"
    rows = [f"{row['protein_id']},{other}" for row in proteins()]
    path = tmp_path / SPLIT_FILE
    path.write_text("protein_id,split\n" + "\n".join(rows))
    said = refused(recipe(), store, split=path)
    assert said.endswith(f"is in the part '{part}'; give another --split, or more proteins.")


def test_a_class_without_a_protein_to_train_on_is_refused_where_a_protein_has_one(tmp_path):
    store = write_store(tmp_path, proteins(places=PLACES[:3]))
    assert "no training protein of the class 'er'" in refused(recipe(class_set="single-4"), store)
    assert load_training_data(recipe(class_set="all"), store).protein_ids
    # A network that is trained further keeps what it knows of the class.
    assert load_training_data(recipe(class_set="single-4"), store, every_class=False).protein_ids
