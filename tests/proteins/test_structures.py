import gzip
import re
import sys

import numpy as np
import pytest

from deepgps.errors import InputError, MissingExtraError
from deepgps.proteins.structures import read_structure, read_structures, sample_points

biotite = pytest.importorskip("biotite.structure")

from structure_files import FORMATS, fold, helix, hetero, mmcif, pdb, save  # noqa: E402

ATOMS = {"C": (1, 0, 0), "N": (0, 1, 0), "O": (0, 0, 1)}


@pytest.fixture(scope="module")
def small():
    return helix(["MET", "ALA", "CYS", "LYS", "ASP", "PHE", "ARG", "GLY"])


@pytest.mark.parametrize("name", ["a.pdb", "a.cif", "a.pdb.gz", "a.cif.gz", "misleading.txt"])
@pytest.mark.parametrize("format", FORMATS)
def test_atoms_become_centred_points_with_their_element(tmp_path, small, name, format):
    cloud = read_structure(save(tmp_path / name, FORMATS[format](small)))
    kept = small[small.element != "S"]
    assert cloud.points.shape == (len(kept), 6)
    assert cloud.points.dtype == np.float32
    assert [ATOMS[each] for each in kept.element] == [tuple(each) for each in cloud.points[:, 3:]]
    np.testing.assert_allclose(cloud.points[:, :3], kept.coord - kept.coord.mean(0), atol=2e-3)
    np.testing.assert_allclose(cloud.points[:, :3].mean(0), 0, atol=1e-5)
    assert cloud.notes == (f"Only C, N and O of structure '{name}' were read; left out: 2 S.",)


@pytest.mark.parametrize("residues", [25, 140])
def test_both_formats_give_the_same_cloud(tmp_path, residues):
    atoms = fold(residues)
    clouds = [read_structure(save(tmp_path / f"a.{each}", write(atoms))) for each, write in FORMATS.items()]
    np.testing.assert_array_equal(clouds[0].points, clouds[1].points)


def test_a_full_size_structure_is_read_whole(tmp_path):
    atoms = fold(2700)
    cloud = read_structure(save(tmp_path / "AF-P1-F1-model_v6.pdb", pdb(atoms, declared=2700)))
    assert len(cloud.points) == (atoms.element != "S").sum() > 15_000
    spread = np.ptp(cloud.points[:, :3], axis=0)
    np.testing.assert_allclose(spread, np.ptp(atoms.coord[atoms.element != "S"], axis=0), atol=0.01)
    assert sample_points(cloud.points, 2048).shape == (2048, 6)


def test_atoms_outside_the_protein_are_left_out_and_counted(tmp_path, small):
    selenium = hetero(["SE"], ["SE"], "MSE")
    water, dna = hetero(["O"] * 3, ["O"] * 3, "HOH"), hetero(["P", "C1'"], ["P", "C"], "DA", "B")
    hydrogens = small[small.atom_name == "CB"]
    hydrogens.atom_name[:], hydrogens.element[:] = "HB1", "H"
    atoms = biotite.concatenate([small, hydrogens, selenium, water, dna])
    atoms = atoms[np.argsort(atoms.res_id, kind="stable")]
    for format, write in FORMATS.items():
        cloud = read_structure(save(tmp_path / f"a.{format}", write(atoms)))
        assert len(cloud.points) == (small.element != "S").sum()
        assert cloud.notes == (
            f"Only C, N and O of structure 'a.{format}' were read; "
            "left out: 7 H, 2 S, 1 SE, 5 outside the protein.",
        )


def test_a_structure_without_other_atoms_has_no_notes(tmp_path):
    assert read_structure(save(tmp_path / "a.pdb", pdb(helix(["ALA", "LYS"] * 5)))).notes == ()


def test_a_bare_backbone_is_read_and_noted(tmp_path, small):
    backbone = small[np.isin(small.atom_name, ["N", "CA", "C", "O"])]
    cloud = read_structure(save(tmp_path / "a.pdb", pdb(backbone)))
    assert len(cloud.points) == 4 * 8
    assert cloud.notes == (
        "Structure 'a.pdb' has little more than its backbone; side chains seem to be missing.",
    )


