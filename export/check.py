"""A bundle's graphs held against the rules: sound ONNX, known operators, data inside the bundle and all there.

onnx's own checker follows types and shapes but passes data files that are cut and offsets that lie outside of them;
those are looked at here.
"""

import math
import os
import shutil
import tempfile
from pathlib import Path

import onnx

from parrot_runtime.errors import BundleError
from parrot_runtime.manifest import Manifest

TENSORRT = "tensorrt."
DOMAINS = ("", "ai.onnx", "com.microsoft")
_AGAIN = "export the bundle again"


def check_graphs(folder: Path, manifest: Manifest) -> dict[str, dict[str, int]]:
    """Check every graph of the bundle in ``folder``; per role, how many nodes of each operator it has.

    TensorRT's graphs are those whose roles begin with ``tensorrt.``.

    Raises BundleError for a graph that onnx refuses, an operator of an unknown domain, and external data that is not
    in a file the manifest lists, or not wholly inside it.
    """
    operators = {}
    named = {f"{TENSORRT}{role}": graph for role, graph in manifest.tensorrt.items()}
    for role, graph in (manifest.graphs | named).items():
        path = folder / graph.file
        try:
            _check_by_onnx(path, manifest)
            model = onnx.load(str(path), load_external_data=False)
        except Exception as error:  # onnx raises protobuf's, its own and the file system's errors
            raise BundleError(
                f"{path}: onnx's checker refuses this graph ({' '.join(str(error).split())}); {_AGAIN}"
            ) from error
        counts: dict[str, int] = {}
        for node in model.graph.node:
            if node.domain not in DOMAINS:
                raise BundleError(f"{path}: operators of the domain '{node.domain}' are not known here; {_AGAIN}")
            counts[node.op_type] = counts.get(node.op_type, 0) + 1
        for tensor in model.graph.initializer:
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                _check_data(tensor, path, manifest)
        operators[role] = dict(sorted(counts.items(), key=lambda item: -item[1]))
    return operators


def _check_by_onnx(path: Path, manifest: Manifest) -> None:
    """onnx's own checker, which refuses data behind a hard link and looks at none of it.

    A bundle whose weights are links of the checkpoint's is checked beside empty files of the same names and sizes.
    """
    if all(os.stat(path.parent / name).st_nlink == 1 for name in manifest.files):
        onnx.checker.check_model(str(path), full_check=True)
        return
    with tempfile.TemporaryDirectory() as scratch:
        for name, record in manifest.files.items():
            copy = Path(scratch, name)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.touch()
            os.truncate(copy, record.size)
        shutil.copyfile(path, Path(scratch, path.name))
        onnx.checker.check_model(str(Path(scratch, path.name)), full_check=True)


def _check_data(tensor: onnx.TensorProto, path: Path, manifest: Manifest) -> None:
    """``tensor``'s numbers must be bytes of a listed file, as many as its shape and type take."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    # Graphs stand at the top of the bundle, so a location is the path the manifest lists.
    record = manifest.files.get(entries.get("location", ""))
    if record is None:
        raise BundleError(
            f"{path}: {tensor.name} lies in '{entries.get('location')}', which the manifest does not list; {_AGAIN}"
        )
    try:
        offset, length = int(entries.get("offset", "0")), int(entries["length"])
    except (KeyError, ValueError) as error:
        raise BundleError(f"{path}: {tensor.name} does not say where its data lies; {_AGAIN}") from error
    size = math.prod(tensor.dims) * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    if tensor.data_type == onnx.TensorProto.INT4:
        size = (size + 1) // 2  # two to a byte
    if length != size or offset < 0 or offset + length > record.size:
        raise BundleError(
            f"{path}: {tensor.name} takes {size} bytes, but {length} at {offset} of {entries['location']} "
            f"({record.size} bytes) are given; {_AGAIN}"
        )
