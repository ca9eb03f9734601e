"""What each unit costs each language, at each of its choices: one rounded at a time, all else in float32.

The cost is the KL divergence D(float32 ‖ rounded) of the next token, in nats, over all positions of the right answers,
as the gate measures it: a number that moves long before the first answer changes. That costs add up over units is how
mixed precision is searched with second-order methods too (HAWQ-V2, arXiv:1911.03852, Eq. 6, whose traces stand for what
is measured here); the gate judges the whole in the end.

The questions are others than the gate's: it judges what was not searched on.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from parrot_export.checkpoint import Checkpoint
from parrot_export.float32 import Asked, float32_logits
from parrot_export.gate import encode, log_softmax
from parrot_export.mixed.rounding import RoundedModel
from parrot_export.mixed.units import Unit
from parrot_export.scales import Scales, fingerprint
from parrot_runtime.errors import ParrotError
from parrot_runtime.manifest import ModelDims
from parrot_runtime.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from parrot_export.conversations import Conversation
    from parrot_train.model import ParrotForConditionalGeneration

# By unit, choice and language, in nats.
Costs = Mapping[str, Mapping[str, Mapping[str, float]]]
# Questions in each language. Of a mean over so few a tenth or two is chance; units differ by tens.
SAMPLES = 8


@dataclass(frozen=True, eq=False)
class _Exact:
    """A question, what float32 says of each token of its answer (``[n, V]``), and what enters the decoder then."""

    asked: Asked
    log_chances: np.ndarray
    embeds: np.ndarray


class Sensitivity:
    """Costs of the units of ``checkpoint`` on ``questions``, each kept in ``cache`` as it is found.

    A run that was cut goes on with what stands there, if it is of the same checkpoint, scales and questions.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        scales: Scales | None,
        dims: ModelDims,
        cache: Path,
        questions: Sequence["Conversation"],
    ) -> None:
        self._checkpoint, self._scales, self._dims, self._cache = checkpoint, scales, dims, cache
        self._questions = questions
        self._job = self._identity()
        self._known = dict(self._read())

    def missing(self, units: Sequence[Unit]) -> list[tuple[Unit, str]]:
        """What has not been measured yet."""
        return [(unit, each) for unit in units for each in unit.choices if (unit.name, each) not in self._known]

    def measure(
        self,
        model: "ParrotForConditionalGeneration",
        units: Sequence[Unit],
        progress: Callable[[int], None] = lambda _count: None,
    ) -> Costs:
        """The costs of all choices of ``units``; ``model`` is the checkpoint in float32, and is so again afterwards.

        ``progress`` is told of every choice that is measured. Raises ParrotError for NaN.
        """
        wanted = self.missing(units)
        if wanted:
            exact = list(self._exact(model))
            rounded = RoundedModel(model, self._checkpoint, self._scales)
            for unit, choice in wanted:
                self._keep(unit.name, choice, self._cost(rounded, unit, choice, exact))
                progress(1)
        return {unit.name: {choice: self._known[unit.name, choice] for choice in unit.choices} for unit in units}

    def _exact(self, model: "ParrotForConditionalGeneration") -> Iterator[_Exact]:
        import torch

        tokenizer = load_tokenizer(self._checkpoint.tokenizer)
        for asked in encode(tokenizer, self._checkpoint.recipe, self._dims.image_tokens, self._questions):
            kept: list[np.ndarray] = []
            hook = model.model.language_model.register_forward_pre_hook(
                lambda _module, _inputs, named, kept=kept: kept.append(named["inputs_embeds"].numpy()), with_kwargs=True
            )
            with hook, torch.inference_mode():
                logits = float32_logits(model, asked)
            yield _Exact(asked, log_softmax(logits).astype(np.float32), kept[0])

    def _cost(self, rounded: RoundedModel, unit: Unit, choice: str, exact: Sequence[_Exact]) -> dict[str, float]:
        """Mean divergence by language."""
        sums: dict[str, list[float]] = {}
        with rounded.rounding(unit, choice):
            for one in exact:
                rounded.prompt = len(one.asked.question.ids)
                got = log_softmax(_logits(rounded.model, one, unit))
                wanted = one.log_chances.astype(np.float64)
                found = float((np.exp(wanted) * (wanted - got)).sum())
                total = sums.setdefault(one.asked.question.language, [0.0, 0.0])
                total[0] += found
                total[1] += len(wanted)
        costs = {code: total / count for code, (total, count) in sums.items()}
        if not np.isfinite(list(costs.values())).all():
            raise ParrotError(
                f"{unit.name} at {choice} gives NaN or infinity; train again from the last good checkpoint"
            )
        return costs

    def _identity(self) -> str:
        """What makes kept costs these costs: all that could change a number."""
        told = {
            "checkpoint": fingerprint(self._checkpoint),
            "scales": self._scales.record.numbers if self._scales else None,
            "questions": [[one.entry, one.question, one.answer] for one in self._questions],
        }
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()

    def _read(self) -> Iterator[tuple[tuple[str, str], dict[str, float]]]:
        """What was kept for this job. A line that was cut while it was written is measured again."""
        lines = self._cache.read_text(encoding="utf-8").splitlines() if self._cache.is_file() else []
        for line in lines:
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if entry["job"] == self._job:
                yield (entry["unit"], entry["choice"]), entry["kl"]

    def _keep(self, unit: str, choice: str, costs: dict[str, float]) -> None:
        self._known[unit, choice] = costs
        entry = {"job": self._job, "unit": unit, "choice": choice, "kl": costs}
        # In front of each, for what was cut before may stand on the last line.
        with open(self._cache, "a", encoding="utf-8") as file:
            file.write("\n" + json.dumps(entry))


def _logits(model: "ParrotForConditionalGeneration", one: _Exact, unit: Unit) -> np.ndarray:
    """``[n, V]``; what stands before the decoder is not computed again where it cannot have changed."""
    import torch

    if not unit.name.startswith(("decoder.", "lm_head")):
        return float32_logits(model, one.asked)
    with torch.inference_mode():
        output = model(inputs_embeds=torch.from_numpy(one.embeds), logits_to_keep=len(one.asked.answer))
    return output.logits[0].float().numpy()
