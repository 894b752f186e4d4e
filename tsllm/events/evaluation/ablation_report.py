"""The report of an ablation of PromptTPP: verdicts on prompts and texts, tables and a plot."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from tsllm.evaluation.ablation_report import AblationDocument
from tsllm.evaluation.documents import bounds, cost, render, table_parts
from tsllm.evaluation.paired import MANY_SERIES, PairedDifference, estimate_units
from tsllm.evaluation.verdict import Wording, classify, judge

GIVEN, RANDOM, INDEX = "given", "random text", "no text"

METRICS = ("log_likelihood", "type_error", "time_mae")

_SHOWN_COSTS = {
    "trained": "trained_parameters",
    "frozen": "frozen_parameters",
    "steps": "steps",
    "fit s": "fit_seconds",
    "ms an event": "predict_ms",
}


class Scored(NamedTuple):
    """The errors of a model, per seed, for the events of the test parts.

    Attributes
    ----------
    losses : array (seeds, metrics, intervals)
        Log-likelihood, wrong type, absolute error of the median time, in the user's unit.
    seen : float array (intervals,)
        1 where an event ended the interval; only those count.
    sequence : array of str (intervals,)
    end : float array (intervals,)
    slice : int array (intervals,)
    """

    losses: np.ndarray
    seen: np.ndarray
    sequence: np.ndarray
    end: np.ndarray
    slice: np.ndarray

    @classmethod
    def of_seeds(cls, runs: "Sequence[Scored]") -> "Scored":
        """Combine runs of one seed each."""
        return runs[0]._replace(losses=np.concatenate([run.losses for run in runs]))

    @property
    def n_events(self) -> int:
        """Count the events."""
        return int(self.seen.sum())

    def means(self) -> np.ndarray:
        """Compute the metrics per event: (seeds, metrics)."""
        return self.losses.sum(axis=2) / max(1, self.n_events)

    def sums(self, metric: str) -> np.ndarray:
        """Return losses and weights of a metric: (seeds, 2, intervals, 1, 1)."""
        losses = self.losses[:, METRICS.index(metric)]
        weights = np.broadcast_to(self.seen, losses.shape)
        return np.stack([losses, weights], axis=1)[..., None, None]


@dataclass(repr=False)
class EventAblationReport(AblationDocument):
    """The results of `tsllm.events.ablate`.

    Attributes
    ----------
    verdict : str
        Whether the prompts help, and the language model where the types' texts are read.
    answer : str
        One word for each, such as "prompts: yes; text: undecided".
    table : DataFrame
        One row per variant: the metrics on the test parts of all slices after the last was learnt,
        with their deviation over seeds. ``log_likelihood`` is in nats per event, greater is better.
    differences : DataFrame
        Each variant (``method_a``) less the given one (``method_b``), a row per metric, with
        intervals.
    costs : DataFrame
        Per variant: parameters, steps of the last slice, seconds to learn, milliseconds per event.
    left_out, settings, notes
        See `AblationDocument`.
    """

    def summary(self) -> pd.DataFrame:
        """Return one row per variant, as text."""
        own = self.differences[self.differences["metric"] == METRICS[0]].set_index("method_a")
        rows = []
        for row in self.table.to_dict("records"):
            variant = row["variant"]
            line = {"variant": variant} | {name: f"{row[name]:.4g}" for name in METRICS}
            if variant in own.index:
                pair = own.loc[variant]
                shown = bounds(pair["difference"], pair["lower"], pair["upper"])
                line["log-likelihood less given's"] = shown
            if variant in self.costs.index:
                costs = self.costs.loc[variant]
                line |= {name: cost(costs[column]) for name, column in _SHOWN_COSTS.items()}
            rows.append(line)
        return pd.DataFrame(rows).fillna("")

    def to_markdown(self) -> str:
        """Write verdict, table and differences as Markdown."""
        differences = [
            [
                pair["method_a"],
                pair["metric"],
                bounds(pair["difference"], pair["lower"], pair["upper"]),
            ]
            for pair in self.differences.to_dict("records")
        ]
        return render(
            "event_ablation.md.jinja",
            verdict=self.verdict,
            settings=self.settings,
            summary=table_parts(self.summary()),
            differences=differences,
            notes=self.notes,
        )

    def plot(self, ax: Any = None) -> Any:
        """Draw the loss of log-likelihood of each variant against the given model.

        Parameters
        ----------
        ax : matplotlib Axes or None, default=None
            None makes a new figure.

        Returns
        -------
        matplotlib Axes
        """
        from tsllm.plotting.ablation import plot_differences

        pairs = self.differences[self.differences["metric"] == METRICS[0]]
        rows = pd.DataFrame(
            {
                "label": pairs["method_a"],
                "group": METRICS[0],
                "value": -pairs["difference"],
                "lower": -pairs["upper"],
                "upper": -pairs["lower"],
            }
        )
        return plot_differences(
            rows,
            xlabel="nats an event less than the given model",
            least=self.settings["min_difference"],
            ax=ax,
        )


def make_event_ablation_report(
    scored: Mapping[str, Scored],
    costs: Mapping[str, dict[str, float]],
    left_out: dict[str, str],
    settings: dict[str, Any],
    *,
    controls: Mapping[str, str],
) -> EventAblationReport:
    """Compare variants and judge them.

    ``controls`` names the variant that answers each question, "prompts" and "text".
    """
    given = scored[GIVEN]
    labels, unit, block = _units(given)
    settings = settings | {"unit": unit}
    pairs: dict[tuple[str, str], PairedDifference] = {}
    for variant, own in scored.items():
        for metric in METRICS if variant != GIVEN else ():
            found = estimate_units(
                metric,
                own.sums(metric),
                given.sums(metric),
                labels=labels,
                unit=unit,
                block=block,
                confidence=settings["confidence"],
            )
            pairs[variant, metric] = found.between(
                variant,
                GIVEN,
                metric,
                "all",
                confidence=settings["confidence"],
                windows=given.n_events,
            )
    losses = {
        variant: _as_loss(pair) for (variant, metric), pair in pairs.items() if metric == METRICS[0]
    }
    answers, sentences = _judge(losses, controls, settings["min_difference"])
    notes = [f"{variant} is left out: {reason}" for variant, reason in left_out.items()]
    if len(settings["seeds"]) == 1:
        notes.append("one seed: the intervals cover the events only, not the training")
    if INDEX in scored and "llm-full" in settings["estimator"]:
        notes.append(f"{INDEX!r} reads the events with a small encoder, trained from the start")
    return EventAblationReport(
        " ".join(sentences),
        "; ".join(f"{question}: {answer}" for question, answer in answers.items()),
        _table(scored),
        pd.DataFrame(pairs.values(), columns=PairedDifference._fields).drop(
            columns=["relative", "relative_lower", "relative_upper"]
        ),
        pd.DataFrame([{"variant": variant, **own} for variant, own in costs.items()]).set_index(
            "variant"
        ),
        left_out,
        settings,
        notes,
    )


def _units(scored: Scored) -> tuple[np.ndarray, str, int]:
    """Resample sequences where there are enough, else blocks of events in order of time."""
    names, labels = np.unique(scored.sequence, return_inverse=True)
    if len(names) >= MANY_SERIES:
        return labels, "sequences", 1
    order = np.lexsort((scored.end, scored.slice))
    labels = np.empty(len(order), dtype=int)
    labels[order] = np.arange(len(order))
    return labels, "stretches of events", math.ceil(math.sqrt(len(order)))


def _as_loss(pair: PairedDifference) -> PairedDifference:
    """Negate a log-likelihood's difference, in nats, so that greater is worse."""
    return pair._replace(
        relative=-pair.difference, relative_lower=-pair.upper, relative_upper=-pair.lower
    )


