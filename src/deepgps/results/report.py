"""The report of predictions: one HTML page to read, print and send on."""

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from deepgps.reporting.images import image_file_uri, image_uri
from deepgps.reporting.pages import write_page
from deepgps.results.labelled_images import overlay_panel
from deepgps.results.records import Record, read_records
from deepgps.results.run import read_run

# A page of 10,000 rows opens in any browser; one of 10,000 images in none.
MAX_CARDS = 100
MAX_ROWS = 10_000
MAX_TILES = 500
# Pixels. Sharp at the size of a tile, and 500 of them in about 2 MB.
TILE = 132
# Longer tables start folded, so that the first image is in sight.
FOLD_FROM = 20


def write_report(
    folder: Path, thresholds: Mapping[str, float] | None = None, *, max_tiles: int = MAX_TILES
) -> Path:
    """Write ``report.html`` from the ``results.jsonl`` and ``run.json`` of a folder.

    The first `MAX_CARDS` rows are shown in full, images embedded; the first `max_tiles` images are shown
    small in a gallery; the first `MAX_ROWS` rows are listed; the page says so where there are more. It loads
    nothing from elsewhere.

    Parameters
    ----------
    folder
        The folder of a run.
    thresholds
        By class, the probability from which it is named, to mark; None if there are none.
    max_tiles
        Most images in the gallery.

    Returns
    -------
    Path
        The report.
    """
    records = folder / "results.jsonl"
    run = read_run(folder) or {}
    model, proteins, options = (run.get(key, {}) for key in ("model", "proteins", "options"))
    in_store = options.get("image_format") == "zarr"
    landmarks = options.get("landmarks", {})
    first = next(read_records(records), None)
    return write_page(
        folder / "report.html",
        "prediction.html",
        title="deepGPS: where the proteins go",
        facts=[
            f"Model {model.get('name', '')} {model.get('version', '')}",
            f"{proteins.get('predicted', 0):,} proteins predicted, {proteins.get('rejected', 0):,} rejected",
            *(f"{cell} drawn with its {' and '.join(names)}" for cell, names in landmarks.items()),
            run.get("started", ""),
        ],
        row_count=sum(1 for _ in read_records(records)),
        rows=islice(read_records(records), MAX_ROWS),
        cards=_cards(records, None if in_store else folder / "images"),
        max_rows=MAX_ROWS,
        max_cards=MAX_CARDS,
        tiles=_tiles(records, folder / "images", max_tiles),
        max_tiles=max_tiles,
        tile_size=TILE,
        thresholds=thresholds or {},
        fold_from=FOLD_FROM,
        labelled=first is None or bool(first["probabilities"]),
        mean=bool(options.get("mean")),
        image_store="images.zarr" if in_store else "images/*.ome.tif",
        has_image_files=(folder / "images").is_dir(),
    )


def _cards(records: Path, images: Path | None) -> Iterator[tuple[Record, dict[str, Any] | None]]:
    for record in islice(read_records(records), MAX_CARDS):
        if images is None or not record["images"]:
            yield record, None
        else:
            # The name may have been edited: only a file in the folder itself is ever embedded.
            path = images / Path(f"{record['images']}.png").name
            yield record, {"name": path.name, "source": image_file_uri(path)}


def _tiles(records: Path, images: Path, most: int) -> Iterator[tuple[Record, dict[str, Any]]]:
    """Yield the rows of the gallery, with the overlay of their image."""
    for record in islice(read_records(records), most):
        path = images / Path(f"{record['images']}.png").name
        try:
            source = image_uri(overlay_panel(path).resize((TILE, TILE)))
        except OSError:
            source = None
        yield record, {"name": path.name, "source": source}
