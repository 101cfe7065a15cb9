"""The functions that a neuron may apply to its input, beyond rectifiers: each is written once, as an expression.

An expression is Python's own syntax in `x`, the summed input, and `p`, a parameter, with numbers, `+ - * / **`, the
comparison `>`, and the calls in `CALLS`. numpy evaluates it here; each backend translates its tree: to ONNX operators,
to GeNN's language. Another package adds a function with `register`.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

CALLS: Mapping[str, Callable[..., Any]] = {
    "abs": np.abs,
    "atan": np.arctan,
    "cos": np.cos,
    "erf": lambda x: np.vectorize(math.erf, otypes=[float])(x).astype(np.asarray(x).dtype),
    "exp": np.exp,
    "log": np.log,
    "max": np.maximum,
    "min": np.minimum,
    "sin": np.sin,
    "sqrt": np.sqrt,
    "tanh": np.tanh,
    "where": np.where,
}
_NODES = (ast.Expression, ast.BinOp, ast.UnaryOp, ast.Compare, ast.Call, ast.Name, ast.Constant, ast.Load)
_OPERATORS = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Pow, ast.USub, ast.Gt)


@dataclass(frozen=True)
class FunctionDefinition:
    """`y = expression` of x; with p = 1, y lies between `low` and `high`, whatever x is.

    `is_factor` says that other activations are scaled by y or by sums of it, as for softmax and normalisation: errors
    reach all of them, and so they are coded with more bits. |y| reaches `pole` only where f itself is not defined.
    With `homogeneous`, c · x makes c · y for all c > 0.

    Expressions are finite for all finite x of single precision but where they overflow, and give a number for all x.
    `left` and `right` are expressions of the lines that y tends to as x goes to −∞ and ∞: far out y comes ever nearer
    to them. They are empty where there is no such line.
    """

    name: str
    expression: str
    low: float = -math.inf
    high: float = math.inf
    left: str = ""
    right: str = ""
    is_factor: bool = False
    pole: float = math.inf
    homogeneous: bool = False

    @cached_property
    def tree(self) -> ast.expr:
        """The expression, parsed; raises ValueError for one that holds anything else."""
        return self._parsed(self.expression)

    def _parsed(self, expression: str) -> ast.expr:
        tree = ast.parse(expression, mode="eval")
        for node in ast.walk(tree):
            named = not isinstance(node, ast.Name) or node.id in ("x", "p", *CALLS)
            if not isinstance(node, (*_NODES, *_OPERATORS)) or not named:
                raise ValueError(f"function {self.name!r}: {ast.unparse(node)!r} is not for expressions here")
        return tree.body

    @property
    def is_signed(self) -> bool:
        """Whether y can be negative."""
        return self.low < 0

    def lines(self, parameter: float = 1.0) -> tuple[tuple[float, float] | None, ...]:
        """Slope and value at 0 of the line that y tends to on the left, and on the right; None where there is none."""
        return tuple(
            self._line(expression, parameter) if expression else None for expression in (self.left, self.right)
        )

    def _line(self, expression: str, parameter: float) -> tuple[float, float]:
        at_0, at_1 = np.broadcast_to(_value(self._parsed(expression), np.array([0.0, 1.0]), np.float64(parameter)), 2)
        return float(at_1 - at_0), float(at_0)

    def apply(self, x: np.ndarray, parameter: float = 1.0) -> np.ndarray:
        """y, in the precision of x; infinities within an expression come out as what they tend to."""
        p = x.dtype.type(parameter)
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            return np.asarray(_value(self.tree, x, p), x.dtype)


def _value(node: ast.expr, x: np.ndarray, p: Any) -> Any:
    match node:
        case ast.Name(id="x"):
            return x
        case ast.Name(id="p"):
            return p
        case ast.Constant(value=number):
            return x.dtype.type(number)
        case ast.UnaryOp(operand=operand):
            return -_value(operand, x, p)
        case ast.Compare(left=left, comparators=[right]):
            return _value(left, x, p) > _value(right, x, p)
        case ast.Call(func=ast.Name(id=name), args=arguments):
            return CALLS[name](*(_value(argument, x, p) for argument in arguments))
        case ast.BinOp(left=left, op=operator, right=right):
            return _ARITHMETIC[type(operator)](_value(left, x, p), _value(right, x, p))
    raise ValueError(f"{ast.unparse(node)!r} is not for expressions here")


_ARITHMETIC: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.divide,
    ast.Pow: np.power,
}

FUNCTIONS: dict[str, FunctionDefinition] = {}


def register(definition: FunctionDefinition) -> FunctionDefinition:
    """Add a function to those that there are; raises ValueError for a name that is taken, or no expression."""
    if definition.name in FUNCTIONS:
        raise ValueError(f"there is a function {definition.name!r} already")
    assert definition.tree is not None
    definition.lines()
    FUNCTIONS[definition.name] = definition
    return definition


def at_most(bound: float) -> str:
    """A bound of an error for people: to two digits, rounded up."""
    digit = 10.0 ** (math.floor(math.log10(bound)) - 1) if bound > 0 else 1.0
    return f"{math.ceil(bound / digit) * digit:.2g}"


_SOFTPLUS = "max(x, 0) + log(1 + exp(-abs(x)))"
_SELU, _SELU_ALPHA = 1.0507009873554805, 1.6732632423543772
_TINY = 1e-30  # in place of what has no logarithm and no root

_ASIN, _QUARTER = f"atan(x / sqrt(max((1 - x) * (1 + x), {_TINY})))", math.pi / 2

for _definition in (
    FunctionDefinition("abs", "abs(x)", 0.0, homogeneous=True, left="-x", right="x"),
    FunctionDefinition("acos", f"{_QUARTER} - {_ASIN}", 0.0, 3.1416, left=f"{math.pi}", right="0"),
    FunctionDefinition("acosh", "log(max(x, 1) + sqrt((max(x, 1) - 1) * (max(x, 1) + 1)))", 0.0, left="0"),
    FunctionDefinition("asin", _ASIN, -1.5708, 1.5708, left=f"{-_QUARTER}", right=f"{_QUARTER}"),
    FunctionDefinition("asinh", "where(x > 0, log(x + sqrt(x * x + 1)), -log(sqrt(x * x + 1) - x))"),
    FunctionDefinition("atan", "atan(x)", -1.5708, 1.5708, left=f"{-_QUARTER}", right=f"{_QUARTER}"),
    FunctionDefinition("atanh", f"0.5 * log(max(1 + x, {_TINY}) / max(1 - x, {_TINY}))", pole=34),
    FunctionDefinition("celu", "max(x, 0) + min(p * (exp(min(x, 0) / p) - 1), 0)", left="-p", right="x"),
    FunctionDefinition("cos", "cos(x)", -1.0, 1.0),
    FunctionDefinition("cosh", "(exp(x) + exp(-x)) / 2", 1.0),
    FunctionDefinition("elu", "max(x, 0) + p * (exp(min(x, 0)) - 1)", left="-p", right="x"),
    FunctionDefinition("erf", "erf(x)", -1.0, 1.0, left="-1", right="1"),
    FunctionDefinition("exp", "exp(x)", 0.0, left="0", is_factor=True),
    FunctionDefinition("gelu", "0.5 * x * (1 + erf(x * 0.7071067811865476))", -0.17, left="0", right="x"),
    FunctionDefinition(
        "gelu_tanh",
        "0.5 * x * (1 + tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)))",
        -0.1701,
        left="0",
        right="x",
    ),
    FunctionDefinition("hard_shrink", "where(abs(x) > p, x, 0)", left="x", right="x"),
    FunctionDefinition("hard_swish", "x * min(max(x / 6 + 0.5, 0), 1)", -0.375, left="0", right="x"),
    FunctionDefinition("identity", "x", left="x", right="x", homogeneous=True),
    FunctionDefinition("log", f"log(max(x, {_TINY}))", pole=69),
    FunctionDefinition("log_sigmoid", "min(x, 0) - log(1 + exp(-abs(x)))", high=0.0, left="x", right="0"),
    FunctionDefinition("mish", f"x * tanh({_SOFTPLUS})", -0.3089, left="0", right="x"),
    FunctionDefinition("power", "x ** p", is_factor=True),
    FunctionDefinition("reciprocal", "1 / x", is_factor=True),
    FunctionDefinition("reciprocal_no_nan", "where(abs(x) > 0, 1 / x, 0)", is_factor=True),
    FunctionDefinition("rsqrt", f"1 / sqrt(max(x, {_TINY}))", 0.0, is_factor=True),
    FunctionDefinition(
        "selu",
        f"{_SELU} * (max(x, 0) + {_SELU_ALPHA} * (exp(min(x, 0)) - 1))",
        -_SELU * _SELU_ALPHA,
        left=f"{-_SELU * _SELU_ALPHA}",
        right=f"{_SELU} * x",
    ),
    FunctionDefinition("sigmoid", "1 / (1 + exp(-x))", 0.0, 1.0, left="0", right="1"),
    FunctionDefinition("silu", "x / (1 + exp(-p * x))", -0.2785, left="where(p > 0, 0, x)", right="where(p > 0, x, 0)"),
    FunctionDefinition("sign", "where(x > 0, 1, 0) - where(-x > 0, 1, 0)", -1.0, 1.0, left="-1", right="1"),
    FunctionDefinition("sin", "sin(x)", -1.0, 1.0),
    FunctionDefinition("sinh", "(exp(x) - exp(-x)) / 2"),
    FunctionDefinition("soft_shrink", "max(x - p, 0) + min(x + p, 0)", left="x + p", right="x - p"),
    FunctionDefinition("softplus", _SOFTPLUS, 0.0, left="0", right="x"),
    FunctionDefinition("softsign", "x / (1 + abs(x))", -1.0, 1.0, left="-1", right="1"),
    FunctionDefinition("sqrt", "sqrt(max(x, 0))", 0.0, is_factor=True),
    FunctionDefinition("square", "x * x", 0.0, is_factor=True),
    FunctionDefinition("squareplus", "(x + sqrt(x * x + p)) / 2", 0.0, left="0", right="x"),
    FunctionDefinition("tan", "sin(x) / cos(x)"),
    FunctionDefinition("tanh", "tanh(x)", -1.0, 1.0, left="-1", right="1"),
    FunctionDefinition("tanh_shrink", "x - tanh(x)", left="x + 1", right="x - 1"),
):
    register(_definition)
