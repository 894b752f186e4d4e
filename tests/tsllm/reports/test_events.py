"""The pages of event streams: scores beside guesses, streams, and what comes next."""

import numpy as np
import pandas as pd
import pytest
from small_events import halves, small_prompttpp, stream

from tsllm.events import (
    EventEvaluation,
    HawkesForecaster,
    NaiveEventForecaster,
    StreamReport,
    evaluate_stream,
)
from tsllm.reports import report_evaluation, report_predictions, report_stream
from tsllm.reports.events import MAX_SEQUENCES

pytestmark = pytest.mark.filterwarnings("ignore:.*next to zero")


def scored(times, types):
    """Make an evaluation where the model and the best guess have these errors."""
    rows = {
        "Model": {"log_likelihood": 1.0, "time_mae": times[0] + 0.5, "type_error": types[0]},
        "mean gap": {"time_mae": times[1] + 0.5},
        "majority type": {"type_error": types[1]},
    }
    table = pd.DataFrame.from_dict(rows, orient="index")
    return EventEvaluation(table, 50, ())


@pytest.mark.parametrize(
    ("times", "types", "words"),
    [
        ((1, 2), (0.2, 0.3), "The model predicts the times and types of events better than simple"),
        ((1, 2), (0.3, 0.3), "the times of events better than simple guesses, but not their types"),
        (
            (2, 2),
            (0.3, 0.2),
            "predicts the times and types of events no better than simple guesses",
        ),
        ((1, 2), (0.0, 0.0), "The model predicts the times of events better than simple guesses: "),
    ],
)
def test_a_model_is_judged_beside_the_best_guesses(times, types, words):
    verdict = report_evaluation(scored(times, types), unit="h").verdict
    assert words in verdict and f"{times[0]}.5 hours off" in verdict


def test_scores_have_their_tests_and_pictures():
    events = stream(t_end=60)
    model = NaiveEventForecaster(types="markov").fit(events)
    page = report_evaluation(model.evaluate(events), model.diagnostics(events))
    assert [one.title for one in page.tables] == [
        "Scores",
        "Tests of the residuals",
        "Probabilities of the types",
    ]
    assert page.details[0].startswith(f"{events.n_events:,} events were predicted")
    assert page.details[1].startswith("Its probabilities over time")
    page.to_html()


@pytest.mark.long
def test_a_stream_is_compared_with_the_other_ways_to_learn_it():
    found = evaluate_stream(
        HawkesForecaster(max_steps=5, random_state=0), halves(t_end=30), baselines=["naive"]
    )
    page = report_stream(found, settings={"by": "1D", "slices": None})
    assert page.verdict.startswith((found.variants[0], "Of 2 ways to learn this stream"))
    assert page.settings == {"by": "1D"}
    fits = next(table for table in page.tables if table.title == "Rescaled times").frame
    assert fits["variant"].tolist() == found.variants and fits["ks"].between(0, 1).all()
    assert len(page.pictures) == len(found.variants)
    assert page.to_html("2026-01-31").count('class="paper"') == len(found.variants)


def test_the_verdict_on_a_stream_counts_those_that_are_better():
    def matrix(value):
        return np.full((2, 2, 4), float(value))

    matrices = {"mine": matrix(1), "worse": matrix(0), "better": matrix(2)}
    report = StreamReport(matrices, np.zeros((2, 4)), {}, [(5, 1, 2)] * 2)
    assert report_stream(report).verdict == (
        "mine is not the best way to learn this stream: better predicts the next slice as well or "
        "better (log-likelihood per event 2, 1)."
    )
    del matrices["better"]
    assert report_stream(report).verdict == (
        "Of 2 ways to learn this stream, mine predicts the next slice best: with a log-likelihood "
        "of 1 per event (the next is worse, 0)."
    )


def test_the_next_event_of_all_sequences_is_named():
    origin = pd.Timestamp("2024-01-01")
    rows = [
        pd.DataFrame(
            {
                "sequence_id": name,
                "when": origin + pd.to_timedelta(range(k, 40, 2), "h"),
                "kind": "a",
            }
        )
        for k, name in enumerate(["x", "<script>", *"abcdefgh"])
    ]
    events = pd.concat(rows)
    model = NaiveEventForecaster(time_col="when", type_col="kind", time_unit="h").fit(events)
    page = report_predictions(model, model.predict(n_steps=2))
    assert page.verdict.startswith("The next event of 10 sequences is expected in ")
    assert "2024-01-0" in page.verdict and page.verdict.endswith("of type a (probability 100 %).")
    assert len(page.pictures) == MAX_SEQUENCES
    assert page.pictures_note == f"The first {MAX_SEQUENCES} of 10 sequences are drawn."
    assert page.to_html().count("<script>") == 1


def test_no_further_event_is_said():
    model = small_prompttpp()
    predictions = pd.DataFrame(
        {
            "sequence_id": [0],
            "step": [1],
            "time_median": [np.inf],
            "type": ["a"],
            "probability": [1],
        }
    )
    assert report_predictions(model, predictions).verdict == "No further event is expected."
