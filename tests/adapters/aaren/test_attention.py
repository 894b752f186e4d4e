"""Aaren and its fellow mixers: parallel equals stream, parameters as published, masks, decay."""

import copy
import io
import math
from itertools import pairwise

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from tsllm.adapters.aaren.attention import AarenAttention, AarenBlock, AarenStack
from tsllm.adapters.aaren.mixers import CausalAttention, MinGRU
from tsllm.adapters.aaren.state import AarenState

MIXERS = [
    {"mixer": "aaren"},
    {"mixer": "aaren", "decay": True},
    {"mixer": "aaren", "query": "token", "norm_first": False},
    {"mixer": "mingru"},
    {"mixer": "none"},
]
TOLERANCE = {torch.float32: {"rtol": 1e-5, "atol": 2e-6}, torch.float64: {"rtol": 0, "atol": 1e-10}}


def stack(dtype=torch.float64, **settings):
    torch.manual_seed(0)
    return AarenStack(3, 12, 3, feedforward=16, **settings).to(dtype).eval()


def tokens(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


# ---------------------------------------------------------------- one function, three ways


@pytest.mark.parametrize("settings_", MIXERS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@torch.inference_mode()
def test_steps_and_pieces_equal_the_parallel_pass(settings_, dtype):
    model, x = stack(dtype, **settings_), tokens(2, 200, 12, dtype=dtype)
    whole = model(x)
    states, steps = model.empty_states(2), []
    for token in x.unbind(1):
        y, states = model.step(states, token)
        steps.append(y)
    torch.testing.assert_close(torch.stack(steps, 1), whole, **TOLERANCE[dtype])
    y, after = model.extend(model.empty_states(2), x)
    torch.testing.assert_close(y, whole, **TOLERANCE[dtype])
    for one, other in zip(states, after):
        torch.testing.assert_close(one.average(), other.average(), **TOLERANCE[dtype])


@pytest.mark.parametrize("settings_", MIXERS, ids=str)
@given(cuts=st.lists(st.integers(0, 90), max_size=4), seed=st.integers(0, 99))
@settings(max_examples=15, deadline=None)
@torch.inference_mode()
def test_random_pieces_with_masks_equal_the_whole(settings_, cuts, seed):
    model, x = stack(**settings_), tokens(2, 90, 12, seed=seed)
    mask = tokens(2, 90, seed=seed) > -0.5
    whole, states, pieces = model(x, mask=mask), model.empty_states(2), []
    borders = [0, *sorted(cuts), 90]
    for first, end in pairwise(borders):
        piece = slice(first, end)
        y, states = model.extend(states, x[:, piece], mask=mask[:, piece])
        pieces.append(y)
    torch.testing.assert_close(torch.cat(pieces, 1), whole, rtol=0, atol=1e-10)


@pytest.mark.parametrize("settings_", MIXERS, ids=str)
@torch.inference_mode()
def test_no_output_sees_a_later_token(settings_):
    model, x = stack(**settings_), tokens(1, 30, 12)
    changed = x.clone()
    changed[:, 17:] += 5
    torch.testing.assert_close(model(changed)[:, :17], model(x)[:, :17], rtol=0, atol=1e-12)
    attention = AarenBlock(12, 3, feedforward=8, mixer="attention").double().eval()
    torch.testing.assert_close(attention(changed)[:, :17], attention(x)[:, :17])


@pytest.mark.parametrize("settings_", MIXERS, ids=str)
@torch.inference_mode()
def test_a_masked_token_leaves_the_state_as_it_was(settings_):
    model, x = stack(**settings_), tokens(2, 5, 12)
    _, before = model.extend(model.empty_states(2), x)
    mask = torch.tensor([False, True])
    _, after = model.step(before, tokens(2, 12, seed=1), mask=mask)
    for old, new in zip(before, after):
        assert all(torch.equal(a[0], b[0]) for a, b in zip(old, new))
    # A padded row of a batch is what it would be alone.
    ragged = torch.tensor([[True] * 3 + [False] * 2, [True] * 5])
    _, padded = model.extend(model.empty_states(2), x, mask=ragged)
    _, alone = model.extend(model.empty_states(1), x[:1, :3])
    for some, one in zip(padded, alone):
        torch.testing.assert_close(some.average()[:1], one.average(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("settings_", MIXERS[:-1], ids=str)
def test_every_parameter_learns(settings_):
    model = stack(**settings_).train()
    model(tokens(2, 20, 12)).square().sum().backward()
    for name, parameter in model.named_parameters():
        irrelevant = "key_layer.bias" in name
        assert irrelevant or parameter.grad.abs().max() > 0, name


# ---------------------------------------------------------------- the paper's layer


def plain_attention(layer, x):
    """The paper's formulas, prefix by prefix, with keys and queries written out."""
    query = layer.query_layer(layer.query_token).view(layer.heads, -1)
    keys = layer.key_layer(x).unflatten(-1, (layer.heads, -1))  # (batch, tokens, heads, width)
    values = layer.value_layer(x).unflatten(-1, (layer.heads, -1))
    scores = (keys * query).sum(-1) / math.sqrt(layer.width)  # (batch, tokens, heads)
    outputs = [
        (scores[:, : k + 1].softmax(1)[..., None] * values[:, : k + 1]).sum(1).flatten(1)
        for k in range(x.shape[1])
    ]
    return layer.out_layer(torch.stack(outputs, 1))


def test_the_layer_is_attention_with_a_learnt_query():
    torch.manual_seed(0)
    layer, x = AarenAttention(12, 3, query="token").double(), tokens(2, 50, 12)
    torch.testing.assert_close(layer(x), plain_attention(layer, x), rtol=0, atol=1e-12)
    layer(x).square().sum().backward()
    # A key's bias adds the same to all scores of a head.
    assert layer.key_layer.bias.grad.abs().max() < 1e-12 * layer.value_layer.bias.grad.abs().max()


def test_the_folded_query_is_the_same_function():
    token = AarenAttention(12, 3, query="token").double()
    folded = AarenAttention(12, 3).double()
    weights = {k: v for k, v in token.state_dict().items() if k[:3] in ("val", "out")}
    weight, _ = token.folded_weight()
    folded.load_state_dict({"score_weight": weight.detach(), **weights})
    x = tokens(2, 50, 12)
    torch.testing.assert_close(folded(x), token(x), rtol=0, atol=1e-12)
    fewer = sum(p.numel() for p in token.parameters()) - sum(p.numel() for p in folded.parameters())
    assert fewer == 2 * 12**2 - 12 * 3 + 3 * 12  # the token and the two biases too


def test_the_published_number_of_parameters():
    block = AarenBlock(512, 8, feedforward=2048, query="token", norm_first=False)
    transformer = torch.nn.TransformerEncoderLayer(512, 8, 2048)
    count = sum(p.numel() for p in block.parameters())
    assert count == 3_152_896
    assert count - sum(p.numel() for p in transformer.parameters()) == 512


def test_without_decay_the_past_has_no_order():
    layer, x = AarenAttention(12, 3).double(), tokens(1, 20, 12)
    shuffled = torch.cat([x[:, torch.randperm(19)], x[:, 19:]], 1)
    torch.testing.assert_close(layer(shuffled)[:, -1], layer(x)[:, -1], rtol=0, atol=1e-12)
    fading = AarenAttention(12, 3, decay=True).double()
    assert (fading(shuffled)[:, -1] - fading(x)[:, -1]).abs().max() > 1e-4


# ---------------------------------------------------------------- decay


def test_decay_weighs_by_the_time_that_has_passed():
    torch.manual_seed(0)
    layer, x = AarenAttention(12, 3, decay=True).double(), tokens(2, 40, 12)
    elapsed = tokens(2, 40).abs() * 3
    time = elapsed.cumsum(1)
    weight, _ = layer.folded_weight()
    rates = functional.softplus(layer.decay_logit)
    ages = time[:, -1:] - time  # (batch, tokens)
    scores = x @ weight.T - ages[..., None] * rates
    values = layer.value_layer(x).unflatten(-1, (3, 4))
    expected = layer.out_layer((scores.softmax(1)[..., None] * values).sum(1).flatten(1))
    torch.testing.assert_close(layer(x, elapsed=elapsed)[:, -1], expected, rtol=0, atol=1e-12)
    state = layer.empty_state(2)
    for k in range(40):
        y, state = layer.step(state, x[:, k], elapsed=elapsed[:, k])
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-12)


def test_decay_starts_from_the_half_lives_it_names():
    half_lives = math.log(2) / AarenAttention(16, 4, decay=True).decay_rates()
    torch.testing.assert_close(half_lives[[0, -1]], torch.tensor([2.0, 256.0]))
    ratios = half_lives[1:] / half_lives[:-1]
    torch.testing.assert_close(ratios, ratios[:1].expand(3))


@torch.inference_mode()
def test_decay_is_exact_far_into_a_stream():
    layer = AarenAttention(4, 1, decay=True)
    x = tokens(1, 30, 4, dtype=torch.float32)
    expected, start = layer(x), layer.empty_state(1)
    _, old = layer.extend(start, tokens(1, 1, 4, dtype=torch.float32))
    y, _ = layer.extend(old, x, elapsed=torch.tensor([[1e9] + [1.0] * 29]))
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-6)


# ---------------------------------------------------------------- the other mixers


def test_mingru_is_its_recurrence():
    torch.manual_seed(0)
    mixer, x = MinGRU(6).double(), tokens(2, 300, 6) * 8  # gates near 0 and 1
    mask = tokens(2, 300) > -1
    h, expected = torch.zeros(2, 6, dtype=torch.float64), []
    for k in range(300):
        z = mixer.gate_layer(x[:, k]).sigmoid() * mask[:, k, None]
        h = (1 - z) * h + z * mixer.candidate_layer(x[:, k])
        expected.append(h)
    torch.testing.assert_close(mixer(x, mask=mask), torch.stack(expected, 1), rtol=0, atol=1e-10)


def test_attention_is_torchs_own():
    torch.manual_seed(0)
    mixer, x = CausalAttention(12, 3).double(), tokens(2, 20, 12)
    theirs = torch.nn.MultiheadAttention(12, 3, batch_first=True, dtype=torch.float64)
    theirs.load_state_dict(
        {
            "in_proj_weight": mixer.in_layer.weight.detach(),
            "in_proj_bias": mixer.in_layer.bias.detach(),
            "out_proj.weight": mixer.out_layer.weight.detach(),
            "out_proj.bias": mixer.out_layer.bias.detach(),
        }
    )
    later = torch.ones(20, 20, dtype=torch.bool).triu(1)
    expected, _ = theirs(x, x, x, attn_mask=later)
    torch.testing.assert_close(mixer(x), expected, rtol=0, atol=1e-12)
    hidden = torch.zeros(2, 20, dtype=torch.bool)
    hidden[0, 3:7] = True
    expected, _ = theirs(x, x, x, attn_mask=later, key_padding_mask=hidden)
    torch.testing.assert_close(mixer(x, mask=~hidden)[:, 7:], expected[:, 7:], rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="cannot continue a stream"):
        mixer.step(mixer.empty_state(2), x[:, 0])


# ---------------------------------------------------------------- the state is a value


@torch.inference_mode()
def test_the_state_has_a_constant_size_and_travels():
    model = AarenAttention(512, 8, decay=True)
    state = model.empty_state(1)
    assert state.nbytes == 8 * 8 * (64 + 2) == 4224
    _, early = model.extend(state, tokens(1, 10, 512, dtype=torch.float32))
    _, later = model.extend(early, tokens(1, 300, 512, dtype=torch.float32))
    assert later.nbytes == state.nbytes
    assert all(part.untyped_storage().nbytes() == part.nbytes for part in later)
    buffer = io.BytesIO()
    torch.save(tuple(later), buffer)
    buffer.seek(0)
    content = safetensors.torch.save(later.state_dict())
    for again in (
        copy.deepcopy(later),
        later.to("cpu"),
        AarenState.from_state_dict(safetensors.torch.load(content)),
        AarenState(*torch.load(buffer, weights_only=True)),
    ):
        assert all(torch.equal(a, b) for a, b in zip(again, later))


@torch.inference_mode()
def test_a_step_changes_no_state_it_was_given():
    model, x = stack(decay=True), tokens(2, 3, 12)
    _, states = model.extend(model.empty_states(2), x)
    before = copy.deepcopy(states)
    model.step(states, x[:, 0])
    model.extend(states, x)
    assert all(torch.equal(a, b) for s, t in zip(states, before) for a, b in zip(s, t))


@torch.inference_mode()
def test_half_precision_in_and_out():
    model = stack(torch.bfloat16, decay=True)
    x = tokens(2, 100, 12, dtype=torch.bfloat16)
    y, states = model.extend(model.empty_states(2), x)
    assert y.dtype == torch.bfloat16
    assert all(state.w.dtype == torch.float64 for state in states)
    expected = stack(torch.float64, decay=True)(x.double())
    assert (y - expected).abs().max() < 0.05 * expected.abs().max()


@pytest.mark.parametrize(
    ("settings_", "words"),
    [
        ({"heads": 5}, "must be a multiple of heads=5"),
        ({"query": "dynamic"}, "query must be one of"),
        ({"mixer": "mamba"}, "mixer must be one of"),
        ({"heads": 5, "mixer": "attention"}, "must be a multiple of heads=5"),
    ],
)
def test_sizes_and_names_that_do_not_fit_are_refused(settings_, words):
    with pytest.raises(ValueError, match=words):
        AarenBlock(12, **({"heads": 3, "feedforward": 8} | settings_))
