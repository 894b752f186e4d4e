"""Pictures of event models: what is drawn is what the numbers say."""

import numpy as np
import pandas as pd
import pytest
from known_events import GOLD, GOLD_EVENTS, hawkes_with

from tsllm.datasets.events import make_hawkes
from tsllm.events.evaluation.stream_report import StreamReport
from tsllm.events.plotting import plot_intensity, plot_residuals, plot_slot_use, plot_stream

pytest.importorskip("matplotlib")


def test_intensities_jump_at_the_events_that_are_marked():
    model = hawkes_with(**GOLD)
    ax = plot_intensity(model, GOLD_EVENTS, windows=(0.0, 5.0), end=6.0)
    lines = {line.get_label(): line for line in ax.get_lines()}
    for name in ("0", "1"):
        times, rates = lines[name].get_data()
        expected = model.predict_intensity(times, GOLD_EVENTS, windows=(0.0, 5.0))[name]
        np.testing.assert_allclose(rates[1:], expected.to_numpy()[1:])
        assert times.max() == 6.0
    marks = [line for line in ax.get_lines() if line.get_marker() == "|"]
    drawn = sorted(np.concatenate([line.get_xdata() for line in marks]))
    assert drawn == GOLD_EVENTS["time"].tolist()
    assert marks[0].get_color() == lines["0"].get_color()


def test_intensities_of_timestamps_have_dates_and_a_unit():
    days = pd.date_range("2024-01-01", periods=5, freq="D")
    events = pd.DataFrame({"time": days, "type": list("01010")})
    model = hawkes_with(**GOLD, events=events, time_unit="D")
    ax = plot_intensity(model, events)
    assert ax.get_ylabel() == "events per day"
    ax.figure.canvas.draw()


def test_residuals_are_drawn_against_the_exponential():
    events = make_hawkes(**GOLD, t_end=100, random_state=0).events
    found = hawkes_with(**GOLD).diagnostics(events)
    left, right = plot_residuals(found)
    lines = {line.get_label(): line for line in left.get_lines()}
    np.testing.assert_allclose(
        np.sort(found.residuals["all types"]), lines["all types"].get_ydata()
    )
    heights = [bar.get_height() for bar in right.patches if bar.get_width() < 1]
    assert np.mean(heights) == pytest.approx(1.0)  # a density
    again = plot_residuals(found, axes=(left, right))
    assert again[0] is left


def test_matrices_are_drawn_with_their_values():
    values = np.arange(18.0).reshape(3, 3, 2)
    values = np.concatenate([values, values], axis=-1)
    report = StreamReport({"model": values, "naive": values + 1}, values[0], {}, [(7, 1, 2)] * 3)
    axes = plot_stream(report, "type_error")
    assert [ax.get_title() for ax in axes] == ["model", "naive"]
    shown = [text.get_text() for text in axes[1].texts]
    assert shown == [f"{value:.3g}" for value in (values[:, :, 1] + 1).ravel()]
    np.testing.assert_array_equal(axes[0].images[0].get_array(), values[:, :, 1])
    one = plot_stream(report, "time_mae", variants=["naive"])
    assert len(one) == 1


def test_slot_use_is_drawn_in_shares():
    ax = plot_slot_use([[8, 0, 2], [1, 0, 1]])
    assert [text.get_text() for text in ax.figure.legends[0].get_texts()] == ["slot 0", "slot 2"]
    heights = [bar.get_height() for bar in ax.patches]
    assert heights == pytest.approx([0.8, 0.5, 0.2, 0.5])
