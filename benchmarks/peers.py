"""The embedded engine beside other simulators: accuracy and speed of one network on the same images and timesteps.

    python benchmarks/peers.py MODEL.keras DATA.npz --scale 1/255 [--peers genn spikingjelly …]
        [--python NAME=INTERPRETER …] [--images 1000] [--images-of genn=200 …] [--json FILE] [--markdown FILE]

MODEL is a Sequential Keras network of convolutions, batch norm, average pooling and dense layers; DATA holds x_train,
x_test and y_test. The first images of x_train calibrate. Every peer runs in a process of its own, on the same cores,
with the packages of the interpreter that is given for it: `--peer NAME TASK.npz` measures one peer and prints a line
of JSON. What goes to a peer is the network as arrays, and Keras's outputs, which the peer's own ANN must equal before
it is converted. An error is its result.

Rate coding with constant input current, thresholds at the 99.9th percentile of activations, reset by subtraction.
Ours and SpikingJelly's thresholds are per channel, the others' per layer; ours, SpikingJelly's and sinabs's potentials
start from half a threshold, the others' as they come. NengoDL spikes several times a step, as once gives wrong classes.

Each peer takes the batch, and on PyTorch the number of threads, at which it is fastest; neither that search nor
converting and building counts as running. The engine runs before and after each peer, and the peer's seconds are
divided by the median of these runs. Accuracy is that on the images that every peer has run. For ml_genn_tf see
benchmarks/ml_genn_tf_reference.py.

Beside snnc and GeNN, in the same environment, go torch, and without dependencies spikingjelly, sinabs, loguru, pbr,
nir<=1.0.4 and nirtorch. Environments of their own, on Python 3.11 with numpy<2 and setuptools<80, need snntoolbox with
tensorflow<2.15, and nengo-dl with tensorflow<2.13.
"""

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

import machine
import numpy as np

BATCHES = (8, 40, 200)
PERCENTILE = 99.9
ROUNDS = 3  # of the engine, before and after each peer
TOLERANCE = 1e-4
NENGO_SPIKES = 4  # a step, for the percentile of activations; on training images 1 gives wrong classes
OURS = "snnc"

# What of a layer's Keras 3 configuration peers need to build it again.
FIELDS = {
    "Conv2D": ("filters", "kernel_size", "strides", "padding", "dilation_rate", "groups", "activation", "use_bias"),
    "Dense": ("units", "activation", "use_bias"),
    "BatchNormalization": ("epsilon", "center", "scale"),
    "AveragePooling2D": ("pool_size", "strides", "padding"),
    "ReLU": (),
    "Dropout": ("rate",),
    "Flatten": (),
}

Run = Callable[[np.ndarray], np.ndarray]  # from one batch of images to logits, or anything else in their order


@dataclass(frozen=True)
class Layer:
    """A layer without its activation's softmax: kind and configuration as Keras names them, and its weights."""

    kind: str
    name: str
    config: dict[str, Any]
    input_shape: tuple[int, ...]
    weights: list[np.ndarray]


@dataclass(frozen=True)
class Task:
    """What a peer is given: a network, images, Keras's logits for them, and the number of timesteps."""

    model: Path
    layers: list[Layer]
    x: np.ndarray
    calibration: np.ndarray
    logits: np.ndarray
    timesteps: int

    def save(self, path: Path) -> None:
        arrays = {f"{n}/{k}": w for n, layer in enumerate(self.layers) for k, w in enumerate(layer.weights)}
        layers = [asdict(layer) | {"weights": len(layer.weights)} for layer in self.layers]
        text = json.dumps({"model": str(self.model), "timesteps": self.timesteps, "layers": layers})
        np.savez_compressed(path, text=text, x=self.x, calibration=self.calibration, logits=self.logits, **arrays)

    @classmethod
    def load(cls, path: Path) -> "Task":
        with np.load(path, allow_pickle=False) as file:
            text = json.loads(str(file["text"]))
            layers = [
                Layer(**each | {"weights": [file[f"{n}/{k}"] for k in range(each["weights"])]})
                for n, each in enumerate(text["layers"])
            ]
            arrays = {name: file[name] for name in ("x", "calibration", "logits")}
        return cls(Path(text["model"]), layers, timesteps=text["timesteps"], **arrays)


