"""The actors of a Ray cluster that answer questions: who is idle, who is at what, and who takes the place of the dead.

What they answered comes out in the questions' order, whoever answered first.
"""

import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from parrot_evaluation.models import Note, kind_of
from parrot_evaluation.ray_worker import Request, Worker
from parrot_evaluation.runner import Question, Response
from parrot_runtime.errors import InputError, ParrotError

# Times a chunk is asked, or an actor in a row started, before the run ends.
_TRIES = 3
# Chunks that may wait for one before them, for each actor.
_AHEAD = 8
# Seconds that others get to open the model once the first has; those that come later join in.
_GRACE = 60.0
# Seconds in which no actor gets a device until that is said, and until the run ends.
_SAID, _PATIENCE = 30.0, 600.0


@dataclass
class _Chunk:
    number: int
    questions: list[Question]
    tries: int = 0


class Pool:
    """The actors, those that are idle, and what the others are at."""

    def __init__(self, ray: Any, request: Request, count: int, resources: dict[str, float], note: Note) -> None:
        self._ray, self._request, self._count, self._note = ray, request, count, note
        self._make = ray.remote(Worker).options(**resources)
        # What says that an actor is no more: it died, or Ray's own watch over memory killed it, or its node is gone.
        told = ray.exceptions
        self._lost = (told.RayActorError, told.OutOfMemoryError, told.WorkerCrashedError, told.NodeDiedError)
        self._actors: list[Any] = []
        self._idle: list[Any] = []
        # By what `open` will return: the actor, and what tells that it got a device.
        self._opening: dict[Any, tuple[Any, Any]] = {}
        self._running: dict[Any, tuple[Any, _Chunk]] = {}
        self._chunks = self._lost_in_a_row = 0
        self.identity: dict[str, Any] = {}

    def start(self) -> None:
        """Start all actors, and wait for the first that is ready and a while for the others.

        Raises ParrotError where none gets a device; opening the model takes as long as it takes.
        """
        for _ in range(self._count):
            self._begin()
        deadline = None
        while self._opening and (deadline is None or time.monotonic() < deadline):
            self._take_in(1.0)
            if self._idle and deadline is None:
                deadline = time.monotonic() + _GRACE

    def close(self) -> None:
        """End all actors."""
        for actor in self._actors:
            self._ray.kill(actor)
        self._actors.clear()

    def stream(self, questions: Iterable[Question]) -> Iterator[Response]:
        """As Streaming.stream. Raises ParrotError too where every actor is lost and no device comes free."""
        size = 4 * self._request.options.together(kind_of(self._request.model))
        left, exhausted = iter(questions), False
        again: deque[_Chunk] = deque()
        answered: dict[int, tuple[list[Response], ParrotError | None]] = {}
        first = wanted = self._chunks
        while True:
            while self._idle:
                if again:
                    chunk = again.popleft()
                elif self._chunks - wanted == _AHEAD * self._count:
                    break
                elif batch := list(islice(left, size)):
                    chunk = _Chunk(self._chunks, batch)
                    self._chunks += 1
                else:
                    exhausted = True
                    break
                actor = self._idle.pop(0)
                self._running[actor.answer.remote(chunk.questions)] = actor, chunk
            if exhausted and wanted == self._chunks:
                return
            for chunk, result in self._take_in(10.0):
                if chunk.number < first:
                    continue  # of a stream that was given up while it was asked
                if result is None:
                    again.append(self._asked_again(chunk))
                else:
                    answered[chunk.number] = result
            while wanted in answered:
                responses, error = answered.pop(wanted)
                wanted += 1
                yield from responses
                if error is not None:
                    raise error

    def _asked_again(self, chunk: _Chunk) -> _Chunk:
        chunk.tries += 1
        if chunk.tries == _TRIES:
            raise ParrotError(
                f"{_TRIES} actors died while answering {chunk.questions[0].name} to {chunk.questions[-1].name}; see "
                "Ray's logs for why (memory?); the answers before these are kept, run the same command again to go on"
            )
        return chunk

    def _begin(self) -> None:
        actor = self._make.remote()
        self._actors.append(actor)
        self._opening[actor.open.remote(self._request)] = actor, actor.__ray_ready__.remote()

    def _await_device(self) -> None:
        """Return once one of the actors that open the model runs, or died of it, which `_take_in` tells."""
        begun = [ready for _, ready in self._opening.values()]
        if self._ray.wait(begun, num_returns=1, timeout=_SAID)[0]:
            return
        self._note("no actor runs on the Ray cluster, its devices may be in use; waiting for one")
        if not self._ray.wait(begun, num_returns=1, timeout=_PATIENCE - _SAID)[0]:
            self.close()  # or one that still waits takes a device for nothing
            raise ParrotError(
                f"no actor could start on the Ray cluster within {_PATIENCE:g} s; see with `ray status` what is in "
                "use, and run the same command again once a device is free"
            )

    def _take_in(self, seconds: float) -> list[tuple[_Chunk, tuple[list[Response], ParrotError | None] | None]]:
        """Wait for something to happen; the chunks that came back, with None where their actor died."""
        if not self._running and not self._idle:
            self._await_device()
        done, _ = self._ray.wait([*self._running, *self._opening], num_returns=1, timeout=seconds)
        back = []
        for reference in done:
            actor, chunk = self._running.pop(reference, (None, None))
            opened = self._opening.pop(reference)[0] if chunk is None else None
            try:
                result = self._ray.get(reference)
            except self._lost as error:
                self._replace(opened or actor, error)
                if chunk is not None:
                    back.append((chunk, None))
                continue
            if chunk is None:
                self._check(result)
                self._idle.append(opened)
            else:
                self._lost_in_a_row = 0
                self._idle.append(actor)
                back.append((chunk, result))
        return back

    def _replace(self, actor: Any, error: Exception) -> None:
        self._actors.remove(actor)
        self._ray.kill(actor)
        self._lost_in_a_row += 1
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = (lines[-1] if lines and isinstance(error, self._lost[0]) else type(error).__name__)[:300]
        if self._lost_in_a_row > _TRIES * self._count:
            raise ParrotError(
                f"{self._lost_in_a_row} actors died in a row ({reason}); is parrot-edge installed on every "
                "node? What was answered is kept, run the same command again to go on"
            ) from error
        self._note("an actor on Ray died; another takes its place, and its questions are asked again")
        self._begin()

    def _check(self, found: dict[str, Any]) -> None:
        """Raise InputError unless ``found`` is what the actors before it opened."""
        if "error" in found:
            raise InputError(f"node {found['node']}: {found['error']}")
        if not self.identity:
            self.identity = found
        for what in ("fingerprint", "versions"):
            one, other = self.identity[what], found[what]
            if one != other:
                told = "the model, or what runs it," if what == "fingerprint" else "what is installed"
                raise InputError(
                    f"{told} differs between the nodes: {one} on {self.identity['node']}, {other} on {found['node']}; "
                    "make them alike, so that every answer is that of one model"
                )
