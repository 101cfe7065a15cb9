"""snnc on a GPU: whether its spikes are right there, how fast they come, and what others take for the same images.

    python benchmarks/gpu.py pack FOLDER --data SHARED_DATA      # anywhere with Keras: networks and images
    python benchmarks/gpu.py run FOLDER --out gpu.json [--limit 460] [--only environment conformance …] [--resume]
    python benchmarks/gpu.py table gpu.json                      # Markdown

`benchmarks/gpu.sh` does the first two with all that a GPU machine without a network needs. SHARED_DATA holds
mnist_simple_cnn.keras, mnist10k.npz, cifar10_vgg_s.keras and cifar10_jpeg.npz; training images calibrate, and what is
measured is measured on test images.

Everything is measured in processes of its own, `--trial NAME …`, each of which prints lines of JSON that are in the
file as soon as they are printed: a trial that dies, or the end of the time limit, loses nothing else. Building is
compiling, on the CPU, so all builds are made side by side first, and kept in $SNNC_GPU_BUILDS, if that is given, for
the next run. Then trials get ready side by side, and take turns at the GPU, so that each has it for itself.

conformance   networks whose arithmetic is exact, at batch 1 and 32: every spike is that of tests/naive.py
functions     what each function's value is off, in a soma on a GPU, by 12-bit codes
again         the same of simpler networks, which were right in 2026; when all else is done
races         many spikes that reach few neurons: right, the same in five runs, and what compute-sanitizer says
speed         images per second of the networks, by batch size. The time of a batch is that of copying images there,
              all steps, and reading the outputs after each of them; the model is loaded before. Medians of up to 3
              rounds, none of which begins after 5 seconds. Accuracy is on the test images, where a round shows them
              all, beside the embedded engine's for the same network
matrices      the same, with all connections that can have it in one matrix type
kernels       the time within GeNN's kernels
ml_genn_tf    what ml_genn_tf's DataNorm(input_type="if") makes of the MNIST network, built in plain mlGeNN
spikingjelly  the same ANNs, converted by SpikingJelly to T timesteps, in PyTorch on the same GPU
"""

import argparse
import fcntl
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

import machine
import numpy as np

TESTS = Path(__file__).parents[1] / "tests"
IMAGES = {"mnist": 2000, "cifar10": 1024}
CALIBRATION = 1000
PIPELINES = {  # what matters most first
    "fewspike8": ("few-spike{k=8,per-channel=true},bias-correction", 8),
    "fewspike3": ("few-spike{k=3,per-channel=true},bias-correction", 3),
    "rate4": ("data-norm{threshold=mse,per-channel=true},bias-correction", 4),
    "rate32": ("data-norm{percentile=99.0,per-channel=true},bias-correction", 32),
    "tracking4": ("tracking,bias-correction", 4),
    "lag3": ("data-norm{threshold=mse,per-channel=true,lag=3},bias-correction{rounds=4}", 4),
}
MODELS = {"cifar10": "cifar10_vgg_s.keras", "mnist": "mnist_simple_cnn.keras"}
BATCHES = (1, 128, 1023)
ONCE = {"tracking4", "lag3"}  # at 128 images only, of CIFAR-10
NETWORKS = [f"{model}-{name}" for name in PIPELINES for model in (["cifar10"] if name in ONCE else MODELS)]
EXACT = ("gates", "attention", "waiting", "decoder")
EXACT_BATCHES = (32, 1)
AGAIN = (
    "strided",
    "per_channel",
    "grouped",
    "branching",
    "spiking_inputs",
    "phases",
    *(f"few_spike_{k}" for k in (3, 8, 12)),
)
THEIR_T = 32
ROUNDS = 3
ENOUGH = 5.0  # seconds of rounds, after which no other begins
SIDE_BY_SIDE = 14  # builds: each has a few compilers
GETTING_READY = 4  # trials, of which one has the GPU
LONGEST = 200.0  # seconds of a trial, so that one that hangs does not take all
RACING = ("SPARSE", "TOEPLITZ", "GENN")
FORCED = ("SPARSE", "PROCEDURAL")  # where it can be had; by itself the network has TOEPLITZ for many images


