"""Thresholds, factors and codes against torch, float64 and what onnxruntime's own calibrators find."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnxruntime.quantization.calibrate import HistogramCollector

from parrot_calibration.methods import gptq as methods_gptq
from parrot_calibration.methods.errors import Kept, output_errors, worst
from parrot_calibration.methods.factors import awq_factors, smooth_factors
from parrot_calibration.methods.gptq import DAMPING, gptq, inverse_factor
from parrot_calibration.methods.rounding import FourBits, int8_all, int8_rows
from parrot_calibration.methods.thresholds import BINS, clipped, entropy_bin, percentile_bin, thresholds
from parrot_export.folding import Site
from parrot_export.quantise import two_to_a_byte


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def histogram(values: np.ndarray, largest: float) -> np.ndarray:
    return np.histogram(np.abs(values), BINS, (0, largest))[0]


def kept_of(rows: np.ndarray, languages: int = 3) -> Kept:
    return Kept(rows, np.arange(len(rows)) % languages, languages)


# --- thresholds -----------------------------------------------------------------------------------------------------
def test_the_percentile_is_the_one_onnxruntime_finds():
    values = draw(70_001)
    largest = float(np.abs(values).max())
    counts = histogram(values, largest)
    theirs = HistogramCollector("percentile", True, BINS, 128, 99.99, "same")
    theirs.histogram_dict["x"] = (counts, np.linspace(0, largest, BINS + 1), -largest, largest)
    expected = float(theirs.compute_percentile()["x"][1])
    # Theirs is the lower edge of the bin that holds the percentile, ours the upper: all of the bin is kept.
    assert percentile_bin(counts) * largest / BINS == pytest.approx(expected + largest / BINS, rel=1e-6)


def test_entropy_clips_outliers_and_keeps_a_uniform_whole():
    even = np.full(BINS, 50.0)
    assert entropy_bin(even) > BINS * 0.9
    spiky = np.zeros(BINS)
    spiky[:256] = np.exp(-np.arange(256) / 40) * 10_000
    spiky[-1] = 1
    assert entropy_bin(spiky) < BINS / 4


def test_mse_is_the_best_of_all_thresholds_for_the_worst_language():
    """Held against a search that rounds the values themselves, in float64."""
    values = [draw(20_000), 4 * draw(20_000, seed=1) ** 3]
    largest = max(float(np.abs(each).max()) for each in values)
    found = thresholds(np.stack([histogram(each, largest) for each in values]), largest)["mse"]

    def loss(threshold: float) -> float:
        return max(
            float(
                ((each - int8_all(each, threshold).astype(np.float64)) ** 2).sum()
                / (each.astype(np.float64) ** 2).sum()
            )
            for each in values
        )

    exhaustive = min(loss(largest * part / 200) for part in range(1, 201))
    assert loss(found) < exhaustive * 1.05  # candidates of either search lie up to a percent apart
    assert loss(found) < loss(largest)


def test_a_language_of_few_rows_is_not_clipped_for_the_sake_of_many():
    many, few = draw(1_000_000), 8 * draw(200, seed=1)
    largest = float(np.abs(few).max())
    counts = np.stack([histogram(many, largest), histogram(few, largest)])
    pooled = percentile_bin(counts.sum(axis=0)) * largest / BINS
    ours = thresholds(counts, largest)["percentile"]
    assert clipped(counts, largest, pooled)[1] > 0.2
    assert clipped(counts, largest, ours)[1] < 0.01


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.integers(0, BINS - 1), st.integers(1, 1000), min_size=1, max_size=9), st.floats(1e-6, 1e6))
def test_thresholds_lie_within_the_range(filled, largest):
    counts = np.zeros((3, BINS), np.int64)
    for place, count in filled.items():
        counts[place % 2, place] = count
    for threshold in thresholds(counts, largest).values():
        assert 0 < threshold <= largest * (1 + 1e-9)


def test_nothing_seen_has_a_threshold_all_the_same():
    assert set(thresholds(np.zeros((6, BINS), np.int64), 0.0).values()) == {1.0}


# --- four bits ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("asymmetric", [False, True])
@pytest.mark.parametrize("block", [32, 64, 128])
def test_codes_lie_within_half_a_step(block, asymmetric):
    bits, matrix = FourBits(block, asymmetric), draw(33, 384) + 0.3
    codes, scales, zeros = bits.quantise(matrix)
    assert codes.max() <= 15
    steps = np.repeat(scales, block, axis=1)
    # Half a step, as much again where the zero point was rounded, and what float16 takes from a scale (2⁻¹¹ of 15).
    room = (1.0 if asymmetric else 0.5) + 15 * 2**-11
    assert (np.abs(bits.dequantise(codes, scales, zeros) - matrix) <= room * steps).all()


def test_asymmetric_codes_are_closer_where_weights_are_all_of_one_sign():
    matrix = np.abs(draw(9, 128))
    errors = [np.abs(FourBits(32, side).round_trip(matrix) - matrix).mean() for side in (False, True)]
    assert errors[1] < 0.6 * errors[0]


def test_blocks_of_zeros_stay_zero_and_codes_pack_low_half_first():
    for asymmetric in (False, True):
        assert not FourBits(32, asymmetric).round_trip(np.zeros((3, 64), np.float32)).any()
    np.testing.assert_array_equal(two_to_a_byte(np.array([[1, 2, 15, 0]], np.uint8)), [[0x21, 0x0F]])


def test_int8_rows_are_torchs():
    matrix = draw(33, 20)
    scales = torch.from_numpy(np.abs(matrix).max(axis=1) / 127)
    zeros = torch.zeros(33, dtype=torch.int32)
    theirs = torch.fake_quantize_per_channel_affine(torch.from_numpy(matrix), scales, zeros, 0, -127, 127)
    np.testing.assert_allclose(int8_rows(matrix), theirs.numpy(), atol=1e-6)  # the same codes, scaled in another order


# --- factors --------------------------------------------------------------------------------------------------------
def outlier_rows() -> np.ndarray:
    """Inputs with three loud channels, as language models have them."""
    rows = draw(99, 64)
    rows[:, [3, 17, 40]] *= 60
    return rows


def test_smoothing_helps_where_channels_are_loud_and_every_language_gains():
    rows, matrix = outlier_rows(), draw(33, 64, seed=1)
    site = Site("a", ("a.weight",), ("norm.weight",), 64)
    found = smooth_factors(site, kept_of(rows), np.abs(rows).max(axis=0), matrix)
    assert (found.chosen < 0.2 * found.plain).all()
    # Measured once more from the outside: the same product, in float64.
    smooth, heavy = rows / found.factors, matrix * found.factors
    rounded = int8_all(smooth, float(np.abs(smooth).max())).astype(np.float64) @ int8_rows(heavy).T.astype(np.float64)
    exact = rows.astype(np.float64) @ matrix.T
    part = np.arange(99) % 3 == 1
    error = ((rounded - exact)[part] ** 2).sum() / (exact[part] ** 2).sum()
    assert found.chosen[1] == pytest.approx(error, rel=1e-3)  # float32 products against float64


def test_even_channels_are_left_alone_or_made_no_worse():
    rows, matrix = draw(60, 64), draw(32, 64, seed=1)
    site = Site("a", ("a.weight",), ("norm.weight",), 64)
    found = smooth_factors(site, kept_of(rows), np.abs(rows).max(axis=0), matrix)
    assert worst(found.chosen) <= worst(found.plain)
    assert (found.factors is None) == (found.alpha == 0.0)


def test_awq_spares_the_weights_of_loud_channels():
    rows, matrix = outlier_rows(), draw(33, 64, seed=1)
    site = Site("a", ("a.weight",), ("norm.weight",), 64)
    found = awq_factors(site, kept_of(rows), np.abs(rows).mean(axis=0), matrix, FourBits(32))
    assert (found.chosen < 0.5 * found.plain).all()
    assert found.factors[[3, 17, 40]].min() > np.median(found.factors)


def test_channels_that_share_a_factor_get_one():
    rows, matrix = outlier_rows(), draw(33, 64, seed=1)
    spread = np.tile(np.arange(16), 4)
    site = Site("o", ("o.weight",), ("v.weight",), 16, spread)
    found = awq_factors(site, kept_of(rows), np.abs(rows).mean(axis=0), matrix, FourBits(32))
    assert found.factors.shape == (16,)


def test_a_language_without_rows_is_nan_and_not_the_worst():
    kept = Kept(draw(4, 32), np.zeros(4, np.int64), 2)
    matrix = draw(5, 32, seed=1)
    errors = output_errors(kept, matrix, kept.rows, FourBits(32).round_trip)
    assert np.isnan(errors[1])
    assert worst(errors) == errors[0] > 0


# --- GPTQ -----------------------------------------------------------------------------------------------------------
def reference_gptq(matrix: np.ndarray, gram: np.ndarray, bits: FourBits) -> np.ndarray:
    """The same minimisation by its definition (Eq. 2 and 3 of the paper), column by column, in torch and float64.

    After each column H⁻¹ is that of the columns left, computed anew: no Cholesky factor, no lazy updates.
    """
    left = torch.from_numpy(matrix.astype(np.float64))
    hessian = torch.from_numpy(gram.astype(np.float64))
    hessian += DAMPING * hessian.diagonal().mean() * torch.eye(len(gram), dtype=torch.float64)
    rounded = torch.empty_like(left)
    for column in range(left.shape[1]):
        if column % bits.block == 0:
            scales, zeros = bits.grid(left[:, column : column + bits.block].float().numpy())
        codes = bits.codes(left[:, column].numpy(), scales, zeros)
        rounded[:, column] = torch.from_numpy((codes - zeros) * scales)
        inverse = torch.linalg.inv(hessian[column:, column:])
        error = (left[:, column] - rounded[:, column]) / inverse[0, 0]
        left[:, column:] -= error[:, None] * inverse[0]
    return rounded.numpy()


@pytest.mark.parametrize(("columns", "block", "asymmetric"), [(64, 32, False), (192, 64, True), (256, 128, False)])
def test_gptq_is_the_papers_minimisation(columns, block, asymmetric):
    rows = draw(400, columns) @ draw(columns, columns, seed=3)  # correlated, or there would be nothing to make up for
    matrix, bits = draw(7, columns, seed=1), FourBits(block, asymmetric)
    gram = rows.T @ rows
    ours = bits.dequantise(*gptq(matrix, inverse_factor(gram), bits))
    theirs = reference_gptq(matrix, gram, bits)
    # Codes that lie on a border tip over by the last digits of float64, and take those behind them along.
    same = np.isclose(ours, theirs, atol=1e-5).mean()
    assert same > 0.98


def test_gptq_leaves_less_error_than_rounding_to_nearest():
    rows = draw(300, 128) @ draw(128, 128, seed=3)
    matrix, bits, kept = draw(33, 128, seed=1), FourBits(32), kept_of(rows)
    ours = bits.dequantise(*gptq(matrix, inverse_factor(rows.T @ rows), bits))
    plain = output_errors(kept, matrix, rows, bits.round_trip)
    assert worst(output_errors(kept, matrix, rows, lambda _: ours)) < 0.6 * worst(plain)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_the_factor_is_that_of_the_inverse_whatever_its_panels(monkeypatch, dtype):
    """U of H⁻¹ = Uᵀ·U, of 100 columns in panels of 33; float32 is done in place, and reads the upper half alone."""
    rows = draw(400, 100) @ draw(100, 100, seed=3)
    gram = (rows.T @ rows).astype(np.float64)
    damped = gram + DAMPING * gram.diagonal().mean() * np.eye(100)
    expected = np.linalg.cholesky(np.linalg.inv(damped)).T
    monkeypatch.setattr(methods_gptq, "_PANEL", 33)
    monkeypatch.setattr(methods_gptq, "_WIDE", 99 if dtype == np.float32 else 8192)
    given = np.triu(gram).astype(dtype)
    found = inverse_factor(given)
    assert (found is given) == (dtype == np.float32)
    assert not np.tril(found, -1).any()
    # H's condition number is some 1e3 here, which float32 loses of its 1e-7.
    np.testing.assert_allclose(found, expected, atol=(1e-10 if dtype == np.float64 else 1e-3) * np.abs(expected).max())


def test_gptq_of_a_channel_that_carries_nothing_rounds_it_to_nearest():
    rows = draw(300, 64)
    rows[:, 5] = 0
    matrix, bits = draw(9, 64, seed=1), FourBits(64)
    codes, scales, zeros = gptq(matrix, inverse_factor(rows.T @ rows), bits)
    got = bits.dequantise(codes, scales, zeros)
    assert (np.abs(got[:, 5] - matrix[:, 5]) <= 0.5 * scales[:, 0] * 1.01).all()
