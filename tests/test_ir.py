"""The IR: operators and their algebra, rules, text and files."""

import copy
import dataclasses
import os
import pickle
import re
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import operator_chains, residual, transposed, weights
from onnx import TensorProto, helper

import snnc
from snnc import ir
from snnc.ir import Connection, Network, Population
from snnc.passes import Canonicalise, Context


@settings(max_examples=300, derandomize=True, deadline=None)
@given(operator_chains())
def test_folding_keeps_the_map_and_is_final(drawn):
    shape, operators = drawn
    folded = ir.fold(operators, shape)
    x = np.random.default_rng(0).standard_normal((2, *shape))
    expected, found = ir.apply(operators, x), ir.apply(folded, x)
    assert found.shape == expected.shape == (2, *ir.output_shape(operators, shape))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * max(1, np.abs(expected).max()))
    assert ir.fold(folded, shape) == folded
    assert len(folded) <= len(operators)


def test_folding_leaves_one_weight_where_there_can_be_one():
    chain = (
        ir.Scale(weights(0, 4)),
        ir.Pad(((1, 0), (2, 1), (1, 2))),
        ir.Conv2D(weights(1, 3, 3, 7, 6)),
        ir.Scale(weights(2, 6)),
        ir.Pad(((0, 0), (0, 0), (2, 1))),
    )
    assert [type(operator) for operator in ir.fold(chain, (6, 6, 4))] == [ir.Conv2D, ir.Pad]
    after = ir.fold((*chain, ir.Scale(weights(5, 9)), ir.Conv2D(weights(6, 1, 1, 9, 2))), (6, 6, 4))
    assert [operator.weight.shape for operator in after] == [(3, 3, 4, 6), (1, 1, 6, 2)]
    flat = (ir.Scale(weights(3, 4)), ir.Flatten(), ir.Pick(np.arange(10)[::-1]), ir.Dense(weights(4, 10, 3)))
    assert [type(operator) for operator in ir.fold(flat, (3, 3, 4))] == [ir.Dense]


@pytest.mark.parametrize(
    ("chain", "shape", "kinds"),
    [
        # a step of a series, where the steps were put one behind the other
        (
            (ir.Pick(np.arange(3).reshape(1, 1, 3)), ir.Pad(((2, 1), (0, 0), (0, 0))), ir.Pick(np.arange(6, 9))),
            (3,),
            [],
        ),
        ((ir.Pad(((1, 0), (0, 0), (0, 0))), ir.Pick(np.array([5, 0]))), (2, 1, 2), ["Pad", "Pick"]),
        # one of many steps: a matrix for all of them would be zeros
        ((ir.Pick(np.arange(3)), ir.Dense(weights(0, 3, 2))), (9, 1, 3), ["Pick", "Dense"]),
        # a convolution whose padding is more than the image
        ((ir.Conv2D(weights(1, 1, 1, 3, 2), padding=((1, 2), (0, 0))), ir.Flatten()), (1, 1, 3), ["Conv2D", "Flatten"]),
    ],
)
def test_folding_of_steps(chain, shape, kinds):
    folded = ir.fold(chain, shape)
    assert [type(operator).__name__ for operator in folded] == kinds
    x = weights(9, 2, *shape)
    np.testing.assert_allclose(ir.apply(folded, x), ir.apply(chain, x), rtol=1e-6)


def test_records_compare_by_value_and_hold_arrays_read_only():
    a, b = ir.Dense(weights(0, 3, 2)), ir.Dense(weights(0, 3, 2).astype(np.float64))
    assert a == b
    assert a != ir.Dense(weights(1, 3, 2))
    assert b.weight.dtype == np.float32
    with pytest.raises(ValueError, match="read-only"):
        a.weight[0] = 0
    with pytest.raises(dataclasses.FrozenInstanceError):
        a.weight = b.weight


def _converted() -> Network:
    images = weights(100, 40, 8, 8, 2, scale=3.0)
    return snnc.convert(residual(), "data-norm{per-channel=true}", calibration=images, timesteps=8, progress=False)


