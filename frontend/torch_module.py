"""From a PyTorch module to an analog network, by way of PyTorch's own ONNX exporter."""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
import io
import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from ..ir import DataError, ModelFileError, UnsupportedModelError
from . import onnx_file
from .affine import as_tensor
from .given import in_order, is_shape
from .graph import GraphInput
from .precision import coarsest
from .reading import Arrays, Computed, Reading
from .support import Layer, first_line, module_refusal
from .torch_operators import translations

_OLDER_EXPORTER = (
    "the older exporter may take it: torch.onnx.export(module, example, 'model.onnx', dynamo=False); give that file"
)
_HALVES = {torch.float16, torch.bfloat16}


def read(module: torch.nn.Module, inputs: Any) -> Reading:
    """The analog network of a module in inference mode; the module is left as it was.

    `inputs` says what it takes (`given.py`), by the names of `forward` where it is a mapping. Layers are modules,
    called by their paths, as in "features.0". Raises UnsupportedModelError.
    """
    module = getattr(module, "_orig_mod", module)  # what torch.compile wraps
    title = f"PyTorch module {type(module).__name__}"
    if isinstance(module, torch.jit.ScriptModule):
        advice = "give the torch.nn.Module that it was made from, or an ONNX file of it"
        raise UnsupportedModelError(f"{title} is TorchScript, which PyTorch no longer exports", [advice])
    if inputs is None:
        advice = "give an example of what it takes, as in load(module, inputs=torch.zeros(1, 3, 32, 32))"
        raise UnsupportedModelError(f"{title} does not say what its inputs are", [advice])
    arguments = _arguments(module, _examples(module, inputs, title), title)
    _require_runs(module, arguments, title)
    program = _exported(module, arguments, title)
    return onnx_file.reading_of(program, title, functools.partial(_computed, module, arguments, program))


def read_program(program: torch.export.ExportedProgram, inputs: Any) -> Reading:
    """The analog network of what torch.export made of a module."""
    return read(program.module(), program.example_inputs[0] if inputs is None else inputs)


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
    """The module as ONNX, for a batch of one; every node says which module it comes from.

    What the exporter has no ONNX form of becomes an operator of that name, which the lowering refuses: so one report
    has all of them.
    """
    translated = translations()
    while True:
        try:
            with _inference(module), _quiet():
                from onnxscript.optimizer import fold_constants

                # The exporter's own optimiser would merge layers, and with them their names.
                program = torch.onnx.export(
                    module, examples, dynamo=True, optimize=False, verbose=False, custom_translation_table=translated
                )
                assert program is not None
                fold_constants(program.model)
        except ImportError as error:
            package = error.name or str(error)
            raise ModelFileError(f"reading PyTorch modules needs {package}: pip install 'snnc[torch]'") from None
        except Exception as error:  # whatever the module's own code, or the exporter, raises
            operator = _without_form(error)
            if operator is None or operator in translated:
                problems = [first_line(_causes(error)[-1]), _OLDER_EXPORTER]
                raise UnsupportedModelError(f"{title} cannot be exported by PyTorch", problems) from None
            translated[operator] = _stand_in(operator)
            continue
        return program.model_proto


def _causes(error: Exception) -> list[Exception]:
    """An exception and those that it came from: the exporter's own says next to nothing, the last one why."""
    causes = [error]
    while isinstance(cause := causes[-1].__cause__ or causes[-1].__context__, Exception):
        causes.append(cause)
    return causes


def _without_form(error: Exception) -> Any:
    """The operator that the exporter says it has no ONNX form of; None where it failed for another reason."""
    found = re.search(
        r"No ONNX function found for <OpOverload\(op='(\w+)\.(\w+)', overload='(\w+)'\)>", str(_causes(error)[-1])
    )
    if found is None:
        return None
    namespace, name, overload = found.groups()
    return getattr(getattr(getattr(torch.ops, namespace), name), overload)


