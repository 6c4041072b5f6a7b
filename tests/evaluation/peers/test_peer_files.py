"""Output files of other tools are told apart and read."""

import numpy as np
import pytest

from deepgps.errors import InputError
from deepgps.evaluation.peers.classes import PEERS
from deepgps.evaluation.peers.files import accession, read_peer

DEEPLOC_2 = (
    "Protein_ID,Localizations,Signals,Cytoplasm,Nucleus,Extracellular,Cell membrane,Mitochondrion,Plastid,"
    "Endoplasmic reticulum,Lysosome/Vacuole,Golgi apparatus,Peroxisome\n"
    "P1,Cytoplasm|Nucleus,Nuclear localization signal,0.61,0.70,0.01,0.02,0.03,0,0.1,0.1,0.1,0\n"
    "sp|P68363|TBA1B_HUMAN,Lysosome/Vacuole,,0.2,0.1,0.1,0.2,0.1,0.1,0.2,0.7,0.3,0.1\n"
)
DEEPLOC_2_1 = (
    "Protein_ID,Localizations,Signals,Membrane types,Cytoplasm,Nucleus,Peripheral,Transmembrane,Soluble\n"
    "P1,Nucleus,,Soluble,0.2,0.8,0.1,0.2,0.9\n"
)
DEEPLOC_1 = (
    "ID\tLocation\tMembrane\tNucleus\tCytoplasm\tExtracellular\tMitochondrion\tCell_membrane\t"
    "Endoplasmic_reticulum\tPlastid\tGolgi_apparatus\tLysosome/Vacuole\tPeroxisome\n"
    "P1\tNucleus\t0.9\t0.8\t0.1\t0\t0\t0.1\t0\t0\t0\t0\t0\n"
)
DEEPLOC_1_WEB = (
    "Entry ID,Localization,Type,Nucleus,Cytoplasm,Extracellular,Mitochondrion,Cell_membrane,"
    "Endoplasmic_reticulum,Plastid,Golgi_apparatus,Lysosome/Vacuole,Peroxisome\n"
    "P1,Cytoplasm,Soluble,0.2,0.7,0,0,0.1,0,0,0,0,0\n"
)
MULTILOC2 = (
    "MultiLoc2 Prediction Result\n\npredictor = MultiLoc2 (LowRes)\norigin = animal\n\n"
    "P1\tnuclear: 0.83\tcytoplasmic: 0.15\tmitochondrial: 0.01\tsecretory pathway: 0.01\n"
    "P2\tsecretory pathway: 0.6\tcytoplasmic: 0.2\tmitochondrial: 0.1\tnuclear: 0.1\n"
)
MULOCDEEP = (
    ">P1:\tNucleus:0.91\tCytoplasm:0.62\tSecreted:0.01\tMitochondrion:0.01\tMembrane:0.02\tEndoplasmic:0.0\t"
    "Plastid:0.0\tGolgi_apparatus:0.01\tLysosome:0.0\tPeroxisome:1e-3\tNucleus Cytoplasm\n"
)
BUSCA = (
    "Accession,GO-id,GO-term,Score\nP1,GO:0005634,C:nucleus,0.8\n"
    "P2,GO:0005886,C:plasma membrane,0.6\nP2,GO:0012505,C:endomembrane system,0.5\n"
)
LAPROTT5 = (
    "identifier,Cell.membrane,Cytoplasm,Endoplasmic.reticulum,Golgi.apparatus,Lysosome/Vacuole,Mitochondrion,"
    "Nucleus,Peroxisome,Plastid,Extracellular\nP1,0,0.3,0,0,0,0,0.7,0,0,0\n"
)


@pytest.fixture
def read(tmp_path):
    def of(text):
        path = tmp_path / "peer.txt"
        path.write_text(text, encoding="utf-8")
        return read_peer(path)

    return of


def named(found, row=0):
    return [name for name, yes in zip(found.classes, found.predicted[row], strict=True) if yes]


def test_deeploc_2(read):
    found = read(DEEPLOC_2)
    assert found.tool == "DeepLoc 2"
    assert found.proteins == ("P1", "P68363")
    assert found.classes == PEERS["DeepLoc 2"]
    assert found.probabilities[0, :2].tolist() == [0.61, 0.70]
    assert named(found) == ["Cytoplasm", "Nucleus"]
    assert named(found, 1) == ["Lysosome/Vacuole"]


