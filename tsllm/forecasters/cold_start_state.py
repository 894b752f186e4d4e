"""The state of `ColdStart`: that of the forecaster inside, and the expected profiles."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from tsllm.context import Context
from tsllm.datasets.checks import series_name
from tsllm.datasets.frequency import count_steps
from tsllm.errors import DataError
from tsllm.forecasters.frames import own_frequency
from tsllm.forecasters.state import FittedState
from tsllm.text.encoder import TextEncoder
from tsllm.text.panel import PanelProfiles


@dataclass
class ColdStartState(FittedState):
    """The state of the forecaster inside, and the profiles that are expected of other series.

    Attributes
    ----------
    inner : FittedState or None
        Of the forecaster inside; None before the fit.
    encoder : TextEncoder or None
        Makes vectors of descriptions; None without ``static_text``.
    panel : PanelProfiles or None
        The expected profiles of series; None where neither texts nor the panel's mean were asked
        for.
    end : Index or None
        The last stamp of the panel that was fitted, one value.
    """

    inner: FittedState | None = None
    encoder: TextEncoder | None = None
    panel: PanelProfiles | None = None
    end: pd.Index | None = None

    def scaled(self, contexts: Sequence[Context]) -> list[Context]:
        """Return the contexts as they are where X has descriptions only, without effects."""
        return super().scaled(contexts) if self._has_effects() else list(contexts)

    def residuals(self, contexts: Sequence[Context]) -> list[Context]:
        """Return the contexts as they are where X has descriptions only, without effects."""
        return super().residuals(contexts) if self._has_effects() else list(contexts)

    def is_cold(self, context: Context) -> bool:
        """Return whether a series has too few observations for a forecast of its own alone."""
        if self.panel is None:
            return False
        return int(context.mask.sum(axis=0).min()) < self.panel.form.window

    def summary(self) -> dict[str, Any]:
        """Summarise the forecaster inside, the encoder and the profiles."""
        assert self.inner is not None  # training ends with it
        told = self.inner.summary()
        if self.encoder is not None:
            told["text"] = self.encoder.summary()
        if self.panel is not None:
            told["cold_start"] = self.panel.summary()
        return told

    def card_facts(self, loss: str, *, pretrained: bool, with_context: bool) -> dict[str, Any]:
        """Return the facts for the card of a saved forecaster."""
        assert self.inner is not None  # training ends with it
        facts = self.inner.card_facts(loss, pretrained=pretrained, with_context=with_context)
        facts["kind"] += ", with forecasts of new series from their descriptions"
        if self.panel is not None:
            priors = self.panel.by_text or self.panel.without_text or []
            facts["results"]["Series without observations"] = {
                f"mean absolute scaled error, variable {number}": f"{prior.error:.4g}"
                for number, prior in enumerate(priors)
            }
        return facts

    def to_state(self) -> dict[str, Any]:
        """Return everything but backbones as plain values, arrays and tensors."""
        assert self.inner is not None  # training ends with it
        return super().to_state() | {
            "calibration": None,  # that of the forecaster inside
            "inner": self.inner.to_state(),
            "encoder": None if self.encoder is None else self.encoder.to_state(),
            "panel": None if self.panel is None else self.panel.to_state(),
            "end": self.end,
        }

    def last_step(self, context: Context) -> int:
        """Count the steps from the end of the panel to that of a context, below 0 before it."""
        assert self.end is not None  # training sets it first
        ours, theirs = self.end[0], context.times[-1]
        if type(ours) is not type(theirs) and not (_is_number(ours) and _is_number(theirs)):
            raise DataError(
                f"the last step of {series_name(context.series_id)} is {theirs}, and the panel "
                f"that the model was fitted on ends at {ours}: pass the times of the series"
            )
        freq = own_frequency(self.end) or self.shape.freq
        if theirs >= ours:
            steps = 0 if theirs == ours else int(count_steps(ours, freq, context.times[-1:])[0])
        else:
            steps = -int(count_steps(theirs, freq, self.end)[0])
        if (steps < 0) != (theirs < ours):  # no step of the other one's calendar
            raise DataError(
                f"the last step of {series_name(context.series_id)} is {theirs}, which lies "
                f"between the steps of the panel that the model was fitted on (one is {ours}): "
                "shift it"
            )
        return steps

    def _has_effects(self) -> bool:
        return self.covariates is not None and bool(self.covariates.columns.names)


def _is_number(stamp: Any) -> bool:
    """Return whether a stamp is an integer."""
    return isinstance(stamp, int | np.integer)
