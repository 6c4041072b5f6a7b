"""From proteins and nuclei to predictions: every command, page and worker goes through `Predictor`."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from deepgps.bundle import DEFAULT_MODEL, Bundle, CropSpec, find_bundle, open_bundle
from deepgps.errors import BundleError, InputError
from deepgps.images.nucleus import Nucleus
from deepgps.images.resample import SAME_SIZE
from deepgps.prediction import Encoding, Floats, Prediction
from deepgps.proteins.check import check_sequence, clean_sequence, sequence_warnings
from deepgps.proteins.features import FEATURES_NAME, sequence_features
from deepgps.proteins.neighbours import Neighbour, NeighbourIndex
from deepgps.proteins.protein import Protein
from deepgps.proteins.windows import windows

__all__ = ["Encoding", "Prediction", "Predictor", "intranuclear_fraction"]

Mask = NDArray[np.bool_]

PROTEINS_AT_ONCE = 32
PICTURES_AT_ONCE = 8


class Predictor:
    """A bundle, loaded and ready.

    Parameters
    ----------
    bundle
        The verified bundle.
    threads
        Threads for each graph; all cores if None.

    Raises
    ------
    BundleError
        If the bundle's encoder is of a kind or version that this deepGPS does not have.
    """

    def __init__(self, bundle: Bundle, *, threads: int | None = None) -> None:
        spec = bundle.metadata.encoder
        if spec.kind != "features" or spec.name != FEATURES_NAME:
            raise BundleError(
                f"Bundle '{bundle.path}' needs the encoder {spec.kind}:{spec.name}; "
                f"this deepGPS has features:{FEATURES_NAME}. Use a bundle made with it."
            )
        self.bundle = bundle
        self._encoder = _session(bundle.read("encoder.onnx"), threads)
        self._threads = threads
        name = "neighbours.npz"
        self._index = NeighbourIndex.from_bytes(bundle.read(name)) if bundle.has(name) else None

    @classmethod
    def load(cls, model: str | Path = DEFAULT_MODEL, *, threads: int | None = None) -> Self:
        """Load a bundle by name or path."""
        return cls(open_bundle(find_bundle(model)), threads=threads)

    @property
    def classes(self) -> tuple[str, ...]:
        """The model's class slugs."""
        return self.bundle.metadata.classes

    def predict_one(self, sequence: str, nucleus: Nucleus | None = None, *, image: bool = True) -> Prediction:
        """Predict one bare sequence in one nucleus (the default one if None).

        Raises
        ------
        InputError
            If the sequence cannot be used.
        """
        cleaned = clean_sequence(sequence)
        if refusal := check_sequence("sequence", cleaned):
            raise InputError(refusal)
        nuclei = None if nucleus is None else [nucleus]
        return next(self.predict([Protein("sequence", cleaned)], nuclei, images=image))

    def predict(
        self,
        proteins: Iterable[Protein],
        nuclei: Sequence[Nucleus] | None = None,
        *,
        images: bool = True,
    ) -> Iterator[Prediction]:
        """Predict proteins as they come, each in every nucleus, in input order.

        Parameters
        ----------
        proteins
            Checked proteins; read lazily, a few at a time.
        nuclei
            Nuclei of the bundle's crop size and pixel size; the first default nucleus if none is given.
        images
            Whether to draw; without pictures there is one prediction a protein.

        Raises
        ------
        InputError
            If a nucleus has another size or pixel size than the bundle's crops.
        """
        drawables = self._drawables(nuclei) if images else []
        stream = iter(proteins)
        while batch := list(islice(stream, PROTEINS_AT_ONCE)):
            encodings = self.encode([protein.sequence for protein in batch])
            answers = [self._answer(*pair) for pair in zip(batch, encodings, strict=True)]
            if images:
                latents = [encoding.latent for encoding in encodings]
                yield from self._drawn(list(zip(answers, latents, strict=True)), drawables)
            else:
                yield from answers

    def encode(self, sequences: Sequence[str]) -> list[Encoding]:
        """Encode sequences; one longer than the encoder's window is the weighted mean of its windows."""
        parts = [windows(sequence, self.bundle.metadata.encoder.max_length) for sequence in sequences]
        flat = [window for part in parts for window in part]
        inputs = {"features": np.stack([sequence_features(window) for window in flat])}
        similar: list[Floats] = []
        if self._index is not None:
            similar = [self._index.similarities(window) for window in flat]
            inputs["votes"] = np.stack([self._index.vote(each) for each in similar])
        latent, logits = self._encoder.run(["latent", "logits"], inputs)
        encodings, start = [], 0
        for part in parts:
            rows, start = slice(start, start + len(part)), start + len(part)
            weights = np.array([len(window) for window in part], np.float32)
            evidence = self._nearest(similar[rows])
            encodings.append(Encoding(_mean(logits[rows], weights), _mean(latent[rows], weights), evidence))
        return encodings

    def _nearest(self, similar: Sequence[Floats]) -> tuple[Neighbour, ...]:
        """Name the annotated proteins most like any window of a protein."""
        if self._index is None:
            return ()
        return tuple(self._index.nearest(np.max(similar, axis=0)))

    def draw(self, nuclei: Sequence[Nucleus], latents: Sequence[Floats]) -> Floats:
        """Draw proteins into nuclei, pair by pair.

        Returns
        -------
        (B, H, W) float32 in [0, 1]
        """
        pixels = np.stack([nucleus.pixels for nucleus in nuclei])[:, None]
        inputs = {"nucleus": pixels.astype(np.float32), "latent": np.stack(latents)}
        image: Floats = self._generator.run(["image"], inputs)[0]
        return image[:, 0]

    @cached_property
    def _generator(self) -> Any:
        return _session(self.bundle.read("generator.onnx"), self._threads)

    def _drawables(self, nuclei: Sequence[Nucleus] | None) -> list[tuple[Nucleus, Mask]]:
        """Pair each nucleus with what is computed once for it: the mask of its nuclei."""
        from deepgps.images.defaults import default_nucleus
        from deepgps.images.segment import OtsuWatershed

        chosen = list(nuclei or [default_nucleus()])
        for nucleus in chosen:
            _check_scale(nucleus, self.bundle.metadata.crop)
        segment = OtsuWatershed()
        return [(nucleus, segment(nucleus.pixels, nucleus.pixel_size_um) > 0) for nucleus in chosen]

    def _drawn(
        self, answers: Sequence[tuple[Prediction, Floats]], drawables: Sequence[tuple[Nucleus, Mask]]
    ) -> Iterator[Prediction]:
        """Draw each answer's latent into each nucleus, a few at a time."""
        jobs = ((*answer, *drawable) for answer in answers for drawable in drawables)
        while batch := list(islice(jobs, PICTURES_AT_ONCE)):
            _, latents, nuclei, _ = zip(*batch, strict=True)
            for (answer, _, nucleus, mask), image in zip(batch, self.draw(nuclei, latents), strict=True):
                yield replace(
                    answer,
                    nucleus=nucleus,
                    image=image,
                    readouts={"intranuclear_fraction": intranuclear_fraction(image, mask)},
                    warnings=answer.warnings + nucleus.warnings,
                )

    def _answer(self, protein: Protein, encoding: Encoding) -> Prediction:
        """Answer without a picture."""
        metadata = self.bundle.metadata
        probabilities = _probabilities(encoding.logits, multi_label=metadata.multi_label)
        named, doubt = self._named(probabilities)
        return Prediction(
            protein=protein,
            localizations=named,
            probabilities=dict(zip(self.classes, probabilities.tolist(), strict=True)),
            confidence=float(probabilities[self.classes.index(named[0])]),
            evidence=encoding.evidence,
            nucleus=None,
            image=None,
            readouts={},
            model=metadata.name,
            version=metadata.version,
            warnings=sequence_warnings(protein.sequence, metadata.encoder.max_length) + doubt,
        )

    def _named(self, probabilities: Floats) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Name the classes at or above their thresholds, and say so where none is."""
        order = np.argsort(-probabilities, kind="stable")
        best = (self.classes[order[0]],)
        if not self.bundle.metadata.multi_label:
            return best, ()
        thresholds = self.bundle.metadata.thresholds
        named = tuple(self.classes[k] for k in order if probabilities[k] >= thresholds[k])
        if named:
            return named, ()
        return best, ("no class reaches its threshold: the most probable one is given",)


def _check_scale(nucleus: Nucleus, crop: CropSpec) -> None:
    """Refuse a nucleus that is not a crop of the bundle's size and scale."""
    shape, size = nucleus.pixels.shape, crop.size_px
    same_scale = abs(nucleus.pixel_size_um / crop.pixel_size_um - 1) <= SAME_SIZE
    if shape != (size, size) or not same_scale:
        edges = " x ".join(str(edge) for edge in shape)
        raise InputError(
            f"Nucleus '{nucleus.name}' is {edges} px of {nucleus.pixel_size_um:g} µm; this model draws "
            f"{size} x {size} px of {crop.pixel_size_um:g} µm: read it with load_nucleus()."
        )


def intranuclear_fraction(image: Floats, mask: Mask) -> float:
    """Share of a protein image's intensity that lies inside the nuclei.

    Parameters
    ----------
    image
        (H, W) in [0, 1].
    mask
        (H, W), true inside any nucleus.

    Returns
    -------
    float
        In [0, 1]; NaN for an image without intensity.
    """
    total = float(image.sum())
    return float(image[mask].sum()) / total if total > 0 else float("nan")


def _mean(rows: Floats, weights: Floats) -> Floats:
    return np.asarray(np.average(rows, axis=0, weights=weights), np.float32)


def _probabilities(logits: Floats, *, multi_label: bool) -> Floats:
    if multi_label:
        return np.asarray(np.exp(-np.logaddexp(0, -logits)), np.float32)
    powers = np.exp(logits - logits.max())
    return np.asarray(powers / powers.sum(), np.float32)


def _session(graph: bytes, threads: int | None) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = 3
    # Threads that spin while they wait slow down whatever else the machine is doing, and save nothing here.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
