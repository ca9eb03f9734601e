"""Which token comes next."""

import numpy as np
import pytest

from parrot_runtime.errors import InputError, ParrotError
from parrot_runtime.sampling import Sampler, Sampling, _likeliest

LOGITS = np.array([0.5, 2.0, -1.0, 1.0, -np.inf], np.float32)


def _share(sampling, logits, draws=4000):
    sampler = Sampler(sampling)
    return np.bincount([sampler(logits) for _ in range(draws)], minlength=len(logits)) / draws


def _softmax(logits):
    e = np.exp(logits - logits.max())
    return e / e.sum()


def test_the_default_is_greedy():
    assert Sampler(Sampling())(LOGITS) == 1


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_temperature_draws_from_the_softmax(temperature):
    share = _share(Sampling(temperature, seed=1), LOGITS)
    # Four standard deviations of a share of 0.5 over 4000 draws are 0.032.
    np.testing.assert_allclose(share, _softmax(LOGITS / temperature), atol=0.032)
    assert share[4] == 0


def test_top_p_keeps_the_fewest_tokens_that_reach_it():
    probabilities = _softmax(LOGITS)  # 0.15 0.66 0.03 0.24 0
    share = _share(Sampling(1.0, top_p=0.8, seed=1), LOGITS)
    expected = np.where(probabilities > 0.2, probabilities, 0)
    np.testing.assert_allclose(share, expected / expected.sum(), atol=0.032)
    assert _share(Sampling(1.0, top_p=1e-9, seed=1), LOGITS, 50)[1] == 1


@pytest.mark.parametrize("spread", [0.5, 3.0, 8.0])
@pytest.mark.parametrize("top_p", [0.1, 0.9, 0.999999])
def test_top_p_of_a_large_vocabulary(spread, top_p):
    """Spread 0.5 needs nearly the whole vocabulary, 8 a few tokens: the set is the same as by sorting everything."""
    probabilities = _softmax(np.random.default_rng(0).standard_normal(5003) * spread)
    order = np.argsort(-probabilities)
    fewest = next(n for n in range(1, 5004) if probabilities[order[:n]].sum() >= top_p)
    np.testing.assert_array_equal(_likeliest(probabilities, top_p), order[:fewest])


def test_top_p_of_equal_tokens():
    share = _share(Sampling(1.0, top_p=0.5, seed=1), np.zeros(4, np.float32))
    np.testing.assert_allclose(share, [0.5, 0.5, 0, 0], atol=0.032)


def test_a_tiny_temperature_is_greedy_and_does_not_overflow():
    assert _share(Sampling(1e-3, seed=1), LOGITS * 1e4, 50)[1] == 1


def test_repetition_penalty_is_ctrls():
    logits = np.array([2.0, 1.9, -1.0], np.float32)
    sampler = Sampler(Sampling(repetition_penalty=1.5))
    assert sampler(logits, []) == 0
    assert sampler(logits, [0, 0, 0]) == 1  # 2 / 1.5 < 1.9, once however often it came
    assert sampler(logits - 3, [0]) == 1  # -1 * 1.5 < -1.1: a negative logit is pushed down too
    np.testing.assert_array_equal(logits, np.array([2.0, 1.9, -1.0], np.float32))


def test_the_same_seed_draws_the_same():
    def draws(seed):
        sampler = Sampler(Sampling(1.0, seed=seed))
        return [sampler(LOGITS) for _ in range(40)]

    assert draws(3) == draws(3) != draws(4)
    assert draws(None) != draws(None)  # equal by chance once in 10^15


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("sampling", [Sampling(), Sampling(1.0)])
def test_no_token_is_made_of_what_is_not_a_number(bad, sampling):
    logits = LOGITS.copy()
    logits[2] = bad
    with pytest.raises(ParrotError, match="NaN or infinite"):
        Sampler(sampling)(logits)
    with pytest.raises(ParrotError, match="NaN or infinite"):
        Sampler(sampling)(np.full(3, -np.inf, np.float32))


@pytest.mark.parametrize(
    "values",
    [
        {"temperature": -0.1},
        {"temperature": 1e-320},
        {"temperature": float("nan")},
        {"temperature": float("inf")},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"top_p": float("nan")},
        {"repetition_penalty": 0.0},
        {"repetition_penalty": 1e-40},
        {"repetition_penalty": 1e308},
        {"repetition_penalty": float("inf")},
        {"seed": -1},
    ],
)
def test_values_out_of_range_are_named(values):
    with pytest.raises(InputError, match=f"{next(iter(values))} is .*expected"):
        Sampling(**values)
