"""``--stats`` and ``--json``: what an answer cost, for a person and for a program."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from parrot_runtime.answer import Answer
    from parrot_runtime.explain import Explanation
    from parrot_runtime.options import Choice
    from parrot_runtime.rates import Rate
    from parrot_runtime.stats import Stats

_NOTHING: Mapping[str, Rate] = MappingProxyType({})
# The longest bar, in characters.
_BAR = 16


def as_json(
    question: str,
    answer: Answer,
    *,
    images: Sequence[str],
    bundle: str,
    reached: Mapping[str, Rate] = _NOTHING,
    explained: Explanation | None = None,
) -> str:
    """One line of JSON."""
    result = {"answer": answer.text, "finish": answer.finish}
    if explained is not None:
        result["explanation"] = json.loads(
            json.dumps(asdict(explained)), parse_float=lambda text: round(float(text), 6)
        )
    return _json(question, result, answer, images, bundle, reached)


def choice_as_json(
    question: str, choice: Choice, *, images: Sequence[str], bundle: str, reached: Mapping[str, Rate] = _NOTHING
) -> str:
    """One line of JSON, with the share of each option."""
    shares = {option: round(share, 6) for option, share in choice.shares.items()}
    return _json(question, {"answer": choice.text, "choices": shares}, choice, images, bundle, reached)


def _json(
    question: str,
    result: dict,
    answer: Answer | Choice,
    images: Sequence[str],
    bundle: str,
    reached: Mapping[str, Rate],
) -> str:
    routing = None if answer.routing is None else [[round(float(share), 6) for share in row] for row in answer.routing]
    record = {"question": question, **result, "images": list(images), "bundle": bundle}
    measured = answer.stats.as_dict() | {"reached": {stage: rate.as_dict() for stage, rate in reached.items()}}
    return json.dumps(record | measured | {"routing": routing}, ensure_ascii=False)


def choice_as_table(choice: Choice, *, images: Sequence[str], reached: Mapping[str, Rate] = _NOTHING) -> str:
    """``as_table``, with the share of each option before it."""
    shares = "".join(f"{option!s:>8} {share:.1%}" for option, share in choice.shares.items())
    return f"  {'choices':<8}{shares}\n{as_table(choice, images=images, reached=reached)}"


def as_table(answer: Answer | Choice, *, images: Sequence[str], reached: Mapping[str, Rate] = _NOTHING) -> str:
    """The time of each stage, what it reached, and the router's shares, a few aligned lines."""
    stats = answer.stats
    lines = []
    for stage, note in _notes(stats).items():
        said = f"{note}, {reached[stage]}" if stage in reached else note
        lines.append(f"  {stage:<8}{_time(stats.seconds[stage]):>10}  {said}".rstrip())
    lines.append(f"  first token after {_time(stats.first_token_seconds)}")
    if answer.routing is not None:
        lines += _routing(answer.routing, images)
    return "\n".join(lines)


def explanation_as_table(explained: Explanation, answer: str, *, images: Sequence[str]) -> str:
    """The question's words and their shares of the router's attention, picture by picture, and a line per expert."""
    lines = []
    for name, attention in zip(_short(images), explained.attention, strict=True):
        of = f" of {name}" if len(images) > 1 else ""
        lines.append(f"  words that drew the router{of}:")
        most = max((word.share for word in attention.words), default=0) or 1
        for word in attention.words:
            lines.append(f"  {word.share:>8.1%} {'█' * round(_BAR * word.share / most):<{_BAR}} {word.text}")
        lines.append(f"  {attention.rest:>8.1%} {'':<{_BAR}} (the rest of the prompt: system text and role marks)")
    width = 9 * len(images)
    lines.append(f"  {'expert':<8}{'share':>{width}}{'moves':>9}  without it")
    for number, expert in enumerate(explained.experts, start=1):
        shares = "".join(f"{share:>9.1%}" for share in expert.shares)
        without = "the same answer" if expert.answer_without == answer else expert.answer_without
        lines.append(f"  {number:<8}{shares}{expert.change:>9.1%}  {without}")
    return "\n".join(lines)


def _notes(stats: Stats) -> dict[str, str]:
    positions = f"{_count(stats.image_tokens, 'position')} of the prompt" if stats.image_tokens else "no picture"
    kept = f", {stats.kept_tokens:,} of them known already" if stats.kept_tokens else ""
    steps = f" in {_count(stats.decode_steps, 'step')}" if stats.decoded_tokens > stats.decode_steps else ""
    speed = f", {stats.tokens_per_second:,.0f} tokens/s{steps}" if stats.tokens_per_second else ""
    return {
        "load": "once",
        "image": f"{positions}, features known already" if stats.cached_images else positions,
        "experts": "",
        "prefill": f"{_count(stats.prompt_tokens, 'token')}{kept}",
        "decode": f"{_count(stats.new_tokens, 'token')}{speed}",
    }


def _routing(routing: np.ndarray, images: Sequence[str]) -> list[str]:
    """One row per picture, one column per expert, shares in percent."""
    names = _short(images)
    width = max(len("routing"), *map(len, names))
    header = "".join(f"{f'expert {number}':>10}" for number in range(1, routing.shape[1] + 1))
    rows = ["".join(f"{share:>10.1%}" for share in row) for row in routing]
    return [f"  {'routing':<{width}}{header}", *(f"  {n:<{width}}{row}" for n, row in zip(names, rows, strict=True))]


def _short(names: Sequence[str]) -> list[str]:
    return [name if len(name) <= 24 else f"…{name[-23:]}" for name in names]


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1e3 * seconds:.1f} ms"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
