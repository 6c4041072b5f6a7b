"""Recipes: every setting of a training run, in one YAML file.

There are two kinds. ``joint`` is a model of the paper: label and image are learned together from crops.
``mini`` is a model like the bundled one: labels are learned from tables, images from crops of known
localization. Both are pydantic models below; the docstring under a field is its help text everywhere.
"""

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from textwrap import wrap
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo

from deepgps.bundle import CropSpec
from deepgps.errors import InputError
from deepgps.images.cell import OPENCELL_PIXEL_SIZE_UM
from deepgps.localization import CLASS_SETS, class_set
from deepgps.models import FusionMode

RECIPE = "recipe.yaml"
"""Name of the recipe in a run's folder."""

ProteinInput = Literal["sequence", "structure"]
FOLD = 4
"""Edge of the pixel blocks that networks of flow matching fold into channels."""
Width = Annotated[int, Field(gt=0, multiple_of=8)]


class RecipeSettings(BaseModel):
    """Base of all settings: unknown fields are errors, values cannot change."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class LoopSettings(RecipeSettings):
    """Settings of the training loop that every task has."""

    max_epochs: PositiveInt
    """Number of epochs, at most."""
    batch_size: PositiveInt
    """Crops in a step of the optimiser, over all devices and accumulated parts."""
    learning_rate: PositiveFloat
    """Highest learning rate of AdamW."""
    weight_decay: NonNegativeFloat
    """Weight decay of AdamW."""
    precision: Literal["auto", "float32", "bfloat16"]
    """Precision of the forward pass; `auto` is bfloat16 where the hardware has units for it."""
    checkpoint_minutes: PositiveFloat = 10
    """Minutes between checkpoints within an epoch; the end of each epoch is always kept."""
    seed: NonNegativeInt
    """Seed of weights, sampling and augmentation."""


# ---- models of the paper ----


class ProteinSettings(RecipeSettings):
    """What the model reads of a protein."""

    inputs: tuple[ProteinInput, ...] = Field(("sequence",), min_length=1)
    """`sequence`, `structure` or both; the nucleus image is always an input."""
    encoder: str = "esm2_t33_650M_UR50D"
    """Encoder of the sequence: an ESM2 by name or local folder, or hand-made features without weights:
    `segments-1` (`residues-1` with fusion `per_residue`)."""
    standardise: bool = True
    """Scale embeddings to mean 0 and standard deviation 1 over the training proteins; not in the paper."""
    structure_points: PositiveInt = 1024
    """Atoms sampled from a structure."""

    @field_validator("inputs")
    @classmethod
    def _each_once(cls, inputs: tuple[ProteinInput, ...]) -> tuple[ProteinInput, ...]:
        if len(set(inputs)) < len(inputs):
            raise ValueError("an input is named twice; name each once")
        return inputs


class ModelSettings(RecipeSettings):
    """The network."""

    widths: tuple[PositiveInt, ...] = Field((64, 128, 256, 512, 1024), min_length=2)
    """Channels of the U-Net, from the first level to the bottleneck."""
    latent_dim: PositiveInt = 1024
    """Size of a latent token."""
    latent_tokens: PositiveInt = 4
    """Latent tokens made from one embedding or structure; 1 with fusion `paper`."""
    structure_encoder: Literal["pointnet", "paper"] = "pointnet"
    """PointNet as its authors published it, or as the paper's code has it."""
    fusion: FusionMode = "residual"
    """How protein and nucleus are combined: `paper`, `residual`, `per_residue` or `film`."""
    heads: PositiveInt = 4
    """Attention heads of the fusion; `paper` has one."""
    fold: PositiveInt = 1
    """Edge of the pixel blocks folded into channels at the stem; 1 in the paper."""
    margin: NonNegativeInt = 0
    """Pixels of reflected padding around the nucleus image while drawing; 0 in the paper."""
    conv_bias: bool = False
    """Whether convolutions before batch norms have biases: weights without an effect, which the paper has."""
    initialisation: Literal["torch", "paper"] = "torch"
    """Fresh weights of the U-Net: torch's defaults, or as the paper's code draws them."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout before the classifier."""

    @model_validator(mode="after")
    def _parts_of_the_paper_fit(self) -> Self:
        if self.fusion == "paper" and self.latent_tokens != 1:
            raise ValueError("fusion 'paper' takes latent_tokens: 1; set it, or use fusion 'residual'")
        if self.structure_encoder == "paper" and self.latent_tokens != 1:
            raise ValueError("structure_encoder 'paper' takes latent_tokens: 1; set it, or use 'pointnet'")
        if self.initialisation == "paper" and (self.fusion != "paper" or self.fold != 1):
            raise ValueError(
                "initialisation 'paper' takes fusion: paper and fold: 1; set both, or use 'torch'"
            )
        return self


