"""One request to an OpenAI-compatible server, made until it is answered: what translates, measures or judges uses it.

``POST {endpoint}/chat/completions``. What may pass is tried again: 408, 425, 429, every 5xx, connections refused or
cut, time-outs, and bodies that are no answer; after the time the server names in Retry-After, or else after waits that
double, each with a share of chance so that threads do not return together.
"""

from __future__ import annotations

import email.utils
import json
import os
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from parrot_runtime.errors import InputError, ParrotError
from parrot_runtime.pace import Pace

_LONGEST_WAIT = 60.0
# A server that asks for more than this, in seconds, is not waited for.
_LONGEST_PAUSE = 600.0
_MAX_BYTES = 16 << 20
_PASSING = frozenset((408, 425, 429))
_OF_THE_REQUEST = frozenset((400, 413, 422))


class RejectedError(Exception):
    """The server will not answer this request, whoever makes it; the message is its own."""


class _PassingError(Exception):
    """A failure that may pass; ``after`` seconds where the server says when."""

    def __init__(self, reason: str, after: float | None = None) -> None:
        super().__init__(reason)
        self.after = after


@dataclass(frozen=True)
class Reply:
    """What a model said; tokens are None where its server does not count them."""

    text: str
    finish: str | None
    prompt_tokens: int | None
    completion_tokens: int | None


@dataclass(frozen=True)
class Options:
    """How a command calls what it takes of a server, for errors, and the ``extra`` that installs what it needs."""

    address: str = "--endpoint"
    model: str = "--model"
    key: str = "--api-key-env"
    extra: str = "translate"


@dataclass(frozen=True)
class Settings:
    """``timeout`` and ``first_wait`` in seconds; ``retries`` beyond the first try. Raises InputError."""

    endpoint: str
    timeout: float = 120.0
    retries: int = 8
    first_wait: float = 1.0
    options: Options = Options()

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.endpoint)
            usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:  # brackets or a port that are none
            parts, usable = None, False
        if not usable:
            raise InputError(
                f"{self.options.address} {self.endpoint}: expected an address such as http://localhost:8000/v1"
            )
        if parts.username or parts.password:
            raise InputError(
                f"{self.options.address} has a password in it; put the key into a variable and name it: "
                f"{self.options.key}"
            )

    @property
    def url(self) -> str:
        """Where requests go."""
        return self.endpoint.rstrip("/").removesuffix("/chat/completions") + "/chat/completions"


