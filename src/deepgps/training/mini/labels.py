"""The label half of the bundled model: a sequence encoder and its index of annotated proteins.

MLPs on hand-made sequence features are trained for each fold of homology clusters, so every protein has
logits from a model that never saw its cluster. From those, the head learns how much to trust the nearest
annotated proteins: once without any homolog among them, and once without nearly identical proteins only. The
probabilities are calibrated on heads that did not see the protein's cluster. The MLPs of the final model are
trained on all proteins.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, dropout

from deepgps.arrays import Floats, Ints, Mask
from deepgps.datasets.labels import LabelledProteins
from deepgps.errors import InputError
from deepgps.evaluation.label_metrics import reliability
from deepgps.files import atomic_path
from deepgps.models.sequence_encoder import VIEWS, FeatureMLP, SequenceEncoder, evidence
from deepgps.proteins.features import FEATURES_NAME, feature_names, sequence_features
from deepgps.proteins.neighbours import FORMAT, NeighbourIndex
from deepgps.training.loop import one_cycle
from deepgps.training.recipe import LabelSettings
from deepgps.training.run_folder import write_json
from deepgps.training.thresholds import best_thresholds, top_class, unclear_below, unlike_below

LABEL_ENCODER, LABEL_WEIGHTS, NEIGHBOUR_INDEX, HELD_OUT = (
    *("encoder.json", "encoder.safetensors"),
    *("neighbours.npz", "held_out.safetensors"),
)
REGIMES = ("without homologs", "without the same protein")
"""Which neighbours vote for a held-out protein: those of other clusters, or all but nearly identical ones."""
FEATURE_DROPOUT = 0.5
"""Share of the standardised features left out in training."""
CURATED_WEIGHT = 0.1
"""Weight of a Swiss-Prot label in head and calibration where no microscope has looked; the model predicts
what one would see."""
HEAD_PENALTY = 1e-3
"""Weight of the squared weights of the head in its loss."""

_FORMAT = 2  # Format of the files; a run with another one is trained again.
_SAME = 0.6  # Proteins with this similarity are mostly orthologs or isoforms, at least 95 % identical.
_VOTES = "votes, "  # Prefix of a regime's name in HELD_OUT.


# ---- the whole half ----


def fit_labels(proteins: LabelledProteins, settings: LabelSettings, folder: Path) -> None:
    """Train an encoder and write it with its index.

    Writes `LABEL_WEIGHTS`, `LABEL_ENCODER`, `NEIGHBOUR_INDEX` and `HELD_OUT` (predictions for each protein by
    models that never saw its cluster). Every MLP is kept in ``folder/parts`` once it is trained, so a killed
    run continues there
    and ends with the same weights; a finished one is left as it is.

    Parameters
    ----------
    proteins
        All proteins are used; none is held out for a test.
    settings
        The recipe's settings.
    folder
        Created if missing.
    """
    fingerprint = _fingerprint(proteins, settings)
    if _finished(folder, fingerprint):
        return
    parts = folder / "parts" / fingerprint
    parts.mkdir(parents=True, exist_ok=True)
    with Progress(console=Console(stderr=True)) as progress:
        examples = _examples(proteins, progress)
        index = NeighbourIndex.build(
            proteins.ids.tolist(), proteins.sequences, proteins.labels, proteins.mask, proteins.slugs
        )
        votes = _training_votes(proteins, index, progress)
        folds = _cluster_folds(proteins.cluster, settings)
        own = _out_of_fold_logits(examples, folds, settings, parts, progress)
        model = SequenceEncoder(
            len(feature_names()), index.vote_size, len(proteins.slugs), settings.widths, settings.members
        )
        everything = np.ones(len(proteins), np.bool_)
        _fit_members(model, examples, everything, settings, parts, "member", progress)
    labels, weight = _targets(proteins)
    held_out = _fit_head_and_calibration(model, own, votes, (labels, weight), folds, settings.folds)
    write_held_out(folder, held_out, votes)
    description = {
        "fingerprint": fingerprint,
        **_quality(held_out, labels, weight, torch.from_numpy(proteins.view_mask[:, 0])),
        "unlike_below": unlike_below(index, proteins.sequences),
    }
    _write(folder, model, index, settings, proteins, description)
    shutil.rmtree(folder / "parts")


def load_encoder(folder: Path) -> SequenceEncoder:
    """Load the encoder that `fit_labels` wrote, ready to predict.

    Returns
    -------
    SequenceEncoder
        In evaluation mode.

    Raises
    ------
    InputError
        If the folder has none.
    """
    try:
        about = json.loads((folder / LABEL_ENCODER).read_text("utf-8"))
        weights = load_file(folder / LABEL_WEIGHTS)
    except FileNotFoundError as error:
        raise InputError(
            f"Folder '{folder}' has no trained encoder ({error.filename}); train it first."
        ) from None
    sizes = (about["features"], about["votes"], len(about["classes"]), about["widths"], about["members"])
    model = SequenceEncoder(*sizes)
    model.load_state_dict(weights)
    return model.eval()


def _finished(folder: Path, fingerprint: str) -> bool:
    path = folder / LABEL_ENCODER
    return path.exists() and json.loads(path.read_text("utf-8")).get("fingerprint") == fingerprint


def _fingerprint(proteins: LabelledProteins, settings: LabelSettings) -> str:
    digest = hashlib.sha256(settings.model_dump_json().encode())
    digest.update(f"{FEATURES_NAME} {FORMAT} {_FORMAT} ".encode() + "\n".join(proteins.sequences).encode())
    for array in (proteins.labels, proteins.mask, proteins.weight, proteins.cluster):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def _quality(held_out: list[Tensor], labels: Tensor, weight: Tensor, seen: Tensor) -> dict[str, object]:
    """Return the calibration error of each regime, and the thresholds."""
    # Proteins that a microscope has looked at (`seen`, (N, K)), without homologs, decide what is unclear.
    probabilities = [torch.sigmoid(logits) for logits in held_out]
    known = (weight > 0).numpy()
    errors = [reliability(each.numpy()[known], labels.numpy()[known]).ece for each in probabilities]
    return {
        "calibration_ece": dict(zip(REGIMES, errors, strict=True)),
        "thresholds": best_thresholds(probabilities[-1], labels, weight),
        "unclear_below": unclear_below(*top_class(probabilities[0], labels, seen)),
    }


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    with atomic_path(path) as draft:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, draft)


def _write(
    folder: Path,
    model: SequenceEncoder,
    index: NeighbourIndex,
    settings: LabelSettings,
    proteins: LabelledProteins,
    more: dict[str, object],
) -> None:
    """Write index and weights; the description last."""
    with atomic_path(folder / NEIGHBOUR_INDEX) as draft:
        draft.write_bytes(index.to_bytes())
    _save(model.state_dict(), folder / LABEL_WEIGHTS)
    description = {
        "features_name": FEATURES_NAME,
        "features": len(feature_names()),
        "votes": index.vote_size,
        "classes": list(proteins.slugs),
        "widths": list(settings.widths),
        "members": settings.members,
        "proteins": len(proteins),
        **more,
        "settings": settings.model_dump(mode="json"),
    }
    write_json(folder / LABEL_ENCODER, description)


# ---- predictions for held-out proteins ----


class HeldOutPredictions(NamedTuple):
    """Predictions for the N training proteins by models that never saw their cluster.

    Attributes
    ----------
    logits
        (N, K) calibrated logits.
    votes
        (N, V) votes of their neighbours, as of `deepgps.proteins.neighbours.NeighbourIndex.vote`.
    """

    logits: Floats
    votes: Floats


def write_held_out(folder: Path, logits: Sequence[Tensor], votes: Sequence[Tensor]) -> None:
    """Write logits (N, K) and votes (N, V) of each of `REGIMES`."""
    tensors = dict(zip(REGIMES, logits, strict=True))
    tensors |= {f"{_VOTES}{name}": each for name, each in zip(REGIMES, votes, strict=True)}
    _save(tensors, folder / HELD_OUT)


def read_held_out(folder: Path) -> dict[str, HeldOutPredictions]:
    """Read what `write_held_out` wrote, by the names of `REGIMES`.

    Returns
    -------
    dict
        Predictions by regime.

    Raises
    ------
    InputError
        If an earlier deepGPS wrote it, without the votes.
    """
    found = load_file(folder / HELD_OUT)
    if not found.keys() >= {f"{_VOTES}{name}" for name in REGIMES}:
        raise InputError(f"Folder '{folder}' was trained by an earlier deepGPS; remove it to train it again.")
    return {
        name: HeldOutPredictions(found[name].numpy(), found[f"{_VOTES}{name}"].numpy()) for name in REGIMES
    }


# ---- data ----


@dataclass(frozen=True, slots=True)
class Examples:
    """Training data of an MLP.

    Attributes
    ----------
    features
        (N, F) sequence features.
    labels
        (N, `VIEWS` K) in [0, 1].
    weight
        (N, `VIEWS` K); 0 where a label is unknown.
    """

    features: Tensor
    labels: Tensor
    weight: Tensor

    def targets(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return labels and weights of some rows."""
        return self.labels[rows], self.weight[rows]


