"""A small made-up data folder in the real formats: tables of proteins and drawn images."""

import csv
import gzip
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from deepgps.arrays import Floats

Place = tuple[float, float]


def discs(edge: int, places: Sequence[Place], radius: float, level: float = 200) -> Floats:
    """Round nuclei on a dim background, (edge, edge) in 0-255."""
    y, x = np.indices((edge, edge))
    inside = np.any([np.hypot(y - row, x - column) < radius for row, column in places], axis=0)
    noise = np.random.default_rng(0).normal(0, 1.5, inside.shape)
    blurred = ndimage.gaussian_filter(inside.astype(np.float32) * level, 1.0)
    return np.clip(blurred + 8 + noise, 0, 255).astype(np.float32)


def ring(edge: int, places: Sequence[Place], radius: float) -> Floats:
    """Cytoplasm around such nuclei."""
    return np.clip(discs(edge, places, 1.8 * radius, 150) - discs(edge, places, radius, 150) + 8, 0, 255)


def save(path: Path, pixels: Floats, colour: int | None = None) -> None:
    """Write grey, or one colour of an RGB image."""
    shown = np.rint(pixels).astype(np.uint8)
    if colour is not None:
        rgb = np.zeros((*shown.shape, 3), np.uint8)
        rgb[..., colour] = shown
        shown = rgb
    Image.fromarray(shown).save(path, **({"quality": 95} if path.suffix == ".jpg" else {}))


