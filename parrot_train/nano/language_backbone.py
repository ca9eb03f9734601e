"""Pretrain nano's small Qwen2 on six-language text, with a tokenizer of its own.

The byte-level BPE carries Qwen's control tokens and splits text as Qwen's does. The model learns from conversations
about scenes told in words (`parrot_train.nano.text`), in equal shares of the six languages; it never sees a picture.
"""

import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import Qwen2Config, Qwen2ForCausalLM

from parrot_runtime.prompt import SYSTEM_PROMPT, PromptEncoder
from parrot_train.nano.text import documents

CONTROL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
# How Qwen's tokenizers cut text before the merges: contractions, words, single digits, punctuation, line ends, spaces.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Scenes at random cannot be foreseen, so what is read rather than answered teaches little per token: one such token in
# ten is predicted, at half an answer token's weight, which also spares nine tenths of the output projection.
CONTEXT_SHARE, CONTEXT_WEIGHT = 0.1, 0.5


@dataclass(frozen=True)
class LanguageRecipe:
    """How the LLM is made; the defaults are the shipped model's."""

    vocab_size: int = 1536
    hidden_size: int = 256
    intermediate_size: int = 256
    layers: int = 5
    heads: int = 4
    kv_heads: int = 2
    tokenizer_documents: int = 6_000
    documents: int = 100_000
    steps: int = 4_500
    batch: int = 16
    learning_rate: float = 2e-3
    warmup: int = 300
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
    source = islice(documents(seed=f"{recipe.seed}/tokenizer"), recipe.tokenizer_documents)
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
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.token_to_id("<|im_end|>"),
        pad_token_id=tokenizer.token_to_id("<|endoftext|>"),
    )


def _encode_part(tokenizer_json: str, seed: str, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    encoder = PromptEncoder(Tokenizer.from_str(tokenizer_json))
    encoded = (encoder.encode(turns, image_tokens=0) for turns in islice(documents(seed=seed), count))
    return [(each.input_ids.astype(np.int16), each.labels_mask) for each in encoded]


def encode_documents(recipe: LanguageRecipe, tokenizer: Tokenizer, *, workers: int) -> list:
    """``recipe.documents`` conversations as (int16 ids, bool supervised) pairs; the same for any number of workers."""
    part = 2_000
    seeds = [f"{recipe.seed}/{i}" for i in range(math.ceil(recipe.documents / part))]
    text = tokenizer.to_str()
    with ProcessPoolExecutor(workers) as pool:
        parts = pool.map(_encode_part, [text] * len(seeds), seeds, [part] * len(seeds))
        return [document for encoded in parts for document in encoded][: recipe.documents]


def batches(encoded: list, recipe: LanguageRecipe, pad_id: int) -> Iterator[tuple[torch.Tensor, ...]]:
    """Endless batches of similar length: ids ``[B, T]`` int64, mask ``[B, T]`` bool, weights ``[B, T]`` float32."""
    random_ = np.random.default_rng(recipe.seed)
    while True:
        order = random_.permutation(len(encoded))
        chunk = min(recipe.batch * 32, len(order))
        for start in range(0, len(order) - chunk + 1, chunk):
            group = sorted(order[start : start + chunk], key=lambda i: len(encoded[i][0]))
            starts = random_.permutation(len(group) // recipe.batch) * recipe.batch
            for first in starts:
                rows = [encoded[i] for i in group[first : first + recipe.batch]]
                # In steps of 16: for every new shape the CPU kernels are compiled anew, and kept.
                length = -(-max(len(ids) for ids, _ in rows) // 16) * 16
                ids = np.full((len(rows), length), pad_id, np.int64)
                weights = np.zeros((len(rows), length), np.float32)
                mask = np.zeros((len(rows), length), np.bool_)
                for row, (tokens, supervised) in enumerate(rows):
                    ids[row, : len(tokens)] = tokens
                    context = np.where(random_.random(len(tokens)) < CONTEXT_SHARE, CONTEXT_WEIGHT, 0.0)
                    weights[row, : len(tokens)] = np.where(supervised, 1.0, context)
                    mask[row, : len(tokens)] = True
                yield torch.from_numpy(ids), torch.from_numpy(mask), torch.from_numpy(weights)


def weighted_loss(model: Qwen2ForCausalLM, ids: torch.Tensor, mask: torch.Tensor, weights: torch.Tensor) -> tuple:
    """Mean next-token loss under ``weights``, and the share of supervised tokens that are predicted right."""
    hidden = model.model(input_ids=ids, attention_mask=mask).last_hidden_state[:, :-1]
    targets, weights = ids[:, 1:], weights[:, 1:]
    chosen = weights > 0
    logits = model.lm_head(hidden[chosen]).float()
    targets, weights = targets[chosen], weights[chosen]
    losses = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    right = (logits.argmax(-1) == targets)[weights == 1.0].float().mean()
    return (losses * weights).sum() / weights.sum(), right


def pretrain(recipe: LanguageRecipe, folder: Path, *, workers: int, report: Callable[[str], None]) -> None:
    """Make tokenizer and model and save both in ``folder`` (fp16 weights)."""
    torch.manual_seed(recipe.seed)
    tokenizer = train_tokenizer(recipe)
    encoded = encode_documents(recipe, tokenizer, workers=workers)
    tokens = sum(len(ids) for ids, _ in encoded)
    report(f"text: {len(encoded)} conversations, {tokens} tokens, {tokens / len(encoded):.0f} each")
    config = model_config(recipe, tokenizer)
    model = Qwen2ForCausalLM(config)
    report(f"model: {sum(p.numel() for p in model.parameters())} parameters")
    optimizer = torch.optim.AdamW(
        model.parameters(), recipe.learning_rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True
    )
    started = time.monotonic()
    for step, (ids, mask, weights) in enumerate(islice(batches(encoded, recipe, config.pad_token_id), recipe.steps)):
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * schedule(step, recipe.warmup, recipe.steps)
        with torch.autocast("cpu", torch.bfloat16):
            loss, right = weighted_loss(model, ids, mask, weights)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 50 == 0 or step + 1 == recipe.steps:
            report(
                f"llm step {step} loss {loss.item():.3f} answer tokens right {right.item():.3f} "
                f"{time.monotonic() - started:.0f} s"
            )
    model.half().save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))


def schedule(step: int, warmup: int, steps: int) -> float:
    """Linear warm-up, then a cosine to a hundredth."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