# Packing


def pack(folder: Path, data: Path) -> None:
    """Write into `folder` the networks, the images, and what others make of the same models."""
    import snnc

    folder.mkdir(parents=True, exist_ok=True)
    for model, file in MODELS.items():
        x_train, x_test, y_test = images_of(model, data)
        np.savez_compressed(folder / f"{model}.npz", x=x_test, y=y_test)
        calibration = x_train.astype(np.float32) / 255
        network = snnc.load(data / file)
        for name, (pipeline, timesteps) in PIPELINES.items():
            if f"{model}-{name}" not in NETWORKS:
                continue
            snn = snnc.convert(network, pipeline, calibration=calibration, timesteps=timesteps, progress=False)
            snnc.save(snn, folder / f"{model}-{name}.snn")
            classes = snnc.compile(snn).predict(x_test.astype(np.float32) / 255, progress=False).argmax(-1)
            np.save(folder / f"{model}-{name}.npy", classes.astype(np.int16))
        pack_for_spikingjelly(folder / f"{model}-spikingjelly.npz", data / file, x_test, calibration)
    pack_ml_genn_tf(folder / "ml_genn_tf.npz", data)
    print(f"{folder}: {sum(path.stat().st_size for path in folder.rglob('*') if path.is_file()) / 1e6:.1f} MB")


