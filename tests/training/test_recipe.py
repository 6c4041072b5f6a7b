import pytest

from deepgps.errors import InputError
from deepgps.localization import class_set
from deepgps.training.recipe import load_recipe, shipped_recipes

GOOD = """\
kind: mini
name: toy
version: "1"
class_set: mini
cell_line: none
crop: {size_px: 208, pixel_size_um: 0.2}
"""


@pytest.fixture
def recipe(tmp_path):
    def write(text: str | bytes) -> str:
        path = tmp_path / "toy.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return write


@pytest.mark.parametrize("name", shipped_recipes())
def test_a_shipped_recipe_loads_and_names_a_class_set(name):
    recipe = load_recipe(name)
    assert class_set(recipe.class_set).slugs
    assert sum(recipe.pictures.source_shares.values()) == pytest.approx(1)


def test_mini_ships():
    assert "mini" in shipped_recipes()


def test_a_recipe_is_read_by_path_and_fills_in_defaults(recipe):
    loaded = load_recipe(recipe(GOOD + "pictures: {epochs: 3}\n"))
    assert (loaded.name, loaded.pictures.epochs) == ("toy", 3)
    assert loaded.pictures.batches == type(loaded.pictures)().batches


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (GOOD + "colour: red\n", "field 'colour': Extra inputs are not permitted"),
        (GOOD + "pictures: {epoch: 3}\n", "field 'pictures.epoch': Extra"),
        (GOOD + "labels: {member: 3}\n", "field 'labels.member': Extra"),
        (GOOD + "pictures: {epochs: 0}\n", "field 'pictures.epochs'"),
        (GOOD + "pictures: {batches: many}\n", "field 'pictures.batches'"),
        (GOOD + "pictures: {source_shares: {moon: 1.0}}\n", "field 'pictures.source_shares.moon"),
        (GOOD + "pictures: {source_shares: {hpa_fields: -1}}\n", "field 'pictures.source_shares"),
        (GOOD + "pictures: {widths: []}\n", "field 'pictures.widths'"),
        (GOOD.replace("mini", "maxi"), "field 'class_set'.*'maxi' is unknown .*; use one of all, mini"),
        (GOOD.replace("mini", "single-2"), "field 'class_set'.*'single-2' is .* of one class a protein"),
        (GOOD.replace("208", "210") + "pictures: {margin: 8}\n", "226 px, are no multiple of 16 px"),
        ("name: toy\n", "field 'version': Field required"),
        ("", r"field '\(all of it\)'"),
        ("- a\n- b\n", r"field '\(all of it\)'"),
        ("name: [toy\n", "is not YAML"),
        (b"name: \xff\xfe\n", "is not YAML"),
        (b"\x00\x01\x02", "is not YAML"),
        ("!!python/object/apply:os.system [ls]\n", "is not YAML"),
    ],
)
def test_a_recipe_that_cannot_be_used_says_why(recipe, text, said):
    path = recipe(text)
    with pytest.raises(InputError, match=said) as caught:
        load_recipe(path)
    assert path in str(caught.value)


@pytest.mark.parametrize("name", ["maxi", "", "."])
def test_an_unknown_recipe_lists_the_shipped_ones(name):
    with pytest.raises(InputError, match=r"neither a file nor one of .*mini"):
        load_recipe(name)
