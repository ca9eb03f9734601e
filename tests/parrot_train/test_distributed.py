"""How ranks agree on what ended them. Real ranks are in test_launch.py; here, a store and a clock of our own."""

import json
import os
import socket
import subprocess
import sys
import threading
import time

import pytest
from torch.distributed import DistStoreError, HashStore

from parrot_runtime.errors import InputError, ParrotError
from parrot_train import distributed
from parrot_train.distributed import LaunchedRanks, LostRankError, Ranks, joined

ENVIRONMENT = {"WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "here", "MASTER_PORT": "1"}
GONE = RuntimeError("[/third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer")


@pytest.fixture
def two(monkeypatch):
    """Ranks 0 and 1 around one store, with little patience."""
    for name in ("_COURTESY_SECONDS", "_GRACE_SECONDS", "LOST_SECONDS"):
        monkeypatch.setattr(distributed, name, 0.3)
    monkeypatch.setattr(distributed, "_BEAT_SECONDS", 0.02)
    store = HashStore()
    ranks = [LaunchedRanks(ENVIRONMENT | {"RANK": str(number)}) for number in range(2)]
    for rank in ranks:
        rank._store = store
        store.set(f"beat/{rank.rank}", "0")
    return ranks


def test_one_process_is_all_ranks(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setenv("WORLD_SIZE", "1")
    with joined() as ranks:
        assert type(ranks) is Ranks
        assert (ranks.main, ranks.launched, ranks.world) == (True, False, 1)
        assert ranks.from_main(lambda: 3) == ranks.in_turn(lambda: 3) == ranks.greatest(3) == 3
        assert ranks.failure(InputError("bad")).exit_code == 2


@pytest.mark.parametrize("environment", [{"WORLD_SIZE": "2"}, {"RANK": "0"}, ENVIRONMENT | {"RANK": "first"}])
def test_half_an_environment_is_refused(monkeypatch, environment):
    for name in distributed._LAUNCHED:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match="the launcher's environment is incomplete"), joined():
        pass


def test_the_first_failure_is_everybodys(two):
    first = two[1].failure(InputError("no such\nfile"))
    assert (first.rank, first.message, first.exit_code) == (1, "no such file", 2)
    second = two[0].failure(ParrotError("something that followed"))
    assert second == first
    assert two[1].is_own(first)
    assert not two[0].is_own(first)


def test_a_rank_that_lost_another_lets_it_speak(two):
    threading.Timer(0.1, two[1].failure, [ParrotError("the cause")]).start()
    assert two[0].failure(GONE).message == "the cause"


def test_a_rank_that_died_in_silence_is_missed_by_one(two):
    failure = two[0].failure(GONE)
    assert "rank 0 of 2 has lost another rank" in failure.message
    assert failure.exit_code == 1
    assert two[1].failure(GONE) == failure


class Store(HashStore):
    """One whose process is gone."""

    def compare_set(self, *_):
        raise DistStoreError("gone")

    check = compare_set


def test_without_the_store_one_rank_speaks(two):
    third = LaunchedRanks(ENVIRONMENT | {"RANK": "2", "WORLD_SIZE": "3"})
    two[1]._store = third._store = Store()
    assert two[1].is_own(two[1].failure(GONE))
    assert not third.is_own(third.failure(GONE))


class Ended(Exception):
    """Stands for the end of the process."""


@pytest.fixture
def watched(two, monkeypatch, capsys):
    """Let the main process's thread run here; returns its exit code, what it printed, and its last words."""

    def run():
        words, codes = [], []
        two[0].when_lost(words.append)

        def leave(code):
            codes.append(code)
            raise Ended

        monkeypatch.setattr(distributed.os, "_exit", leave)
        with pytest.raises(Ended):
            two[0]._watch()
        return codes[0], capsys.readouterr().err, words

    return run


def test_a_rank_that_falls_silent_ends_the_others(two, watched):
    began = time.monotonic()
    code, printed, words = watched()
    assert code == 1
    assert printed.startswith("parrot-train: rank 1 has not been heard from")
    assert words[0].rank == 0
    assert time.monotonic() - began >= 0.3
    assert not two[1].is_own(two[1].failure(GONE))  # it knows, should it live


def test_a_rank_that_is_heard_from_does_not(two, monkeypatch):
    left, sleep, clock = [], time.sleep, [0.0]
    monkeypatch.setattr(distributed.os, "_exit", left.append)
    # Time that passes with the beats alone: a machine that is busy for a moment makes no silence.
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])

    def beat() -> None:
        for number in range(1, 41):
            clock[0] += 0.05
            two[1]._store.set("beat/1", str(number))
            sleep(0.02)

    beats = threading.Thread(target=beat)
    watch = threading.Thread(target=two[0]._watch, daemon=True)
    beats.start()
    watch.start()
    beats.join()
    two[0]._left.set()
    watch.join()
    assert clock[0] > 5 * distributed.LOST_SECONDS
    assert not left
    assert not two[0]._store.check(["failure"])


def test_a_rank_that_failed_ends_a_main_process_that_waits_for_it(two, watched):
    failure = two[1].failure(InputError("the data differ"))
    code, printed, words = watched()
    assert (code, printed, words) == (2, "", [failure])
    assert json.loads(two[0]._store.get("failure"))["message"] == "the data differ"


def test_what_a_lost_peer_looks_like():
    assert distributed.is_lost_peer(GONE)
    assert distributed.is_lost_peer(DistStoreError("x"))
    assert not distributed.is_lost_peer(RuntimeError("PytorchStreamWriter failed writing file"))
    assert not distributed.is_lost_peer(LostRankError("gloo"))


PARTING = """
import sys, threading
from parrot_train import distributed

distributed._BEAT_SECONDS = 1e-6  # so that the end comes while the thread is in the store's code
try:
    with distributed.joined():
        threading.Event().wait(0.1)
        sys.exit(int(sys.argv[1]))
finally:
    print([thread.name for thread in threading.enumerate()])
"""


@pytest.mark.parametrize("code", [0, 3])
def test_a_rank_ends_with_its_exit_code_and_not_in_the_middle_of_a_heartbeat(code):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"}
    done = subprocess.run(
        [sys.executable, "-c", PARTING, str(code)],
        env=os.environ | environment | {"MASTER_PORT": str(port), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (code, "['MainThread']\n"), done.stderr
