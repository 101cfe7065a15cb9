"""Images made larger or smaller: resizing, ends that are mirrored or repeated, windows of two sizes.

Each new position along an axis is a weighted sum of old ones, its taps: indices and weights of shape (taps, new size).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .affine import Value, bounded
from .call import Call
from .support import AcrossImages, Unsupported


def resize(call: Call) -> Value:
    """ONNX's Resize, and Upsample, which is what it was before opset 11."""
    x = call.value()
    rule = _Rule.of(call)
    inside = np.ones((1,) * len(x.dims), bool)
    for axis, (scale, size, roi) in _wanted(call, x.dims).items():
        if (scale, size) == (1, x.dims[axis]) and (rule.outside is None or roi == (0, 1)):
            continue
        if axis == 0:
            raise AcrossImages("it resizes the batch")
        bounded((*x.dims[:axis], size, *x.dims[axis + 1 :]))
        places = rule.places(x.dims[axis], size, scale, roi)
        indices, weight = rule.taps(places, x.dims[axis], scale)
        if rule.outside is not None:
            lies = (places >= 0) & (places <= x.dims[axis] - 1)
            weight = weight * lies
            inside = inside & lies.reshape(-1, *(1,) * (len(x.dims) - 1 - axis))
        x = x.separate(axis).resampled(axis, indices, weight.astype(np.float32), call.layers)
    return x if inside.all() or not rule.outside else x.shifted(np.where(inside, 0, rule.outside), call.layers)


@dataclass(frozen=True)
class _Rule:
    """How positions are found and interpolated. `outside` is what lies beyond the image, where that can be reached."""

    mode: str
    coordinates: str
    rounding: str
    cubic: float
    excludes: bool
    smooths: bool
    outside: float | None

    @classmethod
    def of(cls, call: Call) -> _Rule:
        before = call.opset < 11
        coordinates = "asymmetric" if before else call.text("coordinate_transformation_mode", "half_pixel")
        mode = call.text("mode", "nearest")
        return cls(
            mode="linear" if mode == "bilinear" else mode,
            coordinates=coordinates,
            rounding="simple" if before else call.text("nearest_mode", "round_prefer_floor"),
            cubic=call.attributes.get("cubic_coeff_a", -0.75),
            excludes=bool(call.attributes.get("exclude_outside", 0)),
            smooths=bool(call.attributes.get("antialias", 0)),
            outside=call.attributes.get("extrapolation_value", 0.0) if coordinates == "tf_crop_and_resize" else None,
        )

    def places(self, old: int, new: int, scale: np.float32, roi: tuple[float, float]) -> np.ndarray:
        """Where each new position lies among the old ones, in single precision as runtimes have it."""
        at, half = np.arange(new, dtype=np.float32), np.float32(0.5)
        match self.coordinates:
            case "half_pixel" | "tf_half_pixel_for_nn":
                return (at + half) / scale - (half if self.coordinates == "half_pixel" else 0)
            case "half_pixel_symmetric":
                return old / 2 * (1 - new / (scale * old)) + (at + half) / scale - half
            case "pytorch_half_pixel":
                return (at + half) / scale - half if new > 1 else at
            case "align_corners":
                if not np.isclose(scale * old, new):
                    raise Unsupported("runtimes align its corners differently; give the sizes that it resizes to")
                return at * np.float32(old - 1) / np.float32(new - 1) if new > 1 else at
            case "asymmetric":
                return at / scale
            case "tf_crop_and_resize":
                start, end = roi
                middle = 0.5 * (start + end) * (old - 1)
                return start * (old - 1) + at * (end - start) * (old - 1) / (new - 1) if new > 1 else at + middle
        raise Unsupported(f"it resizes with coordinates {self.coordinates!r}, which ONNX does not define")

    def taps(self, places: np.ndarray, old: int, scale: np.float32) -> tuple[np.ndarray, np.ndarray]:
        """What each new position is made of, where `places` are those among the old ones."""
        if self.mode == "nearest":
            nearest = _ROUNDINGS[self.rounding](places, scale)
            indices = np.clip(nearest, 0, old - 1).astype(np.int64)[None]
            return indices, np.ones(indices.shape)
        kernels = {"linear": (1, _triangle), "cubic": (2, lambda t: _cubic(t, self.cubic))}
        if self.mode not in kernels:
            raise Unsupported(f"it interpolates in mode {self.mode!r}, which ONNX does not define")
        width, kernel = kernels[self.mode]
        shrunk = min(float(scale), 1.0) if self.smooths else 1.0
        reach = int(np.ceil(width / shrunk))
        steps = np.arange(1 - reach, reach + 1)[:, None]
        first = np.floor(places)
        indices, weight = (first + steps).astype(np.int64), kernel((steps - (places - first)) * shrunk)
        if self.excludes:
            weight = weight * ((indices >= 0) & (indices < old))
        return np.clip(indices, 0, old - 1), weight / weight.sum(0)


