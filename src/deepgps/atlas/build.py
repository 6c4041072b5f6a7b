"""Build an atlas: predict what changed, then write tables, pages, index and map from all answers."""

import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepgps import __version__
from deepgps.atlas.answers import IMAGE_FORMAT, AtlasTask, Request, answers
from deepgps.atlas.entries import Entry, entry_of, stem_of
from deepgps.atlas.pages import write_site
from deepgps.atlas.store import STORE_FILE, AtlasStore, StoredFile, key_of
from deepgps.atlas.tables import write_tables
from deepgps.errors import InputError
from deepgps.files import LOCK_FILE, atomic_path, lock_folder, safe_file_name, unique_names, write_csv
from deepgps.images.cell import Cell
from deepgps.prediction import Predictor
from deepgps.proteins.protein import Protein, Rejection
from deepgps.results.records import sequence_sha256
from deepgps.results.rows import PredictionTask
from deepgps.results.run import Fingerprints, cell_fingerprint, now, package_versions

MANIFEST_FILE = "manifest.json"
DEFAULT_TITLE = "Protein atlas"
ANSWER_FORMAT = 1
"""Version of the answers; a new one predicts all anew."""


@dataclass(frozen=True, slots=True)
class AtlasSummary:
    """What a call of `build_atlas` did.

    Attributes
    ----------
    site
        The folder.
    proteins
        Proteins of the atlas.
    predicted, drawn, written
        Proteins predicted, images drawn and pages written by this call; the others were there.
    rejected
        Records that could not be used.
    left_out
        Tables that were not written, and the extra that each needs.
    """

    site: Path
    proteins: int
    predicted: int
    drawn: int
    written: int
    rejected: int
    left_out: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class _Planned:
    """A protein of the atlas, and the images that it needs."""

    key: str
    images: tuple[StoredFile, ...]


def build_atlas(
    predictor: Predictor,
    proteins: Iterable[Protein | Rejection],
    out: Path,
    *,
    cells: Sequence[Cell] = (),
    inputs: Fingerprints = (),
    title: str = DEFAULT_TITLE,
    importance: bool = False,
    workers: int = 1,
    scheduler: str | None = None,
    on_protein: Callable[[str], None] = lambda _id: None,
    on_rejection: Callable[[Rejection], None] = lambda _rejection: None,
    on_page: Callable[[str, int], None] = lambda _id, _total: None,
) -> AtlasSummary:
    """Build an atlas of proteins, or bring one up to date.

    Answers are kept as they come: after a kill, the same call continues. A call with more proteins, another
    nucleus or another model computes what is missing, and removes what no protein of the atlas needs.

    Parameters
    ----------
    predictor
        The model.
    proteins
        Proteins, and records that could not be read.
    out
        Folder of the site; made if missing.
    cells
        Cells to draw into, with distinct names; without any, the atlas has no images.
    inputs
        Source and SHA-256 of each input, for the manifest.
    title
        Title of the site.
    importance
        Whether to measure which residues each prediction depends on; takes many times longer.
    workers, scheduler
        Local processes, or a Dask scheduler, to compute with.
    on_protein
        Called with the id of each protein whose answer is there.
    on_rejection
        Called with each rejected record.
    on_page
        Called with the id of each protein whose page is there, and the number of all.

    Returns
    -------
    AtlasSummary
        Counts.

    Raises
    ------
    InputError
        If the folder is in use or holds something else, or there is nothing to predict.
    DeepGPSError
        If workers cannot be used or die.

    Examples
    --------
    >>> from pathlib import Path
    >>> from deepgps import Predictor, Protein
    >>> from deepgps.atlas import build_atlas
    >>> proteins = [Protein("NLS1", "MAAKRPAATKKAGQAKKKKLDESGSPEESGSSSEDEQ")]
    >>> build_atlas(Predictor.load(), proteins, Path("atlas")).proteins
    1
    """
    predictor.check_output(images=bool(cells))
    lock = _open_site(out)
    try:
        names = unique_names(safe_file_name(cell.name) for cell in cells)
        with AtlasStore(out) as store:
            started = now()
            rejected = list[Rejection]()
            usable = _accepted(predictor.reject_unusable(proteins), rejected, on_rejection)
            task = _task(predictor, cells, importance)
            planned, predicted, drawn = _compute(
                predictor, task, usable, out, store, names, workers, scheduler, on_protein
            )
            if not planned:
                raise InputError("There is no protein that can be used, so that there is no atlas to build.")
            entries = [
                entry_of(each.key, store.answer(each.key), predictor.bundle.metadata) for each in planned
            ]
            manifest = _manifest(predictor, cells, inputs, title, started, entries, len(rejected))
            left_out = write_tables(out, entries, predictor.classes, manifest)
            _write_rejections(out / "tables" / "rejected.csv", rejected)
            pages = write_site(
                out,
                entries,
                store,
                predictor,
                cells=dict(zip(names, cells, strict=True)),
                manifest=manifest,
                on_page=on_page,
            )
            images = {image.path for each in planned for image in each.images}
            kept = {f"{each.stem}.{kind}" for each in entries for kind in ("html", "json")} | images
            for path in store.keep({each.key for each in planned}, kept):
                (out / path).unlink(missing_ok=True)
        with atomic_path(out / MANIFEST_FILE) as draft:
            text = json.dumps({**manifest, "finished": now()}, indent=2, ensure_ascii=False)
            draft.write_text(text + "\n", encoding="utf-8", errors="replace")
    finally:
        os.close(lock)
    return AtlasSummary(out, len(entries), predicted, drawn, pages, len(rejected), left_out)