@pytest.mark.parametrize("build", [residual, _converted])
@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, *(lambda x, p=p: pickle.loads(pickle.dumps(x, p)) for p in range(6))]
)
def test_networks_are_copied_and_pickled_whole_and_read_only(build, copied):
    network = build()
    size = len(pickle.dumps(network))
    assert network.depth["digit"]  # … and other properties that are cached
    again = copied(network)
    assert set(vars(again)) == {field.name for field in dataclasses.fields(Network)}
    assert len(pickle.dumps(network)) == size
    assert again == network
    assert str(again) == str(network)
    assert again.order == network.order
    assert again.populations["stem"].origin == network.populations["stem"].origin
    with pytest.raises(TypeError):
        again.populations["more"] = again.populations["stem"]
    (weight,) = (operator.weight for operator in again.connections[0].operators if isinstance(operator, ir.Conv2D))
    for array in (weight, again.populations["stem"].bias):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    changed = again.replace(connections=again.connections[1:])
    assert changed != network
    for part in (*network.populations.values(), *network.connections, *network.connections[0].operators):
        assert copied(part) == part
        assert copied(part) is not part
    for population in network.populations.values():
        assert copied(population.neuron) == population.neuron


def test_a_spawned_process_is_given_a_network_and_gives_one_back():
    network, images = _converted(), weights(7, 3, 8, 8, 2)
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        converted = pool.submit(snnc.run_pipeline, residual(), "canonicalise")
        predicted = pool.submit(_predicted, network, images)
        refused = pool.submit(ir.verify, network.replace(outputs=["nothing"]))
        assert converted.result(120) == snnc.run_pipeline(residual(), "canonicalise")
        np.testing.assert_array_equal(predicted.result(120), _predicted(network, images))
        with pytest.raises(ir.VerificationError, match="output 'nothing' is not a population") as raised:
            refused.result(120)
        assert len(raised.value.faults) == 1


def _predicted(network, images):
    return snnc.compile(network).predict(images)


def test_errors_are_pickled_whole():
    refusal = ir.Refusal("conv", "Conv3D", "it has three axes")
    unsupported = ir.UnsupportedModelError("no", [refusal], ["conv", "dense"], ["dense"])
    for error in (ir.VerificationError("faulty:", ["a", "b"]), unsupported, ir.MismatchError("differs", "conv")):
        again = pickle.loads(pickle.dumps(error))
        assert str(again) == str(error)
        assert vars(again) == vars(error)
    assert again.layer == "conv"
    assert pickle.loads(pickle.dumps(unsupported)).problems[0].reason == refusal.reason


def test_a_valid_network_has_no_faults():
    assert ir.faults(residual(), "analog") == []
    assert ir.faults(Canonicalise().run(residual(), Context()), "canonical") == []


def test_verify_reports_all_faults_at_once():
    broken = Network(
        [
            Population("x", (4, 4, 1), ir.Input()),
            Population("none", (4,), None),
            Population("spiking", (16,), ir.IntegrateFire(0.0)),
            Population("nan", (16,), ir.Relu(), np.array([np.nan] * 16)),
            Population("bias", (16,), ir.Relu(), np.zeros(3)),
            Population("pool", (2, 2, 1), ir.MaxPool2D((4, 4, 1), (3, 3), (1, 1), ((0, 0), (0, 1)))),
            Population("lonely", (2,), ir.Relu()),
        ],
        [
            Connection("x", "spiking"),
            Connection("x", "nan", (ir.Flatten(),), delay=-1),
            Connection("x", "nowhere"),
            Connection("nan", "bias", (ir.Dense(weights(0, 3, 16)),)),
            Connection("bias", "nan"),
            Connection("x", "pool"),
            Connection("x", "none", (ir.Flatten(), ir.Dense(np.full((16, 4), np.inf)))),
        ],
        ["x", "y"],
        [],
    )
    report = "\n".join(ir.faults(broken, "analog"))
    for expected in (
        "input 'y' is not a population",
        "the network has no output",
        "population 'none': has no neuron",
        "population 'spiking': IntegrateFire is spiking",
        "population 'spiking': v_thresh is not positive",
        "population 'nan': Population.bias holds numbers that are not finite",
        "population 'bias': bias of shape (3,)",
        "population 'pool': has shape (2, 2, 1) but its neuron gives (2, 3, 1)",
        "population 'lonely': has no incoming connections",
        "connection x -> spiking: gives shape (4, 4, 1) where the target takes (16,)",
        "connection x -> nan: delay -1 is negative",
        "connection x -> nowhere: 'nowhere' is not a population",
        "connection nan -> bias: Dense expects 3 inputs but is given (16,)",
        "connection x -> none: Dense.weight holds numbers that are not finite",
        "these populations form a cycle: bias, nan",
    ):
        assert expected in report
    with pytest.raises(ir.VerificationError, match="fault"):
        ir.verify(broken)
    assert "spiking" in str(broken)  # invalid networks print too


