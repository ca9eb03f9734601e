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