@dataclass(frozen=True)
class Setting:
    """What is tried to make a peer fast: the size of its batches, and its threads if it does not choose them well."""

    batch: int
    threads: int | None = None


# The peers: from a task and a setting to what runs one batch.


def engine(task: Task, setting: Setting) -> Run:
    import snnc

    return predictor(snnc.compile(converted(task)))


def genn(task: Task, setting: Setting) -> Run:
    import snnc

    return predictor(snnc.compile(converted(task), "mlgenn", device="cpu"))


def converted(task: Task) -> Any:
    import snnc

    network = snnc.load(task.model)
    return snnc.convert(network, calibration=task.calibration, timesteps=task.timesteps, progress=False)


def predictor(compiled: Any) -> Run:
    return lambda x: compiled.predict(x, progress=False)


def spikingjelly(task: Task, setting: Setting) -> Run:
    import torch
    from spikingjelly.activation_based import functional
    from spikingjelly.activation_based.ann2snn import Converter, RateCodingRecipe

    torch.set_num_threads(setting.threads)
    calibration = [channels_first(part) for part in np.split(task.calibration, 4)]  # larger ones it refuses
    recipe = RateCodingRecipe(calibration, mode=f"{PERCENTILE}%", channel_wise=True, half_threshold=True)
    snn = Converter(recipe).convert(torch_network(task))

    def run(x: np.ndarray) -> np.ndarray:
        images = channels_first(x)
        with torch.inference_mode():
            functional.reset_net(snn)
            return sum(snn(images) for _ in range(task.timesteps)).numpy()

    return run


def sinabs(task: Task, setting: Setting) -> Run:
    """Weights are normalised here: sinabs.utils.normalize_weights changes the function of networks with biases."""
    import torch
    from sinabs.activation import SingleSpike
    from sinabs.from_torch import from_model
    from sinabs.layers import StatefulLayer

    torch.set_num_threads(setting.threads)
    ann = normalised(folded(torch_network(task)), channels_first(task.calibration))
    snn = from_model(ann, num_timesteps=task.timesteps, spike_fn=SingleSpike, min_v_mem=None)
    half = [{"v_mem": (0.5, 0.5)} for module in snn.modules() if isinstance(module, StatefulLayer)]

    def run(x: np.ndarray) -> np.ndarray:
        images = channels_first(x).repeat_interleave(task.timesteps, 0)
        with torch.inference_mode():
            snn.reset_states(randomize=True, value_ranges=half)
            return snn(images).unflatten(0, (len(x), task.timesteps)).sum(1).numpy()

    return run


def snn_toolbox(task: Task, setting: Setting) -> Run:
    import snntoolbox
    import tensorflow as tf
    from snntoolbox.bin.utils import import_target_sim, load_config
    from snntoolbox.conversion.utils import normalize_parameters
    from snntoolbox.parsing.model_libs.keras_input_lib import ModelParser

    folder = tempfile.mkdtemp(dir=Path.cwd())  # which is a temporary folder itself, and removed
    config = load_config(str(Path(snntoolbox.__file__).parent / "config_defaults"))
    config.read_dict(
        {
            "paths": {"path_wd": folder, "log_dir_of_current_run": folder, "filename_ann": "ann"},
            "normalization": {"percentile": PERCENTILE},
            "simulation": {"duration": task.timesteps, "batch_size": setting.batch, "num_to_test": setting.batch},
            "output": {"verbose": 0},
        }
    )
    tf.keras.backend.set_learning_phase(0)
    parser = ModelParser(tf_network(task), config)
    parser.parse()
    parsed = parser.build_parsed_model()
    normalize_parameters(parsed, config, x_norm=task.calibration)
    snn = import_target_sim(config).SNN(config)
    truth = np.zeros(setting.batch, int)
    snn.build(parsed, x_test=task.x[: setting.batch], y_test=np.eye(len(task.logits[0]))[truth])

    def run(x: np.ndarray) -> np.ndarray:
        snn.reset(0)
        return snn.simulate(x_b_l=x, truth_b=truth)[:, :, -1]

    return run


