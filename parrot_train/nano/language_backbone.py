"""Pretrain nano's small Qwen2 on six-language text, with a tokenizer of its own.

The byte-level BPE carries Qwen's control tokens and splits text as Qwen's does. The model learns from conversations
about scenes told in words (`parrot_train.nano.text`), in equal shares of the six languages; it never sees a picture.
"""

import random
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import Qwen2Config, Qwen2ForCausalLM

from parrot_runtime.errors import ParrotError
from parrot_runtime.languages import CODES
from parrot_runtime.prompt import SYSTEM_PROMPT, PromptEncoder, Turn
from parrot_train.attention import use_short_attention
from parrot_train.nano.drills import Drills
from parrot_train.nano.grammar import GRAMMARS
from parrot_train.nano.language_batches import Batch, Encoded, batches, encode_documents
from parrot_train.nano.optimizers import Pace, Rates, schedule
from parrot_train.nano.questions import sample_question
from parrot_train.nano.scenes import scenes
from parrot_train.nano.text import CHATTING, EXAMINING, READING, Mix, description, documents, lessons_on

CONTROL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
# How Qwen's tokenizers cut text before the merges: contractions, words, single digits, punctuation, line ends, spaces.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Beside the main thing of a phase: conversations per step on text while drilling, drills per step while reading, and
# after how many steps.
TEXT_BATCH, DRILL_BATCH, TEXT_EVERY, REVIEW_EVERY = 16, 64, 3, 6
# Over how many batches a level of drills has to go well to be mastered, and the share of lower levels in its batches.
MASTERED_STEPS, REVIEWED = 20, 0.4
HELD_OUT = 240
MUON, CALM = Rates(1e-3, 0.01, 30), Rates(8e-4, 0.008, 30)


@dataclass(frozen=True)
class Reading:
    """A phase on text: batches of ``batch`` of so many documents, at rates that fall to a hundredth.

    length_power: how an answer's tokens weigh by its length, see ``answer_weights``.
    reviewed: levels of drills of which one, in turn, follows every ``review_every``-th step; ``review`` is the share of
        lower levels among them.
    """

    text: Mix
    documents: int
    batch: int
    steps: int
    rates: Rates
    length_power: float = 0.0
    reviewed: tuple[int, ...] = ()
    review_every: int = REVIEW_EVERY
    review: float = REVIEWED


@dataclass(frozen=True)
class Drilling:
    """A phase on drills: each level until it is mastered, with a step on text after every third, lest it be forgotten.

    A level is mastered when the share ``mastered`` of its answers is right; one that is not, within ``longest`` steps,
    stops the pretraining.

    review: share of lower levels in its batches.
    kept: levels of which one, in turn, follows the text.
    """

    text: Mix
    documents: int
    levels: tuple[int, ...]
    rates: Rates
    batch: int = DRILL_BATCH
    longest: int = 2_000
    mastered: float = 0.9
    review: float = REVIEWED
    kept: tuple[int, ...] = ()


def _lessons(steps: int, *subjects: str) -> Reading:
    """A phase of lessons on ``subjects``, the drills of two steps beside them."""
    return Reading(lessons_on(*subjects), 24 * steps, 24, steps, MUON, length_power=-0.5, reviewed=(11, 13), review=0.0)


