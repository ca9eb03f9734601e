"""What DeepSpeed is told, and the settings that are refused."""

import importlib.util
import json

import pytest

from parrot_runtime.errors import InputError
from parrot_train.config import TrainConfig
from parrot_train.config_files import load_config
from parrot_train.sharding import deepspeed_settings, describe


def settings(*overrides):
    return deepspeed_settings(load_config("nano", overrides).stage2, "stage2")


@pytest.fixture(autouse=True)
def installed(monkeypatch):
    """As if DeepSpeed were there: it is looked for, not imported."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())


def test_the_defaults_are_table_13():
    config = TrainConfig()
    first, second = (deepspeed_settings(config.stage(stage), f"stage{stage}") for stage in (1, 2))
    assert first["zero_optimization"]["stage"] == 2
    assert second["zero_optimization"]["stage"] == 3
    assert first["bf16"] == second["bf16"] == {"enabled": True}
    assert first["gradient_clipping"] == "auto"  # the Trainer fills it in
    assert not first.keys() & {"optimizer", "scheduler"}  # ours: with a learning rate per part


def test_zero_0_needs_no_deepspeed(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert settings("stage2.zero=0") is None
    with pytest.raises(InputError, match=r"pip install 'parrot-edge\[deepspeed\]', or --set stage2.zero=0"):
        settings()


@pytest.mark.parametrize("plugin", ["DEEPSPEED", "FSDP"])
def test_accelerate_shares_nothing_out(monkeypatch, plugin):
    monkeypatch.setenv(f"ACCELERATE_USE_{plugin}", "true")
    with pytest.raises(InputError, match=f"accelerate is configured for {plugin}, and here stage2.zero"):
        settings("stage2.zero=0")


@pytest.mark.parametrize(
    ("offload", "zero", "parts"),
    [("none", 3, set()), ("optimizer", 2, {"optimizer"}), ("all", 3, {"optimizer", "param"})],
)
def test_what_is_offloaded(offload, zero, parts):
    asked = settings(f"stage2.offload={offload}", f"stage2.zero={zero}")["zero_optimization"]
    assert {name for name in asked if name.startswith("offload")} == {f"offload_{part}" for part in parts}
    assert all(asked[f"offload_{part}"]["device"] == "cpu" for part in parts)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["zero=4"], "4 is none of 0, 1, 2, 3"),
        (["zero=2", "offload=all"], r"zero is 2; expected one of \(3,\) with offload all"),
        (["zero=0", "offload=optimizer"], "zero is 0; expected one of"),
        (["zero=0", "deepspeed=a.json"], "deepspeed is 'a.json'; expected null"),
        (["offload=optimizer", "deepspeed=a.json"], "deepspeed is 'a.json'; expected null"),
    ],
)
def test_settings_that_contradict_each_other(overrides, words):
    with pytest.raises(InputError, match=words):
        settings(*(f"stage2.{override}" for override in overrides))


def test_a_file_of_ones_own(tmp_path):
    path = tmp_path / "own.json"
    path.write_text(json.dumps({"zero_optimization": {"stage": 1}, "train_batch_size": "auto", "wall_clock": True}))
    config = load_config("nano", [f"stage2.deepspeed={path}", "stage2.precision=bf16"]).stage2
    asked = deepspeed_settings(config, "stage2")
    assert (asked["zero_optimization"]["stage"], asked["wall_clock"], asked["bf16"]) == (1, True, {"enabled": True})
    before = describe(config, 2)
    path.write_text("{}")
    assert describe(config, 2) != before  # a resumed run refuses another file


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "cannot be read"),
        ("[]", "holds a list"),
        ('{"optimizer": {}}', "has 'optimizer', which is for stage2's own settings"),
        ('{"fp16": {"enabled": true}}', "has 'fp16'"),
        ('{"train_batch_size": 3}', "sets train_batch_size to 3, which follows"),
        ('{"bf16": true}', "bf16 is True; expected an object"),
        ('{"bf16": {"enabled": true}}', "bf16 is True, and stage2.precision is fp32"),
    ],
)
def test_a_file_that_is_refused(tmp_path, text, words):
    path = tmp_path / "own.json"
    path.write_text(text)
    with pytest.raises(InputError, match=words):
        settings(f"stage2.deepspeed={path}")
    with pytest.raises(InputError, match="cannot be read"):
        settings(f"stage2.deepspeed={tmp_path / 'none.json'}")
