"""``deepgps nuclei``."""

from pathlib import Path


def list_nuclei_command(*, out: Path | None = None) -> None:
    """List the default nuclei.

    Parameters
    ----------
    out
        Also draw them all onto this PNG.
    """
    from deepgps.images.cell import DEFAULT_CELLS, Cell

    cells = [Cell.load(name) for name in DEFAULT_CELLS]
    for cell in cells:
        height, width = cell.nucleus.shape
        print(f"{cell.name}\t{height} x {width} px\t{cell.pixel_size_um:g} µm per pixel")
    if out is not None:
        from deepgps.files import atomic_path
        from deepgps.results.labelled_images import contact_sheet

        with atomic_path(out) as draft:
            contact_sheet(cells).save(draft, format="PNG")
        print(out)
