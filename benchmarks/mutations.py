"""Small models of every format, and ways to damage them: by accident, and on purpose.

`make` writes the models; `mutate` writes a damaged copy of one, the same for the same random generator. Models and
mutations that carry code have it import `CANARY`, a module that leaves a mark when it is run.
"""

import base64
import io
import json
import marshal
import pickle
import random
import shutil
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

CANARY = "snnc_fuzz_canary"
MARK = "code-was-run"
SUFFIXES = {"keras": ".keras", "h5": ".h5", "onnx": ".onnx", "snn": ".snn", "savedmodel": ""}
EXPORTED = Path(__file__).parents[1] / "tests" / "data" / "onnx"

NUMBERS = (
    0,
    -1,
    1,
    2,
    3,
    7,
    100,
    10**4,
    10**6,
    2**26,
    2**28,
    2**31 - 1,
    2**31,
    2**40,
    2**62,
    2**63 - 1,
    -(2**63),
    0.5,
    -1e300,
)
WORDS = ("", "relu", "softmax", "Lambda", "Dense", "Conv2D", "InputLayer", "../../etc/passwd", "/etc/passwd", "é", "\0")
OPERATORS = (
    *("Slice", "Pad", "Split", "Gather", "Concat", "ReduceMean", "MaxPool", "Expand", "Tile", "Range", "Loop", "If"),
    *("ConvTranspose", "CumSum", "Upsample", "LpPool", "Attention", "ScatterND", "Col2Im", "Trilu", "GatherElements"),
    *("Resize", "ConstantOfShape", "Reshape", "Transpose", "Einsum", "OneHot", "Conv", "MatMul", "TopK", "Where"),
)
TF_OPERATORS = (
    *("WriteFile", "ReadFile", "PyFunc", "EagerPyFunc", "PrintV2", "While", "Fill", "Tile", "Range", "Reshape", "Pad"),
    *("MatMul", "Conv2D", "Identity", "NoOp", "BroadcastTo", "StatefulPartitionedCall", "ImmutableConst", "Nonsense"),
)


@dataclass(frozen=True)
class Mutation:
    """How a model was damaged. What is `hostile` must be refused: it reaches outside or carries code."""

    name: str
    hostile: bool = False


Damage = Callable[[bytes, random.Random], bytes]


# Models.


def make(folder: Path, formats: list[str]) -> None:
    """Write the models of each format into a folder of its own, and the canary beside them."""
    mark = folder / MARK
    (folder / f"{CANARY}.py").write_text(f"open({str(mark)!r}, 'w').close()\n\n\ndef touch(x):\n    return x\n")
    makers = {"keras": _make_keras, "h5": _make_keras, "onnx": _make_onnx, "snn": _make_snn, "savedmodel": _make_tf}
    for name in formats:
        (folder / name).mkdir()
        makers[name](folder / name, SUFFIXES[name])


def samples(folder: Path, format: str) -> list[Path]:
    """The models of a format, those first that can be read."""
    return sorted((folder / format).iterdir())


def _keras_model() -> Any:
    import keras
    from keras import layers

    x = keras.Input((8, 8, 3), name="image")
    y = layers.Conv2D(4, 3, padding="same", activation="relu", name="conv")(x)
    y = layers.BatchNormalization(name="norm")(y)
    y = layers.ReLU(name="relu")(layers.Add(name="add")([y, layers.DepthwiseConv2D(3, padding="same")(y)]))
    y = layers.Dropout(0.5)(layers.Flatten(name="flat")(layers.MaxPooling2D(name="pool")(y)))
    return keras.Model(x, layers.Dense(5, activation="softmax", name="class")(y), name="small")


def _gated() -> Any:
    """What bends, gates, normalises and attends."""
    import keras
    from keras import layers

    x = keras.Input((8, 8, 3), name="image")
    y = layers.LayerNormalization(name="norm")(layers.Conv2D(4, 3, strides=2, activation="gelu", name="conv")(x))
    gate = layers.Dense(4, "sigmoid", name="gate")(layers.GlobalAveragePooling2D(keepdims=True, name="mean")(y))
    y = layers.Conv2DTranspose(4, 3, strides=2, activation="silu", name="up")(layers.Multiply(name="gated")([y, gate]))
    y = layers.AveragePooling2D(2, name="pool")(layers.UpSampling2D(2, interpolation="bilinear", name="larger")(y))
    tokens = layers.Reshape((-1, 4), name="tokens")(y)
    y = layers.Add(name="add")([tokens, layers.MultiHeadAttention(2, 3, name="attention")(tokens, tokens)])
    return keras.Model(x, layers.Dense(5, "softmax", name="class")(layers.Flatten(name="flat")(y)), name="gated")


