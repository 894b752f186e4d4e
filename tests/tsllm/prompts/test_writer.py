"""The text of a window: what it says, what it depends on, and that it tells series apart."""

import os
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from small_forecasters import season
from tsllm import Context, load_backbone
from tsllm.errors import DataError
from tsllm.prompts.writer import (
    DEFAULT_TEMPLATE,
    VALUE_FORMATS,
    PromptWriter,
    check_prompts_fit,
    series_statistics,
)

DATA = Path(os.environ.get("TSLLM_DATA") or Path(__file__).parents[3].parent / "shared" / "data")
ETTH1 = DATA / "ETTh1.csv"
HOURS = pd.date_range("2024-01-01", periods=300, freq="h")
finite = st.floats(-1e6, 1e6).map(lambda value: round(value, 3))


def plain_prompt(values, first, last, every, scale=None):
    """The prompt of one window (steps,), value by value."""
    seen = [v for v in values if v == v]
    if scale is None:
        mean = sum(seen) / len(seen)
        deviation = (sum((v - mean) ** 2 for v in seen) / len(seen)) ** 0.5
        mean, deviation = (mean, deviation) if deviation > 1e-12 * abs(mean) else (mean, np.inf)
    else:
        mean, deviation = scale
    whole = [None if v != v else round((v - mean) / deviation * 100) for v in values]
    texts = ["missing" if w is None else str(w) for w in whole]
    seen = [w for w in whole if w is not None]
    return (
        f"From {first} to {last}, the values were {', '.join(texts)} every {every}. "
        f"The total trend value was {seen[-1] - seen[0]}"
    )


def test_a_prompt_is_the_published_sentence():
    values = np.stack([season(30, seed=1), 1e4 * season(30, seed=2)], axis=1)
    values[[4, 11], [0, 1]] = np.nan
    prompts = PromptWriter().write(Context(values, times=HOURS[:30]), [0, 3], 12)
    expected = [
        plain_prompt(values[start : start + 12, k], f"01/01/2024 {a}", f"01/01/2024 {b}", "hour")
        for start, a, b in [(0, "00:00", "11:00"), (3, "03:00", "14:00")]
        for k in (0, 1)
    ]
    assert prompts == expected
    assert "missing" in prompts[0]


def test_values_in_the_units_of_the_series_and_of_the_authors():
    context = Context(season(40), times=pd.date_range("2024-01-31", periods=40, freq="ME"))
    mean, deviation = np.array([9.0]), np.array([0.5])
    statistics = np.stack([mean, deviation])
    ours = PromptWriter(value_format="series").write(context, [5], 6, statistics=statistics)
    part = context.values[5:11, 0]
    assert ours == [plain_prompt(part, "30/06/2024", "30/11/2024", "month", (9.0, 0.5))]
    theirs = PromptWriter(value_format="int").write(context, [5], 6, statistics=statistics)
    whole = [int((v - 9.0) / 0.5) for v in part]
    assert theirs == [
        f"From 30/06/2024 to 30/11/2024, the values were {str(whole)[1:-1]} every month. "
        f"The total trend value was {np.diff((part - 9.0) / 0.5).sum():f}"
    ]


def test_without_statistics_the_context_gives_them():
    context = Context(np.stack([season(40), season(40) * 50], axis=1))
    for value_format in ("series", "int"):
        writer = PromptWriter(value_format=value_format)
        given = writer.write(context, [2], 9, statistics=series_statistics(context.values))
        assert writer.write(context, [2], 9) == given


def test_a_window_that_begins_before_the_series_writes_what_is_there():
    context = Context(season(5), times=pd.RangeIndex(7, 12))
    whole = PromptWriter().write(context, [0], 5)
    assert PromptWriter().write(context, [-7], 12) == whole
    assert whole[0].startswith("From step 7 to step 11, ")
    assert "every step." in whole[0]


def test_what_was_never_observed_is_missing():
    context = Context(np.array([[np.nan, 1.0], [np.nan, 1.0]]))
    for value_format in VALUE_FORMATS:
        unseen, constant = PromptWriter(value_format=value_format).write(context, [0], 2)
        assert "values were missing, missing every" in unseen
        assert unseen.endswith("value was missing")
        assert "values were 0, 0 every" in constant


def test_stamps_without_a_frequency_take_the_one_given():
    times = pd.DatetimeIndex(HOURS[:6], freq=None)
    context = Context(season(6), times=times)
    (text,) = PromptWriter().write(context, [0], 6, freq="h")
    assert text == PromptWriter().write(Context(season(6), times=HOURS[:6]), [0], 6)[0]
    steps = Context(season(6))  # integers, whatever the frequency of the model
    assert "every step." in PromptWriter().write(steps, [0], 6, freq="h")[0]


# ---------------------------------------------------------------- invariants


@settings(max_examples=60, deadline=None)
@given(
    arrays(
        float, st.tuples(st.integers(2, 30), st.integers(1, 3)), elements=finite | st.just(np.nan)
    ),
    st.data(),
)
@pytest.mark.long
def test_a_window_is_written_alone_as_among_others(values, data):
    steps = data.draw(st.integers(1, len(values)))
    starts = data.draw(
        st.lists(st.integers(1 - steps, len(values) - steps), min_size=1, max_size=6)
    )
    context = Context(values, times=HOURS[: len(values)])
    for value_format in VALUE_FORMATS:
        writer = PromptWriter(value_format=value_format)
        statistics = series_statistics(values)
        together = writer.write(context, starts, steps, statistics=statistics)
        alone = [
            t for s in starts for t in writer.write(context, [s], steps, statistics=statistics)
        ]
        assert together == alone
        # and from the end of a series that ends with the window, as a forecast is
        for i, start in enumerate(starts):
            past = context.until(start + steps)
            k = len(past) - steps
            own = writer.write(past, [k], steps, statistics=statistics)
            assert own == together[i * values.shape[1] : (i + 1) * values.shape[1]]


