import base64
import csv
import hashlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tsv_files import COLUMNS, choice, open_row, picture, write_rows, yes_no

from parrot_evaluation.tsv import file_codes, language_of, read_tsv
from parrot_runtime.errors import InputError


@pytest.mark.parametrize(
    ("name", "code"),
    [("mmmb_cn.tsv", "zh"), ("mmbench_dev_tr.tsv", "tr"), ("nano_AR.tsv", "ar"), ("MMMB_zh.tsv", "zh")],
)
def test_language_from_the_file_name(name: str, code: str) -> None:
    assert language_of(Path(name)) == code


@pytest.mark.parametrize("name", ["mmmb.tsv", "mmmb_fr.tsv", "_.tsv"])
def test_a_name_without_a_language_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="_cn"):
        language_of(Path(name))


def test_file_codes() -> None:
    assert file_codes("zh") == ("cn", "zh")
    assert file_codes("tr") == ("tr",)


def test_reads_every_column(make_tsv) -> None:
    row = choice("C", hint="Look left.", split="dev", **{"l2-category": "choice"})
    table = read_tsv(make_tsv("mmmb_cn.tsv", [row]))
    read = table.rows[0]
    assert (table.language, table.without_image, len(table.sha256)) == ("zh", 0, 64)
    assert read.options == {"A": "a dog", "B": "a cat", "C": "red", "D": "dark red"}
    assert (read.index, read.question, read.hint, read.answer) == ("0", "question 0?", "Look left.", "C")
    assert (read.category, read.l2_category, read.split, read.line) == ("colour", "choice", "dev", 2)
    assert read.image_bytes == base64.b64decode(picture(0))


def test_kinds_come_from_the_options(make_tsv) -> None:
    rows = [
        choice(),
        yes_no("A"),
        yes_no("B", ("没有", "有")),
        yes_no("A", ("نعم", "لا")),
        open_row("kırmızı"),
        choice("A", "left", "right"),
        choice("A", "Yes", "No", "Maybe"),
    ]
    kinds = [row.kind for row in read_tsv(make_tsv("nano_en.tsv", rows)).rows]
    assert kinds == ["choice", "yes_no", "yes_no", "yes_no", "open", "choice", "choice"]


def test_a_short_image_is_another_rows_index(make_tsv) -> None:
    rows = [yes_no("A"), yes_no("B", image="0"), choice(index="x", image="  0 ")]
    first, second, third = read_tsv(make_tsv("nano_tr.tsv", rows)).rows
    assert first.image_bytes == second.image_bytes == third.image_bytes
    assert first.image_id == second.image_id == third.image_id


def test_the_reference_may_stand_before_its_picture(make_tsv) -> None:
    first, second = read_tsv(make_tsv("nano_tr.tsv", [choice(image="1"), choice()])).rows
    assert first.image_id == second.image_id


def test_equal_pictures_written_twice_are_one_picture(make_tsv) -> None:
    rows = read_tsv(
        make_tsv("nano_tr.tsv", [yes_no("A", image=picture(9)), yes_no("B", image=picture(9)), choice()])
    ).rows
    assert rows[0].image_id == rows[1].image_id != rows[2].image_id


def test_commas_quotes_and_right_to_left_text_survive(make_tsv) -> None:
    options = ('He said "no", twice', "a, b, and c", "قطة «سوداء»، كبيرة", "line one\nline two\tand a tab")
    row = choice("D", *options, question="ما هذا؟ \u200f(\u202bA\u202c)")
    read = read_tsv(make_tsv("mmmb_ar.tsv", [row])).rows[0]
    assert tuple(read.options.values()) == options
    assert read.question == "ما هذا؟ \u200f(\u202bA\u202c)"


def test_fields_longer_than_csvs_default_limit(make_tsv) -> None:
    before = csv.field_size_limit(131_072)
    # Pillow stops at the end of the picture; what follows is ignored, as it is by every reader.
    padded = base64.b64encode(base64.b64decode(picture()) + bytes(300_000)).decode()
    read = read_tsv(make_tsv("mmmb_en.tsv", [choice(image=padded)])).rows[0]
    assert len(read.image) > 400_000
    assert csv.field_size_limit(before) == 131_072  # the limit is the whole process's: it is put back


def test_empty_cells_and_the_nan_of_pandas_are_nothing(make_tsv) -> None:
    row = choice("A", "None", "N/A", "nan", "", hint="nan")
    read = read_tsv(make_tsv("mmmb_en.tsv", [row])).rows[0]
    assert read.options == {"A": "None", "B": "N/A"}  # words, not holes
    assert read.hint == ""


