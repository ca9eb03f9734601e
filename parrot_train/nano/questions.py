"""Questions about a scene in open, four-option and Yes/No form."""

import random
from dataclasses import dataclass
from typing import Literal

from parrot_runtime.choices import LETTERS, multiple_choice
from parrot_train.nano.categories import VALUE_CATEGORIES, YES_NO_CATEGORIES
from parrot_train.nano.grammar import Grammar
from parrot_train.nano.scenes import Scene

Form = Literal["open", "choice", "yes-no"]


@dataclass(frozen=True)
class Question:
    """One question in one language.

    ``prompt`` is what the model reads and ``answer`` what it should write: a sentence, or a letter where ``options``
    are given. ``question`` is the prompt without options and instruction.
    """

    category: str
    form: Form
    language: str
    question: str
    options: tuple[str, ...]
    answer: str

    @property
    def prompt(self) -> str:
        return multiple_choice(self.question, self.options, self.language) if self.options else self.question


# `which of these` has no sense without options; captions, sizes and comparisons have no four options.
FORMS: dict[Form, tuple[str, ...]] = {
    "open": tuple(name for name in VALUE_CATEGORIES if name not in ("which_present", "absent")),
    "choice": tuple(
        name for name in VALUE_CATEGORIES if name not in ("object", "describe", "report", "size", "comparison")
    ),
    "yes-no": tuple(YES_NO_CATEGORIES),
}


def value_question(name: str, form: Form, scene: Scene, g: Grammar, r: random.Random) -> Question | None:
    """A question of a value category in ``open`` or ``choice`` form."""
    asked = VALUE_CATEGORIES[name](scene, g, r)
    if asked is None:
        return None
    if form == "open":
        return Question(name, form, g.code, asked.question, (), asked.sentence or g.sentence(asked.value))
    options = r.sample((asked.value, *asked.wrong[:3]), 4)
    return Question(name, form, g.code, asked.question, tuple(options), LETTERS[options.index(asked.value)])


def yes_no_question(
    name: str, scene: Scene, g: Grammar, r: random.Random, *, truth: bool, lettered: bool
) -> Question | None:
    """A Yes/No question whose right answer is ``truth``; ``lettered`` offers the two words as options A and B."""
    asked = YES_NO_CATEGORIES[name](scene, g, r, truth)
    if asked is None:
        return None
    words = g.yes_no(name)
    if lettered:
        return Question(name, "yes-no", g.code, asked, words, LETTERS[0 if truth else 1])
    return Question(name, "yes-no", g.code, asked, (), g.sentence(words[0 if truth else 1]))


def sample_question(scene: Scene, g: Grammar, r: random.Random) -> Question:
    """One question at random: four in ten open, four in ten with four options, two in ten Yes/No."""
    while True:
        form = r.choices(("open", "choice", "yes-no"), weights=(4, 4, 2))[0]
        name = r.choice(FORMS[form])
        if form == "yes-no":
            truth, lettered = r.random() < 0.5, r.random() < 0.5
            question = yes_no_question(name, scene, g, r, truth=truth, lettered=lettered)
        else:
            question = value_question(name, form, scene, g, r)
        if question is not None:
            return question
