"""`snnc check`: every layer in the way, grouped, with advice; what a conversion will need; how much is covered."""

import json

import keras
import pytest
from frontend_models import randomise
from keras import layers as kl

from snnc import ir, report


def bad() -> keras.Model:
    x = keras.Input((16, 16, 3), name="image")
    y = kl.Conv2D(8, 3, activation="sparse_plus", name="swishy")(x)
    y = kl.Activation("sparse_plus", name="act")(kl.Conv2D(8, 3, name="conv")(y))
    y = kl.ReLU(threshold=0.5, name="late")(kl.AutoContrast(name="stretched")(y))
    y = kl.Activation("sparsemax", name="curve")(kl.MaxPooling2D(name="pool")(y))
    return keras.Model(x, kl.Dense(3, activation="softmax", name="top")(kl.Flatten(name="flat")(y)), name="bad")


def good() -> keras.Model:
    x = keras.Input((8, 8, 3), name="image")
    y = kl.LeakyReLU(name="leaky")(kl.Conv2D(4, 3, name="conv")(x))
    y = kl.MaxPooling2D(name="pool")(kl.ReLU(6.0, name="six")(y))
    y = kl.Dense(3, activation="softmax", name="top")(kl.Flatten(name="flat")(y))
    return randomise(keras.Model(x, y, name="good"))


def test_refusals_are_grouped_by_what_there_is_to_say():
    found = report.check(bad())
    assert [(finding.kind, finding.layers) for finding in found.refused] == [
        ("Conv2D 'sparse_plus', Activation 'sparse_plus'", ("swishy", "act")),
        ("AutoContrast", ("stretched",)),
        ("ReLU", ("late",)),
        ("Activation 'sparsemax'", ("curve",)),
    ]
    assert found.refused[0].advice == "use ReLU there and fine-tune"
    assert all(finding.why and finding.advice for finding in found.refused)
    assert found.coverage == "4 of 9 layers can be read; refused: 5"


def test_what_could_not_be_looked_at_is_said():
    x = keras.Input((4, 4, 2), name="image")
    y = kl.Lambda(lambda t: keras.ops.expand_dims(t, 1), name="deep")(x)
    found = report.check(keras.Model(x, kl.Dense(2, name="top")(kl.Flatten(name="flat")(y))))
    assert found.unread == ("flat", "top")
    assert found.coverage == "0 of 3 layers can be read; refused: 1; behind those, and not looked at: 2"


def test_notes_say_what_the_conversion_needs():
    found = report.check(good())
    notes = {note.kind: (note.layers, note.advice) for note in found.notes}
    assert {kind: layers for kind, (layers, _) in notes.items()} == {
        "max pooling": ("pool",),
        "LeakyReLU": ("leaky",),
        "clipped ReLU": ("six",),
        "softmax": ("top",),
    }
    assert "lower-max-pool" in notes["max pooling"][1]
    assert "lower-leaky-relu" in notes["LeakyReLU"][1]
    assert found.layers == ("conv", "leaky", "six", "pool", "flat", "top")
    assert found.error is not None
    assert found.error < 1e-6
    assert found.coverage.startswith("all 6 layers are read; compared with the model: largest relative error ")
    assert report.check(good(), verify=False).coverage == "all 6 layers are read"


def gated() -> keras.Model:
    x = keras.Input((8, 8, 3), name="image")
    y = kl.Activation("silu", name="act")(kl.Conv2D(4, 3, name="conv")(x))
    gate = kl.Dense(4, activation="sigmoid", name="gate")(kl.GlobalAveragePooling2D(name="pool")(y))
    y = kl.Multiply(name="times")([y, kl.Reshape((1, 1, 4), name="fold")(gate)])
    y = kl.Dense(3, name="top")(kl.Flatten(name="flat")(kl.Softmax(name="soft")(y)))
    return randomise(keras.Model(x, y, name="gated"))


def test_functions_are_noted_by_layer_and_name():
    found = report.check(gated())
    (note,) = found.notes
    assert dict(zip(note.layers, note.functions, strict=True)) == {
        "act": "silu",
        "gate": "sigmoid",
        "times": "product",
        "soft": "identity, exp, product with reciprocal",
    }
    assert "lower-functions" in note.advice
    assert "\n  - gate: sigmoid\n  - times: product\n" in report.to_text(found)
    (record,) = report.to_json(found)["notes"]
    assert (record["layers"][1], record["functions"][1]) == ("gate", "sigmoid")
    assert not any("functions" in record for record in report.to_json(report.check(good()))["notes"])


def test_the_command(tmp_path, snnc_command):
    bad().save(tmp_path / "bad.keras")
    good().save(tmp_path / "good.keras")
    code, out, err = snnc_command("check", tmp_path / "bad.keras")
    assert (code, err) == (1, "")
    assert "use ReLU there and fine-tune\n  - swishy\n  - act\n" in out
    assert out.endswith("4 of 9 layers can be read; refused: 5\n")
    code, out, err = snnc_command("check", tmp_path / "good.keras", "--no-verify")
    assert (code, err) == (0, "")
    assert "run `lower-max-pool`" in out
    code, out, _ = snnc_command("check", tmp_path / "bad.keras", "--json")
    found = json.loads(out)
    assert code == 1
    assert (found["layers"], found["read"], found["unread"]) == (9, 4, [])
    assert found["refused"][0]["layers"] == ["swishy", "act"]
    code, out, _ = snnc_command("check", tmp_path / "good.keras", "--json")
    assert code == 0
    assert json.loads(out)["error"] < 1e-6


def test_the_command_on_what_is_no_model(tmp_path, snnc_command):
    (tmp_path / "model.keras").write_bytes(b"no model")
    code, out, err = snnc_command("check", tmp_path / "model.keras")
    assert (code, out) == (1, "")
    assert "not a .keras file" in err


def test_commands_compare_by_default(tmp_path, snnc_command, monkeypatch):
    from snnc.frontend import operators

    monkeypatch.setitem(operators._HANDLERS, "Relu", lambda call: call.value())
    x = keras.Input((4,), name="x")
    randomise(keras.Model(x, kl.Dense(3, activation="relu", name="hidden")(x))).save(tmp_path / "model.keras")
    for command in (("check",), ("convert", "-o", tmp_path / "net.snn")):
        code, _, err = snnc_command(*command, tmp_path / "model.keras")
        assert code == 1
        assert "the first layer that differs is hidden" in err
    assert not (tmp_path / "net.snn").exists()
    assert snnc_command("check", tmp_path / "model.keras", "--no-verify")[0] == 0


def test_refusals_are_lines_with_parts():
    line = ir.Refusal("a (b): c", "Kind", "why; what")
    assert line == "a (b): c (Kind): why; what"
    assert (line.layer, line.kind, line.reason) == ("a (b): c", "Kind", "why; what")


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.filterwarnings("ignore")
def test_files_that_would_run_code_are_not_looked_into(tmp_path, suffix):
    x = keras.Input((4,), name="x")
    path = tmp_path / f"code{suffix}"
    keras.Model(x, kl.Lambda(lambda t: t * 2, name="twice")(x)).save(path)
    found = report.check(path)
    assert [finding.layers for finding in found.refused] == [("twice",)]
    assert found.coverage == "refused: 1; the other layers were not looked at"