class LossSettings(RecipeSettings):
    """Weights of the terms of the loss; a term with weight 0 is left out."""

    mae: NonNegativeFloat = 1.0
    """Mean absolute error of the image."""
    mse: NonNegativeFloat = 0.0
    """Mean squared error of the image."""
    ssim: NonNegativeFloat = 0.0
    """1 - SSIM of the image."""
    label: NonNegativeFloat = 1.0
    """Cross-entropy of the classes (binary per class in a multi-label set); at 0 the model has no classifier
    and only draws."""
    label_softmax: bool = False
    """Whether a softmax comes before the cross-entropy, which has one of its own: what the paper's code does.
    The loss of two classes then lies between 0.31 and 1.31. Only with single-label sets."""
    orthogonality: NonNegativeFloat = 0.001
    """Distance of PointNet's feature transform from an orthogonal one, where structures are used; 0 in the
    paper's code."""

    @model_validator(mode="after")
    def _some_image(self) -> Self:
        if not self.mae + self.mse + self.ssim:
            raise ValueError("mae, mse and ssim are all 0, so the image has no loss; raise one")
        return self


class SplitSettings(RecipeSettings):
    """The split: how it is made where the store has no `split.csv` and none is given, and how it is used."""

    by: Literal["protein", "cluster"] = "protein"
    """Split by protein, as in the paper, or by homology cluster."""
    validate_on: Literal["validation", "test"] = "validation"
    """Part that validates. With `test` the validation part is trained on too, and no part is left that has
    neither trained nor validated: what the paper did."""


class TrainingSettings(LoopSettings):
    """The training loop."""

    max_epochs: PositiveInt = 50
    """Passes over the training crops, at most."""
    batch_size: PositiveInt = 32
    """Crops in a step of the optimiser, over all devices and accumulated parts."""
    accumulate: PositiveInt = 1
    """Parts in which a batch is computed, to save memory."""
    learning_rate: PositiveFloat = 2e-4
    """Highest learning rate of AdamW."""
    weight_decay: NonNegativeFloat = 0.01
    """Weight decay of AdamW."""
    eps: PositiveFloat = 1e-8
    """Number that AdamW adds to the denominator."""
    schedule: Literal["cosine", "exponential", "constant"] = "cosine"
    """Schedule of the learning rate: cosine to 0 over all steps, times `gamma` each epoch, or constant."""
    gamma: float = Field(0.9, gt=0, le=1)
    """Factor per epoch of schedule `exponential`."""
    warm_up: float = Field(0.03, ge=0, lt=1)
    """Share of all steps in which the learning rate rises from 0."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the forward pass; `auto` is bfloat16 where the hardware has units for it."""
    balanced: bool = True
    """Sample classes equally often, and within a class its proteins; otherwise each crop once an epoch."""
    augment: bool = True
    """Rotate by quarter turns and flip, nucleus and protein together."""
    patience: PositiveInt | None = 10
    """Epochs without a lower validation loss of the images before training stops; null never stops early."""
    keep: Literal["best", "last"] = "best"
    """Exported weights: of the epoch with the best validation images, or of the last as in the paper."""
    devices: PositiveInt = 1
    """Processes on each machine: one for each GPU, or sharing the CPU's cores."""
    nodes: PositiveInt = 1
    """Machines."""
    workers: NonNegativeInt = 0
    """Processes that read crops, for each device."""
    seed: NonNegativeInt = 0
    """Seed of weights, sampling and augmentation."""