def _recurrent() -> Any:
    """Tokens that are looked up, and layers that go step by step."""
    import keras
    from keras import layers

    x = keras.Input((6,), dtype="int32", name="tokens")
    y = layers.Embedding(10, 4, name="words")(x)
    y = layers.Bidirectional(layers.LSTM(3, return_sequences=True), name="both")(y)
    y = layers.SimpleRNN(3, go_backwards=True, name="last")(layers.GRU(4, return_sequences=True, name="gated")(y))
    return keras.Model(x, layers.Dense(2, name="class")(y), name="recurrent")


def _make_keras(folder: Path, suffix: str) -> None:
    import keras

    _keras_model().save(folder / f"a-cnn{suffix}")
    _gated().save(folder / f"c-gated{suffix}")
    _recurrent().save(folder / f"d-recurrent{suffix}")
    mlp = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4, "relu"), keras.layers.Dense(2)], name="mlp")
    mlp.compile("adam", "mse")
    mlp.save(folder / f"b-mlp{suffix}")


def _make_onnx(folder: Path, suffix: str) -> None:
    import onnx

    for path in EXPORTED.glob(f"*{suffix}"):
        shutil.copy(path, folder)
    for model in (_decoder(), _transformer(), _speech()):
        onnx.save(model, folder / f"{model.graph.name}{suffix}")


def _decoder() -> Any:
    """What makes images larger and smaller, moves and sums them, and an operator that is read by its definition."""
    from onnx import helper

    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MaxPool", ["b"], ["c"], kernel_shape=[2, 2], dilations=[2, 2], strides=[2, 2]),
        helper.make_node("ConvTranspose", ["c", "w2"], ["d"], strides=[2, 2], output_padding=[1, 1], group=2),
        helper.make_node("Resize", ["d", "", "scales"], ["e"], mode="linear"),
        helper.make_node("Pad", ["e", "ends"], ["f"], mode="reflect"),
        helper.make_node("Gather", ["f", "rows"], ["g"], axis=2),
        helper.make_node("CumSum", ["g", "axis"], ["h"], reverse=1),
        helper.make_node("LpPool", ["h"], ["i"], kernel_shape=[2, 2], p=2),
        helper.make_node("MeanVarianceNormalization", ["i"], ["j"], axes=[1, 2, 3]),
        helper.make_node("ScatterElements", ["j", "places", "new"], ["k"], axis=3),
        helper.make_node("DepthToSpace", ["k"], ["y"], blocksize=2),
    ]
    drawn = {"w1": (4, 2, 3, 3), "w2": (4, 2, 3, 3), "new": (1, 4, 3, 1)}
    known = {name: rng.normal(size=shape).astype(np.float32) for name, shape in drawn.items()}
    known |= {"scales": np.float32([1, 1, 1.5, 0.5]), "ends": np.array([0, 0, 1, 1, 0, 0, 2, 0]), "axis": np.array(3)}
    known |= {"rows": np.array([5, 0, 0, 3, 9, 1]), "places": np.full((1, 4, 3, 1), 2)}
    return _model("decoder", nodes, {"x": (1, 2, 8, 8)}, {"y": (1, 1, None, None)}, known)


