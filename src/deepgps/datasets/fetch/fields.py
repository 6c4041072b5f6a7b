"""From the image sources to a folder of raw files: OpenCell and the Human Protein Atlas."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from deepgps.datasets.fetch import hpa, opencell
from deepgps.datasets.fetch.download import Client, RefusedError, UnreachableError
from deepgps.datasets.fetch.fetching import Fetch, Fetched, File, Progress, Result, chosen_targets
from deepgps.datasets.fetch.raw import RawFolder, Row
from deepgps.datasets.fetch.wanted import Target
from deepgps.errors import DeepGPSError
from deepgps.files import atomic_path


def fetch_opencell(
    folder: Path,
    client: Client,
    progress: Progress,
    *,
    bucket: str = opencell.BUCKET,
    portal: str = opencell.PORTAL,
    ids: Sequence[str] | None = None,
    limit: int | None = None,
) -> Fetched:
    """Fetch OpenCell's tables and the projections of its annotated proteins.

    Parameters
    ----------
    folder
        Where to; ``annotations.csv``, ``library.csv``, ``images/`` and ``fields.csv``.
    client, progress
        What fetches, and what tells of it.
    bucket, portal
        Base addresses of the images and of the tables.
    ids
        Only these proteins: Ensembl gene ids, gene symbols or accessions.
    limit
        Only the first so many proteins of the bucket, in its order.

    Raises
    ------
    InputError
        If none of the ids is in OpenCell, or the folder cannot be used.
    DeepGPSError
        If the tables or the listing cannot be had.
    """
    parameters = {"bucket": bucket, "portal": portal, "proteins": ids, "limit": limit}
    with RawFolder(folder, "opencell", parameters) as raw:
        fetch = Fetch(raw, client, progress)
        tables = [
            fetch.table(name, f"{portal}/{of}").decode("utf-8", errors="replace")
            for name, of in (("annotations.csv", opencell.ANNOTATIONS), ("library.csv", opencell.LIBRARY))
        ]
        chosen, unknown = chosen_targets(opencell.read_targets(*tables), ids, "OpenCell")
        targets = {target.ensg: target for target in chosen}
        progress.begin("listing", None)
        found = list(_projections(client, progress, bucket, targets, limit))
        files = {_projection_file(bucket, each): each for each in found}
        rows = [
            opencell.field_row(files[file], targets[file.protein])
            for file in fetch.all("fields", list(files))
        ]
        if limit is None:
            for ensg in targets.keys() - {each.ensg for each in found}:
                raw.problem(ensg, "", "", "annotated, but there is no image of it in the bucket")
        return fetch.finish(rows, (row["ensembl_gene_id"] for row in rows), unknown)


def _projection_file(bucket: str, projection: opencell.Projection) -> File:
    url = opencell.file_url(bucket, projection.key)
    return File(projection.path, url, projection.ensg, projection.size)


def _projections(
    client: Client, progress: Progress, bucket: str, targets: dict[str, Target], limit: int | None
) -> Iterator[opencell.Projection]:
    """List the projections of the first so many proteins; pages are asked for as they are needed."""
    token: str | None = None
    seen: set[str] = set()
    while True:
        page, token = opencell.read_page(client.read(opencell.listing_url(bucket, token)))
        progress.advance()
        for projection in page:
            if projection.ensg not in targets:
                continue
            seen.add(projection.ensg)
            if limit is not None and len(seen) > limit:
                return
            yield projection
        if token is None:
            return


def fetch_hpa(
    folder: Path,
    client: Client,
    progress: Progress,
    *,
    site: str = hpa.SITE,
    images: str = hpa.IMAGES,
    cell_line: str = "U-2 OS",
    ids: Sequence[str] | None = None,
    limit: int | None = None,
) -> Fetched:
    """Fetch the Human Protein Atlas's table, a gene's XML each, and the fields of one cell line.

    Nucleus and protein come as 16-bit TIFFs, else as JPEGs, else as a composite, with a note.

    Parameters
    ----------
    folder
        Where to; ``subcellular_location.tsv``, ``xml/``, ``images/`` and ``fields.csv``.
    client, progress
        What fetches, and what tells of it.
    site, images
        Base addresses of the table and the XMLs, and of the images.
    cell_line
        Whose fields, in any spelling.
    ids
        Only these proteins: Ensembl gene ids or gene symbols.
    limit
        Only the first so many genes of the table.

    Raises
    ------
    InputError
        If none of the ids is in the Atlas, or the folder cannot be used.
    DeepGPSError
        If the table cannot be had.
    """
    parameters = {"site": site, "images": images, "cell_line": cell_line, "proteins": ids, "limit": limit}
    with RawFolder(folder, "hpa", parameters) as raw:
        fetch = Fetch(raw, client, progress)
        archive = fetch.table(f"{hpa.TABLE}.zip", f"{site}/download/tsv/{hpa.TABLE}.zip")
        table = hpa.unpack_table(archive)
        with atomic_path(folder / hpa.TABLE) as draft:
            draft.write_bytes(table)
        listed = hpa.read_table(table.decode("utf-8", errors="replace"))
        genes, unknown = chosen_targets(listed, ids, "the Atlas's table")
        xmls = {
            File(f"xml/{gene.ensg}.xml", f"{site}/{gene.ensg}.xml", gene.ensg): gene for gene in genes[:limit]
        }
        views: list[tuple[hpa.View, Target]] = []
        for file in fetch.all("genes", list(xmls)):
            target, of_gene = _gene(raw, file, xmls[file], cell_line)
            views += [(view, target) for view in of_gene]
        views.sort(key=lambda each: (each[1].ensg, each[0].base))
        rows = list(_view_rows(fetch, images, views))
        return fetch.finish(rows, (row["ensembl_gene_id"] for row in rows), unknown)


def _gene(raw: RawFolder, file: File, gene: Target, cell_line: str) -> tuple[Target, list[hpa.View]]:
    try:
        target, views = hpa.read_gene((raw.path / file.name).read_bytes(), gene, cell_line)
    except DeepGPSError as error:
        raw.problem(gene.ensg, file.name, file.url, str(error))
        return gene, []
    if not views:
        raw.problem(gene.ensg, file.name, file.url, f"no immunofluorescence in {cell_line}")
    return target, views


@dataclass(slots=True)
class _Got:
    """What came of asking for a field: its files with a note, or why there are none."""

    files: dict[File, Result] = field(default_factory=dict)
    refused: dict[File, RefusedError] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    note: str = ""
    error: tuple[File, RefusedError | UnreachableError] | None = None


def _ask(fetch: Fetch, images: str, view: hpa.View, target: Target) -> _Got:
    """Ask for a field's files, best first. A busy server is no reason to take worse ones."""
    got = _Got()
    for names, note in view.files():
        files = [File(f"images/{name}", f"{images}/{name}", target.ensg) for name in names]
        for file in files:
            result = fetch.get(file)
            if isinstance(result, RefusedError) and result.gone:
                got.refused[file] = result
                break
            if isinstance(result, RefusedError | UnreachableError):
                got.error = (file, result)
                return got
            got.files[file] = result
        else:
            got.names, got.note = [file.name for file in files], note
            return got
    return got