class JointRecipe(RecipeSettings):
    """A model of the paper: protein and nucleus image in, label and protein image out."""

    kind: Literal["joint"]
    """Kind of the recipe."""
    name: str
    """Name of the bundle."""
    version: str
    """Version of the bundle."""
    class_set: str
    """Class set: which proteins are used, and what is predicted."""
    cell_line: str | None = None
    """Use crops of this cell line only; null uses all."""
    crop: CropSpec = CropSpec(size_px=208, pixel_size_um=OPENCELL_PIXEL_SIZE_UM)
    """Size and pixel size of the crops; the store must have the same."""
    protein: ProteinSettings = ProteinSettings()
    """What the model reads of a protein."""
    model: ModelSettings = ModelSettings()
    """The network."""
    losses: LossSettings = LossSettings()
    """Weights of the terms of the loss."""
    split: SplitSettings = SplitSettings()
    """The split."""
    training: TrainingSettings = TrainingSettings()
    """The training loop."""

    @field_validator("class_set")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in CLASS_SETS:
            raise ValueError(f"'{name}' is unknown; use one of {', '.join(CLASS_SETS)}")
        return name

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        _check_size(self.crop, self.model.widths, self.model.fold, self.model.margin)
        training = self.training
        if self.model.fusion == "per_residue" and self.protein.inputs != ("sequence",):
            raise ValueError("fusion 'per_residue' takes the input sequence alone; use fusion 'residual'")
        if training.batch_size % (training.nodes * training.devices * training.accumulate):
            raise ValueError("batch_size is no multiple of nodes x devices x accumulate; choose one that is")
        if "structure" in self.protein.inputs and training.batch_size < 2 * training.accumulate:
            raise ValueError(
                "a part of a batch is one crop, too few to normalise structures; raise batch_size or lower "
                "accumulate"
            )
        if self.losses.label_softmax and class_set(self.class_set).multi_label and self.losses.label:
            raise ValueError(
                f"losses.label_softmax takes one class a protein, not '{self.class_set}'; leave it out"
            )
        return self


# ---- models like the bundled one ----


class LabelSettings(RecipeSettings):
    """The label half: MLPs on hand-made sequence features, combined with the nearest annotated proteins."""

    seed: int = 0
    """Seed of folds, weights, dropout and order of the batches."""
    folds: int = Field(5, ge=2)
    """Folds of homology clusters for out-of-fold logits."""
    members: int = Field(1, ge=1)
    """MLPs whose logits are averaged; each fold trains as many."""
    widths: tuple[int, ...] = (512, 256)
    """Hidden sizes of an MLP."""
    dropout: float = Field(0.3, ge=0, lt=1)
    """Dropout of hidden units."""
    epochs: int = Field(6, ge=1)
    """Passes over the proteins."""
    batch_size: int = Field(128, ge=1)
    """Proteins in a step."""
    learning_rate: float = Field(1e-3, gt=0)
    """Highest learning rate of AdamW, in a one-cycle schedule."""
    weight_decay: float = Field(1e-2, ge=0)
    """Weight decay of AdamW."""


class StageSettings(LoopSettings):
    """A stage of the image half: an epoch is ``batches`` random batches of augmented crops."""

    batches: PositiveInt = 200
    """Batches in an epoch."""
    batch_size: PositiveInt = 32
    """Crops in a batch."""
    size_px: PositiveInt = Field(96, multiple_of=FOLD)
    """Edge of a training crop in pixels of the stage."""
    widths: tuple[Width, ...] = Field(min_length=1)
    """Channels of each level of the network, multiples of 8."""
    embedding: PositiveInt = 256
    """Size of the vector that carries time and condition."""
    attention: NonNegativeInt
    """Heads of the self-attention in the two deepest levels; 0 for none."""
    learning_rate: PositiveFloat = 1e-3
    """Highest learning rate of AdamW, which trains all but the kernels of the blocks."""
    kernel_rate: PositiveFloat = 0.02
    """Highest learning rate of Muon, which trains the kernels of the blocks."""
    weight_decay: NonNegativeFloat = 0.01
    """Weight decay of both."""
    warm_up_steps: PositiveInt = 100
    """Steps in which the learning rates rise."""
    cool_down: float = Field(0.3, ge=0, le=1)
    """Share of all steps, the last ones, in which the learning rates fall to 0."""
    average: float = Field(0.998, ge=0, lt=1)
    """Decay of the moving average of the weights, which draws."""
    precision: Literal["auto", "float32", "bfloat16"] = "bfloat16"
    """Precision of the forward pass; `auto` is bfloat16 where the hardware has units for it."""
    crowded: float = Field(0, ge=0, le=1)
    """Share of the masked cells that are placed several to a crop."""
    workers: NonNegativeInt = 0
    """Processes that make batches; worth it beside a GPU."""
    seed: NonNegativeInt = 0
    """Seed of weights, sampling and augmentation."""