def test_spiking_networks_must_be_aligned_and_timed():
    network = Network(
        [
            Population("x", (2,), ir.CurrentInput()),
            Population("a", (2,), ir.IntegrateFire(1.0)),
            Population("y", (2,), ir.Integrate()),
        ],
        [Connection("x", "a"), Connection("a", "y"), Connection("x", "y")],
        ["x"],
        ["y"],
    )
    assert ir.faults(network, "spiking") == [
        "connection x -> y: delay 0 does not align it, 1 does",
        "timesteps is None; T is a number from 1 to 1,048,576",
    ]


def test_two_populations_of_one_name_are_refused():
    with pytest.raises(ir.VerificationError, match="twice"):
        Network([Population("twice", (1,), ir.Input())] * 2, [], ["twice"], ["twice"])


def test_file_round_trip_gives_the_same_network_and_bytes(tmp_path):
    network = residual()
    ir.save(network, tmp_path / "a.snn")
    ir.save(network, tmp_path / "b.snn")
    again = ir.load(tmp_path / "a.snn")
    assert again == network
    assert str(again) == str(network)
    assert (tmp_path / "a.snn").read_bytes() == (tmp_path / "b.snn").read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["a.snn", "b.snn"]


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing_beside_it(tmp_path, monkeypatch):
    path = tmp_path / "net.snn"
    ir.save(residual(), path)
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(ir.NetworkFileError, match="No space left"):
        ir.save(residual(), path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["net.snn"]


def test_writing_into_a_missing_folder_is_an_error_of_ours(tmp_path):
    with pytest.raises(ir.NetworkFileError, match="cannot write"):
        ir.save(residual(), tmp_path / "missing" / "net.snn")


def test_damaged_files_are_refused_whatever_the_damage(tmp_path):
    path = tmp_path / "net.snn"
    ir.save(residual(), path)
    good = path.read_bytes()
    rng = np.random.default_rng(0)
    header = 8 + int.from_bytes(good[:8], "little")
    damaged = [b"", b"PK\x03\x04", good[:100], good[: len(good) // 2], b"\xff" * 64]
    for _ in range(300):  # flip a byte of the header, where all structure is
        position = int(rng.integers(header))
        damaged.append(good[:position] + bytes([int(rng.integers(256))]) + good[position + 1 :])
    refused = 0
    for content in damaged:
        path.write_bytes(content)
        try:
            ir.verify(ir.load(path))  # a flip may still give a valid network, say in a layer's name
        except ir.NetworkFileError:
            refused += 1
    assert refused > 200


def test_missing_and_foreign_files(tmp_path):
    from safetensors.numpy import save_file

    with pytest.raises(ir.NetworkFileError, match="no such file"):
        ir.load(tmp_path / "missing.snn")
    save_file({"a": np.zeros(3, np.float32)}, tmp_path / "foreign.snn")
    with pytest.raises(ir.NetworkFileError, match="not a network file written by snnc"):
        ir.load(tmp_path / "foreign.snn")


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((3, 8, 8)), "has shape"),
        (np.zeros((3, 8, 8, 1)), "has shape"),
        (np.zeros((0, 8, 8, 2)), "no images"),
        (np.array([["a"]]), "input data for input 'image': give an array of numbers, not a ndarray of type <U1"),
        ({"other": np.zeros((3, 8, 8, 2))}, "inputs are image"),
        (np.full((3, 8, 8, 2), np.nan), "NaN or infinity in 3 image"),
        (np.full((3, 8, 8, 2), 1e300), "NaN or infinity in 3 image.*, in single precision"),
        (np.ma.masked_greater(weights(0, 3, 8, 8, 2), 0), "not a MaskedArray of which a part is masked"),
        ([[[0], [0, 1]]], "not a list that cannot become one"),
    ],
)
def test_data_that_does_not_fit_is_refused(x, message):
    with pytest.raises(ir.DataError, match=message):
        ir.as_inputs(residual(), x)


