"""Looking at a bundle that stands: what it holds, and whether it is whole and computes what it should."""

import json
from pathlib import Path
from typing import Any

from parrot_export.check import TENSORRT, check_graphs
from parrot_export.gate import gate_table
from parrot_export.mixed.frontier import FRONTIER_JSON, table
from parrot_export.progress import Progress, no_progress
from parrot_runtime.errors import BundleError, InputError
from parrot_runtime.integrity import verify_files
from parrot_runtime.manifest import Graph, load_manifest


def inspect(folder: Path) -> dict[str, Any]:
    """Manifest and operators of the bundle in ``folder``, as plain data. Raises BundleError."""
    manifest = load_manifest(folder)
    operators = check_graphs(folder, manifest)
    dims, sizes = manifest.model, {name: record.size for name, record in manifest.files.items()}
    return {
        "bundle": str(folder),
        "name": manifest.name,
        "precision": manifest.precision,
        "units": manifest.units,
        "target": manifest.target,
        "languages": list(manifest.languages),
        "model": {name: getattr(dims, name) for name in dims.__dataclass_fields__},
        "image_size": manifest.image.size,
        "graphs": {role: _graph(graph) | {"operators": operators[role]} for role, graph in manifest.graphs.items()},
        "tensorrt": {
            role: _graph(graph) | {"operators": operators[f"{TENSORRT}{role}"]}
            for role, graph in manifest.tensorrt.items()
        },
        "tensorrt_dialect": manifest.tensorrt_dialect,
        "files": sizes,
        "size": sum(sizes.values()),
        "verification": manifest.verification,
        "tools": manifest.tools,
    } | read_frontier(folder)


def _graph(graph: Graph) -> dict[str, Any]:
    inputs, outputs = ([f"{t.name} {t.dtype} {list(t.axes)}" for t in side] for side in (graph.inputs, graph.outputs))
    return {"file": graph.file, "inputs": inputs, "outputs": outputs}


def describe(found: dict[str, Any]) -> str:
    """``inspect``'s findings for a person: one fact per line."""
    dims = found["model"]
    experts = f"{dims['experts']} experts ({dims['expert_kind']})" if dims["experts"] else "no experts"
    lines = [
        f"{found['bundle']}: {found['name']}, {found['precision']} for {found['target']}, "
        f"{found['size'] / 2**20:.1f} MiB in {len(found['files'])} files",
        f"  languages  {' '.join(found['languages'])}",
        f"  picture    {found['image_size']} pixels, {dims['image_tokens']} tokens; {experts}",
        f"  decoder    {dims['layers']} layers, width {dims['hidden_size']}, vocabulary {dims['vocab_size']}, "
        f"up to {dims['max_len']} positions",
    ]
    lines += [f"  {line}" for line in describe_units(found["units"])]
    named = {f"{found['tensorrt_dialect']} {role}": graph for role, graph in found["tensorrt"].items()}
    for role, graph in (found["graphs"] | named).items():
        operators = ", ".join(f"{count} {name}" for name, count in graph["operators"].items())
        lines += [f"  {role}: {graph['file']}", f"    {operators}"]
        lines += [f"    in   {text}" for text in _without_layers(graph["inputs"], "past_key_values.")]
        lines += [f"    out  {text}" for text in _without_layers(graph["outputs"], "present.")]
    told = describe_verification(found["verification"])
    if "frontier" in found:
        told += frontier_lines(found["frontier"])
    return "\n".join([*lines, *(f"  {line}" for line in told)])


def read_frontier(folder: Path) -> dict[str, Any]:
    """What a search for a mixed plan has left in ``folder``, below ``frontier``; nothing where there was none."""
    path = folder / FRONTIER_JSON
    if FRONTIER_JSON not in load_manifest(folder).files:
        return {}
    try:
        return {"frontier": json.loads(path.read_text(encoding="utf-8"))}
    except (OSError, ValueError) as error:
        raise BundleError(f"{path}: cannot be read ({error}); export the bundle again") from error


def describe_frontier(folder: Path) -> list[str]:
    """The frontier of the bundle in ``folder`` for a person; nothing where there is none."""
    return [line for data in read_frontier(folder).values() for line in frontier_lines(data)]


def frontier_lines(data: dict[str, Any]) -> list[str]:
    """The frontier's table below a heading."""
    return ["size of the weights against the worst language:", *(f"  {line}" for line in table(data))]


