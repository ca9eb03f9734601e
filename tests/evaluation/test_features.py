"""Figure 6: the points, and t-SNE of them."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from tsv_files import choice, picture

from parrot_evaluation.benchmarks import BENCHMARKS
from parrot_evaluation.cli import main
from parrot_evaluation.features import Points, gather, lay_out, tsne
from parrot_evaluation.tsv import read_tsv
from parrot_runtime.errors import InputError
from parrot_runtime.parrot import Parrot

NANO = BENCHMARKS["nano"]


@pytest.fixture
def tables(make_tsv):
    rows = [choice("B", question=f"What is number {n}?", image=picture(n // 2)) for n in range(6)]
    return [read_tsv(make_tsv(f"nano_{code}.tsv", rows)) for code in ("en", "tr")]


def test_what_a_bundle_gives(bundle: Path, tables) -> None:
    """Before: the encoder's graph. After: what the experts' graph makes of it under the words, as in an answer."""
    points = gather(bundle, NANO, tables, 3)
    assert [point.language for point in points] == ["en"] * 3 + ["tr"] * 3
    parrot = Parrot.load(bundle)
    row = tables[0].rows[0]
    from parrot_evaluation.prompts import prompt

    found = parrot.features(row.image_bytes, prompt(row, NANO))
    pixels = parrot.picture(row.image_bytes).pixel_values[None]
    features = parrot._backend.encode_images(pixels)
    np.testing.assert_allclose(found.before, features, rtol=1e-5, atol=1e-6)
    mask = np.ones((1, len(found.words)), np.bool_)
    after, routing = parrot._backend.route(features, found.words[None].astype(parrot._backend.embeds_dtype), mask)
    np.testing.assert_allclose(found.after, after, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.routing, routing, rtol=1e-4, atol=1e-6)
    assert found.before.shape == found.after.shape == (1, parrot.manifest.model.image_tokens, found.words.shape[1])
    assert not np.allclose(found.before, found.after)
    assert found.routing.tolist() == parrot.ask(row.image_bytes, prompt(row, NANO), max_new_tokens=1).routing.tolist()
    with pytest.raises(InputError, match="no picture"):
        parrot.features(None, "What?")


def test_a_checkpoint_gives_what_its_model_computes(tables, tmp_path) -> None:
    """The tiny checkpoint in the released format, with a tokenizer beside it, which it does not bring."""
    torch = pytest.importorskip("torch")
    sys.path.insert(0, str(Path(__file__).parents[1] / "export"))
    from tiny_checkpoint import tiny_tokenizer

    from parrot_export.checkpoint import open_checkpoint

    folder = shutil.copytree(Path(__file__).parents[1] / "data" / "released_tiny", tmp_path / "released")
    tiny_tokenizer().save(str(folder / "tokenizer.json"))
    (point, *_) = points = gather(folder, NANO, tables, 2)
    assert len(points) == 4
    checkpoint = open_checkpoint(folder)
    model = checkpoint.load_model()
    from parrot_evaluation.prompts import prompt
    from parrot_evaluation.runner import select
    from parrot_runtime.image import preprocess, read_image
    from parrot_runtime.prompt import Turn
    from parrot_runtime.templates import prompt_encoder
    from parrot_runtime.tokenizer import load_tokenizer

    row = select(tables[0], NANO, 2)[0]
    ids = prompt_encoder(load_tokenizer(checkpoint.tokenizer), checkpoint.recipe.prompt).encode(
        [Turn("user", prompt(row, NANO), 1)],
        image_tokens=model.config.image_tokens,
        system=checkpoint.recipe.prompt.system,
        generation=True,
    )
    token_ids = torch.from_numpy(ids.input_ids).clone()
    token_ids[token_ids < 0] = model.config.image_token_id
    pixels = torch.from_numpy(preprocess(read_image(row.image_bytes), checkpoint.recipe.image)[None])
    with torch.inference_mode():
        # The model's own way from a prompt to the decoder's input: the visual tokens stand in their places there.
        embeds, _ = model.model.embed_prompt(token_ids[None], pixel_values=pixels)
    visual = embeds[0][token_ids == model.config.image_token_id].mean(dim=0).numpy()
    words = embeds[0][token_ids != model.config.image_token_id].mean(dim=0).numpy()
    np.testing.assert_allclose(point.after, visual, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(point.words, words, rtol=1e-4, atol=1e-6)
    assert not np.allclose(point.before, point.after)


def points_of(count: int) -> list[Points]:
    """Words of two languages far apart, pictures apart from both."""
    random = np.random.default_rng(3)
    centres = {"en": np.eye(8)[0], "ar": np.eye(8)[1]}
    return [
        Points(
            code,
            f"picture {n % 5}",
            (centre + random.normal(0, 0.02, 8)).astype(np.float32),
            (np.eye(8)[4] + 0.1 * np.eye(8)[5] * (n % 5)).astype(np.float32),
            (np.eye(8)[6] + random.normal(0, 0.02, 8)).astype(np.float32),
        )
        for code, centre in centres.items()
        for n in range(count)
    ]


def test_t_sne_is_seeded_and_keeps_languages_apart() -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    points = points_of(12)
    placed, again = (lay_out(points, seed=4, perplexity=5) for _ in range(2))
    assert {name: len(each) for name, each in placed.items()} == {"words": 24, "after": 24, "before": 5}
    for name in placed:
        np.testing.assert_array_equal(placed[name], again[name])
    english, arabic = np.array(placed["words"][:12]), np.array(placed["words"][12:])
    inside = np.linalg.norm(english - english.mean(axis=0), axis=1).max()
    assert np.linalg.norm(english.mean(axis=0) - arabic.mean(axis=0)) > 2 * inside


def test_the_figure_names_languages_in_their_script() -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    pyplot = pytest.importorskip("matplotlib.pyplot")
    figure = tsne(points_of(12), "tiny", seed=0, perplexity=5)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["English", "العربية"]
    left, right = figure.axes
    # Left: words twice and the pictures; right: words and pictures of both languages.
    assert [len(each.get_offsets()) for each in left.collections] == [12, 12, 5]
    assert [len(each.get_offsets()) for each in right.collections] == [12] * 4
    assert "seed 0" in figure.get_suptitle()
    pyplot.close(figure)


def test_too_few_points_and_no_scikit_learn_are_one_line(monkeypatch) -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    with pytest.raises(InputError, match="too few for a perplexity of 30"):
        lay_out(points_of(3), seed=0, perplexity=30)
    monkeypatch.setitem(sys.modules, "sklearn.manifold", None)
    with pytest.raises(InputError, match=r"pip install 'parrot-edge\[tsne\]'"):
        lay_out(points_of(12), seed=0, perplexity=5)


def test_from_the_command_line(bundle: Path, tables, tmp_path) -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    options = ["--data", tables[0].path.parent, "--languages", "tr,en", "--perplexity", 3, "-o", tmp_path / "t.png"]
    result = CliRunner().invoke(main, ["plot", "tsne", str(bundle), *map(str, options)])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "t.png").stat().st_size > 5000
    result = CliRunner().invoke(main, ["plot", "tsne", str(tmp_path / "none"), *map(str, options), "--force"])
    assert result.exit_code == 2
    assert len(result.stderr.strip().splitlines()) == 1
