"""Summaries of fitted event forecasters, which notebooks show."""

from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from tsllm.pages.notebook import ShownFitted, Summary


class SummaryMixin(ShownFitted):
    """The summary of an event forecaster, and its display in notebooks."""

    # Set in fitting.
    classes_: np.ndarray
    n_events_: int
    mean_inter_event_time_: float

    def summary(self) -> dict[str, Any]:
        """Summarise the model, for printing and logging.

        Returns
        -------
        dict
            The number of types and of training events, and the mean time between them.
        """
        check_is_fitted(self)
        return self._basics()

    def _basics(self) -> Summary:
        """Return the facts that every event forecaster has."""
        return Summary(
            types=len(self.classes_),
            events=self.n_events_,
            mean_inter_event_time=self.mean_inter_event_time_,
        )

    def _fitted_summary(self) -> Summary | None:
        # Not the summary of a method: PromptTPP's loads its language model.
        return self._basics() if hasattr(self, "classes_") else None