def nengo_dl(task: Task, setting: Setting) -> Run:
    """A step is 1 ms. Nengo's neurons rectify their current before they integrate it, so they need more spikes."""
    import nengo
    import nengo_dl
    import tensorflow as tf

    ann = tf_network(task)
    found = scales(ann, task.calibration)
    spiking = nengo.SpikingRectifiedLinear()
    converter = nengo_dl.Converter(
        ann,
        inference_only=True,
        swap_activations={tf.keras.activations.relu: spiking, tf.nn.relu: spiking},
        scale_firing_rates={layer: 1000 * NENGO_SPIKES / scale for layer, scale in found.items()},
    )
    simulator = nengo_dl.Simulator(converter.net, minibatch_size=setting.batch, progress_bar=False)
    given, taken = converter.inputs[ann.input], converter.outputs[ann.output]

    def run(x: np.ndarray) -> np.ndarray:
        shown = np.tile(x.reshape(len(x), 1, -1), (1, task.timesteps, 1))
        return simulator.predict_on_batch({given: shown})[taken].mean(1)

    return run


@dataclass(frozen=True)
class Peer:
    """How a peer is called, the packages that its figures depend on, what prepares it, and the settings to try.

    Without settings it takes all images at once, and sees to batches itself.
    """

    title: str
    packages: tuple[str, ...]
    prepare: Callable[[Task, Setting], Run]
    batches: tuple[int, ...] = ()
    tries_threads: bool = False

    def settings(self, images: int) -> list[Setting]:
        threads = (1, len(os.sched_getaffinity(0))) if self.tries_threads else (None,)
        batches = [size for size in self.batches if size <= images] or [images]
        return [Setting(*pair) for pair in product(batches, threads)]


PEERS = {
    OURS: Peer("snnc, embedded engine", ("snnc", "onnxruntime"), engine),
    "genn": Peer("snnc, GeNN on one CPU thread", ("pygenn", "ml_genn"), genn),
    "spikingjelly": Peer("SpikingJelly ann2snn", ("spikingjelly", "torch"), spikingjelly, BATCHES, True),
    "sinabs": Peer("sinabs", ("sinabs", "torch"), sinabs, BATCHES, True),
    "snntoolbox": Peer("SNN toolbox, INI simulator", ("snntoolbox", "tensorflow"), snn_toolbox, BATCHES),
    "nengo-dl": Peer("NengoDL, several spikes a step", ("nengo-dl", "nengo", "tensorflow"), nengo_dl, BATCHES[:2]),
}


# The network in the frameworks of the peers.


def torch_network(task: Task) -> Any:
    """The ANN in PyTorch, channels first; its outputs are Keras's."""
    import torch

    modules: list[Any] = []
    for before, layer in zip([None, *task.layers], task.layers, strict=False):
        modules += torch_modules(layer, before)
    model = torch.nn.Sequential(*modules).eval()
    with torch.inference_mode():
        require_equal(model(channels_first(task.x)).numpy(), task.logits)
    return model


