"""Short attention against float64 softmax attention written out."""

import numpy as np
import pytest
import torch

from parrot_train.attention import LONGEST, short_attention


class Causal(torch.nn.Module):
    is_causal = True
    num_key_value_groups = 3


def reference(query, key, value, allowed):
    """float64 attention, one head and one row at a time; key and value heads repeated."""
    query, key, value = (tensor.detach().double().numpy() for tensor in (query, key, value))
    batch, heads, length, width = query.shape
    result = np.zeros((batch, length, heads, width))
    for row in range(batch):
        for head in range(heads):
            shared = head // (heads // key.shape[1])
            scores = query[row, head] @ key[row, shared].T / np.sqrt(width)
            scores[~allowed[min(row, len(allowed) - 1), 0]] = -np.inf
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            result[row, :, head] = weights / weights.sum(-1, keepdims=True) @ value[row, shared]
    return result


def tensors(dtype, length=33):
    random = torch.Generator().manual_seed(4)
    shapes = ((3, 6, length, 8), (3, 2, length, 8), (3, 2, length, 8))
    return [torch.randn(shape, generator=random).to(dtype).requires_grad_() for shape in shapes]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    # float32: 33 terms, each to 6e-8. bfloat16: scores up to 4, probabilities and output round to 8 bits, 4e-3 each.
    [(torch.float32, 2e-6), (torch.bfloat16, 5e-2)],
)
def test_it_is_softmax_attention(dtype, tolerance, masked):
    query, key, value = tensors(dtype)
    allowed = torch.ones(3, 1, 33, 33, dtype=torch.bool).tril()
    if masked:
        allowed[1, 0, :, 20:] = False
        allowed[2, 0, :, :5] = False
        allowed[2, 0, :5, 0] = True  # a row that may look nowhere has no defined result
    result, weights = short_attention(Causal(), query, key, value, allowed if masked else None)
    assert weights is None
    assert result.dtype == dtype
    np.testing.assert_allclose(
        result.detach().double().numpy(), reference(query, key, value, allowed.numpy()), atol=tolerance
    )


def test_its_gradients_are_those_of_torchs_attention():
    ours, theirs = tensors(torch.float32), tensors(torch.float32)
    weight = torch.randn(3, 33, 6, 8, generator=torch.Generator().manual_seed(5))
    (short_attention(Causal(), *ours, None)[0] * weight).sum().backward()
    query, key, value = theirs
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
    (expected.transpose(1, 2) * weight).sum().backward()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.grad, other.grad, atol=5e-6, rtol=1e-5)  # float32 sums of 33 products


def test_long_sequences_go_to_the_kernel(monkeypatch):
    called = []
    monkeypatch.setattr("parrot_train.attention.sdpa_attention_forward", lambda *_, **__: called.append(1) or (1, None))
    short_attention(Causal(), *tensors(torch.float32, LONGEST), None)
    assert not called
    short_attention(Causal(), *tensors(torch.float32, LONGEST + 1), None)
    assert called