def _stand_in(operator: Any) -> Any:
    """A translation of a PyTorch operator to one of the same name, which no ONNX runtime knows."""
    import onnx
    from onnxscript import values

    name, domain = operator.name().partition("::")[2].partition(".")[0], "pytorch"
    kind, many = onnx.defs.OpSchema, onnx.defs.OpSchema.FormalParameterOption.Variadic
    types = sorted(onnx.defs.get_schema("Identity").inputs[0].types)
    tensors = [kind.FormalParameter(side, "T", param_option=many, is_homogeneous=False) for side in ("x", "y")]
    schema = kind(name, domain, 1, inputs=tensors[:1], outputs=tensors[1:], type_constraints=[("T", types, "any")])
    stand_in = values.Op(values.Opset(domain, 1), name, schema)

    def translate(*arguments: Any, **options: Any) -> Any:
        return stand_in(*[argument for argument in arguments if hasattr(argument, "shape")])

    return translate


def _examples(module: torch.nn.Module, inputs: Any, title: str) -> list[Any]:
    """An example for each argument of `forward`, in order."""
    if isinstance(inputs, Mapping):
        signature = inspect.signature(module.forward)
        try:
            bound = signature.bind(**inputs)
        except TypeError as error:
            raise DataError(f"{title} does not take {', '.join(map(str, inputs))}: {first_line(error)}") from None
        inputs = bound.args
    return [torch.zeros(tuple(given)) if is_shape(given) else given for given in in_order(inputs)]


def _arguments(module: torch.nn.Module, examples: Sequence[Any], title: str) -> tuple[torch.Tensor, ...]:
    """The first of each batch of examples; real numbers as the module's own parameters are, or in single precision."""
    like = next((parameter for parameter in module.parameters() if parameter.is_floating_point()), torch.zeros(0))
    recurrent = [part for part in module.modules() if isinstance(part, torch.nn.RNNBase)]
    try:
        tensors = [torch.as_tensor(given if recurrent else given[:1]) for given in examples]
        moved = [t.to(like.device, like.dtype) if t.is_floating_point() else t.to(like.device) for t in tensors]
        second = _with_batch_second(module, moved, recurrent)
        return tuple(t[:, :1] if place in second else t[:1] for place, t in enumerate(moved))
    except (TypeError, ValueError, RuntimeError, IndexError) as error:
        raise UnsupportedModelError(f"{title} cannot be run on its inputs", [first_line(error)]) from None


def _with_batch_second(
    module: torch.nn.Module, examples: Sequence[torch.Tensor], recurrent: Sequence[torch.nn.RNNBase]
) -> set[int]:
    """Which of the arguments recurrent parts take with the batch as their second axis: states, and series (L, N, C)."""
    found: set[int] = set()

    def look(part: torch.nn.Module, arguments: tuple[Any, ...]) -> None:
        series, *states = torch.utils._pytree.tree_leaves(arguments)
        for tensor in states if part.batch_first else (series, *states):
            place = next((place for place, example in enumerate(examples) if example is tensor), None)
            if place is not None and tensor.ndim == 3:
                found.add(place)

    hooks = [part.register_forward_pre_hook(look) for part in recurrent]
    try:
        if recurrent:
            with _inference(module), _quiet(), contextlib.suppress(Exception):  # which is said of the first example
                module(*examples)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _require_runs(module: torch.nn.Module, examples: tuple[torch.Tensor, ...], title: str) -> None:
    """Run the module once: where its own code fails, that is said of the innermost module, and not by the exporter."""
    running: list[str] = []
    names = {part: name for name, part in module.named_modules()}

    def begin(part: torch.nn.Module, _: Any) -> None:
        running.append(names[part])

    def end(*_: Any) -> None:
        running.pop()

    hooks = [
        hook for part in names for hook in (part.register_forward_pre_hook(begin), part.register_forward_hook(end))
    ]
    try:
        with _inference(module), _quiet():
            module(*examples)
    except Exception as error:  # whatever the module's own code raises
        path = running[-1] if running else ""
        kind = type(module.get_submodule(path)).__name__
        reason = module_refusal(kind) or first_line(error)
        problem = Layer(path, kind, 0).problem(reason) if path else reason
        raise UnsupportedModelError(f"{title} cannot be run on its inputs", [problem]) from None
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _inference(module: torch.nn.Module) -> Iterator[None]:
    """Within this context every part of a module is in inference mode; afterwards each is in its own again."""
    modes = {part: part.training for part in module.modules()}
    try:
        with torch.no_grad():
            with contextlib.suppress(NotImplementedError):  # what torch.export made has one mode, its own
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
        nothing = io.StringIO()
        with warnings.catch_warnings(), contextlib.redirect_stdout(nothing), contextlib.redirect_stderr(nothing):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