def torch_modules(layer: Layer, before: Layer | None) -> list[Any]:
    import torch.nn as nn

    config, channels, names = layer.config, layer.input_shape[-1], ("weight", "bias")
    match layer.kind:
        case "Dropout":
            return []
        case "Flatten":
            return [nn.Flatten()]
        case "ReLU":
            return [nn.ReLU()]
        case "AveragePooling2D":
            return [nn.AvgPool2d(config["pool_size"], config["strides"])]
        case "BatchNormalization":
            kind = nn.BatchNorm2d if len(layer.input_shape) == 3 else nn.BatchNorm1d
            module, names = kind(channels, config["epsilon"]), (*names, "running_mean", "running_var")
            arrays = layer.weights
        case "Conv2D":
            kernel, *bias = layer.weights
            sizes = kernel.shape[:2], config["strides"], config["padding"], config["dilation_rate"], config["groups"]
            module = nn.Conv2d(channels, config["filters"], *sizes, bias=bool(bias))
            arrays = [kernel.transpose(3, 2, 0, 1), *bias]
        case "Dense":
            kernel, *bias = layer.weights
            if before and before.kind == "Flatten":  # Keras flattens (H, W, C), PyTorch (C, H, W)
                kernel = np.moveaxis(kernel.reshape(*before.input_shape, -1), 2, 0).reshape(kernel.shape)
            module, arrays = nn.Linear(*kernel.shape, bias=bool(bias)), [kernel.T, *bias]
    module.load_state_dict({name: tensor(array) for name, array in zip(names, arrays, strict=False)}, strict=False)
    return [module, nn.ReLU()] if config.get("activation") == "relu" else [module]


def folded(model: Any) -> Any:
    """Batch norm becomes part of the layer before it."""
    import torch.nn as nn
    from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

    modules: list[Any] = []
    for module in model:
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            fuse = fuse_conv_bn_eval if isinstance(modules[-1], nn.Conv2d) else fuse_linear_bn_eval
            modules[-1] = fuse(modules[-1], module)
        else:
            modules.append(module)
    return nn.Sequential(*modules).eval()


def normalised(model: Any, images: Any) -> Any:
    """Activations become shares of their percentile in each layer but the last, and outputs stay what they were."""
    import torch

    before, last = 1.0, [module for module in model if hasattr(module, "weight")][-1]
    with torch.no_grad():
        for module in model:
            images = module(images)
            if hasattr(module, "weight"):
                scale = 1.0 if module is last else float(np.percentile(images.relu(), PERCENTILE))
                module.weight.mul_(before / scale)
                if module.bias is not None:
                    module.bias.div_(scale)
                before = scale
    return model


def channels_first(images: np.ndarray) -> Any:
    return tensor(np.moveaxis(images, -1, 1))


