"""``deepgps encoders prepare``: an ESM2 as an ONNX file, so that prediction needs no torch."""

import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from deepgps.errors import DeepGPSError
from deepgps.files import lock_folder
from deepgps.models.esm2 import Esm2, load_esm2
from deepgps.proteins.embedding import GRAPH, INFO, PreparedInfo, encoders_folder, tokenize
from deepgps.runtime import open_graph
from deepgps.training.graphs import OPSET, TOLERANCE

_RESIDUES = "ACDEFGHIKLMNPQRSTVWYX"
_DRAFT = ".deepgps-"


def prepare_encoder(name_or_folder: str, *, offline: bool = False) -> tuple[Path, PreparedInfo]:
    """Export an ESM2 to where `deepgps.proteins.embedding.prepared_encoder` finds it.

    One of the same name is replaced; a kill leaves the earlier one or none.

    Parameters
    ----------
    name_or_folder, offline
        As in `deepgps.models.esm2.load_esm2`.

    Returns
    -------
    tuple of Path and PreparedInfo
        Its folder and description.

    Raises
    ------
    InputError
        If the encoder cannot be loaded.
    DeepGPSError
        If the graph differs from the torch module by more than `TOLERANCE`.
    """
    encoder = load_esm2(name_or_folder, offline=offline, precision="float32")
    folder = encoders_folder() / encoder.name
    with _draft(folder) as draft:
        _export(encoder, draft / GRAPH)
        info = PreparedInfo(
            name=encoder.name,
            fingerprint=encoder.fingerprint,
            dimension=encoder.dimension,
            max_length=encoder.max_length,
            parity=_parity(encoder, draft / GRAPH),
            files={path.name: path.stat().st_size for path in sorted(draft.iterdir())},
        )
        (draft / INFO).write_text(info.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return folder, info


@contextmanager
def _draft(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder, which becomes ``folder`` if the block succeeds."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    handle = lock_folder(folder.parent)
    try:
        # The folder is locked, so these are left from killed runs.
        for left in folder.parent.glob(f"{_DRAFT}*/"):
            shutil.rmtree(left)
        draft = Path(tempfile.mkdtemp(dir=folder.parent, prefix=_DRAFT))
        try:
            yield draft
            _replace(folder, draft)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    finally:
        os.close(handle)


def _replace(folder: Path, draft: Path) -> None:
    draft.chmod(0o755)
    if folder.exists():
        earlier = Path(tempfile.mkdtemp(dir=folder.parent, prefix=_DRAFT))
        folder.replace(earlier)
        draft.replace(folder)
        shutil.rmtree(earlier)
    else:
        draft.replace(folder)


def _export(encoder: Esm2, path: Path) -> None:
    # On the CPU, and with several proteins, so the batch size stays free.
    network = encoder.network.cpu()
    tokens, mask = (torch.from_numpy(each) for each in tokenize(["MKVLAAGIVG", "MKVL", "MKVLAA"]))
    free = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")}
    with _quiet():
        program = torch.onnx.export(
            network,
            (tokens, mask),
            input_names=["tokens", "mask"],
            output_names=["vectors"],
            dynamic_shapes=(dict(free), dict(free)),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    # Beside the graph: one file of the format holds at most 2 GB, and esm2_t33_650M has more.
    program.save(path, external_data=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence messages of torch that are for its developers."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _parity(encoder: Esm2, path: Path) -> float:
    """Return the largest difference on random proteins: alone, padded, and of full length."""
    session = open_graph(path)
    rng = np.random.default_rng(0)
    longest = encoder.max_length
    largest = 0.0
    for lengths in ([longest], [11, longest // 3 + 1, 30], [1, 2]):
        sequences = ["".join(rng.choice(list(_RESIDUES), length)) for length in lengths]
        tokens, mask = tokenize(sequences)
        drawn = session.run(["vectors"], {"tokens": tokens, "mask": mask})[0]
        largest = max(largest, float(np.abs(encoder(tokens, mask) - drawn)[mask].max()))
    if not largest <= TOLERANCE:
        raise DeepGPSError(
            f"The graph of '{encoder.name}' differs from the network by {largest:.2g}; it is not kept."
        )
    return largest
