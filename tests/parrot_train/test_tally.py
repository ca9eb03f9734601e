"""What is counted between log lines, against sums done one by one in float64."""

import json
from collections import defaultdict

import numpy as np
import pytest
import torch

from parrot_runtime.errors import InputError
from parrot_train.tally import TALLY_FILE, LanguageTally

CODES = ("tr", "ar")
EXPERTS = 4


def batch(seed, *, unlabelled=()):
    """Three samples of up to 33 tokens with 0, 1 and 2 images."""
    random = np.random.default_rng(seed)
    answers = random.random((3, 33)) < 0.3
    answers[list(unlabelled)] = False
    images = np.array([2, 0, 1])
    return {
        "languages": torch.tensor([0, 1, 0] if seed % 2 else [1, 1, 0]),
        "answers": torch.from_numpy(answers),
        "losses": torch.from_numpy(random.random(answers.sum())).float(),
        "lengths": torch.from_numpy(random.integers(20, 34, 3)),
        "images": torch.from_numpy(images),
        "routing": torch.from_numpy(random.dirichlet(np.ones(EXPERTS), 3)).float(),
    }


def reference(batches):
    losses, entropies, shares = defaultdict(list), defaultdict(list), defaultdict(list)
    for each in batches:
        loss, image = iter(each["losses"].tolist()), iter(each["routing"].double().numpy())
        for row, language in enumerate(each["languages"].tolist()):
            count = int(each["answers"][row].sum())
            losses[CODES[language]] += [next(loss) for _ in range(count)]
            for _ in range(int(each["images"][row])):
                routing = next(image)
                if count:
                    entropies[CODES[language]].append(-(routing * np.log(routing)).sum())
                    shares[CODES[language]].append(routing)
    return losses, entropies, shares


def same(numbers):
    return numbers


def test_a_line_is_what_the_batches_say_one_by_one():
    tally = LanguageTally(CODES, EXPERTS, torch.device("cpu"))
    batches = [batch(1), batch(2, unlabelled=[0]), batch(4)]
    for each in batches:
        tally.add(**each)
    line = tally.line(same)
    losses, entropies, shares = reference(batches)
    assert {*entropies} == {*CODES}
    for code in CODES:
        assert line[f"loss_{code}"] == pytest.approx(np.mean(losses[code]), rel=1e-12)
        assert line[f"answer_tokens_{code}"] == line[f"answer_tokens_total_{code}"] == len(losses[code])
        assert line[f"routing_entropy_{code}"] == pytest.approx(np.mean(entropies[code]), rel=1e-12)
        found = [line[f"routing_{code}_{expert}"] for expert in range(EXPERTS)]
        np.testing.assert_allclose(found, np.mean(shares[code], axis=0), rtol=1e-12)
    assert line["tokens_per_second"] > 0

    tally.add(**batch(5))
    second = tally.line(same)
    assert second["answer_tokens_tr"] < second["answer_tokens_total_tr"]
    assert second["answer_tokens_total_tr"] == line["answer_tokens_tr"] + second["answer_tokens_tr"]


def test_without_experts_and_without_images_there_is_no_routing():
    tally = LanguageTally(CODES, 0, torch.device("cpu"))
    tally.add(**(batch(1) | {"routing": None}))
    assert not any("routing" in name for name in tally.line(same))
    tally = LanguageTally(CODES, EXPERTS, torch.device("cpu"))
    tally.add(**(batch(1) | {"routing": torch.empty(0, EXPERTS), "images": torch.zeros(3, dtype=torch.int64)}))
    assert not any("routing" in name for name in tally.line(same))


def test_counts_go_on_from_a_checkpoint_whichever_ranks_made_them(tmp_path):
    whole, one, two = (LanguageTally(CODES, EXPERTS, torch.device("cpu")) for _ in range(3))
    for each in (whole, one):
        each.add(**batch(1))
    for each in (whole, two):
        each.add(**batch(2))
    state = one.state(lambda sums: sums + two._sums)
    (tmp_path / TALLY_FILE).write_text(json.dumps(state))
    main, other = (LanguageTally(CODES, EXPERTS, torch.device("cpu")) for _ in range(2))
    main.restore(tmp_path, main=True)
    other.restore(tmp_path, main=False)
    for each in (whole, other):
        each.add(**batch(3))
    expected, found = whole.line(same), main.line(lambda sums: sums + other._sums)
    for name in expected.keys() - {"tokens_per_second"}:
        assert found[name] == pytest.approx(expected[name], rel=1e-12), name


@pytest.mark.parametrize("text", [None, "{", '{"tr": {"sums": [1], "earlier": 0}}', '{"tr": 1, "ar": 2}'])
def test_counts_of_something_else_are_refused(tmp_path, text):
    if text is not None:
        (tmp_path / TALLY_FILE).write_text(text)
    with pytest.raises(InputError, match=r"tally\.json: not the counts of this run.*--force"):
        LanguageTally(CODES, EXPERTS, torch.device("cpu")).restore(tmp_path, main=True)
