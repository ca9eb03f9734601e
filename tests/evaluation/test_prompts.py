from dataclasses import replace

import pytest
from tsv_files import choice, open_row, yes_no

from parrot_evaluation.benchmarks import BENCHMARKS
from parrot_evaluation.prompts import prompt
from parrot_evaluation.tsv import read_tsv

# Written out again: a slip in the shared copy must not pass unseen.
INSTRUCTIONS = {
    "en": "\nAnswer with the option's letter from the given choices directly.",
    "cn": "\n请直接用给定选项中的选项字母回答。",
    "pt": "\nResponda diretamente com a letra da opção das escolhas dadas.",
    "ar": "\nأجب مباشرةً بحرف الخيار من الاختيارات المعطاة.",
    "ru": "\nОтветьте буквой варианта из предложенных вариантов напрямую.",
    "tr": "\nVerilen seçeneklerden doğrudan seçeneğin harfi ile cevap verin.",
}
NANO = BENCHMARKS["nano"]


@pytest.fixture
def row_of(make_tsv):
    return lambda row, code="en": read_tsv(make_tsv(f"nano_{code}.tsv", [row])).rows[0]


@pytest.mark.parametrize("code", INSTRUCTIONS)
def test_the_whole_prompt(row_of, code: str) -> None:
    row = row_of(choice("A", "x", "y", question="q?", hint="h"), code)
    assert prompt(row, NANO) == "h\nq?\nA. x\nB. y" + INSTRUCTIONS[code]


@pytest.mark.parametrize("code", INSTRUCTIONS)
def test_run_as_a_group_the_kit_asks_in_english_but_for_chinese(row_of, code: str) -> None:
    row = row_of(choice("A", "x", "y", question="q?"), code)
    assert prompt(row, NANO, "kit-group") == "q?\nA. x\nB. y" + INSTRUCTIONS["cn" if code == "cn" else "en"]


def test_open_questions_stand_alone(row_of) -> None:
    assert prompt(row_of(open_row("red", question="q?")), NANO) == "q?"
    assert prompt(row_of(open_row("red", question="q?", hint="h")), NANO) == "h\nq?"


def test_yes_no_with_options_or_plain(row_of) -> None:
    row = row_of(yes_no("A", question="q?"))
    assert prompt(row, NANO) == "q?\nA. Yes\nB. No" + INSTRUCTIONS["en"]
    assert prompt(row, replace(NANO, yes_no="plain")) == "q?"


def test_options_with_a_gap_keep_their_letters(make_tsv) -> None:
    path = make_tsv("RealWorldQA.tsv", [{"A": "left", "C": "right", "answer": "C", "question": "q?"}])
    row = read_tsv(path, language="en", as_published=True).rows[0]
    assert prompt(row, BENCHMARKS["RealWorldQA"]) == "q?\nA. left\nC. right" + INSTRUCTIONS["en"]


YES_NO = "\nPlease strictly answer Yes or No. Answer the question using a single word or phrase."


@pytest.mark.parametrize(
    ("question", "code", "expected"),
    [
        ("Is it? Please answer yes or no.", "en", "Is it?" + YES_NO),
        ("Is it? Yes or No", "en", "Is it?" + YES_NO),
        ("Is it?", "en", "Is it?" + YES_NO),
        ("Orada mı?", "tr", "Orada mı?" + YES_NO),
        ("是吗？", "cn", "是吗？\n请直接回答Yes或No。请用单个词或短语回答问题。"),
    ],
)
def test_yes_no_as_the_released_adapter_asks(make_tsv, question: str, code: str, expected: str) -> None:
    path = make_tsv(f"MME_{code}.tsv", [open_row("Yes", question=question)])
    row = read_tsv(path, form="yes_no").rows[0]
    assert prompt(row, BENCHMARKS["MME"], "released") == expected
    assert prompt(row, BENCHMARKS["MME"]) == prompt(row, BENCHMARKS["MME"], "kit-group") == question


def test_open_questions_as_the_released_adapter_asks(make_tsv) -> None:
    columns = ["index", "image", "question", "caption", "gpt4_ans", "category"]
    path = make_tsv(
        "LLaVABench.tsv", [{"question": "q?", "caption": "c", "gpt4_ans": "a", "category": "conv"}], columns
    )
    row = read_tsv(path, language="en", form="judged").rows[0]
    assert prompt(row, BENCHMARKS["LLaVA-Bench"], "released") == "q?\nAnswer the question in detail."
    assert prompt(row, BENCHMARKS["LLaVA-Bench"]) == "q?"
    row = read_tsv(make_tsv("RealWorldQA.tsv", [open_row("two", question="q?")]), language="en").rows[0]
    short = "q?\nAnswer the question using a single word or phrase."
    assert prompt(row, BENCHMARKS["RealWorldQA"], "released") == short


def test_letters_are_asked_for_as_ever_by_the_released_adapter(row_of) -> None:
    row = row_of(choice("A", "x", "y", question="q?"), "tr")
    assert prompt(row, BENCHMARKS["MMMB"], "released") == prompt(row, BENCHMARKS["MMMB"])
    assert prompt(row_of(open_row("red", question="q?")), NANO, "released") == "q?"
