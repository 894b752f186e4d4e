"""S²IP-LLM against plain recomputation, the authors' checkpoints, and what is trained in it."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2Model

from tsllm.adapters.s2ip.anchors import ANCHORS
from tsllm.adapters.s2ip.model import S2IPModel
from tsllm.backbone import load_backbone, tuned
from tsllm.backbone.architectures import ARCHITECTURES

TRAINED = ["layer_norms", "positions"]
CONTEXT, HORIZON = 24, 5
SIZES = {
    "trend_length": 6,
    "seasonal_length": 7,
    "patch_length": 6,
    "stride": 4,
    "pool_size": 20,
    "prompt_length": 3,
}


def llm(kind="gpt2", hidden=16):
    return load_backbone(f"random:{kind}?hidden={hidden}&layers=2&heads=2&seed=0", device="cpu")


def build(backbone=None, *, seed=0, context=CONTEXT, horizon=HORIZON, **changes):
    torch.manual_seed(seed)
    return S2IPModel(backbone, context, horizon, **({"width": 16} | SIZES | changes)).eval()


def sample(batch=3, channels=2, context=CONTEXT, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, context, channels, generator=generator).cumsum(1) * 3 + 20


def plain_decomposition(series, trend_length, seasonal_length):
    frame = pd.Series(series)
    trend = frame.rolling(trend_length, center=True).mean().bfill().ffill()
    detrended = frame - trend
    seasonal = detrended.groupby(np.arange(len(series)) % seasonal_length).transform("mean")
    return [part.to_numpy() for part in (trend, seasonal, detrended - seasonal)]


def plain_forward(model, x):
    """Forecast channel by channel, the specification in float64 with loops and pandas.

    Only the LLM is torch: transformers' own module, called on one sample at a time.
    """
    weights = {k: v.detach().double().numpy() for k, v in model.state_dict().items()}
    length, stride = model.patch_length, model.stride
    pool = model.anchors(model._words()).detach().double().numpy()
    horizon = weights["out_layer.weight"].shape[0]
    out, total = np.zeros((x.shape[0], horizon, x.shape[2])), 0.0
    for b, c in np.ndindex(x.shape[0], x.shape[2]):
        series = x[b, :, c].double().numpy()
        mean = series.sum() / len(series)
        std = np.sqrt(((series - mean) ** 2).sum() / len(series) + 1e-5)
        parts = plain_decomposition(
            (series - mean) / std, model.trend_length, model.seasonal_length
        )
        padded = [np.concatenate([part, [part[-1]] * stride]) for part in parts]
        tokens = []
        for n in range((len(series) - length) // stride + 2):
            patch = np.concatenate([part[n * stride : n * stride + length] for part in padded])
            tokens.append(weights["in_layer.weight"] @ patch + weights["in_layer.bias"])
        query = sum(tokens) / len(tokens)
        cosines = [query @ row / np.sqrt((query @ query) * (row @ row)) for row in pool]
        best = sorted(range(len(pool)), key=lambda i: -cosines[i])[: model.prompt_length]
        total += sum(cosines[i] for i in best)
        states = np.stack([pool[i] for i in best] + tokens)  # (prompt + patches, width)
        if model.backbone is not None:
            shell = getattr(model.backbone, "_shell", None)
            module = model.backbone._shared.causal if shell is None else shell
            with torch.no_grad():
                embeds = torch.tensor(states[None], dtype=torch.float32)
                states = module(inputs_embeds=embeds).last_hidden_state[0].double().numpy()
        flat = states.reshape(-1)
        flat = np.concatenate([flat, np.zeros(-len(flat) % 3)])
        for third in flat.reshape(3, -1):
            out[b, :, c] += weights["out_layer.weight"] @ third + weights["out_layer.bias"]
        out[b, :, c] = out[b, :, c] * std + mean
    return torch.tensor(out, dtype=torch.float32), total / (x.shape[0] * x.shape[2])


def check_plain(model, x):
    forecast, similarity = model(x)
    expected, expected_similarity = plain_forward(model, x)
    spread = float(x.std())
    torch.testing.assert_close(forecast.detach(), expected, rtol=1e-5, atol=1e-5 * spread)
    assert similarity.shape == ()
    assert similarity.item() == pytest.approx(expected_similarity, abs=1e-5)


# The specification


@pytest.mark.parametrize("kind", sorted(ARCHITECTURES))
def test_every_architecture_equals_the_specification(kind):
    for anchors in ANCHORS:
        model = build(tuned(llm(kind), train=TRAINED), anchors=anchors)
        check_plain(model, sample())


@pytest.mark.parametrize(
    ("context", "changes"),
    [
        (24, {"trend_length": 5, "seasonal_length": 24, "stride": 6}),
        (25, {"trend_length": 25, "seasonal_length": 1, "stride": 1}),
        (30, {"trend_length": 1, "seasonal_length": 60, "patch_length": 30, "stride": 30}),
        (8, {"trend_length": 8, "patch_length": 1, "stride": 1, "prompt_length": 20}),
        (1, {"trend_length": 1, "patch_length": 1, "stride": 1, "prompt_length": 1}),
    ],
)
def test_other_sizes_equal_the_specification(context, changes):
    check_plain(build(llm(), context=context, **changes), sample(context=context))


@pytest.mark.parametrize("hidden", [12, 16])  # a multiple of three, and not one
def test_widths_that_thirds_do_and_do_not_divide(hidden):
    model = build(llm(hidden=hidden))
    tokens = model.prompt_length + model.n_patches
    assert model.out_layer.weight.shape[1] == -(-tokens * hidden // 3)
    check_plain(model, sample())


def test_without_an_llm_the_output_layer_reads_the_prompted_tokens():
    for anchors in ANCHORS:  # there are no words to make others of
        model = build(anchors=anchors)
        assert "anchors.rows" in dict(model.named_parameters())
        check_plain(model, sample())


def test_the_published_sizes_make_64_patches():
    model = S2IPModel(None, 512, 96, trend_length=96, seasonal_length=96, pool_size=10, width=6)
    assert model.n_patches == 64
    assert model.out_layer.weight.shape == (96, (64 + 4) * 2)


# Checkpoints of the authors' code


class PlainOfficial(nn.Module):
    """Compute the authors' model, written anew from the paper and the names of its tensors."""

    def __init__(self, gpt2, horizon):
        super().__init__()
        self.gpt2 = gpt2
        width, tokens = gpt2.config.hidden_size, (CONTEXT - 6) // 4 + 2 + 3
        self.in_layer = nn.Linear(18, width)
        self.out_layer = nn.Linear(tokens * width // 3, horizon)
        self.prompt_pool = nn.Module()
        self.prompt_pool.wte = gpt2.wte.weight
        self.prompt_pool.text_prototype_linear = nn.Linear(gpt2.config.vocab_size, 20)

    def forward(self, x):
        batch, _, channels = x.shape
        mean = x.mean(1, keepdim=True)
        std = torch.sqrt(torch.var(x, dim=1, keepdim=True, unbiased=False) + 1e-5)
        rows = ((x - mean) / std).transpose(1, 2).reshape(batch * channels, -1)
        parts = torch.tensor(
            np.stack([np.stack(plain_decomposition(r, 6, 7)) for r in rows.numpy()])
        )
        parts = nn.ReplicationPad1d((0, 4))(parts.float())
        patches = parts.unfold(-1, 6, 4).permute(0, 2, 1, 3).flatten(2)
        tokens = self.in_layer(patches)
        keys = self.prompt_pool.text_prototype_linear(self.prompt_pool.wte.T).T
        cosines = nn.functional.cosine_similarity(tokens.mean(1)[:, None], keys[None], dim=-1)
        chosen = cosines.topk(3).indices
        states = self.gpt2(inputs_embeds=torch.cat([keys[chosen], tokens], 1)).last_hidden_state
        out = self.out_layer(states.reshape(batch * channels * 3, -1))
        out = out.reshape(batch, channels, 3, -1).sum(2).transpose(1, 2)
        return out * std + mean, cosines.gather(1, chosen).sum() / len(rows)


def official(hidden=12):
    """Make a trained checkpoint: its LLM is the backbone with other layer norms and positions."""
    backbone = llm(hidden=hidden)
    config = GPT2Config(**backbone._shared.config.to_diff_dict())
    gpt2 = GPT2Model(config)
    gpt2.load_state_dict(backbone._shared.causal.state_dict())
    torch.manual_seed(4)
    module = PlainOfficial(gpt2, HORIZON).eval()
    with torch.no_grad():
        for name, parameter in gpt2.named_parameters():
            if "ln" in name or "wpe" in name:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    return module, backbone


SETTINGS = {
    "context_length": CONTEXT,
    "trend_length": 6,
    "seasonal_length": 7,
    "patch_length": 6,
    "stride": 4,
    "prompt_length": 3,
}


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("private", [False, True])
def test_official_checkpoints_give_the_official_outputs(prefix, private):
    module, backbone = official()
    state = {prefix + key: tensor for key, tensor in module.state_dict().items()}
    assert prefix + "gpt2.h.1.ln_2.bias" in state
    before = backbone.digest
    core = tuned(backbone, train=TRAINED) if private else backbone
    model = S2IPModel.from_official(state, core, **SETTINGS).eval()
    x = sample()
    with torch.no_grad():
        got, expected = model(x), module(x)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    assert (got[0] - S2IPModel.from_official(state, core, **SETTINGS).eval()(x)[0]).abs().max() == 0
    assert backbone.digest == before


@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        ({"in_layer.bias": None}, {}, r"lacks \['in_layer.bias'\]"),
        ({"prompt_pool.prompt": torch.zeros(2)}, {}, r"no place here: \['prompt_pool.prompt'\]"),
        ({"gpt2.h.2.ln_1.weight": torch.zeros(12)}, {}, r"\['gpt2.h.2.ln_1.weight'\].*2 layers"),
        ({"gpt2.wpe.weight": None}, {}, "gpt2.wpe.weight missing"),
        ({"prompt_pool.wte": torch.zeros(259, 12)}, {}, "word embeddings prompt_pool.wte are not"),
        ({"gpt2.wte.weight": torch.zeros(9, 12)}, {}, "word embeddings gpt2.wte.weight are not"),
        ({}, {"patch_length": 5}, r"in_layer.weight \(12, 18\), not \(12, 15\)"),
        ({}, {"context_length": 40}, r"out_layer.weight \(5, 36\), not \(5, 52\)"),
    ],
)
def test_checkpoints_that_do_not_fit_are_refused(change, settings, message):
    module, backbone = official()
    state = module.state_dict() | change
    state = {key: tensor for key, tensor in state.items() if tensor is not None}
    with pytest.raises(ValueError, match=message):
        S2IPModel.from_official(state, backbone, **(SETTINGS | settings))


