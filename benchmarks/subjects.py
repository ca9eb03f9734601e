"""Who can be measured: a bundle by the runtime, and others on models of their own.

Each does the same work in the same four parts: it is loaded when it is made, ``look`` makes a prompt, ``prefill`` its
first token, and ``step`` the next one. What tokens come does not matter, and none of them ends an answer.
"""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from parrot_runtime.errors import InputError
from parrot_runtime.manifest import EMBEDDING_NAME, load_manifest

if TYPE_CHECKING:
    from parrot_benchmarks.workload import Workload

# Of no tokenizer in particular: small enough to be in every vocabulary, and none of them special.
_FIRST_WORD, _WORDS = 10, 900


class Subject(Protocol):
    """What is measured. Prompts and tokens are whatever the next call of the same subject takes."""

    def look(self) -> Any: ...
    def prefill(self, prompt: Any) -> Any: ...
    def step(self, tokens: Any) -> Any: ...


def check(subject: str, workload: Workload) -> None:
    """Raise InputError for what would be found only when its turn comes: ``create`` takes the same."""
    kind, _, path = subject.partition(":")
    if kind not in PEERS:
        dims = load_manifest(Path(subject)).model
        positions = workload.images * dims.image_tokens + workload.text + workload.tokens
        if positions > dims.max_len:
            raise InputError(f"{subject}: {positions} positions, and the bundle has {dims.max_len}; ask for less")
        return
    module, package = _MODULES[kind]
    if importlib.util.find_spec(module) is None:
        raise InputError(f"{package} is not installed here; run `pip install {package}`")
    if not Path(path).exists():
        raise InputError(f"{path}: there is no such file or folder, which {kind} is to be measured with")
    if kind in _OF_WORDS and (workload.images or workload.batch > 1):
        raise InputError(f"{kind} is measured on one question of words; say --images 0 --batch 1, and --text 620")
    if kind == "openvino" and workload.batch > 1:
        raise InputError("OpenVINO is measured on one question at a time; say --batch 1")


def create(subject: str, workload: Workload) -> Subject:
    """Load ``subject``: a bundle's folder, or ``KIND:PATH`` with one of ``PEERS``. Raises ParrotError."""
    kind, _, path = subject.partition(":")
    return PEERS[kind](path, workload) if kind in PEERS else Bundle(subject, workload)


class Bundle:
    """The runtime's backend, as its engine loop drives it."""

    def __init__(self, folder: str, workload: Workload) -> None:
        from parrot_runtime.backends.choose import create_backend
        from parrot_runtime.embedding import Embedding
        from parrot_runtime.integrity import verify_files

        manifest = load_manifest(Path(folder))
        verify_files(Path(folder), manifest)
        dims = manifest.model
        self._dims, self._work = dims, workload
        self._backend = create_backend(Path(folder), manifest, None, threads=workload.threads)
        self._embedding = Embedding(
            Path(folder) / EMBEDDING_NAME, vocab_size=dims.vocab_size, hidden_size=dims.hidden_size
        )
        rng = np.random.default_rng(0)
        size = manifest.image.size
        self._pixels = rng.standard_normal((workload.images, 1, 3, size, size)).astype(np.float32)
        self._text = self._embedding.gather(rng.integers(0, dims.vocab_size, workload.text), self._backend.embeds_dtype)
        self._cache = self._backend.new_cache(workload.batch, dims.max_len)

    def look(self) -> np.ndarray:
        """Prompts ``[T, C]`` with their pictures in them; one serves all of a batch."""
        features = [self._backend.encode_images(pixels)[0] for pixels in self._pixels]
        if features and self._dims.experts:
            text = np.broadcast_to(self._text, (len(features), *self._text.shape))
            features = list(self._backend.route(np.stack(features), text, np.ones(text.shape[:2], np.bool_))[0])
        return np.concatenate([*features, self._text])

    def prefill(self, prompt: np.ndarray) -> np.ndarray:
        """The first token of each, ``[batch]``."""
        self._lengths = np.full(self._work.batch, len(prompt), np.int32)
        logits = [self._backend.prefill(prompt, self._cache, slot=slot).argmax() for slot in range(self._work.batch)]
        return np.array(logits)

    def step(self, tokens: np.ndarray) -> np.ndarray:
        """The next of each."""
        embeds = self._embedding.gather(tokens, self._backend.embeds_dtype)
        logits = self._backend.decode(embeds, self._lengths, self._cache)
        self._lengths += 1
        return logits.argmax(axis=-1)


