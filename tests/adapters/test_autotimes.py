"""AutoTimes against plain recomputation, and what masks, caches and checkpoints leave alone."""

import copy
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tsllm.adapters.autotimes import AutoTimesModel
from tsllm.adapters.losses import next_segment_loss
from tsllm.backbone import Hidden, load_backbone, tuned

LEVELS = (0.1, 0.4, 0.6, 0.9)  # no 0.5: the nearest one, 0.4, is rolled on
S = 4
HORIZONS = [1, S - 1, S, S + 1, 3 * S + 2]
MODES = ["sliding", "cached"]


def llm(kind="gpt2", **arguments):
    return load_backbone(
        f"random:{kind}?hidden=64&layers=2&heads=4&seed=0", device="cpu", **arguments
    )


def build(backbone=None, *, seed=0, **arguments):
    """Build a model in eval mode whose timestamp scale is not its initial 1."""
    torch.manual_seed(seed)
    model = AutoTimesModel(backbone, S, **({"width": 16} | arguments)).eval()
    if model.mix_timestamps:
        nn.init.constant_(model.add_scale, 0.7)
    return model


def sample(batch=3, tokens=5, channels=2, *, width=64, steps=1, seed=0):
    """Draw a context and timestamps for a rollout of `steps` segments."""
    torch.manual_seed(seed)
    x = torch.randn(batch, tokens * S, channels).cumsum(1) * 3 + 20
    return x, torch.randn(batch * channels, tokens + steps - 1, width) * 5


def close(got, expected, tolerance=1e-5):
    torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance)


def plain_layer(module, v):
    """Apply a token layer with numpy, from its state dict."""
    weights = {key: value.double().numpy() for key, value in module.state_dict().items()}
    if "weight" in weights:
        return weights["weight"] @ v + weights["bias"]
    last = max(int(key.split(".")[1]) for key in weights)
    for position in range(0, last + 1, 3):
        v = weights[f"layers.{position}.weight"] @ v + weights[f"layers.{position}.bias"]
        if position < last:
            v = np.tanh(v)
    return v


def plain_forward(model, x, timestamps=None):
    """Forecast channel by channel and segment by segment, the published formulas in float64.

    Only the LLM is torch: transformers' own module, called on one sample at a time.
    """
    out = np.zeros(tuple(x.shape))
    for b, c in np.ndindex(x.shape[0], x.shape[2]):
        series = x[b, :, c].double().numpy()
        mean = series.sum() / len(series)
        std = np.sqrt(((series - mean) ** 2).sum() / len(series) + 1e-5)
        tokens = []
        for n in range(len(series) // S):
            e = plain_layer(model.encoder, (series[n * S : (n + 1) * S] - mean) / std)
            if timestamps is not None:
                t = timestamps[b * x.shape[2] + c, n].double().numpy()
                scale = float(model.add_scale.detach())
                e = e / np.sqrt((e**2).sum()) + scale * t / np.sqrt((t**2).sum())
            tokens.append(e)
        states = np.stack(tokens)
        if model.backbone is not None:
            embeds = torch.tensor(states[None], dtype=torch.float32)
            with torch.no_grad():
                module = model.backbone._shared.causal
                states = module(inputs_embeds=embeds).last_hidden_state[0].double().numpy()
        for n, state in enumerate(states):
            out[b, n * S : (n + 1) * S, c] = plain_layer(model.decoder, state) * std + mean
    return torch.tensor(out, dtype=torch.float32)


# The published formulas


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 5, 3), (4, 7, 1)])
@pytest.mark.parametrize("mlp_layers", [0, 2, 4])
@pytest.mark.parametrize("mix", [False, True])
def test_forward_equals_the_published_formulas(shape, mlp_layers, mix):
    model = build(llm(), mlp_layers=mlp_layers, mlp_hidden=24, dropout=0.1, mix_timestamps=mix)
    x, timestamps = sample(*shape)
    given_timestamps = timestamps if mix else None
    close(model(x, given_timestamps), plain_forward(model, x, given_timestamps))


