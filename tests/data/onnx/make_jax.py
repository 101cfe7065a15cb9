"""Writes jax.onnx and jax.npz beside this script: a Flax network as jax2onnx writes it, inputs and JAX's own outputs.

In an environment of its own: pip install jax2onnx, then python tests/data/onnx/make_jax.py
"""

from pathlib import Path

import jax
import numpy as np
import onnx
from flax import nnx
from jax2onnx import to_onnx

HERE = Path(__file__).parent


class Network(nnx.Module):
    """Channels last, as JAX has it; the batch is left open."""

    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        self.conv1 = nnx.Conv(3, 6, (3, 3), strides=2, rngs=rngs)
        self.norm = nnx.BatchNorm(6, use_running_average=True, rngs=rngs)
        self.conv2 = nnx.Conv(6, 8, (3, 3), padding="VALID", rngs=rngs)
        self.out = nnx.Linear(48, 5, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = nnx.relu(self.norm(self.conv1(x)))
        x = nnx.max_pool(x, window_shape=(2, 2), strides=(2, 2))
        x = nnx.relu6(self.conv2(x))
        return nnx.log_softmax(self.out(x.reshape(x.shape[0], -1)))


def main() -> None:
    rng = np.random.default_rng(0)
    network = Network()
    state = nnx.state(network)
    nnx.update(network, jax.tree.map(lambda a: a + 0.2 * rng.random(a.shape, np.float32), state))
    x = rng.normal(size=(3, 16, 20, 3)).astype(np.float32)
    onnx.save(to_onnx(network, [("B", 16, 20, 3)]), HERE / "jax.onnx")
    np.savez_compressed(HERE / "jax.npz", x=x, y0=np.asarray(network(x)))


if __name__ == "__main__":
    main()
