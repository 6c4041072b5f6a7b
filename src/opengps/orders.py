"""From what a visitor sent to a checked order: proteins read, nuclei cut, limits held."""

import gzip
import re
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from itertools import islice
from pathlib import Path

from deepgps.bundle import Bundle
from deepgps.errors import InputError
from deepgps.images.cell import DEFAULT_CELLS, Cell, with_unique_name
from deepgps.proteins.protein import Protein, Rejection
from deepgps.proteins.reading import Record, Seen, check_records, read_protein_file
from deepgps.proteins.uniprot import is_accession
from deepgps.results.names import safe_stem
from opengps.catalogue import models, nucleus_for, refusal
from opengps.nucleus_images import read_nucleus
from opengps.problems import Problem, RefusedError
from opengps.schemas import PredictionRequest
from opengps.settings import Settings
from opengps.store import Order

PASTED = "the text"
_SHOWN = 5

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.@_()-]{0,29}")
_LETTERS = re.compile(r"[A-Za-z*]+")


@dataclass(frozen=True, slots=True)
class Upload:
    """A file as it was sent: the name its sender gave it, and its bytes."""

    name: str
    content: bytes


@dataclass(slots=True)
class _Findings:
    """Everything wrong with a request, found in one go."""

    problems: list[Problem] = field(default_factory=list)
    status: int = 422

    def add(self, code: str, message: str, where: str, status: int = 422) -> None:
        self.problems.append(Problem(code=code, message=message, where=where))
        self.status = self.status if len(self.problems) > 1 else status


def read_order(
    request: PredictionRequest, file: Upload | None, uploads: Sequence[Upload], settings: Settings
) -> Order:
    """Check a request.

    Parameters
    ----------
    request
        Its fields.
    file
        The uploaded proteins, if any.
    images
        The uploaded nucleus images.
    settings
        The limits.

    Raises
    ------
    RefusedError
        Naming everything that is wrong.
    """
    findings = _Findings()
    bundle = _model(request, findings)
    entries = _entries(request.proteins, file, settings, findings)
    cells = _cells(request, uploads, bundle, settings, findings)
    if len(cells) * len(entries) > settings.max_rows:
        findings.add(
            "too_many_images",
            f"{len(entries):,} proteins in {len(cells)} nuclei are {len(cells) * len(entries):,} images; "
            f"{settings.max_rows:,} are drawn in one job. Send fewer of either.",
            "nuclei",
        )
    if findings.problems or bundle is None:
        raise RefusedError(findings.status, findings.problems)
    return Order(request.model, bundle, entries, cells, request.mean)


def _model(request: PredictionRequest, findings: _Findings) -> Bundle | None:
    name = request.model
    if problem := refusal(name):
        findings.problems.append(problem)
    bundle = models().get(name)
    if bundle is not None and not (request.images or bundle.metadata.classes):
        findings.add("no_labels", f"Model '{name}' draws and names nothing; ask for images.", "images")
    return bundle


def _entries(
    text: str, file: Upload | None, settings: Settings, findings: _Findings
) -> list[Protein | Rejection | str]:
    where = "proteins" if file is None else "file"
    if file is not None and text.strip():
        findings.add("two_inputs", "There is a text and a file of proteins; give one of them.", "proteins")
        return []
    upload = file or Upload(PASTED, text.encode())
    if not upload.content.strip():
        said = f"'{file.name}' is empty; give FASTA, CSV or TSV." if file else "Give proteins to predict."
        findings.add("no_proteins", said, where)
        return []
    try:
        entries = list(
            islice(_parsed(upload, text if file is None else "", settings), settings.max_proteins + 1)
        )
    except InputError as error:
        findings.add("unreadable", str(error), where)
        return []
    except TooLargeError as error:
        findings.add("too_large", str(error), where, 413)
        return []
    return _within_limits(entries, where, settings, findings)


class TooLargeError(Exception):
    """An upload exceeds a limit in bytes."""


def _within_limits(
    entries: list[Protein | Rejection | str], where: str, settings: Settings, findings: _Findings
) -> list[Protein | Rejection | str]:
    if len(entries) > settings.max_proteins:
        said = f"There are more than {settings.max_proteins:,} proteins, the most of one job; split them."
        findings.add("too_many_proteins", said, where)
    elif not entries:
        findings.add("no_proteins", "There is no protein in it; give FASTA, CSV, TSV or accessions.", where)
    elif all(isinstance(each, Rejection) for each in entries):
        for each in islice((each for each in entries if isinstance(each, Rejection)), _SHOWN):
            findings.add("unusable_protein", each.reason, where)
    total = sum(len(each.sequence) for each in entries if isinstance(each, Protein))
    if total > settings.max_total_residues:
        most = settings.max_total_residues
        said = f"The proteins have {total:,} residues together; {most:,} are taken. Split them."
        findings.add("too_many_residues", said, where)
    return entries