@pytest.mark.parametrize("format", FORMATS)
def test_of_several_models_the_first_is_read(tmp_path, format):
    first = helix(["ALA", "LYS", "ARG"])
    second = first.copy()
    second.coord = second.coord * 3
    both = biotite.stack([first, second])
    cloud = read_structure(save(tmp_path / f"two.{format}", FORMATS[format](both)))
    alone = read_structure(save(tmp_path / f"one.{format}", FORMATS[format](first)))
    np.testing.assert_array_equal(cloud.points, alone.points)
    assert cloud.notes == (f"Structure 'two.{format}' has 2 models; the first was read.",)


def test_missing_elements_are_read_from_the_atom_name(tmp_path, small):
    text = "\n".join(
        line[:76] + "    " if line.startswith("ATOM") else line for line in pdb(small).split("\n")
    )
    cloud = read_structure(save(tmp_path / "a.pdb", text))
    np.testing.assert_array_equal(cloud.points, read_structure(save(tmp_path / "b.pdb", pdb(small))).points)


def refused(path, text=None):
    if text is not None:
        save(path, text)
    with pytest.raises(InputError) as error:
        read_structure(path)
    return str(error.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is empty; make or fetch it again."),
        (" \n\n", "is empty; make or fetch it again."),
        (">P1\nMKTAYIAKQR\n", "is neither PDB nor mmCIF; give one of them, plain or gzip."),
        ("<html>ATOM</html>", "is neither PDB nor mmCIF"),
        ("HEADER    A PROTEIN\nEND\n", "is neither PDB nor mmCIF"),
        ("data_x\n_cell.length_a 1\n", "is damaged or incomplete (Missing 'atom_site' category in file)"),
        ("data_x\nloop_\n_atom_site.id\n_atom_site.Cartn_x\n1 2\n3\n", "is damaged or incomplete (Failed"),
        # The reason is biotite's, and differs between its versions.
        ("ATOM      1  N   MET A   1      26.2", "is damaged or incomplete ("),
    ],
)
def test_files_that_hold_no_structure_are_refused(tmp_path, text, sentence):
    assert refused(tmp_path / "a.pdb", text).startswith(f"Structure 'a.pdb' {sentence}")


def test_a_number_that_is_none_is_refused(tmp_path, small):
    for format, write in FORMATS.items():
        line = next(line for line in write(small).split("\n") if line.startswith("ATOM") and " O " in line)
        for number in (" nan ", " inf ", "*****", " 1e39"):
            place = re.search(r" -?\d\.\d+ ", line)
            broken = line[: place.start()] + number.ljust(len(place[0])) + line[place.end() :]
            text = write(small).replace(line, broken)
            assert "is damaged or incomplete (" in refused(tmp_path / f"a.{format}", text)


@pytest.mark.parametrize("format", FORMATS)
def test_structures_of_other_than_one_whole_protein_are_refused(tmp_path, small, format):
    write, path = FORMATS[format], tmp_path / f"a.{format}"
    dna = hetero(["P", "O5'", "C5'"], ["P", "O", "C"], "DA")
    assert refused(path, write(dna)).endswith("has no amino acids; give that of a protein.")
    trace = refused(path, write(small[small.atom_name == "CA"]))
    assert trace.endswith("has 1.0 C, N and O per residue; give one with all its atoms.")
    chains = biotite.concatenate([small, helix(["LYS"] * 3, "B")])
    assert refused(path, write(chains)).endswith("has 2 protein chains (A, B); give a single protein.")


@pytest.mark.parametrize("format", FORMATS)
def test_a_prediction_must_have_all_residues_but_an_experiment_need_not(tmp_path, small, format):
    text = FORMATS[format](small, declared=9)
    sentence = refused(tmp_path / f"AF-P1-F1-model_v6.{format}", text)
    assert sentence.endswith("has 8 of the 9 residues of its sequence; fetch it again.")
    assert len(read_structure(save(tmp_path / f"1abc.{format}", text)).points)
    whole = FORMATS[format](small, declared=8)
    assert len(read_structure(save(tmp_path / f"AF-P1-F1-model_v6.{format}", whole)).points)


