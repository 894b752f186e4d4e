"""The decomposition against pandas itself, and what gaps do to it."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tsllm.adapters.s2ip.decomposition import decompose, fill_gaps


def with_pandas(values, trend_length, seasonal_length):
    """Decompose one window as the authors do: (3, time), float64."""
    series = pd.Series(np.asarray(values, dtype=np.float64))
    trend = series.rolling(window=trend_length, center=True).mean().bfill().ffill()
    detrended = series - trend
    seasonal = detrended.groupby(detrended.index % seasonal_length).transform("mean")
    return np.stack([trend, seasonal, series - trend - seasonal])


#: Values (time,), the trend's length, the season's length.
windows = st.integers(1, 70).flatmap(
    lambda time: st.tuples(
        arrays(np.float32, time, elements=st.floats(-100, 100, width=32)).map(np.ndarray.tolist),
        st.integers(1, time),
        st.integers(1, 80),
    )
)


@settings(max_examples=100, deadline=None)
@given(windows)
def test_the_components_equal_pandas(window):
    values, trend_length, seasonal_length = window
    parts = decompose(torch.tensor([values]), trend_length, seasonal_length)
    expected = with_pandas(values, trend_length, seasonal_length)
    np.testing.assert_allclose(parts[0], expected, atol=1e-5 * max(1.0, np.abs(values).max()))


@pytest.mark.parametrize(("trend", "season"), [(96, 96), (24, 24), (25, 7), (192, 48), (512, 512)])
def test_the_published_lengths_equal_pandas_to_1e_5(trend, season):
    torch.manual_seed(0)
    x = torch.randn(4, 512).cumsum(1)
    x = (x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True)
    expected = np.stack([with_pandas(row, trend, season) for row in x.numpy()])
    np.testing.assert_allclose(decompose(x, trend, season), expected, atol=1e-5)


@settings(max_examples=100, deadline=None)
@given(windows, st.randoms(use_true_random=False))
def test_the_observed_components_add_up_and_the_gaps_hold_trend_and_season(window, random):
    values, trend_length, seasonal_length = window
    x = torch.tensor([values])
    mask = torch.tensor([[random.random() < 0.6 for _ in values]])
    parts = decompose(x, trend_length, seasonal_length, mask)
    tolerance = 1e-4 * max(1.0, np.abs(values).max())
    assert torch.allclose(parts.sum(1)[mask], x[mask], atol=tolerance)
    assert (parts[:, 2][~mask] == 0).all()
    # What an unobserved step holds has no influence, and neither has a mask that hides nothing.
    holed = torch.where(mask, x, torch.nan)
    assert torch.equal(decompose(holed, trend_length, seasonal_length, mask), parts)
    everything = torch.ones_like(mask)
    whole = decompose(x, trend_length, seasonal_length)
    assert torch.equal(decompose(x, trend_length, seasonal_length, everything), whole)


def test_seasonal_means_count_observed_steps_only():
    season = torch.tensor([0.0, 3.0, -3.0]).repeat(5)[None]
    mask = torch.ones_like(season, dtype=torch.bool)
    mask[0, 4:9] = False
    seasonal = decompose(season, 1, 3, mask)[0, 1]
    assert torch.equal(seasonal, torch.zeros(15))  # the trend of length 1 is the window itself
    shifted = decompose(season + 5, 15, 3, mask)[0]
    level = shifted[0, 0]
    torch.testing.assert_close(shifted[1, :3] + level, season[0, :3] + 5)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=30))
def test_gaps_take_the_nearest_observed_value(observed):
    x = torch.arange(1.0, len(observed) + 1)[None]
    filled = fill_gaps(x, torch.tensor([observed]))[0].tolist()
    known = [i for i, seen in enumerate(observed) if seen]
    nearest = [min(known, key=lambda j: (abs(i - j), j), default=-1) for i in range(len(observed))]
    assert filled == [float(j + 1) for j in nearest]


def test_windows_are_decomposed_alone_as_among_others():
    torch.manual_seed(0)
    x = torch.randn(5, 37)
    assert torch.equal(decompose(x, 8, 5)[2:3], decompose(x[2:3], 8, 5))


@pytest.mark.parametrize(
    ("trend", "season", "message"),
    [
        (0, 2, "trend_length=0 must lie between 1 and the window's 6 steps"),
        (7, 2, "trend_length=7 must lie between"),
        (3, 0, "seasonal_length must be at least 1 step, got 0"),
    ],
)
def test_lengths_that_do_not_fit_are_refused(trend, season, message):
    with pytest.raises(ValueError, match=message):
        decompose(torch.zeros(1, 6), trend, season)
