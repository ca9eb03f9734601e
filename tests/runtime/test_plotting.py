"""Fonts for six scripts, and pictures that appear whole."""

import shutil
from importlib import resources
from pathlib import Path

import pytest

from parrot_runtime import plotting
from parrot_runtime.errors import InputError
from parrot_runtime.languages import CODES

pytest.importorskip("matplotlib", reason="matplotlib is not installed")


def figure():
    pyplot = plotting.import_pyplot()
    drawn, axes = pyplot.subplots()
    axes.set_title("x")
    return drawn


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_the_same_picture_is_the_same_file(tmp_path: Path, suffix: str) -> None:
    for name in "ab":
        with plotting.fonts(["x"], None):
            plotting.save(figure(), tmp_path / f"{name}.{suffix}", force=False)
    one, other = ((tmp_path / f"{name}.{suffix}").read_bytes() for name in "ab")
    assert one == other
    assert not plotting.import_pyplot().get_fignums()  # closed


def test_letters_of_an_svg_are_outlines(tmp_path: Path) -> None:
    with plotting.fonts(["x"], None):
        plotting.save(figure(), tmp_path / "a.svg", force=False)
    assert "<text" not in (tmp_path / "a.svg").read_text("utf-8")


def test_refusals_leave_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"name a .png, .svg or .pdf"):
        plotting.save(figure(), tmp_path / "a.xyz", force=False)
    plotting.import_pyplot().close("all")
    (tmp_path / "a.png").write_bytes(b"old")
    with pytest.raises(InputError, match="exists already"):
        plotting.save(figure(), tmp_path / "a.png", force=False)
    assert (tmp_path / "a.png").read_bytes() == b"old"
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match="file is a file; give another folder"):
        plotting.save(figure(), tmp_path / "file" / "a.png", force=False)
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "file"}


def test_names_that_cannot_be_written_are_english() -> None:
    assert plotting.native_names(CODES) == ["English", "中文", "Português", "العربية", "Türkçe", "Русский"]
    assert plotting.native_names(("zh", "ar"), {"中文"}) == ["Chinese", "العربية"]


def test_a_font_installed_since_matplotlib_made_its_list_is_found(tmp_path: Path, monkeypatch) -> None:
    """As after ``apt install`` of a Chinese font: the list is kept in a file and never made anew."""
    from matplotlib import font_manager

    bundled = Path(str(resources.files("matplotlib"))) / "mpl-data" / "fonts" / "ttf"
    manager = font_manager.fontManager
    dejavu = [entry for entry in manager.ttflist if entry.name == "DejaVu Sans"]
    known = plotting.characters(font_manager.findfont("DejaVu Sans"))
    fresh = shutil.copy(bundled / "STIXGeneral.ttf", tmp_path / "fresh.ttf")
    character = min(plotting.characters(str(fresh)) - known)
    monkeypatch.setattr(manager, "ttflist", dejavu)
    monkeypatch.setattr(font_manager, "findSystemFonts", list)
    assert plotting.families([character], None)[1] == {character}
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [str(tmp_path / "broken.ttf"), str(fresh)])
    found, missing = plotting.families([character], None)
    assert "STIXGeneral" in found
    assert not missing


def test_without_matplotlib_one_line_says_what_to_install(monkeypatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(InputError, match=r"pip install 'parrot-edge\[plots\]'"):
        plotting.import_pyplot()