@dataclass(frozen=True)
class LanguageRecipe:
    """How the LLM is made, phase by phase; docs/nano.md tells which of the phases the shipped one went through."""

    vocab_size: int = 1536
    hidden_size: int = 256
    intermediate_size: int = 256
    layers: int = 5
    heads: int = 4
    kv_heads: int = 2
    positions: int = 1024
    tokenizer_documents: int = 6_000
    phases: tuple[Reading | Drilling, ...] = (
        Reading(READING, 100_000, 16, 4_500, Rates(2e-3, None, 300)),
        Drilling(CHATTING, 6_000, (0, 1, 2, 3, 4), MUON),
        Reading(CHATTING, 60_000, 32, 1_750, MUON, length_power=-0.5, reviewed=(2, 4)),
        Reading(EXAMINING, 80_000, 32, 2_200, MUON, length_power=-0.5, reviewed=(4, 6)),
        Drilling(CHATTING, 6_000, (5, 6, 7, 8, 9), MUON),
        Reading(CHATTING, 100_000, 32, 2_100, MUON, length_power=-0.5, reviewed=(4, 9, 11)),
        Drilling(CHATTING, 6_000, (10,), MUON, batch=48, review=0.0),
        Drilling(CHATTING, 6_000, (11,), MUON, batch=48, mastered=0.95, review=0.0),
        Drilling(CHATTING, 6_000, (12, 13), MUON, batch=48, mastered=0.95, review=0.0, kept=(11,)),
        Reading(
            CHATTING, 70_000, 32, 1_200, MUON, length_power=-0.5, reviewed=(11, 13, 9, 4), review_every=3, review=0.0
        ),
        _lessons(275, "colour", "is_colour", "position"),
        _lessons(350, "colour", "is_colour", "position", "existence", "with_colour", "at_position"),
        _lessons(250, "at_position", "same_colour", "class_existence", "is_beside", "with_colour", "position"),
        Reading(CHATTING, 36_000, 32, 870, CALM, length_power=-0.5, reviewed=(11, 13), review_every=3, review=0.0),
        Drilling(CHATTING, 6_000, (14, 15), MUON, batch=48, review=0.0, kept=(11, 13)),
        _lessons(300, "count", "total", "position", "at_position", "with_colour"),
        Reading(CHATTING, 44_000, 32, 1_350, CALM, length_power=-0.5, reviewed=(11, 13), review_every=3, review=0.0),
    )
    seed: int = 1


def train_tokenizer(recipe: LanguageRecipe) -> Tokenizer:
    """Byte-level BPE over the six languages, every byte in its vocabulary, control tokens at the end as in Qwen."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=False))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=recipe.vocab_size - len(CONTROL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    source = islice(documents(READING, seed=f"{recipe.seed}/tokenizer"), recipe.tokenizer_documents)
    texts = [SYSTEM_PROMPT, "system\n", "user\n", "assistant\n"] * 1000
    texts += [turn.text for turns in source for turn in turns]
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens(list(CONTROL_TOKENS))
    return tokenizer


def model_config(recipe: LanguageRecipe, tokenizer: Tokenizer) -> Qwen2Config:
    """Qwen2's architecture at nano's size; the output projection shares the embedding's weights."""
    return Qwen2Config(
        vocab_size=recipe.vocab_size,
        hidden_size=recipe.hidden_size,
        intermediate_size=recipe.intermediate_size,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.kv_heads,
        max_position_embeddings=recipe.positions,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.token_to_id("<|im_end|>"),
        pad_token_id=tokenizer.token_to_id("<|endoftext|>"),
    )


def predictions(model: Qwen2ForCausalLM, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits ``[P, V]`` float32 and targets ``[P]`` of a batch's predicted positions."""
    hidden = model.model(input_ids=batch.ids, attention_mask=batch.mask).last_hidden_state.flatten(0, 1)
    return model.lm_head(hidden[batch.predicted - 1]).float(), batch.ids.view(-1)[batch.predicted]


class Learner:
    """Takes optimizer steps at the rates of a phase, and tells of them now and then."""

    def __init__(self, model: Qwen2ForCausalLM, rates: Rates, report: Callable[[str], None]) -> None:
        self.steps, self._model, self._report = 0, model, report
        self._pace, self._started = Pace(model, rates), time.monotonic()

    def step(self, batch: Batch, scale: float = 1.0) -> float:
        """One step at ``scale`` times the learning rates; the share of answer tokens predicted right before it."""
        with torch.autocast("cpu", torch.bfloat16):
            logits, targets = predictions(self._model, batch)
        losses = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
        loss = (losses * batch.weights).sum() / batch.weights.sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
        self._pace.step(scale)
        self._model.zero_grad()
        self.steps += 1
        right = (logits.argmax(-1) == targets)[batch.answers].float().mean().item()
        if self.steps % 50 == 0:
            took = time.monotonic() - self._started
            self._report(f"llm step {self.steps} loss {loss.item():.3f} answer tokens right {right:.3f} {took:.0f} s")
        return right


def pretrain(recipe: LanguageRecipe, folder: Path, *, workers: int, report: Callable[[str], None]) -> None:
    """Make tokenizer and model and save both in ``folder`` (fp16 weights).

    Raises ParrotError when a level of drills is not mastered.
    """
    torch.manual_seed(recipe.seed)
    tokenizer = train_tokenizer(recipe)
    config = model_config(recipe, tokenizer)
    model = Qwen2ForCausalLM(config)
    use_short_attention(model)
    report(f"model: {sum(p.numel() for p in model.parameters())} parameters")
    for number, phase in enumerate(recipe.phases):
        seed = recipe.seed if number == 0 else f"{recipe.seed}/{number}"
        encoded = encode_documents(phase.text, phase.documents, tokenizer, seed=seed, workers=workers)
        tokens = sum(len(ids) for ids, _ in encoded)
        report(f"llm phase {number}: {len(encoded)} conversations, {tokens} tokens, {tokens / len(encoded):.0f} each")
        learner, drills = Learner(model, phase.rates, report), Drills(tokenizer, seed)
        run = read if isinstance(phase, Reading) else drill
        run(phase, encoded, learner, drills, config.pad_token_id)
        report(f"llm phase {number} held-out answers right: {held_out_accuracy(model, tokenizer, recipe.seed)}")
    model.half().save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))