def test_a_private_backbone_that_lacks_what_was_trained_is_refused():
    module, backbone = official()
    with pytest.raises(ValueError, match=r"gpt2.wpe.weight.*as a plain Backbone"):
        S2IPModel.from_official(
            module.state_dict(), tuned(backbone, train=["layer_norms"]), **SETTINGS
        )


# What is trained


@pytest.mark.parametrize("anchors", ANCHORS)
@pytest.mark.parametrize("kind", ["gpt2", "llama", "bert"])
def test_gradients_reach_what_is_trained_and_nothing_else(kind, anchors):
    backbone = llm(kind)
    model = build(tuned(backbone, train=TRAINED), anchors=anchors)
    forecast, similarity = model(sample())
    (forecast.square().mean() - 0.05 * similarity).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    names = {name for name, _ in model.named_parameters()}
    assert any("norm" in n.lower() or "ln_" in n for n in names)
    assert any("wpe" in n or "position" in n for n in names) == (kind != "llama")
    pool = {n for n in names if n.startswith("anchors.")}
    assert (
        pool
        == {
            "free": {"anchors.rows"},
            "prototypes": {"anchors.linear.weight", "anchors.linear.bias"},
            "clusters": set(),
        }[anchors]
    )
    frozen = dict(backbone._shared.plain.named_parameters())
    assert all(p.grad is None and not p.requires_grad for p in frozen.values())
    assert not any(
        tensor.shape == backbone.word_embeddings.shape for tensor in model.state_dict().values()
    )


