"""What has no spiking counterpart, and what to do about it: the texts of every refusal."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from ..ir import Refusal


@dataclass(frozen=True)
class Layer:
    """A call of one of the user's layers: `path` is its name, or "outer/inner" inside nested models.

    `kind` says what it is, as in `Activation 'silu'`. `rank` counts calls in the order in which they run: a
    shared layer has one path and several ranks.
    """

    path: str
    kind: str
    rank: int

    def problem(self, reason: str) -> Refusal:
        """One line of a report."""
        return Refusal(self.path, self.kind, reason)


class Unsupported(Exception):
    """A layer cannot be lowered; the text says why. Collected by the lowering, never seen by the user.

    `layer` is the path of the layer that is to blame, if it is not the one at hand.
    """

    def __init__(self, reason: str, layer: str | None = None):
        self.layer = layer
        super().__init__(reason)


class AcrossImages(Unsupported):
    """What does something with the images of a batch, which networks see one by one."""

    def __init__(self, what: str = "it works along axis 0, across the images of a batch"):
        super().__init__(f"{what}, which networks see one by one")


_USE_RELU = "use ReLU there and fine-tune"
_REPLACE = "express it with convolutions, dense layers, additions, pooling and ReLU"
_LOOP = "it is a loop, and only LSTM, GRU and RNN are unrolled; write its steps out, as unroll=True does in Keras"
_IF = "it chooses between two parts of the model by the numbers that it is given; export the part that is wanted"
_VOLUME = "only images (H, W, C), series (L, C) and vectors (N,) are supported; use the 2D layer"
JUMP = "its output jumps at a threshold, which no sum of rectifiers does; use ReLU with threshold=0 and fine-tune"
_BATCH = "it normalises by statistics of each batch; keep running statistics in training (track_running_stats=True)"
_CATEGORIES = "it turns numbers or text into categories; do so with the data, before the network"
_SPECTRUM = "it takes the spectrum of sound; do so with the data, before the network"
_ADJUSTED = "it changes each image by its own statistics; do so with the data, before the network"
_WRAPPED = "it holds a model of another framework; give that model itself"
MASK = "it skips steps by the numbers in them, which spikes cannot; leave it out, and fill up with zeros"
_LAMBDA = "arbitrary Python code cannot be compiled; express it with Keras layers"

MOST_STEPS = 1000  # of a recurrent layer, each of which has populations of its own
MOST_UNROLLED = 2**28  # weights of a recurrent layer over all steps: a gigabyte once conversions scale them

# By Keras class, base classes included.
_LAYERS = {
    "ConvLSTM3D": _VOLUME,
    "TimeDistributed": "sequences of images are not supported; apply the inner layer to single images",
    "Lambda": _LAMBDA,
    **dict.fromkeys(("FlaxLayer", "JaxLayer", "TFSMLayer", "TorchModuleWrapper"), _WRAPPED),
    "Masking": MASK,
    **dict.fromkeys(
        ("Conv3D", "Conv3DTranspose", "AveragePooling3D", "MaxPooling3D", "AdaptiveAveragePooling3D"), _VOLUME
    ),
    **dict.fromkeys(("AdaptiveMaxPooling3D", "UpSampling3D"), _VOLUME),
    **dict.fromkeys(("CategoryEncoding", "Discretization", "Hashing", "HashedCrossing"), _CATEGORIES),
    **dict.fromkeys(("IntegerLookup", "StringLookup", "TextVectorization"), _CATEGORIES),
    **dict.fromkeys(("MelSpectrogram", "STFTSpectrogram"), _SPECTRUM),
    **dict.fromkeys(("AutoContrast", "ContrastLimitedAdaptiveHistogramEqualization", "Equalization"), _ADJUSTED),
}

_ACTIVATIONS = {"sparse_plus", "threshold"}

# By ONNX operator.
_OPERATORS = {
    **dict.fromkeys(("Loop", "Scan"), _LOOP),
    "If": _IF,
    **dict.fromkeys(("Greater", "GreaterOrEqual", "Less", "LessOrEqual", "ThresholdedRelu"), JUMP),
}


# By class of torch.nn: what it does says more than the operators that it is exported as.
_MODULES = {
    **dict.fromkeys(("BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "SyncBatchNorm"), _BATCH),
    "RReLU": "its slope is drawn at random in training; use LeakyReLU with the mean of its two slopes",
    "Threshold": JUMP,
}


def refusal(classes: Iterable[str], activation: str | None, data_format: str | None) -> str | None:
    """Why a Keras layer cannot be supported, judging by the names of its class and base classes; None if it may be."""
    for name in classes:
        if name in _LAYERS:
            return _LAYERS[name]
    if activation in _ACTIVATIONS:
        return f"{activation} is not an activation that spike counts can stand for; {_USE_RELU}"
    if data_format == "channels_first":
        return "channels_first is not supported; rebuild the model with data_format='channels_last'"
    return None


def module_refusal(kind: str) -> str | None:
    """Why a module of torch.nn cannot be lowered, by its class; None where its operators say it."""
    return _MODULES.get(kind)


def too_long(steps: int, weights: int) -> str | None:
    """Why a recurrent layer cannot be unrolled over so many steps, if it is too large for that."""
    if steps > MOST_STEPS:
        return f"it takes {steps} steps, and at most {MOST_STEPS} are unrolled; cut the series into shorter ones"
    if steps * weights > MOST_UNROLLED:
        synapses = f"{steps} steps of {weights} weights are {steps * weights} in all"
        return f"unrolled, {synapses}, more than the {MOST_UNROLLED} that fit; cut the series into shorter ones"
    return None


def kind(class_name: str, activation: str | None) -> str:
    """How messages call a layer: its class, and its activation if that matters."""
    matters = activation not in (None, "linear") and class_name not in _LAYERS
    return f"{class_name} {activation!r}" if matters else class_name


def operator_refusal(op_type: str) -> str:
    """Why an ONNX operator cannot be lowered."""
    return _OPERATORS.get(op_type, f"{op_type} is neither a linear map nor an activation that is supported; {_REPLACE}")


def first_line(error: Exception) -> str:
    """What another package's exception says, in one line. Keras puts the cause, in bold, after where it happened."""
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    said = lines[1] if lines[0].startswith("Exception encountered when calling") and len(lines) > 1 else lines[0]
    return re.sub(r"\x1b\[\d*m", "", said).strip()
