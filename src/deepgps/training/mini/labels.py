"""Train the sequence encoder and its neighbour index from annotated proteins.

MLPs are fitted on each side of a split by homology cluster, so that every protein has logits from a model
that never saw its like. On those, the head learns how far to believe the neighbours, once with no homolog
among them and once with all but what is nearly the same protein; the calibration is learned on heads that
did not see the protein's cluster. The members that ship are then trained on everything.
"""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from safetensors.torch import load_file, save_file

from deepgps.arrays import Ints, Mask
from deepgps.datasets.labels import LabelledProteins
from deepgps.errors import InputError
from deepgps.evaluation.label_metrics import reliability
from deepgps.models.sequence_encoder import VIEWS, SequenceEncoder, evidence
from deepgps.proteins.features import FEATURES_NAME, feature_names, sequence_features
from deepgps.proteins.neighbours import FORMAT, NeighbourIndex
from deepgps.training.mini.held_out import REGIMES, write_held_out
from deepgps.training.mini.label_fits import Examples, fit_calibration, fit_head, fit_member, standardisation
from deepgps.training.mini.label_quality import best_thresholds, first_named, unclear_below, unlike_below
from deepgps.training.mini.settings import LabelSettings

_WRITTEN = 2  # what the files hold; other than an earlier run's, it is trained anew

_SAME = 0.6  # Proteins this similar are mostly orthologs or isoforms, at least 95 % identical.


def fit_labels(proteins: LabelledProteins, settings: LabelSettings, folder: Path) -> None:
    """Train an encoder and write it with its index.

    Writes ``encoder.safetensors``, ``encoder.json`` and ``neighbours.npz`` into ``folder``, and
    what `deepgps.training.mini.held_out` reads: what is said of each protein by models that never saw its
    cluster. Every MLP is kept in ``folder/parts`` as soon as it is trained: a run that was
    killed takes up there and ends with the same weights; one that was finished is left as it is.

    Parameters
    ----------
    proteins
        What to train on; nothing is held out for a test.
    settings
        The recipe.
    folder
        Made if missing; what an earlier run finished there is replaced.
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
        own = _out_of_fold(examples, folds, settings, parts, progress)
        model = SequenceEncoder(
            len(feature_names()), index.vote_size, len(proteins.slugs), settings.widths, settings.members
        )
        everything = np.ones(len(proteins), np.bool_)
        _fill_members(model, examples, everything, settings, parts, "member", progress)
    labels, weight = _targets(proteins, settings.curated_weight)
    held_out = _fit_top(model, own, votes, (labels, weight), folds, settings)
    write_held_out(folder, held_out, votes)
    about = {
        "fingerprint": fingerprint,
        **_quality(held_out, labels, weight, torch.from_numpy(proteins.view_mask[:, 0])),
        "unlike_below": unlike_below(index, proteins.sequences),
    }
    _write(folder, model, index, settings, proteins, about)
    shutil.rmtree(folder / "parts")


def load_encoder(folder: Path) -> SequenceEncoder:
    """Load the encoder that `fit_labels` left in a folder, ready to predict.

    Raises
    ------
    InputError
        If the folder holds none.
    """
    try:
        about = json.loads((folder / "encoder.json").read_text("utf-8"))
        weights = load_file(folder / "encoder.safetensors")
    except FileNotFoundError as error:
        raise InputError(
            f"Folder '{folder}' holds no trained encoder ({error.filename}); train it first."
        ) from None
    sizes = (about["features"], about["votes"], len(about["classes"]), about["widths"], about["members"])
    model = SequenceEncoder(*sizes)
    model.load_state_dict(weights)
    return model.eval()


def _finished(folder: Path, fingerprint: str) -> bool:
    path = folder / "encoder.json"
    return path.exists() and json.loads(path.read_text("utf-8")).get("fingerprint") == fingerprint


def _fingerprint(proteins: LabelledProteins, settings: LabelSettings) -> str:
    digest = hashlib.sha256(settings.model_dump_json().encode())
    digest.update(f"{FEATURES_NAME} {FORMAT} {_WRITTEN} ".encode() + "\n".join(proteins.sequences).encode())
    for array in (proteins.labels, proteins.mask, proteins.weight, proteins.cluster):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def _examples(proteins: LabelledProteins, progress: Progress) -> Examples:
    texts = progress.track(proteins.sequences, description="sequence features")
    features = np.stack([sequence_features(text) for text in texts])
    weight = proteins.view_mask * proteins.weight[:, None, None]
    views = (array.reshape(len(proteins), -1) for array in (proteins.view_labels, weight))
    return Examples(*(torch.from_numpy(array.astype(np.float32)) for array in (features, *views)))


def _targets(proteins: LabelledProteins, curated_weight: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Labels and weights (N, K) for head and calibration: what microscopes see, else what curators write."""
    seen, written = (proteins.view_mask[:, view] for view in range(VIEWS))
    labels = np.where(seen, proteins.view_labels[:, 0], proteins.view_labels[:, 1])
    weight = np.where(seen, 1.0, curated_weight * written) * proteins.weight[:, None]
    return torch.from_numpy(labels), torch.from_numpy(weight.astype(np.float32))


