"""The multilingual rules in six languages."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parrot_evaluation.extract import extract_letter
from parrot_evaluation.kit import kit_letter
from parrot_runtime.languages import CODES

OPTIONS = {"A": "a dog", "B": "a cat", "C": "red", "D": "dark red"}

ANSWERS = [
    # bare letters
    ("A", "en", "A"),
    ("a", "en", "A"),
    ("b.", "pt", "B"),
    ("(C)", "en", "C"),
    ("A。", "zh", "A"),
    ("Ａ", "zh", "A"),
    ("（Ｂ）", "zh", "B"),
    ("【D】", "zh", "D"),
    ("**B**", "en", "B"),
    ("\\boxed{B}", "en", "B"),
    ("'C'", "tr", "C"),
    ("A?", "en", "A"),
    # Chinese
    ("答案是A", "zh", "A"),
    ("答案：A", "zh", "A"),
    ("答案: b", "zh", "B"),
    ("正确答案为 B。", "zh", "B"),
    ("正确答案应该是C", "zh", "C"),
    ("选A", "zh", "A"),
    ("我选择C选项", "zh", "C"),
    ("应选D。", "zh", "D"),
    ("B选项正确", "zh", "B"),
    ("A是正确的。", "zh", "A"),
    ("因为它是红色的，所以选C。", "zh", "C"),
    ("答案是 A 和 B", "zh", None),
    # Russian, with Cyrillic look-alikes
    ("А", "ru", "A"),
    ("В", "ru", "B"),
    ("с)", "ru", "C"),
    ("Ответ: В", "ru", "B"),
    ("Ответ — А.", "ru", "A"),
    ("Правильный ответ — С.", "ru", "C"),
    ("Правильный ответ под буквой D", "ru", "D"),
    ("вариант а", "ru", "A"),
    ("Я выбираю В.", "ru", "B"),
    ("В — правильный ответ", "ru", "B"),
    ("В центре стоит кот", "ru", None),  # the preposition
    ("А на картинке пусто", "ru", None),  # the conjunction
    ("д", "ru", None),
    # Arabic
    ("أ", "ar", "A"),
    ("ب", "ar", "B"),
    ("ج)", "ar", "C"),
    ("(د)", "ar", "D"),
    ("أ. كلب", "ar", "A"),
    ("الإجابة هي B", "ar", "B"),
    ("الإجابة الصحيحة هي أ", "ar", "A"),
    ("الجواب: ج", "ar", "C"),
    ("الخيار ب.", "ar", "B"),
    ("الحرف د", "ar", "D"),
    ("\u200fB\u200f.", "ar", "B"),
    ("أ أو ب", "ar", None),
    # Turkish
    ("Cevap: b", "tr", "B"),
    ("Cevap B.", "tr", "B"),
    ("Doğru cevap B'dir.", "tr", "B"),
    ("C'dir", "tr", "C"),
    ("B şıkkı", "tr", "B"),
    ("B seçeneği doğrudur.", "tr", "B"),
    ("Cevap C seçeneğidir", "tr", "C"),
    # Portuguese
    ("A resposta é a letra B.", "pt", "B"),
    ("Resposta: a", "pt", "A"),
    ("A opção correta é C.", "pt", "C"),
    ("A alternativa D", "pt", "D"),
    ("letra a", "pt", "A"),
    ("A é a resposta correta", "pt", "A"),
    ("A imagem mostra um gato", "pt", None),  # the article
    # English
    ("The answer is A.", "en", "A"),
    ("The correct answer is option (C).", "en", "C"),
    ("Option B: a cat", "en", "B"),
    ("Answer: A\nBecause it barks.", "en", "A"),
    ("The answer is A because it barks", "en", "A"),
    ("I think it's A", "en", "A"),
    ("It is a cat, so B", "en", "B"),
    ("B is the correct answer", "en", "B"),
    ("The answer is a cat", "en", "B"),
    ("A cat", "en", "B"),
    ("A cat is shown.", "en", "B"),
    ("B) a dog", "en", "B"),  # the letter outweighs the text
    ("dark red", "en", "D"),
    ("It is dark red.", "en", "D"),
    ("vitamin C", "en", "C"),
    # nothing, or two
    ("A or B", "en", None),
    ("A, B", "en", None),
    ("A-B", "en", None),
    ("C/D", "en", None),
    ("not A but B", "en", None),
    ("A. a dog\nB. a cat\nC. red\nD. dark red", "en", None),
    ("a dog and a cat", "en", None),
    ("e", "en", None),
    ("DNA", "en", None),
    ("", "en", None),
    ("?!", "ar", None),
]


@pytest.mark.parametrize(("answer", "code", "expected"), ANSWERS)
def test_extract_letter(answer: str, code: str, expected: str | None) -> None:
    assert extract_letter(answer, OPTIONS, code).letter == expected


DECLARED = {
    "en": ["{}", "{}.", "The answer is {}.", "Answer: {}", "({})", "{})", "The correct option is {}"],
    "zh": ["{}", "{}。", "答案是{}", "答案：{}", "正确答案是{}。", "选{}", "选项{}", "（{}）"],
    "pt": ["{}", "{}.", "A resposta é {}.", "Resposta: {}", "Letra {}", "A alternativa correta é a {}."],
    "ar": ["{}", "{}.", "الإجابة هي {}", "الإجابة الصحيحة هي {}.", "الجواب: {}", "الخيار {}", "({})"],
    "tr": ["{}", "{}.", "Cevap: {}", "Doğru cevap {}.", "Doğru seçenek {}", "Yanıt {}", "{} şıkkı", "Cevap {}'dir."],
    "ru": ["{}", "{}.", "Ответ: {}", "Правильный ответ: {}.", "Правильный ответ — {}", "Вариант {}", "{})"],
}
SPELLINGS = {
    "A": ["A", "a", "Ａ", "А", "أ"],
    "B": ["B", "b", "Ｂ", "В", "ب"],
    "C": ["C", "c", "Ｃ", "С", "ج"],
    "D": ["D", "d", "Ｄ", "د"],
}


@pytest.mark.parametrize("code", CODES)
def test_every_way_to_declare_every_letter(code: str) -> None:
    wrong = [
        (template, symbol)
        for template in DECLARED[code]
        for letter, symbols in SPELLINGS.items()
        for symbol in symbols
        if extract_letter(template.format(symbol), OPTIONS, code).letter != letter
    ]
    assert wrong == []


TEXTS = {
    "en": ({"A": "a red apple", "B": "a green apple"}, "It is a green apple on a table.", "B"),
    "zh": ({"A": "一个苹果", "B": "一个红苹果"}, "图中是一个红苹果。", "B"),
    "pt": ({"A": "maçã", "B": "maçã verde"}, "Há uma maçã verde.", "B"),
    "ar": ({"A": "أحمر", "B": "أخضر"}, "اللون هو الأخضر.", "B"),
    "tr": ({"A": "kırmızı", "B": "mavi"}, "Rengi KIRMIZIDIR.", "A"),
    "ru": ({"A": "зелёный", "B": "красный"}, "Он зеленый.", "A"),
}


@pytest.mark.parametrize("code", CODES)
def test_the_text_of_an_option(code: str) -> None:
    options, answer, letter = TEXTS[code]
    assert extract_letter(answer, options, code).letter == letter
    for each, text in options.items():
        assert extract_letter(text, options, code).letter == each
        assert extract_letter(f"{each}. {text}", options, code).letter == each


def test_a_number_is_not_found_inside_another() -> None:
    options = {"A": "1", "B": "2", "C": "3", "D": "13"}
    assert extract_letter("There are 13 of them", options, "en").letter == "D"
    assert extract_letter("23", options, "en").letter is None


@pytest.mark.parametrize(
    ("options", "code", "answer", "letter"),
    [
        ({"A": "Evet", "B": "Hayır"}, "tr", "Hayır, resimde yok.", "B"),
        ({"A": "Evet", "B": "Hayır"}, "tr", "Yes.", "A"),
        ({"A": "Evet", "B": "Hayır"}, "tr", "b", "B"),
        ({"A": "没有", "B": "有"}, "zh", "图中没有猫。", "A"),
        ({"A": "没有", "B": "有"}, "zh", "有", "B"),
        ({"A": "是", "B": "不是"}, "zh", "不是。", "B"),
        ({"A": "是", "B": "否"}, "zh", "正确答案是：否", "B"),
        ({"A": "是", "B": "否"}, "zh", "答案：是", "A"),
        ({"A": "对", "B": "不对"}, "zh", "对不起，我无法回答。", None),
        ({"A": "有", "B": "没有"}, "zh", "抱歉，我无法确定图中是否有猫。", None),
        ({"A": "نعم", "B": "لا"}, "ar", "لا، لا توجد قطة", "B"),
        ({"A": "Да", "B": "Нет"}, "ru", "На картинке нет кошки", "B"),
        ({"A": "Sim", "B": "Não"}, "pt", "Não há gato.", "B"),
        ({"A": "No", "B": "Yes"}, "en", "no", "A"),
    ],
)
def test_yes_no_options(options: dict, code: str, answer: str, letter: str | None) -> None:
    assert extract_letter(answer, options, code).letter == letter


def test_the_rule_is_named() -> None:
    assert extract_letter("答案是A", OPTIONS, "zh").rule == "declared letter"
    assert extract_letter("A or B", OPTIONS, "en").rule == "letters joined: A and B"
    assert extract_letter("hm", OPTIONS, "en").rule == "nothing found"


# An answer that repeats an option as it was shown picks it, whatever the option's text holds.
AS_SHOWN = [
    ("C. Both A and B", "en", ("a dog", "a cat", "Both A and B", "neither"), "C"),
    ("B and C", "en", ("A", "B and C", "C and D", "all"), "B"),
    ("B. Option A", "en", ("Option B", "Option A", "both", "neither"), "B"),
    ("A-", "en", ("B+", "A-", "C", "A+"), "B"),
    ("3:15", "en", ("3.15", "3:15", "315", "15:3"), "B"),
    ("50%", "en", ("50", "5", "50%", "0.5"), "C"),
    ("5'", "en", ("5", "5'", '5"', "50"), "B"),
    ("“left”", "en", ("right", "left", "up", "down"), "B"),
    ("A. Neither A nor B", "en", ("Neither A nor B", "A", "B", "both"), "A"),
    ("(c) A和B", "zh", ("猫", "狗", "A和B", "都不是"), "C"),
    ("C. A选项", "zh", ("B选项", "都是", "A选项", "都不是"), "C"),
    ("B. A ve B", "tr", ("yalnız A", "A ve B", "yalnız B", "hiçbiri"), "B"),
    ("D. A и B", "ru", ("А", "только B", "ни одного", "A и B"), "D"),
    ("B. أ و ب", "ar", ("أ فقط", "أ و ب", "ب فقط", "لا شيء"), "B"),
    ("C. A e B.", "pt", ("só A", "só B", "A e B", "nenhum"), "C"),
    # Not the whole answer: the letters in the text are still the text's.
    ("The answer is C. Both A and B", "en", ("a dog", "a cat", "Both A and B", "neither"), "C"),
    ("C. Both A and B, since both show it", "en", ("a dog", "a cat", "Both A and B", "neither"), "C"),
    # What names a letter alone is a letter.
    ("A", "en", ("B", "A", "D", "C"), "A"),
    ("A. B", "en", ("B", "A", "D", "C"), "A"),
    ("A or B", "en", ("a dog", "a cat", "Both A and B", "neither"), None),
    # The same text twice is none of the two.
    ("left", "en", ("left", "left", "up", "down"), None),
]


@pytest.mark.parametrize(("answer", "code", "texts", "expected"), AS_SHOWN)
def test_an_option_as_it_was_shown(answer: str, code: str, texts: tuple[str, ...], expected: str | None) -> None:
    assert extract_letter(answer, dict(zip("ABCD", texts, strict=True)), code).letter == expected


# Texts that hold letters, marks, denials and words that mean yes or no.
TRICKY = {
    "en": ("Both A and B", "A or C", "vitamin C", "not a dog", "I don't know", "A-B", "-5", "50%", "50", "x = 1", "C++",
           "A+", "Option A", "None of the above", "a cat, not a dog", "E. coli", "Cannot be determined", "AB", "No"),
    "zh": ("A和B", "是的", "不是", "没有", "有", "选A", "都不是", "无法确定", "A选项", "正确", "错误"),
    "ar": ("أ و ب", "نعم", "لا", "ليس كلبا", "لا أعرف", "على اليسار", "خطأ", "كلاهما"),
    "tr": ("A ve B", "evet", "hayır", "değil", "A'dan B'ye", "bilmiyorum", "kedi değil", "B'nin solunda"),
    "ru": ("A и B", "да", "нет", "не знаю", "А и Б", "неверно", "не кошка", "Вариант A"),
    "pt": ("A e B", "sim", "não", "não sei", "à esquerda", "as duas", "não é um gato", "nenhum"),
}  # fmt: skip


@settings(deadline=None)
@given(data=st.data(), code=st.sampled_from(CODES), at=st.integers(0, 3))
def test_every_option_as_it_was_shown(data: st.DataObject, code: str, at: int) -> None:
    texts = data.draw(st.lists(st.sampled_from(TRICKY[code]), min_size=4, max_size=4, unique=True))
    options = dict(zip("ABCD", texts, strict=True))
    letter, text = "ABCD"[at], texts[at]
    for said in (
        f"{letter}. {text}",
        f"({letter}) {text}",
        f"{letter}: {text}.",
        text,
        f"{text}.",
        f"**{letter}. {text}**",
    ):
        found = extract_letter(said, options, code)
        assert (found.letter, found.rule) == (letter, "as it was shown"), said


ODD_OPTIONS = st.dictionaries(st.sampled_from("ABCDEFGH"), st.text(min_size=1, max_size=12), min_size=1, max_size=8)


@settings(deadline=None)
@given(answer=st.text(max_size=200), options=ODD_OPTIONS, code=st.sampled_from(CODES))
def test_any_answer_gives_an_option_or_none(answer: str, options: dict, code: str) -> None:
    assert kit_letter(answer, options) in (*options, None)
    extraction = extract_letter(answer, options, code)
    assert extraction.letter in (*options, None)
    assert extraction.rule


# Words around a letter must never turn it into another one.
@settings(deadline=None)
@given(
    letter=st.sampled_from("BCD"),
    before=st.text("xyz .,\n", max_size=20),
    after=st.text("xyz .,\n", max_size=20),
    code=st.sampled_from(CODES),
)
def test_one_capital_letter_is_read_as_itself_or_not_at_all(letter: str, before: str, after: str, code: str) -> None:
    options = {"A": "one thing", "B": "another", "C": "a third", "D": "a fourth"}
    found = extract_letter(f"{before} {letter} {after}", options, code).letter
    assert found == letter


@pytest.mark.parametrize(
    "piece",
    ["answer ", "答案", ". ", "(A ", "a ", "Cevap: ", "الإجابة ", "is the ", "A\n", "**", "ответ это ", "A or ", "B, "],
)
def test_a_model_that_loops_costs_no_time(piece: str) -> None:
    start = time.process_time()
    extract_letter(piece * 1500, OPTIONS, "en")
    # 512 tokens make at most some 3,000 characters; a backtracking pattern would take minutes on these.
    assert time.process_time() - start < 2
