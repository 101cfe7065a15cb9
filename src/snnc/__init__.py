"""snnc: a compiler from trained neural networks to spiking neural networks.

network = snnc.load(model)                                   # a Keras model or a model file, as an analog network
snn = snnc.convert(network, calibration=x, timesteps=64)     # balanced thresholds, spiking neurons
result = snnc.compile(snn).evaluate(x_test, y_test)          # result.accuracy[t - 1] after t timesteps
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import ir
from .backend import Backend, compile
from .ir import Images, Network, SnncError, save

if TYPE_CHECKING:
    from .passes import Pass

__version__ = "0.1.0"

DEFAULT_PIPELINE = "data-norm{percentile=99.9,per-channel=true}"


def load(model: str | PathLike[str] | Any) -> Network:
    """Read a trained model as an analog network, or a network file as it was saved.

    `model` is a Keras 3 model, or the path of a `.keras`, `.h5` or `.onnx` model file or of a `.snn` network
    file. Raises ModelFileError or NetworkFileError for files that cannot be read, UnsupportedModelError
    with every layer that has no spiking counterpart.
    """
    if isinstance(model, (str, PathLike)) and Path(model).suffix.lower() == ".snn":
        return ir.load(model)
    from . import frontend

    return frontend.load(model)


def convert(
    network: Network,
    pipeline: str | Sequence[Pass] = DEFAULT_PIPELINE,
    *,
    calibration: Images | None = None,
    timesteps: int = 64,
    progress: bool = True,
) -> Network:
    """Make a spiking network of an analog one.

    The network is canonicalised, then `pipeline` runs: pass names and options as text, or Pass objects.
    `calibration` are images as the model takes them, (images, *input shape), or a mapping for several
    inputs; 512 from the training set are plenty. `timesteps` is T, how long each image is shown.

    Raises PipelineError for a pipeline that cannot run, DataError for calibration images that do not fit,
    UnsupportedModelError with every population that a pass cannot convert.
    """
    from . import passes
    from .backend.onnxruntime import CompiledAnalog

    if timesteps < 1:
        raise ir.PipelineError(f"timesteps is {timesteps}; a network runs for at least one")
    if calibration is not None:
        calibration = ir.as_inputs(network, calibration, "calibration")
    steps = passes.parse(pipeline, passes.PASSES) if isinstance(pipeline, str) else tuple(pipeline)

    def activations(analog: Network, images: Images) -> Any:
        return CompiledAnalog(analog).activations(images, progress=progress)

    context = passes.Context(activations, calibration, timesteps)
    return passes.run((passes.Canonicalise(), *steps), network, context)


__all__ = ["DEFAULT_PIPELINE", "Backend", "Images", "Network", "SnncError", "compile", "convert", "load", "save"]
