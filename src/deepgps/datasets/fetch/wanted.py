"""Which proteins a user wants: Ensembl gene ids, gene symbols or UniProt accessions, from a file."""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from deepgps.errors import InputError

# Headers of a column of ids, in the order of preference.
ANY_ID = ("ensembl_gene_id", "ensg_id", "protein_id", "accession", "uniprot_id", "gene_symbol", "target_name")
ACCESSION = ("accession", "uniprot_id")


@dataclass(frozen=True, slots=True)
class Target:
    """A protein of a source.

    Attributes
    ----------
    ensg
        Ensembl gene id, without version.
    gene
        Gene symbol, in the source's spelling.
    accession
        UniProt accession, or "".
    """

    ensg: str
    gene: str
    accession: str = ""

    @property
    def ids(self) -> frozenset[str]:
        """All that it may be called, in upper case."""
        return frozenset({self.ensg.upper(), self.gene.upper(), self.accession.upper()} - {""})


def plain_ensg(text: str) -> str:
    """Ensembl gene id without its version: ``ENSG00000184743.12`` is ``ENSG00000184743``."""
    return text.strip().partition(".")[0]


def read_ids(path: Path, columns: Sequence[str] = ANY_ID) -> list[str]:
    """Read the ids in a file: one a line, or a column of a CSV or TSV table, each once, in their order.

    The column is the first of the named ones that there is, else the table's first. Empty lines and those
    that begin with ``#`` are passed over.

    Raises
    ------
    InputError
        If it is no text, or there is no id in it.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"'{path}' is not text; give a file with one protein id a line.") from None
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    delimiter = "\t" if lines and "\t" in lines[0] else ","
    rows = [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter=delimiter)]
    header = [cell.lower() for cell in rows[0]] if rows else []
    known = [header.index(name) for name in columns if name in header]
    column = known[0] if known else 0
    ids = [row[column] for row in rows[bool(known) :] if len(row) > column and row[column]]
    if not ids:
        raise InputError(f"'{path}' holds no protein id; write one a line.")
    return list(dict.fromkeys(ids))


def choose(targets: Iterable[Target], ids: Iterable[str] | None) -> tuple[list[Target], list[str]]:
    """Keep the targets that ids stand for, and list the ids that stand for none; all without ids."""
    targets = list(targets)
    if ids is None:
        return targets, []
    wanted = {
        plain_ensg(each).upper() if each.upper().startswith("ENSG") else each.upper(): each for each in ids
    }
    chosen = [target for target in targets if target.ids & set(wanted)]
    found = frozenset[str]().union(*(target.ids for target in chosen))
    return chosen, [each for key, each in wanted.items() if key not in found]


def _key(name: str) -> str:
    return plain_ensg(name).upper() if name.upper().startswith("ENSG") else name.upper()
