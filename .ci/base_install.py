"""Run on an install with the `[cpu]` extra alone: every runtime module imports, and the shipped bundle answers."""

import importlib
import importlib.util
import pkgutil
import subprocess
import sys
from pathlib import Path

import parrot_runtime

for absent in ("torch", "transformers", "onnx", "accelerate"):
    assert importlib.util.find_spec(absent) is None, f"{absent} came with the runtime's install"
for module in pkgutil.walk_packages(parrot_runtime.__path__, "parrot_runtime."):
    importlib.import_module(module.name)
for name in ("torch", "transformers"):
    assert name not in sys.modules, name

picture = sorted(Path(sys.argv[1]).glob("*.jpg"))[0]
command = [str(Path(sys.executable).with_name("parrot-run")), str(picture), "Görselde ne var?"]
answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
assert answer, "the shipped bundle gave no answer"
sys.stdout.write(f"Görselde ne var? {answer}\n")
