"""Plain data to frozen dataclasses: nothing is taken silently."""

from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from parrot_runtime.errors import InputError
from parrot_runtime.strict import from_mapping, parse_json


@dataclass(frozen=True)
class Inner:
    rate: float
    kind: Literal["a", "b"] = "a"

    def __post_init__(self):
        if self.rate < 0:
            raise ValueError("rate is below zero")


@dataclass(frozen=True)
class Outer:
    inner: Inner
    axes: tuple[str | int, ...] = ()
    limit: int | None = None
    table: dict[str, Inner] = field(default_factory=dict)
    free: Any = None
    flag: bool = False


def _read(**data):
    return from_mapping(Outer, {"inner": {"rate": 1}, **data}, where="file")


def test_everything_at_once():
    data = {"axes": ["batch", 3], "limit": 4, "table": {"x": {"rate": 2.5, "kind": "b"}}, "free": [None], "flag": True}
    result = _read(**data)
    assert result == Outer(Inner(1.0), ("batch", 3), 4, {"x": Inner(2.5, "b")}, [None], True)
    assert type(result.inner.rate) is float
    assert _read(limit=None).limit is None


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"axis": []}, "file: unknown key 'axis'; did you mean 'axes'?"),
        ({"inner": {}}, "file: inner: the key 'rate' is missing"),
        ({"inner": 3}, "file: inner: expected a mapping of settings, got int"),
        ({"inner": {"rate": -1}}, "file: inner: rate is below zero"),
        ({"inner": {"rate": "1"}}, "file: inner: rate: expected float, got '1'"),
        ({"inner": {"rate": 1, "kind": "c"}}, "file: inner: kind: 'c' is none of 'a', 'b'"),
        ({"axes": ["batch", 1.5]}, r"file: axes\[1\]: expected str or int, got 1.5"),
        ({"axes": [True]}, r"file: axes\[0\]: expected str or int, got True"),
        ({"axes": "batch"}, "file: axes: expected tuple, got 'batch'"),
        ({"limit": True}, "file: limit: expected int, got True"),
        ({"limit": 1.0}, "file: limit: expected int, got 1.0"),
        ({"table": {"x": {"rate": None}}}, "file: table.x: rate: expected float, got None"),
        ({"flag": 1}, "file: flag: expected bool, got 1"),
    ],
)
def test_what_is_refused_is_named(data, message):
    with pytest.raises(InputError, match=message):
        _read(**data)


def test_json_is_taken_where_it_can_be_read_in_one_way_only():
    assert parse_json('{"a": [1, 2.5, null, "é"]}'.encode()) == {"a": [1, 2.5, None, "é"]}


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b'{"a": {"b": 1, "b": 1}}', "the key 'b' stands twice"),
        (b"[NaN]", "NaN is no number"),
        (b"[-Infinity]", "-Infinity is no number"),
        (b"[1e999]", "1e999 is no number"),
        (b'["\\ud800"]', "surrogates not allowed"),
        (b'"\xff"', "can't decode byte"),
        (b"{", "Expecting property name"),
    ],
)
def test_json_that_could_be_read_in_two_ways_is_refused(raw, why):
    with pytest.raises(ValueError, match=why):
        parse_json(raw)
