"""The part of a forecaster that opens streams of its series."""

import copy
from collections.abc import Callable, Collection, Hashable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

from tsllm.context import Context
from tsllm.datasets.checks import series_name
from tsllm.errors import DataError
from tsllm.forecasters.floors import with_known_floors
from tsllm.forecasters.forecasting import ForecastingMixin
from tsllm.forecasters.frames import check_input, join_covariates
from tsllm.forecasters.running_state import PastRows, RunningRows
from tsllm.forecasters.state import PendingForecasts

if TYPE_CHECKING:
    from tsllm.forecasters.series_stream import SeriesStream


class StreamingMixin(ForecastingMixin):
    """The part of a forecaster that opens streams, and what it gives to them."""

    _pending: dict[Hashable, PendingForecasts]
    _read_input: Callable[..., tuple[Any, Any]]
    _known_frequency: Callable[[], str | None]
    _keep: Callable[[Sequence[Context]], None]

    #: Whether the effects of covariates are those that all forecasters share.
    _shares_effects: ClassVar[bool] = True

    def stream(self, y: Any = None, X: Any = None, *, fill: str | None = None) -> "SeriesStream":
        """Open a stream of the series: observations step by step, and forecasts after any of them.

        The stream computes what `update` and `predict` compute, in less time, for one series or for
        thousands at once. The forecaster stays as it is.

        Parameters
        ----------
        y : DataFrame, other table or None, default=None
            The pasts of the series to follow, in the form of `fit`; the model may not have seen
            these series. None: the series that this forecaster keeps.
        X : DataFrame, other table or None, default=None
            The covariates of ``y``, in the form of `fit`.
        fill : {"nan"} or None, default=None
            What to do about steps that are missing before an observation. None: raise an error.
            "nan": count them as not observed.

        Returns
        -------
        SeriesStream

        Raises
        ------
        DataError
            The model reads the whole past of its series, or covariates in a way of its own.

        Examples
        --------
        >>> import numpy as np, pandas as pd
        >>> from tsllm import LinearForecaster
        >>> y = pd.Series(np.arange(40.0) % 4)
        >>> stream = LinearForecaster().fit(y, fh=[1, 2]).stream()
        >>> stream.observe(40, 0.0).forecast(2).round(2)[0, :, 0, 0].tolist()
        [1.0, 2.0]
        """
        self.check_is_fitted()
        self._check_stream_covariates()
        if y is None and X is not None:
            raise DataError("X holds the covariates of y, which is missing: pass both, or neither")
        own = self._detached()
        if y is None:
            own._kept_contexts()  # raises where there are none
        else:
            own._open_series(y, X)
        # Most forecasters open no stream, and need not import it.
        from tsllm.forecasters.series_stream import SeriesStream

        return SeriesStream(own, fill=fill)

    # ------------------------------------------------------------------ what a stream takes over

    def _forget_series(self) -> None:
        """Drop what is kept of all series."""
        self._contexts, self._pending = {}, {}

    def _running_rows(self) -> RunningRows | None:
        """Return the running states of the kept series in one batch; None: there are none."""
        return None

    def _read_rows(self, rows: RunningRows | PastRows) -> None:
        """Take the running states of series from these rows from now on."""

    def _read_pasts(self, contexts: Sequence[Context]) -> None:
        """Keep series for a stream, where none are kept yet."""
        self._keep(contexts)

    def _detached(self) -> Self:
        """Copy the lists of series; what is kept of them and the weights stay shared."""
        own = copy.copy(self)
        own._contexts, own._pending = dict(self._contexts), dict(self._pending)
        return own

    def _check_stream_covariates(self) -> None:
        """Check that a stream can read the covariates of the model."""
        covariates = self.fitted_.covariates
        if covariates is None:
            return
        columns = covariates.columns
        reason = ""
        if not self._shares_effects:
            reason = f"{type(self).__name__} reads them in a way of its own"
        elif self.adaptive and columns.texts:
            reason = "adaptive intervals compare forecasts with texts that come later"
        if reason:
            raise DataError(
                f"the model reads the covariates {', '.join(columns.everything)}, and has no "
                f"stream, for {reason}: use update(y, X) and predict(X=X)"
            )

    def _open_series(self, y: Any, X: Any = None, *, without: Collection[Hashable] = ()) -> None:
        """Keep the series of y and drop all others; refuse y if it has a series of ``without``."""
        state = self.fitted_
        y, X = self._read_input(y, X, trains=False)
        contexts = check_input(y, freq=self._known_frequency(), at_least=1)
        state.check_same_series(contexts)
        contexts = join_covariates(contexts, X, state.covariates)
        contexts = [self._with_known_facts(context) for context in contexts]
        for context in contexts:
            if context.series_id in without:
                raise DataError(
                    f"{series_name(context.series_id)} is in the stream already: leave it out of y"
                )
        self._forget_series()
        self._read_pasts(state.scaled(with_known_floors(contexts, state.stops_at_zero)))
