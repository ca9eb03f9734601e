"""What ``parrot-train data check`` prints and writes of a survey."""

import json
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from parrot_runtime.errors import InputError
from parrot_runtime.languages import CODES
from parrot_runtime.publish import publish_file
from parrot_train.data.survey import DUPLICATES, LanguageSurvey, Survey, quantiles

SHOWN = 20


class BadDataError(InputError):
    """Data files that training would refuse; the message lists the first errors, one per line."""

    keep_lines = True


def as_data(found: Survey) -> dict[str, Any]:
    """The survey as plain data: counts, and every error and warning."""
    return {
        "files": found.files,
        "pictures": found.pictures,
        "languages": {code: _language(found.languages[code]) for code in _ordered(found)},
        "errors": [asdict(problem) for problem in found.errors],
        "warnings": {
            "duplicates": [asdict(duplicate) for duplicate in found.duplicates],
            "language": [asdict(problem) for problem in found.other_language],
        },
    }


def describe(found: Survey) -> list[str]:
    """A table by language, and a line for each kind of warning."""
    counted = any(language.tokens for language in found.languages.values())
    head = ["language", "records", "turns", "with image", "chars p50", "p95", "max"]
    head += ["tokens p50", "p95", "max", "cut"] if counted else []
    rows = [_row(code, found.languages[code], counted) for code in _ordered(found)]
    if len(rows) > 1:
        rows.append(_row("all", _sum(list(found.languages.values())), counted))
    lines = table([[*head, "duplicates"], *rows])
    lines.append(f"{sum(found.files.values()):,} records, {found.pictures:,} pictures, {len(found.errors):,} errors")
    kinds = Counter(duplicate.kind for duplicate in found.duplicates)
    lines += [f"warning: {kinds[kind]:,} records repeat an earlier {kind}" for kind in DUPLICATES if kinds[kind]]
    if found.other_language:
        lines.append(f"warning: {len(found.other_language):,} records read as another language: {_some(found)}")
    unnamed = found.languages.get("und")
    if unnamed:
        seen = ", ".join(f"{code} {count:,}" for code, count in unnamed.seen_as.most_common()) or "none that shows"
        lines.append(f"{unnamed.records:,} records name no language; they read as: {seen}")
    return lines


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """``rows`` of text in columns, the first to the left and the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    padded = [[cell.rjust(width) for cell, width in zip(row, widths, strict=True)] for row in rows]
    return ["  ".join([row[0].ljust(widths[0]), *cells[1:]]).rstrip() for row, cells in zip(rows, padded, strict=True)]


def write_report(path: Path, found: Survey, *, force: bool) -> None:
    """All of the survey into ``path`` as JSON. Raises InputError where it exists and ``force`` is not given."""
    with publish_file(path, force=force) as file:
        file.write(json.dumps(as_data(found), ensure_ascii=False, indent=1).encode("utf-8", "backslashreplace"))


def refuse_errors(found: Survey, report: Path | None) -> None:
    """Raise BadDataError, with the first SHOWN of them, where the survey found errors."""
    if not found.errors:
        return
    lines = [f"{len(found.errors):,} errors in {sum(found.files.values()):,} records; training would refuse these:"]
    lines += [f"  {problem}" for problem in found.errors[:SHOWN]]
    if len(found.errors) > SHOWN:
        where = f"all are in {report}" if report else "--report FILE writes them all"
        lines.append(f"  … and {len(found.errors) - SHOWN:,} more; {where}")
    raise BadDataError("\n".join(lines))


def _ordered(found: Survey) -> list[str]:
    known = [code for code in CODES if code in found.languages]
    return known + sorted(set(found.languages) - set(known))


def _language(one: LanguageSurvey) -> dict[str, Any]:
    return {
        "records": one.records,
        "turns": one.turns,
        "with_image": one.with_image,
        "characters": quantiles(one.characters),
        "tokens": quantiles(one.tokens),
        "cut": one.cut,
        "duplicates": one.duplicates,
        "reads_as": dict(one.seen_as),
    }


def _row(code: str, one: LanguageSurvey, counted: bool) -> list[str]:
    cells = [one.records, one.turns, one.with_image, *quantiles(one.characters).values()]
    if counted:
        cells += [*(quantiles(one.tokens).values() or ("", "", "")), one.cut]
    return [code, *(f"{cell:,}" if cell != "" else "" for cell in [*cells, one.duplicates])]


def _sum(parts: Sequence[LanguageSurvey]) -> LanguageSurvey:
    whole = LanguageSurvey()
    for part in parts:
        for name in ("records", "turns", "with_image", "cut", "duplicates"):
            setattr(whole, name, getattr(whole, name) + getattr(part, name))
        whole.characters = array("L", [*whole.characters, *part.characters])
        whole.tokens = array("L", [*whole.tokens, *part.tokens])
    return whole


def _some(found: Survey) -> str:
    shown = [f"{problem.file}[{problem.row}] {problem.reason}" for problem in found.other_language[:3]]
    return "; ".join(shown) + ("; …" if len(found.other_language) > 3 else "")
