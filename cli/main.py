"""The ``tsllm`` command: its subcommands, and its errors.

Only light modules are imported here, so that ``tsllm --help`` is quick; each command imports what
it needs when it runs. Exit codes: 0 success, 1 a failure in tsllm, 2 a mistake of the user.
"""

import errno
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, NoReturn, TextIO

import typer

import tsllm
from tsllm.cli.ablate import ablate
from tsllm.cli.backbones import app as backbones
from tsllm.cli.backtest import backtest
from tsllm.cli.datasets import datasets
from tsllm.cli.doctor import doctor
from tsllm.cli.embed import embed
from tsllm.cli.environment import prepare
from tsllm.cli.events import app as events
from tsllm.cli.forecast import fit, forecast
from tsllm.cli.output import log_form, say, warned
from tsllm.cli.predict import predict
from tsllm.cli.serve import serve
from tsllm.cli.store import app as store
from tsllm.cli.stream import stream
from tsllm.errors import TsllmError
from tsllm.logs import log_to_stderr

prepare()

# Full disks, quotas and folders that cannot be written to.
_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)

app = typer.Typer(
    name="tsllm",
    help="Forecast time series and events with frozen, pretrained language models.",
    add_completion=False,
    # Plain help: the help of rich takes three times as long.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (forecast, fit, predict, stream, serve, embed, backtest, ablate, datasets, doctor):
    app.command()(command)
app.add_typer(backbones)
app.add_typer(events)
app.add_typer(store)


@dataclass
class _Settings:
    """The options before the subcommand."""

    debug: bool = False
    log_handler: logging.Handler | None = None


@app.callback(invoke_without_command=True)
def _options(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error, and every warning.")
    ] = False,
    log: Annotated[
        Literal["text", "json"] | None,
        typer.Option(
            "--log", help="Log events to stderr: as text, or every message as a line of JSON."
        ),
    ] = None,
) -> None:
    settings = context.ensure_object(_Settings)
    settings.debug = debug
    if debug:
        warnings.simplefilter("default")
    if log is not None:
        log_form.set(log)
        settings.log_handler = log_to_stderr(log)
    if version:
        print(f"tsllm {tsllm.__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and end the process."""
    sys.exit(_run(sys.argv[1:] if arguments is None else arguments))


def _run(arguments: Sequence[str]) -> int:
    """Run a command and return its exit code; print an error in one line on stderr."""
    settings = _Settings()
    warned.set(())
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        # Warnings to developers are not for users of the command line.
        for category in (DeprecationWarning, PendingDeprecationWarning, FutureWarning):
            warnings.simplefilter("ignore", category)
        try:
            command = typer.main.get_command(app)
            code = command.main(
                list(arguments), prog_name="tsllm", standalone_mode=False, obj=settings
            )
            sys.stdout.flush()
        except Exception as error:
            if settings.debug:
                traceback.print_exc()
            return _explain(error)
        finally:
            if settings.log_handler is not None:
                logging.getLogger("tsllm").removeHandler(settings.log_handler)
                log_form.set(None)
    return code if isinstance(code, int) else 0


def _explain(error: Exception) -> int:
    """Print one line about an error and return the exit code."""
    if isinstance(error, BrokenPipeError):
        # The reader of stdout has ended, as `head` does. The flush at the end of the process must
        # not fail once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    if hasattr(error, "format_message"):  # an error of typer, or of the click that it may include
        return _fail(f"{error.format_message().rstrip('.')}{_where_help_is(error)}", 2)
    if isinstance(error, TsllmError) or _is_missing_extra(error):
        return _fail(str(error), 2)
    if isinstance(error, OSError) and error.errno is not None:
        place = "" if error.filename is None else f"{error.filename}: "
        remedy = "; write to another place, or make room" if error.errno in _UNWRITABLE else ""
        return _fail(f"{place}{error.strerror or type(error).__name__}{remedy}", 2)
    return _fail(
        f"unexpected {type(error).__name__}: {error} (a bug in tsllm; put --debug right after "
        "'tsllm' to see the traceback)",
        1,
    )


def _fail(message: str, code: int) -> int:
    """Print an error in one line."""
    say(f"Error: {' '.join(message.split())}", style="bold red")
    return code


def _where_help_is(error: Exception) -> str:
    """Name the help page of the command that was called wrongly."""
    context = getattr(error, "ctx", None)
    return f" (see '{context.command_path} --help')" if context is not None else ""


def _is_missing_extra(error: Exception) -> bool:
    """Return True for an import error that names a package to install."""
    return isinstance(error, ImportError) and "pip install" in str(error)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print a warning in one line, without its place in the code."""
    said = " ".join(str(message).split())
    warned.set([*warned.get(), said])
    say(f"Warning: {said}", style="yellow")
