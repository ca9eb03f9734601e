"""Drills that come before any text: looking up and choosing, practised on random tokens.

Choosing an option is a chain of lookups (what is asked → its value → that option → the letter before it) that gives no
signal until all of it is there, and a letter is one token among the hundreds of a conversation: in text alone the chain
never formed. Here nothing else can be learned, so it does, link by link:

0. a lettered list, then values, each followed by its letter: ``A. x / B. y / y B / x A``
1. the same with values of several tokens that share their beginnings and ends
2. the same in chat turns: the template stands between a value and its letter
3. values, then one that is among them or not: Yes or No
4. values, then a lettered list of which one is among them: its letter
5. facts of a key and a value, then keys, each followed by its value, which is one of few tokens
6. the same in chat turns
7. the same, of eight times as many tokens
8. the same, of most tokens
9. the same, of all tokens
10. facts of one token, then a key and a lettered list: the letter of its value
11. the same of several tokens
12. facts of one token, then a key and a value, its own or another's: Yes or No
13. the same of several tokens
14. a list in which values of one token come several times, then values, each followed by how often, as a digit
15. the same of several tokens
16. the same, and a lettered list of four digits: the letter of the right one

Levels 10 to 13 are two steps of looking up. Among reviews of easier levels and in text, level 11 stood at six letters
in ten for thousands of steps, and Yes and No at chance; alone and from one token on, each is learned in a few hundred.
"""

import random
from collections.abc import Callable

import numpy as np
from tokenizers import Tokenizer

from parrot_runtime.choices import LETTERS
from parrot_train.nano.language_batches import Batch, collate

VALUES_ASKED = 8
LISTS_ASKED = 4
# How many tokens the values of levels 5 to 9 are taken from: all at once, nothing is learned in 150 steps.
ANSWERS = {5: 16, 6: 16, 7: 128, 8: 600, 9: None}
# Of levels 3, 4 and 10 to 13: whether facts are told, whether a letter is asked for, and the tokens of keys and values.
ASKED = {
    3: (False, False, 2),
    4: (False, True, 2),
    10: (True, True, 1),
    11: (True, True, 2),
    12: (True, False, 1),
    13: (True, False, 2),
}

# Of levels 14 to 16: whether a letter is asked for, and the tokens of values.
COUNTED = {14: (False, 1), 15: (False, 2), 16: (True, 2)}
MOST = 6

Tokens = list[int]


