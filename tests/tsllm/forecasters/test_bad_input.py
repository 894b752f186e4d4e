"""Every mistake in the input ends in one sentence that names the place and the remedy."""

import re
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from sktime.datasets import load_airline

import tsllm
from small_forecasters import SMALL, panel, season, small, tiny
from tsllm import Context
from tsllm.errors import BackboneNotFoundError, DataError, InSampleError, NotEnoughDataError

DAYS = pd.date_range("2024-01-01", periods=30, freq="D")


def series(values=None, index=DAYS):
    return pd.Series(season(len(index)) if values is None else values, index=index, name="v")


def unsorted():
    return series().iloc[[1, 0, *range(2, 30)]]


def repeated():
    return series(index=DAYS[[0, 0, *range(1, 29)]])


def mixed_panel():
    daily = panel([30], ["a"])
    return pd.concat([daily, panel([30], ["b"], freq="h")])


def with_value(value):
    y = series().astype(object)
    y.iloc[4] = value
    return y


@pytest.mark.parametrize(
    ("y", "words"),
    [
        (unsorted(), ["row 1", "2024-01-01", "sort"]),
        (repeated(), ["2024-01-01", "twice", "row 0 and row 1"]),
        (series().drop(DAYS[7]), ["gap", "2024-01-08", "asfreq", "fill"]),
        (mixed_panel(), ["series 'a'", "series 'b'", "one model per frequency"]),
        (series().replace(series().iloc[5], np.inf), ["row 5", "inf", "NaN"]),
        (with_value("high"), ["row 4", "'high'", "number"]),
        (series().iloc[:1], ["1 step", "at least 2"]),
        (panel([30, 1], ["a", "lone"]), ["series 'lone'", "1 step", "at least 2"]),
        (series(index=DAYS[[0, 1, 2, 5, 7, 11, 12, 20]]), ["the series"]),
    ],
    ids=[
        "unsorted",
        "repeated",
        "gap",
        "mixed",
        "inf",
        "text",
        "one point",
        "one point in a panel",
        "irregular",
    ],
)
@pytest.mark.parametrize("call", ["fit", "pretrain"])
def test_bad_series(y, words, call):
    if call == "pretrain" and not isinstance(y.index, pd.MultiIndex):
        y = pd.concat({"only": y}, names=["id", "time"]).to_frame()
        words = [w.replace("the series", "series 'only'") for w in words]
    with pytest.raises(DataError) as raised:
        getattr(tiny(), call)(y)
    message = str(raised.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_too_short_is_its_own_error():
    with pytest.raises(NotEnoughDataError):
        tiny().fit(series().iloc[:1])


@pytest.mark.parametrize("fh", [0, [0], [1, 0], -3])
def test_a_horizon_of_zero(fh):
    for call in (tiny().fit(load_airline()).predict, lambda fh: tiny().fit(load_airline(), fh=fh)):
        with pytest.raises(InSampleError) as raised:
            call(fh=fh)
        assert "after the last observation (1960-12); the next step is 1" in str(raised.value)


def test_an_absolute_horizon_in_the_past_of_a_panel():
    y = panel([30, 20], ["a", "b"])
    with pytest.raises(InSampleError, match=r"fh=\[2024-01-22.*last observation \(2024-01-30"):
        tiny().fit(y).predict(fh=pd.date_range("2024-01-22", periods=3, freq="D"))


@pytest.mark.parametrize("horizon", [0, -1, 2.5, "a"])
def test_the_core_refuses_such_horizons_too(horizon):
    with pytest.raises(DataError, match="horizon must be a whole number"):
        tiny().fit(load_airline()).forecast([Context(season(20))], horizon)


def test_a_backbone_that_is_not_there():
    with pytest.raises(BackboneNotFoundError, match="nobody/has-this"):
        tiny(backbone="nobody/has-this").fit(load_airline())


def test_a_context_longer_than_the_backbone_reads():
    short = tiny(
        backbone="random:gpt2?hidden=16&layers=1&heads=2&positions=8",
        context_length=60,
        token_length=6,
    )
    with pytest.raises(DataError, match=r"context_length=60 makes 10 tokens .* at most 8"):
        short.fit(load_airline())


def test_a_rollout_that_outgrows_the_backbone():
    cached = tiny(
        backbone="random:gpt2?hidden=16&layers=1&heads=2&positions=4", rollout="cached"
    ).fit(load_airline())
    with pytest.raises(DataError, match="4"):
        cached.predict(fh=range(1, 40))


@pytest.mark.skipif(torch.cuda.is_available(), reason="the error is for machines without a gpu")
def test_cuda_where_there_is_none():
    with pytest.raises(DataError, match="device='cuda'"):
        tiny(device="cuda").fit(load_airline())


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"loss": "rmse"}, "loss must be one of mse, mae, huber, quantile, found 'rmse'"),
        ({"quantiles": (0.9, 0.1)}, "quantiles must be rising"),
        ({"quantiles": (0.0, 0.5)}, "strictly between 0 and 1"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1, found 0"),
        ({"context_length": 13}, "context_length=13 is no multiple of token_length=6: use 12"),
        ({"context_length": "long"}, "context_length must be a whole number"),
        ({"validation_fraction": 1.0}, "validation_fraction"),
        ({"learning_rate": -1.0}, "learning_rate must be above 0"),
        ({"mlp_layers": 1}, "mlp_layers counts the linear layers"),
        ({"rollout": "jump"}, "rollout must be one of sliding, cached, found 'jump'"),
        ({"backbone": None, "timestamps": True}, "timestamps=False"),
        ({"backbone": None, "lora": {"r": 2}}, "lora"),
        ({"in_context": "latest"}, "in_context"),
        ({"in_context": "earliest", "in_context_length": 12}, "in_context_length=12"),
        ({"max_steps": 0}, "max_steps must be a whole number"),
        ({"update_epochs": -1}, "update_epochs"),
    ],
)
def test_bad_parameters(parameters, words):
    with pytest.raises(DataError, match=words.replace("(", r"\(")):
        tiny(**parameters).fit(load_airline())


