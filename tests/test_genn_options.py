"""The options of the mlGeNN backend: matrix types, kept builds, workers, profiling; and what it says when it cannot."""

import errno
import gc
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import dyadic
import naive
import numpy as np
import pytest
from dyadic import dyadic as weights

import snnc
from snnc import ir
from snnc.backend.compiled import TOTALS, Wanted
from snnc.backend.mlgenn.connectivity import is_toeplitz
from snnc.ir import (
    AveragePool2D,
    BackendError,
    BackendWarning,
    Connection,
    Conv2D,
    CurrentInput,
    Dense,
    Flatten,
    Integrate,
    IntegrateFire,
    PoissonInput,
    Population,
)

needs_genn = pytest.mark.skipif(not (find_spec("pygenn") and find_spec("ml_genn")), reason="pygenn is not installed")


def small(*, bias: float = 0.25, seed: int = 1, threshold: float | np.ndarray = 0.5, hidden: int = 6) -> ir.Network:
    """Two layers: scalars and arrays to change, quick to build."""
    return dyadic.spiking(
        [
            Population("x", (4,), CurrentInput()),
            Population("h", (hidden,), IntegrateFire(threshold, 0.25), np.full(hidden, bias, np.float32)),
            Population("y", (3,), Integrate()),
        ],
        [
            Connection("x", "h", (Dense(weights(seed, 4, hidden)),)),
            Connection("h", "y", (Dense(weights(seed + 1, hidden, 3)),)),
        ],
        ["x"],
        ["y"],
        timesteps=6,
    )


def every_edge() -> ir.Network:
    """One output for each kind of edge, all from one population of spikes."""
    pool = AveragePool2D((2, 2), (2, 2))
    edges = {
        "plain": (Conv2D(weights(1, 3, 3, 4, 2)),),
        "asymmetric": (Conv2D(weights(2, 3, 2, 4, 2), padding=((2, 0), (0, 1))),),
        "strided": (Conv2D(weights(3, 3, 3, 4, 2), (2, 2), ((0, 1), (0, 1))),),
        "dilated": (Conv2D(weights(4, 2, 2, 4, 2), dilation=(2, 3), padding=((1, 1), (0, 2))),),
        "grouped": (Conv2D(weights(5, 3, 3, 2, 6), groups=2, padding=dyadic.SAME_3X3),),
        "depthwise": (Conv2D(weights(6, 3, 3, 1, 8), (1, 2), groups=4),),
        "overlapping": (AveragePool2D((2, 2), (1, 1), ((0, 0), (0, 0))),),
        "padded_pool": (AveragePool2D((2, 2), (2, 2), ((1, 1), (1, 1))),),
        "pool_conv": (pool, Conv2D(weights(7, 3, 3, 4, 2), padding=dyadic.SAME_3X3)),
        "pool_dense": (pool, Flatten(), Dense(weights(8, 36, 3))),
        "transposed": (ir.ConvTranspose2D(weights(11, 3, 2, 2, 6), (2, 3), ((1, 0), (0, 2)), (1, 2), groups=2),),
        "turned": (ir.Resample(1, np.array([[5, 4, 3, 3, 0]]), np.ones((1, 5))),),
        "mixed": (ir.Resample(0, np.array([[0, 1, 4], [1, 1, 5]]), np.array([[0.25, 1, 0.5], [0.75, 0.5, 0]])),),
        "picked": (ir.Pick(np.array([5, 0, 143, 5, 17])),),
        "same": (),
    }
    source = Population("s", (6, 6, 4), IntegrateFire(0.5, 0.25))
    outputs = [Population(name, ir.output_shape(edge, (6, 6, 4)), Integrate()) for name, edge in edges.items()]
    return dyadic.spiking(
        [Population("x", (6, 6, 4), CurrentInput()), source, *outputs],
        [Connection("x", "s"), *(Connection("s", name, edge) for name, edge in edges.items())],
        ["x"],
        list(edges),
        timesteps=8,
    )


