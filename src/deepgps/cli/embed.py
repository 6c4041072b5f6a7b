"""``deepgps embed`` and ``deepgps encoders``."""

import csv
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from deepgps.proteins.embedding import Level, Precision

if TYPE_CHECKING:
    from deepgps.proteins.protein import Protein, Rejection

MAX_REJECTIONS = 10
_Count = Annotated[int, Parameter(validator=Number(gte=1))]


def embed(
    proteins: list[str],
    /,
    *,
    encoder: str,
    out: Path = Path("embeddings.parquet"),
    level: Level = "protein",
    cache: Path | None = None,
    offline: Annotated[bool, Parameter(negative=())] = False,
    precision: Precision = "auto",
    token_budget: _Count = 4096,
    workers: _Count = 1,
    scheduler: str | None = None,
) -> int:
    """Embed proteins: a vector for each, or one for each residue.

    Parameters
    ----------
    proteins
        FASTA, CSV or TSV files, - for stdin, UniProt accessions, gene symbols; tables of annotated proteins
        (Parquet), crop stores.
    encoder
        An ESM2 by name (``esm2_t33_650M_UR50D``, ``t30_150M``) or folder, or ``segments-1``.
    out
        The table to write, Parquet; vectors of residues lie beside it, ``.npz``. Or ``.h5ad`` for AnnData
        (extra ``anndata``).
    level
        One vector per protein, or one per residue.
    cache
        Folder of the cache, instead of the default one.
    offline
        Never use the network.
    precision
        Floating-point precision; ``auto`` is bfloat16 where the machine supports it.
    token_budget
        Largest number of tokens in a batch; less needs less memory.
    workers
        Local processes, each with its own copy of the encoder.
    scheduler
        Address of a Dask scheduler whose workers embed instead.
    """
    from deepgps.cli.console import ProgressBar, exit_code
    from deepgps.training.embedding import EmbeddingOptions, embed_proteins, proteins_to_embed

    accepted, rejected = _separate(proteins_to_embed(proteins, offline=offline))
    _write_rejected(rejected, out)
    options = EmbeddingOptions(encoder, level, precision, offline, token_budget)
    residues = sum(len(protein.sequence) for protein in accepted)
    with ProgressBar("embedding", residues, unit="%") as progress:
        done = embed_proteins(
            accepted,
            options,
            out,
            cache=cache,
            workers=workers,
            scheduler=scheduler,
            on_done=lambda protein: progress.advance(len(protein.sequence)),
        )
    identity = done.encoder
    print(f"{identity.name} ({identity.precision}): {len(accepted):,} proteins, {done.computed:,} computed")
    if done.windowed:
        print(f"{done.windowed:,} of more than {identity.max_length:,} residues were encoded in windows.")
    print("\n".join(map(str, done.files)))
    return exit_code(len(accepted), len(rejected))


def prepare_encoder_command(
    encoder: str, *, offline: Annotated[bool, Parameter(negative=())] = False
) -> None:
    """Make an encoder ready to predict with, without torch.

    Parameters
    ----------
    encoder
        An ESM2 by name (``esm2_t33_650M_UR50D``, ``t30_150M``) or folder.
    offline
        Never use the network.
    """
    from deepgps.training.encoders import prepare_encoder

    folder, info = prepare_encoder(encoder, offline=offline)
    print(f"{info.name} is in {folder}; it differs from the torch module by at most {info.parity:.1g}.")


def list_prepared() -> None:
    """List the encoders that are ready to predict with."""
    from deepgps.proteins.embedding import encoders_folder, list_encoders

    found = list_encoders()
    if not found:
        print(f"No encoder is prepared in {encoders_folder()}; see deepgps encoders prepare --help.")
    for name, info in found:
        if isinstance(info, str):
            print(f"{name}\tdamaged: {info}")
        else:
            size = f"{sum(info.files.values()) / 1e6:,.0f} MB"
            print(name, info.fingerprint[:12], info.dimension, size, encoders_folder() / name, sep="\t")


def _separate(items: "Iterator[Protein | Rejection]") -> "tuple[list[Protein], list[Rejection]]":
    from deepgps.proteins.protein import Protein

    proteins, rejected = list[Protein](), []
    for item in items:
        if isinstance(item, Protein):
            proteins.append(item)
        else:
            rejected.append(item)
    return proteins, rejected


def _write_rejected(rejected: "Sequence[Rejection]", out: Path) -> None:
    """Print the first rejected records and write all of them beside the table."""
    from deepgps.files import atomic_path

    path = out.with_name(f"{out.stem}_rejected.csv")
    path.unlink(missing_ok=True)
    if not rejected:
        return
    for rejection in rejected[:MAX_REJECTIONS]:
        print(f"deepgps: {rejection.reason}", file=sys.stderr)
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as draft, draft.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("id", "source", "reason"))
        table.writerows((each.id, each.source, each.reason) for each in rejected)
    print(f"deepgps: {len(rejected):,} records were rejected; see {path}.", file=sys.stderr)
