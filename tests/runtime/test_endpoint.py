"""Requests over real sockets to a server that fails in every way it can."""

import email.utils
import json
import socket
import sys
import threading
import time

import chat_server
import pytest
from small_translation import DICTIONARY, QUESTION

from parrot_runtime.endpoint import Endpoint, Options, RejectedError, Settings, read_fields, read_key
from parrot_runtime.errors import InputError, ParrotError
from parrot_runtime.pace import Pace

pytest.importorskip("httpx2", reason="the client of servers is httpx2, of the extras that ask one")

MESSAGES = [
    {"role": "system", "content": "You translate texts."},
    {"role": "user", "content": json.dumps({"1": QUESTION})},
]
BODY = {"model": "m", "messages": MESSAGES}


@pytest.fixture
def server():
    with chat_server.serving(DICTIONARY) as running:
        yield running


@pytest.fixture
def ask(server):
    over = threading.Event()
    waits = []

    def rest(seconds):
        waits.append(seconds)
        return over.wait(seconds)

    def call(url=None, key=None, retries=3, timeout=5.0):
        pace = Pace(requests_per_minute=None, tokens_per_minute=None, rest=rest)
        endpoint = Endpoint(Settings(url or server.url, timeout, retries, first_wait=0.01), pace, key=key)
        try:
            return endpoint.ask(BODY)
        finally:
            endpoint.close()

    call.waits = waits
    return call


@pytest.mark.parametrize("suffix", ["", "/", "/chat/completions"])
def test_an_answer_and_its_tokens(server, ask, suffix):
    reply = ask(server.url + suffix)
    assert json.loads(reply.text) == {"1": "Solda ne var?"}
    assert [reply.prompt_tokens, reply.completion_tokens] == server.tokens
    assert server.keys == {None}


@pytest.mark.parametrize(
    "fault",
    [
        chat_server.status(429),
        chat_server.status(500),
        chat_server.status(503),
        chat_server.status(408),
        chat_server.close,
        chat_server.cut,
        chat_server.body(b"<html>busy</html>"),
        chat_server.body(b"{}"),
        chat_server.body(b'{"choices": []}'),
        chat_server.body(b'{"choices": [{"message": {"content": 7}}]}'),
        chat_server.body(b"[" * 100_000),
        chat_server.body(b"\xff\xfe"),
    ],
)
def test_what_may_pass_is_tried_again(server, ask, fault):
    server.faults = [fault, fault]
    assert "Solda" in ask().text
    assert len(server.bodies) == 3
    assert all(body == server.bodies[0] for body in server.bodies)


@pytest.mark.parametrize("key", ["sk-1\nsk-2", "sk-1 sk-2", "sk-é", "sk-\u200b1"])
def test_a_key_that_no_header_carries_is_refused_unseen(monkeypatch, key):
    monkeypatch.setenv("MY_KEY", key)
    with pytest.raises(InputError, match="MY_KEY: holds more than one word of ASCII") as caught:
        read_key("MY_KEY")
    assert "sk-" not in str(caught.value)


@pytest.mark.parametrize("before", range(185, 205))
def test_a_key_is_not_shown_in_part_where_a_message_is_cut(server, ask, before):
    key = "SECRETSECRETSECRET"
    server.faults = [chat_server.status(400, "." * before + key)]
    with pytest.raises(RejectedError) as caught:
        ask(key=key)
    assert "S" not in str(caught.value)


def test_tokens_that_nobody_counts_cannot_be_held_back(server):
    server.count_tokens = False
    pace = Pace(requests_per_minute=None, tokens_per_minute=1e6, rest=lambda _: False)
    endpoint = Endpoint(Settings(server.url), pace)
    with pytest.raises(InputError, match="counts no tokens, so --tokens-per-minute cannot be kept"):
        endpoint.ask(BODY)
    endpoint.close()


def test_a_model_that_came_to_no_text_gave_an_empty_answer(server, ask):
    """One that reasons may be cut off before its first word; it was paid for, and would be again."""
    usage = b'"usage": {"prompt_tokens": 5, "completion_tokens": 9}'
    server.faults = [
        chat_server.body(b'{"choices": [{"message": {"content": null}, "finish_reason": "length"}], %s}' % usage)
    ]
    server.faults += [chat_server.body(b'{"choices": [{"message": {"role": "assistant"}, "finish_reason": "length"}]}')]
    reply = ask()
    assert (reply.text, reply.finish, reply.completion_tokens) == ("", "length", 9)
    assert (ask().text, len(server.bodies)) == ("", 2)


@pytest.mark.parametrize(
    "choice",
    [
        b'{"message": {"content": null}, "finish_reason": "content_filter"}',
        b'{"message": {"content": null, "refusal": "No."}}',
        b'{"message": {"role": "assistant"}, "finish_reason": "content_filter"}',
    ],
)
def test_an_answer_that_is_held_back_is_a_refusal_of_this_request(server, ask, choice):
    server.faults = [chat_server.body(b'{"choices": [%s]}' % choice)]
    with pytest.raises(RejectedError, match=r"no text: (content_filter|No\.)"):
        ask()
    assert len(server.bodies) == 1


@pytest.mark.parametrize("fault", [chat_server.hang, chat_server.drip])
def test_a_server_that_keeps_silent_or_drips_is_left(server, ask, fault):
    server.faults = [fault]
    assert "Solda" in ask(timeout=0.4).text
    assert len(server.bodies) == 2
    assert not server.outwaited


