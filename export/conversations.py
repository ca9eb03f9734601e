"""Conversations about pictures, by language and kind of question: what a calibration looks at, and what the gate asks.

They come from nano's own pictures, which are drawn and need no file, from LLaVA JSON, and from VLMEvalKit TSV. A draw
is seeded: the same files and seed give the same conversations on every machine. Every language gets the same number,
and within a language every kind of question as near to the same as there are conversations of it.
"""

import random
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from parrot_runtime.choices import INSTRUCTIONS, LETTERS, multiple_choice
from parrot_runtime.errors import InputError
from parrot_runtime.languages import CODES
from parrot_runtime.prompt import Turn

if TYPE_CHECKING:
    from parrot_evaluation.tsv import Row

NANO = "nano"
_SHORT_ANSWER = 24
# An option of a question in LLaVA JSON. From A on, they make it a multiple-choice one.
_OPTION = re.compile(r"^([A-H])[.)] ", re.MULTILINE)


@dataclass(frozen=True)
class Conversation:
    """A conversation about one picture; its ``turns`` end with an answer. ``source`` and ``row`` are its place.

    ``options`` is how many the first question offers by letters; 0 where its answer is not one of them, or there are
    none.
    """

    source: str
    row: str
    language: str
    kind: str
    turns: tuple[Turn, ...]
    image: Callable[[], Image.Image] = field(repr=False, compare=False)
    system: str | None = None
    options: int = 0

    @property
    def question(self) -> str:
        """The first question."""
        return self.turns[0].text

    @property
    def answer(self) -> str:
        """The answer to it."""
        return self.turns[1].text

    @property
    def name(self) -> str:
        """What errors call it."""
        return f"{self.source}[{self.row}] ({self.language})"

    @property
    def entry(self) -> dict[str, Any]:
        """What the manifest says of it."""
        return {"source": self.source, "row": self.row, "language": self.language, "kind": self.kind}

    @property
    def place(self) -> tuple[str, str]:
        """Its file's name, without the folder, and its row: where it would be met again."""
        return place(self.entry)


def place(entry: dict[str, Any]) -> tuple[str, str]:
    """``Conversation.place`` of an entry."""
    return Path(entry["source"]).name, entry["row"]


@dataclass(frozen=True)
class Drawn:
    """A drawn set, and what a person should know of how it was drawn."""

    samples: tuple[Conversation, ...]
    notes: tuple[str, ...] = ()


def draw_samples(
    data: Sequence[Path],
    per_language: int,
    seed: int | str,
    languages: Sequence[str] = CODES,
    without: Collection[tuple[str, str]] = (),
) -> Drawn:
    """``per_language`` samples of each language from ``data`` (LLaVA ``.json``, ``.tsv``), nano's where there is none.

    Those at one of the places ``without`` are left out. Raises InputError: files that cannot be read or have bad rows,
    languages of which there is no sample at all. A language with fewer than asked for is a note.
    """
    if per_language < 1:
        raise InputError(f"--per-language is {per_language}; expected 1 or more")
    if not data:
        return Drawn(tuple(_nano(per_language, seed, languages)))
    pool: dict[str, dict[str, list[Conversation]]] = {code: {} for code in languages}
    left_out: dict[str, int] = {}
    for path in data:
        for sample in _read(path, left_out):
            if sample.place in without:
                _leave_out(left_out, f"of {path} were calibrated on, and are left out")
            elif sample.language in pool:
                pool[sample.language].setdefault(sample.kind, []).append(sample)
            else:
                _leave_out(left_out, f"of {path} are in '{sample.language}', which is not asked for, and are left out")
    notes = [f"{count} records {reason}" for reason, count in left_out.items()]
    empty = [code for code, kinds in pool.items() if not kinds]
    if empty:
        raise InputError(
            f"{', '.join(map(str, data))}: no sample in {', '.join(empty)}; add data in every language of the "
            f"model, or calibrate fewer with --languages{''.join(f' ({note})' for note in notes)}"
        )
    chosen = {code: _balanced(kinds, per_language, f"{seed}/{code}") for code, kinds in pool.items()}
    notes += [
        f"{code} has {len(found)} of {per_language} samples"
        for code, found in chosen.items()
        if len(found) < per_language
    ]
    return Drawn(tuple(sample for found in chosen.values() for sample in found), tuple(notes))


def _leave_out(left_out: dict[str, int], reason: str) -> None:
    left_out[reason] = left_out.get(reason, 0) + 1


