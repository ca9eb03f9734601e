"""Slots: what they keep, who waits for whom, who leaves when; and questions from many threads at once."""

import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from tiny_bundle import DIMS

from parrot_runtime.composer import Routed
from parrot_runtime.errors import InputError, ParrotError, TextError
from parrot_runtime.generation import Request, Slots, generate
from parrot_runtime.prompt import Turn
from parrot_runtime.sampling import Sampler, Sampling
from parrot_runtime.stats import Stats

QUESTIONS = [
    "Görselde ne var?",
    "What is it?",
    "图片里有什么？",
    "Что это?",
    "Kaç tane?",
    "ما هذا؟",
    "Onde está?",
    "Why?",
]


class Watched:
    """A backend that tells what it is asked to do."""

    def __init__(self, backend):
        self._backend, self.calls = backend, []
        self.embeds_dtype = backend.embeds_dtype
        self.copies, self.extends = True, False

    def prefill(self, rows, cache, *, slot=0, start=0):
        self.calls.append(("prefill", slot, start, len(rows)))
        return self._backend.prefill(rows, cache, slot=slot, start=start)

    def copy(self, cache, *, source, target, count):
        self.calls.append(("copy", source, target, count))
        self._backend.copy(cache, source=source, target=target, count=count)

    def decode(self, rows, lengths, cache):
        self.calls.append(("decode", *lengths.tolist()))
        return self._backend.decode(rows, lengths, cache)


@pytest.fixture
def watched(parrot):
    return Watched(parrot._backend)


@pytest.fixture
def slots(parrot, watched):
    """``slots(n)``: new ones, of 64 positions, that nothing stops but the limit."""

    def make(count):
        return Slots(watched, parrot._embedding, parrot._backend.new_cache(count, 64), frozenset())

    return make


def request(parrot, seed, length, limit=4):
    ids = np.random.default_rng(seed).integers(0, 250, length)
    return Request(parrot._embedding.gather(ids), None, Sampler(Sampling()), limit, Stats())


def answer(parrot, slots, seed, length, limit=4):
    asked = request(parrot, seed, length, limit)
    for _ in generate([asked], slots):
        pass
    return asked


def test_a_prompt_that_begins_like_the_last_is_prefilled_from_where_they_part(parrot, slots, watched):
    alone = [answer(parrot, slots(1), 1, length).tokens for length in (20, 33)]
    watched.calls.clear()
    kept = slots(1)
    first, second = (answer(parrot, kept, 1, length) for length in (20, 33))
    assert [first.tokens, second.tokens] == alone
    # The same seed draws the same twenty tokens first.
    assert [call for call in watched.calls if call[0] == "prefill"] == [("prefill", 0, 0, 20), ("prefill", 0, 20, 13)]
    assert (first.stats.kept_tokens, second.stats.kept_tokens) == (0, 20)


def test_the_same_prompt_again_computes_its_last_position(parrot, slots, watched):
    kept = slots(1)
    tokens = answer(parrot, kept, 2, 17).tokens
    watched.calls.clear()
    assert answer(parrot, kept, 2, 17).tokens == tokens
    assert watched.calls[0] == ("prefill", 0, 16, 1)


def test_an_answer_that_becomes_part_of_the_prompt_is_kept_too(parrot, slots, watched):
    """As in a conversation: the cache holds all of the answer but its last token, which nothing was computed from."""
    kept = slots(1)
    first = answer(parrot, kept, 3, 12)
    turn = parrot._embedding.gather(np.array([*first.tokens, 7, 8, 9]))
    start = parrot._embedding.gather(np.random.default_rng(3).integers(0, 250, 12))
    whole = np.concatenate([start, turn])
    tokens = []
    for used in (kept, slots(1)):
        asked = Request(whole, None, Sampler(Sampling()), 4, Stats())
        for _ in generate([asked], used):
            pass
        tokens.append(asked.tokens)
    assert tokens[0] == tokens[1]
    assert [call for call in watched.calls if call[0] == "prefill"][1] == ("prefill", 0, 15, 4)


def test_what_prompts_have_in_common_is_prefilled_once(parrot, slots, watched):
    """Four prompts side by side, the first three with twenty positions in common, the first and last the same."""
    rows = [request(parrot, 1, length).inputs_embeds for length in (20, 33, 29)]
    other = request(parrot, 9, 9).inputs_embeds
    prompts = [rows[1], np.concatenate([rows[0], other]), other, rows[1]]
    alone = []
    for prompt in prompts:
        asked = Request(prompt, None, Sampler(Sampling()), 4, Stats())
        list(generate([asked], slots(1)))
        alone.append(asked.tokens)
    watched.calls.clear()
    together = [Request(prompt, None, Sampler(Sampling()), 4, Stats()) for prompt in prompts]
    list(generate(together, slots(4)))
    assert [asked.tokens for asked in together] == alone
    assert [call for call in watched.calls if call[0] != "decode"] == [
        ("prefill", 0, 0, 33),
        ("copy", 0, 1, 20),
        ("prefill", 1, 20, 9),
        ("prefill", 2, 0, 9),
        ("copy", 0, 3, 32),
        ("prefill", 3, 32, 1),
    ]
    assert [asked.stats.kept_tokens for asked in together] == [0, 20, 0, 32]


