"""``deepgps nuclei``."""

from pathlib import Path


def list_nuclei(*, out: Path | None = None) -> None:
    """List the default nuclei.

    Parameters
    ----------
    out
        Also draw them all onto this PNG.
    """
    from deepgps.images.nuclei import default_nuclei

    nuclei = default_nuclei()
    for nucleus in nuclei:
        height, width = nucleus.nucleus.shape
        print(f"{nucleus.name}\t{height} x {width} px\t{nucleus.pixel_size_um:g} µm per pixel")
    if out is not None:
        from deepgps.files.atomic import replacing
        from deepgps.results.images import contact_sheet

        with replacing(out) as draft:
            contact_sheet(nuclei).save(draft, format="PNG")
        print(out)