def into_second_ports() -> ir.Network:
    """The same edges, and one that GeNN can keep as a kernel, into the second ports of products."""
    edges = {edge.target: edge.operators for edge in every_edge().connections if edge.source == "s"}
    edges["same_conv"] = (Conv2D(weights(9, 3, 3, 4, 4), padding=dyadic.SAME_3X3),)
    image, count = (6, 6, 4), 144
    populations = [
        Population("x", image, ir.GradedInput()),
        Population("s", image, ir.FewSpikeFunction(3, 1.0, 1 / 16, ir.Function("identity"))),
    ]
    connections = [Connection("x", "s")]
    for name, edge in edges.items():
        shape = ir.output_shape(edge, image)
        product = ir.FewSpikeFunction(4, 4.0, 1 / 8, ir.Product())
        populations.append(Population(name, shape, product, second_bias=weights(10, shape[-1])))
        places = ir.Pick(np.arange(np.prod(shape)).reshape(shape) * 5 % count)
        connections += [Connection("x", name, (places,)), Connection("s", name, edge, port=1)]
    return dyadic.spiking(populations, connections, ["x"], list(edges), timesteps=4)


def assert_same(found, expected) -> None:
    for kind in ("trains", "spike_counts", "potentials", "decoded"):
        for name, values in getattr(expected, kind).items():
            ours = getattr(found, kind)[name]
            np.testing.assert_array_equal(ours.astype(np.float32), values.astype(np.float32), f"{kind} of {name!r}")


def run(network, **options):
    """What GeNN does on a few images, and that it is right."""
    images = dyadic.images(network)
    compiled = snnc.compile(network, "mlgenn", **options)
    assert_same(compiled.simulate(images, record=True), naive.simulate(network, images))
    return compiled


# options


def test_unknown_options_are_refused_with_those_that_there_are():
    with pytest.raises(
        BackendError, match=r"'mlgenn' has no option 'worker'; its options are .*workers.*folder|folder"
    ):
        snnc.compile(small(), "mlgenn", worker=2)
    with pytest.raises(BackendError, match="'onnxruntime' has no option 'workers'; its options are memory, threads"):
        snnc.compile(small(), workers=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 0}, "workers is a number of processes from 1 on, not 0"),
        ({"matrix_type": "sparse"}, "matrix_type is one of .*'SPARSE'.* not 'sparse'"),
        ({"matrix_type": {"x -> h": "sparse"}}, "matrix_type is one of"),
        ({"device": "tpu"}, "device is one of None, 'gpu', 'cpu', not 'tpu'"),
        ({"batch_size": 0}, "batch_size is a number of images from 1 on, not 0"),
        ({"workers": 2, "kernel_profiling": True}, "kernel_profiling cannot be had together with workers"),
    ],
)
def test_options_that_mean_nothing_are_refused(options, message):
    with pytest.raises(BackendError, match=message):
        snnc.compile(small(), "mlgenn", **options)


# matrix types


@needs_genn
@pytest.mark.parametrize("matrix_type", [None, "SPARSE", "DENSE"])
def test_every_edge_is_right_in_every_matrix_type(matrix_type):
    compiled = run(every_edge(), matrix_type=matrix_type)
    expected = {matrix_type} if matrix_type else {"SPARSE", "DENSE"}
    assert {edge.matrix_type for edge in compiled.edges} == expected


@needs_genn
@pytest.mark.parametrize("matrix_type", [None, "TOEPLITZ", "SPARSE", "DENSE"])
def test_every_matrix_type_leads_into_second_ports(matrix_type):
    network = into_second_ports()
    edges = [edge for edge in network.connections if edge.port]
    if matrix_type == "TOEPLITZ":
        edges = [edge for edge in edges if is_toeplitz(edge.operators)]
        assert len(edges) > 1
    forced = {str(edge): matrix_type for edge in edges} if matrix_type else {}
    compiled = run(network, matrix_type=forced)
    found = {str(edge.connection): edge.matrix_type for edge in compiled.edges}
    assert forced.items() <= found.items()