def test_what_gives_images_but_is_no_array_is_named(tmp_path):
    """What Keras and PyTorch train on; nothing is taken from it, as an error must not use it up."""
    tensorflow, torch = pytest.importorskip("tensorflow"), pytest.importorskip("torch")
    images = weights(0, 4, 8, 8, 2)
    given = {
        "generator": (image for image in images),
        "map": map(np.asarray, images),
        "DataLoader": torch.utils.data.DataLoader(torch.tensor(images)),
        "TensorDataset": torch.utils.data.TensorDataset(torch.tensor(images), torch.arange(4)),
        "_TensorSliceDataset": tensorflow.data.Dataset.from_tensor_slices(images),
        "str": "images.npy",
        type(tmp_path).__name__: tmp_path / "images.npy",
        "NoneType": None,
    }
    for kind, x in given.items():
        with pytest.raises(ir.DataError, match=f"^calibration data.*: give an array of numbers, not a {kind}[^\n]*$"):
            ir.as_inputs(residual(), x, "calibration")
        with pytest.raises(ir.DataError, match=f"^labels.*: give an array of numbers, not a {kind}[^\n]*$"):
            ir.as_labels(residual(), x, 4)
    assert next(given["generator"]) is not None


def test_labels_may_be_classes_or_shares_of_one():
    classes = np.array([0, 4, 2])
    one_hot = np.eye(5)[classes]
    smoothed, uneven = 0.9 * one_hot + 0.02, (one_hot + 0.3331) / 2.6655
    rows = (one_hot, one_hot.astype(bool), one_hot.tolist(), smoothed, uneven.astype(np.float16))
    for given_labels in (classes, classes[:, None], classes.astype(float), *rows, [one_hot], {"digit": classes}):
        np.testing.assert_array_equal(ir.as_labels(residual(), given_labels, 3)["digit"], classes)
    with pytest.raises(ir.DataError, match="shape"):
        ir.as_labels(residual(), [0, 1], 3)


@pytest.mark.parametrize(
    "rows",
    [
        weights(0, 3, 5),
        np.eye(5)[:3] * 255,
        np.ones((3, 5)),
        np.full((3, 5), np.nan),
        np.array([[2, -1, 0, 0, 0]] * 3),
        np.array([[np.inf, -np.inf, 0, 0, 1]] * 3),
        np.log(np.eye(5)[:3] + 0.01),
    ],
    ids=["regression", "bytes", "several-labels", "nan", "negative", "infinite", "logits"],
)
def test_rows_that_have_no_class_are_no_labels(rows):
    with pytest.raises(ir.DataError, match=r"'digit' are rows of numbers, but no shares .* give y\.argmax\(-1\)"):
        ir.as_labels(residual(), rows, 3)


@pytest.mark.parametrize(
    ("labels", "first"),
    [
        (np.array([0, 2**64 - 1, 1], np.uint64), "1 image(s), first 18446744073709551615 in image 1"),
        (np.array([0.0, 1.0, 1e300]), "1 image(s), first 1e+300 in image 2"),
        ([np.nan, 1, np.nan], "2 image(s), first nan in image 0"),
        ([0, np.inf, 1], "1 image(s), first inf in image 1"),
        ([0, 0.5, -1], "2 image(s), first 0.5 in image 1"),
        ([1, 5, 5], "2 image(s), first 5 in image 1"),
        (np.array([-1, 0, 0], np.int8), "1 image(s), first -1 in image 0"),
    ],
)
def test_labels_that_are_no_class_are_told_as_they_are(labels, first):
    with pytest.raises(ir.DataError, match=re.escape(f"are no class in {first}; it has 5 classes")):
        ir.as_labels(residual(), labels, 3)


