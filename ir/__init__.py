"""The intermediate representation: nonlinearities are nodes, linear maps are edges."""

from .data import Images, as_inputs, as_labels
from .errors import (
    BackendError,
    DataError,
    ModelFileError,
    NetworkFileError,
    PipelineError,
    ShapeError,
    SnncError,
    UnsupportedModelError,
    VerificationError,
)
from .file import load, save
from .folding import fold
from .network import Connection, Network, Origin, Population
from .neurons import (
    AnalogNeuron,
    Clip,
    CurrentInput,
    Identity,
    Input,
    Integrate,
    IntegrateFire,
    MaxPool2D,
    Neuron,
    Relu,
    Softmax,
    SpikingNeuron,
)
from .operators import AveragePool2D, Conv2D, Dense, Flatten, Operator, Pad, Pick, Scale, apply, output_shape
from .text import summary, to_text
from .verify import Stage, faults, verify
from .windows import NO_PADDING, Padding, Pair, Shape

__all__ = [
    "NO_PADDING",
    "AnalogNeuron",
    "AveragePool2D",
    "BackendError",
    "Clip",
    "Connection",
    "Conv2D",
    "CurrentInput",
    "DataError",
    "Dense",
    "Flatten",
    "Identity",
    "Images",
    "Input",
    "Integrate",
    "IntegrateFire",
    "MaxPool2D",
    "ModelFileError",
    "Network",
    "NetworkFileError",
    "Neuron",
    "Operator",
    "Origin",
    "Pad",
    "Padding",
    "Pair",
    "Pick",
    "PipelineError",
    "Population",
    "Relu",
    "Scale",
    "Shape",
    "ShapeError",
    "SnncError",
    "Softmax",
    "SpikingNeuron",
    "Stage",
    "UnsupportedModelError",
    "VerificationError",
    "apply",
    "as_inputs",
    "as_labels",
    "faults",
    "fold",
    "load",
    "output_shape",
    "save",
    "summary",
    "to_text",
    "verify",
]
