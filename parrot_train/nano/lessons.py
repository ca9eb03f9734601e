"""Lessons: several questions of one kind about one scene.

Where an answer takes two steps, finding a fact and then the letter that stands for it, neither step shows in the loss
until both are there. Among questions of other kinds that signal drowns; alone it does not (docs/nano.md).
"""

import random

from parrot_train.nano.categories import YES_NO_CATEGORIES
from parrot_train.nano.grammar import Grammar
from parrot_train.nano.questions import Question, value_question, yes_no_question
from parrot_train.nano.scenes import Scene

# Attempts per question that is wanted: a scene has few questions of some kinds, and may have none.
_ATTEMPTS = 4


def questions_on(
    subject: str, scene: Scene, g: Grammar, r: random.Random, most: int, *, lettered: bool = True, alike: bool = False
) -> list[Question]:
    """Up to ``most`` questions of the kind ``subject`` about ``scene``, with four options or Yes/No.

    ``lettered`` says whether Yes/No stand as options. ``alike`` allows the very same question twice.
    """
    found: dict[object, Question] = {}
    for attempt in range(_ATTEMPTS * most):
        if subject in YES_NO_CATEGORIES:
            asked = yes_no_question(subject, scene, g, r, truth=r.random() < 0.5, lettered=lettered)
        else:
            asked = value_question(subject, "choice", scene, g, r)
        if asked is not None:
            found[attempt if alike else asked.prompt] = asked
        if len(found) == most:
            break
    return list(found.values())
