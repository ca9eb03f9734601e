"""Translate, then answer: a question of nano's world into English, the English answer back, by a faulty dictionary.

nano's questions stand in every language's file in the same order, so grammar and word order are translated without a
mistake: what may be wrong is the dictionary, 61 words for kinds of things, colours, sizes, numbers, places and
backgrounds. Of them a stated share is at fault, half of it wrong (another word of its class) and half missing: on the
way to English the word stays as it was, on the way back an answer with a missing word stays English.
"""

import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache

from parrot_evaluation.tsv import Row
from parrot_train.nano.grammar import GRAMMARS, Grammar, en
from parrot_train.nano.scenes import BACKGROUNDS, CELLS, COLOURS, KINDS, MOST_THINGS, SIZES, Group

ENGLISH = GRAMMARS["en"]
Word = tuple[str, int]
"""A class of words and the number of one of them, such as ``("colour", 3)``."""


def _english_forms() -> dict[Word, tuple[str, ...]]:
    forms: dict[Word, tuple[str, ...]] = {}
    forms |= {("kind", i): (kind, en.PLURALS[kind]) for i, kind in enumerate(KINDS)}
    forms |= {("colour", i): (colour,) for i, colour in enumerate(COLOURS)}
    forms |= {("size", i): (size,) for i, size in enumerate(SIZES)}
    forms |= {("number", n): (en.NUMBERS[n],) for n in range(1, MOST_THINGS + 1)}
    forms |= {("place", cell): (ENGLISH.place(cell),) for cell in range(len(CELLS))}
    for i, background in enumerate(BACKGROUNDS):
        forms["background", i] = (en.SCENERY[background][0].removeprefix("a "),)
    return forms


FORMS = _english_forms()
_WORD_OF = {form: (word, number) for word, forms in FORMS.items() for number, form in enumerate(forms)}
_ANY_FORM = re.compile(rf"\b({'|'.join(sorted(map(re.escape, _WORD_OF), key=len, reverse=True))})\b", re.IGNORECASE)
_ARTICLE = re.compile(r"\b([Aa])n? (?=(\w))")


class Dictionary:
    """Between English and the language ``code``; ``share`` of the words are at fault, by ``seed``, each way its own."""

    def __init__(self, code: str, share: float, seed: int) -> None:
        if not 0 <= share <= 1:
            raise ValueError(f"share is {share}; expected 0 to 1")
        self._g = GRAMMARS[code]
        self.to_english, self.from_english = (
            _faults(share, random.Random(f"dictionary/{code}/{way}/{share:g}/{seed}")) for way in ("to", "from")
        )

    def question(self, row: Row) -> Row:
        """``row`` of the English file as it is asked: with the words that the dictionary has for the language's."""
        options = {letter: self._read(text) for letter, text in row.options.items()}
        return replace(row, question=self._read(row.question), options=options)

    def answer(self, text: str) -> str:
        """An answer to an open question, in the language; what is not understood, or has a word missing, as it is."""
        if any(self.from_english.get(_word(match), match) is None for match in _ANY_FORM.finditer(text)):
            return text
        meant = _translated(text, lambda match: self._swapped(match, self.from_english))
        return _short_answers(self._g.code).get(meant.lower()) or _list(meant, self._g) or text

    def _read(self, text: str) -> str:
        return _translated(text, lambda match: self._swapped(match, self.to_english))

    def _swapped(self, match: re.Match, faults: Mapping[Word, Word | None]) -> str:
        word, form = _WORD_OF[match[0].lower()]
        other = faults.get(word, word)
        if other is None:
            return _foreign(word, self._g)
        if other == word:
            return match[0]
        return FORMS[other][form] if match[0][0].islower() else FORMS[other][form].capitalize()


def _translated(text: str, swap: Callable[[re.Match], str]) -> str:
    """``text`` with its words swapped, and articles that fit them: an apple, a pear."""
    return _ARTICLE.sub(lambda match: match[1] + ("n " if match[2] in "aeiou" else " "), _ANY_FORM.sub(swap, text))


def _word(match: re.Match) -> Word:
    return _WORD_OF[match[0].lower()][0]


def _faults(share: float, r: random.Random) -> dict[Word, Word | None]:
    """The words at fault: what stands in the place of each, None where nothing does."""
    words = list(FORMS)
    chosen = r.sample(words, round(share * len(words)))
    wrong = len(chosen) // 2 + len(chosen) % 2
    found: dict[Word, Word | None] = {}
    for number, word in enumerate(chosen):
        others = [other for other in words if other[0] == word[0] and other != word]
        found[word] = r.choice(others) if number < wrong else None
    return found


