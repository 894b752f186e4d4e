"""The report of an ablation of text: the same tables, and a verdict about texts."""

from collections.abc import Sequence

from tsllm.evaluation.ablation_report import (
    ERRORS,
    AblationReport,
    ablation_settings,
    and_all,
    assemble,
    corrected_pairs,
    interval_notes,
    variant_costs,
)
from tsllm.evaluation.report import BacktestReport
from tsllm.evaluation.text_variants import PAST, SHUFFLED, TEXT_REPLACEMENTS
from tsllm.evaluation.text_verdict import judge_past, judge_text
from tsllm.evaluation.variants import NONE, PRETRAINED, Variants
from tsllm.evaluation.verdict import in_percent, judge_baselines
from tsllm.forecasters.base import SeriesForecaster


def make_text_report(
    report: BacktestReport,
    variants: Variants,
    estimator: SeriesForecaster,
    text: Sequence[str],
    *,
    metric: str,
    min_difference: float,
    confidence: float,
) -> AblationReport:
    """Compare the variants of a backtest and judge texts, and the language model that reads them.

    ``text`` names the columns that hold texts. Variants are compared with "pretrained", and those
    that should not help with "none", too.
    """
    names = list(report.table["method"].unique())
    own = and_all(report.settings["horizons"])
    overall = own[-1]
    wanted = [(name, PRETRAINED) for name in names if name != PRETRAINED]
    wanted += [(name, NONE) for name in (SHUFFLED, PAST) if name in variants.methods]
    pairs = {
        (one, other): {
            horizon: report.paired(one, other, metric, horizon=horizon, confidence=confidence)
            for horizon in own
        }
        for one, other in wanted
    }
    longest = {key: found[overall] for key, found in pairs.items()}
    replaced = [name for name in TEXT_REPLACEMENTS if name in variants.methods]
    words = in_percent(ERRORS[metric])
    verdict = judge_text(
        {
            name: longest[name, PRETRAINED]
            for name in (NONE, SHUFFLED, *replaced)
            if name in variants.methods
        },
        min_difference=min_difference,
        strict=corrected_pairs(report, replaced, metric, overall, confidence),
        wording=words,
    )
    baselines = {name: longest[name, PRETRAINED] for name in names if name not in variants.methods}
    sentences = [
        verdict.text,
        *judge_past(longest, min_difference=min_difference, words=words),
        *judge_baselines(
            baselines,
            min_difference=min_difference,
            error=ERRORS[metric],
            subject="the forecaster with text",
        ),
    ]
    settings = ablation_settings(report, estimator, metric, min_difference, confidence)
    settings |= {
        "question": "Does the text help, and the language model that reads it?",
        "subject": "the text",
        "model": estimator.get_params(deep=False)["text_backbone"],
        "text": list(text),
    }
    costs = variant_costs(report, variants)
    notes = [
        *interval_notes(longest[NONE, PRETRAINED], costs),
        "seconds to fit include embedding the texts that the store lacked",
    ]
    return assemble(report, variants, pairs, own, sentences, verdict.answer, costs, settings, notes)
