"""The report of an ablation: tables, verdict, JSON, Markdown and a plot."""

import json
import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from tsllm.evaluation.documents import (
    bounds,
    cost,
    plain,
    plain_rows,
    render,
    shown,
    table_parts,
)
from tsllm.evaluation.paired import PairedDifference
from tsllm.evaluation.report import ALL_HORIZONS, BacktestReport
from tsllm.evaluation.variants import NONE, PRETRAINED, REPLACEMENTS, VariantMethod, Variants
from tsllm.evaluation.verdict import amount, in_percent, judge, judge_baselines, judge_naive
from tsllm.forecasters.base import SeriesForecaster
from tsllm.pages.notebook import piece

#: The parameters that make the budget of a variant, where a method has them.
_BUDGET = ("max_epochs", "max_steps", "batch_size", "learning_rate", "patience", "window_stride")

#: The names of the metrics in a sentence.
ERRORS = {
    "mse": "squared error",
    "mae": "absolute error",
    "mase": "scaled error",
    "smape": "percentage error",
}

_BOUNDS = ("difference", "lower", "upper")

_SHOWN_COSTS = {
    "trained": "trained_parameters",
    "frozen": "frozen_parameters",
    "weights MiB": "weights_mib",
    "steps": "steps",
    "peak GPU MiB": "peak_gpu_mib",
    "fit s": "fit_seconds",
    "ms a window": "predict_ms",
}


@dataclass
class AblationDocument(ABC):
    """A verdict with its tables."""

    #: Sentences, and one word.
    verdict: str
    answer: str
    #: Errors by variant; paired differences; costs, indexed by variant.
    table: pd.DataFrame
    differences: pd.DataFrame
    costs: pd.DataFrame
    #: Variants that cannot be, with the reason.
    left_out: dict[str, str]
    settings: dict[str, Any]
    #: Restrictions that a reader must know.
    notes: list[str]

    @abstractmethod
    def summary(self) -> pd.DataFrame:
        """Return one row per variant, as text."""

    @abstractmethod
    def to_markdown(self) -> str:
        """Write a page: verdict, tables, differences and how to read them."""

    @abstractmethod
    def plot(self, ax: Any = None) -> Any:
        """Draw the differences and their intervals; needs matplotlib."""

    def __str__(self) -> str:
        summary = self.summary().to_string(index=False, na_rep="")
        return "\n".join([self.verdict, "", summary, *(f"note: {note}" for note in self.notes)])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return piece(self.verdict, {"": self.summary()}, self.notes)

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the windows as plain values for JSON; NaN becomes None."""
        costs = self.costs.reset_index()
        frames = {"table": self.table, "differences": self.differences, "costs": costs}
        document: dict[str, Any] = {
            "verdict": self.verdict,
            "answer": self.answer,
            "settings": plain(self.settings),
            "left_out": self.left_out,
            "notes": self.notes,
        }
        for name, frame in frames.items():
            document[name] = plain_rows(frame)
        return document

    def to_json(self) -> str:
        """Write `to_dict` as JSON."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False)


