r"""Train the networks that draw nuclei, and sample them: the default cells of the package are such samples.

The same network class as for proteins, with the nucleus image in place of the protein's and nothing given of
the cell but a `Scene`: the kind of cell, how many nuclei there are, how much of the crop they cover, and how
far the brightest stands out, as dividing ones do. Structure is drawn at 0.41 um, then grain at 0.21 um.

    python experiments/deepgps-mini/images/nuclei.py pack --data ../shared/data/images --out runs/nuclei
    python experiments/deepgps-mini/images/nuclei.py structure --out runs/nuclei --images 200000
    python experiments/deepgps-mini/images/nuclei.py grain --out runs/nuclei --images 60000
    python experiments/deepgps-mini/images/nuclei.py draw --out runs/nuclei --seeds 8

Trains on the Hoechst fields and the crops of OpenCell (HEK293T) and on U-2 OS fields of the HPA; one field in
five is held out. A second call goes on from the last checkpoint.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tifffile
import torch
from PIL import Image
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from deepgps.arrays import Floats
from deepgps.datasets.crops.reference import ImageField, reference_fields
from deepgps.images.cell import OPENCELL_PIXEL_SIZE_UM
from deepgps.images.processing import percentile_normalise
from deepgps.images.segmentation import OtsuWatershed
from deepgps.localization import class_set
from deepgps.models.flow_matching import FlowMatchingUNet, draw, noise
from deepgps.training.mini.image_batches import SOURCE_WINDOW, ImageBatch, coarse_image, turned
from deepgps.training.mini.image_pack import ImagePack, pack_fields
from deepgps.training.mini.images import (
    GRAIN_STAGE,
    STRUCTURE_STAGE,
    FlowTask,
    device_of,
    fit_stage,
    sheet,
    write_network,
)
from deepgps.training.mini.train import IMAGE_WEIGHTS, PACKED
from deepgps.training.recipe import GrainSettings, StageSettings, StructureSettings

HOECHST = "opencell_hoechst"
SHARES = {HOECHST: 0.6, "opencell_crops": 0.15, "hpa_fields": 0.25}
"""Share of each source in a batch."""
KINDS = ("HEK293T", "U-2 OS")
HELD_OUT = 5
"""One field in so many is held out."""
UNKNOWN_SHARE = 0.1
"""Share of the examples of which nothing is known, for guidance."""
DIVIDING = 4
"""Crops are chosen by their contrast to the power of this, for few show dividing nuclei."""
SIZE_PX = 208
"""Edge of a default cell."""
DRAWN_PX = 312
"""Edge of an image that is drawn, of which a default cell is cut around a nucleus."""
SETTINGS: Mapping[str, StageSettings] = {
    STRUCTURE_STAGE: StructureSettings(size_px=SIZE_PX // 2, widths=(64, 96, 160), batches=100, mean_share=0),
    GRAIN_STAGE: GrainSettings(batches=100),
}
STEPS, GRAIN_STEPS, GUIDANCE = 10, 3, 1.5


@dataclass(frozen=True, slots=True)
class Scene:
    """What a crop shows.

    Attributes
    ----------
    kind
        Index into `KINDS`.
    nuclei
        Number of nuclei.
    covered
        Share of the area that they cover.
    contrast
        Brightness of the brightest nucleus over the median one.
    """

    kind: int
    nuclei: float
    covered: float
    contrast: float

    def condition(self) -> Floats:
        """Return it as the network takes it."""
        numbers = (1.0, self.nuclei / 10, self.covered, self.contrast / 3)
        return np.array([*np.eye(len(KINDS))[self.kind], *numbers], np.float32)


CONDITIONS = len(KINDS) + 4
SCENES: Mapping[str, Scene] = {
    "hek": Scene(0, 6, 0.35, 1.15),
    "hek-sparse": Scene(0, 3, 0.2, 1.05),
    "hek-crowded": Scene(0, 10, 0.6, 1.2),
    "u2os": Scene(1, 1, 0.12, 1.0),
}
CHOSEN: Mapping[str, tuple[str, int]] = {
    "hek-1": ("hek-sparse", 1),
    "hek-2": ("hek", 3),
    "hek-3": ("hek", 5),
    "hek-sparse": ("hek-sparse", 5),
    "hek-crowded": ("hek-crowded", 1),
    "u2os-1": ("u2os", 2),
}
"""Scene and seed of each default cell, chosen by eye."""
SMALLEST_UM2 = 80.0
"""Area from which a nucleus is no fragment."""


# ---- data ----


def pack(images: Path, folder: Path) -> None:
    """Pack the nuclei of both stages, with a table of all nuclei."""
    for stage, um in ((STRUCTURE_STAGE, 2 * OPENCELL_PIXEL_SIZE_UM), (GRAIN_STAGE, OPENCELL_PIXEL_SIZE_UM)):
        fields = (each for each in nucleus_fields(images) if each.pixel_size_um < 1.1 * um)
        packed = pack_fields(fields, class_set("mini"), um)
        arrays = dict(packed.arrays) | {"nuclei": nuclei_of(packed, um)}
        order = np.arange(len(arrays["split"]))
        arrays["split"] = np.where(order % HELD_OUT == HELD_OUT - 1, "test", "train")
        packed = ImagePack.of(arrays)
        packed.save(folder / PACKED[stage])
        size = (folder / PACKED[stage]).stat().st_size / 2**20
        print(f"{stage}: {len(order)} fields, {len(arrays['nuclei'])} nuclei, {size:.1f} MiB")


def nucleus_fields(images: Path) -> Iterator[ImageField]:
    """Read the fields, without their proteins; domains are indices into `KINDS`."""
    for path in sorted((images / HOECHST).glob("*.tif*")):
        pixels = tifffile.imread(path).astype(np.float32)
        yield ImageField(path.stem, HOECHST, path.stem, pixels, (), OPENCELL_PIXEL_SIZE_UM, KINDS[0], 0)
    for each in reference_fields(images, ("opencell_crops", "hpa_fields")):
        if each.cell_line in KINDS:
            yield replace(each, proteins=(), domain=KINDS.index(each.cell_line))


def nuclei_of(packed: ImagePack, um: float) -> Floats:
    """Return field, row, column, area in pixels and mean brightness of every nucleus, (N, 5)."""
    rows = []
    fields, firsts = np.unique(packed.arrays["cells"][:, 0], return_index=True)
    for field, first in zip(fields, firsts, strict=True):
        nucleus = packed.channels(int(first))[0].astype(np.float32) / 255
        labels = OtsuWatershed()(nucleus, um)
        numbers = np.arange(1, labels.max() + 1)
        centres = np.array(ndimage.center_of_mass(labels > 0, labels, numbers)).reshape(-1, 2)
        areas, means = np.bincount(labels.ravel())[1:], ndimage.mean(nucleus, labels, numbers)
        rows.append(np.column_stack([np.full(len(numbers), field), centres, areas, means]))
    return np.concatenate(rows).astype(np.float32)


def scene_of(packed: ImagePack, cell: int, size: int, shift: tuple[int, int] = (0, 0)) -> Scene:
    """Describe the crop around a cell, of nuclei whose centres it holds."""
    field, row, column = (int(n) for n in packed.arrays["cells"][cell])
    nuclei = packed.arrays["nuclei"]
    nuclei = nuclei[nuclei[:, 0] == field]
    off = np.abs(nuclei[:, 1:3] - (row + shift[0], column + shift[1])).max(1)
    inside = nuclei[off < size / 2]
    kind = int(packed.arrays["domain"][field])
    if not len(inside):
        return Scene(kind, 0, 0.0, 1.0)
    brightness = inside[:, 4]
    contrast = float(brightness.max() / max(np.median(brightness), 1e-3))
    return Scene(kind, len(inside), float(inside[:, 3].sum() / size**2), min(contrast, 3.0))


# ---- training ----


class NucleiTask(FlowTask):
    """Nuclei, their structure or their grain: a task whose target is the nucleus image."""

    def __init__(self, packed: ImagePack, stage: str, settings: StageSettings) -> None:
        torch.manual_seed(settings.seed)
        super().__init__(build(stage), settings)
        self.pack, self.grain = packed, stage == GRAIN_STAGE
        # Of the grain's smaller crops, too, the scene is that of a whole image.
        self.scene_px = SIZE_PX if self.grain else SIZE_PX // 2
        fields = packed.arrays["cells"][:, 0]
        sources, splits = packed.arrays["source"][fields], packed.arrays["split"][fields]
        self.cells = {
            source: np.flatnonzero((sources == source) & (splits == "train"))
            for source in SHARES
            if ((sources == source) & (splits == "train")).any()
        }
        contrasts = np.array([scene_of(packed, cell, self.scene_px).contrast for cell in range(len(fields))])
        self.weights = {source: contrasts[cells] ** DIVIDING for source, cells in self.cells.items()}
        held_out = np.flatnonzero(splits == "test")
        self.measured = held_out[np.linspace(0, len(held_out) - 1, min(64, len(held_out))).astype(int)]

    def examples(self, count: int, seed: Sequence[int]) -> ImageBatch:
        """Make examples of the fields, turned and scaled."""
        rng = np.random.default_rng(seed)
        shares = np.array([SHARES[source] for source in self.cells])
        sources = rng.choice(list(self.cells), count, p=shares / shares.sum())
        size = self.settings.size_px
        edge, reach = 2 * round(SOURCE_WINDOW * size / 2), size // 4
        crops, scenes = [], []
        for source in sources:
            weights = self.weights[source]
            cell = int(rng.choice(self.cells[source], p=weights / weights.sum()))
            down, right = (int(n) for n in rng.integers(-reach, reach + 1, 2))
            crops.append(self.pack.window(cell, edge, (down, right))[:1])
            known = rng.random() >= UNKNOWN_SHARE
            scenes.append(known * scene_of(self.pack, cell, self.scene_px, (down, right)).condition())
        nuclei = turned(torch.from_numpy(np.stack(crops)), size, rng)
        return self._batch(nuclei, np.stack(scenes), rng)

    def _batch(self, nuclei: Tensor, scenes: Floats, rng: np.random.Generator | None = None) -> ImageBatch:
        images = coarse_image(nuclei, rng) if self.grain else nuclei[:, :0]
        given = torch.ones(len(nuclei), images.shape[1])
        return ImageBatch(nuclei, images, given, torch.from_numpy(scenes.astype(np.float32)))

    def _plain(self, model: nn.Module, cells: Sequence[int]) -> ImageBatch:
        size = self.settings.size_px
        nuclei = torch.from_numpy(np.stack([self.pack.window(int(cell), size)[:1] for cell in cells]))
        scenes = np.stack([scene_of(self.pack, int(cell), self.scene_px).condition() for cell in cells])
        return ImageBatch(*(part.to(device_of(model)) for part in self._batch(nuclei, scenes)))

    @torch.no_grad()
    def validate(self, model: nn.Module) -> Mapping[str, float]:
        """Return the loss on held-out fields."""
        model.eval()
        losses: list[float] = []
        for first in range(0, len(self.measured), 16):
            some = self.measured[first : first + 16]
            losses += self.held_out_losses(model, self._plain(model, some), [int(n) for n in some])
        return {"loss": float(np.mean(losses))} if losses else {}

    @torch.no_grad()
    def samples(self, model: nn.Module) -> Image.Image | None:
        """Draw scenes, one a line; for the grain, held-out crops: real, coarse, and drawn twice."""
        model.eval()
        if self.grain:
            batch = self._plain(model, self.measured[:4])
            drawn = [self._drawn(model, batch, 4 * seed) for seed in range(2)]
            columns = torch.cat([batch.protein, batch.images, *drawn], 3)
            return sheet(list(columns[:, 0].cpu()))
        lines = []
        for scene in SCENES.values():
            condition = torch.from_numpy(np.stack([scene.condition()] * 4)).to(device_of(model))
            empty = torch.zeros(4, 0, self.settings.size_px, self.settings.size_px, device=condition.device)
            batch = ImageBatch(empty, empty, empty[:, :, 0, 0], condition)
            lines.append(torch.cat(list(self._drawn(model, batch, 0)[:, 0]), 1).cpu())
        return sheet(lines)

    def _drawn(self, model: nn.Module, batch: ImageBatch, seed: int) -> Tensor:
        count, size = len(batch.condition), self.settings.size_px
        start = noise(range(seed, seed + count), size, size).to(device_of(model))
        with self.autocast(start):
            return draw(
                model,
                start,
                batch.images,
                batch.given,
                batch.condition,
                0 * batch.condition,
                steps=GRAIN_STEPS if self.grain else STEPS,
                guidance=1.0 if self.grain else GUIDANCE,
            )


def build(stage: str) -> FlowMatchingUNet:
    """Build the network of a stage: the grain is given the coarse image, the structure none."""
    settings, images = SETTINGS[stage], int(stage == GRAIN_STAGE)
    return FlowMatchingUNet(
        images, CONDITIONS, settings.widths, embedding=settings.embedding, attention=settings.attention
    )


# ---- drawing ----


def draw_scene(networks: Mapping[str, nn.Module], scene: Scene, seed: int) -> Floats:
    """Draw a scene, (`DRAWN_PX`, `DRAWN_PX`) in [0, 1]; the same seed gives the same image."""
    condition, half = torch.from_numpy(scene.condition())[None], DRAWN_PX // 2
    nothing = torch.zeros(1, 0, half, half)
    coarse = draw(
        networks[STRUCTURE_STAGE],
        noise([seed], half, half),
        nothing,
        nothing[:, :, 0, 0],
        condition,
        0 * condition,
        steps=STEPS,
        guidance=GUIDANCE,
    )
    wide = F.interpolate(coarse, scale_factor=2.0, mode="bilinear")
    start = noise([seed], DRAWN_PX, DRAWN_PX)
    drawn: Floats = draw(
        networks[GRAIN_STAGE], start, wide, torch.ones(1, 1), condition, steps=GRAIN_STEPS
    ).numpy()[0, 0]
    return drawn


def central_crop(image: Floats) -> Floats | None:
    """Cut (`SIZE_PX`, `SIZE_PX`) around the whole nucleus that is nearest to the middle.

    None if there is no such nucleus.
    """
    labels = OtsuWatershed()(image, OPENCELL_PIXEL_SIZE_UM)
    numbers = np.arange(1, labels.max() + 1)
    centres = np.array(ndimage.center_of_mass(labels > 0, labels, numbers)).reshape(-1, 2)
    for number in numbers[np.argsort(np.abs(centres - DRAWN_PX / 2).max(1))]:
        mask = labels == number
        corner = np.round(centres[number - 1] - SIZE_PX / 2).astype(int)
        whole = mask.sum() * OPENCELL_PIXEL_SIZE_UM**2 >= SMALLEST_UM2
        if whole and (corner >= 0).all() and (corner <= DRAWN_PX - SIZE_PX).all():
            top, left = corner
            return percentile_normalise(image[top : top + SIZE_PX, left : left + SIZE_PX])
    return None


def draw_all(folder: Path, seeds: int) -> None:
    """Draw every scene with every seed into one sheet, a line a scene, and write the default cells."""
    from safetensors.torch import load_file

    networks = {}
    for stage in (STRUCTURE_STAGE, GRAIN_STAGE):
        networks[stage] = build(stage).eval()
        networks[stage].load_state_dict(load_file(folder / IMAGE_WEIGHTS[stage]))
    blank, lines = np.zeros((SIZE_PX, SIZE_PX), np.float32), []
    for scene in SCENES.values():
        crops = (central_crop(draw_scene(networks, scene, seed)) for seed in range(seeds))
        line = np.concatenate([blank if crop is None else crop for crop in crops], 1)
        lines.append(torch.from_numpy(line))
    shown = sheet(lines)
    assert shown is not None
    shown.save(folder / "drawn.png")
    (folder / "default_nuclei").mkdir(exist_ok=True)
    for name, (kind, seed) in CHOSEN.items():
        crop = central_crop(draw_scene(networks, SCENES[kind], seed))
        assert crop is not None, name
        pixels = np.rint(crop * 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "default_nuclei" / f"{name}.png", optimize=True)


def main() -> None:
    """Read the options, and pack, train or draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["pack", STRUCTURE_STAGE, GRAIN_STAGE, "draw"])
    parser.add_argument("--data", type=Path, default=Path("../shared/data/images"), help="to pack")
    parser.add_argument("--out", type=Path, default=Path("runs/nuclei"))
    parser.add_argument("--images", type=int, default=100_000, help="train on so many images in all")
    parser.add_argument("--minutes", type=float, default=4, help="between checkpoints within an epoch")
    parser.add_argument("--seeds", type=int, default=10, help="images of each scene to draw")
    parser.add_argument("--threads", type=int, default=1, help="more than one is slow beside other work")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.what == "pack":
        pack(options.data, options.out)
    elif options.what == "draw":
        draw_all(options.out, options.seeds)
    else:
        settings = SETTINGS[options.what]
        epochs = -(-options.images // (settings.batches * settings.batch_size))
        settings = settings.model_copy(update={"max_epochs": epochs, "checkpoint_minutes": options.minutes})
        task = NucleiTask(ImagePack.load(options.out / PACKED[options.what]), options.what, settings)
        network = fit_stage(task, options.out / options.what)
        write_network(network, options.out / IMAGE_WEIGHTS[options.what])


if __name__ == "__main__":
    main()
