"""From a form to a submission: each image read, written, and told apart from those that came before."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from sqlalchemy.exc import IntegrityError
from starlette.datastructures import FormData

from deepgps.errors import InputError
from opengps.catalogue import refusal
from opengps.orders import TooLargeError, Upload
from opengps.problems import Problem, RefusedError, refused
from opengps.queue import Site
from opengps.receiving import invalid, uploads
from opengps.settings import Settings
from opengps.shelf import shelf_of, submission_key
from opengps.submissions.files import Read as ReadFile
from opengps.submissions.files import gather
from opengps.submissions.reading import read_image
from opengps.submissions.schemas import ImageFields, SenderFields
from opengps.submissions.store import (
    check_submission_quota,
    create_submission,
    is_known,
    new_id,
    write_files,
)
from opengps.submissions.tables import ImagePair

TABLE_COLUMNS = ("nucleus_image", "protein_image", *ImageFields.model_fields)
"""Columns of the table of a batch: two names of files, and the fields of the form."""
_FILES = ("nucleus_image", "protein_image", "files")
_TABLES = (".csv", ".tsv", ".txt")
_SHOWN = 5
_DUPLICATE = "These images were submitted before; nothing is taken twice."


@dataclass(frozen=True, slots=True)
class Sent:
    """A form, taken apart: its text fields, and its files by field."""

    fields: Mapping[str, Any]
    files: Mapping[str, Sequence[Upload]]


@dataclass(frozen=True, slots=True)
class _Candidate:
    """One image of a form: what it is called in messages, and what is said of it."""

    row: str
    fields: Mapping[str, Any]
    nucleus: ReadFile | None
    protein: ReadFile | None
    names: tuple[str, str]


class _UnusableError(Exception):
    """An image that cannot be taken; `args` are its problems and the status."""


async def read_submission_form(form: FormData) -> Sent:
    """Take fields and files out of a form."""
    fields: dict[str, Any] = {}
    for name in form:
        values = [value for value in form.getlist(name) if isinstance(value, str) and value.strip()]
        if name not in _FILES and values:
            fields[name] = values if name == "localizations" and len(values) > 1 else values[-1]
    return Sent(fields, {name: await uploads(form.getlist(name)) for name in _FILES})


def accept_submission(site: Site, address: str, sent: Sent) -> str:
    """Make a submission of a form and tell a worker.

    Returns
    -------
    str
        Its id.

    Raises
    ------
    RefusedError
        If nothing of it can be used, or it is too much.
    """
    sender = _sender(sent.fields)
    candidates = _candidates(sent, site.settings)
    check_submission_quota(site.sessions, site.settings, address, len(candidates))
    submission_id = new_id()
    shelf, key = shelf_of(site.settings), submission_key(submission_id)
    try:
        image_pairs, rejected = _read_all(site, candidates, submission_id)
        create_submission(site.sessions, submission_id, sender, address, image_pairs, rejected)
    except IntegrityError:
        # Another request has sent the same images at the same moment.
        shelf.remove(key)
        raise refused(409, "duplicate", _DUPLICATE, "nucleus_image") from None
    except BaseException:
        shelf.remove(key)
        raise
    site.wake()
    return submission_id


def _sender(fields: Mapping[str, Any]) -> SenderFields:
    problems, agreed = list[Problem](), bool(str(fields.get("consent", "")).strip())
    try:
        known = {name: fields[name] for name in SenderFields.model_fields if name in fields}
        sender = SenderFields.model_validate(known)
    except ValidationError as error:
        problems += invalid(error.errors()).problems
    else:
        agreed = sender.consent
        if sender.model and (problem := refusal(sender.model)):
            problems.append(problem)
    if not agreed:
        said = "Without your consent nothing is taken; read it and tick the box."
        problems.append(Problem(code="no_consent", message=said, where="consent"))
    if problems:
        raise RefusedError(422, problems)
    return sender


def _candidates(sent: Sent, settings: Settings) -> list[_Candidate]:
    fields = {name: value for name, value in sent.fields.items() if name not in SenderFields.model_fields}
    if unknown := sorted(set(fields) - set(ImageFields.model_fields)):
        raise refused(422, "invalid", "Extra inputs are not permitted.", unknown[0])
    nucleus, protein, files = (sent.files[name] for name in _FILES)
    if files and (nucleus or protein):
        said = "There are images of one image and the files of a batch; send one of them."
        raise refused(422, "two_inputs", said, "files")
    if files:
        return _batch(fields, files, settings)
    if not nucleus:
        said = "Choose a nucleus image, and a protein image of the same cells."
        raise refused(422, "no_image", said, "nucleus_image")
    readers = [(lambda each=each: each[0].content) if each else None for each in (nucleus, protein)]
    names = (nucleus[0].name, protein[0].name if protein else "")
    return [_Candidate("", fields, readers[0], readers[1], names)]


def _batch(fields: Mapping[str, Any], files: Sequence[Upload], settings: Settings) -> list[_Candidate]:
    try:
        found = gather(files, settings)
        table = _table(found, settings)
        candidates = list(_rows(table, fields, found))
    except InputError as error:
        raise refused(422, "unreadable", str(error), "files") from None
    except TooLargeError as error:
        raise refused(413, "too_large", str(error), "files") from None
    if not candidates:
        raise refused(422, "no_image", "The table has no rows; list an image in each.", "files")
    if len(candidates) > settings.max_submission_images:
        most = settings.max_submission_images
        said = f"{len(candidates):,} images are more than the {most:,} of one submission; split them."
        raise refused(422, "too_many_images", said, "files")
    return candidates


def _table(found: Mapping[str, ReadFile], settings: Settings) -> "csv.DictReader[str]":
    tables = [name for name in found if name.lower().endswith(_TABLES)]
    if len(tables) != 1:
        raise InputError(
            f"There are {len(tables)} tables among {len(found):,} files; add one CSV that lists the images."
        )
    (name,) = tables
    content = found[name]()
    if len(content) > settings.max_table_bytes:
        most = settings.max_table_bytes
        raise TooLargeError(f"'{name}' has more than {most:,} bytes, the most taken; split it.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"'{name}' is not a text in UTF-8; save it as a CSV in UTF-8.") from None
    header = text.partition("\n")[0]
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=max("\t;,", key=header.count))
    columns = [each.strip().lower() for each in reader.fieldnames or []]
    reader.fieldnames = columns
    if unknown := [each for each in columns if each not in TABLE_COLUMNS]:
        known = ", ".join(TABLE_COLUMNS)
        raise InputError(f"'{name}' has a column '{unknown[0][:80]}', which says nothing here; use {known}.")
    if "nucleus_image" not in columns:
        raise InputError(f"'{name}' has no column 'nucleus_image'; name a file of the batch in each row.")
    return reader


def _rows(
    table: "csv.DictReader[str]", shared: Mapping[str, Any], found: Mapping[str, ReadFile]
) -> Iterator[_Candidate]:
    try:
        for number, row in enumerate(table, start=2):
            cells = {
                name: value.strip()
                for name, value in row.items()
                if isinstance(name, str) and isinstance(value, str) and value.strip()
            }
            if not cells:
                continue
            first, second = (cells.pop(name, "") for name in _FILES[:2])
            yield _Candidate(
                f"{number}: {first[:120]}",
                {**shared, **cells},
                found.get(_base(first)),
                found.get(_base(second)),
                (first[:120], second[:120]),
            )
    except csv.Error as error:
        raise InputError(f"The table cannot be read ({error}); save it as a CSV in UTF-8.") from None


def _base(name: str) -> str:
    return name.replace("\\", "/").rpartition("/")[2]


def _read_all(
    site: Site, candidates: Sequence[_Candidate], submission_id: str
) -> tuple[list[ImagePair], list[dict[str, str]]]:
    image_pairs: dict[str, ImagePair] = {}
    rejected, problems, status = list[dict[str, str]](), list[Problem](), 422
    for candidate in candidates:
        try:
            image_pair = _read(site, candidate, submission_id, image_pairs)
            image_pairs[image_pair.sha256] = image_pair
        except _UnusableError as error:
            found, status = error.args
            problems += found
            reason = " ".join(each.message for each in found)
            rejected.append({"row": candidate.row, "reason": reason})
    if not image_pairs:
        raise RefusedError(status, problems[:_SHOWN])
    return list(image_pairs.values()), rejected


def _read(site: Site, candidate: _Candidate, submission_id: str, taken: Mapping[str, ImagePair]) -> ImagePair:
    """Read one image and write its files; a duplicate is one of this submission, too."""
    single = not candidate.row

    def unusable(code: str, said: str, where: str, status: int = 422) -> _UnusableError:
        message = said if single else f"Row {candidate.row}: {said}"
        problem = Problem(code=code, message=message, where=where if single else "files")
        return _UnusableError([problem], status)

    try:
        fields = ImageFields.model_validate(candidate.fields)
    except ValidationError as error:
        found = invalid(error.errors()).problems
        if single:
            raise _UnusableError(found, 422) from None
        said = " ".join(f"{each.where}: {each.message}" for each in found)
        raise unusable("invalid", said, "files") from None
    if candidate.nucleus is None or (candidate.names[1] and candidate.protein is None):
        missing = candidate.names[0 if candidate.nucleus is None else 1]
        raise unusable("no_image", f"'{missing}' is not among the files; add it.", "files")
    try:
        nucleus = Upload(candidate.names[0], candidate.nucleus())
        two = candidate.protein is not None and candidate.names[0] != candidate.names[1]
        protein = Upload(candidate.names[1], candidate.protein()) if two and candidate.protein else None
        read = read_image(fields, nucleus, protein, site.settings)
    except InputError as error:
        raise unusable("unusable_image", str(error), "nucleus_image") from None
    except TooLargeError as error:
        raise unusable("too_large", str(error), "nucleus_image", 413) from None
    if read.image_pair.sha256 in taken or is_known(site.sessions, read.image_pair.sha256):
        raise unusable("duplicate", _DUPLICATE, "nucleus_image", 409)
    read.image_pair.submission_id = submission_id
    write_files(site.settings, read)
    return read.image_pair
