"""The cell that a protein image is drawn into: from an image file, or one that ships with deepGPS."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import resources
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from deepgps.arrays import Floats
from deepgps.errors import InputError
from deepgps.files import UniqueNames
from deepgps.images.decode import MAX_PIXELS, MIN_EDGE_PX
from deepgps.images.processing import (
    background_level,
    cut,
    percentile_normalise,
    resample,
    resampled_shape,
    same_pixel_size,
)
from deepgps.images.read import Field, image_stem, read_field, read_landmark

if TYPE_CHECKING:
    from deepgps.images.segmentation import Segmenter

LANDMARKS = ("microtubules", "er")
"""Images of a cell that may be given beside its nucleus; they make drawn images truer to the cell."""

DEFAULT_CELLS = ("hek-1", "hek-2", "hek-3", "hek-sparse", "hek-crowded", "u2os-1")
"""Names of the cells that ship with deepGPS; the first is used where a user chooses none."""

SIZE_PX = 208
"""Edge of the default cells' nucleus images, in pixels."""

OPENCELL_PIXEL_SIZE_UM = 0.206349
"""Pixel size of the OpenCell fields in micrometres, and of the default cells."""


@dataclass(frozen=True, slots=True, eq=False)
class Cell:
    """One cell to draw proteins into: its nucleus image, normalised and cropped.

    Attributes
    ----------
    name
        A short name that identifies the cell in tables and file names.
    nucleus
        Nucleus image, (H, W) float32 in [0, 1].
    pixel_size_um
        Edge of a pixel in micrometres.
    source
        Where the image comes from: a file, or ``drawn``.
    warnings
        What the user should know about how the image was read.
    microtubules, er
        Images of the microtubules and of the endoplasmic reticulum of the same cell, as `nucleus`; None if
        they are not given.
    cell_line
        The cell line, such as ``HEK293T``; None if it is not known.
    checked
        Whether the image was checked for a nuclear stain at a plausible scale.

    Examples
    --------
    >>> from deepgps import Cell
    >>> cell = Cell.load("hek-1")
    >>> cell.nucleus.shape, cell.pixel_size_um
    ((208, 208), 0.206349)
    """

    name: str
    nucleus: Floats
    pixel_size_um: float
    source: str
    warnings: tuple[str, ...] = ()
    microtubules: Floats | None = None
    er: Floats | None = None
    cell_line: str | None = None
    checked: bool = True

    @property
    def landmarks(self) -> dict[str, Floats]:
        """The images beside the nucleus that are given, by the names in `LANDMARKS`."""
        images = {name: getattr(self, name) for name in LANDMARKS}
        return {name: image for name, image in images.items() if image is not None}

    @classmethod
    def load(
        cls,
        path_or_name: str | PathLike[str],
        *,
        size_px: int = SIZE_PX,
        pixel_size_um: float = OPENCELL_PIXEL_SIZE_UM,
        channel: int | None = None,
        image_pixel_size_um: float | Literal["auto"] | None = None,
        microtubules: str | PathLike[str] | None = None,
        er: str | PathLike[str] | None = None,
        image_checks: bool = True,
        segmenter: "Segmenter | None" = None,
        max_pixels: int = MAX_PIXELS,
    ) -> Self:
        """Load one cell from an image of nuclei, or a default cell by its name.

        An image file is read, resampled, normalised, segmented and cropped. The crop is centred on the
        nucleus nearest to the centre of the field whose crop lies inside the field. If there is none, the
        crop is padded with background, with a warning. An image no larger than a crop is taken for a crop,
        and centred as it is. `Predictor.load_cell` does the same at the size and scale of a model.

        Microtubules and ER are cropped in the same place. They are images of the same field in files of their
        own, or channels of the nucleus file with such a name.

        Parameters
        ----------
        path_or_name
            A TIFF, OME-TIFF, PNG or JPEG file, or one of `DEFAULT_CELLS`. A file of that name comes first.
        size_px
            Edge of the crop in pixels.
        pixel_size_um
            Pixel size of the crop in micrometres.
        channel
            Which channel of the file is the nucleus, from 0; guessed, with a warning, if None.
        image_pixel_size_um
            The file's pixel size in micrometres, if it does not state it or states it wrongly; ``auto``
            estimates it from the nuclei.
        microtubules, er
            Image files of the microtubules and the ER of the same field, as large as that of the nucleus.
        image_checks
            Whether to check that the image shows a nuclear stain at a plausible scale; see
            `deepgps.images.nuclear_stain.check_nuclear_stain`.
        segmenter
            Finds the nuclei; `OtsuWatershed` if None.
        max_pixels
            Most pixels of the image at the pixel size of the crop.

        Returns
        -------
        Cell
            Its images are (size_px, size_px) float32 in [0, 1].

        Raises
        ------
        InputError
            If there is neither a file nor a default cell of that name, an image cannot be used (see
            `deepgps.images.read.read_field`) or has another size than the nucleus image, it shows no nuclear
            stain, or no nucleus is found.

        Examples
        --------
        >>> from deepgps import Cell
        >>> Cell.load("u2os-1", size_px=128).nucleus.shape
        (128, 128)
        """
        path, name = Path(path_or_name), fspath(path_or_name)
        files = _landmark_files(microtubules, er)
        if name in DEFAULT_CELLS and not path.is_file():
            if files:
                listed = " and ".join(f"'{file}'" for file in files.values())
                raise InputError(f"'{name}' is a default cell, which {listed} does not show; leave it out.")
            return cls._default(name).resampled(size_px=size_px, pixel_size_um=pixel_size_um)
        if not path.exists():
            raise InputError(f"Nucleus '{name}' is neither a file nor one of {', '.join(DEFAULT_CELLS)}.")
        field, images, notes = _read_images(
            path, files, channel, image_pixel_size_um, pixel_size_um, image_checks, max_pixels
        )
        (row, column), more = _central_nucleus(images["nucleus"], pixel_size_um, size_px, segmenter, path)
        crops = {name: cut(image, row, column, size_px) for name, image in images.items()}
        return cls(
            image_stem(path),
            pixel_size_um=pixel_size_um,
            source=field.source,
            warnings=(*field.warnings, *notes, *more),
            checked=image_checks,
            nucleus=crops["nucleus"],
            microtubules=crops.get("microtubules"),
            er=crops.get("er"),
        )

    @classmethod
    def _default(cls, name: str) -> Self:
        """Read a default cell at the size and scale at which it ships."""
        from PIL import Image

        file = resources.files("deepgps.images") / "default_nuclei" / f"{name}.png"
        with file.open("rb") as stream, Image.open(stream) as image:
            pixels = np.asarray(image, np.float32) / np.float32(255)
        cell_line = "U-2 OS" if name.startswith("u2os") else "HEK293T"
        return cls(name, pixels, OPENCELL_PIXEL_SIZE_UM, "drawn", cell_line=cell_line)

    def resampled(self, *, size_px: int, pixel_size_um: float) -> Self:
        """Resample and crop the cell around its centre.

        Parameters
        ----------
        size_px
            Edge of the result in pixels.
        pixel_size_um
            Its pixel size in micrometres.

        Returns
        -------
        Cell
            Its nucleus image is (size_px, size_px), padded with background where the cell is smaller; the
            cell itself if it already fits.

        Raises
        ------
        InputError
            If the pixel size is not a positive number.

        Examples
        --------
        >>> from deepgps import Cell
        >>> Cell.load("hek-1").resampled(size_px=64, pixel_size_um=0.5).nucleus.shape
        (64, 64)
        """
        if self.nucleus.shape == (size_px, size_px) and same_pixel_size(self.pixel_size_um, pixel_size_um):
            return self
        images: dict[str, Any] = {}
        for name, image in {"nucleus": self.nucleus, **self.landmarks}.items():
            pixels = resample(image, self.pixel_size_um, pixel_size_um)
            height, width = pixels.shape
            images[name] = cut(pixels, height // 2, width // 2, size_px)
        return replace(self, pixel_size_um=pixel_size_um, **images)


@dataclass(frozen=True, slots=True, eq=False)
class WholeField:
    """A whole image of nuclei, to draw into as if it were one cell.

    Attributes
    ----------
    cell
        Its images, (H, W) float32 in [0, 1] at the pixel size of a model, padded with background to even
        height and width of at least a crop.
    shape
        Height and width before padding.
    stored_shape
        Height and width of the file's image.
    stored_pixel_size_um
        Height and width of a pixel of the file's image in micrometres, as stated or assumed.
    """

    cell: Cell
    shape: tuple[int, int]
    stored_shape: tuple[int, int]
    stored_pixel_size_um: tuple[float, float]

    @classmethod
    def load(
        cls,
        path: str | PathLike[str],
        *,
        size_px: int = SIZE_PX,
        pixel_size_um: float = OPENCELL_PIXEL_SIZE_UM,
        image_pixel_size_um: float | Literal["auto"] | None = None,
        microtubules: str | PathLike[str] | None = None,
        er: str | PathLike[str] | None = None,
        cell_line: str | None = None,
        image_checks: bool = True,
        max_pixels: int = MAX_PIXELS,
    ) -> Self:
        """Load a whole image of nuclei at the pixel size of a model.

        Parameters
        ----------
        path, image_pixel_size_um, microtubules, er, image_checks, max_pixels
            As in `Cell.load`.
        size_px
            Least height and width of the result in pixels, an even number.
        pixel_size_um
            Pixel size of the result in micrometres.
        cell_line
            The cell line, if it is known.

        Returns
        -------
        WholeField
            The field, normalised and padded.

        Raises
        ------
        InputError
            If an image cannot be used, as in `Cell.load`; no nucleus need be found.
        """
        path = Path(path)
        if not path.exists():
            raise InputError(f"Image '{path}' was not found; check its name and folder.")
        field, images, notes = _read_images(
            path,
            _landmark_files(microtubules, er),
            None,
            image_pixel_size_um,
            pixel_size_um,
            image_checks,
            max_pixels,
        )
        height, width = images["nucleus"].shape
        padding = [(0, max(size_px, edge + edge % 2) - edge) for edge in (height, width)]
        padded = {
            name: np.pad(image, padding, constant_values=background_level(image))
            for name, image in images.items()
        }
        cell = Cell(
            image_stem(path),
            pixel_size_um=pixel_size_um,
            source=field.source,
            warnings=(*field.warnings, *notes),
            cell_line=cell_line,
            checked=image_checks,
            nucleus=padded["nucleus"],
            microtubules=padded.get("microtubules"),
            er=padded.get("er"),
        )
        stored, square = field.stored_shape, field.pixels.shape
        um = field.pixel_size_um or pixel_size_um
        sizes = um * square[0] / stored[0], um * square[1] / stored[1]
        return cls(cell, (height, width), (stored[0], stored[1]), sizes)

    def as_stored(self, image: Floats) -> Floats:
        """Bring an image that was drawn into the field to the size of the file's image.

        Parameters
        ----------
        image
            (H, W) as large as the images of `cell`.

        Returns
        -------
        Floats
            (H', W') of `stored_shape`, interpolated linearly.
        """
        from skimage.transform import resize

        inside = image[: self.shape[0], : self.shape[1]]
        resized = resize(  # type: ignore[no-untyped-call]
            inside, self.stored_shape, order=1, mode="edge", preserve_range=True
        )
        return np.asarray(resized, np.float32)


def with_unique_name(cell: Cell, others: Sequence[Cell]) -> Cell:
    """Append a number to the name of a cell if another has it already; see `UniqueNames`."""
    names = UniqueNames()
    for other in others:
        names.add(other.name)
    return replace(cell, name=names.add(cell.name))


def _landmark_files(
    microtubules: str | PathLike[str] | None, er: str | PathLike[str] | None
) -> dict[str, Path]:
    given = {"microtubules": microtubules, "er": er}
    return {landmark: Path(file) for landmark, file in given.items() if file is not None}


def _read_images(
    path: Path,
    files: dict[str, Path],
    channel: int | None,
    image_pixel_size_um: float | Literal["auto"] | None,
    um: float,
    image_checks: bool,
    max_pixels: int,
) -> tuple[Field, dict[str, Floats], tuple[str, ...]]:
    """Read nucleus and landmarks of a field at a pixel size, by name, normalised; with warnings."""
    field = read_field(path, channel=channel, pixel_size_um=image_pixel_size_um)
    landmarks = dict(field.landmarks)
    for landmark, file in files.items():
        landmarks[landmark] = read_landmark(file, landmark, field)
    pixels, notes = _prepared(field, um, image_checks, max_pixels)
    images = {"nucleus": pixels}
    images |= {name: _resampled(each, field, um) for name, each in landmarks.items()}
    return field, images, notes


def _prepared(field: Field, um: float, image_checks: bool, max_pixels: int) -> tuple[Floats, tuple[str, ...]]:
    name = Path(field.source).name
    notes: tuple[str, ...] = ()
    if field.pixel_size_um is None:
        notes = (
            f"Image '{name}' does not say its pixel size; {um:g} µm per pixel was assumed. "
            "Give it with --pixel-size-um.",
        )
    raw, image_um = field.pixels, field.pixel_size_um or um
    try:
        resampled_shape(raw.shape, image_um, um, max_pixels)
    except InputError as error:
        raise InputError(f"Image '{name}' is too large: {error}") from None
    if image_checks:
        from deepgps.images.nuclear_stain import check_nuclear_stain

        raw, more = check_nuclear_stain(field, image_um, um)
        notes += more
    else:
        notes += (f"Image '{name}' was used without checks of its stain and scale (--no-image-checks).",)
    pixels = _resampled(raw, field, um)
    if min(pixels.shape) < MIN_EDGE_PX:
        raise InputError(
            f"Image '{field.source}' is {min(pixels.shape) * um:.2g} µm wide at {image_um:g} µm "
            "per pixel, too small for a nucleus; check its pixel size."
        )
    return pixels, notes


def _resampled(pixels: Floats, field: Field, um: float) -> Floats:
    """Bring a channel of a field to a pixel size, and normalise it."""
    return percentile_normalise(resample(pixels, field.pixel_size_um or um, um))


def _central_nucleus(
    pixels: Floats, um: float, size_px: int, segmenter: "Segmenter | None", path: Path
) -> tuple[tuple[int, int], tuple[str, ...]]:
    """Return row and column of the middle of the crop, and warnings."""
    from deepgps.images.processing import nucleus_crops
    from deepgps.images.segmentation import OtsuWatershed

    labels = (segmenter or OtsuWatershed())(pixels, um)
    height, width = pixels.shape
    if max(height, width) <= size_px:
        notes = (
            [] if labels.any() else [f"No nucleus was found in '{path.name}'; the image was used as it is."]
        )
        if min(height, width) < size_px:
            notes.append(
                f"Image '{path.name}' is smaller than a crop of {size_px} px; its border was padded."
            )
        return (height // 2, width // 2), tuple(notes)
    crops = nucleus_crops(pixels, labels, size_px, padded=True)
    if not crops:
        raise InputError(
            f"No nucleus was found in image '{path}'; give an image of a nuclear stain, "
            "and check its channel (--channel) and pixel size (--pixel-size-um)."
        )
    best = min(
        crops,
        key=lambda c: (not c.complete, not c.whole_nucleus, np.hypot(c.row - height / 2, c.col - width / 2)),
    )
    if best.complete:
        return (best.row, best.col), ()
    return (best.row, best.col), (
        f"Every nucleus of '{path.name}' lies near its border; the crop was padded.",
    )
