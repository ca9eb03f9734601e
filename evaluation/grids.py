"""A table of published and measured figures as Markdown, CSV or LaTeX."""

import csv
import io
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from parrot_evaluation.tables import table

Format = Literal["markdown", "csv", "latex"]


@dataclass(frozen=True)
class Entry:
    """One figure as it is to be printed; ``low`` and ``high`` end its 95 % interval, None where none is known."""

    value: str
    low: float | None = None
    high: float | None = None
    total: int | None = None


@dataclass(frozen=True)
class GridRow:
    """``source``: ``"paper"`` or ``"ours"``. ``names`` go with the grid's, ``entries`` with its headings."""

    source: Literal["paper", "ours"]
    names: tuple[str, ...]
    scoring: str
    entries: tuple[Entry | None, ...]
    comparable: bool = True


@dataclass(frozen=True)
class Grid:
    """A table. ``notes`` stand under it, one sentence each."""

    number: int
    title: str
    names: tuple[str, ...]
    headings: tuple[str, ...]
    rows: tuple[GridRow, ...]
    notes: tuple[str, ...] = ()


def render(grids: Sequence[Grid], kind: Format) -> str:
    """All of ``grids`` in one text of the format ``kind``, which ends with a line break."""
    if kind == "csv":
        return _csv(grids)
    shown = _latex if kind == "latex" else _markdown
    return "\n".join(shown(grid) for grid in grids)


def _blocks(grid: Grid) -> list[list[GridRow]]:
    """The paper's rows, ours of the same benchmarks, and ours of others; empty blocks are left out."""
    order = (("paper", True), ("ours", True), ("ours", False))
    blocks = [[row for row in grid.rows if (row.source, row.comparable) == block] for block in order]
    return [block for block in blocks if block]


def _markdown(grid: Grid) -> str:
    header = ["source", *grid.names, "scoring", *grid.headings]
    rows = [
        [row.source, *row.names, row.scoring, *(_plain(entry) for entry in row.entries)]
        for block in _blocks(grid)
        for row in block
    ]
    notes = "\n".join(f"- {note}" for note in grid.notes)
    return f"### Table {grid.number}: {grid.title}\n\n{table(header, rows)}\n" + (f"\n{notes}\n" if notes else "")


def _plain(entry: Entry | None) -> str:
    if entry is None:
        return ""
    if entry.total is None:
        return entry.value
    interval = "" if entry.low is None else f" [{entry.low:.1f}–{entry.high:.1f}]"
    return f"{entry.value}{interval} ({entry.total})"


def _csv(grids: Sequence[Grid]) -> str:
    """One line for every figure, so that tables with different columns share a file."""
    names = list(dict.fromkeys(name for grid in grids for name in grid.names))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["table", "source", *names, "scoring", "column", "value", "low_95", "high_95", "n"])
    for grid in grids:
        for row in (row for block in _blocks(grid) for row in block):
            named = dict(zip(grid.names, row.names, strict=True))
            start = [grid.number, row.source, *(named.get(name, "") for name in names), row.scoring]
            for heading, entry in zip(grid.headings, row.entries, strict=True):
                if entry is not None:
                    ends = ["" if end is None else f"{end:.2f}" for end in (entry.low, entry.high)]
                    total = "" if entry.total is None else entry.total
                    writer.writerow([*start, heading, entry.value, *ends, total])
    return out.getvalue()


_LATEX = {
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "–": "--",
    "≥": r"$\geq$",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}


def latex_text(text: str) -> str:
    """``text`` as LaTeX sets it: what is special there is escaped, control characters are left out."""
    kept = (c for c in " ".join(text.split()) if unicodedata.category(c) not in ("Cc", "Cf", "Cs"))
    return "".join(_LATEX.get(character, character) for character in kept)


def _latex(grid: Grid) -> str:
    columns = "l" * (len(grid.names) + 1) + "r" * len(grid.headings)
    header = [*grid.names, "scoring", *grid.headings]
    lines = [
        r"% \usepackage{booktabs,textcomp} and \usepackage[T1]{fontenc}; xelatex where names are not in Latin letters.",
        r"\begin{table}",
        r"\centering\scriptsize\setlength{\tabcolsep}{3pt}",
        rf"\caption{{{latex_text(f'{grid.title} (after Table {grid.number} of the paper)')}}}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        " & ".join(latex_text(name) for name in header) + r" \\",
    ]
    for block in _blocks(grid):
        first = block[0]
        kind = "as published" if first.source == "paper" else "measured here"
        kind += "" if first.comparable else "; another benchmark, not comparable with the rows above"
        lines += [r"\midrule", rf"\multicolumn{{{len(columns)}}}{{l}}{{\emph{{{kind}}}}} \\"]
        for row in block:
            cells = [*(latex_text(name) for name in (*row.names, row.scoring)), *map(_latex_entry, row.entries)]
            if row.source == "ours":
                lines.append(r"\addlinespace[3pt]")
            # A bracket at the start of a row would be read as an argument of the line break before it.
            lines.append(" & ".join("{}" + cell if cell.startswith("[") else cell for cell in cells) + r" \\")
    notes = [rf"\par\smallskip {latex_text(note)}" for note in grid.notes]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", *notes, r"\end{table}", ""])


def _latex_entry(entry: Entry | None) -> str:
    if entry is None:
        return ""
    if entry.total is None:
        return latex_text(entry.value)
    interval = "" if entry.low is None else rf"\\{{\tiny {entry.low:.1f}--{entry.high:.1f}}}"
    return rf"\shortstack[r]{{{entry.value}{interval}\\{{\tiny $n={entry.total}$}}}}"
