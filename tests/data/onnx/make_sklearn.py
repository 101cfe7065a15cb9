"""Writes sklearn.onnx and sklearn.npz beside this script: a classifier as skl2onnx writes it, inputs and probabilities.

With skl2onnx installed: python tests/data/onnx/make_sklearn.py
"""

from pathlib import Path

import numpy as np
import onnx
from skl2onnx import to_onnx
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

HERE = Path(__file__).parent


def main() -> None:
    x, y = load_digits(return_X_y=True)
    x = x.astype(np.float32)
    classifier = make_pipeline(StandardScaler(), MLPClassifier((20,), max_iter=30, random_state=0)).fit(x, y)
    onnx.save(to_onnx(classifier, x[:1]), HERE / "sklearn.onnx")
    np.savez_compressed(HERE / "sklearn.npz", x=x[:20], y0=classifier.predict_proba(x[:20]))


if __name__ == "__main__":
    main()
