"""From proteins and nuclei to predictions: every command, page and worker goes through `Predictor`."""

from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from dataclasses import replace
from functools import cached_property, lru_cache
from itertools import groupby, islice
from pathlib import Path
from typing import Self

import numpy as np

from deepgps.arrays import Floats, Mask
from deepgps.bundle import DEFAULT_MODEL, Bundle, CropSpec, open_model, with_class_set
from deepgps.errors import InputError
from deepgps.images.cell import Cell
from deepgps.images.defaults import DEFAULT_NAMES
from deepgps.images.resample import SAME_SIZE
from deepgps.prediction.encoder import Encoder
from deepgps.prediction.prediction import (
    Encoding,
    Prediction,
    class_probabilities,
    intranuclear_fraction,
    named_classes,
)
from deepgps.proteins.check import check_sequence, clean_sequence, sequence_warnings
from deepgps.proteins.neighbours import unlike_warnings
from deepgps.proteins.protein import Protein, Rejection
from deepgps.runtime import Graph, open_graph

__all__ = ["Encoding", "Prediction", "Predictor", "intranuclear_fraction"]

PROTEINS_AT_ONCE = 32
IMAGES_AT_ONCE = 8
IMAGES_HELD = 256
"""Images that wait at most for those before them, where proteins are drawn nucleus by nucleus."""


