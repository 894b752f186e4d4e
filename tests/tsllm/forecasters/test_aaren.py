"""AarenForecaster in a stream: what is kept of a series, what an update costs, what it reads."""

import copy
import pickle
import time
import warnings

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sktime.forecasting.model_evaluation import evaluate
from sktime.split import ExpandingWindowSplitter, SlidingWindowSplitter

import tsllm
from small_forecasters import TINY, panel, season, small
from tsllm import AarenForecaster, Context
from tsllm.backbone import Backbone
from tsllm.errors import DataError
from tsllm.forecasters.running_state import exact_model

pytestmark = pytest.mark.filterwarnings("ignore:the intervals ")
STREAMS = [
    {},
    {"normalisation": "anchored", "loss": "quantile"},
    {"mixer": "mingru"},
    {"memory": "window"},
    {"memory": "full", "query": "token"},
    {"mixer": "none", "memory": "full"},
    {"backbone": TINY, "soft_prompt_length": 2},
]
y = pd.Series(season(160), index=pd.date_range("2024-01-01", periods=160, freq="D"), name="v")


def aaren(**parameters):
    return small("aaren", **parameters)


def encoded(forecaster, series, horizon=5):
    """Forecast the whole history as a context."""
    return forecaster.forecast([Context(series.to_numpy())], horizon)[0, :, 0, 0]


# ---------------------------------------------------------------- one answer, however it came in


@pytest.mark.parametrize("parameters", STREAMS, ids=str)
@pytest.mark.parametrize("steps", [1, 3, 7, 60])
@pytest.mark.filterwarnings("ignore:the series has more than:UserWarning")
def test_updates_of_any_length_forecast_what_the_whole_history_does(parameters, steps):
    forecaster = aaren(**parameters).fit(y.iloc[:100])
    for first in range(100, 160, steps):
        forecaster.update(y.iloc[first : first + steps])
    tolerance = 1e-5 if "backbone" in parameters else 1e-11
    expected = encoded(forecaster, y)
    assert_allclose(forecaster.predict(fh=range(1, 6)), expected, rtol=tolerance)
    # And not what the kept rows alone would forecast: there is more in the state.
    if parameters.get("mixer") != "none":
        kept = forecaster._contexts[None].values[:, 0]
        assert not np.allclose(encoded(forecaster, pd.Series(kept)), expected, rtol=1e-6)


def test_reencode_keeps_no_state_and_reads_the_last_window():
    forecaster = aaren(memory="reencode").fit(y.iloc[:100]).update(y.iloc[100:])
    assert forecaster._memories == {}
    assert_array_equal(forecaster.predict(fh=range(1, 6)), encoded(forecaster, y.iloc[-12:]))


def test_forecasts_of_shared_histories_are_those_of_each_alone():
    forecaster = aaren().fit(y.iloc[:100])
    whole = Context(y.to_numpy())
    pasts = [whole.until(origin) for origin in (90, 31, 90, 160, 2)]
    pasts.insert(2, Context(season(33, seed=5)))
    together = forecaster.forecast(pasts, 4)
    for past, forecast in zip(pasts, together):
        alone = forecaster.forecast([Context(past.values.copy())], 4)[0]
        assert_allclose(forecast, alone, rtol=1e-11)


@pytest.mark.parametrize("splitter", [SlidingWindowSplitter, ExpandingWindowSplitter])
def test_overlapping_windows_of_a_backtest_are_read_once(splitter):
    length = {"window_length": 60} if splitter is SlidingWindowSplitter else {"initial_window": 60}
    cv = splitter(fh=[1, 2], step_length=4, **length)
    result = evaluate(aaren(), cv, y, strategy="update", return_data=True)
    model = aaren().fit(y.iloc[:60], fh=[1, 2])
    for predicted in result["y_pred"]:
        past = y.loc[: predicted.index[0]].iloc[:-1]  # from the first step on, even when sliding
        assert_allclose(predicted, encoded(model, past, 2), rtol=1e-11)
    forecasts = aaren().fit(y.iloc[:60], fh=[1, 2]).update_predict(y.iloc[60:], cv=cv)
    for cutoff, column in forecasts.items():
        assert_allclose(column.dropna(), encoded(model, y.loc[:cutoff], 2), rtol=1e-11)


