"""TimeCMA's own contract: which prompts are embedded, when, and which window reads which."""

import functools

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

import tsllm
from small_forecasters import panel, season, small
from tsllm import Context
from tsllm.embeddings import EmbeddingStore
from tsllm.errors import DataError, EmbeddingStoreError
from tsllm.forecasters.frames import split_series, stamps_after
from tsllm.prompts.writer import PromptWriter, series_statistics
from tsllm.training.windows import Windows

make = functools.partial(small, "timecma")
DAYS = pd.date_range("2024-01-01", periods=80, freq="D")


@pytest.fixture
def store(tmp_path):
    return EmbeddingStore(tmp_path / "store")


@pytest.fixture
def wide():
    return pd.DataFrame({k: season(80, phase=k, seed=k) for k in range(3)}, index=DAYS)


def computed(store):
    return store.stats()["misses"]


# ---------------------------------------------------------------- what is embedded, and when


@pytest.mark.parametrize("horizon", [1, 4])
def test_each_window_that_training_sees_is_embedded_once(store, wide, horizon):
    make(embedding_store=store, prediction_length=horizon, max_epochs=3, max_steps=None).fit(wide)
    # All contexts of 12 steps within 80 but the very last, which no target follows, and those whose
    # target straddles the border to the held-out part.
    assert store.stats()["vectors"] == computed(store) == (80 - 12 - (horizon - 1)) * 3


def test_training_again_or_for_another_horizon_runs_no_language_model(store, wide):
    make(embedding_store=store, prediction_length=1).fit(wide)
    before = computed(store)
    make(embedding_store=store, prediction_length=1, random_state=1).fit(wide)
    make(embedding_store=store, prediction_length=9, loss="mae").fit(wide)
    assert computed(store) == before
    make(embedding_store=store, prediction_length=4).fit(wide.iloc[:78])  # an earlier fold
    assert computed(store) == before


def test_a_forecast_embeds_the_windows_that_are_new(store, wide):
    forecaster = make(embedding_store=str(store.path), prediction_length=4).fit(wide)
    before = computed(store)
    first = forecaster.predict(fh=[1, 2])
    assert computed(store) - before == 3
    assert_array_equal(forecaster.predict(fh=[1, 2]), first)
    assert computed(store) - before == 3


def test_a_stride_embeds_less(store, wide):
    make(embedding_store=store, prediction_length=4, validation_fraction=0.0).fit(wide)
    whole = computed(store)
    other = EmbeddingStore(store.path.with_name("other"))
    fitted = make(
        embedding_store=other, prediction_length=4, validation_fraction=0.0, window_stride=5
    ).fit(wide)
    assert computed(other) < 0.75 * whole  # the second half of the series calibrates
    assert np.isfinite(fitted.predict(fh=[1]).to_numpy()).all()


def test_without_a_language_model_there_is_no_store(store, wide):
    make(backbone=None, embedding_store=store).fit(wide).predict(fh=[1, 2, 3])
    assert not store.path.exists()


def test_a_store_that_was_emptied_under_a_training_says_so(store, wide):
    forecaster = make(embedding_store=store).fit(wide)
    contexts = split_series(wide)
    windows = Windows([torch.from_numpy(wide.to_numpy())], context_length=12, target_length=4)
    inputs = forecaster._training_inputs(forecaster.fitted_, contexts, [windows])
    store.prune(keep=[])
    with pytest.raises(EmbeddingStoreError, match="missing or damaged"):
        inputs(windows.gather([0]))


# ---------------------------------------------------------------- which window reads which


@pytest.mark.parametrize("value_format", ["window", "series"])
def test_every_window_reads_the_embedding_of_its_own_text(store, value_format):
    rng = np.random.default_rng(0)
    y = pd.concat(
        {
            name: pd.DataFrame(rng.normal(size=(steps, 3)), index=DAYS[:steps])
            for name, steps in [("b", 50), ("a", 7), ("c", 15)]
        }
    )
    y.iloc[[3, 20, 53], 1] = np.nan
    forecaster = make(embedding_store=store, value_format=value_format, prediction_length=4)
    state = forecaster.fit(y).fitted_
    contexts = split_series(y)
    series = [torch.from_numpy(context.values) for context in contexts]
    parts = Windows(series, context_length=12, target_length=4).split(0.2)
    inputs = forecaster._training_inputs(state, contexts, parts)
    for windows in parts:
        batch = windows.gather(torch.randperm(len(windows)))
        assert (batch.start < 0).any() or windows is parts[1]
        given = inputs(batch)["prompt_embeddings"]  # (batch, width, variables)
        for row, (number, start) in enumerate(zip(batch.series.tolist(), batch.start.tolist())):
            prompts = PromptWriter(value_format=value_format).write(
                contexts[number],
                [start],
                12,
                statistics=series_statistics(contexts[number].values),
            )
            expected = state.backbone.last_token(prompts)  # (variables, width)
            assert_allclose(given[row].T, expected, atol=1e-5)


def test_the_prompt_matters_to_the_forecast(wide):
    forecaster = make(max_steps=40, learning_rate=1e-2).fit(wide)
    values = wide.to_numpy()
    now, later = (
        forecaster.forecast([Context(values, times=times)], 3)
        for times in (DAYS, DAYS + pd.Timedelta(days=3000))
    )
    assert not np.allclose(now, later, rtol=1e-6)
    alone = make(backbone=None).fit(wide)
    assert_array_equal(
        alone.forecast([Context(values, times=DAYS)], 3),
        alone.forecast([Context(values, times=DAYS + pd.Timedelta(days=3000))], 3),
    )