def test_around_a_plain_backbone_only_the_layers_outside_are_trained():
    names = {name.split(".")[0] for name, _ in build(llm()).named_parameters()}
    assert names == {"in_layer", "out_layer", "anchors"}


def test_the_similarity_alone_draws_tokens_and_anchors_together():
    model, x = build(llm(), anchors="free"), sample()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05)
    similarities = []
    for _ in range(20):
        _, similarity = model(x)
        similarities.append(similarity.item())
        optimiser.zero_grad()
        (-similarity).backward()
        optimiser.step()
    assert similarities[-1] > similarities[0] + 0.1
    assert similarities[-1] <= model.prompt_length


# Windows, masks, quantiles


def test_a_window_is_forecast_alone_as_among_others():
    model, x = build(llm()), sample(batch=5)
    together, _ = model(x)
    torch.testing.assert_close(model(x[3:4])[0], together[3:4])
    torch.testing.assert_close(model(x[..., 1:2])[0][..., 0], together[..., 1])


def test_forecasts_follow_the_units():
    model, x = build(llm()), sample()
    torch.testing.assert_close(model(x * 50 - 7)[0], model(x)[0] * 50 - 7, rtol=1e-3, atol=1e-2)


def test_what_a_masked_step_holds_has_no_influence():
    model, x = build(llm()), sample()
    mask = torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) > 0.3
    mask[0, :, 0] = False  # a channel without any observation
    forecast, similarity = model(x, mask)
    holed, other = model(torch.where(mask, x, torch.nan), mask)
    assert torch.equal(forecast, holed)
    assert torch.equal(similarity, other)
    assert forecast.isfinite().all()
    whole = model(x)[0]
    assert torch.equal(model(x, torch.ones_like(mask))[0], whole)
    assert (forecast[1:] - whole[1:]).abs().max() > 1e-3


