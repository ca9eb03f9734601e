"""Work shared out to other processes, in the same order as without them.

They are started afresh, never forked: a fork has the locks of every other thread (torch's, the tokenizer's) as they
stood, and can wait for ever on one that nobody will release.
"""

import itertools
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sized
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.context import BaseContext
from typing import Any

from tqdm import tqdm

from parrot_runtime.errors import ParrotError

# As many chunks as make it worth starting processes, which takes about a second.
_FEW = 8
_CHUNKS_AHEAD = 4


def core_count() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0))


def loading_context() -> BaseContext:
    """How a DataLoader starts its workers: off one process that imports what they need, once, and runs no threads."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["parrot_train.data.collator"])
    return context


@contextmanager
def loading_errors() -> Iterator[None]:
    """Inside, a DataLoader's worker that dies is a ParrotError: torch has a plain RuntimeError for it."""
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        raise ParrotError(
            f"a process that decodes images died ({' '.join(str(error).split())}), perhaps for want of memory; go on "
            "with --resume, and with --set data.workers=0 to do without them"
        ) from error


def map_chunks(
    function: Callable[..., list],
    items: Iterable[Any],
    arguments: tuple = (),
    *,
    workers: int,
    size: int,
    label: str | None = None,
) -> Iterator[list]:
    """``function(chunk, *arguments)`` over chunks of ``size`` items, in order, in ``workers`` processes.

    ``items`` are taken as they are needed, a few chunks ahead, so that a stream of them never stands in memory. Few
    items are done in this process. With a ``label`` a terminal shows how far it is. An exception of ``function``
    ends it, and so does leaving the iteration: chunks that have not begun are dropped. Raises ParrotError when a worker
    is killed.
    """
    total = len(items) if isinstance(items, Sized) else None
    chunks = _chunks(items, size)
    first = list(itertools.islice(chunks, _FEW))
    with tqdm(total=total, desc=label, unit="", disable=None if label else True, leave=False) as bar:
        if workers < 2 or len(first) < _FEW:
            for chunk in itertools.chain(first, chunks):
                yield function(chunk, *arguments)
                bar.update(len(chunk))
            return
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=context, initializer=leave_interrupts_to_parent) as pool:
            try:
                for length, result in _ahead(pool, function, itertools.chain(first, chunks), arguments, workers):
                    yield result
                    bar.update(length)
            except BrokenProcessPool as error:
                raise ParrotError(
                    f"{label or 'a pool of processes'}: a worker process died, perhaps for want of memory; "
                    "--set data.workers=0, or --workers 0, does without them"
                ) from error
            finally:
                pool.shutdown(wait=False, cancel_futures=True)


def _chunks(items: Iterable[Any], size: int) -> Iterator[list]:
    source = iter(items)
    while chunk := list(itertools.islice(source, size)):
        yield chunk


def _ahead(
    pool: ProcessPoolExecutor, function: Callable[..., list], chunks: Iterator[list], arguments: tuple, workers: int
) -> Iterator[tuple[int, list]]:
    """Length and result of each chunk in order, with enough handed out that no worker waits for the next."""
    waiting: deque[tuple[int, Future[list]]] = deque()
    for chunk in chunks:
        waiting.append((len(chunk), pool.submit(function, chunk, *arguments)))
        if len(waiting) == _CHUNKS_AHEAD * workers:
            length, future = waiting.popleft()
            yield length, future.result()
    for length, future in waiting:
        yield length, future.result()


def seeded_parts(seed: int | str, count: int, size: int) -> list[tuple[str, int]]:
    """Seeds, and how many of ``count`` things each stands for: ``size``, and the last the rest.

    What is drawn from them is the same whoever draws it.
    """
    return [(f"{seed}/{start // size}", min(size, count - start)) for start in range(0, count, size)]


def leave_interrupts_to_parent(*_: object) -> None:
    """What a worker does first: Ctrl-C reaches every process of the terminal, and one of them is to answer it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
