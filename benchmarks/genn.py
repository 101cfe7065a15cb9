"""One network on GeNN, as snnc and as ml_genn_tf make it: seconds to build it, of its first image, and of a step.

    python benchmarks/genn.py MODEL.keras DATA.npz --scale 1/255 [--python ml_genn_tf=INTERPRETER] [--images 500]
        [--timesteps 32] [--repeats 3] [--backend NAME] [--json FILE]

Runs in snnc's environment, with GeNN and Keras. MODEL is a Sequential Keras 3 network that ml_genn_tf can convert, too:
convolutions, valid average pooling and dense layers without biases, rectified, a softmax at the end. DATA holds
x_train, x_test and y_test. INTERPRETER has the environment of benchmarks/ml_genn_tf_reference.py; without it these rows
say so.

Rate coding for T timesteps. The first images of x_train normalise all alike: a threshold is the largest activation,
except in the first row, which is how snnc's pipeline comes. The row of snnc.converters has ml_genn_tf's neurons and
mlGeNN's compiler: ml_genn_tf's network, with snnc's matrices. ml_genn_tf's own has the matrices that mlGeNN prefers,
SPARSE ones, and in one row TOEPLITZ ones: GeNN cannot build two SPARSE `Conv2D` of different kernel shape, and then an
error is the result. GeNN compiles all with optimisation.

Every measurement is a process of its own, with an empty folder: `--trial NAME TASK.npz` makes one, and prints a line of
JSON. Converting is from the Keras model in memory to the spiking network; building is until GeNN's library is there,
mlGeNN's also loaded, while snnc loads its own in every run (tens of milliseconds). The first image is the first that
the process runs; then all are run a few times. The step is their time, over images times T: networks of snnc's neurons
run T + D steps per image, D their depth, and the D are paid for, not counted. All are medians; the repeats of different
rows take turns. Spikes, which a step's time goes with, are those of all neurons but the input's, in a build of its own.

GeNN takes a GPU where pygenn was built for one, and then a batch of 128 images; --backend is GeNN's name for another
choice, as single_threaded_cpu. benchmarks/gpu.py is for GPUs.
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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import machine
import numpy as np
from peers import Run, Task, make_task, require_equal, rounds

CPU = "single_threaded_cpu"
GPU_BATCH = 128
COUNTED = 128  # images, whose spikes are
OURS, THEIRS = "snnc", "ml_genn_tf"
PACKAGES = {OURS: ("snnc", "ml_genn", "pygenn"), THEIRS: ("ml_genn_tf", "ml_genn", "pygenn", "tensorflow")}
# GeNN's builds print, TensorFlow warns, and it would take all of a GPU's memory.
QUIET = {"MAKEFLAGS": "--silent", "TF_CPP_MIN_LOG_LEVEL": "3", "TF_FORCE_GPU_ALLOW_GROWTH": "true"}


@dataclass(frozen=True)
class Pipeline:
    """A network of `snnc.convert`, which `snnc.compile` builds."""

    pipeline: str
    environment = OURS

    @property
    def title(self) -> str:
        return f"snnc, `{self.pipeline}`"

    def read(self, task: Task) -> Any:
        return keras_model(task)

    def convert(self, model: Any, task: Task) -> Any:
        import snnc

        network = snnc.load(model)
        return snnc.convert(
            network, self.pipeline, calibration=task.calibration, timesteps=task.timesteps, progress=False
        )

    @contextmanager
    def built(self, network: Any, backend: str) -> Iterator[Run]:
        compiled = self.compiled(network, backend)
        yield lambda x: compiled.predict(x, progress=False)

    def spikes(self, network: Any, x: np.ndarray, backend: str) -> float:
        counts = self.compiled(network, backend).simulate(x, progress=False).spike_counts
        return sum(float(each.sum()) for name, each in counts.items() if name not in network.inputs) / len(x)

    def compiled(self, network: Any, backend: str) -> Any:
        import snnc

        device = "cpu" if backend == CPU else "gpu"
        return snnc.compile(network, "mlgenn", device=device, batch_size=batch(backend))


@dataclass(frozen=True)
class Converter:
    """A network of ml_genn_tf's `DataNorm`, or of its namesake in snnc, which mlGeNN's compiler builds."""

    environment: str
    input: str
    in_memory: bool = True  # mlGeNN's preference: SPARSE matrices, not TOEPLITZ ones

    @property
    def title(self) -> str:
        where = "ml_genn_tf" if self.environment == THEIRS else "snnc.converters with ml_genn_tf's neurons"
        return f"{where}, `DataNorm(input_type={self.input!r})`" + ("" if self.in_memory else ", TOEPLITZ")

    def read(self, task: Task) -> Any:
        if self.environment == OURS:
            return keras_model(task)
        import tensorflow as tf
        from ml_genn_tf_reference import load

        model = load(task.model)
        require_equal(model.predict(task.x, verbose=0), tf.nn.softmax(task.logits).numpy())
        return model

    def convert(self, model: Any, task: Task) -> Any:
        if self.environment == OURS:
            from snnc.converters import DataNorm

            options = {"mlgenn_neurons": True}
        else:
            from ml_genn_tf.converters import DataNorm

            options = {}
        batches = [(image[np.newaxis], np.zeros(1)) for image in task.calibration]  # the labels are not used
        converter = DataNorm(task.timesteps, norm_data=[batches], input_type=self.input, **options)
        return converter, converter.convert(model)

    @contextmanager
    def built(self, converted: Any, backend: str) -> Iterator[Run]:
        _, (_, inputs, outputs, _) = converted
        with (compiled := self.compiled(converted, backend)):
            yield lambda x: compiled.predict({inputs[0]: x}, outputs[0], callbacks=[])[0][outputs[0]]

    def spikes(self, converted: Any, x: np.ndarray, backend: str) -> float:
        from ml_genn.callbacks import SpikeRecorder

        _, (network, inputs, outputs, _) = converted
        spiking = [population for population in network.populations if population not in inputs]
        for population in spiking:
            population.record_spikes = True  # which slows a run, so what is timed is without it
        recorders = [SpikeRecorder(each, key=each.name, record_counts=True) for each in spiking]
        with (compiled := self.compiled(converted, backend)):
            _, found = compiled.predict({inputs[0]: x}, outputs[0], callbacks=recorders)
        return float(sum(np.sum(counts) for each in found.values() for counts in each)) / len(x)

    def compiled(self, converted: Any, backend: str) -> Any:
        converter, (network, inputs, outputs, _) = converted
        compiler = converter.create_compiler(
            batch_size=batch(backend),
            rng_seed=1,
            prefer_in_memory_connect=self.in_memory,
            backend=backend,
            optimize_code=True,
        )
        return compiler.compile(network, inputs=inputs, outputs=outputs)


TRIALS: dict[str, Pipeline | Converter] = {
    "default": Pipeline("data-norm{percentile=99.9,per-channel=true}"),
    "if": Pipeline("data-norm{input=integrate-fire}"),
    "poisson": Pipeline("data-norm{input=poisson}"),
    "converters-if": Converter(OURS, "if"),
    "ml_genn_tf-if": Converter(THEIRS, "if"),
    "ml_genn_tf-poisson": Converter(THEIRS, "poisson"),
    "ml_genn_tf-toeplitz": Converter(THEIRS, "if", in_memory=False),
}


def keras_model(task: Task) -> Any:
    import keras

    return keras.saving.load_model(task.model, compile=False)


def batch(backend: str) -> int:
    return 1 if backend == CPU else GPU_BATCH


# One measurement, in a process of its own.


def measure(trial: Pipeline | Converter, task: Task, backend: str | None) -> dict:
    """Seconds to convert, to build, of the first image and of all, a few times; the classes of all, and spikes."""
    from pygenn.genn_model import backend_modules

    chosen = backend or next(iter(backend_modules))  # the one that GeNN and snnc prefer
    model = trial.read(task)
    started = time.perf_counter()
    network = trial.convert(model, task)
    converted = time.perf_counter()
    with trial.built(network, chosen) as run:
        built = time.perf_counter()
        run(task.x[:1])
        first = time.perf_counter() - built
        seconds = rounds(run, task.x)
        classes = run(task.x).argmax(-1).tolist()
    spikes = trial.spikes(network, task.x[:COUNTED], chosen)
    versions = {package: version(package) for package in PACKAGES[trial.environment]}
    facts = {"backend": chosen, "batch": batch(chosen), "versions": versions, "classes": classes, "spikes": spikes}
    return facts | {"convert": converted - started, "build": built - converted, "first": first, "rounds": seconds}


def measured_apart(name: str, path: Path, options: argparse.Namespace) -> dict:
    """What a process of its own measures; or the last line of its error."""
    python = options.python.get(TRIALS[name].environment)
    if not python:
        return {"error": f"no interpreter was given: --python {TRIALS[name].environment}=INTERPRETER"}
    command = [python, str(Path(__file__).resolve()), "--trial", name, str(path)]
    command += ["--backend", options.backend] if options.backend else []
    with tempfile.TemporaryDirectory() as folder:  # mlGeNN builds in the current folder
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=os.environ | QUIET)
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1]}
    return json.loads(done.stdout.splitlines()[-1])


# All of them.


def main() -> None:
    options = parse_arguments()
    if options.trial:
        name, path = options.trial
        with contextlib.redirect_stdout(sys.stderr):
            found = measure(TRIALS[name], Task.load(Path(path)), options.backend)
        print(json.dumps(found))
        return
    report = compare(options)
    print(markdown(report))
    if options.json:
        options.json.write_text(json.dumps(report, indent=1))


def parse_arguments() -> argparse.Namespace:
    def interpreter(text: str) -> tuple[str, str]:
        name, _, path = text.partition("=")
        if name != THEIRS or not shutil.which(path):
            raise argparse.ArgumentTypeError(f"{text!r} is not {THEIRS}=INTERPRETER with one that is there")
        return name, path

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--scale", default="1")
    parser.add_argument("--timesteps", type=int, default=32)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--calibration", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=3, help="processes for each row")
    parser.add_argument("--trials", nargs="+", choices=TRIALS, default=[*TRIALS])
    parser.add_argument("--python", nargs=1, type=interpreter, default=[], metavar=f"{THEIRS}=INTERPRETER")
    parser.add_argument("--backend", help="GeNN's name of it")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--trial", nargs=2, metavar=("NAME", "TASK"), help="measure this one here, and print JSON")
    options = parser.parse_args()
    if not options.trial and not (options.model and options.data):
        parser.error("give MODEL and DATA, or --trial NAME TASK")
    options.python = {OURS: sys.executable, **dict(options.python)}
    return options


def compare(options: argparse.Namespace) -> dict:
    task, y = make_task(options)
    found: dict[str, list[dict]] = {name: [] for name in options.trials}
    with tempfile.TemporaryDirectory() as folder:
        task.save(path := Path(folder) / "task.npz")
        for _ in range(options.repeats):
            for name, measurements in found.items():
                measurements.append(measured_apart(name, path, options))
                print(f"{name}: {measurements[-1].get('error', 'done')}", file=sys.stderr)
    steps = len(y) * task.timesteps
    rows = [{"trial": name, "title": TRIALS[name].title} | summary(each, y, steps) for name, each in found.items()]
    facts = {"model": options.model.name, "timesteps": task.timesteps, "images": len(y), "repeats": options.repeats}
    facts |= {"ann": float((task.logits.argmax(-1) == y).mean())}
    return {"machine": machine.describe()} | facts | {"rows": rows}


def summary(measurements: list[dict], y: np.ndarray, steps: int) -> dict:
    """The medians of a row's processes; or the first error."""
    errors = [each["error"] for each in measurements if "error" in each]
    if errors:
        return {"error": errors[0]}
    medians = {name: statistics.median(each[name] for each in measurements) for name in ("convert", "build", "first")}
    step = statistics.median(seconds for each in measurements for seconds in each["rounds"]) / steps
    accuracy = float((np.array(measurements[0].pop("classes")) == y).mean())
    return (
        {"accuracy": accuracy, "spikes": measurements[0]["spikes"], "step": step}
        | medians
        | {"measurements": measurements}
    )


