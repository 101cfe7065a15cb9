"""What has no spiking counterpart, and what to do about it: the texts of every refusal."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
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
_RECURRENT = "recurrent layers have no spiking counterpart here; use feed-forward layers"
_VOLUME = "only images (H, W, C), series (L, C) and vectors (N,) are supported; use the 2D layer"
_TRANSPOSED = "transposed convolutions are not supported; use a convolution with strides 1"
_RESIZED = "it resamples images, which is not supported; resize them before the network, or use strides and pooling"
JUMP = "its output jumps at a threshold, which no sum of rectifiers does; use ReLU with threshold=0 and fine-tune"
_BATCH = "it normalises by statistics of each batch; keep running statistics in training (track_running_stats=True)"
_TABLE = "it looks its input up in a table; feed the embedded vectors instead"
_CATEGORIES = "it turns numbers or text into categories; do so with the data, before the network"
_SPECTRUM = "it takes the spectrum of sound; do so with the data, before the network"
_ADJUSTED = "it changes each image by its own statistics; do so with the data, before the network"
_WRAPPED = "it holds a model of another framework; give that model itself"
_MASK = "it skips steps by the numbers in them, which spikes cannot; leave it out, and fill up with zeros"
_LAMBDA = "arbitrary Python code cannot be compiled; express it with Keras layers"

# By Keras class, base classes included.
_LAYERS = {
    "RNN": _RECURRENT,
    "LSTM": _RECURRENT,
    "GRU": _RECURRENT,
    "SimpleRNN": _RECURRENT,
    "ConvLSTM1D": _RECURRENT,
    "ConvLSTM2D": _RECURRENT,
    "ConvLSTM3D": _RECURRENT,
    "Bidirectional": _RECURRENT,
    "TimeDistributed": "sequences of images are not supported; apply the inner layer to single images",
    "Lambda": _LAMBDA,
    **dict.fromkeys(("FlaxLayer", "JaxLayer", "TFSMLayer", "TorchModuleWrapper"), _WRAPPED),
    "Embedding": _TABLE,
    "Masking": _MASK,
    "Conv1DTranspose": _TRANSPOSED,
    "Conv2DTranspose": _TRANSPOSED,
    "Conv3DTranspose": _TRANSPOSED,
    **dict.fromkeys(("Conv3D", "AveragePooling3D", "MaxPooling3D", "AdaptiveAveragePooling3D"), _VOLUME),
    **dict.fromkeys(("AdaptiveMaxPooling3D", "UpSampling3D"), _VOLUME),
    **dict.fromkeys(("UpSampling1D", "UpSampling2D"), _RESIZED),
    **dict.fromkeys(("CategoryEncoding", "Discretization", "Hashing", "HashedCrossing"), _CATEGORIES),
    **dict.fromkeys(("IntegerLookup", "StringLookup", "TextVectorization"), _CATEGORIES),
    **dict.fromkeys(("MelSpectrogram", "STFTSpectrogram"), _SPECTRUM),
    **dict.fromkeys(("AutoContrast", "ContrastLimitedAdaptiveHistogramEqualization", "Equalization"), _ADJUSTED),
}

_ACTIVATIONS = {"sparse_plus", "threshold"}

# By ONNX operator.
_OPERATORS = {
    **dict.fromkeys(("GRU", "LSTM", "RNN", "Loop", "Scan"), _RECURRENT),
    "ConvTranspose": _TRANSPOSED,
    "Resize": _RESIZED,
    "Upsample": _RESIZED,
    **dict.fromkeys(("Greater", "GreaterOrEqual", "Less", "LessOrEqual", "ThresholdedRelu"), JUMP),
}


# By class of torch.nn: what it does says more than the operators that it is exported as.
_MODULES = {
    **dict.fromkeys(("BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "SyncBatchNorm"), _BATCH),
    **dict.fromkeys(("Upsample", "UpsamplingNearest2d", "UpsamplingBilinear2d"), _RESIZED),
    **dict.fromkeys(("LSTM", "GRU", "RNN", "LSTMCell", "GRUCell", "RNNCell"), _RECURRENT),
    "Embedding": _TABLE,
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


def module_refusal(kind: str, sizes: Callable[[], tuple[Sequence[int], Sequence[int]]]) -> str | None:
    """Why a module of torch.nn cannot be lowered, by its class; None where its operators say it.

    `sizes` finds the ONNX dimensions of its input and output, empty where they are not known.
    """
    if re.fullmatch(r"Adaptive\w+Pool\dd", kind):
        given, gives = sizes()
        if len(given) == len(gives) > 2:
            return adaptive_refusal(given[2:], gives[2:])
    return _MODULES.get(kind)


def adaptive_refusal(given: Sequence[int], gives: Sequence[int]) -> str:
    """Why pooling to a size that does not divide the input's cannot be lowered."""
    near = [
        max(d for d in range(1, size + 1) if size % d == 0 and d <= max(to, 1))
        for size, to in zip(given, gives, strict=True)
    ]
    sizes = ["×".join(map(str, size)) for size in (given, gives, near)]
    return f"from {sizes[0]} to {sizes[1]} its windows differ in size; pool to a size that divides it, as {sizes[2]}"


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
