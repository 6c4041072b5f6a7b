"""How fast proteins are embedded, against one by one and against padding all to 2,700 residues.

Run ``python benchmarks/embed.py [--proteins 24] [--threads 1]``; about five minutes.

The network is the ESM2 of 150 million parameters with random weights: speed does not depend on them. The
proteins stand at even steps of the lengths of OpenCell's targets up to 2,700 residues, where that table is
there, else of a gamma distribution of shape 2 and mean 550. Time is that of the processor, all threads
together, so that with one thread what else the machine does counts little. The ways compared:

- ours: `deepgps.proteins.embedding.embed_sequences`, batches by length, windows of 1,022 residues;
- one by one: `EsmModel` as transformers has it, each protein alone and whole;
- padded: the same, each protein padded to 2,700 residues; as each takes the same time, two are timed.
"""

import argparse
import csv
import gzip
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from transformers import EsmConfig, EsmModel

from deepgps.models.esm2 import Esm2, esm2_of, resolve_precision
from deepgps.proteins.embedding import PADDING, embed_sequences, tokenize

LONGEST, RESIDUES = 2700, "ACDEFGHIKLMNPQRSTVWY"
PADDED = 2
SPEED_AIM, RATE_AIM = 5, 0.6


@dataclass
class Timed:
    """Residues a second, and the products of the linear layers."""

    residues: float
    rate: float
    share: float


def build() -> EsmModel:
    """ESM2 of 150 million parameters, random."""
    torch.manual_seed(0)
    config = EsmConfig(
        vocab_size=33,
        hidden_size=640,
        num_hidden_layers=30,
        num_attention_heads=20,
        intermediate_size=2560,
        max_position_embeddings=1026,
        position_embedding_type="rotary",
        token_dropout=True,
        emb_layer_norm_before=False,
        pad_token_id=PADDING,
        mask_token_id=32,
    )
    return EsmModel(config, add_pooling_layer=False).eval()


def proteins(count: int) -> tuple[list[str], str]:
    """Sequences at even steps of the lengths, and where they are from."""
    root = Path(__file__).parents[1]
    data = Path(os.environ.get("DEEPGPS_SHARED_DATA", root.parent / "shared" / "data"))
    table = data / "sequences" / "opencell_targets.csv.gz"
    if table.is_file():
        with gzip.open(table, "rt", encoding="utf-8") as file:
            found = [row["sequence"] for row in csv.DictReader(file)]
        found, whose = [each for each in found if 0 < len(each) <= LONGEST], "OpenCell's targets"
    else:
        chance = np.random.default_rng(0)
        lengths = np.clip(chance.gamma(2, 275, 2000).astype(int), 30, LONGEST)
        found = ["".join(chance.choice(list(RESIDUES), length)) for length in lengths]
        whose = "a gamma distribution"
    found.sort(key=len)
    return [found[int((step + 0.5) * len(found) / count)] for step in range(count)], whose


@contextmanager
def linear_layers(network: nn.Module) -> Iterator[dict[str, float]]:
    """Count operations and seconds of the linear layers."""
    spent = {"operations": 0.0, "seconds": 0.0, "begun": 0.0}

    def before(*_: object) -> None:
        spent["begun"] = time.process_time()

    def after(layer: nn.Linear, _: object, out: Tensor) -> None:
        spent["seconds"] += time.process_time() - spent["begun"]
        spent["operations"] += 2 * out.numel() * layer.in_features

    layers = [each for each in network.modules() if isinstance(each, nn.Linear)]
    hooks = [each.register_forward_pre_hook(before) for each in layers]
    hooks += [each.register_forward_hook(after) for each in layers]
    yield spent
    for hook in hooks:
        hook.remove()


def timed(network: nn.Module, residues: int, work: Callable[[], object]) -> Timed:
    with linear_layers(network) as spent:
        start = time.process_time()
        work()
        seconds = time.process_time() - start
    return Timed(residues / seconds, spent["operations"] / spent["seconds"] / 1e9, spent["seconds"] / seconds)


def matmul_rate(precision: str) -> float:
    """The best of several large products, in GFLOP/s."""
    dtype = getattr(torch, precision)
    size = 2048
    one, other = (torch.randn(size, size, dtype=dtype) for _ in range(2))
    out, best = torch.empty(size, size, dtype=dtype), float("inf")
    for _ in range(12):
        start = time.process_time()
        torch.mm(one, other, out=out)
        best = min(best, time.process_time() - start)
    return 2 * size**3 / best / 1e9


