"""The ranks of a launched run: who works, who waits, and what ends them all.

Under ``torchrun``, ``deepspeed`` or ``accelerate launch`` the same command runs once per device. The first of these
processes, the main one, does what is to be done once; the others wait for it. The first error of any rank ends all of
them, with one line, from the rank where it happened: it is announced in the store through which the ranks found each
other, and every rank has a thread that looks there once a second. The thread also says that its process lives. A rank
that is not heard from for LOST_SECONDS has died with its machine; one that dies alone is seen at once, by its launcher.

Without a launcher there is one rank, and nothing of this is started.
"""

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import click

from parrot_runtime.errors import InputError, ParrotError

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

LOST_SECONDS = 40
_BEAT_SECONDS = 1.0
# How long an error that another rank may have caused waits for that rank's own word.
_COURTESY_SECONDS = 3.0
# How long a rank may take to end by itself once the run has failed; a collective without its peers can wait for ever.
_GRACE_SECONDS = 5.0
# Preparing data may keep the others waiting for hours. A rank that died meanwhile is not found by this.
_PATIENCE = timedelta(days=14)
_LAUNCHED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Failure:
    """What ended the run: the rank it happened on, its one line, and the exit code."""

    rank: int
    message: str
    exit_code: int


class LostRankError(ParrotError):
    """A rank that is gone without a word."""


class Ranks:
    """This process among those of the run. As it stands, the only one; ``joined`` makes the others known."""

    rank, world, local_rank, local_world, launched = 0, 1, 0, 1, False

    @property
    def main(self) -> bool:
        """Whether this process does what is done once: writing, locking, publishing, speaking."""
        return self.rank == 0

    def from_main(self, work: Callable[[], T]) -> T:
        """What ``work`` returns in the main process, in all of them; the others do not call it."""
        return work()

    def in_turn(self, work: Callable[[], T]) -> T:
        """``work`` in the main process, then in the first of every other machine, then in all others at once.

        What the first leaves on a disk, the later ones find there, be it one disk or each machine's own.
        """
        return work()

    def greatest(self, number: int) -> int:
        """The greatest ``number`` that any rank gives; all have to ask."""
        return number

    def check_same(self, what: str, value: object) -> None:
        """Raise InputError in a rank whose ``value``, of plain data, is not the main process's."""

    def failure(self, error: BaseException) -> Failure:
        """What ended the run, when this rank has met ``error``: that, or what another rank announced before."""
        return Failure(self.rank, _line(error), getattr(error, "exit_code", 1))

    def when_lost(self, last_words: Callable[[Failure], None]) -> None:
        """Call ``last_words`` before this process is ended out of a wait for ranks that have failed."""


