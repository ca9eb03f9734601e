"""The four lines on a world small enough for a test: real training, real export, real answers, real commands."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from parrot_runtime.flavours import installed
from parrot_train.nano.backbones import shipped

# Half a minute on an idle machine, all of it in the fixture that runs the four lines.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

ROOT = Path(__file__).parents[1]
# A few hundred pictures and a few steps: enough to pass through every line of code, not to learn anything.
SMALL = [
    argument
    for setting in (
        "nano.stage1_scenes=64",
        "nano.stage2_scenes=64",
        "nano.heldout_scenes=8",
        "stage1.max_steps=3",
        "stage2.max_steps=3",
        "stage1.save_steps=2",
        "stage2.save_steps=2",
    )
    for argument in ("--set", setting)
]


def command(folder: Path, name: str, *arguments: str) -> subprocess.CompletedProcess:
    program = Path(sys.executable).with_name(name)
    environment = os.environ | {"OMP_NUM_THREADS": "2", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [program, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, f"{name} {' '.join(arguments)}\n{done.stderr}"
    return done


@pytest.fixture(scope="module")
def workshop(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("workshop")
    command(folder, "parrot-train", "stage1", *SMALL)
    command(folder, "parrot-train", "stage2", *SMALL)
    command(folder, "parrot-export", "--fp16")
    shutil.copy(ROOT / "examples" / "beach.jpg", folder / "image.jpg")
    return folder


def test_the_four_lines_answer(workshop):
    done = command(workshop, "parrot-run", "image.jpg", "Görselde ne var?")
    assert done.stdout.strip()
    # It says which bundle it took: the one just made, not the shipped one.
    assert "bundles/nano-fp16" in done.stderr


def test_stage_1_changes_the_projector_alone_and_stage_2_never_the_vision_tower(workshop):
    from safetensors.numpy import load_file

    vision, llm = (load_file(shipped(part) / "model.safetensors") for part in ("vision", "llm"))
    stage1, stage2 = (load_file(workshop / f"runs/nano/{stage}/model.safetensors") for stage in ("stage1", "stage2"))

    def same(checkpoint: dict, name: str, weight) -> bool:
        return (checkpoint[name] == weight.astype(checkpoint[name].dtype)).all()

    layers = {name: weight for name, weight in vision.items() if f"model.vision_tower.{name}" in stage1}
    assert len(layers) > 20
    assert all(same(stage1, f"model.vision_tower.{name}", weight) for name, weight in layers.items())
    assert all(same(stage2, f"model.vision_tower.{name}", weight) for name, weight in layers.items())
    renamed = {name.replace("model.", "model.language_model.", 1): weight for name, weight in llm.items()}
    assert all(same(stage1, name, weight) for name, weight in renamed.items())
    matrices = [name for name, weight in renamed.items() if weight.ndim == 2]
    assert not any(same(stage2, name, renamed[name]) for name in matrices)
    assert not any("moe" in name for name in stage1)
    assert sum("moe" in name for name in stage2) == 5  # a router, and two weights and two biases of stacked experts


def test_the_bundle_says_what_it_is_and_what_verified_it(workshop):
    manifest = json.loads((workshop / "bundles/nano-fp16/parrot.json").read_text("utf-8"))
    assert manifest["precision"] == "fp16"
    assert manifest["verification"]
    command(workshop, "parrot-export", "verify", "bundles/nano-fp16")


def test_the_same_line_adds_tensorrt_where_it_is_installed(workshop):
    manifest = json.loads((workshop / "bundles/nano-fp16/parrot.json").read_text("utf-8"))
    assert bool(manifest["tensorrt"]) == bool(installed())
    assert ("tensorrt" in manifest["verification"]) == bool(installed())
    if "tensorrt-rtx" in installed():  # the other flavour builds for a GPU that is present only
        assert list((workshop / "bundles/nano-fp16/engines").glob("*/build.json"))


def test_json_gives_one_object_per_question(workshop):
    done = command(workshop, "parrot-run", "image.jpg", "Что на картинке?", "图片里有什么？", "--json")
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["question"] for answer in answers] == ["Что на картинке?", "图片里有什么？"]
