"""The decoder's engine with its KV cache, in the two forms that TensorRT's graphs have it.

Either way the cache of a layer is ``[slots, kv_heads, room, head_dim]`` on the device, twice, for keys and for values;
a slot is a slice of it. ``StaticDecoder`` is for graphs that write into that memory (the modern dialect),
``GrowingDecoder`` for those that take the positions so far and give back one more (the classic).
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from parrot_runtime.backends.tensorrt_engine import Device, Engine, Port
from parrot_runtime.cuda import CapturedGraph, Memory
from parrot_runtime.manifest import Graph, ModelDims

_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


class DeviceCache:
    """Keys and values of ``slots`` sequences: per layer two arrays, as the class's module says."""

    def __init__(self, slots: int, room: int, dims: ModelDims, dtype: str, device: Device) -> None:
        self.slots, self.max_len = slots, room
        # Bytes of one position of one head, of one head, and of one slot.
        self.position = dims.head_dim * _BYTES[dtype]
        self.head = room * self.position
        self.slot = dims.kv_heads * self.head
        # Zeros, not whatever is there: 0 x NaN from memory nobody wrote would be NaN.
        self.arrays = [device.cuda.zeros(slots * self.slot) for _ in range(2 * dims.layers)]
        self.steps: dict[int, StaticStep] = {}

    def addresses(self, slot: int) -> list[int]:
        """Where the keys and values of every layer begin for ``slot``."""
        return [array.address + slot * self.slot for array in self.arrays]


class Decoder(Protocol):
    """What the backend asks of either; shapes and meaning are those of ``Backend``."""

    def new_cache(self, slots: int, max_len: int) -> DeviceCache: ...
    def prefill(self, embeds: np.ndarray, cache: DeviceCache, slot: int, start: int) -> np.ndarray: ...
    def decode(self, embeds: np.ndarray, lengths: np.ndarray, cache: DeviceCache) -> np.ndarray: ...


def create_decoder(engine: Engine, graph: Graph, dims: ModelDims, device: Device) -> Decoder:
    """The decoder whose cache the graph has."""
    names = {tensor.name for tensor in graph.inputs}
    return (StaticDecoder if "write_index" in names else GrowingDecoder)(engine, graph, dims, device)


class _Decoder:
    def __init__(self, engine: Engine, graph: Graph, dims: ModelDims, device: Device) -> None:
        self._engine, self._dims, self._device = engine, dims, device
        self._dtype = graph.tensor("past_key_values.0.key").dtype
        parts = [(layer, part) for layer in range(dims.layers) for part in ("key", "value")]
        self._past = [f"past_key_values.{layer}.{part}" for layer, part in parts]
        self._present = [f"present.{layer}.{part}" for layer, part in parts]


class StaticDecoder(_Decoder):
    """A cache that the engine writes into: ``present.*`` is bound to the very memory of ``past_key_values.*``."""

    def new_cache(self, slots: int, max_len: int) -> DeviceCache:
        """The graph fixes how long the cache is, whatever ``max_len`` asks for up to that."""
        room = self._engine.largest("decode", self._past[0])[2]
        return DeviceCache(slots, room, self._dims, self._dtype, self._device)

    def prefill(self, embeds: np.ndarray, cache: DeviceCache, slot: int, start: int) -> np.ndarray:
        """The whole of ``embeds`` at once, straight into the slot."""
        inputs = {
            "inputs_embeds": embeds[None],
            "write_index": np.array([start], np.int64),
            "lengths": np.array([len(embeds)], np.int64),
        }
        shapes, addresses = self.bind(cache, slot, 1)
        outputs = {"logits": (1, self._dims.vocab_size)}
        (logits,) = self._engine.call("prefill", inputs, outputs, shapes=shapes, addresses=addresses)
        return logits[0]

    def decode(self, embeds: np.ndarray, lengths: np.ndarray, cache: DeviceCache) -> np.ndarray:
        """One step over the first slots; what it needs is bound once per number of them."""
        step = cache.steps.get(len(embeds))
        if step is None:
            step = cache.steps[len(embeds)] = StaticStep(self, cache, len(embeds))
        return step(embeds, lengths)

    def bind(self, cache: DeviceCache, slot: int, rows: int) -> tuple[dict[str, tuple[int, ...]], dict[str, int]]:
        """Shapes and addresses of the cache of ``rows`` slots from ``slot`` on."""
        shape = (rows, self._dims.kv_heads, cache.max_len, self._dims.head_dim)
        begins = cache.addresses(slot)
        addresses = dict(zip(self._past, begins, strict=True)) | dict(zip(self._present, begins, strict=True))
        return dict.fromkeys(self._past, shape), addresses


