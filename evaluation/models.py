"""What can be asked: so far a bundle, through the runtime."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from parrot_evaluation.runner import Ask, Question, Response
from parrot_runtime.manifest import MANIFEST_NAME
from parrot_runtime.parrot import Parrot

# Questions answered together in one decode step.
SLOTS = 4


@dataclass(frozen=True)
class Model:
    """``fingerprint`` changes with anything that could change an answer."""

    name: str
    fingerprint: str
    ask: Ask


def open_bundle(folder: Path, *, max_new_tokens: int, note: Callable[[str], None] = lambda _line: None) -> Model:
    """The bundle in ``folder``, answering greedily; ``note`` as in ``Parrot.load``. Raises BundleError."""
    parrot = Parrot.load(folder, note=note)

    def ask(questions: Sequence[Question]) -> list[Response]:
        pairs = [(parrot.picture(question.image, name=question.name), question.text) for question in questions]
        answers = parrot.ask_batch(pairs, slots=SLOTS, max_new_tokens=max_new_tokens)
        return [
            Response(
                answer.text,
                answer.finish,
                None if answer.routing is None else tuple(round(float(share), 6) for share in answer.routing[0]),
            )
            for answer in answers
        ]

    return Model(*identity(parrot, folder), ask)


def identity(parrot: Parrot, folder: Path) -> tuple[str, str]:
    """Name and fingerprint of the bundle in ``folder``, loaded as ``parrot``."""
    # The manifest lists the hash of every file, and loading has checked them. Engines may answer otherwise than graphs.
    digest = hashlib.sha256((folder / MANIFEST_NAME).read_bytes() + parrot.backend.encode()).hexdigest()
    return f"{parrot.manifest.name} {parrot.manifest.precision}", digest