class LaunchedRanks(Ranks):
    """The ranks that a launcher started, described by its environment variables. Raises InputError for unsound ones."""

    launched = True

    def __init__(self, environment: Mapping[str, str]) -> None:
        try:
            self.rank, self.world, self.local_rank = (int(environment[name]) for name in _LAUNCHED[:3])
            self._address = environment["MASTER_ADDR"], int(environment["MASTER_PORT"])
            # torchrun and accelerate say how many ranks a machine has by the first name, deepspeed by the second.
            self.local_world = int(environment.get("LOCAL_WORLD_SIZE") or environment.get("LOCAL_SIZE") or 1)
        except (KeyError, ValueError) as error:
            raise InputError(
                f"the launcher's environment is incomplete ({error}): {', '.join(_LAUNCHED)} describe a rank; start "
                "with torchrun, deepspeed or accelerate launch, or unset them"
            ) from error
        # torchrun may start all ranks anew after a failure, with the store of the first time.
        self._attempt = environment.get("TORCHELASTIC_RESTART_COUNT", "0")
        self._left = threading.Event()
        self._last_words: Callable[[Failure], None] = lambda _failure: None
        self._own: Failure | None = None

    def join(self) -> None:
        """Meet the other ranks, and begin to look after each other."""
        import torch
        from torch import distributed

        cuda = torch.cuda.is_available()
        if cuda:
            if self.local_rank >= (devices := torch.cuda.device_count()):
                raise InputError(
                    f"rank {self.rank} is the {self.local_rank + 1}th on {socket.gethostname()}, which has {devices} "
                    "GPUs; start as many processes as it has"
                )
            torch.cuda.set_device(self.local_rank)
        # Ranks wait while the first one hashes a checkpoint, and lost ones are noticed below: no limit of its own.
        distributed.init_process_group("nccl" if cuda else "gloo", timeout=_PATIENCE)
        self._talk = distributed.new_group(backend="gloo", timeout=_PATIENCE)
        # A client of its own: one that waits for a key keeps every other user of the same client waiting.
        client = distributed.TCPStore(*self._address, is_master=False, wait_for_workers=False)
        self._store = distributed.PrefixStore(f"parrot/{self._attempt}", client)
        self._store.set(f"beat/{self.rank}", "0")
        distributed.barrier(self._talk)
        self._watcher = threading.Thread(target=self._watch, name="parrot-ranks", daemon=True)
        self._watcher.start()

    def leave(self) -> None:
        """Wait for all ranks to get here, and part."""
        from torch import distributed

        distributed.barrier(self._talk)
        self.stop_watching()
        distributed.destroy_process_group()

    def stop_watching(self) -> None:
        """End the thread that looks after the others.

        A daemon thread that is inside the store's C++ code when the interpreter ends is unwound through it, which
        aborts the process, whatever its exit code was to be.
        """
        self._left.set()
        self._watcher.join(_GRACE_SECONDS)  # a store whose machine is gone may keep it waiting for minutes

    def from_main(self, work: Callable[[], T]) -> T:
        from torch import distributed

        result: list[Any] = [work() if self.main else None]
        distributed.broadcast_object_list(result, src=0, group=self._talk)
        return result[0]

    def in_turn(self, work: Callable[[], T]) -> T:
        from torch import distributed

        mine = 0 if self.main else 1 if self.local_rank == 0 else 2
        for turn in range(3):
            if turn == mine:
                result = work()
            distributed.barrier(self._talk)
        return result

    def greatest(self, number: int) -> int:
        import torch
        from torch import distributed

        numbers = torch.tensor([number])
        distributed.all_reduce(numbers, distributed.ReduceOp.MAX, group=self._talk)
        return int(numbers)

    def check_same(self, what: str, value: object) -> None:
        expected = self.from_main(lambda: value)
        if value != expected:
            raise InputError(
                f"rank {self.rank} on {socket.gethostname()}: {what} {_short(value)}, in the main process "
                f"{_short(expected)}; give every machine the same"
            )
        self.greatest(0)  # nobody goes on before all have compared

    # --- the end of a run that failed -------------------------------------------------------------------------------
    def failure(self, error: BaseException) -> Failure:
        if self._own is not None:
            return self._own
        if is_lost_peer(error):
            if (other := self._announced(_COURTESY_SECONDS)) is not None:
                return other
            line = (
                f"rank {self.rank} of {self.world} has lost another rank, which was killed or whose machine is gone "
                f"({_line(error)[:200]}); go on with --resume"
            )
            return self._announce(Failure(self.rank, line, 1))
        return self._announce(Failure(self.rank, _line(error), getattr(error, "exit_code", 1)))

    def when_lost(self, last_words: Callable[[Failure], None]) -> None:
        self._last_words = last_words

    def is_own(self, failure: Failure) -> bool:
        """Whether this rank is the one to say it."""
        return failure == self._own

    def _announce(self, failure: Failure) -> Failure:
        """The first failure that was announced: this one, unless another rank was quicker."""
        mine = json.dumps(asdict(failure))
        try:
            first = Failure(**json.loads(self._store.compare_set("failure", "", mine)))
        except RuntimeError:  # the store has gone with the rank or launcher that kept it
            first = failure if self.rank <= 1 else Failure(0, failure.message, failure.exit_code)
        if first == failure:
            self._own = failure
        return first

    def _announced(self, seconds: float = 0.0) -> Failure | None:
        """The failure that was announced, waiting for one so long; None where none is, or where the store is gone."""
        waited = threading.Event()
        try:
            while not self._store.check(["failure"]):
                if seconds <= 0:
                    return None
                waited.wait(0.1)
                seconds -= 0.1
            return Failure(**json.loads(self._store.get("failure")))
        except RuntimeError:
            return None

    def _watch(self) -> None:
        """Say that this process lives; end it when the run has failed and it does not end by itself."""
        import time

        others = [rank for rank in (range(self.world) if self.main else (0,)) if rank != self.rank]
        heard = {rank: (b"", time.monotonic()) for rank in others}
        beats = 0
        while not self._left.wait(_BEAT_SECONDS):
            beats += 1
            try:
                self._store.set(f"beat/{self.rank}", str(beats))
                failure = self._announced()
                for rank, beat in zip(others, self._store.multi_get([f"beat/{rank}" for rank in others]), strict=True):
                    if beat != heard[rank][0]:
                        heard[rank] = beat, time.monotonic()
                    elif failure is None and time.monotonic() - heard[rank][1] > LOST_SECONDS:
                        failure = self.failure(_silent(rank))
            except RuntimeError:
                failure = None if self._left.wait(_GRACE_SECONDS) else self.failure(_silent(0))
            if failure is not None:
                self._end(failure)

    def _end(self, failure: Failure) -> None:
        if self._left.wait(_GRACE_SECONDS):
            return
        self._last_words(failure)
        if self.is_own(failure):
            click.echo(f"parrot-train: {failure.message}", err=True)
        os._exit(failure.exit_code)  # the main thread waits in a collective, out of which no exception reaches it


@contextmanager
def joined() -> Iterator[Ranks]:
    """The ranks of this run, for its whole length.

    The exception of the rank that failed first comes out as it is, or as LostRankError; in all others it becomes
    SystemExit with the same exit code, so that one line is printed.
    """
    if "RANK" not in os.environ and os.environ.get("WORLD_SIZE", "1") in ("", "1"):
        yield Ranks()
        return
    ranks = LaunchedRanks(os.environ)
    ranks.join()
    try:
        yield ranks
        ranks.leave()
    except BaseException as error:
        failure = ranks.failure(error)
        if not ranks.is_own(failure):
            raise SystemExit(failure.exit_code) from error
        if is_lost_peer(error):
            raise LostRankError(failure.message) from error
        raise
    finally:
        ranks.stop_watching()


def is_lost_peer(error: BaseException) -> bool:
    """Whether ``error`` is what a rank meets whose peers are gone: gloo's have no class of their own."""
    from torch import distributed

    return isinstance(error, distributed.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))


def parameter_count(parameter: "torch.nn.Parameter") -> int:
    """How many numbers ``parameter`` has: under ZeRO 3 this process may hold none of them, of NF4 a byte holds two."""
    packed = 2 if parameter.element_size() == 1 else 1
    return getattr(parameter, "ds_numel", parameter.numel() * packed)


def _silent(rank: int) -> LostRankError:
    return LostRankError(
        f"rank {rank} has not been heard from for {LOST_SECONDS} s or more: its process or its machine is gone; go on "
        "with --resume"
    )


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, ParrotError) and text else f"{type(error).__name__}: {text}".rstrip(": ")


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 200 else f"{text[:200]}…"
