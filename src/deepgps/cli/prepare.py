"""``deepgps data segment``, ``prepare``, ``show`` and ``check``."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from deepgps.datasets.crops.settings import PrepareSettings
from deepgps.images.cell import OPENCELL_PIXEL_SIZE_UM


def segment(
    images: list[Path],
    /,
    *,
    out: Path,
    segmenter: str = "otsu",
    channel: int | None = None,
    pixel_size_um: float | None = None,
) -> int:
    """Find the nuclei of images and write label images, ``<name>_labels.tif``.

    Parameters
    ----------
    images
        Nucleus images: TIFF, OME-TIFF, PNG or JPEG.
    out
        Folder for the label images; created if missing.
    segmenter
        Name of the segmenter.
    channel
        Index of the nucleus channel, from 0; guessed by default.
    pixel_size_um
        Pixel size in micrometres; read from the file by default.
    """
    from deepgps.cli.console import exit_code
    from deepgps.errors import InputError
    from deepgps.images.read import image_stem, read_field
    from deepgps.images.segmentation import LABELS_SUFFIX, get_segmenter, segment_field, write_labels

    finder, failed, written = get_segmenter(segmenter), 0, dict[str, Path]()
    out.mkdir(parents=True, exist_ok=True)
    for image in images:
        try:
            target = out / f"{image_stem(image)}{LABELS_SUFFIX}"
            if target.name in written:
                raise InputError(f"'{image}' and '{written[target.name]}' would both become {target.name}.")
            field = read_field(image, channel=channel, pixel_size_um=pixel_size_um)
            if field.pixel_size_um is None:
                raise InputError(f"Image '{image}' does not say its pixel size; give --pixel-size-um.")
            labels = segment_field(field, finder, OPENCELL_PIXEL_SIZE_UM)
            write_labels(target, labels)
        except InputError as error:
            failed += 1
            print(f"deepgps: {error}", file=sys.stderr)
            continue
        written[target.name] = image
        print(f"{target}\t{labels.max()} nuclei")
    return exit_code(len(written), failed)


def prepare(
    fields: Path,
    *,
    proteins: Path,
    out: Path,
    labels: Path | None = None,
    segmenter: str = "otsu",
    workers: int | None = None,
    scheduler: str | None = None,
    overwrite: Annotated[bool, Parameter(negative=())] = False,
    settings: Annotated[PrepareSettings, Parameter(name="*")] | None = None,
) -> None:
    """Cut fields into crops, one around each nucleus, and write them to a crop store.

    Parameters
    ----------
    fields
        The list of fields, CSV.
    proteins
        The table of proteins, Parquet, that ``deepgps data annotate`` writes.
    out
        Folder of the crop store; created if missing.
    labels
        Folder of label images, ``<field or image>_labels.tif``, instead of a segmenter.
    segmenter
        Name of the segmenter.
    workers
        Local processes.
    scheduler
        Address of a Dask scheduler whose workers do it instead.
    overwrite
        Start again, whatever the folder holds of an earlier run.
    """
    from deepgps.cli.console import ProgressBar
    from deepgps.datasets.crops.prepare import FIELD_PROBLEMS, prepare_fields

    with ProgressBar("preparing", _count(fields), unit="fields") as progress:

        def on_field(name: str, problem: str | None, warnings: Sequence[str]) -> None:
            progress.advance()
            if problem is not None:
                progress.print_some(f"field '{name}' is left out: {problem}")
            for warning in warnings:
                progress.print_some(f"field '{name}': {warning}")

        done = prepare_fields(
            fields,
            proteins,
            out,
            settings,
            labels=labels,
            segmenter_name=segmenter,
            workers=workers,
            scheduler=scheduler,
            overwrite=overwrite,
            on_field=on_field,
        )
    earlier = f" ({done.resumed:,} of them by an earlier run)" if done.resumed else ""
    print(f"{done.crops:,} crops of {done.fields:,} fields, {done.left_out:,} fields left out{earlier}")
    if done.left_out:
        print(f"Why: {out / FIELD_PROBLEMS}")
    print(f"To look at them: deepgps data show {out}")


def show(store: Path, *, out: Path = Path("sheet.png"), crops: int = 48, seed: int = 0) -> None:
    """Draw a contact sheet of a crop store.

    Parameters
    ----------
    store
        Folder of the crop store.
    out
        The PNG to write.
    crops
        Number of crops to show, chosen at random.
    seed
        Seed of the choice.
    """
    import json

    from deepgps.datasets.crops.store import CROPS_MANIFEST, open_crops, sample_crops
    from deepgps.files import atomic_path
    from deepgps.results.labelled_images import crop_sheet

    opened = open_crops(store)
    rows = sample_crops(opened, crops, seed)
    table = opened.index[rows.tolist()].to_dicts()
    captions = [_caption(row) for row in table]
    um = json.loads((store / CROPS_MANIFEST).read_text(encoding="utf-8")).get(
        "pixel_size_um", OPENCELL_PIXEL_SIZE_UM
    )
    with atomic_path(out) as draft:
        crop_sheet(opened.images(rows), captions, um).save(draft, format="PNG")
    print(f"{out}\t{len(rows)} of {len(opened.index):,} crops")


def check(store: Path) -> None:
    """Check every byte of a crop store.

    Parameters
    ----------
    store
        Folder of the crop store.
    """
    from deepgps.datasets.crops.store import check_crops

    for name, sha256 in check_crops(store).items():
        print(f"{name}\tsha256:{sha256}\tunchanged")


def _caption(row: Mapping[str, str | None]) -> tuple[str, str, str]:
    protein = "  ".join(filter(None, (row.get("gene_symbol"), row.get("cell_line"))))
    return protein, (row["localizations"] or "").replace("|", ", "), row["field"] or ""


def _count(fields: Path) -> int | None:
    try:
        with fields.open("rb") as lines:
            return max(0, sum(1 for _ in lines) - 1)
    except OSError:
        return None
