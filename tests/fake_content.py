"""What the fake sources hold: made-up proteins, and fields of real or drawn nuclei in the real formats."""

import csv
import gzip
import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from hashlib import md5
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from image_sources import discs

EDGE = 600
OPENCELL_UM = 0.206349
# Smaller than a real field (2048), at its real scale: a drawn one, and the middle of a real one.
HPA_EDGE, HPA_MIDDLE = 1024, slice(256, 1792)
ALPHAFOLD = "https://alphafold.ebi.ac.uk"
# Localization to the stem of its genes' names and the residues they are made of.
CLASSES = {
    "cytoplasmic": ("CYT", "DEGSALQT"),
    "nucleoplasm": ("NUC", "KRGSALEP"),
    "vesicles": ("VES", "LVGSAIDN"),
    "er": ("ERT", "LFIVGSKW"),
}
PER_CLASS = 6
HPA_NAMES = {"cytoplasmic": "Cytosol", "nucleoplasm": "Nucleoplasm", "vesicles": "Vesicles"}
HPA_NAMES["er"] = "Endoplasmic reticulum"


@dataclass(eq=False)
class Content:
    """One file: its bytes are made when they are first asked for."""

    make: Callable[[], bytes]
    known_size: int | None = None
    kind: str = "application/octet-stream"
    made: dict[str, bytes] = field(default_factory=dict)

    @cached_property
    def body(self) -> bytes:
        return self.make()

    @property
    def size(self) -> int:
        return self.known_size or len(self.body)

    @cached_property
    def etag(self) -> str:
        # Of the size alone where the listing must not draw every image.
        return f'"{md5(str(self.known_size).encode() if self.known_size else self.body).hexdigest()}"'


@dataclass(frozen=True)
class Target:
    """A made-up protein."""

    gene: str
    ensg: str
    accession: str
    grades: tuple[str, str, str]
    sequence: str

    @property
    def shown(self) -> str:
        """Where the drawing puts it."""
        return (self.grades[0] or self.grades[1] or self.grades[2]).split(";")[0]


def targets() -> list[Target]:
    """Six proteins of each of four localizations, and four awkward ones."""
    rng = np.random.default_rng(7)
    found = []
    for name, (stem, letters) in CLASSES.items():
        for number in range(PER_CLASS):
            grades = (name, "", "") if number % 2 else ("", name, "golgi")
            # So named that every localization is among the first few of a listing.
            found.append((f"{'ABCDEF'[number]}{stem}1", grades, letters))
    found += [
        ("A-HYPHEN1", ("nucleoplasm;cytoplasmic", "", ""), "KRGSALEP"),
        ("CMULTI1", ("vesicles;golgi", "er", ""), "LVGSAIDN"),
        ("ZFAINT1", ("", "", "cytoplasmic"), "DEGSALQT"),
        ("ZGOLG1", ("golgi", "", ""), "LFIVGSKW"),
    ]
    return [
        Target(
            gene,
            f"ENSG{90000000 + i:011d}",
            f"P{i % 10}{900 + i:03d}{i % 7}",
            grades,
            _sequence(rng, letters),
        )
        for i, (gene, grades, letters) in enumerate(sorted(found))
    ]


def _sequence(rng: np.random.Generator, letters: str) -> str:
    return "M" + "".join(rng.choice(list(letters), int(rng.integers(80, 300))))


@lru_cache(maxsize=2)
def contents(data: Path | None) -> dict[str, Content]:
    """Every file of every source, by path."""
    data = data if data is not None and data.is_dir() else None
    found = targets()
    return {**_opencell(found, data), **_hpa(found, data), **_alphafold(found), **_uniprot(found)}


def _text(text: str, kind: str = "text/plain") -> Content:
    return Content(text.encode, kind=kind)


# --- OpenCell


