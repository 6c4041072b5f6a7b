"""Generators against what the machine can do: the part of ``make bench`` that needs torch."""

import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from operator import truediv
from typing import Any

import numpy as np

from costs import Layer, layers
from deepgps.images.cell import Cell
from deepgps.prediction import Predictor
from deepgps.runtime import available_runtimes, open_graph
from timing import SEED, TOGETHER, Figures, drawn, in_turns, loaded, random_proteins, runtime

SIZE, LATENT = 208, 1024
Turns = dict[str, Callable[[], object]]
Seconds = Mapping[str, Sequence[float]]
HALF = " in bfloat16"


def measure_generators(figures: Figures, model: str, rounds: int, widths: tuple[int, ...]) -> dict[str, Any]:
    """Measure the bundled generator and one of the paper's size, and what they could reach.

    Returns
    -------
    dict
        The machine's peaks and the costs of the graphs; empty without torch.
    """
    try:
        import torch

        from peak import PRECISIONS, peaks, works
    except ModuleNotFoundError as error:
        print(f"generator against the paper's U-Net: not measured, {error.name} is not installed")
        return {}
    # Threads that wait for each other count as busy, so that one is compared with one.
    torch.set_num_threads(1)
    exact, (net, paper) = loaded(model, "cpu"), paper_network(widths)
    graphs = {"generator": exact.bundle.read("generator.onnx"), "paper-size generator": paper}
    convolution, operations = works(torch.float32, torch.device("cpu"))["convolution"]
    turns: Turns = {"peak": convolution, "eager": net, "drawn": lambda: drawn(exact, TOGETHER)}
    turns |= {"paper": of_paper(paper, "cpu")}
    if "openvino" in available_runtimes():
        rough = loaded(model, "openvino")
        quality(figures, exact, rough)
        turns |= {f"drawn{HALF}": lambda: drawn(rough, TOGETHER), f"paper{HALF}": of_paper(paper, "openvino")}
    with torch.inference_mode():
        took = in_turns(turns, rounds)
    shares(figures, took, operations, {name: layers(graph) for name, graph in graphs.items()})
    gains(figures, took)
    found = {name: peaks(dtype) for name, dtype in PRECISIONS.items()}
    giga = {name: {what: rate / 1e9 for what, rate in rates.items()} for name, rates in found.items()}
    return {"peaks": giga, "costs": {name: cost(graph, found) for name, graph in graphs.items()}}


def paper_network(widths: tuple[int, ...]) -> tuple[Callable[[], object], bytes]:
    """A U-Net of the paper's size, random: as eager torch draws one image, and as a graph."""
    import torch

    from deepgps.models.unet import UNet

    torch.manual_seed(SEED)
    net, file = UNet(widths).eval(), io.BytesIO()
    given = {each: torch.from_numpy(values) for each, values in one_image().items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # The older exporter takes a second and not a minute, and finds the same layers.
        torch.onnx.export(
            net,
            tuple(given.values()),
            file,  # type: ignore[arg-type]
            input_names=list(given),
            output_names=["image"],
            dynamo=False,
        )
    return lambda: net(*given.values()), file.getvalue()


def one_image() -> dict[str, np.ndarray]:
    nucleus = Cell.load("hek-1").nucleus.astype(np.float32)[None, None, :SIZE, :SIZE]
    return {"nucleus": nucleus, "latent": np.ones((1, 1, LATENT), np.float32)}


def of_paper(graph: bytes, name: str) -> Callable[[], object]:
    """One image of the paper-size network, computed by a runtime."""
    with runtime(name):
        opened = open_graph(graph, 1, reduced=True)
    given = one_image()
    return lambda: opened.run(["image"], given)


def shares(figures: Figures, took: Seconds, operations: float, found: Mapping[str, Sequence[Layer]]) -> None:
    """Tell what share of the convolution's rate the generators reach in float32."""
    for key, name, images in (("drawn", "generator", TOGETHER), ("paper", "paper-size generator", 1)):
        # All of a batch are drawn into one nucleus, which is looked at once.
        work = sum(each.flop * (1 if each.of_nucleus else images) for each in found[name])
        reached = [work / own * best / operations for own, best in zip(took[key], took["peak"], strict=True)]
        figures.ratio(f"{key} of peak", f"{name}: share of the convolution's rate, float32", reached, "≥ 0.5")


def gains(figures: Figures, took: Seconds) -> None:
    """Tell how much faster each way is than another."""

    def times(name: str, what: str, slow: str, fast: str, aim: str = "", each: int = 1) -> None:
        if slow in took and fast in took:
            samples = [each * ratio for ratio in map(truediv, took[slow], took[fast])]
            figures.ratio(name, what, samples, aim)

    times(
        "mini", "paper's U-Net in eager torch / bundled generator, an image", "eager", "drawn", each=TOGETHER
    )
    times("eager", "paper's U-Net: eager torch / ONNX Runtime", "eager", "paper")
    times("eager bf16", "paper's U-Net: eager torch / OpenVINO in bfloat16", "eager", f"paper{HALF}", "≥ 2")
    times("bf16", "generator: ONNX Runtime / OpenVINO in bfloat16", "drawn", f"drawn{HALF}")


def quality(figures: Figures, exact: Predictor, rough: Predictor) -> None:
    """Tell what bfloat16 changes in images of proteins drawn by chance."""
    latents = [each.latent for each in exact.encode(list(random_proteins(TOGETHER)))]
    cells = [Cell.load("hek-1")] * TOGETHER
    one, other = exact.draw(cells, latents), rough.draw(cells, latents)
    psnr = -10 * np.log10(np.mean((one - other) ** 2) + 1e-20)
    figures.rate("images in bfloat16 against float32: PSNR", f"{psnr:.1f} dB")
    figures.rate("the same: largest difference of a pixel", f"{np.abs(one - other).max():.4f}")
    r = min(np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(one, other, strict=True))
    figures.rate("the same: lowest correlation r of an image", f"{r:.6f}")


def cost(graph: bytes, peaks: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """Sum up a graph, and the time below which it cannot be computed at the convolution's rate."""
    found = layers(graph)
    flop = sum(each.flop for each in found)
    return {
        "gflop": flop / 1e9,
        "mb": sum(each.moved for each in found) / 1e6,
        "of_nucleus": sum(each.flop for each in found if each.of_nucleus) / max(flop, 1),
        "floors": {precision: flop / rates["convolution"] for precision, rates in peaks.items()},
    }