def _examples(proteins: LabelledProteins, progress: Progress) -> Examples:
    texts = progress.track(proteins.sequences, description="sequence features")
    features = np.stack([sequence_features(text) for text in texts])
    weight = proteins.view_mask * proteins.weight[:, None, None]
    views = (array.reshape(len(proteins), -1) for array in (proteins.view_labels, weight))
    return Examples(*(torch.from_numpy(array.astype(np.float32)) for array in (features, *views)))


def _targets(proteins: LabelledProteins) -> tuple[Tensor, Tensor]:
    """Return labels and weights (N, K) for head and calibration: microscopy if known, else curation."""
    seen, curated = (proteins.view_mask[:, view] for view in range(VIEWS))
    labels = np.where(seen, proteins.view_labels[:, 0], proteins.view_labels[:, 1])
    weight = np.where(seen, 1.0, CURATED_WEIGHT * curated) * proteins.weight[:, None]
    return torch.from_numpy(labels), torch.from_numpy(weight.astype(np.float32))


def _training_votes(proteins: LabelledProteins, index: NeighbourIndex, progress: Progress) -> list[Tensor]:
    """Return the votes (N, V) of each regime: without homologs, or without nearly identical proteins."""
    votes = np.zeros((len(REGIMES), len(proteins), index.vote_size), np.float32)
    for row, text in enumerate(progress.track(proteins.sequences, description="neighbours")):
        similar = index.similarities(text)
        similar[row] = 0
        homologs = proteins.cluster == proteins.cluster[row]
        for regime, excluded in enumerate((homologs, similar >= _SAME)):
            votes[regime, row] = index.vote(np.where(excluded, np.float32(0), similar))
    return [torch.from_numpy(each) for each in votes]


