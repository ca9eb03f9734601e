"""The sheet for people: what goes out comes back, formulas are made harmless, and wrong rows are refused together."""

import csv
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_translation import conversation, expected

from parrot_runtime.errors import InputError
from parrot_train.translation import sheet as sheets
from parrot_train.translation.sheet import SheetError, import_sheet, write_sheet


def translated(number, **changes):
    """A record as `data translate` writes it."""
    item = conversation(number)
    source = [turn["value"] for turn in item["conversations"]]
    new = [{**turn, "value": text} for turn, text in zip(item["conversations"], expected(number), strict=True)]
    flags = [["numbers"] if number == 1 and place == 0 else [] for place in range(len(new))]
    note = {"from": "en", "model": "m", "source": source, "votes": [1, 2], "flags": flags}
    return {**item, "language": "tr", "conversations": new, "translation": note, **changes}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "tr.json"
    path.write_text(json.dumps([translated(number) for number in range(5)]))
    return path


def rows_of(path):
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file, dialect="excel" if path.suffix == ".csv" else "excel-tab"))


def save(path, rows, newline="\r\n"):
    with path.open("w", encoding="utf-8", newline="") as file:
        dialect = "excel" if path.suffix == ".csv" else "excel-tab"
        writer = csv.DictWriter(file, sheets.COLUMNS, dialect=dialect, lineterminator=newline)
        writer.writeheader()
        writer.writerows(rows)


@pytest.mark.parametrize("suffix", ["csv", "tsv"])
def test_one_row_a_turn_with_both_texts(file, tmp_path, suffix):
    sheet = tmp_path / f"sheet.{suffix}"
    assert write_sheet(file, sheet, sample=None, flagged=False, seed=0, force=False) == (5, 12)
    assert sheet.read_bytes().startswith(b"\xef\xbb\xbf") == (suffix == "csv")
    rows = rows_of(sheet)
    assert tuple(rows[0]) == sheets.COLUMNS
    assert [row["translation"] for row in rows] == [text for number in range(5) for text in expected(number)]
    assert rows[2] | {"source": "", "translation": ""} == {
        **dict.fromkeys(sheets.COLUMNS, ""),
        "record": "1",
        "turn": "0",
        "id": "n1",
        "from": "human",
        "votes": "1/2",
        "flags": "numbers",
    }


def test_a_sample_and_the_flagged(file, tmp_path):
    def drawn(name, **options):
        write_sheet(file, tmp_path / name, **{"sample": None, "flagged": False, "seed": 0, "force": True, **options})
        return [int(row["record"]) for row in rows_of(tmp_path / name)]

    assert set(drawn("a.csv", flagged=True)) == {1}
    first = drawn("b.csv", sample=3)
    assert len(set(first)) == 3
    assert drawn("c.csv", sample=3) == first
    assert any(drawn("d.csv", sample=3, seed=seed) != first for seed in range(1, 6))


@pytest.mark.parametrize("newline", ["\r\n", "\n"])
@pytest.mark.parametrize("suffix", ["csv", "tsv"])
def test_verdicts_and_corrections_are_applied(file, tmp_path, suffix, newline):
    sheet = tmp_path / f"sheet.{suffix}"
    write_sheet(file, sheet, sample=None, flagged=False, seed=0, force=False)
    rows = rows_of(sheet)
    by_place = {(row["record"], row["turn"]): row for row in rows}
    by_place["0", "0"]["verdict"] = "OK "
    by_place["0", "1"] |= {"verdict": "corrected", "corrected": "Solda https://example.org/0 önünde 2 araba var."}
    better = "Hangisi bu?\r\nA. bir kedi\r\nB. bir köpek\r\n<image>"  # as a spreadsheet ends its lines
    by_place["2", "0"] |= {"verdict": "corrected", "corrected": better}
    by_place["3", "1"]["verdict"] = "reject"
    save(sheet, rows, newline)
    change, left = import_sheet(sheet, file, tmp_path / "final.json", force=False)
    assert (left, change.rejected) == (4, {3})
    assert change.verdicts == {"ok": 1, "corrected": 2, "reject": 1}
    items = {item["id"]: item for item in json.loads((tmp_path / "final.json").read_text("utf-8"))}
    assert list(items) == ["n0", "n1", "n2", "n4"]
    assert items["n0"]["conversations"][1]["value"] == "Solda https://example.org/0 önünde 2 araba var."
    assert items["n0"]["translation"]["corrected"] == [1]
    assert items["n2"]["conversations"][0]["value"] == better.replace("\r\n", "\n")
    assert items["n1"] == translated(1)
    assert items["n4"] == translated(4)