class Transformers:
    """The checkpoint in torch, bfloat16, as its own class runs it."""

    def __init__(self, folder: str, workload: Workload) -> None:
        import torch

        from parrot_export.checkpoint import open_checkpoint

        if workload.threads:
            torch.set_num_threads(workload.threads)
        checkpoint = open_checkpoint(Path(folder))
        self._torch, self._model = torch, checkpoint.load_model().to(torch.bfloat16).eval()
        vision, rng = checkpoint.architecture.vision, np.random.default_rng(0)
        shape = workload.images * workload.batch, 3, vision.image_size, vision.image_size
        self._pixels = torch.from_numpy(rng.standard_normal(shape).astype(np.float32)).to(torch.bfloat16)
        self._text = torch.from_numpy(rng.integers(0, checkpoint.architecture.decoder.vocabulary, workload.text))
        self._work = workload

    def look(self) -> object:
        """Prompts ``[batch, T, C]``."""
        torch, batch = self._torch, self._work.batch
        with torch.inference_mode():
            table = self._model.get_input_embeddings()
            words = table(self._text)[None].expand(batch, -1, -1)
            if not self._work.images:
                return words
            features = self._model.get_image_features(self._pixels)
            if self._model.model.moe is not None:
                text = table(self._text)[None].expand(len(features), -1, -1)
                features = self._model.model.moe(features, text, torch.ones(text.shape[:2], dtype=torch.bool))[0]
            return torch.cat([features.reshape(batch, -1, words.shape[-1]), words], dim=1)

    def prefill(self, prompt: object) -> object:
        """The first token of each."""
        with self._torch.inference_mode():
            output = self._model(inputs_embeds=prompt, use_cache=True, logits_to_keep=1)
        return self._keep(output)

    def step(self, tokens: object) -> object:
        """The next of each."""
        with self._torch.inference_mode():
            output = self._model(input_ids=tokens, past_key_values=self._past, use_cache=True, logits_to_keep=1)
        return self._keep(output)

    def _keep(self, output: object) -> object:
        self._past = output.past_key_values
        return output.logits[:, -1:].argmax(-1)


class LlamaCpp:
    """A GGUF file in llama.cpp, through llama-cpp-python."""

    def __init__(self, file: str, workload: Workload) -> None:
        llama = _peer("llama.cpp")
        room = workload.text + workload.tokens
        threads = {"n_threads": workload.threads, "n_threads_batch": workload.threads}
        self._model = llama.Llama(file, n_ctx=room, n_batch=room, n_ubatch=room, verbose=False, **threads)
        self._work = workload

    def look(self) -> list[int]:
        """Ids of words."""
        return _word_ids(self._work.text).tolist()

    def prefill(self, prompt: list[int]) -> int:
        """The first token."""
        self._model.reset()
        return self.step(prompt)

    def step(self, tokens: int | list[int]) -> int:
        """The next."""
        self._model.eval(tokens if isinstance(tokens, list) else [tokens])
        return self._model.sample(temp=0.0)


