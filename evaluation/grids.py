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
    """The paper's rows, ours that compare with them, and ours that do not; empty blocks are left out."""
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
    "−": "$-$",
    "α": r"$\alpha$",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}


# Two characters that LaTeX would make one of.
_LIGATURES = ("--", "``", "''", ",,", "?`", "!`")
# Lines of small print that surely fit a page.
_PAGE = 48


def latex_text(text: str) -> str:
    """``text`` as LaTeX sets it: what is special there is escaped, control characters are left out."""
    kept = [c for c in " ".join(text.split()) if unicodedata.category(c) not in ("Cc", "Cf", "Cs")]
    apart = ["{}" if before + each in _LIGATURES else "" for before, each in zip(["", *kept], kept, strict=False)]
    return "".join(gap + _LATEX.get(each, each) for gap, each in zip(apart, kept, strict=True))


def _latex(grid: Grid) -> str:
    columns = "l" * (len(grid.names) + 1) + "r" * len(grid.headings)
    caption = rf"\caption{{{latex_text(f'{grid.title} (after Table {grid.number} of the paper)')}}}"
    header = " & ".join(latex_text(name) for name in (*grid.names, "scoring", *grid.headings)) + r" \\"
    small, notes = r"\scriptsize\setlength{\tabcolsep}{3pt}", [latex_text(note) for note in grid.notes]
    rows = [*_latex_rows(grid, len(columns)), r"\bottomrule"]
    packages = "booktabs,textcomp"
    lines = sum(3 if row.source == "ours" else 1 for row in grid.rows) + sum(1 + len(note) // 120 for note in notes)
    if lines <= _PAGE:
        start = [
            r"\begin{table}",
            rf"\centering{small}",
            caption,
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            header,
        ]
        end = [r"\end{tabular}", r"\par\raggedright", *(rf"\smallskip {note}\par" for note in notes), r"\end{table}"]
    else:
        # A float that is longer than its page loses its foot without an error; this goes on to the next one.
        packages += ",longtable"
        start = [
            rf"{{{small}",
            rf"\begin{{longtable}}{{{columns}}}",
            rf"{caption} \\",
            r"\toprule",
            header,
            r"\endfirsthead",
        ]
        start += [r"\toprule", header, r"\midrule", r"\endhead"]
        end = [r"\end{longtable}", *(rf"\noindent {note}\par" for note in notes), "}"]
    first = (
        rf"% \usepackage{{{packages}}} and \usepackage[T1]{{fontenc}}; xelatex where names are not in Latin letters"
        f"{'; in one column' if lines > _PAGE else ''}."
    )
    return "\n".join([first, *start, *rows, *end, ""])


def _latex_rows(grid: Grid, width: int) -> list[str]:
    lines = []
    for block in _blocks(grid):
        first = block[0]
        kind = "as published" if first.source == "paper" else "measured here"
        kind += "" if first.comparable else "; not comparable with the rows above"
        lines += [r"\midrule", rf"\multicolumn{{{width}}}{{l}}{{\emph{{{kind}}}}} \\"]
        for row in block:
            cells = [*(latex_text(name) for name in (*row.names, row.scoring)), *map(_latex_entry, row.entries)]
            if row.source == "ours":
                lines.append(r"\addlinespace[3pt]")
            # A bracket at the start of a row would be read as an argument of the line break before it.
            lines.append(" & ".join("{}" + cell if cell.startswith("[") else cell for cell in cells) + r" \\")
    return lines


def _latex_entry(entry: Entry | None) -> str:
    if entry is None:
        return ""
    if entry.total is None:
        return latex_text(entry.value)
    interval = "" if entry.low is None else rf"\\{{\tiny {entry.low:.1f}--{entry.high:.1f}}}"
    return rf"\shortstack[r]{{{entry.value}{interval}\\{{\tiny $n={entry.total}$}}}}"
