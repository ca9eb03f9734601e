"""A translation for people to calibrate: a sheet to fill in, and its way back.

One row a turn. Whoever reads it writes ``ok``, ``corrected`` or ``reject`` under *verdict*, and the better text under
*corrected*; an empty verdict leaves the turn as it is. A rejected turn takes its whole conversation out. The sheet is
CSV (``.csv``, with the mark by which spreadsheets know UTF-8) or TSV (``.tsv``).

Spreadsheets take a cell that begins with ``=``, ``+``, ``-`` or ``@`` for a formula, and text from a model or from the
web could be one. Such cells get an apostrophe in front, which is taken off again on the way back.
"""

import csv
import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from parrot_runtime.errors import InputError
from parrot_runtime.prompt import IMAGE_PLACEHOLDER
from parrot_runtime.publish import publish_file
from parrot_train.data.json_list import image_mover, publish_list
from parrot_train.data.partition import seeded
from parrot_train.data.records import good_records
from parrot_train.translation.protect import kept_parts
from parrot_train.translation.run import KEY

COLUMNS = ("record", "turn", "id", "from", "source", "translation", "votes", "flags", "verdict", "corrected")
VERDICTS = ("", "ok", "corrected", "reject")
_SHOWN = 20
# Of a cell: no turn is as long, and the csv module's own limit is 131,072.
_MOST_CHARACTERS = 1 << 27
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "'")


class SheetError(InputError):
    """Rows of a sheet that cannot be used; the message lists the first, one per line."""

    keep_lines = True


def write_sheet(
    translated: Path, sheet: Path, *, sample: int | None, flagged: bool, seed: int, force: bool
) -> tuple[int, int]:
    """Write the turns of ``translated`` into ``sheet``; how many records and rows there are.

    ``flagged`` takes only conversations with something flagged, ``sample`` draws that many by ``seed``. Raises
    InputError for a file that `data translate` did not write.
    """
    chosen = [row for row, item in _translated(translated) if not flagged or any(item[KEY]["flags"])]
    if sample is not None:
        chosen = sorted(sorted(chosen, key=lambda row: seeded(seed, row))[:sample])
    if not chosen:
        raise InputError(f"{translated}: no conversation is flagged, so there is nothing to write")
    wanted, rows = set(chosen), 0
    with publish_file(sheet, force=force) as file:
        text = io.TextIOWrapper(file, "utf-8-sig" if _dialect(sheet) == "excel" else "utf-8", newline="")
        writer = csv.writer(text, _dialect(sheet))
        writer.writerow(COLUMNS)
        for row, item in _translated(translated):
            if row in wanted:
                for cells in _cells(row, item):
                    writer.writerow([_safe(cell) for cell in cells])
                    rows += 1
        text.flush()
        text.detach()
    return len(chosen), rows


@dataclass
class Calibration:
    """What a sheet changes: new texts by (record, turn), records to leave out, and how often each verdict stands."""

    texts: dict[tuple[int, int], str] = field(default_factory=dict)
    rejected: set[int] = field(default_factory=set)
    verdicts: Counter = field(default_factory=Counter)