def test_quantiles_do_not_cross():
    model = build(llm(), quantiles=(0.1, 0.5, 0.9))
    forecast, _ = model(sample() * 10)
    assert forecast.shape == (3, HORIZON, 2, 3)
    assert (forecast.diff(dim=-1) >= 0).all()


def test_dropout_acts_in_training_only():
    model, x = build(llm(), dropout=0.5), sample()
    assert torch.equal(model(x)[0], model(x)[0])
    model.train()
    assert not torch.equal(model(x)[0], model(x)[0])


def test_the_alignment_is_that_of_the_forecast():
    model, x = build(llm()), sample()
    aligned = model.align(x)
    assert aligned.tokens.shape == (6, model.n_patches, 16)
    torch.testing.assert_close(aligned.query, aligned.tokens.mean(1))
    torch.testing.assert_close(aligned.found.similarities.sum() / 6, model(x)[1])
    # Channels fastest: the second sample is the first window's second channel.
    alone = model.align(x[:1, :, 1:])
    torch.testing.assert_close(alone.found.similarities[0], aligned.found.similarities[1])


def test_a_backbone_in_bfloat16_forecasts_nearly_the_same():
    wide = load_backbone(
        "random:gpt2?hidden=16&layers=2&heads=2&seed=0", device="cpu", dtype="bfloat16"
    )
    for anchors in ("free", "prototypes"):  # rounded words fall into other clusters
        half = build(tuned(wide, train=TRAINED), anchors=anchors)
        full = build(tuned(llm(), train=TRAINED), anchors=anchors)
        x = sample()
        forecast = half(x)[0]
        assert forecast.dtype == torch.float32
        assert (forecast - full(x)[0]).abs().max() < 0.02 * x.std()
        forecast.sum().backward()
        assert all(p.grad.isfinite().all() for p in half.parameters())


# What is refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patch_length": 25}, "patch_length=25 and stride=4 must satisfy"),
        ({"stride": 7}, "stride=7 must satisfy"),
        ({"trend_length": 25}, "trend_length=25 must lie between 1 and context_length=24"),
        ({"seasonal_length": 0}, "seasonal_length must be at least 1 step, got 0"),
        ({"prompt_length": 21}, "prompt_length=21 must lie between 1 and pool_size=20"),
        ({"prompt_length": 0}, "prompt_length=0 must lie"),
        ({"anchors": "words"}, "anchors must be one of"),
        ({"quantiles": (0.9, 0.1)}, "strictly increasing"),
    ],
)
def test_settings_that_make_no_model_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        build(llm(), **changes)


def test_shapes_that_do_not_fit_are_refused():
    model = build()
    with pytest.raises(ValueError, match=r"\(batch, 24, channels\), got shape \(2, 23, 1\)"):
        model(torch.zeros(2, 23, 1))
    with pytest.raises(ValueError, match=r"mask must be a bool tensor .* got torch.float32"):
        model(torch.zeros(2, 24, 1), torch.ones(2, 24, 1))
