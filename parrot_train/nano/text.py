"""Six-language text about the nano world, from which the small LLM is pretrained before it ever sees a picture.

A document is a conversation about a scene that is given in words: every thing with its place, in one language, and
questions about it in the same or another one. It is what a chat LLM brings to a vision-language model: the languages,
the forms of questions and answers, and reading facts off its context. Half of the documents ask first for the whole
scene retold in the language of the questions: nearly every token of that answer has to be looked up, which is what
makes looking up emerge at all within minutes (without it, three quarters of an hour did not get there).
"""

import random
from collections.abc import Iterator

from parrot_runtime.languages import CODES
from parrot_runtime.prompt import Turn
from parrot_train.nano.grammar import GRAMMARS
from parrot_train.nano.questions import sample_question, value_question
from parrot_train.nano.scenes import Scene, scenes


def description(scene: Scene, language: str, r: random.Random) -> str:
    """The scene in words, group by group: ``a large red apple in the top left; …; a meadow``."""
    g = GRAMMARS[language]
    parts = [g.located(group, cell) for group in scene.groups for cell in group.cells]
    parts.insert(r.choice((0, len(parts))), g.scenery(scene.background))
    return r.choice(("; ", "\n", ", ")).join(parts)


def document(scene: Scene, r: random.Random, *, questions: int) -> list[Turn]:
    """A conversation about ``scene``: its description stands before the first question, where a picture would."""
    language = r.choice(CODES)
    told_in = language if r.random() < 0.5 else r.choice(CODES)
    g, turns = GRAMMARS[language], []
    retold = r.random() < 0.5
    for number in range(questions):
        asked = value_question("report", "open", scene, g, r) if retold and not number else sample_question(scene, g, r)
        turns += [Turn("user", asked.prompt), Turn("assistant", asked.answer)]
    turns[0] = Turn("user", f"{description(scene, told_in, r)}\n{turns[0].text}")
    return turns


def documents(*, seed: int | str, questions: int = 3) -> Iterator[list[Turn]]:
    """An endless stream of conversations about training scenes."""
    r = random.Random(f"text/{seed}")
    for scene in scenes("train", seed=f"text/{seed}"):
        yield document(scene, r, questions=questions)
