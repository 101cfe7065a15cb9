"""What is said of PyTorch modules and ONNX files that cannot be read: all of it, in the user's names, and true."""

import warnings

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import snnc
from snnc import ir

torch = pytest.importorskip("torch")
nn = torch.nn


def problems(module, *shape):
    with pytest.raises(ir.UnsupportedModelError) as error:
        snnc.load(module, inputs=torch.zeros(1, *shape))
    return list(error.value.problems)


def calling(function):
    class Calling(nn.Module):
        def forward(self, x):
            return function(x)

    return Calling()


def assert_read(module, *shape):
    """With weights drawn at random, verified, and equal to PyTorch on other images."""
    torch.manual_seed(0)
    with torch.no_grad():
        module(torch.zeros(1, *shape))  # what is lazy finds its size
    network = snnc.load(module, inputs=torch.zeros(1, *shape), verify=True)
    x = np.random.default_rng(1).normal(size=(5, *shape)).astype(np.float32)
    with torch.no_grad():
        expected = module(torch.from_numpy(x)).numpy()
    found = snnc.compile(network).predict(np.moveaxis(x, 1, -1), progress=False)
    expected = np.moveaxis(expected, 1, -1).reshape(found.shape)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    return network


@pytest.mark.parametrize(
    "first",
    [nn.FractionalMaxPool2d(2, 5), nn.BatchNorm2d(4, track_running_stats=False), nn.RReLU(), nn.Softmin(0)],
    ids=lambda m: type(m).__name__,
)
@pytest.mark.parametrize("later", [nn.Threshold(0.5, 0.0), nn.RReLU(), nn.FractionalMaxPool2d(2, 3)])
def test_what_is_behind_a_refused_layer_is_in_the_same_report(first, later):
    found = problems(nn.Sequential(nn.Conv2d(3, 4, 3), first, later, nn.ReLU()), 3, 8, 8)
    assert [problem.layer for problem in found] == ["1", "2"]
    assert [problem.kind for problem in found] == [type(first).__name__, type(later).__name__]


def test_operators_that_the_exporter_does_not_know_are_in_the_same_report():
    layers = [
        *(nn.Conv2d(3, 4, 3), calling(torch.special.bessel_j0), nn.Threshold(0.5, 0.1)),
        *(nn.Conv2d(4, 2, 1), nn.RReLU()),
    ]
    found = problems(nn.Sequential(*layers), 3, 12, 12)
    assert [(problem.layer, problem.kind) for problem in found] == [
        ("1", "bessel_j0"),
        ("2", "Threshold"),
        ("4", "RReLU"),
    ]
    assert "bessel_j0 is neither" in found[0]
    assert "LeakyReLU" in found[2]


@pytest.mark.parametrize(
    ("module", "shape", "reason"),
    [
        (nn.BatchNorm2d(4, track_running_stats=False), (4, 6, 6), "statistics of each batch; keep running statistics"),
        (nn.BatchNorm1d(4, track_running_stats=False), (4,), "statistics of each batch; keep running statistics"),
        (nn.Threshold(0.5, 0.0), (4,), "jumps at a threshold"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)
def test_modules_are_refused_for_what_they_are(module, shape, reason):
    (found,) = problems(nn.Sequential(nn.Identity(), module, nn.ReLU()).eval(), *shape)
    assert (found.layer, found.kind) == ("1", type(module).__name__)
    assert_matches(reason, found)


def assert_matches(pattern, text):
    import re

    assert re.search(pattern, text), text


def traced():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.trace(nn.Linear(10, 3), torch.zeros(1, 10))


@pytest.mark.parametrize(
    ("module", "shape", "title", "reason"),
    [
        (lambda: nn.Linear(10, 3), (7,), "cannot be run on its inputs", "1x7 and 10x3"),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 9)), (3, 4, 4), "cannot be run", r"^0 \(Conv2d\): .*can't be greater"),
        (lambda: calling(lambda x: x if x.sum() > 0 else -x), (4,), "cannot be exported", "data-dependent"),
        (lambda: calling(lambda x: torch.clamp(x, 0, 1.5)), (4,), "cannot be exported", "aten.clamp"),
        (traced, (10,), "is TorchScript", "give the torch.nn.Module"),
    ],
    ids=["shapes", "kernel", "branch", "integer-and-float", "TorchScript"],
)
def test_the_reason_is_that_at_the_end_of_the_chain_of_causes(module, shape, title, reason, capfd):
    with pytest.raises(ir.UnsupportedModelError, match=title) as error:
        snnc.load(module(), inputs=torch.zeros(1, *shape))
    assert_matches(reason, error.value.problems[0])
    assert "step 1/3" not in str(error.value)
    written = capfd.readouterr()
    assert not written.out
    assert not written.err