@needs_genn
def test_the_snippet_of_procedural_convolutions_makes_the_right_synapses():
    """The CPU has no PROCEDURAL; what it would make of each spike is what the same snippet makes of a sparse matrix."""
    from ml_genn.utils.connectivity import KernelInit
    from pygenn import SynapseMatrixType

    from snnc.backend.mlgenn import snippets

    class Made(snippets.Convolution):
        def get_snippet(self, connection, supported_matrix_type):
            made = super().get_snippet(connection, supported_matrix_type)
            assert made.matrix_type == SynapseMatrixType.PROCEDURAL_KERNELG
            return made._replace(matrix_type=SynapseMatrixType.SPARSE, weight=KernelInit(made.weight))

    conv = Conv2D(weights(3, 3, 2, 2, 4), (2, 3), ((0, 1), (1, 0)))
    network = dyadic.spiking(
        [Population("x", (6, 7, 2), CurrentInput()), Population("y", conv.output_shape((6, 7, 2)), Integrate())],
        [Connection("x", "y", (conv,))],
        ["x"],
        ["y"],
        timesteps=3,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("snnc.backend.mlgenn.emit.connectivity_of", lambda edge: Made(edge.operators[0]))
        run(network)


def test_the_plan_is_printed_without_building(tmp_path, snnc_command):
    net = tmp_path / "net.snn"
    snnc.save(every_edge(), net)
    code, out, _ = snnc_command("show", net, "--backend", "mlgenn")
    assert code == 0
    lines = {line.rsplit("  ", 4)[0].split("  ")[0].strip(): line for line in out.splitlines()}
    assert lines["s -> plain"].split()[3:] == ["DENSE", f"{144 * 32:,}", "synapses", "18.0", "KiB"]
    assert lines["s -> pool_dense"].split()[3:6] == ["DENSE", f"{144 * 3}", "synapses"]
    assert out.splitlines()[-1].startswith("in all")
    assert len(out.splitlines()) == len(every_edge().connections) + 1
    snnc.save(dyadic.spiking(*_wide()), net)
    for device, stored in (
        ("cpu", ["SPARSE", f"{26 * 26 * 9 * 4 * 8:,}"]),
        ("gpu", ["TOEPLITZ", f"{26 * 26 * 9 * 4 * 8:,}"]),
    ):
        code, out, _ = snnc_command("show", net, "--backend", "mlgenn", "--device", device)
        assert code == 0
        assert out.splitlines()[0].split()[3:5] == stored


def _wide():
    """A plain convolution that a GPU would keep as a kernel."""
    conv = Conv2D(weights(1, 3, 3, 4, 8))
    ends = [Population("x", (28, 28, 4), ir.SpikeInput()), Population("y", (26, 26, 8), Integrate())]
    return ends, [Connection("x", "y", (conv,))], ["x"], ["y"], 4


def test_the_plan_needs_no_genn():
    code = (
        "import sys; sys.modules |= dict.fromkeys(['pygenn', 'ml_genn', 'scipy']); import snnc.backend.mlgenn;"
        "import test_genn_options; print(*snnc.backend.mlgenn.plan(test_genn_options.every_edge()), sep='\\n')"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)
    assert "s -> grouped: 3,072 synapses, SPARSE" in done.stdout


# errors


@needs_genn
def test_a_missing_compiler_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BackendError, match=r"could not build the network: make was not found; .*apt-get install"):
        snnc.compile(small(), "mlgenn")
    (tmp_path / "make").symlink_to(shutil.which("make", path=os.defpath))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(BackendError, match=r"the C\+\+ compiler g\+\+ was not found"):
        snnc.compile(small(), "mlgenn")
    gc.collect()
    assert [path.name for path in tmp_path.iterdir()] == ["make"]


@needs_genn
def test_a_network_too_large_is_refused_before_anything_is_made():
    huge = (512, 512, 64)
    conv = Conv2D(weights(1, 7, 7, 64, 64), (2, 2), ((2, 3), (2, 3)))
    network = dyadic.spiking(
        [
            Population("x", huge, CurrentInput()),
            Population("h", conv.output_shape(huge), IntegrateFire(1.0)),
            Population("y", conv.output_shape(huge), Integrate()),
        ],
        [Connection("x", "h", (conv,)), Connection("h", "y")],
        ["x"],
        ["y"],
        timesteps=4,
    )
    with pytest.raises(BackendError, match=r"need .* GiB of memory, and .* GiB are free.*\n  - x -> h: 13,.* SPARSE"):
        snnc.compile(network, "mlgenn")


