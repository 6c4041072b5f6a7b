"""Predict each protein into an image of its own: a list of records in, one TIFF and one row each out.

A records file is a JSON list with an object for each image to draw::

    [{"prediction_id": "a", "nucleus_image": "a.tiff", "microtubules_image": "m.tiff",
      "er_image": "er.tiff", "fasta_file": "a.fasta"}]

``microtubules_image``, ``er_image``, ``cell_line`` and ``pixel_size_um`` may be missing; other fields are
ignored. Relative paths are relative to the folder of the file. The output folder gets
``{prediction_id}.tiff``, float32 of the height and width of the nucleus image, and
``prediction_results.tsv`` with a row for every record, in their order, whatever happened to it.
"""

import csv
import io
import json
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np

import deepgps
from deepgps.arrays import Floats
from deepgps.errors import DeepGPSError, InputError
from deepgps.files import atomic_path, hash_file, safe_file_name
from deepgps.images.cell import WholeField
from deepgps.images.write import float_tiff
from deepgps.prediction import Prediction, Predictor
from deepgps.proteins.protein import Protein
from deepgps.proteins.reading import read_protein_file
from deepgps.results.folder import create_locked_folder
from deepgps.tables import read_table

RESULTS_FILE, INTERVALS = "prediction_results.tsv", "intervals"
RESULTS_COLUMNS = (
    *("prediction_id", "status", "output_file", "message", "protein_id", "length"),
    *("localizations", "confidence", "prediction_set", "height", "width", "pixel_size_um"),
    *("model", "version", "seed", "sha256"),
)
"""Columns of ``prediction_results.tsv``."""
PREDICTED, FAILED = "predicted", "failed"
"""The values of ``status``."""
INTENSITY = (
    "relative intensity from 0 to 1: 0 is the 3rd and 1 the 99.8th percentile of the image of the protein in "
    "the field; multiply by the range of your images to compare intensities"
)
"""The scale of the images, as their metadata state it."""

Assume = float | Literal["auto"] | None
_IMAGES = ("nucleus_image", "microtubules_image", "er_image")
_FASTA = ("fasta_file", "aa_sequence_fasta_path")
_WRITTEN_EVERY_S = 5.0


@dataclass(frozen=True, slots=True)
class CellRecord:
    """A protein to draw into an image.

    Attributes
    ----------
    prediction_id
        Its name, and that of its image; empty if it has none.
    nucleus_image, microtubules_image, er_image, fasta_file
        Files; None where missing.
    cell_line
        The cell line, if it is given.
    pixel_size_um
        Pixel size of its images in micrometres, if it is given.
    problem
        Why it cannot be used, if so.
    """

    prediction_id: str
    nucleus_image: Path | None = None
    microtubules_image: Path | None = None
    er_image: Path | None = None
    fasta_file: Path | None = None
    cell_line: str | None = None
    pixel_size_um: float | None = None
    problem: str | None = None

    @property
    def files(self) -> list[Path]:
        """Its files."""
        files = self.nucleus_image, self.microtubules_image, self.er_image, self.fasta_file
        return [file for file in files if file is not None]


@dataclass(frozen=True, slots=True)
class CellRecordsSummary:
    """What a call of `predict_cell_records` did.

    Attributes
    ----------
    table
        The table of results.
    predicted, resumed, failed
        Records with an image, those of them from earlier calls, and records without an image.
    """

    table: Path
    predicted: int
    resumed: int
    failed: int