def test_labels_of_several_outputs_come_by_name_or_in_order():
    network = residual().replace(outputs=("merged", "digit"))
    merged, digit = np.array([0, 7]), np.array([4, 1])
    for given_labels in ({"digit": digit, "merged": merged}, [merged, digit], np.array([merged, digit])):
        found = ir.as_labels(network, given_labels, 2)
        np.testing.assert_array_equal([found["merged"], found["digit"]], [merged, digit])
    for wrong in ([merged], [merged, digit, digit], 5, None, iter([merged, digit])):
        with pytest.raises(ir.DataError, match="the network has outputs merged, digit; give a mapping"):
            ir.as_labels(network, wrong, 2)
    with pytest.raises(ir.DataError, match="labels: given for nothing; the network's outputs are merged, digit"):
        ir.as_labels(network, {}, 2)


@settings(max_examples=60, derandomize=True, deadline=None)
@given(st.data())
def test_transposed_convolutions_are_those_of_onnx(data):
    """The oracle: onnxruntime."""
    shape = data.draw(st.tuples(st.integers(1, 5), st.integers(1, 5), st.sampled_from([1, 2, 4])))
    operator = data.draw(transposed(shape))
    height, width, depth, _ = operator.weight.shape
    kernel = operator.weight.reshape(height, width, depth, operator.groups, -1).transpose(3, 2, 4, 0, 1)
    (top, bottom), (left, right) = operator.cropping
    node = helper.make_node(
        "ConvTranspose",
        ["x", "w"],
        ["y"],
        strides=operator.strides,
        dilations=operator.dilation,
        group=operator.groups,
        pads=[top, left, bottom, right],
    )
    fed = {"x": weights(1, 1, shape[2], *shape[:2]), "w": kernel.reshape(shape[2], -1, height, width)}
    given = [helper.make_tensor_value_info(name, TensorProto.FLOAT, x.shape) for name, x in fed.items()]
    graph = helper.make_graph([node], "transposed", given, [helper.make_empty_tensor_value_info("y")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    expected = np.moveaxis(session.run(None, fed)[0], 1, -1)
    np.testing.assert_allclose(operator.apply(np.moveaxis(fed["x"], 1, -1)), expected, rtol=0, atol=1e-5)


def test_resampling_is_a_matrix_along_one_axis():
    indices, weight = np.array([[4, 0, 2, 2], [0, 0, 1, 4]]), weights(0, 2, 4)
    matrix = np.zeros((5, 4))
    np.add.at(matrix, (indices, np.arange(4)[None]), weight)
    rows, columns = weights(1, 3, 5, 2, 3), weights(2, 3, 2, 5, 3)
    expected = np.einsum("bhwc,ho->bowc", rows, matrix), np.einsum("bhwc,wo->bhoc", columns, matrix)
    for axis, x in enumerate((rows, columns)):
        np.testing.assert_allclose(ir.Resample(axis, indices, weight).apply(x), expected[axis], rtol=0, atol=1e-6)
    for wrong in (
        ir.Resample(2, indices, weight),
        ir.Resample(1, indices, weight),
        ir.Resample(0, indices, weight[:1]),
    ):
        with pytest.raises(ir.ShapeError, match="Resample"):
            wrong.output_shape((5, 2, 3))


def test_folding_keeps_one_resampling_for_each_axis():
    turned, doubled = np.arange(6)[::-1][None], np.repeat(np.arange(6), 2)[None]
    chain = (
        ir.Scale(weights(0, 4)),
        ir.Pad(((1, 0), (0, 0), (0, 0))),
        ir.Resample(0, turned, np.ones((1, 6))),
        ir.Resample(0, doubled, weights(1, 1, 12)),
        ir.ConvTranspose2D(weights(2, 2, 2, 4, 3), (2, 2)),
        ir.Scale(weights(3, 3)),
    )
    assert [type(operator) for operator in ir.fold(chain, (5, 5, 4))] == [ir.Resample, ir.ConvTranspose2D]
    moved = (ir.Resample(1, turned, np.ones((1, 6))), ir.Pick(np.arange(30)), ir.Dense(weights(4, 30, 2)))
    assert [type(operator) for operator in ir.fold(moved, (5, 6, 1))] == [ir.Dense]
