"""What a model that trains does with questions it never learns from: their loss, and the letters it would choose.

One forward pass over a conversation gives both. Every answer is predicted with the true answers of earlier turns before
it, as in training; of a question with lettered options the likeliest of the letters is taken, not a generated text.
Nothing here draws random numbers or leaves a trace in the model, so a run learns the same with it and without.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import nn

from parrot_train.data.collator import IGNORED, Conversations, OrderedBatches, RankBatches
from parrot_train.data.options import chosen_letter, offered_letters
from parrot_train.data.records import parse_records, read_json

_LOSS, _TOKENS, _RIGHT, _ASKED = range(4)


@dataclass(frozen=True)
class Lettered:
    """An answer that is a letter: where it stands in its sample, the offered letters' tokens, and which is right."""

    position: int
    letters: tuple[int, ...]
    right: int


class HeldOut:
    """Up to ``per_language`` conversations of each language, drawn by ``seed``; the same at every evaluation.

    ``chosen`` ``int64[n]`` are their numbers in ``conversations``, by length.
    """

    def __init__(self, conversations: Conversations, tokenizer: Path, *, per_language: int, seed: int) -> None:
        self.conversations = conversations
        order = np.random.default_rng(seed).permutation(len(conversations))
        spoken = conversations.languages[order]
        kept = [order[spoken == language][:per_language] for language in range(len(conversations.language_codes))]
        numbers = np.sort(np.concatenate(kept))
        self.chosen = numbers[np.argsort(conversations.lengths[numbers], kind="stable")]
        self._lettered = lettered_answers(conversations, self.chosen, tokenizer)

    def counts(self) -> dict[str, int]:
        """Conversations per language."""
        languages = self.conversations.languages[self.chosen]
        return {code: int((languages == number).sum()) for number, code in enumerate(self.conversations.language_codes)}

    @torch.no_grad()
    def measure(
        self,
        model: nn.Module,
        total: Callable[[torch.Tensor], torch.Tensor],
        *,
        device: torch.device,
        batch_size: int,
        rank: int,
        ranks: int,
    ) -> dict[str, float]:
        """Ask ``model``, which is in eval mode, this rank's share; ``total`` adds a tensor up over the ranks.

        Returns, for each language and without a suffix for all: ``eval_loss_<code>``, the mean cross entropy over
        answer tokens, and where options are offered ``eval_accuracy_<code>`` (0 to 1) of ``eval_questions_<code>``.
        """
        sums = torch.zeros(len(self.conversations.language_codes), 4, dtype=torch.float64, device=device)
        # All ranks pass forward equally often: under ZeRO 3 they gather the weights together.
        batches = RankBatches(OrderedBatches(self.chosen, batch_size), rank, ranks)
        for numbers in batches:
            batch = {name: tensor.to(device) for name, tensor in self.conversations.__getitems__(numbers).items()}
            self._ask(model, batch, sums)
        return self._describe(total(sums).tolist())

    def _ask(self, model: nn.Module, batch: dict[str, torch.Tensor], sums: torch.Tensor) -> None:
        languages, samples = batch.pop("languages"), batch.pop("samples").tolist()
        targets = batch["labels"][:, 1:]
        answers = targets != IGNORED
        logits = model(**batch, answers_only=True).logits.float()
        losses = nn.functional.cross_entropy(logits, targets[answers], reduction="none")
        spoken = languages[:, None].expand_as(targets)[answers]
        sums[:, : _TOKENS + 1].index_add_(0, spoken, torch.stack([losses, torch.ones_like(losses)], 1).double())
        # Which row of the logits predicts a position's token.
        place = (answers.flatten().cumsum(0) - 1).view_as(answers)
        labelled = answers.any(dim=1).tolist()
        for row, sample in enumerate(samples):
            for asked in self._lettered[sample] if labelled[row] else ():
                letters = logits[place[row, asked.position - 1], list(asked.letters)]
                sums[languages[row], _RIGHT] += letters.argmax() == asked.right
                sums[languages[row], _ASKED] += 1

    def _describe(self, sums: list[list[float]]) -> dict[str, float]:
        rows = dict(zip((f"_{code}" for code in self.conversations.language_codes), sums, strict=True))
        rows[""] = [sum(column) for column in zip(*sums, strict=True)]
        numbers: dict[str, float] = {}
        for suffix, row in rows.items():
            if row[_TOKENS]:
                numbers[f"eval_loss{suffix}"] = row[_LOSS] / row[_TOKENS]
            if row[_ASKED]:
                numbers[f"eval_accuracy{suffix}"] = row[_RIGHT] / row[_ASKED]
                numbers[f"eval_questions{suffix}"] = int(row[_ASKED])
        return numbers


def lettered_answers(
    conversations: Conversations, numbers: Sequence[int], tokenizer: Path
) -> dict[int, list[Lettered]]:
    """The answers in samples ``numbers`` that are one of the letters their question offers, each one token long."""
    letter_tokens = _letter_tokens(Tokenizer.from_file(str(tokenizer)))
    by_file: dict[Path, list[tuple[int, int]]] = defaultdict(list)
    for number in map(int, numbers):
        path, row = conversations.origin(number)
        by_file[path].append((number, row))
    found: dict[int, list[Lettered]] = {}
    for path, samples in by_file.items():
        records = {record.row: record for record in parse_records(read_json(path), file=str(path))[0]}
        for number, row in samples:
            turns, starts = records[row].turns, conversations.answer_starts(number)
            found[number] = [
                Lettered(position, tuple(letter_tokens[letter] for letter in offered), offered.index(letter))
                # A sample that was cut has fewer answers than its record.
                for position, question, answer in zip(starts, turns[::2], turns[1::2], strict=False)
                if (offered := offered_letters(question.text))
                and (letter := chosen_letter(answer.text)) is not None
                and letter in offered
                and letter_tokens.keys() >= set(offered)
                and conversations.token(number, position) == letter_tokens[letter]
            ]
    return found


def _letter_tokens(tokenizer: Tokenizer) -> dict[str, int]:
    encoded = {letter: tokenizer.encode(letter, add_special_tokens=False).ids for letter in map(chr, range(65, 91))}
    return {letter: ids[0] for letter, ids in encoded.items() if len(ids) == 1}