@pytest.mark.parametrize("kind", ["llama", "opt"])
def test_forward_equals_the_published_formulas_with_other_llms(kind):
    model, (x, _) = build(llm(kind)), sample()
    close(model(x), plain_forward(model, x))


@pytest.mark.parametrize("mix", [False, True])
def test_without_an_llm_the_decoder_reads_the_tokens(mix):
    model, (x, timestamps) = build(mix_timestamps=mix), sample(width=16)
    given_timestamps = timestamps if mix else None
    assert model.width == 16
    close(model(x, given_timestamps), plain_forward(model, x, given_timestamps))


@pytest.mark.parametrize("kind", ["gpt2", "bert"])
def test_a_forecast_does_not_see_later_segments(kind):
    """Steps swapped within the last segment leave the statistics as they are."""
    model, (x, _) = build(llm(kind)), sample()
    swapped = torch.cat([x[:, :-S], x[:, -S:].flip(1)], dim=1)
    forecast, other = model(x), model(swapped)
    close(forecast[:, :-S], other[:, :-S])
    assert (forecast[:, -S:] - other[:, -S:]).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["tokens", "timestamps"])
def test_an_embedding_of_norm_zero_adds_nothing(name):
    model, (x, timestamps) = build(llm(), mix_timestamps=True), sample()
    if name == "tokens":
        nn.init.zeros_(model.encoder.weight)
        nn.init.zeros_(model.encoder.bias)
    else:
        timestamps = torch.zeros_like(timestamps)
    assert model(x, timestamps).isfinite().all()


def test_dropout_acts_on_linear_tokens_in_training_only():
    model, (x, _) = build(llm(), dropout=0.5), sample()
    assert torch.equal(model(x), model(x))
    model.train()
    assert not torch.equal(model(x), model(x))


# ---------------------------------------------------------------- contexts turned upside down

ODD = {"flip_invariance": True, "mix_timestamps": True}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("levels", [(), (0.1, 0.5, 0.9)])
def test_a_context_turned_upside_down_has_its_forecast_turned_upside_down(mode, levels):
    model = build(llm(), quantiles=levels, **ODD)
    x, timestamps = sample(steps=3)
    mask = torch.rand(x.shape) > 0.2
    upright = model.rollout(x, 3 * S, timestamps, mask=mask, mode=mode)
    turned = model.rollout(-x, 3 * S, timestamps, mask=mask, mode=mode)
    close(-turned.flip(-1) if levels else -turned, upright)
    other = build(llm(), quantiles=levels, mix_timestamps=True)
    other = other.rollout(-x, 3 * S, timestamps, mask=mask, mode=mode)
    assert not torch.allclose(-other.flip(-1) if levels else -other, upright, rtol=1e-2)


def test_evaluation_averages_both_readings_and_training_takes_one_by_chance():
    x, timestamps = sample(batch=40, channels=1)
    plain = build(llm(), quantiles=(0.1, 0.5, 0.9), mix_timestamps=True)
    odd = build(llm(), quantiles=(0.1, 0.5, 0.9), **ODD)
    one, other = plain(x, timestamps), -plain(-x, timestamps).flip(-1)  # (batch, context, 1, 3)
    close(odd(x, timestamps), (one + other) / 2)
    odd.train()
    read = odd(x, timestamps)
    upright = [torch.allclose(a, b, atol=1e-4) for a, b in zip(read, one)]
    over = [torch.allclose(a, b, atol=1e-4) for a, b in zip(read, other)]
    assert all(a != b for a, b in zip(upright, over))
    assert 5 < sum(upright) < 35


def test_levels_that_do_not_mirror_cannot_be_turned_over():
    with pytest.raises(ValueError, match=r"needs quantiles that mirror around 0.5"):
        build(quantiles=(0.2, 0.5, 0.9), flip_invariance=True)


