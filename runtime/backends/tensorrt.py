"""The three graphs as TensorRT engines, by TensorRT or TensorRT-RTX, in Python alone: cuda-python moves what moves.

Weights, KV cache and activations stay on the device; embeddings go up and logits come down. All engines run on one
stream and scratch in the same memory, so one call runs at a time, whichever thread it is from.
"""

from __future__ import annotations

import threading
import weakref
from pathlib import Path

import numpy as np

from parrot_runtime.backends.tensorrt_decoder import DeviceCache, create_decoder
from parrot_runtime.backends.tensorrt_engine import Device, Engine
from parrot_runtime.cuda import Cuda
from parrot_runtime.engines import BuildRecord, engine_name
from parrot_runtime.errors import InputError
from parrot_runtime.flavours import Flavour
from parrot_runtime.manifest import Manifest


class TensorRTBackend:
    """``Backend`` over the engines in ``folder``, whose record ``build`` was checked against the manifest.

    ``cuda`` is for tests. Raises BundleError for engines that are not those of the graphs, ParrotError when the device
    does not load them.
    """

    name = "tensorrt"
    extends = copies = False
    embeds_dtype = "float32"

    def __init__(
        self, folder: Path, build: BuildRecord, manifest: Manifest, flavour: Flavour, *, cuda: Cuda | None = None
    ) -> None:
        self._device = Device(flavour, Cuda() if cuda is None else cuda)
        self._dims, self._turn = manifest.model, threading.Lock()
        self._engines = {
            role: Engine(folder / engine_name(role), build.engines[role], graph, self._device, ("decode",))
            for role, graph in manifest.tensorrt.items()
        }
        self._device.share_scratch()
        decoder = self._engines["decoder"]
        self._decoder = create_decoder(decoder, manifest.tensorrt["decoder"], self._dims, self._device)
        self.max_slots: int | None = decoder.largest("decode", "inputs_embeds")[0]
        self.max_len = decoder.largest("prefill", "inputs_embeds")[1]
        # At the end of the process too: what was compiled in it makes the next one start sooner.
        weakref.finalize(self, _keep_compiled, list(self._engines.values()))

    def encode_images(self, pixel_values: np.ndarray) -> np.ndarray:
        """See ``Backend.encode_images``."""
        engine, dims = self._engines["encoder"], self._dims
        most = engine.largest("default", "pixel_values")[0]
        parts = []
        with self._turn:
            for first in range(0, len(pixel_values), most):
                pixels = pixel_values[first : first + most]
                outputs = {"image_features": (len(pixels), dims.image_tokens, dims.hidden_size)}
                parts += engine.call("default", {"pixel_values": pixels}, outputs)
        return np.concatenate(parts)

    def route(
        self, image_features: np.ndarray, text_embeds: np.ndarray, text_mask: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """See ``Backend.route``."""
        engine, dims = self._engines["experts"], self._dims
        most = engine.largest("default", "image_features")[0]
        inputs = {"image_features": image_features, "text_embeds": text_embeds, "text_mask": text_mask}
        parts = []
        with self._turn:
            for first in range(0, len(image_features), most):
                some = {name: array[first : first + most] for name, array in inputs.items()}
                rows = len(some["image_features"])
                outputs = {
                    "visual_tokens": (rows, dims.image_tokens, dims.hidden_size),
                    "routing": (rows, dims.experts),
                }
                parts.append(engine.call("default", some, outputs))
        visual_tokens, routing = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        return visual_tokens, routing

    def new_cache(self, slots: int, max_len: int) -> DeviceCache:
        """See ``Backend.new_cache``. Raises InputError for more slots than the engines were built for."""
        if self.max_slots is not None and slots > self.max_slots:
            raise InputError(
                f"{slots} answers at once were asked for, these engines were built for {self.max_slots}; ask for "
                f"fewer, or run `parrot-export engines --max-batch {slots}`"
            )
        with self._turn:
            return self._decoder.new_cache(slots, max_len)

    def prefill(self, inputs_embeds: np.ndarray, cache: DeviceCache, *, slot: int = 0, start: int = 0) -> np.ndarray:
        """See ``Backend.prefill``."""
        with self._turn:
            return self._decoder.prefill(inputs_embeds, cache, slot, start)

    def decode(self, inputs_embeds: np.ndarray, lengths: np.ndarray, cache: DeviceCache) -> np.ndarray:
        """See ``Backend.decode``."""
        with self._turn:
            return self._decoder.decode(inputs_embeds, lengths, cache)


def _keep_compiled(engines: list[Engine]) -> None:
    for engine in engines:
        engine.keep_compiled()