def test_retry_after_in_seconds_and_as_a_date_is_waited_for(server, ask):
    server.faults = [chat_server.status(429, Retry_After="1")]
    ask()
    assert server.times[1] - server.times[0] >= 1.0
    date = email.utils.formatdate(time.time() + 2, usegmt=True)
    server.faults = [chat_server.status(503, Retry_After=date)]
    ask()
    assert time.time() >= email.utils.parsedate_to_datetime(date).timestamp()


@pytest.mark.parametrize("value", ["9" * 400, "Fri, 20 Nov 2026 00:00:00 +99999999999999", "soon"])
def test_a_retry_after_that_says_nothing_is_none(server, ask, value):
    server.faults = [chat_server.status(429, Retry_After=value)]
    assert "Solda" in ask().text
    assert len(server.bodies) == 2


def test_waits_double_where_the_server_names_none(server, ask):
    server.faults = [chat_server.status(500)] * 3
    ask()
    first, second, third = [wait for wait in ask.waits if wait > 0][:3]
    assert 0.005 <= first <= 0.015
    assert 0.01 <= second <= 0.03
    assert 0.02 <= third <= 0.06


def test_too_long_a_pause_ends_the_run(server, ask):
    server.faults = [chat_server.status(429, Retry_After="86400")]
    with pytest.raises(ParrotError, match=r"come back in 86400 s.*what was answered is kept"):
        ask()


def test_no_answer_at_all_ends_with_what_it_was(server, ask):
    server.faults = [chat_server.status(500, "out of memory")] * 4
    with pytest.raises(ParrotError, match=r"no answer after 4 tries \(status 500: out of memory\)") as caught:
        ask()
    assert caught.value.exit_code == 1


def test_nobody_there():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        settings = Settings(f"http://127.0.0.1:{unused.getsockname()[1]}/v1", 1.0, 1, first_wait=0.01)
        pace = Pace(requests_per_minute=None, tokens_per_minute=None, rest=threading.Event().wait)
        endpoint = Endpoint(settings, pace)
        with pytest.raises(ParrotError, match="no answer after 2 tries"):
            endpoint.ask(BODY)
        endpoint.close()


@pytest.mark.parametrize("code", [400, 413, 422])
def test_a_refused_request_is_not_repeated(server, ask, code):
    server.faults = [chat_server.status(code, "too long")]
    with pytest.raises(RejectedError, match=f"status {code}: too long"):
        ask()
    assert len(server.bodies) == 1


@pytest.mark.parametrize("code", [401, 403, 404, 301])
def test_what_every_request_would_meet_ends_the_run_at_once(server, ask, code):
    server.faults = [chat_server.status(code, "the key sk-secret is wrong", Location="http://127.0.0.1:9/")]
    with pytest.raises(InputError, match=rf"status {code}.*check --endpoint") as caught:
        ask(key="sk-secret")
    assert "sk-secret" not in str(caught.value)
    assert "***" in str(caught.value)
    assert server.keys == {"Bearer sk-secret"}
    assert len(server.bodies) == 1


@pytest.mark.parametrize(
    "address", ["localhost:8000", "ftp://a/v1", "http://", "file:///etc/passwd", "", "//a/v1", "http://[::1/v1"]
)
def test_an_address_that_is_none_is_refused(address):
    with pytest.raises(InputError, match="expected an address such as"):
        Settings(address)


def test_errors_name_the_options_of_the_command_that_asks(server, monkeypatch):
    options = Options(address="--model", model="--model-name", key="--key-env", extra="eval")
    with pytest.raises(InputError, match=r"^--model localhost: expected an address"):
        Settings("localhost", options=options)
    server.faults = [chat_server.status(401)]
    pace = Pace(requests_per_minute=None, tokens_per_minute=None, rest=threading.Event().wait)
    endpoint = Endpoint(Settings(server.url, options=options), pace)
    with pytest.raises(InputError, match="check --model, --model-name and the key of --key-env"):
        endpoint.ask(BODY)
    endpoint.close()
    monkeypatch.setitem(sys.modules, "httpx2", None)  # what an import of it then raises
    with pytest.raises(InputError, match=r"parrot-edge\[eval\]"):
        Endpoint(Settings(server.url, options=options), pace)


def test_a_key_is_read_from_the_variable_that_is_named(monkeypatch):
    monkeypatch.setenv("SOME_KEY", " sk-1 ")
    assert read_key("SOME_KEY") == "sk-1"
    assert read_key(None) is None
    monkeypatch.setenv("SOME_KEY", " ")
    with pytest.raises(InputError, match="--judge-key-env SOME_KEY: there is no such variable, or it is empty"):
        read_key("SOME_KEY", "--judge-key-env")


def test_fields_of_a_body_are_an_object_and_leave_alone_what_is_set():
    assert read_fields(None) == {}
    assert read_fields('{"temperature": null, "top_k": 1}') == {"temperature": None, "top_k": 1}
    for text in ("{", "[]", "1", '{"model": "x"}', '{"stream": true}', '{"n": 2}', '{"messages": []}'):
        with pytest.raises(InputError, match=r"^--body"):
            read_fields(text)


def test_a_password_in_the_address_is_refused_and_not_repeated():
    with pytest.raises(InputError, match="--api-key-env") as caught:
        Settings("https://me:secret@example.org/v1")
    assert "secret" not in str(caught.value)
