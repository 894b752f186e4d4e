"""TimeCMA against a plain recomputation of its formulas, and the authors' state dicts."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tsllm.adapters.timecma import CrossModalityAlignment, TimeCMAModel

SIZES = [  # context, horizon, variables, width, channel, heads, encoder and decoder layers
    (12, 5, 3, 16, 8, 4, 1, 2),
    (7, 1, 1, 13, 5, 1, 2, 1),
    (9, 4, 2, 6, 6, 3, 1, 1),
    (24, 8, 11, 40, 16, 8, 2, 2),
]


def build(sizes, **changes):
    context, horizon, variables, width, channel, heads, encoders, decoders = sizes
    torch.manual_seed(0)
    model = TimeCMAModel(
        context,
        horizon,
        variables,
        width,
        channel=channel,
        heads=heads,
        encoder_layers=encoders,
        decoder_layers=decoders,
        **{"feedforward": 20, "cross_feedforward": 9, **changes},
    )
    with torch.no_grad():
        for parameter in model.parameters():  # layer norms and biases as training leaves them
            parameter += 0.1 * torch.randn_like(parameter)
    return model.eval()


def example(sizes, batch=3):
    torch.manual_seed(1)
    context, _, variables, width, *_ = sizes
    scale = torch.tensor([1.0, 30.0, 0.1] * variables)[:variables]
    x = (torch.randn(batch, context, variables) + 2) * scale
    return x, torch.randn(batch, width or 1, variables)


# ---------------------------------------------------------------- the formulas, in float64


def layer_norm(x, weights, name):
    centred = x - x.mean(-1, keepdim=True)
    scaled = centred / torch.sqrt(centred.square().mean(-1, keepdim=True) + 1e-5)
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def linear(x, weights, name):
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def attention(query, source, weights, name, heads):
    """Multi-head attention over (batch, tokens, size), head by head."""
    size = query.shape[-1]
    w, b = weights[f"{name}.in_proj_weight"], weights[f"{name}.in_proj_bias"]
    q = query @ w[:size].T + b[:size]
    k = source @ w[size : 2 * size].T + b[size : 2 * size]
    v = source @ w[2 * size :].T + b[2 * size :]
    mixed = []
    for head in range(heads):
        own = slice(head * size // heads, (head + 1) * size // heads)
        scores = q[..., own] @ k[..., own].transpose(1, 2) / math.sqrt(size // heads)
        mixed.append(scores.softmax(-1) @ v[..., own])
    return linear(torch.cat(mixed, dim=-1), weights, f"{name}.out_proj")


def encoder(x, weights, name, layers, heads):
    for i in range(layers):
        layer = f"{name}.layers.{i}"
        normed = layer_norm(x, weights, f"{layer}.norm1")
        x = x + attention(normed, normed, weights, f"{layer}.self_attn", heads)
        inner = linear(layer_norm(x, weights, f"{layer}.norm2"), weights, f"{layer}.linear1")
        x = x + linear(inner.relu(), weights, f"{layer}.linear2")
    return x


def decoder(x, weights, layers, heads):
    memory = x
    for i in range(layers):
        layer = f"decoder.layers.{i}"
        normed = layer_norm(x, weights, f"{layer}.norm1")
        x = x + attention(normed, normed, weights, f"{layer}.self_attn", heads)
        normed = layer_norm(x, weights, f"{layer}.norm2")
        x = x + attention(normed, memory, weights, f"{layer}.multihead_attn", heads)
        inner = linear(layer_norm(x, weights, f"{layer}.norm3"), weights, f"{layer}.linear1")
        x = x + linear(inner.relu(), weights, f"{layer}.linear2")
    return x


def alignment(query, source, weights):
    """The published cross-modality alignment over (batch, features, variables)."""
    layer = "cross.layers.0"
    query = layer_norm(query, weights, f"{layer}.norm_attn")
    source = layer_norm(source, weights, f"{layer}.norm_attn")
    q = linear(query, weights, f"{layer}.self_attn.W_Q")
    k = linear(source, weights, f"{layer}.self_attn.W_K")
    v = linear(source, weights, f"{layer}.self_attn.W_V")
    scores = torch.einsum("bcn,ben->bce", q, k) * query.shape[-1] ** -0.5
    found = torch.einsum("bce,ben->bcn", scores.softmax(-1), v)
    query = query + linear(found, weights, f"{layer}.self_attn.to_out.0")
    query = layer_norm(query, weights, f"{layer}.norm_ffn")
    inner = linear(query, weights, f"{layer}.ff.0")
    inner = inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2)))  # gelu
    return query + linear(inner, weights, f"{layer}.ff.3")


def plain_forecast(model, sizes, x, prompts):
    *_, heads, encoders, decoders = sizes
    weights = {name: p.detach().double() for name, p in model.state_dict().items()}
    x = x.double()
    mean, std = x.mean(1, keepdim=True), torch.sqrt(x.var(1, keepdim=True, correction=0) + 1e-5)
    tokens = linear(((x - mean) / std).transpose(1, 2), weights, "length_to_feature")
    series = encoder(tokens, weights, "ts_encoder", encoders, heads).transpose(1, 2)
    source = series
    if prompts is not None:
        source = prompts.double().transpose(1, 2)
        source = encoder(source, weights, "prompt_encoder", encoders, heads).transpose(1, 2)
    aligned = alignment(series, source, weights).transpose(1, 2)
    out = linear(decoder(aligned, weights, decoders, heads), weights, "c_to_length")
    return out.transpose(1, 2) * std + mean


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("recorded", [True, False], ids=["training-path", "inference-path"])
def test_the_forecast_equals_a_plain_recomputation(sizes, recorded):
    model = build(sizes)
    x, prompts = example(sizes)
    with torch.set_grad_enabled(recorded):
        out = model(x, prompts).detach()
    expected = plain_forecast(model, sizes, x, prompts)
    scale = x.std(1, keepdim=True)
    assert out.shape == (3, sizes[1], sizes[2])
    assert ((out - expected).abs() / scale).max() < 1e-5


@pytest.mark.parametrize("sizes", SIZES)
def test_without_prompts_the_series_retrieves_from_itself(sizes):
    plain = (*sizes[:3], None, *sizes[4:])
    model = build(plain)
    x, _ = example(sizes)
    expected = plain_forecast(model, plain, x, None)
    assert ((model(x) - expected).abs() / x.std(1, keepdim=True)).max() < 1e-5
    # Everything but the prompt branch is the same.
    branch = {name for name in build(sizes).state_dict() if name.startswith("prompt_encoder.")}
    assert branch
    assert set(build(sizes).state_dict()) - branch == set(model.state_dict())


# ---------------------------------------------------------------- what the layers see


@pytest.mark.parametrize("sizes", [SIZES[0], SIZES[3]])
def test_the_forecast_follows_the_prompts(sizes):
    model = build(sizes)
    x, prompts = example(sizes)
    moved = model(x, prompts + torch.randn_like(prompts))
    assert not torch.allclose(moved, model(x, prompts), rtol=1e-3)


def test_the_published_norm_forgets_a_single_variable():
    sizes = (12, 5, 1, 16, 8, 4, 1, 1)
    x, prompts = example(sizes)
    x = (x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True, correction=0)
    same = build(sizes)(x, prompts)
    torch.testing.assert_close(same, same[:1].expand_as(same), rtol=1e-4, atol=1e-4)
    shapes = build(sizes, cross_norm="features")(x, prompts)
    assert (shapes[0] - shapes[1]).abs().max() > 0.01


def error_after_training(variables, cross_norm, *, target, steps):
    """Train on a projection of the prompts or of the series, which has a variance of 1."""
    sizes = (16, 1, variables, 32, 16, 4, 1, 1)
    model = build(sizes, cross_norm=cross_norm, dropout=0.0).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    weights = {"prompts": torch.randn(32) / 32**0.5, "series": torch.randn(16) / 4}[target]
    errors = []
    for _ in range(steps):
        x, prompts = torch.randn(64, 16, variables), torch.randn(64, 32, variables)
        truth = torch.einsum("btv,t->bv", prompts if target == "prompts" else x, weights)
        mean, std = x.mean(1, keepdim=True), x.std(1, keepdim=True)
        error = ((model(x, prompts) - mean) / std - truth[:, None]).square().mean()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        errors.append(error.item())
    return sum(errors[-20:]) / 20


@pytest.mark.parametrize(
    ("variables", "cross_norm", "target", "steps", "learns"),
    [
        (1, "features", "prompts", 300, True),  # it starts to learn after some 200 steps
        (1, "features", "series", 100, True),
        (2, "variables", "series", 100, False),
    ],
)
@pytest.mark.long
def test_what_can_be_learnt_of_few_variables(variables, cross_norm, target, steps, learns):
    error = error_after_training(variables, cross_norm, target=target, steps=steps)
    assert error < 0.5 if learns else error > 0.8


def test_norm_over_features_is_each_variables_own():
    torch.manual_seed(0)
    cross = CrossModalityAlignment(2, feature_widths=(8, 5)).eval()
    series, prompts = torch.randn(2, 8, 2), torch.randn(2, 5, 2)
    scale, shift = torch.tensor([50.0, 0.1]), torch.tensor([3.0, -7.0])
    expected = cross(series, prompts)
    moved = cross(series * scale + shift, prompts * scale + shift)
    torch.testing.assert_close(moved, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("cross_norm", ["variables", "features"])
def test_what_a_masked_step_holds_has_no_influence(cross_norm):
    model = build(SIZES[0], cross_norm=cross_norm)
    x, prompts = example(SIZES[0])
    mask = torch.rand(x.shape) > 0.3
    mask[0, :, 0] = False  # a variable without any observation
    out = model(x, prompts, mask=mask)
    assert torch.equal(out, model(torch.where(mask, x, float("nan")), prompts, mask=mask))
    assert out.isfinite().all()


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(SIZES), st.integers(2, 20), st.booleans(), st.integers(0, 2**31))
def test_a_window_is_forecast_alone_as_among_others(sizes, batch, recorded, seed):
    model = build(sizes)
    x, prompts = example(sizes, batch=batch)
    row = seed % batch
    with torch.set_grad_enabled(recorded):
        together = model(x, prompts)[row]
        alone = model(x[row : row + 1], prompts[row : row + 1])[0]
    assert ((together - alone).abs() / x[row].std(0)).max() < 1e-5


def test_quantiles_do_not_cross():
    x, prompts = example(SIZES[0])
    out = build(SIZES[0], quantiles=(0.1, 0.5, 0.9))(x, prompts)
    assert out.shape == (3, 5, 3, 3)
    assert (out.diff(dim=-1) >= 0).all()


def test_inputs_that_do_not_fit_are_refused():
    x, prompts = example(SIZES[0])
    model = build(SIZES[0])
    with pytest.raises(ValueError, match=r"x must be \(batch, 12, 3\), got \(3, 11, 3\)"):
        model(x[:, 1:], prompts)
    with pytest.raises(ValueError, match=r"must be \(3, 16, 3\), got \(3, 15, 3\)"):
        model(x, prompts[:, 1:])
    with pytest.raises(ValueError, match="got None"):
        model(x)
    with pytest.raises(ValueError, match="left out of a model without width"):
        build((*SIZES[0][:3], None, *SIZES[0][4:]))(x, prompts)
    with pytest.raises(ValueError, match="channel=6 must be a multiple of heads=4"):
        TimeCMAModel(4, 2, 3, 8, channel=6, heads=4)
    with pytest.raises(ValueError, match="width=10 must be a multiple of heads=4"):
        TimeCMAModel(4, 2, 3, 10, channel=8, heads=4)
    with pytest.raises(ValueError, match=r"cross_norm must be one of .* got 'batch'"):
        build(SIZES[0], cross_norm="batch")


# ---------------------------------------------------------------- the authors' state dicts


def official(model, n_variables):
    """Write a model's tensors as the authors' code saves them."""
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    scale = {"cross.layers.0.self_attn.sdp_attn.scale": torch.tensor(n_variables**-0.5)}
    templates = {
        name.replace(".layers.0.", "_layer.", 1): torch.randn_like(tensor)
        for name, tensor in state.items()
        if name.startswith(("ts_encoder.layers.0", "prompt_encoder.layers.0", "decoder.layers.0"))
    }
    return state | scale | templates


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_state_dict_of_the_authors_gives_their_forecasts(sizes, prefix):
    model = build(sizes)
    saved = {prefix + key: tensor for key, tensor in official(model, sizes[2]).items()}
    loaded = TimeCMAModel.from_official(saved, n_heads=sizes[5]).eval()
    x, prompts = example(sizes)
    assert torch.equal(loaded(x, prompts), model(x, prompts))
    expected = plain_forecast(loaded, sizes, x, prompts)
    assert ((loaded(x, prompts) - expected).abs() / x.std(1, keepdim=True)).max() < 1e-5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gate.weight": torch.zeros(2)}, r"gate\.weight is \(2,\) and should be absent"),
        ({"decoder.layers.1.norm3.bias": None}, r"decoder\.layers\.1\.norm3\.bias is missing"),
        ({"length_to_feature.weight": None}, r"lacks 'length_to_feature\.weight'.*channel"),
        ({"c_to_length.bias": torch.zeros(4)}, r"c_to_length\.bias is \(4,\) and should be \(5,\)"),
        ({"cross.layers.0.self_attn.sdp_attn.scale": None}, "scale is missing"),
        ({"cross.layers.0.self_attn.sdp_attn.scale": torch.tensor(2.0)}, r"scale is 2\.0"),
    ],
)
def test_a_state_dict_that_is_none_of_theirs_is_refused_by_name(change, message):
    state = official(build(SIZES[0]), 3) | change
    state = {key: tensor for key, tensor in state.items() if tensor is not None}
    with pytest.raises(ValueError, match=message):
        TimeCMAModel.from_official(state, n_heads=4)
