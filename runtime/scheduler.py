"""Many questions at once, from any threads: they share the slots of one KV cache and are decoded together."""

from __future__ import annotations

import atexit
import queue
import threading
from collections import deque
from typing import TYPE_CHECKING

from parrot_runtime.chat import Chat
from parrot_runtime.errors import ParrotError
from parrot_runtime.generation import CHUNK
from parrot_runtime.prompt import check_question

if TYPE_CHECKING:
    from types import TracebackType

    from parrot_runtime.answer import Answer, AnswerStream
    from parrot_runtime.generation import Request, Slots
    from parrot_runtime.names import Reroute
    from parrot_runtime.parrot import Images, Parrot
    from parrot_runtime.sampling import Sampling

_END = object()


class Scheduler:
    """Continuous batching: a question takes a slot as soon as one is free, and leaves it when its answer ends.

    ``stream`` and ``ask`` may be called from several threads; pictures are read and routed in the caller's, so what is
    wrong with a question is raised there. A prompt is prefilled in chunks while other answers are under way, and none
    of them waits longer than for one. A stream that is closed frees its slot before the next step, and an error of one
    answer ends that answer alone. Use it as a context manager, or ``close`` it: what is not answered by then ends with
    ParrotError.
    """

    def __init__(self, parrot: Parrot, slots: Slots, *, chunk: int = CHUNK) -> None:
        self._parrot, self._slots, self._chunk = parrot, slots, chunk
        self._arrived: deque[tuple[Request, queue.SimpleQueue]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="parrot-scheduler", daemon=True)
        self._thread.start()
        # A daemon thread that is inside an engine when the interpreter ends aborts the process.
        atexit.register(self.close)

    def stream(self, images: Images, question: str, **options: int | Sampling) -> AnswerStream:
        """See ``Parrot.stream``; the answer is made whether or not anybody reads it yet."""
        check_question(question)
        return self.chat(images).stream(question, **options)

    def ask(self, images: Images, question: str, **options: int | Sampling) -> Answer:
        """See ``Parrot.ask``."""
        return self.stream(images, question, **options).answer

    def chat(self, images: Images = None, *, reroute: Reroute = "auto") -> Chat:
        """See ``Parrot.chat``; each conversation from one thread at a time."""
        return Chat(self._parrot, images, self._tokens, reroute)

    def close(self) -> None:
        """Stop after the current step."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()
        atexit.unregister(self.close)

    def __enter__(self) -> Scheduler:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _tokens(self, request: Request) -> _Arriving:
        """Hand ``request`` in now; its tokens as they come."""
        results: queue.SimpleQueue = queue.SimpleQueue()
        with self._changed:
            if self._closed:
                raise ParrotError("this scheduler is closed; open another one")
            self._arrived.append((request, results))
            self._changed.notify()
        return _Arriving(request, results)

    def _work(self) -> None:
        readers: dict[Request, queue.SimpleQueue] = {}
        fault: BaseException = ParrotError("the scheduler was closed before the answer's end")
        try:
            while self._take(readers):
                for request, token in self._slots.advance(self._chunk):
                    readers[request].put(token)
                for request in [request for request in readers if request.finish]:
                    readers.pop(request).put(request.error or _END)
                self._slots.failed.clear()
        except Exception as error:  # noqa: BLE001, whoever waits for an answer is told, and nobody else is there
            fault = error
        finally:
            with self._changed:
                self._closed = True
                readers |= dict(self._arrived)
                self._arrived.clear()
            self._slots.clear()
            for results in readers.values():
                results.put(fault)

    def _take(self, readers: dict[Request, queue.SimpleQueue]) -> bool:
        """Fill the free slots with what has arrived; wait while there is nothing to do. False when closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._arrived or self._slots.busy)
            while self._arrived and self._slots.free and not self._closed:
                request, results = self._arrived.popleft()
                if request.finish:  # cancelled before it had a slot
                    results.put(_END)
                    continue
                readers[request] = results  # first: should it not be admitted, its reader is told with the others
                self._slots.admit(request)
            return not self._closed


class _Arriving:
    """The tokens of one request as they come from the scheduler's thread; ``close`` says that nobody wants the rest."""

    def __init__(self, request: Request, results: queue.SimpleQueue) -> None:
        self._request, self._results, self._ended = request, results, False

    def __iter__(self) -> _Arriving:
        return self

    def __next__(self) -> int:
        result = _END if self._ended else self._results.get()
        if isinstance(result, BaseException):
            self._ended = True
            raise result
        if result is _END:
            self._ended = True
            raise StopIteration
        return result

    def close(self) -> None:
        self._ended = True
        self._request.cancel()
        self._results.put(_END)  # another thread may be waiting for a token