def test_a_step_of_others_spoils_nothing_that_is_kept(parrot, slots):
    """Slot 0 is idle and keeps its prompt while slot 1 decodes: the step writes a position of its row as well."""
    alone = answer(parrot, slots(1), 5, 30).tokens
    both = slots(2)
    short, long = request(parrot, 5, 30, limit=1), request(parrot, 6, 20, limit=12)
    for _ in generate([short, long], both):
        pass
    again = answer(parrot, both, 5, 30)
    assert again.stats.kept_tokens == 29
    assert again.tokens == alone


def test_a_full_slot_gives_up_one_position_to_the_steps_of_others(parrot, slots):
    both = slots(2)
    full, other = request(parrot, 5, 60, limit=4), request(parrot, 6, 20, limit=12)
    for _ in generate([full, other], both):
        pass
    for seed, length in ((5, 60), (6, 20)):
        assert answer(parrot, both, seed, length).tokens == answer(parrot, slots(1), seed, length).tokens


def test_a_prompt_comes_in_chunks_while_others_decode(parrot, slots, watched):
    alone = [answer(parrot, slots(1), seed, length, limit).tokens for seed, length, limit in ((1, 5, 9), (2, 33, 3))]
    both = slots(2)
    live, late = request(parrot, 1, 5, limit=9), request(parrot, 2, 33, limit=3)
    both.admit(live)
    list(both.advance(10))
    both.admit(late)
    watched.calls.clear()
    while both.busy:
        list(both.advance(10))
    assert [live.tokens, late.tokens] == alone
    kinds = [call[0] for call in watched.calls]
    assert "".join(kind[0] for kind in kinds).startswith("pdpdpdpd")
    assert [call[2:] for call in watched.calls if call[0] == "prefill"] == [(0, 10), (10, 10), (20, 10), (30, 3)]


def test_the_oldest_prompt_is_whole_first(parrot, slots):
    three = slots(3)
    live, first, second = (request(parrot, seed, length, 20) for seed, length in ((1, 3), (2, 30), (3, 4)))
    three.admit(live)
    list(three.advance(8))
    for each in (first, second):
        three.admit(each)
    begun = []
    while three.busy:
        begun += [each for each, _ in three.advance(8)]
    assert list(dict.fromkeys(begun)) == [live, first, second]


def test_who_is_cancelled_leaves_before_the_next_step(parrot, slots, watched):
    both = slots(2)
    one, two = request(parrot, 1, 9, limit=30), request(parrot, 2, 9, limit=30)
    tokens = generate([one, two], both)
    for _ in range(6):
        next(tokens)
    one.cancel()
    watched.calls.clear()
    next(tokens)
    assert both.free == 1
    assert one.finish == "cancelled"
    tokens.close()
    assert both.free == 2
    assert two.finish == "cancelled"


@pytest.fixture
def scheduler(parrot):
    with parrot.scheduler(slots=3) as scheduler:
        yield scheduler


def test_many_threads_get_the_answers_they_would_get_alone(parrot, scheduler, picture, other_picture):
    asked = [(image, question) for question in QUESTIONS for image in (picture, other_picture)]
    alone = [parrot.ask(image, question, max_new_tokens=12).token_ids for image, question in asked]
    got = {}

    def ask(number):
        got[number] = scheduler.ask(*asked[number], max_new_tokens=12).token_ids

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(asked))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [got[number] for number in range(len(asked))] == alone


def test_a_stream_comes_in_pieces_and_frees_its_slot_when_closed(parrot, scheduler, picture):
    streams = [scheduler.stream(picture, question, max_new_tokens=400) for question in QUESTIONS[:3]]
    for stream in streams:
        next(stream)
    streams[1].close()
    # There are three slots: this one is answered because one was freed, long before the others end.
    assert (
        scheduler.ask(picture, "?", max_new_tokens=2).token_ids == parrot.ask(picture, "?", max_new_tokens=2).token_ids
    )
    for stream in streams:
        stream.close()


def test_a_stream_that_nobody_ever_read_frees_its_slot_as_well(parrot, picture):
    with parrot.scheduler(slots=1) as scheduler:
        unread = scheduler.stream(picture, QUESTIONS[0], max_new_tokens=450)
        waiting = scheduler.stream(picture, QUESTIONS[1], max_new_tokens=450)
        waiting.close()
        unread.close()
        assert scheduler.ask(picture, "?", max_new_tokens=2).stats.new_tokens == 2
        assert scheduler._slots.free == 1


