"""Streams learnt slice by slice: the harness on models whose R matrix is known, and its reports."""

import json

import numpy as np
import pandas as pd
import pytest
from known_events import GOLD
from small_events import halves, small_prompttpp

from tsllm.datasets.events import make_hawkes, read_events, time_slices
from tsllm.datasets.events.drift import make_drift
from tsllm.errors import DataError, NotEnoughDataError
from tsllm.events import EventEvaluation, HawkesForecaster, NaiveEventForecaster, evaluate_stream
from tsllm.events.evaluation.continual import BASELINES
from tsllm.events.evaluation.diagnostics import ALL_TYPES, EventDiagnostics
from tsllm.events.evaluation.stream_report import METRICS

#: R[T, j] of the model below, a metric being this and its number more.
KNOWN = np.array([[0.9, 0.2, 0.1], [0.5, 0.8, 0.3], [0.4, 0.6, 0.7]])


class LookUp(NaiveEventForecaster):
    """Whatever it learns, its figures are those of a table; and it writes down what it is given."""

    calls: list = []  # noqa: RUF012 (shared by clones on purpose)

    def partial_fit(self, events, y=None, *, types=None, validation=None):
        self.calls.append(("learn", events, validation, types))
        self.learnt_ = getattr(self, "learnt_", -1) + 1
        return self

    def evaluate(self, events, *, windows=None, t_start=None, t_end=None):
        self.calls.append(("test", events, t_start))
        tested = int(events.times[0][0] // 100)
        value = KNOWN[self.learnt_, tested]
        rows = [[value + i for i in range(len(METRICS))], [np.nan, np.nan, tested, 2.0]]
        table = pd.DataFrame(rows, index=["LookUp", "mean gap"], columns=list(METRICS))
        return EventEvaluation(table, 1, (), next_to_zero=value == 0.1)

    def diagnostics(self, events, *, windows=None, t_start=None, t_end=None):
        tested = int(events.times[0][0] // 100)
        row = {"ks": [KNOWN[self.learnt_, tested]], "lag1": [-tested / 10]}
        return EventDiagnostics(pd.DataFrame(row, index=[ALL_TYPES]), pd.DataFrame(), 1.0, {})


@pytest.fixture
def slices():
    """Three slices of 20 events each, at 1 to 20, 101 to 120 and so on; two sequences."""
    tables = []
    for number in range(3):
        times = 100 * number + np.arange(1.0, 21.0)
        frame = pd.DataFrame(
            {"sequence_id": ["a", "b"] * 10, "time": times, "type": ["x", "y", "y", "x"] * 5}
        )
        tables.append(read_events(frame))
    return tables


@pytest.fixture
def look_up():
    LookUp.calls.clear()
    return LookUp()


# ---------------------------------------------------------------- the harness


def test_the_matrix_of_a_look_up_table_comes_back(slices, look_up):
    report = evaluate_stream(look_up, slices, baselines=[])
    assert report.variants == ["LookUp"]
    for number, metric in enumerate(METRICS):
        np.testing.assert_array_equal(report.matrix(metric).to_numpy(), KNOWN + number)
    table = report.table
    row = table[(table["learned"] == 2) & (table["tested"] == 0)].iloc[0]
    assert row["log_likelihood"] == 0.4 and row["type_error"] == 1.4
    assert len(table) == 9


def test_each_slice_is_learnt_once_in_order_and_all_are_tested_each_time(slices, look_up):
    """Fault 11 of the released PromptTPP: it has no loop over the tasks."""
    evaluate_stream(look_up, slices, baselines=[])
    kinds = [call[0] for call in LookUp.calls]
    assert kinds == ["learn", "test", "test", "test"] * 3
    learnt = [call for call in LookUp.calls if call[0] == "learn"]
    for number, (_, train, validation, types) in enumerate(learnt):
        assert (
            np.sort(np.concatenate(train.times)).tolist()
            == (100 * number + np.arange(1.0, 15.0)).tolist()
        )
        assert np.sort(np.concatenate(validation.times)).tolist() == [
            100 * number + 15,
            100 * number + 16,
        ]
        assert types == (["x", "y"] if number == 0 else None)
    for _, table, start in [call for call in LookUp.calls if call[0] == "test"]:
        assert table.n_events == 20  # what came before the test part is history
        assert start % 100 == 16
    assert not hasattr(look_up, "learnt_")  # the user's estimator is left as it is


def test_the_rescaled_times_are_those_of_the_last_models(slices, look_up):
    report = evaluate_stream(look_up, slices, baselines=["naive"])
    found = report.diagnostics.set_index(["variant", "tested"])
    assert found.loc["LookUp", "ks"].tolist() == KNOWN[-1].tolist()
    assert found.loc["LookUp", "lag1"].tolist() == pytest.approx([0, -0.1, -0.2])
    latest = slices[-1].split()
    naive = NaiveEventForecaster().fit(latest[0], validation=latest[1], types=["x", "y"])
    own = naive.diagnostics(slices[0], t_start=16.0).table.loc[ALL_TYPES]
    assert found.loc[("naive", 0), "ks"] == pytest.approx(own["ks"])
    assert report.fits["variant"].tolist() == ["LookUp", "naive"]
    assert report.fits["ks"].iloc[0] == pytest.approx(KNOWN[-1].mean())
    assert "rescaled times after the last slice" in str(report)
    assert json.loads(json.dumps(report.to_dict()))["diagnostics"][2] == {
        "variant": "LookUp", "tested": 2, "ks": 0.7, "lag1": -0.2
    }  # fmt: skip


def test_the_summary_is_the_formulas(slices, look_up):
    report = evaluate_stream(look_up, slices, baselines=[])
    rows = report.summary.set_index("metric")
    gain, loss = rows.loc["log_likelihood"], rows.loc["type_error"]
    assert gain["final"] == pytest.approx((0.4 + 0.6 + 0.7) / 3)
    assert loss["final"] == pytest.approx(gain["final"] + 1)
    # greater is better: best before was 0.9 and 0.8
    assert gain["forgetting"] == pytest.approx(((0.9 - 0.4) + (0.8 - 0.6)) / 2)
    # less is better: the best were 0.4 and 0.2
    assert loss["forgetting"] == pytest.approx(((0.4 - 0.4) + (0.6 - 0.2)) / 2)
    assert gain["plasticity"] == pytest.approx((0.9 + 0.8 + 0.7) / 3)
    assert gain["backward_transfer"] == pytest.approx(((0.4 - 0.9) + (0.6 - 0.8)) / 2)
    assert gain["prequential"] == pytest.approx((0.2 + 0.3) / 2)
    forward = (0.2 - report.reference[1, 0] + 0.3 - report.reference[2, 0]) / 2
    assert gain["forward_transfer"] == pytest.approx(forward)


def test_the_reference_is_the_plainest_guess_from_the_first_slice(slices, look_up):
    report = evaluate_stream(look_up, slices, baselines=[])
    train, validation, _ = slices[0].split()
    blank = NaiveEventForecaster().fit(train, validation=validation)
    for number, table in enumerate(slices):
        found = blank.evaluate(table, t_start=100.0 * number + 16)
        expected = [found[metric] for metric in METRICS]
        np.testing.assert_allclose(report.reference[number], expected)


# ---------------------------------------------------------------- the variants


def test_the_arms_know_what_their_names_say():
    stream = make_hawkes(**GOLD, t_end=120, n_sequences=2, random_state=0).events
    slices = time_slices(stream, 3)
    report = evaluate_stream(HawkesForecaster(), slices)
    assert set(report.variants) == {"HawkesForecaster", *BASELINES} - {"fine_tuned"}
    model = report.matrix()
    first = report.matrix(variant="pretrained")
    assert (first.to_numpy() == first.iloc[0].to_numpy()).all()
    pd.testing.assert_series_equal(first.iloc[0], model.iloc[0])
    pd.testing.assert_frame_equal(report.matrix(variant="retrained"), model)
    pd.testing.assert_frame_equal(report.matrix(variant="hawkes"), model)
    joint = report.matrix(variant="joint")
    pd.testing.assert_series_equal(joint.iloc[0], model.iloc[0])
    assert (joint.iloc[2] != model.iloc[2]).all()
    assert any("no partial_fit" in note for note in report.notes)
    assert any("no variant 'fine_tuned'" in note for note in report.notes)
    # by hand: the latest slice's training and validation part, tested after its cut
    train, validation, _ = slices[1].split(keep_empty=True)
    fitted = HawkesForecaster().fit(train, validation=validation)
    cut = max(times[-1] for times in validation.times)
    expected = fitted.score(slices[2], t_start=max(t[-1] for t in slices[2].split()[1].times))
    assert model.iloc[1, 2] == pytest.approx(expected)
    assert model.iloc[1, 1] == pytest.approx(fitted.score(slices[1], t_start=cut))


def test_a_stream_that_changes_shows_in_the_joint_variant():
    drift = make_drift(n_slices=2, n_types=3, n_sequences=8, random_state=0)
    report = evaluate_stream(
        HawkesForecaster(), [one.events for one in drift], baselines=["joint", "naive"]
    )
    rows = report.summary[report.summary["metric"] == "log_likelihood"].set_index("variant")
    # a model of the last slice has forgotten the first; one of both has not, and is worse at each
    assert rows.loc["HawkesForecaster", "forgetting"] > 0.1
    assert rows.loc["joint", "forgetting"] < rows.loc["HawkesForecaster", "forgetting"]
    assert rows.loc["joint", "plasticity"] < rows.loc["HawkesForecaster", "plasticity"]
    assert rows.loc["naive", "final"] < rows.loc["joint", "final"]


def test_types_that_come_later_are_no_error(slices):
    later = slices[2].to_frame()
    later.loc[3, "type"] = "new"
    report = evaluate_stream(
        NaiveEventForecaster(types="markov"), [*slices[:2], later], baselines=["naive"]
    )
    assert np.isfinite(report.matrix().to_numpy()).all()


def test_an_arm_that_is_trained_on_is_made_by_the_estimators_hook(slices):
    class Continued(LookUp):
        def _fine_tuned(self):
            return LookUp(gap="median")

    LookUp.calls.clear()
    report = evaluate_stream(Continued(), slices, baselines=["fine_tuned"])
    assert report.variants == ["Continued", "fine_tuned"]
    assert len([call for call in LookUp.calls if call[0] == "learn"]) == 6


# ---------------------------------------------------------------- reports and refusals


def test_variants_write_no_checkpoint(tmp_path):
    estimator = small_prompttpp(checkpoint_dir=tmp_path / "run", max_epochs=1)
    evaluate_stream(estimator, halves(t_end=40, n_sequences=12))
    assert not (tmp_path / "run").exists()


def test_the_report_is_text_json_and_pictures(slices, look_up):
    report = evaluate_stream(look_up, slices, baselines=["naive"])
    text = str(report)
    assert all(metric in text for metric in METRICS)
    assert "14, 2, 4" in text
    assert report.guesses.loc["mean gap", "time_rmse"] == pytest.approx(1.0)  # of 0, 1 and 2
    assert report.notes == (
        "LookUp: after slice 0 the predicted gaps on slice 2 are next to zero and say nothing",
    )
    assert report.notes[0] in text and "mean gap" in text
    document = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert document["matrices"]["LookUp"][2][0][0] == 0.4
    assert len(document["summary"]) == 8
    assert len(document["seconds"]["naive"]) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"baselines": ["best"]}, "baselines must be among pretrained"),
        ({"slices": 1}, "at least two slices, found 1"),
    ],
)
def test_what_is_no_stream_is_refused(slices, look_up, change, message):
    count = change.pop("slices", 3)
    with pytest.raises(DataError, match=message):
        evaluate_stream(look_up, slices[:count], **change)


def test_a_slice_too_short_to_split_is_named(slices, look_up):
    short = read_events(pd.DataFrame({"time": [201.0, 202.0], "type": ["x", "y"]}))
    with pytest.raises(NotEnoughDataError, match="slice 2 of the stream"):
        evaluate_stream(look_up, [*slices[:2], short], baselines=[])


def test_a_report_refuses_metrics_and_arms_that_it_lacks(slices, look_up):
    report = evaluate_stream(look_up, slices, baselines=[])
    with pytest.raises(DataError, match="metric must be one of log_likelihood"):
        report.matrix("mse")
    with pytest.raises(DataError, match="variant must be one of LookUp"):
        report.matrix(variant="joint")
