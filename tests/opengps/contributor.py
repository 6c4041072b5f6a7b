"""Synthetic images to submit."""

import io
import zipfile

import numpy as np
import tifffile
from visitor import API, SEQUENCE

FIELDS = {
    "protein": "NPM1",
    "sequence": SEQUENCE,
    "localizations": "nucleolus_gc",
    "cell_line": "HEK293T",
    "microscope": "spinning disk, 63x/1.4",
    "pixel_size_um": "0.2",
    "contributor": "A lab",
    "licence": "CC-BY-4.0",
    "consent": "true",
}
HEADER = "nucleus_image,protein_image,protein,localizations\n"


def field(seed=0, edge=300):
    """A nucleus image and a protein image (edge, edge) uint16 of two cells."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:edge, :edge]
    nucleus, protein = rng.normal(200, 8, (2, edge, edge))
    for row, col in ((0.35, 0.35), (0.65, 0.7)):
        away = np.hypot(y - row * edge, x - col * edge)
        nucleus += 3000 * (away < 34 + seed % 5)
        protein += 2500 * np.exp(-(((away - 60) / 12) ** 2))
    return nucleus.astype(np.uint16), protein.astype(np.uint16)


def tiff(*channels):
    content = io.BytesIO()
    tifffile.imwrite(content, np.stack(channels) if len(channels) > 1 else channels[0])
    return content.getvalue()


def pair(seed=0):
    """The files of one image, for a form."""
    nucleus, protein = field(seed)
    return {
        "nucleus_image": (f"n{seed}.tif", tiff(nucleus), "image/tiff"),
        "protein_image": (f"p{seed}.tif", tiff(protein), "image/tiff"),
    }


def packed(files):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, inner in files.items():
            archive.writestr(name, inner)
    return content.getvalue()


def batch(count, folder="lab/"):
    """Files by name: a table and the images that it lists."""
    rows, files = [HEADER.replace("\n", ",sequence\n")], {}
    letters = "ACDEFGHIKLMNPQRSTVWY"
    for seed in range(count):
        nucleus, protein = field(seed)
        files[f"{folder}n{seed}.tif"], files[f"{folder}p{seed}.tif"] = tiff(nucleus), tiff(protein)
        # No two of them are homologs, or a split would keep them together.
        sequence = "".join(np.random.default_rng(seed).choice(list(letters), 120))
        rows.append(f"n{seed}.tif,p{seed}.tif,protein{seed},{('er', 'golgi')[seed % 2]},{sequence}\n")
    return {f"{folder}table.csv": "".join(rows).encode(), **files}


def submit(visitor, files=None, **fields):
    """Send one image to the API; return the answer."""
    return visitor.client.post(f"{API}/submissions", data={**FIELDS, **fields}, files=files or pair())


def submit_files(visitor, *uploads, **fields):
    """Send a batch; each upload is a name and its bytes."""
    shared = {name: value for name, value in FIELDS.items() if name not in ("protein", "localizations")}
    files = [("files", (name, content)) for name, content in uploads]
    return visitor.client.post(f"{API}/submissions", data={**shared, **fields}, files=files)