@needs_genn
def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(BackendError, match=r"code cannot be written: .*file.*\. Choose another folder"):
        snnc.compile(small(), "mlgenn", folder=tmp_path / "file" / "folder")


@needs_genn
def test_a_gpu_or_several_are_refused_where_there_is_none():
    from pygenn.genn_model import backend_modules

    if set(backend_modules) != {"single_threaded_cpu"}:
        pytest.skip("this pygenn has found a GPU")
    with pytest.raises(BackendError, match=r"built without support for a GPU: install the CUDA|cannot be loaded \(lib"):
        snnc.compile(small(), "mlgenn", device="gpu")
    with pytest.raises(BackendError, match="a communicator joins several GPUs"):
        snnc.compile(small(), "mlgenn", communicator=object())
    with pytest.raises(BackendError, match="on a CPU GeNN simulates one image at a time"):
        snnc.compile(small(), "mlgenn", batch_size=32)


@needs_genn
def test_a_model_that_does_not_load_leaves_nothing_loaded(monkeypatch):
    compiled = run(small())
    genn_model = compiled.mlgenn_compiled.genn_model

    def fail() -> None:
        raise MemoryError("std::bad_alloc")

    with monkeypatch.context() as patch:
        patch.setattr(genn_model.neuron_populations["p1_h"], "_load", fail)
        with pytest.raises(BackendError, match="could not load the network: too little memory is free"):
            compiled.simulate(dyadic.images(small()))
    assert genn_model._runtime is None
    running = compiled._run(dyadic.images(small()), TOTALS)
    next(running)
    with pytest.raises(BackendError, match="is being run already"):
        compiled.simulate(dyadic.images(small()))
    assert len(list(running)) == 4


# kept builds


def builds(folder: Path) -> dict[str, int]:
    """The libraries in a folder of kept builds, and when each was made."""
    return {file.parent.name: file.stat().st_mtime_ns for file in folder.glob("*/librunner.so")}


@needs_genn
def test_a_kept_build_is_used_again_and_never_wrongly(tmp_path):
    folder = tmp_path / "new" / "kept"
    per_channel = np.linspace(0.25, 1.5, 6).astype(np.float32)
    run(small(threshold=per_channel), folder=folder)
    first = builds(folder)
    assert len(first) == 1
    # arrays are loaded with the model
    run(small(threshold=per_channel), folder=folder)
    run(small(threshold=per_channel[::-1].copy()), folder=folder)
    run(small(threshold=per_channel, bias=-0.125, seed=7), folder=folder)
    assert builds(folder) == first
    # numbers stand in the code
    run(small(threshold=0.5), folder=folder)
    run(small(threshold=0.75), folder=folder)
    run(small(threshold=0.5).replace(timesteps=9), folder=folder)
    run(small(threshold=per_channel, hidden=6), folder=folder)
    assert len(builds(folder)) == 4
    assert first.items() <= builds(folder).items()
    assert {path.name[:5] for path in folder.iterdir()} == {"snnc-"}


def gated(second: str) -> ir.Network:
    """A product of two inputs, the one called `second` at its second port, which has a bias."""
    ports = {name: int(name == second) for name in ("a", "b")}
    return dyadic.spiking(
        [
            *(Population(name, (4,), ir.GradedInput()) for name in ports),
            Population("y", (4,), ir.FewSpikeFunction(4, 1.0, 0.0, ir.Product()), second_bias=weights(1, 4)),
        ],
        [Connection(name, "y", port=port) for name, port in ports.items()],
        list(ports),
        ["y"],
        timesteps=4,
    )