def describe_units(units: dict[str, str]) -> list[str]:
    """Which parts are stored as what, a line for each type; nothing where the precision says it."""
    kinds = sorted(set(units.values()))
    return [f"{kind}: {' '.join(name for name, one in units.items() if one == kind)}" for kind in kinds]


def describe_verification(result: dict[str, Any]) -> list[str]:
    """A verification's result: one line in all, then one per graph and tensor with the worst language."""
    line, tensorrt = f"verification: {result.get('status')}", result.get("tensorrt", {})
    compared = "graphs" in result or "graphs" in tensorrt
    lines = [f"{line} against {result['reference']}, {result['samples']} samples" if compared else line]
    if "graphs" in result:
        lines += _describe_differences(result, "")
    if "graphs" in tensorrt:
        lines += _describe_differences(tensorrt, "tensorrt ")
    elif tensorrt:
        reason = f": {tensorrt['reason']}" if "reason" in tensorrt else ""
        lines.append(f"  tensorrt: {tensorrt['status']}{reason}")
    for name in ("cpu", "tensorrt"):
        gate = result.get("gate", {}).get(name, {})
        if "languages" in gate:
            lines += [f"  what rounding costs ({name}):", *(f"    {line}" for line in gate_table(gate["languages"]))]
        elif gate:
            lines.append(f"  what rounding costs ({name}): {gate['status']}: {gate.get('reason', '')}")
    return lines


def _describe_differences(result: dict[str, Any], prefix: str) -> list[str]:
    """One line per graph and tensor, with the worst language, and one for the tokens."""
    lines = []
    for graph, tensors in result["graphs"].items():
        for tensor, languages in tensors.items():
            code, worst = max(languages.items(), key=lambda item: item[1]["relative"])
            off = f"off by {worst['relative']:.1e} of the largest value at most ({code})"
            lines.append(f"  {prefix}{graph}: {tensor} {off}")
    equal, tokens = (sum(counts[name] for counts in result["greedy"].values()) for name in ("equal", "tokens"))
    return [*lines, f"  {prefix}chain: {equal} of {tokens} greedy tokens are torch's"]


def _without_layers(tensors: list[str], prefix: str) -> list[str]:
    """The tensors, with the cache's, two per layer, as one line."""
    cache = [text for text in tensors if text.startswith(prefix)]
    rest = [text for text in tensors if not text.startswith(prefix)]
    return [*rest, f"{cache[0]} and {len(cache) - 1} more of the cache"] if cache else rest


def verify_bundle(
    folder: Path, checkpoint: Path | None = None, vision_tower: Path | None = None, progress: Progress = no_progress
) -> dict[str, Any]:
    """Check the bundle in ``folder``: every file's hash, every graph, and that it runs.

    With ``checkpoint``, its graphs are compared with that model in torch once more; without, they must run and give
    finite numbers. The result is data, as in the manifest. Raises BundleError, or ParrotError when a comparison fails.
    """
    from parrot_export.checkpoint import open_checkpoint
    from parrot_export.description import model_dims
    from parrot_export.reference import STEPS, prepare_for
    from parrot_export.samples import verification_samples
    from parrot_export.verify import run_through, verify

    if vision_tower is not None and checkpoint is None:
        raise InputError("--vision-tower is of a checkpoint to compare with; give --checkpoint too")
    manifest = load_manifest(folder)
    verify_files(folder, manifest)
    check_graphs(folder, manifest)
    samples = verification_samples()
    needed = max(len(question.ids) for question in prepare_for(folder, manifest, samples)) + STEPS
    if needed > manifest.model.max_len:
        raise InputError(
            f"{folder}: holds {manifest.model.max_len} positions, and the questions of the verification take {needed}; "
            "export it with a larger --max-len to verify it"
        )
    if checkpoint is None:
        with progress("Running every graph", len(samples)) as advance:
            return run_through(folder, manifest, samples, advance)
    opened = open_checkpoint(checkpoint, vision_tower)
    if model_dims(opened, manifest.model.max_len) != manifest.model or opened.recipe.image != manifest.image:
        raise InputError(f"{checkpoint}: is a model of other shapes than {folder} was exported from; name that one")
    model = opened.load_model()
    with progress("Verifying against torch", len(samples)) as advance:
        return verify(folder, manifest, model, samples, progress=advance)
