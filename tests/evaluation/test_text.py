import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parrot_evaluation.text import clean, fold, normalise


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("（Ａ）：ｂ", "(A):b"),
        ("\u200f\u202bأ\u202c\u200f", "أ"),
        ("كِتَابٌ", "كتاب"),
        ("قـطـة", "قطة"),
        ("a\u0000\u200bb \ud800", "ab"),
        ("line\nline", "line\nline"),
    ],
)
def test_clean(text: str, expected: str) -> None:
    assert clean(text) == expected


@pytest.mark.parametrize("text", ["KIRMIZI", "kırmızı", "Kırmızı"])
def test_turkish_capitals_fold_together(text: str) -> None:
    assert fold(text) == fold("kırmızı")


def test_dotted_capital_and_yo() -> None:
    assert fold("İKİ") == fold("iki") == "iki"
    assert fold("Зелёный") == fold("зеленый")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Bir kedi.", "bir kedi"),
        ("“Um gato”!", "um gato"),
        ("一 只 猫。", "一只猫"),
        ("قطةٌ.", "قطة"),
        ("Guarda-chuva", "guarda chuva"),
        ("Pão", "Pa\u0303o"),
        ("  a\tcat \n", "A cat"),
        ("\u22125", "-5."),
        ("− 5", "−  5"),
        ("3-5", "3 5"),
    ],
)
def test_equal_answers(one: str, other: str) -> None:
    assert normalise(one) == normalise(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        *(("pão", "pao"), ("três", "dois"), ("3", "13"), ("猫", "狗"), ("кот", "кит")),
        *(("5", "-5"), ("-5 °C", "5 °C"), ("温度 -5", "温度 5"), ("-٥", "٥")),
    ],
)
def test_different_answers(one: str, other: str) -> None:
    assert normalise(one) != normalise(other)


@settings(deadline=None)
@given(st.text())
def test_normalising_twice_changes_nothing_more(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once
