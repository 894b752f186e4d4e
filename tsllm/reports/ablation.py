"""The page of an ablation, of series or of events: an answer, and the differences behind it."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from tsllm.evaluation.ablation_report import AblationDocument, AblationReport
from tsllm.evaluation.documents import bounds
from tsllm.pages.page import Page, Table
from tsllm.pages.pictures import Picture, axes_of
from tsllm.reports.settings import settings_to_show

#: The answers of ablations in plain sentences, by the answer of the report.
MODEL_SENTENCES = {
    "yes": "Yes: the language model makes the forecasts better, and nothing in its place does.",
    "architecture": "Not the language: something simpler in the place of the language model does "
    "as well.",
    "unclear": "Perhaps: the forecasts are better with the language model, but whether for its "
    "language cannot be told.",
    "undecided": "It cannot be told: the errors with and without the language model differ too "
    "little, or vary too much.",
    "no": "No: the language model makes no difference that matters.",
    "harm": "No: the forecasts are better without the language model.",
}
TEXT_SENTENCES = {
    "yes": "Yes: the text makes the forecasts better, and so does the language model that reads "
    "it.",
    "text": "The text makes the forecasts better, and needs no language model to read it.",
    "unclear": "The text makes the forecasts better; whether the language model helps to read it "
    "cannot be told.",
    "undecided": "It cannot be told: the errors with and without the text differ too little, or "
    "vary too much.",
    "no": "No: the text makes no difference that matters.",
    "harm": "No: the forecasts are better without the text.",
}
#: Of ablations of events: the answer to each question, as a part of a sentence.
_EVENT_ANSWERS = {
    "prompts": {
        "yes": "the prompts help",
        "no": "the prompts make no difference that matters",
        "undecided": "whether the prompts help cannot be told",
        "harm": "the prompts do harm",
    },
    "text": {
        "yes": "the language model that reads the types helps",
        "architecture": "something simpler in the place of the language model does as well",
        "unclear": "whether the language in the types helps cannot be told",
        "undecided": "whether the language model helps cannot be told",
        "no": "the language model makes no difference that matters",
        "harm": "the language model does harm",
    },
}
#: Columns of the summaries that differ from run to run.
_TIMES = ("fit s", "ms a window", "ms an event", "peak GPU MiB")


def report_ablation(
    report: AblationDocument,
    *,
    title: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Page:
    """Make the page of an ablation.

    Parameters
    ----------
    report : AblationReport or EventAblationReport
        From `tsllm.ablate` or `tsllm.events.ablate`.
    title : str or None, default=None
        The name of the page. None: the question of the ablation.
    settings : mapping or None, default=None
        More settings to list, beside the report's.

    Returns
    -------
    Page

    Examples
    --------
    >>> from sktime.datasets import load_airline
    >>> from tsllm import AutoTimesForecaster, ablate
    >>> model = AutoTimesForecaster("random:gpt2?hidden=16&layers=1&heads=2", max_steps=2)
    >>> report = ablate(
    ...     model, load_airline(), horizons=12, test_size=36, seeds=[0], variants=[], baselines=[]
    ... )
    >>> report_ablation(report).title
    'Does the language model help?'
    """
    summary = report.summary()
    given = dict(report.settings)
    question = given.pop("question", "What is PromptTPP good for here?")
    return Page(
        question if title is None else title,
        _headline(report),
        details=[report.verdict],
        pictures=[
            Picture(
                lambda size: report.plot(ax=axes_of(size)).figure,
                "The difference of each variant, with its interval",
                "Differences and their intervals: right of the line is worse than the given model.",
            )
        ],
        tables=[
            Table("Variants", summary[[c for c in summary.columns if c not in _TIMES]]),
            Table("Differences", _differences(report)),
        ],
        notes=report.notes,
        settings=settings_to_show({**(settings or {}), **given}),
    )


def _headline(report: AblationDocument) -> str:
    """Say the answer in one plain sentence."""
    if isinstance(report, AblationReport):
        sentences = TEXT_SENTENCES if "text" in report.settings else MODEL_SENTENCES
        return sentences[report.answer]
    answers = dict(one.split(": ", 1) for one in report.answer.split("; ") if one)
    said = "; ".join(_EVENT_ANSWERS[question][answer] for question, answer in answers.items())
    if not said:
        return "The variants are compared with the given model below."
    return f"On this stream, {said}."


def _differences(report: AblationDocument) -> pd.DataFrame:
    """Return the paired differences, with intervals as text."""
    rows = []
    for pair in report.differences.to_dict("records"):
        row = {"variant": pair["method_a"], "less": pair["method_b"], "metric": pair["metric"]}
        if "relative" in pair:
            shown = bounds(
                pair["relative"], pair["relative_lower"], pair["relative_upper"], percent=True
            )
            row |= {"steps": str(pair["horizon"]), "in percent": shown}
        row["difference"] = bounds(pair["difference"], pair["lower"], pair["upper"])
        rows.append(row)
    return pd.DataFrame(rows)
