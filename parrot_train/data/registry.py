"""The datasets the paper trains on (Table 3), with their counts and where their own pages are.

Nothing is downloaded: each page states the terms under which its data may be had. Counts are the paper's, in thousands
as Table 3 has them. Licences are those the datasets' own cards state; None where the paper's authors or the card name
none that we know of, which is not leave to use them.
"""

from dataclasses import asdict, dataclass
from typing import Any

from parrot_train.data.survey_report import table

_PARROT = "https://huggingface.co/datasets/AIDC-AI/Parrot-dataset"
_PARROT_LICENCE = "CC BY-NC-SA 4.0; its captions come from ShareGPT4V: CC BY-NC 4.0 and OpenAI's terms of use"


@dataclass(frozen=True)
class Dataset:
    """One row of Table 3. ``file`` is the JSON that goes to ``--data``, ``images`` where its pictures come from."""

    name: str
    stage: int
    language: str
    records: int
    page: str
    file: str | None
    images: str
    licence: str | None


def _translated(code: str, thousands: int) -> Dataset:
    return Dataset(
        name=f"ShareGPT4V-{code}",
        stage=2,
        language=code,
        records=thousands * 1000,
        page=f"{_PARROT}/tree/main/sharegpt_4v",
        file=f"sharegpt4v_sft_{code}_{thousands}k.json",
        images="those of ShareGPT4V: https://huggingface.co/datasets/Lin-Chen/ShareGPT4V names their sources",
        licence=_PARROT_LICENCE,
    )


DATASETS: tuple[Dataset, ...] = (
    Dataset(
        name="LLaVA-1.5-pretrain",
        stage=1,
        language="en",
        records=558_000,
        page="https://huggingface.co/datasets/liuhaotian/LLaVA-Pretrain",
        file="blip_laion_cc_sbu_558k.json",
        images="images.zip on the same page",
        licence=None,
    ),
    Dataset(
        name="Laion-Caption",
        stage=1,
        language="en",
        records=12_000,
        page=_PARROT,
        file=None,
        images="named by the authors' README as part of that page",
        licence=None,
    ),
    Dataset(
        name="CC12M-Caption",
        stage=1,
        language="en",
        records=645_000,
        page=_PARROT,
        file=None,
        images="named by the authors' README as part of that page",
        licence=None,
    ),
    Dataset(
        name="LLaVA-1.5-finetune",
        stage=2,
        language="en",
        records=665_000,
        page="https://huggingface.co/datasets/liuhaotian/LLaVA-Instruct-150K",
        file="llava_v1_5_mix665k.json",
        images="COCO train2017, GQA, OCR-VQA, TextVQA and Visual Genome; https://github.com/haotian-liu/LLaVA says how",
        licence="CC BY 4.0, and OpenAI's terms of use",
    ),
    _translated("zh", 71),
    _translated("pt", 14),
    _translated("ar", 12),
    _translated("tr", 17),
    _translated("ru", 14),
)


def as_data() -> list[dict[str, Any]]:
    """The registry as plain data."""
    return [asdict(dataset) for dataset in DATASETS]


def describe() -> list[str]:
    """The registry for people: a table, then where each is."""
    rows = [["dataset", "stage", "language", "records", "file for --data"]]
    for each in DATASETS:
        rows.append([each.name, str(each.stage), each.language, f"{each.records:,}", each.file or "not published"])
    for stage in (1, 2):
        total = sum(each.records for each in DATASETS if each.stage == stage)
        rows.append([f"stage {stage}", str(stage), "", f"{total:,}", ""])
    lines = [*table(rows), ""]
    for each in DATASETS:
        lines += [f"{each.name}: {each.page}", f"  pictures: {each.images}"]
        lines.append(f"  licence: {each.licence or 'see the page; none is recorded here'}")
    return lines