def test_a_bfloat16_llm_still_gives_float32_forecasts():
    model, (x, _) = build(llm(dtype="bfloat16")), sample()
    exact = build(llm(dtype="float32"))
    forecast = model(x)
    assert forecast.dtype == torch.float32
    expected = exact(x)
    error = (forecast - expected).norm() / (expected - x.mean(1, keepdim=True)).norm()
    assert 0 < error < 0.02


@pytest.mark.parametrize("backbone", ["gpt2", None])
@pytest.mark.parametrize("mode", MODES)
def test_a_batch_of_one_equals_a_batch_of_many(backbone, mode):
    model = build(backbone and llm(backbone))
    x, _ = sample(batch=6)
    mask = torch.rand_like(x) > 0.3
    mask[1, : 2 * S] = False
    mask[2] = True
    many = model.rollout(x, 9, mask=mask, mode=mode)
    for b in range(6):
        one = model.rollout(x[b : b + 1], 9, mask=mask[b : b + 1], mode=mode)
        close(one, many[b : b + 1])


# Missing values


@pytest.mark.parametrize("backbone", ["gpt2", None])
def test_a_mask_that_hides_nothing_changes_no_bit(backbone):
    model, (x, _) = build(backbone and llm(backbone)), sample()
    mask = torch.ones_like(x, dtype=torch.bool)
    assert torch.equal(model(x), model(x, mask=mask))
    for mode in MODES:
        assert torch.equal(
            model.rollout(x, 10, mode=mode), model.rollout(x, 10, mask=mask, mode=mode)
        )


@pytest.mark.parametrize("kind", ["gpt2", "llama", "bert", None])
@pytest.mark.parametrize("filling", [0.0, 1e30, float("nan"), float("inf")])
def test_what_masked_steps_hold_has_no_influence(kind, filling):
    model = build(kind and llm(kind), mix_timestamps=True)
    x, timestamps = sample(steps=3, width=model.width)
    mask = torch.rand_like(x) > 0.5
    mask[0, : 2 * S] = False  # padding on the left
    mask[1, S : 3 * S, 0] = False  # a gap
    mask[2, -S:] = False  # nothing at the end
    mask[2, :, 1] = False  # nothing at all
    filled = torch.where(mask, x, filling)
    assert torch.equal(
        model(x, timestamps[:, :5], mask=mask), model(filled, timestamps[:, :5], mask=mask)
    )
    for mode in MODES:
        forecast = model.rollout(x, 3 * S, timestamps, mask=mask, mode=mode)
        assert forecast.isfinite().all()
        assert torch.equal(forecast, model.rollout(filled, 3 * S, timestamps, mask=mask, mode=mode))


def test_masked_steps_are_zero_in_normalised_space():
    """Filled with the observed mean they are zero and leave the mean; the rest is the scale."""
    model, (x, _) = build(llm()), sample(batch=1, channels=1)
    mask = torch.ones_like(x, dtype=torch.bool)
    mask[0, [1, 6, 7, 13]] = False  # every token still has an observed step
    seen = x[mask]
    mean, std = seen.mean(), torch.sqrt(seen.var(correction=0) + 1e-5)
    normalised = torch.where(mask, (x - mean) / std, 0.0)
    tokens = model.encoder(normalised.reshape(1, 5, S))
    expected = model.decoder(model.backbone.hidden(tokens).states) * std + mean
    close(model(x, mask=mask), expected.reshape(1, 5 * S, 1))


class AttentionRecorder:
    """An LLM that hands tokens on and keeps what it was asked to attend to and how much it read."""

    hidden_size = 16

    def __init__(self):
        self.masks, self.tokens = [], []

    def hidden(
        self, inputs_embeds, past=None, *, attention_mask=None, use_cache=False, last_only=False
    ):
        self.masks.append(attention_mask)
        self.tokens.append(inputs_embeds.shape[1])
        states = inputs_embeds[:, -1:] if last_only else inputs_embeds
        return Hidden(states, object() if use_cache else None)


