"""Forked processes compute with one thread where their parent had several, and say so."""

import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from children import child, exit_code
from small_events import small_prompttpp, stream

import tsllm
from small_forecasters import small
from tsllm.backbone import forks, load_backbone
from tsllm.events import NaiveEventForecaster

#: Long enough that torch computes it with all of its threads.
SCRIPT = """
import os, warnings
from tsllm.backbone import load_backbone
import torch

torch.set_num_threads(2)
backbone = load_backbone("random:bert?hidden=256&layers=2&heads=4", device="cpu")
texts = ["word " * 100 + str(number) for number in range(32)]
expected = backbone.last_token(texts)
if os.fork() == 0:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        same = torch.allclose(backbone.last_token(texts), expected, atol=1e-5)
    os._exit(0 if same and "one thread" in str(caught[0].message) else 1)
raise SystemExit(os.waitstatus_to_exitcode(os.wait()[1]))
"""


@pytest.fixture
def several_threads(monkeypatch):
    """Let this process look like one that has computed with two threads."""
    monkeypatch.setattr(forks, "_has_computed", False)
    monkeypatch.setattr(forks, "_is_forked", False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)


def test_a_child_warns_once_and_computes_with_one_thread(tiny_backbone, several_threads):
    whole = tiny_backbone.last_token(["a text"])

    def work():
        chosen = []
        torch.set_num_threads = chosen.append
        with pytest.warns(UserWarning, match=r"computes with one thread.*'spawn'"):
            assert torch.equal(tiny_backbone.last_token(["a text"]), whole)
        assert chosen == [1]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            tiny_backbone.last_token(["another text"])

    assert exit_code(child(work)) == 0


@pytest.mark.filterwarnings("ignore:the intervals ", "ignore:.* fewer ")
@pytest.mark.parametrize("method", ["aaren", "dlinear", "markov", "prompttpp"])
def test_every_kind_of_forecast_looks_for_a_fork(several_threads, method):
    if method in ("markov", "prompttpp"):
        model = small_prompttpp(backbone=None)
        if method == "markov":
            model = NaiveEventForecaster(types="markov", random_state=0)
        model.fit(stream())
    else:
        y = pd.Series(np.sin(np.arange(40.0)), pd.date_range("2024-01-01", periods=40, freq="D"))
        linear = tsllm.DLinearForecaster(context_length=12, max_steps=2, random_state=0)
        model = (linear if method == "dlinear" else small(method)).fit(y, fh=[1, 2])
    model.predict()

    def work():
        chosen = []
        torch.set_num_threads = chosen.append
        with pytest.warns(UserWarning, match="computes with one thread"):
            model.predict()
        assert chosen == [1]

    assert exit_code(child(work)) == 0


def test_a_child_of_a_process_that_computed_nothing_computes_freely(several_threads):
    def work():
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            load_backbone("random:gpt2", device="cpu").last_token(["a text"])

    assert exit_code(child(work)) == 0


@pytest.mark.slow
def test_real_threads_do_not_hang_a_child():
    done = subprocess.run([sys.executable, "-c", SCRIPT], timeout=120, check=False)
    assert done.returncode == 0