@pytest.mark.parametrize(
    "name", ["AF-Q8WZ42-F2-model_v4.pdb", "af-q8wz42-f13-model_v4.cif.gz", "AF-P1-2-F2.cif"]
)
def test_a_fragment_is_refused(tmp_path, small, name):
    assert "of a longer protein; only complete proteins are read." in refused(tmp_path / name, pdb(small))


def test_files_that_cannot_be_read_are_refused(tmp_path, small):
    assert refused(tmp_path / "no.pdb").endswith("no.pdb' was not found; check its name and folder.")
    assert refused(tmp_path).endswith("cannot be read: Is a directory.")
    (tmp_path / "cut.pdb.gz").write_bytes(gzip.compress(pdb(small).encode())[:-40])
    assert "'cut.pdb.gz' is a damaged or incomplete gzip (" in refused(tmp_path / "cut.pdb.gz")


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_cut_anywhere_is_refused_or_noticed_as_incomplete(tmp_path, small, format):
    text = FORMATS[format](small, declared=8)
    last = text.rindex("ATOM") - 81 * 3
    for size in np.linspace(1, last, 60).astype(int):
        assert refused(tmp_path / f"AF-P1-F1-model_v6.{format}", text[:size])


def test_bytes_of_any_kind_are_refused_with_a_sentence(tmp_path, small):
    rng = np.random.default_rng(0)
    for number in range(60):
        good = bytearray(FORMATS[("pdb", "cif")[number % 2]](small).encode())
        for place in rng.integers(len(good), size=1 + number):
            good[place] = rng.integers(256)
        (tmp_path / "a.pdb").write_bytes(good)
        try:
            assert np.isfinite(read_structure(tmp_path / "a.pdb").points).all()
        except InputError as error:
            assert str(error).startswith("Structure 'a.pdb' ")
            assert "\n" not in str(error)


def test_without_biotite_the_error_names_the_extra(tmp_path, small, monkeypatch):
    path = save(tmp_path / "a.pdb", pdb(small))
    monkeypatch.setitem(sys.modules, "biotite.structure.io.pdb", None)
    with pytest.raises(MissingExtraError, match=r"'biotite.*not installed: pip install 'deepgps\[train\]'"):
        read_structures(path.parent, ["a"])


def numbered(count):
    return np.repeat(np.arange(count, dtype=np.float32)[:, None], 6, 1)


def test_of_more_points_each_is_sampled_once(tmp_path):
    sampled = sample_points(numbered(1000), 300)[:, 0]
    assert len(set(sampled.tolist())) == 300
    assert 400 < sampled.mean() < 600


def test_of_fewer_points_all_are_sampled_some_repeatedly():
    sampled, counts = np.unique(sample_points(numbered(100), 260)[:, 0], return_counts=True)
    assert len(sampled) == 100
    assert counts.sum() == 260
    assert counts.max() > 2


def test_of_exactly_enough_points_all_are_sampled():
    assert sorted(sample_points(numbered(50), 50)[:, 0]) == list(range(50))


@pytest.mark.parametrize("count", [30, 300])
def test_the_same_seed_takes_the_same_points(count):
    points = numbered(100)
    first = sample_points(points, count, seed=3)
    np.random.default_rng(3).random(5)
    np.testing.assert_array_equal(first, sample_points(points, count, seed=3))
    assert not np.array_equal(first, sample_points(points, count, seed=4))
    np.testing.assert_array_equal(points, numbered(100))