class Endpoint:
    """A server. ``key`` is sent as a bearer token and appears nowhere else; ``pace`` says when to send."""

    def __init__(self, settings: Settings, pace: Pace, *, key: str | None = None) -> None:
        try:
            import httpx2
        except ImportError as error:
            extra = settings.options.extra
            raise InputError(f"httpx2 is not installed; run `pip install 'parrot-edge[{extra}]'`") from error
        self._library, self._settings, self._pace, self._key = httpx2, settings, pace, key
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._client = httpx2.Client(
            headers=headers,
            timeout=httpx2.Timeout(settings.timeout, connect=min(settings.timeout, 20.0)),
            limits=httpx2.Limits(max_connections=None),
        )

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def ask(self, body: Mapping[str, Any]) -> Reply:
        """The server's answer to ``body``.

        Raises RejectedError where it refuses this request, InputError where it would refuse any (address, key), and
        ParrotError when it gave no answer after all retries.
        """
        wait = self._settings.first_wait
        for left in range(self._settings.retries, -1, -1):
            self._pace.wait()
            try:
                reply = self._once(body)
            except _PassingError as error:
                if not left:
                    tries = self._settings.retries + 1
                    raise ParrotError(
                        f"{self._settings.url}: no answer after {tries} tries ({error}); what was answered is kept, "
                        "run the same command again to go on"
                    ) from error
                self._rest(error, wait)
                wait = min(2 * wait, _LONGEST_WAIT)
                continue
            tokens = (reply.prompt_tokens or 0) + (reply.completion_tokens or 0)
            if self._pace.of_tokens and not tokens:
                raise InputError(
                    f"{self._settings.url}: counts no tokens, so --tokens-per-minute cannot be kept; give "
                    "--requests-per-minute instead"
                )
            self._pace.spent(tokens)
            return reply
        raise AssertionError("the loop ends in an answer or an error")

    def _rest(self, error: _PassingError, wait: float) -> None:
        if error.after is not None and error.after > _LONGEST_PAUSE:
            raise ParrotError(
                f"{self._settings.url}: asks to come back in {error.after:.0f} s ({error}); what was answered is kept, "
                "run the same command again then"
            ) from error
        if error.after is not None:
            # No sooner than it would be without being told: a clock that is wrong asks for no wait at all.
            self._pace.pause(max(error.after, wait * random.uniform(0.5, 1.0)))
        else:
            self._pace.rest(wait * random.uniform(0.5, 1.5))

    def _once(self, body: Mapping[str, Any]) -> Reply:
        deadline = time.monotonic() + self._settings.timeout
        try:
            with self._client.stream("POST", self._settings.url, json=body) as response:
                data = bytearray()
                for part in response.iter_bytes():
                    data += part
                    if len(data) > _MAX_BYTES:
                        raise _PassingError(f"an answer of more than {_MAX_BYTES} bytes")
                    if time.monotonic() > deadline:
                        raise _PassingError(f"no whole answer within {self._settings.timeout:g} s")
        except self._library.RequestError as error:
            raise _PassingError(self._without_key(f"{type(error).__name__} {error}".strip())) from error
        self._judge(response.status_code, response.headers, bytes(data))
        return _read(bytes(data))

    def _judge(self, status: int, headers: Mapping[str, str], data: bytes) -> None:
        if status == 200:
            return
        message = f"status {status}{self._message(data)}"
        if status in _PASSING or status >= 500:
            raise _PassingError(message, _retry_after(headers.get("retry-after")))
        if status in _OF_THE_REQUEST:
            raise RejectedError(message)
        options = self._settings.options
        raise InputError(
            f"{self._settings.url}: {message}; check {options.address}, {options.model} and the key of {options.key}"
        )

    def _message(self, data: bytes) -> str:
        """What the server says of an error, in one line, without the key where it repeats it."""
        try:
            said = json.loads(data)
            error = said.get("error", said) if isinstance(said, dict) else said
            text = error.get("message", "") if isinstance(error, dict) else error
        except ValueError:
            text = ""
        text = self._without_key(" ".join(str(text).split()))[:200]
        return f": {text}" if text else ""

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text


def read_key(variable: str | None, option: str = "--api-key-env") -> str | None:
    """The key in the environment's ``variable``; None without one. Raises InputError for one that holds nothing."""
    if variable is None:
        return None
    value = os.environ.get(variable, "").strip()
    if not value:
        raise InputError(f"{option} {variable}: there is no such variable, or it is empty; export the key in it")
    if not all("!" <= character <= "~" for character in value):  # no header could carry it
        raise InputError(f"{option} {variable}: holds more than one word of ASCII; export the key alone in it")
    return value


def read_fields(text: str | None, option: str = "--body") -> dict[str, Any]:
    """The fields of a JSON object that go into every request. Raises InputError."""
    try:
        data = json.loads(text or "{}")
    except ValueError as error:
        raise InputError(f"{option}: not JSON ({error})") from error
    if not isinstance(data, dict) or {"model", "messages", "stream", "n"} & set(data):
        raise InputError(
            f"{option}: expected a JSON object without model, messages, stream and n, which are set already"
        )
    return data


def _read(data: bytes) -> Reply:
    """The answer in a body: an empty one where the model came to no text, as one cut off while it reasons does.

    Raises _PassingError where it is none, RejectedError where the server held it back.
    """
    try:
        said = json.loads(data)
        choice = said["choices"][0]
        message, finish = choice["message"], choice.get("finish_reason")
        refusal = message.get("refusal")
        held_back = bool(refusal) or finish == "content_filter"
        # Some servers leave out the text of an answer that has none: held back, or cut before its first word.
        text = message.get("content") if refusal or isinstance(finish, str) else message["content"]
        usage = said.get("usage") or {}
        counts = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise _PassingError("the body is no chat completion") from error
    if not (text is None or isinstance(text, str)) or not (finish is None or isinstance(finish, str)):
        raise _PassingError("the chat completion has no text")
    if text is None and held_back:
        raise RejectedError(" ".join(f"no text: {refusal or finish}".split())[:200])
    counted = [count if type(count) is int and count >= 0 else None for count in counts]
    return Reply(text or "", finish, *counted)


def _retry_after(value: str | None) -> float | None:
    """Seconds from now, of a number or a date; None where there is neither."""
    if value is None:
        return None
    try:
        return max(0.0, float(int(value)))
    except OverflowError:
        return None
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None
