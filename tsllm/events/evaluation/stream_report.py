"""Reports of `evaluate_stream`: R matrices, and measures of learning and forgetting."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from tsllm.arguments import check_choice
from tsllm.pages.notebook import piece

METRICS = ("log_likelihood", "type_error", "time_rmse", "time_mae")
#: The metrics of which greater is better.
GAINS = ("log_likelihood",)


@dataclass(frozen=True)
class StreamReport:
    """The test scores of each variant on every slice, after learning each slice.

    Attributes
    ----------
    matrices : dict of array (slices, slices, metrics)
        Of each variant, the model first: ``R[T, j]`` is its score on the test part of slice j after
        learning slice T (both count from 0). The metrics are `METRICS`.
    reference : array (slices, metrics)
        The scores of the untrained model: the constant rate and the type shares of the first slice.
    seconds : dict of list
        Of each variant, the time to learn each slice.
    events : list of (int, int, int)
        Of each slice, the events in the training, validation and test part.
    notes : tuple of str, default=()
        Warnings.
    guesses : DataFrame
        Errors of the naive guesses (mean, median, last and zero inter-event time, most frequent
        type, most frequent follower), learnt with the model's last slice; means over the slices.
    diagnostics : DataFrame
        The goodness of fit of each variant after the last slice, a row per ``variant`` and
        ``tested`` slice: the Kolmogorov-Smirnov distance ``ks`` of the rescaled times of the test
        part from the exponential, and the autocorrelation ``lag1`` of neighbouring ones. Both are
        near 0 for a right model.

    See Also
    --------
    tsllm.events.plotting.plot_stream : Draw the matrices.
    tsllm.events.evaluation.diagnostics.EventDiagnostics : The tests of one model.
    """

    matrices: dict[str, np.ndarray]
    reference: np.ndarray
    seconds: dict[str, list[float]]
    events: list[tuple[int, int, int]]
    notes: tuple[str, ...] = ()
    guesses: pd.DataFrame = field(default_factory=pd.DataFrame)
    diagnostics: pd.DataFrame = field(
        default_factory=lambda: pd.DataFrame(columns=["variant", "tested", "ks", "lag1"])
    )

    @property
    def variants(self) -> list[str]:
        """List the names of the variants, the model first."""
        return list(self.matrices)

    def matrix(self, metric: str = "log_likelihood", variant: str | None = None) -> pd.DataFrame:
        """Return the R matrix of a metric.

        Parameters
        ----------
        metric : {"log_likelihood", "type_error", "time_rmse", "time_mae"}, default="log_likelihood"
        variant : str or None, default=None
            None: the model.

        Returns
        -------
        DataFrame
            A row per last learnt slice, a column per tested slice.

        Raises
        ------
        DataError
            The metric or the variant is unknown.
        """
        variant = self.variants[0] if variant is None else variant
        check_choice("metric", metric, METRICS)
        check_choice("variant", variant, self.variants)
        values = self.matrices[variant][:, :, METRICS.index(metric)]
        slices = pd.RangeIndex(len(values))
        return pd.DataFrame(values, index=slices.rename("learned"), columns=slices.rename("tested"))

    @property
    def table(self) -> pd.DataFrame:
        """List all matrices in rows: ``variant, learned, tested`` and the metrics."""
        parts = []
        for variant, values in self.matrices.items():
            learned, tested = np.indices(values.shape[:2]).reshape(2, -1)
            part = pd.DataFrame(values.reshape(-1, len(METRICS)), columns=list(METRICS))
            part.insert(0, "tested", tested)
            part.insert(0, "learned", learned)
            part.insert(0, "variant", variant)
            parts.append(part)
        return pd.concat(parts, ignore_index=True)

    @property
    def summary(self) -> pd.DataFrame:
        """Summarise the matrices, a row per variant and metric.

        T is the last slice; the measures are means over the slices j that have a value:

        - ``final``: R[T, j], the score after the last slice;
        - ``forgetting``: the best R[l, j] minus R[T, j], as a loss, for j before T; 0 is best;
        - ``plasticity``: R[j, j], the score on a slice that was just learnt;
        - ``backward_transfer``: R[T, j] - R[j, j] for j before T;
        - ``forward_transfer``: R[j-1, j] minus the reference;
        - ``prequential``: R[j-1, j], the score on the next slice before it is learnt, which a user
          of the stream experiences.

        For the log-likelihood greater is better, for the errors less; the transfers keep the
        metric's sign.
        """
        rows = []
        for variant in self.variants:
            for place, metric in enumerate(METRICS):
                found = _summarise(
                    self.matrices[variant][:, :, place], self.reference[:, place], metric in GAINS
                )
                rows.append({"variant": variant, "metric": metric, **found})
        return pd.DataFrame(rows)

    @property
    def fits(self) -> pd.DataFrame:
        """Average the diagnostics of each variant over the slices: ``variant, ks, lag1``."""
        groups = self.diagnostics.groupby("variant", sort=False)
        return groups[["ks", "lag1"]].mean().reset_index()

    def __str__(self) -> str:
        lines = [f"{len(self.events)} slices; events to train, validate and test: {self.events}"]
        for metric in METRICS:
            rows = self.summary[self.summary["metric"] == metric].drop(columns="metric")
            text = rows.to_string(index=False, float_format=lambda value: f"{value:.4g}")
            lines += [f"{metric} ({'greater' if metric in GAINS else 'less'} is better)", text]
        if len(self.guesses):
            shown = self.guesses.to_string(float_format=lambda value: f"{value:.4g}", na_rep="")
            lines += ["guesses", shown]
        if len(self.diagnostics):
            fits = self.fits.to_string(index=False, float_format=lambda value: f"{value:.4g}")
            lines += ["rescaled times after the last slice (0 is best)", fits]
        return "\n".join([*lines, *self.notes])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        tables = {
            str(metric): rows.drop(columns="metric")
            for metric, rows in self.summary.groupby("metric", sort=False)
        }
        return piece(f"{len(self.events)} slices", tables, self.notes)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, for JSON; NaN becomes None."""
        return {
            "metrics": list(METRICS),
            "matrices": {variant: _plain(values) for variant, values in self.matrices.items()},
            "reference": _plain(self.reference),
            "guesses": {
                str(name): {metric: _plain(value) for metric, value in row.items()}
                for name, row in self.guesses.iterrows()
            },
            "summary": [
                {
                    key: value if isinstance(value, str) else _plain(value)
                    for key, value in row.items()
                }
                for row in self.summary.to_dict("records")
            ],
            "diagnostics": [
                {
                    "variant": row["variant"],
                    "tested": int(row["tested"]),
                    **{name: _plain(row[name]) for name in ("ks", "lag1")},
                }
                for row in self.diagnostics.to_dict("records")
            ],
            "seconds": self.seconds,
            "events": [list(counts) for counts in self.events],
            "notes": list(self.notes),
        }


def _summarise(values: np.ndarray, reference: np.ndarray, gain: bool) -> dict[str, float]:
    """Summarise an R matrix (slices, slices)."""
    last, own = values[-1], np.diag(values)
    best = values.max(0) if gain else values.min(0)
    lost = (best - last) if gain else (last - best)
    ahead = np.diag(values, 1)  # R[j - 1, j], j from the second slice on
    return {
        "final": float(last.mean()),
        "forgetting": float(lost[:-1].mean()),
        "plasticity": float(own.mean()),
        "backward_transfer": float((last - own)[:-1].mean()),
        "forward_transfer": float((ahead - reference[1:]).mean()),
        "prequential": float(ahead.mean()),
    }


def _plain(values: Any) -> Any:
    """Convert arrays and numbers to lists and floats, NaN and infinity to None."""
    array = np.asarray(values, dtype=object)
    if array.ndim:
        return [_plain(one) for one in array]
    number = float(array.item())
    return number if np.isfinite(number) else None