class StaticStep:
    """A decode step of ``rows`` slots, all of its memory its own; from the second call on, one CUDA graph.

    The first call sets the engine up and may allocate, which no graph can record. An engine that records by itself is
    left to it.
    """

    def __init__(self, decoder: StaticDecoder, cache: DeviceCache, rows: int) -> None:
        dims, device = decoder._dims, decoder._device
        self._engine, self._device = decoder._engine, device
        self._embeds = self._port((rows, 1, dims.hidden_size), "float32")
        self._write_index, self._lengths = (self._port((rows,), "int64") for _ in range(2))
        self._logits = self._port((rows, dims.vocab_size), "float32")
        self._lengths.host[...] = 1
        ports = {
            "inputs_embeds": self._embeds,
            "write_index": self._write_index,
            "lengths": self._lengths,
        }
        self._inputs = list(ports.values())
        self._shapes, self._addresses = decoder.bind(cache, 0, rows)
        self._shapes |= {name: port.host.shape for name, port in ports.items()}
        self._addresses |= {name: port.device.address for name, port in ports.items()}
        self._addresses["logits"] = self._logits.device.address
        self._graph: CapturedGraph | None = None
        self._warm = False

    def __call__(self, embeds: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Logits float32 ``[rows, vocab]``, valid until the next call."""
        self._embeds.host[:, 0] = embeds
        self._write_index.host[...] = lengths
        if self._graph is None and self._warm and not self._device.flavour.records_graphs:
            self._graph = self._device.cuda.capture(self._enqueue, kept=self._inputs)
        if self._graph is None:
            self._enqueue()
            self._warm = True
        else:
            self._graph.launch()
        self._device.cuda.synchronize()
        return self._logits.host

    def _enqueue(self) -> None:
        cuda = self._device.cuda
        for port in self._inputs:
            cuda.upload(port.host, port.device.address)
        self._engine.enqueue("decode", self._shapes, self._addresses)
        cuda.download(self._logits.device.address, self._logits.host)

    def _port(self, shape: tuple[int, ...], dtype: str) -> Port:
        host = self._device.cuda.pinned(shape, dtype)
        return Port(host, self._device.cuda.allocate(host.nbytes))


class GrowingDecoder(_Decoder):
    """A cache that goes in without and comes out with the new positions, every call: the classic graphs concatenate.

    What a slot holds lies in its ``DeviceCache`` all the same. A step packs the first positions of its rows into one
    array, as long as the longest of them, masks what is not a row's own, and keeps the one new position of each.
    """

    def __init__(self, engine: Engine, graph: Graph, dims: ModelDims, device: Device) -> None:
        super().__init__(engine, graph, dims, device)
        self._packed: list[Memory] = []
        self._grown: list[Memory] = []

    def new_cache(self, slots: int, max_len: int) -> DeviceCache:
        """Room for ``max_len`` positions per slot."""
        return DeviceCache(slots, max_len, self._dims, self._dtype, self._device)

    def prefill(self, embeds: np.ndarray, cache: DeviceCache, slot: int, start: int) -> np.ndarray:
        """From an empty slot at once; behind what a slot holds position by position, which engines are built for."""
        if start:
            steps = (self._step(row[None], np.array([start + n]), cache, slot) for n, row in enumerate(embeds))
            return list(steps)[-1][0]
        length = len(embeds)
        inputs = {
            "inputs_embeds": embeds[None],
            "attention_mask": np.ones((1, length), np.int64),
            "position_ids": np.arange(length)[None],
        }
        logits = self._call("prefill", inputs, cache, rows=1, past=0)
        for grown, begin in zip(self._grown, cache.addresses(slot), strict=True):
            size = length * cache.position
            self._device.cuda.copy_lines(grown.address, size, begin, cache.head, size, self._dims.kv_heads)
        return logits[0]

    def decode(self, embeds: np.ndarray, lengths: np.ndarray, cache: DeviceCache) -> np.ndarray:
        """One step over the first slots."""
        return self._step(embeds, lengths, cache, 0)

    def _step(self, embeds: np.ndarray, lengths: np.ndarray, cache: DeviceCache, slot: int) -> np.ndarray:
        rows, past = len(embeds), int(lengths.max())
        own = np.arange(past + 1) < np.asarray(lengths)[:, None]
        own[:, past] = True
        inputs = {
            "inputs_embeds": embeds[:, None],
            "attention_mask": own.astype(np.int64),
            "position_ids": np.asarray(lengths, np.int64)[:, None],
        }
        cuda, heads, width = self._device.cuda, self._dims.kv_heads, cache.position
        self._make_room(rows, past + 1, cache)
        for packed, begin in zip(self._packed, cache.addresses(slot), strict=True):
            cuda.copy_lines(begin, cache.head, packed.address, past * width, past * width, rows * heads)
        logits = self._call("decode", inputs, cache, rows=rows, past=past)
        line = (past + 1) * width
        for grown, begin in zip(self._grown, cache.addresses(slot), strict=True):
            for row, length in enumerate(lengths):
                new = grown.address + row * heads * line + past * width
                cuda.copy_lines(new, line, begin + row * cache.slot + int(length) * width, cache.head, width, heads)
        return logits

    def _call(
        self, profile: str, inputs: dict[str, np.ndarray], cache: DeviceCache, *, rows: int, past: int
    ) -> np.ndarray:
        """Run on the packed past into the grown present; logits ``[rows, vocab]`` of their own."""
        self._make_room(rows, past + inputs["inputs_embeds"].shape[1], cache)
        shapes = dict.fromkeys(self._past, (rows, self._dims.kv_heads, past, self._dims.head_dim))
        addresses = dict(zip(self._past, (memory.address for memory in self._packed), strict=True))
        addresses |= zip(self._present, (memory.address for memory in self._grown), strict=True)
        outputs = {"logits": (rows, self._dims.vocab_size)}
        (logits,) = self._engine.call(profile, inputs, outputs, shapes=shapes, addresses=addresses)
        return logits

    def _make_room(self, rows: int, positions: int, cache: DeviceCache) -> None:
        """Packed and grown arrays of every layer for so many positions; what they hold now is not kept."""
        needed = rows * self._dims.kv_heads * positions * cache.position
        if not self._packed or self._packed[0].size < needed:
            room, count = 1 << max(needed - 1, 1).bit_length(), len(self._past)
            self._packed = [self._device.cuda.allocate(room) for _ in range(count)]
            self._grown = [self._device.cuda.allocate(room) for _ in range(count)]
