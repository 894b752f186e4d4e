"""The limits of one request to a served model."""

from dataclasses import dataclass, fields

from tsllm.arguments import shown
from tsllm.errors import DataError


@dataclass(frozen=True)
class Limits:
    """The limits of one request; larger ones are refused before anything is computed.

    Parameters
    ----------
    max_rows : int, default=1_000_000
        Rows of the request.
    max_series : int, default=10_000
        Series to forecast, or sequences of events.
    max_horizon : int, default=10_000
        Steps to forecast, or events.
    max_quantiles : int, default=100
        Quantiles of each step.
    max_values : int, default=1_000_000
        Numbers in the answer.
    max_seconds : int, default=50
        Seconds until a request is stopped, its wait for others included. MLflow's server answers
        after 60 seconds with 504 (``MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT``); behind it a request
        has 5/6 of that time at most.
    max_concurrent : int or None, default=None
        Requests computed at the same time; others wait. None: the number of processors divided by
        torch's threads.
    """

    max_rows: int = 1_000_000
    max_series: int = 10_000
    max_horizon: int = 10_000
    max_quantiles: int = 100
    max_values: int = 1_000_000
    max_seconds: int = 50
    max_concurrent: int | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "max_concurrent" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise DataError(f"{field.name} must be a whole number, at least 1, found {value!r}")

    def check_rows(self, rows: int) -> None:
        """Check the number of rows of a request."""
        if rows > self.max_rows:
            raise DataError(
                f"the request has {rows:,} rows and this server takes {self.max_rows:,}: send "
                "fewer series at a time, or shorter histories"
            )

    def check_parameters(self, horizon: int, quantiles: int) -> None:
        """Check the horizon and the number of quantiles of a request."""
        if horizon > self.max_horizon:
            raise DataError(
                f"horizon={shown(horizon)} and this server forecasts up to {self.max_horizon:,} "
                "steps"
            )
        if quantiles > self.max_quantiles:
            raise DataError(
                f"the request asks for {quantiles:,} quantiles and this server computes up to "
                f"{self.max_quantiles:,}"
            )

    def check_answer(self, series: int, horizon: int, numbers: int) -> None:
        """Check the size of an answer; ``numbers`` are those of one step."""
        if series > self.max_series:
            raise DataError(
                f"the request asks for {series:,} series and this server forecasts up to "
                f"{self.max_series:,} at a time: send fewer"
            )
        if series * horizon * numbers > self.max_values:
            raise DataError(
                f"the answer would hold {series * horizon * numbers:,} numbers and this server "
                f"sends {self.max_values:,}: ask for fewer series, steps or quantiles at a time"
            )
