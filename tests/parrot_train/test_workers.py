"""Work in other processes: the same as without, never in a fork, and with an error where a worker dies."""

import importlib
import os
import pickle
import signal
import sys

import pytest

from parrot_runtime.errors import ParrotError
from parrot_train import workers
from parrot_train.workers import map_chunks, seeded_parts

# In a file of its own, since a process started afresh imports what it is to run.
TASKS = """
import os, signal, threading

inherited = []

def squares(chunk, add):
    return [number**2 + add for number in chunk]

def facts(chunk):
    return [(os.getpid(), list(inherited), threading.active_count(), signal.getsignal(signal.SIGINT))] * len(chunk)

def fail(chunk):
    raise ValueError(f"chunk {chunk}")

def die(chunk):
    os.kill(os.getpid(), signal.SIGKILL)

def tell(connection):
    connection.send(facts([0]))
"""


@pytest.fixture
def tasks(tmp_path, monkeypatch):
    (tmp_path / "tasks_of_workers.py").write_text(TASKS)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("tasks_of_workers")
    del sys.modules["tasks_of_workers"]


@pytest.mark.parametrize("count", [0, 1, 3, 33])
@pytest.mark.parametrize("several", [0, 1, 2])
def test_results_come_in_order(tasks, several, count):
    chunks = list(map_chunks(tasks.squares, range(count), (7,), workers=several, size=3))
    assert [len(chunk) for chunk in chunks[:-1]] == [3] * (len(chunks) - 1)
    assert [value for chunk in chunks for value in chunk] == [number**2 + 7 for number in range(count)]


def test_a_worker_has_nothing_of_its_parent_and_leaves_ctrl_c_to_it(tasks):
    tasks.inherited.append("a fork would have this")
    seen = [each for chunk in map_chunks(tasks.facts, range(20), workers=2, size=1) for each in chunk]
    assert os.getpid() not in {pid for pid, *_ in seen}
    assert {(tuple(had), threads) for _, had, threads, _ in seen} == {((), 1)}
    assert {handler for *_, handler in seen} == {signal.SIG_IGN}


def test_few_chunks_start_no_process(tasks):
    assert {pid for chunk in map_chunks(tasks.facts, range(6), workers=2, size=1) for pid, *_ in chunk} == {os.getpid()}


@pytest.mark.parametrize("several", [1, 2])
def test_a_stream_is_taken_as_it_is_needed(tasks, several):
    taken = []
    stream = (taken.append(number) or number for number in range(1000))
    results = map_chunks(tasks.squares, stream, (0,), workers=several, size=2)
    assert next(results) == [0, 1]
    assert len(taken) <= 2 * max(workers._FEW, workers._CHUNKS_AHEAD * several)
    assert [value for chunk in results for value in chunk] == [number**2 for number in range(2, 1000)]


@pytest.mark.parametrize("several", [1, 2])
def test_what_the_function_raises_is_raised(tasks, several):
    with pytest.raises(ValueError, match=r"chunk \[0, 1\]"):
        list(map_chunks(tasks.fail, [*range(20)], workers=several, size=2))


def test_a_killed_worker_is_an_error_that_says_what_to_do(tasks):
    with pytest.raises(ParrotError, match=r"images: a worker process died.*--set data.workers=0"):
        list(map_chunks(tasks.die, range(20), workers=2, size=1, label="images"))


def test_parts_are_named_by_their_number():
    assert seeded_parts("a", 50, 20) == [("a/0", 20), ("a/1", 20), ("a/2", 10)]
    assert seeded_parts(3, 20, 20) == [("3/0", 20)]
    assert not seeded_parts(3, 0, 20)


def test_loading_workers_are_no_forks_of_the_training(tasks):
    tasks.inherited.append("a fork would have this")
    here, there = workers.loading_context().Pipe()
    process = workers.loading_context().Process(target=tasks.tell, args=(there,))
    process.start()
    assert here.poll(60)
    assert here.recv()[0][:3] == (process.pid, [], 1)
    process.join()


def test_a_token_store_is_handed_to_workers_by_its_files(data, backbones, tmp_path):
    from parrot_train.data.cache import token_store

    store = token_store(data(), backbones.tokenizer, image_tokens=5, workers=0, fallback=tmp_path)
    sent = pickle.dumps(store)
    assert len(sent) < 1000
    assert (pickle.loads(sent).tokens == store.tokens).all()