def tensor(array: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(np.ascontiguousarray(array))


def tf_network(task: Task) -> Any:
    """The ANN in tf.keras, as TensorFlow before 2.16 has it; its outputs are Keras's."""
    import tensorflow as tf

    first = image = tf.keras.Input(task.x.shape[1:], name="image")
    for layer in task.layers:
        made = getattr(tf.keras.layers, layer.kind)(name=layer.name, **layer.config)
        image = made(image)
        made.set_weights(layer.weights)
    model = tf.keras.Model(first, image)
    require_equal(model.predict(task.x, verbose=0), task.logits)
    return model


def scales(model: Any, images: np.ndarray) -> dict[Any, float]:
    """The percentile of the activations of each layer that rectifies."""
    import tensorflow as tf

    relu = tf.keras.activations.relu
    layers = [
        each
        for each in model.layers
        if isinstance(each, tf.keras.layers.ReLU) or getattr(each, "activation", None) is relu
    ]
    outputs = tf.keras.Model(model.input, [layer.output for layer in layers]).predict(images, verbose=0)
    return {layer: float(np.percentile(output, PERCENTILE)) for layer, output in zip(layers, outputs, strict=True)}


def require_equal(found: np.ndarray, wanted: np.ndarray) -> None:
    error = np.abs(found - wanted).max() / np.abs(wanted).max()
    if not error <= TOLERANCE:
        raise SystemExit(f"the peer's ANN is not Keras's: its outputs differ by {error:.1e} of the largest")


# Measuring one peer.


def measure(peer: Peer, task: Task) -> dict:
    """The classes that a peer gives the images, and the seconds to prepare it and to run."""
    setting, *others = peer.settings(len(task.x))
    if others:
        setting = min((setting, *others), key=lambda each: pace(peer, task, each))
    started = time.perf_counter()
    run = peer.prepare(task, setting)
    run(task.x[: setting.batch if peer.batches else 1])  # whatever is compiled at first use
    built = time.perf_counter()
    classes = [int(each) for part in parts(task.x, setting.batch) for each in run(part).argmax(-1)]
    times = {"build_seconds": built - started, "seconds": time.perf_counter() - built}
    versions = {package: version(package) for package in peer.packages}
    return {"versions": versions, "images": len(task.x), "classes": classes[: len(task.x)]} | asdict(setting) | times


def pace(peer: Peer, task: Task, setting: Setting) -> float:
    """Seconds per image, once all that is compiled is."""
    run = peer.prepare(task, setting)
    run(task.x[: setting.batch])
    started = time.perf_counter()
    run(task.x[: setting.batch])
    return (time.perf_counter() - started) / setting.batch


def parts(x: np.ndarray, batch: int) -> Iterator[np.ndarray]:
    """Batches of one size: images from the start fill up the last one."""
    filled = np.concatenate([x, x[: -len(x) % batch]])
    return iter(np.split(filled, len(filled) // batch))


# All peers beside the engine.


def main() -> None:
    options = parse_arguments()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])
    if options.peer:
        with contextlib.redirect_stdout(sys.stderr):  # peers print
            found = measure(PEERS[options.peer[0]], Task.load(Path(options.peer[1])))
        print(json.dumps(found))
        return
    report = compare(options)
    text = markdown(report)
    print(text)
    if options.markdown:
        options.markdown.write_text(text + "\n")
    if options.json:
        options.json.write_text(json.dumps(report, indent=1))


def parse_arguments() -> argparse.Namespace:
    def named(text: str) -> tuple[str, str]:
        name, _, value = text.partition("=")
        if name not in PEERS or not value:
            raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE with a name of {', '.join(PEERS)}")
        return name, value

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--scale", default="1")
    parser.add_argument("--timesteps", type=int, default=32)
    parser.add_argument("--peers", nargs="+", choices=[*PEERS][1:], default=[*PEERS][1:])
    parser.add_argument("--python", nargs="+", type=named, default=[], metavar="NAME=INTERPRETER")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--images-of", nargs="+", type=named, default=[], metavar="NAME=IMAGES", help="for slow peers")
    parser.add_argument("--calibration", type=int, default=512)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--limit", type=float, default=1800, help="seconds that a peer may take in all")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--peer", nargs=2, metavar=("NAME", "TASK"), help="measure this one here, and print JSON")
    options = parser.parse_args()
    if not options.peer and not (options.model and options.data):
        parser.error("give MODEL and DATA, or --peer NAME TASK")
    for _, interpreter in options.python:
        if not shutil.which(interpreter):
            parser.error(f"{interpreter} is not an interpreter")
    options.python, options.images_of = dict(options.python), dict(options.images_of)
    return options


def compare(options: argparse.Namespace) -> dict:
    task, y = make_task(options)
    ours = measure(PEERS[OURS], task)
    ours["seconds"] = []
    run = PEERS[OURS].prepare(task, Setting(len(task.x)))
    rows = [{"peer": OURS, "title": PEERS[OURS].title} | ours]
    for name in options.peers:
        before = rounds(run, task.x)
        row = {"peer": name, "title": PEERS[name].title} | measured_apart(name, task, options)
        nearby = before + rounds(run, task.x)
        ours["seconds"] += nearby
        if "error" not in row:
            row["ratio"] = row["seconds"] / row["images"] / (statistics.median(nearby) / len(task.x))
        rows.append(row)
        print(f"{name}: {row.get('error') or row['ratio']}", file=sys.stderr)
    rows[0] |= {"seconds": statistics.median(ours["seconds"]), "ratio": 1.0}
    done = [row for row in rows if "error" not in row]
    common = min(row["images"] for row in done)
    for row in done:
        row["accuracy"] = float((np.array(row.pop("classes")[:common]) == y[:common]).mean())
        row["image_steps_per_second"] = row["images"] * task.timesteps / row["seconds"]
    ann = float((task.logits.argmax(-1) == y)[:common].mean())
    facts = {"model": options.model.name, "timesteps": task.timesteps, "accuracy_images": common, "ann": ann}
    return {"machine": machine.describe(), "cores_used": options.cores} | facts | {"rows": rows}


