"""From a Keras model to spikes, one step at a time; every step can be looked at, and stopped after.

python examples/keras_to_spikes.py
"""

import numpy as np

import snnc
from snnc import demo

# A trained model, and images as it takes them: (images, height, width, channels).
x_train, y_train, x_test, y_test = demo.digits()
model = demo.train(x_train, y_train, epochs=10)

# The analog network: what Keras computes, as populations and connections that know the model's layers.
network = snnc.load(model)
print(network)
ann = snnc.compile(network).predict(x_test)
print(f"ANN accuracy: {(ann.argmax(-1) == y_test).mean():.1%}")

# Spiking networks: the same graph under different thresholds. Calibration images come from the training set.
for pipeline in ("data-norm", "data-norm{percentile=99.9}", "data-norm{percentile=99.9,per-channel=true}"):
    snn = snnc.convert(network, pipeline, calibration=x_train[:512], timesteps=32)
    result = snnc.compile(snn).evaluate(x_test, y_test)
    after = ", ".join(f"{result.accuracy[t - 1]:.1%} at {t}" for t in (4, 8, 16, 32))
    spikes = sum(counts.sum() for counts in result.spike_counts.values()) / result.images
    print(f"{pipeline}: {after} timesteps; {spikes:.0f} spikes per image")

# A few images in full: every spike, every potential, and what the spikes of a layer stand for.
recording = snnc.compile(snn).simulate(x_test[:5], record=True)
print("spikes of 'hidden' in the first eight steps of the first image:")
print(recording.trains["hidden"][:8, 0].astype(int))
neuron = snn.populations["hidden"].neuron
decoded = neuron.v_thresh * recording.spike_counts["hidden"] / snn.timesteps
analog = next(iter(snnc.compile(network).activations(x_test[:5])))["hidden"]
print(f"'hidden', decoded against analog: correlation {np.corrcoef(decoded.ravel(), analog.ravel())[0, 1]:.3f}")

# Networks are kept in files of JSON and safetensors; `snnc show digits.snn` prints one.
snnc.save(snn, "digits.snn")