def read_cell_records(path: Path) -> list[CellRecord]:
    """Read a records file.

    Parameters
    ----------
    path
        A JSON list of records, as the module describes.

    Returns
    -------
    list of CellRecord
        In their order; what cannot be used has a `problem`.

    Raises
    ------
    InputError
        If the file is missing, is not JSON, or is no list of objects.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise InputError(f"Records file '{path}' was not found; check its name and folder.") from None
    except (ValueError, RecursionError, IsADirectoryError) as error:
        raise InputError(f"Records file '{path}' cannot be read as JSON ({error}); see --help.") from None
    if not isinstance(document, list) or not all(isinstance(each, dict) for each in document):
        raise InputError(
            f"Records file '{path}' is not a list of records; write [{{\"prediction_id\": …, "
            '"nucleus_image": …, "fasta_file": …}].'
        )
    if not document:
        raise InputError(f"Records file '{path}' has no records; there is nothing to predict.")
    taken: dict[str, int] = {}
    return [_record(each, number, path.parent, taken) for number, each in enumerate(document, start=1)]


def _record(fields: Mapping[str, Any], number: int, folder: Path, taken: dict[str, int]) -> CellRecord:
    name = fields.get("prediction_id")
    id = "" if name is None else str(name)
    problem = _id_problem(id, number, taken)
    files: dict[str, Path | None] = {}
    for key in (*_IMAGES, "fasta_file"):
        given = next((fields[each] for each in _keys(key) if fields.get(each)), None)
        if given is not None and not isinstance(given, str):
            problem = problem or f"Field '{key}' is {given!r}; write the path of a file."
            given = None
        if given and re.match(r"[a-z][a-z0-9+.-]+://", given):
            problem = problem or f"Field '{key}' is the address '{given}'; give a file on this machine."
        files[key] = folder / given if given else None
    for key in ("nucleus_image", "fasta_file"):
        if files[key] is None:
            problem = problem or f"The record has no '{key}'; each needs a nucleus image and a FASTA file."
    size = fields.get("pixel_size_um")
    if not (size is None or (isinstance(size, int | float) and np.isfinite(size) and size > 0)):
        problem = problem or f"Field 'pixel_size_um' is {size!r}; give micrometres per pixel."
        size = None
    cell_line = fields.get("cell_line")
    return CellRecord(id, **files, cell_line=cell_line or None, pixel_size_um=size, problem=problem)


def _keys(key: str) -> tuple[str, ...]:
    return _FASTA if key == "fasta_file" else (key,)


def _id_problem(id: str, number: int, taken: dict[str, int]) -> str | None:
    if not id:
        return f"Record {number} has no 'prediction_id'; give each record its own."
    key = id.casefold()
    if key in taken:
        return f"Record {number} has the prediction_id of record {taken[key]}; give each record its own."
    taken[key] = number
    if len(id) > 200 or safe_file_name(id[:60]) != id[:60] or not re.fullmatch(r"[A-Za-z0-9._-]+", id):
        return (
            f"The prediction_id '{id}' cannot be the name of a file; use at most 200 letters, digits, '.', "
            "'_' and '-', and begin with a letter or digit."
        )
    return None


def records_of_manifest(path: Path, prefix: str | None = None) -> list[dict[str, Any]]:
    """Turn a manifest, a table with a row for each prediction, into records.

    Parameters
    ----------
    path
        TSV or CSV with the columns ``prediction_id``, ``nucleus_image`` and ``fasta_file`` or
        ``aa_sequence_fasta_path``; ``microtubules_image``, ``er_image``, ``cell_line`` and
        ``pixel_size_um`` are used if they are there.
    prefix
        What to put before relative paths, such as a folder or the address of a bucket; the folder of the
        manifest if None.

    Returns
    -------
    list of dict
        The content of a records file.

    Raises
    ------
    InputError
        If the table cannot be read or misses a column.
    """
    table = read_table(path, required=("prediction_id", "nucleus_image"))
    fasta = next((name for name in _FASTA if name in table.columns), None)
    if fasta is None:
        raise InputError(f"Manifest '{path}' has no column '{_FASTA[0]}' or '{_FASTA[1]}'; add one.")
    base = f"{path.resolve().parent}" if prefix is None else prefix.rstrip("/")
    records = []
    for row in table.rows:
        if row.problem:
            raise InputError(f"Manifest '{path}': {row.problem}")
        values = {name: value.strip() for name, value in row.cells.items()}
        record: dict[str, Any] = {"prediction_id": values["prediction_id"]}
        for key in (*_IMAGES, fasta):
            if value := values.get(key):
                name = "fasta_file" if key == fasta else key
                absolute = value.startswith("/") or "://" in value
                record[name] = value if absolute else f"{base}/{value}"
        if value := values.get("cell_line"):
            record["cell_line"] = value
        if value := values.get("pixel_size_um"):
            record["pixel_size_um"] = _number(value, path)
        records.append(record)
    return records


def _number(text: str, path: Path) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"Manifest '{path}' has the pixel_size_um '{text}'; give a number.") from None


def predict_cell_records(
    predictor: Predictor,
    records: Sequence[CellRecord],
    out: Path,
    *,
    pixel_size_um: Assume = None,
    image_checks: bool = True,
    overwrite: bool = False,
    on_record: Callable[[str, str | None], None] = lambda *_: None,
) -> CellRecordsSummary:
    """Draw each record's protein into its image; continue what an earlier call left unfinished.

    A record whose files, model and options are those of an earlier call is not drawn again; one that failed
    is tried again.

    Parameters
    ----------
    predictor
        The model, with its seed.
    records
        What to draw.
    out
        The folder for ``{prediction_id}.tiff`` and ``prediction_results.tsv``; made if missing.
    pixel_size_um
        Pixel size of images whose record gives none; None for what the files state, or ``auto`` to estimate
        it from the nuclei. Where a file states none, it is estimated as well, with a message.
    image_checks
        Whether images must look like a nuclear stain at a plausible scale.
    overwrite
        Draw all records again.
    on_record
        Called with the id of each finished record, and with why it failed, if it did.

    Returns
    -------
    CellRecordsSummary
        Counts, and the table.

    Raises
    ------
    InputError
        If the folder is a file or in use.
    OSError
        If the disk is full or not writable.

    Examples
    --------
    >>> from pathlib import Path
    >>> from deepgps import Predictor
    >>> from deepgps.results.cell_records import predict_cell_records, read_cell_records
    >>> records = read_cell_records(Path("records.json"))  # doctest: +SKIP
    >>> predict_cell_records(Predictor.load(), records, Path("out")).failed  # doctest: +SKIP
    0
    """
    handle = create_locked_folder(out)
    table, rows, resumed, written = out / RESULTS_FILE, list[dict[str, str]](), 0, time.monotonic()
    earlier = {} if overwrite else {row["prediction_id"]: row for row in _earlier_rows(table)}
    rest = dict(earlier)
    options = f"{deepgps.__version__} {predictor.bundle.sha256} {predictor.seed} {predictor.mean}"
    options = f"{options} {predictor.samples}"
    options = f"{options} {pixel_size_um} {image_checks}"
    try:
        for record in records:
            fingerprint = _fingerprint(record, options)
            row = earlier.get(record.prediction_id)
            kept = row is not None and row["sha256"] == fingerprint and row["status"] == PREDICTED
            if row is not None and kept and (out / row["output_file"]).is_file():
                resumed += 1
            else:
                row = _predicted_row(predictor, record, out, pixel_size_um, image_checks=image_checks)
                row["sha256"] = fingerprint
            rows.append(row)
            rest.pop(record.prediction_id, None)
            on_record(record.prediction_id, row["message"] if row["status"] == FAILED else None)
            if time.monotonic() - written > _WRITTEN_EVERY_S:
                # Rows of an earlier call that were not reached again stay for the next one.
                _write_rows(table, [*rows, *rest.values()])
                written = time.monotonic()
    except BaseException:
        _write_rows(table, [*rows, *rest.values()])
        raise
    else:
        _write_rows(table, rows)
    finally:
        os.close(handle)
    failed = sum(row["status"] == FAILED for row in rows)
    return CellRecordsSummary(table, len(rows) - failed, resumed, failed)


def _fingerprint(record: CellRecord, options: str) -> str:
    content = [hash_file(file) if file.is_file() else "missing" for file in record.files]
    given = [record.microtubules_image is not None, record.er_image is not None]
    own = f"{record.cell_line} {record.pixel_size_um} {given} {content}"
    return sha256(f"{options} {own}".encode()).hexdigest()[:16]


def _predicted_row(
    predictor: Predictor, record: CellRecord, out: Path, assumed: Assume, *, image_checks: bool
) -> dict[str, str]:
    row = dict.fromkeys(RESULTS_COLUMNS, "")
    metadata = predictor.bundle.metadata
    row |= {"prediction_id": record.prediction_id, "model": metadata.name, "version": metadata.version}
    row["seed"] = str(predictor.seed)
    path = out / f"{record.prediction_id}.tiff"
    try:
        if record.problem:
            raise InputError(record.problem)
        protein = _protein(record)
        row |= {"protein_id": protein.id, "length": str(len(protein.sequence))}
        field, notes = _field(predictor, record, record.pixel_size_um or assumed, image_checks)
        [prediction] = predictor.predict([protein], [field.cell])
        assert prediction.image is not None
        image = field.as_stored(prediction.image)
    except (DeepGPSError, OSError, MemoryError) as error:
        if record.prediction_id and not record.problem:
            path.unlink(missing_ok=True)
        return row | {"status": FAILED, "message": _sentence(error)}
    ends = {"low": prediction.low, "high": prediction.high}
    files = {out / INTERVALS / f"{record.prediction_id}.{end}.tiff": each for end, each in ends.items()}
    # The image last: where it is, the ends of its intervals are.
    for file, each in {**files, path: prediction.image}.items():
        if each is not None:
            file.parent.mkdir(exist_ok=True)
            shown = image if file == path else field.as_stored(each)
            with atomic_path(file) as draft:
                draft.write_bytes(_tiff(shown, field.stored_pixel_size_um, prediction, record))
    confidence = prediction.confidence
    return row | {
        "status": PREDICTED,
        "output_file": path.name,
        "message": " | ".join(dict.fromkeys((*notes, *prediction.warnings))),
        "localizations": "|".join(prediction.localizations),
        "confidence": "" if confidence is None else f"{confidence:.4f}",
        "prediction_set": "|".join(prediction.prediction_set or ()),
        "height": str(image.shape[0]),
        "width": str(image.shape[1]),
        "pixel_size_um": f"{field.stored_pixel_size_um[1]:.6g}",
    }


def _protein(record: CellRecord) -> Protein:
    assert record.fasta_file is not None
    found = list(read_protein_file(record.fasta_file))
    if len(found) != 1:
        raise InputError(
            f"'{record.fasta_file}' has {len(found)} sequences; give each record a file with one."
        )
    if not isinstance(found[0], Protein):
        raise InputError(found[0].reason)
    return found[0]


def _field(
    predictor: Predictor, record: CellRecord, pixel_size_um: Assume, image_checks: bool
) -> tuple[WholeField, list[str]]:
    """Read a record's images. A landmark that cannot be used is left out, and said."""
    notes: list[str] = []
    landmarks = {"microtubules": record.microtubules_image, "er": record.er_image}
    given = {name: file for name, file in landmarks.items() if file is not None}
    for name in list(given):
        if name not in predictor.landmarks:
            notes.append(f"Model '{predictor.bundle.metadata.name}' does not use the {name} image.")
            del given[name]

    def load(size: Assume, **files: Path) -> WholeField:
        assert record.nucleus_image is not None
        return predictor.load_field(
            record.nucleus_image,
            image_pixel_size_um=size,
            cell_line=_domain(predictor, record.cell_line),
            image_checks=image_checks,
            **files,
        )

    if pixel_size_um is None and not _states_pixel_size(record):
        try:
            load("auto")
            pixel_size_um = "auto"
        except InputError:
            pass  # no nuclei to estimate it from: that of the model is assumed, with a warning
    try:
        return load(pixel_size_um, **given), notes
    except (DeepGPSError, OSError):
        field = load(pixel_size_um)  # raises if the fault is that of the nucleus image
    used: dict[str, Path] = {}
    for name, file in given.items():
        try:
            field = load(pixel_size_um, **used, **{name: file})
            used[name] = file
        except (DeepGPSError, OSError) as error:
            notes.append(f"Drawn without the {name} image: {_sentence(error)}")
    return field, notes


