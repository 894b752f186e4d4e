"""Progress of a backtest: bars on a terminal, lines at intervals where stderr is a log."""

import logging
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm.auto import tqdm

from tsllm.logs import log_event
from tsllm.training.callbacks import Callback, training_callbacks
from tsllm.training.settings import TrainingState

_LOG = logging.getLogger("tsllm.evaluation")
#: Seconds between two lines.
INTERVAL = 30.0


class Task:
    """The windows that a method has forecast so far, and the step of its training."""

    def __init__(self, name: str, total: int, done: int, bar: tqdm) -> None:
        self.name, self.total, self.done = name, total, done
        self.step = self.planned_steps = 0
        self._bar, self._started, self._before = bar, time.perf_counter(), done
        self._began: float | None = None  # when the first window was forecast

    def update(self, windows: int) -> None:
        """Count further windows as forecast."""
        if self._began is None:
            self._began, self._before = time.perf_counter(), self.done + windows
        self.done += windows
        self._bar.update(windows)

    def train(self, step: int, planned: int) -> None:
        """Record the step that a training has reached."""
        self.step, self.planned_steps = step, planned
        if not self._bar.disable:
            self._bar.set_postfix_str(f"training step {step}", refresh=step % 20 == 0)

    def sentence(self) -> str:
        """Describe what is done, and how long the rest will take."""
        now = time.perf_counter()
        if self.done == 0 or self._began is None:
            if self.step:
                spent = now - self._started
                left = spent / self.step * (self.planned_steps - self.step)
                steps = f"training step {self.step:,} of up to {self.planned_steps:,}"
                return f"{self.name}: {steps}, at most {duration(left)} left"
            return f"{self.name}: fitting for {duration(now - self._started)}"
        start = f"{self.name}: {self.done:,} of {self.total:,} windows"
        measured = self.done - self._before
        if not measured:
            return start
        left = (now - self._began) / measured * (self.total - self.done)
        return f"{start}, about {duration(left)} left"


class Progress:
    """Writes to stderr how far a backtest is; nothing where it is not to be shown.

    A terminal and a notebook get bars. Where stderr is a file or a pipe, a line is written every
    `INTERVAL` seconds. What a method took is also an event of the log.
    """

    def __init__(self, shown: bool) -> None:
        notebook = type(sys.stderr).__module__.startswith("ipykernel.")
        bars = sys.stderr.isatty() or notebook
        self.shown = shown
        self._bars, self._lines = shown and bars, shown and not bars

    def say(self, text: str) -> None:
        """Write a line."""
        if self.shown:
            tqdm.write(text, file=sys.stderr)
            sys.stderr.flush()

    def finish(self, name: str, windows: int, fit: float, predict: float) -> None:
        """Report the seconds that a method took; a bar shows them too."""
        log_event(
            _LOG,
            "method scored",
            method=name,
            windows=windows,
            fit_seconds=round(fit, 3),
            predict_seconds=round(predict, 3),
        )
        if self._lines:
            some = f"{windows:,} window{'s' * (windows != 1)}"
            times = f"fitted in {duration(fit)}, forecast {some} in {duration(predict)}"
            self.say(f"{name}: {times}")

    @contextmanager
    def over(self, name: str, total: int, done: int = 0) -> Iterator[Task]:
        """Show the progress of one method over ``total`` windows, of which some are done."""
        over = threading.Event()
        with tqdm(total=total, initial=done, desc=name, disable=not self._bars) as bar:
            task = Task(name, total, done, bar)
            if self._lines:
                threading.Thread(target=self._report, args=(task, over), daemon=True).start()
            try:
                with training_callbacks(_Watch(task)):
                    yield task
            finally:
                over.set()

    def _report(self, task: Task, over: threading.Event) -> None:
        """Write lines about a task until it is over."""
        while not over.wait(INTERVAL):
            self.say(task.sentence())


def duration(seconds: float) -> str:
    """Write a time in seconds, minutes or hours.

    Examples
    --------
    >>> duration(0.42), duration(75), duration(300), duration(9000)
    ('0.4 s', '75 s', '5 minutes', '2.5 hours')
    """
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


class _Watch(Callback):
    """Tells a task the steps of the trainings inside it."""

    def __init__(self, task: Task) -> None:
        self._task = task

    def on_step_end(self, state: TrainingState) -> None:
        """Note the step."""
        self._task.train(state.step, state.planned_steps)