def test_a_byte_order_mark_and_windows_line_ends(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a_en.tsv", [{"index": 1, "image": picture(), "question": "q", **choice()}])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert read_tsv(path).rows[0].index == "1"


def test_all_bad_rows_are_told_in_one_line(make_tsv) -> None:
    rows = [
        choice(),
        choice("E"),
        choice(question=" "),
        choice(index="0"),
        choice(index=""),
        choice(answer=""),
        choice("A", "only one"),
        {"A": "x", "C": "y", "answer": "A"},
        choice(image=""),
        choice(image="77"),
        choice(image="!" * 70),
        choice(image="ж" * 70),
        choice(image=base64.b64encode(b"plain text, no picture at all, but long enough for one").decode()),
    ]
    path = make_tsv("mmmb_ru.tsv", rows)
    with pytest.raises(InputError) as caught:
        read_tsv(path)
    message = str(caught.value)
    assert "\n" not in message
    assert "12 of 13 rows" in message
    assert "line 3 (index 1): its answer 'E' is none of A, B, C, D" in message
    assert "line 4 (index 2): it has no question" in message
    assert "line 5 (index 0): its index stands twice" in message
    assert "line 6 (index missing): it has no index" in message
    assert "line 8 (index 6): it has a single option" in message
    assert "its options A, C are not the first" in message
    assert message.count("line ") == 8
    assert "and 4 more" in message


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (choice(image=""), "it has no picture"),
        (choice(image="77"), "its picture is that of row '77', which holds none"),
        (choice(image="!" * 70), "its picture is not base64"),
        (choice(image="ж" * 70), "its picture is not base64"),
        (choice(image=base64.b64encode(b"no picture" * 9).decode()), "its picture is in no known format"),
    ],
)
def test_bad_pictures(make_tsv, row: dict, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_tsv(make_tsv("mmmb_en.tsv", [row]))


def test_rows_without_a_picture_can_be_left_out_and_are_counted(make_tsv) -> None:
    path = make_tsv("mmmb_en.tsv", [choice(), choice(image=""), choice()])
    table = read_tsv(path, skip_missing_images=True)
    assert ([row.index for row in table.rows], table.without_image) == (["0", "2"], 1)
    with pytest.raises(InputError, match="which holds none"):  # a dangling reference is no missing picture
        read_tsv(make_tsv("mmmb_en.tsv", [choice(), choice(image="5")]), skip_missing_images=True)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "lacks index, image, question, answer"),
        (b"index\timage\tquestion\n", "lacks answer"),
        (b"index\timage\tquestion\tanswer\n", "there is no question in it"),
        (b"index\timage\tquestion\tanswer\tindex\n", "column index twice"),
        (b"index\timage\tquestion\tanswer\n1\tx\ty\n", "line 2 has 3 fields where the header has 4"),
        (b"index\timage\tquestion\tanswer\t\t\n", "a column without a name twice"),
        (b'index\timage\tquestion\tanswer\n1\tx\t"y\tz\n', "broken TSV"),
        # The quote is open from line 2 on, and the file ends two lines later.
        (b'index\timage\tquestion\tanswer\n1\tx\t"y\tz\n2\tx\ty\tz\n3\tx\ty\tz\n', "line 2: broken TSV"),
        (b'index\timage\tquestion\tanswer\n1\tx\t"y"y\tz\n', "broken TSV"),
        (b"index\timage\tquestion\tanswer\n1\t\xff\ty\tz\n", "not UTF-8"),
    ],
)
def test_files_that_are_no_such_table(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "mmmb_en.tsv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=said):
        read_tsv(path)


def test_a_missing_file_and_an_unknown_language(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such file"):
        read_tsv(tmp_path / "mmmb_en.tsv")
    with pytest.raises(InputError, match="'fr' is none of"):
        read_tsv(tmp_path / "mmmb_en.tsv", language="fr")


def test_the_line_that_is_no_utf8_is_named(make_tsv) -> None:
    """Far behind the first chunk that a decoder reads, and behind a cell of two lines."""
    path = make_tsv("nano_en.tsv", [choice(question=f"{n} {'x' * 300}" + "\ny" * (n == 7)) for n in range(60)])
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"50 x", b"50 \xff"))
    line = whole[: whole.index(b"50 x")].count(b"\n") + 1
    with pytest.raises(InputError, match=f"nano_en.tsv: line {line}: not UTF-8; expected a TSV file in UTF-8"):
        read_tsv(path)
    assert line == 53


# Any text but lone surrogates, which no UTF-8 file holds, and carriage returns, which csv writers may rewrite.
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), min_size=1).filter(
    lambda text: text.strip() not in ("", "nan", "NaN")
)


