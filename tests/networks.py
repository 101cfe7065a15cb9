"""Small networks for tests, and hypothesis strategies that draw operators."""

import numpy as np
from hypothesis import strategies as st

from snnc import ir
from snnc.ir import Connection, Origin, Population


def weights(seed: int, *shape: int, scale: float = 1.0) -> np.ndarray:
    """Numbers within ±scale that look random and are the same with every version of numpy."""
    mixed = (np.arange(1, np.prod(shape) + 1, dtype=np.uint64) * 2654435761 + seed * 40503) % 4096
    return (scale * (mixed / 2048 - 1)).astype(np.float32).reshape(shape)


def residual() -> ir.Network:
    """Most operators, per-position bias, a skip, a branch that leads nowhere; not canonical.

    On `weights(100, 40, 8, 8, 2)` all five classes occur about equally often.
    """
    return ir.Network(
        [
            Population("image", (8, 8, 2), ir.Input()),
            Population(
                "stem", (8, 8, 8), ir.Relu(), weights(0, 8, scale=0.1), Origin(("stem_conv", "stem_bn", "stem"))
            ),
            Population("branch", (8, 8, 8), ir.Relu(), weights(1, 8, scale=0.1), Origin(("branch",))),
            Population("merged", (8, 8, 8), ir.Clip(6.0), weights(2, 8, 8, 8, scale=0.1), Origin(("add", "merged"))),
            Population("forgotten", (8,), ir.Relu(), None, Origin(("forgotten",))),
            Population("digit", (5,), ir.Softmax(), np.array([-0.03, -0.03, -0.22, 0.06, 0.15]), Origin(("digit",))),
        ],
        [
            Connection(
                "image",
                "stem",
                (
                    ir.Pad(((1, 1), (1, 1), (0, 0))),
                    ir.Conv2D(weights(4, 3, 3, 2, 8, scale=0.4)),
                    ir.Scale(weights(5, 8)),
                ),
                origin=Origin(("stem_conv", "stem_bn")),
            ),
            Connection(
                "stem", "branch", (ir.Conv2D(weights(6, 3, 3, 4, 8, scale=0.5), padding=((1, 1), (1, 1)), groups=2),)
            ),
            Connection(
                "branch",
                "merged",
                (ir.Conv2D(weights(7, 3, 3, 8, 8, scale=0.35), padding=((2, 2), (2, 2)), dilation=(2, 2)),),
            ),
            Connection("stem", "merged"),
            Connection("merged", "forgotten", (ir.Flatten(), ir.Dense(weights(8, 512, 8)))),
            Connection(
                "merged",
                "digit",
                (
                    ir.AveragePool2D((3, 3), (2, 2), ((0, 1), (1, 0))),
                    ir.Scale(weights(9, 8)),
                    ir.Flatten(),
                    ir.Dense(weights(10, 128, 5, scale=0.5)),
                ),
            ),
        ],
        ["image"],
        ["digit"],
    )


@st.composite
def operator_chains(draw: st.DrawFn) -> tuple[ir.Shape, tuple[ir.Operator, ...]]:
    """An input shape and up to six operators that fit it one after another."""
    small = st.integers(1, 4)
    shape = start = draw(
        st.one_of(st.tuples(small.map(lambda n: n + 2), small.map(lambda n: n + 2), small), st.tuples(small))
    )
    chain = []
    for _ in range(draw(st.integers(0, 6))):
        operator = draw(_image_operators(shape) if len(shape) == 3 else _flat_operators(shape))
        shape = operator.output_shape(shape)
        chain.append(operator)
    return start, tuple(chain)


def _array(*shape: int) -> st.SearchStrategy[np.ndarray]:
    return st.integers(0, 2**32 - 1).map(lambda seed: weights(seed, *shape))


@st.composite
def _picks(draw: st.DrawFn, size: int) -> ir.Pick:
    """Some of `size` numbers, as a vector or an image."""
    shape = draw(st.sampled_from([(1,), (4,), (6,), (1, 3, 2), (3, 4, 1), (2, 1, 3)]))
    count = int(np.prod(shape))
    picked = draw(st.lists(st.integers(0, size - 1), min_size=count, max_size=count))
    return ir.Pick(np.array(picked).reshape(shape))


def _flat_operators(shape: ir.Shape) -> st.SearchStrategy[ir.Operator]:
    size = shape[0]
    return st.one_of(
        st.integers(1, 5).flatmap(lambda units: _array(size, units)).map(ir.Dense),
        _array(size).map(ir.Scale),
        st.tuples(st.tuples(st.integers(0, 2), st.integers(0, 2))).map(ir.Pad),
        _picks(size),
        st.just(ir.Flatten()),
    )


