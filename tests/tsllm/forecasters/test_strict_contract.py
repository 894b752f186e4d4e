"""What sktime's suite does not see: values, labels, dates, repeats, batches, shared weights."""

import copy
import pickle
import subprocess
import sys
import threading

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sktime.datasets import load_airline

from small_forecasters import METHOD_VARIANTS, SMALL, TUNED, panel, season, small
from tsllm import Context, load_backbone
from tsllm.context import batch_contexts

# ---------------------------------------------------------------- repeats


@pytest.mark.parametrize(("method", "parameters"), METHOD_VARIANTS)
def test_one_random_state_gives_one_result_bit_for_bit(method, parameters):
    y = load_airline()
    first = small(method, **parameters).fit(y, fh=range(1, 14))
    torch.rand(3)  # whatever else happens in the process must not matter
    second = first.clone().fit(y, fh=range(1, 14))
    assert_array_equal(first.predict().to_numpy(), second.predict().to_numpy())
    assert_array_equal(first.predict().to_numpy(), first.predict().to_numpy())
    assert_array_equal(first.predict_quantiles().to_numpy(), second.predict_quantiles().to_numpy())
    third = first.clone().set_params(random_state=1).fit(y, fh=range(1, 14))
    assert not np.array_equal(first.predict().to_numpy(), third.predict().to_numpy())


def test_fitting_leaves_the_global_generators_alone(make_trained):
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    make_trained(dropout=0.5).fit(load_airline()).predict(fh=[1, 2])
    assert torch.equal(before[0], torch.get_rng_state())
    assert_array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002


def test_fitting_again_forgets_the_first_series(make):
    y = load_airline()
    forecaster = make().fit(y.iloc[:60])
    again = forecaster.fit(y).predict(fh=[1, 2, 3])
    assert_array_equal(again.to_numpy(), make().fit(y).predict(fh=[1, 2, 3]).to_numpy())


def test_saved_in_one_process_and_loaded_in_another(make_trained, tmp_path):
    forecaster = make_trained(loss="quantile", quantiles=(0.1, 0.5, 0.9)).fit(load_airline())
    expected = forecaster.predict(fh=[1, 7, 20])
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(forecaster))
    forecaster.save(tmp_path / "model")
    script = (
        "import pickle, torch; from sktime.base import load; torch.set_num_threads(1)\n"
        f"pickled = pickle.load(open({str(tmp_path / 'model.pkl')!r}, 'rb'))\n"
        f"saved = load({str(tmp_path / 'model')!r})\n"
        "for one in (pickled, saved):\n"
        "    print([float(v).hex() for v in one.predict(fh=[1, 7, 20])])"
    )
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=True
    )
    assert run.stdout.splitlines()[-2:] == [str([float(v).hex() for v in expected])] * 2


# ---------------------------------------------------------------- the frozen weights are shared


def base_pointers(forecaster):
    module = forecaster.fitted_.backbone.word_embeddings
    return module.data_ptr()


@pytest.mark.parametrize(
    ("method", "parameters"),
    [(method, {}) for method in SMALL if method != "aaren"]
    + [(method, needs | {"lora": {"r": 2, "alpha": 4}}) for method, needs in TUNED.items()],
)
def test_clone_deepcopy_and_pickle_never_copy_the_backbone(method, parameters):
    y = load_airline()
    big = "random:gpt2?hidden=256&layers=2&heads=4&vocab=8000"  # 3.9 M parameters: 15 MB
    brief = {} if method == "auto" else {"max_steps": 1}
    forecaster = small(method, **(parameters | {"backbone": big} | brief)).fit(y)
    trained = sum(p.numel() * p.element_size() for p in forecaster.fitted_.model.parameters())
    written = pickle.dumps(forecaster)
    assert len(written) < trained + 1_000_000
    for other in (copy.deepcopy(forecaster), pickle.loads(written), forecaster.clone().fit(y)):
        assert base_pointers(other) == base_pointers(forecaster)
    alone = copy.deepcopy(forecaster)
    ours = {p.data_ptr() for p in forecaster.fitted_.model.parameters()}
    assert ours.isdisjoint(p.data_ptr() for p in alone.fitted_.model.parameters())


def test_training_changes_no_frozen_weight(make):
    forecaster = make(backbone="random:gpt2?hidden=16&layers=2&heads=2&seed=9")
    backbone = load_backbone("random:gpt2?hidden=16&layers=2&heads=2&seed=9")
    before = backbone.digest, backbone.word_embeddings.clone()
    forecaster.fit(load_airline())
    assert forecaster.fitted_.backbone == backbone
    assert torch.equal(before[1], backbone.word_embeddings)


