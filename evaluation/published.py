"""The benchmarks' files as their publishers offer them: addresses and MD5 sums, which are facts about the benchmarks.

Sources: VLMEvalKit's ``DATASET_URL`` and ``DATASET_MD5`` in ``vlmeval/dataset/image_mcq.py``, ``image_yorn.py`` and
``image_vqa.py`` (the same sums stand in the copy bundled with the released Parrot, ``utils/dataset_config.py``).
"""

from collections.abc import Sequence
from dataclasses import dataclass

_KIT = "https://opencompass.openxlab.space/utils/VLMEval/"
_PARROT = "https://huggingface.co/datasets/AIDC-AI/Parrot-dataset/resolve/main/"


@dataclass(frozen=True)
class Published:
    """One file: its ``name``, where it can be had, its MD5 as published, and by whom."""

    name: str
    url: str
    md5: str
    publisher: str


def _kit(name: str, md5: str) -> Published:
    return Published(name, _KIT + name, md5, "VLMEvalKit")


def _parrot(folder: str, stem: str, sums: dict[str, str]) -> list[Published]:
    return [
        Published(f"{stem}_{code}.tsv", f"{_PARROT}{folder}/{stem}_{code}.tsv", md5, "AIDC-AI/Parrot-dataset")
        for code, md5 in sums.items()
    ]


PUBLISHED: tuple[Published, ...] = (
    *_parrot(
        "mmmb",
        "mmmb",
        {
            "en": "1cd781a71ec5a2983c090b84105d6a01",
            "cn": "13ed82fa89730037292fcaa27f08f430",
            "pt": "548ea2b3bb2da991790386f0015d30d1",
            "ar": "f3a18b6385f1d9701840aa42de27aead",
            "tr": "0733739d43090327975294292bc5cd67",
            "ru": "ce1cc8a0533425ab0d86b326ebfc2984",
        },
    ),
    *_parrot(
        "mmbench",
        "mmbench_dev",
        {
            "en": "d9ab776fc018b3d45785e9a5c23431c2",
            "cn": "2ed5135326fed02c8e51ea50dda8222f",
            "pt": "4ddfbcd27ef12444b908c03831cd0295",
            "ar": "4271b4a0d0200e1a86380a878e0d64a4",
            "tr": "4fab39d501389d3d6cc90264bb708f11",
            "ru": "5ba1171ff2e68f80637bf78349e402a5",
        },
    ),
    # The original MMBench v1.0: but for the case of the letters the same names, and other files.
    _kit("MMBench_DEV_EN.tsv", "b6caf1133a01c6bb705cf753bb527ed8"),
    _kit("MMBench_DEV_CN.tsv", "08b8fc3324a5ed74155350f57be69fbd"),
    _kit("MME.tsv", "b36b43c3f09801f5d368627fb92187c3"),
    _kit("MMStar.tsv", "e1ecd2140806c1b1bbf54b43372efb9e"),
    _kit("ScienceQA_TEST.tsv", "e42e9e00f9c59a80d8a5db35bc32b71f"),
    _kit("RealWorldQA.tsv", "92321028d2bc29040284b6674721e48f"),
    _kit("SEEDBench_IMG.tsv", "68017231464752261a2526d6ca3a10c0"),
    _kit("LLaVABench.tsv", "d382a093f749a697820d3dadd61c8428"),
)


def find_published(names: Sequence[str]) -> Published | None:
    """The file that the first of ``names`` that is published has, names in any case; None where none is."""
    by_name: dict[str, Published] = {}
    for file in PUBLISHED:
        by_name.setdefault(file.name.lower(), file)
    return next((by_name[name.lower()] for name in names if name.lower() in by_name), None)


def compare(name: str, md5: str) -> str | None:
    """How a file on disk stands to those published under its name, in any case; None where none is published.

    ``"as published by VLMEvalKit"``, or ``"differs from the one published by VLMEvalKit"``.
    """
    known = [file for file in PUBLISHED if file.name.lower() == name.lower()]
    if not known:
        return None
    for file in known:
        if file.md5 == md5:
            return f"as published by {file.publisher}"
    publishers = " and ".join(dict.fromkeys(file.publisher for file in known))
    return f"differs from the one published by {publishers}"
