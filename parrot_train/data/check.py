"""The gate before training: every record and every image is looked at, and everything wrong is said at once.

No sample is ever replaced by another. Either all records are good, or the run refuses with the list, or
``--max-bad-fraction`` leaves the bad ones out by rule and a report names each of them.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from parrot_runtime.errors import InputError
from parrot_train.data.cache import ImageStore, TokenStore
from parrot_train.data.collator import Samples
from parrot_train.data.records import Problem

SHOWN = 50


class BadRecordsError(InputError):
    """Records that cannot be used; the message lists them, one per line."""

    keep_lines = True

    def __init__(self, problems: Sequence[Problem], total: int, allowed: float) -> None:
        self.problems = list(problems)
        share = -(-10_000 * len(problems) // total) / 10_000  # rounded up, so that the advice suffices
        lines = [
            f"{len(problems)} of {total} records cannot be used, and a share of {allowed:g} may be left out; correct "
            + (f"them, or give --max-bad-fraction {share:g} to train without them:" if share < 1 else "them:")
        ]
        lines += [f"  {problem}" for problem in problems[:SHOWN]]
        if len(problems) > SHOWN:
            lines.append(f"  … and {len(problems) - SHOWN} more")
        super().__init__("\n".join(lines))


def find_problems(samples: Samples, store: TokenStore, images: ImageStore) -> list[Problem]:
    """Everything wrong with the records of one file, at most one problem per record, in file order."""
    reasons: dict[int, str] = {}
    if images.bad:
        bad_rows = np.isin(store.image_rows, list(images.bad))
        for place in np.flatnonzero(bad_rows):
            sample = int(np.searchsorted(store.image_offsets, place, side="right")) - 1
            reasons.setdefault(sample, f"image: {images.bad[int(store.image_rows[place])]}")
    for sample in np.flatnonzero(samples.supervised == 0):
        whole = int(store.offsets[sample + 1] - store.offsets[sample])
        reasons.setdefault(
            int(sample),
            f"no answer token within data.max_length = {samples.max_length} (the record has {whole} tokens)",
        )
    found = [
        Problem(str(store.file), int(store.rows[sample]), store.names[sample], reason)
        for sample, reason in reasons.items()
    ]
    return sorted(store.problems + found, key=lambda problem: problem.row)


def judge(problems: Sequence[Problem], total: int, *, max_bad_fraction: float) -> dict[str, Any] | None:
    """Raise BadRecordsError when more than ``max_bad_fraction`` of ``total`` are bad; else report those skipped."""
    if not problems:
        return None
    if len(problems) / total > max_bad_fraction or len(problems) == total:
        raise BadRecordsError(problems, total, max_bad_fraction)
    return {
        "records": total,
        "skipped": len(problems),
        "max_bad_fraction": max_bad_fraction,
        "problems": [asdict(problem) for problem in problems],
    }