def test_the_way_out_of_what_cannot_be_exported_works(tmp_path):
    module = nn.Sequential(nn.Linear(4, 3), calling(lambda x: torch.clamp(x, 0, 1.5)))
    assert "dynamo=False" in problems(module, 4)[-1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, (torch.zeros(1, 4),), tmp_path / "model.onnx", dynamo=False)
    network = snnc.load(tmp_path / "model.onnx", verify=True)
    assert ir.Clip(1.5) in [population.neuron for population in network.populations.values()]


def test_what_torch_export_and_torch_compile_give_is_read():
    module = nn.Sequential(nn.Linear(10, 3), nn.ReLU())
    program = torch.export.export(module, (torch.zeros(1, 10),))
    for source, inputs in ((program, None), (program.module(), torch.zeros(1, 10))):
        network = snnc.load(source, inputs=inputs, verify=True)
        assert [population.origin.layers for population in network.populations.values()][-1] == ("0", "1")
    assert snnc.load(torch.compile(module), inputs=torch.zeros(1, 10), verify=True).outputs == ("1",)


@pytest.mark.parametrize(
    ("function", "neuron"),
    [
        (nn.Threshold(0.0, 0.0), ir.Relu()),
        (lambda x: torch.where(x > 0, x, 0.0), ir.Relu()),
        (lambda x: torch.where(x <= 0, 0.0, x), ir.Relu()),
        (lambda x: x.masked_fill(x < 0, 0.0), ir.Relu()),
        (lambda x: x * (x > 0), ir.Relu()),
        (lambda x: (x + x.abs()) / 2, ir.Relu()),
        (lambda x: torch.where(x < 0, 0.0, torch.where(x > 1, 1.0, x)), ir.Clip(1.0)),
        (lambda x: torch.where(x > 0.7, 0.7, torch.relu(x)), ir.Clip(0.7)),
        (lambda x: torch.where(x >= 0, x, 0.1 * x), ir.LeakyRelu(0.1)),
        (lambda x: torch.where(~(x >= 0), 0.25 * x, x), ir.LeakyRelu(0.25)),
    ],
)
def test_rectifiers_that_are_written_with_comparisons_are_read(function, neuron):
    module = nn.Sequential(nn.Linear(6, 5), calling(function), nn.Linear(5, 3))
    network = assert_read(module, 6)
    assert [population.neuron for population in network.populations.values()][1] == neuron


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.where(x > 0.5, x, 0.0),
        lambda x: torch.where(x > 0, 1.0, 0.0),
        lambda x: torch.where(x > 0, x, -1.0),
        lambda x: x * (x > 0.5),
        lambda x: (x > 0).float(),
        lambda x: torch.where(x > 0, 2 * x, x.flip(1)),
    ],
)
def test_what_jumps_is_refused(function):
    (found,) = problems(nn.Sequential(nn.Linear(6, 5), calling(function), nn.Linear(5, 3)), 6)
    assert found.layer == "1"
    assert "jumps" in found


def shuffled(x):
    n, c, h, w = x.shape
    return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