def test_rows_that_were_seen_change_nothing():
    forecaster = aaren().fit(y.iloc[:100])
    before = copy.deepcopy(forecaster._memories[None])
    expected = forecaster.predict(fh=[1, 2, 3])
    for part in (y.iloc[95:100], y.iloc[:100], y.iloc[99:100]):
        forecaster.update(part)
        assert_array_equal(forecaster.predict(fh=[1, 2, 3]), expected)
    tensors = forecaster._memories[None].now.state_dict()
    for name, tensor in before.now.state_dict().items():
        assert torch.equal(tensor.nan_to_num(), tensors[name].nan_to_num())


def test_corrected_rows_are_read_anew_with_all_that_lay_before():
    corrected = y.copy()
    corrected.iloc[[90, 97]] += 5
    forecaster = aaren().fit(y.iloc[:100]).update(corrected.iloc[88:104])
    assert_allclose(
        forecaster.predict(fh=range(1, 6)), encoded(forecaster, corrected.iloc[:104]), rtol=1e-11
    )
    missing = y.copy()
    missing.iloc[96] = np.nan  # an observation that is taken back
    forecaster = aaren().fit(y.iloc[:100]).update(missing.iloc[96:101])
    assert_allclose(
        forecaster.predict(fh=range(1, 6)), encoded(forecaster, missing.iloc[:101]), rtol=1e-11
    )


def test_a_gap_is_refused_and_missing_steps_are_not():
    forecaster = aaren().fit(y.iloc[:100])
    expected = forecaster.predict(fh=[1, 2])
    with pytest.raises(DataError, match="as NaN where nothing was observed"):
        forecaster.update(y.iloc[104:])
    assert_array_equal(forecaster.predict(fh=[1, 2]), expected)
    holed = y.copy()
    holed.iloc[100:111] = np.nan  # whole patches
    for step in range(100, 120):
        forecaster.update(holed.iloc[step : step + 1])
    assert_allclose(
        forecaster.predict(fh=range(1, 6)), encoded(forecaster, holed.iloc[:120]), rtol=1e-11
    )


def test_a_panel_is_followed_series_by_series():
    whole = panel([70, 52, 40], ["b", "a", "c"])
    start = whole.groupby(level=0, sort=False).head(33)
    late = whole.drop(index=start.index)
    forecaster = aaren().fit(start)
    # In pieces that are not the same for all.
    for name, part in (("b", late.loc[["b"]]), ("a", late.loc[["a"]].iloc[:5])):
        forecaster.update(part)
        assert name in forecaster._memories
    forecaster.update(late.loc[["a", "c"]])
    forecast = forecaster.predict(fh=range(1, 6))
    for name in ("b", "a", "c"):
        expected = encoded(forecaster, whole.loc[name]["value"])
        assert_allclose(forecast.loc[name]["value"], expected, rtol=1e-11)


def test_variables_are_streams_of_their_own():
    wide = pd.DataFrame({"x": y, "z": 5 - 3 * y})
    wide.iloc[110:125, 1] = np.nan
    forecaster = aaren().fit(wide.iloc[:100]).update(wide.iloc[100:])
    for column in wide:
        assert_allclose(
            forecaster.predict(fh=range(1, 6))[column], encoded_column(forecaster, wide, column)
        )


def encoded_column(forecaster, wide, column):
    position = wide.columns.get_loc(column)
    return forecaster.forecast([Context(wide.to_numpy())], 5)[0, :, position, 0]


# ---------------------------------------------------------------- what a stream costs


def test_predicting_changes_nothing():
    forecaster = aaren(adaptive=True).fit(y.iloc[:100])
    before = {n: t.clone() for n, t in forecaster._memory_tensors().items()}
    first = forecaster.predict(fh=range(1, 30))
    forecaster.predict_interval(fh=range(1, 30))
    forecaster.forecast([Context(y.to_numpy())], 30)
    assert_array_equal(forecaster.predict(fh=range(1, 30)), first)
    after = forecaster._memory_tensors()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[n].nan_to_num(), after[n].nan_to_num()) for n in before)


@pytest.mark.parametrize("parameters", STREAMS, ids=str)
@pytest.mark.filterwarnings("ignore:the series has more than:UserWarning")
def test_what_is_kept_does_not_grow(parameters):
    forecaster = aaren(**parameters).fit(y.iloc[:60])
    size, written = forecaster._memories[None].nbytes, len(pickle.dumps(forecaster._memories))
    rows = len(forecaster._contexts[None])
    for step in range(60, 160, 5):
        forecaster.update(y.iloc[step : step + 5])
        assert forecaster._memories[None].nbytes == size
        assert abs(len(pickle.dumps(forecaster._memories)) - written) < 200
        assert len(forecaster._contexts[None]) == rows < 60


