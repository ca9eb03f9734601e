"""The charts of ``parrot-eval plot``: languages around a circle, beside each other, or lost from run to run; experts.

Every function returns a matplotlib figure, to be drawn inside :func:`parrot_runtime.plotting.fonts`. ``unwritten`` are
the texts that no font there has; languages called so are named in English.
"""

import math
from collections.abc import Callable, Collection, Sequence
from typing import Any

from parrot_evaluation.results import Figure, Result, shared_languages
from parrot_runtime.errors import InputError
from parrot_runtime.languages import BY_CODE
from parrot_runtime.plotting import COLOURS, import_pyplot, left_to_right, native_names

_GREY, _DARK = "#5b6770", "#1c2429"
_HEIGHT = 3.8
# Below this, in per cent, there is no room for a number in a bar.
_ROOM = 10
# What sets apart those that have a colour again.
_DASHES, _HATCHES = ("-", "--", ":", "-."), ("", "////", "xxxx", "....")


def texts(results: Sequence[Result]) -> list[str]:
    """All that a chart of ``results`` may have to write in other than Latin letters."""
    return [*(BY_CODE[code].native_name for code in shared_languages(results)), *(result.label for result in results)]


def radar(results: Sequence[Result], measure: str, *, floor: float = 0, unwritten: Collection[str] = ()) -> Any:
    """Figure 7b: a language at each corner, a line per run. The centre is ``floor`` per cent. Raises InputError."""
    codes = [code for code in shared_languages(results) if any(result.find(measure, code) for result in results)]
    if len(codes) < 3:
        raise InputError(f"a radar needs three languages or more, these results have {len(codes)}; draw bars instead")
    pyplot = import_pyplot()
    figure, axes = pyplot.subplots(figsize=(6.4, 5.2), subplot_kw={"projection": "polar"})
    angles = [2 * math.pi * place / len(codes) for place in range(len(codes))]
    for number, (result, name) in enumerate(zip(results, _names(results), strict=True)):
        points = [
            (angle, found.value)
            for angle, code in zip(angles, codes, strict=True)
            if (found := result.find(measure, code))
        ]
        # Only a run that has all languages closes its line: a gap must not look like a value.
        closed = [*points, points[0]] if len(points) == len(codes) else points
        colour, dashes = COLOURS[number % len(COLOURS)], _again(_DASHES, number)
        axes.plot(*zip(*closed, strict=True), color=colour, ls=dashes, lw=1.8, marker="o", ms=4, label=name)
        if len(points) == len(codes) and len(results) == 1:
            axes.fill(*zip(*closed, strict=True), color=colour, alpha=0.08)
    lowest = min(result.find(measure, code).value for result in results for code in codes if result.find(measure, code))
    if lowest < floor:
        raise InputError(f"--floor {floor:g} is above the lowest value, {lowest:.1f}; give less")
    axes.set_ylim(floor, 100)
    axes.set_theta_zero_location("N")
    axes.set_theta_direction(-1)
    axes.set_xticks(angles, native_names(codes, unwritten), fontsize=11)
    axes.tick_params(axis="x", pad=6)
    for angle, label in zip(angles, axes.get_xticklabels(), strict=True):
        # Beside the circle rather than centred on its edge, where a long name would cover it.
        side = math.sin(angle)
        label.set_horizontalalignment("center" if abs(side) < 0.2 else "left" if side > 0 else "right")
    axes.set_rlabel_position(180 / len(codes))
    axes.tick_params(axis="y", labelsize=8, labelcolor=_GREY)
    axes.grid(color="#d5dadf", lw=0.7)
    axes.spines["polar"].set_color("#d5dadf")
    axes.legend(loc="upper left", bbox_to_anchor=(1.12, 1.05), frameon=False, fontsize=9)
    _caption(axes, results, measure, codes, pad=26, from_floor=floor)
    return figure


def bars(results: Sequence[Result], measure: str, *, unwritten: Collection[str] = ()) -> Any:
    """A group of bars per language, a bar per run, with 95 % intervals."""
    codes = shared_languages(results)
    figure, axes = import_pyplot().subplots(figsize=(max(6.4, 0.5 * len(codes) * (len(results) + 1)), _HEIGHT))
    width = 0.8 / len(results)
    for number, (result, name) in enumerate(zip(results, _names(results), strict=True)):
        places = {code: place + (number - (len(results) - 1) / 2) * width for place, code in enumerate(codes)}
        found = [each for code in codes if (each := result.find(measure, code))]
        xs = [places[each.language] for each in found]
        values = [each.value for each in found]
        colour, hatch = COLOURS[number % len(COLOURS)], _again(_HATCHES, number)
        axes.bar(xs, values, 0.92 * width, color=colour, hatch=hatch, edgecolor="white", lw=0, label=name)
        axes.errorbar(xs, values, _whiskers(found), fmt="none", ecolor=_DARK, elinewidth=1, capsize=2, alpha=0.7)
        if len(results) <= 3:
            for x, each in zip(xs, found, strict=True):
                # At the foot where the interval leaves room, and else above it.
                y, ink = (2, _ink(colour)) if each.low >= _ROOM else (each.high + 1.5, _DARK)
                axes.text(x, y, f"{each.value:.0f}", ha="center", va="bottom", fontsize=8, color=ink)
    axes.set_xticks(range(len(codes)), native_names(codes, unwritten), fontsize=11)
    _percent(axes)
    _caption(axes, results, measure, codes)
    if len(results) > 1:
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=9)
    return figure


