"""A real HTTP server that speaks the chat completions of OpenAI's API, translates with a dictionary or answers what it
is told to, and misbehaves as it is told to."""

import json
import re
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MARKED = re.compile(r"⟦(\d+)⟧")


class ChatServer(ThreadingHTTPServer):
    """``dictionary`` has the translations; ``faults`` what to do with the next requests instead of answering them.

    A fault is a function of the handler (send something, or nothing), or of the reply's text (garble it) where its
    name begins with ``garble``; one made by `about` waits for a request that speaks of its text. ``bodies`` are all
    requests in their order, ``answered`` those that got a whole answer, and ``tokens`` what their usage adds up to;
    ``answer`` makes a reply of a body, where that is not to be a translation; ``most`` is how many requests were
    under way at once; ``outwaited`` says that a client bore a silence or a drip to its end.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, dictionary: dict[str, str]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.dictionary = dictionary
        self.faults: list[Callable] = []
        self.bodies: list[dict] = []
        self.answered: list[dict] = []
        self.keys: set[str | None] = set()
        self.times: list[float] = []
        self.tokens = [0, 0]
        self.count_tokens = True
        self.outwaited = False
        self.recheck: Callable[[dict], str] = lambda version: "OK"
        self.refine: Callable[[dict], dict] = lambda version: version
        self.vote: Callable[[str], str] = lambda content: "A"
        self.answer: Callable[[dict], str] | None = None
        self.delay = 0.0
        self.under_way = self.most = 0
        self.held, self.hold_at, self.release = threading.Event(), None, threading.Event()
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def step(self, body: dict) -> str:
        return {"translate": "translate", "check": "recheck", "correct": "refine", "compare": "vote"}[
            body["messages"][0]["content"].split()[1]
        ]

    def handle_error(self, request, client_address) -> None:
        """A client that was killed is no news."""

    def reply(self, body: dict) -> str:
        if self.answer is not None:
            return self.answer(body)
        content = body["messages"][1]["content"]
        step = self.step(body)
        if step == "translate":
            return json.dumps({key: self.dictionary[text] for key, text in json.loads(content).items()})
        if step == "vote":
            return self.vote(content)
        version = json.loads(content.split("Translation:\n")[1].split("\n\nFaults found:")[0])
        return self.recheck(version) if step == "recheck" else json.dumps(self.refine(version))


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ChatServer

    def log_message(self, *arguments) -> None:
        pass

    def do_POST(self) -> None:
        server = self.server
        with server.lock:
            server.under_way += 1
            server.most = max(server.most, server.under_way)
        try:
            self.handle_request()
        finally:
            with server.lock:
                server.under_way -= 1

    def handle_request(self) -> None:
        server = self.server
        self.body = body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            number = len(server.bodies)
            server.bodies.append(body)
            server.keys.add(self.headers["Authorization"])
            server.times.append(time.monotonic())
            text = json.dumps(body, ensure_ascii=False)
            place = next((n for n, each in enumerate(server.faults) if getattr(each, "about", "") in text), None)
            fault = None if place is None else server.faults.pop(place)
        if server.hold_at == number:
            server.held.set()
            server.release.wait(60)
        if server.delay:
            time.sleep(server.delay)
        if self.path != "/v1/chat/completions":
            self.send(404, b'{"error": {"message": "no such path"}}')
            return
        garbles = fault is not None and fault.__name__.startswith("garble")
        if fault is not None and not garbles:
            fault(self)
            return
        text = server.reply(body)
        self.complete(body, fault(text) if garbles else text)

    def complete(self, body: dict, text: str, finish: str = "stop") -> None:
        usage = {"prompt_tokens": sum(len(m["content"]) for m in body["messages"]), "completion_tokens": len(text)}
        answer = {"choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": finish}]}
        with self.server.lock:
            self.server.answered.append(body)
            if self.server.count_tokens:
                answer["usage"] = usage
                self.server.tokens[0] += usage["prompt_tokens"]
                self.server.tokens[1] += usage["completion_tokens"]
        self.send(200, json.dumps(answer).encode())

    def send(self, status: int, data: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def status(code: int, message: str = "busy", **headers: str) -> Callable:
    return lambda handler: handler.send(code, json.dumps({"error": {"message": message}}).encode(), **headers)


def about(text: str, fault: Callable) -> Callable:
    """``fault`` for a request that holds ``text``, whichever others come before it: a client that gave up may have left
    one on its way."""
    fault.about = text
    return fault


def body(data: bytes) -> Callable:
    return lambda handler: handler.send(200, data)


def close(handler: _Handler) -> None:
    """Say nothing and hang up."""
    handler.close_connection = True
    handler.connection.close()


def cut(handler: _Handler) -> None:
    """Promise more than is sent, and hang up."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [{"mess')
    handler.wfile.flush()
    close(handler)


def hang(handler: _Handler) -> None:
    """Say nothing for longer than anybody waits."""
    handler.server.outwaited = not handler.server.release.wait(20)
    handler.close_connection = True


def drip(handler: _Handler) -> None:
    """A byte now and then, so that no single read times out."""
    handler.send_response(200)
    handler.send_header("Content-Length", "10000")
    handler.end_headers()
    for _ in range(200):
        if handler.server.release.wait(0.05):
            return
        handler.wfile.write(b" ")
        handler.wfile.flush()
    handler.server.outwaited = True


def out_of_room(handler: _Handler) -> None:
    """An answer that says it was cut at its limit."""
    handler.complete(handler.body, '{"1": "Bu', finish="length")


def garble(change: Callable[[str], str]) -> Callable:
    def garbled(text: str) -> str:
        return change(text)

    garbled.__name__ = "garbled"
    return garbled


@contextmanager
def serving(dictionary: dict[str, str]):
    with ChatServer(dictionary) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.release.set()
            server.shutdown()
            thread.join()
