"""Many requests to a real server that fails in every way it can: order, retries, concurrency, and the end of a run."""

import base64
import io
import itertools
import threading
import time

import chat_server
import pytest
from PIL import Image

from parrot_evaluation.openai_client import ChatClient, NoReplyError, data_uri, user_turn
from parrot_runtime.endpoint import RejectedError, Settings
from parrot_runtime.errors import InputError

pytest.importorskip("httpx2")


@pytest.fixture
def server():
    """Answers with the words of the user's turn, backwards."""
    with chat_server.serving({}) as running:
        running.answer = lambda body: " ".join(reversed(body["messages"][-1]["content"].split()))
        yield running


@pytest.fixture
def client(server):
    with ChatClient(Settings(server.url, 5.0, 3, first_wait=0.01), "m", concurrency=4) as made:
        yield made


def asked(count: int):
    return [[user_turn(f"question {number}")] for number in range(count)]


def test_replies_keep_the_order_of_the_conversations(server, client) -> None:
    server.answer = lambda body: (
        time.sleep(0.05 * (int(body["messages"][0]["content"].split()[1]) % 3 == 0)) or (body["messages"][0]["content"])
    )
    replies = list(client.replies(asked(23), max_tokens=7))
    assert [reply.text for reply in replies] == [f"question {number}" for number in range(23)]
    assert {reply.finish for reply in replies} == {"stop"}
    assert all(body["temperature"] == 0 and body["max_tokens"] == 7 for body in server.bodies)
    assert 1 < server.most <= 4


def test_faults_that_pass_are_tried_again_and_each_is_answered_once(server, client) -> None:
    server.faults = [chat_server.status(429, Retry_After="0"), chat_server.status(503), chat_server.cut]
    assert [reply.text for reply in client.replies(asked(5), max_tokens=7)] == [f"{n} question" for n in range(5)]
    assert len(server.bodies) == 8
    assert len(server.answered) == 5


def test_a_refused_conversation_stands_in_its_place(server, client) -> None:
    server.answer = None  # then the server fails on what is no translation, and hangs up
    server.faults = [chat_server.status(400, "no pictures here")]
    (refused,) = client.replies(asked(1), max_tokens=7)
    assert isinstance(refused, RejectedError)
    assert "no pictures here" in str(refused)


def test_an_error_of_the_run_stops_the_others_and_is_told(server, client) -> None:
    server.faults = [chat_server.status(401, "wrong key")] * 100
    with pytest.raises(InputError, match="status 401: wrong key"):
        list(client.replies(asked(50), max_tokens=7))
    assert len(server.bodies) < 50
    server.faults = []
    assert len(list(client.replies(asked(3), max_tokens=7))) == 3  # the client is of use again


def test_no_answer_after_all_retries_ends_the_run(server, client) -> None:
    server.faults = [chat_server.status(500, "out of memory")] * 100
    with pytest.raises(NoReplyError, match="no answer after 4 tries") as ended:
        list(client.replies(asked(1), max_tokens=7))
    assert ended.value.conversation == 0


def test_conversations_are_read_as_they_are_asked(server, client) -> None:
    read = itertools.count()
    endless = ([user_turn(f"question {next(read)}")] for _ in itertools.count())
    replies = client.replies(endless, max_tokens=7)
    assert next(replies).text == "0 question"
    replies.close()
    assert next(read) <= 17
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("chat")]


def test_fields_are_added_and_taken_out(server) -> None:
    fields = {"temperature": None, "max_tokens": None, "max_completion_tokens": 9}
    with ChatClient(Settings(server.url), "m", fields=fields) as client:
        list(client.replies(asked(1), max_tokens=7))
    assert set(server.bodies[0]) == {"model", "messages", "max_completion_tokens"}


@pytest.mark.parametrize("kind", ["png", "jpeg", "gif", "bmp", "webp"])
def test_a_picture_is_sent_whole_and_by_its_name(kind: str) -> None:
    file = io.BytesIO()
    Image.new("RGB", (3, 5)).save(file, kind)
    content = user_turn("What?", [file.getvalue()])["content"]
    assert content[1] == {"type": "text", "text": "What?"}
    head, _, data = content[0]["image_url"]["url"].partition(",")
    assert head == f"data:image/{kind};base64"
    assert base64.b64decode(data) == file.getvalue()
    assert data_uri(b"what is this").startswith("data:application/octet-stream;base64,")
