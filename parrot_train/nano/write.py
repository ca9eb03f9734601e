"""The nano world on disk, in the formats of the real thing.

Training: LLaVA JSON with JPEG files beside it. Stage 1 has English captions only; stage 2 is mostly English, and every
other language has a small share of its own pictures (nothing is parallel), as in the paper's Table 3. Evaluation:
VLMEvalKit TSV with base64 pictures, one file per language, the same questions in all of them.
"""

import base64
import csv
import io
import json
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

from parrot_runtime.languages import CODES
from parrot_runtime.prompt import IMAGE_PLACEHOLDER
from parrot_train.config import NanoDataConfig
from parrot_train.nano import world
from parrot_train.nano.categories import VALUE_CATEGORIES
from parrot_train.nano.draw import render
from parrot_train.nano.grammar import GRAMMARS
from parrot_train.nano.lessons import questions_on
from parrot_train.nano.questions import FORMS, Question, sample_question, value_question, yes_no_question
from parrot_train.nano.scenes import Scene, Split, scenes
from parrot_train.workers import core_count, map_chunks

JPEG_QUALITY = 92
# Stage 2's share of each language: mostly English, as the paper's data, though not as extreme (its Turkish has 2 %).
SHARES = {"en": 0.60, "zh": 0.12, "pt": 0.07, "ar": 0.07, "tr": 0.07, "ru": 0.07}
QUESTIONS_PER_PICTURE = 5
# Half of stage 2's conversations are lessons: questions of one kind, with options. Kinds that take longer come oftener.
LESSONS, LESSON_QUESTIONS = 0.5, 6
SUBJECTS = dict.fromkeys(("colour", "with_colour", "absent", "total", "beside", *FORMS["yes-no"]), 1)
SUBJECTS |= {"position": 2, "count": 2, "at_position": 3}
LETTERED_LESSONS = 0.7
# Half of stage 1's captions also say where each thing is, so that places are aligned too.
LOCATED_CAPTIONS = 0.5
EVALUATION_COLUMNS = (
    "index",
    "image",
    "question",
    "hint",
    "A",
    "B",
    "C",
    "D",
    "answer",
    "category",
    "l2-category",
    "split",
)  # fmt: skip
# Evaluation rows per category and language.
CHOICE_ROWS, YES_NO_PAIRS, OPEN_ROWS = 40, 20, 10


# Pictures that a process draws at a time.
DRAWN_AT_ONCE = 64


def jpeg(scene: Scene) -> bytes:
    """The picture of a scene as a JPEG file's bytes."""
    buffer = io.BytesIO()
    render(scene).save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


# --- training -------------------------------------------------------------------------------------------------------
def ensure_data(folder: Path, config: NanoDataConfig, *, workers: int | None = None) -> dict[str, Path]:
    """Write the training files under ``folder`` unless they are there; the JSON files of stage1, stage2 and heldout.

    A folder that holds another world than ``config`` asks for is replaced. ``workers`` processes draw, one per core
    when it is None; a terminal shows how far they are. Raises InputError as ``world.ensure`` does.
    """
    processes = core_count() if workers is None else workers
    world.ensure(folder, _fingerprint(config), lambda beside: _write_world(beside, config, processes))
    return {name: folder / f"{name}.json" for name in ("stage1", "stage2", "heldout")}


def _fingerprint(config: NanoDataConfig) -> dict:
    counts = {"stage1": config.stage1_scenes, "stage2": config.stage2_scenes, "heldout": config.heldout_scenes}
    questions = {"each": QUESTIONS_PER_PICTURE, "lessons": LESSONS, "subjects": SUBJECTS}
    return {"format": 3, "seed": config.seed, "scenes": counts, "shares": SHARES, "questions": questions}


def _write_world(folder: Path, config: NanoDataConfig, workers: int) -> None:
    parts = {
        "stage1": (caption_record, _scenes("train", config, "stage1", config.stage1_scenes)),
        "stage2": (question_record, _scenes("train", config, "stage2", config.stage2_scenes)),
        "heldout": (question_record, _scenes("held-out", config, "heldout", config.heldout_scenes)),
    }
    for name, (record_of, part) in parts.items():
        write_part(folder, name, part, record_of, seed=config.seed, workers=workers)


def write_part(
    folder: Path, name: str, part: Sequence[Scene], record_of: Callable[..., dict], *, seed: int, workers: int
) -> None:
    """Draw the scenes of ``part`` into ``folder/name`` and write their records to ``folder/name.json``."""
    (folder / name).mkdir()
    paths = [f"{name}/{number:06d}.jpg" for number in range(len(part))]
    pictures = [(scene, folder / path) for scene, path in zip(part, paths, strict=True)]
    label = f"nano's pictures for {name}"
    for _ in map_chunks(_write_pictures, pictures, workers=workers, size=DRAWN_AT_ONCE, label=label):
        pass
    random_ = random.Random(f"records/{name}/{seed}")
    records = [record_of(scene, path, random_) for scene, path in zip(part, paths, strict=True)]
    (folder / f"{name}.json").write_text(json.dumps(records, ensure_ascii=False, indent=0), "utf-8")


def _scenes(split: Split, config: NanoDataConfig, name: str, count: int) -> list[Scene]:
    return list(islice(scenes(split, seed=f"{name}/{config.seed}"), count))


def _write_pictures(pictures: Sequence[tuple[Scene, Path]]) -> list[int]:
    return [path.write_bytes(jpeg(scene)) for scene, path in pictures]


def _jpegs(drawn: Sequence[Scene]) -> list[bytes]:
    return [jpeg(scene) for scene in drawn]


