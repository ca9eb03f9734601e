"""Figure 6: where pictures and words of each language lie, before and after the mixture of experts.

A question gives three points: the mean of its words' embeddings, of the projected visual tokens, and of the visual
tokens after the mixture. All get the same length, since words and pictures differ in length first of all, and are
laid out together by t-SNE (van der Maaten and Hinton, JMLR 9, 2008), so that both panels share their places.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parrot_evaluation.benchmarks import Benchmark
from parrot_evaluation.prompts import prompt
from parrot_evaluation.runner import select
from parrot_evaluation.tsv import Row, Table
from parrot_runtime.errors import InputError
from parrot_runtime.languages import BY_CODE
from parrot_runtime.manifest import MANIFEST_NAME
from parrot_runtime.plotting import COLOURS, import_pyplot, native_names

if TYPE_CHECKING:
    import numpy as np

Read = Callable[[Row, str], "tuple[np.ndarray, np.ndarray, np.ndarray]"]

_FEWEST = 4


@dataclass(frozen=True, eq=False)
class Points:
    """One question: means float32 ``[C]`` of its ``words``, and of its picture ``before`` and ``after`` the mixture."""

    language: str
    image_id: str
    words: "np.ndarray"
    before: "np.ndarray"
    after: "np.ndarray"


def gather(model: Path, benchmark: Benchmark, tables: Sequence[Table], limit: int) -> list[Points]:
    """About ``limit`` questions of each table, seen by the bundle or checkpoint in ``model``. Raises InputError."""
    read = _bundle(model) if (model / MANIFEST_NAME).is_file() else _checkpoint(model)
    points = []
    for row in (row for table in tables for row in select(table, benchmark, limit)):
        words, before, after = (each.mean(axis=0) for each in read(row, prompt(row, benchmark)))
        points.append(Points(row.language, row.image_id, words, before, after))
    return points


def _bundle(folder: Path) -> Read:
    from parrot_runtime.parrot import Parrot

    parrot = Parrot.load(folder)

    def read(row: Row, text: str) -> tuple:
        name = f"{row.language} row {row.index} (line {row.line})"
        found = parrot.features(parrot.picture(row.image_bytes, name=name), text)
        return found.words, found.before[0], found.after[0]

    return read


def _checkpoint(folder: Path) -> Read:
    try:
        import torch

        from parrot_export.checkpoint import open_checkpoint
    except ModuleNotFoundError as error:
        raise InputError(
            f"{folder} is no bundle, and reading a checkpoint needs {error.name}; install parrot-edge[export], or "
            "give a bundle"
        ) from error
    from parrot_runtime.image import preprocess, read_image
    from parrot_runtime.prompt import Turn
    from parrot_runtime.templates import prompt_encoder
    from parrot_runtime.tokenizer import load_tokenizer

    checkpoint = open_checkpoint(folder)
    model = checkpoint.load_model().eval()
    recipe = checkpoint.recipe
    prompts = prompt_encoder(load_tokenizer(checkpoint.tokenizer), recipe.prompt)

    def read(row: Row, text: str) -> tuple:
        turns, tokens = [Turn("user", text, 1)], model.config.image_tokens
        ids = prompts.encode(turns, image_tokens=tokens, system=recipe.prompt.system, generation=True).input_ids
        pixels = preprocess(read_image(row.image_bytes), recipe.image)[None]
        with torch.inference_mode():
            words = model.get_input_embeddings()(torch.from_numpy(ids[ids >= 0]))
            before = model.get_image_features(torch.from_numpy(pixels))
            mixture = model.model.moe
            text_mask = torch.ones(1, len(words), dtype=torch.bool)
            after = before if mixture is None else mixture(before, words[None], text_mask)[0]
        return words.numpy(), before[0].numpy(), after[0].numpy()

    return read


def lay_out(points: Sequence[Points], *, seed: int, perplexity: float) -> dict[str, list[Any]]:
    """t-SNE of all points: ``words`` and ``after`` of every question, ``before`` of every picture, float ``[2]`` each.

    ``before`` knows no question, so a picture asked about in six languages is one point. Raises InputError for too few
    points and where scikit-learn is missing.
    """
    import numpy as np

    try:
        from sklearn.manifold import TSNE
    except ImportError as error:
        raise InputError("scikit-learn is not installed; run `pip install 'parrot-edge[tsne]'`") from error
    pictures = {point.image_id: point.before for point in points}
    rows = [*(p.words for p in points), *(p.after for p in points), *pictures.values()]
    if len(points) < _FEWEST or perplexity >= len(rows):
        raise InputError(
            f"{len(points)} questions give {len(rows)} points, too few for a perplexity of {perplexity:g}; "
            "ask more with --limit, or give less with --perplexity"
        )
    matrix = np.stack(rows).astype(np.float64)
    matrix /= np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), 1e-12)
    placed = TSNE(perplexity=perplexity, random_state=seed, init="pca", learning_rate="auto").fit_transform(matrix)
    count = len(points)
    return {
        "words": list(placed[:count]),
        "after": list(placed[count : 2 * count]),
        "before": list(placed[2 * count :]),
    }


def tsne(points: Sequence[Points], title: str, *, seed: int, perplexity: float, unwritten: Sequence[str] = ()) -> Any:
    """The figure: words and pictures before the mixture on the left, words and pictures after it on the right."""
    placed = lay_out(points, seed=seed, perplexity=perplexity)
    codes = [code for code in BY_CODE if any(point.language == code for point in points)]
    figure, (left, right) = import_pyplot().subplots(
        1, 2, figsize=(9.6, 4.4), sharex=True, sharey=True, layout="constrained"
    )
    for axes in (left, right):
        for colour, code, name in zip(COLOURS, codes, native_names(codes, unwritten), strict=False):
            chosen = [place for place, point in enumerate(points) if point.language == code]
            words = [placed["words"][place] for place in chosen]
            axes.scatter(*zip(*words, strict=True), s=18, marker="o", color=colour, alpha=0.75, lw=0, label=name)
            if axes is right:
                after = [placed["after"][place] for place in chosen]
                axes.scatter(*zip(*after, strict=True), s=26, marker="^", color=colour, alpha=0.75, lw=0)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_color("#d5dadf")
    left.scatter(*zip(*placed["before"], strict=True), s=26, marker="^", color="#5b6770", alpha=0.6, lw=0)
    left.set_title("projected visual tokens, before the mixture", fontsize=9, loc="left")
    right.set_title("visual tokens after the mixture, by language asked in", fontsize=9, loc="left")
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False, fontsize=10)
    note = f"{title}; ● words, ▲ pictures; {len(points)} questions, perplexity {perplexity:g}, seed {seed}"
    figure.suptitle(note, fontsize=9, x=0.01, ha="left", color="#5b6770")
    return figure