def _transformer() -> Any:
    """Tokens that are looked up, normalised, and attend to one another; gates, and quotients that may be 0/0."""
    from onnx import TensorProto, helper

    rng = np.random.default_rng(1)
    nodes = [
        helper.make_node("Gather", ["table", "tokens"], ["a"]),
        helper.make_node("LayerNormalization", ["a", "scale", "offset"], ["b"]),
        helper.make_node("MatMul", ["b", "w1"], ["c"]),
        helper.make_node("Split", ["c", "thirds"], ["q", "k", "v"], axis=2),
        helper.make_node("Transpose", ["k"], ["kt"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["q", "kt"], ["s"]),
        helper.make_node("Softmax", ["s"], ["p"]),
        helper.make_node("MatMul", ["p", "v"], ["d"]),
        helper.make_node("Add", ["a", "d"], ["e"]),
        helper.make_node("Gelu", ["e"], ["f"]),
        helper.make_node("Sigmoid", ["e"], ["g"]),
        helper.make_node("Mul", ["f", "g"], ["h"]),
        helper.make_node("ReduceMean", ["h", "axes"], ["i"], keepdims=0),
        helper.make_node("Equal", ["i", "zero"], ["at_zero"]),
        helper.make_node("Where", ["at_zero", "one", "i"], ["below"]),
        helper.make_node("ReduceMax", ["h", "axes"], ["most"], keepdims=0),
        helper.make_node("Div", ["most", "below"], ["quotient"]),
        helper.make_node("Where", ["at_zero", "zero", "quotient"], ["safe"]),
        helper.make_node("Einsum", ["safe", "w2"], ["y"], equation="bi,ij->bj"),
    ]
    drawn = {"table": (9, 4), "scale": (4,), "offset": (4,), "w1": (4, 12), "w2": (4, 3)}
    known = {name: rng.normal(size=shape).astype(np.float32) for name, shape in drawn.items()}
    known |= {"thirds": np.array([4, 4, 4]), "axes": np.array([1]), "zero": np.float32(0), "one": np.float32(1)}
    return _model("transformer", nodes, {"tokens": (1, 5)}, {"y": (1, 3)}, known, 20, TensorProto.INT64)


def _speech() -> Any:
    """Steps of a series with states that are handed on, in a branch that one of its constants chooses."""
    from onnx import helper

    rng = np.random.default_rng(2)
    branches = [
        helper.make_graph(
            [helper.make_node("LSTM", ["c", "w", "r", "b", "", "h0", "c0"], ["steps", "h", "last"], hidden_size=3)],
            "then",
            [],
            [helper.make_empty_tensor_value_info(name) for name in ("steps", "h", "last")],
        ),
        helper.make_graph(
            [helper.make_node("Identity", [name], [f"{name}_"]) for name in ("c", "h0", "c0")],
            "else",
            [],
            [helper.make_empty_tensor_value_info(f"{name}_") for name in ("c", "h0", "c0")],
        ),
    ]
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], strides=[2]),
        helper.make_node("Relu", ["a"], ["b1"]),
        helper.make_node("Transpose", ["b1"], ["c"], perm=[2, 0, 1]),
        helper.make_node("Split", ["state", "halves"], ["h0", "c0"], axis=0),
        helper.make_node(
            "If", ["chosen"], ["s", "h1", "c1"], then_branch=branches[0], else_branch=branches[1], name="which"
        ),
        helper.make_node("Concat", ["h1", "c1"], ["state_out"], axis=0),
        helper.make_node("GRU", ["c", "w3", "r3"], ["", "g"], hidden_size=2),
        helper.make_node("Squeeze", ["g", "zeroth"], ["y"]),
    ]
    drawn = {"w1": (4, 2, 3), "w": (1, 12, 4), "r": (1, 12, 3), "b": (1, 24), "w3": (1, 6, 4), "r3": (1, 6, 2)}
    known = {name: rng.normal(size=shape).astype(np.float32) for name, shape in drawn.items()}
    known |= {"halves": np.array([1, 1]), "chosen": np.array([True]), "zeroth": np.array([0])}
    inputs = {"x": (1, 2, 12), "state": (2, 1, 3)}
    return _model("speech", nodes, inputs, {"y": (1, 2), "state_out": (2, 1, 3)}, known)