def _cluster_folds(cluster: Ints, settings: LabelSettings) -> Ints:
    """Assign whole clusters to folds: (N,) fold of each protein."""
    distinct, inverse = np.unique(cluster, return_inverse=True)
    folds = np.random.default_rng(settings.seed).permutation(len(distinct)) % settings.folds
    return np.asarray(folds[inverse], np.int64)


# ---- the MLPs ----


def _out_of_fold_logits(
    examples: Examples, folds: Ints, settings: LabelSettings, parts: Path, progress: Progress
) -> Tensor:
    """Return logits (N, `VIEWS`, K) of the features alone, by MLPs that saw no protein of the cluster."""
    features, classes = examples.features.shape[1], examples.labels.shape[1] // VIEWS
    own = torch.zeros(len(folds), VIEWS, classes)
    for fold in range(settings.folds):
        model = SequenceEncoder(features, 2 * classes + 1, classes, settings.widths, settings.members)
        _fit_members(model, examples, folds != fold, settings, parts, f"fold-{fold}", progress)
        held_out = torch.from_numpy(folds == fold)
        with torch.no_grad():
            own[held_out] = model.eval().own_logits(examples.features[held_out])
    return own


def _fit_members(
    model: SequenceEncoder,
    examples: Examples,
    rows: Mask,
    settings: LabelSettings,
    parts: Path,
    name: str,
    progress: Progress,
) -> None:
    """Train each MLP on ``rows``, or load it from ``parts`` where an earlier run left it."""
    chosen = torch.from_numpy(np.flatnonzero(rows))
    model.mean, model.scale = standardisation(examples.features[chosen])
    for number, member in enumerate(model.members):
        path = parts / f"{name}-{number}.safetensors"
        if not path.exists():
            torch.manual_seed(settings.seed + number)
            inputs = Examples(model.standardise(examples.features[chosen]), *examples.targets(chosen))
            _save(fit_mlp(inputs, settings, progress, path.stem).state_dict(), path)
        member.load_state_dict(load_file(path))


