"""Fixtures of the evaluation's tests."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

# The tests are imported one by one (importmode=importlib): their shared modules are found beside them.
sys.path.insert(0, str(Path(__file__).parent))

from tsv_files import COLUMNS, picture, write_rows


@pytest.fixture
def make_tsv(tmp_path: Path) -> Callable[..., Path]:
    """``make_tsv(name, rows)`` writes ``rows`` (index, picture and question filled in where missing) under tmp_path."""

    def make(name: str, rows: Sequence[dict], columns: Sequence[str] = COLUMNS) -> Path:
        filled = [
            {"index": number, "image": picture(number), "question": f"question {number}?", "category": "colour"} | row
            for number, row in enumerate(rows)
        ]
        return write_rows(tmp_path / name, filled, columns)

    return make


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole bundle with random weights, the runtime's own test model."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "runtime"))
    from tiny_bundle import TinyModel, write_bundle

    return write_bundle(tmp_path_factory.mktemp("bundles") / "tiny", TinyModel())