def test_an_update_costs_the_same_after_a_short_and_a_long_history():
    long = pd.Series(season(12_000), index=pd.RangeIndex(12_000))

    def seconds(history):
        forecaster = aaren().fit(long.iloc[:200]).update(long.iloc[200:history])
        times = []
        for step in range(history, history + 40):
            started = time.process_time()
            forecaster.update(long.iloc[step : step + 1])
            times.append(time.process_time() - started)
        return np.median(times)

    assert seconds(10_000) < 3 * seconds(300) + 0.002


@pytest.fixture
def calls(monkeypatch):
    """Count what the language model is asked to read."""
    counted = []
    real = Backbone.hidden

    def hidden(self, inputs_embeds, past=None, **options):
        counted.append(tuple(inputs_embeds.shape[:2]))
        return real(self, inputs_embeds, past, **options)

    monkeypatch.setattr(Backbone, "hidden", hidden)
    return counted


def test_an_update_never_runs_the_language_model_and_a_forecast_runs_it_once(calls):
    forecaster = aaren(backbone=TINY, soft_prompt_length=2, prompt="Go on: ").fit(
        y.iloc[:100], fh=[1, 2]
    )
    forecaster.predict()
    calls.clear()
    for step in range(100, 150):
        forecaster.update(y.iloc[step : step + 1])
    assert calls == []
    forecaster.predict()
    # The prompt was read before; two soft tokens, however long the past, of both ways at once.
    assert calls == [(2, 2)]


# ---------------------------------------------------------------- weights that change


def test_training_makes_the_state_anew_from_the_kept_rows():
    forecaster = aaren(update_epochs=1, shrinkage=False).fit(y.iloc[:100])
    forecaster.update(y.iloc[100:110])
    # 12 kept rows and 10 new ones are all that the new weights have read.
    assert_allclose(
        forecaster.predict(fh=range(1, 6)), encoded(forecaster, y.iloc[88:110]), rtol=1e-11
    )
    forecaster.update(y.iloc[110:120], update_params=False)
    assert_allclose(
        forecaster.predict(fh=range(1, 6)), encoded(forecaster, y.iloc[88:120]), rtol=1e-11
    )


def test_the_exact_copy_follows_the_weights():
    forecaster = aaren().fit(y)
    first = exact_model(forecaster.fitted_)
    assert exact_model(forecaster.fitted_) is first
    with torch.no_grad():
        forecaster.fitted_.model.head.bias.add_(1.0)
    assert exact_model(forecaster.fitted_) is not first
    assert next(first.parameters()).dtype == torch.float64


def test_a_pretrained_model_starts_streams_of_its_own():
    trained = aaren().pretrain(panel([60, 60], ["a", "b"]))
    one, other = trained.clone().fit(y.iloc[:50]), trained.clone().fit(y.iloc[:60])
    one.update(y.iloc[50:60])
    assert_allclose(one.predict(fh=[1, 2]), other.predict(fh=[1, 2]), rtol=1e-11)


# ---------------------------------------------------------------- files


@pytest.mark.parametrize("parameters", [*STREAMS, {"adaptive": True}], ids=str)
@pytest.mark.filterwarnings("ignore:the series has more than:UserWarning")
def test_a_saved_stream_goes_on(tmp_path, parameters):
    forecaster = aaren(**parameters).fit(y.iloc[:100], fh=[1, 2, 3]).update(y.iloc[100:117])
    loaded = tsllm.load(tsllm.save(forecaster, tmp_path / "model"))
    copied = copy.deepcopy(forecaster)
    for step in range(117, 140, 4):
        for one in (forecaster, loaded, copied):
            one.update(y.iloc[step : step + 4])
    for one in (loaded, copied):
        assert_array_equal(one.predict(), forecaster.predict())
        assert_array_equal(one.predict_quantiles(), forecaster.predict_quantiles())


def test_a_saved_panel_keeps_each_memory_with_its_series(tmp_path):
    forecaster = aaren().fit(panel([40, 55, 33], ["b", "a", "c"]))
    loaded = tsllm.load(tsllm.save(forecaster, tmp_path / "model"))
    assert list(loaded._memories) == ["b", "a", "c"]
    assert_array_equal(loaded.predict(fh=[1, 2]), forecaster.predict(fh=[1, 2]))


