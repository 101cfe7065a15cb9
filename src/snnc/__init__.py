"""snnc: a compiler from trained neural networks to spiking neural networks.

network = snnc.load(model)                                   # a Keras model or a model file, as an analog network
snn = snnc.convert(network, calibration=x, timesteps=64)     # balanced thresholds, spiking neurons
result = snnc.compile(snn).evaluate(x_test, y_test)          # result.accuracy[t - 1] after t timesteps
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

from . import ir
from .agreement import agreement
from .backend import Backend, compile
from .functions import computations
from .ir import Images, Network, SnncError, save
from .sweep import sweep
from .tune import tune

if TYPE_CHECKING:
    import numpy as np

    from .passes import Adjust, Context, Instrument, Pass

__version__ = "0.1.0"

LONGEST_DEFAULT = 64  # timesteps
LOWERING = "lower-max-pool,lower-leaky-relu"
DEFAULT_PIPELINE = f"{LOWERING},data-norm{{percentile=99.9,per-channel=true}}"
FUNCTION_PIPELINE = f"{LOWERING},few-spike{{k=8,per-channel=true}}"


def load(model: str | PathLike[str] | Any, *, inputs: Any = None, verify: bool | None = False) -> Network:
    """Read a trained model as an analog network, or a network file as it was saved.

    `model` is a Keras model, a `tf.function`, a `torch.nn.Module`, an `onnx.ModelProto`, or the path of a `.keras`,
    `.h5` or `.onnx` model file, of a SavedModel folder, or of a `.snn` network file. `inputs` says what the model
    takes, where that leaves it open: an example, which is a batch, or its shape, as in (1, 32, 32, 3); for several
    inputs a tuple of them in order, or a mapping by name. A network file has its sizes. `verify` compares the network
    with the model on random images; None: if the model has fewer than 100 million parameters.

    Raises ModelFileError or NetworkFileError for files that cannot be read, DataError for inputs that the model does
    not take, UnsupportedModelError with every layer that has no spiking counterpart, or every size that is open,
    MismatchError with the first layer that differs.
    """
    from . import proof

    if isinstance(model, (str, PathLike)):
        model = ir.as_path(model, "a model", ir.ModelFileError)
    return proof.load(model, inputs, None if verify is None else ir.as_flag(verify, "verify"))


def convert(
    network: Network,
    pipeline: str | Sequence[Pass] | None = None,
    *,
    calibration: Images | None = None,
    timesteps: int | None = None,
    instruments: Sequence[Instrument] = (),
    progress: bool = True,
) -> Network:
    """Make a spiking network of an analog one: canonicalise it, then run `pipeline`.

    Of what it makes, `computations` says how each function is computed that is more than a rectifier, and how far off.
    Without `pipeline`, it is that of `default_pipeline`; without `timesteps`, T is that of `default_timesteps`. The
    other arguments and the errors are those of `run_pipeline`.
    """
    from . import passes

    if timesteps is None:
        timesteps = default_timesteps(network)
    steps = (passes.Canonicalise(), *_parsed(default_pipeline(network) if pipeline is None else pipeline))
    return run_pipeline(
        network, steps, calibration=calibration, timesteps=timesteps, instruments=instruments, progress=progress
    )


def default_pipeline(network: Network) -> str:
    """The passes where nobody says: a rate code for rectifiers, few spikes where neurons apply other functions."""
    neurons = [population.neuron for population in ir.as_network(network).populations.values()]
    return FUNCTION_PIPELINE if any(isinstance(neuron, ir.SomaNeuron) for neuron in neurons) else DEFAULT_PIPELINE


def default_timesteps(network: Network) -> int:
    """T where nobody says: 64, or as many as the levels that the network's activations are quantised to, if fewer.

    With the most levels of any layer, spikes say all that the quantised model computes there.
    """
    neurons = [population.neuron for population in ir.as_network(network).populations.values()]
    levels = [neuron.levels for neuron in neurons if isinstance(neuron, ir.QuantizedRelu)]
    return min(max(levels, default=LONGEST_DEFAULT), LONGEST_DEFAULT)


def run_pipeline(
    network: Network,
    pipeline: str | Sequence[Pass],
    *,
    calibration: Images | None = None,
    timesteps: int | None = None,
    instruments: Sequence[Instrument] = (),
    progress: bool = True,
) -> Network:
    """Run the passes of `pipeline`, as they stand, on a network.

    `pipeline` is text, pass names and options, or Pass objects. `calibration` are images as the model takes
    them, (images, *input shape), or a mapping for several inputs; 512 from the training set are plenty.
    `timesteps` is T, how long each image is shown. `instruments` look on (`snnc.passes.instruments`).

    Raises PipelineError for a pipeline that cannot run, DataError for calibration images that do not fit,
    UnsupportedModelError with every population that a pass cannot convert.
    """
    from . import passes

    if timesteps is not None and not ir.is_timesteps(timesteps):
        raise ir.PipelineError(f"timesteps is {ir.shown(timesteps)}; T is a number from 1 to {ir.LARGEST_T:,}")
    if timesteps is not None:
        timesteps = int(timesteps)
    if calibration is not None:
        calibration = ir.as_inputs(network, calibration, "calibration")
        _warn_of_one_image(calibration)
    return passes.run(_parsed(pipeline), network, _context(calibration, timesteps, progress), instruments)


def _warn_of_one_image(calibration: Mapping[str, np.ndarray]) -> None:
    """Warn of images from which nothing can be learned about others."""
    if all((images == images[:1]).all() and (len(images) > 1 or not images.any()) for images in calibration.values()):
        alike = "are all the same" if any(len(images) > 1 for images in calibration.values()) else "hold nothing but 0"
        warnings.warn(
            f"the calibration images {alike}: thresholds made of them fit no others", ir.ModelWarning, stacklevel=3
        )


def _context(calibration: Images | None, timesteps: int | None, progress: bool) -> Context:
    """What passes may ask for, from the embedded engine."""
    from . import passes
    from .backend import onnxruntime

    def activations(
        network: Network, images: Images, of: Sequence[str] | None = None
    ) -> Iterator[Mapping[str, np.ndarray]]:
        shown = progress and of is None  # a look at some is part of a sweep, which shows its own progress
        return onnxruntime.CompiledAnalog(network).activations(images, of, progress=shown)

    def sweep(spiking: Network, images: Images, adjust: Adjust) -> Network:
        return onnxruntime.sweep(spiking, images, adjust, progress=progress)

    def note(text: str) -> None:
        if progress:
            print(f"note: {text}", file=sys.stderr)

    return passes.Context(activations, calibration, timesteps, sweep, note=note)


def _parsed(pipeline: str | Sequence[Pass]) -> tuple[Pass, ...]:
    from . import passes

    return passes.as_passes(pipeline)


__all__ = [
    "DEFAULT_PIPELINE",
    "LOWERING",
    "Backend",
    "Images",
    "Network",
    "SnncError",
    "agreement",
    "compile",
    "computations",
    "convert",
    "default_pipeline",
    "default_timesteps",
    "load",
    "run_pipeline",
    "save",
    "sweep",
    "tune",
]