def _opencell(found: list[Target], data: Path | None) -> dict[str, Content]:
    tables = {
        "annotations": _csv(
            ["target_name", "ensg_id", "annotations_grade_3", "annotations_grade_2", "annotations_grade_1"],
            [[each.gene, each.ensg, *each.grades] for each in found],
        ),
        "metadata": _csv(
            ["plate_id", "well_id", "target_name", "ensg_id", "enst_id", "uniprot_id", "terminus"],
            [["P0001", "A1", each.gene, each.ensg, "ENST0", each.accession, "n"] for each in found],
        ),
    }
    files = {
        "/opencell-portal/opencell-localization-annotations.csv": _text(tables["annotations"], "text/csv"),
        "/opencell-portal/opencell-library-metadata.csv": _text(tables["metadata"], "text/csv"),
        "/opencell-bucket/microscopy/raw/README.txt": _text("made up"),
    }
    size = len(_opencell_tiff(np.zeros((2, EDGE, EDGE), np.uint16)))
    fields = [each for each in found for _ in range(1 + (each.gene[0] in "ACE"))]
    # A line that was imaged and never annotated.
    fields.append(Target("ZZZ-9", "ENSG00000099999", "", ("", "", "nucleoplasm"), ""))
    for number, each in enumerate(fields):
        folder = f"/opencell-bucket/microscopy/raw/{each.gene}_{each.ensg}"
        name = f"OC-FOV_{each.gene}_{each.ensg}_CID{number + 100:06d}_FID{number + 30000:08d}"
        files[f"{folder}/{name}_proj.tif"] = Content(
            lambda each=each, number=number: _opencell_field(each, number, data), size, "image/tiff"
        )
        files[f"{folder}/{name}_stack.tif"] = Content(lambda: b"a stack", 30_000_000, "image/tiff")
    return files


def _csv(header: list[str], rows: list[list[str]]) -> str:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows([header, *rows])
    return file.getvalue()


def _opencell_field(target: Target, number: int, data: Path | None) -> bytes:
    nucleus = _nuclei(data, number)
    protein = _protein(nucleus, target.shown, number)
    return _opencell_tiff(np.stack([nucleus, protein]))


def _opencell_tiff(stack: NDArray[np.uint16]) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, stack, imagej=True, metadata={"axes": "CYX"})
    return file.getvalue()


