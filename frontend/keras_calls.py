"""What Keras layers do when a model is called: their calls leave marks on the graph, or are refused and replaced."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NoReturn

from ..ir import Shape, UnsupportedModelError
from .adaptive import places, shares
from .affine import as_tensor
from .graph import GraphInput
from .reading import Arrays, Computed
from .support import MASK, Layer, first_line, kind, refusal, too_long
from .tf_graph import packages

_WITH_CELLS = {"ConvLSTM1D", "ConvLSTM2D", "GRU", "LSTM", "SimpleRNN"}
_UNROLLED = {"unroll": True, "_could_use_gpu_kernel": False}  # the second is Keras 2's, which would write a loop


class Untraceable(Exception):
    """A layer fails when called, and its output shape is not known either."""


class Calls:
    """Wraps every operation of a model, so that each call leaves its mark on the graph, or is refused.

    `new_tensor` makes a tensor of a type and shape, to stand for what a refused layer gives.
    """

    def __init__(self, operations: list[Any], new_tensor: Callable[[Any, Any], Any]):
        self.operations = operations
        self._new_tensor = new_tensor
        self.layers: list[Layer] = []
        self.ends: dict[str, Layer] = {}  # the tensors that calls return, in the order in which they end
        self.refused: dict[Layer, str] = {}
        self.opaque: dict[str, Shape] = {}  # tensors that stand for the outputs of refused layers
        self.probes: list[str] = []  # tensors that refused layers read
        self._stack: list[str] = []
        self._off = False
        self._prefix = "snnc"
        while any(self._prefix in operation.name for operation in operations):
            self._prefix += "_"

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Within this context, calls are recorded; afterwards, the operations are as they were."""
        with _calling(self.operations, self._wrapped):
            yield

    def layer(self, node: str) -> Layer | None:
        """The layer of a node, by the node's name."""
        marks = re.findall(rf"(?:^|/){self._prefix}(\d+)z/", node)
        return self.layers[int(marks[-1])] if marks else None

    def never_reached(self) -> Iterator[tuple[Layer, str]]:
        """Layers that are refused by their class but were not called, as tracing broke off before."""
        called = {layer.path.rpartition("/")[2] for layer in self.layers}
        inner = {id(part) for operation in self.operations if _refusal(operation) for part in _parts(operation)}
        for operation in self.operations:
            reason = _refusal(operation)
            if reason and operation.name not in called and id(operation) not in inner:
                yield Layer(operation.name, _kind(operation), len(self.layers)), reason

    def _wrapped(self, operation: Any, call: Callable[..., Any]) -> Callable[..., Any]:
        tf, _ = packages()

        @tf.autograph.experimental.do_not_convert  # Keras 2 would rewrite it
        @functools.wraps(call)
        def recorded(*args: Any, **kwargs: Any) -> Any:
            if self._off:
                return call(*args, **kwargs)
            self._stack.append(operation.name)
            mark = f"{self._prefix}{len(self.layers)}z"
            layer = Layer("/".join(self._stack), _kind(operation), len(self.layers))
            self.layers.append(layer)
            try:
                with tf.name_scope(mark):
                    outputs = self._outputs(operation, layer, call, args, kwargs)
                    outputs = tf.nest.map_structure(lambda t: tf.identity(t) if tf.is_tensor(t) else t, outputs)
                self.ends.update((tensor.name, layer) for tensor in tf.nest.flatten(outputs) if tf.is_tensor(tensor))
                return outputs
            finally:
                self._stack.pop()

        return recorded

    def _outputs(self, operation: Any, layer: Layer, call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        reason = _refusal(operation) or _endless(operation, args)
        if reason is None:
            if _keeps_size(operation, args):
                return args[0]
            if _is_adaptive(operation):
                return _pooled(operation, args[0])
            if type(operation).__name__ == "Embedding" and hasattr(operation, "compute_output_spec"):
                return _looked_up(operation, args[0])
            try:
                return call(*args, **kwargs)
            except Untraceable:
                raise
            except Exception as error:  # whatever the layer's own code raises
                reason = f"cannot be traced by TensorFlow: {first_line(error)}"
        self.refused[layer] = reason
        return self._stand_in(operation, args, kwargs)

    def _stand_in(self, operation: Any, args: Any, kwargs: Any) -> Any:
        """New tensors in place of a refused layer's output, so that the rest of the model can be traced."""
        tf, _ = packages()

        def placeholder(spec: Any) -> Any:
            tensor = self._new_tensor(spec.dtype, spec.shape)
            self.opaque[tensor.name] = tuple(spec.shape)
            return tensor

        kwargs = {name: value for name, value in kwargs.items() if name not in ("mask", "training")}
        read = [tensor for tensor in tf.nest.flatten((args, kwargs)) if tf.is_tensor(tensor)]
        self.probes += [tf.identity(tensor).name for tensor in read]
        self._off = True  # the output shape may be found by calling the layer
        try:
            return tf.nest.map_structure(placeholder, _output_specs(operation, args, kwargs))
        except Exception:  # no shape to go on with: break off, and report what is known
            raise Untraceable from None
        finally:
            self._off = False


def computed(
    model: Callable[[list[Any]], list[Any]],
    calls: Calls,
    given: Mapping[str, GraphInput],
    outputs: Sequence[str],
    dtypes: Sequence[Any],
    eps: float,
    inputs: Arrays,
    wanted: Sequence[str],
) -> Computed:
    """What Keras computes for one image: the outputs of the graph, and tensors within the model if wanted."""
    tf, _ = packages()
    returned: list[Any] = []

    def observed(operation: Any, call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def noting(*args: Any, **kwargs: Any) -> Any:
            result = call(*args, **kwargs)
            returned.extend(tensor for tensor in tf.nest.flatten(result) if tf.is_tensor(tensor))
            return result

        return noting

    fed = zip(given.values(), dtypes, strict=True)
    tensors = [tf.constant(as_tensor(inputs[entry.name], entry.layout), dtype) for entry, dtype in fed]
    with _calling(calls.operations if set(wanted) - set(outputs) else [], observed):
        ends = model(tensors)
    # The calls end in the order of the trace, so that their tensors come in the order of its names.
    within = dict(zip(calls.ends, returned, strict=True)) if returned else {}
    found = {**within, **dict(zip(outputs, ends, strict=True))}
    return Computed({name: found[name].numpy() for name in wanted}, "Keras", eps)


def _output_specs(operation: Any, args: Any, kwargs: Any) -> Any:
    """The shapes and types of what a layer returns, of Keras 3 or Keras 2."""
    tf, _ = packages()
    if not hasattr(operation, "compute_output_spec"):
        shapes = operation.compute_output_shape(tf.nest.map_structure(lambda tensor: tensor.shape, args[0]))
        one = isinstance(shapes, (tuple, list)) and all(size is None or isinstance(size, int) for size in shapes)
        shapes = tf.TensorShape(shapes) if one else shapes  # which recurrent layers give as a tuple
        return tf.nest.map_structure(lambda shape: tf.TensorSpec(shape, operation.compute_dtype), shapes)
    import keras

    def symbolic(tensor: Any) -> Any:
        return keras.KerasTensor(tensor.shape, tensor.dtype.name) if tf.is_tensor(tensor) else tensor

    args, kwargs = tf.nest.map_structure(symbolic, (args, kwargs))
    return operation.compute_output_spec(*args, **kwargs)


def report_untraceable(title: str, calls: Calls, error: Exception) -> NoReturn:
    """Say all that is known of a model at which tracing broke off."""
    refused = {**calls.refused, **dict(calls.never_reached())}
    problems: list[str] = [layer.problem(refused[layer]) for layer in sorted(refused, key=lambda layer: layer.rank)]
    if not isinstance(error, Untraceable):
        problems.append(f"the model cannot be traced by TensorFlow: {first_line(error)}")
    layers = list(dict.fromkeys([*(layer.path for layer in calls.layers), *(layer.path for layer in refused)]))
    unread = [operation.name for operation in calls.operations if operation.name not in layers]
    raise UnsupportedModelError(f"{title} cannot be read", problems, layers + unread, unread) from None


def _parts(operation: Any) -> list[Any]:
    """The layers inside a layer."""
    return operation._flatten_layers(include_self=False) if hasattr(operation, "_flatten_layers") else []


def _refusal(operation: Any) -> str | None:
    if getattr(operation, "quantization_mode", None):
        return "quantised layers are not supported; give the model in floating point"
    if getattr(operation, "mask_zero", False):
        return MASK
    classes = [cls.__name__ for cls in type(operation).__mro__]
    return refusal(classes, _activation(operation), getattr(operation, "data_format", None))


def _kind(operation: Any) -> str:
    return kind(type(operation).__name__, _activation(operation))


def _keeps_size(operation: Any, args: Any) -> bool:
    """Whether this resizes images to the size that they have."""
    classes = [cls.__name__ for cls in type(operation).__mro__]
    return "Resizing" in classes and tuple(args[0].shape[1:3]) == (operation.height, operation.width)


def _is_recurrent(operation: Any) -> bool:
    return "RNN" in (cls.__name__ for cls in type(operation).__mro__)


def _endless(operation: Any, args: Any) -> str | None:
    """Why a recurrent layer cannot be unrolled."""
    if not _is_recurrent(operation):
        return None
    steps = args[0].shape[1]
    return too_long(steps, operation.count_params()) if steps else "the number of its steps is open"


def _is_adaptive(operation: Any) -> bool:
    return "BaseAdaptivePooling" in (cls.__name__ for cls in type(operation).__mro__)


def _pooled(operation: Any, images: Any) -> Any:
    """An adaptive pooling in operations that say it shorter than Keras's own, which fail for some sizes."""
    import keras

    largest = "Max" in type(operation).__name__
    sizes = list(zip(images.shape[1:-1], operation.output_size, strict=True))
    kernel = [places(old, new).shape[1] for old, new in sizes]
    if not largest and not any(old % new for old, new in sizes):
        return keras.ops.average_pool(images, kernel, kernel)
    for axis, (old, new) in enumerate(sizes, 1):
        if largest:
            images = keras.ops.take(images, places(old, new).reshape(-1), axis) if old % new else images
        else:
            last = keras.ops.moveaxis(images, axis, -1)
            images = keras.ops.moveaxis(keras.ops.matmul(last, shares(old, new)), -1, axis)
    return keras.ops.max_pool(images, kernel, kernel) if largest else images


def _looked_up(operation: Any, numbers: Any) -> Any:
    """The rows of a table: Keras 3 would look whether any number is negative, and then count from the end."""
    import keras

    tf, _ = packages()
    return tf.gather(keras.ops.convert_to_tensor(operation.embeddings), tf.cast(numbers, "int32"))


def _activation(operation: Any) -> str | None:
    return getattr(getattr(operation, "activation", None), "__name__", None)


@contextmanager
def in_single_precision(layers: Sequence[Any]) -> Iterator[None]:
    """Within this context, layers of Keras 3 that compute in half precision do so in single."""
    import keras

    halves = [layer for layer in layers if getattr(layer, "compute_dtype", None) in ("float16", "bfloat16")]
    policies = [layer.dtype_policy for layer in halves]
    try:
        for layer in halves:
            policy = keras.DTypePolicy("float32")
            policy._variable_dtype = layer.variable_dtype  # so that its weights are cast when they are used
            layer.dtype_policy = policy
        yield
    finally:
        for layer, policy in zip(halves, policies, strict=True):
            layer.dtype_policy = policy


@contextmanager
def _calling(operations: list[Any], wrap: Callable[[Any, Callable[..., Any]], Callable[..., Any]]) -> Iterator[None]:
    """Within this context, what the operations do when called is what `wrap` makes of it; steps are written out.

    The cell that a recurrent layer makes for itself is a part of it, and no layer of the user's.
    """
    own = {id(operation.cell) for operation in operations if type(operation).__name__ in _WITH_CELLS}
    with ExitStack() as stack:
        for operation in operations:
            if id(operation) in own:
                continue
            method = "quantized_call" if getattr(operation, "quantization_mode", None) else "call"
            stack.callback(_restore, operation, method, operation.__dict__.get(method))
            operation.__dict__[method] = wrap(operation, getattr(operation, method))
            for name in _UNROLLED.keys() & operation.__dict__.keys() if _is_recurrent(operation) else ():
                stack.callback(setattr, operation, name, operation.__dict__[name])
                setattr(operation, name, _UNROLLED[name])
        yield


def _restore(operation: Any, method: str, before: Any) -> None:
    if before is None:
        del operation.__dict__[method]
    else:
        operation.__dict__[method] = before