@pytest.mark.parametrize(
    "shuffle",
    [
        shuffled,
        nn.ChannelShuffle(4),
        lambda x: x[:, [0, 4, 1, 5, 2, 6, 3, 7]],
        lambda x: x[:, [7, 7, 0]],
        lambda x: x.reshape(x.shape[0], 4, 2, *x.shape[2:])[:, :, 1],
        lambda x: x.flatten(2).unflatten(2, (6, 6)).transpose(2, 3),
    ],
    ids=["views", "module", "indices", "repeated", "every-other", "transposed"],
)
def test_channels_that_are_only_renamed_are_read(shuffle):
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), calling(shuffle), nn.ReLU(), nn.Flatten(), nn.LazyLinear(4))
    module(torch.zeros(1, 3, 8, 8))
    assert_read(module, 3, 8, 8)


@pytest.mark.parametrize(
    ("view", "shape"),
    [
        (nn.PixelShuffle(2), (4, 6, 6)),
        (nn.PixelUnshuffle(2), (4, 6, 6)),
        (nn.Unflatten(1, (2, 2)), (4, 6, 6)),
        (lambda x: x.flatten(2).transpose(1, 2), (4, 6, 6)),
        (lambda x: x.repeat(1, 2, 1, 3), (4, 6, 6)),
        (lambda x: x.unfold(2, 3, 2), (4, 6, 6)),
        (lambda x: torch.roll(x, (1, -2), (2, 3)), (4, 6, 6)),
        (nn.AdaptiveAvgPool2d((3, 4)), (4, 7, 6)),
        (lambda x: x.flip(2).rot90(1, (2, 3)), (4, 6, 6)),
    ],
)
def test_numbers_may_be_moved_and_repeated_at_will(view, shape):
    assert_read(nn.Sequential(nn.Conv2d(4, 4, 1), calling(view), nn.Flatten(), nn.LazyLinear(3)), *shape)


def test_vectors_are_folded_into_images():
    assert_read(nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Unflatten(1, (4, 2, 2)), nn.Conv2d(4, 3, 1)), 6)


def test_constants_beside_activations_are_biases():
    def grown(x):
        x = x[:, :, ::2, ::2]
        zeros = torch.zeros(x.shape[0], 4, x.shape[2], x.shape[3])
        return torch.relu(torch.cat([zeros, x, 0.5 + zeros], 1))

    network = assert_read(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), calling(grown)), 3, 8, 8)
    assert network.populations[network.outputs[0]].shape == (4, 4, 16)
    assert_read(nn.Sequential(nn.Linear(6, 5), calling(lambda x: torch.cat([x, torch.ones(len(x), 2)], 1))), 6)


def test_a_clip_whose_bounds_meet_is_named():
    class Subtracted(nn.Module):
        def __init__(self, largest):
            super().__init__()
            self.largest = nn.Parameter(torch.tensor(largest))

        def forward(self, x):
            return self.largest - torch.relu(self.largest - torch.relu(x))

    (found,) = problems(nn.Sequential(nn.Linear(4, 3), Subtracted(-2.0), nn.Linear(3, 2)).eval(), 4)
    assert (found.layer, "it gives 0 whatever it is given" in found) == ("1", True)


