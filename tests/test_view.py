"""The HTML page: self-contained, harmless whatever a model's names are, complete, and the same for the same network."""

import json
import re
from dataclasses import replace

import dyadic
import numpy as np
import pytest
from networks import residual, weights

from snnc import ir
from snnc.ir import Connection, DataError, IntegrateFire, Network, Origin, Population, VerificationError
from snnc.layout import BETWEEN, HEIGHT, WIDTH, layout
from snnc.view import describe, label, to_html, write_html

EVIL = '</script><img src=x onerror="alert(1)"><!--<script>"@network@"\u2028'


def embedded(page: str) -> dict:
    """The description in a page, as a browser would read it: up to the first end tag."""
    return json.loads(re.search(r'<script type="application/json" id="network">(.*?)</script>', page, re.DOTALL)[1])


def renamed(name: str) -> Network:
    """The residual network with a layer of that name."""
    network = residual()
    origin = Origin((name,), (name,))

    def other(old: str) -> str:
        return name if old == "stem" else old

    return Network(
        [replace(p, name=other(p.name), origin=origin) for p in network.populations.values()],
        [replace(c, source=other(c.source), target=other(c.target), origin=origin) for c in network.connections],
        network.inputs,
        network.outputs,
    )


def dense_block(depth: int) -> Network:
    """Every population feeds every later one."""
    names = [f"p{i:02d}" for i in range(depth)]
    return Network(
        [Population(name, (4,), ir.Relu() if i else ir.Input()) for i, name in enumerate(names)],
        [Connection(a, b) for i, a in enumerate(names) for b in names[i + 1 :]],
        names[:1],
        names[-1:],
    )


def test_the_page_is_self_contained():
    page = to_html(residual(), "net.snn")
    assert set(re.findall(r"https?://[^\s\"'<]+", page)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"<link|<iframe|<script[^>]* src|@import|url\((?!#)|fetch\(|XMLHttp|innerHTML", page)
    assert "default-src 'none'" in page


def test_everything_is_on_the_page():
    network = residual()
    content = embedded(to_html(network, "net.snn"))
    assert content["title"] == "net.snn"
    assert content["summary"] == ir.summary(network)
    assert [p["name"] for p in content["populations"]] == list(network.order)
    ends = [
        (content["populations"][c["source"]]["name"], content["populations"][c["target"]]["name"])
        for c in content["connections"]
    ]
    assert ends == [(c.source, c.target) for c in network.connections]
    used = {type(o).__name__ for c in network.connections for o in c.operators}
    assert used | {p["kind"] for p in content["populations"]} == set(content["docs"])


def test_names_cannot_become_markup():
    page = to_html(renamed(EVIL), EVIL)
    assert page.count("<img") == 0
    assert page.count("</script>") == to_html(residual(), "").count("</script>")
    content = embedded(page)
    assert content["title"] == EVIL
    assert EVIL in [p["name"] for p in content["populations"]]
    assert all(p["layers"] == [EVIL] for p in content["populations"])


def test_statistics_are_those_of_the_arrays():
    values = np.array([0, 0, 1, 2], np.float32)
    network = Network(
        [
            Population("x", (4,), ir.CurrentInput()),
            Population("fire", (4,), IntegrateFire(np.array([1.0, 2.0, 3.0, 8.0]), 0.5), values),
        ],
        [Connection("x", "fire", (ir.Dense(np.eye(4)),))],
        ["x"],
        ["fire"],
        timesteps=8,
    )
    content = embedded(to_html(network, "net"))
    fire = content["populations"][1]
    (said,) = fire["biases"]
    bias = {key: said[key] for key in ("min", "max", "mean", "median", "zeros", "count")}
    assert bias == {"min": 0, "max": 2, "mean": 0.75, "median": 0.5, "zeros": 0.5, "count": 4}
    assert sum(said["histogram"]) == 4
    assert fire["note"] == "λ ~2.5"
    threshold, initial = fire["fields"][:2]
    assert (threshold["name"], threshold["min"], threshold["max"]) == ("v_thresh", 1, 8)
    assert initial == {"name": "v_init", "text": "0.5"}
    (connection,) = content["connections"]
    assert (connection["text"], connection["parameters"]) == ("Dense", 16)
    assert connection["operators"][0]["fields"][0]["zeros"] == 0.75


