"""The pages of ablations: an answer in one sentence for each kind, and no times."""

import pandas as pd
import pytest
from small_events import halves, small_prompttpp

from small_forecasters import panel, small
from tsllm import ablate, events
from tsllm.evaluation.text_verdict import TEXT_ANSWERS
from tsllm.evaluation.verdict import ANSWERS
from tsllm.reports import report_ablation
from tsllm.reports.ablation import MODEL_SENTENCES, TEXT_SENTENCES

pytestmark = [
    pytest.mark.filterwarnings("ignore:the intervals "),
    pytest.mark.filterwarnings("ignore:.*next to zero"),
    pytest.mark.long,
]


@pytest.fixture(scope="module")
def report():
    return ablate(
        small("autotimes"),
        panel([60], ["<script>"]).droplevel(0),
        horizons=[2, 3],
        test_size=12,
        variants=["random"],
        baselines=["seasonal_naive"],
        seeds=(0,),
    )


def test_the_answer_comes_first_and_the_verdict_below(report):
    page = report_ablation(report)
    assert page.title == "Does the language model help?"
    assert page.verdict == MODEL_SENTENCES[report.answer]
    assert page.details == [report.verdict]
    assert page.notes == report.notes
    assert page.to_html("2026-01-31") == report_ablation(report).to_html("2026-01-31")
    columns = [name for table in page.tables for name in table.frame.columns]
    assert not {"fit s", "ms a window"} & set(columns) and "in percent" in columns


def test_an_ablation_of_text_has_its_own_answers(report):
    from dataclasses import replace

    text = replace(report, answer="text", settings=report.settings | {"text": ["report"]})
    assert report_ablation(text).verdict == TEXT_SENTENCES["text"]


def test_every_answer_has_its_sentence():
    assert MODEL_SENTENCES.keys() == ANSWERS.keys()
    assert TEXT_SENTENCES.keys() == TEXT_ANSWERS.keys()


def test_ablations_of_events_answer_both_questions():
    found = events.ablate(
        small_prompttpp(max_epochs=1),
        halves(t_end=40, n_sequences=12),
        variants=["prompts"],
        baselines=["naive"],
        seeds=(0,),
    )
    page = report_ablation(found, settings={"data": "x.csv"})
    assert page.verdict.startswith("On this stream, ") and "prompts" in page.verdict
    assert page.settings["data"] == "x.csv"
    assert isinstance(page.tables[1].frame, pd.DataFrame)
    assert "relative" not in page.tables[1].frame.columns
    page.to_html()