def plain(model: EsmModel, sequences: Sequence[str], width: int | None = None) -> None:
    """As transformers has it, one protein at a time, perhaps padded; the mean over the residues."""
    for sequence in sequences:
        tokens, mask = (torch.from_numpy(each) for each in tokenize([sequence]))
        if width:
            tokens = nn.functional.pad(tokens, (0, width + 2 - tokens.shape[1]), value=PADDING)
            mask = nn.functional.pad(mask, (0, width + 2 - mask.shape[1]))
        with torch.inference_mode():
            states = model(input_ids=tokens, attention_mask=mask.long()).last_hidden_state
        states[0, 1 : len(sequence) + 1].float().mean(0)


def show(what: str, found: Timed, peak: float) -> None:
    print(
        f"{what:<28}{found.residues:>7.0f} residues/s   linear layers {found.rate:>4.0f} GFLOP/s = "
        f"{found.rate / peak:>4.0%} of {peak:.0f}, {found.share:.0%} of the time",
        flush=True,
    )


def measure(model: EsmModel, encoder: Esm2, sequences: Sequence[str]) -> dict[str, Timed]:
    """The three ways in one precision."""
    precision = encoder.precision
    peak, residues = matmul_rate(precision), sum(map(len, sequences))
    model = model.to(getattr(torch, precision))
    plain(model, ["M" * 60])
    mean = residues / len(sequences)
    found = {
        "ours": timed(encoder.network, residues, lambda: embed_sequences(sequences, encoder)),
        "one by one": timed(model, residues, lambda: plain(model, sequences)),
        "padded to 2,700": timed(
            model, round(mean * PADDED), lambda: plain(model, sequences[:PADDED], LONGEST)
        ),
    }
    for way, each in found.items():
        show(f"{way}, {precision}", each, peak)
    rate = found["ours"].rate / peak
    print(f"{'':4}linear layers at {rate:.0%} of the matmul rate (aim: >= {RATE_AIM:.0%})")
    compare(found["ours"], found, precision)
    return found


def compare(ours: Timed, others: dict[str, Timed], precision: str) -> None:
    for way in ("one by one", "padded to 2,700"):
        aim = f" (aim: >= {SPEED_AIM})" if way.startswith("padded") else ""
        print(f"{'':4}{ours.residues / others[way].residues:.1f} times {way}, {precision}{aim}", flush=True)


def differences(exact: Esm2, rough: Esm2, sequences: Sequence[str]) -> None:
    """What bfloat16 changes of the vectors of proteins."""
    pairs = list(zip(embed_sequences(sequences, exact), embed_sequences(sequences, rough), strict=True))
    largest = max(float(np.abs(one - other).max()) for one, other in pairs)
    relative = statistics.median(
        float(np.linalg.norm(one - other) / np.linalg.norm(one)) for one, other in pairs
    )
    apart = min(float(np.linalg.norm(a - b)) for i, (a, _) in enumerate(pairs) for b, _ in pairs[:i])
    nearest = float(np.median([np.linalg.norm(one - other) for one, other in pairs])) / apart
    print(
        f"bfloat16 against float32: entries differ by {largest:.2g} at most; vectors by {relative:.2%} of\n"
        f"    their length, and by {nearest:.1%} of the distance between the two nearest proteins (medians)"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--proteins", type=int, default=24)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    sequences, whose = proteins(options.proteins)
    lengths = list(map(len, sequences))
    print(
        f"{os.cpu_count()} cores, {options.threads} used; Python {sys.version.split()[0]}, "
        f"torch {torch.__version__}; processor time"
    )
    print(
        f"{len(lengths)} proteins by the lengths of {whose}: {min(lengths)} to {max(lengths):,} residues, "
        f"mean {statistics.mean(lengths):.0f}, {sum(length > 1022 for length in lengths)} in windows"
    )
    model = build()
    exact = esm2_of(deepcopy(model), "random_150M")
    found = measure(model, exact, sequences)
    if resolve_precision("auto") == "float32":
        print("This machine has no units for bfloat16, so float32 is what --precision auto takes.")
        return
    rough = esm2_of(deepcopy(model.float()), "random_150M", "bfloat16")
    compare(measure(model, rough, sequences)["ours"], found, "float32: what --precision auto gains")
    differences(exact, rough, sequences[: len(sequences) // 2])


if __name__ == "__main__":
    main()