def _parsed(upload: Upload, text: str, settings: Settings) -> Iterator[Protein | Rejection | str]:
    first = text.lstrip()[:1]
    header = {cell.strip(' "').lower() for cell in re.split(r"[,;\t]", text.strip().partition("\n")[0])}
    if text and first != ">" and not header & {"id", "sequence"}:
        yield from _bare(text, settings)
        return
    content = _unpacked(upload, settings)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / safe_stem(upload.name)
        path.write_bytes(content)
        shown = PASTED if text else upload.name
        try:
            for each in read_protein_file(path):
                yield _short_enough(_renamed(each, str(path), shown), settings)
        except InputError as error:
            raise InputError(str(error).replace(str(path), shown)) from None


def _renamed(each: Protein | Rejection, path: str, shown: str) -> Protein | Rejection:
    """Say the visitor's name for a file in place of ours."""
    if isinstance(each, Protein):
        return each
    return Rejection(each.id, shown, each.reason.replace(path, shown))


def _short_enough(each: Protein | Rejection, settings: Settings) -> Protein | Rejection:
    if isinstance(each, Rejection) or len(each.sequence) <= settings.max_residues:
        return each
    said = (
        f"Sequence '{each.id}' has {len(each.sequence):,} residues; {settings.max_residues:,} are taken here."
    )
    return Rejection(each.id, PASTED, said)


def _unpacked(upload: Upload, settings: Settings) -> bytes:
    content, most = upload.content, settings.max_table_bytes
    if content[:2] == b"\x1f\x8b":
        try:
            # Never more than the limit is unpacked, whatever the file claims.
            content = gzip.GzipFile(fileobj=BytesIO(content)).read(most + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(f"'{upload.name}' is a damaged gzip ({error}); make it again.") from None
    if len(content) > most:
        raise TooLargeError(f"'{upload.name}' has more than {most:,} bytes, the most taken; split it.")
    return content


def _bare(text: str, settings: Settings) -> Iterator[Protein | Rejection | str]:
    """A bare sequence, or names to look up, told apart by their look."""
    words = re.split(r"[\s,;]+", text.strip(" \t\r\n,;"))
    if all(map(_LETTERS.fullmatch, words)) and max(map(len, words)) >= 10:
        seen: Seen = {}
        for each in check_records([Record(1, "sequence", text)], PASTED, seen):
            yield _short_enough(each, settings)
        return
    for word in dict.fromkeys(words):
        if not settings.lookups:
            yield Rejection(word, PASTED, f"'{word}' cannot be looked up on this site; give its sequence.")
        elif is_accession(word) or _NAME.fullmatch(word):
            yield word
        else:
            shown = word if len(word) <= 40 else f"{word[:40]}…"
            said = (
                f"'{shown}' is neither a sequence nor a UniProt accession or gene symbol; check its spelling."
            )
            yield Rejection(shown, PASTED, said)


def _cells(
    request: PredictionRequest,
    uploads: Sequence[Upload],
    bundle: Bundle | None,
    settings: Settings,
    findings: _Findings,
) -> list[Cell]:
    if not request.images:
        if request.mean:
            said = "Without images there is no mean of them; leave out mean, or ask for images."
            findings.add("nothing_to_draw", said, "mean")
        if uploads or request.nuclei:
            said = "Without images nothing is drawn into a nucleus; leave out the nuclei, or ask for images."
            findings.add("nothing_to_draw", said, "nuclei")
        return []
    if not uploads and (request.pixel_size_um is not None or request.channel is not None):
        said = "A pixel size or channel says nothing without a nucleus image; upload one, or leave it out."
        findings.add("no_image", said, "nucleus_images")
    names = request.nuclei or ([] if uploads else [DEFAULT_CELLS[0]])
    for name in (name for name in names if name not in DEFAULT_CELLS):
        said = f"Nucleus '{name[:80]}' is unknown; there is: {', '.join(DEFAULT_CELLS)}."
        findings.add("unknown_nucleus", said, "nuclei")
    if len(names) + len(uploads) > settings.max_nuclei:
        count = len(names) + len(uploads)
        said = f"{count} nuclei are more than the {settings.max_nuclei} of one job; choose fewer."
        findings.add("too_many_nuclei", said, "nuclei")
    if findings.problems or bundle is None:
        return []
    cells = [nucleus_for(name, bundle.metadata.crop) for name in dict.fromkeys(names)]
    for upload in uploads:
        _add_image(upload, request, bundle, settings, cells, findings)
    return cells


def _add_image(
    upload: Upload,
    request: PredictionRequest,
    bundle: Bundle,
    settings: Settings,
    cells: list[Cell],
    findings: _Findings,
) -> None:
    if len(upload.content) > settings.max_image_bytes:
        most = settings.max_image_bytes
        said = f"'{upload.name}' has more than {most:,} bytes, the most of an image; crop it."
        findings.add("too_large", said, "nucleus_images", 413)
        return
    try:
        cell = read_nucleus(upload.name, upload.content, request, bundle.metadata.crop, settings)
    except InputError as error:
        findings.add("unusable_image", str(error), "nucleus_images")
        return
    cells.append(with_unique_name(cell, cells))