@dataclass(repr=False)
class AblationReport(AblationDocument):
    """The results of `tsllm.ablate`.

    Attributes
    ----------
    verdict : str
        Whether the language model helps, by the rules of `tsllm.evaluation.verdict.judge`; of an
        ablation of text whether the texts help, and the language model that reads them, by those of
        `tsllm.evaluation.text_verdict.judge_text`.
    answer : str
        One word: "yes", "architecture", "unclear", "undecided", "no" or "harm"; of an ablation of
        text "text" instead of "architecture".
    table : DataFrame
        One row per variant and horizon, and one for the mean over the horizons ("all"): the number
        of ``windows``, the metrics, their deviation over seeds, and the difference from
        "pretrained" in percent of its error, with its interval. Differences use the windows that
        both methods have; baselines that are fitted at each window have few.
    differences : DataFrame
        All comparisons: ``method_a`` less ``method_b``, see `PairedDifference`. Methods are
        compared with "pretrained", "none, shuffled" with "none", and "none, 10 %" with "pretrained,
        10 %".
    costs : DataFrame
        Per variant, as means over the seeds: trained and frozen parameters, memory of these
        weights, training steps, seconds to fit, milliseconds to forecast a window, and with a GPU
        the peak of torch's memory.
    left_out : dict of str to str
        Requested variants that this method or data cannot have, with the reason.
    settings : dict
        The protocol, the budget of all variants, and the settings of the verdict.
    notes : list of str
        Restrictions that a reader must know.
    backtest : BacktestReport
        Results by series and step, and `BacktestReport.paired` for any two variants.
    """

    backtest: BacktestReport

    def summary(self) -> pd.DataFrame:
        """Return a row per variant, as text: errors by horizon, difference, costs."""
        metric, horizons = self.settings["metric"], and_all(self.settings["horizons"])
        rows = []
        for variant, own in self.table.groupby("variant", sort=False):
            by_horizon = own.set_index("horizon")
            row: dict[str, str] = {"variant": str(variant)}
            row |= {f"{metric} {h}": shown(by_horizon.loc[h, metric]) for h in horizons}
            last = by_horizon.loc[horizons[-1]]
            # these are percents already
            row["vs pretrained"] = bounds(
                *(last.get(f"{name}_percent", math.nan) / 100 for name in _BOUNDS), percent=True
            )
            if variant in self.costs.index:
                costs = self.costs.loc[str(variant)]
                row |= {
                    name: cost(costs[column])
                    for name, column in _SHOWN_COSTS.items()
                    if column in costs
                }
            rows.append(row)
        return pd.DataFrame(rows).fillna("")

    def to_markdown(self) -> str:
        """Write verdict, table, differences and how to read them as Markdown."""
        differences = [
            [
                pair["method_a"],
                pair["method_b"],
                str(pair["horizon"]),
                bounds(pair["difference"], pair["lower"], pair["upper"]),
                bounds(
                    pair["relative"], pair["relative_lower"], pair["relative_upper"], percent=True
                ),
            ]
            for pair in self.differences.to_dict("records")
        ]
        budget = ", ".join(f"{name}={value!r}" for name, value in self.settings["budget"].items())
        return render(
            "ablation.md.jinja",
            verdict=self.verdict,
            settings=self.settings,
            budget=budget,
            summary=table_parts(self.summary()),
            differences=differences,
            notes=self.notes,
        )

    def plot(self, ax: Any = None) -> Any:
        """Draw the differences from the pretrained variant with their intervals.

        Parameters
        ----------
        ax : matplotlib Axes or None, default=None
            None makes a new figure.

        Returns
        -------
        matplotlib Axes

        Raises
        ------
        ImportError
            matplotlib is not installed.
        """
        from tsllm.plotting.ablation import plot_differences

        pairs = self.differences
        # Differences from shuffled contexts and few data are of another size.
        pairs = pairs[~pairs["method_a"].str.contains("shuffled|pretrained")]
        rows = [
            {
                "label": pair["method_a"]
                if pair["method_b"] == PRETRAINED
                else f"{pair['method_a']}\n(vs {pair['method_b']})",
                "group": "all horizons"
                if pair["horizon"] == ALL_HORIZONS
                else f"{pair['horizon']} step{'s' * (pair['horizon'] != 1)}",
                "value": 100 * pair["relative"],
                "lower": 100 * pair["relative_lower"],
                "upper": 100 * pair["relative_upper"],
            }
            for pair in pairs.to_dict("records")
        ]
        return plot_differences(
            pd.DataFrame(rows),
            xlabel=f"{self.settings['metric']}: % more than the pretrained model's",
            least=100 * self.settings["min_difference"],
            ax=ax,
        )