def _foreign(word: Word, g: Grammar) -> str:
    """The word in the language, as its grammar gives it alone."""
    kind, number = word
    thing = Group(KINDS[number % len(KINDS)], COLOURS[0], SIZES[0], (0,))
    forms: dict[str, Callable[[], str]] = {
        "kind": lambda: g.one(KINDS[number]),
        "colour": lambda: g.colour_of(thing, COLOURS[number]),
        "size": lambda: g.size_of(thing, SIZES[number]),
        "number": lambda: g.number_of(None, number),
        "place": lambda: g.place(number),
        "background": lambda: g.scenery(BACKGROUNDS[number]),
    }
    return forms[kind]()


@lru_cache
def _short_answers(code: str) -> dict[str, str]:
    """English answers of one value, in small letters, and their commonest form in the language.

    A translator of answers does not see the question, so it cannot agree with the gender of what was asked about.
    """
    g, counts = GRAMMARS[code], {}
    for english, own in _values(g):
        counts.setdefault(ENGLISH.sentence(english).lower(), Counter())[g.sentence(own)] += 1
    return {english: forms.most_common(1)[0][0] for english, forms in counts.items()}


def _values(g: Grammar) -> Iterator[tuple[str, str]]:
    for kind in KINDS:
        yield ENGLISH.one(kind), g.one(kind)
        yield ENGLISH.the(kind), g.the(kind)
        thing = Group(kind, COLOURS[0], SIZES[0], (0,))
        yield from ((ENGLISH.colour_of(thing, colour), g.colour_of(thing, colour)) for colour in COLOURS)
        yield from ((ENGLISH.size_of(thing, size), g.size_of(thing, size)) for size in SIZES)
    for kind in (*KINDS, None):
        yield from ((en.NUMBERS[n], g.number_of(kind, n)) for n in range(1, MOST_THINGS + 1))
    yield from ((ENGLISH.place(cell), g.place(cell)) for cell in range(len(CELLS)))
    yield from ((ENGLISH.scenery(background), g.scenery(background)) for background in BACKGROUNDS)


# --- answers that list things ---------------------------------------------------------------------------------------
def _any(kind: str) -> str:
    return "|".join(re.escape(form) for form, ((name, _), _) in _WORD_OF.items() if name == kind)


# How English says a group of things, and where.
_THINGS = re.compile(
    rf"(an?|{_any('number')}) (?:({_any('size')}) )?({_any('colour')}) ({_any('kind')})(?: ({_any('place')}))?",
    re.IGNORECASE,
)


def _group(text: str) -> tuple[Group, bool, int | None] | None:
    """The group, whether its size is said, and its place; None where that is no group."""
    match = _THINGS.fullmatch(text)
    if match is None:
        return None
    count, size, colour, kind, place = (part and part.lower() for part in match.groups())
    number = en.NUMBERS.index(count) if count in en.NUMBERS else 1
    group = Group(KINDS[_WORD_OF[kind][0][1]], colour, size or SIZES[0], tuple(range(number)))
    return group, size is not None, None if place is None else _WORD_OF[place][0][1]


def _list(text: str, g: Grammar) -> str | None:
    """A listing, a caption or a report in the language; None for any other English."""
    listed, background = text.removesuffix("."), None
    parts = re.fullmatch(r"(.*)\. Background: (.*)", listed, re.DOTALL)
    if parts:
        listed = parts[1]
        background = next((b for b in BACKGROUNDS if ENGLISH.scenery(b) == parts[2]), None)
    else:
        for each in BACKGROUNDS:
            if listed.endswith(f" {en.SCENERY[each][1]}"):
                listed, background = listed.removesuffix(f" {en.SCENERY[each][1]}"), each
    things = [_group(item) for item in re.split(r", | and ", listed)]
    if None in things or (parts and background is None):
        return None
    groups = [group for group, _, _ in things]
    if all(cell is not None for _, _, cell in things) and background is not None:
        placed = [Group(each.kind, each.colour, each.size, (cell,)) for each, _, cell in things]
        return g.report(placed, background)
    if any(cell is not None for _, _, cell in things):
        return None
    if background is not None:
        return g.caption(groups, background) if all(sized for _, sized, _ in things) else None
    return None if any(sized for _, sized, _ in things) else g.sentence(g.listing(groups))