class StructureSettings(StageSettings):
    """The first stage: the structure of the image, at twice the pixel size of the crops."""

    max_epochs: PositiveInt = 40
    """Number of epochs."""
    widths: tuple[Width, ...] = Field((96, 160, 224), min_length=1)
    """Channels of each level of the network, multiples of 8."""
    attention: NonNegativeInt = 4
    """Heads of the self-attention in the two deepest levels; 0 for none."""
    mean_share: float = Field(0.25, ge=0, lt=1)
    """Share of a batch on which the mean image is learned."""
    mean_weight: NonNegativeFloat = 2.0
    """Weight of the mean image's squared error."""
    guidance: float = Field(1.75, ge=1)
    """How far the trained network goes beyond its prediction for an unknown protein; 1 for no guidance."""


class GrainSettings(StageSettings):
    """The second stage: what is finer, at the pixel size of the crops."""

    max_epochs: PositiveInt = 10
    """Number of epochs."""
    widths: tuple[Width, ...] = Field((32, 48), min_length=1)
    """Channels of each level of the network, multiples of 8."""
    attention: NonNegativeInt = 0
    """Heads of the self-attention in the two deepest levels; 0 for none."""


class SourceShares(RecipeSettings):
    """Shares of the image sources in a batch."""

    hpa_u2os_cells: NonNegativeFloat = 0.24
    """Single U-2 OS cells."""
    hpa_fields: NonNegativeFloat = 0.08
    """Whole HPA fields of several cell lines."""
    hpa_dictionary: NonNegativeFloat = 0.24
    """Textbook fields of each localization."""
    hpa_landmark_fields: NonNegativeFloat = 0.12
    """HPA fields and cells with microtubules and ER."""
    opencell_crops: NonNegativeFloat = 0.16
    """HEK293T crops with localizations that were judged by eye, or without."""
    opencell_tiles: NonNegativeFloat = 0.14
    """HEK293T tiles of named proteins."""
    other_pairs: NonNegativeFloat = 0.02
    """Single pairs of several sources."""


class ImageSettings(RecipeSettings):
    """The image half: two networks that draw by flow matching."""

    structure: StructureSettings = StructureSettings()
    """The first stage."""
    grain: GrainSettings = GrainSettings()
    """The second stage."""
    source_shares: SourceShares = SourceShares()
    """Share of each image source in a batch, relative to the others."""
    steps: PositiveInt = 5
    """Steps in which the exported model draws the structure."""
    grain_steps: PositiveInt = 2
    """Steps in which the exported model draws the grain."""


class MiniRecipe(RecipeSettings):
    """A model like the bundled one: a label half trained on tables, an image half trained on crops."""

    kind: Literal["mini"]
    """Kind of the recipe."""
    name: str
    """Name of the bundle."""
    version: str
    """Version of the bundle."""
    class_set: str
    """Class set that is predicted; a multi-label one."""
    cell_line: str
    """Cells shown in the images."""
    crop: CropSpec
    """Size and pixel size of the crops."""
    labels: LabelSettings = LabelSettings()
    """The label half."""
    images: ImageSettings = ImageSettings()
    """The image half."""

    @field_validator("class_set")
    @classmethod
    def _multi_label(cls, name: str) -> str:
        # Both halves are trained class by class; a softmax over their logits would not be calibrated.
        known = [each.name for each in CLASS_SETS.values() if each.multi_label]
        if name not in known:
            raise ValueError(f"'{name}' is unknown or not multi-label; use one of {', '.join(known)}")
        return name

    @model_validator(mode="after")
    def _crop_fits_the_network(self) -> Self:
        if self.crop.size_px % (2 * FOLD):
            raise ValueError(f"a crop, {self.crop.size_px} px, is no multiple of {2 * FOLD} px")
        return self


