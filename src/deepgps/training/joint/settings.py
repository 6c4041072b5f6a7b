"""What a recipe of the paper's kind may say; every field is documented here and in the reference."""

from typing import Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from deepgps.bundle import CropSpec
from deepgps.localization import CLASS_SETS

ProteinInput = Literal["sequence", "structure"]
# As deepgps.models.fusion has it, which cannot be asked without torch.
FusionMode = Literal["paper", "residual", "per_residue", "film"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class ProteinSettings(_Strict):
    """What is known of the protein, and how it becomes latents."""

    inputs: tuple[ProteinInput, ...] = Field(("sequence",), min_length=1)
    """what the protein's latents come from; the nucleus image is always there"""
    encoder: str = "esm2_t33_650M_UR50D"
    """what makes vectors of a sequence: an ESM2 by name, a local folder of one, or hand-made features that
    need no weights, ``segments-1`` (``residues-1`` with the fusion ``per_residue``)"""
    standardise: bool = True
    """bring the encoder's vectors to mean 0 and deviation 1 over the training proteins; the paper does not"""
    structure_points: PositiveInt = 1024
    """atoms that a structure is sampled to"""

    @field_validator("inputs")
    @classmethod
    def _each_once(cls, inputs: tuple[ProteinInput, ...]) -> tuple[ProteinInput, ...]:
        if len(set(inputs)) < len(inputs):
            raise ValueError("an input is named twice; name each once")
        return inputs


class ModelSettings(_Strict):
    """The network."""

    widths: tuple[PositiveInt, ...] = Field((64, 128, 256, 512, 1024), min_length=2)
    """channels of the U-Net, from the first level to the bottleneck"""
    latent_dim: PositiveInt = 1024
    """size of a latent token"""
    latent_tokens: PositiveInt = 4
    """tokens that a mean-pooled embedding becomes; 1 with the fusion ``paper``"""
    fusion: FusionMode = "residual"
    """how the protein meets the nucleus: ``paper``, ``residual``, ``per_residue`` or ``film``"""
    heads: PositiveInt = 4
    """attention heads of the fusion; ``paper`` has one"""
    fold: PositiveInt = 1
    """pixels folded into channels at the stem, along each edge; 1 for the paper's network"""
    margin: NonNegativeInt = 0
    """pixels of mirror image around the nucleus while drawing; 0 for the paper's network"""
    dropout: float = Field(0.0, ge=0, lt=1)
    """share of the latent left out before the classifier, in training"""

    @model_validator(mode="after")
    def _one_token_for_paper(self) -> Self:
        if self.fusion == "paper" and self.latent_tokens != 1:
            raise ValueError("fusion 'paper' takes latent_tokens: 1; set it, or use fusion 'residual'")
        return self


class LossSettings(_Strict):
    """Weights of the parts of the loss; at 0 a part is left out."""

    mae: NonNegativeFloat = 1.0
    """mean absolute error of the image"""
    mse: NonNegativeFloat = 0.0
    """mean squared error of the image"""
    ssim: NonNegativeFloat = 0.0
    """1 - SSIM of the image"""
    label: NonNegativeFloat = 1.0
    """cross-entropy on the logits (binary, class by class, where a protein may have several); at 0 the model
    has no classifier and draws only"""
    orthogonality: NonNegativeFloat = 0.001
    """how far PointNet's feature transform is from orthogonal; only with structures"""

    @model_validator(mode="after")
    def _some_image(self) -> Self:
        if not self.mae + self.mse + self.ssim:
            raise ValueError("mae, mse and ssim are all 0, so that nothing teaches the image; raise one")
        return self


class SplitSettings(_Strict):
    """The split that is made where the store has no ``split.csv`` and none is given."""

    by: Literal["protein", "cluster"] = "protein"
    """keep proteins apart, as the paper does, or whole homology clusters"""
    seed: NonNegativeInt = 0
    """another seed, another split"""


class TrainingSettings(_Strict):
    """How the network is trained."""

    max_epochs: PositiveInt = 50
    """passes over the training crops, at most"""
    batch_size: PositiveInt = 32
    """crops in a step of the optimiser, over all devices and accumulated parts"""
    accumulate: PositiveInt = 1
    """parts that a batch is computed in, to spare memory"""
    learning_rate: PositiveFloat = 2e-4
    """AdamW's learning rate at its highest"""
    weight_decay: NonNegativeFloat = 0.01
    """AdamW's weight decay"""
    schedule: Literal["cosine", "exponential", "constant"] = "cosine"
    """how the learning rate falls: to 0 along a cosine over all steps, by ``gamma`` each epoch, or not"""
    gamma: float = Field(0.9, gt=0, le=1)
    """factor per epoch of the schedule ``exponential``"""
    warm_up: float = Field(0.03, ge=0, lt=1)
    """share of all steps in which the learning rate rises from 0"""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """precision of the forward pass; ``auto`` is bfloat16 where the machine has units for it"""
    balanced: bool = True
    """draw the classes equally often, and within a class the proteins; otherwise every crop once an epoch"""
    augment: bool = True
    """flip and turn by quarters, nucleus and protein alike"""
    patience: PositiveInt | None = 10
    """epochs without better validation images before it stops; null never stops early"""
    keep: Literal["best", "last"] = "best"
    """the weights that are exported: of the best validation images, or of the last epoch as in the paper"""
    devices: PositiveInt = 1
    """processes on each machine, one a GPU or a part of the CPU's cores"""
    nodes: PositiveInt = 1
    """machines"""
    workers: NonNegativeInt = 0
    """processes that read crops, for each device"""
    checkpoint_minutes: PositiveFloat = 10
    """minutes of an epoch after which it is kept how far it has come; every epoch's end is kept, too"""
    seed: NonNegativeInt = 0
    """seed of weights, sampling and augmentation"""


class JointRecipe(_Strict):
    """A model trained on crops: a protein's latents and a nucleus in, a label and an image out."""

    kind: Literal["joint"]
    """the kind of recipe"""
    name: str
    """name of the bundle"""
    version: str
    """version of the bundle"""
    class_set: str
    """name of the class set: which proteins are trained on, and what is predicted"""
    cell_line: str | None = None
    """train on the crops of these cells only; null takes all"""
    crop: CropSpec = CropSpec(size_px=208, pixel_size_um=0.206349)
    """size and scale of the crops; those of the store must be the same"""
    protein: ProteinSettings = ProteinSettings()
    """what is known of the protein"""
    model: ModelSettings = ModelSettings()
    """the network"""
    losses: LossSettings = LossSettings()
    """weights of the parts of the loss"""
    split: SplitSettings = SplitSettings()
    """the split where none is given"""
    training: TrainingSettings = TrainingSettings()
    """how the network is trained"""

    @field_validator("class_set")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in CLASS_SETS:
            raise ValueError(f"'{name}' is unknown; use one of {', '.join(CLASS_SETS)}")
        return name

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        multiple = self.model.fold * 2 ** (len(self.model.widths) - 1)
        drawn = self.crop.size_px + 2 * self.model.margin
        if drawn % multiple:
            raise ValueError(f"a crop and its margins, {drawn} px, are no multiple of {multiple} px")
        if self.model.fusion == "per_residue" and self.protein.inputs != ("sequence",):
            raise ValueError("fusion 'per_residue' takes the input sequence alone; use fusion 'residual'")
        if self.training.batch_size % (
            self.training.nodes * self.training.devices * self.training.accumulate
        ):
            raise ValueError("batch_size is no multiple of nodes x devices x accumulate; choose one that is")
        if "structure" in self.protein.inputs and self.training.batch_size < 2 * self.training.accumulate:
            raise ValueError(
                "a part of a batch is one crop, too few to normalise structures; raise batch_size or lower "
                "accumulate"
            )
        return self
