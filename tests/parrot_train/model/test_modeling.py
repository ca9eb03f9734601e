"""The whole model: splicing, routing per sample, padding, loss, generation, and what is saved."""

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForImageTextToText, CLIPVisionModel, LogitsProcessorList, Qwen2Config

from parrot_train.model import ParrotConfig, ParrotForConditionalGeneration
from parrot_train.model.trainable import set_trainable

from .conftest import pictures, prompts, tiny_config, tiny_model

# float32 sums in another order: batched against single, padded against not.
CLOSE = {"atol": 2e-4, "rtol": 1e-4}


@pytest.fixture(scope="module")
def model() -> ParrotForConditionalGeneration:
    return tiny_model()


def test_vision_features_are_clips_hidden_state_minus_two(model):
    whole = CLIPVisionModel(model.config.vision_config).eval()
    tower = model.model.vision_tower.state_dict()
    missing = whole.load_state_dict(tower, strict=False).missing_keys
    assert all(name.startswith(("encoder.layers.2.", "post_layernorm")) for name in missing)
    images = pictures(3)
    expected = whole(images, output_hidden_states=True).hidden_states[-2]
    torch.testing.assert_close(model.model.get_vision_features(images), expected)
    assert expected.shape == (3, 17, 12)


def test_visual_tokens_stand_where_the_image_stands(model):
    ids, mask = prompts("5i9", length=33)
    images = pictures(1)
    embed = model.model.language_model.embed_tokens
    words = embed(ids.clamp(min=0))
    tokens, _ = model.model.mix(model.get_image_features(images), ids < 0, words, (ids >= 0) & mask.bool())
    spliced = torch.cat([words[:, :5], tokens, words[:, 22:]], dim=1)
    expected = model(inputs_embeds=spliced, attention_mask=mask).logits
    torch.testing.assert_close(model(ids, mask, images).logits[:, :31], expected[:, :31])


@pytest.mark.parametrize("left", [False, True])
def test_a_batch_is_its_samples_alone(model, left):
    """Batch 3 of length 60: two images, one image, none; each routed with its own prompt, padding unseen."""
    layouts = ("4i3i8", "6i7", "9")
    ids, mask = prompts(*layouts, length=60, left=left)
    images = pictures(3)
    together = model(ids, mask, images)
    assert together.routing.shape == (3, 6)
    start = 0
    for row, layout in enumerate(layouts):
        count = layout.count("i")
        alone_ids = ids[row][mask[row].bool()][None]
        part = images[start : start + count] if count else None
        alone = model(alone_ids, torch.ones_like(alone_ids), part)
        torch.testing.assert_close(together.logits[row][mask[row].bool()], alone.logits[0], **CLOSE)
        if count:
            torch.testing.assert_close(together.routing[start : start + count], alone.routing, **CLOSE)
        start += count


@pytest.mark.parametrize("left", [False, True])
def test_positions_count_from_a_samples_own_start(model, left):
    """Rotary positions only matter by their differences, so logits alone would not show a start at the padding."""
    ids, mask = prompts("4i8", "5", length=33, left=left)
    given = []
    rotary = model.model.language_model.rotary_emb
    hook = rotary.register_forward_pre_hook(lambda _module, inputs: given.append(inputs[1]))
    model(ids, mask, pictures(1))
    hook.remove()
    for row, length in enumerate((29, 5)):
        assert given[0][row][mask[row].bool()].tolist() == list(range(length))


def test_the_question_moves_the_routing(model):
    ids, mask = prompts("4i8", length=33)
    other = ids.clone()
    other[0, 25] = (other[0, 25] + 40) % 97
    images = pictures(1)
    assert not torch.allclose(model(ids, mask, images).routing, model(other, mask, images).routing, atol=1e-5)


def test_answers_do_not_reach_the_router(model):
    ids, mask = prompts("4i12", length=33)
    labels = torch.full_like(ids, -100)
    labels[0, 28:] = ids[0, 28:]
    changed = ids.clone()
    changed[0, 28:] = (changed[0, 28:] + 31) % 97
    images = pictures(1)
    routing = [
        model(each, mask, images, labels=torch.where(labels == -100, labels, each)).routing for each in (ids, changed)
    ]
    torch.testing.assert_close(*routing)