def _triangle(t: np.ndarray) -> np.ndarray:
    return np.maximum(1 - np.abs(t), 0)


def _cubic(t: np.ndarray, a: float) -> np.ndarray:
    """[Keys 1981, https://doi.org/10.1109/TASSP.1981.1163711]."""
    t = np.abs(t)
    near, far = ((a + 2) * t - (a + 3)) * t * t + 1, a * (((t - 5) * t + 8) * t - 4)
    return np.where(t <= 1, near, np.where(t < 2, far, 0))


_ROUNDINGS: dict[str, Any] = {
    "round_prefer_floor": lambda places, scale: np.ceil(places - 0.5),
    "round_prefer_ceil": lambda places, scale: np.floor(places + 0.5),
    "floor": lambda places, scale: np.floor(places),
    "ceil": lambda places, scale: np.ceil(places),
    "simple": lambda places, scale: np.ceil(places) if scale < 1 else np.floor(places),  # before opset 11
}


def _wanted(call: Call, dims: tuple[int, ...]) -> dict[int, tuple[np.float32, int, tuple[float, float]]]:
    """For each ONNX axis the scale, the new size, and the part of the old that is taken, in shares of it."""
    rank = len(dims)
    axes = [axis % rank for axis in call.numbers("axes", tuple(range(rank)))]
    if call.opset < 11:
        roi, sizes, scales = None, None, call.option(1, "scales")
    else:
        roi, scales, sizes = (_filled(call.constant(index)) for index in (1, 2, 3))
    parts = np.tile([0.0, 1.0], (len(axes), 1)) if roi is None else roi.reshape(2, -1).T
    old = np.array([dims[axis] for axis in axes])
    if sizes is not None:
        scales = sizes.astype(np.float32) / old.astype(np.float32)
        policy = call.text("keep_aspect_ratio_policy", "stretch")
        if policy != "stretch":
            scales = np.full(len(axes), scales.min() if policy == "not_larger" else scales.max(), np.float32)
            sizes = np.floor(scales * old + np.float32(0.5))
    elif scales is not None:
        sizes = np.floor(scales.astype(np.float32) * old.astype(np.float32))
    if scales is None or sizes is None or not len(scales) == len(sizes) == len(parts) == len(axes):
        raise Unsupported("its scales or sizes do not fit its input")
    if not (np.isfinite(scales).all() and (scales > 0).all() and (sizes >= 1).all()):
        raise Unsupported(f"it resizes to {sizes.tolist()} by {scales.tolist()}, which leaves nothing")
    found = zip(axes, scales.astype(np.float32), sizes, parts, strict=True)
    return {axis: (scale, int(size), (float(part[0]), float(part[1]))) for axis, scale, size, part in found}


def _filled(array: np.ndarray | None) -> np.ndarray | None:
    """An operand that may also be left out by being empty."""
    return array if array is not None and array.size else None


def beyond_ends(x: Value, axis: int, before: int, after: int, mode: str, layers: tuple[str, ...]) -> Value:
    """More positions at the ends of an ONNX axis: mirrored (`reflect`), repeated (`edge`), or from the other end."""
    bounded((*x.dims[:axis], x.dims[axis] + before + after, *x.dims[axis + 1 :]))
    if mode not in ("reflect", "edge", "wrap"):
        raise Unsupported(f"it pads in mode {mode!r}, which ONNX does not define")
    places: np.ndarray = np.pad(np.arange(x.dims[axis]), (before, after), mode=mode)  # type: ignore[call-overload]
    return x.separate(axis).selected(axis, places, layers)