def _check_size(crop: CropSpec, widths: Sequence[int], fold: int, margin: int) -> None:
    multiple, drawn = fold * 2 ** (len(widths) - 1), crop.size_px + 2 * margin
    if drawn % multiple:
        raise ValueError(f"a crop and its margins, {drawn} px, are no multiple of {multiple} px")


# ---- loading ----

Recipe = MiniRecipe | JointRecipe
RECIPE_KINDS: Mapping[str, type[Recipe]] = {"mini": MiniRecipe, "joint": JointRecipe}
_KINDS = "write 'kind: joint' for a model of the paper, or 'kind: mini' for one like the bundled model"


def shipped_recipes() -> dict[str, Path]:
    """Return the files of the recipes in the package, by name."""
    folder = Path(str(files("deepgps.training"))) / "recipes"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"), key=lambda path: path.stem)}


def load_recipe(name_or_path: str, changes: Sequence[str] = ()) -> Recipe:
    """Load a recipe of the package by name, or any by path.

    Parameters
    ----------
    name_or_path
        Name or file.
    changes
        Changed settings, each like ``training.max_epochs=3``; the value is YAML.

    Returns
    -------
    MiniRecipe or JointRecipe
        The validated recipe.

    Raises
    ------
    InputError
        If there is no such recipe, or a field is unknown or wrong.
    """
    return parse_recipe(with_changes(_content(recipe_path(name_or_path)), changes), name_or_path)


def recipe_path(name_or_path: str) -> Path:
    """Return the file of a recipe.

    Returns
    -------
    Path
        The YAML file.

    Raises
    ------
    InputError
        If there is none.
    """
    shipped = shipped_recipes()
    path = shipped.get(name_or_path, Path(name_or_path))
    if not path.is_file():
        raise InputError(f"Recipe '{name_or_path}' is neither a file nor one of {', '.join(shipped)}.")
    return path


