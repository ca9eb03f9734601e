"""The paper's tables with our rows under theirs: ``parrot-eval tables``."""

from collections.abc import Sequence
from itertools import zip_longest

from parrot_evaluation.grids import Entry, Format, Grid, GridRow, render
from parrot_evaluation.paper_tables import SOURCE, Column, PaperTable, paper_table
from parrot_evaluation.report import conditions
from parrot_evaluation.results import Result
from parrot_runtime.errors import InputError

_PUBLISHED = "as published"


def paper_beside(results: Sequence[Result], numbers: Sequence[int], measures: Sequence[str], kind: Format) -> str:
    """The paper's tables ``numbers``, our rows added, as text of the format ``kind``.

    ``measures`` are the scorings to show; none given shows the first of each benchmark, by both extractions, and Yes/No
    pairs. Raises InputError for a measure that no result has.
    """
    known = dict.fromkeys(name for result in results for name in result.measures)
    for name in measures:
        if name not in known:
            raise InputError(f"--measure {name!r}: no result has it; they have {', '.join(known)}")
    return render([build(paper_table(number), results, measures) for number in numbers], kind)


def build(published: PaperTable, results: Sequence[Result], measures: Sequence[str] = ()) -> Grid:
    """One table. The paper's figures stay digit for digit as printed, and get no interval."""
    theirs = [_published_row(published, row) for row in published.rows]
    shown = [(of_one, _our_rows(published, of_one, measures)) for of_one in _by_model(published, results)]
    ours = [row for _, rows in shown for row in rows]
    used = [result for of_one, rows in shown if rows for result in of_one]
    return Grid(
        published.number,
        published.title,
        tuple(heading for _, heading in published.names),
        tuple(column.heading for column in published.columns),
        (*theirs, *ours),
        tuple(_notes(published, used, ours, measures)),
    )


def _published_row(published: PaperTable, row: dict[str, str]) -> GridRow:
    names = tuple(row[key] for key, _ in published.names)
    return GridRow("paper", names, _PUBLISHED, tuple(_printed(row[column.key]) for column in published.columns))


def _printed(text: str) -> Entry | None:
    return Entry(text) if text else None


def _by_model(published: PaperTable, results: Sequence[Result]) -> list[list[Result]]:
    """The results of one row: each by itself, or one of each benchmark where the columns are of several."""
    if published.form == "languages":
        return [[result] for result in results]
    models: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        if result.benchmark in published.benchmarks:
            models.setdefault((result.label, str(result.settings.get("model_fingerprint"))), []).append(result)
    return list(models.values())


def _our_rows(published: PaperTable, row: Sequence[Result], measures: Sequence[str]) -> list[GridRow]:
    if published.form == "judged":
        entries = tuple(_judged(row, column) for column in published.columns)
        # Neither the judge nor what it is told is the paper's.
        return [GridRow("ours", _names(published, row), "judge, relative", entries, False)] if any(entries) else []
    chosen = [_measures(result, measures) for result in row]
    rows = []
    for names in zip_longest(*chosen):
        entries = tuple(_entry(row, names, column) for column in published.columns)
        if any(entries):
            scoring = " / ".join(dict.fromkeys(name for name in names if name))
            rows.append(GridRow("ours", _names(published, row), scoring, entries, _comparable(published, row)))
    return rows


def _measures(result: Result, wanted: Sequence[str]) -> list[str]:
    if wanted:
        return [name for name in wanted if name in result.measures]
    first = next(iter(result.measures), None)
    # Pairs may be the first that was counted.
    return [name for name in dict.fromkeys((first, f"{first}_kit", "pairs")) if name in result.measures]


def _entry(row: Sequence[Result], names: Sequence[str | None], column: Column) -> Entry | None:
    for result, name in zip(row, names, strict=True):
        if name is None or column.benchmark not in ("", result.benchmark):
            continue
        figure = result.find(name, column.language)
        if figure is not None:
            return Entry(f"{figure.value:.1f}", figure.low, figure.high, figure.total)
    return None


def _judged(row: Sequence[Result], column: Column) -> Entry | None:
    """Mean(model) / mean(reference) × 100 of LLaVA-Bench, which has no interval."""
    found = [score for result in row if (score := result.score("relative", column.language, column.group))]
    return Entry(f"{found[0][0]:.1f}", total=found[0][1]) if found else None


def _names(published: PaperTable, row: Sequence[Result]) -> tuple[str, ...]:
    """Our model under the column of methods, its benchmark under that of benchmarks; the others stay empty."""
    known = {"method": row[0].label, "model": row[0].label, "benchmark": row[0].benchmark}
    return tuple(known.get(key, "") for key, _ in published.names)


def _comparable(published: PaperTable, row: Sequence[Result]) -> bool:
    return all(result.benchmark in published.benchmarks for result in row)


def _notes(
    published: PaperTable, results: Sequence[Result], ours: Sequence[GridRow], wanted: Sequence[str]
) -> list[str]:
    """What stands under the table; ``results`` are those that ``ours`` were made of."""
    notes = [f"paper: {SOURCE}, Table {published.number}; it prints neither n nor intervals."]
    if not ours:
        return [*notes, "ours: none of the results given has figures for this table."]
    if published.form == "judged":
        notes += [
            "ours: mean(model) / mean(reference) × 100 (n), as the judge of that run scored; no interval.",
            "The paper's judge was another and was told other things: rows of ours cannot be compared with its own.",
        ]
    else:
        notes.append("ours: per cent right [95 % interval, Wilson] (n).")
    if published.form != "judged" and any(not row.comparable for row in ours):
        notes.append(
            f"Rows of ours whose benchmark is not {' or '.join(published.benchmarks)} answer other questions: "
            "they cannot be compared with the paper's."
        )
    several = len({result.benchmark for result in results}) > 1
    # Both a measure and a model may be called the same in two benchmarks, and mean something else.
    explained = [
        f"{f'{result.benchmark}, ' if several else ''}{name}: {result.measures[name]['explanation']}."
        for result in results
        for name in ([] if published.form == "judged" else _measures(result, wanted))
    ]
    special = [
        f"{result.label}{f', {result.benchmark}' if several else ''}: {'; '.join(said)}."
        for result in results
        if (said := conditions(result.settings, result.report["data"]))
    ]
    return [*notes, *dict.fromkeys(explained), *special]
