"""The study's data: every language's pictures and questions in files of their own, which a variant's stage 2 lists."""

from functools import partial
from itertools import islice
from pathlib import Path

from parrot_benchmarks.paper.study import CAPTIONS_PART, Study
from parrot_runtime.publish import publish_directory
from parrot_train.nano.scenes import scenes
from parrot_train.nano.write import caption_record, question_record, write_part


def write_data(study: Study, part: str, seed: int, folder: Path) -> None:
    """Draw the data part ``part`` (``captions``, or ``tr-0``) of a seed into ``folder``, which appears whole."""
    if part == CAPTIONS_PART:
        count, record_of = study.captions, caption_record
    else:
        code, _, number = part.partition("-")
        count, record_of = study.count(code, int(number)), partial(question_record, shares={code: 1.0})
    drawn = list(islice(scenes("train", seed=f"study/{part}/{seed}"), count))
    with publish_directory(folder, force=True) as beside:
        write_part(beside, part, drawn, record_of, seed=seed, workers=1)


def data_file(study: Study, part: str, seed: int) -> Path:
    """The LLaVA JSON of a data part."""
    return study.data(seed) / part / f"{part}.json"
