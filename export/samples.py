"""What an export is verified on: held-out pictures of the nano world, and a question about each in six languages.

And what its gate asks: such questions with their answers, or those of somebody's own files.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from parrot_export.checkpoint import Checkpoint
from parrot_export.conversations import NANO, Conversation, draw_samples
from parrot_export.layerwise.feeds import encode_samples
from parrot_runtime.languages import CODES
from parrot_runtime.prompt import Turn

if TYPE_CHECKING:
    from parrot_train.nano.scenes import Split


@dataclass(frozen=True)
class Sample:
    """One question about one picture."""

    language: str
    image: Image.Image
    question: str


# Of nano's questions to the gate, one in so many is open; the others have four options. Of 480, that makes 160, of
# which one is less than the point that a language may lose by default.
_OPEN_EVERY = 3


def graded_samples(
    per_language: int, *, languages: tuple[str, ...] = CODES, split: "Split" = "held-out", seed: str = "gate"
) -> Iterator[Conversation]:
    """``per_language`` questions in each language about pictures of a ``split``, drawn one after the other."""
    from parrot_train.nano.draw import render
    from parrot_train.nano.grammar import GRAMMARS
    from parrot_train.nano.questions import FORMS, value_question
    from parrot_train.nano.scenes import scenes

    for language in languages:
        # The same pictures and kinds of questions in every language, so that languages can be compared.
        drawn, chance = scenes(split, seed=seed), random.Random(seed)
        number = 0
        while number < per_language:
            form = "open" if number % _OPEN_EVERY == 0 else "choice"
            scene = next(drawn)
            name = chance.choice(FORMS[form])
            question = value_question(name, form, scene, GRAMMARS[language], chance)
            if question is not None:
                turns = Turn("user", question.prompt, 1), Turn("assistant", question.answer)
                picture, options = partial(render, scene), len(question.options)
                yield Conversation(NANO, str(number), language, f"{form}/{name}", turns, picture, options=options)
                number += 1


@dataclass(frozen=True)
class Asking:
    """Whose questions are put to ``checkpoint``: those of the files ``data``, or nano's where there is none.

    Of files, every one of ``languages`` is asked; what stands at one of the places ``seen``, and what takes more than
    ``longest`` positions, is left out, and ``note`` is told how much.
    """

    checkpoint: Checkpoint
    data: tuple[Path, ...]
    longest: int
    note: Callable[[str], None]
    languages: tuple[str, ...] = CODES
    seen: frozenset[tuple[str, str]] = frozenset()

    def draw(self, per_language: int, seed: str, split: "Split") -> list[Conversation]:
        """``per_language`` questions of each language; of nano, about pictures of ``split``.

        Raises InputError as ``draw_samples`` does.
        """
        if not self.data:
            return list(graded_samples(per_language, split=split, seed=seed))
        drawn = draw_samples(self.data, per_language, seed, self.languages, self.seen)
        for line in drawn.notes:
            self.note(f"--gate-data: {line}")
        first = [replace(one, turns=one.turns[:2]) for one in drawn.samples]
        kept = encode_samples(self.checkpoint, first, self.longest, self.languages, self.note)
        return [one.sample for one in kept]


def gate_questions(asking: Asking, per_language: int) -> list[Conversation]:
    """What the gate asks; see ``Asking.draw``. A model that never saw nano is told that it asks about nano."""
    training = asking.checkpoint.recipe.training.get("settings", {}).get("data", {})
    if not asking.data and NANO not in [*training.get("stage1", ()), *training.get("stage2", ())]:
        asking.note(
            "the gate asks about nano's pictures, and this checkpoint does not say that it was trained on any; "
            "--gate-data FILE asks your own questions"
        )
    return asking.draw(per_language, "gate", "held-out")


def search_questions(asking: Asking, per_language: int) -> list[Conversation]:
    """What sensitivities are found on, which the gate is not to ask; see ``Asking.draw``."""
    return asking.draw(per_language, "auto", "train")


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