def _model(
    name: str, nodes: Any, inputs: Any, outputs: Any, known: dict[str, Any], opset: int = 18, kind: int = 1
) -> Any:
    """An ONNX model of float32 outputs and of inputs of one kind, by their names and shapes."""
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info(entry, kind, shape) for entry, shape in inputs.items()],
        [helper.make_tensor_value_info(entry, TensorProto.FLOAT, shape) for entry, shape in outputs.items()],
        [numpy_helper.from_array(np.asarray(array), entry) for entry, array in known.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def _make_snn(folder: Path, suffix: str) -> None:
    import snnc

    network = snnc.load(EXPORTED / "lenet-torchscript.onnx")
    snnc.save(network, folder / f"analog{suffix}")
    snnc.save(snnc.load(_decoder()), folder / f"decoder{suffix}")
    x = np.random.default_rng(0).random((8, *network.populations[network.inputs[0]].shape), np.float32)
    for name, pipeline in (("rate", "lower-max-pool,data-norm"), ("few", "lower-max-pool,few-spike{k=3}")):
        snn = snnc.convert(network, pipeline, calibration=x, timesteps=8, progress=False)
        snnc.save(snn, folder / f"{name}{suffix}")


def _make_tf(folder: Path, suffix: str) -> None:
    import tensorflow as tf

    _keras_model().export(folder / f"a-keras{suffix}", verbose=False)
    module = tf.Module()
    weight = module.weight = tf.Variable(tf.random.stateless_normal((6, 3), (0, 0)))
    specs = [tf.TensorSpec((None, 6), tf.float32, name="x")]
    module.call = tf.function(lambda x: {"y": tf.nn.relu(x @ weight)}, input_signature=specs)
    tf.saved_model.save(module, folder / f"b-module{suffix}", signatures=module.call)
    _gated().export(folder / f"c-gated{suffix}", verbose=False)


# Damage to bytes.


def _flip(content: bytes, rng: random.Random) -> bytes:
    damaged = bytearray(content)
    for _ in range(rng.choice([1, 2, 5, 30, 200])):
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def _truncate(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content))]


def _insert(content: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(content))
    return content[:at] + rng.randbytes(rng.choice([1, 4, 8, 100])) + content[at:]


def _remove(content: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(content))
    return content[:at] + content[at + rng.choice([1, 4, 8, 100]) :]


def _swap(content: bytes, rng: random.Random) -> bytes:
    a, b, c, d = sorted(rng.randrange(len(content) + 1) for _ in range(4))
    return content[:a] + content[c:d] + content[b:c] + content[a:b] + content[d:]


def _overwrite(content: bytes, rng: random.Random) -> bytes:
    at, length = rng.randrange(len(content)), rng.choice([1, 2, 4, 8, 64])
    return content[:at] + rng.choice([b"\0", b"\xff", b"\x7f", b"\x80"]) * length + content[at + length :]


BYTES: tuple[Damage, ...] = (_flip, _truncate, _insert, _remove, _swap, _overwrite)


def _any_bytes(content: bytes, rng: random.Random) -> bytes:
    """Few headers and much data: half of the damage is done within the first kilobytes."""
    damage = rng.choice(BYTES)
    if rng.random() < 0.5 and len(content) > 4096:
        return damage(content[:4096], rng) + content[4096:]
    return damage(content, rng)


# Damage to JSON.