def test_only_tokens_with_an_observed_step_are_attended_to():
    recorder = AttentionRecorder()
    model, (x, _) = build(recorder), sample(batch=2)
    mask = torch.ones_like(x, dtype=torch.bool)
    mask[0, : 2 * S] = False  # both channels padded on the left
    mask[1, S : 2 * S - 1, 0] = False  # one step of the segment is left
    mask[1, S : 2 * S, 1] = False  # a gap
    mask[1, 4 * S :, 1] = False  # the last token stays: the forecast is read from it
    model(x, mask=mask)
    assert recorder.masks[0].int().tolist() == [
        [0, 0, 1, 1, 1],
        [0, 0, 1, 1, 1],
        [1, 1, 1, 1, 1],
        [1, 0, 1, 1, 1],
    ]
    model.rollout(x, 2 * S, mask=mask, mode="cached")
    assert recorder.masks[2].int().tolist() == [
        [*row, 1] for row in recorder.masks[1].int().tolist()
    ]


@pytest.mark.parametrize("kind", ["gpt2", "llama", "bert", None])
def test_a_channel_without_observations_has_a_finite_forecast(kind):
    model, (x, _) = build(kind and llm(kind)), sample()
    mask = torch.ones_like(x, dtype=torch.bool)
    mask[0], mask[1, :, 0] = False, False
    assert model(x, mask=mask).isfinite().all()
    for mode in MODES:
        forecast = model.rollout(x, 10, mask=mask, mode=mode)
        assert forecast.isfinite().all()
        close(forecast[2], model.rollout(x[2:], 10, mode=mode)[0])


@pytest.mark.parametrize("kind", ["llama", None])
@pytest.mark.parametrize("mode", MODES)
def test_left_padding_by_whole_segments_changes_nothing_where_positions_are_relative(kind, mode):
    """Rotary positions count distances. The sliding context drops padding, where the short series
    alone would drop its oldest segment: equal is its first segment only."""
    model, (x, _) = build(kind and llm(kind)), sample(tokens=3)
    padded = torch.cat([torch.full((3, 2 * S, 2), torch.nan), x], dim=1)
    mask = ~padded.isnan()
    close(model(padded, mask=mask)[:, 2 * S :], model(x))
    horizon = S if mode == "sliding" else 3 * S
    close(
        model.rollout(padded, horizon, mask=mask, mode=mode), model.rollout(x, horizon, mode=mode)
    )


# Rolling out