class Drills:
    """Drills over the tokens of ``tokenizer``; the same seed gives the same drills."""

    def __init__(self, tokenizer: Tokenizer, seed: int | str) -> None:
        def ids(text: str) -> Tokens:
            return tokenizer.encode(text, add_special_tokens=False).ids

        self._random = random.Random(f"drills/{seed}")
        self._order = np.random.default_rng(self._random.randrange(2**32))
        self._letters = [ids(letter)[0] for letter in LETTERS[:4]]
        self._dot, self._line = ids("."), ids("\n")
        self._yes_no = [ids(word)[0] for word in ("Yes", "No")]
        self._digits = [ids(str(number)) for number in range(1, MOST + 1)]
        self._separators = [ids(";"), ids(","), self._line]
        self._to_assistant = ids("<|im_end|>\n<|im_start|>assistant\n")
        self._to_user = ids("<|im_end|>\n<|im_start|>user\n")
        taken = {*self._letters, *self._dot, *(token for each in self._separators for token in each)}
        taken |= {*self._yes_no, *ids("<|im_end|><|im_start|><|endoftext|>"), *(token for (token,) in self._digits)}
        self._words = words = [token for token in range(tokenizer.get_vocab_size()) if token not in taken]
        self._shuffled = self._random.sample(words, len(words))

    def drill(self, level: int, review: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
        """One drill of ``level``, or by the chance ``review`` of a lower one: int16 ids, bool supervised (answers)."""
        if level > 1 and self._random.random() < review:
            level = self._random.randrange(1, level)
        pieces = self._writer(level)(level)
        tokens = [token for piece, _ in pieces for token in piece]
        supervised = [answer for piece, answer in pieces for _ in piece]
        return np.array(tokens, np.int16), np.array(supervised)

    def _writer(self, level: int) -> Callable[[int], list[tuple[Tokens, bool]]]:
        if level in ANSWERS:
            return self._facts
        return self._letters_of_values if level < 3 else self._counted if level in COUNTED else self._asked

    def batch(self, level: int, size: int, pad_id: int, review: float = 0.0) -> Batch:
        """``size`` drills, see ``drill``; nothing but their answers is learned from."""
        return collate([self.drill(level, review) for _ in range(size)], pad_id, self._order, context=False)

    def _values(self, count: int, longest: int, *, affixes: bool) -> list[Tokens]:
        """Different values of up to ``longest`` tokens, and with ``affixes`` of common first and last ones beside."""
        r = self._random
        before = r.sample(self._words, r.randrange(3)) if affixes else []
        after = r.sample(self._words, r.choice((0, 0, 1))) if affixes else []
        return [
            [*before, first, *r.choices(self._words, k=r.randrange(longest)), *after]
            for first in r.sample(self._words, count)
        ]

    def _listed(self, values: list[Tokens]) -> Tokens:
        lines = zip(self._letters, values, strict=False)
        return [token for letter, value in lines for token in (letter, *self._dot, *value, *self._line)]

    def _letters_of_values(self, level: int) -> list[tuple[Tokens, bool]]:
        """Levels 0 to 2."""
        r = self._random
        values = self._values(r.choice((2, 3, 4, 4, 4)) if level else 4, 3 if level else 2, affixes=level > 0)
        ask, end = (self._to_assistant, self._to_user) if level == 2 else ([], self._line)
        pieces = [(self._listed(values), False)]
        for number in r.choices(range(len(values)), k=VALUES_ASKED):
            pieces += [([*values[number], *ask], False), ([self._letters[number]], True), (end, False)]
        return pieces

    def _facts(self, level: int) -> list[tuple[Tokens, bool]]:
        """Levels 5 to 9: keys and values in either order, the same throughout a drill."""
        r = self._random
        count = r.randrange(2, 6)
        values = r.sample(self._shuffled[: ANSWERS[level]], count)
        keys = r.sample([token for token in self._words if token not in values], count)
        between = [token for token in r.choices(self._words, k=r.choice((0, 0, 1))) if token not in (*keys, *values)]
        value_first, separator = r.random() < 0.5, r.choice(self._separators)
        ask, end = (self._to_assistant, self._to_user) if level > 5 else ([], self._line)
        pieces = [(self._line, False)]
        for key, value in zip(keys, values, strict=True):
            first, last = (value, key) if value_first else (key, value)
            pieces.append(([first, *between, last, *separator], False))
        for number in r.choices(range(count), k=VALUES_ASKED):
            pieces += [([keys[number], *ask], False), ([values[number]], True), (end, False)]
        return pieces

    def _asked(self, level: int) -> list[tuple[Tokens, bool]]:
        """Levels 3, 4 and 10 to 13: a list of values or facts, and questions in chat turns."""
        r, (facts, choose, longest) = self._random, ASKED[level]
        count, several = r.randrange(2, 6), longest > 1
        values = self._values(count + 4, longest, affixes=several and r.random() < 0.5)
        told, absent = values[:count], values[count:]
        keys = self._values(count, longest, affixes=several and r.random() < 0.5) if facts else [[]] * count
        separator = r.choice(self._separators)
        pieces = [(self._line, False)]
        pieces += [([*key, *value, *separator], False) for key, value in zip(keys, told, strict=True)]
        for _ in range(LISTS_ASKED if choose else VALUES_ASKED):
            number = r.randrange(count)
            others = [value for value in told if value is not told[number]] if facts else absent
            if choose:
                options = [told[number], *r.sample([*others, *absent[: 4 - len(others)]], 3)]
                r.shuffle(options)
                question = [*keys[number], *self._line, *self._listed(options)]
                answer = self._letters[options.index(told[number])]
            else:
                truth = r.random() < 0.5
                question = [*keys[number], *(told[number] if truth else r.choice(others))]
                answer = self._yes_no[not truth]
            pieces += [([*question, *self._to_assistant], False), ([answer], True), (self._to_user, False)]
        return pieces

    def _counted(self, level: int) -> list[tuple[Tokens, bool]]:
        """Levels 14 to 16: values one after the other or in any order, at most MOST in all, and how often each came."""
        r, (choose, longest) = self._random, COUNTED[level]
        several = longest > 1
        often = [1]
        while sum(often) == 1 or sum(often) > MOST:
            often = [r.choice((1, 1, 2, 3, 4, 5)) for _ in range(r.choice((1, 2, 2, 3)))]
        values = self._values(len(often), longest, affixes=several and r.random() < 0.5)
        told = [value for value, count in zip(values, often, strict=True) for _ in range(count)]
        if r.random() < 0.3:
            r.shuffle(told)
        separator = r.choice(self._separators)
        pieces = [(self._line, False)]
        for value in told:
            other = r.choices(self._words, k=r.randrange(3)) if several else []
            pieces.append(([*value, *other, *separator], False))
        for number in r.choices(range(len(values)), k=LISTS_ASKED if choose else VALUES_ASKED):
            question, answer = values[number], self._digits[often[number] - 1]
            if choose:
                nearest = sorted(range(1, MOST + 1), key=lambda n: (abs(n - often[number]), r.random()))
                options = [self._digits[n - 1] for n in r.sample(nearest[:4], 4)]
                question = [*question, *self._line, *self._listed(options)]
                answer = [self._letters[options.index(answer)]]
            pieces += [([*question, *self._to_assistant], False), (answer, True), (self._to_user, False)]
        return pieces