def _training_votes(
    proteins: LabelledProteins, index: NeighbourIndex, progress: Progress
) -> list[torch.Tensor]:
    """Votes (N, V) of each regime: all homologs silenced, or what is nearly the protein itself."""
    votes = np.zeros((len(REGIMES), len(proteins), index.vote_size), np.float32)
    for row, text in enumerate(progress.track(proteins.sequences, description="neighbours")):
        similar = index.similarities(text)
        similar[row] = 0
        homologs = proteins.cluster == proteins.cluster[row]
        for regime, silenced in enumerate((homologs, similar >= _SAME)):
            votes[regime, row] = index.vote(np.where(silenced, np.float32(0), similar))
    return [torch.from_numpy(each) for each in votes]


def _cluster_folds(cluster: Ints, settings: LabelSettings) -> Ints:
    """Deal whole clusters into folds: (N,) fold of each protein."""
    distinct, inverse = np.unique(cluster, return_inverse=True)
    dealt = np.random.default_rng(settings.seed).permutation(len(distinct)) % settings.folds
    return np.asarray(dealt[inverse], np.int64)


def _out_of_fold(
    examples: Examples, folds: Ints, settings: LabelSettings, parts: Path, progress: Progress
) -> torch.Tensor:
    """Logits (N, `VIEWS`, K) of the features alone, each by members that saw no protein of its cluster."""
    features, classes = examples.features.shape[1], examples.labels.shape[1] // VIEWS
    own = torch.zeros(len(folds), VIEWS, classes)
    for fold in range(settings.folds):
        model = SequenceEncoder(features, 2 * classes + 1, classes, settings.widths, settings.members)
        _fill_members(model, examples, folds != fold, settings, parts, f"fold-{fold}", progress)
        held_out = torch.from_numpy(folds == fold)
        with torch.no_grad():
            own[held_out] = model.eval().own_logits(examples.features[held_out])
    return own


def _fill_members(
    model: SequenceEncoder,
    examples: Examples,
    rows: Mask,
    settings: LabelSettings,
    parts: Path,
    name: str,
    progress: Progress,
) -> None:
    """Train each member on ``rows``, or take it from ``parts`` where an earlier run left it."""
    chosen = torch.from_numpy(np.flatnonzero(rows))
    model.mean, model.scale = standardisation(examples.features[chosen])
    for number, member in enumerate(model.members):
        path = parts / f"{name}-{number}.safetensors"
        if not path.exists():
            torch.manual_seed(settings.seed + number)
            inputs = Examples(model.standardise(examples.features[chosen]), *examples.targets(chosen))
            _save(fit_member(inputs, settings, progress, path.stem).state_dict(), path)
        member.load_state_dict(load_file(path))


def _fit_top(
    model: SequenceEncoder,
    own: torch.Tensor,
    votes: list[torch.Tensor],
    targets: tuple[torch.Tensor, torch.Tensor],
    folds: Ints,
    settings: LabelSettings,
) -> list[torch.Tensor]:
    """Fit head and calibration in place; return the held-out calibrated logits (N, K) of each regime."""
    seen = torch.cat([evidence(own, each) for each in votes])
    labels, weight = (tensor.repeat(len(votes), 1) for tensor in targets)
    fold = torch.from_numpy(np.tile(folds, len(votes)))
    held_out = torch.zeros_like(labels)
    for number in range(settings.folds):
        rest, here = fold != number, fold == number
        weights, bias = fit_head(seen[rest], labels[rest], weight[rest], settings.head_penalty)
        held_out[here] = (seen[here] * weights).sum(2) + bias
    weights, bias = fit_head(seen, labels, weight, settings.head_penalty)
    scale, shift = fit_calibration(held_out, labels, weight)
    with torch.no_grad():
        model.head_weight.copy_(weights)
        model.head_bias.copy_(bias)
        model.calibration_scale.copy_(scale)
        model.calibration_shift.copy_(shift)
        return list(model.calibrate(held_out).chunk(len(votes)))


def _quality(
    held_out: list[torch.Tensor], labels: torch.Tensor, weight: torch.Tensor, seen: torch.Tensor
) -> dict[str, object]:
    """Calibration error of each regime, and the bounds from which classes are named.

    ``seen`` (N, K) tells where a microscope has looked: on those proteins, without their homologs, is decided
    what is unclear.
    """
    chances = [torch.sigmoid(logits) for logits in held_out]
    known = (weight > 0).numpy()
    errors = [reliability(each.numpy()[known], labels.numpy()[known]).ece for each in chances]
    return {
        "calibration_ece": dict(zip(REGIMES, errors, strict=True)),
        "thresholds": best_thresholds(chances[-1], labels, weight),
        "unclear_below": unclear_below(*first_named(chances[0], labels, seen)),
    }


def _save(tensors: dict[str, torch.Tensor], path: Path) -> None:
    """Write to a neighbour file and rename, so that a kill leaves no half of one."""
    draft = path.with_suffix(".part")
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, draft)
    draft.replace(path)


def _write(
    folder: Path,
    model: SequenceEncoder,
    index: NeighbourIndex,
    settings: LabelSettings,
    proteins: LabelledProteins,
    more: dict[str, object],
) -> None:
    about = {
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
    draft = folder / "neighbours.part"
    draft.write_bytes(index.to_bytes())
    draft.replace(folder / "neighbours.npz")
    _save(model.state_dict(), folder / "encoder.safetensors")
    draft = folder / "encoder.part"
    draft.write_text(json.dumps(about, indent=2) + "\n", "utf-8")
    draft.replace(folder / "encoder.json")
