"""Back from a bundle to torch: the weights of its graphs, and the modules that answer as the graphs do.

A model is fine-tuned from there. What was folded away stays so: convolutions have taken up their batch
norms, and weights are those of half precision.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import onnx
import torch
import yaml
from torch import Tensor, nn

from deepgps.bundle import Bundle
from deepgps.errors import BundleError
from deepgps.training.graphs import HALF, condensed
from deepgps.training.recipe import (
    RECIPE,
    JointRecipe,
    MiniRecipe,
    Recipe,
    load_recipe,
    parse_recipe,
    shipped_recipes,
)

GRAPHS = ("encoder", "generator")

_MADE = {"noise.tiles"}
"""What a network makes for itself."""
# Buffers that change nothing where they are 0 and 1; then the graph has done without them.
_IDENTITY = {"scale", "bias", "model.sequence.mean", "model.sequence.scale", "encoder.mean", "encoder.scale"}


class Rebuilt(NamedTuple):
    """The modules of a bundle, ready to predict; of a joint model, ``encoder.model`` is the whole network.

    Attributes
    ----------
    encoder
        Answers as ``encoder.onnx``.
    generator
        Answers as ``generator.onnx``; where that gives mean images too, `UNet.drawn_and_mean` does.
    """

    encoder: nn.Module
    generator: nn.Module


def bundle_weights(bundle: Bundle) -> dict[str, Tensor]:
    """Read the weights out of a bundle's graphs.

    Returns
    -------
    dict of Tensor
        float32, by the name of the graph and the name within its module in `rebuilt`, such as
        ``generator.fusion.query.weight``.
    """
    return {
        f"{graph}.{name}": value
        for graph in GRAPHS
        for name, value in _weights(onnx.load_from_string(bundle.read(f"{graph}.onnx"))).items()
    }


def rebuilt(bundle: Bundle) -> Rebuilt:
    """Build the modules that a bundle's graphs were made from, with their weights.

    Raises
    ------
    BundleError
        If the bundle names no recipe that it was made by, or its graphs are not those of the recipe.
    """
    weights = bundle_weights(bundle)
    recipe = bundle_recipe(bundle)
    modules = _joint(bundle, recipe) if isinstance(recipe, JointRecipe) else _mini(recipe, weights)
    for graph, module in zip(GRAPHS, modules, strict=True):
        prefix = f"{graph}."
        _fill(module, {n.removeprefix(prefix): w for n, w in weights.items() if n.startswith(prefix)}, bundle)
    return Rebuilt(*(module.eval() for module in modules))


def bundle_recipe(bundle: Bundle) -> Recipe:
    """Read the recipe that a bundle was made by; earlier ones are known by the name of the model.

    Raises
    ------
    BundleError
        If there is none.
    """
    if bundle.has(RECIPE):
        return parse_recipe(yaml.safe_load(bundle.read(RECIPE)), str(bundle.path))
    for name in shipped_recipes():
        recipe = load_recipe(name)
        if recipe.name == bundle.metadata.name:
            return recipe
    raise BundleError(f"Bundle '{bundle.path}' has no '{RECIPE}'; export it again from its run.")


def _weights(model: onnx.ModelProto) -> dict[str, Tensor]:
    """Find the weights among a graph's constants: those have a module's name, the others none."""
    constants = {
        each.name.removesuffix(HALF): onnx.numpy_helper.to_array(each) for each in model.graph.initializer
    }
    named = _linear_names(model.graph.node, constants)
    weights = {
        name: value
        for name, value in constants.items()
        if name not in _MADE and ("." in name or name in _IDENTITY)
    }
    weights |= {name: constants[constant].T for constant, name in named.items()}
    return {name: torch.from_numpy(value.astype("float32")) for name, value in weights.items()}


def _linear_names(nodes: Iterable[onnx.NodeProto], constants: Mapping[str, object]) -> dict[str, str]:
    """Name the weights of linear layers over tokens, which became nameless factors before their bias."""
    factors = {
        node.output[0]: node.input[1]
        for node in nodes
        if node.op_type == "MatMul" and node.input[1] in constants
    }
    sums = [node.input for node in nodes if node.op_type == "Add"]
    pairs = [pair for one, other in sums for pair in ((one, other), (other, one))]
    return {
        factors[product]: f"{bias.removesuffix('.bias')}.weight"
        for product, bias in pairs
        if product in factors and bias.endswith(".bias")
    }


def _joint(bundle: Bundle, recipe: JointRecipe) -> tuple[nn.Module, nn.Module]:
    from deepgps.training.joint.build import build_model
    from deepgps.training.joint.export import EncoderGraph, graph_inputs

    metadata = bundle.metadata
    model = condensed(build_model(recipe, metadata.encoder.dimension))
    inputs = tuple(graph_inputs(metadata.encoder.model_dump()))
    count = len(metadata.classes)
    return EncoderGraph(model, inputs, torch.ones(count), torch.zeros(count)), model.generator


def _mini(recipe: MiniRecipe, weights: Mapping[str, Tensor]) -> tuple[nn.Module, nn.Module]:
    from deepgps.models.sequence_encoder import SequenceEncoder
    from deepgps.training.mini.export import EncoderGraph
    from deepgps.training.mini.images import build_generator

    classes, features = len(weights["encoder.tokens.tokens"]), len(weights["encoder.encoder.mean"])
    labels = recipe.labels
    encoder = SequenceEncoder(features, 2 * classes + 1, classes, labels.widths, labels.members)
    generator = condensed(build_generator(classes, recipe.images))
    return EncoderGraph(encoder, generator.tokens), generator.unet


def _fill(module: nn.Module, weights: Mapping[str, Tensor], bundle: Bundle) -> None:
    """Load all weights; the generator of a joint model, which its encoder holds too, is loaded as such."""
    own = {name for name in module.state_dict() if not name.startswith("model.generator.")}
    if wrong := sorted((own - set(weights) - _IDENTITY) | (set(weights) - own)):
        raise BundleError(
            f"Bundle '{bundle.path}' was not made by the recipe in it: weight '{wrong[0]}' is missing or too "
            "many; export it again."
        )
    try:
        module.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        why = str(error).splitlines()[-1].strip()
        raise BundleError(
            f"Bundle '{bundle.path}' was not made by the recipe in it ({why}); export it again."
        ) from None
