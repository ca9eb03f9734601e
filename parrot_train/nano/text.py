"""Six-language text about the nano world, from which the small LLM is pretrained before it ever sees a picture.

A document is a conversation. Most are stories: a scene that is given in words, every thing with its place, in one
language, and questions about it in the same or another one. Some ask first for the whole scene retold: nearly every
token of that answer has to be looked up, which is what makes looking up emerge at all within minutes. Exams are stories
with short answers alone, letters or values, in the language they are told in. Lessons are exams that keep to one kind
of question. Quizzes have no scene: a list of options and then values, each answered by its letter. Together they are
what a chat LLM brings to a vision-language model: the languages, the forms of questions and answers, and reading facts
off its context.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

from parrot_runtime.choices import LETTERS
from parrot_runtime.languages import CODES
from parrot_runtime.prompt import Turn
from parrot_train.nano.grammar import GRAMMARS, Grammar
from parrot_train.nano.lessons import questions_on
from parrot_train.nano.questions import FORMS, sample_question, value_question, yes_no_question
from parrot_train.nano.scenes import BACKGROUNDS, COLOURS, KINDS, MOST_THINGS, Group, Scene, scenes

QUIZ_VALUES = LESSON_QUESTIONS = 8
EXAM_YES_NO = 0.25
# Open questions whose answer is one value.
SHORT = tuple(name for name in FORMS["open"] if name not in ("object", "describe", "report"))


@dataclass(frozen=True)
class Mix:
    """What a text is made of: questions per story, and the shares of stories and documents that are special.

    retold: stories that begin with the question for the whole scene.
    shuffled: stories whose things are told in any order; in the others those of a kind stand together.
    exams, lessons, quizzes: documents that are those.
    subjects: the kinds of questions that lessons are about.
    """

    questions: int
    retold: float = 0.0
    shuffled: float = 0.0
    exams: float = 0.0
    lessons: float = 0.0
    quizzes: float = 0.0
    subjects: tuple[str, ...] = ()


# What a model reads first; what it reads to connect looking up with choosing; what it reads once it can do both.
READING = Mix(questions=3, retold=0.5)
EXAMINING = Mix(questions=6, retold=0.2, shuffled=0.1, exams=0.8, quizzes=0.02)
CHATTING = Mix(questions=6, retold=0.15, shuffled=0.1, exams=0.6, quizzes=0.03)


def lessons_on(*subjects: str) -> Mix:
    """Mostly lessons on ``subjects``; the rest is as in CHATTING."""
    return replace(CHATTING, exams=0.1, lessons=0.85, quizzes=0.0, subjects=subjects)


def description(scene: Scene, language: str, r: random.Random, *, shuffled: bool = False) -> str:
    """The scene in words: ``a large red apple in the top left; …; a meadow``, group by group unless ``shuffled``."""
    g = GRAMMARS[language]
    parts = [g.located(group, cell) for group in scene.groups for cell in group.cells]
    if shuffled:
        r.shuffle(parts)
    parts.insert(r.choice((0, len(parts))), g.scenery(scene.background))
    return r.choice(("; ", "\n", ", ")).join(parts)


def story(scene: Scene, r: random.Random, mix: Mix) -> list[Turn]:
    """A conversation about ``scene``: its description stands before the first question, where a picture would."""
    language = r.choice(CODES)
    told_in = language if r.random() < 0.5 else r.choice(CODES)
    g, turns = GRAMMARS[language], []
    retold, shuffled = r.random() < mix.retold, r.random() < mix.shuffled
    for number in range(mix.questions):
        asked = value_question("report", "open", scene, g, r) if retold and not number else sample_question(scene, g, r)
        turns += [Turn("user", asked.prompt), Turn("assistant", asked.answer)]
    turns[0] = Turn("user", f"{description(scene, told_in, r, shuffled=shuffled)}\n{turns[0].text}")
    return turns


def exam(scene: Scene, r: random.Random, mix: Mix, *, lettered: bool) -> list[Turn]:
    """A story of one language whose questions all have short answers: letters, or values and yes and no in words."""
    language = r.choice(CODES)
    g, turns = GRAMMARS[language], []
    form, names = ("choice", FORMS["choice"]) if lettered else ("open", SHORT)
    while len(turns) < 2 * mix.questions:
        if r.random() < EXAM_YES_NO:
            name, truth = r.choice(FORMS["yes-no"]), r.random() < 0.5
            asked = yes_no_question(name, scene, g, r, truth=truth, lettered=lettered)
        else:
            asked = value_question(r.choice(names), form, scene, g, r)
        if asked is not None:
            turns += [Turn("user", asked.prompt), Turn("assistant", asked.answer)]
    turns[0] = Turn("user", f"{description(scene, language, r)}\n{turns[0].text}")
    return turns


def lesson(scene: Scene, subject: str, r: random.Random) -> list[Turn] | None:
    """An exam of one kind of question, with four options or Yes/No; None for a scene that gives too few of them."""
    language = r.choice(CODES)
    g, turns, lettered = GRAMMARS[language], [], r.random() < 0.5
    for asked in questions_on(subject, scene, g, r, LESSON_QUESTIONS, lettered=lettered, alike=True):
        turns += [Turn("user", asked.prompt), Turn("assistant", asked.answer)]
    if len(turns) < 2 * LESSON_QUESTIONS:
        return None
    turns[0] = Turn("user", f"{description(scene, language, r)}\n{turns[0].text}")
    return turns


def lessons(subjects: tuple[str, ...], *, seed: int | str) -> Iterator[list[Turn]]:
    """An endless stream of lessons on ``subjects``, about training scenes of mixed company."""
    r = random.Random(f"lessons/{seed}")
    for scene in scenes("train", seed=f"lessons/{seed}", mixed=True):
        turns = lesson(scene, r.choice(subjects), r)
        if turns is not None:
            yield turns


def _answers(g: Grammar, r: random.Random) -> list[str]:
    """The different values that one category of question may have."""
    kind = r.choice(KINDS)
    group = Group(kind, COLOURS[0], "large", r.choice(((0,), (0, 1))))
    values = r.choice(
        (
            lambda: map(g.one, KINDS),
            lambda: (g.colour_of(group, colour) for colour in COLOURS),
            lambda: map(g.place, range(9)),
            lambda: (g.number_of(kind, n) for n in range(1, MOST_THINGS + 1)),
            lambda: map(g.scenery, BACKGROUNDS),
            lambda: (g.yes, g.no),
        )
    )
    return list(dict.fromkeys(values()))


def quiz(r: random.Random) -> list[Turn]:
    """Up to four options in one language, then values of which each is answered by its letter."""
    values = _answers(GRAMMARS[r.choice(CODES)], r)
    options = r.sample(values, min(4, len(values)))
    asked = [r.randrange(len(options)) for _ in range(QUIZ_VALUES)]
    turns = [turn for i in asked for turn in (Turn("user", options[i]), Turn("assistant", LETTERS[i]))]
    listed = "\n".join(f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False))
    return [Turn("user", f"{listed}\n{turns[0].text}"), *turns[1:]]


def documents(mix: Mix, *, seed: int | str) -> Iterator[list[Turn]]:
    """An endless stream of conversations; the stories are about training scenes."""
    r, taught = random.Random(f"text/{seed}"), lessons(mix.subjects, seed=seed)
    for scene in scenes("train", seed=f"text/{seed}"):
        kind = r.random()
        if kind < mix.quizzes:
            yield quiz(r)
        elif kind < mix.quizzes + mix.exams:
            yield exam(scene, r, mix, lettered=r.random() < 0.6)
        elif kind < mix.quizzes + mix.exams + mix.lessons:
            yield next(taught)
        else:
            yield story(scene, r, mix)
