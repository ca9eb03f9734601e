"""From data files to the ``Conversations`` a stage trains on, with everything checked on the way."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from parrot_runtime.errors import InputError
from parrot_runtime.image import ImageRecipe
from parrot_runtime.prompt import PromptEncoder
from parrot_train.config import DataConfig
from parrot_train.data.cache import image_store, token_store
from parrot_train.data.check import find_problems, judge
from parrot_train.data.collator import Conversations, Samples
from parrot_train.data.records import Problem
from parrot_train.data.strings import Paths
from parrot_train.workers import core_count

_MOST_WORKERS = 16


def worker_count(data: DataConfig, processes: int = 1) -> int:
    """``data.workers``, or one per core for each of ``processes`` that share the machine's."""
    return max(1, min(_MOST_WORKERS, core_count() // processes)) if data.workers is None else data.workers


@dataclass(frozen=True)
class Prepared:
    """The samples of a stage, what ``run.json`` says of their origin, and the report on records left out, if any."""

    conversations: Conversations
    sources: list[dict[str, Any]]
    report: dict[str, Any] | None


def prepare(
    files: Sequence[Path], data: DataConfig, *, tokenizer: Path, recipe: ImageRecipe, image_tokens: int, fallback: Path
) -> Prepared:
    """Read, tokenise and check all ``files``; caches go to ``fallback`` where a file's folder cannot be written.

    Raises InputError for an unusable file and BadRecordsError, with all problems of all files, for bad records.
    """
    workers = worker_count(data)
    pad_id = PromptEncoder(Tokenizer.from_file(str(tokenizer))).pad_id
    conversations = Conversations(recipe=recipe, pad_id=pad_id, image_tokens=image_tokens, max_length=data.max_length)
    problems: list[Problem] = []
    sources: list[dict[str, Any]] = []
    total = 0
    for path in files:
        store = token_store(path, tokenizer, image_tokens=image_tokens, workers=workers, fallback=fallback)
        root = Path(data.image_folder) if data.image_folder else path.parent
        images = image_store(
            store.folder,
            Paths(root, store.images),
            recipe,
            keep_pixels=data.image_cache != "none",
            max_pixels=data.max_pixels,
            workers=workers,
        )
        samples = Samples(store, image_tokens=image_tokens, max_length=data.max_length)
        found = find_problems(samples, store, images)
        bad_rows = [problem.row for problem in found]
        usable = ~np.isin(store.rows, bad_rows)
        conversations.add(store, images, samples, usable)
        records = len(store) + len(store.problems)
        source = {"file": str(path), "sha256": store.sha256, "records": records, "skipped": len(found)}
        source["picture_sizes"] = images.sizes
        if bad_rows:  # with as many others left out, samples would have other numbers
            source["left_out"] = hashlib.sha256(json.dumps(sorted(bad_rows)).encode()).hexdigest()
        sources.append(source)
        problems += found
        total += records
    if not total:
        raise InputError("no data files are given; name LLaVA JSON files with --data")
    report = judge(problems, total, max_bad_fraction=data.max_bad_fraction)
    return Prepared(conversations, sources, report)
