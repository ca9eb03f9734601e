"""``parrot-train data translate``: a file of conversations through the pipeline, many at a time, in the file's order.

What a run leaves behind: OUT.json when all went well, whole; the replies beside it as they come; and a list of the
conversations that could not be translated, where there are any. Records keep their id, pictures and order; each gets
its language and a ``translation`` that holds the source, the votes and the flags, which training does not read.
"""

import json
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from parrot_runtime.endpoint import Endpoint, RejectedError, Settings, read_key
from parrot_runtime.errors import ParrotError
from parrot_runtime.languages import BY_CODE
from parrot_runtime.pace import Pace, StoppedError
from parrot_runtime.publish import write_file
from parrot_train.data.json_list import image_mover, publish_list
from parrot_train.data.records import UNDETERMINED, Problem, Record, good_records
from parrot_train.translation.pipeline import Asker, FailedError, Plan, Translation, translate
from parrot_train.translation.replies import Replies, Usage

KEY = "translation"
# Conversations begun ahead of the one that is written next, for each that is worked on.
_AHEAD = 8


@dataclass(frozen=True)
class Request:
    """What is to be translated and how fast; ``images`` as in partitioning, ``api_key_env`` names a variable."""

    source: Path
    output: Path
    plan: Plan
    server: Settings
    api_key_env: str | None = None
    cache: Path | None = None
    images: Path | None = None
    concurrency: int = 8
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    max_failed_fraction: float = 0.0
    force: bool = False

    @property
    def replies(self) -> Path:
        """Where the replies are kept."""
        return self.cache or self.output.with_name(self.output.name + ".replies.jsonl")

    @property
    def failures(self) -> Path:
        """Where conversations that could not be translated are listed."""
        return self.output.with_name(self.output.stem + ".failed.json")


@dataclass(frozen=True)
class Result:
    """What came of it; ``usage`` and ``cost`` count everything the replies' file has paid for, earlier runs too."""

    output: str
    sha256: str
    records: int
    failed: int
    flagged: int
    asked: int
    usage: Usage
    cost: float


def run(request: Request) -> Result:
    """Translate a file.

    Raises InputError for bad input or a server that refuses all requests, ParrotError where the server gives no
    answers, the budget is spent, or more than ``max_failed_fraction`` of the conversations fail.
    """
    key = read_key(request.api_key_env)
    over = threading.Event()
    pace = Pace(
        requests_per_minute=request.requests_per_minute, tokens_per_minute=request.tokens_per_minute, rest=over.wait
    )
    with publish_list(request.output, force=request.force) as writer, Replies(request.replies) as replies:
        total = sum(1 for _ in good_records(request.source))  # all of it, before anything is paid for
        paid_before = replies.usage.replies
        endpoint = Endpoint(request.server, pace, key=key)
        try:
            work = _Run(request, Asker(request.plan, endpoint, replies), replies, over)
            for item in work.translated(total):
                writer.add(item)
        finally:
            endpoint.close()
        replies.forget(work.useless)
        work.judge(writer.records)
    cost = replies.usage.cost(request.plan.price_in, request.plan.price_out)
    asked = replies.usage.replies - paid_before
    sums = writer.records, len(work.failed), work.flagged, asked
    return Result(str(request.output), writer.sha256, *sums, replies.usage, cost)


def as_data(result: Result) -> dict[str, Any]:
    """The result as plain data."""
    return asdict(result)


class _Run:
    """The conversations on their way. ``failed`` names those that cannot be translated, ``useless`` their replies."""

    def __init__(self, request: Request, asker: Asker, replies: Replies, over: threading.Event) -> None:
        self._request, self._asker, self._replies, self._over = request, asker, replies, over
        self._fatal: ParrotError | None = None
        self.failed: list[Problem] = []
        self.useless: list[str] = []
        self.flagged = 0
        self._move = image_mover(request.source.parent, None if request.images else request.output.parent)

    def translated(self, total: int) -> Iterator[dict[str, Any]]:
        """The records with their turns translated, in the file's order, without those that failed."""
        waiting: deque[tuple[dict[str, Any], Record, Future[Translation]]] = deque()
        count = self._request.concurrency
        label = f"into {BY_CODE[self._request.plan.target].english_name}"
        bar = tqdm(total=total, desc=label, unit="", disable=None, leave=False)
        with bar, ThreadPoolExecutor(count, thread_name_prefix="translate") as pool:
            try:
                for item, record in good_records(self._request.source):
                    waiting.append((item, record, pool.submit(self._one, item, record)))
                    if len(waiting) >= _AHEAD * count:
                        yield from self._finish(*waiting.popleft(), bar)
                while waiting:
                    yield from self._finish(*waiting.popleft(), bar)
            finally:
                # On an error or Ctrl-C no further request goes out; answers under way are waited for and kept.
                self._over.set()
                pool.shutdown(cancel_futures=True)

    def _one(self, item: dict[str, Any], record: Record) -> Translation:
        plan = self._request.plan
        if record.language not in (UNDETERMINED, plan.source):
            raise FailedError(f"it is in '{record.language}', not in --from {plan.source}", [])
        try:
            return translate([turn["value"] for turn in item["conversations"]], plan, self._asker)
        except RejectedError as error:
            raise FailedError(f"refused: {error}", []) from error
        except ParrotError as error:
            # Nobody else asks in vain: those under way notice, and the first error is the one that is told.
            self._fatal = self._fatal or error
            self._over.set()
            raise

    def _finish(
        self, item: dict[str, Any], record: Record, future: "Future[Translation]", bar: tqdm
    ) -> Iterator[dict[str, Any]]:
        try:
            result = future.result()
        except FailedError as error:
            self.failed.append(Problem(str(self._request.source), record.row, record.name, str(error)))
            self.useless += error.keys
        except StoppedError as error:
            raise self._fatal or error from error
        else:
            self.flagged += any(result.flags)
            yield self._written(item, result)
        bar.update()
        bar.set_postfix(failed=len(self.failed), replies=self._replies.usage.replies)

    def _written(self, item: dict[str, Any], result: Translation) -> dict[str, Any]:
        plan, turns = self._request.plan, item["conversations"]
        new = [{**turn, "value": text} for turn, text in zip(turns, result.texts, strict=True)]
        note = {
            "from": plan.source,
            "model": plan.model,
            "source": [turn["value"] for turn in turns],
            "votes": result.votes,
            "flags": result.flags,
        }
        return {**self._move(item), "language": plan.target, "conversations": new, KEY: note}

    def judge(self, done: int) -> None:
        """List what failed; raise ParrotError where it is more than may."""
        request = self._request
        if not self.failed:
            request.failures.unlink(missing_ok=True)
            return
        listed = [asdict(problem) for problem in self.failed]
        write_file(request.failures, json.dumps(listed, ensure_ascii=False, indent=1).encode("utf-8", "replace"))
        total = done + len(self.failed)
        if len(self.failed) / total > request.max_failed_fraction or not done:
            share = -(-10_000 * len(self.failed) // total) / 10_000  # rounded up, so that the advice suffices
            raise ParrotError(
                f"{len(self.failed):,} of {total:,} conversations could not be translated, for example "
                f"{self.failed[0]}; all are in {request.failures}. Run again to ask anew for these alone, or give "
                f"--max-failed-fraction {share:g} to leave them out"
            )
