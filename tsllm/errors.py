"""The exceptions that users can catch: each message names the argument, its value, the remedy."""

__all__ = [
    "BackboneMismatchError",
    "BackboneNotFoundError",
    "ClusterNotFoundError",
    "DataError",
    "DataTypeError",
    "DeviceMemoryError",
    "EmbeddingStoreError",
    "GapError",
    "InSampleError",
    "ModelFormatError",
    "NoSeriesLeftError",
    "NotEnoughDataError",
    "OutputError",
    "StoppedError",
    "TrainingDivergedError",
    "TsllmError",
    "WorkerDiedError",
]


class TsllmError(Exception):
    """Base class of every error that tsllm raises on purpose."""


class DataError(TsllmError, ValueError):
    """The data break a rule; the message names the series, the row and the remedy."""


class GapError(DataError):
    """Stamps are missing between the first and the last one of a series.

    Attributes
    ----------
    fact, remedy : str
        The two parts of the message: what is missing, and what to do. The remedy is empty where
        the message is in one part.
    """

    def __init__(self, fact: str, remedy: str = "") -> None:
        super().__init__(f"{fact}; {remedy}" if remedy else fact)
        self.fact, self.remedy = fact, remedy


class NotEnoughDataError(DataError):
    """A series is too short for the task."""


class NoSeriesLeftError(DataError):
    """Bad series were to be skipped, and all series are bad; the message tells the first reason."""


class DataTypeError(DataError, TypeError):
    """The values have the wrong type, such as text instead of numbers."""


class InSampleError(DataError, NotImplementedError):
    """A forecast of a step at or before the last observation was requested."""


class BackboneNotFoundError(TsllmError, LookupError):
    """No place holds the backbone; the message lists every place that was searched."""


class BackboneMismatchError(TsllmError, ValueError):
    """The backbone found is not the one that the fitted model was trained with."""


class ModelFormatError(TsllmError, ValueError):
    """A saved model's directory is damaged, foreign, or of another format version."""


class EmbeddingStoreError(TsllmError, OSError):
    """The embedding store cannot be opened, read or written; its content is safe."""


class OutputError(TsllmError, OSError):
    """A result cannot be written, as on a full disk; the message says what is kept."""


class DeviceMemoryError(TsllmError, RuntimeError):
    """The device ran out of memory; the message names settings that need less."""


class StoppedError(TsllmError, TimeoutError):
    """The work was stopped: its time was over, or the process ends."""


class TrainingDivergedError(TsllmError, ArithmeticError):
    """The loss is no longer a finite number; the message names what to lower or check."""


class WorkerDiedError(TsllmError, RuntimeError):
    """A worker of a batch job died on the same block several times; finished parts stay."""


class ClusterNotFoundError(TsllmError, ConnectionError):
    """The Ray cluster that RAY_ADDRESS names does not answer, or refuses this process."""
