"""Keras 3 on JAX or PyTorch: the model is rebuilt by Keras on TensorFlow in another process, which reads it there.

A process has one Keras backend for good. What comes back is a network file and a report in JSON; what is compared with
the network is the model itself, on its own backend.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..ir import ModelFileError, Refusal, SnncError, UnsupportedModelError, load, save
from . import tf_graph
from .affine import as_tensor
from .given import shapes_of
from .graph import GraphInput
from .keras_calls import in_single_precision
from .keras_model import called
from .reading import Arrays, Computed, Reading

_REBUILT = (
    "its class is not part of Keras, so that TensorFlow cannot rebuild it; run Python with KERAS_BACKEND=tensorflow"
)


def runs_elsewhere() -> bool:
    """Whether Keras runs on another backend than TensorFlow in this process."""
    tf_graph.packages()
    import keras

    return keras.backend.backend() != "tensorflow"


def read(model: Any, inputs: Any = None) -> Reading:
    """The analog network of a Keras 3 model on JAX or PyTorch, which is left as it was.

    `inputs` says the sizes that the model leaves open (`given.py`). Raises UnsupportedModelError with every layer that
    has no spiking counterpart.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        try:
            model.save(path)
        except Exception as error:  # whatever Keras or a layer of the user's says
            raise UnsupportedModelError(f"model {model.name!r} cannot be saved by Keras", [str(error)]) from None
        return _read_there(path, f"model {model.name!r}", model, inputs)


def read_file(path: Path, inputs: Any = None) -> Reading:
    """The analog network of a .keras or .h5 file, where Keras runs on JAX or PyTorch."""
    return _read_there(path, str(path), None, inputs)


def _read_there(path: Path, title: str, model: Any, inputs: Any) -> Reading:
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "network.snn"
        environment = {**os.environ, "KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": "-1"}
        shapes = json.dumps(None if inputs is None else shapes_of(inputs))
        command = [sys.executable, "-m", __name__, str(path), str(output), title, shapes]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            said = (done.stderr.strip() or "it gave no reason").splitlines()[-1]
            raise ModelFileError(f"{title} cannot be read by Keras on TensorFlow: {said}")
        report = json.loads(done.stdout.splitlines()[-1])
        _raise_reported(report, in_memory=model is not None)
        network = load(output)
    inputs = {given[0]: GraphInput(*given) for given in report["inputs"]}
    outputs = [str(position) for position in range(len(network.outputs))]
    readouts = dict(zip(outputs, network.outputs, strict=True))
    return Reading(
        title,
        network,
        functools.partial(_computed, path if model is None else model, inputs),
        lambda tensor, activations: activations[readouts[tensor]][0],
        outputs,
        report["parameters"],
        report["layers"],
        inputs,
    )


def _raise_reported(report: Mapping[str, Any], in_memory: bool) -> None:
    """The error that the other process met, if it met one."""
    if "damage" in report:
        raise ModelFileError(report["damage"])
    if "problems" not in report:
        return
    from .keras_file import FOREIGN

    problems: list[str] = []
    for problem in report["problems"]:
        if isinstance(problem, str):
            problems.append(problem)
        else:
            layer, kind, reason = problem
            problems.append(Refusal(layer, kind, _REBUILT if in_memory and reason == FOREIGN else reason))
    raise UnsupportedModelError(report["title"], problems, report["layers"], report["unread"])


def _computed(model: Any, given: Mapping[str, GraphInput], inputs: Arrays, wanted: Sequence[str]) -> Computed:
    """What Keras computes for one image on its own backend: the outputs."""
    import keras

    if isinstance(model, Path):
        from . import keras_file

        model = keras_file.loaded(model, str(model))
    arrays = [as_tensor(array, given[name].layout) for name, array in inputs.items()]
    with in_single_precision(model._flatten_layers()):
        outputs = called(model, [keras.ops.convert_to_tensor(array) for array in arrays])
    found = {str(position): np.asarray(keras.ops.convert_to_numpy(tensor)) for position, tensor in enumerate(outputs)}
    return Computed({name: found[name] for name in wanted}, f"Keras on {keras.backend.backend()}")


def _main(path: str, output: str, title: str, shapes: str) -> None:
    """In the other process: write the network, and print what the first has to know beside it."""
    from . import keras_file

    try:
        reading = keras_file.read(Path(path), title, json.loads(shapes))
    except UnsupportedModelError as error:
        lines = [[p.layer, p.kind, p.reason] if isinstance(p, Refusal) else p for p in error.problems]
        first = str(error).splitlines()[0]
        print(json.dumps({"title": first, "problems": lines, "layers": error.layers, "unread": error.unread}))
        return
    except SnncError as error:
        print(json.dumps({"damage": str(error)}))
        return
    save(reading.network, output)
    given = [(entry.name, entry.shape, entry.layout, entry.whole) for entry in reading.inputs.values()]
    print(json.dumps({"parameters": reading.parameters, "layers": reading.layers, "inputs": given}))


if __name__ == "__main__":
    _main(*sys.argv[1:])