# ---------------------------------------------------------------- panels: labels, dates, batches


@pytest.mark.parametrize("order", [["a", "b", "c"], ["c", "a", "b"], [30, 1, 7]])
def test_unequal_unsorted_panels_keep_labels_and_dates(make_trained, order):
    y = panel([40, 55, 33], order)
    forecaster = make_trained(max_steps=60, learning_rate=1e-2).fit(y, fh=[1, 2, 9])
    forecast = forecaster.predict()
    assert list(forecast.index.get_level_values(0).unique()) == order
    assert forecast.index.names == y.index.names
    for i, name in enumerate(order):
        last = y.loc[name].index[-1]
        expected = [last + pd.Timedelta(days=d) for d in (1, 2, 9)]
        assert forecast.loc[name].index.tolist() == expected
        # Levels are 100, 200, 300: a forecast that lost its label would be far off.
        assert (abs(forecast.loc[name]["value"] - 100.0 * (i + 1)) < 5).all()


def test_hierarchical_panels_keep_every_level(make):
    flat = panel([30, 30, 30, 30], ["a", "b", "c", "d"])
    regions = {"a": "north", "b": "south", "c": "north", "d": "south"}
    keys = [(regions[i], i, t) for i, t in flat.index]
    y = flat.set_axis(pd.MultiIndex.from_tuples(keys, names=["region", "id", "time"]))
    forecast = make().fit(y).predict(fh=[1, 2])
    assert forecast.index.names == ["region", "id", "time"]
    assert len(forecast) == 8
    alone = make().fit(flat).predict(fh=[1, 2])
    assert_allclose(forecast["value"].to_numpy(), alone["value"].to_numpy(), rtol=1e-6)


def test_absolute_horizons_ask_each_series_for_its_own_steps(make):
    y = panel([40, 43], ["a", "b"])
    dates = pd.date_range("2024-02-13", periods=3, freq="D")  # 'a' ends 02-09, 'b' ends 02-12
    forecaster = make().fit(y)
    forecast = forecaster.predict(fh=dates)
    relative = forecaster.predict(fh=range(1, 7))
    assert forecast.loc["a"].index.tolist() == dates.tolist()
    assert_array_equal(forecast.loc["a"].to_numpy(), relative.loc["a"].iloc[3:6].to_numpy())
    assert_array_equal(forecast.loc["b"].to_numpy(), relative.loc["b"].iloc[0:3].to_numpy())


@pytest.mark.parametrize(("method", "parameters"), METHOD_VARIANTS)
def test_a_batch_of_one_equals_a_batch_of_many(method, parameters):
    rng = np.random.default_rng(1)
    y = panel([40, 40, 40], ["a", "b", "c"])
    forecaster = small(method, **parameters).fit(y)
    contexts = [
        Context(
            season(int(n), seed=int(n)) * 10.0 ** int(k),
            times=pd.date_range("2023-01-01", periods=int(n), freq="D"),
        )
        for n, k in zip(rng.integers(2, 30, 40), rng.integers(-6, 9, 40))
    ]
    together = forecaster.forecast(contexts, 15, quantiles=[0.1, 0.9])
    for i, context in enumerate(contexts):
        alone = forecaster.forecast([context], 15, quantiles=[0.1, 0.9])[0]
        scale = batch_contexts([context], 12).scale.max()
        assert abs(alone - together[i]).max() < 1e-5 * max(scale, abs(alone).max())


def test_forecasts_follow_the_units_of_the_series(make_trained):
    forecaster = make_trained().fit(load_airline())
    values = season(30)
    base = forecaster.forecast([Context(values)], 8, quantiles=[0.2, 0.8])
    for factor, shift in [(1e-6, 0.0), (1e6, 0.0), (-1.0, 0.0), (1.0, 1e7)]:
        moved = forecaster.forecast([Context(values * factor + shift)], 8, quantiles=[0.2, 0.8])
        if factor < 0:  # the model is not odd, only affine in level and positive scale
            continue
        assert_allclose((moved - shift) / factor, base, atol=2e-4)


