"""`Predictor`: a model bundle, loaded and ready to predict proteins in cells."""

from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from dataclasses import replace
from functools import cached_property, lru_cache, partial
from itertools import groupby, islice
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self

import numpy as np

from deepgps.arrays import Floats, Mask
from deepgps.bundle import (
    DEFAULT_MODEL,
    Bundle,
    BundleMetadata,
    FlowMatchingSpec,
    open_model,
    with_class_set,
)
from deepgps.errors import InputError
from deepgps.explain.changes import Variant, parse_variant, silent_changes
from deepgps.explain.explanation import Explanation
from deepgps.explain.importance import importance
from deepgps.explain.signals import find_signals
from deepgps.explain.variants import VariantComparison, compare_variants
from deepgps.images.cell import DEFAULT_CELLS, Cell, WholeField
from deepgps.images.processing import SAME_SIZE, same_pixel_size
from deepgps.localization import CLASS_SETS, HPA_TO_WORDS, localizations_of
from deepgps.prediction.coverage import (
    FEWEST_SAMPLES,
    ClassBounds,
    class_bounds,
    interval_factor,
    pixel_interval,
)
from deepgps.prediction.encoder import Encoder, neighbour_index
from deepgps.prediction.generator import Generator, open_generator
from deepgps.prediction.overall import class_set_of, open_overall
from deepgps.prediction.prediction import (
    NAMED_FROM,
    UNCLEAR,
    Encoding,
    Prediction,
    class_probabilities,
    intranuclear_fraction,
    named_classes,
)
from deepgps.proteins.check import check_sequence, clean_sequence, sequence_warnings
from deepgps.proteins.known import KnownProtein, KnownProteins, Statement, known_warnings
from deepgps.proteins.protein import Protein, Rejection

if TYPE_CHECKING:
    from deepgps.images.segmentation import Segmenter

OWN_CLASSES = CLASS_SETS["mini"]
"""The classes of the bundled model, which has an index of known proteins."""
PROTEIN_BATCH = 32
IMAGE_BATCH = 8
MAX_BUFFERED_IMAGES = 256
"""Images drawn cell by cell that may wait to be returned protein by protein."""
MAX_VARIANT_IMAGES = 100
SILENT_IMAGES = 4
"""Silent changes that are drawn for the noise floor of images."""


class SeqRecordLike(Protocol):
    """A record of another package, such as Biopython's ``SeqRecord``.

    Attributes
    ----------
    id
        Its name.
    seq
        Its residues; text, or an object that becomes text.
    """

    id: Any
    seq: Any


