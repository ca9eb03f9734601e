"""What every picture of the project shares: matplotlib, fonts for six scripts, colours, and a file that appears whole.

Nothing here is imported by the runtime's own work, and matplotlib only when a picture is drawn.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from parrot_runtime.errors import InputError, ParrotError
from parrot_runtime.languages import BY_CODE
from parrot_runtime.publish import publish_file

COLOURS = ("#2a7f62", "#d1495b", "#edae49", "#00798c", "#7d5ba6", "#3d5a80", "#9aa5b1", "#7a4b2a")
"""Told apart by most who do not see all colours, and on white."""

# Around a name: the line as a whole runs from left to right, and of it only an Arabic name from right to left.
_LEFT_TO_RIGHT = "\u200e"
# matplotlib's own font of boxes, which has something to show for every character and writes none.
_LAST_RESORT = "Last Resort"
_INVISIBLE = {" ", "\n", _LEFT_TO_RIGHT}


def import_pyplot() -> Any:
    """``matplotlib.pyplot``, drawing to files only. Raises InputError where matplotlib is missing."""
    try:
        import matplotlib as mpl

        mpl.use("Agg")
        from matplotlib import pyplot
    except ImportError as error:
        raise InputError("matplotlib is not installed; run `pip install 'parrot-edge[plots]'`") from error
    return pyplot


def check_format(path: Path) -> str:
    """The format that the suffix of ``path`` names. Raises InputError for one that matplotlib cannot write."""
    import_pyplot()
    from matplotlib.backend_bases import FigureCanvasBase

    known = FigureCanvasBase.get_supported_filetypes()
    suffix = path.suffix.lstrip(".").lower()
    if suffix not in known:
        raise InputError(f"{path}: a plot cannot be written in that format; name a .png, .svg or .pdf")
    return suffix


@contextmanager
def fonts(texts: Iterable[str], font: Path | None) -> Iterator[set[str]]:
    """Draw inside with fonts that write ``texts``; yields those of them that no font here, nor ``font``, can.

    An SVG drawn inside is the same every time, and holds outlines rather than names of fonts. A dollar is a dollar.
    """
    pyplot = import_pyplot()
    found, unwritten = families(list(texts), font)
    drawn = {"font.family": found, "svg.hashsalt": "parrot", "svg.fonttype": "path", "text.parse_math": False}
    with pyplot.rc_context(drawn):
        yield unwritten


def save(figure: Any, path: Path, *, force: bool) -> None:
    """Write ``figure`` into ``path``, whole or not at all, and close it. Raises InputError, ParrotError."""
    kind = check_format(path)
    try:
        with publish_file(path, force=force) as file:
            write(figure, file, kind)
    except OSError as error:
        raise ParrotError(f"{path}: the plot cannot be written ({error.strerror or error})") from error
    finally:
        import_pyplot().close(figure)


def write(figure: Any, file: Any, kind: str) -> None:
    """Write ``figure`` in the format ``kind`` to the open ``file``, without the day and hour."""
    dated = {"svg": "Date", "pdf": "CreationDate"}
    metadata = {dated[kind]: None} if kind in dated else None
    figure.savefig(file, format=kind, dpi=150, bbox_inches="tight", metadata=metadata)


def native_names(codes: Sequence[str], unwritten: Iterable[str] = ()) -> list[str]:
    """The languages' own names, in English where the own name is among ``unwritten``."""
    unwritten = set(unwritten)
    names = [BY_CODE[code].native_name for code in codes]
    return [BY_CODE[code].english_name if own in unwritten else own for code, own in zip(codes, names, strict=True)]


def left_to_right(name: str) -> str:
    """``name`` inside a line that runs from left to right, whatever its script."""
    return f"{_LEFT_TO_RIGHT}{name}{_LEFT_TO_RIGHT}"


def families(texts: Sequence[str], font: Path | None) -> tuple[list[str], set[str]]:
    """Font families that have every character of ``texts`` between them, and the texts for which there are none.

    ``font`` is asked before those that matplotlib knows. Raises InputError where it is no font.
    """
    from matplotlib import font_manager

    found = ["DejaVu Sans"]
    known = characters(font_manager.findfont(found[0])) | _INVISIBLE
    if font is not None:
        try:
            font_manager.fontManager.addfont(font)
            found.append(font_manager.FontProperties(fname=font).get_name())
            known |= characters(os.fspath(font))
        except (OSError, RuntimeError) as error:
            raise InputError(f"--font {font}: not a font ({error}); name a .ttf, .otf or .ttc file") from error
    for name, file in _others():
        missing = {character for text in texts for character in text} - known
        if not missing:
            break
        if name not in found and missing & characters(file):
            found.append(name)
            known |= characters(file)
    return found, {text for text in texts if set(text) - known}


def _others() -> Iterator[tuple[str, str]]:
    """Name and file of every font that matplotlib knows, then of those installed since it made its list."""
    from matplotlib import font_manager

    listed = {entry.fname: entry.name for entry in font_manager.fontManager.ttflist}
    for file, name in sorted(listed.items()):
        if not name.startswith(_LAST_RESORT) and Path(file).is_file():
            yield name, file
    for file in sorted(set(font_manager.findSystemFonts()) - set(listed)):
        try:
            font_manager.fontManager.addfont(file)
            yield font_manager.FontProperties(fname=file).get_name(), file
        except (OSError, RuntimeError):  # a file that calls itself a font; nothing asked for it
            continue


def characters(file: str) -> set[str]:
    """The characters that the font in ``file`` has glyphs for."""
    from matplotlib.ft2font import FT2Font

    charmap: dict[int, Any] = FT2Font(file).get_charmap()
    return {chr(code) for code in charmap}