def write_index(folder: Path, rows: Sequence[dict[str, object]]) -> None:
    with (folder / "index.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def u2os_mosaics(folder: Path, locations: Sequence[str] = ("Cytosol", "Nucleoplasm")) -> None:
    """One mosaic of 3 x 3 tiles for each location; its two cells are in the middle and below it."""
    folder.mkdir(parents=True)
    nucleus, around = (_mosaic(draw(512, [(256, 256)], 40)) for draw in (discs, ring))
    rows: list[dict[str, object]] = []
    for number, location in enumerate(locations):
        name = f"mosaic{number}"
        green = nucleus if location == "Nucleoplasm" else around
        for colour, pixels in (("blue", nucleus), ("green", green), ("red", around), ("yellow", around)):
            save(folder / f"{name}_{colour}.jpg", pixels)
        rows += [
            {"mosaic": name, "row": row, "col": 1, "main_location": location, "cell_line": "U-2 OS"}
            for row in (1, 2)
        ]
    write_index(folder, rows)


def _mosaic(tile: Floats) -> Floats:
    empty = np.zeros_like(tile)
    return np.block([[empty, empty, empty], [empty, tile, empty], [empty, tile, empty]])


def hpa_field(folder: Path) -> None:
    """One field of 0.08 µm per pixel with a nucleus in its centre, its channels in colour."""
    folder.mkdir(parents=True)
    nucleus, around = discs(640, [(320, 320)], 90), ring(640, [(320, 320)], 90)
    for colour, (name, pixels) in enumerate((("red", around), ("green", nucleus), ("blue", nucleus))):
        save(folder / f"1_2_A1_1_{name}.jpg", pixels, colour)
    row = {"field": "1_2_A1_1", "antibody": "HPA1", "gene_symbol": "DAXX", "accession": "Q9UER7"}
    write_index(folder, [{**row, "locations": "Nuclear bodies;Nucleoplasm", "cell_line": "A-431"}])


def opencell_tiles(folder: Path) -> None:
    """A gallery tile of known scale, a thumbnail with a scale bar, and two that cannot be used."""
    folder.mkdir(parents=True)
    tiles = {"gallery_ACTB": 348, "thumb_CLTA": 150, "thumb_WEE1": 150, "target_ATL3": 150}
    for name, edge in tiles.items():
        places = [(edge * 0.3, edge * 0.3), (edge * 0.65, edge * 0.6)]
        radius = 17 if edge == 348 else 18
        around = ring(edge, places, radius)
        if name == "thumb_CLTA":
            around[140:142, 100:130] = 250
        save(folder / f"{name}_nucleus.png", discs(edge, places, radius))
        save(folder / f"{name}_protein.png", around)
    grades = {
        "gallery_ACTB": "cytoskeleton|membrane|",
        "thumb_CLTA": "|cytoplasmic;vesicles|golgi",
        "thumb_WEE1": "",
        "target_ATL3": "er||",
    }
    remarks = {"target_ATL3": "1142px screenshot, UI widgets in lower right"}
    write_index(
        folder,
        [
            {
                "tile": name,
                "gene_symbol": name.split("_")[1],
                "accession": f"A{number}",
                "grades_3_2_1": grades[name],
                "cell_line": "HEK293T",
                "remark": remarks.get(name, "unmixed"),
            }
            for number, name in enumerate(tiles)
        ],
    )


def dictionary(folder: Path) -> None:
    """Two textbook fields of unknown scale."""
    folder.mkdir(parents=True)
    rows = []
    for name, location in (("mitochondria_1", "Mitochondria"), ("rods_1", "Rods & rings")):
        places = [(110, 120), (260, 280)]
        save(folder / f"{name}_nucleus.jpg", discs(400, places, 45))
        save(folder / f"{name}_protein.jpg", ring(400, places, 45))
        rows.append({"field": name, "locations": location, "cell_line": "human", "width": 400, "height": 400})
    write_index(folder, rows)


def landmark_fields(folder: Path) -> None:
    """A field with microtubules, ER and a protein, one row for each, and a masked cell with microtubules."""
    folder.mkdir(parents=True)
    places = [(150, 150)]
    nucleus, around = discs(300, places, 40), ring(300, places, 40)
    rows = []
    for field, gene, location in (
        ("field_1", "TUBA1A", "Microtubules"),
        ("field_1", "CALR", "Endoplasmic reticulum"),
        ("field_1", "LMNB1", "Nuclear membrane"),
        ("cell_0", "TUBA1A", "Microtubules"),
    ):
        names = {"nucleus": f"{field}_{gene}_nucleus.png", "protein": f"{field}_{gene}_protein.png"}
        save(folder / names["nucleus"], nucleus)
        save(folder / names["protein"], around)
        row = {"pair": f"{field}_{gene}", **names, "field": field, "gene_symbol": gene}
        rows.append({**row, "localizations": location, "pixel_size_um": 0.16, "cell_line": "A-431"})
    write_index(folder, rows)


def opencell_crops(folder: Path, figures: Sequence[str] = ("one", "two", "883d381517")) -> None:
    """Two crops of 98 px in each figure; the localization of one of them is known, the last is held out."""
    folder.mkdir(parents=True)
    rows = []
    for figure in figures:
        for number, localizations in enumerate(("er;golgi", "")):
            name = f"{figure}_{number:02d}"
            places = [(49, 49), (20, 80)]
            save(folder / f"{name}_nucleus.png", discs(98, places, 14))
            save(folder / f"{name}_protein.png", ring(98, places, 14))
            row = {"pair": name, "nucleus": f"{name}_nucleus.png", "protein": f"{name}_protein.png"}
            rows.append({**row, "figure": figure, "localizations": localizations, "cell_line": "HEK293T"})
    write_index(folder, rows)


def other_pairs(folder: Path) -> None:
    """A named protein, tubulin, and a pair of which nothing is known."""
    folder.mkdir(parents=True)
    rows = []
    for name, gene, location in (
        ("hpa_prbio_1_MTM1", "MTM1", "Plasma membrane"),
        ("demo_TUBA1A", "TUBA1A", "Microtubules"),
        ("demo_unknown", "", ""),
    ):
        edge = 640 if name.startswith("hpa_prbio") else 300
        places, radius = [(edge / 2, edge / 2)], 90 if edge == 640 else 35
        save(folder / f"{name}_nucleus.png", discs(edge, places, radius))
        save(folder / f"{name}_protein.png", ring(edge, places, radius))
        rows.append({"pair": name, "gene_symbol": gene, "locations": location, "cell_line": "U-2 OS?"})
    write_index(folder, rows)


def write_images(folder: Path) -> Path:
    """All sources, in the folder given."""
    u2os_mosaics(folder / "hpa_u2os_cells")
    hpa_field(folder / "hpa_fields")
    opencell_tiles(folder / "opencell_tiles")
    dictionary(folder / "hpa_dictionary")
    landmark_fields(folder / "hpa_landmark_fields")
    opencell_crops(folder / "opencell_crops")
    other_pairs(folder / "other_pairs")
    return folder


def write_tables(folder: Path, proteins: int = 30) -> Path:
    """The three tables, each with a third of the proteins: basic ones nuclear, acidic ones not."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(3)
    sequences = [
        "M" + "".join(rng.choice(list("DEGSAL" if i % 2 else "KRGSAL"), int(rng.integers(40, 90))))
        for i in range(proteins)
    ]
    opencell = ["target_name,uniprot_id,ensg_id,annotations_grade_3,annotations_grade_2,annotations_grade_1"]
    opencell[0] += ",sequence,cluster"
    swissprot = ["accession,sequence,localizations,partition,kingdom,membrane,cluster"]
    hpa = ["ensembl_gene_id,accession,sequence_source,sequence,cluster,reliability,main_location"]
    hpa[0] += ",additional_location,enhanced,supported,approved,uncertain"
    for i, sequence in enumerate(sequences):
        if i % 3 == 0:
            opencell.append(f"T{i},P{i},E{i},{('nucleoplasm', 'cytoplasmic')[i % 2]},,,{sequence},{i}")
        elif i % 3 == 1:
            swissprot.append(f"P{i},{sequence},{('Nucleus', 'Cytoplasm')[i % 2]},0,Metazoa,0,{i}")
        else:
            place = ("Nucleoplasm", "Cytosol")[i % 2]
            hpa.append(f"E{i},P{i},x,{sequence},{i},Supported,{place},,,{place},,")
    tables = {"opencell_targets": opencell, "swissprot_localizations": swissprot, "hpa_localizations": hpa}
    for name, lines in tables.items():
        with gzip.open(folder / f"{name}.csv.gz", "wt") as file:
            file.write("\n".join(lines))
    return folder


def write_data(folder: Path) -> Path:
    """A whole data folder: ``sequences/`` and ``images/``."""
    write_tables(folder / "sequences")
    write_images(folder / "images")
    return folder


RECIPE = """\
kind: mini
name: toy
version: "0.0"
class_set: mini
cell_line: drawn
crop: {size_px: 208, pixel_size_um: 0.206349}
labels: {folds: 2, members: 1, widths: [8], epochs: 2, batch_size: 8}
images:
  structure: {max_epochs: 2, batches: 2, batch_size: 4, size_px: 32, widths: [8, 8], embedding: 8}
  grain: {max_epochs: 1, batches: 2, batch_size: 2, size_px: 32, widths: [8], embedding: 8}
"""
