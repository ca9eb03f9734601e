"""What rounding costs each language: answers of a bundle held against the checkpoint's in float32, and a budget.

On held-out questions, with the right answer fed word by word to both: the KL divergence D(float32 ‖ bundle) of the next
token in nats and how often both would take the same one, over all positions of an answer; the answer's perplexity; and
how often the likeliest letter is the right one. Open questions are answered as well, greedily, and it is counted how
often in the language asked. A mean over languages hides the one that pays, so the worst decides.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from parrot_export.emulation import NoSuchKernel, TensorRTOnCpu
from parrot_export.float32 import Asked, Float32
from parrot_export.reference import Question
from parrot_export.verify import BundleUnderTest
from parrot_runtime.choices import LETTERS
from parrot_runtime.errors import ParrotError
from parrot_runtime.image import preprocess
from parrot_runtime.manifest import TOKENIZER_NAME, Manifest
from parrot_runtime.prompt import Turn
from parrot_runtime.templates import prompt_encoder
from parrot_runtime.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from parrot_export.checkpoint import Recipe
    from parrot_export.conversations import Conversation


# Questions in each language: with 100 a flipped one is a point, and the gate measures its own noise.
SAMPLES = 480
# An open answer is as long as that at most: enough to tell its language.
_ANSWER = 24


class OverBudget(ParrotError):
    """Rounding costs a language more than was allowed. The message is a line and the table."""

    keep_lines = True


@dataclass(frozen=True)
class Budget:
    """What a language may lose: ``drop`` points of right choices, and of answers in the language asked; ``kl`` nats of
    mean divergence."""

    drop: float = 1.0
    kl: float = 0.1


@dataclass(frozen=True)
class Cost:
    """One language's: ``positions`` and ``choices`` counted, means over them; accuracies in per cent.

    ``own_language`` is the share of open answers in the language asked, of the ``answers`` whose language shows; 100
    where none does.
    """

    positions: int
    kl: float
    agreement: float
    perplexity: float
    perplexity_float32: float
    choices: int
    accuracy: float
    accuracy_float32: float
    answers: int = 0
    own_language: float = 100.0
    own_language_float32: float = 100.0

    @property
    def drop(self) -> float:
        """Points of accuracy lost; negative where rounding happened to help."""
        return self.accuracy_float32 - self.accuracy

    @property
    def strayed(self) -> float:
        """Points of answers in the language asked that were lost."""
        return self.own_language_float32 - self.own_language


def measure_gate(
    folder: Path,
    manifest: Manifest,
    float32: Float32,
    samples: Sequence["Conversation"],
    budget: Budget,
    progress: Callable[[int], None] = lambda _count: None,
) -> dict[str, Any]:
    """Measure every set of graphs of the bundle in ``folder`` against ``float32``; the result as in the manifest.

    Raises OverBudget, with the table, when the worst language of any set is over ``budget``. TensorRT's graphs are
    ``not run`` where onnxruntime lacks a type of theirs.
    """
    tokenizer = load_tokenizer(folder / TOKENIZER_NAME)
    asked = encode(tokenizer, manifest, manifest.model.image_tokens, samples)
    bundles: dict[str, BundleUnderTest | str] = {}
    if manifest.graphs:
        bundles["cpu"] = BundleUnderTest(folder, manifest)
    if manifest.tensorrt:
        try:
            bundles["tensorrt"] = BundleUnderTest(folder, manifest, TensorRTOnCpu(folder, manifest))
        except NoSuchKernel as error:
            bundles["tensorrt"] = str(error)
    running = {name: bundle for name, bundle in bundles.items() if not isinstance(bundle, str)}
    rows: dict[str, dict[str, list[tuple[float, ...]]]] = {name: {} for name in running}
    spoken = _Spoken(tokenizer, manifest)
    for one in asked if running else ():
        exact, own = float32.logits(one), (0.0, 0.0)
        if not one.letters:
            own = spoken.verdict(float32.answer(one, _ANSWER), one.question.language)
        for name, bundle in running.items():
            row = _compare(one, exact, bundle.chain(one.question, one.answer))
            mine = (0.0, 0.0)
            if not one.letters:
                tokens = bundle.answer(one.question, _ANSWER, spoken.stop_ids)
                mine = spoken.verdict(tokens, one.question.language)
            rows[name].setdefault(one.question.language, []).append((*row, *mine, *own))
        progress(1)
    sources = dict(Counter(Path(one.source).name for one in samples))
    result: dict[str, Any] = {"samples": len(samples), "sources": sources, "budget": asdict(budget)}
    for name, bundle in bundles.items():
        if isinstance(bundle, str):
            result[name] = {"status": "not run", "reason": bundle}
            continue
        costs = {code: _cost(found) for code, found in rows[name].items()}
        result[name] = {"status": "passed", "languages": {code: asdict(cost) for code, cost in costs.items()}}
        _require(name, costs, budget)
    return result


def too_few(samples: Sequence["Conversation"], budget: Budget) -> Iterator[str]:
    """A line where one answer weighs more than ``budget`` allows to lose: then one alone decides."""
    for kind, lettered in (("with options", True), ("open", False)):
        counts = Counter(one.language for one in samples if (one.options > 0) == lettered)
        for code, count in sorted(counts.items(), key=lambda item: item[1])[:1]:
            if 0 < budget.drop < 100 / count:
                yield (
                    f"the gate asks {count} {kind} in {code}, so one answer is {100 / count:.1f} points, and "
                    f"{budget.drop:g} may be lost: give --gate-samples or --gate-data more"
                )


def encode(
    tokenizer: "Tokenizer", recipe: "Manifest | Recipe", image_tokens: int, samples: Sequence["Conversation"]
) -> Iterator[Asked]:
    """``samples`` in tokens and pixels, as ``recipe`` of a bundle or a checkpoint says."""
    prompts = prompt_encoder(tokenizer, recipe.prompt)
    for sample in samples:
        turns = [Turn("user", sample.question, 1)]
        system = recipe.prompt.system if sample.system is None else sample.system
        settings = {"image_tokens": image_tokens, "system": system}
        prompt = prompts.encode(turns, generation=True, **settings).input_ids
        whole = prompts.encode([*turns, Turn("assistant", sample.answer)], **settings).input_ids
        letters = [tokenizer.encode(letter, add_special_tokens=False).ids[0] for letter in LETTERS[: sample.options]]
        right = LETTERS.index(sample.answer.strip()) if sample.options else None
        pixels = preprocess(sample.image(), recipe.image)[None]
        yield Asked(Question(sample.language, pixels, prompt), whole[len(prompt) :], tuple(letters), right)


class _Spoken:
    """The bundle's tokenizer, and what language its words are in."""

    def __init__(self, tokenizer: "Tokenizer", manifest: Manifest) -> None:
        self._tokenizer = tokenizer
        self.stop_ids = prompt_encoder(tokenizer, manifest.prompt).stop_ids

    def verdict(self, tokens: Iterable[int], asked: str) -> tuple[float, float]:
        """1 where the language of the answer ``tokens`` shows, else 0; 1 where it is the one asked."""
        from parrot_runtime.language_id import in_language

        words = list(takewhile(lambda token: token not in self.stop_ids, map(int, tokens)))
        own = in_language(self._tokenizer.decode(words), asked)
        return float(own is not None), float(bool(own))


