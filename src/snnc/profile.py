"""Where a conversion loses accuracy: the analog and the spiking network side by side, layer by layer.

Populations are joined by name or by the layers they came from, halves of one with what is positive and what is negative
of its activation, and each neuron's error is taken apart:

    analog − decoded  =  clipping  +  quantisation  +  unevenness

- clipping: the activation above λ, which no spike train of one spike a step can say (above levels · λ, of tracking
  neurons), or above the largest number of a few-spike code: raise λ or α. Of an input that spikes, also what its
  encoding never says, however long it runs.
- quantisation: what a steady input loses because spikes are whole and T is finite: lower λ or raise T; in a few-spike
  network what k bits lose: raise k.
- unevenness: the rest. Spikes that came at the wrong time for their number to be right, and the errors of the
  layers before, handed on. A few-spike neuron waits for all of its input, so its own is only what was handed on.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich import box
from rich.table import Table
from rich.text import Text

from . import functions
from .backend.compiled import Recording, track
from .backend.onnxruntime import CompiledAnalog, CompiledEngine
from .functions import Computation, computations
from .ir import (
    DataError,
    FewSpikeNeuron,
    Images,
    Network,
    Population,
    Shape,
    SpikeEncoding,
    SpikingNeuron,
    Tracking,
    as_inputs,
    as_network,
)
from .passes.calibration import with_logits
from .passes.conversion import is_of_sum
from .passes.split_signs import half_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PARTS = ("clipping", "quantisation", "unevenness")
SAMPLE = 2000
SEED = 0

# Activations taken apart at once, in float64: bounds memory for large layers without a loop over single images.
CHUNK = 2**20

_COLOURS = dict(zip(PARTS, ("#d95f02", "#1b9e77", "#7570b3"), strict=True))
_WIDEST_GRID = 6


@dataclass(frozen=True, eq=False)
class LayerProfile:
    """How one spiking population's decoded activations compare with the analog population's.

    `population` and `analog` are the two names, `origin` the user's layers. Activations and errors are in the
    ANN's units: `mean_activation` and `mean_error` are means of absolute values over images and neurons,
    `largest_error` the largest absolute one; `clipping`, `quantisation` and `unevenness` the mean absolute parts.
    `correlation` is Pearson's, None where either side does not vary. `threshold` is the smallest and the largest λ (α
    of few-spike neurons), `rate` the spikes per neuron and step; both None for a readout, which never fires.
    `sample` are at most 2000 (analog, decoded) pairs drawn at random, (points, 2).
    """

    population: str
    analog: str
    origin: tuple[str, ...]
    neurons: int
    threshold: tuple[float, float] | None
    rate: float | None
    correlation: float | None
    mean_activation: float
    mean_error: float
    largest_error: float
    clipping: float
    quantisation: float
    unevenness: float
    sample: np.ndarray

    def relative(self, error: float) -> float | None:
        """An error of this layer as a share of its mean activation; None for a layer that is silent."""
        return error / self.mean_activation if self.mean_activation else None


@dataclass(frozen=True)
class Profile:
    """The layers of a spiking network in topological order, after `timesteps` steps, over `images` images.

    Inputs are among them if they spike: what they decode to is compared with the images. In a few-spike network
    `timesteps` is the length of a phase. `latency` are the steps from an image's first to its answer; images may follow
    one another `timesteps` apart. `only_analog` and `only_spiking` name the populations that have no counterpart in the
    other network. `functions` says how the spiking network computes what is more than a rectifier.
    """

    timesteps: int
    latency: int
    images: int
    layers: tuple[LayerProfile, ...]
    only_analog: tuple[str, ...]
    only_spiking: tuple[str, ...]
    functions: tuple[Computation, ...] = ()


def profile(analog: Network, spiking: Network, x: Images, *, progress: bool = True) -> Profile:
    """Run both networks on the images `x`, (images, *input shape), and compare them layer by layer.

    Readouts are compared before the softmax. Images are streamed: memory does not grow with their number.
    Raises DataError for images that do not fit or networks that have no layer in common, VerificationError for
    networks that are not analog and spiking.
    """
    analog, spiking = as_network(analog), as_network(spiking)
    if set(analog.inputs) != set(spiking.inputs):
        raise DataError(f"cannot compare: the networks take {_names(analog.inputs)} and {_names(spiking.inputs)}")
    reference, engine = CompiledAnalog(with_logits(analog)), CompiledEngine(spiking)
    pairs = _join(analog, spiking)
    if not pairs:
        raise DataError("cannot compare: no population of the two networks has the same name or the same layers")
    inputs = as_inputs(spiking, x)
    images, timesteps = len(next(iter(inputs.values()))), spiking.timesteps
    assert timesteps is not None  # verified
    tallies = [
        _Tally(analog.populations[partner], spiking.populations[name], timesteps, images)
        for name, partner in pairs.items()
    ]
    recorded = [name for name, p in spiking.populations.items() if isinstance(p.neuron, (FewSpikeNeuron, Tracking))]
    with track(f"profiling {images} images for {timesteps} timesteps", images, progress) as advance:
        for part, activations in _batches(reference, inputs):
            recording = engine.simulate(part, record=recorded, progress=False)
            for tally in tallies:
                tally.add(activations[tally.analog.name], recording)
            advance(len(next(iter(part.values()))))
    return Profile(
        timesteps,
        spiking.latency,
        images,
        tuple(tally.result() for tally in tallies),
        _unjoined(analog, set(pairs.values())),
        _unjoined(spiking, pairs),
        computations(spiking),
    )


def error_parts(
    analog: np.ndarray, decoded: np.ndarray, neuron: SpikingNeuron, timesteps: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Clipping, quantisation and unevenness of each activation, in the ANN's units; they sum to analog − decoded.

    `analog` and `decoded` are (images, *population shape). With a the analog activation, c what of it the longest spike
    train could say, and q what the neuron decodes to if a is what reaches it, the same in every step:

        clipping = a − c    quantisation = c − q    unevenness = q − decoded

    What they are for each neuron, `SpikingNeuron.reach` and `SpikingNeuron.says` have. Of a Poisson input, c and q are
    what it fires on average, so chance is unevenness; of a hard reset they are those of the soft one, so the charge
    that it throws away is, too. A readout neither clips nor quantises.
    """
    clipped, ideal = neuron.reach(analog), neuron.says(analog, timesteps)
    return analog - clipped, clipped - ideal, ideal - decoded


