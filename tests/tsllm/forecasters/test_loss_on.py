"""AutoTimes' choice of the segments that its training compares."""

import numpy as np
import pandas as pd
import pytest

import tsllm
from small_forecasters import season, tiny
from tsllm import Context
from tsllm.adapters.losses import next_segment_loss
from tsllm.errors import DataError


def series(steps):
    return pd.Series(season(steps), pd.date_range("2024-01-01", periods=steps, freq="D"))


def fitted(loss_on, **parameters):
    settings = {"backbone": None, "max_steps": 30, "max_epochs": 3, "flip_invariance": False}
    return tiny(loss_on=loss_on, **(settings | parameters)).fit(series(150), fh=range(1, 7))


def test_auto_keeps_the_training_with_the_lower_loss_on_the_last_segment():
    losses, forecasts = {}, {}
    for loss_on in ("all", "last", "auto"):
        model = fitted(loss_on)
        _, validation, _ = model._windows(model.fitted_.shape, [Context(season(150))])
        batch = validation.gather(range(len(validation)))
        total, count = next_segment_loss(
            model.fitted_.model, batch.values, mask=batch.mask, last_only=True
        )
        losses[loss_on], forecasts[loss_on] = float(total / count), model.predict()
    best = min(("all", "last"), key=losses.get)
    assert model.summary()["loss_on"] == best
    assert losses["auto"] <= losses[best] + 1e-6
    assert not np.allclose(forecasts["all"], forecasts["last"])


def test_loss_on_is_saved(tmp_path):
    model = fitted("auto")
    loaded = tsllm.load(tsllm.save(model, tmp_path / "model"))
    assert loaded.summary()["loss_on"] == model.summary()["loss_on"]
    np.testing.assert_array_equal(loaded.predict(), model.predict())
    np.testing.assert_array_equal(
        loaded.predict_interval(coverage=0.8), model.predict_interval(coverage=0.8)
    )


@pytest.mark.parametrize(
    "parameters, words",
    [
        ({"loss_on": "first"}, "loss_on must be one of all, last, auto"),
        ({"loss_on": "auto", "checkpoint_dir": "kept"}, "loss_on='auto' runs two"),
    ],
)
def test_loss_on_refuses(parameters, words):
    with pytest.raises(DataError, match=words):
        tiny(**parameters).fit(series(60), fh=[1])