def read(phase: Reading, encoded: list[Encoded], learner: Learner, drills: Drills, pad_id: int) -> None:
    """The steps of a phase on text."""
    text = batches(encoded, phase.batch, pad_id, seed=1, power=phase.length_power)
    reviewed = cycle(phase.reviewed)
    for step, batch in enumerate(islice(text, phase.steps), start=1):
        scale = schedule(step, phase.steps)
        learner.step(batch, scale)
        if phase.reviewed and step % phase.review_every == 0:
            learner.step(drills.batch(next(reviewed), DRILL_BATCH, pad_id, phase.review), scale)


def drill(phase: Drilling, encoded: list[Encoded], learner: Learner, drills: Drills, pad_id: int) -> None:
    """The steps of a phase on drills. Raises ParrotError for a level that is not mastered."""
    text = batches(encoded, TEXT_BATCH, pad_id, seed=1, power=-0.5)
    kept = cycle(phase.kept)
    for level in phase.levels:
        recent: deque[float] = deque(maxlen=MASTERED_STEPS)
        for step in range(1, phase.longest + 1):
            recent.append(learner.step(drills.batch(level, phase.batch, pad_id, phase.review)))
            if len(recent) == MASTERED_STEPS and sum(recent) >= phase.mastered * MASTERED_STEPS:
                break
            if step % TEXT_EVERY == 0:
                learner.step(next(text))
                if phase.kept:
                    learner.step(drills.batch(next(kept), phase.batch, pad_id))
        else:
            raise ParrotError(
                f"level {level} of the drills was not mastered in {phase.longest} steps; try another seed"
            )


@torch.no_grad()
def held_out_accuracy(model: Qwen2ForCausalLM, tokenizer: Tokenizer, seed: int) -> str:
    """``form share (n)`` by form of question: answers right as a whole, by teacher forcing, on held-out scenes."""
    encoder, r = PromptEncoder(tokenizer), random.Random(f"held-out/{seed}")
    right: dict[str, list[bool]] = {}
    for scene in islice(scenes("held-out", seed=f"text/{seed}"), HELD_OUT):
        language = r.choice(CODES)
        asked = sample_question(scene, GRAMMARS[language], r)
        turns = [Turn("user", f"{description(scene, language, r)}\n{asked.prompt}"), Turn("assistant", asked.answer)]
        encoded = encoder.encode(turns, image_tokens=0)
        ids = torch.from_numpy(encoded.input_ids)
        answer = torch.from_numpy(encoded.labels_mask[1:])
        best = model(input_ids=ids[None]).logits[0, :-1].argmax(-1)
        right.setdefault(asked.form, []).append(bool((best == ids[1:])[answer].all()))
    return ", ".join(f"{form} {sum(each) / len(each):.2f} ({len(each)})" for form, each in sorted(right.items()))
