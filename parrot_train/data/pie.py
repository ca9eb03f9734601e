"""The pie of Figure 9: each language's share of the data, named in its own script."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from parrot_runtime.errors import InputError, ParrotError
from parrot_runtime.publish import publish_file

# Around a name: the line as a whole runs from left to right, and of it only an Arabic name from right to left.
_LEFT_TO_RIGHT = "\u200e"
# matplotlib's own font of boxes, which has something to show for every character and writes none.
_LAST_RESORT = "Last Resort"
_COLOURS = ("#2a7f62", "#d1495b", "#edae49", "#00798c", "#7d5ba6", "#3d5a80", "#9aa5b1")


def save_pie(
    path: Path, slices: Sequence[tuple[str, str, int]], title: str, *, font: Path | None, force: bool
) -> list[str]:
    """Draw ``(own name, English name, count)`` of each language into ``path``, whose suffix says how.

    A name that no font here can write, nor ``font``, is written in English; the names of those come back. Raises
    InputError where matplotlib is missing, or does not know the suffix or the font.
    """
    try:
        import matplotlib as mpl

        mpl.use("Agg")
        from matplotlib import pyplot
    except ImportError as error:
        raise InputError("matplotlib is not installed; run `pip install 'parrot-edge[plots]'`") from error

    families, replaced = _families([own for own, _, _ in slices], font)
    names = [english if own in replaced else own for own, english, _ in slices]
    total = sum(number for *_, number in slices)
    with pyplot.rc_context({"font.family": families}):
        figure, axes = pyplot.subplots(figsize=(7, 5))
        try:
            if path.suffix.lstrip(".") not in figure.canvas.get_supported_filetypes():
                raise InputError(f"{path}: a plot cannot be written in that format; name a .png, .svg or .pdf")
            wedges, _ = axes.pie(
                [number for *_, number in slices],
                colors=[_COLOURS[place % len(_COLOURS)] for place in range(len(slices))],
                startangle=90,
                counterclock=False,
                wedgeprops={"linewidth": 1, "edgecolor": "white"},
            )
            labels = [
                f"{_LEFT_TO_RIGHT}{name}{_LEFT_TO_RIGHT}  {number:,} ({100 * number / total:.1f} %)"
                for name, (*_, number) in zip(names, slices, strict=True)
            ]
            # Beside the pie, since the paper's smaller languages are slivers whose labels would meet.
            axes.legend(wedges, labels, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
            axes.set_title(title, fontsize=10)
            with publish_file(path, force=force) as file:
                figure.savefig(file, format=path.suffix.lstrip("."), dpi=150, bbox_inches="tight")
        except OSError as error:
            raise ParrotError(f"{path}: the plot cannot be written ({error.strerror or error})") from error
        finally:
            pyplot.close(figure)
    return [english for own, english, _ in slices if own in replaced]


def _families(texts: Sequence[str], font: Path | None) -> tuple[list[str], set[str]]:
    """Font families that have every character of ``texts`` between them, and the texts for which there are none."""
    from matplotlib import font_manager

    families = ["DejaVu Sans"]
    first = font_manager.findfont(families[0])
    known = set(_characters(first))
    if font is not None:
        try:
            font_manager.fontManager.addfont(font)
            families.append(font_manager.FontProperties(fname=font).get_name())
            known |= _characters(str(font))
        except (OSError, RuntimeError) as error:
            raise InputError(f"--font {font}: not a font ({error}); name a .ttf, .otf or .ttc file") from error
    for entry in sorted(font_manager.fontManager.ttflist, key=lambda entry: entry.fname):
        missing = {character for text in texts for character in text} - known - {" "}
        if not missing:
            break
        if entry.name.startswith(_LAST_RESORT) or entry.name in families:
            continue
        if missing & _characters(entry.fname):
            families.append(entry.name)
            known |= _characters(entry.fname)
    return families, {text for text in texts if set(text) - known - {" "}}


def _characters(file: str) -> set[str]:
    from matplotlib.ft2font import FT2Font

    charmap: dict[int, Any] = FT2Font(file).get_charmap()
    return {chr(code) for code in charmap}