def test_loss_is_the_mean_over_answers(model):
    ids, mask = prompts("4i8", "6i3", "11", length=40)
    labels = torch.where(torch.rand(ids.shape, generator=torch.Generator().manual_seed(2)) < 0.4, ids, -100)
    labels[(ids < 0) | (mask == 0)] = -100
    images = pictures(2)
    prompt = (ids >= 0) & (labels == -100) & mask.bool()
    logits = model(ids, mask, images, prompt_mask=prompt).logits
    expected = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    torch.testing.assert_close(model(ids, mask, images, labels=labels).loss, expected)
    answers = (labels[:, 1:] != -100).sum()
    scaled = model(ids, mask, images, labels=labels, num_items_in_batch=answers * 2).loss
    torch.testing.assert_close(scaled, expected / 2)
    short = model(ids, mask, images, labels=labels, answers_only=True).logits
    torch.testing.assert_close(short, logits[:, :-1][labels[:, 1:] != -100], **CLOSE)


def test_only_answers_pass_through_the_last_mlp_and_the_vocabulary(model):
    ids, mask = prompts("4i8", "6i3", length=33)
    labels = torch.full_like(ids, -100)
    labels[0, 26:29] = ids[0, 26:29]
    rows = []
    layers = model.model.language_model.layers
    watched = (*(layer.mlp for layer in layers), model.lm_head)
    hooks = [
        module.register_forward_hook(lambda _module, inputs, _output: rows.append(inputs[0].shape))
        for module in watched
    ]
    output = model(ids, mask, pictures(2), labels=labels)
    for hook in hooks:
        hook.remove()
    assert rows == [*[(2, 33, 24)] * (len(layers) - 1), (3, 24), (3, 24)]
    assert output.logits is None
    assert output.past_key_values is None
    with pytest.raises(ValueError, match="give labels"):
        model(ids, mask, pictures(2), answers_only=True)


