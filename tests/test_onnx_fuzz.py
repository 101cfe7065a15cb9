"""Damaged ONNX files: whatever is wrong with them, they are read or refused with an error of our own, quickly."""

import random
import time
from pathlib import Path

import numpy as np
import onnx
import pytest

from snnc import frontend, ir

FILES = sorted((Path(__file__).parent / "data" / "onnx").glob("*.onnx"))
NUMBERS = (0, -1, 1, 3, 100, 10**4, 2**31 - 1, 2**40, -(2**63), 2**63 - 1)
OPERATORS = ("Slice", "Pad", "Split", "Gather", "Concat", "ReduceMean", "MaxPool", "Expand", "Tile", "Range", "Loop")
SECONDS = 10


def flipped(content: bytes, rng: random.Random) -> bytes:
    damaged = bytearray(content)
    for _ in range(rng.choice([1, 5, 30])):
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def truncated(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content))]


def rearranged(content: bytes, rng: random.Random) -> bytes:
    """A file that parses, but says something else."""
    model = onnx.ModelProto.FromString(content)
    graph = model.graph
    for _ in range(rng.choice([1, 3])):
        node, tensor, number = rng.choice(graph.node), rng.choice(graph.initializer), rng.choice(NUMBERS)
        lists = [a for n in graph.node for a in n.attribute if a.ints]
        tensors = [t.name for t in graph.initializer] + [name for n in graph.node for name in n.output]
        match rng.randrange(8):
            case 0 if lists:
                rng.choice(lists).ints[0] = number
            case 1 if node.attribute:
                del node.attribute[0]
            case 2:
                node.op_type = rng.choice(OPERATORS)
            case 3 if node.input:  # another operand, perhaps one that comes later
                node.input[rng.randrange(len(node.input))] = rng.choice(tensors)
            case 4 if tensor.dims:
                tensor.dims[0] = max(number, 0)
            case 5:
                tensor.data_type = rng.randrange(25)
            case 6:
                rng.choice(graph.input[0].type.tensor_type.shape.dim).dim_value = number
            case 7 if tensor.data_type == onnx.TensorProto.INT64 and np.prod(tensor.dims) < 100:
                tensor.raw_data = np.full(tensor.dims, number, np.int64).tobytes()
    return model.SerializeToString()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("damage", [flipped, truncated, rearranged])
def test_damaged_files(tmp_path, damage, seed):
    rng = random.Random(seed)
    contents = [file.read_bytes() for file in FILES]
    path, refused = tmp_path / "model.onnx", 0
    for _ in range(60):
        path.write_bytes(damage(rng.choice(contents), rng))
        start = time.monotonic()
        try:
            frontend.load(path)
        except ir.SnncError:
            refused += 1
        assert time.monotonic() - start < SECONDS
    assert refused > 20


@pytest.mark.parametrize("size", [2**28, 2**40])
def test_constants_that_grow_beyond_memory(tmp_path, size):
    """Of a file of a few hundred bytes."""
    make = onnx.helper
    shape = onnx.numpy_helper.from_array(np.array([size], np.int64), "shape")
    nodes = [
        make.make_node("ConstantOfShape", ["shape"], ["large"]),
        make.make_node("ReduceSum", ["large"], ["sum"], keepdims=0),
        make.make_node("Add", ["x", "sum"], ["y"]),
    ]
    ends = [make.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 4]) for name in "xy"]
    graph = make.make_graph(nodes, "grown", ends[:1], ends[1:], [shape])
    onnx.save(make.make_model(graph, opset_imports=[make.make_opsetid("", 18)]), tmp_path / "grown.onnx")
    with pytest.raises(ir.UnsupportedModelError, match="would give more than"):
        frontend.load(tmp_path / "grown.onnx")