class Predictor:
    """A bundle, loaded and ready.

    Parameters
    ----------
    bundle
        The verified bundle.
    threads
        Threads for each graph; all cores if None.
    structures
        Folder of predicted structures, for a model that looks at them.
    mean
        Whether to draw the mean of all images that could be, smooth and truer on average, in place of one
        of them. A model whose images have no grain draws it anyway.

    Raises
    ------
    BundleError
        If the bundle takes features that this deepGPS does not have.
    InputError
        If the language model that it takes was not prepared (``deepgps encoders prepare``), or structures
        are missing or not asked for.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        threads: int | None = None,
        structures: Path | None = None,
        mean: bool = False,
    ) -> None:
        self.bundle = bundle
        self.structures, self.mean = structures, mean
        self._encoder = Encoder(bundle, threads=threads, structures=structures)
        self.threads = threads

    @classmethod
    def load(
        cls,
        model: str | Path = DEFAULT_MODEL,
        *,
        threads: int | None = None,
        structures: Path | None = None,
        mean: bool = False,
    ) -> Self:
        """Load a bundle by name or path, see `deepgps.bundle.open_model`."""
        return cls(open_model(model), threads=threads, structures=structures, mean=mean)

    def in_class_set(self, name: str) -> Self:
        """Let the same model, loaded once, answer in another of its class sets.

        Raises
        ------
        BundleError
            If it has no class set of that name.
        """
        other = self._sharing()
        other.bundle = with_class_set(self.bundle, name)
        other._encoder = self._encoder.reading(other.bundle.class_set)
        return other

    def drawing(self, *, mean: bool) -> Self:
        """Let the same model, loaded once, draw the mean of all images that could be, or one of them."""
        other = self._sharing()
        other.mean = mean
        return other

    def _sharing(self) -> Self:
        # Opened before it is copied, the generator is shared.
        _ = self._generator
        return copy(self)

    @property
    def classes(self) -> tuple[str, ...]:
        """The model's class slugs; none if it only draws."""
        return self.bundle.metadata.classes

    def default_nucleus(self, name: str = DEFAULT_NAMES[0]) -> Cell:
        """Take a nucleus that ships, at the size and scale of the model's crops."""
        from deepgps.images.nuclei import default_nucleus, fit_nucleus

        crop = self.bundle.metadata.crop
        return fit_nucleus(default_nucleus(name), crop_px=crop.size_px, pixel_size_um=crop.pixel_size_um)

    def admit(self, records: Iterable[Protein | Rejection]) -> Iterator[Protein | Rejection]:
        """Turn each protein that this model cannot take, for want of a structure, into a rejection."""
        for each in records:
            reason = self._encoder.refusal(each) if isinstance(each, Protein) else None
            yield each if reason is None else Rejection(each.id, str(self.structures), reason)

    def check_wanted(self, *, images: bool) -> None:
        """Refuse to predict nothing: a model without classes, and no images.

        Raises
        ------
        InputError
            If so.
        """
        if not (images or self.classes):
            name = self.bundle.metadata.name
            raise InputError(
                f"Model '{name}' draws images and predicts no label, so that --no-images leaves nothing; "
                "leave it out."
            )

    def predict_one(self, sequence: str, nucleus: Cell | None = None, *, image: bool = True) -> Prediction:
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
        nuclei: Sequence[Cell] | None = None,
        *,
        images: bool = True,
    ) -> Iterator[Prediction]:
        """Predict proteins as they come, each in every nucleus, in input order.

        Parameters
        ----------
        proteins
            Checked proteins, that `admit` lets through; read lazily, a few at a time.
        nuclei
            Nuclei of the bundle's crop size and pixel size; the first default nucleus if none is given.
        images
            Whether to draw; without images there is one prediction a protein.

        Raises
        ------
        InputError
            If a nucleus has another size or pixel size than the bundle's crops, the structure of a protein
            is looked at and not there, or nothing is left to predict.
        """
        self.check_wanted(images=images)
        drawables = self._drawables(nuclei) if images else []
        stream = iter(proteins)
        while batch := list(islice(stream, PROTEINS_AT_ONCE)):
            encodings = self.encode(batch)
            answers = [self._answer(*pair) for pair in zip(batch, encodings, strict=True)]
            if images:
                latents = [encoding.latent for encoding in encodings]
                yield from self._drawn(list(zip(answers, latents, strict=True)), drawables)
            else:
                yield from answers

    def encode(self, proteins: Sequence[Protein | str]) -> list[Encoding]:
        """Encode proteins or bare sequences; a long one may be the weighted mean of its windows."""
        return self._encoder([each if isinstance(each, Protein) else Protein("", each) for each in proteins])

    def draw(self, nuclei: Sequence[Cell], latents: Sequence[Floats]) -> Floats:
        """Draw proteins into nuclei, pair by pair; a nucleus that comes again is looked at once.

        Returns
        -------
        (B, H, W) float32 in [0, 1]
        """
        distinct = {id(nucleus): nucleus for nucleus in nuclei}
        places = {key: place for place, key in enumerate(distinct)}
        which = np.array([places[id(nucleus)] for nucleus in nuclei], np.int64)
        pixels = np.stack([nucleus.nucleus for nucleus in distinct.values()])[:, None].astype(np.float32)
        inputs = {"nucleus": pixels, "latent": np.stack(latents), "which": which}
        if "which" not in self._generator.inputs:  # as graphs were before 0.3 of deepgps-mini
            inputs = {"nucleus": pixels[which], "latent": inputs["latent"]}
        wanted = "mean" if self.mean and "mean" in self._generator.outputs else "image"
        image: Floats = self._generator.run([wanted], inputs)[0]
        return image[:, 0]

    @cached_property
    def _generator(self) -> Graph:
        return open_graph(self.bundle.read("generator.onnx"), self.threads, reduced=True)

    def _drawables(self, nuclei: Sequence[Cell] | None) -> list[tuple[Cell, Mask]]:
        """Pair each nucleus with what is computed once for it: the mask of its nuclei."""
        chosen = list(nuclei or [self.default_nucleus()])
        for nucleus in chosen:
            _check_scale(nucleus, self.bundle.metadata.crop)
        return [(nucleus, _mask(nucleus)) for nucleus in chosen]

    def _drawn(
        self, answers: Sequence[tuple[Prediction, Floats]], drawables: Sequence[tuple[Cell, Mask]]
    ) -> Iterator[Prediction]:
        """Draw each answer's latent into each nucleus, several proteins at a time."""
        several = min(IMAGES_AT_ONCE, max(1, IMAGES_HELD // len(drawables)))
        # Latents of residues are as long as their protein, and only those of one length fit together.
        for _, alike in groupby(answers, key=lambda answer: answer[1].shape):
            while some := list(islice(alike, several)):
                # Nucleus by nucleus, as each is looked at once in a batch; told protein by protein.
                drawn = self._images((*answer, *drawable) for drawable in drawables for answer in some)
                yield from drawn if len(some) == 1 else _by_protein(list(drawn), len(some))

    def _images(self, jobs: Iterator[tuple[Prediction, Floats, Cell, Mask]]) -> Iterator[Prediction]:
        while batch := list(islice(jobs, IMAGES_AT_ONCE)):
            _, latents, nuclei, _ = zip(*batch, strict=True)
            for (answer, _, nucleus, mask), image in zip(batch, self.draw(nuclei, latents), strict=True):
                yield replace(
                    answer,
                    cell=nucleus,
                    image=image,
                    mean=self.mean,
                    readouts={"intranuclear_fraction": intranuclear_fraction(image, mask)},
                    warnings=answer.warnings + nucleus.warnings,
                )

    def _answer(self, protein: Protein, encoding: Encoding) -> Prediction:
        """Answer without an image."""
        metadata = self.bundle.metadata
        probabilities = class_probabilities(encoding.logits, multi_label=metadata.multi_label)
        named, confidence, doubt = named_classes(probabilities, metadata)
        return Prediction(
            protein=protein,
            localizations=named,
            probabilities=dict(zip(self.classes, probabilities.tolist(), strict=True)),
            confidence=confidence,
            evidence=encoding.evidence,
            cell=None,
            image=None,
            readouts={},
            model=metadata.name,
            version=metadata.version,
            warnings=sequence_warnings(protein.sequence, metadata.encoder.max_length)
            + unlike_warnings(encoding.evidence, metadata.unlike_below)
            + doubt,
        )


def _by_protein(by_nucleus: Sequence[Prediction], proteins: int) -> Iterator[Prediction]:
    """Order predictions by protein, and those of each by nucleus, that came the other way round."""
    for place in range(proteins):
        yield from by_nucleus[place::proteins]


@lru_cache(maxsize=32)
def _mask(nucleus: Cell) -> Mask:
    """Segment a nucleus image, once for each object."""
    from deepgps.images.segment import OtsuWatershed

    return OtsuWatershed()(nucleus.nucleus, nucleus.pixel_size_um) > 0


def _check_scale(nucleus: Cell, crop: CropSpec) -> None:
    """Refuse a nucleus that is not a crop of the bundle's size and scale."""
    shape, size = nucleus.nucleus.shape, crop.size_px
    same_scale = abs(nucleus.pixel_size_um / crop.pixel_size_um - 1) <= SAME_SIZE
    if shape != (size, size) or not same_scale:
        edges = " x ".join(str(edge) for edge in shape)
        raise InputError(
            f"Nucleus '{nucleus.name}' is {edges} px of {nucleus.pixel_size_um:g} µm; this model draws "
            f"{size} x {size} px of {crop.pixel_size_um:g} µm: read it with load_nucleus()."
        )