def erosion(results: Sequence[Result], measure: str, *, unwritten: Collection[str] = ()) -> Any:
    """What each language keeps from run to run: a line per language over the runs in their order. Raises InputError."""
    if len(results) < 2:
        raise InputError("erosion is seen from run to run; give two results or more, or draw bars")
    codes = shared_languages(results)
    figure, axes = import_pyplot().subplots(figsize=(max(5.6, 1.5 * len(results) + 2.2), _HEIGHT))
    names = native_names(codes, unwritten)
    for number, (code, name) in enumerate(zip(codes, names, strict=True)):
        # Side by side, so that intervals of languages that are equal do not hide each other.
        shift = (number - (len(codes) - 1) / 2) * 0.045
        found = [(place + shift, each) for place, r in enumerate(results) if (each := r.find(measure, code))]
        axes.errorbar(
            [x for x, _ in found],
            [each.value for _, each in found],
            _whiskers([each for _, each in found]),
            color=COLOURS[number % len(COLOURS)],
            ls=_again(_DASHES, number),
            marker="o",
            ms=5,
            lw=1.6,
            elinewidth=0.9,
            capsize=2,
            label=name,
        )
    axes.set_xticks(range(len(results)), [_broken(name) for name in _names(results)], fontsize=9)
    axes.set_xlim(-0.4, len(results) - 0.6)
    _percent(axes)
    _caption(axes, results, measure, codes)
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=10)
    return figure


def routing_shares(result: Result) -> dict[str, list[float]]:
    """The mean share of each expert over a run's answers, by language. Raises InputError where no routing was kept."""
    by_language: dict[str, list[Sequence[float]]] = {}
    for sample in result.samples:
        entry = result.answers.get((sample["language"], sample["index"]))
        if entry is not None and entry.get("routing"):
            by_language.setdefault(sample["language"], []).append(entry["routing"])
    if not by_language:
        raise InputError(
            f"{result.folder}: no answer says how it was routed; only bundles and checkpoints with experts tell"
        )
    lengths = {len(each) for routings in by_language.values() for each in routings}
    if len(lengths) > 1:
        raise InputError(f"{result.folder}: answers of models with {sorted(lengths)} experts; run parrot-eval --force")
    return {
        code: [math.fsum(column) / len(routings) for column in zip(*routings, strict=True)]
        for code, routings in by_language.items()
    }


def experts(results: Sequence[Result], *, unwritten: Collection[str] = ()) -> Any:
    """Figure 7c: how each language's questions are shared out to the experts, as bars of one length."""

    def panel(axes: Any, codes: Sequence[str], shares: dict[str, list[float]]) -> None:
        starts = [0.0] * len(codes)
        for expert in range(len(shares[codes[0]])):
            parts = [100 * shares[code][expert] for code in codes]
            colour, hatch = COLOURS[expert % len(COLOURS)], _again(_HATCHES, expert)
            style = {"color": colour, "hatch": hatch, "edgecolor": "white", "label": str(expert + 1)}
            axes.barh(range(len(codes)), parts, 0.72, starts, **style)
            for place, part in enumerate(parts):
                if part >= 6:
                    ink = {"color": _ink(colour), "fontsize": 8, "ha": "center", "va": "center"}
                    behind = {"facecolor": colour, "edgecolor": "none", "pad": 1} if hatch else None
                    axes.text(starts[place] + part / 2, place, f"{part:.0f}", bbox=behind, **ink)
            starts = [start + part for start, part in zip(starts, parts, strict=True)]
        axes.set_yticks(range(len(codes)), native_names(codes, unwritten), fontsize=11)
        axes.invert_yaxis()
        axes.set_xlim(0, 100)
        axes.set_xticks([])
        axes.spines[:].set_visible(False)
        axes.tick_params(left=False)

    figure, axes = _panels(results, panel)
    handles, labels = max((each.get_legend_handles_labels() for each in axes), key=lambda pair: len(pair[0]))
    figure.legend(
        handles,
        labels,
        title="expert",
        loc="center left",
        bbox_to_anchor=(1.0, 0.5),
        frameon=False,
        fontsize=9,
        title_fontsize=9,
    )
    return figure


