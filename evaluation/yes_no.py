"""Yes and No in the six languages and nano's further ones: what an option's text means, and what an answer says."""

import re
from collections.abc import Mapping
from typing import Literal

from parrot_evaluation.text import fold, normalise

Polarity = Literal["yes", "no"]

# Words that answer by themselves. Those in _BARE also mean something else inside a sentence.
_WORDS: dict[str, dict[Polarity, tuple[str, ...]]] = {
    "en": {"yes": ("yes", "yeah", "yep"), "no": ("no", "nope")},
    "zh": {
        "yes": ("是的", "是", "对的", "对", "有的", "有", "没错", "正确"),
        "no": ("不是的", "不是", "不对", "不", "没有", "没", "否", "错误", "错"),
    },
    "pt": {"yes": ("sim",), "no": ("não", "nao")},
    "ar": {"yes": ("نعم", "أجل", "بلى"), "no": ("لا", "كلا")},
    "tr": {"yes": ("evet",), "no": ("hayır",)},
    "ru": {"yes": ("да",), "no": ("нет",)},
    "es": {"yes": ("sí",), "no": ("no",)},
    "de": {"yes": ("ja",), "no": ("nein",)},
}
_BARE: dict[str, dict[Polarity, tuple[str, ...]]] = {
    "en": {"yes": ("true", "correct", "right"), "no": ("false", "incorrect", "wrong", "not")},
    "zh": {"yes": (), "no": ()},
    "pt": {"yes": ("verdadeiro", "correto", "certo", "há", "tem"), "no": ("falso", "incorreto", "errado")},
    "ar": {"yes": ("صحيح", "يوجد", "توجد"), "no": ("خطأ", "ليس", "ليست")},
    "tr": {"yes": ("doğru", "var", "vardır"), "no": ("yanlış", "yok", "yoktur", "değil")},
    "ru": {"yes": ("верно", "правда", "есть"), "no": ("неверно", "неправда")},
    "es": {"yes": (), "no": ()},
    "de": {"yes": (), "no": ()},
}
# The last word of a Turkish sentence says it: "Resimde kedi yok."
_LAST_WORD: dict[str, dict[str, Polarity]] = {
    "tr": {"var": "yes", "vardir": "yes", "yok": "no", "yoktur": "no", "değil": "no", "değildir": "no"}
}
_WORD = re.compile(r"[^\W\d_]+")


def _index(table: Mapping[Polarity, tuple[str, ...]]) -> dict[str, Polarity]:
    return {fold(word): polarity for polarity, words in table.items() for word in words}


_STRONG: dict[str, dict[str, Polarity]] = {language: _index(table) for language, table in _WORDS.items()}
_WEAK: dict[str, dict[str, Polarity]] = {language: _index(table) for language, table in _BARE.items()}
_ANY: dict[str, Polarity] = {word: p for table in (*_WEAK.values(), *_STRONG.values()) for word, p in table.items()}


def polarity(text: str) -> Polarity | None:
    """What a whole option says, in any of the six languages: ``Evet`` → ``"yes"``, ``没有`` → ``"no"``, else None."""
    return _ANY.get(normalise(text))


def yes_no_options(options: Mapping[str, str]) -> dict[Polarity, str] | None:
    """``{"yes": letter, "no": letter}`` where exactly two options mean yes and no; otherwise None."""
    found = {polarity(text): letter for letter, text in options.items()}
    return {"yes": found["yes"], "no": found["no"]} if len(options) == 2 and set(found) == {"yes", "no"} else None


def yes_no(answer: str, language: str) -> Polarity | None:
    """What an answer to a Yes/No question asked in ``language`` says; None where it says neither, or both.

    A leading word decides (``Hayır, resimde …``), then the only kind of yes or no word anywhere; an English Yes or No
    is taken in any language (that it is English is measured apart, as the answer's language).
    """
    whole = polarity(answer)
    if whole is not None:
        return whole
    text = fold(answer)
    if language == "zh":
        return _chinese(text) or _english_aside(text)
    words = _WORD.findall(text)
    if not words:
        return None
    strong = _STRONG[language]
    # "No" opens a Portuguese place ("No centro …"), but _STRONG["pt"] does not hold it.
    if words[0] in strong:
        return strong[words[0]]
    said = {strong[word] for word in words if word in strong}
    if len(said) == 1:
        return said.pop()
    return _LAST_WORD.get(language, {}).get(words[-1]) or _english_aside(text)


def _english_aside(text: str) -> Polarity | None:
    """A leading English yes or no, set off by punctuation: ``No, …``; not the ``No`` of ``No centro``."""
    match = re.match(r"\W*(yes|no)\s*(?:[^\w\s]|$)", text)
    return None if match is None else ("yes" if match[1] == "yes" else "no")


def _chinese(text: str) -> Polarity | None:
    """Chinese puts no spaces: the longest leading word decides, then a negation anywhere, then an affirmation."""
    words = _STRONG["zh"]
    lead = re.sub(r"^\W+", "", text)
    for word in sorted(words, key=len, reverse=True):
        if lead.startswith(word):
            return words[word]
    if re.search("没有|没|不是|不|否", text):
        return "no"
    return "yes" if re.search("是的|有|对的", text) else None
