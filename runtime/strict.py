"""Frozen dataclasses from plain data, with nothing taken silently.

One reader serves the manifest (JSON) and the training configuration (YAML): unknown keys are refused with the nearest
known name, missing ones are named, and a value of the wrong type says which type was expected.
"""

import dataclasses
import difflib
import json
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from parrot_runtime.errors import InputError

T = TypeVar("T")


def nearest(name: str, known: typing.Iterable[str]) -> str:
    """``; did you mean 'x'?`` for a misspelt name, or an empty string."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean '{close[0]}'?" if close else ""


def from_mapping(cls: type[T], data: Any, *, where: str) -> T:
    """Build the frozen dataclass ``cls`` from ``data``; ``where`` names the file in errors.

    Handles nested dataclasses, ``X | None``, unions of scalars, ``tuple[X, ...]``, ``dict[str, X]``, Literal, and the
    scalar types; an int is accepted where a float is expected. Raises InputError.
    """
    if not isinstance(data, Mapping):
        raise InputError(f"{where}: expected a mapping of settings, got {type(data).__name__}")
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    for key in data:
        if key not in fields:
            raise InputError(f"{where}: unknown key '{key}'{nearest(str(key), fields)}")
    values = {}
    for name, field in fields.items():
        if name in data:
            values[name] = _convert(hints[name], data[name], f"{where}: {name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise InputError(f"{where}: the key '{name}' is missing")
    try:
        return cls(**values)
    except ValueError as error:
        raise InputError(f"{where}: {error}") from error


def parse_json(raw: bytes) -> Any:
    """The JSON in ``raw``, with nothing in it that two readers could take differently.

    Raises ValueError for what is not JSON in UTF-8, a key that stands twice, NaN, infinity and numbers too large for a
    float, and lone surrogates; RecursionError for what is nested too deep.
    """
    data = json.loads(
        raw.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_float=_finite
    )
    # An escaped lone surrogate is legal JSON and breaks every file name and message it reaches.
    json.dumps(data, ensure_ascii=False).encode("utf-8")
    return data


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) != len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key '{repeated}' stands twice")
    return data


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number that may stand here")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        _refuse_constant(text)
    return value


def _convert(kind: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        inner = [argument for argument in arguments if argument is not type(None)]
        if len(inner) == 1:
            return _convert(inner[0], value, where)
        if type(value) in inner:
            return value
        raise InputError(f"{where}: expected {' or '.join(part.__name__ for part in inner)}, got {value!r}")
    if origin is typing.Literal:
        if not any(value == known and type(value) is type(known) for known in arguments):
            hint = nearest(str(value), map(str, arguments))
            raise InputError(f"{where}: {value!r} is none of {', '.join(map(repr, arguments))}{hint}")
        return value
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_convert(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin is dict and isinstance(value, Mapping):
        return {str(key): _convert(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    if dataclasses.is_dataclass(kind):
        return from_mapping(kind, value, where=where)
    if kind is Any:
        return value
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise InputError(f"{where}: expected a finite number, got {value!r}")
        return float(value)
    # In Python 3.10 tuple[str, ...] calls itself a type: one with an origin is none that a value can be of.
    plain = isinstance(kind, type) and origin is None
    if plain and isinstance(value, kind) and not (isinstance(value, bool) and kind is not bool):
        return value
    expected = getattr(kind, "__name__", str(kind))
    raise InputError(f"{where}: expected {expected}, got {value!r}")
