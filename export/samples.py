"""What an export is verified on: held-out pictures of the nano world, and a question about each in six languages."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

from PIL import Image

from parrot_runtime.languages import CODES


@dataclass(frozen=True)
class Sample:
    """One question about one picture."""

    language: str
    image: Image.Image
    question: str


@dataclass(frozen=True)
class Graded:
    """A question with its right answer; ``options`` how many it offers, then the answer is a letter."""

    language: str
    image: Image.Image
    question: str
    answer: str
    options: int = 0


# Of the gate's questions, one in so many is open; the others have four options.
_OPEN_EVERY = 6


def graded_samples(per_language: int, *, languages: tuple[str, ...] = CODES) -> Iterator[Graded]:
    """``per_language`` questions in each language about held-out pictures, drawn one after the other."""
    from parrot_train.nano.draw import render
    from parrot_train.nano.grammar import GRAMMARS
    from parrot_train.nano.questions import FORMS, value_question
    from parrot_train.nano.scenes import scenes

    for language in languages:
        # The same pictures and kinds of questions in every language, so that languages can be compared.
        drawn, chance = scenes("held-out", seed="gate"), random.Random("gate")
        number = 0
        while number < per_language:
            form = "open" if number % _OPEN_EVERY == 0 else "choice"
            scene = next(drawn)
            question = value_question(chance.choice(FORMS[form]), form, scene, GRAMMARS[language], chance)
            if question is not None:
                yield Graded(language, render(scene), question.prompt, question.answer, len(question.options))
                number += 1


def verification_samples(per_language: int = 1, *, languages: tuple[str, ...] = CODES) -> list[Sample]:
    """``per_language`` samples in each language, every one about a picture of its own; the same on every machine.

    The pictures are held-out scenes, drawn here: no file is needed. They serve for any checkpoint, since what is
    compared is two computations of one model, not the model's answer with the truth.
    """
    from parrot_train.nano.draw import render
    from parrot_train.nano.grammar import GRAMMARS
    from parrot_train.nano.questions import sample_question
    from parrot_train.nano.scenes import scenes

    drawn = scenes("held-out", seed="verification")
    chance = random.Random("verification")
    samples = []
    for language in (language for language in languages for _ in range(per_language)):
        scene = next(drawn)
        question = sample_question(scene, GRAMMARS[language], chance)
        samples.append(Sample(language, render(scene), question.prompt))
    return samples
