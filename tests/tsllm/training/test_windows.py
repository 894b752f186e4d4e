"""Windows against plain enumeration with numpy."""

import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tsllm.errors import DataError, NotEnoughDataError
from tsllm.training.windows import Windows

lengths = st.lists(st.integers(0, 40), min_size=1, max_size=5).filter(lambda x: max(x) >= 2)


def panel(steps, variables=2, missing=0.0, seed=0):
    rng = np.random.default_rng(seed)
    arrays = [rng.standard_normal((n, variables)).astype(np.float32) for n in steps]
    for array in arrays:
        array[rng.random(array.shape) < missing] = np.nan
    return arrays


def cut(arrays, context, target, stride=1):
    return Windows(
        [torch.from_numpy(array) for array in arrays],
        context_length=context,
        target_length=target,
        stride=stride,
    )


def expected_origins(steps, context, target, stride=1):
    """The documented origins of one series, in order, by plain enumeration."""
    if steps < 2:
        return []
    if steps >= context + target:
        return [o for o in range(context, steps - target + 1) if (steps - target - o) % stride == 0]
    if steps >= 2 * target:
        return [o for o in range(1, steps) if (steps - o) % target == 0]
    return sorted({max(1, steps - target), steps // 2})


def pairs(windows):
    """All (series, origin) of the windows, in order."""
    batch = windows.gather(range(len(windows)))
    return list(zip(batch.series.tolist(), (batch.start + windows.context_length).tolist()))


@given(lengths, st.integers(1, 12), st.integers(1, 12), st.integers(1, 5))
def test_windows_are_those_of_plain_enumeration(steps, context, target, stride):
    windows = cut(panel(steps), context, target, stride)
    expected = [
        (i, origin)
        for i, n in enumerate(steps)
        for origin in expected_origins(n, context, target, stride)
    ]
    assert pairs(windows) == expected
    assert len(windows) == len(expected)


@given(lengths, st.integers(1, 12), st.integers(1, 12))
def test_every_window_holds_context_and_target_and_every_reachable_target_step_is_learnt(
    steps, context, target
):
    windows = cut(panel(steps, 1), context, target)
    mask = windows.gather(range(len(windows))).mask
    assert mask[:, :context].any(1).all()
    assert mask[:, context:].any(1).all()
    # A target step is reachable where some series is long enough to hold it after one of context.
    reachable = min(target, max(steps) - 1)
    assert mask[:, context : context + reachable].any(0).all()


@given(lengths, st.integers(1, 12), st.integers(1, 12), st.randoms(use_true_random=False))
def test_gather_equals_slicing_the_padded_series(steps, context, target, random):
    arrays = panel(steps, missing=0.2)
    windows = cut(arrays, context, target)
    everything = pairs(windows)
    indices = [random.randrange(len(windows)) for _ in range(9)]
    batch = windows.gather(indices)
    assert batch.values.dtype == torch.float32
    for row, index in enumerate(indices):
        series, origin = everything[index]
        padding = ((context, target), (0, 0))
        padded = np.pad(arrays[series], padding, constant_values=np.nan)
        expected = padded[origin : origin + context + target]
        assert np.array_equal(batch.mask[row].numpy(), ~np.isnan(expected))
        assert np.array_equal(batch.values[row].numpy(), np.nan_to_num(expected))
        assert int(batch.series[row]) == series
        assert int(batch.start[row]) == origin - context
        inside = arrays[series][max(0, origin - context) : origin + target]
        assert np.array_equal(windows.view(index).numpy(), inside, equal_nan=True)


def test_gather_takes_a_tensor_and_keeps_its_order():
    windows = cut(panel([30]), 4, 2)
    batch = windows.gather(torch.tensor([7, 0, 7]))
    assert batch.start.tolist() == [7, 0, 7]
    assert batch.to("cpu").values.equal(batch.values)
    assert windows.gather([]).values.shape == (0, 6, 2)


def test_views_share_the_memory_of_the_callers_array():
    array = panel([50])[0]
    windows = cut([array], 4, 3)
    view = windows.view(11)
    assert view.data_ptr() == array.__array_interface__["data"][0] + 11 * 2 * array.itemsize
    array[11] = 123.0
    assert view[0].tolist() == [123.0, 123.0]
    assert windows.gather([11]).values[0, 0].tolist() == [123.0, 123.0]
    partial = cut([array[:5]], 4, 3)
    assert partial.view(0).untyped_storage().data_ptr() == array.__array_interface__["data"][0]


def test_double_precision_series_are_kept_and_gathered_in_single():
    array = panel([20])[0].astype(np.float64)
    windows = cut([array], 4, 2)
    assert windows.view(0).dtype == torch.float64
    values = windows.gather([3]).values
    assert values.dtype == torch.float32
    assert np.array_equal(values[0].numpy(), array[3:9].astype(np.float32))


def test_infinite_values_pass_unchanged():
    array = np.array([[1.0], [np.inf], [-np.inf], [np.nan]], dtype=np.float32)
    batch = cut([array], 2, 2).gather([0])
    assert batch.values.flatten().tolist() == [1.0, np.inf, -np.inf, 0.0]
    assert batch.mask.flatten().tolist() == [True, True, True, False]


@given(
    st.lists(st.integers(0, 60), min_size=1, max_size=4).filter(lambda x: max(x) >= 2),
    st.integers(1, 10),
    st.integers(1, 8),
    st.integers(1, 4),
    st.floats(0, 0.95),
)
def test_split_is_that_of_plain_enumeration_and_does_not_leak(
    steps, context, target, stride, fraction
):
    windows = cut(panel(steps), context, target, stride)
    expected_training, expected_validation = [], []
    for i, n in enumerate(steps):
        border = n - round(fraction * n)
        border = border if border >= 2 else n
        origins = expected_origins(n, context, target, stride)
        before = [(i, o) for o in origins if o + target <= border or border == n]
        after = [(i, o) for o in origins if o >= border]
        if not before:
            before = [(i, o) for o in expected_origins(border, context, target, stride)]
        expected_training += before
        expected_validation += after
    training, validation = windows.split(fraction)
    assert pairs(training) == expected_training
    assert pairs(validation) == expected_validation

    for index, (i, origin) in enumerate(pairs(training)):
        end = max(0, origin - context) + len(training.view(index))
        border = steps[i] - round(fraction * steps[i])
        assert end <= border or border < 2


def test_split_follows_the_published_protocol_on_a_long_series():
    # The last 40 of 400 steps: 40 - 8 + 1 windows; before them 360 - 24 - 8 + 1.
    training, validation = cut(panel([400]), 24, 8).split(0.1)
    assert len(validation) == 33
    assert len(training) == 329
    assert pairs(validation)[0] == (0, 360)
    assert pairs(validation)[-1] == (0, 392)
    assert pairs(training)[-1] == (0, 352)


def test_splitting_leaves_the_original_windows_as_they_were():
    windows = cut(panel([60, 5]), 6, 3)
    before = pairs(windows)
    windows.split(0.3)
    windows.thin(4)
    assert pairs(windows) == before


@given(lengths, st.integers(1, 60), st.floats(0, 0.6))
def test_thin_keeps_evenly_spaced_windows(steps, most, fraction):
    windows, _ = cut(panel(steps), 5, 3).split(fraction)
    thinned = windows.thin(most)
    everything = pairs(windows)
    kept = pairs(thinned)
    assert len(kept) == min(most, len(everything))
    places = [everything.index(pair) for pair in kept]
    assert places == sorted(set(places))
    assert places[-1] == len(everything) - 1
    gaps = np.diff(places)
    assert len(gaps) == 0 or gaps.max() - gaps.min() <= 1
    assert pairs(thinned.thin(most)) == kept


def test_thinned_windows_split_like_any_other():
    training, validation = cut(panel([100, 80]), 6, 3).thin(40).split(0.2)
    assert 0 < len(validation) < 10
    assert all(o + 3 <= (80, 64)[i] for i, o in pairs(training))
    assert all(o >= (80, 64)[i] for i, o in pairs(validation))


@pytest.mark.parametrize("index", [-1, 5])
def test_a_window_that_does_not_exist_is_an_index_error(index):
    windows = cut(panel([10]), 4, 2)
    assert len(windows) == 5
    with pytest.raises(IndexError, match=f"window {index} of 5 windows"):
        windows.view(index)
    with pytest.raises(IndexError, match="of 5 windows"):
        windows.gather([0, index])


def test_wrong_series_are_named():
    good = torch.zeros(9, 2)
    for bad, message in (
        (torch.zeros(9), r"series 1 .* shape \(9,\)"),
        (torch.zeros(9, 2, dtype=torch.int64), "series 1 .* torch.int64"),
        (torch.zeros(9, 3), "series 1 .* 3 variables where series 0 has 2"),
    ):
        with pytest.raises(DataError, match=message):
            Windows([good, bad], context_length=2, target_length=1)


def test_wrong_arguments_are_named():
    series = [torch.zeros(9, 2)]
    with pytest.raises(DataError, match="context_length is 0"):
        Windows(series, context_length=0, target_length=1)
    with pytest.raises(DataError, match="target_length is -1"):
        Windows(series, context_length=1, target_length=-1)
    with pytest.raises(DataError, match="stride is 0"):
        Windows(series, context_length=1, target_length=1, stride=0)
    windows = Windows(series, context_length=2, target_length=1)
    with pytest.raises(DataError, match="validation_fraction is 1"):
        windows.split(1)
    with pytest.raises(DataError, match="most is 0"):
        windows.thin(0)


def test_nothing_to_cut_is_not_enough_data():
    with pytest.raises(NotEnoughDataError, match="no series"):
        Windows([], context_length=2, target_length=1)
    with pytest.raises(NotEnoughDataError, match="the longest of 2 series has 1"):
        Windows([torch.zeros(1, 1), torch.zeros(0, 1)], context_length=2, target_length=1)


def test_the_index_costs_no_memory_for_each_window():
    windows = cut(panel([17_420] * 3, 7), 672, 96)
    assert len(windows) == 3 * (17_420 - 672 - 96 + 1)
    parts = [*windows.split(0.2), windows]
    for part in parts:
        tensors = [value for value in vars(part).values() if isinstance(value, torch.Tensor)]
        assert sum(tensor.numel() for tensor in tensors) <= 6 * 3


@pytest.mark.parametrize("shape", [(1, 17_420, 7), (414, 960, 1)])
def test_panels_of_benchmark_size_are_quick(shape):
    series = list(torch.randn(*shape).unbind(0))
    best = min(_seconds_to_build(series) for _ in range(5))
    assert best < 0.05


def _seconds_to_build(series):
    begin = time.perf_counter()
    Windows(series, context_length=672, target_length=96).split(0.1)
    return time.perf_counter() - begin