def _slots(value: Any) -> list[tuple[Any, Any]]:
    """Every place in a structure: its container, and the key in that."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [slot for key in keys for slot in ((value, key), *_slots(value[key]))]


def _edit_json(value: Any, rng: random.Random) -> Any:
    for _ in range(rng.choice([1, 1, 2, 5])):
        slots = _slots(value)
        if not slots:
            return value
        container, key = rng.choice(slots)
        other_container, other_key = rng.choice(slots)
        match rng.randrange(8):
            case 0:
                del container[key]
            case 1:
                container[key] = json.loads(json.dumps(other_container[other_key]))
            case 2:
                container[key] = rng.choice([None, True, [], {}, [[[]]], [None] * 3, "x" * 10**5])
            case 3:
                container[key] = rng.choice(WORDS)
            case 4 | 5 if isinstance(container[key], (int, float)):
                container[key] = rng.choice(NUMBERS)
            case 6 if isinstance(container, list):
                container.extend(json.loads(json.dumps(container)))
            case _:
                numbers = [(c, k) for c, k in slots if type(c[k]) in (int, float)]
                if numbers:
                    container, key = rng.choice(numbers)
                    container[key] = rng.choice(NUMBERS)
    return value


def _edit_config(config: Any, rng: random.Random) -> Any:
    """A Keras configuration, changed or with code in it."""
    if rng.random() < 0.7:
        return _edit_json(config, rng)
    entries = [c[k] for c, k in _slots(config) if isinstance(c[k], dict) and "class_name" in c[k] and "config" in c[k]]
    entry = rng.choice(entries)
    match rng.randrange(4):
        case 0:
            entry["module"] = CANARY
        case 1:
            entry.update(module=CANARY, class_name="touch", registered_name=f"{CANARY}>touch")
        case 2:
            entry.update(module="builtins", class_name=rng.choice(["eval", "exec", "__import__"]))
        case 3:
            code = compile(f"__import__({CANARY!r})", "fuzz", "eval")
            packed = {"code": base64.b64encode(marshal.dumps(code)).decode(), "defaults": None, "closure": None}
            config_ = {"name": "code", "function": {"class_name": "__lambda__", "config": packed}, "arguments": {}}
            entry.update(module="keras.layers", class_name="Lambda", registered_name=None, config=config_)
    return config


def _deep(_: Any, rng: random.Random) -> bytes:
    return rng.choice([b"[", b'{"config":', b'{"class_name": "Dense", "config": {"name": "x", "a":']) * 10**5


# Formats.


def mutate(source: Path, format: str, folder: Path, rng: random.Random) -> tuple[Path, Mutation]:
    """Write a damaged copy of a model into an empty folder."""
    path = folder / f"model{SUFFIXES[format]}"
    return path, {"keras": _keras, "h5": _h5, "onnx": _onnx, "snn": _snn, "savedmodel": _savedmodel}[format](
        source, path, rng
    )


def _keras(source: Path, path: Path, rng: random.Random) -> Mutation:
    content = source.read_bytes()
    with zipfile.ZipFile(source) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    kind = rng.choice(["bytes", "bytes", "config", "config", "config bytes", "weights", "weights bytes", "archive"])
    mutation = Mutation(kind)
    match kind:
        case "bytes":
            path.write_bytes(_any_bytes(content, rng))
            return mutation
        case "config":
            parts["config.json"] = json.dumps(_edit_config(json.loads(parts["config.json"]), rng)).encode()
        case "config bytes":
            parts["config.json"] = rng.choice([*BYTES, _deep])(parts["config.json"], rng)
        case "weights bytes":
            parts["model.weights.h5"] = _any_bytes(parts["model.weights.h5"], rng)
        case "weights":
            parts["model.weights.h5"], mutation = _edit_hdf5(parts["model.weights.h5"], rng)
        case "archive":
            mutation = _edit_parts(parts, rng)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, part in parts.items():
            archive.writestr(name, part)
    return mutation


def _edit_parts(parts: dict[str, bytes], rng: random.Random) -> Mutation:
    """Parts of a .keras archive, missing, too large, or pickled."""
    name = rng.choice(list(parts))
    kind = rng.choice(["missing", "bomb", "pickle", "pickled array", "name", "nested"])
    match kind:
        case "missing":
            del parts[name]
        case "bomb":
            parts[name] = rng.choice([b"", parts[name]]) + b"\0" * 2**28
        case "pickle":
            parts[name] = pickle_bomb()
        case "pickled array":
            del parts["model.weights.h5"]
            buffer = io.BytesIO()
            np.savez(buffer, __root__=np.array([{"a": 1}], object))
            parts["model.weights.npz"] = buffer.getvalue()
        case "name":
            parts["../../escaped.txt"] = b"out"
            parts["assets/../../escaped"] = b"out"
        case "nested":
            buffer = io.BytesIO()
            with zipfile.ZipFile(buffer, "w") as inner:
                inner.writestr(name, parts[name])
            parts[name] = buffer.getvalue()
    return Mutation(kind, hostile=kind == "pickled array")


def pickle_bomb() -> bytes:
    """A pickle that imports the canary."""
    return pickle.dumps(_Imports())


class _Imports:
    def __reduce__(self) -> tuple[Any, ...]:
        return __import__, (CANARY,)


def _h5(source: Path, path: Path, rng: random.Random) -> Mutation:
    import h5py

    content = source.read_bytes()
    kind = rng.choice(["bytes", "bytes", "bytes", "config", "config", "structure", "pickle"])
    mutation = Mutation(kind)
    match kind:
        case "bytes":
            path.write_bytes(_any_bytes(content, rng))
        case "pickle":
            path.write_bytes(pickle_bomb())
        case "config":
            path.write_bytes(content)
            with h5py.File(path, "a") as file:
                config = _edit_config(json.loads(file.attrs["model_config"]), rng)
                file.attrs["model_config"] = json.dumps(config)
        case "structure":
            changed, mutation = _edit_hdf5(content, rng)
            path.write_bytes(changed)
    return mutation


def _edit_hdf5(content: bytes, rng: random.Random) -> tuple[bytes, Mutation]:
    """An HDF5 file that is none the worse, but says something else."""
    import h5py

    buffer = io.BytesIO(content)
    kind = rng.choice(["external link", "external data", "virtual", "shape", "huge", "kind", "cycle", "missing"])
    with h5py.File(buffer, "a") as file:
        names: list[str] = []
        file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        name = rng.choice([name for name in names if not name.startswith("optimizer")])  # those are not read
        shape = file[name].shape
        del file[name]
        match kind:
            case "external link":
                file[name] = h5py.ExternalLink(rng.choice(["/etc/passwd", "../other.h5", "model.h5"]), "/x")
            case "external data":
                file.create_dataset(name, shape, "f4", external=[(rng.choice(["/etc/passwd", "../x"]), 0, 4096)])
            case "virtual":
                layout = h5py.VirtualLayout(shape, "f4")
                layout[...] = h5py.VirtualSource("/etc/passwd", "x", shape)
                file.create_virtual_dataset(name, layout)
            case "shape":
                file[name] = np.zeros(rng.choice([(), (0,), (1,), shape[::-1], (*shape, 1)]), "f4")
            case "huge":
                size = rng.choice([2**28, 2**31, 2**36, 2**60])
                file.create_dataset(name, (size,), "f4", chunks=(2**16,), compression=rng.choice([None, "gzip"]))
            case "kind":
                file[name] = np.zeros(shape, rng.choice(["i8", "S100", "f2", "c16", "?"]))
            case "cycle":
                file[name] = file["/"]
            case "missing":
                pass
    return buffer.getvalue(), Mutation(kind, hostile=kind in ("external link", "external data", "virtual"))


def _onnx(source: Path, path: Path, rng: random.Random) -> Mutation:
    import onnx

    content = source.read_bytes()
    kind = rng.choice(["bytes", "bytes", "graph", "graph", "graph", "cycle", "external", "grown", "function", "pickle"])
    mutation = Mutation(kind)
    if kind == "pickle":
        path.write_bytes(pickle_bomb())
        return mutation
    if kind == "bytes":
        path.write_bytes(_any_bytes(content, rng))
        return mutation
    model = onnx.ModelProto.FromString(content)
    match kind:
        case "graph":
            for _ in range(rng.choice([1, 1, 3, 8])):
                _edit_onnx(model, rng)
        case "cycle":
            first, last = rng.sample([node for node in model.graph.node if node.input], 2)
            first.input[0], last.input[0] = last.output[0], first.output[0]
        case "external":
            mutation = _externalise(model, path, rng)
        case "grown":
            _grow(model, rng)
        case "function":
            node = onnx.helper.make_node("Again", ["x"], ["y"], domain="fuzz")
            imports = [onnx.helper.make_opsetid("fuzz", 1), onnx.helper.make_opsetid("", 18)]
            model.functions.append(onnx.helper.make_function("fuzz", "Again", ["x"], ["y"], [node], imports))
            model.opset_import.append(imports[0])
            target = rng.choice(model.graph.node)
            target.op_type, target.domain = "Again", "fuzz"
            del target.attribute[:], target.input[1:], target.output[1:]
    path.write_bytes(model.SerializeToString())
    return mutation


def _edit_onnx(model: Any, rng: random.Random) -> None:
    graph = model.graph
    node, tensor = rng.choice(graph.node), rng.choice(graph.initializer)
    number = int(rng.choice(NUMBERS[:-2]))
    lists = [a for n in graph.node for a in n.attribute if a.ints]
    names = [t.name for t in graph.initializer] + [name for n in graph.node for name in n.output]
    match rng.randrange(11):
        case 0 if lists:
            rng.choice(lists).ints[0] = number
        case 1 if node.attribute:
            del node.attribute[rng.randrange(len(node.attribute))]
        case 2:
            node.op_type = rng.choice(OPERATORS)
        case 3 if node.input:
            node.input[rng.randrange(len(node.input))] = rng.choice(names)
        case 4 if tensor.dims:
            tensor.dims[rng.randrange(len(tensor.dims))] = number
        case 5:
            tensor.data_type = rng.randrange(30)
        case 6:
            rng.choice(graph.input[0].type.tensor_type.shape.dim).dim_value = number
        case 7 if tensor.data_type == 7 and 0 <= np.prod(tensor.dims) < 100:
            tensor.raw_data = np.full(tensor.dims, number, np.int64).tobytes()
        case 8 if node.attribute:
            attribute = rng.choice(node.attribute)
            attribute.i, attribute.f, attribute.type = number, float(number), rng.randrange(15)
        case 9:
            graph.node.insert(rng.randrange(len(graph.node)), graph.node.pop())
        case 10:
            model.opset_import[0].version = rng.choice([0, 1, 7, 9, 11, 13, 18, 23, 99, 2**40])


def _externalise(model: Any, path: Path, rng: random.Random) -> Mutation:
    """Put a tensor's numbers into a file: within the folder, through a link out of it, or elsewhere."""
    import onnx

    constants = [node.attribute[0].t for node in model.graph.node if node.op_type == "Constant"]
    tensor = rng.choice([*model.graph.initializer, *constants])
    tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor), tensor.name))  # as raw data
    kind = rng.choice(["outside", "absolute", "link", "itself", "short", "none"])
    outside = path.parent.parent / "outside.bin"
    outside.write_bytes(tensor.raw_data)
    place = {
        "outside": rng.choice(["../outside.bin", "../../../../../../etc/passwd", "x/../../outside.bin"]),
        "absolute": rng.choice([str(outside), "/etc/passwd", "/dev/zero"]),
        "link": "weights.bin",
        "itself": path.name,
        "short": "short.bin",
        "none": "\0",
    }[kind]
    if kind == "link":
        (path.parent / "weights.bin").symlink_to(outside)
    (path.parent / "short.bin").write_bytes(tensor.raw_data[:-1])
    tensor.data_location = 1
    tensor.ClearField("raw_data")
    tensor.external_data.add(key="location", value=place)
    if rng.random() < 0.5:
        tensor.external_data.add(key=rng.choice(["offset", "length"]), value=str(rng.choice(NUMBERS[:-2])))
    return Mutation(f"external data, {kind}", hostile=kind in ("outside", "absolute", "link", "none"))