def test_concurrent_forecasts_answer_for_their_own_series(make):
    forecaster = make().fit(load_airline())
    contexts = [Context(season(30, phase=i, level=10 * i)) for i in range(24)]
    alone = [forecaster.forecast([c], 5) for c in contexts]
    answers = [None] * len(contexts)

    def ask(i):
        answers[i] = forecaster.forecast([contexts[i]], 5)

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(contexts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for answer, expected in zip(answers, alone):
        assert_array_equal(answer, expected)


# ---------------------------------------------------------------- every index type


@pytest.mark.parametrize(
    "index",
    [
        pd.date_range("2024-01-31", periods=40, freq="ME"),
        pd.date_range("2024-01-01", periods=40, freq="MS"),
        pd.date_range("2024-01-01", periods=40, freq="W-MON"),
        pd.date_range("2024-01-01", periods=40, freq="B"),
        pd.date_range("2024-01-01", periods=40, freq="15min"),
        pd.date_range("2024-03-30", periods=40, freq="h", tz="Europe/Berlin"),
        pd.date_range("2020-01-01", periods=40, freq="QS"),
        pd.period_range("2024-01", periods=40, freq="M"),
        pd.RangeIndex(40),
        pd.RangeIndex(7, 47),
        pd.Index(np.arange(3, 43)),
    ],
    ids=str,
)
@pytest.mark.parametrize("with_freq", [True, False])
def test_dates_of_every_index_type(make, index, with_freq):
    longer = index.append(index[:0])
    if isinstance(index, pd.DatetimeIndex):
        longer = pd.date_range(index[0], periods=46, freq=index.freq)
        if not with_freq:
            index = pd.DatetimeIndex(index, freq=None)
    elif isinstance(index, pd.PeriodIndex):
        longer = pd.period_range(index[0], periods=46, freq=index.freq)
    else:
        longer = pd.Index(np.arange(index[0], index[0] + 46))
    y = pd.Series(season(40), index=index, name="load")
    forecaster = make().fit(y)
    forecast = forecaster.predict(fh=[1, 2, 6])
    assert forecast.index.tolist() == [longer[40], longer[41], longer[45]]
    assert forecast.name == "load"
    interval = forecaster.predict_interval(fh=[1, 2, 6], coverage=[0.5, 0.9])
    assert interval.index.tolist() == forecast.index.tolist()
    assert interval.columns.tolist() == [
        ("load", c, side) for c in (0.5, 0.9) for side in ("lower", "upper")
    ]


# ---------------------------------------------------------------- awkward series


def test_a_constant_series_is_its_constant(make):
    y = panel([40, 40], ["a", "b"])
    y.loc["b", "value"] = 7.0
    with pytest.warns(UserWarning, match="series 'b' never changes"):
        forecaster = make().fit(y)
    forecast = forecaster.predict_interval(fh=[1, 2], coverage=0.9)
    assert (forecast.loc["b"] == 7.0).all(axis=None)
    assert (forecaster.predict(fh=[1, 2]).loc["b"] == 7.0).all(axis=None)


@pytest.mark.parametrize("steps", [3, 5, 11, 13])
def test_short_series_are_forecast(make, steps):
    y = pd.Series(season(steps), index=pd.RangeIndex(steps))
    forecaster = make().fit(y)
    with pytest.warns(UserWarning, match="the intervals rest on"):
        quantiles = forecaster.predict_quantiles(fh=range(1, 9), alpha=[0.1, 0.5, 0.9])
    assert np.isfinite(quantiles.to_numpy()).all()
    assert (np.diff(quantiles.to_numpy(), axis=1) >= 0).all()


def test_missing_steps_are_masked_not_imputed(make):
    y = load_airline().astype(float)
    y.iloc[[3, 50, 51, 52, 140]] = np.nan
    forecaster = make().fit(y)
    forecast = forecaster.predict(fh=range(1, 7))
    assert np.isfinite(forecast.to_numpy()).all()
    values = season(30)
    holed = values.copy()
    holed[20:23] = np.nan
    # The masked steps' stored values have no influence whatever they were.
    mask = ~np.isnan(holed)[:, None]
    other = Context(np.where(np.isnan(holed), 1e9, holed), mask=mask)
    # One by one: how a matrix product rounds may depend on a row's place in the batch.
    answer = forecaster.forecast([Context(holed)], 6)
    assert_array_equal(answer, forecaster.forecast([other], 6))
    assert not np.allclose(answer, forecaster.forecast([Context(values)], 6))


def test_multivariate_series_keep_their_columns(make_trained):
    index = pd.date_range("2024-01-01", periods=60, freq="D")
    y = pd.DataFrame({"x": season(60), "z": season(60, level=-50.0)}, index=index)
    forecaster = make_trained(max_steps=60, learning_rate=1e-2).fit(y)
    forecast = forecaster.predict(fh=[1, 2, 3])
    assert forecast.columns.tolist() == ["x", "z"]
    assert (abs(forecast.mean() - pd.Series({"x": 10.0, "z": -50.0})) < 2).all()
    quantiles = forecaster.predict_quantiles(fh=[1], alpha=[0.1, 0.9])
    assert quantiles.columns.tolist() == [("x", 0.1), ("x", 0.9), ("z", 0.1), ("z", 0.9)]
    assert (quantiles["z"] < 0).all(axis=None)