@pytest.mark.parametrize("horizon", HORIZONS)
@pytest.mark.parametrize("options", ["plain", "timestamps", "mask", "quantiles", "no llm"])
def test_sliding_equals_repeated_forward_calls(horizon, options):
    steps = -(-horizon // S)
    model, x, timestamps, mask = rollout_case(options, steps)
    context, seen, forecasts = x, mask, []
    for step in range(steps):
        marks = None if timestamps is None else timestamps[:, step : step + 5]
        forecasts.append(model(context, marks, mask=seen)[:, -S:])
        path = forecasts[-1][..., 1] if model.quantiles else forecasts[-1]
        context = torch.cat([context[:, S:], path], dim=1)
        if seen is not None:
            seen = torch.cat([seen[:, S:], torch.ones(3, S, 2, dtype=torch.bool)], dim=1)
    expected = torch.cat(forecasts, dim=1)[:, :horizon].detach()
    close(model.rollout(x, horizon, timestamps, mask=mask), expected)


@pytest.mark.parametrize("horizon", HORIZONS)
@pytest.mark.parametrize("options", ["plain", "timestamps", "mask", "quantiles", "no llm"])
def test_cached_equals_reading_the_grown_context_from_the_start(horizon, options):
    steps = -(-horizon // S)
    model, x, timestamps, mask = rollout_case(options, steps)
    seen = torch.ones_like(x, dtype=torch.bool) if mask is None else mask
    forecasts = torch.zeros(3, steps * S, 2, max(1, len(model.quantiles)))
    for b, c in np.ndindex(3, 2):
        row = seen[b, :, c]
        mean = x[b, row, c].mean()
        std = torch.sqrt(x[b, row, c].var(correction=0) + 1e-5)
        context = torch.where(row, (x[b, :, c] - mean) / std, 0.0).reshape(5, S)
        attended = row.reshape(5, S).any(1)
        for step in range(steps):
            tokens = model.encoder(context)[None]
            if timestamps is not None:
                marks = timestamps[b * 2 + c : b * 2 + c + 1, : 5 + step]
                tokens = tokens / tokens.norm(dim=-1, keepdim=True)
                tokens = tokens + 0.7 * marks / marks.norm(dim=-1, keepdim=True)
            if model.backbone is not None:
                tokens = model.backbone.hidden(tokens, attention_mask=attended[None]).states
            segment = model.decoder(tokens[0, -1])
            if model.quantiles:
                segment = model.quantile_head(segment)
            segment = segment.reshape(S, -1).detach()
            forecasts[b, step * S : (step + 1) * S, c] = segment * std + mean
            path = segment[:, 1 if model.quantiles else 0]
            context = torch.cat([context, path[None]])
            attended = torch.cat([attended, torch.ones(1, dtype=torch.bool)])
    forecasts = forecasts if model.quantiles else forecasts[..., 0]
    rolled = model.rollout(x, horizon, timestamps, mask=mask, mode="cached")
    close(rolled, forecasts[:, :horizon])


def rollout_case(options, steps):
    """Build a model with one of its options, and what it reads."""
    x, timestamps = sample(steps=steps)
    model = build(
        None if options == "no llm" else llm(),
        mix_timestamps=options == "timestamps",
        quantiles=LEVELS if options == "quantiles" else (),
    )
    mask = None
    if options == "mask":
        mask = torch.rand_like(x) > 0.4
        mask[0, : 2 * S], mask[1, 2 * S : 3 * S, 0] = False, False
        mask[:, -1] = True
    return model, x, timestamps if options == "timestamps" else None, mask


@pytest.mark.parametrize("mode", MODES)
def test_a_longer_horizon_only_adds_steps(mode):
    model, (x, _) = build(llm()), sample()
    longest = model.rollout(x, 15, mode=mode)
    for horizon in (1, 4, 5):
        close(model.rollout(x, horizon, mode=mode), longest[:, :horizon])


def test_both_modes_begin_with_the_segment_after_the_context():
    model, (x, _) = build(llm()), sample()
    expected = model(x)[:, -S:].detach()
    close(model.rollout(x, S), expected)
    close(model.rollout(x, S, mode="cached"), expected)


def test_the_cache_saves_reading_the_context_again():
    recorder = AttentionRecorder()
    model, (x, _) = build(recorder), sample()
    model.rollout(x, 3 * S, mode="sliding")
    model.rollout(x, 3 * S, mode="cached")
    assert recorder.tokens == [5, 5, 5, 5, 1, 1]


def test_rolling_out_records_no_gradient():
    model, (x, _) = build(llm()), sample()
    assert not model.rollout(x, 5).requires_grad


# Quantiles


@given(seed=st.integers(0, 2**31), mode=st.sampled_from(MODES), scale=st.floats(0.01, 1e4))
@settings(deadline=None, max_examples=20)
def test_quantiles_never_cross(seed, mode, scale):
    model = build(llm(), seed=seed, quantiles=LEVELS)
    x, _ = sample(seed=seed)
    forecast = model(x * scale)
    assert forecast.shape == (3, 20, 2, 4)
    assert (forecast.diff(dim=-1) >= 0).all()
    rolled = model.rollout(x * scale, 10, mode=mode)
    assert rolled.shape == (3, 10, 2, 4)
    assert (rolled.diff(dim=-1) >= 0).all()


def test_the_median_level_is_the_decoders_own_output():
    model, (x, _) = build(llm(), quantiles=LEVELS), sample()
    point = build(llm())
    rows = slice(1, None, len(LEVELS))  # those of the level 0.4
    point.encoder.load_state_dict(model.encoder.state_dict())
    point.decoder.load_state_dict({k: v[rows] for k, v in model.decoder.state_dict().items()})
    close(model(x)[..., 1], point(x))


# What is trained, saved and loaded


def test_the_model_owns_its_trained_tensors_only():
    model = build(llm(), mix_timestamps=True)
    expected = {"add_scale", "encoder.weight", "encoder.bias", "decoder.weight", "decoder.bias"}
    assert set(model.state_dict()) == expected
    assert sum(p.numel() for p in model.parameters()) == 1 + S * 64 + 64 + 64 * S + S
    assert copy.deepcopy(model).backbone is model.backbone


def test_a_private_backbone_is_trained_and_saved_with_the_model():
    private = tuned(llm(), train=["layer_norms"])
    model, (x, _) = build(private), sample()
    owned = {f"backbone.{name}" for name in private.state_dict()}
    assert owned
    assert set(model.state_dict()) == owned | set(build(llm()).state_dict())
    close(model(x), build(llm())(x))
    model(x).square().sum().backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("mlp_layers", [0, 2])
def test_one_step_changes_every_trained_tensor_and_no_bit_of_the_backbone(mlp_layers):
    backbone = llm()
    model = build(backbone, mlp_layers=mlp_layers, mix_timestamps=True).train()
    frozen = {k: v.clone() for k, v in backbone._shared.causal.state_dict().items()}
    trained = {k: v.clone() for k, v in model.state_dict().items()}
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    x, timestamps = sample(tokens=5)
    total, count = next_segment_loss(model, x, timestamps[:, :4])
    (total / count).backward()
    optimiser.step()
    for key, tensor in backbone._shared.causal.state_dict().items():
        assert torch.equal(tensor, frozen[key]), key
    for key, tensor in model.state_dict().items():
        assert not torch.equal(tensor, trained[key]), key


class PlainOfficial(nn.Module):
    """The authors' module as the method's description has it, written for this test."""

    def __init__(self, backbone, mlp_layers, mix, activation):
        super().__init__()
        self.gpt2 = backbone._shared.causal
        self.encoder = self.layer(S, 64, mlp_layers, activation)
        self.decoder = self.layer(64, S, mlp_layers, activation)
        if mix:
            self.add_scale = nn.Parameter(torch.tensor(0.3))

    def layer(self, n_in, n_out, mlp_layers, activation):
        if mlp_layers == 0:
            return nn.Linear(n_in, n_out)
        widths = [n_in] + [24] * (mlp_layers - 1)
        parts = []
        for a, b in itertools.pairwise(widths):
            parts += [nn.Linear(a, b), activation(), nn.Dropout(0.1)]
        holder = nn.Module()
        holder.layers = nn.Sequential(*parts, nn.Linear(24, n_out))
        holder.forward = holder.layers.forward
        return holder

    def forward(self, x, timestamps):
        mean, std = (
            x.mean(1, keepdim=True),
            torch.sqrt(x.var(1, unbiased=False, keepdim=True) + 1e-5),
        )
        batch, time, channels = x.shape
        rows = ((x - mean) / std).permute(0, 2, 1).reshape(batch * channels, time // S, S)
        tokens = self.encoder(rows)
        if hasattr(self, "add_scale"):
            tokens = tokens / tokens.norm(dim=2, keepdim=True)
            tokens = tokens + self.add_scale * timestamps / timestamps.norm(dim=2, keepdim=True)
        states = self.gpt2(inputs_embeds=tokens).last_hidden_state
        out = self.decoder(states).reshape(batch, channels, time).permute(0, 2, 1)
        return out * std + mean


@pytest.mark.parametrize(
    ("mlp_layers", "activation"), [(0, "tanh"), (2, "tanh"), (3, "relu"), (6, "gelu")]
)
@pytest.mark.parametrize("mix", [False, True])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_official_checkpoints_give_the_official_outputs(mlp_layers, activation, mix, prefix):
    modules = {"tanh": nn.Tanh, "relu": nn.ReLU, "gelu": nn.GELU}
    torch.manual_seed(1)
    backbone = llm()
    official = PlainOfficial(backbone, mlp_layers, mix, modules[activation]).eval()
    state = {prefix + key: tensor for key, tensor in official.state_dict().items()}
    assert any(key.startswith(prefix + "gpt2.") for key in state)
    model = AutoTimesModel.from_official(state, backbone, activation=activation).eval()
    x, timestamps = sample()
    close(model(x, timestamps if mix else None), official(x, timestamps))


def test_official_checkpoints_load_around_a_private_backbone():
    state, private = build(llm()).state_dict(), tuned(llm(), train=["layer_norms"])
    x, _ = sample()
    model = AutoTimesModel.from_official(state, private).eval()
    close(model(x), build(llm())(x))


def test_official_checkpoints_load_without_an_llm():
    source, (x, _) = build(width=24), sample()
    close(AutoTimesModel.from_official(source.state_dict(), None).eval()(x), source(x))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder.weight": torch.zeros(96, S)}, "width 96.*hidden_size 64"),
        ({"encoder.scale": torch.zeros(1)}, r"does not know: \['encoder.scale'\]"),
        ({"bert.x": torch.zeros(1), "add_scales": torch.ones(())}, r"\['add_scales', 'bert.x'\]"),
        ({"decoder.bias": None}, r"decoder.bias None, not torch.Size\(\[4\]\)"),
        ({"decoder.weight": torch.zeros(8, 64)}, r"decoder.weight .*\[8, 64\].*\[4, 64\]"),
        ({"encoder.layers.0.bias": torch.zeros(64)}, "encoder.layers.0.bias"),
        ({"encoder.weight": None}, "no weights of the encoder"),
    ],
)
def test_checkpoints_that_do_not_fit_are_refused(change, message):
    state = build(llm()).state_dict() | change
    with pytest.raises(ValueError, match=message):
        AutoTimesModel.from_official({k: v for k, v in state.items() if v is not None}, llm())


# What is refused


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"token_length": 0}, "token_length must be at least 1 step, got 0"),
        ({"mlp_layers": 1}, "mlp_layers=1"),
        ({"quantiles": (0.9, 0.1)}, "strictly increasing"),
    ],
)
def test_settings_that_make_no_model_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        AutoTimesModel(None, **({"token_length": S} | arguments))


