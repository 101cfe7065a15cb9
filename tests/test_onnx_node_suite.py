"""The ONNX backend test suite's node tests, for every operator that is read: each agrees, or is refused in words."""

from pathlib import Path

import node_suite
import onnx
import pytest

PAGE = Path(__file__).parents[1] / "docs" / "onnx.md"
CASES = node_suite.cases()
MEASURED = "1.23"
# How many tests agree; the others are refused. `python benchmarks/onnx_node_suite.py --reasons` says why.
AGREE = {
    "Abs": 1,
    "Add": 2,
    "ArgMax": 8,
    "AveragePool": 14,
    "BatchNormalization": 2,
    "Celu": 3,
    "Clip": 8,
    "Concat": 12,
    "Conv": 6,
    "Cos": 2,
    "DepthToSpace": 2,
    "DequantizeLinear": 6,
    "Div": 3,
    "Dropout": 4,
    "Einsum": 8,
    "Elu": 3,
    "Erf": 1,
    "Exp": 2,
    "Expand": 2,
    "Flatten": 5,
    "Gather": 3,
    "GatherND": 1,
    "Gelu": 4,
    "Gemm": 11,
    "GlobalAveragePool": 2,
    "GlobalMaxPool": 2,
    "GroupNormalization": 2,
    "HardSigmoid": 3,
    "HardSwish": 1,
    "Identity": 3,
    "InstanceNormalization": 2,
    "LRN": 2,
    "LayerNormalization": 13,
    "LeakyRelu": 3,
    "Log": 2,
    "LogSoftmax": 7,
    "LpNormalization": 4,
    "MatMul": 7,
    "Max": 6,
    "MaxPool": 11,
    "Mean": 3,
    "Min": 6,
    "Mish": 1,
    "Mul": 3,
    "Neg": 2,
    "PRelu": 2,
    "Pad": 3,
    "Pow": 1,
    "RMSNormalization": 13,
    "Reciprocal": 2,
    "ReduceL1": 6,
    "ReduceL2": 6,
    "ReduceLogSum": 3,
    "ReduceLogSumExp": 6,
    "ReduceMax": 6,
    "ReduceMean": 6,
    "ReduceMin": 6,
    "ReduceSum": 8,
    "ReduceSumSquare": 6,
    "Relu": 1,
    "Reshape": 8,
    "Selu": 3,
    "Shrink": 2,
    "Sigmoid": 2,
    "Sin": 2,
    "Slice": 7,
    "Softmax": 7,
    "Softplus": 2,
    "Softsign": 2,
    "SpaceToDepth": 4,
    "Split": 14,
    "Sqrt": 2,
    "Squeeze": 1,
    "Sub": 3,
    "Sum": 3,
    "Swish": 1,
    "Tanh": 2,
    "Tile": 1,
    "Transpose": 7,
    "Unsqueeze": 3,
}


@pytest.mark.parametrize("operator", node_suite.OPERATORS)
def test_every_test_agrees_or_is_refused(operator):
    outcomes = [node_suite.outcome(case) for case in CASES[operator]]
    assert outcomes
    assert all(outcome.message for outcome in outcomes if not outcome.agrees)
    assert not [outcome for outcome in outcomes if "do not fit together" in outcome.message]
    if onnx.__version__.startswith(MEASURED):  # other versions have other tests
        agree = sum(outcome.agrees for outcome in outcomes)
        assert agree == AGREE.get(operator, 0)
        assert f"| {operator} | {len(outcomes)} | {agree} | {len(outcomes) - agree} |" in PAGE.read_text()