class OnnxRuntimeGenAI:
    """A folder of onnxruntime-genai's model builder."""

    def __init__(self, folder: str, workload: Workload) -> None:
        genai = _peer("onnxruntime-genai")
        config = genai.Config(folder)
        if workload.threads:
            config.overlay(
                f'{{"model": {{"decoder": {{"session_options": {{"intra_op_num_threads": {workload.threads}}}}}}}}}'
            )
        self._genai, self._model, self._work = genai, genai.Model(config), workload

    def look(self) -> np.ndarray:
        """Ids of words, ``[T]``."""
        return _word_ids(self._work.text)

    def prefill(self, prompt: np.ndarray) -> None:
        """The first token, which its generator keeps."""
        settings = self._genai.GeneratorParams(self._model)
        length = self._work.text + self._work.tokens + 1
        settings.set_search_options(max_length=length, min_length=length, do_sample=False)
        self._generator = self._genai.Generator(self._model, settings)
        self._generator.append_tokens(prompt)
        self._generator.generate_next_token()

    def step(self, tokens: None) -> None:
        """The next."""
        self._generator.generate_next_token()


class OpenVINO:
    """A folder that optimum-intel exported a vision-language model to: two graphs in OpenVINO's own format.

    Embeddings of words are drawn at random, as the pictures are; its weights are compressed as they were exported.
    """

    def __init__(self, folder: str, workload: Workload) -> None:
        openvino = _peer("openvino")
        core, settings = openvino.Core(), {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
        if workload.threads:
            settings["INFERENCE_NUM_THREADS"] = workload.threads

        def load(name: str) -> Any:
            return core.compile_model(str(Path(folder) / f"openvino_{name}_model.xml"), "CPU", settings)

        self._work, rng = workload, np.random.default_rng(0)
        language = load("language")
        self._names = {name for port in language.inputs for name in port.get_names()}
        self._language = language.create_infer_request()
        self._width = language.input("inputs_embeds").get_partial_shape()[2].get_length()
        if workload.images:
            self._vision = load("vision_embeddings").create_infer_request()
            shape = self._vision.get_compiled_model().input(0).get_partial_shape()
            size = shape[-1].get_length() if shape[-1].is_static else 336
            self._pixels = rng.standard_normal((1, 3, size, size)).astype(np.float32)
        self._words = 0.02 * rng.standard_normal((1, workload.text, self._width)).astype(np.float32)

    def look(self) -> np.ndarray:
        """The prompt ``[1, T, C]``."""
        features = []
        for _ in range(self._work.images):
            self._vision.infer([self._pixels], share_inputs=True, share_outputs=True)
            features.append(np.array(self._vision.get_output_tensor(0).data))
        return np.concatenate([*features, self._words], axis=1)

    def prefill(self, prompt: np.ndarray) -> int:
        """The first token."""
        self._language.reset_state()
        self._length = 0
        return self._run(prompt)

    def step(self, tokens: int) -> int:
        """The next."""
        return self._run(self._words[:, :1])

    def _run(self, embeds: np.ndarray) -> int:
        start, self._length = self._length, self._length + embeds.shape[1]
        feed = {
            "inputs_embeds": embeds,
            "attention_mask": np.ones((1, self._length), np.int64),
            "position_ids": np.arange(start, self._length, dtype=np.int64)[None],
            "beam_idx": np.zeros(1, np.int32),
            "logits_to_keep": np.array(1, np.int64),
        }
        given = {name: array for name, array in feed.items() if name in self._names}
        self._language.infer(given, share_inputs=True, share_outputs=True)
        return int(self._language.get_output_tensor(0).data[0, -1].argmax())


# Others, and what each is given.
PEERS: dict[str, type] = {
    "transformers": Transformers,
    "llama.cpp": LlamaCpp,
    "onnxruntime-genai": OnnxRuntimeGenAI,
    "openvino": OpenVINO,
}


# What each is imported as, and installed as.
_MODULES = {
    "transformers": ("transformers", "transformers"),
    "llama.cpp": ("llama_cpp", "llama-cpp-python"),
    "onnxruntime-genai": ("onnxruntime_genai", "onnxruntime-genai"),
    "openvino": ("openvino", "openvino"),
}
# They are given a language model alone.
_OF_WORDS = ("llama.cpp", "onnxruntime-genai")


def _peer(kind: str) -> Any:
    return importlib.import_module(_MODULES[kind][0])


def _word_ids(count: int) -> np.ndarray:
    return (_FIRST_WORD + np.arange(count) % _WORDS).astype(np.int32)
