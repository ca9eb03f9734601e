"""The bundle's README.md: what the model is, what it was trained on, and how exactly the export computes it."""

from collections.abc import Iterable, Mapping
from typing import Any

from parrot_runtime.languages import BY_CODE
from parrot_runtime.manifest import Manifest

# What the training configuration calls the world drawn by code, and the backbones that come with the package.
NANO, PACKAGE_NANO, EXTEND = "nano", "package:nano", "extend"


def model_card(manifest: Manifest, training: Mapping[str, Any]) -> str:
    """The card as Markdown; ``training`` is that part of the checkpoint's recipe, empty where it has none."""
    parts = (_head(manifest, training), _model(manifest), _training(training), _precision(manifest), _licence(training))
    return "\n".join(parts)


def _head(manifest: Manifest, training: Mapping[str, Any]) -> str:
    front = ["---", "library_name: parrot-edge", "pipeline_tag: image-text-to-text"]
    front += ["license: apache-2.0"] if _is_nano(training) else []
    front += ["language:", *(f"- {code}" for code in manifest.languages), "---", "", ""]
    names = ", ".join(BY_CODE[code].english_name if code in BY_CODE else code for code in manifest.languages)
    body = f"""# {manifest.name}, {manifest.precision} for {manifest.target}

A Parrot bundle: answers questions about pictures in {names}, without torch.

{_how_to_run(manifest)}"""
    return "\n".join(front) + body


def _how_to_run(manifest: Manifest) -> str:
    """What runs these graphs today, and the commands for it."""
    if not manifest.graphs:
        return _TENSORRT_ALONE
    return _WITH_ONNXRUNTIME + (_TENSORRT_BESIDE if manifest.tensorrt else "")


_WITH_ONNXRUNTIME = """```sh
parrot-run --bundle THIS_FOLDER picture.jpg "Görselde ne var?"
parrot-export inspect THIS_FOLDER
```
"""
_TENSORRT_BESIDE = """
That is onnxruntime. The same graphs are here for TensorRT too; `parrot-export engines THIS_FOLDER` builds their
engines, which `parrot-run` takes where they stand for the GPU there.
"""
_TENSORRT_ALONE = """It holds graphs for TensorRT alone: `parrot-run` needs engines of them for the GPU it runs on.
`verify` runs the graphs as they are written on onnxruntime's CPU provider, unless they are bfloat16, of which that has
no products.

```sh
parrot-export engines THIS_FOLDER
parrot-run --bundle THIS_FOLDER picture.jpg "Görselde ne var?"
parrot-export verify THIS_FOLDER
parrot-export inspect THIS_FOLDER
```
"""


def _model(manifest: Manifest) -> str:
    dims, picture = manifest.model, manifest.image.size
    mixture = "none (LLaVA)"
    if dims.experts:
        form = "H + α·M" if dims.residual == "paper" else "M + α·H"
        mixture = f"{dims.experts} experts ({dims.expert_kind}), residual {form} with α = {dims.alpha:g}"
    sizes = [
        f"| {name} | {record.size / 2**10:,.0f} KiB |"
        for name, record in sorted(manifest.files.items())
        if name.endswith((".safetensors", ".onnx"))
    ]
    return f"""## Model

| | |
|---|---|
| picture | {picture} × {picture} pixels, {dims.image_tokens} tokens |
| mixture | {mixture} |
| language model | {dims.layers} layers, width {dims.hidden_size}, vocabulary {dims.vocab_size:,} |
| attention | {dims.heads} heads, {dims.kv_heads} for keys and values |
| longest sequence | {dims.max_len:,} tokens, prompt and answer together |

| file | size |
|---|---|
{chr(10).join(sizes)}
"""