@needs_genn
def test_builds_of_networks_that_differ_in_ports_are_kept_apart(tmp_path):
    for second in ("b", "a"):
        run(gated(second), folder=tmp_path)
    both = builds(tmp_path)
    assert len(both) == 2
    run(gated("b"), folder=tmp_path)
    assert builds(tmp_path) == both


@needs_genn
def test_a_key_that_says_too_little_costs_time_but_is_never_wrong(tmp_path, monkeypatch):
    monkeypatch.setattr("snnc.backend.mlgenn.compiled.fingerprint", lambda *_: "same")
    for threshold in (0.5, 0.75, 0.75):
        run(small(threshold=threshold), folder=tmp_path)
    assert set(builds(tmp_path)) == {"snnc-same"}


@needs_genn
@pytest.mark.parametrize("function", ["copytree", "copyfile"])
def test_a_folder_that_runs_full_after_a_build_keeps_nothing_of_it(tmp_path, monkeypatch, function):
    """Simulated: shutil's functions that copy find no space left, one at once, the other for each file."""

    def full(source, target, *_, **__):
        if function == "copytree":
            Path(target).mkdir()
            Path(target, "half").touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))

    with monkeypatch.context() as patch:
        patch.setattr(shutil, function, full)
        with pytest.warns(
            BackendWarning, match=rf"{tmp_path} could not keep the build: .*No space left on device"
        ) as all_:
            run(small(), folder=tmp_path)
    assert "[(" not in str(all_[0].message)
    assert not list(tmp_path.iterdir())
    run(small(), folder=tmp_path)
    assert len(builds(tmp_path)) == 1


@needs_genn
def test_networks_that_share_a_build_run_in_turns(tmp_path):
    networks = [small(seed=seed) for seed in (1, 7)]
    images = dyadic.images(networks[0])
    running = [
        snnc.compile(network, "mlgenn", folder=tmp_path)._run(images, Wanted(frozenset("h"))) for network in networks
    ]
    parts = list(zip(*running, strict=True))
    assert len(builds(tmp_path)) == 1
    for network, found in zip(networks, zip(*parts, strict=True), strict=True):
        counts = np.concatenate([part.spike_counts["h"] for part in found])
        np.testing.assert_array_equal(counts, naive.simulate(network, images).spike_counts["h"])


# workers


@needs_genn
@pytest.mark.parametrize("build", [small, dyadic.NETWORKS["few_spike_3"]])
def test_workers_give_the_same_results_in_the_same_order(build):
    network = build()
    images = dyadic.images(network, 37)
    expected = naive.simulate(network, images)
    compiled = snnc.compile(network, "mlgenn", workers=2)
    assert_same(compiled.simulate(images, record=True), expected)
    backwards = {name: x[::-1] for name, x in images.items()}
    assert_same(compiled.simulate(backwards, record=True), naive.simulate(network, backwards))
    processes = [worker.process for worker in compiled._pool._workers]
    assert len(processes) == 2
    del compiled
    gc.collect()
    assert all(process.poll() is not None for process in processes)


@needs_genn
def test_a_worker_that_dies_is_an_error_and_the_next_run_starts_others():
    network = small()
    images = dyadic.images(network, 40)
    compiled = snnc.compile(network, "mlgenn", workers=2)
    run = compiled._run(images, TOTALS)
    next(run)
    for worker in compiled._pool._workers:
        worker.process.kill()
    with pytest.raises(BackendError, match="a worker ended by signal 9, perhaps for want of memory"):
        list(run)
    assert not compiled._pool._workers
    assert len(list(compiled._run(images, TOTALS))) == 40


@needs_genn
def test_a_run_that_is_given_up_ends_its_workers_and_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    compiled = snnc.compile(small(), "mlgenn", workers=2)
    run = compiled._run(dyadic.images(small(), 40), TOTALS)
    next(run)
    processes = [worker.process for worker in compiled._pool._workers]
    run.close()
    assert all(process.poll() is not None for process in processes)
    del run, compiled
    gc.collect()
    assert not list(tmp_path.iterdir())


