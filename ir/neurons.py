"""The neurons: nonlinearities that populations apply to their summed input.

Analog neurons map the input once; spiking neurons are stepped T times. Each docstring states the
equation; x is the sum over the incoming connections plus the population's bias. A neuron with several ports has such
a sum for each: x₀ and x₁.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np

from .codes import by_magnitude, rounded_off, staircase
from .errors import ShapeError
from .functions import FUNCTIONS
from .record import LATER, Record
from .windows import NO_PADDING, Padding, Pair, Shape, pool_counts, windows


@dataclass(frozen=True, eq=False)
class Neuron(Record):
    """What a population does with its input."""

    spiking: ClassVar[bool] = False
    is_input: ClassVar[bool] = False
    is_readout: ClassVar[bool] = False

    @property
    def tells_labels(self) -> bool:
        """Whether each number of an output is of a label that holds or not, rather than of one class of several."""
        return False

    @property
    def ports(self) -> int:
        """How many summed inputs there are."""
        return 1

    def output_shape(self, shape: Shape) -> Shape:
        """The shape of the population, given the shape of the summed input at port 0."""
        return shape

    def input_shape(self, shape: Shape, port: int = 0) -> Shape:
        """The shape of the summed input at a port, given the shape of the population."""
        return shape


@dataclass(frozen=True, eq=False)
class AnalogNeuron(Neuron):
    """A neuron of the ANN: one real value."""

    @property
    def is_signed(self) -> bool:
        """Whether y can be negative."""
        return True

    @property
    def is_homogeneous(self) -> bool:
        """Whether c times the input makes c times the activation, for all c > 0."""
        return False

    def apply(self, *x: Any) -> np.ndarray:
        """The activation, of shape (batch, *output_shape), for summed inputs: one for each port."""
        (only,) = x
        return np.asarray(only)

    def tracked(self, steps: float, *x: Any) -> np.ndarray:
        """`steps` times the activation for the means of what was summed up over so many steps: x, by port."""
        return self.apply(*x) if self.is_homogeneous else steps * self.apply(*(each / steps for each in x))


@dataclass(frozen=True, eq=False)
class Input(AnalogNeuron):
    """`y = the network's input`."""

    is_input: ClassVar[bool] = True


@dataclass(frozen=True, eq=False)
class Relu(AnalogNeuron):
    """`y = max(x, 0)`."""

    @property
    def is_signed(self) -> bool:
        return False

    @property
    def is_homogeneous(self) -> bool:
        return True

    def apply(self, x: np.ndarray) -> np.ndarray:
        return np.maximum(x, 0)


@dataclass(frozen=True, eq=False)
class Clip(AnalogNeuron):
    """`y = min(max(x, 0), max)`: ReLU6 is `Clip(6)`."""

    max: float

    @property
    def is_signed(self) -> bool:
        return False

    def apply(self, x: np.ndarray) -> np.ndarray:
        return np.clip(x, 0, self.max)

    def tracked(self, steps: float, *x: Any) -> np.ndarray:
        (only,) = x
        return np.clip(only, 0, self.max * steps)


@dataclass(frozen=True, eq=False)
class QuantizedRelu(AnalogNeuron):
    """`y = q · min(max(round(x / q), 0), levels)` with the quantum `q = max / levels`: a clipped, rounding rectifier.

    As in quantised networks, and in networks trained for conversion [Bu 2022,
    https://openreview.net/forum?id=7B3IJMM1k_M]. `ties` says where x goes that lies halfway between two multiples of q:
    `up`, as an integrate-and-fire neuron has it, or to the `even` or the `odd` one. Rounding
    down is rounding `x − q/2`.
    """

    max: float
    levels: int
    ties: Literal["up", "even", "odd"] = "up"

    @property
    def is_signed(self) -> bool:
        return False

    def apply(self, x: np.ndarray) -> np.ndarray:
        steps = x / np.asarray(self.max / self.levels, x.dtype)
        odd = self.ties == "odd"
        rounded = np.floor(steps + x.dtype.type(0.5)) if self.ties == "up" else np.rint(steps + odd) - odd
        return np.clip(rounded, 0, self.levels) * np.asarray(self.max / self.levels, x.dtype)


@dataclass(frozen=True, eq=False)
class SomaNeuron(AnalogNeuron):
    """A neuron that is more than a rectifier: what computes it in spikes must know its whole input, or its mean."""


@dataclass(frozen=True, eq=False)
class Function(SomaNeuron):
    """`y = f(x)`: f is `function`, one of `snnc.ir.FUNCTIONS` by name, with its `parameter`."""

    function: str
    parameter: float = 1.0

    def apply(self, x: np.ndarray) -> np.ndarray:
        return FUNCTIONS[self.function].apply(x, self.parameter)

    @property
    def is_signed(self) -> bool:
        return FUNCTIONS[self.function].is_signed

    @property
    def is_homogeneous(self) -> bool:
        return FUNCTIONS[self.function].homogeneous


@dataclass(frozen=True, eq=False)
class TwoPorts(SomaNeuron):
    """A neuron of two summed inputs."""

    @property
    def ports(self) -> int:
        return 2


@dataclass(frozen=True, eq=False)
class Product(TwoPorts):
    """`y = x₀ · f(x₁)`, number by number: gates, squares, normalisation. f is the identity unless `function` names one.

    So a reciprocal, or that of a root, multiplies as it is: near its pole no code could say it.
    """

    function: str = "identity"
    parameter: float = 1.0

    def apply(self, x: np.ndarray, other: np.ndarray) -> np.ndarray:
        return x * FUNCTIONS[self.function].apply(other, self.parameter)


@dataclass(frozen=True, eq=False)
class MatMul(TwoPorts):
    """`y[b, m, n] = Σ_k x₀[b, m, k] · x₁[b, k, n]`: products of matrices, as in attention, where b is the head.

    `left` and `right` are the shapes of the summed inputs, (B, M, K) and (B, K, N).
    """

    left: Shape
    right: Shape

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """B, M, N and K."""
        (batch, rows, inner), columns = self.left, self.right[2]
        return batch, rows, columns, inner

    @property
    def products(self) -> int:
        """How many products of two numbers are summed up in all."""
        return math.prod(self.sizes)

    def output_shape(self, shape: Shape) -> Shape:
        if len(self.left) != 3 or len(self.right) != 3:
            raise ShapeError(f"MatMul needs inputs of shape (B, M, K) and (B, K, N), not {self.left} and {self.right}")
        (batch, rows, inner), (others, shared, columns) = self.left, self.right
        if (batch, inner) != (others, shared):
            raise ShapeError(f"MatMul cannot multiply matrices of shapes {self.left} and {self.right}")
        return batch, rows, columns

    def input_shape(self, shape: Shape, port: int = 0) -> Shape:
        return self.right if port else self.left

    def apply(self, x: np.ndarray, other: np.ndarray) -> np.ndarray:
        return np.matmul(x, other)


@dataclass(frozen=True, eq=False)
class LeakyRelu(AnalogNeuron):
    """`y = max(x, 0) + slope · min(x, 0)`.

    `slope` is a number, one per channel, (C,), or one per position, of the population's shape.
    """

    slope: float | np.ndarray

    @property
    def is_homogeneous(self) -> bool:
        return True

    def apply(self, x: np.ndarray) -> np.ndarray:
        return np.maximum(x, 0) + np.minimum(x, 0) * self.slope


@dataclass(frozen=True, eq=False)
class MaxPool2D(AnalogNeuron):
    """`y[h, w, c] = max of x over a window`; positions in the padding never win.

    The summed input has shape `image`, (H, W, C); the population has the pooled shape.
    """

    image: Shape
    pool_size: Pair
    strides: Pair
    padding: Padding = NO_PADDING

    @property
    def is_homogeneous(self) -> bool:
        return True

    def output_shape(self, shape: Shape) -> Shape:
        counts = pool_counts("MaxPool2D", shape, self.pool_size, self.strides, self.padding)
        return (*counts, shape[2])

    def input_shape(self, shape: Shape, port: int = 0) -> Shape:
        return self.image

    def apply(self, x: np.ndarray) -> np.ndarray:
        return windows(x, self.pool_size, self.strides, self.padding, fill=-np.inf).max((-1, -2))


@dataclass(frozen=True, eq=False)
class MaxPoolRelu2D(MaxPool2D):
    """`y[h, w, c] = max(0, max of x over a window)`: a rectifier with its pooling, in one population."""

    @property
    def is_signed(self) -> bool:
        return False

    def apply(self, x: np.ndarray) -> np.ndarray:
        return np.maximum(super().apply(x), 0)


@dataclass(frozen=True, eq=False)
class Identity(AnalogNeuron):
    """`y = x`: a linear readout."""

    is_readout: ClassVar[bool] = True

    @property
    def is_homogeneous(self) -> bool:
        return True


@dataclass(frozen=True, eq=False)
class ProbabilityReadout(AnalogNeuron):
    """A readout of probabilities. Spikes say x itself, from which follows what is likely."""

    is_readout: ClassVar[bool] = True


@dataclass(frozen=True, eq=False)
class Softmax(ProbabilityReadout):
    """`y = exp(x) / Σ exp(x)` over the last axis: a readout of class probabilities."""

    def apply(self, x: np.ndarray) -> np.ndarray:
        exponential = np.exp(x - x.max(-1, keepdims=True))
        return exponential / exponential.sum(-1, keepdims=True)


@dataclass(frozen=True, eq=False)
class LogSoftmax(Softmax):
    """`y = x − log Σ exp(x)` over the last axis: the logarithm of class probabilities."""

    def apply(self, x: np.ndarray) -> np.ndarray:
        shifted = x - x.max(-1, keepdims=True)
        return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


@dataclass(frozen=True, eq=False)
class Sigmoid(ProbabilityReadout):
    """`y = 1 / (1 + exp(−x))`: a readout of labels, each with a probability of its own."""

    @property
    def is_signed(self) -> bool:
        return False

    @property
    def tells_labels(self) -> bool:
        return True

    def apply(self, x: np.ndarray) -> np.ndarray:
        return FUNCTIONS["sigmoid"].apply(x)


@dataclass(frozen=True, eq=False)
class SpikingNeuron(Neuron):
    """A neuron of the SNN, stepped once in each of the T timesteps of its window.

    `fires` says that it sends spikes, which are counted; what does not fire is graded or a readout. `phased` neurons
    make few-spike networks, in which a window is a phase and the windows of successive depths do not overlap.
    """

    spiking: ClassVar[bool] = True
    fires: ClassVar[bool] = False
    phased: ClassVar[bool] = False

    @property
    def amplitude(self) -> float | np.ndarray:
        """What is sent counts downstream as so many units of the ANN's activations: a number, or one per channel."""
        return 1.0

    @property
    def sends_values(self) -> bool:
        """Whether what is sent counts as a number of its own, as by its sign or its step; else always as 1."""
        return False

    @property
    def sayable(self) -> tuple[float, float]:
        """The lowest and the highest number of an input that is sent as what it is, or that it was calibrated for."""
        return -np.inf, np.inf

    def reach(self, x: np.ndarray) -> np.ndarray:
        """What of activations x, (…, C), in double precision, a spike train could say if it went on for ever."""
        return x

    def says(self, x: np.ndarray, timesteps: int) -> np.ndarray:
        """What is decoded at best of activations x, (…, C), in double precision: if x is the same in every step."""
        return x

    def rounds_off(self, timesteps: int) -> float:
        """How far what `says` gives is from an activation within reach at most; 0 for what says numbers themselves."""
        return 0.0

    @property
    def sends_signs(self) -> bool:
        """Whether magnitudes are coded, and every spike has the sign, by a field `signed`."""
        return bool(getattr(self, "signed", False))

    @property
    def pooling(self) -> MaxPool2D | None:
        """The max pooling that a neuron with a field `pool` applies to its input, in every step."""
        return getattr(self, "pool", None)

    @property
    def soma(self) -> AnalogNeuron | None:
        """The analog neuron whose activation a neuron with a field `computes` says."""
        return getattr(self, "computes", None)

    @property
    def ports(self) -> int:
        return self.soma.ports if self.soma else 1

    def output_shape(self, shape: Shape) -> Shape:
        inner = self.soma or self.pooling
        return inner.output_shape(shape) if inner else shape

    def input_shape(self, shape: Shape, port: int = 0) -> Shape:
        inner = self.soma or self.pooling
        return inner.input_shape(shape, port) if inner else shape


@dataclass(frozen=True, eq=False)
class CurrentInput(SpikingNeuron):
    """Constant current: the network's input itself, sent unchanged in every one of the T steps.

    It is graded, not binary: its targets receive `W · input` in each step [Rueckauer 2017]. `largest` is the largest
    magnitude in the images that the network was calibrated with, 0 if that is not known; nothing is computed with it.
    """

    is_input: ClassVar[bool] = True

    largest: float = 0.0

    @property
    def sends_values(self) -> bool:
        return True

    @property
    def sayable(self) -> tuple[float, float]:
        return (-self.largest, self.largest) if self.largest else super().sayable


@dataclass(frozen=True, eq=False)
class SpikeEncoding(SpikingNeuron):
    """An input that is turned into spikes: of `max(input, 0)` or, if `signed`, of `|input|` with the input's sign.

    A negative spike counts as −1 wherever a spike counts as 1; the sign of 0 is positive. `v_thresh` is λ: what a
    spike stands for.
    """

    is_input: ClassVar[bool] = True
    fires: ClassVar[bool] = True

    v_thresh: float = 1.0
    signed: bool = False

    @property
    def amplitude(self) -> float | np.ndarray:
        return self.v_thresh

    @property
    def sends_values(self) -> bool:
        return self.signed

    @property
    def sayable(self) -> tuple[float, float]:
        return -self.v_thresh if self.signed else 0.0, self.v_thresh

    def reach(self, x: np.ndarray) -> np.ndarray:
        return np.clip(x, *self.sayable)


@dataclass(frozen=True, eq=False)
class IntegrateFireInput(SpikeEncoding):
    """Integrate and fire on the input's magnitude a: `V += a` and then as `IntegrateFire`, from V = `v_init`.

    mlGeNN's neuron of this name is `reset="zero"` with `v_init=0`.
    """

    v_init: float = 0.0
    reset: Literal["subtract", "zero"] = "subtract"
    comparison: Literal[">=", ">"] = ">="

    def says(self, x: np.ndarray, timesteps: int) -> np.ndarray:
        return by_magnitude(lambda magnitude: _integrated(self, magnitude, timesteps), x, self.signed)

    def rounds_off(self, timesteps: int) -> float:
        return rounded_off(np.asarray(self.v_thresh) / timesteps, self.v_init / timesteps)


@dataclass(frozen=True, eq=False)
class PoissonInput(SpikeEncoding):
    """A spike in each step with probability `1 − exp(−a / v_thresh)`, a being the input's magnitude, as in mlGeNN.

    `seed` makes the spikes reproducible on each backend; no two backends draw the same ones.
    """

    seed: int = 0

    def reach(self, x: np.ndarray) -> np.ndarray:
        return by_magnitude(lambda magnitude: -self.v_thresh * np.expm1(-magnitude / self.v_thresh), x, self.signed)

    def says(self, x: np.ndarray, timesteps: int) -> np.ndarray:
        """What is fired on average."""
        return self.reach(x)


@dataclass(frozen=True, eq=False)
class SpikeInput(SpikeEncoding):
    """Binary spikes: one in every step where the input's magnitude is not zero, as mlGeNN's `BinarySpikeInput`."""

    def reach(self, x: np.ndarray) -> np.ndarray:
        return by_magnitude(lambda magnitude: self.v_thresh * (magnitude > 0), x, self.signed)

    def says(self, x: np.ndarray, timesteps: int) -> np.ndarray:
        return self.reach(x)


@dataclass(frozen=True, eq=False)
class IntegrateFire(SpikingNeuron):
    """Integrate and fire without leak. V starts at `v_init`; then, in every step,

    `V += x;  spike if V >= v_thresh;  on a spike V −= v_thresh (or V = 0)`.

    At most one spike a step. A spike adds `W · v_thresh` downstream, so the activation is decoded as
    `v_thresh · spikes / T`: of a steady x, as `v_thresh · clip(floor((x · T + v_init) / v_thresh), 0, T) / T`. With
    `reset="subtract"` (soft reset) no charge is lost [Rueckauer 2017]; `reset="zero"` is the hard reset of
    [Diehl 2015].

    `v_thresh` (λ) and `v_init` are in units of the ANN's activations: a number, or one per channel, (C,).
    `comparison` says whether a potential exactly at the threshold fires. With `pool`, x is the largest of each window
    of the summed input in that step; averaged over the steps it exceeds the largest average.
    """

    fires: ClassVar[bool] = True

    v_thresh: float | np.ndarray
    v_init: float | np.ndarray = 0.0
    reset: Literal["subtract", "zero"] = "subtract"
    comparison: Literal[">=", ">"] = ">="
    pool: MaxPool2D | None = None

    @property
    def amplitude(self) -> float | np.ndarray:
        return self.v_thresh

    def reach(self, x: np.ndarray) -> np.ndarray:
        return np.clip(x, 0, self.v_thresh)

    def says(self, x: np.ndarray, timesteps: int) -> np.ndarray:
        return _integrated(self, np.maximum(x, 0), timesteps)

    def rounds_off(self, timesteps: int) -> float:
        return rounded_off(np.asarray(self.v_thresh) / timesteps, self.v_init / timesteps)


def _integrated(neuron: IntegrateFire | IntegrateFireInput, x: np.ndarray, timesteps: int) -> np.ndarray:
    """The staircase of x ≥ 0. That of the soft reset is the ideal of the hard one, too, which only loses charge."""
    v_thresh = np.asarray(neuron.v_thresh, np.float64)
    strict = neuron.comparison == ">"
    return np.asarray(staircase(x, v_thresh, timesteps, neuron.v_init / v_thresh, strict=strict))


@dataclass(frozen=True, eq=False)
class Tracking(SpikingNeuron):
    """Rate code that follows what the analog neuron `computes`, f, makes of the mean input so far. X and S are 0 first;
    then, in step t = 1, 2, …,

    `X += x;  V = t · f(X / t) + v_init − v_thresh · S;  n = min(max(floor(V / v_thresh), −levels), levels);  S += n`

    and n is what is sent: |n| spikes of its sign. So the activation is decoded as `v_thresh · S / T`, which in the end
    is f of the mean input, rounded, unless more than `levels` spikes were to come in the last step. X and S are exact
    sums, so no spike is wrong for good: one that came too early is taken back. If f is a rectifier and x steady, these
    are the spikes of `IntegrateFire`. Known, for rectifiers, as signed neurons with memory [Wang 2022,
    https://doi.org/10.24963/ijcai.2022/347], as ST-BIF neurons [You 2024, https://arxiv.org/abs/2406.03470] and, with
    more levels, burst spikes [Li 2022, https://arxiv.org/abs/2204.13271].

    `v_thresh` (λ) and `v_init`, from 0 to λ, are in units of the ANN's activations: a number, or one per channel,
    (C,). With `v_init` half of λ activations are rounded, with 0 rounded down. There are as many X as f has ports.
    Where f is positively homogeneous, t · f(X / t) is f(X).
    """

    fires: ClassVar[bool] = True

    v_thresh: float | np.ndarray
    v_init: float | np.ndarray = 0.0
    levels: int = 1
    computes: AnalogNeuron = Relu()

    @property
    def amplitude(self) -> float | np.ndarray:
        return self.v_thresh

    @property
    def sends_values(self) -> bool:
        return True

    def reach(self, x: np.ndarray) -> np.ndarray:
        largest = self.levels * self.v_thresh
        return np.clip(x, -largest, largest)

    def says(self, x: np.ndarray, timesteps: int) -> np.ndarray:
        v_thresh, levels = np.asarray(self.v_thresh, np.float64), self.levels * timesteps
        return np.asarray(staircase(x, self.levels * v_thresh, levels, self.v_init / v_thresh, lowest=-levels))

    def rounds_off(self, timesteps: int) -> float:
        return rounded_off(np.asarray(self.v_thresh) / timesteps, self.v_init / timesteps)


@dataclass(frozen=True, eq=False)
class SpikingReadout(SpikingNeuron):
    """A readout that never fires. Its numbers are `scores` of `classes`, of which one is right, or of `labels`."""

    is_readout: ClassVar[bool] = True

    scores: Literal["classes", "labels"] = field(default="classes", metadata=LATER)

    @property
    def tells_labels(self) -> bool:
        return self.scores == "labels"


@dataclass(frozen=True, eq=False)
class Integrate(SpikingReadout):
    """A readout that never fires: `V += x` from V = 0; its value after t steps is decoded as `V / t`."""


@dataclass(frozen=True, eq=False)
class PhasedNeuron(SpikingNeuron):
    """A neuron of a few-spike network [Stöckl & Maass 2021, https://doi.org/10.1038/s42256-021-00311-4].

    Time runs in phases of T steps. A population at depth d collects what the phases before phase d send it, and
    sends its own spikes in phase d: one in step k = 1 … K of the phase stands for `alpha · 2^−k`.
    """

    phased: ClassVar[bool] = True

    @property
    def sends_values(self) -> bool:
        return True


@dataclass(frozen=True, eq=False)
class GradedInput(PhasedNeuron):
    """The network's input itself, sent unchanged once, in the first step of the phase. `largest` as in CurrentInput."""

    is_input: ClassVar[bool] = True

    largest: float = 0.0

    @property
    def sayable(self) -> tuple[float, float]:
        return (-self.largest, self.largest) if self.largest else super().sayable


@dataclass(frozen=True, eq=False)
class FewSpikeNeuron(PhasedNeuron):
    """Few-spike code of a value x ≥ 0. V = x + v_init at the start of the phase; then, in step k = 1 … `k`,

    `spike if V >= alpha · 2^−k;  on a spike V −= alpha · 2^−k`.

    So x is decoded as `q · clip(floor((x + v_init) / q), 0, levels)` with the quantum `q = alpha · 2^−k`:
    rounded if `v_init` is q / 2, truncated if it is 0. `alpha` and `v_init` are in units of the ANN's activations: a
    number, or one per channel, (C,). `k` is at most the phase's length. There are `2^k − 1` levels.
    """

    fires: ClassVar[bool] = True

    k: int
    alpha: float | np.ndarray
    v_init: float | np.ndarray = 0.0

    @property
    def amplitude(self) -> float | np.ndarray:
        return self.alpha

    @property
    def levels(self) -> int:
        """The largest number of quanta that a phase says."""
        return 2**self.k - 1

    @property
    def _largest(self) -> np.ndarray:
        return np.asarray(self.alpha, np.float64) * (self.levels / 2**self.k)

    def reach(self, x: np.ndarray) -> np.ndarray:
        return by_magnitude(lambda magnitude: np.minimum(magnitude, self._largest), x, self.sends_signs)

    def says(self, x: np.ndarray, timesteps: int) -> np.ndarray:
        offset = self.v_init * self.levels / self._largest
        return by_magnitude(lambda y: np.asarray(staircase(y, self._largest, self.levels, offset)), x, self.sends_signs)

    def rounds_off(self, timesteps: int) -> float:
        return rounded_off(np.asarray(self.alpha) * 2.0**-self.k, self.v_init)


@dataclass(frozen=True, eq=False)
class FewSpikeInput(FewSpikeNeuron):
    """Few-spike code of `max(input, 0)` or, if `signed`, of `|input|`, every spike with the input's sign."""

    is_input: ClassVar[bool] = True

    signed: bool = False

    @property
    def sayable(self) -> tuple[float, float]:
        largest = float(np.max(self.alpha))
        return -largest if self.signed else 0.0, largest


@dataclass(frozen=True, eq=False)
class FewSpike(FewSpikeNeuron):
    """Few-spike rectifier: x is the sum over the incoming phases plus the bias, or with `pool` its largest in a window.

    The maximum is taken of whole phases, so pooling is exact. With a `limit` there are so many levels instead of
    `2^k − 1`: V then starts at `largest_v = (limit + 1/2) · q` at most.
    """

    pool: MaxPool2D | None = None
    limit: int = 0

    @property
    def levels(self) -> int:
        return self.limit or super().levels

    @property
    def largest_v(self) -> float | np.ndarray:
        """Where V starts at most; infinity where nothing but k limits what is said."""
        if not self.limit:
            return np.inf
        largest = np.float32(self.limit + 0.5) * (self.alpha * np.float32(2.0**-self.k))
        return largest if isinstance(largest, np.ndarray) else float(largest)


@dataclass(frozen=True, eq=False)
class FewSpikeFunction(FewSpikeNeuron):
    """Few-spike code of y, which the soma computes of all its input at the start of the phase.

    y is what the analog neuron `computes` makes of the input, or of the inputs if it has several ports. It is coded as
    `FewSpike` codes x or, if `signed`, |y| with y's sign.
    """

    computes: AnalogNeuron = Function("silu")
    signed: bool = True


@dataclass(frozen=True, eq=False)
class FewSpikeReadout(SpikingReadout):
    """A readout that never fires: decoded as x, the sum over the incoming phases plus the bias."""

    phased: ClassVar[bool] = True


NEURONS: dict[str, type[Neuron]] = {
    cls.__name__: cls
    for cls in (
        Clip,
        CurrentInput,
        FewSpike,
        FewSpikeFunction,
        FewSpikeInput,
        FewSpikeReadout,
        Function,
        GradedInput,
        Identity,
        Input,
        Integrate,
        IntegrateFire,
        IntegrateFireInput,
        LeakyRelu,
        LogSoftmax,
        MatMul,
        MaxPool2D,
        MaxPoolRelu2D,
        PoissonInput,
        Product,
        QuantizedRelu,
        Relu,
        Sigmoid,
        Softmax,
        SpikeInput,
        Tracking,
    )
}