def caption_record(scene: Scene, path: str, random_: random.Random) -> dict:
    """One LLaVA record of stage 1: the picture and its English caption."""
    name = "report" if random_.random() < LOCATED_CAPTIONS else "describe"
    question = value_question(name, "open", scene, GRAMMARS["en"], random_)
    return _record(path, "en", [(question.prompt, question.answer)])


def question_record(scene: Scene, path: str, random_: random.Random, *, shares: Mapping[str, float] = SHARES) -> dict:
    """One LLaVA record of stage 2: the picture and a few questions in one language, of any kinds or of one."""
    (language,) = random_.choices(tuple(shares), weights=tuple(shares.values()))
    g, asked = GRAMMARS[language], []
    if random_.random() < LESSONS:
        (subject,) = random_.choices(tuple(SUBJECTS), weights=tuple(SUBJECTS.values()))
        lettered = random_.random() < LETTERED_LESSONS
        asked = questions_on(subject, scene, g, random_, LESSON_QUESTIONS, lettered=lettered)
    if not asked:
        mixed = (sample_question(scene, g, random_) for _ in range(QUESTIONS_PER_PICTURE))
        asked = list({question.prompt: question for question in mixed}.values())
    return _record(path, language, [(question.prompt, question.answer) for question in asked])


def _record(path: str, language: str, pairs: Sequence[tuple[str, str]]) -> dict:
    turns = []
    for question, answer in pairs:
        turns += [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    turns[0]["value"] = f"{IMAGE_PLACEHOLDER}\n{turns[0]['value']}"
    return {"id": path.removesuffix(".jpg"), "image": path, "conversations": turns, "language": language}


# --- evaluation -----------------------------------------------------------------------------------------------------
def ensure_evaluation(folder: Path, *, seed: int = 1, languages: tuple[str, ...] = CODES) -> dict[str, Path]:
    """Write ``nano_{en,cn,pt,ar,tr,ru}.tsv`` under ``folder`` unless they are there; the files by language code.

    Held-out scenes; the same questions about the same pictures in every language, whatever ``languages`` are written.
    Per category: CHOICE_ROWS with four options, YES_NO_PAIRS of a Yes and a No question about one picture, OPEN_ROWS
    with an answer in words.
    """
    wanted = {"format": 2, "seed": seed, "rows": [CHOICE_ROWS, YES_NO_PAIRS, OPEN_ROWS]}
    if languages != CODES:
        wanted["languages"] = list(languages)
    files = {code: folder / f"nano_{'cn' if code == 'zh' else code}.tsv" for code in languages}
    world.ensure(folder, wanted, lambda beside: _write_evaluation(beside, files, seed))
    return files


def _write_evaluation(folder: Path, files: Mapping[str, Path], seed: int) -> None:
    asked = list(_evaluation_questions(seed))
    chunks = map_chunks(_jpegs, [scene for scene, _ in asked], workers=core_count(), size=DRAWN_AT_ONCE)
    pictures = [picture for chunk in chunks for picture in chunk]
    for code, path in files.items():
        rows = _rows(pictures, [[by_language[code] for by_language in questions] for _, questions in asked])
        _write_tsv(folder / path.name, rows)


def _in_every_language(ask: Callable[[str, random.Random], Question | None], key: str) -> dict[str, Question] | None:
    """The same question in all languages: every one draws from the same stream of chances."""
    questions = {code: ask(code, random.Random(key)) for code in GRAMMARS}
    return questions if all(questions.values()) else None


def _evaluation_questions(seed: int) -> Iterator[tuple[Scene, list[dict[str, Question]]]]:
    """Fresh scenes, each with one question or a Yes/No pair, by language."""
    stream = scenes("held-out", seed=f"evaluation/{seed}")
    wanted = [("choice", name) for name in FORMS["choice"] for _ in range(CHOICE_ROWS)]
    wanted += [("yes-no", name) for name in FORMS["yes-no"] for _ in range(YES_NO_PAIRS)]
    wanted += [("open", name) for name in FORMS["open"] for _ in range(OPEN_ROWS)]
    for number, (form, name) in enumerate(wanted):
        asked: list = [None]
        while not all(asked):
            scene = next(stream)
            asked = [_in_every_language(ask, f"evaluation/{seed}/{number}") for ask in _askers(form, name, scene)]
        yield scene, asked


def _askers(form: str, name: str, scene: Scene) -> list[Callable[[str, random.Random], Question | None]]:
    if name in VALUE_CATEGORIES:
        return [lambda code, r: value_question(name, form, scene, GRAMMARS[code], r)]
    return [
        lambda code, r, truth=truth: yes_no_question(name, scene, GRAMMARS[code], r, truth=truth, lettered=True)
        for truth in (True, False)
    ]


def _rows(pictures: Sequence[bytes], questions: Sequence[Sequence[Question]]) -> Iterator[dict]:
    """TSV rows; the second question about a picture refers to the first one's row, as the real files do."""
    index = 0
    for picture, asked in zip(pictures, questions, strict=True):
        first = index
        for question in asked:
            row = dict.fromkeys(EVALUATION_COLUMNS, "")
            row |= dict(zip("ABCD", question.options, strict=False))
            row |= {
                "index": index,
                "image": base64.b64encode(picture).decode("ascii") if index == first else first,
                "question": question.question,
                "answer": question.answer,
                "category": question.category,
                "l2-category": question.form,
                "split": "held-out",
            }
            yield row
            index += 1


def _write_tsv(path: Path, rows: Iterable[dict]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, EVALUATION_COLUMNS, delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