class Predictor:
    """A bundle, loaded and ready to predict.

    Parameters
    ----------
    bundle
        The verified bundle.
    threads
        Threads for each graph; all cores if None.
    structures
        Folder of predicted structures, for a model that uses them.
    mean
        Whether to draw the mean of all possible images, which is smooth and closer to the real image on
        average, instead of one of them. A model that draws in one pass draws the mean in any case.
    seed
        Chooses one of the possible images: the same seed draws the same image.
    samples
        How many of the possible images to draw for the interval of each pixel, from `seed` on; 0 for no
        interval.

    Raises
    ------
    BundleError
        If the bundle needs features that this version of deepGPS does not have.
    InputError
        If the language model that it needs was not prepared (``deepgps encoders prepare``), `structures`
        is missing or not used by the model, or there is no interval from so many samples.

    Examples
    --------
    >>> from deepgps import Predictor
    >>> predictor = Predictor.load("deepgps-mini")
    >>> prediction = predictor.predict_one("MKRPAATKKAGQAKKKKLDKNWLEDSGVEERKAYLEQ")
    >>> prediction.image.shape
    (208, 208)
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        threads: int | None = None,
        structures: Path | None = None,
        mean: bool = False,
        seed: int = 0,
        samples: int = 0,
    ) -> None:
        self.bundle = bundle
        self.samples = samples
        self._factor = _interval_factor(bundle.metadata, samples, mean) if samples else None
        self._bounds = _bounds_of(bundle.metadata)
        self.overall = open_overall(bundle)
        self.structures, self.mean, self.seed = structures, mean, seed
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
        seed: int = 0,
        samples: int = 0,
    ) -> Self:
        """Load a bundle by its name or path.

        Parameters
        ----------
        model
            Name or path of a bundle, or ``NAME:SET`` for another of its class sets; see
            `deepgps.bundle.open_model`.
        threads, structures, mean, seed, samples
            As in `Predictor`.

        Returns
        -------
        Predictor
            The loaded model.

        Raises
        ------
        BundleError
            If there is no such bundle, it is damaged, or it cannot be used by this version of deepGPS.
        InputError
            If `structures` or a language model is missing, as in `Predictor`.

        Examples
        --------
        >>> from deepgps import Predictor
        >>> len(Predictor.load("deepgps-mini:single-2").classes)
        2
        """
        return cls(
            open_model(model), threads=threads, structures=structures, mean=mean, seed=seed, samples=samples
        )

    def with_class_set(self, name: str) -> Self:
        """Return a predictor for another class set of the bundle, which shares the loaded graphs.

        Parameters
        ----------
        name
            A key of the bundle's ``class_sets``.

        Returns
        -------
        Predictor
            It predicts the classes of that set.

        Raises
        ------
        BundleError
            If the bundle has no class set of that name.
        """
        other = self._copy()
        other.bundle = with_class_set(self.bundle, name)
        other._bounds = _bounds_of(other.bundle.metadata)
        other._encoder = self._encoder.with_class_set(other.bundle.class_set)
        return other

    def with_mean_images(self) -> Self:
        """Return a predictor that draws mean images and shares the loaded graphs.

        Returns
        -------
        Predictor
            As with ``mean=True``, see `Predictor`.
        """
        other = self._copy()
        other.mean, other.samples = True, 0
        return other

    def with_seed(self, seed: int) -> Self:
        """Return a predictor that draws with another seed and shares the loaded graphs.

        Parameters
        ----------
        seed
            As in `Predictor`.

        Returns
        -------
        Predictor
            It draws another one of the possible images.
        """
        other = self._copy()
        other.seed = seed
        return other

    def _copy(self) -> Self:
        # Opened before the copy, so that both share the generator.
        _ = self._generator
        return copy(self)

    @property
    def known(self) -> KnownProteins | None:
        """The index of known proteins; None if the bundle has none."""
        return self._encoder.known

    @property
    def classes(self) -> tuple[str, ...]:
        """The model's class slugs; empty if it predicts images only."""
        return self.bundle.metadata.classes

    @property
    def landmarks(self) -> tuple[str, ...]:
        """The images beside the nucleus that the model uses if they are given."""
        flow = self.bundle.metadata.flow_matching
        return tuple(flow.landmarks) if flow else ()

    def load_cell(
        self,
        path_or_name: str | PathLike[str] = DEFAULT_CELLS[0],
        *,
        channel: int | None = None,
        image_pixel_size_um: float | Literal["auto"] | None = None,
        microtubules: str | PathLike[str] | None = None,
        er: str | PathLike[str] | None = None,
        image_checks: bool = True,
        segmenter: "Segmenter | None" = None,
    ) -> Cell:
        """Load a cell at the size and scale of the model's crops.

        Parameters
        ----------
        path_or_name, channel, image_pixel_size_um, microtubules, er, image_checks, segmenter
            As in `Cell.load`.

        Returns
        -------
        Cell
            A cell to predict into.

        Raises
        ------
        InputError
            If the image cannot be used (see `Cell.load`), or the model does not use a landmark that is given.

        Examples
        --------
        >>> from deepgps import Predictor
        >>> Predictor.load().load_cell("u2os-1").nucleus.shape
        (208, 208)
        """
        crop = self.bundle.metadata.crop
        for landmark, file in {"microtubules": microtubules, "er": er}.items():
            if file is not None and landmark not in self.landmarks:
                name = self.bundle.metadata.name
                raise InputError(
                    f"Model '{name}' does not use the image '{file}' ({landmark}); leave it out."
                )
        return Cell.load(
            path_or_name,
            size_px=crop.size_px,
            pixel_size_um=crop.pixel_size_um,
            channel=channel,
            image_pixel_size_um=image_pixel_size_um,
            microtubules=microtubules,
            er=er,
            image_checks=image_checks,
            segmenter=segmenter,
        )

    def load_field(
        self,
        path: str | PathLike[str],
        *,
        image_pixel_size_um: float | Literal["auto"] | None = None,
        microtubules: str | PathLike[str] | None = None,
        er: str | PathLike[str] | None = None,
        cell_line: str | None = None,
        image_checks: bool = True,
    ) -> WholeField:
        """Load a whole image of nuclei at the model's pixel size, to draw into all of it.

        Parameters
        ----------
        path, image_pixel_size_um, microtubules, er, cell_line, image_checks
            As in `WholeField.load`; landmarks that the model does not use are not read.

        Returns
        -------
        WholeField
            Its cell is one to predict into.

        Raises
        ------
        InputError
            If an image cannot be used.
        """
        crop, used = self.bundle.metadata.crop, self.landmarks
        return WholeField.load(
            path,
            size_px=crop.size_px,
            pixel_size_um=crop.pixel_size_um,
            image_pixel_size_um=image_pixel_size_um,
            microtubules=microtubules if "microtubules" in used else None,
            er=er if "er" in used else None,
            cell_line=cell_line,
            image_checks=image_checks,
        )

    def fit_cell(self, cell: Cell) -> Cell:
        """Resample a cell of another size or scale than the model's crops.

        Parameters
        ----------
        cell
            A cell.

        Returns
        -------
        Cell
            The cell itself if it fits, or is a whole field of the model's pixel size; with a warning if it is
            smaller than a crop, so that it was padded.
        """
        size, um = self.bundle.metadata.crop.size_px, self.bundle.metadata.crop.pixel_size_um
        shape = cell.nucleus.shape
        is_field = min(shape) >= size and not any(edge % 2 for edge in shape)
        if (shape == (size, size) or is_field) and same_pixel_size(cell.pixel_size_um, um):
            return cell
        fitted = cell.resampled(size_px=size, pixel_size_um=um)
        if min(cell.nucleus.shape) * cell.pixel_size_um * (1 + SAME_SIZE) >= size * um:
            return fitted
        note = (
            f"Nucleus '{cell.name}' is smaller than this model's images; its border was padded. Load it with "
        )
        return replace(fitted, warnings=(*cell.warnings, f"{note}Predictor.load_cell()."))

    def reject_unusable(self, records: Iterable[Protein | Rejection]) -> Iterator[Protein | Rejection]:
        """Replace each protein that this model cannot use, because its structure is missing, by a rejection.

        Parameters
        ----------
        records
            Proteins and earlier rejections; read lazily.

        Yields
        ------
        Protein or Rejection
            In the order of `records`.
        """
        for record in records:
            reason = self._encoder.why_refused(record) if isinstance(record, Protein) else None
            yield record if reason is None else Rejection(record.id, str(self.structures), reason)

    def check_output(self, *, images: bool) -> None:
        """Raise an error if there is nothing to predict: a model without classes, and no images.

        Parameters
        ----------
        images
            Whether images are drawn.

        Raises
        ------
        InputError
            If there is nothing to predict.
        """
        if not (images or self.classes):
            name = self.bundle.metadata.name
            raise InputError(
                f"Model '{name}' draws images and predicts no label, so that --no-images leaves nothing; "
                "leave it out."
            )

    def predict_one(self, sequence: str, cell: Cell | None = None, *, images: bool = True) -> Prediction:
        """Predict one sequence in one cell.

        Parameters
        ----------
        sequence
            Amino acids in one-letter code; blanks, line breaks and a final ``*`` are removed.
        cell
            The cell to draw into; a default cell if None. One of another size or scale than the model's crops
            is resampled.
        images
            Whether to draw an image.

        Returns
        -------
        Prediction
            Its image is (H, W) float32 in [0, 1], or None without images.

        Raises
        ------
        InputError
            If the sequence cannot be used.

        Examples
        --------
        >>> from deepgps import Predictor
        >>> prediction = Predictor.load().predict_one("MKRPAATKKAGQAKKKKLDKNWLEDSGVEERKAYLEQ", images=False)
        >>> prediction.image is None
        True
        """
        cells = None if cell is None else [cell]
        return next(self.predict([_as_protein(sequence)], cells, images=images))

    def predict(
        self,
        proteins: Iterable[Protein | Rejection | str | SeqRecordLike],
        cells: Sequence[Cell] | None = None,
        *,
        images: bool = True,
    ) -> Iterator[Prediction]:
        """Predict proteins, each in every cell, in input order.

        Parameters
        ----------
        proteins
            Proteins, such as those from `deepgps.read_proteins`; sequences, as for `predict_one`, which are
            called ``sequence_1`` and so on; or records with ``id`` and ``seq``, such as Biopython's. They are
            read lazily, a few at a time.
        cells
            As for `predict_one`, or whole fields from `load_field`; one default cell if None.
        images
            Whether to draw images; without them there is one prediction per protein.

        Yields
        ------
        Prediction
            For each protein, one prediction per cell.

        Raises
        ------
        InputError
            If a protein cannot be used, its structure is needed and missing, or there is nothing to predict.

        Examples
        --------
        >>> from deepgps import Predictor, Protein
        >>> predictor = Predictor.load()
        >>> proteins = [Protein("a", "MKRPAATKKAGQAKKKKLDK"), Protein("b", "MLSLRQSIRFFKPATRTLCSSRYLL")]
        >>> cells = [predictor.load_cell(name) for name in ("hek-1", "u2os-1")]
        >>> [(each.protein.id, each.cell.name) for each in predictor.predict(proteins, cells)]
        [('a', 'hek-1'), ('a', 'u2os-1'), ('b', 'hek-1'), ('b', 'u2os-1')]
        """
        self.check_output(images=images)
        segmented = self._segmented(cells) if images else []
        stream = (_numbered_protein(number, each) for number, each in enumerate(proteins, start=1))
        while batch := list(islice(stream, PROTEIN_BATCH)):
            answers = [self._answer(*pair) for pair in zip(batch, self.encode(batch), strict=True)]
            if images:
                yield from self._with_images(answers, segmented)
            else:
                yield from (prediction for prediction, _ in answers)

    def encode(
        self, proteins: Sequence[Protein | str], *, hidden: tuple[int, ...] | None = None
    ) -> list[Encoding]:
        """Encode proteins or sequences; a sequence longer than the model's window is a mean of its windows.

        Parameters
        ----------
        proteins
            Checked proteins, or sequences in upper case without blanks.
        hidden
            Rows of the neighbour index to leave out, such as the `own_records` of another encoding; each
            protein's own if None.

        Returns
        -------
        list of Encoding
            Logits, latent tokens and evidence of each, predicted without the protein's own record; `predict`
            combines them with what is known.

        Raises
        ------
        InputError
            If a structure is needed and missing.
        """
        checked = [each if isinstance(each, Protein) else Protein("", each) for each in proteins]
        return self._encoder(checked, hidden=hidden)

    def explain(self, protein: Protein | str, *, seed: int = 0) -> Explanation:
        """Explain a prediction: which residues it depends on, and which sorting signals the sequence has.

        Parameters
        ----------
        protein
            A checked protein, or a sequence as for `predict_one`.
        seed
            Of the random masks that measure the noise floor.

        Returns
        -------
        Explanation
            For each localization that was predicted.

        Raises
        ------
        InputError
            If the sequence cannot be used, or is too long to explain.

        Examples
        --------
        >>> from deepgps import Predictor
        >>> explanation = Predictor.load().explain("MAAKRPAATKKAGQAKKKKLDESGSPEESGSSSEDEQ")
        >>> [str(signal) for signal in explanation.signals]
        ['NLS 4-19']
        """
        protein = _as_protein(protein)
        metadata = self.bundle.metadata
        [encoding] = self.encode([protein])
        logits = partial(self._variant_logits, protein, encoding.own_records)
        found = importance(protein.sequence, logits, seed=seed)
        predicted = class_probabilities(encoding.logits, multi_label=metadata.multi_label)
        chosen = self._explained(predicted)
        places = [self.classes.index(slug) for slug in chosen]
        return Explanation(
            protein=protein,
            localizations=chosen,
            probabilities=dict(zip(self.classes, predicted.tolist(), strict=True)),
            importance=found.values[places],
            floor=found.floor[places],
            width=found.width,
            signals=find_signals([protein.sequence])[0],
            evidence=encoding.evidence,
            shared=self._shared_residues(protein.sequence, encoding),
            model=metadata.name,
            version=metadata.version,
        )

    def _shared_residues(self, sequence: str, encoding: Encoding) -> Mask:
        near = [each.accession for each in encoding.evidence]
        index = neighbour_index(self.bundle) if near else None
        if index is None:
            return np.zeros((0, len(sequence)), np.bool_)
        return np.stack([index.shared_residues(sequence, accession) for accession in near])

    def variants(
        self,
        protein: Protein | str,
        variants: Sequence[Variant | str],
        cell: Cell | None = None,
        *,
        images: bool = True,
    ) -> VariantComparison:
        """Compare variants of a protein with the unchanged one.

        Parameters
        ----------
        protein
            A checked protein, or a sequence as for `predict_one`.
        variants
            Changes as in `deepgps.explain.changes.parse_variant`, or variants.
        cell
            The cell to draw into, the same for all; a default cell if None.
        images
            Whether to draw images, with the seed of the predictor.

        Returns
        -------
        VariantComparison
            One effect per variant, beside the noise floor of silent changes.

        Raises
        ------
        InputError
            If a sequence, change or cell cannot be used, or there are too many variants.

        Examples
        --------
        >>> from deepgps import Predictor
        >>> found = Predictor.load().variants("MAAKRPAATKKAGQAKKKKLDESGSPEESGSSSEDEQ", ["K16T"], images=False)
        >>> found.effects[0].variant.sequence[15]
        'T'
        """
        protein = _as_protein(protein)
        parsed = [
            parse_variant(each, protein.sequence) if isinstance(each, str) else each for each in variants
        ]
        [encoding] = self.encode([protein])
        # The record of the unchanged protein does not vote for its variants either.
        hidden = encoding.own_records
        compared = compare_variants(
            protein.id,
            protein.sequence,
            parsed,
            self.classes,
            partial(self._variant_probabilities, protein, hidden),
            self._named,
        )
        return self._with_variant_images(compared, protein, hidden, cell) if images else compared

    def _with_variant_images(
        self, compared: VariantComparison, protein: Protein, hidden: tuple[int, ...], cell: Cell | None
    ) -> VariantComparison:
        if len(compared.effects) > MAX_VARIANT_IMAGES:
            raise InputError(
                f"{len(compared.effects):,} variants are too many to draw; give at most "
                f"{MAX_VARIANT_IMAGES}, or draw no images."
            )
        silent = silent_changes(compared.sequence, SILENT_IMAGES)
        sequences = [compared.sequence, *silent, *(each.variant.sequence for each in compared.effects)]
        cell = self.load_cell() if cell is None else self.fit_cell(cell)
        encodings = self.encode([replace(protein, sequence=each) for each in sequences], hidden=hidden)
        images = [self.draw([cell], [self._predicted_latent(each)])[0] for each in encodings]
        distances = [float(np.abs(image - images[0]).mean()) for image in images]
        end = 1 + len(silent)
        effects = [
            replace(effect, image=image, image_change=distance)
            for effect, image, distance in zip(compared.effects, images[end:], distances[end:], strict=True)
        ]
        floor = max(distances[1:end], default=0.0)
        return replace(compared, effects=tuple(effects), image=images[0], image_floor=floor)

    def _predicted_latent(self, encoding: Encoding) -> Floats:
        """Return the latent to draw what is predicted from, without what is known."""
        flow = self.bundle.metadata.flow_matching
        return encoding.latent if flow is None else with_words(encoding.latent, (), flow)

    def _variant_logits(self, protein: Protein, hidden: tuple[int, ...], sequences: Sequence[str]) -> Floats:
        """Return predicted logits (N, K) of sequences made of a protein's, without its own record."""
        proteins = [replace(protein, sequence=each) for each in sequences]
        return np.stack([each.logits for each in self.encode(proteins, hidden=hidden)])

    def _variant_probabilities(
        self, protein: Protein, hidden: tuple[int, ...], sequences: Sequence[str]
    ) -> Floats:
        logits = self._variant_logits(protein, hidden, sequences)
        multi_label = self.bundle.metadata.multi_label
        return np.stack([class_probabilities(row, multi_label=multi_label) for row in logits])

    def _named(self, probabilities: Floats) -> tuple[str, ...]:
        return named_classes(probabilities, self.bundle.metadata)[0]

    def _explained(self, probabilities: Floats) -> tuple[str, ...]:
        """Return the localizations to explain: those named, or else the most probable one."""
        if (named := self._named(probabilities)) != (UNCLEAR,):
            return named
        return (self.classes[int(probabilities.argmax())],)

    def draw(self, cells: Sequence[Cell], latents: Sequence[Floats]) -> Floats:
        """Draw each protein into the cell at the same position.

        Parameters
        ----------
        cells
            B cells of one size: the model's crop size, or whole fields.
        latents
            B latents of the same shape (T, D), from `encode`.

        Returns
        -------
        Floats
            (B, H, W) float32 in [0, 1].
        """
        return self._generator.draw(cells, latents, seed=self.seed, mean=self.mean)

    @cached_property
    def _generator(self) -> Generator:
        return open_generator(self.bundle, self.threads)

    def _segmented(self, cells: Sequence[Cell] | None) -> list[tuple[Cell, Mask]]:
        """Fit the cells to the model, and pair each with the mask of its nuclei."""
        fitted = [self.fit_cell(cell) for cell in cells or [self.load_cell()]]
        return [(cell, _nucleus_mask(cell)) for cell in fitted]

    def _with_images(
        self, predictions: Sequence[tuple[Prediction, Floats]], cells: Sequence[tuple[Cell, Mask]]
    ) -> Iterator[Prediction]:
        """Draw each prediction's latent into each cell, several proteins at a time."""
        several = min(IMAGE_BATCH, max(1, MAX_BUFFERED_IMAGES // len(cells)))
        # A latent per residue is as long as its protein, and a batch takes latents of one shape.
        for _, same_shape in groupby(predictions, key=lambda pair: pair[1].shape):
            while some := list(islice(same_shape, several)):
                # Drawn cell by cell, since the generator looks at each cell once per batch.
                by_cell = list(self._draw_batches((*pair, *cell) for cell in cells for pair in some))
                for place in range(len(some)):
                    yield from by_cell[place :: len(some)]

    def _draw_batches(self, pairs: Iterator[tuple[Prediction, Floats, Cell, Mask]]) -> Iterator[Prediction]:
        while batch := list(islice(pairs, IMAGE_BATCH)):
            _, latents, cells, _ = zip(*batch, strict=True)
            by_size = groupby(zip(cells, latents, strict=True), key=lambda pair: pair[0].nucleus.shape)
            drawn = (each for _, same in by_size for each in self._drawn(*zip(*same, strict=True)))
            for (prediction, _, cell, mask), (image, low, high) in zip(batch, drawn, strict=True):
                yield replace(
                    prediction,
                    cell=cell,
                    image=image,
                    low=low,
                    high=high,
                    mean=self.mean,
                    seed=self.seed,
                    readouts={"intranuclear_fraction": intranuclear_fraction(image, mask)},
                    warnings=prediction.warnings + cell.warnings,
                )

    def _drawn(
        self, cells: Sequence[Cell], latents: Sequence[Floats]
    ) -> Iterator[tuple[Floats, Floats | None, Floats | None]]:
        """Draw images, and from further seeds their intervals."""
        images = self.draw(cells, latents)
        if self._factor is None or not self.samples:
            yield from ((image, None, None) for image in images)
            return
        further = (self.with_seed(self.seed + number) for number in range(1, self.samples))
        samples = np.stack([images, *(other.draw(cells, latents) for other in further)])
        for number, image in enumerate(images):
            yield image, *pixel_interval(samples[:, number], self._factor)

    def _answer(self, protein: Protein, encoding: Encoding) -> tuple[Prediction, Floats]:
        """Make a prediction without an image, and the latent to draw it from."""
        metadata = self.bundle.metadata
        known = self._known_of(protein, encoding.known)
        own = encoding.own_logits if encoding.held_out is None else encoding.held_out
        logits = self._encoder.class_set_logits(own, encoding.votes)
        predicted = class_probabilities(logits, multi_label=metadata.multi_label)
        probabilities, latent, said, is_known = predicted, encoding.latent, frozenset[str](), False
        classes = class_set_of(self.classes)
        if self.overall is not None and classes is not None and known is not None and known.applies:
            combined, said = self.overall.logits(logits, known.statements, classes)
            is_known = combined is not logits
            probabilities = class_probabilities(combined, multi_label=metadata.multi_label)
            if classes.name != OWN_CLASSES.name:
                combined, _ = self.overall.logits(own, known.statements, OWN_CLASSES)
            latent = latent_of(combined, encoding)
        if metadata.flow_matching is not None:
            statements = known.statements if known is not None and known.applies else ()
            latent = with_words(latent, statements, metadata.flow_matching)
        localizations, confidence, class_warnings = named_classes(
            probabilities, metadata, said, known=is_known
        )
        prediction = Prediction(
            protein=protein,
            localizations=localizations,
            probabilities=dict(zip(self.classes, probabilities.tolist(), strict=True)),
            confidence=confidence,
            evidence=encoding.evidence,
            cell=None,
            image=None,
            readouts={},
            model=metadata.name,
            version=metadata.version,
            warnings=protein.notes
            + sequence_warnings(protein.sequence, metadata.encoder.max_length, known=bool(said))
            + known_warnings(known, said, encoding.evidence, metadata.unlike_below)
            + class_warnings,
            known=known,
            predicted=dict(zip(self.classes, predicted.tolist(), strict=True)),
        )
        if self._bounds is not None:
            chosen = self._bounds.prediction_set(prediction.probabilities, localizations, known=is_known)
            prediction = replace(prediction, prediction_set=chosen)
        return prediction, latent

    def _known_of(self, protein: Protein, known: KnownProtein | None) -> KnownProtein | None:
        """Return the entry of a protein's own accession, where several have its sequence."""
        if known is None or self.known is None or protein.accession not in known.others:
            return known
        own = self.known.protein(protein.accession)
        others = tuple(each for each in (known.accession, *known.others) if each != protein.accession)
        return None if own is None else replace(own, others=others)


def latent_of(logits: Floats, encoding: Encoding) -> Floats:
    """Return the latent (K, D) that the encoder would give for other logits (K,) of its own classes."""
    probabilities = class_probabilities(logits, multi_label=True)
    if len(encoding.latent) == 1:  # the probabilities themselves
        latent = encoding.latent.copy()
        latent[0, : len(probabilities)] = probabilities
        return latent
    # A token for each class, weighted by its share of the squared probabilities.
    own = class_probabilities(encoding.own_logits, multi_label=True)
    new, old = (each.astype(np.float64) ** 2 for each in (probabilities, own))
    factors = (new / max(new.sum(), 1e-12)) / np.maximum(old / max(old.sum(), 1e-12), 1e-12)
    return np.asarray(encoding.latent * factors[:, None], np.float32)


def with_words(latent: Floats, statements: Sequence[Statement], flow: FlowMatchingSpec) -> Floats:
    """Append which annotation words apply to a latent of probabilities.

    The words are those that OpenCell grades highest and the main locations of the HPA, unless uncertain; of
    these only what belongs to a probable class.

    Parameters
    ----------
    latent
        (1, K) probabilities.
    statements
        What sources say of the protein.
    flow
        The classes and the W words that the generator knows.

    Returns
    -------
    Floats
        (1, K + W); 1 for each word that applies.
    """
    words = set[str]()
    for each in statements:
        if each.source == "OpenCell" and each.reliability == "grade 3":
            words.update(each.localizations)
        elif each.source == "HPA" and each.reliability in ("enhanced", "supported", "approved"):
            words.add(HPA_TO_WORDS.get(each.word, ""))
    probable = {slug for slug, p in zip(flow.classes, latent[0], strict=True) if p >= NAMED_FROM}
    applies = [
        word in words and bool(probable & set(OWN_CLASSES.of(localizations_of([word]))))
        for word in flow.words
    ]
    return np.concatenate([latent, np.array([applies], np.float32)], 1)


def _bounds_of(metadata: BundleMetadata) -> ClassBounds | None:
    classes = class_set_of(metadata.classes)
    return class_bounds(metadata, None if classes is None else classes.name)


def _interval_factor(metadata: BundleMetadata, samples: int, mean: bool) -> float:
    if mean:
        raise InputError("A mean image has no interval of samples; leave out --mean or --samples.")
    if samples < FEWEST_SAMPLES:
        raise InputError(f"{samples} samples are too few for an interval; give --samples {FEWEST_SAMPLES}.")
    if (factor := interval_factor(metadata, samples)) is None:
        raise InputError(
            f"The intervals of model '{metadata.name}' were not calibrated on real images; leave --samples "
            "out."
        )
    return factor


def _as_protein(given: Protein | str, id: str = "sequence") -> Protein:
    if isinstance(given, Protein):
        return given
    cleaned = clean_sequence(given)
    if problem := check_sequence(id, cleaned):
        raise InputError(problem)
    return Protein(id, cleaned)


def _numbered_protein(number: int, given: Protein | Rejection | str | SeqRecordLike) -> Protein:
    if isinstance(given, Rejection):
        raise InputError(given.reason)
    if isinstance(given, Protein | str):
        return _as_protein(given, f"sequence_{number}")
    try:
        return _as_protein(str(given.seq), str(given.id))
    except AttributeError:
        raise InputError(
            f"Protein {number} is a '{type(given).__name__}'; give a sequence, a Protein, or a record with "
            "id and seq."
        ) from None


@lru_cache(maxsize=32)
def _nucleus_mask(cell: Cell) -> Mask:
    from deepgps.images.segmentation import OtsuWatershed

    return OtsuWatershed()(cell.nucleus, cell.pixel_size_um) > 0