def test_without_context_no_state_is_written(tmp_path):
    path = tsllm.save(aaren().fit(y), tmp_path / "model", include_context=False)
    tensors = safetensors.torch.load_file(path / "model.safetensors")
    assert not any(name.startswith("state.memory") for name in tensors)
    loaded = tsllm.load(path).update(y)
    assert_array_equal(loaded.predict(fh=[1]), aaren().fit(y).predict(fh=[1]))


# ---------------------------------------------------------------- learning


def test_the_past_beyond_a_patch_is_used():
    # Sawteeth of 24 steps: a patch of 3 does not tell where in the tooth it stands.
    values = np.tile(np.r_[np.zeros(20), 1.0, 1.0, 1.0, 1.0], 40)
    values += np.random.default_rng(0).normal(0, 0.02, len(values))
    teeth = pd.Series(values, index=pd.RangeIndex(len(values)))

    def error(mixer):
        forecaster = AarenForecaster(
            context_length=48,
            patch_length=3,
            prediction_length=6,
            mixer=mixer,
            hidden=32,
            dropout=0.0,
            learning_rate=3e-3,
            max_steps=120,
            batch_size=32,
            random_state=0,
        ).fit(teeth.iloc[:-240])
        whole = Context(values)
        origins = range(len(values) - 240, len(values) - 6, 5)
        forecast = forecaster.forecast([whole.until(o) for o in origins], 6)[..., 0, 0]
        truth = np.stack([values[o : o + 6] for o in origins])
        return float(np.mean((forecast - truth) ** 2))

    alone = error("none")
    assert error("aaren") < 0.5 * alone
    assert error("mingru") < 0.5 * alone


def test_full_memory_warns_of_streams_far_beyond_training():
    with pytest.warns(UserWarning, match="forgets nothing and drifts; use memory='decay'"):
        aaren(memory="full").fit(y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        aaren(memory="full", mixer="mingru").fit(y)
        aaren(memory="full", context_length=48).fit(y)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"mixer": "lstm"}, "mixer must be one of aaren, mingru"),
        ({"memory": "long"}, "memory must be one of decay, full"),
        ({"normalisation": "batch"}, "normalisation must be one of causal"),
        ({"query": "key"}, "query must be one of"),
        ({"mixer": "attention"}, "mixer='attention' needs the whole context at once: set memory="),
        ({"normalisation": "window"}, "normalisation='window' needs the whole context"),
        (
            {"patch_length": 0},
            "patch_length must be a whole number of at least 1 or 'auto', found 0",
        ),
        ({"patch_length": 5}, "no multiple of patch_length=5: use 10"),
        ({"hidden": 15}, "hidden=15 must be a multiple of heads=2"),
        ({"soft_prompt_length": 2.5}, "soft_prompt_length must be a whole number"),
        ({"backbone": TINY, "soft_prompt_length": 300}, "use fewer soft tokens"),
    ],
)
def test_parameters_that_do_not_fit_are_named(parameters, words):
    with pytest.raises(DataError, match=words):
        aaren(**parameters).fit(y)


def test_a_series_without_observations_is_named():
    forecaster = aaren().fit(y)
    with pytest.raises(DataError, match="series 'new' has no observed value: drop it"):
        forecaster.forecast([Context(np.full(9, np.nan), series_id="new")], 2)


@pytest.mark.parametrize(
    ("freq", "steps", "context", "patch"),
    [
        ("h", 3000, 504, 24),
        ("h", 3000, 512, 8),  # a part of the day that divides the context asked for
        ("MS", 144, 72, 12),
        ("15min", 3000, 512, 32),
        ("D", 20, 10, 2),
        (None, 3000, 512, 16),
    ],
)
def test_patches_are_whole_seasons_or_parts_of_one(freq, steps, context, patch):
    index = pd.date_range("2024", periods=steps, freq=freq) if freq else pd.RangeIndex(steps)
    long = pd.Series(season(steps), index=index)
    asked = {} if context != 512 or freq != "h" else {"context_length": 512}
    shape = AarenForecaster(max_steps=1, hidden=8, feedforward=8, **asked).fit(long).fitted_.shape
    assert (shape.context_length, shape.extra["patch_length"]) == (context, patch)


@pytest.mark.parametrize("steps", [2, 7, 60, 3000])
def test_sizes_are_chosen_from_the_series(steps):
    long = pd.Series(season(steps), index=pd.RangeIndex(steps))
    shape = AarenForecaster(max_steps=1, hidden=8, feedforward=8).fit(long).fitted_.shape
    patch = shape.extra["patch_length"]
    assert shape.context_length % patch == 0
    assert patch <= 16
    assert shape.context_length <= max(1, min(512, steps // 2))
