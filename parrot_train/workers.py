"""Work shared out to other processes, in the same order as without them.

They are started afresh, never forked: a fork has the locks of every other thread (torch's, the tokenizer's) as they
stood, and can wait for ever on one that nobody will release.
"""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.context import BaseContext
from typing import Any

from tqdm import tqdm

from parrot_runtime.errors import ParrotError

# As many chunks as make it worth starting processes, which takes about a second.
_FEW = 8


def core_count() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0))


def loading_context() -> BaseContext:
    """How a DataLoader starts its workers: off one process that imports what they need, once, and runs no threads."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["parrot_train.data.collator"])
    return context


def map_chunks(
    function: Callable[..., list],
    items: Sequence[Any],
    arguments: tuple = (),
    *,
    workers: int,
    size: int,
    label: str | None = None,
) -> Iterator[list]:
    """``function(chunk, *arguments)`` over chunks of ``size`` items, in order, in ``workers`` processes.

    Few items are done in this process. With a ``label`` a terminal shows how far it is. An exception of ``function``
    ends it, and so does leaving the iteration: chunks that have not begun are dropped. Raises ParrotError when a worker
    is killed.
    """
    chunks = [items[start : start + size] for start in range(0, len(items), size)]
    with tqdm(total=len(items), desc=label, unit="", disable=None if label else True, leave=False) as bar:
        if workers < 2 or len(chunks) < _FEW:
            for chunk in chunks:
                yield function(chunk, *arguments)
                bar.update(len(chunk))
            return
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=context, initializer=leave_interrupts_to_parent) as pool:
            try:
                futures = [pool.submit(function, chunk, *arguments) for chunk in chunks]
                for chunk, future in zip(chunks, futures, strict=True):
                    yield future.result()
                    bar.update(len(chunk))
            except BrokenProcessPool as error:
                raise ParrotError(
                    f"{label or 'a pool of processes'}: a worker process died, perhaps for want of memory; "
                    "--set data.workers=0 does without them"
                ) from error
            finally:
                pool.shutdown(wait=False, cancel_futures=True)


def seeded_parts(seed: int | str, count: int, size: int) -> list[tuple[str, int]]:
    """Seeds, and how many of ``count`` things each stands for: ``size``, and the last the rest.

    What is drawn from them is the same whoever draws it.
    """
    return [(f"{seed}/{start // size}", min(size, count - start)) for start in range(0, count, size)]


def leave_interrupts_to_parent(*_: object) -> None:
    """What a worker does first: Ctrl-C reaches every process of the terminal, and one of them is to answer it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