def to_table(profile: Profile) -> Table:
    """The profile for a terminal: errors in the ANN's units, their parts as shares of the layer's mean activation."""
    table = Table(
        title=f"decoded against analog activations: {profile.images} images, {profile.timesteps} timesteps, "
        f"latency {profile.latency}",
        title_justify="left",
        caption=_caption(profile),
        caption_justify="left",
        box=box.SIMPLE,
        padding=(0, 1, 0, 0),
    )
    table.add_column("population", overflow="fold", min_width=12)
    for heading in (
        "λ",
        "rate",
        "corr.",
        "mean\nerror",
        "largest\nerror",
        "clip-\nping",
        "quanti-\nsation",
        "uneven-\nness",
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    for layer in profile.layers:
        table.add_row(
            Text(layer.population),
            _threshold(layer),
            _or_dash(layer.rate, ".3f"),
            _or_dash(layer.correlation, ".3f"),
            f"{layer.mean_error:.2g}",
            f"{layer.largest_error:.2g}",
            *(_or_dash(layer.relative(getattr(layer, part)), ".1%") for part in PARTS),
        )
    return table


def to_json(profile: Profile) -> dict[str, Any]:
    """The profile as JSON takes it: every number of every layer, without the sample; `functions` if there are any."""
    return {
        "timesteps": profile.timesteps,
        "latency": profile.latency,
        "images": profile.images,
        "layers": [_layer_json(layer) for layer in profile.layers],
        "only_analog": list(profile.only_analog),
        "only_spiking": list(profile.only_spiking),
        **({"functions": functions.to_json(profile.functions)} if profile.functions else {}),
    }


def plot(profile: Profile, path: Path) -> None:
    """Draw decoded against analog activations for each layer, and the parts of the error by layer.

    Raises DataError where the picture cannot be written.
    """
    from matplotlib.figure import Figure

    from .plot import save_figure

    layers = profile.layers
    rows = math.ceil(len(layers) / _WIDEST_GRID)
    columns = math.ceil(len(layers) / rows)
    width, scatter_height, bar_height = max(6.4, 2.1 * columns), 2.3 * rows + 0.3, 3.2
    figure = Figure(figsize=(width, scatter_height + bar_height), layout="constrained")
    (above,), (below,) = figure.subfigures(2, 1, squeeze=False, height_ratios=(scatter_height, bar_height))
    above.suptitle(f"activations: the SNN's, T = {profile.timesteps} (up), against the ANN's (across)", fontsize=10)
    panels = above.subplots(rows, columns, squeeze=False).flat
    for layer, axes in zip(layers, panels, strict=False):
        _scatter(axes, layer)
    for axes in panels[len(layers) :]:
        axes.set_axis_off()
    _bars(below.subplots(), layers)
    save_figure(figure, path)


def _join(analog: Network, spiking: Network) -> dict[str, str]:
    """The analog population of each spiking one that has a counterpart, in topological order.

    Joined by name; what is left, by origin. Where a pass made several populations of one, the last has its output.
    Inputs that spike are joined with the images themselves, and halves, by name, with what they are halves of.
    """
    pairs = {name: name for name in spiking.inputs if _neuron(spiking.populations[name]).fires}
    shapes = {name: population.shape for name, population in analog.populations.items()}
    computing = [spiking.populations[name] for name in _computing(spiking)]
    pairs |= {p.name: half.name for p in computing if (half := half_of(p)) and shapes.get(half.name) == p.shape}
    pairs |= {p.name: p.name for p in computing if p.name not in analog.inputs and shapes.get(p.name) == p.shape}
    theirs, ours = _by_origin(analog, pairs), _by_origin(spiking, pairs)
    pairs |= {ours[key]: theirs[key] for key in ours if key in theirs}
    return {name: pairs[name] for name in spiking.order if name in pairs}


def _by_origin(network: Network, joined: Container[str]) -> dict[tuple[tuple[str, ...], Shape], str]:
    left = [network.populations[name] for name in _computing(network) if name not in joined]
    left = [population for population in left if not (is_of_sum(population) or half_of(population))]
    return {
        (population.origin.layers, population.shape): population.name for population in left if population.origin.layers
    }


def _computing(network: Network) -> list[str]:
    """All populations but the inputs, which have the same names in both networks."""
    return [name for name in network.order if not network.populations[name].neuron.is_input]


def _neuron(population: Population) -> SpikingNeuron:
    assert isinstance(population.neuron, SpikingNeuron)  # verified
    return population.neuron


def _unjoined(network: Network, joined: Container[str]) -> tuple[str, ...]:
    return tuple(name for name in _computing(network) if name not in joined)


def _batches(
    reference: CompiledAnalog, inputs: Mapping[str, np.ndarray]
) -> Iterator[tuple[dict[str, np.ndarray], Mapping[str, np.ndarray]]]:
    """A few images at a time, as many as the analog network takes at once, with all of its activations."""
    start = 0
    for activations in reference.activations(inputs, progress=False):
        stop = start + len(next(iter(activations.values())))
        yield {name: array[start:stop] for name, array in inputs.items()}, activations
        start = stop


class _Tally:
    """Running sums over one pair of populations, in float64."""

    def __init__(self, analog: Population, spiking: Population, timesteps: int, images: int):
        self.analog = analog
        self._spiking = spiking
        self._neuron = _neuron(spiking)
        self._timesteps = timesteps
        self._seen = 0  # activations
        self._spikes = 0
        self._largest = 0.0
        self._absolute = np.zeros(5)  # Σ |a|, |a − d|, and of the three parts
        self._moments = np.zeros(5)  # Σ a, d, a², d², a d
        # The number of activations is known before the first, so the sample is drawn now and does not
        # depend on how images are cut into batches.
        total = images * spiking.size
        drawn = np.random.default_rng(SEED).choice(total, min(SAMPLE, total), replace=False)
        self._drawn = np.sort(drawn)
        self._sample: list[np.ndarray] = []

    def add(self, activations: np.ndarray, recording: Recording) -> None:
        """Take in a batch: activations of the analog population, and what the spiking one did on the same images."""
        rows, half = max(1, CHUNK // self._spiking.size), half_of(self._spiking)
        for start in range(0, len(activations), rows):
            part = slice(start, start + rows)
            a = activations[part].astype(np.float64)
            a = np.maximum(half.sign * a, 0) if half else a
            self._add(a, self._decode(a, recording, part))
        if self._neuron.fires:
            self._spikes += int(recording.spike_counts[self._spiking.name].sum())

    def _decode(self, a: np.ndarray, recording: Recording, images: slice) -> np.ndarray:
        name, neuron = self._spiking.name, self._neuron
        if not neuron.fires:
            return recording.decoded[name][-1, images].astype(np.float64)
        amplitude = np.asarray(neuron.amplitude, np.float64)
        if isinstance(neuron, FewSpikeNeuron):
            assert recording.trains is not None
            train = recording.trains[name][: neuron.k, images]
            return amplitude * np.tensordot(0.5 ** np.arange(1, neuron.k + 1), train, 1)
        if isinstance(neuron, Tracking):
            assert recording.trains is not None
            return amplitude * recording.trains[name][:, images].sum(0, dtype=np.float64) / self._timesteps
        counts = recording.spike_counts[name][images]
        signed = isinstance(neuron, SpikeEncoding) and neuron.signed  # so that all spikes have the input's sign
        sign = np.sign(a) if signed else 1.0
        return sign * amplitude * counts / self._timesteps

    def _add(self, a: np.ndarray, d: np.ndarray) -> None:
        error = np.abs(a - d)
        parts = error_parts(a, d, self._neuron, self._timesteps)
        self._largest = max(self._largest, float(error.max()))
        self._absolute += [np.abs(a).sum(), error.sum(), *(np.abs(part).sum() for part in parts)]
        a, d = a.ravel(), d.ravel()
        self._moments += [a.sum(), d.sum(), a @ a, d @ d, a @ d]
        first, last = np.searchsorted(self._drawn, (self._seen, self._seen + a.size))
        here = self._drawn[first:last] - self._seen
        self._sample.append(np.stack([a[here], d[here]], axis=1).astype(np.float32))
        self._seen += a.size

    def result(self) -> LayerProfile:
        activation, error, clipping, quantisation, unevenness = (float(total) / self._seen for total in self._absolute)
        threshold, rate = None, None
        if self._neuron.fires:
            threshold = float(np.min(self._neuron.amplitude)), float(np.max(self._neuron.amplitude))
            rate = self._spikes / (self._seen * self._timesteps)
        return LayerProfile(
            population=self._spiking.name,
            analog=self.analog.name,
            origin=self._spiking.origin.layers or self.analog.origin.layers,
            neurons=self._spiking.size,
            threshold=threshold,
            rate=rate,
            correlation=self._correlation(),
            mean_activation=activation,
            mean_error=error,
            largest_error=self._largest,
            clipping=clipping,
            quantisation=quantisation,
            unevenness=unevenness,
            sample=np.concatenate(self._sample),
        )

    def _correlation(self) -> float | None:
        a, d, aa, dd, ad = self._moments / self._seen
        variances = aa - a * a, dd - d * d
        if variances[0] <= 1e-12 * aa or variances[1] <= 1e-12 * dd:  # constant, to within the sums' rounding
            return None
        return float((ad - a * d) / math.sqrt(variances[0] * variances[1]))


def _caption(profile: Profile) -> str:
    lines = ["the error's parts are mean absolute ones, as shares of the layer's mean activation"]
    for kind, names in (("analog", profile.only_analog), ("spiking", profile.only_spiking)):
        if names:
            lines.append(f"only in the {kind} network, not compared: {_names(names)}")
    return "\n".join(lines)


def _layer_json(layer: LayerProfile) -> dict[str, Any]:
    return {
        "population": layer.population,
        "analog": layer.analog,
        "origin": list(layer.origin),
        "neurons": layer.neurons,
        "threshold": layer.threshold and list(layer.threshold),
        "rate": layer.rate,
        "correlation": layer.correlation,
        "mean_activation": layer.mean_activation,
        "mean_error": layer.mean_error,
        "largest_error": layer.largest_error,
        **{part: getattr(layer, part) for part in PARTS},
        "relative": {part: layer.relative(getattr(layer, part)) for part in ("mean_error", *PARTS)},
    }


def _scatter(axes: Axes, layer: LayerProfile) -> None:
    low, high = min(0.0, float(layer.sample.min())), max(0.0, float(layer.sample.max()))
    high = high if high > low else 1.0  # a silent layer
    margin = 0.04 * (high - low)
    limits = low - margin, high + margin
    axes.plot(limits, limits, color="0.6", linewidth=0.8, zorder=1)
    # Thousands of points per layer: as pixels also in .svg and .pdf.
    across, up = layer.sample.T
    axes.scatter(across, up, s=4, alpha=0.35, linewidths=0, color="#2b6cb0", rasterized=True, zorder=2)
    axes.set(xlim=limits, ylim=limits, aspect="equal")
    title = f"{_shorten(layer.population)}\nr = {_or_dash(layer.correlation, '.3f')}"
    axes.set_title(title, fontsize=8, parse_math=False)
    axes.tick_params(labelsize=7)
    axes.locator_params(nbins=4)


def _bars(axes: Axes, layers: tuple[LayerProfile, ...]) -> None:
    from matplotlib.ticker import PercentFormatter

    places = np.arange(len(layers))
    bottom = np.zeros(len(layers))
    for part, colour in _COLOURS.items():
        heights = np.array([layer.relative(getattr(layer, part)) or 0.0 for layer in layers])
        axes.bar(places, heights, 0.7, bottom, label=part, color=colour)
        bottom += heights
    crowded = len(layers) > 8 or max(len(layer.population) for layer in layers) > 12
    names = [_shorten(layer.population) for layer in layers]
    slanted: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if crowded else {}
    axes.set_xticks(places, names, fontsize=8, parse_math=False, **slanted)
    axes.margins(x=0.02, y=0.2)
    axes.set_title("mean absolute error by part, as a share of the layer's mean activation", fontsize=10)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.tick_params(axis="y", labelsize=8)
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper left", ncols=len(PARTS), fontsize=8, frameon=False)


def _shorten(name: str, length: int = 22) -> str:
    """The end of a long name: layers of one block differ there."""
    return name if len(name) <= length else f"…{name[1 - length :]}"


def _threshold(layer: LayerProfile) -> str:
    if layer.threshold is None:
        return "–"
    low, high = layer.threshold
    return f"{low:.2g}" if low == high else f"{low:.2g}–{high:.2g}"


def _or_dash(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _names(names: Iterable[str]) -> str:
    return ", ".join(names)
