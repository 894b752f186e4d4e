"""The exceptions that users can catch: each message names the argument, its value, the remedy."""


class TsllmError(Exception):
    """Base class of every error that tsllm raises on purpose."""


class DataError(TsllmError, ValueError):
    """The data break a rule; the message names the series, the row and the remedy."""


class NotEnoughDataError(DataError):
    """A series is too short for what was asked of it."""


class DataTypeError(DataError, TypeError):
    """Values of the wrong kind, such as text where numbers belong."""


class InSampleError(DataError, NotImplementedError):
    """A forecast was asked for a step that lies at or before the last observation."""


class BackboneNotFoundError(TsllmError, LookupError):
    """No place holds the backbone; the message lists every place that was looked at."""


class BackboneMismatchError(TsllmError, ValueError):
    """The backbone found is not the one that the fitted model was trained with."""


class ModelFormatError(TsllmError, ValueError):
    """A saved model's directory is damaged, foreign, or of another format version."""


class EmbeddingStoreError(TsllmError, OSError):
    """The embedding store cannot be opened, read or written; what it holds is safe."""


class DeviceMemoryError(TsllmError, RuntimeError):
    """The device ran out of memory; the message says which settings need less."""


class TrainingDivergedError(TsllmError, ArithmeticError):
    """The loss is no longer a finite number; the message says what to lower or check."""


class WorkerDiedError(TsllmError, RuntimeError):
    """A worker of a batch job died on the same block again and again; what is written stands."""


class ClusterNotFoundError(TsllmError, ConnectionError):
    """The Ray cluster that RAY_ADDRESS names does not answer, or turns this process away."""