def routing(results: Sequence[Result], *, unwritten: Collection[str] = ()) -> Any:
    """The same as a map of languages by experts, on one scale for all runs."""
    most = max(share for result in results for shares in routing_shares(result).values() for share in shares)

    def panel(axes: Any, codes: Sequence[str], shares: dict[str, list[float]]) -> None:
        rows = [[100 * share for share in shares[code]] for code in codes]
        image = axes.imshow(rows, cmap="YlGnBu", vmin=0, vmax=100 * most, aspect="auto")
        for y, row in enumerate(rows):
            for x, part in enumerate(row):
                ink = _ink(image.cmap(image.norm(part))[:3])
                axes.text(x, y, f"{part:.0f}", ha="center", va="center", fontsize=9, color=ink)
        axes.set_yticks(range(len(codes)), native_names(codes, unwritten), fontsize=11)
        axes.set_xticks(range(len(rows[0])), [str(expert + 1) for expert in range(len(rows[0]))])
        axes.set_xlabel("expert", fontsize=9)
        axes.spines[:].set_visible(False)
        axes.tick_params(left=False, bottom=False)

    figure, _ = _panels(results, panel)
    return figure


def _panels(results: Sequence[Result], panel: Callable[[Any, Sequence[str], dict[str, list[float]]], None]) -> Any:
    """A panel per run, side by side, each with its languages in the project's order."""
    shares = [routing_shares(result) for result in results]
    rows = max(len(each) for each in shares)
    figure, axes = import_pyplot().subplots(
        1, len(results), figsize=(5.2 * len(results), 1.1 + 0.45 * rows), squeeze=False, layout="constrained"
    )
    for each, name, own in zip(axes[0], _names(results), shares, strict=True):
        codes = [code for code in BY_CODE if code in own]
        panel(each, codes, own)
        each.set_title(name, fontsize=9)
    benchmarks = ", ".join(dict.fromkeys(result.benchmark for result in results))
    title = f"{benchmarks}: mean share of each expert, per cent"
    figure.suptitle(title, fontsize=9, x=0.01, ha="left", color=_GREY)
    return figure, axes[0]


def _names(results: Sequence[Result]) -> list[str]:
    """What each run is called in a chart: its label, and its benchmark where there are several.

    matplotlib lists none that begins with an underscore, so a mark that is not seen goes before it.
    """
    several = len({result.benchmark for result in results}) > 1
    named = [f"{result.label}, {result.benchmark}" if several else result.label for result in results]
    return [left_to_right(name) if name.startswith("_") else name for name in named]


def _again(marks: Sequence[str], number: int) -> str:
    """Of ``marks``, that of the ``number``-th line or bar: the first while there are new colours."""
    return marks[number // len(COLOURS) % len(marks)]


def _ink(colour: str | Sequence[float]) -> str:
    """White or nearly black, whichever is better read on ``colour``, ``#rrggbb`` or shares of red, green and blue.

    Contrast is that of WCAG 2.2, 1.4.3.
    """
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)] if isinstance(colour, str) else colour
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    # Where both have the same contrast: (1 + 0.05) / (L + 0.05) = (L + 0.05) / (0.017 + 0.05).
    return "white" if luminance < 0.215 else _DARK


def _whiskers(found: Sequence[Figure]) -> list[list[float]]:
    """Lengths below and above the values."""
    return [[each.value - each.low for each in found], [each.high - each.value for each in found]]


def _percent(axes: Any) -> None:
    axes.set_ylim(0, 105)
    axes.set_yticks(range(0, 101, 20))
    axes.set_ylabel("per cent", fontsize=9)
    axes.grid(axis="y", color="#e3e7ea", lw=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _caption(
    axes: Any, results: Sequence[Result], measure: str, codes: Sequence[str], *, pad: float = 8, from_floor: float = 0
) -> None:
    """What is drawn, over how many, in two lines above the chart."""
    totals = [found.total for result in results for code in codes if (found := result.find(measure, code))]
    counted = f"n = {min(totals)}" if min(totals) == max(totals) else f"n = {min(totals)} to {max(totals)}"
    benchmarks = ", ".join(dict.fromkeys(result.benchmark for result in results))
    notes = [counted, "per cent"] if axes.name == "polar" else [counted, "whiskers: 95 % (Wilson)"]
    notes += [f"the centre is {from_floor:g}"] if from_floor else []
    axes.set_title(f"{benchmarks}: {measure}\n{'; '.join(notes)}", fontsize=9, loc="left", pad=pad, color=_GREY)


def _broken(label: str, width: int = 16) -> str:
    """``label`` in lines of about ``width`` characters."""
    lines = [""]
    for word in label.split():
        if lines[-1] and len(lines[-1]) + len(word) >= width:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)