def _grow(model: Any, rng: random.Random) -> None:
    """A constant that is computed, and far larger than the file."""
    import onnx

    size = rng.choice([2**20, 2**26, 2**27, 2**28, 2**31, 2**40])
    shape = onnx.numpy_helper.from_array(np.array([size], np.int64), "fuzz_shape")
    steps = {
        "ConstantOfShape": [onnx.helper.make_node("ConstantOfShape", ["fuzz_shape"], ["fuzz"])],
        "Expand": [onnx.helper.make_node("Expand", ["fuzz_one", "fuzz_shape"], ["fuzz"])],
        "Tile": [onnx.helper.make_node("Tile", ["fuzz_one", "fuzz_shape"], ["fuzz"])],
        "Range": [onnx.helper.make_node("Range", ["fuzz_zero", "fuzz_size", "fuzz_step"], ["fuzz"])],
    }[rng.choice(["ConstantOfShape", "Expand", "Tile", "Range"])]
    numbers = {"fuzz_zero": 0, "fuzz_size": size, "fuzz_step": 1}
    scalars = [onnx.numpy_helper.from_array(np.array(n, np.float32), name) for name, n in numbers.items()]
    model.graph.initializer.extend([shape, onnx.numpy_helper.from_array(np.ones(1, np.float32), "fuzz_one"), *scalars])
    target = rng.choice(model.graph.node)
    last = target.output[0]
    target.output[0] = "fuzz_before"
    steps += [
        onnx.helper.make_node("ReduceSum", ["fuzz"], ["fuzz_sum"], keepdims=0),
        onnx.helper.make_node("Add", ["fuzz_before", "fuzz_sum"], [last]),
    ]
    at = list(model.graph.node).index(target) + 1
    nodes = [*model.graph.node[:at], *steps, *model.graph.node[at:]]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _snn(source: Path, path: Path, rng: random.Random) -> Mutation:
    content = source.read_bytes()
    kind = rng.choice(["bytes", "structure", "structure", "header", "pickle"])
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    match kind:
        case "bytes":
            path.write_bytes(_any_bytes(content, rng))
            return Mutation(kind)
        case "pickle":
            path.write_bytes(pickle_bomb())
            return Mutation(kind)
        case "structure":
            structure = json.loads(header["__metadata__"]["snnc"])
            changed = _deep(None, rng).decode() if rng.random() < 0.02 else json.dumps(_edit_json(structure, rng))
            header["__metadata__"]["snnc"] = changed
        case "header":
            header = _edit_json(header, rng)
    written = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(written)) + written + content[8 + length :])
    return Mutation(kind)