@pytest.mark.parametrize(("points", "count"), [(0, 10), (10, 0), (10, -1)])
def test_no_points_are_refused(points, count):
    with pytest.raises(ValueError, match="both numbers must be positive"):
        sample_points(numbered(points), count)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, small):
    """As a fetch leaves it, a lab's own beside it."""
    root = tmp_path_factory.mktemp("raw")
    inner = root / "structures"
    inner.mkdir()
    old = helix(["ALA", "LYS", "ARG"])
    save(inner / "AF-P00001-F1-model_v4.pdb", pdb(old))
    save(inner / "AF-P00001-F1-model_v10.cif", mmcif(small))
    save(inner / "AF-P00001-2-F1-model_v10.cif", mmcif(old))
    save(inner / "AF-P00002-F1-model_v4.pdb.gz", pdb(small))
    save(inner / "AF-P00003-F1-model_v4.pdb", pdb(small))
    save(inner / "AF-P00003-F2-model_v4.pdb", pdb(small))
    save(inner / "AF-P00004-F1-model_v4.pdb", "HEADER\n")
    save(root / "P00005.cif", mmcif(small))
    save(root / "structures.csv", "accession\n")
    return root


def test_structures_are_found_by_accession(folder, small):
    wanted = ["P00005", "P00001", "p00002", "P00001-2"]
    found, missing = read_structures(folder, wanted)
    assert list(found) == wanted
    assert missing == {}
    expected = (small.element != "S").sum()
    assert [len(cloud.points) for cloud in found.values()][:3] == [expected] * 3
    assert len(found["P00001-2"].points) < expected


def test_missing_structures_are_listed_each_with_its_reason(folder):
    found, missing = read_structures(str(folder), ["P00005", "P00003", "P00004", "P00006"])
    assert list(found) == ["P00005"]
    assert missing == {
        "P00003": f"'P00003' is in '{folder}' as fragments (up to F2), like other long proteins; "
        "only complete proteins are read.",
        "P00004": "Structure 'AF-P00004-F1-model_v4.pdb' is neither PDB nor mmCIF; "
        "give one of them, plain or gzip.",
        "P00006": f"There is no structure of 'P00006' in '{folder}'; "
        "fetch it with deepgps data fetch structures.",
    }


def test_a_folder_that_is_none_is_refused(folder):
    for path in (folder / "no", folder / "P00005.cif"):
        with pytest.raises(InputError, match=r"is not a folder of structures; check its name\."):
            read_structures(path, ["P00001"])


@pytest.mark.parametrize("ids", ["AB", "12", "B1"])
def test_the_first_alternative_location_is_read_whatever_its_name(tmp_path, small, ids):
    lines = []
    for line in pdb(small).splitlines():
        if line[12:16] == " CA ":
            moved = f"{float(line[30:38]) + 2:8.3f}"
            lines += [line[:16] + ids[0] + line[17:], line[:16] + ids[1] + line[17:30] + moved + line[38:]]
        else:
            lines.append(line)
    found = read_structure(save(tmp_path / "a.pdb", "\n".join(lines) + "\n"))
    known = read_structure(save(tmp_path / "b.pdb", pdb(small)))
    np.testing.assert_allclose(found.points, known.points, atol=1e-3)


@pytest.mark.parametrize("format", FORMATS)
def test_a_byte_order_mark_does_no_harm(tmp_path, small, format):
    found = read_structure(save(tmp_path / f"a.{format}", "\ufeff" + FORMATS[format](small)))
    known = read_structure(save(tmp_path / f"b.{format}", FORMATS[format](small)))
    np.testing.assert_array_equal(found.points, known.points)
    assert len(found.notes) == len(known.notes)


@pytest.mark.parametrize("item", ["pdbx_PDB_model_num", "pdbx_PDB_ins_code", "type_symbol", "label_alt_id"])
def test_items_that_mmcif_does_not_demand_may_be_missing(tmp_path, small, item):
    import io

    from biotite.structure.io.pdbx import CIFFile

    file = CIFFile.read(io.StringIO(mmcif(small)))
    if item in file.block["atom_site"]:
        del file.block["atom_site"][item]
    with io.StringIO() as text:
        file.write(text)
        found = read_structure(save(tmp_path / "a.cif", text.getvalue()))
    known = read_structure(save(tmp_path / "b.cif", mmcif(small)))
    np.testing.assert_array_equal(found.points, known.points)
