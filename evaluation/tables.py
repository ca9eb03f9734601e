"""Reports as Markdown that a terminal shows well: columns are aligned, Chinese counted as double width."""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence

from parrot_evaluation.benchmarks import Measure
from parrot_evaluation.composite import Score, all_notes
from parrot_evaluation.report import Report, conditions
from parrot_evaluation.scoring import Cell
from parrot_runtime.languages import BY_CODE

_NOTHING = "–"
_SHOWN_DISAGREEMENTS = 20
# What Markdown reads in the middle of a line; an address is a link by its colon. The bar is escaped in every cell.
_MARKS = re.compile(r"[\\`*_{}\[\]<>&~$#!]|:(?=//)|(?<=www)\.", re.IGNORECASE)


def markdown(report: Report, *, by_category: bool = False) -> str:
    """The whole report: accuracies, intervals, what the columns mean, and with ``by_category`` a table per measure."""
    measures = [m for m in report.benchmark.measures if any(report.find(m.name, code) for code in report.languages)]
    parts = [
        f"## {report.benchmark.title}: {report.model}",
        "Per cent right, and of how many:",
        _summary(report, measures, _share),
        "95 % intervals (Wilson):",
        _summary(report, measures, _interval),
        _legend(report, measures),
    ]
    if report.scores:
        parts.insert(1, _scores(report))
    if special := conditions(report.settings, report.data):
        parts.insert(1, f"This run: {'; '.join(special)}.")
    if by_category:
        parts += _category_parts(report, measures)
    return "\n\n".join(parts) + "\n"


def disagreements(report: Report) -> str:
    """What the two extractions read differently: who is right how often, by which rule, and the first answers."""
    total = len(report.disagreements)
    if not total:
        return "Answers that the two extractions read differently: 0\n"
    verdicts = Counter((s.right, s.kit_right) for s in report.disagreements)
    title = (
        f"Answers that the two extractions read differently: {total}; right by the multilingual one alone "
        f"{verdicts[True, False]}, by VLMEvalKit's alone {verdicts[False, True]}, by neither {verdicts[False, False]}"
    )
    places = Counter((_rule_name(s.extraction.rule), s.row.language) for s in report.disagreements)
    counts = [
        [rule, *(str(places[rule, code]) for code in report.languages)] for rule in dict.fromkeys(r for r, _ in places)
    ]
    header = ["language", "index", "right", "kit", "ours", "rule", "answer"]
    rows = [
        (s.row.language, s.row.index, s.row.answer, s.kit or _NOTHING, ours.letter or _NOTHING, ours.rule, answer)
        for s in report.disagreements[:_SHOWN_DISAGREEMENTS]
        for ours, answer in ((s.extraction, _literal(s.response)),)
    ]
    shown = "All of them:" if total <= _SHOWN_DISAGREEMENTS else f"The first {len(rows)}; all are in samples.jsonl:"
    parts = (f"{title}.", "By the rule that decided:", table(["rule", *report.languages], counts), shown)
    return "\n\n".join([*parts, table(header, rows)]) + "\n"


