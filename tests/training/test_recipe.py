import pytest

from deepgps.datasets.crops.reference import READERS
from deepgps.errors import InputError
from deepgps.localization import class_set
from deepgps.training.recipe import (
    RECIPE_KINDS,
    JointRecipe,
    MiniRecipe,
    fields,
    load_recipe,
    nearest_field,
    shipped_recipes,
)

GOOD = """\
kind: mini
name: toy
version: "1"
class_set: mini
cell_line: none
crop: {size_px: 208, pixel_size_um: 0.2}
"""
JOINT = """\
kind: joint
name: toy
version: "1"
class_set: single-2
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
    if isinstance(recipe, MiniRecipe):
        assert set(recipe.images.source_shares.model_dump()) == set(READERS)


def test_mini_ships():
    assert isinstance(load_recipe("mini"), MiniRecipe)


def test_a_recipe_is_read_by_path_and_fills_in_defaults(recipe):
    loaded = load_recipe(recipe(GOOD + "images: {grain: {max_epochs: 3}}\n"))
    assert (loaded.name, loaded.images.grain.max_epochs) == ("toy", 3)
    assert loaded.images.grain.batches == type(loaded.images.grain)().batches
    joint = load_recipe(recipe(JOINT + "training: {max_epochs: 3}\n"))
    assert isinstance(joint, JointRecipe)
    assert joint.training == type(joint.training)(max_epochs=3)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (GOOD + "colour: red\n", "has no field 'colour'; the nearest is '"),
        (
            GOOD + "images: {grain: {max_epoch: 3}}\n",
            "no field 'images.grain.max_epoch'; the nearest is 'images.grain.max_epochs'",
        ),
        (GOOD + "labels: {member: 3}\n", "has no field 'labels.member'; the nearest is 'labels.members'"),
        (GOOD + "image: {seed: 3}\n", "has no field 'image'; the nearest is 'images'"),
        (JOINT + "max_epochs: 3\n", "no field 'max_epochs'; the nearest is 'training.max_epochs'"),
        (
            GOOD + "images: {structure: {max_epochs: 0}}\n",
            "field 'images.structure.max_epochs' cannot be 0: Input should be greater",
        ),
        (
            GOOD + "images: {grain: {batches: many}}\n",
            "field 'images.grain.batches' cannot be 'many': .*Batches in an",
        ),
        (GOOD + "images: {source_shares: {moon: 1.0}}\n", "no field 'images.source_shares.moon'"),
        (
            GOOD + "images: {source_shares: {hpa_fields: -1}}\n",
            "field 'images.source_shares.hpa_fields' cannot be -1",
        ),
        (GOOD + "images: {structure: {widths: []}}\n", "field 'images.structure.widths'"),
        (GOOD + "images: {structure: {widths: [12]}}\n", "field 'images.structure.widths.*multiple of 8"),
        (GOOD + "images: {grain: {size_px: 30}}\n", "field 'images.grain.size_px'.*multiple of 4"),
        (GOOD + "images: 3\n", "field 'images' cannot be 3"),
        (
            GOOD.replace("class_set: mini", "class_set: maxi"),
            "field 'class_set'.*'maxi' is unknown .*; use one of all, mini",
        ),
        (
            GOOD.replace("class_set: mini", "class_set: single-2"),
            "field 'class_set'.*'single-2' is .* not multi-label",
        ),
        (GOOD.replace("208", "212"), "a crop, 212 px, is no multiple of 8 px"),
        (JOINT + "model: {fusion: paper}\n", "field 'model': fusion 'paper' takes latent_tokens: 1"),
        (JOINT + "model: {structure_encoder: paper}\n", "structure_encoder 'paper' takes latent_tokens: 1"),
        (
            JOINT + "model: {initialisation: paper}\n",
            "initialisation 'paper' takes fusion: paper",
        ),
        (
            JOINT.replace("single-2", "all") + "losses: {label_softmax: true}\n",
            "losses.label_softmax takes one class a protein, not 'all'; leave it out",
        ),
        (JOINT + "training: {batch_size: 30, accumulate: 4}\n", "yaml': batch_size is no multiple of"),
        ("kind: mini\nname: toy\n", "field 'version': Field required"),
        ("name: toy\n", "has no kind; write 'kind: joint' for a model of the paper"),
        (GOOD.replace("kind: mini", "kind: joynt"), "has the unknown kind 'joynt'; write 'kind: joint'"),
        (GOOD.replace("kind: mini", "kind: [mini]"), "has the unknown kind"),
        ("", "has no fields; write them as 'name: value'"),
        ("- a\n- b\n", "has no fields"),
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
    assert str(caught.value).endswith(".")


@pytest.mark.parametrize("name", ["maxi", "", "."])
def test_an_unknown_recipe_lists_the_shipped_ones(name):
    with pytest.raises(InputError, match=r"neither a file nor one of .*mini"):
        load_recipe(name)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ("training.max_epochs=3", lambda recipe: recipe.training.max_epochs == 3),
        ("training.patience=null", lambda recipe: recipe.training.patience is None),
        ("training.learning_rate=1e-3", lambda recipe: recipe.training.learning_rate == 0.001),
        ("model.widths=[4, 8]", lambda recipe: recipe.model.widths == (4, 8)),
        ("cell_line=U-2 OS", lambda recipe: recipe.cell_line == "U-2 OS"),
        ("protein.encoder=a=b", lambda recipe: recipe.protein.encoder == "a=b"),
        (" split.by = cluster", lambda recipe: recipe.split.by == "cluster"),
        ('version="0.2"', lambda recipe: recipe.version == "0.2"),
        ("losses={mse: 1}", lambda recipe: (recipe.losses.mse, recipe.losses.mae) == (1, 1)),
    ],
)
def test_settings_are_changed(recipe, change, found):
    assert found(load_recipe(recipe(JOINT + "losses: {mae: 2}\n"), [change]))


def test_changes_add_up_and_leave_the_rest(recipe):
    path = recipe(JOINT + "training: {seed: 4}\n")
    training = load_recipe(path, ["training.max_epochs=3", "training.max_epochs=5"]).training
    assert (training.seed, training.max_epochs) == (4, 5)
    assert load_recipe(path).training.max_epochs != 5


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("training.max_epoch=3", "has no field 'training.max_epoch'; the nearest is 'training.max_epochs'."),
        ("epochs=3", "has no field 'epochs'; the nearest is 'training.max_epochs'."),
        ("lr=3", "has no field 'lr'; the nearest is '"),
        ("batchsize=3", "the nearest is 'training.batch_size'."),
        ("name.x=3", "field 'name'"),
        ("training.max_epochs=0", "field 'training.max_epochs' cannot be 0: .*Passes over the training"),
        ("training.max_epochs", "'--set training.max_epochs' is not KEY=VALUE; write it like"),
        ("=3", "is not KEY=VALUE"),
        ("name=[", "is not YAML; put it in quotes"),
        ("kind=mini", "has no field"),
    ],
)
def test_a_change_that_cannot_be_made_says_why(recipe, change, said):
    with pytest.raises(InputError, match=said):
        load_recipe(recipe(JOINT + "losses: {mae: 2}\n"), [change])


@pytest.mark.parametrize("schema", RECIPE_KINDS.values())
def test_every_field_is_found_by_its_name_with_or_without_its_place(schema):
    known = [path for path, _ in fields(schema)]
    for path in known:
        assert nearest_field(path, known) == path
        last = path.rpartition(".")[2]
        assert nearest_field(last, known).rpartition(".")[2] == last
