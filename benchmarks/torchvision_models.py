"""Classification and segmentation models of torchvision at their documented input sizes: read or refused, how exactly.

    python benchmarks/torchvision_models.py CACHE [--all] [--markdown docs/torchvision.md] [MODEL ...]

A small model of each family is read, or with `--all` every model. Weights are random, and nothing is at its default:
statistics of batch normalisation, and all factors and shifts that begin as ones, zeros or other constants, are drawn.
The error is the largest difference of the outputs from PyTorch's, relative to the largest output; where a deep random
network amplifies the rounding of single precision, the error of PyTorch itself, from what it gives in double precision,
is beside it.
Each model has a process of its own, and five minutes. CACHE is a folder, in which torchvision is unpacked.
"""

from __future__ import annotations

import argparse
import copy
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import machine
import numpy as np
import wheels

import snnc

RELEASE = "torchvision==0.28.0"
OPERATORS = ("nms", "qnms")  # of its compiled part, which is another build's than the torch that is installed
SMALL = (
    *("alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "efficientnet_v2_s", "googlenet", "inception_v3"),
    *("maxvit_t", "mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small", "regnet_x_400mf", "regnet_y_400mf", "resnet18"),
    *("resnet50", "resnext50_32x4d", "shufflenet_v2_x0_5", "squeezenet1_1", "swin_t", "swin_v2_t", "vgg11_bn"),
    *("vit_b_32", "wide_resnet50_2"),
    *("deeplabv3_mobilenet_v3_large", "fcn_resnet50", "lraspp_mobilenet_v3_large"),
)
SIZES = {"inception_v3": 299}
SIZE = 224
LIMIT = 300  # seconds for one model
LARGE = 1e-4  # an error beside which PyTorch's own is measured
HEAD = "| model | M parameters | read | error | seconds | populations | connections |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path)
    parser.add_argument("models", nargs="*", help="only these")
    parser.add_argument("--all", action="store_true", help="every classification and segmentation model")
    parser.add_argument("--markdown", type=Path, help="write the page with the table here")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)  # one model, in this process
    options = parser.parse_args()
    models = torchvision(options.cache)
    if options.alone:
        print(json.dumps(measure(models, options.models[0])))
        return
    chosen = options.models or (every(models) if options.all else SMALL)
    rows = [HEAD, "|" + " --- |" * (HEAD.count("|") - 1)]
    print("\n".join(rows))
    for name in chosen:
        rows.append(row(elsewhere(options.cache, name)))
        print(rows[-1], flush=True)
    if options.markdown:
        options.markdown.write_text(machine.page("The models of torchvision", __doc__, "torchvision_models.py", rows))


def torchvision(cache: Path) -> Any:
    """torchvision.models, of a wheel that is not installed: it asks only that its operators have been declared."""
    import torch

    library = torch.library.Library("torchvision", "DEF")
    for operator in OPERATORS:
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    torchvision.declared = library  # what is declared goes with the library
    sys.path.append(str(wheels.unpacked(RELEASE, cache)))
    from torchvision import models

    return models


def every(models: Any) -> list[str]:
    return [*models.list_models(models), *models.list_models(models.segmentation)]


def elsewhere(cache: Path, name: str) -> dict[str, Any]:
    """What this script finds of one model, in a process of its own."""
    command = [sys.executable, __file__, str(cache), name, "--alone"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
    except subprocess.TimeoutExpired:
        return {"model": name, "refused": f"takes more than {LIMIT} seconds"}
    if done.returncode:
        return {"model": name, "refused": f"fails: {done.stderr.splitlines()[-1:]}"}
    return dict(json.loads(done.stdout.splitlines()[-1]))


def measure(models: Any, name: str) -> dict[str, Any]:
    """All that is known of one model."""
    import torch

    torch.manual_seed(0)
    module = built(models, name).eval()
    randomise(module)
    size = SIZES.get(name, SIZE)
    images = torch.randn(2, 3, size, size)
    facts: dict[str, Any] = {"model": name, "parameters": sum(p.numel() for p in module.parameters())}
    started = time.perf_counter()
    try:
        network = snnc.load(module, inputs=images[:1])
    except snnc.SnncError as refusal:
        return {**facts, "refused": str(refusal)}
    facts["seconds"] = time.perf_counter() - started
    found = outputs(snnc.compile(network).predict(images.permute(0, 2, 3, 1).numpy(), progress=False))
    expected = answers(module, images)
    facts["error"] = worst(found, expected)
    if facts["error"] > LARGE:
        exact = answers(copy.deepcopy(module).double(), images.double())
        facts["own_error"] = worst(expected, exact)
    return {**facts, "populations": len(network.populations), "connections": len(network.connections)}


def built(models: Any, name: str) -> Any:
    """A model with random weights; of what begins slowly, as PyTorch begins its layers."""
    quick = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    backbone = {"weights_backbone": None} if "deeplab" in name or "fcn" in name or "lraspp" in name else {}
    return models.get_model(name, weights=None, **quick, **backbone)


def randomise(module: Any) -> None:
    """Draw all that is constant at the start: what is zero around zero, the rest as factors around one."""
    import torch

    for tensor in module.state_dict().values():
        if not tensor.is_floating_point() or tensor.numel() < 2 or (tensor != tensor.flatten()[0]).any():
            continue
        with torch.no_grad():
            shift = tensor.flatten()[0] == 0
            tensor.normal_(0, 0.2) if shift else tensor.uniform_(0.5, 1.5)


def answers(module: Any, images: Any) -> list[np.ndarray]:
    import torch

    with torch.no_grad():
        return [tensor.numpy() for tensor in torch.utils._pytree.tree_leaves(module(images))]


def outputs(found: Any) -> list[np.ndarray]:
    """What a network gives, channels second as PyTorch has them."""
    arrays = found.values() if isinstance(found, dict) else [found]
    return [array.transpose(0, 3, 1, 2) if array.ndim == 4 else array for array in arrays]


def worst(found: list[np.ndarray], expected: list[np.ndarray]) -> float:
    """The largest difference of any output, relative to its largest number."""
    pairs = zip(found, expected, strict=True)
    return max(float(np.abs(one - other).max() / np.abs(other).max()) for one, other in pairs)


def row(facts: dict[str, Any]) -> str:
    """One line of the table."""
    start = (
        f"| {facts['model']} | {facts['parameters'] / 1e6:.1f} |"
        if "parameters" in facts
        else f"| {facts['model']} | |"
    )
    if "refused" in facts:
        return f"{start} no: {' '.join(facts['refused'].split())} | | | | |"
    own = f" (PyTorch's own: {facts['own_error']:.0e})" if "own_error" in facts else ""
    size = f"{facts['populations']} | {facts['connections']}"
    return f"{start} yes | {facts['error']:.0e}{own} | {facts['seconds']:.1f} | {size} |"


if __name__ == "__main__":
    main()