def import_sheet(sheet: Path, translated: Path, output: Path, *, force: bool) -> tuple[Calibration, int]:
    """Write ``translated`` with the sheet's corrections into ``output``; what changed, and how many records are left.

    Raises SheetError, with all problems, where a row names no turn of the file, its source or id is not that of the
    file, its verdict is unknown, or its correction lost a mark, an option letter or a line.
    """
    rows, problems = _read(sheet)
    change = Calibration()
    for number, item in _translated(translated):
        for row in rows.pop(number, ()):
            problem = _take(row, number, item, change)
            if problem:
                problems.append(f"line {row['line']}: {problem}")
    problems += [f"line {row['line']}: there is no record {number}" for number in rows for row in rows[number]]
    if problems:
        shown = [f"{len(problems)} rows of {sheet} cannot be used; nothing was written:"]
        shown += [f"  {problem}" for problem in problems[:_SHOWN]]
        shown += [f"  … and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
        raise SheetError("\n".join(shown))
    move = image_mover(translated.parent, output.parent)
    with publish_list(output, force=force) as writer:
        for number, item in _translated(translated):
            if number not in change.rejected:
                writer.add(_calibrated(number, move(item), change))
    return change, writer.records


def _translated(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for row, (item, _) in enumerate(good_records(path)):
        note = item.get(KEY)
        turns = len(item["conversations"])
        fits = isinstance(note, dict) and all(
            isinstance(note.get(name), list) and len(note[name]) == turns for name in ("source", "flags")
        )
        if not fits:
            raise InputError(f"{path}[{row}]: was not written by `parrot-train data translate`, or was changed since")
        yield row, item


def _cells(row: int, item: dict[str, Any]) -> Iterator[list[str]]:
    note = item[KEY]
    votes = "/".join(map(str, note.get("votes", [])))
    turns = zip(item["conversations"], note["source"], note["flags"], strict=True)
    for number, (turn, source, flags) in enumerate(turns):
        yield [str(row), str(number), _id(item), turn["from"], source, turn["value"], votes, " ".join(flags), "", ""]


def _read(sheet: Path) -> tuple[dict[int, list[dict[str, Any]]], list[str]]:
    """The rows with a verdict or a correction, by record, and what is wrong with others."""
    rows: dict[int, list[dict[str, Any]]] = {}
    problems: list[str] = []
    try:
        csv.field_size_limit(_MOST_CHARACTERS)
        with sheet.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, dialect=_dialect(sheet), strict=True)
            if not set(COLUMNS) <= set(reader.fieldnames or ()):
                raise InputError(f"{sheet}: expected the columns {', '.join(COLUMNS)}, got {reader.fieldnames}")
            for row in reader:
                cells: dict[str, Any] = {name: _plain(row.get(name) or "") for name in COLUMNS}
                cells["verdict"] = cells["verdict"].strip().lower()
                if not cells["verdict"] and not cells["corrected"].strip():
                    continue
                cells["line"] = reader.line_num
                if cells["record"].isdecimal() and cells["turn"].isdecimal():
                    rows.setdefault(int(cells["record"]), []).append(cells)
                else:
                    problems.append(f"line {reader.line_num}: no numbers under record and turn")
    except FileNotFoundError as error:
        raise InputError(f"{sheet}: there is no such file; `parrot-train data sheet` writes one") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{sheet}: not readable as a sheet ({error}); save it as CSV or TSV in UTF-8") from error
    return rows, problems


def _take(row: dict[str, Any], number: int, item: dict[str, Any], change: Calibration) -> str | None:
    """Note what ``row`` says of record ``number``; or what is wrong with it."""
    turn, verdict, text = int(row["turn"]), row["verdict"], row["corrected"]
    sources = item[KEY]["source"]
    if turn >= len(sources):
        return f"record {number} has no turn {turn}"
    if not (_same_text(row["source"], sources[turn]) and _same_id(row["id"], _id(item))):
        return f"id or source are not those of record {number}, turn {turn}: is it the sheet of this file?"
    if verdict not in VERDICTS:
        return f"the verdict is '{verdict}'; expected ok, corrected or reject"
    if bool(text.strip()) != (verdict == "corrected"):
        return "the verdict 'corrected' and a text under corrected belong together; one of them is missing"
    if (number, turn) in change.texts:
        return f"record {number}, turn {turn} is corrected twice"
    if verdict == "corrected":
        problem = _lost(_lines(sources[turn]), _lines(text))
        if problem:
            return problem
        change.texts[number, turn] = _lines(text)
    elif verdict == "reject":
        change.rejected.add(number)
    change.verdicts[verdict] += 1
    return None


def _id(item: dict[str, Any]) -> str:
    """A record's id as a cell can hold it: half a character cannot be written."""
    return str(item.get("id", "")).encode("utf-8", "backslashreplace").decode()


def _same_text(cell: str, source: str) -> bool:
    """Whether a spreadsheet may have made ``cell`` of ``source``: to which what has no letters may be a day."""
    return _lines(cell) == _lines(source) or not any(character.isalpha() for character in source)


def _same_id(cell: str, name: str) -> bool:
    """Whether a spreadsheet may have made ``cell`` of ``name``: of a number it drops the leading zeros."""
    return cell == name or (name.isdecimal() and cell.lstrip("0") == name.lstrip("0"))


def _lost(source: str, corrected: str) -> str | None:
    """What of the things that must not change is not in ``corrected`` as it is in ``source``; None where all is."""
    lost = [part for part, count in Counter(kept_parts(source)).items() if corrected.count(part) < count]
    if lost:
        return f"the correction lost {', '.join(map(repr, lost))}"
    if corrected.count(IMAGE_PLACEHOLDER) != source.count(IMAGE_PLACEHOLDER):
        return f"the correction has another number of {IMAGE_PLACEHOLDER} marks than its source"
    if source.count("\n") != corrected.count("\n"):
        return f"the correction has {corrected.count(chr(10)) + 1} lines, its source {source.count(chr(10)) + 1}"
    return None


def _calibrated(number: int, item: dict[str, Any], change: Calibration) -> dict[str, Any]:
    turns = [
        {**turn, "value": change.texts.get((number, place), turn["value"])}
        for place, turn in enumerate(item["conversations"])
    ]
    places = [place for place in range(len(turns)) if (number, place) in change.texts]
    return {**item, "conversations": turns, KEY: {**item[KEY], "corrected": places}} if places else item


def _dialect(sheet: Path) -> str:
    try:
        return {".csv": "excel", ".tsv": "excel-tab"}[sheet.suffix.lower()]
    except KeyError as error:
        raise InputError(f"{sheet}: expected a name that ends in .csv or .tsv") from error


def _safe(cell: str) -> str:
    return "'" + cell if cell.startswith(_FORMULA) else cell


def _plain(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(_FORMULA) else cell


def _lines(text: str) -> str:
    """Spreadsheets write other ends of line than they read."""
    return text.replace("\r\n", "\n").replace("\r", "\n")