def with_changes(content: dict[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    """Change fields of a recipe in place, each like ``training.max_epochs=3``; the value is YAML.

    Returns
    -------
    dict
        The same content.

    Raises
    ------
    InputError
        If a change has another form.
    """
    for change in changes:
        _change(content, change)
    return content


def parse_recipe(content: Mapping[str, Any], name: str) -> Recipe:
    """Validate the fields of a recipe.

    Parameters
    ----------
    content
        The fields, as YAML gives them.
    name
        How errors name the recipe.

    Returns
    -------
    MiniRecipe or JointRecipe
        The validated recipe.

    Raises
    ------
    InputError
        If the kind is missing, or a field is unknown or wrong.
    """
    kind = content.get("kind")
    if kind is None:
        raise InputError(f"Recipe '{name}' has no kind; {_KINDS}.")
    if not isinstance(kind, str) or kind not in RECIPE_KINDS:
        raise InputError(f"Recipe '{name}' has the unknown kind '{kind}'; {_KINDS}.")
    schema = RECIPE_KINDS[kind]
    if unknown := _first_unknown(content, schema):
        close = nearest_field(unknown, [path for path, _ in fields(schema)])
        raise InputError(f"Recipe '{name}' has no field '{unknown}'; the nearest is '{close}'.")
    try:
        return schema.model_validate(content)
    except ValidationError as error:
        raise InputError(f"Recipe '{name}'{_wrong(error, schema)}") from None


def _wrong(error: ValidationError, schema: type[Recipe]) -> str:
    first = error.errors()[0]
    reason = first["msg"].removeprefix("Value error, ")
    if not (where := ".".join(str(part) for part in first["loc"])):
        return f": {reason}."
    value = f" cannot be {first['input']!r}" if isinstance(first["input"], str | int | float | list) else ""
    help_text = f" ({text})" if (text := field_help(where, schema)) else ""
    return f", field '{where}'{value}: {reason}{help_text}."


def _content(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"Recipe '{path}' is not YAML: {error}.") from None
    if not isinstance(content, dict):
        raise InputError(f"Recipe '{path}' has no fields; write them as 'name: value', one a line.")
    return content


def _change(content: dict[str, Any], change: str) -> None:
    key, sign, text = change.partition("=")
    if not sign or not key.strip():
        raise InputError(f"'--set {change}' is not KEY=VALUE; write it like training.max_epochs=3.")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise InputError(f"The value in '--set {change}' is not YAML; put it in quotes.") from None
    *groups, name = key.strip().split(".")
    for group in groups:
        inner = content.get(group)
        content[group] = inner = dict(inner) if isinstance(inner, dict) else {}
        content = inner
    content[name] = value


# ---- fields by their dotted names, such as training.max_epochs ----


def group_of(field: FieldInfo) -> type[BaseModel] | None:
    """Return the schema of a field that is a group of fields; None if it is a value."""
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def fields(schema: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield every field by its dotted name; a group comes before its fields."""
    for name, field in schema.model_fields.items():
        yield prefix + name, field
        if group := group_of(field):
            yield from fields(group, f"{prefix}{name}.")


def field_help(path: str, schema: type[BaseModel]) -> str | None:
    """Return what a field is for, on one line; of a part of a value, what the value is for."""
    known = dict(fields(schema))
    while path and path not in known:
        path = path.rpartition(".")[0]
    text = known[path].description if path else None
    return " ".join(text.replace("`", "").split()).rstrip(".") if text else None


def _first_unknown(content: Mapping[str, Any], schema: type[BaseModel], prefix: str = "") -> str | None:
    for name, value in content.items():
        if name not in schema.model_fields:
            return f"{prefix}{name}"
        group = group_of(schema.model_fields[name])
        if group and isinstance(value, Mapping):
            unknown = _first_unknown(value, group, f"{prefix}{name}.")
            if unknown:
                return unknown
    return None


def nearest_field(path: str, known: Sequence[str]) -> str:
    """Return the known name that was probably meant: with the same last part, or else the most similar."""
    last = path.rpartition(".")[2]
    same = [each for each in known if each.rpartition(".")[2] == last]
    # The whole name counts where the group is right, the last part where it is not.
    ends = {each.rpartition(".")[2]: each for each in reversed(known)}
    by_path, by_end = get_close_matches(path, known, 1, 0.8), get_close_matches(last, ends, 1, 0.6)
    likely = same or by_path or [ends[each] for each in by_end] or known
    return get_close_matches(path, likely, 1, 0.0)[0]


# ---- `deepgps recipes` ----


def recipe_table() -> list[tuple[str, str, str, str]]:
    """Return name, classes, inputs and purpose of every recipe in the package."""
    return [
        (name, _classes(recipe), ", ".join(_inputs(recipe)), purpose(path))
        for name, path in shipped_recipes().items()
        for recipe in [load_recipe(name)]
    ]


def recipe_text(name_or_path: str) -> str:
    """Return a recipe as YAML with every field, each below a comment that explains it.

    Returns
    -------
    str
        YAML.

    Raises
    ------
    InputError
        If there is no such recipe, or it is not valid.
    """
    recipe, text = load_recipe(name_or_path), purpose(recipe_path(name_or_path))
    head = [f"# {text}"] if text else []
    return "\n".join([*head, *_lines(recipe)]) + "\n"


def _classes(recipe: Recipe) -> str:
    if isinstance(recipe, JointRecipe) and not recipe.losses.label:
        return "none"
    found = class_set(recipe.class_set)
    return f"{len(found.slugs)}, {'several' if found.multi_label else 'one'} a protein"


def _inputs(recipe: Recipe) -> tuple[str, ...]:
    return ("nucleus", *(recipe.protein.inputs if isinstance(recipe, JointRecipe) else ("sequence",)))


def purpose(path: Path) -> str:
    """Return the comment in the first line of a recipe, or an empty string."""
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    return first.removeprefix("#").strip() if first.startswith("#") else ""


def _lines(group: BaseModel, indent: str = "") -> Iterator[str]:
    values = group.model_dump(mode="json")
    for name, field in type(group).model_fields.items():
        text = " ".join((field.description or "").replace("`", "").split())
        yield from (f"{indent}# {line}" for line in wrap(text, 108 - len(indent)))
        value = getattr(group, name)
        if isinstance(value, BaseModel):
            yield f"{indent}{name}:"
            yield from _lines(value, indent + "  ")
        else:
            yield f"{indent}{name}: {_one_line(values[name])}"


def _one_line(value: Any) -> str:
    text = yaml.safe_dump([value], sort_keys=False, allow_unicode=True, default_flow_style=True, width=10_000)
    return text.strip()[1:-1]