@lru_cache(maxsize=8)
def _nuclei(data: Path | None, number: int) -> NDArray[np.uint16]:
    """Nuclei of one field, (600, 600) uint16, background near 300."""
    if data is None:
        rng = np.random.default_rng(number)
        grid = [(row, column) for row in range(90, 560, 140) for column in range(90, 560, 140)]
        places = [(row + rng.integers(-20, 20), column + rng.integers(-20, 20)) for row, column in grid]
        drawn = discs(EDGE, [place for place in places if rng.random() < 0.8], 29 + number % 4)
        return (300 + drawn * 20).astype(np.uint16)
    images = sorted((data / "images" / "opencell_hoechst").glob("*.tif"))
    whole = tifffile.imread(images[number % len(images)])
    corners = [(row, column) for row in (0, 212, 424) for column in (0, 212, 424)]
    windows = [whole[row : row + EDGE, column : column + EDGE] for row, column in corners]
    # The fullest first: OpenCell chose its fields for their cells.
    windows.sort(key=lambda window: -float(window.mean()))
    return np.ascontiguousarray(windows[(number // len(images)) % len(windows)])


def _protein(nucleus: NDArray[np.uint16], shown: str, number: int) -> NDArray[np.uint16]:
    """A protein image (H, W) uint16 around such nuclei, roughly as its localization looks."""
    smooth = ndimage.gaussian_filter(nucleus.astype(np.float32), 2)
    level = smooth.min() + 0.3 * (np.percentile(smooth, 99) - smooth.min())
    inside = ndimage.binary_fill_holes(smooth > level)
    outside = ndimage.distance_transform_edt(~inside).astype(np.float32)
    around = np.where(inside, 0, np.exp(-outside / 14))
    rng = np.random.default_rng(number)
    match shown:
        case "nucleoplasm":
            signal = inside * (0.7 + 0.3 * ndimage.gaussian_filter(rng.random(inside.shape), 2))
        case "cytoplasmic":
            signal = around
        case "vesicles" | "golgi":
            dots = (rng.random(inside.shape) < 0.01) * around
            signal = ndimage.gaussian_filter(dots, 1.2) * 9
        case _:
            grain = ndimage.gaussian_filter(rng.random(inside.shape), 1.5)
            signal = around * (grain - grain.min()) * 4 + np.exp(-outside / 2) * ~inside
    blurred = ndimage.gaussian_filter(signal.astype(np.float32), 0.8)
    return (200 + 6000 * np.clip(blurred, 0, 4) + rng.normal(0, 15, inside.shape)).clip(0).astype(np.uint16)


# --- Human Protein Atlas


def _hpa(found: list[Target], data: Path | None) -> dict[str, Content]:
    """Twelve genes; of their images some are TIFFs, some JPEGs only, some composites only, some withdrawn."""
    # From the end, so that not the same proteins as a small OpenCell; three of each class.
    chosen = [each for each in found if each.shown in HPA_NAMES and each.gene[0] in "DEF"]
    files: dict[str, Content] = {}
    header = ["Gene", "Gene name", "Reliability", "Main location", "Additional location"]
    header += ["Extracellular location", "Enhanced", "Supported", "Approved", "Uncertain"]
    header += [
        "Single-cell variation intensity",
        "Single-cell variation spatial",
        "Cell cycle dependency",
        "GO id",
    ]
    rows = []
    for number, each in enumerate(chosen):
        place = HPA_NAMES[each.shown]
        rows.append([each.ensg, each.gene, "Supported", place, "", "", "", place, "", "", "", "", "", "GO:1"])
        antibody = 1000 + number
        lines = {"U2OS": [f"{40 + number}_A1_1", f"{40 + number}_A1_2"], "A-431": [f"{80 + number}_B2_1"]}
        files[f"/hpa/{each.ensg}.xml"] = _text(_hpa_xml(each, antibody, place, lines), "text/xml")
        for view in (view for views in lines.values() for view in views):
            files.update(_hpa_images(f"/hpa-images/{antibody}/{view}", each.shown, number, data))
    table = "\n".join("\t".join(row) for row in [header, *rows]) + "\n"
    files["/hpa/download/tsv/subcellular_location.tsv.zip"] = Content(lambda: _zipped(table))
    # Version 23 has its tables in another folder, and a list of proteins with their antibodies.
    atlas = ["Gene\tEnsembl\tUniprot\tAntibody"]
    atlas += [
        f"{each.gene}\t{each.ensg}\t{each.accession}\tHPA{1000 + n:06}, CAB1" for n, each in enumerate(chosen)
    ]
    listed = "\n".join(atlas) + "\n"
    files["/hpa/download/proteinatlas.tsv.zip"] = Content(lambda: _zipped(listed, "proteinatlas.tsv"))
    return files


def _zipped(table: str, name: str = "subcellular_location.tsv") -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo(name), table)
    return file.getvalue()


def _hpa_xml(target: Target, antibody: int, place: str, lines: dict[str, list[str]]) -> str:
    def data(line: str, views: list[str]) -> str:
        images = "".join(
            f'<image imageType="selected"><channel color="blue">nucleus</channel><imageUrl>http://images.'
            f"proteinatlas.org/{antibody}/{view}_blue_red_green.jpg</imageUrl></image>"
            for view in views
        )
        return (
            f'<data><cellLine organ="Mesenchymal">{line}</cellLine><location GOId="GO:1">{place}</location>'
            f"<assayImage>{images}</assayImage></data>"
        )

    assay = '<cellExpression source="HPA" technology="ICC/IF"><subAssay type="human">' + "".join(
        data(line, views) for line, views in lines.items()
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<proteinAtlas schemaVersion="2.6"><entry version="23">'
        f'<name>{target.gene}</name><identifier id="{target.ensg}" db="Ensembl" version="109">'
        f'<xref id="{target.accession}" db="Uniprot/SWISSPROT"/></identifier>'
        '<tissueExpression technology="IHC"><image><imageUrl>http://images.proteinatlas.org/1/2_A_1_3.jpg'
        "</imageUrl></image></tissueExpression>"
        f'<antibody id="HPA{antibody:06d}" releaseVersion="4">{assay}</subAssay></cellExpression></antibody>'
        "</entry></proteinAtlas>"
    )


def _hpa_images(base: str, shown: str, number: int, data: Path | None) -> dict[str, Content]:
    """One field: TIFFs and JPEGs, JPEGs only (every 4th protein), a composite only, or withdrawn."""

    def channels() -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
        return _hpa_field(shown, sum(base.encode()), data)

    def tiff(channel: int) -> Callable[[], bytes]:
        return lambda: gzip.compress(_grey_tiff(channels()[channel]), 1, mtime=0)

    def jpeg(colours: dict[int, int]) -> Callable[[], bytes]:
        return lambda: _jpeg({colour: channels()[channel] for colour, channel in colours.items()})

    red = Content(jpeg({0: 1}), kind="image/jpeg")
    composite = {f"{base}_blue_red_green.jpg": Content(jpeg({2: 0, 1: 1}), kind="image/jpeg")}
    single = {f"{base}_blue.jpg": Content(jpeg({2: 0}), kind="image/jpeg"), f"{base}_red.jpg": red}
    single[f"{base}_green.jpg"] = Content(jpeg({1: 1}), kind="image/jpeg")
    raw = {f"{base}_blue.tif.gz": Content(tiff(0)), f"{base}_green.tif.gz": Content(tiff(1))}
    match number % 12:
        case 3:
            return {**single, **composite}
        case 7:
            return composite
        case 10:
            return {} if base.endswith("_1") else {**raw, **single, **composite}
        case _:
            return {**raw, **single, **composite}


@lru_cache(maxsize=4)
def _hpa_field(shown: str, seed: int, data: Path | None) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    images = sorted((data / "images" / "hpa_fields").glob("*_blue.jpg")) if data else []
    if images:
        blue = np.asarray(Image.open(images[seed % len(images)]).convert("RGB"))[HPA_MIDDLE, HPA_MIDDLE, 2]
        nucleus = blue.astype(np.uint16) * 200
    else:
        places = [(150, 155), (155, 360), (360, 145), (365, 355)]
        nucleus = _doubled((discs(HPA_EDGE // 2, places, 42 + seed % 6) * 200).astype(np.uint16))
    protein = _protein(np.ascontiguousarray(nucleus[::2, ::2]), shown, seed)
    return nucleus, _doubled(protein)


def _doubled(pixels: NDArray[np.uint16]) -> NDArray[np.uint16]:
    doubled: NDArray[np.uint16] = ndimage.zoom(pixels, 2, order=1)
    return doubled


def _grey_tiff(pixels: NDArray[np.uint16]) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, pixels)
    return file.getvalue()


def _jpeg(colours: dict[int, NDArray[np.uint16]]) -> bytes:
    shape = next(iter(colours.values())).shape
    rgb = np.zeros((*shape, 3), np.uint8)
    for colour, pixels in colours.items():
        rgb[..., colour] = (
            np.clip(pixels.astype(np.float32) / max(1, np.percentile(pixels, 99.8)), 0, 1) * 255
        )
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, "JPEG", quality=90)
    return file.getvalue()


# --- AlphaFold DB and UniProt


def _alphafold(found: list[Target]) -> dict[str, Content]:
    files = {}
    for each in found:
        entry = f"AF-{each.accession}-F1"
        name = f"{entry}-model_v6"
        answer = [
            {
                "entryId": entry,
                "uniprotAccession": each.accession,
                "latestVersion": 6,
                "pdbUrl": f"{ALPHAFOLD}/files/{name}.pdb",
                "cifUrl": f"{ALPHAFOLD}/files/{name}.cif",
            }
        ]
        isoform = {"entryId": f"AF-{each.accession}-2-F1", "uniprotAccession": f"{each.accession}-2"}
        answer.append({**answer[0], **isoform})
        files[f"/alphafold/api/prediction/{each.accession}"] = _text(json.dumps(answer), "application/json")
        files[f"/alphafold/files/{name}.pdb"] = _text(_pdb(each.sequence[:30]), "chemical/x-pdb")
        files[f"/alphafold/files/{name}.cif"] = _text(_cif(each.sequence[:60]), "chemical/x-cif")
    return files


_LETTERS = "ARNDCQEGHILKMFPSTWYV"
_NAMES = "ALAARGASNASPCYSGLNGLUGLYHISILELEULYSMETPHEPROSERTHRTRPTYRVAL"
_THREE = {letter: _NAMES[3 * i : 3 * i + 3] for i, letter in enumerate(_LETTERS)}


def _cif(sequence: str) -> str:
    """A helix with side chains; of residues that the drawing does not know, an alanine's."""
    from structure_files import SIDE_CHAINS, helix, mmcif

    names = [_THREE[letter] for letter in sequence]
    return mmcif(helix([name if name in SIDE_CHAINS else "ALA" for name in names]))


def _pdb(sequence: str) -> str:
    """A helix of backbone atoms, its B-factors a pLDDT."""
    lines, serial = [], 0
    for number, letter in enumerate(sequence, 1):
        for atom, radius, turn in (("N", 1.6, 0.0), ("CA", 2.3, 0.5), ("C", 1.7, 1.0), ("O", 2.0, 1.2)):
            serial += 1
            angle = 1.745 * number + turn
            x, y, z = radius * np.cos(angle), radius * np.sin(angle), 1.5 * number + turn
            lines.append(
                f"ATOM  {serial:5d}  {atom:<3s} {_THREE[letter]} A{number:4d}    "
                f"{x:8.3f}{y:8.3f}{z:8.3f}  1.00 90.00           {atom[0]}"
            )
    return "\n".join([*lines, "END", ""])


def _uniprot(found: list[Target]) -> dict[str, Content]:
    return {
        f"/uniprot/uniprotkb/{each.accession}.fasta": _text(
            f">sp|{each.accession}|{each.gene}_HUMAN Made up OS=Homo sapiens "
            f"OX=9606 GN={each.gene} PE=1 SV=1\n"
            f"{each.sequence}\n"
        )
        for each in found
    }
