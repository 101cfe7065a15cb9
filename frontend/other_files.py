"""Files that no model is read from, though people have them: what they are, by their names, and what to give instead.

None of them is opened but JSON: a pickle would run code.
"""

from __future__ import annotations

import json
from pathlib import Path

REBUILD = "rebuild the model in Keras 3, load its weights, and give that"

_LARGEST = 2**26  # bytes of JSON that are looked at
_MODULE = (
    "is of PyTorch and may be a pickle, which can run code, so that it is not opened; load it in Python, and give the "
    "torch.nn.Module with an example of its inputs, or export it to ONNX"
)
_PICKLE = "is a pickle, which can run code, so that it is not opened; load it in Python, and give the model itself"
_WEIGHTS = "holds weights without a model; load them into the model in Python, and give that"
_GRAPH = "is a bare graph of TensorFlow; give the folder of a SavedModel, or an ONNX file (python -m tf2onnx.convert)"
_LITE = "is made for TensorFlow Lite; give the model that it was made from, or an ONNX file (python -m tf2onnx.convert)"
_ARCHITECTURE = (
    "holds a model's architecture at most, without weights; give the model itself, or a .keras or .onnx file"
)
_PROGRAM = "is a program, which is not run; import the model in Python, and give it"
_PACKED = "is an archive; unpack it, and give the model in it"
_ARRAYS = "holds arrays, and no model"

_KINDS = {
    **dict.fromkeys((".pt", ".pth", ".pt2", ".ptl", ".torchscript"), _MODULE),
    **dict.fromkeys((".pkl", ".pickle", ".joblib", ".dill"), _PICKLE),
    **dict.fromkeys((".safetensors", ".ckpt", ".index", ".data-00000-of-00001"), _WEIGHTS),
    **dict.fromkeys((".pb", ".pbtxt"), _GRAPH),
    ".tflite": _LITE,
    **dict.fromkeys((".json", ".yaml", ".yml"), _ARCHITECTURE),
    **dict.fromkeys((".py", ".ipynb"), _PROGRAM),
    **dict.fromkeys((".zip", ".gz", ".tgz", ".tar"), _PACKED),
    **dict.fromkeys((".npy", ".npz"), _ARRAYS),
}


def what_it_is(path: Path) -> str | None:
    """What a file without a model is, and what to give instead, as the rest of a sentence; None where nobody knows."""
    suffix = path.suffix.lower()
    return (suffix == ".json" and _keras_architecture(path)) or _KINDS.get(suffix)


def is_too_old(version: str) -> bool:
    """Whether no later Keras knows the layers of this one."""
    return version.startswith(("0.", "1."))


def _keras_architecture(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            content = json.loads(file.read(_LARGEST))
    except (OSError, ValueError, RecursionError):
        return None
    match content:
        case {"class_name": str(), "config": _, "keras_version": str(version)} if is_too_old(version):
            return f"is a model's architecture as Keras {version[:20]!r} wrote it, without weights; {REBUILD}"
        case {"class_name": str(), "config": _}:
            return (
                "is the architecture of a Keras model, without weights; make the model in Python "
                "(keras.models.model_from_json), load its weights, and give that"
            )
    return None
