"""Two processes train what one trains: same losses, same weights, every window counted once."""

import json
import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import TINY

from tsllm.training import distributed
from tsllm.training.loop import train
from tsllm.training.settings import Loss, TrainingSettings
from tsllm.training.windows import Windows

#: Of batches; the training windows leave a single one for the last batch of two processes.
SIZES = (7, 57)

# What each process runs; `outcome` is run here as well.
_CHILD = """
import json, sys, torch
torch.set_num_threads(1)
sys.path[:0] = [{folder!r}, {folder!r} + '/../../support']
from tsllm.training import distributed
import test_distributed
world = distributed.join()
outcomes = [test_distributed.outcome(size) for size in test_distributed.SIZES]
text = json.dumps([world.rank, distributed.agreed_seed(), outcomes])
distributed.leave()
print(text)
"""


def outcome(batch_size):
    """Train a small model; windows that do not divide evenly, some targets missing."""
    series = torch.sin(torch.arange(83.0) / 4)[:, None]
    series[20:25] = torch.nan
    windows = Windows([series], context_length=8, target_length=1)

    def loss(model, batch):
        values = torch.where(batch.mask, batch.values, 0)
        error = (model(values[:, :8, 0]) - values[:, 8:, 0]) ** 2
        observed = batch.mask[:, 8:, 0]
        squares = (error * observed).sum()
        count = observed.sum()
        return Loss(squares, count, {"again": squares / count.clamp(min=1)})

    torch.manual_seed(distributed.world().rank)  # first weights that differ are made equal
    model = torch.nn.Linear(8, 1)
    settings = TrainingSettings(max_epochs=4, batch_size=batch_size, learning_rate=0.02)
    result = train(model, loss, *windows.split(0.2), settings)
    history = [{k: v for k, v in epoch.items() if k != "seconds"} for epoch in result.history]
    return [history, model.weight.detach().ravel().tolist()]


@pytest.mark.long
def test_two_processes_train_what_one_does():
    code = _CHILD.format(folder=str(Path(__file__).parent))
    ranks, seeds, outcomes = zip(*_together([sys.executable, "-c", code]))
    assert set(ranks) == {0, 1} and len(set(seeds)) == 1
    for size, of_each in zip(SIZES, zip(*outcomes), strict=True):
        alone, weights = outcome(size)
        for history, their_weights in of_each:
            np.testing.assert_allclose(their_weights, weights, rtol=1e-4, atol=1e-6)
            for ours, theirs in zip(alone, history, strict=True):
                assert theirs == pytest.approx(ours, rel=1e-4)
                assert theirs["again"] == pytest.approx(theirs["train_loss"], rel=1e-6)


def test_a_process_alone_takes_everything():
    indices = torch.arange(5)
    assert distributed.world() == distributed.World(0, 1) == distributed.join()
    assert distributed.share(indices)[0] is indices
    assert distributed.sums([1.0, 2.0]) == [1.0, 2.0]


def test_shares_are_disjoint_and_complete(monkeypatch):
    for windows in (1, 2, 3, 10):
        taken = []
        for rank in range(4):
            monkeypatch.setattr(distributed, "_world", distributed.World(rank, 4))
            mine, weight = distributed.share(torch.arange(windows))
            assert len(mine)
            taken += mine.tolist() if weight else []
        assert sorted(taken) == list(range(windows))


@pytest.mark.slow
def test_accelerate_launches_the_command_line(tmp_path):
    fit = ["-m", "tsllm.cli", "fit", "co2", "--horizon", "4", "--json"]
    for setting in (f"backbone={TINY}", "max_epochs=3", "context_length=24", "random_state=0"):
        fit += ["--set", setting]
    launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    launch += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    environment = os.environ | {"MASTER_PORT": str(_free_port()), "OMP_NUM_THREADS": "1"}
    found = {}
    for name, start in (("one", []), ("two", launch)):
        run = subprocess.run(
            [sys.executable, *start, *fit, "--out", str(tmp_path / name)],
            capture_output=True,
            text=True,
            env=environment,
            cwd=tmp_path,
        )
        assert run.returncode == 0, run.stderr
        found[name] = json.loads(run.stdout)["summary"]  # one document: one process speaks
    assert found["two"]["steps"] == found["one"]["steps"]
    loss = found["one"]["validation_loss"]
    assert found["two"]["validation_loss"] == pytest.approx(loss, rel=0.02)


def _together(command):
    """Run a command in two processes as a launcher would, and give what each printed."""
    environment = os.environ | {
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
        "OMP_NUM_THREADS": "1",
        "PYTHONSAFEPATH": "1",
    }
    processes = [
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(2)
    ]
    printed = []
    for process in processes:
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, textwrap.indent(err, "  ")
        printed.append(json.loads(out.splitlines()[-1]))
    return printed


def _free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]
