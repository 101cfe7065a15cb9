"""Writes the ONNX files beside this script: the networks of tests/torch_models.py, as both of PyTorch's exporters
write them, and for each a .npz with inputs and PyTorch's own outputs. Run with torch and onnxscript installed:

python tests/data/onnx/make_torch.py
"""

import sys
from pathlib import Path

import numpy as np
import onnx

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))

import torch_models  # noqa: E402

_LOCAL = {"pkg.torch.onnx.stack_trace", "pkg.torch.onnx.fx_node"}  # paths of this machine, and size


def main() -> None:
    for name in torch_models.MODELS:
        model, x = torch_models.build(name)
        for exporter in ("torchscript", "dynamo"):
            proto = torch_models.export(model, x, exporter == "dynamo", dynamic=True)
            for part in (*proto.graph.node, *proto.graph.value_info):
                kept = [entry for entry in part.metadata_props if entry.key not in _LOCAL]
                del part.metadata_props[:]
                part.metadata_props.extend(kept)
            onnx.save(proto, HERE / f"{name}-{exporter}.onnx")
        arrays = {f"y{position}": y for position, y in enumerate(torch_models.outputs(model, x))}
        np.savez_compressed(HERE / f"{name}.npz", x=x, **arrays)


if __name__ == "__main__":
    main()