def _training(training: Mapping[str, Any]) -> str:
    if not training:
        return "## Data\n\nThe checkpoint this was exported from does not say what it was trained on.\n"
    stage, samples = training.get("stage"), training.get("samples")
    lines = [f"Configuration `{training.get('config')}`, stage {stage}, {samples} samples."]
    if _is_nano(training):
        lines.append(
            "nano is a tiny model of a world of pictures drawn by code, trained from scratch. It knows nothing else, "
            "and its answers are not those of the model in the paper."
        )
    languages = training.get("languages")
    if isinstance(languages, Mapping) and languages:
        lines += ["", "| language | samples |", "|---|---|", *(f"| {code} | {n} |" for code, n in languages.items())]
    return "\n".join(["## Data", "", *lines, ""])


def _precision(manifest: Manifest) -> str:
    result = manifest.verification
    if result.get("status") not in ("passed", "not run"):
        return "## Precision\n\n**Not verified**: this bundle was exported with `--no-verify`.\n"
    parts = [(_SETS[name], part) for name, part in (("cpu", result), ("tensorrt", result.get("tensorrt", {})))]
    tables = [_table(manifest, result, name, part) for name, part in parts if "graphs" in part]
    tensorrt = result.get("tensorrt", {})
    if "reason" in tensorrt:
        tables.append(f"TensorRT's graphs were **not run**: {tensorrt['reason']}.\n")
    tables.append(_LIMITS)
    return f"## Precision\n\n{chr(10).join(tables)}"


# What a table calls the graphs it is about.
_SETS = {"cpu": "Every graph", "tensorrt": "Every TensorRT graph, run by onnxruntime as it is written,"}
_LIMITS = """This says that the export computes what the checkpoint computes. How often the model is right is another \
question; `parrot-eval` measures it.
"""


def _table(manifest: Manifest, whole: Mapping[str, Any], name: str, result: Mapping[str, Any]) -> str:
    codes, tolerance = list(result["greedy"]), result["tolerance"]
    rows = [
        f"| {graph}: {tensor} | {_cells(format(by_code[code]['relative'], '.1e') for code in codes)}"
        for graph, tensors in result["graphs"].items()
        for tensor, by_code in tensors.items()
    ]
    counts = [result["greedy"][code] for code in codes]
    return f"""{_stored(manifest)} {name} was compared with {whole["reference"]}, on \
{whole["samples"]} questions about held-out pictures and {whole["steps"]} tokens of each answer. Largest difference, \
as a share of the largest value in torch ({tolerance["relative"]:g} is allowed: {tolerance["reason"]}):

| | {_cells(codes)}
|---|{"---|" * len(codes)}
{chr(10).join(rows)}
| chain: greedy tokens equal to torch's | {_cells(f"{count['equal']}/{count['tokens']}" for count in counts)}
"""


def _stored(manifest: Manifest) -> str:
    if not manifest.units:
        return f"Weights are stored as {manifest.precision}."
    parts = "; ".join(
        f"{kind} {', '.join(f'`{name}`' for name, one in manifest.units.items() if one == kind)}"
        for kind in sorted(set(manifest.units.values()))
    )
    rest = "float16" if manifest.precision == "mixed" else manifest.precision
    return f"Weights are stored part by part: {parts}; the rest {rest}."


def _cells(texts: Iterable[str]) -> str:
    return " | ".join(texts) + " |"


def _licence(training: Mapping[str, Any]) -> str:
    if _is_nano(training):
        return "## Licence\n\nApache-2.0: weights and data were made by this project's code alone.\n"
    return "## Licence\n\nThat of the checkpoint and of what it was trained on; the export adds no terms of its own.\n"


def _is_nano(training: Mapping[str, Any]) -> bool:
    """Trained on the nano world alone, from the package's own backbones."""
    settings, origin = training.get("settings", {}), training.get("from", {})
    if training.get("stage") == EXTEND:
        return set(settings.get("data", {}).get(EXTEND, ())) == {NANO} and _is_nano(origin)
    data, backbones = settings.get("data", {}), settings.get("backbones", {})
    sources = [*data.get("stage1", ()), *data.get("stage2", ())]
    return bool(sources) and set(sources) == {NANO} and set(backbones.values()) == {PACKAGE_NANO}
