"""Verification: every graph of a bundle, as the runtime runs it, against the checkpoint in torch.

TensorRT's graphs are run by onnxruntime too, as they are written (``parrot_export.emulation``).

Each graph gets what torch computed up to it, so that an error is found where it is made; then the whole chain, from the
picture and the bundle's own embeddings to a few greedy tokens, is compared with torch's. What is above tolerance, NaN
or infinite is an error, and an export with an error is not published.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from parrot_export.emulation import NoSuchKernel, TensorRTOnCpu
from parrot_export.reference import STEPS, Expected, Question, Reference, compute_reference, prepare_for
from parrot_export.tolerances import TENSORRT_TOLERANCES, TOLERANCES, Tolerance, tolerance_of
from parrot_runtime.backends.base import Backend
from parrot_runtime.backends.onnxruntime import OnnxRuntimeBackend
from parrot_runtime.embedding import Embedding
from parrot_runtime.errors import ParrotError
from parrot_runtime.manifest import EMBEDDING_NAME, Manifest

if TYPE_CHECKING:
    from parrot_export.samples import Sample
    from parrot_train.model import ParrotForConditionalGeneration


class VerificationError(ParrotError):
    """A graph does not compute what the checkpoint computes."""


# What adding in a type leaves open, as a share of the largest sum: a few units in its last place.
_LAST_BITS = {"float32": 2.0**-20, "float16": 2.0**-9, "bfloat16": 2.0**-6}


@dataclass
class Differences:
    """The largest differences seen, by graph, tensor and language, and the first thing that was not finite."""

    found: dict[str, dict[str, dict[str, dict[str, float]]]] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)

    def add(self, graph: str, tensor: str, language: str, got: np.ndarray, expected: np.ndarray) -> None:
        """Compare ``got`` with ``expected``, and keep the worst of this graph, tensor and language."""
        if not np.isfinite(got).all():
            self.broken.append(f"{graph}: {tensor} has NaN or infinity ({language})")
            return
        error = float(np.abs(got.astype(np.float64) - expected).max())
        self._keep(graph, tensor, language, error, 1.0 if tensor == "routing" else float(np.abs(expected).max()))

    def add_mixture(self, language: str, got: np.ndarray, expected: np.ndarray, rest: np.ndarray, dtype: str) -> None:
        """Compare visual tokens of type ``dtype`` by what the experts added to ``rest``; both ``[1, P, C]``.

        The last bits of the sum are not the experts'.
        """
        if np.isfinite(got).all():
            error = np.abs(got.astype(np.float64) - expected) - _LAST_BITS[dtype] * np.abs(expected).max()
            self._keep(
                "experts", "mixture", language, max(0.0, float(error.max())), float(np.abs(expected - rest).max())
            )

    def _keep(self, graph: str, tensor: str, language: str, error: float, scale: float) -> None:
        worst = (
            self.found.setdefault(graph, {})
            .setdefault(tensor, {})
            .setdefault(language, {"max_abs": 0.0, "relative": 0.0})
        )
        worst["max_abs"] = max(worst["max_abs"], error)
        worst["relative"] = max(worst["relative"], error / max(scale, np.finfo(np.float32).tiny))

    def faults(self, tolerance: Tolerance) -> list[str]:
        """Everything that must not be published, worst first."""
        above = [
            (
                worst["relative"] / tolerance.of(tensor),
                f"{graph}: {tensor} off by {worst['relative']:.1e} of its largest value, {tolerance.of(tensor):g} is "
                f"allowed ({language})",
            )
            for graph, tensors in self.found.items()
            for tensor, languages in tensors.items()
            for language, worst in languages.items()
            if worst["relative"] > tolerance.of(tensor)
        ]
        return self.broken + [text for _, text in sorted(above, reverse=True)]


class BundleUnderTest:
    """A bundle's graphs, run by ``backend``; without one, by the runtime's own."""

    def __init__(self, folder: Path, manifest: Manifest, backend: Backend | None = None) -> None:
        dims = manifest.model
        self.manifest = manifest
        self.backend = backend or OnnxRuntimeBackend(folder, manifest)
        self.embedding = Embedding(folder / EMBEDDING_NAME, vocab_size=dims.vocab_size, hidden_size=dims.hidden_size)

    @property
    def visual_dtype(self) -> str:
        """The type in which the experts' sum is made."""
        if not isinstance(self.backend, TensorRTOnCpu):
            return self.backend.embeds_dtype
        return {"fp32": "float32", "bf16": "bfloat16"}.get(self.manifest.precision, "float16")

    def route(self, features: np.ndarray, text: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Visual tokens ``[1, P, C]`` and routing of one picture and the words ``[T, C]`` of its prompt."""
        if not self.manifest.model.experts:
            return features, None
        return self.backend.route(features, text[None], np.ones((1, len(text)), np.bool_))

    def logits(self, embeds: np.ndarray, words: np.ndarray) -> np.ndarray:
        """Prefill ``[T, C]``, then one step for each of ``words`` but the last: ``[steps, V]``."""
        cache = self.backend.new_cache(1, len(embeds) + len(words))
        rows = [self.backend.prefill(embeds, cache).copy()]
        for number, word in enumerate(words[:-1]):
            length = np.array([len(embeds) + number], np.int32)
            rows.append(self.backend.decode(word[None], length, cache)[0].copy())
        return np.stack(rows)

    def chain(self, question: Question, tokens: np.ndarray) -> np.ndarray:
        """From picture and ids to the logits ``[steps, V]``, fed with ``tokens`` as the answer."""
        return self.logits(self._prompt(question), self.embedding.gather(tokens, self.backend.embeds_dtype))

    def answer(self, question: Question, most: int, stop_ids: frozenset[int]) -> list[int]:
        """Up to ``most`` greedy tokens, without the one that ends them."""
        embeds, tokens = self._prompt(question), []
        cache = self.backend.new_cache(1, len(embeds) + most)
        logits = self.backend.prefill(embeds, cache)
        while (token := int(logits.argmax())) not in stop_ids:
            tokens.append(token)
            if len(tokens) == most:
                break
            word = self.embedding.gather(np.array([token]), self.backend.embeds_dtype)
            logits = self.backend.decode(word, np.array([len(embeds) + len(tokens) - 1], np.int32), cache)[0]
        return tokens

    def _prompt(self, question: Question) -> np.ndarray:
        """Word embeddings ``[T, C]`` with the visual tokens in their places."""
        dtype, is_text = self.backend.embeds_dtype, question.ids >= 0
        text = self.embedding.gather(question.ids[is_text], dtype)
        visual, _ = self.route(self.backend.encode_images(question.pixels), text)
        embeds = np.empty((len(is_text), text.shape[1]), dtype)
        embeds[is_text], embeds[~is_text] = text, visual[0]
        return embeds


def verify(
    folder: Path,
    manifest: Manifest,
    model: "ParrotForConditionalGeneration",
    samples: Sequence["Sample"],
    *,
    steps: int = STEPS,
    progress: Callable[[int], None] = lambda _count: None,
) -> dict[str, Any]:
    """``compare`` the bundle in ``folder`` with ``model`` on ``samples``."""
    # First all of torch, then all of onnxruntime: the threads of either keep a core busy for a while after each call.
    reference = compute_reference(model, prepare_for(folder, manifest, samples), steps=steps)
    return compare(folder, manifest, reference, progress=progress)


def compare(
    folder: Path, manifest: Manifest, reference: Reference, *, progress: Callable[[int], None] = lambda _count: None
) -> dict[str, Any]:
    """Compare every graph of the bundle in ``folder`` with torch; the result as it stands in the manifest.

    ``graphs`` and ``greedy`` are of onnxruntime's graphs, and below ``tensorrt`` the same of TensorRT's. Where
    onnxruntime's CPU provider lacks a type of these, their status is ``not run``, with the reason; and so is that of
    the whole when there is nothing else. ``progress`` is told of the samples done. Raises VerificationError that names
    the worst it found: differences above the precision's tolerance, NaN, greedy tokens that are not torch's and no near
    ties.
    """
    result: dict[str, Any] = {
        "status": "passed",
        "reference": reference.name,
        "samples": len(reference.questions),
        "steps": reference.steps,
    }
    if manifest.graphs:
        tolerance = tolerance_of(TOLERANCES, manifest)
        result |= _compare_all(BundleUnderTest(folder, manifest), reference, tolerance)
    if manifest.tensorrt:
        try:
            backend = TensorRTOnCpu(folder, manifest)
        except NoSuchKernel as error:
            result["tensorrt"] = {"status": "not run", "reason": str(error)}
        else:
            under_test = BundleUnderTest(folder, manifest, backend)
            found = _compare_all(under_test, reference, tolerance_of(TENSORRT_TOLERANCES, manifest), "tensorrt ")
            result["tensorrt"] = {"status": "passed"} | found
        if not manifest.graphs:
            result["status"] = result["tensorrt"]["status"]
    progress(len(reference.questions))
    return result


def _compare_all(
    bundle: BundleUnderTest, reference: Reference, tolerance: Tolerance, prefix: str = ""
) -> dict[str, Any]:
    """One set of graphs on every question. Raises VerificationError."""
    differences, greedy = Differences(), {}
    for question, expected in zip(reference.questions, reference.answers, strict=True):
        _compare(bundle, question, expected, differences)
        logits = bundle.chain(question, expected.tokens)
        differences.add("chain", "logits", question.language, logits, expected.logits)
        _count_tokens(logits, expected, tolerance, greedy.setdefault(question.language, Counter()))
    faults = [prefix + fault for fault in (*differences.faults(tolerance), *_token_faults(greedy))]
    if faults:
        more = f" (and {len(faults) - 3} more)" if len(faults) > 3 else ""
        raise VerificationError(f"verification against torch failed: {'; '.join(faults[:3])}{more}")
    return {
        "tolerance": {
            "relative": tolerance.relative,
            "mixture": tolerance.mixture,
            "routing": tolerance.routing,
            "reason": tolerance.reason,
        },
        "graphs": differences.found,
        "greedy": {language: dict(counts) for language, counts in greedy.items()},
    }


def run_through(
    folder: Path, manifest: Manifest, samples: Sequence["Sample"], progress: Callable[[int], None]
) -> dict[str, Any]:
    """Without a checkpoint to compare with: every graph must run on ``samples`` and give finite numbers.

    TensorRT's graphs are ``not run`` where onnxruntime lacks a type of theirs.
    Raises VerificationError for NaN or infinity, ParrotError for a graph that fails.
    """
    result: dict[str, Any] = {"status": "ran", "samples": len(samples), "steps": STEPS}
    questions = prepare_for(folder, manifest, samples)
    if manifest.graphs:
        _run_all(BundleUnderTest(folder, manifest), folder, questions)
    if manifest.tensorrt:
        try:
            _run_all(BundleUnderTest(folder, manifest, TensorRTOnCpu(folder, manifest)), folder, questions)
            result["tensorrt"] = {"status": "ran"}
        except NoSuchKernel as error:
            result["tensorrt"] = {"status": "not run", "reason": str(error)}
        if not manifest.graphs:
            result["status"] = result["tensorrt"]["status"]
    progress(len(samples))
    return result


def _run_all(bundle: BundleUnderTest, folder: Path, questions: Sequence[Question]) -> None:
    for question in questions:
        if not np.isfinite(bundle.chain(question, np.zeros(STEPS, np.int64))).all():
            raise VerificationError(f"{folder}: the logits have NaN or infinity ({question.language}); export it again")


def _compare(bundle: BundleUnderTest, question: Question, expected: Expected, differences: Differences) -> None:
    """Each graph alone, on what torch computed up to it."""
    language = question.language
    features = bundle.backend.encode_images(question.pixels)
    differences.add("encoder", "image_features", language, features, expected.features)
    if expected.routing is not None:
        visual, routing = bundle.route(expected.features, expected.text)
        differences.add("experts", "visual_tokens", language, visual, expected.visual)
        model = bundle.manifest.model
        rest = expected.features * (1.0 if model.residual == "paper" else model.alpha)
        differences.add_mixture(language, visual, expected.visual, rest, bundle.visual_dtype)
        differences.add("experts", "routing", language, routing, expected.routing)
    logits = bundle.logits(expected.embeds, expected.words)
    differences.add("decoder", "prefill logits", language, logits[:1], expected.logits[:1])
    if len(logits) > 1:
        differences.add("decoder", "decode logits", language, logits[1:], expected.logits[1:])


def _count_tokens(logits: np.ndarray, expected: Expected, tolerance: Tolerance, counts: Counter[str]) -> None:
    """Hold the greedy token after each of torch's tokens against torch's own."""
    for ours, theirs, token in zip(logits, expected.logits, expected.tokens, strict=True):
        chosen = int(ours.argmax())
        tie = theirs[token] - theirs[chosen] <= tolerance.tie * np.abs(theirs).max()
        counts["tokens"] += 1
        counts["equal"] += int(chosen == token)
        counts["near_ties"] += int(chosen != token and tie)


def _token_faults(greedy: dict[str, Counter[str]]) -> Iterator[str]:
    for language, counts in greedy.items():
        wrong = counts["tokens"] - counts["equal"] - counts["near_ties"]
        if wrong:
            yield f"chain: {wrong} of {counts['tokens']} greedy tokens are not torch's ({language})"
