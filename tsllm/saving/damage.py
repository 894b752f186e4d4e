"""One sentence for files that this version of tsllm did not write."""

from collections.abc import Iterator
from contextlib import contextmanager

from tsllm.errors import DataError, ModelFormatError, TsllmError


@contextmanager
def readable(*, holds_data: bool = False) -> Iterator[None]:
    """Replace the errors of reading foreign or damaged files by one sentence.

    Parameters
    ----------
    holds_data : bool, default=False
        Whether the block reads users' data from the files, so that a `DataError` is the files'
        fault as well.

    Raises
    ------
    ModelFormatError
        In place of any error but tsllm's own.
    """
    try:
        yield
    except Exception as error:  # a changed file can end in any of them
        own = isinstance(error, TsllmError)
        if own and not (holds_data and isinstance(error, DataError)):
            raise
        problem = str(error) if own else f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise ModelFormatError(
            f"the saved model's files do not belong together ({problem[:500]}): load the model "
            "with the version of tsllm that saved it, or save it again"
        ) from error
