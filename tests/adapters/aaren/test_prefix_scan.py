"""The prefix softmax average against a plain quadratic one in float64."""

import gc
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tsllm.adapters.aaren.prefix_scan import prefix_scan
from tsllm.adapters.aaren.state import AarenState

INF = float("inf")
HEADS, WIDTH = 2, 5


def seeded(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def quadratic(scores, values):
    """Average every prefix by itself, in float64."""
    scores, values = scores.double(), values.double()
    n = scores.shape[-1]
    seen = scores[..., None, :].expand(*scores.shape, n)
    seen = seen.masked_fill(torch.ones(n, n, dtype=torch.bool).triu(1), -INF)
    top = seen.amax(-1, keepdim=True)
    weights = (seen - torch.where(top > -INF, top, 0.0)).exp()
    total = weights.sum(-1, keepdim=True)
    return weights @ values / torch.where(total > 0, total, 1.0)


def family(name, tokens):
    """Scores (2, 2, tokens) of every kind that breaks careless sums."""
    normal = seeded(2, HEADS, tokens)
    if name == "uniform":
        return torch.rand(normal.shape, dtype=torch.float64) * 160 - 80
    if name == "rising":
        return torch.linspace(-80, 80, tokens, dtype=torch.float64).expand(2, HEADS, -1).clone()
    if name == "falling":
        return torch.linspace(900, -900, tokens, dtype=torch.float64).expand(2, HEADS, -1).clone()
    if name == "jumps":
        for at, by in ((tokens // 7, 90), (tokens // 3, 300), (tokens // 2, 1000)):
            normal[..., at:] += by
    if name == "huge":
        normal *= 1e4
    if name == "masked":
        normal[torch.rand(normal.shape) < 0.4] = -INF
        normal[0, :, : tokens // 4] = -INF
        normal[1, 0] = -INF  # a row of which nothing is ever seen
    return normal


FAMILIES = ["normal", "uniform", "rising", "falling", "jumps", "huge", "masked"]
METHODS = ["segmented", "matmul"]


def run(scores, values, gradient, method):
    scores, values = scores.clone().requires_grad_(), values.clone().requires_grad_()
    out, _ = prefix_scan(scores, values, method=method)
    out.backward(gradient)
    return out.detach(), scores.grad, values.grad


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("tokens", [517, 64, 3])
def test_float64_equals_the_quadratic_average(name, tokens, method):
    torch.manual_seed(1)
    scores, values = family(name, tokens), seeded(2, HEADS, tokens, WIDTH, seed=1)
    gradient = seeded(2, HEADS, tokens, WIDTH, seed=2)
    out, to_scores, to_values = run(scores, values, gradient, method)
    leaves = scores.clone().requires_grad_(), values.clone().requires_grad_()
    expected = quadratic(*leaves)
    expected.backward(gradient)
    assert (out - expected).abs().max() <= 1e-12
    assert (to_values - leaves[1].grad).abs().max() <= 1e-12
    assert (to_scores - leaves[0].grad).abs().max() <= 1e-11


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", FAMILIES)
def test_float32_loses_no_more_than_rounding(name, method):
    torch.manual_seed(1)
    scores = family(name, 700).float()
    values = seeded(2, HEADS, 700, WIDTH, seed=1, dtype=torch.float32)
    gradient = seeded(2, HEADS, 700, WIDTH, seed=2, dtype=torch.float32)
    out, to_scores, to_values = run(scores, values, gradient, method)
    leaves = scores.double().requires_grad_(), values.double().requires_grad_()
    expected = quadratic(*leaves)
    expected.backward(gradient.double())
    assert out.dtype == torch.float32
    assert (out - expected).abs().max() <= 1e-6
    for ours, exact in ((to_scores, leaves[0].grad), (to_values, leaves[1].grad)):
        assert (ours - exact).abs().max() <= 5e-5 * max(1.0, float(exact.abs().max()))


@pytest.mark.parametrize("method", METHODS)
def test_what_is_masked_has_no_influence_and_no_gradient(method):
    scores, values = family("masked", 130), seeded(2, HEADS, 130, WIDTH)
    out, to_scores, to_values = run(scores, values, torch.ones_like(values), method)
    hidden = scores == -INF
    other, *_ = run(scores, values.masked_fill(hidden[..., None], 1e6), values, method)
    assert torch.equal(out, other)
    assert (to_scores[hidden] == 0).all()
    assert (to_values[hidden] == 0).all()
    assert (out[1, 0] == 0).all()
    assert (out[0, :, : 130 // 4] == 0).all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("jump", [0.0, 700.0])  # the second leaves the cumulative sums
@pytest.mark.parametrize("with_state", [False, True])
def test_gradients_against_finite_differences(jump, with_state, method):
    scores = seeded(1, 2, 9) * 0.5
    scores[..., 4:] += jump
    values, u, w = seeded(1, 2, 9, 2, seed=1), seeded(1, 2, seed=2).abs() + 1, seeded(1, 2, 2)
    m = seeded(1, 2, seed=3) * 0.1
    leaves = [t.requires_grad_() for t in (scores, values, m, u, w)]

    def both(scores, values, m, u, w):
        state = AarenState(m, u, w) if with_state else None
        first, state = prefix_scan(scores[..., :6], values[:, :, :6], state, chunk=4)
        # Through the final state too, as truncated backpropagation would.
        second, state = prefix_scan(scores[..., 6:], values[:, :, 6:], state, method=method)
        return torch.cat([first, second], 2), state.average()

    leaves = leaves if with_state else [*leaves[:2], *(t.detach() for t in leaves[2:])]
    assert torch.autograd.gradcheck(both, leaves)


def test_second_derivatives_are_those_of_the_plain_operations():
    leaves = seeded(1, 1, 5).requires_grad_(), seeded(1, 1, 5, 2).requires_grad_()

    def plain(scores, values):
        return prefix_scan(scores, values, method="matmul", chunk=2)[0]

    assert torch.autograd.gradgradcheck(plain, leaves)
    out, _ = prefix_scan(*leaves, method="segmented")
    (slope,) = torch.autograd.grad(out.square().sum(), leaves[0], create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        slope.sum().backward()


def test_plain_operations_work_under_vmap_and_export():
    scores, values = seeded(3, 1, 2, 10), seeded(3, 1, 2, 10, 4)

    def plain(s, v):
        return prefix_scan(s, v, method="matmul", chunk=4)[0]

    together = torch.vmap(plain)(scores, values)
    for i in range(3):
        torch.testing.assert_close(together[i], quadratic(scores[i], values[i]))

    class Module(torch.nn.Module):
        def forward(self, s: Tensor, v: Tensor) -> Tensor:
            return prefix_scan(s, v)[0]

    exported = torch.export.export(Module(), (scores[0], values[0])).module()
    torch.testing.assert_close(exported(scores[0], values[0]), plain(scores[0], values[0]))


@given(
    cuts=st.lists(st.integers(0, 70), max_size=5),
    chunk=st.integers(1, 80),
    name=st.sampled_from(FAMILIES),
    method=st.sampled_from(METHODS),
)
@settings(max_examples=60, deadline=None)
def test_pieces_of_any_length_make_the_whole(cuts, chunk, name, method):
    torch.manual_seed(2)
    scores, values = family(name, 70), seeded(2, HEADS, 70, WIDTH)
    state, pieces = None, []
    borders = [0, *sorted(cuts), 70]
    for first, end in pairwise(borders):  # some are empty
        out, state = prefix_scan(
            scores[..., first:end], values[:, :, first:end], state, method=method, chunk=chunk
        )
        pieces.append(out)
    expected = quadratic(scores, values)
    assert (torch.cat(pieces, 2) - expected).abs().max() < 1e-12
    assert (state.average() - expected[:, :, -1]).abs().max() < 1e-12


def test_bfloat16_is_rounded_at_the_end_only():
    scores, values = seeded(2, 2, 300), seeded(2, 2, 300, 8)
    half = values.bfloat16()
    out, state = prefix_scan(scores.bfloat16(), half)
    expected = quadratic(scores.bfloat16(), half)
    assert out.dtype == torch.bfloat16
    assert state.w.dtype == torch.float32
    assert (out - expected).abs().max() <= 2**-8 * expected.abs().max()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        kept, _ = prefix_scan(scores.float(), values.float(), method="matmul")
    assert (kept - quadratic(scores, values)).abs().max() < 1e-6


def test_strided_values_keep_their_layout():
    rows = seeded(2, 40, HEADS, WIDTH)  # as a projection gives them: heads within a token
    out, _ = prefix_scan(seeded(2, HEADS, 40), rows.transpose(1, 2))
    assert out.stride() == rows.transpose(1, 2).stride()
    assert out.transpose(1, 2).flatten(2).data_ptr() == out.data_ptr()  # merging heads is free
    torch.testing.assert_close(out, quadratic(seeded(2, HEADS, 40), rows.transpose(1, 2)))


def test_memory_for_the_backward_pass_is_linear():
    def saved(tokens):
        kept = []
        scores = seeded(1, 2, tokens, dtype=torch.float32).requires_grad_()
        values = seeded(1, 2, tokens, 16, dtype=torch.float32).requires_grad_()
        gc.collect()
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: kept.append(tensor.nbytes) or tensor, lambda tensor: tensor
        ):
            prefix_scan(scores, values, method="segmented")
        return sum(kept), values.nbytes

    (short, _), (long, values) = saved(512), saved(8192)
    assert long / short <= 1.2 * 8192 / 512
    assert long <= 2.6 * values  # the values and the output, scores and two scalars a head


def test_states_merge_in_any_order():
    scores, values = family("jumps", 60), seeded(2, HEADS, 60, WIDTH)
    parts = [
        prefix_scan(scores[..., at : at + 20], values[:, :, at : at + 20])[1] for at in (0, 20, 40)
    ]
    empty = AarenState.empty(2, heads=HEADS, width=WIDTH)
    expected = quadratic(scores, values)[:, :, -1]
    a, b, c = parts
    for whole in (
        a.merge(b).merge(c),
        a.merge(b.merge(c)),
        c.merge(a).merge(b),
        empty.merge(a).merge(b.merge(empty)).merge(c),
    ):
        assert (whole.average() - expected).abs().max() < 1e-13
    assert torch.equal(empty.merge(empty).average(), torch.zeros(2, HEADS, WIDTH).double())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"scores": torch.zeros(1, 2)}, "scores must be"),
        ({"method": "fast"}, "method must be one of"),
        ({"chunk": 0}, "chunk must be at least 1"),
        ({"state": AarenState.empty(1, heads=2, width=4)}, "pass the state of the same batch"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, words):
    good = {"scores": torch.zeros(1, 2, 3), "values": torch.zeros(1, 2, 3, 5)}
    with pytest.raises(ValueError, match=words):
        prefix_scan(**(good | arguments))