def _savedmodel(source: Path, path: Path, rng: random.Random) -> Mutation:
    from tensorflow.core.protobuf import saved_model_pb2

    shutil.copytree(source, path)
    kind = rng.choice(["bytes", "bytes", "graph", "graph", "graph", "variables", "link", "pickle"])
    main = path / "saved_model.pb"
    match kind:
        case "bytes":
            main.write_bytes(_any_bytes(main.read_bytes(), rng))
        case "pickle":
            main.write_bytes(pickle_bomb())
        case "variables":
            file = rng.choice(sorted((path / "variables").iterdir()))
            file.write_bytes(_any_bytes(file.read_bytes(), rng))
        case "link":
            outside = path.parent.parent / "outside"
            shutil.rmtree(outside, ignore_errors=True)
            shutil.move(path / "variables", outside)
            (path / "variables").symlink_to(outside)
        case "graph":
            saved = saved_model_pb2.SavedModel.FromString(main.read_bytes())
            for _ in range(rng.choice([1, 1, 3, 8])):
                _edit_tf(saved.meta_graphs[0], rng)
            main.write_bytes(saved.SerializeToString())
    return Mutation(kind, hostile=kind == "link")


def _edit_tf(meta_graph: Any, rng: random.Random) -> None:
    definition = meta_graph.graph_def
    bodies = [definition.node, *(function.node_def for function in definition.library.function)]
    nodes = rng.choice([body for body in bodies if len(body)])
    node, number = rng.choice(nodes), int(rng.choice(NUMBERS[:-2]))
    constants = [n for body in bodies for n in body if n.op == "Const"]
    objects = meta_graph.object_graph_def.nodes
    match rng.randrange(8):
        case 0:
            node.op = rng.choice(TF_OPERATORS)
        case 1 if node.input:
            node.input[rng.randrange(len(node.input))] = rng.choice(nodes).name
        case 2 if node.attr:
            del node.attr[rng.choice(sorted(node.attr))]
        case 3 if constants:
            tensor = rng.choice(constants).attr["value"].tensor
            del tensor.tensor_shape.dim[:]
            tensor.tensor_shape.dim.add(size=number)
        case 4 if constants:
            rng.choice(constants).attr["value"].tensor.dtype = rng.randrange(25)
        case 5:
            entry = rng.choice(objects)
            if entry.WhichOneof("kind") == "variable":
                entry.variable.shape.dim.add(size=number)
            elif entry.children:
                rng.choice(entry.children).node_id = rng.choice([0, 1, len(objects) - 1, len(objects), 2**31 - 1])
        case 6:
            signature = rng.choice(list(meta_graph.signature_def.values()))
            for tensor in [*signature.inputs.values()][:1]:
                tensor.tensor_shape.dim.add(size=number)
        case 7:
            for function in definition.library.function:
                if rng.random() < 0.3 and function.ret:
                    function.ret[rng.choice(sorted(function.ret))] = "nowhere:0"
