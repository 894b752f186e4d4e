"""Runs, the registry and autologging, on MLflow's default kind of store."""

import matplotlib
import mlflow
import mlflow.pyfunc
import pandas as pd
import pytest
from long_frames import fit_tiny, long_frame
from small_events import small_prompttpp

import tsllm.mlflow
from tsllm.datasets import make_hawkes
from tsllm.events import NaiveEventForecaster
from tsllm.training.callbacks import Callback, training_callbacks

matplotlib.use("agg")
pytestmark = pytest.mark.filterwarnings("ignore:the intervals ")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """An empty sqlite store; setting it up takes MLflow some seconds."""
    folder = tmp_path_factory.mktemp("tracking")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    name = mlflow.create_experiment("tests", artifact_location=(folder / "artifacts").as_uri())
    mlflow.set_experiment(experiment_id=name)
    yield
    mlflow.set_tracking_uri(before)


def test_runs_versions_and_aliases_lead_to_the_model(store, forecaster, frame):
    with mlflow.start_run() as run:
        info = tsllm.mlflow.log_model(
            forecaster, name="model", registered_model_name="demand", params={"method": "autotimes"}
        )
    client = mlflow.MlflowClient()
    client.set_registered_model_alias("demand", "champion", 1)
    expected = forecaster.predict(fh=[1, 2, 3])["value"].tolist()
    uris = [info.model_uri, f"runs:/{run.info.run_id}/model", "models:/demand/1"]
    for uri in [*uris, "models:/demand@champion"]:
        answer = mlflow.pyfunc.load_model(uri).predict(frame, params={"quantiles": []})
        assert answer["forecast"].tolist() == pytest.approx(expected, rel=1e-5)
    loaded = tsllm.mlflow.load_model("models:/demand@champion", device="cpu")
    pd.testing.assert_frame_equal(loaded.predict(fh=[1]), forecaster.predict(fh=[1]))
    assert client.get_logged_model(info.model_id).params["method"] == "autotimes"


@pytest.fixture
def autologging(store):
    tsllm.mlflow.autolog(silent=True)
    yield
    tsllm.mlflow.autolog(disable=True, silent=True)


def test_each_fit_is_logged_while_it_runs(autologging):
    seen = []

    class Watch(Callback):
        def on_epoch_end(self, state):
            seen.append(mlflow.active_run().info.run_id)

    with training_callbacks(Watch()):
        forecaster = fit_tiny(long_frame(3, 120), max_steps=None, max_epochs=3, batch_size=16)
    run = mlflow.last_active_run()
    assert mlflow.active_run() is None
    assert set(seen) == {run.info.run_id}
    history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "train_loss")
    own = [epoch["train_loss"] for epoch in forecaster.fitted_.history]
    assert [metric.value for metric in sorted(history, key=lambda m: m.step)] == own
    assert run.data.params["estimator"] == "AutoTimesForecaster"
    assert run.data.params["max_epochs"] == "3"
    assert run.data.metrics["trained_parameters"] > 0
    assert run.data.metrics["best_validation_loss"] == min(
        epoch["validation_loss"] for epoch in forecaster.fitted_.history
    )
    assert run.data.tags["tsllm.stopped"] == "max_epochs"
    files = {f.path for f in mlflow.MlflowClient().list_artifacts(run.info.run_id)}
    assert {"losses.png", "forecast.png"} <= files


def test_fits_go_to_the_run_that_is_active_and_errors_stay_errors(autologging):
    with mlflow.start_run() as run:
        fit_tiny(long_frame(2))
        assert mlflow.active_run().info.run_id == run.info.run_id
    assert "train_loss" in mlflow.get_run(run.info.run_id).data.metrics
    with pytest.raises(ValueError, match="batch_size"):
        fit_tiny(long_frame(2), batch_size=0)
    assert mlflow.active_run() is None
    tsllm.mlflow.autolog(disable=True, silent=True)
    before = mlflow.last_active_run().info.run_id
    fit_tiny(long_frame(2))
    assert mlflow.last_active_run().info.run_id == before


def test_the_slices_of_an_event_stream_follow_each_other_in_a_run(autologging):
    events = make_hawkes([0.5], [[0.5]], [2.0], t_end=30, n_sequences=4, random_state=0).events
    early, late = events.split((0.5, 0.5))
    with mlflow.start_run() as run:
        model = small_prompttpp().partial_fit(early).partial_fit(late)
    history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "train_loss")
    own = [epoch["train_loss"] for one in model.slices_ for epoch in one["history"]]
    assert [metric.value for metric in sorted(history, key=lambda m: m.step)] == own
    assert sorted(metric.step for metric in history) == list(range(1, len(own) + 1))
    data = mlflow.get_run(run.info.run_id).data
    assert data.params["estimator"] == "PromptTPP"
    assert (data.metrics["slices"], data.metrics["slots"]) == (2, len(model.model_.pool))
    assert data.tags["tsllm.encoder"] == "attention"
    assert [f.path for f in mlflow.MlflowClient().list_artifacts(run.info.run_id)] == ["losses.png"]


def test_event_baselines_are_logged_without_losses(autologging):
    events = make_hawkes([0.5], [[0.5]], [2.0], t_end=30, random_state=0).events
    NaiveEventForecaster().fit(events)
    data = mlflow.last_active_run().data
    assert data.params["estimator"] == "NaiveEventForecaster"
    assert data.metrics == {"events": events.n_events}
