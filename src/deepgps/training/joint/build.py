"""The network that a recipe of the paper's kind describes."""

from deepgps.localization import class_set
from deepgps.models.deepgps import DeepGPS
from deepgps.models.latents import SequenceLatent, StructureLatent
from deepgps.models.unet import UNet
from deepgps.training.joint.settings import JointRecipe


def build_model(recipe: JointRecipe, embedding_dim: int | None) -> DeepGPS:
    """Build the network with fresh weights.

    Parameters
    ----------
    recipe
        What to build.
    embedding_dim
        Numbers of an embedding; None where the recipe looks at no sequence.

    Raises
    ------
    ValueError
        If the recipe looks at the sequence and ``embedding_dim`` is None.
    """
    settings, inputs = recipe.model, recipe.protein.inputs
    if "sequence" in inputs and embedding_dim is None:
        raise ValueError("the recipe looks at the sequence; give the embedding's dimension.")
    dim, tokens = settings.latent_dim, 1 if settings.fusion == "per_residue" else settings.latent_tokens
    return DeepGPS(
        UNet(settings.widths, dim, settings.fusion, settings.heads, settings.fold, settings.margin),
        sequence=SequenceLatent(embedding_dim or 0, dim, tokens) if "sequence" in inputs else None,
        structure=StructureLatent(dim, tokens) if "structure" in inputs else None,
        latent_dim=dim,
        classes=len(class_set(recipe.class_set).slugs) if recipe.losses.label else 0,
        dropout=settings.dropout,
    )