def markdown(report: dict) -> str:
    facts = {key: value for key, value in report["machine"].items() if value != "not installed"}
    done = [row for row in report["rows"] if "error" not in row]
    measured = {TRIALS[row["trial"]].environment: row["measurements"][0] for row in done}
    lines = [
        listed(facts),
        *(
            f"Rows of {name}: {listed(each['versions'])}; GeNN's {each['backend']}, batches of {each['batch']}."
            for name, each in measured.items()
        ),
        "",
        f"{report['model']}, T = {report['timesteps']}; accuracy on {report['images']} test images, of the ANN "
        f"{report['ann']:.2%}; medians of {report['repeats']} processes.",
        "",
        "| Network | Accuracy | Convert, s | Build, s | First image, ms | Spikes per image | Step, µs | Step / row 1 |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in report["rows"]:
        if "error" in row:
            lines.append(f"| {row['title']} | not run: {row['error']} | | | | | | |")
            continue
        lines.append(
            f"| {row['title']} | {row['accuracy']:.2%} | {row['convert']:.2f} | {row['build']:.2f} "
            f"| {1e3 * row['first']:.0f} | {row['spikes']:.0f} "
            f"| {1e6 * row['step']:.0f} | {row['step'] / done[0]['step']:.2f} |"
        )
    return "\n".join(lines)


def listed(facts: dict[str, str]) -> str:
    return ", ".join(f"{key} {value}" for key, value in facts.items())


if __name__ == "__main__":
    main()
