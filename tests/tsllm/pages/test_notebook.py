"""What notebooks show: small, escaped, and beside what sktime and scikit-learn show."""

import json

import pandas as pd
import pytest
from html_pages import Parsed
from small_events import stream

from small_forecasters import panel
from tsllm import LinearForecaster, backtest
from tsllm.events import NaiveEventForecaster
from tsllm.pages.notebook import MAX_ROWS, Summary, piece

pytestmark = pytest.mark.filterwarnings("ignore:the intervals ")


def test_pieces_are_escaped_and_small():
    frame = pd.DataFrame({"<i>": [f"<b>{n}" for n in range(100)]})
    html = piece("<u>", {"<s>": frame}, ["<a>"])
    Parsed(html)
    assert not any(tag in html for tag in ("<i>", "<b>", "<u>", "<s>", "<a>"))
    assert html.count("<td>") == MAX_ROWS
    assert f"The first {MAX_ROWS} of 100 rows." in html


def test_a_summary_is_a_dict_and_a_table():
    summary = Summary(epochs=3, candidates=[{"name": "<b>", "error": 0.5}], none=None)
    assert json.loads(json.dumps(summary)) == summary
    html = summary._repr_html_()
    Parsed(html)
    assert "&lt;b&gt;" in html and "<th>epochs</th>" in html


def test_a_fitted_forecaster_shows_its_summary_below_sktimes_diagram():
    forecaster = LinearForecaster()
    before = forecaster._repr_mimebundle_()
    assert "tsllm-summary" not in before["text/html"]
    y = panel([40, 30], ["a", "b"])
    forecaster.fit(y, fh=[1, 2])
    for html in (forecaster._repr_mimebundle_()["text/html"], forecaster._repr_html_()):
        assert html.startswith("<style>#sk-")
        assert html.count('class="tsllm-summary"') == 1 and "trained_parameters" in html
    assert forecaster._repr_mimebundle_()["text/plain"] == repr(forecaster)
    forecaster.set_config(display="text")
    assert "text/html" not in forecaster._repr_mimebundle_()


def test_a_fitted_event_forecaster_shows_its_summary_below_sklearns_diagram():
    events = stream()
    model = NaiveEventForecaster()
    assert "tsllm-summary" not in model._repr_html_()
    model.fit(events)
    assert model.summary()["types"] == 2
    for html in (model._repr_html_(), model._repr_mimebundle_()["text/html"]):
        assert html.count("tsllm-summary") == 1
    evaluation, diagnostics = model.evaluate(events), model.diagnostics(events)
    assert "zero gap" in evaluation._repr_html_()
    assert "all types" in diagnostics._repr_html_()


def test_a_backtest_shows_its_errors_and_notes():
    report = backtest(
        {},
        panel([40, 30], ["a", "b"]),
        horizons=2,
        test_size=6,
        baselines=["seasonal_naive"],
        quantiles=(),
    )
    html = report._repr_html_()
    Parsed(html)
    assert "seasonal_naive" in html and "Backtest of" in html
