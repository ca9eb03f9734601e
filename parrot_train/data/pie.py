"""The pie of Figure 9: each language's share of the data, named in its own script."""

from collections.abc import Sequence
from pathlib import Path

from parrot_runtime.plotting import COLOURS, check_format, fonts, import_pyplot, left_to_right, save


def save_pie(
    path: Path, slices: Sequence[tuple[str, str, int]], title: str, *, font: Path | None, force: bool
) -> list[str]:
    """Draw ``(own name, English name, count)`` of each language into ``path``, whose suffix says how.

    A name that no font here can write, nor ``font``, is written in English; the names of those come back. Raises
    InputError where matplotlib is missing, or does not know the suffix or the font.
    """
    pyplot = import_pyplot()
    check_format(path)
    total = sum(number for *_, number in slices)
    with fonts([own for own, _, _ in slices], font) as replaced:
        names = [english if own in replaced else own for own, english, _ in slices]
        figure, axes = pyplot.subplots(figsize=(7, 5))
        wedges, _ = axes.pie(
            [number for *_, number in slices],
            colors=[COLOURS[place % len(COLOURS)] for place in range(len(slices))],
            startangle=90,
            counterclock=False,
            wedgeprops={"linewidth": 1, "edgecolor": "white"},
        )
        labels = [
            f"{left_to_right(name)}  {number:,} ({100 * number / total:.1f} %)"
            for name, (*_, number) in zip(names, slices, strict=True)
        ]
        # Beside the pie, since the paper's smaller languages are slivers whose labels would meet.
        axes.legend(wedges, labels, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
        axes.set_title(title, fontsize=10)
        save(figure, path, force=force)
    return [english for own, english, _ in slices if own in replaced]
