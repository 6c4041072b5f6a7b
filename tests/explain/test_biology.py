"""Changes whose effect is known: where the signal must change, and where the bundled model must follow.

The shipped model follows the strong signals of the termini. It does not follow an NES or a lost CAAX in a
protein with annotated relatives; then it must say that it cannot tell, in the same words.
"""

import pytest

from deepgps.explain.changes import Variant
from deepgps.explain.variants import CANNOT_TELL, summary
from deepgps.prediction import Predictor
from known_proteins import CALR, COX8A, EGFP, NPM1, NPM1C


@pytest.fixture(scope="module")
def predictor():
    return Predictor.load(threads=1)


def kinds(signals):
    return {each.kind for each in signals}


def compare(predictor, sequence, *variants):
    compared = predictor.variants(sequence, variants, images=False)
    changes = [dict(zip(compared.classes, each.change.tolist(), strict=True)) for each in compared.effects]
    return compared, changes


def test_a_presequence_moves_green_fluorescent_protein_to_mitochondria(predictor):
    compared, [change] = compare(predictor, EGFP, "n+MT")
    [effect] = compared.effects
    assert effect.localizations == ("mitochondria",)
    assert change["mitochondria"] > 0.5
    assert kinds(effect.gained) == {"MT"}


def test_without_its_presequence_cox8a_is_less_mitochondrial(predictor):
    compared, [change] = compare(predictor, COX8A, "2-29del")
    assert change["mitochondria"] < -0.1
    assert "MT" in kinds(compared.effects[0].lost)


def test_a_signal_peptide_leads_out_and_kdel_keeps_in_the_er(predictor):
    compared, [out, kept] = compare(predictor, EGFP, "n+SP", "n+SP,c+KDEL")
    assert out["extracellular"] > 0.15
    assert kept["er"] > out["er"] + 0.15
    assert kept["extracellular"] < out["extracellular"]
    assert [kinds(each.gained) for each in compared.effects] == [{"SP"}, {"SP", "ER"}]


def test_calreticulin_without_kdel_is_more_secreted(predictor):
    compared, [change] = compare(predictor, CALR, "414-417del")
    assert kinds(compared.effects[0].lost) == {"ER"}
    assert change["extracellular"] > 0
    assert change["er"] < 0


def test_skl_leads_to_vesicles_and_caax_to_the_membrane(predictor):
    compared, [peroxisome, membrane] = compare(predictor, EGFP, "c+SKL", "c+CAAX")
    assert peroxisome["vesicles"] == max(peroxisome.values())
    assert membrane["membrane"] == max(membrane.values())
    assert [kinds(each.gained) for each in compared.effects] == [{"PTS"}, {"LIPID"}]


def test_an_nls_on_green_fluorescent_protein_leads_in_and_its_mutation_back(predictor):
    def share(change):
        return change["nucleoplasm"] - change["cytoplasmic"]

    compared, [added, mutated] = compare(predictor, EGFP, "n+NLS", "n+PTTTTTV")
    assert kinds(compared.effects[0].gained) == {"NLS"}
    assert kinds(compared.effects[1].gained) == set()
    assert share(added) > 0
    assert share(added) > share(mutated)


def test_npm1_mutant_c_gains_an_nes_that_the_model_does_not_follow(predictor):
    compared, _ = compare(predictor, NPM1, Variant("mutant c", NPM1C))
    [effect] = compared.effects
    assert kinds(effect.gained) == {"NES"}
    follows = "cytoplasmic" in effect.localizations and compared.strength(effect) > 1
    assert follows or CANNOT_TELL in summary(compared, effect)


def test_lamin_a_without_caax_loses_its_lipid_anchor_and_progerin_keeps_it(predictor, shared_data):
    import csv
    import gzip

    with gzip.open(shared_data / "sequences" / "human_proteome.csv.gz", "rt", encoding="utf-8") as lines:
        lamin = next(row["sequence"] for row in csv.DictReader(lines) if row["gene_symbol"] == "LMNA")
    compared, _ = compare(predictor, lamin, "661-664del", "V607_Q656del")
    without, progerin = compared.effects
    assert kinds(without.lost) == {"LIPID"}
    assert progerin.lost == ()
    assert compared.strength(without) > 1 or CANNOT_TELL in summary(compared, without)


def test_the_same_seed_and_cell_show_the_variant_beside_the_original(predictor):
    compared = predictor.variants(EGFP, ["n+MT", "M1="])
    moved, same = compared.effects
    assert same.image_change == pytest.approx(0, abs=1e-6)
    assert moved.image_change > max(compared.image_floor, 1e-3)
    assert moved.image.shape == compared.image.shape