def make_task(options: argparse.Namespace) -> tuple[Task, np.ndarray]:
    data = np.load(options.data, allow_pickle=False)
    scale = np.float32(Fraction(options.scale))
    x, calibration = (
        data[name][:count].astype(np.float32) * scale
        for name, count in (("x_test", options.images), ("x_train", options.calibration))
    )
    layers, logits = keras_network(options.model, x)
    task = Task(options.model.resolve(), layers, x, calibration, logits, options.timesteps)
    return task, data["y_test"][: options.images].reshape(-1)


def keras_network(path: Path, x: np.ndarray) -> tuple[list[Layer], np.ndarray]:
    """The layers of a Keras 3 file, and its outputs for `x` before the softmax."""
    import keras

    model = keras.saving.load_model(path, compile=False)
    layers = [layer for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)]
    layers[-1].activation = keras.activations.linear
    return [exported(layer) for layer in layers], model.predict(x, verbose=0)


def exported(layer: Any) -> Layer:
    kind, config = type(layer).__name__, layer.get_config()
    if kind not in FIELDS:
        raise SystemExit(f"layer {layer.name!r} is a {kind}; peers are given {', '.join(FIELDS)} only")
    weights = [np.asarray(array) for array in layer.get_weights()]
    return Layer(kind, layer.name, {field: config[field] for field in FIELDS[kind]}, layer.input.shape[1:], weights)


def rounds(run: Run, x: np.ndarray) -> list[float]:
    """Seconds of a few runs."""

    def seconds() -> float:
        started = time.perf_counter()
        run(x)
        return time.perf_counter() - started

    return [seconds() for _ in range(ROUNDS)]


def measured_apart(name: str, task: Task, options: argparse.Namespace) -> dict:
    """What a peer gives, in a process of its own; or the last line of its error."""
    count = int(options.images_of.get(name, options.images))
    few = replace(task, x=task.x[:count], logits=task.logits[:count])
    with tempfile.TemporaryDirectory() as folder:
        few.save(path := Path(folder) / "task.npz")
        python = options.python.get(name, sys.executable)
        command = [python, __file__, "--cores", str(options.cores), "--peer", name, str(path)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=options.limit)
        except subprocess.TimeoutExpired:
            return {"error": f"not finished after {options.limit:.0f} s"}
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or ["no message"])[-1]}
    return json.loads(done.stdout.splitlines()[-1])


def markdown(report: dict) -> str:
    facts = {key: value for key, value in report["machine"].items() if value != "not installed"}
    lines = [
        ", ".join(f"{key} {value}" for key, value in facts.items()),
        "",
        f"{report['model']}, T = {report['timesteps']}, {report['cores_used']} cores; accuracy on "
        f"{report['accuracy_images']} test images, of the ANN {report['ann']:.2%}.",
        "",
        "| Simulator | Accuracy | Image-steps per second | Time / ours | Build, s | Images timed | Batch |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in report["rows"]:
        if "error" in row:
            lines.append(f"| {row['title']} | not run: {row['error']} | | | | | |")
            continue
        threads = f", on {row['threads']} of the cores" if row["threads"] else ""
        batch = f"{row['batch']}{threads}" if PEERS[row["peer"]].batches else "its own"
        title = f"{row['title']} ({', '.join(f'{name} {number}' for name, number in row['versions'].items())})"
        lines.append(
            f"| {title} | {row['accuracy']:.2%} | {row['image_steps_per_second']:.0f} | {row['ratio']:.2f} "
            f"| {row['build_seconds']:.1f} | {row['images']} | {batch} |"
        )
    lines += ["", "ml_genn_tf needs an environment of its own: benchmarks/ml_genn_tf_reference.py."]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