@settings(max_examples=60, deadline=None)
@given(question=TEXT, hint=TEXT, options=st.lists(TEXT, min_size=2, max_size=4), data=st.data())
def test_any_text_is_read_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, question: str, hint: str, options: list[str], data: st.DataObject
) -> None:
    answer = data.draw(st.sampled_from("ABCD"[: len(options)]))
    row = {"index": 5, "image": picture(), "question": question, "hint": hint, **choice(answer, *options)}
    path = write_rows(tmp_path_factory.mktemp("tsv") / "x_pt.tsv", [row])
    read = read_tsv(path).rows[0]
    assert (read.question, read.hint, list(read.options.values())) == (question, hint, options)
    assert read.answer == answer


@settings(max_examples=150, deadline=None)
@given(body=st.binary(max_size=300))
def test_any_bytes_are_a_table_or_one_clear_line(tmp_path_factory: pytest.TempPathFactory, body: bytes) -> None:
    path = tmp_path_factory.mktemp("tsv") / "x_en.tsv"
    path.write_bytes("\t".join(COLUMNS).encode() + b"\n" + body)
    with pytest.raises(InputError) as caught:
        read_tsv(path)
    # A quoted index may hold anything; the error is still printed as one line by every command.
    assert str(caught.value).startswith(str(path))


def test_published_files_may_have_answers_that_are_no_option_and_gaps(make_tsv) -> None:
    rows = [choice("A", "left", "right"), choice("C", "left", "right"), {"A": "x", "C": "y", "answer": "C"}]
    rows.append(open_row("two"))  # has no options, so its answer is none of them and right all the same
    path = make_tsv("RealWorldQA.tsv", rows)
    with pytest.raises(InputError, match="2 of 4 rows cannot be used"):
        read_tsv(path, language="en")
    table = read_tsv(path, language="en", as_published=True)
    assert [(row.answer, row.unanswerable) for row in table.rows] == [
        ("A", False),
        ("C", True),
        ("C", False),
        ("two", False),
    ]
    assert table.rows[2].options == {"A": "x", "C": "y"}
    with pytest.raises(InputError, match="it has no answer"):  # that none can have
        read_tsv(make_tsv("RealWorldQA.tsv", [choice("")]), language="en", as_published=True)


def test_plain_yes_no_rows_and_their_kind(make_tsv) -> None:
    rows = [open_row("yes", image_path="a/b.jpg"), open_row("Hayır"), yes_no("A")]
    plain, translated, options = read_tsv(
        make_tsv("MME_tr.tsv", rows, [*COLUMNS, "image_path"]), language="tr", form="yes_no"
    ).rows
    assert (plain.kind, plain.answer, plain.yes_no, plain.image_path) == (
        *("yes_no", "Yes", {"yes": "Yes", "no": "No"}, "a/b.jpg"),
    )
    assert (translated.kind, translated.answer) == ("yes_no", "No")
    assert (options.kind, options.answer, options.yes_no) == ("yes_no", "A", {"yes": "A", "no": "B"})
    # Options beside an answer that is the word: the word counts, as in the kit, and the question is asked as it stands.
    shown = yes_no("A") | {"answer": "Yes"}
    for as_published in (False, True):
        path = make_tsv("MME_tr.tsv", [shown])
        (row,) = read_tsv(path, language="tr", form="yes_no", as_published=as_published).rows
        assert (row.kind, row.answer, row.options) == ("yes_no", "Yes", {})
    with pytest.raises(InputError, match=r"line 3 \(index 1\): its options are not Yes and No"):
        read_tsv(make_tsv("MME_tr.tsv", [yes_no("A"), choice("A", category="count")]), form="yes_no")


def test_both_checksums_are_those_of_the_file(make_tsv) -> None:
    path = make_tsv("mmmb_en.tsv", [choice()])
    table = read_tsv(path)
    assert table.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert table.md5 == hashlib.md5(path.read_bytes()).hexdigest()


def test_the_nan_of_pandas_is_no_picture_either(make_tsv) -> None:
    path = make_tsv("ScienceQA_TEST.tsv", [choice(), choice(image="nan"), choice(image="")])
    assert read_tsv(path, language="en", skip_missing_images=True).without_image == 2


def test_files_with_every_field_in_quotes_as_the_kit_writes_them(tmp_path: Path) -> None:
    rows = [{"index": 1, "image": picture(), "question": 'Which "one"?', **choice("A", "a, b", "c")}]
    path = tmp_path / "MMStar.tsv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, delimiter="\t", quoting=csv.QUOTE_ALL, lineterminator="\n", restval="")
        writer.writeheader()
        writer.writerows(rows)
    read = read_tsv(path, language="en").rows[0]
    assert (read.question, read.options, read.hint) == ('Which "one"?', {"A": "a, b", "B": "c"}, "")