def make_ablation_report(
    report: BacktestReport,
    variants: Variants,
    estimator: SeriesForecaster,
    *,
    metric: str,
    min_difference: float,
    confidence: float,
) -> AblationReport:
    """Compare the variants of a backtest and judge the language model."""
    names = list(report.table["method"].unique())
    own = and_all(report.settings["horizons"])
    overall = own[-1]

    def pair(one: str, other: str, horizon: int | str) -> PairedDifference:
        return report.paired(one, other, metric, horizon=horizon, confidence=confidence)

    pairs = {
        (one, other): {horizon: pair(one, other, horizon) for horizon in own}
        for one, other in _comparisons(names)
    }
    controls = {
        name: pairs[name, PRETRAINED][overall]
        for name in (NONE, *REPLACEMENTS)
        if (name, PRETRAINED) in pairs
    }
    replacements = [name for name in controls if name != NONE]
    verdict = judge(
        controls,
        min_difference=min_difference,
        strict=corrected_pairs(report, replacements, metric, overall, confidence),
        wording=in_percent(ERRORS[metric]),
    )
    baselines = {
        name: pairs[name, PRETRAINED][overall] for name in names if name not in variants.methods
    }
    beside_naive = {
        name: pair(name, "seasonal_naive", overall)
        for name in (PRETRAINED, *controls)
        if "seasonal_naive" in baselines
    }
    sentences = [
        verdict.text,
        *judge_baselines(baselines, min_difference=min_difference, error=ERRORS[metric]),
        *(judge_naive(beside_naive, min_difference=min_difference) if beside_naive else []),
        *_conditions({key: found[overall] for key, found in pairs.items()}),
    ]
    settings = ablation_settings(report, estimator, metric, min_difference, confidence)
    settings |= {"question": "Does the language model help?", "subject": "the language model"}
    settings["model"] = estimator.backbone
    costs = variant_costs(report, variants)
    notes = [*_choices(variants), *interval_notes(pairs[NONE, PRETRAINED][overall], costs)]
    return assemble(report, variants, pairs, own, sentences, verdict.answer, costs, settings, notes)


def assemble(
    report: BacktestReport,
    variants: Variants,
    pairs: dict[tuple[str, str], dict[Any, PairedDifference]],
    horizons: Sequence[Any],
    sentences: Sequence[str],
    answer: str,
    costs: pd.DataFrame,
    settings: dict[str, Any],
    notes: Sequence[str],
) -> AblationReport:
    """Make the report of an ablation; its notes begin with the variants that are left out."""
    left_out = [f"{variant} is left out: {reason}" for variant, reason in variants.left_out.items()]
    return AblationReport(
        " ".join(sentences),
        answer,
        long_table(report, pairs, horizons),
        pd.DataFrame([one._asdict() for found in pairs.values() for one in found.values()]),
        costs,
        variants.left_out,
        settings,
        [*left_out, *variants.notes, *notes, *report.notes],
        report,
    )


def corrected_pairs(
    report: BacktestReport,
    replacements: Sequence[str],
    metric: str,
    horizon: int | str,
    confidence: float,
) -> dict[str, PairedDifference]:
    """Compare with the pretrained variant, by intervals corrected for the number of comparisons."""
    corrected = 1 - (1 - confidence) / max(1, len(replacements))
    return {
        name: report.paired(name, PRETRAINED, metric, horizon=horizon, confidence=corrected)
        for name in replacements
    }


def ablation_settings(
    report: BacktestReport,
    estimator: SeriesForecaster,
    metric: str,
    min_difference: float,
    confidence: float,
) -> dict[str, Any]:
    """Return the protocol, the estimator, the budget and the settings of the verdict."""
    parameters = estimator.get_params(deep=False)
    return {
        **report.settings,
        "estimator": type(estimator).__name__,
        "backbone": parameters.get("backbone"),
        "backbone_layers": parameters.get("backbone_layers"),
        "parameters": {
            name: value
            for name, value in parameters.items()
            if isinstance(value, bool | int | float | str | tuple | dict | None)
        },
        "budget": {name: parameters[name] for name in _BUDGET if name in parameters},
        "metric": metric,
        "min_difference": min_difference,
        "confidence": confidence,
    }


def and_all(horizons: Sequence[int]) -> list[int | str]:
    """Return the horizons of the table; with one horizon, "all" would repeat it."""
    return [*horizons, ALL_HORIZONS] if len(horizons) > 1 else list(horizons)


def _comparisons(names: Sequence[str]) -> list[tuple[str, str]]:
    """Return the pairs of methods to compare."""
    against = {"none, shuffled": NONE, "none, 10 %": "pretrained, 10 %"}
    return [(name, against.get(name, PRETRAINED)) for name in names if name != PRETRAINED]