def _view_rows(fetch: Fetch, images: str, views: Sequence[tuple[hpa.View, Target]]) -> Iterator[Row]:
    """Get all fields at once; yield a row for each that is there."""
    fetch.progress.begin("fields", len(views))
    with closing(fetch.client.each(lambda each: _ask(fetch, images, *each), views)) as results:
        for (view, target), got in results:
            _enter(fetch, got)
            fetch.progress.advance()
            if got.names:
                yield hpa.field_row(view, target, got.names, got.note)
            if not got.error and got.note != "jpeg" and (got.note or not got.names):
                _tell(fetch, f"{images}/{view.base}", view, target, got)


def _enter(fetch: Fetch, got: _Got) -> None:
    for file, refusal in got.refused.items():
        fetch.raw.lack(file.url, refusal.status)
    for file, result in got.files.items():
        fetch.settle(file, result)
    if got.error:
        fetch.failed(*got.error)


def _tell(fetch: Fetch, url: str, view: hpa.View, target: Target, got: _Got) -> None:
    """Note a field that is withdrawn, or there as a composite only."""
    if got.names:
        fetch.raw.problem(target.ensg, got.names[0], url, f"only a {got.note}")
        return
    statuses = ", ".join(str(each) for each in sorted({refusal.status for refusal in got.refused.values()}))
    fetch.raw.problem(target.ensg, view.field, url, f"withdrawn: no image in any format (status {statuses})")
