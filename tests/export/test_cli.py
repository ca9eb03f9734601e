"""``parrot-export`` as a person types it."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from tiny_checkpoint import tiny_model, write_checkpoint

from parrot_export.cli import main


def run(*arguments, code: int = 0):
    result = CliRunner().invoke(main, [str(argument) for argument in arguments], prog_name="parrot-export")
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def workshop(checkpoint, tmp_path, monkeypatch):
    """A folder with a finished stage 2, which is where one works."""
    run_folder = Path(shutil.copytree(checkpoint, tmp_path / "runs/nano/stage2"))
    note = {"status": "finished", "stage": 2, "config": "nano", "finished": "2"}
    (run_folder / "run.json").write_text(json.dumps(note))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_line_of_the_readme(workshop):
    result = run("--fp16")
    assert result.stdout.startswith("bundles/nano-fp16: nano, fp16, ")
    assert "verification: passed against torch" in result.stdout
    assert (workshop / "bundles/nano-fp16/parrot.json").is_file()
    # A second time it is in the way, and the line says what to do.
    assert "--force" in run("--fp16", code=2).stderr
    run("--fp16", "--force", "--no-verify")


def test_without_any_argument_it_is_fp16(workshop):
    assert json.loads(run("--json", "--no-verify").stdout)["bundle"] == "bundles/nano-fp16"
    assert json.loads(run("--json", "--no-verify", "--fp32").stdout)["bundle"] == "bundles/nano-fp32"


def test_the_command_may_be_named_and_verbose_may_come_first(checkpoint, tmp_path):
    run("export", checkpoint, "-o", tmp_path / "a", "--no-verify")
    run("-v", checkpoint, "-o", tmp_path / "b", "--no-verify")
    assert (tmp_path / "a/parrot.json").read_bytes() == (tmp_path / "b/parrot.json").read_bytes()


def test_inspect_shows_the_bundle(bundle):
    text = run("inspect", bundle).stdout
    assert "17 tokens; 5 experts (mlp)" in text
    assert "3 GroupQueryAttention" in text
    assert "past_key_values.0.key float32 ['batch', 2, 'max_len', 16] and 5 more of the cache" in text
    assert "verification: passed" in text
    found = json.loads(run("inspect", bundle, "--json").stdout)
    assert found["model"]["max_len"] == 1024
    assert set(found["graphs"]) == {"encoder", "experts", "decoder"}


def test_verify_runs_the_bundle_and_compares_it_when_told_with_what(bundle, checkpoint):
    assert "its graphs are sound" in run("verify", bundle).stdout
    result = json.loads(run("verify", bundle, "--checkpoint", checkpoint, "--json").stdout)
    assert result["verification"]["status"] == "passed"


def test_verify_finds_one_altered_bit(bundle, tmp_path):
    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    path = copy / "weights/decoder.safetensors"
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    assert "decoder.safetensors: the file was altered" in run("verify", copy, code=2).stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("nowhere",),
        ("inspect", "nowhere"),
        ("verify", "nowhere"),
        (".", "-o", "x"),
    ],
)
def test_bad_input_is_one_line_and_code_2(tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    result = run(*arguments, code=2)
    assert result.stderr.startswith("parrot-export: ")
    assert result.stderr.count("\n") == 1
    assert not result.stdout


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--max-drop", "inf"), "--max-drop is inf; expected a number"),
        (("--max-kl", "nan"), "--max-kl is nan; expected a number"),
        (("--max-batch", "0"), "--max-batch is 0; expected 1 or more"),
        (("-o", "file/below"), "file is a file"),
        (("--fp16", "--int8"), "--fp16 and --int8 are different precisions"),
    ],
)
def test_what_cannot_be_is_refused_before_the_work(checkpoint, tmp_path, monkeypatch, options, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    assert said in run(checkpoint, "--target", "cpu", *options, code=2).stderr
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_verify_says_what_it_is_not_for(bundle, checkpoint, tmp_path):
    assert "--vision-tower is of a checkpoint" in run("verify", bundle, "--vision-tower", tmp_path, code=2).stderr
    other = write_checkpoint(tmp_path / "other", tiny_model(num_experts=3))
    assert "of other shapes" in run("verify", bundle, "--checkpoint", other, code=2).stderr
    run(checkpoint, "-o", tmp_path / "short", "--max-len", 40, "--no-verify", "--target", "cpu")
    assert "larger --max-len" in run("verify", tmp_path / "short", code=2).stderr


def test_a_failed_verification_is_one_line_and_code_1(workshop, monkeypatch):
    from tiny_checkpoint import tiny_model

    from parrot_export.checkpoint import Checkpoint

    monkeypatch.setattr(Checkpoint, "load_model", lambda self: tiny_model(seed=1, num_experts=5))
    result = run("--fp32", code=1)
    assert result.stderr.startswith("parrot-export: verification against torch failed")
    assert result.stderr.count("\n") == 1
    assert not list((workshop / "bundles").iterdir())


def test_help_shows_the_options_of_export():
    text = run("--help").stdout
    for option in ("--fp16", "--max-len", "--no-verify", "--force", "--json", "inspect", "verify"):
        assert option in text
