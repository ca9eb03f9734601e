"""A checkpoint in torch: what training left, before anything was exported; the released format and LLaVA-1.5 too.

The one place of the room that imports torch, and ``parrot_export`` for its reader of all formats. Prompts and pictures
are made by the runtime's code, and decoding is greedy over a KV cache, a batch at a time.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from parrot_evaluation.models import TOGETHER, Model, ModelOptions, beside_each_other, limited, named
from parrot_evaluation.runner import Question, Response
from parrot_runtime.errors import InputError, TextError
from parrot_runtime.image import preprocess, read_image
from parrot_runtime.prompt import Turn, check_question
from parrot_runtime.templates import prompt_encoder
from parrot_runtime.tokenizer import Detokenizer, load_tokenizer

if TYPE_CHECKING:
    import torch

    from parrot_export.checkpoint import Checkpoint

_DTYPES = {"float32": "float32", "bf16": "bfloat16"}


def open_checkpoint_model(folder: Path, options: ModelOptions, *, max_new_tokens: int) -> Model:
    """The checkpoint in ``folder``, in ``options.dtype`` (float32) on ``options.device`` (CUDA where there is one).

    Raises InputError for a checkpoint that is none or not whole, a device that is not here, and missing packages.
    """
    try:
        import torch

        from parrot_export.checkpoint import open_checkpoint
    except ModuleNotFoundError as error:
        raise InputError(
            f"measuring a checkpoint needs {error.name}; install parrot-edge[export], or export it elsewhere and "
            "measure the bundle"
        ) from error
    device = _device(options.device)
    dtype = options.dtype or "float32"
    checkpoint = open_checkpoint(folder, options.vision_tower)
    model = checkpoint.load_model().to(device=device, dtype=getattr(torch, _DTYPES[dtype])).eval()
    reader = _Reader(checkpoint, model, device, max_new_tokens, options.pixel_limit)
    # In bf16 a row's sums are rounded otherwise in another batch, which decides where two words are nearly as likely.
    exact = dtype == "float32"
    rows = options.slots or (TOGETHER["checkpoint"] if exact else 1)

    def stream(questions: Iterable[Question]) -> Iterator[Response]:
        left = iter(questions)
        while batch := list(islice(left, rows)):
            yield from reader.answers(batch)

    name = f"{folder.resolve().parent.name}-{folder.resolve().name} {dtype}"
    known = beside_each_other(name, _fingerprint(checkpoint, dtype, device), 1 if exact else rows)
    return Model(*limited(*known, options.pixel_limit), stream)


def _device(wanted: str | None) -> "torch.device":
    import torch

    if wanted == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: torch finds no CUDA device here; use --device cpu")
    return torch.device(wanted or ("cuda" if torch.cuda.is_available() else "cpu"))


def _fingerprint(checkpoint: "Checkpoint", dtype: str, device: "torch.device") -> str:
    """Of every weight and of how pictures and prompts are made; float32 is not quite the same on another device."""
    digest = hashlib.sha256(f"{dtype}\0{device.type}\0{checkpoint.config.to_json_string()}{checkpoint.recipe}".encode())
    digest.update(checkpoint.tokenizer.read_bytes())
    for name, tensor in checkpoint.tensors.items():
        digest.update(f"{name}\0{tensor.dtype}\0{tensor.shape}".encode())
        for chunk in tensor.chunks():
            digest.update(memoryview(chunk.view(np.uint8)))
    return digest.hexdigest()


class _Reader:
    """Questions to a batch of token ids and pixels, and what the model says to text."""

    def __init__(
        self,
        checkpoint: "Checkpoint",
        model: "torch.nn.Module",
        device: "torch.device",
        limit: int,
        max_pixels: int,
    ) -> None:
        self._model, self._device, self._limit, self._max_pixels = model, device, limit, max_pixels
        self._recipe = checkpoint.recipe
        self._image_tokens = model.config.image_tokens
        self._max_len = checkpoint.architecture.decoder.max_positions
        self._tokenizer = load_tokenizer(checkpoint.tokenizer)
        self._prompts = prompt_encoder(self._tokenizer, checkpoint.recipe.prompt)

    def answers(self, questions: Sequence[Question]) -> Iterator[Response]:
        """The answers to a batch; those to the questions before one that cannot be asked, then its error."""
        prompts, pictures, refused = [], [], None
        for question in questions:
            try:
                prompts.append(self._encode(question.text))
                picture = read_image(question.image, max_pixels=self._max_pixels, name=question.name)
                pictures.append(preprocess(picture, self._recipe.image))
            except InputError as error:
                refused = named(error, question.name)
                break
        prompts = prompts[: len(pictures)]
        if prompts:
            yield from self._generate(prompts, np.stack(pictures))
        if refused is not None:
            raise refused

    def _encode(self, text: str) -> np.ndarray:
        turn = Turn("user", check_question(text), 1)
        ids = self._prompts.encode(
            [turn], image_tokens=self._image_tokens, system=self._recipe.prompt.system, generation=True
        ).input_ids
        if len(ids) >= self._max_len:
            raise TextError(
                f"the question is too long: with its picture and the prompt around it, it takes {len(ids):,} tokens, "
                f"this checkpoint has room for {self._max_len - 1:,}; shorten it"
            )
        return ids

    def _generate(self, prompts: list[np.ndarray], pixels: np.ndarray) -> Iterator[Response]:
        import torch

        length = max(map(len, prompts))
        ids = np.full((len(prompts), length), min(self._prompts.stop_ids), np.int64)
        mask = np.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, length - len(prompt) :], mask[row, length - len(prompt) :] = prompt, 1
        ids[ids < 0] = self._model.config.image_token_id
        # As in the runtime: an answer ends where the context does.
        limits = [min(self._limit, self._max_len - len(prompt)) for prompt in prompts]
        with torch.inference_mode():
            embeds, routing = self._model.model.embed_prompt(
                torch.from_numpy(ids).to(self._device),
                torch.from_numpy(mask).to(self._device),
                torch.from_numpy(pixels).to(self._device, self._model.dtype),
            )
            tokens, finishes = self._decode(embeds, torch.from_numpy(mask).to(self._device), limits)
        shares = None if routing is None else routing.float().cpu().numpy()
        for row, (answer, finish) in enumerate(zip(tokens, finishes, strict=True)):
            yield Response(
                self._text(answer),
                finish,
                None if shares is None else tuple(round(float(share), 6) for share in shares[row]),
            )

    def _decode(
        self, embeds: "torch.Tensor", mask: "torch.Tensor", limits: Sequence[int]
    ) -> tuple[list[list[int]], list[str]]:
        """The likeliest token, again and again, for all rows until each has ended; the tokens that end are left out."""
        import torch

        tokens: list[list[int]] = [[] for _ in limits]
        finishes: list[str | None] = [None] * len(limits)
        cache, step = None, {"inputs_embeds": embeds}
        while True:
            output = self._model(**step, attention_mask=mask, past_key_values=cache, use_cache=True, logits_to_keep=1)
            cache, chosen = output.past_key_values, output.logits[:, -1].float().argmax(-1)
            for row, token in enumerate(chosen.tolist()):
                if finishes[row] is None:
                    if token in self._prompts.stop_ids:
                        finishes[row] = "stop"
                        continue
                    tokens[row].append(token)
                    if len(tokens[row]) >= limits[row]:
                        finishes[row] = "length"
            if None not in finishes:
                return tokens, finishes
            step = {"input_ids": chosen[:, None]}
            mask = torch.cat([mask, mask.new_ones(len(limits), 1)], dim=1)

    def _text(self, tokens: Sequence[int]) -> str:
        words = Detokenizer(self._tokenizer)
        return "".join([*(words.push(token) or "" for token in tokens), words.flush() or ""])