def test_the_membrane_types_of_deeploc_2_1_are_no_places(read):
    found = read(DEEPLOC_2_1)
    assert (found.tool, found.classes) == ("DeepLoc 2", ("Cytoplasm", "Nucleus"))


@pytest.mark.parametrize(("text", "says"), [(DEEPLOC_1, "Nucleus"), (DEEPLOC_1_WEB, "Cytoplasm")])
def test_deeploc_1_and_its_membrane_column(read, text, says):
    found = read(text)
    assert found.tool == "DeepLoc 1.0"
    assert len(found.classes) == 10
    assert "Membrane" not in found.classes
    assert named(found) == [says]


def test_multiloc2_in_whatever_order(read):
    found = read(MULTILOC2)
    assert found.tool == "MultiLoc2"
    assert sorted(found.classes) == sorted(each.lower() for each in PEERS["MultiLoc2"])
    assert found.proteins == ("P1", "P2")
    chance = dict(zip(found.classes, found.probabilities[1], strict=True))
    assert chance == {"nuclear": 0.1, "cytoplasmic": 0.2, "mitochondrial": 0.1, "secretory pathway": 0.6}
    assert named(found, 1) == ["secretory pathway"]


def test_mulocdeep(read):
    found = read(MULOCDEEP)
    assert (found.tool, found.proteins) == ("MULocDeep", ("P1",))
    assert found.classes == PEERS["MULocDeep"]
    assert named(found) == ["Nucleus", "Cytoplasm"]
    assert found.probabilities[0, -1] == 0.001


def test_busca_names_only_and_several_rows_are_one_protein(read):
    found = read(BUSCA)
    assert (found.tool, found.proteins) == ("BUSCA", ("P1", "P2"))
    assert found.probabilities is None
    assert named(found, 1) == ["endomembrane system", "plasma membrane"]


def test_laprott5_and_any_table(read):
    found = read(LAPROTT5)
    assert found.classes == PEERS["LAProtT5"]
    assert named(found) == ["Nucleus"]
    semicolons = read("id;nucleoplasm;Golgi;er\nP1;0.1;0.3;0.6\n")
    assert semicolons.classes == ("nucleoplasm", "Golgi", "er")
    assert named(semicolons) == ["er"]
    assert read("protein,location\nP1,Nucleus;Cytosol\n").predicted.tolist() == [[True, True]]


def test_probabilities_are_of_our_own_table_too(read):
    found = read("protein_id,true,p_cytoplasmic,p_nucleoplasm\nP1,cytoplasmic,0.75,0.25\n")
    np.testing.assert_array_equal(found.probabilities, [[0.75, 0.25]])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a,b\n1,2\n", "is not the output of a known tool"),
        ("id,weight\nP1,2\n", "neither a column of probabilities"),
        ("id,Nucleus\nP1,2\n", "has '2' for 'Nucleus' of protein 'P1'"),
        ("id,Nucleus\nP1,n/a\n", "has 'n/a' for 'Nucleus'"),
        ("id,Nucleus\nP1,nan\n", "has 'nan' for 'Nucleus'"),
        ("id,Nucleus\nP1,1\nP2,0\nP1,1\n", "'P1' is in .* 2 times"),
        ("id,Nucleus,Cytoplasm\nP1,1\n", "has a row of 2 cells for 3 columns, 'P1 …'"),
        ("id,Nucleus\n", "holds no protein"),
        ("", "is empty"),
        ("id,location\nP1,\n", "'P1' has no localization"),
        ("P1\tnuclear: x\tcytoplasmic: 0.1\n", "has 'x' for 'nuclear'"),
    ],
)
def test_what_is_no_output_is_refused(read, text, says):
    with pytest.raises(InputError, match=says):
        read(text)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("sp|P68363|TBA1B_HUMAN", "P68363"),
        ("tr|A0A087X0K9|X_HUMAN More", "A0A087X0K9"),
        ("sp_P68363-2_TBA1B_HUMAN", "P68363-2"),
        ("ENSG1 gene", "ENSG1"),
        ("my_protein", "my_protein"),
    ],
)
def test_accessions_are_found_in_headers(text, wanted):
    assert accession(text) == wanted