@pytest.mark.parametrize(
    ("place", "changes", "words"),
    [
        (0, {"verdict": "good"}, "the verdict is 'good'"),
        (0, {"verdict": "corrected"}, "belong together"),
        (0, {"corrected": "<image>\nSolda ne var?"}, "belong together"),
        (0, {"verdict": "ok", "id": "n9"}, "id or source are not those of record 0, turn 0"),
        (0, {"verdict": "ok", "source": "What?"}, "id or source are not those"),
        (0, {"verdict": "ok", "record": "77"}, "there is no record 77"),
        (0, {"verdict": "ok", "turn": "9"}, "record 0 has no turn 9"),
        (0, {"verdict": "ok", "turn": "x"}, "no numbers under record and turn"),
        (0, {"verdict": "corrected", "corrected": "Solda ne var?"}, "the correction lost '<image>'"),
        (1, {"verdict": "corrected", "corrected": "Solda 2 araba var."}, "lost 'https://example.org/0'"),
        (4, {"verdict": "corrected", "corrected": "Hangisi?\nA. kedi\nköpek\n<image>"}, "lost 'B.'"),
        (1, {"verdict": "corrected", "corrected": "https://example.org/0 <image>"}, "another number of <image> marks"),
        (4, {"verdict": "corrected", "corrected": "Hangisi? A. kedi B. köpek <image>"}, "1 lines, its source 4"),
    ],
)
def test_wrong_rows_are_told_together_and_nothing_is_written(file, tmp_path, place, changes, words):
    sheet = tmp_path / "sheet.csv"
    write_sheet(file, sheet, sample=None, flagged=False, seed=0, force=False)
    rows = rows_of(sheet)
    rows[place] |= changes
    rows[-1]["verdict"] = "hm"
    save(sheet, rows)
    with pytest.raises(SheetError) as caught:
        import_sheet(sheet, file, tmp_path / "final.json", force=False)
    assert str(caught.value).startswith("2 rows of ")
    assert words in str(caught.value)
    assert "the verdict is 'hm'" in str(caught.value)
    assert not (tmp_path / "final.json").exists()


def test_what_a_spreadsheet_does_to_cells_is_no_change(tmp_path):
    item = translated(0, id="000000033471")
    code = "```a\r\nb```"
    item["translation"]["source"] = [f"<image>\n{code} and", "1/2"]
    item["conversations"][0]["value"] = f"<image>\n{code} ve" + "!" * 200_000  # more than csv reads unless told
    path, sheet = tmp_path / "tr.json", tmp_path / "sheet.csv"
    path.write_text(json.dumps([item]))
    write_sheet(path, sheet, sample=None, flagged=False, seed=0, force=False)
    csv.field_size_limit(1 << 27)
    rows = rows_of(sheet)
    rows[0] |= {"verdict": "corrected", "id": "33471", "corrected": f"<image>\n{code} da"}
    rows[1] |= {"verdict": "ok", "id": "33471", "source": "01.Feb"}
    save(sheet, rows)
    csv.field_size_limit(131_072)
    change, left = import_sheet(sheet, path, tmp_path / "final.json", force=False)
    assert (left, change.verdicts) == (1, {"ok": 1, "corrected": 1})
    (final,) = json.loads((tmp_path / "final.json").read_text())
    assert final["conversations"][0]["value"] == "<image>\n```a\nb``` da"


def test_half_a_character_in_an_id_is_no_hindrance(tmp_path):
    path, sheet = tmp_path / "tr.json", tmp_path / "sheet.tsv"
    path.write_text(json.dumps([translated(0, id="\ud800")]))
    write_sheet(path, sheet, sample=None, flagged=False, seed=0, force=False)
    rows = rows_of(sheet)
    rows[1]["verdict"] = "ok"
    save(sheet, rows)
    assert import_sheet(sheet, path, tmp_path / "final.json", force=False)[1] == 1


def test_pictures_are_found_from_where_the_corrected_file_stands(file, tmp_path):
    sheet, output = tmp_path / "sheet.csv", tmp_path / "other" / "final.json"
    write_sheet(file, sheet, sample=None, flagged=False, seed=0, force=False)
    import_sheet(sheet, file, output, force=False)
    assert [item["image"] for item in json.loads(output.read_text())] == [f"../pictures/{n}.png" for n in range(5)]


@pytest.mark.parametrize("text", ['=HYPERLINK("http://x";"y")', "+1", "-1 araba", "@SUM(A1)", "'=1+1", "\t=1", "''a"])
def test_a_formula_is_no_formula_in_the_sheet_and_itself_again_afterwards(tmp_path, text):
    item = translated(0)
    item["conversations"][1]["value"] = text
    item["translation"]["source"][1] = text
    path, sheet = tmp_path / "tr.json", tmp_path / "sheet.csv"
    path.write_text(json.dumps([item]))
    write_sheet(path, sheet, sample=None, flagged=False, seed=0, force=False)
    rows = rows_of(sheet)
    assert rows[1]["translation"][0] == rows[1]["source"][0] == "'"
    rows[1] |= {"verdict": "corrected", "corrected": rows[1]["translation"]}
    save(sheet, rows)
    import_sheet(sheet, path, tmp_path / "final.json", force=False)
    (final,) = json.loads((tmp_path / "final.json").read_text())
    assert final["conversations"][1]["value"] == text


@settings(max_examples=300, deadline=None)
@given(st.text("=+-@'\t\r\na ", max_size=8))
def test_every_cell_comes_back(text):
    safe = sheets._safe(text)
    assert sheets._plain(safe) == text
    assert not safe.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))


def test_other_files_are_refused(file, tmp_path):
    plain = tmp_path / "plain.json"
    plain.write_text(json.dumps([conversation(0)]))
    options = {"sample": None, "flagged": False, "seed": 0, "force": False}
    with pytest.raises(InputError, match="was not written by `parrot-train data translate`"):
        write_sheet(plain, tmp_path / "s.csv", **options)
    with pytest.raises(InputError, match=r"ends in .csv or .tsv"):
        write_sheet(file, tmp_path / "s.xlsx", **options)
    with pytest.raises(InputError, match="no such file"):
        import_sheet(tmp_path / "none.csv", file, tmp_path / "f.json", force=False)
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="expected the columns record, turn"):
        import_sheet(tmp_path / "bad.csv", file, tmp_path / "f.json", force=False)
    (tmp_path / "bytes.csv").write_bytes(b"record\xff\xfe\x00")
    with pytest.raises(InputError, match="not readable as a sheet"):
        import_sheet(tmp_path / "bytes.csv", file, tmp_path / "f.json", force=False)