def onnx_model(nodes, *shape, opset=17, **weights):
    made = [
        helper.make_node(op, inputs.split(), outputs.split(), name=name, **more)
        for op, inputs, outputs, name, more in nodes
    ]
    ends = [
        helper.make_tensor_value_info(name, 1, ["N", *dims])
        for name, dims in (("x", shape), ("y", [None] * len(shape)))
    ]
    tensors = [numpy_helper.from_array(np.asarray(array, np.float32), name) for name, array in weights.items()]
    graph = helper.make_graph(made, "g", ends[:1], ends[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


@pytest.mark.parametrize("opset", [7, 9, 13])
def test_batch_normalisation_that_older_opsets_export_for_training_is_refused(opset):
    rng = np.random.default_rng(0)
    nodes = [
        ("Conv", "x w", "c", "conv", {}),
        ("BatchNormalization", "c s b m v", "n m2 v2 sm sv", "bn", {}),
        ("Relu", "n", "y", "relu", {}),
    ]
    weights = {"w": rng.normal(size=(4, 3, 3, 3)), "v": rng.uniform(0.3, 2, 4)}
    weights |= {name: rng.normal(size=4) for name in "sbm"}
    with pytest.raises(ir.UnsupportedModelError, match=r"bn \(BatchNormalization\): .*statistics of each batch"):
        snnc.load(onnx_model(nodes, 3, 8, 8, opset=opset, **weights))


def test_nodes_of_equal_names_are_compared():
    weight = np.random.default_rng(0).normal(size=(4, 4))
    nodes = [("MatMul", "x w", "a", "fc", {}), ("Relu", "a", "b", "relu", {})]
    nodes += [("MatMul", "b w", "c", "fc", {}), ("Relu", "c", "y", "relu", {})]
    assert len(snnc.load(onnx_model(nodes, 4, w=weight), verify=True).populations) == 3


def test_what_onnxruntime_cannot_run_is_compared_with_onnx_itself(tmp_path):
    module = nn.Sequential(nn.Conv1d(4, 6, 3, padding="same", dilation=3), nn.ReLU()).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, (torch.zeros(1, 4, 20),), tmp_path / "same.onnx", dynamo=False)
    model = onnx.load(tmp_path / "same.onnx")
    assert "auto_pad" in [attribute.name for attribute in model.graph.node[0].attribute]
    assert snnc.load(model, verify=True).outputs == ("1",)


def test_what_nothing_runs_could_not_be_compared(monkeypatch, tmp_path, snnc_command):
    from snnc.frontend import onnx_file

    path = tmp_path / "model.onnx"
    onnx.save(onnx_model([("Relu", "x", "y", "relu", {})], 4), path)

    class Broken:
        def __init__(self, model):
            raise RuntimeError("no kernel for Relu\n  with a trace")

    monkeypatch.setattr(onnx_file, "ReferenceEvaluator", Broken)
    monkeypatch.setattr(onnx_file, "_by_onnxruntime", Broken)
    with pytest.raises(ir.UncomparableError, match=r"could not be compared .*: no kernel for Relu$"):
        snnc.load(path, verify=True)
    with pytest.warns(ir.ModelWarning, match="could not be compared"):
        snnc.load(path, verify=None)
    code, out, _ = snnc_command("check", path)
    assert (code, "all 1 layers are read" in out) == (0, True)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision_is_compared_in_single(kind):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).eval().to(kind)
    snnc.load(module, inputs=torch.zeros(1, 3, 8, 8, dtype=kind), verify=True)
    assert {parameter.dtype for parameter in module.parameters()} == {kind}


def test_a_mistake_of_the_exporter_is_called_that(monkeypatch):
    """As it drops divisor_override: planted, for the exporter may have learned it."""
    from snnc.frontend import torch_module

    exported = torch_module._exported

    def planted(module, examples, title):
        program = exported(module, examples, title)
        (weight,) = [tensor for tensor in program.graph.initializer if tensor.name == "0.weight"]
        weight.CopyFrom(numpy_helper.from_array(1.1 * numpy_helper.to_array(weight), "0.weight"))
        return program

    monkeypatch.setattr(torch_module, "_exported", planted)
    with pytest.raises(ir.MismatchError, match="exporter's mistake") as error:
        snnc.load(nn.Sequential(nn.Linear(4, 3), nn.ReLU()), inputs=torch.zeros(1, 4), verify=True)
    assert_matches(r"at \(0, \d\) PyTorch computes .* where the network has", str(error.value))
    assert "mistake of snnc" not in str(error.value)