def _rule_name(rule: str) -> str:
    """``letters joined: A and B`` → ``letters joined``."""
    return rule.partition(":")[0]


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, first column to the left, the others to the right."""
    cells = [[_plain(cell) for cell in row] for row in (header, *rows)]
    widths = [max(3, *(_width(row[column]) for row in cells)) for column in range(len(header))]
    lines = [_line(row, widths) for row in cells]
    ruler = (
        "|" + "|".join("-" * (width + 1) + ("-" if column == 0 else ":") for column, width in enumerate(widths)) + "|"
    )
    return "\n".join([lines[0], ruler, *lines[1:]])


def language(code: str) -> str:
    """How a table's row calls a language: ``tr Turkish``."""
    return f"{code} {BY_CODE[code].english_name}"


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    padded = [
        cell + " " * (width - _width(cell)) if column == 0 else " " * (width - _width(cell)) + cell
        for column, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
    return "| " + " | ".join(padded) + " |"


def _plain(text: str) -> str:
    """One line that cannot break the table."""
    return " ".join(text.split()).replace("|", "\\|")


def _literal(text: str) -> str:
    """What a model said, as it said it: neither Markdown nor HTML, no link and no picture."""
    return _MARKS.sub(r"\\\g<0>", text)


def _width(text: str) -> int:
    """Columns in a terminal: wide East Asian characters take two, combining and invisible ones none."""
    return sum(
        0
        if unicodedata.combining(c) or unicodedata.category(c) in ("Cf", "Mn")
        else 2
        if unicodedata.east_asian_width(c) in "WF"
        else 1
        for c in text
    )


def _scores(report: Report) -> str:
    """The figures that are more than shares, and what they lack: a row per group, a column per language and figure."""
    columns = list(dict.fromkeys((score.language, score.measure) for score in report.scores))
    by_place = {(score.group, score.language, score.measure): score for score in report.scores}
    rows = [
        [group, *(_score(by_place.get((group, *column))) for column in columns)]
        for group in dict.fromkeys(score.group for score in report.scores)
    ]
    shown = table(["score", *(f"{language} {measure}" for language, measure in columns)], rows)
    notes = "".join(f"- {note}.\n" for note in all_notes(report.scores))
    return f"{shown}\n\n{notes}".rstrip()


def _score(score: Score | None) -> str:
    if score is None or score.value is None:
        return _NOTHING
    return f"{score.value:.1f}" + (f" of {score.maximum:g}" if score.maximum else "") + f" ({score.total})"


def _share(cell: Cell | None) -> str:
    return _NOTHING if cell is None or cell.value is None else f"{cell.value:.1f} ({cell.total})"


def _interval(cell: Cell | None) -> str:
    if cell is None or cell.interval is None:
        return _NOTHING
    low, high = cell.interval
    return f"{low:.1f}–{high:.1f}"


def _summary(report: Report, measures: Sequence[Measure], show: Callable[[Cell | None], str]) -> str:
    rows = [[language(code), *(show(report.find(m.name, code)) for m in measures)] for code in report.languages]
    if show is _share and len(report.languages) > 1:
        spreads = [report.spreads.get(measure.name) for measure in measures]
        rows.append(["spread, points", *(f"{spread.points:.1f}" if spread else _NOTHING for spread in spreads)])
    return table(["language", *(measure.heading for measure in measures)], rows)


def _legend(report: Report, measures: Sequence[Measure]) -> str:
    lines = [f"- {measure.heading}: {measure.explanation}{_left_out(report, measure)}." for measure in measures]
    lines.append("- spread: the best language less the worst.")
    missing = sum(data["without_image"] for data in report.data.values())
    if missing:
        lines.append(f"- {missing} rows without a picture were left out.")
    unanswerable = sum(data["unanswerable"] for data in report.data.values())
    if unanswerable:
        lines.append(f"- {unanswerable} rows whose answer is none of their options count as wrong, as in VLMEvalKit.")
    if report.benchmark.licence:
        lines.append(f"- data: {report.benchmark.title}, {report.benchmark.licence}.")
    for data in report.data.values():
        stands = f", {data['published']}" if data["published"] else ""
        lines.append(f"- {data['file']}: SHA-256 {data['sha256']}, MD5 {data['md5']}{stands}.")
    return "\n".join(lines)


def _left_out(report: Report, measure: Measure) -> str:
    total = sum(cell.left_out for code in report.languages if (cell := report.find(measure.name, code)))
    if not total:
        return ""
    return (
        f"; {total} {'pictures without both questions' if measure.unit in ('pair', 'picture') else 'answers'} left out"
    )


def _category_parts(report: Report, measures: Sequence[Measure]) -> list[str]:
    parts = []
    for level in ("l2-category", "category"):
        for measure in measures:
            if measure.judge == "kit":
                continue
            names = [name for name in report.groups(level) if _any(report, measure, level, name)]
            if not names:
                continue
            parts.append(f"### {measure.heading}, by {level}")
            for show in (_share, _interval):
                rows = [
                    [name, *(show(report.find(measure.name, code, level, name)) for code in report.languages)]
                    for name in names
                ]
                parts.append(table([level if show is _share else "95 % intervals", *report.languages], rows))
    return parts


def _any(report: Report, measure: Measure, level: str, name: str) -> bool:
    found = (report.find(measure.name, code, level, name) for code in report.languages)
    return any(cell is not None and cell.total for cell in found)
