"""The zero-shot model: causal, independent of the batch, and its simple forecasts by definition."""

import numpy as np
import pytest
import torch

from tsllm.adapters.zero_shot import BASES, LEVELS, ZeroShotModel
from tsllm.backbone import load_backbone
from tsllm.forecasters.statistical import seasonal_naive

TINY = "random:bert?hidden=16&layers=1&heads=2&positions=64"


@pytest.fixture(scope="module", params=[None, TINY])
def model(request):
    torch.manual_seed(0)
    backbone = None if request.param is None else load_backbone(request.param, device="cpu")
    made = ZeroShotModel(backbone, hidden=16, width=16)
    with torch.no_grad():  # far from the start, where all corrections are small
        made.decoder[2].weight.mul_(30)
    return made.eval()


def drawn(batch=4, steps=96, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, steps, generator=generator, dtype=torch.float64).cumsum(1)
    seasons = torch.tensor([[7, 0], [12, 0], [24, 48], [0, 0]])[:batch]
    return x, torch.ones(x.shape, dtype=torch.bool), seasons


def test_a_token_reads_no_step_after_its_end(model):
    x, observed, seasons = drawn()
    before, _ = model(x, observed, seasons)
    x[:, 64:] = 1e3
    observed[0, 70:] = False
    after, _ = model(x, observed, seasons)
    torch.testing.assert_close(after[:, :4], before[:, :4])
    assert (after[:, 4:] - before[:, 4:]).abs().amax() > 1e-3


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_a_forecast_is_that_of_the_series_alone(model, missing):
    x, observed, seasons = drawn()
    drop = torch.rand(x.shape, generator=torch.Generator().manual_seed(1)) < missing
    for row, begin in enumerate((0, 40, 17, 91)):
        observed[row, :begin] = False
        drop[row, begin] = False
    observed &= ~drop
    x = torch.where(observed, x, torch.nan).nan_to_num(nan=123.0)
    together = model.forecast(x, observed, seasons, 80)
    for row, begin in enumerate((0, 40, 17, 91)):
        own = model.forecast(
            x[row : row + 1, begin:], observed[row : row + 1, begin:], seasons[row : row + 1], 80
        )
        torch.testing.assert_close(own[0], together[row], rtol=1e-4, atol=1e-4)


def test_a_forecast_scales_with_the_series(model):
    x, observed, seasons = drawn()
    plain = model.forecast(x, observed, seasons, 20)
    scaled = model.forecast(1000 * x, observed, seasons, 20)
    torch.testing.assert_close(scaled, 1000 * plain, rtol=1e-4, atol=1e-1)


def test_a_level_far_from_zero_hides_no_spread(model):
    x, observed, seasons = drawn()
    near, far = (model.forecast(x + level, observed, seasons, 20) - level for level in (1e7, 1e10))
    torch.testing.assert_close(far, near, rtol=1e-3, atol=1e-3)
    assert near.std() > 0.1


def test_values_that_are_not_observed_do_not_matter(model):
    x, observed, seasons = drawn()
    observed[:, 30:34] = False
    observed[1, -1] = False
    first = model.forecast(x, observed, seasons, 12)
    x[~observed] = 1e6
    torch.testing.assert_close(model.forecast(x, observed, seasons, 12), first)


def test_quantiles_never_cross_and_widen_over_the_passes(model):
    x, observed, seasons = drawn()
    out = model.forecast(x, observed, seasons, 150)
    levels = out[..., 1:]
    assert out.shape == (4, 150, 1 + len(LEVELS))
    assert (levels.diff(dim=-1) >= 0).all()
    torch.testing.assert_close(out[..., 0], levels[..., LEVELS.index(0.5)])
    width = levels[..., -1] - levels[..., 0]  # (batch, horizon)
    assert (width[:, 64:128] >= width[:, 63:64] - 1e-9).all()


def in_units(x, tokens, values):
    return (values - tokens.anchor[:, -1, None]) / tokens.scale[:, -1, None]


def test_the_simple_forecasts_are_those_of_their_definitions(model):
    x, observed, seasons = drawn(steps=160)
    tokens = model.describe(x, observed, seasons)
    bases = dict(zip(BASES, tokens.bases[:, -1].double().unbind(1)))  # (batch, horizon) each
    for row, (short, long) in enumerate(seasons.tolist()):
        past = x[row].numpy()
        for name, season in (("short", short), ("long", long)):
            expected = np.full(64, past[-1])
            profile = expected
            if season:
                expected = seasonal_naive(past[:, None], 64, season)[:, 0]
                whole = min(4, len(past) // season)
                cycles = past[-whole * season :].reshape(whole, season)
                own = cycles - cycles.mean(1, keepdims=True)
                profile = np.resize(own.mean(0) + cycles[-1].mean(), 64)
            for kind, values in (("seasonal naive", expected), ("profile", profile)):
                wanted = in_units(x, tokens, torch.from_numpy(values))[row]
                torch.testing.assert_close(
                    bases[f"{name} {kind}"][row], wanted, rtol=1e-5, atol=1e-5
                )
    mean = in_units(x, tokens, x[:, -16:].mean(1, keepdim=True))
    torch.testing.assert_close(bases["mean of 16 steps"], mean.expand(-1, 64), rtol=1e-5, atol=1e-5)
    last = x[:, -128:]
    spread = (last - last.mean(1, keepdim=True)).square().mean(1).sqrt()
    torch.testing.assert_close(tokens.scale[:, -1], spread)


def test_a_season_with_a_trend_is_continued_by_the_base_with_drift(model):
    t = torch.arange(160 + 64, dtype=torch.float64)
    x = (torch.sin(2 * torch.pi * t / 12) + 0.05 * t)[None]
    past, seasons = x[:, :160], torch.tensor([[12, 0]])
    tokens = model.describe(past, torch.ones(past.shape, dtype=torch.bool), seasons)
    base = tokens.bases[:, -1, BASES.index("short seasonal naive with drift")].double()
    torch.testing.assert_close(base, in_units(past, tokens, x[:, 160:]), rtol=1e-4, atol=1e-4)


def test_a_series_without_spread_is_forecast_by_its_value(model):
    x = torch.full((1, 40), 3.0, dtype=torch.float64)
    out = model.forecast(x, torch.ones(x.shape, dtype=torch.bool), torch.tensor([[7, 0]]), 10)
    torch.testing.assert_close(out, torch.full_like(out, 3.0), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("horizon", [0, 8, 20])
def test_a_horizon_of_broken_blocks_is_refused(horizon):
    with pytest.raises(ValueError, match="multiple of 16"):
        ZeroShotModel(None, horizon=horizon)