@needs_genn
@pytest.mark.parametrize(
    ("moment", "twice"),
    [("compiling", False), ("workers are building", True), ("running", False), ("running", True)],
    ids=["compiling", "workers-build-twice", "running", "running-twice"],
)
def test_ctrl_c_ends_the_workers_and_leaves_no_files(tmp_path, moment, twice):
    """As a terminal does it: the whole group is interrupted. Impatient users do so twice, and so does `timeout`."""
    code = (
        "import signal, snnc, dyadic, test_genn_options as t\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell ignores it for its background jobs
        "print('compiling', flush=True)\n"
        "compiled = snnc.compile(t.small(), 'mlgenn', device='cpu', workers=2)\n"
        "run = compiled._run(dyadic.images(t.small(), 100_000), t.TOTALS)\n"
        "print('workers are building', flush=True)\n"
        "next(run)\n"
        "print('running', flush=True)\n"
        "list(run)\n"
    )
    started = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent), "TMPDIR": str(tmp_path)},
        start_new_session=True,
    )
    while started.stdout.readline() != f"{moment}\n":
        assert started.poll() is None
    wait_for(lambda: list(tmp_path.glob("snnc-genn-*/" if moment == "compiling" else "snnc-genn-*/snnc-genn-*/")))
    processes = children(started.pid)
    for _ in range(1 + twice):
        os.killpg(started.pid, signal.SIGINT)
        time.sleep(0.01)
    assert "KeyboardInterrupt" in started.communicate(timeout=60)[1]
    wait_for(lambda: not any(process.is_running() for process in processes))
    assert not list(tmp_path.glob("snnc-genn-*"))


def children(pid: int) -> list[Any]:
    import psutil  # which pygenn requires

    return psutil.Process(pid).children(recursive=True)


def wait_for(condition: Callable[[], Any], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@needs_genn
def test_a_folder_is_removed_although_ctrl_c_comes_and_something_is_still_written(tmp_path, monkeypatch):
    from snnc.backend.mlgenn.build import remove

    folder = tmp_path / "snnc-genn-1"
    folder.mkdir()
    rmdir, late = os.rmdir, iter([KeyboardInterrupt, None])

    def interrupted(path, **options):
        what = next(late, "nothing more")
        if what is KeyboardInterrupt:
            raise KeyboardInterrupt
        if what is None:
            (folder / "late.o").touch()
        rmdir(path, **options)

    monkeypatch.setattr(os, "rmdir", interrupted)
    with pytest.raises(KeyboardInterrupt):
        remove(folder)
    assert not folder.exists()


@needs_genn
def test_workers_do_not_draw_poisson_spikes():
    network = small()
    poisson = replace(network.populations["x"], neuron=PoissonInput(1.0))
    network = network.replace(populations={**network.populations, "x": poisson})
    with pytest.raises(BackendError, match=r"Poisson inputs .* compile with workers=1"):
        snnc.compile(network, "mlgenn", workers=2)


# threads


@needs_genn
@pytest.mark.parametrize("workers", [1, 2])
def test_threads_that_share_a_network_get_its_results_or_the_same_error(workers):
    images = dyadic.images(small(), 12)
    compiled = snnc.compile(small(), "mlgenn", device="cpu", workers=workers)
    expected = snnc.compile(small(), "mlgenn", device="cpu").predict(images)
    outcomes = []

    def ask():  # nothing was run before: threads may all want to start the workers
        for _ in range(50):
            try:
                outcomes.append(np.array_equal(compiled.predict(images), expected))
            except BackendError as error:
                outcomes.append(str(error))

    threads = [threading.Thread(target=ask, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert len(outcomes) == 200
    assert set(outcomes) <= {
        True,
        "the network is being run already: finish that run, or compile the network once more",
    }
    assert True in outcomes
    np.testing.assert_array_equal(compiled.predict(images), expected)


# profiling


@needs_genn
def test_kernels_are_timed():
    compiled = run(small(), kernel_profiling=True)
    assert compiled.kernel_times["neuron_update"] > 0
    assert compiled.kernel_times["presynaptic_update"] > 0
    assert run(small()).kernel_times == {}
