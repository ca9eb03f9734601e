"""What an export is verified on: held-out pictures of the nano world, and a question about each in six languages."""

import random
from dataclasses import dataclass

from PIL import Image

from parrot_runtime.languages import CODES


@dataclass(frozen=True)
class Sample:
    """One question about one picture."""

    language: str
    image: Image.Image
    question: str


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
