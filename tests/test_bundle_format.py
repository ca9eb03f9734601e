"""docs/bundle-format.md is true: its reader answers as parrot-run does, and its tables name what a manifest holds."""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest

from parrot_runtime import Parrot
from parrot_runtime.bundles import SHIPPED
from parrot_runtime.image import ImageRecipe
from parrot_runtime.manifest import Manifest, ModelDims, PromptRecipe

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs/bundle-format.md").read_text("utf-8")
BUNDLE = SHIPPED / "nano-fp16"


@pytest.mark.parametrize(
    ("picture", "question"),
    [("beach.jpg", "Görselde ne var?"), ("night.jpg", "ماذا يوجد في الصورة؟"), ("snow.jpg", "图片里有什么？")],
)
def test_the_reader_answers_as_parrot_run_does(picture, question, tmp_path):
    (program,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    (tmp_path / "reader.py").write_text(program, "utf-8")
    path = ROOT / "examples" / picture
    done = subprocess.run(
        [sys.executable, "reader.py", BUNDLE, path, question], cwd=tmp_path, capture_output=True, timeout=120
    )
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.decode("utf-8").strip() == Parrot.load(BUNDLE).ask(path, question).text


@pytest.mark.parametrize("kind", [Manifest, ModelDims, ImageRecipe, PromptRecipe])
def test_every_key_is_described(kind):
    for field in dataclasses.fields(kind):
        assert f"`{field.name}`" in TEXT
