"""The benchmarks measure what they say and show it; the figures themselves are nobody's promise."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from parrot_benchmarks import cli
from parrot_benchmarks.workload import Cost
from parrot_runtime.rates import kept_limits

FOLDER = Path(__file__).parents[1] / "benchmarks"
SHIPPED = FOLDER.parent / "runtime" / "bundles" / "nano-fp16"
SMALL = ("--tokens", "4", "--text", "5", "--threads", "1")


def _run(*arguments: object) -> str:
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=250, check=False, env=os.environ | {"COLUMNS": "80"}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def bench(*arguments: object):
    return CliRunner().invoke(cli.main, list(map(str, arguments)))


@pytest.mark.parametrize("script", ["gpu.py", "export_streaming.py"])
def test_help(script):
    assert "Usage:" in _run(FOLDER / script, "--help")


def test_the_gpus_without_one_measures_onnxruntime_and_says_so():
    from parrot_runtime.gpu import present_gpu

    if present_gpu() is not None:
        pytest.skip("there is a GPU here")
    output = _run(FOLDER / "gpu.py", SHIPPED, "--rounds", 1, "--steps", 8)
    assert "no GPU here: onnxruntime alone" in output
    assert "| decode, 8 slots |" in output


def test_a_machine_has_figures(monkeypatch):
    monkeypatch.setattr("parrot_benchmarks.machine._READ_BYTES", 1 << 20)
    result = bench("machine", "--threads", 1, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found.pop("threads") == 1
    assert set(found) == {"read", "fp32", "int8", "int4_row"}
    assert all(value > 0 for value in found.values())
    assert "GFLOP/s" in bench("machine", "--threads", 1).stdout
    assert kept_limits().threads == 1


def test_a_bundle_is_measured_in_a_process_of_its_own():
    result = bench("compare", SHIPPED, "--rounds", 1, *SMALL, "--json")
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert record["workload"] == {"images": 1, "text": 5, "tokens": 4, "batch": 1, "threads": 1}
    ((cost,),) = record["rounds"].values()
    assert cost["first"] == pytest.approx(cost["vision"] + cost["prefill"])
    assert cost["total"] > cost["first"]
    assert 20 < cost["memory"] < 2000


def test_transformers_runs_the_same_checkpoint(tmp_path):
    sys.path.insert(0, str(Path(__file__).parent / "export"))
    from tiny_checkpoint import tiny_model, write_checkpoint

    checkpoint = write_checkpoint(tmp_path / "tiny", tiny_model())
    result = bench("compare", SHIPPED, "--peer", f"transformers={checkpoint}", "--rounds", 1, "--batch", 2, *SMALL)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert sum(line.startswith("| transformers tiny") for line in lines) == 2
    assert sum(line.startswith("| nano-fp16") for line in lines) == 2


@pytest.fixture
def costs(monkeypatch):
    """``run`` as a list of who was measured at what, each costing ten times its size to the power of two."""
    asked = []

    def run(subject, workload):
        asked.append((subject, workload))
        time = 10.0 * workload.batch**2
        return Cost(1.0, time, time, 2 * time, time, 3 * time, 100.0)

    monkeypatch.setattr(cli, "run", run)
    monkeypatch.setattr(cli, "check", lambda subject, workload: None)
    return asked


def test_what_is_compared_takes_turns(costs):
    result = bench("compare", "a", "b", "--rounds", 3)
    assert [subject for subject, _ in costs] == ["a", "b", "b", "a", "a", "b"]
    assert result.stdout.count("| a ") == 3  # medians, least and most, ratios
    assert bench("compare", "a", "a").exit_code == 2
    assert bench("compare", "x/a", "y/a", "--rounds", 1).stdout.count("| x/a ") == 2
    assert bench("run", "a", "--rounds", 2).stdout.count("| a ") == 2


def test_a_comparison_is_drawn(costs, tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    plot = tmp_path / "costs.png"
    result = bench("compare", "a", "--peer", "llama.cpp=b.gguf", "--plot", plot)
    assert result.exit_code == 0, result.output
    assert [subject for subject, _ in costs[:2]] == ["a", "llama.cpp:b.gguf"]
    with Image.open(plot) as picture:
        assert picture.width > 1000
        assert len(picture.convert("RGB").getcolors(1 << 20)) > 50
    costs.clear()
    for place in (tmp_path / "costs.txt", plot / "costs.png"):
        assert bench("compare", "a", "--plot", place).exit_code == 2
    assert costs == []  # nobody waits for figures that cannot be drawn


@pytest.mark.parametrize("peer", ["llama.cpp", "llama.cpp=", "llama=x", "=x"])
def test_peers_that_are_none(costs, peer):
    result = bench("compare", "a", "--peer", peer)
    assert result.exit_code == 2
    assert "KIND=PATH" in result.output


@pytest.mark.parametrize("kind", ["llama.cpp", "onnxruntime-genai", "openvino"])
def test_a_peer_that_is_not_installed_is_one_line(kind):
    if importlib.util.find_spec(kind.replace(".", "_").replace("-", "_")):
        pytest.skip(f"{kind} is installed here")
    result = bench("compare", SHIPPED, "--peer", f"{kind}=x", "--rounds", 1, "--images", 0, *SMALL)
    assert result.exit_code == 2
    assert "is not installed here; run `pip install" in result.output


@pytest.mark.parametrize(
    ("peer", "options", "message"),
    [
        ("llama.cpp", (), "say --images 0 --batch 1, and --text 620"),
        ("onnxruntime-genai", ("--images", 0, "--batch", 2), "say --images 0 --batch 1, and --text 620"),
        ("openvino", ("--batch", 2), "say --batch 1"),
        ("transformers", (), "nothing: there is no such file or folder"),
    ],
)
def test_peers_are_looked_at_before_anything_is_measured(peer, options, message, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    monkeypatch.setattr(cli, "run", lambda *_: pytest.fail("was measured"))
    path = tmp_path / "nothing" if peer == "transformers" else tmp_path
    result = bench("compare", SHIPPED, "--peer", f"{peer}={path}", *options)
    assert result.exit_code == 2
    assert message in result.output


def test_growth_is_fitted(costs):
    result = bench("scale", "a", "--over", "batch", "--values", "1,2,4", "--rounds", 2, "--json")
    growth = json.loads(result.stdout)["growth"]
    assert growth["vision"] == pytest.approx(2)
    assert growth["memory"] == pytest.approx(0)
    assert [workload.batch for _, workload in costs] == [1, 2, 4, 4, 2, 1]


def test_models_are_compared_by_their_size(costs, monkeypatch):
    monkeypatch.setattr(cli, "_mebibytes", {"a": 10, "b": 40}.get)
    result = bench("scale", "a", "b", "--rounds", 1)
    assert [subject for subject, _ in costs] == ["a", "b"]
    assert "| size 40 MiB " in result.stdout
    assert json.loads(bench("scale", "a", "b", "--json").stdout)["growth"]["first"] == pytest.approx(0)
    for wrong in (("a", "--over", "size"), ("a", "b", "--over", "text"), ("a", "b", "--values", "1,2")):
        assert bench("scale", *wrong).exit_code == 2
    monkeypatch.setattr(cli, "_mebibytes", lambda _: 10)
    assert "the same size" in bench("scale", "a", "b").output


@pytest.mark.parametrize("values", ["1", "2,2", "0,1", "a,b", ""])
def test_sizes_that_cannot_be_fitted(values):
    result = bench("scale", SHIPPED, "--values", values)
    assert result.exit_code == 2
    assert "two or more different whole numbers" in result.output


def test_what_cannot_be_measured_is_one_line(tmp_path):
    result = bench("compare", tmp_path / "nothing", "--rounds", 1)
    assert result.exit_code == 2
    assert "there is no such bundle folder" in result.output
    assert len(result.output.splitlines()) == 1
    result = bench("compare", SHIPPED, "--rounds", 1, "--text", 5000)
    assert result.exit_code == 2
    assert "positions, and the bundle has" in result.output


def test_a_bundle_that_was_altered_is_bad_input(tmp_path):
    copy = Path(shutil.copytree(SHIPPED, tmp_path / "copy"))
    with open(copy / "tokenizer.json", "r+b") as file:
        file.write(b"[")
    result = bench("run", copy, "--rounds", 1, *SMALL)
    assert result.exit_code == 2
    assert "the file was altered" in result.output
