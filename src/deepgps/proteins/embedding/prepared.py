"""Encoders as ONNX files, made once by ``deepgps encoders prepare``, so that predicting needs no torch."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Literal

from platformdirs import user_data_dir
from pydantic import BaseModel, ConfigDict, ValidationError

from deepgps.arrays import Floats, Ints, Mask
from deepgps.errors import InputError
from deepgps.runtime import Graph, open_graph

GRAPH = "encoder.onnx"
"""The graph: ``tokens`` (B, L) int64 and ``mask`` (B, L) bool to ``vectors`` (B, L, E) float32."""
INFO = "encoder.json"


class PreparedInfo(BaseModel):
    """What ``encoder.json`` says of the files beside it."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    schema_version: Literal[1] = 1
    """version of this description"""
    name: str
    """name of the encoder"""
    fingerprint: str
    """sha256 of the weights and the architecture that it was made of"""
    dimension: int
    """size of a vector"""
    max_length: int
    """residues that it takes at once"""
    parity: float
    """largest difference between the graph and the torch module on proteins drawn by chance"""
    files: Mapping[str, int]
    """size in bytes of each file beside this one"""


@dataclass(frozen=True, slots=True)
class PreparedEncoder:
    """A `deepgps.proteins.embedding.encoder.ResidueEncoder` on ONNX Runtime.

    Attributes
    ----------
    name, fingerprint, dimension, max_length, precision
        As of every encoder; it computes in float32.
    opened
        Gives the graph, which is loaded when it is first needed: a process whose workers encode does without.
    """

    name: str
    fingerprint: str
    dimension: int
    max_length: int
    opened: Callable[[], Graph]
    precision: str = "float32"

    def __call__(self, tokens: Ints, mask: Mask) -> Floats:
        """Encode tokens (B, L), real where the mask (B, L) is true: (B, L, E) float32."""
        vectors: Floats = self.opened().run(["vectors"], {"tokens": tokens, "mask": mask})[0]
        return vectors


def encoders_folder() -> Path:
    """Where prepared encoders lie: ``DEEPGPS_ENCODERS``, else ``encoders`` in the user's data folder."""
    own = os.environ.get("DEEPGPS_ENCODERS")
    return Path(own) if own else Path(user_data_dir("deepgps")) / "encoders"


def prepared_encoder(
    name: str, fingerprint: str | None = None, *, threads: int | None = None
) -> PreparedEncoder:
    """Open an encoder that was prepared.

    Parameters
    ----------
    name
        Its name, such as ``esm2_t33_650M_UR50D``.
    fingerprint
        The one it must have, so that it gives the vectors that a model was trained with.
    threads
        Threads to compute with; all cores by default.

    Raises
    ------
    InputError
        If it is not there, damaged, or another.
    """
    folder = encoders_folder() / name
    info = read_info(folder)
    if fingerprint is not None and info.fingerprint != fingerprint:
        raise InputError(
            f"Encoder '{name}' in '{folder}' has other weights ({info.fingerprint[:12]}…) than the model was "
            f"trained with ({fingerprint[:12]}…); run 'deepgps encoders prepare' on those."
        )
    opened = cache(partial(open_graph, folder / GRAPH, threads))
    return PreparedEncoder(info.name, info.fingerprint, info.dimension, info.max_length, opened)


def read_info(folder: Path) -> PreparedInfo:
    """Read the description of a prepared encoder, and see that its files are whole.

    Raises
    ------
    InputError
        If there is none, or it is damaged.
    """
    remedy = f"run 'deepgps encoders prepare {folder.name}'"
    try:
        info = PreparedInfo.model_validate_json((folder / INFO).read_bytes())
    except FileNotFoundError:
        raise InputError(f"Encoder '{folder.name}' is not prepared in '{folder.parent}'; {remedy}.") from None
    except (ValidationError, OSError):
        raise InputError(f"'{folder / INFO}' cannot be read; {remedy} again.") from None
    for file, size in info.files.items():
        path = folder / file
        if not path.is_file() or path.stat().st_size != size:
            raise InputError(f"'{path}' is missing or damaged; {remedy} again.")
    return info


def list_encoders() -> list[tuple[str, PreparedInfo | str]]:
    """List the prepared encoders by name: what is said of each, or why it cannot be used."""
    found: list[tuple[str, PreparedInfo | str]] = []
    for path in sorted(encoders_folder().glob("[!.]*/")):
        try:
            found.append((path.name, read_info(path)))
        except InputError as error:
            found.append((path.name, str(error)))
    return found