@pytest.mark.parametrize("backbone", [make().backbone, None])
def test_a_single_variable_is_forecast_from_its_shape(backbone):
    """The published norm would see nothing but the mean and the deviation of the window."""
    forecaster = make(backbone=backbone).fit(pd.Series(season(60)))
    values = season(12)
    forward, backward = (
        forecaster.forecast([Context(v)], 3) for v in (values, values[::-1].copy())
    )
    assert not np.allclose(forward, backward, rtol=1e-3)


# ---------------------------------------------------------------- beyond the head's horizon


@pytest.mark.parametrize(
    "times",
    [
        DAYS,
        pd.date_range("2024-03-31", periods=80, freq="h", tz="Europe/Berlin"),
        pd.period_range("2024-01", periods=80, freq="M"),
        pd.RangeIndex(5, 85),
    ],
    ids=["days", "zone", "periods", "steps"],
)
@pytest.mark.parametrize("value_format", ["window", "series"])
def test_a_rollout_writes_prompts_of_its_own_forecasts(wide, times, value_format):
    y = wide.set_axis(times)
    forecaster = make(prediction_length=5, value_format=value_format, shrinkage=False).fit(y)
    for steps in (7, 80):  # a context that is padded, and a whole one
        whole = forecaster.forecast([Context(y.to_numpy()[-steps:], times=times[-steps:])], 20)
        context = Context(y.to_numpy()[-steps:], times=times[-steps:])
        for done in range(0, 20, 5):
            part = forecaster.forecast([context], 5)[0, ..., 0]  # (5, variables)
            assert_allclose(part, whole[0, done : done + 5, :, 0], rtol=1e-4)
            context = Context(
                np.concatenate([context.values, part])[-12:],
                times=context.times.append(stamps_after(context, 5, freq="D"))[-12:],
            )
            if isinstance(times, pd.DatetimeIndex):
                context = Context(
                    context.values, times=pd.DatetimeIndex(context.times, freq=times.freq)
                )


# ---------------------------------------------------------------- statistics of series


def test_statistics_of_series_are_kept_saved_and_not_those_of_later_data(tmp_path):
    y = panel([60, 40], ["b", "a"])
    forecaster = make(value_format="series", update_epochs=1).fit(y.groupby(level=0).head(39))
    kept = forecaster.fitted_.statistics
    assert list(kept) == ["b", "a"]
    assert_allclose(kept["b"], series_statistics(y.loc["b"].to_numpy()[:39]))
    forecaster.update(y.groupby(level=0, sort=False).tail(5).loc[["a"]])
    assert_array_equal(forecaster.fitted_.statistics["a"], kept["a"])
    loaded = tsllm.load(tsllm.save(forecaster, tmp_path / "model"))
    assert list(loaded.fitted_.statistics) == ["b", "a"]
    assert_array_equal(loaded.fitted_.statistics["a"], kept["a"])
    # A series of that name is written in its units, one of another name in its own.
    contexts = [Context(season(12) + 500, series_id=name) for name in ("a", "new")]
    a, new = (
        loaded._prompts(loaded.fitted_.shape, loaded.fitted_.statistics).of_series(context, [0])[0]
        for context in contexts
    )
    assert a != new
    assert new == PromptWriter(value_format="series").write(contexts[1], [0], 12)[0]


def test_windows_of_their_own_units_need_no_statistics():
    assert make().fit(panel([40, 40], ["b", "a"])).fitted_.statistics == {}


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"lora": {"r": 2}}, r"lora={'r': 2} cannot be used with TimeCMAForecaster"),
        ({"heads": 3, "channel": 9}, r"heads=3 must divide the width .* 16"),
        ({"heads": 3}, "channel=8 must be a multiple of heads=3"),
        ({"channel": 0}, "channel must be a whole number of at least 1, found 0"),
        ({"encoder_layers": 1.5}, "encoder_layers must be a whole number"),
        ({"dropout": 1.0}, "dropout must be at least 0 and less than 1"),
        ({"prompt_template": "{price}"}, r"prompt_template has the field {price}"),
        ({"value_format": "float"}, "value_format must be one of"),
        ({"window_stride": 0}, "window_stride must be a whole number of at least 1"),
    ],
)
def test_parameters_that_cannot_be_used_are_named(wide, parameters, message):
    with pytest.raises(DataError, match=message):
        make(**parameters).fit(wide)


def test_prompts_that_do_not_fit_are_refused_before_any_is_embedded(store, wide):
    with pytest.raises(DataError, match=r"prompt has \d+ tokens and .* at most 256.*context_len"):
        make(embedding_store=store, context_length=36).fit(wide)
    assert not store.path.exists()


def test_a_model_that_forecasts_other_windows_refuses_them_too(wide):
    template = "{values}"  # 12 whole numbers fit, words do not
    tiny = "random:gpt2?hidden=16&layers=1&heads=2&positions=80"
    forecaster = make(backbone=tiny, prompt_template=template).fit(wide)
    holes = wide.to_numpy().copy()
    holes[-11:] = np.nan
    with pytest.raises(DataError, match=r"prompt has \d+ tokens and .* at most 80"):
        forecaster.forecast([Context(holes, times=DAYS)], 2)
