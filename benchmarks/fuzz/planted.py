"""Faults that the runner must count: a check that cannot fail would count nothing."""

import os
import signal
import time

from fuzz.cases import Case, RefutedError
from tsllm.errors import DataError


def right(case: Case) -> None:
    """Give a right answer."""
    case.expect("answer")


def refused_in_a_sentence(case: Case) -> None:
    """Refuse in a sentence that names the column."""
    case.expect("refusal", "'a'")
    raise DataError("column 'a' holds text: pass numbers")


def refused_in_a_riddle(case: Case) -> None:
    """Refuse in two lines."""
    raise DataError("something is wrong:\nsee the documentation")


def refused_without_the_name(case: Case) -> None:
    """Refuse without a word on the column."""
    case.expect("refusal", "'a'")
    raise DataError("a column holds text: pass numbers")


def refused_though_ordinary(case: Case) -> None:
    """Refuse what is ordinary."""
    case.expect("answer")
    raise DataError("column 'a' holds text: pass numbers")


def taken_though_bad(case: Case) -> None:
    """Take what must be refused."""
    case.expect("refusal")


def refuted(case: Case) -> None:
    """Give an answer that the oracle refutes."""
    raise RefutedError("the stamps are another day's")


def foreign_exception(case: Case) -> None:
    """Raise what is no error of ours."""
    raise KeyError("a")


def too_slow(case: Case) -> None:
    """Hang."""
    time.sleep(600)


def killed(case: Case) -> None:
    """Die as a read beyond the end of a mapped file does."""
    os.kill(os.getpid(), signal.SIGBUS)


#: With the count of each.
COUNTED = {
    right: "sane",
    refused_in_a_sentence: "clear",
    refused_in_a_riddle: "raw",
    refused_without_the_name: "raw",
    refused_though_ordinary: "wrong",
    taken_though_bad: "wrong",
    refuted: "wrong",
    foreign_exception: "raw",
    too_slow: "hang",
    killed: "hang",
}
ATTACKS = list(COUNTED)