def _conditions(pairs: dict[tuple[str, str], PairedDifference]) -> list[str]:
    """Write the effects of shuffled contexts and of few data."""
    sentences = []
    shuffled = pairs.get(("pretrained, shuffled", PRETRAINED))
    if shuffled is not None:
        without = pairs["none, shuffled", NONE]
        sentences.append(
            f"With the steps of its contexts in random order the error is {amount(shuffled)}; "
            f"without the language model {amount(without)}."
        )
    few = pairs.get(("none, 10 %", "pretrained, 10 %"))
    if few is not None:
        sentences.append(
            f"With a tenth of the data the error without the language model is {amount(few)} than "
            "with it."
        )
    return sentences


def _choices(variants: Variants) -> list[str]:
    """Write what each variant chose by itself."""
    found: dict[str, list[str]] = {}
    for variant, method in variants.methods.items():
        if isinstance(method, VariantMethod):
            for name, values in method.choices().items():
                counted = Counter(values).most_common()
                shown = " and ".join(
                    value if len(counted) == 1 else f"{value} ({count} of {len(values)})"
                    for value, count in counted
                )
                found.setdefault(name, []).append(f"{variant} {shown}")
    return [
        f"each variant chose {name} by its own validation loss: {', '.join(rows)}"
        for name, rows in found.items()
    ]


def interval_notes(main: PairedDifference, costs: pd.DataFrame) -> list[str]:
    """Write the limits of the intervals and of the costs."""
    notes = []
    if main.seeds == 1:
        notes.append(
            "one seed: the intervals cover the windows only, not how the variants differ from "
            "training to training"
        )
    if main.unit == "series":
        notes.append(
            "the origins make too few blocks, so the intervals resample whole series, as if these "
            "were independent of each other"
        )
    elif main.blocks < 2:
        notes.append("the windows make less than two blocks, so there are no intervals")
    elif main.blocks < 5:
        notes.append(
            f"the windows make only {main.blocks:.1f} blocks of two horizons, so the intervals are "
            "wide: a longer test part would narrow them"
        )
    if "peak_gpu_mib" not in costs:
        notes.append(
            "memory is that of the weights, frozen ones in the type they are kept in: on a CPU all "
            "variants share one process, so their peaks cannot be separated"
        )
    return notes


def long_table(
    report: BacktestReport,
    pairs: dict[tuple[str, str], dict[Any, PairedDifference]],
    horizons: Sequence[Any],
) -> pd.DataFrame:
    """Join errors and differences from the pretrained variant."""
    rows = []
    # A method on a subset of the windows may have all windows of the longer horizons.
    table = report.table.sort_values("scored_on").drop_duplicates(["method", "horizon"])
    for name in report.table["method"].unique():
        own = table[table["method"] == name]  # a row per horizon, on all windows if possible
        metrics = [m for m in report.settings["metrics"] if m in own]
        spreads = [f"{m}_sd" for m in metrics if f"{m}_sd" in own]
        for horizon in horizons:
            figures: dict[str, Any]
            if horizon == ALL_HORIZONS:
                figures = report.over_horizons(name)
            else:
                row = own[own["horizon"] == horizon].iloc[0]
                figures = row[["windows", *metrics, *spreads]].to_dict()
            found = pairs.get((name, PRETRAINED), {}).get(horizon)
            if found is not None:
                figures |= {
                    "difference_percent": 100 * found.relative,
                    "lower_percent": 100 * found.relative_lower,
                    "upper_percent": 100 * found.relative_upper,
                }
            rows.append(
                {"variant": name, "horizon": horizon, **figures, "seeds": own["seeds"].iloc[0]}
            )
    return pd.DataFrame(rows)


def variant_costs(report: BacktestReport, variants: Variants) -> pd.DataFrame:
    """Return the size and the cost of each variant; baselines have none."""
    rows = []
    for name, method in variants.methods.items():
        run = report.run_of(name)
        row: dict[str, Any] = {"variant": name}
        if isinstance(method, VariantMethod):
            row |= method.costs() | {"fit_seconds": run.fit_seconds}
        rows.append(row | {"predict_ms": 1000 * run.predict_seconds / len(run.windows)})
    return pd.DataFrame(rows).set_index("variant")
