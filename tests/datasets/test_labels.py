import gzip

import numpy as np
import pytest

from deepgps.datasets.labels import LabelledProteins, load_labelled_proteins
from deepgps.errors import InputError
from deepgps.localization import CLASS_SETS

RNG = np.random.default_rng(1)


def random_protein(length: int = 120) -> str:
    return "".join(RNG.choice(list("ACDEFGHIKLMNPQRSTVWY"), length))


A, B, C, D = (random_protein() for _ in range(4))
TABLES = {
    "opencell_targets": (
        "target_name,uniprot_id,ensg_id,annotations_grade_3,annotations_grade_2,annotations_grade_1,sequence,cluster",
        f"TA,PA,E1,cytoplasmic,er,golgi,{A},1",
        f"TB,PB,E2,,nucleoplasm;vesicles,,{B},2",
        f"TD,PD,E4,,,er,{D},4",
    ),
    "swissprot_localizations": (
        "accession,sequence,localizations,partition,kingdom,membrane,cluster",
        f"SA,{A},Nucleus|Cytoplasm,0,Metazoa,0,1",
        f"SC,{C},Extracellular,0,Metazoa,0,3",
    ),
    "hpa_localizations": (
        "ensembl_gene_id,accession,sequence_source,sequence,cluster,reliability,main_location,additional_location,"
        "enhanced,supported,approved,uncertain",
        f"E1,PA,hou,{A},1,Approved,Cytosol,Nucleoli;Golgi apparatus,,,Cytosol;Nucleoli,Golgi apparatus",
        f"E5,PE,hou,{random_protein()},5,Uncertain,Vesicles,,,,,Vesicles",
    ),
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "sequences").mkdir()
    for name, lines in TABLES.items():
        with gzip.open(tmp_path / "sequences" / f"{name}.csv.gz", "wt") as file:
            file.write("\n".join(lines))
    return tmp_path


@pytest.fixture
def proteins(folder) -> LabelledProteins:
    return load_labelled_proteins(folder, CLASS_SETS["mini"])


def label(proteins: LabelledProteins, row: int, slug: str) -> float | None:
    column = proteins.slugs.index(slug)
    return float(proteins.labels[row, column]) if proteins.mask[row, column] else None


def test_one_row_per_sequence_from_all_tables(proteins):
    assert proteins.ids.tolist() == ["PA", "PB", "SC", "PE"]
    assert proteins.source.tolist() == ["opencell+swissprot+hpa", "opencell", "swissprot", "hpa"]
    assert proteins.cluster.tolist() == [1, 2, 3, 5]


def test_labels_are_1_if_tables_agree_else_the_weighted_mean(proteins):
    assert label(proteins, 0, "cytoplasmic") == 1
    assert label(proteins, 0, "nucleoplasm") == pytest.approx(1 / 2.7)


def test_views_have_the_labels_of_their_tables(proteins):
    column = proteins.slugs.index("nucleoplasm")
    assert proteins.view_labels[0, :, column].tolist() == [0, 1]
    assert proteins.view_mask[1, :, column].tolist() == [True, False]


def test_a_subset_keeps_rows_together(proteins):
    part = proteins.subset(np.array([False, True, False, True]))
    assert part.ids.tolist() == ["PB", "PE"]
    assert part.sequences == (B, proteins.sequences[3])
    np.testing.assert_array_equal(part.view_mask, proteins.view_mask[[1, 3]])
    assert part.slugs == proteins.slugs


def test_minor_grades_are_unknown(proteins):
    assert label(proteins, 1, "nucleoplasm") == label(proteins, 1, "vesicles") == 1
    assert label(proteins, 1, "er") == 0
    # OpenCell's minor grade and HPA's uncertain location give no label; the other tables do.
    assert label(proteins, 0, "golgi") == 0
    assert "PD" not in proteins.ids


def test_localizations_unknown_to_a_table_are_masked(proteins):
    assert label(proteins, 1, "extracellular") is None
    assert label(proteins, 2, "extracellular") == 1
    assert label(proteins, 0, "nucleolus") == pytest.approx(
        0.7 / 1.7
    )  # Swiss-Prot's "Nucleus" does not decide it


def test_uncertain_rows_have_a_low_weight(proteins):
    assert label(proteins, 3, "vesicles") == 1
    assert proteins.weight.tolist() == pytest.approx([1, 1, 1, 0.3])


def test_a_missing_table_is_named(folder):
    (folder / "sequences" / "hpa_localizations.csv.gz").unlink()
    with pytest.raises(InputError, match="hpa_localizations"):
        load_labelled_proteins(folder, CLASS_SETS["mini"])


def test_real_tables(shared_data):
    real = load_labelled_proteins(shared_data, CLASS_SETS["mini"])
    assert len(set(real.sequences)) == len(real) > 30_000
    assert (real.labels[~real.mask] == 0).all()
    assert real.mask.any(1).all()