def _states_pixel_size(record: CellRecord) -> bool:
    from deepgps.images.decode import decode_image

    assert record.nucleus_image is not None
    if not record.nucleus_image.is_file():
        raise InputError(f"Image '{record.nucleus_image}' was not found; check its name and folder.")
    return decode_image(record.nucleus_image).pixel_size_um is not None


def _domain(predictor: Predictor, cell_line: str | None) -> str | None:
    """Return the model's name of a cell line; None if it does not know it."""
    flow = predictor.bundle.metadata.flow_matching
    names = {re.sub(r"[^a-z0-9]", "", name.lower()): name for name in (flow.domains if flow else ())}
    return names.get(re.sub(r"[^a-z0-9]", "", (cell_line or "").lower()))


def _tiff(
    image: Floats, pixel_size_um: tuple[float, float], prediction: Prediction, record: CellRecord
) -> bytes:
    facts = {
        "prediction_id": record.prediction_id,
        "protein_id": prediction.protein.id,
        "model": prediction.model,
        "version": prediction.version,
        "seed": prediction.seed,
        "mean": prediction.mean,
        "intensity": INTENSITY,
    }
    return float_tiff(image, pixel_size_um, facts)


def _sentence(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return "There is too little memory for this image; crop it, or use a machine with more."
    if isinstance(error, OSError) and error.strerror:
        return f"Cannot read '{error.filename}': {error.strerror}."
    return " ".join(str(error).split())


def _earlier_rows(table: Path) -> Iterator[dict[str, str]]:
    if not table.is_file():
        return
    with table.open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines, delimiter="\t"):
            if tuple(row) == RESULTS_COLUMNS and None not in row.values():
                yield row


def _write_rows(table: Path, rows: Iterable[Mapping[str, str]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, RESULTS_COLUMNS, delimiter="\t", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    with atomic_path(table) as draft:
        draft.write_text(text.getvalue(), encoding="utf-8", errors="backslashreplace")
