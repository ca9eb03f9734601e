"""What a run counts per language between two log lines: losses, answer tokens, and how the experts were used."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from parrot_runtime.errors import InputError

TALLY_FILE = "tally.json"

_LOSS, _ANSWERS, _TOKENS, _IMAGES, _ENTROPY, _SHARES = range(6)


class LanguageTally:
    """Sums per language since the last log line. They stay on the device, so that counting makes no step wait.

    ``experts`` is 0 for a model without a mixture.
    """

    def __init__(self, languages: Sequence[str], experts: int, device: torch.device) -> None:
        self.languages = tuple(languages)
        self._sums = torch.zeros(len(self.languages), _SHARES + experts, dtype=torch.float64, device=device)
        self._earlier = dict.fromkeys(self.languages, 0)  # answer tokens of all lines before, over all ranks
        self._since = time.perf_counter()

    @torch.no_grad()
    def add(
        self,
        *,
        languages: torch.Tensor,
        answers: torch.Tensor,
        losses: torch.Tensor,
        lengths: torch.Tensor,
        images: torch.Tensor,
        routing: torch.Tensor | None,
    ) -> None:
        """Count one batch of B samples with S answer tokens and N images.

        languages int64 ``[B]``; answers bool ``[B, T]``, S of them True; losses ``[S]`` in their order; lengths
        ``[B]`` in tokens, padding not among them; images int64 ``[B]`` per sample; routing float32 ``[N, E]`` (Eq. 3).
        The images of a sample without an answer, which only fills a batch up, count for nothing.
        """
        spoken = languages[:, None].expand_as(answers)[answers]
        self._sums[:, : _ANSWERS + 1].index_add_(0, spoken, torch.stack([losses, torch.ones_like(losses)], 1).double())
        self._sums[:, _TOKENS].index_add_(0, languages, lengths.to(self._sums))
        if routing is None:
            return
        # Given the number of rows, repeat_interleave need not fetch it from the device.
        of_image = torch.repeat_interleave(images, output_size=len(routing))
        counted = answers.any(dim=1)[of_image].double()[:, None]
        shares = routing.double()
        entropy = torch.special.entr(shares).sum(dim=1, keepdim=True)
        rows = torch.cat([torch.ones_like(entropy), entropy, shares], dim=1) * counted
        self._sums[:, _IMAGES:].index_add_(0, languages[of_image], rows)

    def pause(self, seconds: float) -> None:
        """Leave ``seconds`` that were not spent on training out of the speed."""
        self._since += seconds

    def line(self, total: Callable[[torch.Tensor], torch.Tensor]) -> dict[str, float]:
        """The numbers of a log line; counting starts anew. ``total`` adds a tensor up over all ranks.

        ``loss``, the mean over answer tokens. Per language that was met: ``loss_<code>``, the same of its own;
        ``answer_tokens_<code>`` since the last line, ``answer_tokens_total_<code>`` in all;
        ``routing_<code>_<expert>``, the mean share of each expert over images, and ``routing_entropy_<code>``, in nats,
        the mean over images of each one's own entropy (which is not the entropy of the mean). And
        ``tokens_per_second``, of all tokens but padding.
        """
        numbers: dict[str, float] = {}
        sums = total(self._sums).tolist()
        for code, row in zip(self.languages, sums, strict=True):
            self._earlier[code] += int(row[_ANSWERS])
            if row[_ANSWERS]:
                numbers[f"loss_{code}"] = row[_LOSS] / row[_ANSWERS]
            if self._earlier[code]:
                numbers[f"answer_tokens_{code}"] = int(row[_ANSWERS])
                numbers[f"answer_tokens_total_{code}"] = self._earlier[code]
            if row[_IMAGES] and len(row) > _SHARES:
                numbers[f"routing_entropy_{code}"] = row[_ENTROPY] / row[_IMAGES]
                numbers |= {
                    f"routing_{code}_{expert}": share / row[_IMAGES] for expert, share in enumerate(row[_SHARES:])
                }
        if answers := sum(row[_ANSWERS] for row in sums):
            numbers["loss"] = sum(row[_LOSS] for row in sums) / answers
        now = time.perf_counter()
        numbers["tokens_per_second"] = sum(row[_TOKENS] for row in sums) / (now - self._since)
        self._sums.zero_()
        self._since = now
        return numbers

    def state(self, total: Callable[[torch.Tensor], torch.Tensor]) -> dict[str, Mapping[str, object]]:
        """What a checkpoint keeps: the sums since the last line and the tokens of those before, over all ranks."""
        sums = total(self._sums).tolist()
        return {
            code: {"sums": row, "earlier": self._earlier[code]} for code, row in zip(self.languages, sums, strict=True)
        }

    def restore(self, checkpoint: Path, *, main: bool) -> None:
        """Go on counting from ``checkpoint``; only the ``main`` rank takes the sums, since they are of all ranks.

        Raises InputError where the checkpoint does not have them for these languages and experts.
        """
        path = checkpoint / TALLY_FILE
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            sums = torch.tensor([kept[code]["sums"] for code in self.languages], dtype=torch.float64)
            self._earlier = {code: int(kept[code]["earlier"]) for code in self.languages}
            if sums.shape != self._sums.shape:
                raise ValueError(f"sums {list(sums.shape)} where {list(self._sums.shape)} are expected")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path}: not the counts of this run ({type(error).__name__}: {error}); the checkpoint is of another "
                "version; start anew with --force"
            ) from error
        if main:
            self._sums.copy_(sums)
        self._sums[:, _TOKENS] = 0  # their seconds are not known
        self._since = time.perf_counter()
