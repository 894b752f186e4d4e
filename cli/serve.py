"""``tsllm serve``: a model behind HTTP."""

import signal
import tempfile
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from tsllm.cli import options
from tsllm.cli.output import say, working
from tsllm.errors import DataError


def serve(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A directory that 'tsllm fit' or tsllm.save wrote, a zip archive of one, or an "
            "MLflow model: a directory or a URI such as models:/demand/1.",
        ),
    ],
    port: Annotated[
        int, typer.Option("--port", "-p", help="The port; 0 for a free one.", metavar="PORT")
    ] = 5000,
    host: Annotated[
        str,
        typer.Option(
            "--host", help="The address to listen at; 0.0.0.0 for all.", metavar="ADDRESS"
        ),
    ] = "127.0.0.1",
    workers: Annotated[
        int, typer.Option("--workers", help="Processes; each holds the model.", metavar="NUMBER")
    ] = 1,
    threads: Annotated[
        int | None,
        typer.Option(
            "--threads",
            help="Threads of one forecast. Default: the processors of a worker, at most 4.",
            metavar="NUMBER",
        ),
    ] = None,
    timeout: Annotated[
        int,
        typer.Option(
            "--timeout", help="Seconds after which a request is given up.", metavar="SECONDS"
        ),
    ] = 60,
    limit: Annotated[
        list[str] | None,
        typer.Option(
            "--limit",
            help="A limit of one request, such as max_horizon=100; repeat for more.",
            metavar="NAME=NUMBER",
        ),
    ] = None,
    device: Annotated[
        str | None, typer.Option("--device", help="auto, cpu or cuda.", metavar="DEVICE")
    ] = None,
    backbone: options.Backbone = None,
) -> None:
    """Serve a model over HTTP with MLflow, until Ctrl-C.

    Prints a curl command that the server has answered. /ping says whether it is ready, /version
    is that of MLflow.
    """
    from tsllm.mlflow.launching import Server, curl, prepare_server

    with tempfile.TemporaryDirectory(prefix="tsllm-serve-") as folder:
        with working("preparing the model"):
            launch = prepare_server(
                model,
                Path(folder),
                host=host,
                port=port,
                workers=workers,
                threads=threads,
                seconds=timeout,
                limits=_limits(limit or []),
                device=device,
                backbone=backbone,
            )
        # Containers end a server with SIGTERM.
        before = signal.signal(signal.SIGTERM, _interrupt)
        server = Server(launch)
        try:
            server.wait_until_ready()
            _greet(launch.address, launch.workers, launch.threads)
            request = server.find_request()
            if request is None:
                say("the server answers, but not the model's own example: see its messages above")
            else:
                print(curl(launch, request), flush=True)
            code = server.process.wait()
            raise DataError(f"the server has ended (exit code {code}): see its messages above")
        except KeyboardInterrupt:
            say("stopping the server")
        finally:
            # A second Ctrl-C must not leave the server behind.
            interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
            server.stop()
            signal.signal(signal.SIGINT, interrupt)
            signal.signal(signal.SIGTERM, before)


def _greet(address: str, workers: int, threads: int) -> None:
    """Say where the server is."""
    say(
        f"serving at {address} with {workers} worker{'s' * (workers > 1)} of {threads} "
        f"thread{'s' * (threads > 1)} a forecast; {address}/ping says whether it is ready, "
        f"{address}/version is MLflow's; Ctrl-C ends it; a request:"
    )


def _interrupt(number: int, frame: FrameType | None) -> None:
    """End as on Ctrl-C."""
    raise KeyboardInterrupt


def _limits(pairs: list[str]) -> dict[str, int]:
    """Read ``max_horizon=100``."""
    limits = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        try:
            limits[name.strip()] = int(value.replace("_", ""))
        except ValueError:
            raise DataError(
                f"--limit must be NAME=NUMBER, such as max_horizon=100, found {pair!r}"
            ) from None
    return limits
