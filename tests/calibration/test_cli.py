"""``parrot-calibrate`` as a person types it."""

import json
import shutil

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file, save_file

from parrot_calibration.cli import main
from parrot_runtime.errors import InputError
from parrot_runtime.languages import parse_languages


def run(*arguments, code: int = 0):
    result = CliRunner().invoke(main, [str(argument) for argument in arguments], prog_name="parrot-calibrate")
    assert result.exit_code == code, result.output
    return result


def test_a_calibration_shows_what_each_language_pays(checkpoint, tmp_path):
    small = ["--per-language", 1, "--block", 64, "--threads", 1, "-o", tmp_path / "scales"]
    text = run(checkpoint, *small).stdout
    assert "6 samples in 6 languages" in text
    for line in ("int8, mean squared error", "int4, mean squared error", "clipped by mse"):
        assert line in text
    assert all(f"{code} " in text for code in ("en", "zh", "pt", "ar", "tr", "ru"))
    assert "--force" in run(checkpoint, *small, code=2).stderr
    data = json.loads(run(checkpoint, *small, "--force", "--languages", "tr,en", "--int4", "rtn", "--json").stdout)
    assert data["samples"] == 2
    assert set(data["errors"]["clipped by mse, mean share of values"]["beyond the threshold"]) == {"en", "tr"}
    assert [path.name for path in tmp_path.iterdir()] == ["scales"]


def test_a_folder_that_is_no_checkpoint_ends_with_code_2(tmp_path):
    told = run(tmp_path / "none", "-o", tmp_path / "scales", code=2).stderr
    assert told.startswith("parrot-calibrate: ")
    assert "there is no such checkpoint folder" in told
    assert not list(tmp_path.iterdir())


def test_a_language_without_samples_and_nan_leave_nothing_behind(checkpoint, tmp_path):
    """Not even the hidden folder of a run that could go on: it would end in the same place."""
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A field."}]
    (tmp_path / "own.json").write_text(json.dumps([{"language": "en", "image": "a.png", "conversations": turns}]))
    broken = shutil.copytree(checkpoint, tmp_path / "broken")
    tensors = load_file(broken / "model.safetensors")
    tensors["model.language_model.layers.1.input_layernorm.weight"][3] = np.inf
    save_file(tensors, broken / "model.safetensors", {"format": "pt"})
    before = sorted(tmp_path.iterdir())
    small = ["--per-language", 1, "--block", 64, "--threads", 1, "-o", tmp_path / "scales"]
    for words, told in [
        ([checkpoint, "--data", tmp_path / "own.json"], "no sample in zh, pt, ar, tr, ru"),
        ([broken], "layers.1.input_layernorm.weight holds NaN or infinity"),
    ]:
        lines = run(*words, *small, code=2).stderr.strip().splitlines()
        assert told in lines[-1]
        assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("text", ["", "xx", "en,xx"])
def test_languages_that_are_none(text):
    with pytest.raises(InputError, match="--languages"):
        parse_languages(text)


def test_languages_come_in_the_projects_order():
    assert parse_languages("tr, EN") == ("en", "tr")
    assert len(parse_languages(None)) == 6
