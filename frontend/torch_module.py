"""From a PyTorch module to an analog network, by way of PyTorch's own ONNX exporter."""

from __future__ import annotations

import contextlib
import copy
import functools
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from ..ir import ModelFileError, UnsupportedModelError
from . import onnx_file
from .affine import as_tensor
from .graph import GraphInput
from .precision import coarsest
from .reading import Arrays, Computed, Reading
from .support import first_line

_HALVES = {torch.float16, torch.bfloat16}


def read(module: torch.nn.Module, inputs: Any) -> Reading:
    """The analog network of a module in inference mode; the module is left as it was.

    `inputs` is an example of what it takes, batch first: an array or tensor, or a tuple of them. Layers are modules,
    called by their paths, as in "features.0". Raises UnsupportedModelError.
    """
    title = f"PyTorch module {type(module).__name__}"
    if inputs is None:
        advice = "give an example of what it takes, as in load(module, inputs=torch.zeros(1, 3, 32, 32))"
        raise UnsupportedModelError(f"{title} does not say what its inputs are", [advice])
    examples = inputs if isinstance(inputs, (tuple, list)) else (inputs,)
    arguments = _arguments(module, examples, title)
    program = _exported(module, arguments, title)
    return onnx_file.reading_of(program, title, functools.partial(_computed, module, arguments, program))


def _computed(
    module: torch.nn.Module,
    examples: Sequence[torch.Tensor],
    program: Any,
    given: Mapping[str, GraphInput],
    inputs: Arrays,
    wanted: Sequence[str],
) -> Computed:
    """What the module computes for one image: its outputs; onnxruntime, the tensors within what was exported.

    A module of half precision is compared as a copy in single precision.
    """
    outputs = [output.name for output in program.graph.output]
    if not set(wanted) <= set(outputs):
        return onnx_file.computed(program, given, inputs, wanted)
    if any(tensor.dtype in _HALVES for tensor in (*module.parameters(), *examples)):
        module = copy.deepcopy(module).float()
    arrays = [as_tensor(inputs[entry.name], entry.layout) for entry in given.values()]
    fed = zip(arrays, examples, strict=True)
    tensors = [torch.from_numpy(array.copy()).to(example.device, _single(example.dtype)) for array, example in fed]
    with _inference(module):
        returned = torch.utils._pytree.tree_leaves(module(*tensors))
    found = {name: tensor.float().cpu().numpy() for name, tensor in zip(outputs, returned, strict=True)}
    return Computed(found, "PyTorch", coarsest(program))


def _single(kind: torch.dtype) -> torch.dtype:
    return torch.float32 if kind in _HALVES else kind


def _exported(module: torch.nn.Module, examples: tuple[torch.Tensor, ...], title: str) -> Any:
    """The module as ONNX, for a batch of one; every node says which module it comes from."""
    try:
        with _inference(module), _quiet():
            from onnxscript.optimizer import fold_constants

            # The exporter's own optimiser would merge layers, and with them their names.
            program = torch.onnx.export(module, examples, dynamo=True, optimize=False, verbose=False)
            assert program is not None
            fold_constants(program.model)
    except ImportError as error:
        missing = error.name or str(error)
        raise ModelFileError(f"reading PyTorch modules needs {missing}: pip install 'snnc[torch]'") from None
    except Exception as error:  # whatever the module's own code, or the exporter, raises
        raise UnsupportedModelError(f"{title} cannot be exported by PyTorch", [first_line(error)]) from None
    return program.model_proto


def _arguments(module: torch.nn.Module, examples: Sequence[Any], title: str) -> tuple[torch.Tensor, ...]:
    """The first of each batch of examples; real numbers as the module's own parameters are, or in single precision."""
    like = next((parameter for parameter in module.parameters() if parameter.is_floating_point()), torch.zeros(0))
    try:
        tensors = [torch.as_tensor(given[:1]) for given in examples]
    except (TypeError, ValueError, RuntimeError, IndexError) as error:
        raise UnsupportedModelError(f"{title} cannot be run on its inputs", [first_line(error)]) from None
    return tuple(t.to(like.device, like.dtype) if t.is_floating_point() else t.to(like.device) for t in tensors)


@contextmanager
def _inference(module: torch.nn.Module) -> Iterator[None]:
    """Within this context every part of a module is in inference mode; afterwards each is in its own again."""
    modes = {part: part.training for part in module.modules()}
    try:
        with torch.no_grad():
            module.eval()
            yield
    finally:
        for part, training in modes.items():
            part.training = training


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's warnings, logging and prints within this context."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