def _balanced(kinds: dict[str, list[Conversation]], count: int, seed: str) -> list[Conversation]:
    """One of each kind in turn, at random within a kind, until there are ``count`` or none is left."""
    chance = random.Random(seed)
    piles = [chance.sample(samples, len(samples)) for _, samples in sorted(kinds.items())]
    chosen = []
    while len(chosen) < count and any(piles):
        for pile in piles:
            if pile and len(chosen) < count:
                chosen.append(pile.pop())
    return chosen


def _nano(per_language: int, seed: int | str, languages: Sequence[str]) -> Iterator[Conversation]:
    """nano's pictures, of the training side: what is held out stays for measuring."""
    from parrot_train.nano.draw import render
    from parrot_train.nano.grammar import GRAMMARS
    from parrot_train.nano.questions import FORMS, value_question, yes_no_question
    from parrot_train.nano.scenes import scenes

    for language in languages:
        drawn = scenes("train", seed=f"calibration/{seed}/{language}")
        chance = random.Random(f"calibration/{seed}/{language}")
        kinds = [(form, name) for form, names in FORMS.items() for name in names]
        chance.shuffle(kinds)
        for number in range(per_language):
            form, name = kinds[number % len(kinds)]
            question = None
            while question is None:
                scene = next(drawn)
                if form == "yes-no":
                    truth, lettered = chance.random() < 0.5, chance.random() < 0.5
                    question = yes_no_question(name, scene, GRAMMARS[language], chance, truth=truth, lettered=lettered)
                else:
                    question = value_question(name, form, scene, GRAMMARS[language], chance)
            turns = Turn("user", question.prompt, 1), Turn("assistant", question.answer)
            yield Conversation(NANO, f"{seed}/{number}", language, f"{form}/{name}", turns, partial(render, scene))


def _read(path: Path, left_out: dict[str, int]) -> Iterator[Conversation]:
    if path.suffix == ".tsv":
        return _tsv(path)
    if path.suffix == ".json":
        return _llava(path, left_out)
    raise InputError(f"{path}: expected LLaVA JSON (.json) or a VLMEvalKit table (.tsv)")


def _llava(path: Path, left_out: dict[str, int]) -> Iterator[Conversation]:
    from parrot_runtime.image import read_image
    from parrot_train.data.records import parse_records, read_json

    records, problems = parse_records(read_json(path), file=str(path))
    if problems:
        more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
        raise InputError(f"{'; '.join(map(str, problems[:3]))}{more}; correct the records")
    for record in records:
        if len(record.images) != 1:
            _leave_out(left_out, f"of {path} have no picture or several, and are left out")
            continue
        image, options = partial(read_image, path.parent / record.images[0]), _options(record.turns)
        kind, row = _kind(record.turns), str(record.row)
        yield Conversation(str(path), row, record.language, kind, record.turns, image, record.system, options)


def _kind(turns: Sequence[Turn]) -> str:
    """What the first question of a conversation asks for: a letter, a few words, or more."""
    question, answer = turns[0].text, turns[1].text
    if question.rstrip().endswith(tuple(INSTRUCTIONS.values())) or _offered(question) > 1:
        return "choice"
    return "short" if len(answer) <= _SHORT_ANSWER else "long"


def _offered(question: str) -> int:
    """How many options ``question`` lists: lines that begin with A., B. and so on, in order."""
    found = "".join(_OPTION.findall(question))
    return len(found) if found and LETTERS.startswith(found) else 0


def _options(turns: Sequence[Turn]) -> int:
    """``Conversation.options`` of a conversation."""
    offered, answer = _offered(turns[0].text), turns[1].text.strip()
    return offered if offered > 1 and answer in tuple(LETTERS[:offered]) else 0


def _tsv(path: Path) -> Iterator[Conversation]:
    from parrot_evaluation.tsv import read_tsv

    for row in read_tsv(path).rows:
        options = tuple(row.options.values())
        text = multiple_choice(row.question, options, row.language, hint=row.hint) if options else row.question
        turns = Turn("user", text, 1), Turn("assistant", row.answer)
        image = partial(_picture, row, f"{path} row {row.index}")
        kind = f"{row.kind}/{row.category}" if row.category else row.kind
        yield Conversation(str(path), row.index, row.language, kind, turns, image, options=len(options))


def _picture(row: "Row", name: str) -> Image.Image:
    from parrot_runtime.image import read_image

    return read_image(row.image_bytes, name=name)
