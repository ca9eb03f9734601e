"""A float32 graph run a layer at a time: a part's weights in memory, what parts hand on to each other on disk.

A 7B model in float32 is more than most machines hold, and what ranges and scales want of it is one layer after the
other anyway: all samples pass a part, as often as wanted, before the next is loaded. The graphs are those of the
classic TensorRT dialect, in standard operators alone, and are cut where their nodes' names go from one layer to the
next.
"""

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from parrot_runtime.backends.onnxruntime import import_onnxruntime
from parrot_runtime.errors import ParrotError

_LAYER = re.compile(r"/layers\.(\d+)/")


@dataclass(frozen=True)
class Segment:
    """A run of a graph's nodes. ``takes`` are values made before, ``gives`` those that are wanted later or exposed."""

    nodes: tuple[onnx.NodeProto, ...]
    takes: tuple[str, ...]
    gives: tuple[str, ...]
    exposed: tuple[str, ...]


class Segmented:
    """The graph of one role, written below ``folder``, in segments.

    ``model`` says the values' types; ``exposed`` are those to look at, ``results`` the graph's outputs that are wanted.
    """

    def __init__(
        self, folder: Path, file: str, model: ir.Model, exposed: Sequence[str], results: Sequence[str], threads: int = 0
    ) -> None:
        self._folder, self._threads = folder, threads
        self._proto = onnx.load(str(folder / file), load_external_data=False)
        self._types = {value.name: int(value.dtype) for node in model.graph for value in node.outputs if value.name}
        self._types |= {value.name: int(value.dtype) for value in model.graph.inputs}
        self._stored = {tensor.name: tensor for tensor in self._proto.graph.initializer}
        self.segments = _cut(list(self._proto.graph.node), set(self._stored), set(exposed), set(results))

    def session(self, segment: Segment):
        """The segment alone, with the weights it reads and no others."""
        graph = onnx.GraphProto(name="segment", node=segment.nodes)
        needed = {name for node in segment.nodes for name in node.input if name in self._stored}
        graph.initializer.extend(self._stored[name] for name in sorted(needed))
        for names, place in ((segment.takes, graph.input), ((*segment.gives, *segment.exposed), graph.output)):
            place.extend(onnx.helper.make_tensor_value_info(n, self._types[n], None) for n in dict.fromkeys(names))
        model = onnx.ModelProto(graph=graph, ir_version=self._proto.ir_version, opset_import=self._proto.opset_import)
        ort = import_onnxruntime()
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = self._threads
        # From bytes, so the weights' files must be told: every segment is another graph over the same files.
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(self._folder))
        return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def run(self, session, segment: Segment, state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What the segment gives and exposes, of one sample. Raises ParrotError where onnxruntime fails."""
        names = list(dict.fromkeys((*segment.gives, *segment.exposed)))
        taken = [name for name in segment.takes if name in {node.name for node in session.get_inputs()}]
        try:
            return dict(zip(names, session.run(names, {name: state[name] for name in taken}), strict=True))
        except Exception as error:  # onnxruntime's errors share no base class of their own
            line = (str(error).splitlines() or [type(error).__name__])[0][:300]
            raise ParrotError(f"onnxruntime cannot run the float32 graph ({line}); report this") from error


def _cut(nodes: list[onnx.NodeProto], stored: set[str], exposed: set[str], results: set[str]) -> list[Segment]:
    """Nodes by the layer that is being written: what stands before the first is its, what follows the last its own."""
    parts: list[list[onnx.NodeProto]] = [[]]
    current = None
    for node in nodes:
        found = _LAYER.search(node.name)
        number = int(found[1]) if found else None
        if parts[-1] and current is not None and number != current:
            parts.append([])
        if number is not None or current is not None:
            current = number
        parts[-1].append(node)
    return [
        _segment(part, [n for later in parts[at + 1 :] for n in later], stored, exposed, results)
        for at, part in enumerate(parts)
    ]


def _segment(
    part: list[onnx.NodeProto], later: list[onnx.NodeProto], stored: set[str], exposed: set[str], results: set[str]
) -> Segment:
    made = {name for node in part for name in node.output if name}
    used = dict.fromkeys(name for node in part for name in node.input if name)
    wanted = {name for node in later for name in node.input} | results
    takes = tuple(name for name in used if name not in made and name not in stored)
    looked = tuple(name for name in dict.fromkeys((*used, *sorted(made))) if name in exposed and name in made)
    # A product may read a value that an earlier segment made: it is looked at there, where it is made.
    return Segment(tuple(part), takes, tuple(sorted(made & wanted)), looked)


class States:
    """What each sample carries from one segment to the next, a file per sample and step.

    Only the newest step that is whole is read, so a run that was cut goes on from it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, step: str, sample: int, state: dict[str, np.ndarray]) -> None:
        """Keep ``state`` of ``sample`` after ``step``."""
        folder = self._folder / step
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / f"{sample:06d}.npz", "wb") as file:
            # Keys of an archive are file names in it: values' names have slashes, so they are numbered.
            names = np.array(list(state), dtype=np.str_)
            np.savez(file, names=names, **{str(at): array for at, array in enumerate(state.values())})

    def read(self, step: str, sample: int) -> dict[str, np.ndarray]:
        """The state of ``sample`` after ``step``."""
        with np.load(self._folder / step / f"{sample:06d}.npz") as stored:
            return {str(name): stored[str(at)] for at, name in enumerate(stored["names"])}

    def drop(self, step: str) -> None:
        """Forget ``step``."""
        shutil.rmtree(self._folder / step, ignore_errors=True)