def images_of(model: str, data: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images that calibrate, test images, uint8, and their labels."""
    count = IMAGES[model]
    if model == "mnist":
        with np.load(data / "mnist10k.npz") as file:
            return file["x_train"][:CALIBRATION], file["x_test"][:count], file["y_test"][:count]
    from cifar10 import decode

    with np.load(data / "cifar10_jpeg.npz", allow_pickle=False) as archive:
        return decode(archive, "train", CALIBRATION)[0], *decode(archive, "test", count)


def pack_for_spikingjelly(path: Path, model: Path, x: np.ndarray, calibration: np.ndarray) -> None:
    """The model as benchmarks/peers.py hands it to PyTorch, with a few images to check that it is the same."""
    from peers import Task, keras_network

    shown = x[:32].astype(np.float32) / 255
    layers, logits = keras_network(model, shown)
    Task(model, layers, shown, calibration[:200], logits, THEIR_T).save(path)


def pack_ml_genn_tf(path: Path, data: Path) -> None:
    """Weights, thresholds and mlGeNN's names of connections of the network that ml_genn_tf makes of the MNIST CNN."""
    import keras
    from ml_genn import connectivity

    from snnc.converters import DataNorm

    model = keras.saving.load_model(data / MODELS["mnist"], compile=False)
    batches = [(image[np.newaxis].astype(np.float32) / 255, np.zeros(1)) for image in images_of("mnist", data)[0]]
    network, *_ = DataNorm(THEIR_T, norm_data=[batches], input_type="if", mlgenn_neurons=True).convert(model)
    edges = []
    for connection in network.connections:
        edge = connection.connectivity
        kind = next(kind.__name__ for kind in type(edge).__mro__ if getattr(connectivity, kind.__name__, None) is kind)
        known = ("filters", "conv_size", "conv_strides", "pool_size", "pool_strides", "flatten")
        options = {name: getattr(edge, name) for name in known if getattr(edge, name, None) is not None}
        if kind in ("Conv2D", "AvgPoolConv2D"):
            options["conv_padding"] = edge.conv_padding.value
        edges.append({"kind": kind, "options": options})
    shapes = [list(population.shape) for population in network.populations]
    thresholds = [float(population.neuron.v_thresh) for population in network.populations]
    weights = {f"w{n}": np.asarray(c.connectivity.weight) for n, c in enumerate(network.connections)}
    text = json.dumps({"edges": edges, "shapes": shapes, "thresholds": thresholds})
    np.savez(path, text=text, **weights)


# Trials: each yields what it finds, a measurement at a time


def environment(folder: Path) -> Iterator[dict]:
    from snnc.backend.mlgenn import gpu

    query = ["nvidia-smi", "--query-gpu=name,driver_version,clocks.max.sm,memory.total", "--format=csv,noheader"]
    nvcc = Path(os.environ.get("CUDA_PATH", "/usr/local/cuda"), "bin", "nvcc")
    facts = machine.describe() | {"nvidia-smi": _said(query), "nvcc": _said([nvcc, "--version"]).splitlines()[-1]}
    yield facts | {"gpus": [f"{each.name} {each.capability}, {each.free / 2**30:.1f} GiB free" for each in gpu.gpus()]}


def smoke(folder: Path) -> Iterator[dict]:
    yield from conformance(folder, "strided", "32")


def conformance(folder: Path, name: str, batch: str) -> Iterator[dict]:
    """A network at a batch size: three batches, the last of them not full."""
    import snnc

    sys.path.insert(0, str(TESTS))
    import dyadic
    import naive

    network, size = dyadic.NETWORKS[name](), int(batch)
    few = dyadic.images(network, 37)  # the naive simulator takes its time; so they come again and again
    order = np.arange(2 * size + size // 2 + 1) % 37
    expected = naive.simulate(network, few)
    started = time.perf_counter()
    compiled = snnc.compile(network, "mlgenn", device="gpu", batch_size=size, folder=kept())
    built = time.perf_counter()
    found = compiled.simulate({key: x[order] for key, x in few.items()}, record=True, progress=False)
    differ = [
        f"{kind} of {key}"
        for kind, axis in (("trains", 1), ("spike_counts", 0), ("potentials", 0), ("decoded", 1))
        for key, values in getattr(expected, kind).items()
        if not np.array_equal(
            np.take(values, order, axis).astype(np.float32), getattr(found, kind)[key].astype(np.float32)
        )
    ]
    yield {
        "network": name,
        "batch": size,
        "equal": not differ,
        "differ": differ,
        "matrices": matrices(compiled),
        "build_s": round(built - started, 1),
        "run_s": round(time.perf_counter() - built, 2),
    }


def functions(folder: Path) -> Iterator[dict]:
    """How far what a GPU's quick arithmetic makes of each function is from it, in steps of codes of 12 bits.

    Half a step is what a code rounds off.
    """
    import snnc

    sys.path.insert(0, str(TESTS))
    from networks import every_function

    network, shown, values = every_function(12)
    compiled = snnc.compile(network, "mlgenn", device="gpu", batch_size=len(shown), folder=kept())
    found = compiled.predict(shown, progress=False)
    steps = {name: network.populations[name].neuron.alpha / 2**12 for name in values}
    yield {
        "steps_off": {name: round(float(np.abs(found[name] - y).max() / steps[name]), 3) for name, y in values.items()}
    }


@dataclass(frozen=True)
class Timed:
    """A network at a batch size, as it is built for timing."""

    name: str
    batch: int
    matrix_type: str | None = None
    profiled: bool = False

    def __str__(self) -> str:
        return f"{self.name}:{self.batch}:{self.matrix_type or ''}:{'profiled' if self.profiled else ''}"

    @classmethod
    def of(cls, text: str) -> "Timed":
        name, batch, matrix_type, profiled = text.split(":")
        return cls(name, int(batch), matrix_type or None, bool(profiled))

    def compiled(self, folder: Path, apart: bool) -> Any:
        import snnc
        from snnc.backend.mlgenn.compiled import CompiledGenn
        from snnc.backend.mlgenn.connectivity import choose
        from snnc.backend.mlgenn.machine import describe
        from snnc.backend.mlgenn.options import Options
        from snnc.ir import BackendError

        network = snnc.load(folder / f"{self.name}.snn")
        machine, forced = describe("cuda", self.batch), {}
        for connection in network.connections if self.matrix_type else ():
            wish = {str(connection): self.matrix_type}
            try:
                choose(network, machine, wish)
            except BackendError:  # it cannot have it
                continue
            forced |= wish
        options = Options("gpu", kept(), forced, self.batch, kernel_profiling=self.profiled)
        return CompiledGenn(network, options, apart=apart)


def build(folder: Path, text: str) -> Iterator[dict]:
    """Build a network, which is kept for the trial that times it."""
    timed = Timed.of(text)
    started = time.perf_counter()
    compiled = timed.compiled(folder, apart=False)
    yield {
        "network": timed.name,
        "batch": timed.batch,
        "matrix_type": timed.matrix_type,
        "matrices": matrices(compiled),
        "build_s": round(time.perf_counter() - started, 1),
    }


def speed(folder: Path, text: str) -> Iterator[dict]:
    """Time a network that was built before."""
    from snnc.backend.compiled import TOTALS

    timed = Timed.of(text)
    x, y = test_images(folder, timed.name.partition("-")[0])
    compiled = timed.compiled(folder, apart=False)
    network = compiled.network
    shown = {network.inputs[0]: x[np.arange(_count(timed.batch, len(x))) % len(x)]}
    parts: list[Any] = []
    with gpu_alone():
        before, started = _gpu_mib(), time.perf_counter()
        with compiled.loaded():
            loaded, after = time.perf_counter(), _gpu_mib()
            list(compiled.stream({name: each[: timed.batch] for name, each in shown.items()}, TOTALS))  # warms up
            rounds = _rounds(lambda: parts.append(list(compiled.stream(shown, TOTALS))))
    images, seconds = len(shown[network.inputs[0]]), statistics.median(rounds)
    steps = _steps(network, images, timed.batch)
    found = {
        "network": timed.name,
        "batch": timed.batch,
        "matrix_type": timed.matrix_type,
        "images": images,
        "images_per_s": images / seconds,
        "ms_per_batch": 1000 * seconds * timed.batch / images,
        "us_per_step": 1e6 * seconds / steps,
        "rounds_s": rounds,
        "load_s": loaded - started,
        "gpu_mib": None if before is None or after is None else after - before,
        "matrices": matrices(compiled),
    }
    if timed.profiled:
        kernels = compiled.kernel_times.items()
        done = steps * len(rounds) + _steps(network, timed.batch, timed.batch)
        found["kernel_us_per_step"] = {name: 1e6 * total / done for name, total in kernels}
    if images >= len(x):
        scores = [part.decoded[network.outputs[0]][-1] for part in parts[-1]]
        classes = np.concatenate(scores)[: len(x)].argmax(-1)
        engine = np.load(folder / f"{timed.name}.npy")
        found |= {"accuracy": (classes == y).mean(), "engine_accuracy": (engine == y).mean()}
        found["same_class"] = (classes == engine).mean()
    yield found


def races(folder: Path, kind: str) -> Iterator[dict]:
    """Many spikes that reach few neurons at once, in blocks of 64 threads: right, and the same in five runs?

    SPARSE and TOEPLITZ are as snnc has them: a TOEPLITZ target is larger than any block. GENN is SPARSE as GeNN has it
    by itself, with the threads of a block on one spike after the other.
    """
    from pygenn import cuda_backend

    from snnc import ir
    from snnc.backend.mlgenn import compiler
    from snnc.backend.mlgenn.compiled import CompiledGenn
    from snnc.backend.mlgenn.options import Options

    sys.path.insert(0, str(TESTS))
    import dyadic
    import naive

    class InBlocks(CompiledGenn):
        def _compiler(self, backend: str, options: Options) -> Any:
            made = super()._compiler(backend, options)
            made.genn_kwargs |= {
                "block_size_select_method": cuda_backend.BlockSizeSelect.MANUAL,
                "manual_block_sizes": [64] * len(cuda_backend.Preferences().manual_block_sizes),
                "device_select_method": cuda_backend.DeviceSelect.MOST_MEMORY,
            }
            return made

    if kind == "GENN":
        compiler.by_spike = lambda synapse_groups: None
    large = kind == "TOEPLITZ"
    conv = ir.Conv2D(dyadic.dyadic(1, 3, 3, 8, 16) if large else dyadic.dyadic(1, 7, 7, 16, 12))
    shape = (12, 12, 8) if large else (8, 8, 16)
    network = ir.Network(
        [
            ir.Population("x", shape, ir.IntegrateFireInput(0.25)),
            ir.Population("y", conv.output_shape(shape), ir.Integrate()),
        ],
        [ir.Connection("x", "y", (conv,))],
        ["x"],
        ["y"],
        8,
    )
    images = dyadic.images(network, 4)
    options = Options("gpu", kept(), "TOEPLITZ" if large else "SPARSE", batch_size=4)
    compiled = InBlocks(network, options, apart=False)
    expected = naive.simulate(network, images).potentials["y"]
    runs = [compiled.simulate(images, progress=False) for _ in range(5)]
    spikes = sum(int(each.sum()) for each in runs[0].spike_counts.values())
    found = [run.potentials["y"] for run in runs]
    yield {
        "kind": kind,
        "wrong_potentials": [int((each != expected).sum()) for each in found],
        "of": expected.size,
        "same_in_all_runs": all(np.array_equal(each, found[0]) for each in found),
        "spikes_per_image": spikes / len(expected),
    }


def racecheck(folder: Path, kind: str) -> Iterator[dict]:
    """The same under compute-sanitizer."""
    tool = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    for name in ("racecheck", "memcheck"):
        command = [tool, "--tool", name, sys.executable, __file__, "--trial", "races", str(folder), kind]
        done = subprocess.run(command, capture_output=True, text=True)
        lines = done.stdout.splitlines()
        yield {
            "kind": kind,
            "tool": name,
            "summary": [line.strip("= ") for line in lines if "SUMMARY" in line],
            "result": [json.loads(line) for line in lines if line.startswith("{")],
            "code": done.returncode,
        }


def ml_genn_tf(folder: Path, batch: str, only: str = "") -> Iterator[dict]:
    """The network that ml_genn_tf makes of the MNIST CNN: mlGeNN's neurons, connections and compiler; or its build."""
    import ml_genn
    from ml_genn import connectivity, neurons
    from ml_genn.compilers import InferenceCompiler

    here = kept() / f"ml_genn_tf-{batch}"  # mlGeNN builds in the working directory, unless it has
    here.mkdir(parents=True, exist_ok=True)
    os.chdir(here)
    with np.load(folder / "ml_genn_tf.npz", allow_pickle=False) as file:
        text, weights = json.loads(str(file["text"])), {name: file[name] for name in file.files if name != "text"}
    network, populations = ml_genn.Network(), []
    with network:
        for n, (shape, threshold) in enumerate(zip(text["shapes"], text["thresholds"], strict=True)):
            readout = "spike_count" if n == len(text["shapes"]) - 1 else None
            neuron = neurons.IntegrateFire(v_thresh=threshold, readout=readout) if n else neurons.IntegrateFireInput()
            populations.append(ml_genn.Population(neuron, tuple(shape)))
        for n, edge in enumerate(text["edges"]):
            options = {k: tuple(v) if isinstance(v, list) else v for k, v in edge["options"].items()}
            made = getattr(connectivity, edge["kind"])(weights[f"w{n}"], **options)
            ml_genn.Connection(populations[n], populations[n + 1], made)
    size = int(batch)
    # SPARSE, which mlGeNN prefers, aborts GeNN with two convolutions
    compiler = InferenceCompiler(THEIR_T, batch_size=size, prefer_in_memory_connect=False, optimize_code=True)
    started = time.perf_counter()
    compiled = compiler.compile(network, "theirs")
    if only == "build":
        compiled.genn_model.build()
        yield {"network": "mnist-ml_genn_tf", "batch": size, "build_s": round(time.perf_counter() - started, 1)}
        return
    x, y = test_images(folder, "mnist")
    shown = x[np.arange(_count(size, len(x))) % len(x)]

    def run(images: np.ndarray) -> np.ndarray:
        return compiled.predict({populations[0]: images}, populations[-1:], callbacks=[])[0][populations[-1]]

    with gpu_alone(), compiled:
        run(shown[:size])
        seconds = statistics.median(_rounds(lambda: run(shown)))
        predicted = run(x).argmax(-1)
    yield {
        "network": "mnist-ml_genn_tf",
        "batch": size,
        "timesteps": THEIR_T,
        "images_per_s": len(shown) / seconds,
        "ms_per_batch": 1000 * seconds * size / len(shown),
        "accuracy": (predicted == y).mean(),
    }


def spikingjelly(folder: Path, model: str, timesteps: str) -> Iterator[dict]:
    """The ANN converted by SpikingJelly, as benchmarks/peers.py has it, on the GPU; one step at a time."""
    import torch
    from peers import PERCENTILE, Task, channels_first, torch_network
    from spikingjelly.activation_based import functional
    from spikingjelly.activation_based.ann2snn import Converter, RateCodingRecipe

    task = Task.load(folder / f"{model}-spikingjelly.npz")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    calibration = [channels_first(part) for part in np.split(task.calibration, 4)]
    recipe = RateCodingRecipe(calibration, mode=f"{PERCENTILE}%", channel_wise=True, half_threshold=True)
    snn = Converter(recipe).convert(torch_network(task))
    x, y = test_images(folder, model)

    def classes(images: np.ndarray, batch: int) -> np.ndarray:
        found = []
        with torch.inference_mode():
            for start in range(0, len(images), batch):
                shown = channels_first(images[start : start + batch]).to(device)
                functional.reset_net(snn)
                found.append(sum(snn(shown) for _ in range(int(timesteps))).argmax(-1).cpu().numpy())
        return np.concatenate(found)

    with gpu_alone():
        snn = snn.to(device)
        accuracy = (classes(x, 256) == y).mean()
        for batch in BATCHES:
            shown = x[np.arange(_count(batch, len(x))) % len(x)]
            classes(shown[:batch], batch)
            seconds = statistics.median(_rounds(partial(classes, shown, batch)))
            yield {
                "network": f"{model}-spikingjelly",
                "timesteps": int(timesteps),
                "batch": batch,
                "device": device,
                "images_per_s": len(shown) / seconds,
                "ms_per_batch": 1000 * seconds * batch / len(shown),
                "accuracy": accuracy,
            }


TRIALS: dict[str, Callable[..., Iterator[dict]]] = {
    trial.__name__: trial
    for trial in (environment, smoke, conformance, functions, build, speed, races, racecheck, ml_genn_tf, spikingjelly)
}


def test_images(folder: Path, model: str) -> tuple[np.ndarray, np.ndarray]:
    with np.load(folder / f"{model}.npz") as file:
        return file["x"].astype(np.float32) / 255, file["y"].reshape(-1)


def matrices(compiled: Any) -> dict[str, str]:
    return {str(edge.connection): edge.matrix_type for edge in compiled.edges}


def kept() -> Path:
    """Where the trials of a run leave their builds for one another, or find those of an earlier run."""
    return Path(os.environ.get("SNNC_GPU_BUILDS", "builds")).resolve()


@contextmanager
def gpu_alone() -> Iterator[None]:
    """When no other trial has it."""
    kept().mkdir(parents=True, exist_ok=True)
    with open(kept() / "gpu.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _count(batch: int, images: int) -> int:
    """How many images a round shows: full batches."""
    return 32 if batch == 1 else max(-(-images // batch), 2) * batch


def _gpu_mib() -> int | None:
    """What this process has of the GPU's memory, if the driver tells."""
    query = ["nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"]
    for line in _said(query).splitlines():
        pid, _, used = line.partition(",")
        if pid.strip() == str(os.getpid()) and used.strip().isdigit():
            return int(used)
    return None


def _rounds(work: Callable[[], Any]) -> list[float]:
    """The seconds of each round."""
    found: list[float] = []
    while len(found) < ROUNDS and sum(found) < ENOUGH:
        found.append(_seconds(work))
    return found


def _steps(network: Any, images: int, batch: int) -> int:
    """GeNN's timesteps in a run of so many images."""
    batches, deepest = -(-images // batch), max(network.depth.values())
    return network.timesteps * (batches + deepest) if network.is_phased else (network.timesteps + deepest) * batches


def _seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _said(command: list[Any]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True).stdout.strip() or "nothing"
    except OSError as error:
        return str(error)


# Running


@dataclass
class Report:
    """What was measured, in a file that is whole after every measurement."""

    path: Path
    ends: float  # when the time is over
    rows: list[dict] = field(default_factory=list)
    turn: Lock = field(default_factory=Lock)

    @property
    def left(self) -> float:
        return self.ends - time.monotonic()

    def resume(self) -> None:
        """Take over what an earlier run has finished."""
        rows = json.loads(self.path.read_text()) if self.path.exists() else []
        failed = [(row["trial"], row["arguments"]) for row in rows if "error" in row]
        self.rows = [row for row in rows if (row["trial"], row["arguments"]) not in failed]

    def has(self, trial: str, arguments: tuple[str, ...]) -> bool:
        with self.turn:
            return any((row["trial"], row["arguments"]) == (trial, list(arguments)) for row in self.rows)

    def add(self, trial: str, arguments: tuple[str, ...], row: dict) -> None:
        with self.turn:
            self.rows.append({"trial": trial, "arguments": list(arguments)} | row)
            beside = self.path.with_name(f".{self.path.name}")
            beside.write_text(json.dumps(self.rows, indent=1, default=float))
            beside.replace(self.path)
        short = {key: value for key, value in row.items() if key not in ("matrices", "reports", "rounds_s")}
        print(trial, json.dumps(short, default=lambda number: round(float(number), 4))[:400], flush=True)

    def run(self, trial: str, folder: Path, *arguments: str) -> None:
        """Run a trial in a process of its own, and keep each line that it prints; and how it ended, if not well."""
        if self.has(trial, arguments):
            return
        if self.left < 5:
            self.add(trial, arguments, {"error": "no time was left"})
            return
        command = [sys.executable, __file__, "--trial", trial, str(folder), *arguments]
        with tempfile.TemporaryFile("w+") as errors:
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True
            )
            with ThreadPoolExecutor(1) as waiting:
                longest = min(self.left, LONGEST)
                reading = waiting.submit(self._read, trial, arguments, process)
                try:
                    reading.result(timeout=longest)
                    process.wait(timeout=max(self.left, 1))
                except (TimeoutError, subprocess.TimeoutExpired):
                    os.killpg(process.pid, 9)
                    self.add(trial, arguments, {"error": "the time was over"})
                    return
            if process.returncode:
                errors.seek(0)
                words = errors.read()[-1500:]
                self.add(trial, arguments, {"error": f"exit code {process.returncode}", "words": words})

    def _read(self, trial: str, arguments: tuple[str, ...], process: subprocess.Popen) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("{"):
                self.add(trial, arguments, json.loads(line))


def run(folder: Path, report: Report, only: list[str]) -> None:
    """Every section that is wanted, what matters most first."""

    def wanted(section: str) -> bool:
        return section in only if only else section != "smoke"

    def in_parallel(jobs: list[tuple[str, ...]], at_once: int) -> None:
        with ThreadPoolExecutor(at_once) as side_by_side:
            list(side_by_side.map(lambda job: report.run(job[0], folder, *job[1:]), jobs))

    for section in ("environment", "smoke"):
        if wanted(section):
            report.run(section, folder)
    timed = [
        Timed(name, batch)
        for name in NETWORKS * wanted("speed")
        for batch in ((128,) if name.partition("-")[2] in ONCE else BATCHES)
    ]
    timed += [Timed(f"{model}-rate32", 128, profiled=True) for model in MODELS] * wanted("kernels")
    timed += [Timed("cifar10-rate32", 128, kind) for kind in FORCED] * wanted("matrices")
    theirs = [("ml_genn_tf", str(batch)) for batch in BATCHES] * wanted("ml_genn_tf")
    exact = [("conformance", name, str(batch)) for batch in EXACT_BATCHES for name in EXACT] * wanted("conformance")
    checked = [("racecheck", kind) for kind in RACING] * wanted("races")
    builds = [("build", str(each)) for each in timed] + [(*each, "build") for each in theirs]
    exact += [("functions",)] * wanted("functions")
    in_parallel([*exact, *checked, *builds], SIDE_BY_SIDE)
    for kind in RACING * wanted("races"):
        report.run("races", folder, kind)
    peers = [("spikingjelly", model, str(steps)) for steps in (4, 32) for model in MODELS] * wanted("spikingjelly")
    in_parallel([*theirs, *peers, *(("speed", str(each)) for each in timed)], GETTING_READY)
    in_parallel([("conformance", name, "32") for name in AGAIN] * wanted("again"), SIDE_BY_SIDE)


# Tables


def table(rows: list[dict]) -> str:
    """What was measured, in Markdown."""
    of = {trial: [row for row in rows if row["trial"] == trial and "error" not in row] for trial in TRIALS}
    facts = of["environment"][0] if of["environment"] else {}
    lines = [
        f"{facts.get('nvidia-smi')}; CUDA {facts.get('nvcc')}; pygenn {facts.get('pygenn')}, {facts.get('processor')}",
        "",
    ]
    exact = of["conformance"]
    lines += [f"Conformance: {sum(row['equal'] for row in exact)} of {len(exact)} builds equal in every spike.", ""]
    lines += ["| Network | Batch | Images/s | ms a batch | µs a step | GPU memory, MiB | Accuracy | the engine's |"]
    lines += ["| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"]
    for row in sorted(of["speed"], key=lambda row: (row["network"], row["matrix_type"] or "", row["batch"])):
        name = row["network"] + (f", {row['matrix_type']}" if row["matrix_type"] else "")
        name += ", profiled" if "kernel_us_per_step" in row else ""
        accuracy = [f"{row[key]:.2%}" if key in row else "" for key in ("accuracy", "engine_accuracy")]
        numbers = [f"{row['images_per_s']:,.0f}", f"{row['ms_per_batch']:.2f}", f"{row['us_per_step']:.0f}"]
        numbers.append("" if row["gpu_mib"] is None else f"{row['gpu_mib']}")
        lines.append(f"| {' | '.join([name, str(row['batch']), *numbers, *accuracy])} |")
    for row in [row for row in (*of["ml_genn_tf"], *of["spikingjelly"]) if "images_per_s" in row]:
        name = f"{row['network']}, T = {row['timesteps']}"
        numbers = [f"{row['images_per_s']:,.0f}", f"{row['ms_per_batch']:.2f}", "", "", f"{row['accuracy']:.2%}", ""]
        lines.append(f"| {' | '.join([name, str(row['batch']), *numbers])} |")
    for row in of["speed"]:
        if "kernel_us_per_step" in row:
            kernels = ", ".join(f"{name} {time:.0f}" for name, time in row["kernel_us_per_step"].items() if time >= 0.5)
            lines += ["", f"{row['network']}, batch {row['batch']}: µs a step within kernels: {kernels}."]
    for row in (*of["functions"], *of["races"], *of["racecheck"]):
        lines += ["", json.dumps(row)]
    return "\n".join(lines)


def main() -> None:
    if "--trial" in sys.argv:
        name, folder, *arguments = sys.argv[sys.argv.index("--trial") + 1 :]
        for row in TRIALS[name](Path(folder).resolve(), *arguments):
            print(json.dumps(row, default=float), flush=True)
        return
    options = parse_arguments()
    if options.command == "pack":
        pack(options.folder, options.data)
    elif options.command == "table":
        print(table(json.loads(options.report.read_text())))
    else:
        report = Report(options.out, time.monotonic() + options.limit)
        if options.resume:
            report.resume()
        with tempfile.TemporaryDirectory(prefix="snnc-gpu-") as builds:
            os.environ.setdefault("SNNC_GPU_BUILDS", builds)
            run(options.folder, report, options.only)
        print(table(report.rows))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack", help="networks and images into FOLDER")
    packing.add_argument("folder", type=Path)
    packing.add_argument("--data", type=Path, required=True)
    running = commands.add_parser("run", help="measure what FOLDER holds")
    running.add_argument("folder", type=Path)
    running.add_argument("--out", type=Path, default=Path("gpu.json"))
    running.add_argument("--resume", action="store_true", help="keep what is in --out, and run what is not")
    running.add_argument("--limit", type=float, default=460, help="seconds in all")
    sections = (
        "environment",
        "smoke",
        "conformance",
        "functions",
        "again",
        "races",
        "speed",
        "matrices",
        "kernels",
        "ml_genn_tf",
        "spikingjelly",
    )
    running.add_argument("--only", nargs="+", choices=sections, default=[], help="sections, if not all but smoke")
    commands.add_parser("table", help="Markdown of a report").add_argument("report", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