def _compare(one: Asked, exact: np.ndarray, logits: np.ndarray) -> tuple[float, ...]:
    """Sums over an answer's positions: how many, KL, agreements, both log-likelihoods; a choice and who was right."""
    wanted, got = (log_softmax(each) for each in (exact, logits))
    places = np.arange(len(one.answer))
    chosen = [0.0, 0.0, 0.0]
    if one.right is not None:
        letters = list(one.letters)
        chosen = [1.0, *(float(each[0, letters].argmax() == one.right) for each in (got, wanted))]
    return (
        float(len(places)),
        float((np.exp(wanted) * (wanted - got)).sum()),
        float((wanted.argmax(axis=1) == got.argmax(axis=1)).sum()),
        float(got[places, one.answer].sum()),
        float(wanted[places, one.answer].sum()),
        *chosen,
    )


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Over the last axis of ``[n, V]``, in float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def _cost(rows: Sequence[tuple[float, ...]]) -> Cost:
    positions, kl, agreed, got, wanted, choices, right, right_exact, shown, own, shown_exact, own_exact = (
        sum(column) for column in zip(*rows, strict=True)
    )
    return Cost(
        positions=int(positions),
        kl=kl / positions,
        agreement=100 * agreed / positions,
        perplexity=float(np.exp(-got / positions)),
        perplexity_float32=float(np.exp(-wanted / positions)),
        choices=int(choices),
        accuracy=100 * right / max(choices, 1),
        accuracy_float32=100 * right_exact / max(choices, 1),
        answers=int(shown),
        own_language=100 * own / shown if shown else 100.0,
        own_language_float32=100 * own_exact / shown_exact if shown_exact else 100.0,
    )


def _require(name: str, costs: dict[str, Cost], budget: Budget) -> None:
    """Raise OverBudget where the worst language is over it; NaN is."""
    if faults := over_budget(costs, budget):
        table = "\n".join(gate_table({code: asdict(cost) for code, cost in costs.items()}))
        raise OverBudget(
            f"rounding costs too much ({name}): {'; '.join(faults)}; nothing was published: calibrate on more samples, "
            f"take a finer precision, or allow more with --max-drop and --max-kl\n{table}"
        )


def over_budget(costs: dict[str, Cost], budget: Budget) -> list[str]:
    """What is over ``budget``, of the language that pays most; nothing where all is within. NaN is over."""
    dropped = max(costs, key=lambda code: costs[code].drop)
    spread = max(costs, key=lambda code: np.nan_to_num(costs[code].kl, nan=np.inf))
    strayed = max(costs, key=lambda code: costs[code].strayed)
    faults = []
    if (points := costs[strayed].strayed) > budget.drop + 1e-9:
        faults.append(f"{strayed} loses {points:.1f} points of answers in its own language ({budget.drop:g} allowed)")
    if costs[dropped].drop > budget.drop + 1e-9:
        faults.append(f"{dropped} loses {costs[dropped].drop:.1f} points of accuracy ({budget.drop:g} allowed)")
    if not costs[spread].kl <= budget.kl:
        faults.append(f"{spread} diverges by {costs[spread].kl:.3f} nats ({budget.kl:g} allowed)")
    return faults


def gate_table(languages: dict[str, dict[str, Any]]) -> list[str]:
    """A line per language, for a person."""
    lines = [
        "language   KL nats  same token %  perplexity (float32)  choice % (float32)    of  own language % (float32)"
    ]
    for code, cost in languages.items():
        lines.append(
            f"{code:<8} {cost['kl']:>9.4f} {cost['agreement']:>13.1f} {cost['perplexity']:>11.3f} "
            f"({cost['perplexity_float32']:.3f}) {cost['accuracy']:>12.1f} ({cost['accuracy_float32']:.1f}) "
            f"{cost['choices']:>6} {cost['own_language']:>17.1f} ({cost['own_language_float32']:.1f})"
        )
    return lines
