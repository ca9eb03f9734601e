"""Many conversations to the model of an OpenAI-compatible server: what is measured, or what judges.

    with ChatClient(Settings("http://localhost:8000/v1", options=OPTIONS), "name", key=read_key("MY_KEY")) as client:
        for reply in client.replies([[user_turn("What is this?", [image])], ...], max_tokens=512):
            ...

Requests go out ``concurrency`` at a time and are tried again as :mod:`parrot_runtime.endpoint` says; replies come in
the order of the conversations.
"""

import base64
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any

from parrot_runtime.endpoint import Endpoint, RejectedError, Reply, Settings
from parrot_runtime.errors import InputError, ParrotError
from parrot_runtime.pace import Pace, StoppedError

Message = dict[str, Any]
# Requests begun ahead of the reply that is wanted next, for each that is under way: a slow one holds up no other.
_AHEAD = 4
_SIGNATURES = {
    b"\x89PNG\r\n\x1a\n": "png",
    b"\xff\xd8\xff": "jpeg",
    b"GIF8": "gif",
    b"BM": "bmp",
}


class NoReplyError(ParrotError):
    """The server gave no reply to the ``conversation`` of this number, from 0, after all retries."""

    def __init__(self, message: str, conversation: int) -> None:
        super().__init__(message)
        self.conversation = conversation


def user_turn(text: str, images: Sequence[bytes] = ()) -> Message:
    """A user's message: the bytes of image files, as data URIs, before ``text``."""
    if not images:
        return {"role": "user", "content": text}
    pictures = [{"type": "image_url", "image_url": {"url": data_uri(image)}} for image in images]
    return {"role": "user", "content": [*pictures, {"type": "text", "text": text}]}


def data_uri(image: bytes) -> str:
    """The bytes of an image file as ``data:image/…;base64,…``; the type is read from its first bytes."""
    kind = next((name for start, name in _SIGNATURES.items() if image.startswith(start)), None)
    if kind is None:
        kind = "webp" if image[:4] == b"RIFF" and image[8:12] == b"WEBP" else "octet-stream"
    family = "application" if kind == "octet-stream" else "image"
    return f"data:{family}/{kind};base64,{base64.b64encode(image).decode()}"


class ChatClient:
    """A model on a server; a context. ``fields`` go into every request, None taking one out (``temperature`` is 0).

    ``concurrency`` requests are under way at most, and ``requests_per_minute`` go out where that is given. Raises
    InputError where httpx2 is not installed.
    """

    def __init__(
        self,
        settings: Settings,
        model: str,
        *,
        key: str | None = None,
        concurrency: int = 8,
        requests_per_minute: float | None = None,
        fields: Mapping[str, Any] | None = None,
    ) -> None:
        self._model, self._concurrency, self._fields = model, concurrency, dict(fields or {})
        self._over = threading.Event()
        pace = Pace(requests_per_minute=requests_per_minute, tokens_per_minute=None, rest=self._over.wait)
        self._endpoint = Endpoint(settings, pace, key=key)

    def __enter__(self) -> "ChatClient":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._endpoint.close()

    def replies(
        self, conversations: Iterable[Sequence[Message]], *, max_tokens: int
    ) -> Iterator[Reply | RejectedError]:
        """The reply to each conversation, in their order, as it comes; RejectedError for one that the server refuses.

        ``conversations`` is read a little ahead of the replies, so it may be long and lazy. Raises InputError where the
        server would refuse any request (address, key), and NoReplyError when it gives no answer after all retries; the
        replies before that are given first, and no further request goes out.
        """
        waiting: deque[Future[Reply]] = deque()
        fatal: list[ParrotError] = []
        self._over.clear()

        def one(number: int, messages: Sequence[Message]) -> Reply:
            try:
                return self._endpoint.ask(self._body(messages, max_tokens))
            except ParrotError as error:
                told = error if isinstance(error, InputError) else NoReplyError(str(error), number)
                # Nobody else asks in vain: those under way notice, and the first error is the one that is told.
                fatal.append(told)
                self._over.set()
                raise told from error

        with ThreadPoolExecutor(self._concurrency, thread_name_prefix="chat") as pool:
            try:
                for number, messages in enumerate(conversations):
                    waiting.append(pool.submit(one, number, messages))
                    while waiting and (waiting[0].done() or len(waiting) >= _AHEAD * self._concurrency):
                        yield _result(waiting.popleft(), fatal)
                while waiting:
                    yield _result(waiting.popleft(), fatal)
            finally:
                # On an error, or when nobody wants the rest, no further request goes out.
                self._over.set()
                pool.shutdown(cancel_futures=True)

    def _body(self, messages: Sequence[Message], max_tokens: int) -> dict[str, Any]:
        body = {"model": self._model, "messages": list(messages), "temperature": 0, "max_tokens": max_tokens}
        return {name: value for name, value in (body | self._fields).items() if value is not None}


def _result(future: "Future[Reply]", fatal: list[ParrotError]) -> Reply | RejectedError:
    try:
        return future.result()
    except RejectedError as error:
        return error
    except StoppedError as error:
        raise fatal[0] from error
