"""Commands run in this process, and small files for them."""

import io
import json
import sys
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest

from tsllm.cli.main import main


class Result(NamedTuple):
    """The results of a command: exit code and output."""

    code: int
    out: str
    err: str

    @property
    def table(self):
        return pd.read_csv(io.StringIO(self.out), float_precision="round_trip")

    @property
    def json(self):
        return json.loads(self.out)


@pytest.fixture
def tsllm(capsys, monkeypatch, tmp_path):
    """Run the command line in an empty folder: ``tsllm("forecast", "co2", ...)``."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments, stdin=""):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return Result(int(end.value.code or 0), out, err)

    return run


@pytest.fixture
def series(tmp_path):
    """Two daily series of unequal length, in ``series.csv`` and as a frame."""
    rng = np.random.default_rng(0)
    parts = [
        pd.DataFrame(
            {
                "series_id": name,
                "timestamp": pd.date_range("2024-01-01", periods=steps, freq="D"),
                "value": level
                + np.sin(np.arange(steps) * 2 * np.pi / 7)
                + rng.normal(0, 0.1, steps),
            }
        )
        for name, steps, level in (("b", 70, 10.0), ("a", 60, 20.0))
    ]
    frame = pd.concat(parts, ignore_index=True)
    frame.to_csv(tmp_path / "series.csv", index=False)
    return frame
