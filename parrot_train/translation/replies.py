"""Every reply that was paid for, on disk as it comes: what an interrupted run, or the next one, need not ask again.

One JSON object per line. A reply belongs to the whole request that drew it (model, messages, settings), not to the
address or the key it was sent with, and neither is written down.
"""

import hashlib
import json
import os
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parrot_runtime.endpoint import Reply
from parrot_runtime.errors import InputError
from parrot_runtime.journal import LineJournal


@dataclass
class Usage:
    """All that was asked so far: replies, tokens in and out, and replies whose server did not count tokens."""

    replies: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    uncounted: int = 0

    def cost(self, price_in: float, price_out: float) -> float:
        """In the currency of the prices, which are for a million tokens."""
        return (self.prompt_tokens * price_in + self.completion_tokens * price_out) / 1e6


def request_key(body: Mapping[str, Any]) -> str:
    """32 hexadecimal digits that change with anything in a request."""
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:32]


class Replies(LineJournal):
    """The replies in ``path``; a context that one process holds at a time and whose methods any thread may call."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, busy="another translation is writing it; wait for it, or give another --cache")
        self.usage = Usage()
        self._places: dict[str, tuple[int, int]] = {}
        self._lock = threading.Lock()

    def get(self, key: str) -> Reply | None:
        """The reply to a request, if it is there."""
        with self._lock:
            place = self._places.get(key)
        if place is None:
            return None
        return _reply(json.loads(os.pread(self._file.fileno(), place[1], place[0])))

    def add(self, key: str, reply: Reply) -> None:
        """Append a reply, and hand it to the operating system before returning: a killed process loses none."""
        data = {"key": key, "text": reply.text, "finish": reply.finish}
        data |= {"in": reply.prompt_tokens, "out": reply.completion_tokens}
        with self._lock:
            self._write(data)
            self._count(reply)

    def forget(self, keys: Iterable[str]) -> None:
        """Have these asked again the next time; what they cost stays counted."""
        with self._lock:
            known = sorted(key for key in set(keys) if key in self._places)
            if known:
                self._write({"forget": known})
            for key in known:
                del self._places[key]

    def _write(self, data: Mapping[str, Any]) -> None:
        line = json.dumps(data, ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace") + b"\n"
        start = self._append(line)
        if "key" in data:
            self._places[data["key"]] = start, len(line)

    def _take(self, line: bytes, start: int, where: str) -> None:
        try:
            data = json.loads(line)
            if "forget" in data:
                for key in data["forget"]:
                    self._places.pop(key, None)
            else:
                self._count(_reply(data))
                self._places[data["key"]] = start, len(line)
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"{where} is no reply ({error}); remove the line, or give another --cache") from error

    def _count(self, reply: Reply) -> None:
        self.usage.replies += 1
        if reply.prompt_tokens is None or reply.completion_tokens is None:
            self.usage.uncounted += 1
        self.usage.prompt_tokens += reply.prompt_tokens or 0
        self.usage.completion_tokens += reply.completion_tokens or 0


def _reply(data: Mapping[str, Any]) -> Reply:
    return Reply(data["text"], data["finish"], data["in"], data["out"])
