"""Integer times with a constant step, through every door: each continues the step."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal
from sktime.forecasting.base import ForecastingHorizon

import tsllm
from small_forecasters import SMALL, season, small
from tsllm import DLinearForecaster
from tsllm.datasets import read_long
from tsllm.errors import DataError
from tsllm.mlflow.limits import Limits
from tsllm.mlflow.requests import Asked
from tsllm.mlflow.series import ServedSeries
from tsllm.tables.forecast import predict_long

CENSUS = pd.Index(range(1825, 2021, 5))


def linear(**parameters):
    settings = {"context_length": 8, "prediction_length": 3, "max_steps": 1, "random_state": 0}
    return DLinearForecaster(**(settings | parameters))


def series(times):
    return pd.Series(season(len(times)), index=times)


def by_pairs(names, times):
    index = pd.MultiIndex.from_product([names, times], names=["id", "time"])
    return pd.DataFrame({"value": season(len(index))}, index=index)


@pytest.mark.parametrize("method", SMALL)
def test_every_method_continues_the_step(method, tmp_path):
    model = small(method).fit(series(CENSUS))
    forecast = model.predict(fh=[1, 2, 3])
    assert forecast.index.tolist() == [2025, 2030, 2035]
    plain = small(method).fit(series(pd.RangeIndex(len(CENSUS))))
    if method in ("aaren", "s2ip"):  # the prompts of others may hold the times
        assert_array_equal(forecast, plain.predict(fh=[1, 2, 3]))
    tsllm.save(model, tmp_path / "model")
    again = tsllm.load(tmp_path / "model")
    assert_array_equal(again.predict(fh=[1, 2, 3]), forecast)
    again.update(pd.Series([10.0], index=[2025]))
    assert again.predict(fh=[1, 2]).index.tolist() == [2030, 2035]


@pytest.mark.parametrize("times", [CENSUS, pd.RangeIndex(0, 100, 2), pd.RangeIndex(7, 47)])
def test_update_takes_the_true_next_rows_and_no_others(times):
    step = times[1] - times[0]
    model = linear().fit(series(times[:-5]))
    model.update(series(times[-5:-4]))
    model.update(series(times[-4:]))
    absolute = ForecastingHorizon([times[-1] + 2 * step], is_relative=False)
    assert model.predict(fh=absolute).index.tolist() == [times[-1] + 2 * step]
    with pytest.raises(DataError, match=f"pass the rows from {times[-1] + step} on"):
        model.update(pd.Series([1.0], index=[times[-1] + 2 * step]))
    if step > 1:
        between = times[-1] + step + 1
        with pytest.raises(DataError, match="no step at freq"):
            model.predict(fh=ForecastingHorizon([between], is_relative=False))
        with pytest.raises(DataError, match=rf"has a gap: {times[-1] + 2 * step} is missing"):
            model.update(series(pd.Index([times[-1] + step, times[-1] + 3 * step])))
    whole = linear().fit(series(times[:-5])).update(series(times[-5:]))
    assert model.predict(fh=[1]).index.equals(whole.predict(fh=[1]).index)


def test_a_new_series_of_one_row_has_the_step_of_the_model():
    model = linear().fit(by_pairs(["a", "b"], CENSUS))
    model.update(by_pairs(["c"], CENSUS[:1])).update(by_pairs(["c"], CENSUS[1:9]))
    assert model.predict(fh=[1]).index[-1] == ("c", CENSUS[9])
    with pytest.raises(DataError, match="'b' has integer steps of 10"):
        mixed = pd.concat([by_pairs(["a"], CENSUS), by_pairs(["b"], CENSUS[::2])])
        linear().fit(mixed)


def test_a_model_is_fitted_anew_on_another_step():
    model = linear().fit(series(pd.RangeIndex(40)))
    assert model.fit(series(CENSUS)).predict(fh=[1]).index[0] == 2025


def test_windows_of_counts_that_look_like_months_are_forecast():
    model = linear().fit(series(pd.RangeIndex(6000)))
    model.update(series(pd.Index(range(6000, 6801)))).update(series(pd.Index(range(6801, 6813))))
    frame = pd.DataFrame({"series_id": "series", "timestamp": range(6801, 6813), "y": season(12)})
    assert predict_long(model, frame, 2, quantiles=[])["timestamp"].tolist() == [6813, 6814]


def test_long_tables_and_saved_tables_continue_the_step(tmp_path):
    frame = pd.DataFrame({"unique_id": "a", "ds": CENSUS, "y": season(len(CENSUS))})
    how = {"method": "autotimes", "backbone": None, "max_steps": 1, "context_length": 8}
    how |= {"quantiles": []}
    answer = tsllm.forecast(frame, 2, **how)
    assert answer["ds"].tolist() == [2025, 2030]
    with pytest.raises(DataError, match="months written YYYYMM"):
        months = [100 * year + month for year in range(2020, 2024) for month in range(1, 13)]
        tsllm.forecast(pd.DataFrame({"ds": months, "y": season(48)}), 2, **how)
    model = linear().fit(read_long(frame).set_index(["series_id", "timestamp"]))
    frame.to_parquet(tmp_path / "part.parquet")
    tsllm.save(model, tmp_path / "model")
    tsllm.predict_batch(tmp_path / "model", tmp_path / "part.parquet", tmp_path / "out", horizon=2)
    written = pd.concat(map(pd.read_parquet, (tmp_path / "out").glob("*.parquet")))
    assert written["ds"].tolist() == [2025, 2030]


def test_a_served_model_continues_the_step():
    kind, model = ServedSeries(), linear().fit(series(CENSUS))
    assert kind.input_example(model)["timestamp"].tolist()[:3] == [0, 5, 10]
    payload = model.to_payload(2)["dataframe_split"]
    request = pd.DataFrame(payload["data"], columns=payload["columns"])
    answer = kind.predict(model, request, Asked(2, [], None), Limits())
    assert answer["timestamp"].tolist() == [2025, 2030]
    # one row shows no step
    short = kind.predict(model, request.tail(1), Asked(1, [], None), Limits())
    assert short["timestamp"].tolist() == [2025]


def test_a_stated_step_is_a_demand():
    with pytest.raises(DataError, match=r"months written YYYYMM.*pass freq='1'"):
        linear().fit(series(pd.RangeIndex(202401, 202413)))
    model = linear(freq="1", context_length=4, prediction_length=1)
    assert model.fit(series(pd.RangeIndex(202401, 202413))).predict(fh=[1]).index[0] == 202413
    with pytest.raises(DataError, match="has a gap"):
        linear(freq="1").fit(series(CENSUS))
    with pytest.raises(DataError, match="freq='5' is the step of times that are integers"):
        linear(freq="5").fit(series(pd.date_range("2024-01-01", periods=40, freq="D")))


def test_seconds_since_1970_are_counts_and_irregular_ones_have_a_remedy():
    hours = pd.Index(1_704_067_200 + 3600 * np.arange(40))
    assert linear().fit(series(hours)).predict(fh=[1]).index[0] == hours[-1] + 3600
    months = pd.date_range("2024-01-01", periods=40, freq="MS").as_unit("s").asi8
    with pytest.raises(DataError, match=r"irregular times.*to_datetime\(times, unit='s'\)"):
        linear().fit(series(pd.Index(months)))
