"""What ``--stats`` and ``--json`` say."""

import json

import numpy as np

from parrot_runtime.answer import Answer
from parrot_runtime.rates import Rate
from parrot_runtime.report import as_json, as_table
from parrot_runtime.stats import Stats


def _answer(routing=True):
    seconds = {"load": 1.5, "image": 0.0202, "experts": 0.001, "prefill": 0.0304, "decode": 0.2}
    stats = Stats(seconds, prompt_tokens=1098, image_tokens=10, new_tokens=11, decode_steps=10)
    stats.decoded_tokens = 10
    shares = np.array([[0.125, 0.875], [0.5, 0.5]], np.float32) if routing else None
    return Answer("Bir kuş 鸟\n«طائر»", tuple(range(11)), stats, shares, "stop")


def test_the_table():
    assert as_table(_answer(), images=["a.png", "a-long-name-of-a-picture-from-a-camera.jpg"]).splitlines() == [
        "  load        1.50 s  once",
        "  image      20.2 ms  10 positions of the prompt",
        "  experts     1.0 ms",
        "  prefill    30.4 ms  1,098 tokens",
        "  decode    200.0 ms  11 tokens, 50 tokens/s",
        "  first token after 51.6 ms",
        "  routing                   expert 1  expert 2",
        "  a.png                        12.5%     87.5%",
        "  …cture-from-a-camera.jpg     50.0%     50.0%",
    ]


def test_the_table_with_what_was_reached_and_with_several_tokens_a_step():
    answer = _answer()
    answer.stats.decode_steps = 4
    reached = {"image": Rate(724.4, "GFLOP/s", None), "decode": Rate(27.12345, "GB/s", 41.0)}
    lines = as_table(answer, images=["a", "b"], reached=reached).splitlines()
    assert lines[1] == "  image      20.2 ms  10 positions of the prompt, 724 GFLOP/s"
    assert lines[4] == "  decode    200.0 ms  11 tokens, 50 tokens/s in 4 steps, 27.1 of 41.0 GB/s"


def test_the_table_without_a_picture_and_without_a_step():
    answer = _answer(routing=False)
    answer.stats.image_tokens = answer.stats.decode_steps = answer.stats.decoded_tokens = 0
    answer.stats.new_tokens = 1
    lines = as_table(answer, images=[]).splitlines()
    assert lines[1].endswith("no picture")
    assert lines[4].endswith("1 token")
    assert len(lines) == 6


def test_the_table_of_a_known_picture():
    answer = _answer()
    answer.stats.cached_images = 1
    assert "features known already" in as_table(answer, images=["a", "b"])


def test_the_json_is_one_line_and_says_it_all():
    reached = {"decode": Rate(27.12345, "GB/s", 41.0)}
    text = as_json("ne?", _answer(), images=["a.png", "b.png"], bundle="bundles/nano", reached=reached)
    assert "\n" not in text
    assert "鸟" in text
    assert json.loads(text) == {
        "question": "ne?",
        "answer": "Bir kuş 鸟\n«طائر»",
        "finish": "stop",
        "images": ["a.png", "b.png"],
        "bundle": "bundles/nano",
        "tokens": {"prompt": 1098, "image": 10, "kept": 0, "new": 11, "steps": 10},
        "timings": {
            "load_ms": 1500.0,
            "image_ms": 20.2,
            "experts_ms": 1.0,
            "prefill_ms": 30.4,
            "decode_ms": 200.0,
            "first_token_ms": 51.6,
            "tokens_per_second": 50.0,
        },
        "reached": {"decode": {"value": 27.123, "unit": "GB/s", "limit": 41.0}},
        "routing": [[0.125, 0.875], [0.5, 0.5]],
    }
    assert json.loads(as_json("?", _answer(routing=False), images=[], bundle="b"))["routing"] is None