def fit_mlp(examples: Examples, settings: LabelSettings, progress: Progress, name: str) -> FeatureMLP:
    """Train one MLP on standardised features; torch's global seed decides weights, dropout and order."""
    count, features = examples.features.shape
    classes = examples.labels.shape[1] // VIEWS
    size = min(settings.batch_size, count)
    net = FeatureMLP(features, classes, settings.widths, settings.dropout)
    optimiser = torch.optim.AdamW(
        net.parameters(), settings.learning_rate, weight_decay=settings.weight_decay
    )
    steps = settings.epochs * (count // size)
    bar, step = progress.add_task(name, total=steps), 0
    for _ in range(settings.epochs):
        for rows in torch.randperm(count)[: count // size * size].reshape(-1, size):
            optimiser.param_groups[0].update(one_cycle(settings.learning_rate, step, steps, warm_up=0.1))
            optimiser.zero_grad()
            inputs = dropout(examples.features[rows], FEATURE_DROPOUT)
            weighted_loss(net(inputs), *examples.targets(rows)).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            step += 1
            progress.advance(bar)
    return net.eval()


def standardisation(features: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation (F,) of features (N, F); 1 for a constant feature."""
    scale, mean = torch.std_mean(features, dim=0, correction=0)
    return mean, torch.where(scale < 1e-6, torch.ones_like(scale), scale)


def weighted_loss(logits: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
    """Return the weighted binary cross-entropy over the known labels."""
    loss = binary_cross_entropy_with_logits(logits, labels, weight, reduction="sum")
    return loss / weight.sum().clamp(min=1e-9)


# ---- head and calibration ----


def _fit_head_and_calibration(
    model: SequenceEncoder,
    own: Tensor,
    votes: list[Tensor],
    targets: tuple[Tensor, Tensor],
    folds: Ints,
    fold_count: int,
) -> list[Tensor]:
    """Fit both in place; return the held-out calibrated logits (N, K) of each regime."""
    seen = torch.cat([evidence(own, each) for each in votes])
    labels, weight = (tensor.repeat(len(votes), 1) for tensor in targets)
    fold = torch.from_numpy(np.tile(folds, len(votes)))
    held_out = torch.zeros_like(labels)
    for number in range(fold_count):
        rest, here = fold != number, fold == number
        weights, bias = fit_head(seen[rest], labels[rest], weight[rest])
        held_out[here] = (seen[here] * weights).sum(2) + bias
    weights, bias = fit_head(seen, labels, weight)
    scale, shift = fit_calibration(held_out, labels, weight)
    with torch.no_grad():
        model.head_weight.copy_(weights)
        model.head_bias.copy_(bias)
        model.calibration_scale.copy_(scale)
        model.calibration_shift.copy_(shift)
        return list(model.calibrate(held_out).chunk(len(votes)))


def fit_head(seen: Tensor, labels: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Fit the logistic head.

    Parameters
    ----------
    seen
        (N, K, E) evidence for each class.
    labels, weight
        (N, K) labels in [0, 1] and their weights.

    Returns
    -------
    tuple[Tensor, Tensor]
        Weights (K, E) and bias (K,).
    """
    weights = torch.zeros(seen.shape[1:])
    weights[:, :VIEWS] = 1 / VIEWS
    return _minimise(
        [weights, torch.zeros(seen.shape[1])],
        lambda w, b: weighted_loss((seen * w).sum(2) + b, labels, weight) + HEAD_PENALTY * w.square().mean(),
    )


def fit_calibration(logits: Tensor, labels: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Fit Platt's scale and shift of each class, (K,) each, to held-out logits (N, K)."""
    classes = logits.shape[1]
    return _minimise(
        [torch.ones(classes), torch.zeros(classes)],
        lambda scale, shift: weighted_loss(logits * scale + shift, labels, weight),
    )


def _minimise(start: list[Tensor], loss: Callable[[Tensor, Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Minimise a smooth loss of two tensors with L-BFGS."""
    first, second = (tensor.requires_grad_() for tensor in start)
    optimiser = torch.optim.LBFGS([first, second], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> float:
        optimiser.zero_grad()
        value = loss(first, second)
        value.backward()  # type: ignore[no-untyped-call]
        return float(value.detach())

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    return first.detach(), second.detach()