@st.composite
def _convolution(draw: st.DrawFn, shape: ir.Shape) -> ir.Conv2D:
    height, width, channels = shape
    groups = draw(st.sampled_from([g for g in (1, 2, channels) if channels % g == 0]))
    kernel = draw(st.tuples(st.integers(1, min(3, height)), st.integers(1, min(3, width))))
    padding = draw(st.tuples(*[st.tuples(st.integers(0, 2), st.integers(0, 2))] * 2))
    fits = all(2 * (k - 1) + 1 <= size for k, size in zip(kernel, shape, strict=False))
    dilation = draw(st.sampled_from([(1, 1), (2, 2)] if fits else [(1, 1)]))
    weight = draw(_array(*kernel, channels // groups, groups * draw(st.integers(1, 2))))
    return ir.Conv2D(weight, draw(st.tuples(st.integers(1, 2), st.integers(1, 2))), padding, dilation, groups)


@st.composite
def transposed(draw: st.DrawFn, shape: ir.Shape) -> ir.ConvTranspose2D:
    channels = shape[2]
    groups = draw(st.sampled_from([g for g in (1, 2, channels) if channels % g == 0]))
    kernel, strides, dilation = (draw(st.tuples(*[st.integers(1, most)] * 2)) for most in (3, 3, 2))
    cropping = tuple(
        draw(st.tuples(*[st.integers(0, ((n - 1) * s + d * (k - 1)) // 2)] * 2))
        for n, k, s, d in zip(shape, kernel, strides, dilation, strict=False)
    )
    weight = draw(_array(*kernel, channels // groups, groups * draw(st.integers(1, 2))))
    return ir.ConvTranspose2D(weight, strides, cropping, dilation, groups)


@st.composite
def resampling(draw: st.DrawFn, shape: ir.Shape, step: float = 2**-11) -> ir.Resample:
    """Any positions along one axis, up to three for each, some with a weight of zero; or one for each as it is."""
    axis, taps, size = draw(st.integers(0, 1)), draw(st.integers(1, 3)), draw(st.integers(1, 5))
    places = draw(st.lists(st.integers(0, shape[axis] - 1), min_size=taps * size, max_size=taps * size))
    weight = np.round(draw(_array(taps, size)) / step) * step
    plain = taps == 1 and draw(st.booleans())
    return ir.Resample(
        axis, np.array(places).reshape(taps, size), np.ones((1, size)) if plain else weight * (weight > -0.5)
    )


@st.composite
def _pooling(draw: st.DrawFn, shape: ir.Shape) -> ir.AveragePool2D:
    size = draw(st.tuples(st.integers(1, min(3, shape[0])), st.integers(1, min(3, shape[1]))))
    padding = tuple(draw(st.tuples(st.integers(0, s - 1), st.integers(0, s - 1))) for s in size)
    return ir.AveragePool2D(size, draw(st.tuples(st.integers(1, 3), st.integers(1, 3))), padding)


def _image_operators(shape: ir.Shape) -> st.SearchStrategy[ir.Operator]:
    size = int(np.prod(shape))
    return st.one_of(
        _convolution(shape),
        transposed(shape),
        resampling(shape),
        _pooling(shape),
        _array(shape[2]).map(ir.Scale),
        _array(*shape).map(ir.Scale),
        st.tuples(*[st.tuples(st.integers(0, 2), st.integers(0, 2))] * 3).map(ir.Pad),
        st.tuples(st.just((0, 0)), st.just((0, 0)), st.tuples(st.integers(0, 2), st.integers(0, 2))).map(ir.Pad),
        _picks(size),
        st.integers(1, 4).flatmap(lambda units: _array(size, units)).map(ir.Dense),
        st.just(ir.Flatten()),
    )


def every_function(k: int = 12) -> tuple[ir.Network, np.ndarray, dict[str, np.ndarray]]:
    """Each function in a soma, signed codes of `k` bits; numbers to show, and each function of them, (numbers, 1).

    The numbers are from −15/16 to 15/16; one or two are added where a function is not defined for them.
    """
    shown = (np.arange(-15, 16, 2, dtype=np.float32) / 16)[:, np.newaxis]
    populations, values = [Population("x", (1,), ir.GradedInput())], {}
    shifts = dict.fromkeys(("log", "reciprocal", "rsqrt", "sqrt"), 1) | {"acosh": 2}
    for name in ir.FUNCTIONS:
        shift = np.float32(shifts.get(name, 0))
        parameter = {"power": 3.0, "squareplus": 4.0}.get(name, 0.75)
        values[name] = ir.FUNCTIONS[name].apply(shown.astype(np.float64) + shift, parameter)
        largest = 2.0 ** np.ceil(np.log2(np.abs(values[name]).max() * 1.001))
        computes = ir.Function(name, parameter)
        soma = ir.FewSpikeFunction(k, largest, largest / 2 ** (k + 1), computes, signed=True)
        populations.append(Population(name, (1,), soma, np.array([shift])))
    connections = [Connection("x", name) for name in values]
    network = ir.Network(populations, connections, ["x"], list(values), k)
    ir.verify(network, "spiking")
    return network, shown, values
