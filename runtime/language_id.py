"""Which of the six languages an answer is written in, and whether that is the one asked.

Arabic, Chinese and Russian are told by their script. English, Portuguese and Turkish share one, and are told by the
words of :mod:`parrot_runtime.lexicon`, by letters only one of them has (``ğ ş ı``, ``ã õ``), and by letters its
alphabet lacks (``q w x`` in Turkish, ``k w y`` in Portuguese). Without evidence, or with as much for two languages, the
verdict is None: undetermined. So are answers of digits, punctuation or single letters. A share "in the language asked"
is taken over determined answers, and how many those are is printed beside it.

Measured on 2,500 Unicode names of emoji in English, Portuguese and Turkish that were not looked at while the rule was
written, as determined % / wrong % of the determined:

=================================  ===========  ===========  ===========
one of en, pt, tr                  1 word       2 words      3+ words
=================================  ===========  ===========  ===========
this rule                          44 / 1.2     80 / 0.0     93 / 0.3
py3langid 0.4.0 (4.5 MB), forced   100 / 22.8   100 / 3.0    100 / 0.4
py3langid, probability ≥ 0.9       23 / 0.0     66 / 0.0     96 / 0.0
lingua 2.1.1 (96 MB), forced       100 / 13.2   100 / 1.7    100 / 0.9
lingua, confidence ≥ 0.9           45 / 0.6     65 / 0.0     80 / 0.0
=================================  ===========  ===========  ===========

A forced guess errs far more often than a model answers in a wrong language; among those that may abstain the rule
decides as often as any on short answers, and costs no dependency. This module is the one place of that choice.

Limits: only the six languages are known, and the one asked where that is Spanish or German: its words then count, less
where one of the three in Latin letters has them too. Nothing else is known of those two: more of their answers stay
undetermined. A Persian answer counts as Arabic and a Japanese one as Chinese unless a letter of their own gives them
away (then ``"other"``); Spanish or French reads as Portuguese or as nothing. Names, loan words and one-word answers
outside the lexicon are mostly undetermined. Quoted text counts as the answer's own.
"""

import re
import unicodedata
from collections import Counter
from functools import lru_cache

from parrot_runtime.lexicon import FURTHER_WORDS, SHARED, WHOLE_ANSWERS, WORDS

OTHER = "other"
_LATIN = "latin"

_SCRIPTS: dict[str, re.Pattern[str]] = {
    "ar": re.compile("[\u0620-\u064a\u066e-\u06d3\u0750-\u077f\ufb50-\ufdff\ufe70-\ufefc]"),
    "ru": re.compile("[\u0400-\u04ff]"),
    # Kana are counted with Han, and give Japanese away below.
    "zh": re.compile("[\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002fa1f]"),
    # Greek, Armenian, Hebrew, the scripts of India, Thai, Lao, Georgian, Korean.
    OTHER: re.compile("[\u0370-\u03ff\u0530-\u05ff\u0900-\u0eff\u10a0-\u11ff\uac00-\ud7af]"),
}
# Letters that a neighbour has and the language has not: Persian and Urdu; Ukrainian, Belarusian and Serbian; Japanese.
_NEIGHBOURS = {
    "ar": re.compile("[پچژگکیےٹڈڑںھہ]"),
    "ru": re.compile("[іїєґўјљњћђџ]"),
    "zh": re.compile("[\u3041-\u3096\u30a1-\u30fa]"),
}
# One Han character carries about as much of an answer as two letters.
_HAN_WEIGHT = 2

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
# A, B, C, D, also as Cyrillic look-alikes or Arabic option letters; and the words a, e, o, в, و, which decide nothing.
_SINGLE_LETTER = re.compile("[a-z\u0400-\u04ff\u0620-\u064a]")

_ONLY_IN = {"tr": frozenset("ğşı"), "pt": frozenset("ãõáéíóúàêô")}
_NOT_IN = {"en": frozenset("ãõáéíóúàâêôçğşıöü"), "pt": frozenset("kwyğşıöü"), "tr": frozenset("qwxãõáéíóúàêô")}
# Spellings that one of the three has and the others all but lack.
_SPELLINGS = {
    "en": re.compile("th|sh|ck|wh|ght|tion|ings?$"),
    "pt": re.compile("lh|nh|ção|ções|dades?$|mente$|eir[oa]s?$"),
    "tr": re.compile("leri|iyor|uyor|mek$|mak$|l[iu]k$"),
}
_LETTER_POINTS, _WORD_POINTS, _SPELLING_POINTS = 3, 2, 1


def identify(text: str, asked: str | None = None) -> str | None:
    """The language of ``text``: one of the six codes, or ``asked``, ``"other"``, or None where nothing decides."""
    further = FURTHER_WORDS.get(asked or "", frozenset())
    text = unicodedata.normalize("NFC", text).replace("İ", "i").casefold()
    words = _WORD.findall(text)
    if len(words) == 1 and words[0] in WHOLE_ANSWERS and words[0] not in further:
        return WHOLE_ANSWERS[words[0]]
    words = [word for word in words if not _SINGLE_LETTER.fullmatch(word)]
    weights: Counter[str] = Counter()
    for character, times in Counter("".join(words)).items():
        weights[_script_of(character)] += times
    if "zh" in weights:
        weights["zh"] *= _HAN_WEIGHT
    script = _winner(weights)
    if script in _NEIGHBOURS and _NEIGHBOURS[script].search(text):
        return OTHER
    if script != _LATIN:
        return script
    points: Counter[str] = Counter()
    for word in words:
        points.update(_further_evidence(word, asked) if word in further else _word_evidence(word))
    return _winner(points)


def in_language(text: str, asked: str) -> bool | None:
    """Whether ``text`` is in the language ``asked`` (a code); None where its language cannot be determined."""
    found = identify(text, asked)
    return None if found is None else found == asked


def _further_evidence(word: str, asked: str) -> dict[str, int]:
    """Points for a word of ``asked``, less where one of the three languages has it too, which then has as many."""
    known = word in SHARED or any(word in words or word.removesuffix("s") in words for words in WORDS.values())
    return (
        {asked: _SPELLING_POINTS, **dict.fromkeys(_word_evidence(word), _SPELLING_POINTS)}
        if known
        else {asked: _WORD_POINTS}
    )


def _winner(points: Counter[str]) -> str | None:
    """The name with most points; None without points or with a tie."""
    ranked = points.most_common(2)
    if not ranked or (len(ranked) == 2 and ranked[0][1] == ranked[1][1]):
        return None
    return ranked[0][0]


@lru_cache(maxsize=1 << 14)
def _script_of(character: str) -> str:
    return next((name for name, letters in _SCRIPTS.items() if letters.match(character)), _LATIN)


@lru_cache(maxsize=1 << 16)
def _word_evidence(word: str) -> dict[str, int]:
    """Points for the languages that one lower-case word in Latin letters speaks for."""
    if word in SHARED:
        return dict.fromkeys(SHARED[word], _SPELLING_POINTS)
    for language, known in WORDS.items():
        if word in known or (language != "tr" and word.removesuffix("s") in known):
            return {language: _WORD_POINTS}
    letters = set(word)
    for language, own in _ONLY_IN.items():
        if letters & own:
            return {language: _LETTER_POINTS}
    possible = [language for language, foreign in _NOT_IN.items() if not letters & foreign]
    spelt = [language for language in possible if _SPELLINGS[language].search(word)]
    likely = spelt if len(spelt) == 1 else possible
    return {likely[0]: _SPELLING_POINTS} if len(likely) == 1 else {}
