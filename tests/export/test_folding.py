"""Folded checkpoints compute what plain ones do: every graph, at odd shapes, with factors that are far from one."""

import numpy as np
import pytest
from tensorrt_graphs import Graphs, random_feed
from tiny_checkpoint import relative_error, stored, tiny_model, write_checkpoint

from parrot_export.author import author
from parrot_export.checkpoint import open_checkpoint
from parrot_export.folding import ScaledTensor, fold_sites, folded
from parrot_export.plan import plan
from parrot_runtime.errors import InputError

FORMS = {
    "paper": {"num_experts": 3},
    "released": {"expert_kind": "swiglu", "residual": "released", "num_experts": 3, "tie_word_embeddings": True},
}


def factors_for(checkpoint) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    sites = fold_sites(checkpoint.architecture).values()
    return {site.product: np.exp(rng.normal(0, 1, site.channels)).astype(np.float32) for site in sites}


@pytest.mark.parametrize("form", ["paper", "released"])
def test_every_graph_computes_what_it_did(form, tmp_path):
    source = open_checkpoint(write_checkpoint(tmp_path / "checkpoint", tiny_model(**FORMS[form])))
    view = folded(source, factors_for(source))
    exact = plan("fp32", "tensorrt", "tensorrt-classic")
    plain, scaled = (Graphs(author(each, exact, 64), tmp_path / name) for each, name in ((source, "a"), (view, "b")))
    for role, graph in plain.authored.graphs.items():
        feed = random_feed(graph, batch=3, images=3, text=33, seq=33, past_len=0, total_len=33)
        if "position_ids" in feed:
            feed["position_ids"] = np.tile(np.arange(33), (3, 1))
        for name, expected in plain.run(role, **feed).items():
            if "present" in name and "value" in name:
                continue  # values are what the factors of the attention's output divide
            # float32, and factors of up to e³ in between.
            assert relative_error(scaled.run(role, **feed)[name], expected) < 1e-4, (role, name)


def test_every_site_is_of_the_model(tmp_path):
    """Each reads and divides tensors of the right sizes; released experts and an output layer of its own are sites."""
    for form, settings in (("paper", FORMS["paper"]), ("released", FORMS["released"])):
        source = open_checkpoint(write_checkpoint(tmp_path / form, tiny_model(**settings)))
        sites = fold_sites(source.architecture)
        for site in sites.values():
            for name in site.divided:
                shape = source.tensors[name].shape
                assert np.prod(shape[:-1] if len(shape) > 1 else shape) == site.channels, name
            for name in site.weights:
                shape = source.tensors[name].shape
                columns = shape[0] * shape[2] if len(shape) == 3 else shape[-1]
                assert len(site.spread_out(np.ones(site.channels))) == columns, name
        assert ("model.moe.experts.down_proj" in sites) == (form == "released")
        assert ("lm_head" in sites) == (form == "paper")


def test_chunks_change_nothing(tmp_path, monkeypatch):
    array = np.random.default_rng(0).standard_normal((3, 11, 5)).astype(np.float32)
    tensor = stored(tmp_path, array)
    rows, columns = np.arange(1, 34, dtype=np.float32), np.arange(1, 16, dtype=np.float32)
    by_rows = ScaledTensor("a", np.dtype(np.float32), array.shape, (), tensor, rows, columns)
    beside = ScaledTensor("a", np.dtype(np.float32), array.shape, (), tensor, None, columns)
    monkeypatch.setattr("parrot_export.slabs.CHUNK_BYTES", 64)
    expected = array * columns.reshape(3, 1, 5)
    np.testing.assert_allclose(by_rows.load(), expected * rows.reshape(3, 11, 1), rtol=1e-6)
    turned = np.concatenate(list(beside.column_chunks())).reshape(11, 15)
    np.testing.assert_allclose(turned, expected.transpose(1, 0, 2).reshape(11, 15), rtol=1e-6)


@pytest.mark.parametrize(
    ("product", "numbers"),
    [
        ("model.language_model.layers.9.mlp.gate_proj", np.ones(48)),
        ("model.language_model.layers.0.mlp.gate_proj", np.ones(47)),
        ("model.language_model.layers.0.mlp.gate_proj", np.zeros(48)),
    ],
)
def test_factors_that_do_not_fit_are_refused(tmp_path, product, numbers):
    source = open_checkpoint(write_checkpoint(tmp_path / "checkpoint", tiny_model(**FORMS["paper"])))
    with pytest.raises(InputError, match=r"layers\.[09]\.mlp\.gate_proj: its factors do not fit"):
        folded(source, {product: numbers.astype(np.float32)})