def _judge(
    losses: Mapping[str, PairedDifference], controls: Mapping[str, str], least: float
) -> tuple[dict[str, str], list[str]]:
    """Answer the questions of the controls."""
    answers: dict[str, str] = {}
    sentences = []
    if "prompts" in controls:
        without = losses[controls["prompts"]]
        words = f"without them, the network learning on, the loss is {_nats(without)}"
        answers["prompts"], start = {
            "worse": ("yes", "The prompts help"),
            "better": ("harm", "The prompts do harm here"),
            "same": ("no", f"The prompts make no difference of {least:g} nats"),
            "open": ("undecided", "Whether the prompts help cannot be told"),
        }[classify(without, least)]
        sentences.append(f"{start}: {words}.")
    if "text" in controls:
        verdict = judge(
            {"none": losses[controls["text"]], "random": losses[RANDOM]},
            min_difference=least,
            wording=Wording("loss", _nats, lambda value: f"{value:g} nats"),
        )
        answers["text"] = verdict.answer
        sentences.append(verdict.text)
    known = (*controls.values(), RANDOM)
    for variant, pair in losses.items():
        if variant not in known:
            sentences.append(f"{variant}: {_nats(pair)}.")
    return answers, sentences


def _nats(pair: PairedDifference) -> str:
    """Format a difference of losses and its interval."""
    value, low, high = pair.relative, pair.relative_lower, pair.relative_upper
    text = f"{abs(value):.3f} nats an event {'higher' if value >= 0 else 'lower'}"
    return text if math.isnan(low) else f"{text} [{low:+.3f}, {high:+.3f}]"


def _table(scored: Mapping[str, Scored]) -> pd.DataFrame:
    """Return the metrics of all variants."""
    rows = []
    for variant, own in scored.items():
        means = own.means()  # (seeds, metrics)
        row: dict[str, Any] = {"variant": variant, "events": own.n_events, "seeds": len(means)}
        row |= dict(zip(METRICS, means.mean(axis=0).tolist()))
        if len(means) > 1:
            spread = means.std(axis=0, ddof=1).tolist()
            row |= {f"{name}_sd": value for name, value in zip(METRICS, spread)}
        rows.append(row)
    return pd.DataFrame(rows)
