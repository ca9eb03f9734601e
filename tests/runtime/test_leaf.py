"""The runtime stands alone: no torch, no sibling, nothing newer than Python 3.10, and nothing imported early."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import parrot_runtime

FOLDER = Path(parrot_runtime.__file__).parent
MODULES = sorted(
    ".".join(("parrot_runtime", *path.relative_to(FOLDER).with_suffix("").parts)).removesuffix(".__init__")
    for path in FOLDER.rglob("*.py")
)
FOREIGN = (
    *("torch", "transformers", "accelerate", "onnx", "onnx_ir", "onnxscript", "ml_dtypes", "yaml", "scipy"),
    *("parrot_train", "parrot_export", "parrot_evaluation", "parrot_calibration"),
)


def _python(program, *arguments):
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


_BLOCK = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in BLOCKED:
            raise ImportError(f"{name} is blocked in this test")
sys.meta_path.insert(0, Blocked())
"""


def test_every_module_imports_with_the_rest_of_the_world_blocked():
    assert len(MODULES) > 20
    program = (
        f"BLOCKED = {FOREIGN!r}"
        + _BLOCK
        + (
            "import importlib, json\n"
            f"for name in {MODULES!r}: importlib.import_module(name)\n"
            "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
        )
    )
    assert not set(_python(program)) & set(FOREIGN)


def test_a_question_is_answered_with_the_rest_of_the_world_blocked(bundle, picture, tmp_path):
    picture.save(tmp_path / "a.png")
    program = (
        f"BLOCKED = {FOREIGN!r}"
        + _BLOCK
        + (
            "import json\n"
            "from parrot_runtime import Parrot\n"
            "print(json.dumps(len(Parrot.load(sys.argv[1]).ask(sys.argv[2], 'ne?', max_new_tokens=3).token_ids)))"
        )
    )
    assert _python(program, str(bundle), str(tmp_path / "a.png")) == 3


def test_without_onnxruntime_one_line_says_what_to_install(bundle, picture, tmp_path):
    picture.save(tmp_path / "a.png")
    program = (
        "BLOCKED = ('onnxruntime',)" + _BLOCK + "from parrot_runtime.cli import main; main(prog_name='parrot-run')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "--bundle", str(bundle), str(tmp_path / "a.png"), "ne?"],
        capture_output=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 2
    assert done.stdout == b""
    assert done.stderr.decode().splitlines() == [
        "parrot-run: onnxruntime is not installed; run `pip install 'parrot-edge[cpu]'` "
        "(or 'parrot-edge[cuda]' where something else needs onnxruntime-gpu, never both)"
    ]


def test_imports_are_lazy():
    """What makes ``import parrot_runtime`` and ``parrot-run --help`` quick."""
    heavy = ("numpy", "PIL", "tokenizers", "safetensors", "onnxruntime", "importlib.metadata")
    for module in ("parrot_runtime", "parrot_runtime.cli"):
        program = f"import sys, json, {module}; print(json.dumps([name for name in {heavy!r} if name in sys.modules]))"
        assert _python(program) == []
    program = (
        "import sys, json, parrot_runtime.manifest, parrot_runtime.run, parrot_runtime.prompt, parrot_runtime.bundles\n"
        f"print(json.dumps([name for name in {heavy!r} if name in sys.modules]))"
    )
    assert _python(program) == ["numpy"]


# Standard library modules and names that came after Python 3.10.
_TOO_NEW_MODULES = {"tomllib", "asyncio.taskgroups", "wsgiref.types"}
_TOO_NEW_NAMES = {
    *("StrEnum", "ExceptionGroup", "BaseExceptionGroup", "Self", "override", "Never", "assert_never", "chdir"),
    *("LiteralString", "batched", "Unpack", "Required", "NotRequired", "UTC", "file_digest"),
}


def test_python_3_10_can_read_it():
    for path in FOLDER.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"), str(path), feature_version=(3, 10))
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                assert not {alias.name for alias in node.names} & _TOO_NEW_MODULES, path
            if isinstance(node, ast.ImportFrom):
                assert node.module not in _TOO_NEW_MODULES, path
                assert not {alias.name for alias in node.names} & _TOO_NEW_NAMES, path
            if isinstance(node, ast.Attribute):
                assert node.attr not in _TOO_NEW_NAMES, f"{path}:{node.lineno}"
            # except* and starred subscripts parse from 3.11 on, whatever feature_version says.
            assert not isinstance(node, getattr(ast, "TryStar", ())), path
            assert not (isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Starred)), path