def test_quantile_levels_outside_the_unit_interval():
    forecaster = tiny().fit(load_airline())
    with pytest.raises(DataError, match=r"quantiles must lie strictly between 0 and 1, found 1.0"):
        forecaster.forecast([Context(season(20))], 2, quantiles=[0.5, 1.0])


def test_a_context_without_any_observation():
    forecaster = tiny().fit(load_airline())
    values = season(40)
    values[-12:] = np.nan
    with pytest.raises(DataError, match=r"series 'x' has no observed value .* last 12 steps"):
        forecaster.forecast([Context(values, series_id="x")], 2)


def test_covariates_are_refused_not_ignored():
    forecaster = tiny().fit(load_airline())
    with pytest.raises(DataError, match="fitted without covariates"):
        forecaster.forecast([Context(season(20))], 2, future_x=[np.zeros((2, 1))])


def test_numpy_integers_are_whole_numbers():
    sizes = {name: np.int64(n) for name, n in (("context_length", 12), ("token_length", 6))}
    forecaster = tiny(**sizes, batch_size=np.int32(16)).fit(load_airline())
    assert len(forecaster.predict(fh=[1, 2])) == 2


def test_strided_windows_that_miss_phases_of_the_season_are_said():
    hours = pd.date_range("2024-01-01", periods=200, freq="h")
    y = pd.Series(season(200), index=hours)
    with pytest.warns(UserWarning, match=r"8 of 24 phases only.*use window_stride=7"):
        small("s2ip", window_stride=9).fit(y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        small("s2ip", window_stride=7).fit(y)


WRONG_TYPES = [
    ("learning_rate", "fast", "must be a number, found 'fast'"),
    ("weight_decay", None, "must be a number, found None"),
    ("validation_fraction", [], "must be a number, found []"),
    ("quantiles", 0.5, "must be a list of numbers, found 0.5"),
    ("device", None, "must be text, found None"),
    ("random_state", "x", "must be a whole number or a RandomState or null, found 'x'"),
]


@pytest.mark.parametrize(
    ("method", "name", "value", "words"),
    [
        (method, *wrong)
        for method in SMALL
        for wrong in WRONG_TYPES
        if wrong[0] in small(method).get_params()
    ],
)
def test_an_argument_of_the_wrong_type_is_named(method, name, value, words):
    with pytest.raises(DataError, match=re.escape(f"{name} {words}")):
        small(method, **{name: value}).fit(pd.Series(season(40)), fh=[1])


@pytest.mark.parametrize("name", ["autotimes", "aaren"])
def test_a_refusal_names_the_column_also_after_saving(name, tmp_path):
    y = pd.DataFrame({"price": season(30), "sales": season(30) ** 2}, index=DAYS)
    model = small(name).fit(y, fh=[1, 2])
    silent = pd.DataFrame({"price": 1.0, "sales": np.nan}, index=DAYS)
    context = Context(silent.to_numpy(), times=DAYS, columns=("price", "sales"))
    with pytest.raises(DataError, match="no observed value in column 'sales'"):
        model.forecast([context], 2)
    if name == "autotimes":  # aaren remembers all that it has read
        later = silent.set_axis(DAYS + 30 * DAYS.freq, axis=0)
        model.update(later, update_params=False)
        tsllm.save(model, tmp_path / "model")
        with pytest.raises(DataError, match="no observed value in column 'sales'"):
            tsllm.load(tmp_path / "model").predict(fh=[1])