def _open_site(out: Path) -> int:
    """Make the folder, check that it is empty or holds an atlas, and lock it."""
    out.mkdir(parents=True, exist_ok=True)
    found = {path.name for path in out.iterdir()} - {LOCK_FILE}
    if found and STORE_FILE not in found:
        raise InputError(
            f"'{out}' holds files that are not those of an atlas ('{min(found)}'); choose another --out."
        )
    return lock_folder(out)


def _accepted(
    records: Iterable[Protein | Rejection],
    rejected: list[Rejection],
    on_rejection: Callable[[Rejection], None],
) -> Iterator[Protein]:
    for each in records:
        if isinstance(each, Protein):
            yield each
        else:
            rejected.append(each)
            on_rejection(each)


def _task(predictor: Predictor, cells: Sequence[Cell], importance: bool) -> AtlasTask:
    prediction = PredictionTask(
        bundle=predictor.bundle,
        structures=predictor.structures,
        mean=predictor.mean,
        seed=predictor.seed,
        cells=tuple(cells),
        images=bool(cells),
        image_format="files",
        threads=predictor.threads,
    )
    return AtlasTask(prediction, importance)


def _compute(
    predictor: Predictor,
    task: AtlasTask,
    proteins: Iterable[Protein],
    out: Path,
    store: AtlasStore,
    names: Sequence[str],
    workers: int,
    scheduler: str | None,
    on_protein: Callable[[str], None],
) -> tuple[list[_Planned], int, int]:
    """Answer what is missing; return all proteins in order, and how many were predicted and drawn."""
    have, files = store.answer_keys(), store.files()
    fingerprints = [sha256 for _, sha256 in map(cell_fingerprint, task.prediction.cells)]
    planned = list[_Planned]()
    waiting = deque[tuple[Request, _Planned]]()

    def missing() -> Iterator[Request]:
        for protein in proteins:
            plan = _plan(protein, task, names, fingerprints)
            planned.append(plan)
            undrawn = tuple(
                place
                for place, image in enumerate(plan.images)
                if not _is_there(out, image, files.get(image.path))
            )
            if plan.key in have and not undrawn:
                on_protein(protein.id)
                continue
            waiting.append((Request(protein, undrawn), plan))
            yield waiting[-1][0]

    predicted = drawn = 0
    with closing(answers(predictor, task, missing(), workers=workers, scheduler=scheduler)) as results:
        for chunk in results:
            done, written = [], []
            for answer in chunk:
                request, plan = waiting.popleft()
                for place, (content, fraction) in zip(request.cells, answer.images, strict=True):
                    image = plan.images[place]
                    (out / image.path).parent.mkdir(parents=True, exist_ok=True)
                    with atomic_path(out / image.path) as draft:
                        draft.write_bytes(content)
                    written.append(image._replace(fraction=fraction))
                done.append((plan.key, answer.content, request.protein.id))
            store.add([(key, content) for key, content, _ in done], written)
            predicted, drawn = predicted + sum(key not in have for key, _, _ in done), drawn + len(written)
            for _, _, protein_id in done:
                on_protein(protein_id)
    return planned, predicted, drawn


def _plan(protein: Protein, task: AtlasTask, names: Sequence[str], fingerprints: Sequence[str]) -> _Planned:
    prediction, stem = task.prediction, stem_of(protein.id)
    # A class set is another model to whoever reads the answers, with the same file.
    model = [prediction.bundle.sha256, prediction.bundle.metadata.name, str(prediction.structures or "")]
    own = [sequence_sha256(protein.sequence), protein.accession]
    key = key_of(
        *(ANSWER_FORMAT, __version__, model, own, protein.id, protein.gene_symbol, protein.notes),
        task.importance,
    )
    drawing = [IMAGE_FORMAT, prediction.seed, prediction.mean]
    images = tuple(
        StoredFile(f"{stem}.{name}.webp", key_of(model, own, drawing, fingerprint))
        for name, fingerprint in zip(names, fingerprints, strict=True)
    )
    return _Planned(key, images)


def _is_there(out: Path, wanted: StoredFile, found: StoredFile | None) -> bool:
    return found is not None and found.key == wanted.key and (out / wanted.path).exists()


def _manifest(
    predictor: Predictor,
    cells: Sequence[Cell],
    inputs: Fingerprints,
    title: str,
    started: str,
    entries: Sequence[Entry],
    rejected: int,
) -> dict[str, Any]:
    metadata = predictor.bundle.metadata
    return {
        "title": title,
        "deepgps": __version__,
        "model": {
            "name": metadata.name,
            "version": metadata.version,
            "sha256": predictor.bundle.sha256,
            "licence": metadata.licence,
        },
        "classes": list(metadata.classes),
        "nuclei": [{"name": name, "sha256": sha256} for name, sha256 in map(cell_fingerprint, cells)],
        "seed": predictor.seed,
        "mean": predictor.mean,
        "inputs": [{"source": source, "sha256": sha256} for source, sha256 in inputs],
        "packages": dict(package_versions()),
        "proteins": len(entries),
        "rejected": rejected,
        "started": started,
    }


def _write_rejections(path: Path, rejected: Sequence[Rejection]) -> None:
    if rejected:
        write_csv(
            path,
            ("Protein_ID", "Source", "Reason"),
            [(each.id, each.source, each.reason) for each in rejected],
        )
    else:
        path.unlink(missing_ok=True)
