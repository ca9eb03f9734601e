"""Six-language text about the nano world, from which the small LLM is pretrained before it ever sees a picture.

A document is a conversation about a scene that is given in words: every thing with its place, in one language, and
questions about it in the same or another one. It is what a chat LLM brings to a vision-language model: the languages,
the forms of questions and answers, and reading facts off its context.
"""

import random
from collections.abc import Iterator

from parrot_runtime.languages import CODES
from parrot_runtime.prompt import Turn
from parrot_train.nano.grammar import GRAMMARS
from parrot_train.nano.questions import sample_question
from parrot_train.nano.scenes import Scene, scenes


def description(scene: Scene, language: str, r: random.Random) -> str:
    """The scene in words, thing by thing in random order: ``a meadow; a large red apple in the top left; …``."""
    g = GRAMMARS[language]
    parts = [g.located(group, cell) for group in scene.groups for cell in group.cells]
    parts.append(g.scenery(scene.background))
    r.shuffle(parts)
    return r.choice(("; ", "\n", ", ")).join(parts)


def document(scene: Scene, r: random.Random, *, questions: int) -> list[Turn]:
    """A conversation about ``scene``: its description stands before the first question, where a picture would."""
    language = r.choice(CODES)
    told_in = language if r.random() < 0.5 else r.choice(CODES)
    turns = []
    for _ in range(questions):
        asked = sample_question(scene, GRAMMARS[language], r)
        turns += [Turn("user", asked.prompt), Turn("assistant", asked.answer)]
    turns[0] = Turn("user", f"{description(scene, told_in, r)}\n{turns[0].text}")
    return turns


def documents(*, seed: int | str, questions: int = 4) -> Iterator[list[Turn]]:
    """An endless stream of conversations about training scenes."""
    r = random.Random(f"text/{seed}")
    for scene in scenes("train", seed=f"text/{seed}"):
        yield document(scene, r, questions=questions)
