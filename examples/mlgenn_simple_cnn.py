"""A script for ml_genn_tf, with only its import changed: a CNN, converted, compiled by mlGeNN and evaluated by GeNN.

python examples/mlgenn_simple_cnn.py mnist.npz --converter data-norm

The data are an .npz file with images x_train, x_test, (N, H, W, C) in uint8, and labels y_train, y_test. Needs GeNN.
"""

import argparse
from pathlib import Path

import numpy as np
import tensorflow as tf
from keras import Sequential, layers, models

from snnc.converters import DataNorm, FewSpike, InputType, Simple, spike_normalise

arguments = argparse.ArgumentParser()
arguments.add_argument("data", type=Path)
arguments.add_argument("--model", type=Path, help="a trained .keras model; otherwise one is trained")
arguments.add_argument("--converter", default="few-spike", choices=["simple", "data-norm", "spike-norm", "few-spike"])
arguments.add_argument("--input-type", default="poisson", choices=[kind.value for kind in InputType])
arguments.add_argument("--timesteps", type=int, default=200)
arguments.add_argument("--k", type=int, default=8)
arguments.add_argument("--norm-images", type=int, default=64)
arguments.add_argument("--test-images", type=int, default=200)
args = arguments.parse_args()

data = np.load(args.data)
x_train, x_test = data["x_train"] / 255.0, data["x_test"][: args.test_images] / 255.0
y_train, y_test = data["y_train"], data["y_test"][: args.test_images]

if args.model:
    model = models.load_model(args.model, compile=False)
else:
    model = Sequential(
        [
            layers.Input(x_train.shape[1:]),
            layers.Conv2D(16, 5, activation="relu"),  # ml_genn_tf would want use_bias=False in every layer
            layers.AveragePooling2D(2),
            layers.Conv2D(8, 5, activation="relu"),
            layers.AveragePooling2D(2),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dense(int(y_train.max()) + 1, activation="softmax"),
        ]
    )
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy")
    model.fit(x_train, y_train, epochs=2, verbose=0)
ann = (model.predict(x_test, verbose=0).argmax(-1) == y_test).mean()

# Normalisation data as ml_genn_tf takes them: a data set of batches of (images, labels).
norm_data = tf.data.Dataset.from_tensor_slices((x_train[: args.norm_images], y_train[: args.norm_images])).batch(1)
if args.converter == "few-spike":
    converter = FewSpike(k=args.k, norm_data=[norm_data])
elif args.converter == "data-norm":
    converter = DataNorm(evaluate_timesteps=args.timesteps, norm_data=[norm_data], input_type=args.input_type)
else:
    converter = Simple(evaluate_timesteps=args.timesteps, input_type=args.input_type)

network, inputs, outputs, populations = converter.convert(model)
if args.converter == "spike-norm":
    found = spike_normalise(network, inputs, outputs, norm_data, evaluate_timesteps=args.timesteps)
    print("thresholds:", {population.name: round(threshold, 3) for population, threshold in found.items()})

compiled = converter.create_compiler().compile(network, inputs=inputs, outputs=outputs)
with compiled:
    metrics, _ = compiled.evaluate({inputs[0]: x_test}, {outputs[0]: y_test}, callbacks=[])
print(f"ANN accuracy: {ann:.1%}")
print(f"SNN accuracy ({args.converter}): {metrics[outputs[0]].result:.1%}")