def test_labels():
    def text(*operators: ir.Operator) -> str:
        return label(Connection("a", "b", operators))

    assert text() == "1:1"
    assert label(Connection("a", "b", delay=3)) == "1:1 · delay 3"
    assert label(Connection("a", "b", (ir.Flatten(),), 3, port=1)) == "Flatten · port 1 · delay 3"
    assert text(ir.Conv2D(weights(0, 3, 3, 2, 8), strides=(2, 2))) == "Conv2D 3×3 s2"
    assert text(ir.Conv2D(weights(0, 1, 7, 2, 8), strides=(1, 2), groups=2)) == "Conv2D 1×7 s1×2 g2"
    assert text(ir.Conv2D(weights(0, 3, 3, 1, 8), dilation=(2, 2), groups=8)) == "Conv2D 3×3 d2 depthwise"
    pooled = (ir.AveragePool2D((2, 2), (2, 2)), ir.Flatten(), ir.Dense(weights(0, 8, 2)))
    assert text(*pooled) == "AvgPool 2×2 → Flatten → Dense"


def test_ports_and_what_a_soma_computes():
    network = dyadic.gates()
    content = embedded(to_html(network, "gates"))
    populations = {p["name"]: p for p in content["populations"]}
    gated, squares = populations["gated"], populations["squares"]
    assert [bias["shape"] for bias in gated["biases"]] == [[4], [4, 4, 4]]
    assert [bias and bias["shape"] for bias in populations["flat"]["biases"]] == [None, [6]]
    assert len(squares["biases"]) == 1
    assert (gated["note"], squares["note"]) == ("Product in few spikes", "square in few spikes")
    assert {"name": "computes", "text": "Function(function=square)"} in squares["fields"]
    assert [c["port"] for c in content["connections"]] == [c.port for c in network.connections]
    assert [c["text"] for c in content["connections"] if c["port"]] == [
        "Conv2D 1×1 · port 1",
        "Pad · port 1 · delay 5",
        "Dense · port 1",
    ]


def test_both_ports_from_one_population():
    """A square: two edges between the same boxes, which are drawn apart."""
    populations = [Population("x", (4,), ir.Input()), Population("y", (4,), ir.Product())]
    network = Network(populations, [Connection("x", "y", port=port) for port in range(2)], ["x"], ["y"])
    plan = layout(network, [label(c) for c in network.connections])
    assert len(set(plan.paths)) == 2
    assert all(place.free for place in plan.labels)


@pytest.mark.parametrize("network", [residual(), dense_block(20), dyadic.gates()], ids=["residual", "dense", "gates"])
def test_no_edge_is_drawn_across_a_box(network):
    plan = layout(network, [label(c) for c in network.connections])
    boxes = list(plan.boxes.values())
    for i, (x, y) in enumerate(boxes):
        assert all(abs(x - a) > WIDTH or abs(y - b) > HEIGHT for a, b in boxes[:i])
    for path in plan.paths:
        for x, top, bottom in re.findall(r"([-\d.]+) ([-\d.]+)V([-\d.]+)", path):
            inside = [a for a, b in boxes if abs(float(x) - a) <= WIDTH / 2 and float(top) <= b <= float(bottom)]
            assert not inside
    assert plan.left < min(x for x, _ in boxes) < plan.right
    assert plan.bottom == max(network.depth.values()) * (HEIGHT + BETWEEN)


def test_free_labels_do_not_overlap():
    network = dense_block(20)
    texts = [label(c) for c in network.connections]
    free = [(p, 6 * len(text)) for p, text in zip(layout(network, texts).labels, texts, strict=True) if p.free]
    assert len(free) > 20
    for i, (a, wide) in enumerate(free):
        assert all(abs(a.x - b.x) > (wide + w) / 2 or abs(a.y - b.y) > 14 for b, w in free[:i])


def test_the_same_network_gives_the_same_page(tmp_path):
    write_html(residual(), tmp_path / "a.html", "net")
    write_html(residual(), tmp_path / "b.html", "net")
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.html", "b.html"]


def test_a_broken_network_is_refused_with_its_faults():
    broken = residual().replace(outputs=["nowhere"])
    with pytest.raises(VerificationError, match="'nowhere' is not a population"):
        to_html(broken, "net")


def test_a_page_that_cannot_be_written(tmp_path):
    with pytest.raises(DataError, match="cannot write the page"):
        write_html(residual(), tmp_path / "missing" / "page.html", "net")
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match="cannot write the page"):
        write_html(residual(), tmp_path / "folder", "net")


def test_the_description_holds_no_weights():
    network = residual()
    wide = replace(network.connections[-1], operators=(ir.Flatten(), ir.Dense(weights(0, 512, 8))))
    sizes = [len(json.dumps(describe(n, ""))) for n in (network, network.replace(connections=(wide,)))]
    assert max(sizes) < 20_000