@pytest.mark.parametrize(
    ("shape", "arguments", "message"),
    [
        ((2, 10, 1), {}, r"multiple of token_length=4 steps, got shape \(2, 10, 1\)"),
        ((2, 0, 1), {}, "multiple of token_length=4"),
        ((2, 8), {}, r"\(batch, context, channels\)"),
        ((2, 8, 1), {"horizon": 0}, "horizon must be at least 1 step, got 0"),
        ((2, 8, 1), {"mode": "fast"}, r"\['sliding', 'cached'\], got 'fast'"),
        ((2, 8, 1), {"mask": torch.ones(2, 8, 1)}, "bool tensor.*torch.float32"),
        ((2, 8, 1), {"mask": torch.ones(2, 4, 1).bool()}, r"\(2, 8, 1\).*\(2, 4, 1\)"),
        ((2, 8, 1), {"timestamps": torch.ones(2, 3, 16)}, "mix_timestamps=False.*were given"),
    ],
)
def test_rollouts_that_do_not_fit_are_refused(shape, arguments, message):
    with pytest.raises(ValueError, match=message):
        build().rollout(torch.zeros(shape), **({"horizon": 5} | arguments))


def test_timestamps_are_required_and_checked_where_they_are_mixed_in():
    model, x = build(mix_timestamps=True), torch.zeros(2, 8, 3)
    with pytest.raises(ValueError, match=r"mix_timestamps=True.*missing"):
        model(x)
    with pytest.raises(ValueError, match=r"\(6, 2, 16\), got \(2, 2, 16\)"):
        model(x, torch.ones(2, 2, 16))
    with pytest.raises(ValueError, match=r"\(6, 4, 16\), got \(6, 2, 16\)"):
        model.rollout(x, 2 * S + 1, torch.ones(6, 2, 16))