@pytest.mark.parametrize("text", ["qwen2", "qwen3", "llama"])
@pytest.mark.parametrize("recompute", [False, True])
def test_the_rows_that_are_left_out_change_no_gradient(text, recompute):
    """Against the loss of all logits: float32 products of other shapes, so a few roundings apart."""
    model = tiny_model(text=text).train()
    assert model.config.text_config.model_type == text
    if recompute:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    ids, mask = prompts("4i8", "6i3", "11", length=33)
    labels = torch.where(torch.rand(ids.shape, generator=torch.Generator().manual_seed(2)) < 0.4, ids, -100)
    labels[(ids < 0) | (mask == 0)] = -100
    prompt = (ids >= 0) & (labels == -100) & mask.bool()
    found = []
    for arguments in ({"labels": labels}, {"use_cache": False}):
        model.zero_grad()
        output = model(ids, mask, pictures(2), prompt_mask=prompt, **arguments)
        loss = output.loss
        if loss is None:
            loss = torch.nn.functional.cross_entropy(output.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        loss.backward()
        found.append({name: each.grad for name, each in model.named_parameters() if each.grad is not None})
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        torch.testing.assert_close(gradient, found[1][name], rtol=1e-4, atol=1e-6, msg=name)


def test_a_batch_without_answers_has_loss_zero(model):
    ids, mask = prompts("4i8", length=33)
    loss = model(ids, mask, pictures(1), labels=torch.full_like(ids, -100)).loss
    assert loss.item() == 0
    loss.backward()
    assert all(each.grad is not None for each in model.model.language_model.parameters())  # ranks stay in step


def test_features_computed_before_stand_for_the_images(model):
    ids, mask = prompts("4i8", "2i2i9", length=60)
    images = pictures(3)
    features = model.get_image_features(images)
    assert torch.equal(model(ids, mask, image_features=features).logits, model(ids, mask, images).logits)
    with pytest.raises(ValueError, match="give one of them"):
        model(ids, mask, images, image_features=features)


def test_the_router_reads_what_the_prompt_mask_says(model):
    """Only words 22 to 24: the routing is that of the mixture on their embeddings alone."""
    ids, mask = prompts("4i8", length=33)
    chosen = torch.zeros_like(mask, dtype=torch.bool)
    chosen[0, 21:24] = True
    images = pictures(1)
    words = model.get_input_embeddings()(ids[:, 21:24])
    _, expected = model.model.moe(model.get_image_features(images), words, torch.ones(1, 3, dtype=torch.bool))
    torch.testing.assert_close(model(ids, mask, images, prompt_mask=chosen).routing, expected)
    # Image positions and padding are no text, whatever the mask says.
    everything = model(ids, mask, images, prompt_mask=torch.ones_like(mask)).routing
    torch.testing.assert_close(everything, model(ids, mask, images).routing)


def test_images_and_positions_must_agree(model):
    ids, mask = prompts("4i8", length=33)
    with pytest.raises(ValueError, match=r"\[17\] image positions per sample, but there are 2 images of 17"):
        model(ids, mask, pictures(2))
    with pytest.raises(ValueError, match="17 image positions, but there is no pixel_values"):
        model(ids, mask)
    ids, mask = prompts("4i8", "4i8", length=33)
    ids[0, 20], ids[1, 21] = 5, -200  # as many as two images, but not whole ones
    with pytest.raises(ValueError, match=r"\[16, 18\] image positions per sample"):
        model(ids, mask, pictures(2))


@pytest.mark.parametrize("experts", [6, 0])
def test_generate_is_step_by_step_argmax(experts):
    model = tiny_model(num_experts=experts)
    ids, mask = prompts("4i8", length=29)
    images = pictures(1)
    prompt = ids >= 0
    expected = ids.clone()
    for _ in range(7):
        grown = torch.cat([prompt, torch.zeros(1, expected.shape[1] - ids.shape[1], dtype=torch.bool)], dim=1)
        logits = model(expected, torch.ones_like(expected), images, prompt_mask=grown).logits
        expected = torch.cat([expected, logits[:, -1:].argmax(-1)], dim=1)
    options = {"max_new_tokens": 7, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    assert model.generate(ids, attention_mask=mask, pixel_values=images, **options).tolist() == expected.tolist()


def test_generate_in_a_left_padded_batch_gives_the_same_tokens(model):
    layouts = ("4i8", "3i2i5", "9")
    ids, mask = prompts(*layouts, length=50, left=True)
    images = pictures(3)
    options = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    together = model.generate(ids, attention_mask=mask, pixel_values=images, **options)[:, 50:]
    parts = (images[:1], images[1:], None)
    for row, part in enumerate(parts):
        alone = ids[row][mask[row].bool()][None]
        single = model.generate(alone, attention_mask=torch.ones_like(alone), pixel_values=part, **options)
        assert single[0, alone.shape[1] :].tolist() == together[row].tolist()


@pytest.mark.parametrize("options", [{"do_sample": True, "top_k": 1}, {"num_beams": 3}])
def test_copies_of_a_row_keep_its_images(model, options):
    """Two answers per row: each row's copies see the row's own images, in their order."""
    ids, mask = prompts("2i3i4", "3i2i4", length=43, left=True)
    images = pictures(4)
    common = {"max_new_tokens": 5, "eos_token_id": None, "pad_token_id": 0, "num_return_sequences": 2} | options
    together = model.generate(ids, attention_mask=mask, pixel_values=images, **common)
    assert together.shape == (4, 48)
    assert torch.equal(together[:, :43], ids.repeat_interleave(2, dim=0))
    for row in range(2):
        alone = model.generate(ids[row : row + 1], pixel_values=images[2 * row : 2 * row + 2], **common)
        assert together[2 * row : 2 * row + 2].tolist() == alone.tolist()
    if "do_sample" in options:  # with one token to choose from, sampling is greedy
        greedy = model.generate(ids, attention_mask=mask, pixel_values=images, **common | {"num_return_sequences": 1})
        assert torch.equal(together, greedy.repeat_interleave(2, dim=0))


def test_a_repetition_penalty_counts_the_words_of_the_prompt(model):
    ids, _ = prompts("4i8", length=29)
    images, penalty = pictures(1), 1.7
    text = ids >= 0
    expected = ids.clone()
    for _ in range(6):
        grown = torch.cat([text, torch.zeros(1, expected.shape[1] - 29, dtype=torch.bool)], dim=1)
        scores = model(expected, pixel_values=images, prompt_mask=grown).logits[0, -1]
        seen = expected[expected >= 0].unique()
        scores[seen] = torch.where(scores[seen] < 0, scores[seen] * penalty, scores[seen] / penalty)
        expected = torch.cat([expected, scores.argmax().reshape(1, 1)], dim=1)
    options = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    shown = []
    spy = LogitsProcessorList([lambda so_far, scores: shown.append(so_far) or scores])
    answers = [
        model.generate(ids, pixel_values=images, repetition_penalty=value, logits_processor=spy, **options)
        for value in (penalty, 1.0)
    ]
    assert set(shown[0][0].tolist()) == set(ids[text].tolist())  # nothing stands for the image that was not said
    assert answers[0].tolist() == expected.tolist()
    assert answers[0].tolist() != answers[1].tolist()


def test_generation_after_padding_is_refused(model):
    ids, mask = prompts("4i8", length=33)
    with pytest.raises(ValueError, match="pad the prompts on the left"):
        model.generate(ids, attention_mask=mask, pixel_values=pictures(1))


def test_the_vision_tower_runs_once_per_answer(model, monkeypatch):
    calls = []
    encode = model.model.get_vision_features
    monkeypatch.setattr(model.model, "get_vision_features", lambda images: calls.append(1) or encode(images))
    ids, mask = prompts("4i8", length=29)
    model.generate(ids, attention_mask=mask, pixel_values=pictures(1), max_new_tokens=5, eos_token_id=None)
    assert len(calls) == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("tied", [True, False])
def test_what_is_saved_is_read_back_bit_by_bit(tmp_path, dtype, tied):
    model = tiny_model(tie_word_embeddings=tied).to(dtype)
    model.save_pretrained(tmp_path)
    # The Trainer resumes by putting a file's tensors into the model by name.
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert set(file.keys()) == model.state_dict().keys() - ({"lm_head.weight"} if tied else set())
    assert AutoConfig.from_pretrained(tmp_path).alpha == 0.7
    again = AutoModelForImageTextToText.from_pretrained(tmp_path, dtype=dtype)
    assert type(again) is ParrotForConditionalGeneration
    assert again.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(weight, again.state_dict()[name]) for name, weight in model.state_dict().items())
    assert (again.lm_head.weight is again.model.language_model.embed_tokens.weight) == tied


@pytest.mark.parametrize(
    ("stage", "learning"),
    [
        (1, {"multi_modal_projector"}),
        (2, {"multi_modal_projector", "moe", "language_model", "lm_head"}),
        ("extend", {"moe"}),
    ],
)
def test_what_learns_in_each_stage(stage, learning):
    model = tiny_model(tie_word_embeddings=False)
    counts = set_trainable(model, stage)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {name.removeprefix("model.").split(".")[0] for name in trained} == learning
    assert sum(counts.values()) == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert set_trainable(model, 1).keys() == {"projector"}
    with pytest.raises(ValueError, match="expected 1, 2 or 'extend'"):
        set_trainable(model, 3)


def test_kept_experts_get_no_gradient():
    model = tiny_model(num_experts=5)
    counts = set_trainable(model, "extend", kept=3)
    assert counts == {"moe": sum(parameter[3:].numel() for parameter in model.model.moe.parameters())}
    sum(parameter.square().sum() for parameter in model.model.moe.parameters()).backward()
    for name, parameter in model.model.moe.named_parameters():
        assert not parameter.grad[:3].any(), name
        assert torch.equal(parameter.grad[3:], 2 * parameter[3:].detach()), name


@pytest.mark.filterwarnings("ignore:.gradient_checkpointing_enable. is deprecated")
def test_gradients_reach_what_learns_and_only_that():
    model = tiny_model().train()
    set_trainable(model, 2)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    ids, mask = prompts("4i8", "5", length=33)
    model(
        ids, mask, pictures(1), labels=torch.where((ids > 50) & (mask > 0), ids, -100), use_cache=False
    ).loss.backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name


@pytest.mark.parametrize(("outer", "inner"), [(True, False), (False, True), (False, False)])
def test_the_two_configurations_agree_on_tied_embeddings(outer, inner):
    config = ParrotConfig(text_config=Qwen2Config(tie_word_embeddings=inner), tie_word_embeddings=outer)
    assert config.tie_word_embeddings == config.text_config.tie_word_embeddings == (outer or inner)


@pytest.mark.parametrize("experts", [6, 0])
def test_text_alone_gives_every_learning_weight_a_gradient(experts):
    """An empty batch of images passes through projector and mixture, so that ranks stay in step: zeros, not None."""
    model = tiny_model(num_experts=experts).train()
    set_trainable(model, 2)
    ids, mask = prompts("7", "5", length=8)
    output = model(ids, mask, pictures(0), labels=torch.where(mask > 0, ids, -100))
    output.loss.backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
        if "projector" in name or "moe" in name:
            assert not parameter.grad.any()
    torch.testing.assert_close(output.loss, model(ids, mask, labels=torch.where(mask > 0, ids, -100)).loss)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.filterwarnings("ignore:.gradient_checkpointing_enable. is deprecated")
def test_a_frozen_vision_tower_records_no_graph(recompute):
    model = tiny_model().train()
    set_trainable(model, 2)
    if recompute:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    assert not model.model.get_vision_features(pictures(1)).requires_grad
    assert model.get_image_features(pictures(1)).requires_grad


def test_attention_is_torchs_own_in_both_towers(model):
    towers = (model.model.vision_tower, model.model.language_model)
    assert {tower.config._attn_implementation for tower in towers} == {"sdpa"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_experts": -1}, "num_experts is -1"),
        ({"image_token_id": 5}, "image_token_id is 5"),
        ({"expert_kind": "x"}, "expert_kind"),
        ({"vision_feature_layer": 4}, "4 hidden states"),
    ],
)
def test_a_configuration_that_describes_no_model_is_refused(settings, message):
    with pytest.raises(StrictDataclassError, match=message):
        tiny_config(**settings)
