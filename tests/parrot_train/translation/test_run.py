"""A file through the whole pipeline, over HTTP, with a server that throttles, fails, garbles and is cut off."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections import Counter

import chat_server
import pytest
from chat_server import garble
from small_translation import conversation, expected

from parrot_runtime.endpoint import Settings
from parrot_runtime.errors import InputError, ParrotError
from parrot_train.data.records import parse_records
from parrot_train.translation.pipeline import Plan, ballots
from parrot_train.translation.run import Request, run


@pytest.fixture
def translate(server, source, tmp_path):
    def call(count=7, output="out/tr.json", *, server_settings=None, plan=None, **options):
        plan = Plan("small-model", "en", "tr", **(plan or {}))
        settings = Settings(server.url, **{"timeout": 5.0, "retries": 4, "first_wait": 0.01, **(server_settings or {})})
        path = source(count) if isinstance(count, int) else count
        request = Request(path, tmp_path / output, plan, settings, **{"concurrency": 1, **options})
        return run(request), json.loads(request.output.read_text("utf-8"))

    return call


def texts(item):
    return [turn["value"] for turn in item["conversations"]]


def steps(server):
    return Counter(server.step(body) for body in server.bodies)


def test_all_turns_are_translated_and_the_rest_is_kept(translate, server):
    result, items = translate(7)
    assert [texts(item) for item in items] == [expected(number) for number in range(7)]
    for number, item in enumerate(items):
        assert item["language"] == "tr"
        assert item["id"] == f"n{number}"
        assert item["image"] == f"../in/pictures/{number}.png"  # from where the new file stands
        assert item["translation"]["source"] == texts(conversation(number))
        assert item["translation"]["model"] == "small-model"
    assert parse_records(items, file="tr.json")[1] == []
    assert (result.records, result.failed, result.flagged) == (7, 0, 0)
    # Nothing was found wrong, so nothing was refined and there was nothing to choose from; n0, n1, n3 and n6 share
    # their words, as n2 and n5 do.
    assert steps(server) == {"translate": 3, "recheck": 3}


def test_the_same_request_is_made_once_however_many_want_it(translate, server):
    server.delay = 0.05
    translate(40, concurrency=16)
    assert max(Counter(json.dumps(body) for body in server.bodies).values()) == 1


def test_three_rounds_then_the_vote_and_every_voter_sees_another_order(translate, server):
    server.recheck = lambda version: "1: better wording"
    rounds = iter(("bir", "iki", "üç"))
    server.refine = lambda version: {**version, "1": f"Solda {next(rounds)} ne var?"}
    best = "Solda iki ne var?"
    server.vote = lambda content: next(part[0] for part in content.split("\n\n")[1:] if best in part)
    _, (item,) = translate(1)
    assert texts(item)[0] == f"<image>\n{best}"
    assert item["translation"]["votes"] == [0, 3, 0]
    assert steps(server) == {"translate": 1, "recheck": 3, "refine": 3, "vote": 3}
    ballots = [body["messages"][1]["content"] for body in server.bodies if server.step(body) == "vote"]
    firsts = [ballot.split("A:\n")[1].split("B:\n")[0] for ballot in ballots]
    assert [word for first in firsts for word in ("bir", "iki", "üç") if f"Solda {word} " in first] == [
        "bir",
        "iki",
        "üç",
    ]
    refined = [body for body in server.bodies if server.step(body) == "refine"]
    assert "1: better wording" in refined[0]["messages"][1]["content"]
    assert "Solda bir ne var?" in refined[1]["messages"][1]["content"]  # each round goes on from the one before


def test_a_divided_vote_goes_to_the_latest_version_and_is_flagged(translate, server):
    server.recheck = lambda version: "1: better wording"
    rounds = iter(("bir", "iki", "üç"))
    server.refine = lambda version: {**version, "1": f"Solda {next(rounds)} ne var?"}
    server.vote = lambda content: "A"  # a voter that always likes the first: the turned orders cancel that out
    _, (item,) = translate(1)
    assert item["translation"]["votes"] == [1, 1, 1]
    assert texts(item)[0] == "<image>\nSolda üç ne var?"
    assert item["translation"]["flags"] == [["divided"], ["divided"]]


@pytest.mark.parametrize(("voters", "ballots"), [(1, 1), (2, 2), (3, 2), (9, 2)])
def test_of_two_versions_each_is_first_as_often(translate, server, voters, ballots):
    server.recheck = lambda version: "OK" if "iki" in version["1"] else "1: better wording"
    rounds = iter(("bir", "iki"))
    server.refine = lambda version: {**version, "1": f"Solda {next(rounds)} ne var?"}
    server.vote = lambda content: "A"
    _, (item,) = translate(1, plan={"voters": voters})
    assert steps(server)["vote"] == ballots
    assert sum(item["translation"]["votes"]) == ballots
    if ballots == 2:
        assert item["translation"]["votes"] == [1, 1]
        assert texts(item)[0] == "<image>\nSolda iki ne var?"


@pytest.mark.parametrize("versions", [2, 3, 4])
@pytest.mark.parametrize("voters", [0, 1, 3, 4, 9, 100])
def test_no_two_ballots_are_alike_and_no_place_is_favoured(versions, voters):
    orders = list(ballots(versions, voters))
    assert len(set(orders)) == len(orders) <= voters
    assert all(sorted(order) == list(range(versions)) for order in orders)
    if voters >= versions:
        assert len(orders) >= min(voters - versions + 1, math.factorial(versions))
        for place in range(versions):
            assert set(Counter(order[place] for order in orders).values()) == {len(orders) // versions}


def test_a_conversation_that_is_held_back_fails_alone(translate, server, tmp_path):
    held = chat_server.body(b'{"choices": [{"message": {"content": null}, "finish_reason": "content_filter"}]}')
    server.faults = [held]
    result, items = translate(4, max_failed_fraction=0.9)
    assert (result.records, result.failed) == (len(items), 4 - len(items))
    assert 0 < result.failed < 4


def test_a_budget_that_cannot_be_counted_stops(translate, server):
    server.count_tokens = False
    with pytest.raises(ParrotError, match=r"counted no tokens for 1 replies, so --max-cost cannot be kept"):
        translate(4, plan={"max_cost": 1.0, "price_in": 1.0})
    assert len(server.bodies) == 1


GARBLED = {
    "no JSON": (garble(lambda text: "Here you are: " + text), "not a JSON object"),
    "a key less": (garble(lambda text: '{"1": "Solda ne var?"}'), "should have the keys 1, 2"),
    "no text": (garble(lambda text: '{"1": "Solda ne var?", "2": 3}'), "is not a text"),
    "a mark lost": (garble(lambda text: text.replace("\\u27e60\\u27e7 ", "")), "does not stand exactly once"),
    "a line more": (garble(lambda text: text.replace("Solda ne", "Solda\\nne")), "2 lines where its source has 1"),
    "English": (
        garble(lambda text: json.dumps({"1": "What is on the left?", "2": "There are 2 cars at ⟦0⟧ on the left."})),
        "not in Turkish",
    ),
    "Russian": (
        garble(lambda text: json.dumps({"1": "Что слева?", "2": "Слева две машины ⟦0⟧ 2."})),
        "not in Turkish",
    ),
    "cut off": (chat_server.out_of_room, "cut off at the limit"),
    "half a character": (garble(lambda text: text.replace("Solda ne", "Solda \\ud800 ne")), "half a character"),
}


@pytest.mark.parametrize("kind", GARBLED)
def test_a_garbled_reply_is_asked_for_again_with_the_reason(translate, server, kind):
    fault, reason = GARBLED[kind]
    server.faults = [fault]
    _, (item,) = translate(1)
    assert texts(item) == expected(0)
    again = server.bodies[1]["messages"]
    assert again[:2] == server.bodies[0]["messages"]
    assert [message["role"] for message in again[2:]] == ["assistant", "user"]
    assert reason in again[3]["content"]


def test_a_reply_in_a_fence_is_taken(translate, server):
    server.faults = [garble(lambda text: f"```json\n{text}\n```\n")]
    _, (item,) = translate(1)
    assert texts(item) == expected(0)
    assert steps(server)["translate"] == 1


def test_what_cannot_be_translated_is_listed_and_nothing_is_published(translate, server, source, tmp_path):
    path = source(1)
    path.write_text(json.dumps([conversation(0), conversation(2)]))
    server.faults = [garble(lambda text: "no")] * 3
    told = r"1 of 2 conversations.*\(id n0\): no usable reply in 3: it is not a JSON object.*--max-failed-fraction 0.5"
    with pytest.raises(ParrotError, match=told):
        translate(path, plan={"rounds": 0})
    assert not (tmp_path / "out/tr.json").exists()
    (failure,) = json.loads((tmp_path / "out/tr.failed.json").read_text())
    assert (failure["row"], failure["name"]) == (0, "n0")
    # The next run asks anew for what failed, and for nothing else.
    before = len(server.bodies)
    _, items = translate(path, plan={"rounds": 0})
    assert [texts(item) for item in items] == [expected(0), expected(2)]
    assert len(server.bodies) == before + 1
    assert not (tmp_path / "out/tr.failed.json").exists()


def test_failures_may_be_left_out_by_leave(translate, server, tmp_path):
    server.faults = [chat_server.status(400, "filtered")]
    result, items = translate(2, max_failed_fraction=0.5, plan={"rounds": 0})
    assert [item["id"] for item in items] == ["n1"]
    assert result.failed == 1
    (failure,) = json.loads((tmp_path / "out/tr.failed.json").read_text())
    assert failure["reason"] == "refused: status 400: filtered"


def test_throttled_failing_and_hanging_the_result_is_the_same(translate, server):
    server.faults = [
        chat_server.status(429, Retry_After="0"),
        chat_server.close,
        chat_server.status(500),
        chat_server.cut,
        chat_server.body(b"<html>"),
        chat_server.hang,
        garble(lambda text: "{}"),
    ]
    result, items = translate(20, concurrency=4, server_settings={"timeout": 1.0, "retries": 8})
    assert [texts(item) for item in items] == [expected(number) for number in range(20)]
    assert [result.usage.prompt_tokens, result.usage.completion_tokens] == server.tokens


def test_two_runs_write_the_same_bytes(translate, server, tmp_path):
    server.recheck = lambda version: "1: x" if "daha" not in version["1"] else "OK"
    server.refine = lambda version: {**version, "1": version["1"].replace("?", " daha?")}
    first, _ = translate(12, "out/a.json", concurrency=8)
    second, _ = translate(12, "out/b.json", concurrency=3)
    assert first.sha256 == second.sha256
    assert first.usage == second.usage


def test_costs_are_counted_to_the_token_and_kept_over_runs(translate, server):
    prices = {"price_in": 2.5, "price_out": 10.0}
    result, _ = translate(9, plan=prices)
    cost = (server.tokens[0] * 2.5 + server.tokens[1] * 10.0) / 1e6
    assert result.cost == cost > 0
    again, _ = translate(9, plan=prices, force=True)
    assert (again.cost, again.asked) == (cost, 0)
    assert result.asked == len(server.bodies)


def test_the_budget_stops_the_run_which_then_goes_on(translate, server, tmp_path):
    plan = {"price_in": 1e3, "price_out": 1e3, "max_cost": 3.0}
    with pytest.raises(ParrotError, match="of --max-cost 3, so nothing more is asked"):
        translate(9, plan=plan)
    spent = sum(server.tokens) * 1e3 / 1e6
    assert spent >= 3.0
    assert not (tmp_path / "out/tr.json").exists()
    asked = len(server.bodies)
    translate(9, plan={**plan, "max_cost": 1e6})
    assert max(Counter(json.dumps(body) for body in server.bodies).values()) == 1
    assert len(server.bodies) > asked


def test_a_server_that_counts_no_tokens_is_told_of(translate, server):
    server.count_tokens = False
    result, _ = translate(2)
    assert result.usage.uncounted == result.usage.replies > 0


def test_a_server_that_is_gone_ends_the_run_and_keeps_what_there_is(translate, server, tmp_path):
    server.faults = [lambda handler: handler.complete(handler.body, server.reply(handler.body))] * 4
    server.faults += [chat_server.status(503)] * 50
    with pytest.raises(ParrotError, match="no answer after 5 tries"):
        translate(12, concurrency=2)
    assert not (tmp_path / "out/tr.json").exists()
    answered = len(server.answered)
    server.faults = []
    translate(12)
    assert max(Counter(json.dumps(body) for body in server.answered).values()) == 1
    assert len(server.answered) > answered


def test_texts_without_words_are_not_asked_for(translate, server, source, tmp_path):
    path = source(1)
    turns = [{"from": "human", "value": "<image>\n3 + 4 = "}, {"from": "gpt", "value": "7"}]
    path.write_text(json.dumps([{**conversation(0), "conversations": turns}]))
    _, (item,) = translate(path)
    assert texts(item) == ["<image>\n3 + 4 = ", "7"]
    assert not server.bodies


def test_a_record_of_another_language_is_not_translated(translate, source, server):
    path = source(1)
    path.write_text(json.dumps([{**conversation(0), "language": "zh"}]))
    with pytest.raises(ParrotError, match="it is in 'zh', not in --from en"):
        translate(path)
    assert not server.bodies


def test_bad_input_is_refused_before_anything_is_asked(translate, source, server, tmp_path, monkeypatch):
    path = source(2)
    path.write_text(json.dumps([conversation(0), {"conversations": []}]))
    with pytest.raises(InputError, match=r"part.json\[1\].*should be a list of turns"):
        translate(path)
    (tmp_path / "out").mkdir(exist_ok=True)
    (tmp_path / "out/tr.json").write_text("[]")
    with pytest.raises(InputError, match="exists already"):
        translate(2)
    monkeypatch.delenv("NO_KEY_HERE", raising=False)
    with pytest.raises(InputError, match="--api-key-env NO_KEY_HERE: there is no such variable"):
        translate(2, "out/b.json", api_key_env="NO_KEY_HERE")
    assert not server.bodies


def test_what_ends_the_run_ends_it_for_all_threads(translate, server, source):
    """The first conversation is slow to fail; the others do not go on asking meanwhile."""
    path = source(1)
    turns = [[{"from": "human", "value": f"Is dog {n} small?"}, {"from": "gpt", "value": "Yes."}] for n in range(30)]
    path.write_text(json.dumps([{"conversations": each} for each in turns]))

    def slow(handler):
        time.sleep(1.5)
        handler.send(503, b"")

    server.faults = [slow] + [chat_server.status(401, "wrong key")] * 100
    with pytest.raises(InputError, match="status 401: wrong key"):
        translate(path, concurrency=2)
    assert len(server.bodies) <= 4


def test_the_key_is_sent_and_written_nowhere(translate, server, tmp_path, monkeypatch):
    monkeypatch.setenv("A_KEY", "sk-very-secret")
    translate(2, api_key_env="A_KEY")
    assert server.keys == {"Bearer sk-very-secret"}
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert b"sk-very-secret" not in path.read_bytes()
            assert server.url.encode() not in path.read_bytes()


def command(server, source, output, *more):
    program = [sys.executable, "-m", "parrot_train", "data", "translate", str(source), "--to", "tr", "--model", "m"]
    return [*program, "--endpoint", server.url, "-o", str(output), "--concurrency", "1", *more]


def test_killed_and_run_again_it_asks_nothing_twice(server, source, tmp_path):
    path, output = source(30), tmp_path / "tr.json"
    server.recheck = lambda version: "1: x" if "daha" not in version["1"] else "OK"
    server.refine = lambda version: {**version, "1": version["1"].replace("?", " daha?")}
    for hold_at in (3, 9):
        server.hold_at = hold_at
        server.held.clear()
        server.release.clear()
        process = subprocess.Popen(command(server, path, output), stderr=subprocess.DEVNULL)
        assert server.held.wait(60)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        server.release.set()
        assert not output.exists()
    server.hold_at = None
    done = subprocess.run(command(server, path, output, "--json"), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    counts = Counter(json.dumps(body) for body in server.bodies)
    # The two requests that were under way when the process was killed, and no others.
    assert sorted(counts.values(), reverse=True)[:3] == [2, 2, 1]
    assert len(json.loads(output.read_text())) == 30
    assert [entry.name for entry in tmp_path.iterdir() if "partial" in entry.name] == []
    usage = json.loads(done.stdout)["usage"]
    assert usage["replies"] == len(counts)


def test_a_torn_last_line_is_dropped_and_a_wrong_one_refused(translate, tmp_path, server):
    translate(3, plan={"rounds": 0})
    replies = tmp_path / "out/tr.json.replies.jsonl"
    whole = replies.read_bytes()
    replies.write_bytes(whole[:-10])
    asked = len(server.bodies)
    translate(3, plan={"rounds": 0}, force=True)
    assert len(server.bodies) == asked + 1
    assert replies.read_bytes() == whole
    replies.write_bytes(b"3\n" + whole)
    with pytest.raises(InputError, match="line 1 is no reply"):
        translate(3, plan={"rounds": 0}, force=True)


def test_two_at_once_on_one_cache_is_refused(translate, tmp_path, server):
    from parrot_train.translation.replies import Replies

    with Replies(tmp_path / "shared.jsonl"), pytest.raises(InputError, match="another translation is writing it"):
        translate(2, cache=tmp_path / "shared.jsonl")


def test_a_language_of_its_own_settings_goes_into_the_request(translate, server):
    translate(1, plan={"body": {"temperature": None, "max_tokens": 900}})
    assert all(set(body) == {"model", "messages", "max_tokens"} for body in server.bodies)
