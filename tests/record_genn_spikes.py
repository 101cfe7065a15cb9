"""What GeNN did on the networks of `dyadic.py`, kept so that backends are held to it where GeNN is not installed.

`python tests/record_genn_spikes.py` writes tests/data/genn again, byte for byte, and needs pygenn and ml_genn. Run it
when a network of `dyadic.py` is added or changed, and only then.
"""

from dataclasses import fields
from pathlib import Path

import dyadic
import numpy as np

import snnc
from snnc.backend.compiled import Recording

FOLDER = Path(__file__).parent / "data" / "genn"
KINDS = [field.name for field in fields(Recording) if field.name != "steps"]  # of images that stop early, as none here


def recorded(name: str) -> Recording:
    """What GeNN did on `dyadic.images` of the network `dyadic.NETWORKS[name]`."""
    with np.load(FOLDER / f"{name}.npz") as arrays:
        return Recording(
            **{kind: {key.partition(":")[2]: arrays[key] for key in arrays if key.startswith(kind)} for kind in KINDS}
        )


def record(name: str) -> None:
    """Let GeNN run a network, and keep everything."""
    network = dyadic.NETWORKS[name]()
    recording = snnc.compile(network, "mlgenn").simulate(dyadic.images(network), record=True)
    arrays = {
        f"{kind}:{population}": values
        for kind in KINDS
        for population, values in sorted(getattr(recording, kind).items())
    }
    FOLDER.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(FOLDER / f"{name}.npz", **arrays)


if __name__ == "__main__":
    for name in dyadic.NETWORKS:
        record(name)