@settings(max_examples=60, deadline=None)
@given(arrays(float, st.integers(2, 40), elements=st.integers(-(10**6), 10**6).map(float)))
def test_windows_are_written_without_level_and_scale_and_bounded(values):
    steps = len(values)
    (text,) = PromptWriter("{values}").write(Context(values), [0], steps)
    numbers = [int(number) for number in text.split(", ")]
    assert max(map(abs, numbers)) <= np.ceil(100 * np.sqrt(steps - 1))
    (moved,) = PromptWriter("{values}").write(Context(values * 4 + 2**21), [0], steps)
    assert max(abs(int(b) - a) for a, b in zip(numbers, moved.split(", "))) <= 1  # a tie may tip
    varies = len(set(values)) > 1
    assert (len(set(numbers)) > 1) == varies


def test_huge_numbers_are_written_whole():
    context = Context(np.array([0.0, 3e15, -2e9]))
    writer = PromptWriter("{values} {trend}", "series")
    (text,) = writer.write(context, [0], 3, statistics=np.array([[0.0], [1.0]]))
    assert text == "0, 300000000000000000, -200000000000 -200000000000"


# ---------------------------------------------------------------- templates


def test_a_template_of_ones_own():
    template = "{values} ({frequency}) {{x}} {end}"
    (text,) = PromptWriter(template).write(Context(np.array([1.0, 2.0])), [0], 2)
    assert text == "-100, 100 (step) {x} step 1"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{value}", r"has the field \{value\}; the fields are \{start\}, \{end\}, \{values\}"),
        ("{values.real}", r"field \{values\.real\}"),
        ("{values[0]}", r"field \{values\[0\]\}"),
        ("{values:>9}", r"field \{values:>9\}"),
        ("{values!r}", r"field \{values!r\}"),
        ("{} and {0}", r"field \{\}"),
        ("{values", "prompt_template='{values' cannot be read .* twice"),
        (7, "prompt_template must be a text, found 7"),
    ],
)
def test_a_template_of_other_fields_is_refused(template, message):
    with pytest.raises(DataError, match=message):
        PromptWriter(template)


def test_an_unknown_format_is_refused():
    with pytest.raises(DataError, match="value_format must be one of window, series, int, found 7"):
        PromptWriter(value_format=7)


# ---------------------------------------------------------------- length and speed


def test_prompts_that_do_not_fit_are_refused_with_their_length():
    backbone = load_backbone("random:gpt2?hidden=8&layers=1&heads=2&positions=128", device="cpu")
    context = Context(season(200))
    fits = PromptWriter().write(context, range(50), 5)
    check_prompts_fit(fits, backbone)
    backbone.last_token(fits)
    check_prompts_fit([], backbone)
    long = PromptWriter().write(context, range(50), 30)
    tokens = 1 + max(map(len, long))  # one a byte, and <bos>
    with pytest.raises(DataError, match=f"has {tokens} tokens .* at most 128: use a shorter"):
        check_prompts_fit(long, backbone)


@pytest.mark.long
def test_writing_is_quick():
    # 0.3 s where 60,000 take 1.2; a loop over values in Python takes 50 times as long.
    values = np.random.default_rng(0).normal(size=(2300, 7)).cumsum(axis=0)
    context = Context(values, times=pd.date_range("2020-01-01", periods=2300, freq="h"))
    begun = time.perf_counter()
    prompts = PromptWriter().write(context, np.arange(2300 - 96), 96)
    assert len(prompts) == 7 * 2204
    assert time.perf_counter() - begun < 6


# ---------------------------------------------------------------- what the language model sees


@pytest.mark.skipif(not ETTH1.exists(), reason="shared/data absent")
@pytest.mark.long
def test_prompts_of_different_series_are_told_apart(record_property):
    """The embeddings of ETTh1's variables are less alike than under the authors' format."""
    frame = pd.read_csv(ETTH1, index_col=0, parse_dates=True, nrows=8640).asfreq("h")
    context = Context(frame.to_numpy(), times=frame.index)
    statistics = series_statistics(context.values)
    backbone = load_backbone("sentence-transformers/all-MiniLM-L6-v2", device="cpu")
    cosines = {}
    for value_format in VALUE_FORMATS:
        writer = PromptWriter(value_format=value_format)
        prompts = writer.write(context, [0, 4000], 96, statistics=statistics)
        embeddings = backbone.last_token(prompts).unflatten(0, (2, 7))  # (windows, 7, width)
        normed = torch.nn.functional.normalize(embeddings, dim=-1)
        cosine = normed @ normed.transpose(1, 2)  # (windows, variables, variables)
        pairs = torch.ones(7, 7, dtype=torch.bool).triu(1)
        cosines[value_format] = float(cosine[:, pairs].mean())
        record_property(f"mean pairwise cosine, {value_format}", cosines[value_format])
    print(cosines)
    assert cosines["window"] < cosines["int"]
    assert cosines["series"] < cosines["int"]


def test_the_authors_format_writes_quiet_series_alike_and_ours_do_not():
    rng = np.random.default_rng(0)
    values = 0.3 * rng.normal(size=(600, 3))
    values[500:510] += 40.0  # a few extremes decide the deviation of the series
    context = Context(values)
    for value_format, kinds in [("window", 3), ("series", 3), ("int", 1)]:
        writer = PromptWriter("{values}", value_format)
        prompts = writer.write(context, [100], 48, statistics=series_statistics(values))
        assert len(set(prompts)) == kinds


def test_the_default_template_ends_with_the_trend():
    assert DEFAULT_TEMPLATE.endswith("{trend}")