def test_a_conversation_shares_the_slots(parrot, scheduler, picture):
    alone, shared = parrot.chat(picture), scheduler.chat(picture)
    for question in QUESTIONS[:3]:
        assert shared.ask(question, max_new_tokens=6).token_ids == alone.ask(question, max_new_tokens=6).token_ids


def test_what_is_wrong_with_a_question_is_raised_where_it_is_asked(scheduler, picture):
    with pytest.raises(TextError, match="empty"):
        scheduler.stream(picture, " ")
    with pytest.raises(TextError, match="too long"):
        scheduler.stream(picture, "a" * DIMS.max_len)


def test_a_closed_scheduler_ends_what_is_open_and_takes_nothing_more(parrot, picture):
    scheduler = parrot.scheduler(slots=1)
    streams = [scheduler.stream(picture, question, max_new_tokens=500) for question in QUESTIONS]
    scheduler.close()
    for stream in streams:
        with pytest.raises(ParrotError, match="closed before the answer's end"):
            _ = stream.answer
    with pytest.raises(ParrotError, match="this scheduler is closed"):
        scheduler.ask(picture, "?")
    with pytest.raises(InputError, match="slots is 0"):
        parrot.scheduler(slots=0)


def test_an_error_of_the_device_reaches_everybody_who_waits(parrot, picture, monkeypatch):
    with parrot.scheduler(slots=2) as scheduler:
        streams = [scheduler.stream(picture, question, max_new_tokens=500) for question in QUESTIONS[:3]]
        next(streams[0])

        def fail(*_arguments):
            raise ParrotError("the decoder graph failed")

        monkeypatch.setattr(parrot._backend, "decode", fail)
        for stream in streams:
            with pytest.raises(ParrotError, match="the decoder graph failed"):
                _ = stream.answer


def test_who_cannot_be_admitted_is_told_too(parrot, picture, monkeypatch):
    with parrot.scheduler(slots=2) as scheduler:

        def fail(_request):
            raise MemoryError("no room for its embeddings")

        monkeypatch.setattr(scheduler._slots, "admit", fail)
        with pytest.raises(MemoryError):
            scheduler.ask(picture, QUESTIONS[0], max_new_tokens=2)


def test_an_error_of_one_answer_is_that_answers_alone(parrot, picture):
    wrong = parrot._composer.request([], [Turn("user", "?")], _divide, 400, Stats(), Routed())
    with parrot.scheduler(slots=2) as scheduler:
        other = scheduler.stream(picture, QUESTIONS[0], max_new_tokens=60)
        next(other)
        with pytest.raises(ZeroDivisionError):
            list(scheduler._tokens(wrong))
        assert other.answer.text == parrot.ask(picture, QUESTIONS[0], max_new_tokens=60).text
        assert scheduler.ask(picture, "?", max_new_tokens=2).stats.new_tokens == 2
        assert scheduler._slots.failed == []


def _divide(_logits, so_far):
    return 5 if len(so_far) < 3 else 1 // 0


def test_an_error_of_an_answer_alone_is_raised(parrot):
    wrong = parrot._composer.request([], [Turn("user", "?")], _divide, 400, Stats(), Routed())
    with pytest.raises(ZeroDivisionError):
        list(parrot._alone(wrong))
    assert parrot.ask(None, "?", max_new_tokens=2).stats.new_tokens == 2


@pytest.mark.parametrize("together", [True, False])
def test_a_stream_is_closed_from_another_thread(parrot, picture, together):
    with parrot.scheduler(slots=1) as scheduler:
        stream = (scheduler if together else parrot).stream(picture, QUESTIONS[0], max_new_tokens=450)
        began, pieces = threading.Event(), []

        def read():
            for piece in stream:
                pieces.append(piece)
                began.set()

        reader = threading.Thread(target=read)
        reader.start()
        assert began.wait(60)
        stream.close()
        reader.join(60)
        assert not reader.is_alive()
        assert len(pieces) < 300
        with pytest.raises(ValueError, match="closed before the answer's end"):
            _ = stream.answer
        assert scheduler.ask(picture, "?", max_new_tokens=2).stats.new_tokens == 2


def test_a_program_that_ends_beside_an_open_scheduler_ends_well(bundle):
    code = (
        "import sys; from parrot_runtime import Parrot\n"
        "scheduler = Parrot.load(sys.argv[1], threads=1).scheduler(slots=2)\n"
        "streams = [scheduler.stream(None, 'What is it?', max_new_tokens=200) for _ in range(20)]\n"
        "next(streams[0])"
    )
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", code, str(bundle)], capture_output=True, timeout=120)
        assert (done.returncode, done.stderr) == (0, b"")


def test_nothing_spins_while_there_is_nothing_to_do(scheduler, picture):
    scheduler.ask(picture, "?", max_new_tokens=2)
    before = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - before < 0.2
