"""Recipes: everything that decides a training run, in one YAML file."""

from importlib.resources import files
from pathlib import Path
from typing import Self

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator, model_validator

from deepgps.bundle import CropSpec
from deepgps.errors import InputError
from deepgps.localization import CLASS_SETS
from deepgps.training.labels import LabelSettings
from deepgps.training.pictures import PictureSettings


class Recipe(BaseModel):
    """A model of two halves, one trained on labelled sequences and one on pictures."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    """Name of the bundle."""
    version: str
    """Version of the bundle."""
    class_set: str
    """Name of the class set that it predicts; one in which a protein may have several classes."""
    cell_line: str
    """The cells the pictures show."""
    crop: CropSpec
    """Size and scale of the pictures."""
    labels: LabelSettings = LabelSettings()
    """The sequence half."""
    pictures: PictureSettings = PictureSettings()
    """The picture half."""

    @field_validator("class_set")
    @classmethod
    def _multi_label(cls, name: str) -> str:
        # Both halves are trained class by class; a softmax over their logits would not be calibrated.
        known = [each.name for each in CLASS_SETS.values() if each.multi_label]
        if name not in known:
            raise ValueError(f"'{name}' is unknown or of one class a protein; use one of {', '.join(known)}")
        return name

    @model_validator(mode="after")
    def _crop_fits_the_network(self) -> Self:
        multiple = self.pictures.fold * 2 ** (len(self.pictures.widths) - 1)
        drawn = self.crop.size_px + 2 * self.pictures.margin
        if drawn % multiple:
            raise ValueError(f"a crop and its margins, {drawn} px, are no multiple of {multiple} px")
        return self


def shipped_recipes() -> dict[str, Path]:
    """Recipes in the package, by name."""
    folder = Path(str(files("deepgps.training"))) / "recipes"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load_recipe(name_or_path: str) -> Recipe:
    """Read a recipe of the package by name, or any by path.

    Raises
    ------
    InputError
        If there is none, or a field of it is unknown or wrong.
    """
    shipped = shipped_recipes()
    path = shipped.get(name_or_path, Path(name_or_path))
    if not path.is_file():
        raise InputError(f"Recipe '{name_or_path}' is neither a file nor one of {', '.join(shipped)}.")
    try:
        return Recipe.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"Recipe '{path}' is not YAML: {error}.") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "(all of it)"
        raise InputError(f"Recipe '{path}', field '{where}': {first['msg']}.") from None
