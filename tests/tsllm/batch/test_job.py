"""Batch jobs: equal to forecasting at once, and unharmed by whatever interrupts them."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import warnings
from types import SimpleNamespace

import filelock
import pandas as pd
import pytest
from long_frames import read_parts, write_parts

from tsllm.batch import predict_batch
from tsllm.batch import worker as worker_module
from tsllm.batch.ray_engine import _distribute
from tsllm.errors import ClusterNotFoundError, DataError, ModelFormatError, WorkerDiedError

pytestmark = pytest.mark.filterwarnings("ignore:the intervals ")


@pytest.fixture
def data(frame, tmp_path):
    """The frame in three parts, cut in the middle of series."""
    return write_parts(frame, tmp_path / "data", [333, 700])


def test_blocks_give_what_all_at_once_gives(model, data, expected, tmp_path):
    seen = []
    result = predict_batch(model, data, tmp_path / "out", block_rows=200, on_block=seen.append)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "out"), expected, rtol=1e-6)
    assert (result.series, result.horizon, result.blocks_before) == (30, 3, 0)
    assert result.blocks == len(seen) == len(read_parts(tmp_path / "out")) > 5
    assert sum(block.series for block in seen) == 30


def test_a_job_that_stopped_goes_on_and_ends_the_same(model, data, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    predict_batch(model, data, whole, block_rows=200)

    def stop(block):
        if block.number == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_batch(model, data, broken, block_rows=200, on_block=stop)
    assert len(read_parts(broken)) == 3
    (broken / ".part-00003.abcd.part").write_bytes(b"half")  # what a killed run leaves
    (broken / "part-00001.parquet").write_bytes(b"damaged")
    with pytest.warns(UserWarning, match=r"damaged parts: part-00001\.parquet in"):
        result = predict_batch(model, data, broken)  # the manifest knows the blocks
    assert result.blocks_before == 2
    assert read_parts(broken) == read_parts(whole)
    assert not list(broken.glob(".*.part"))
    again = predict_batch(model, data, broken)
    assert again.blocks_before == again.blocks


def test_killed_at_any_moment(model, data, tmp_path):
    whole, out = tmp_path / "whole", tmp_path / "out"
    predict_batch(model, data, whole, block_rows=60)
    code = (
        "import sys, torch; torch.set_num_threads(1); from tsllm.batch import predict_batch;"
        "predict_batch(*sys.argv[1:4], block_rows=60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, model, data, out],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while len(read_parts(out)) < 2 and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = len(read_parts(out))
    assert done >= 2
    result = predict_batch(model, data, out)
    assert result.blocks_before == done
    assert read_parts(out) == read_parts(whole)


def test_scattered_series_are_brought_together(model, frame, expected, tmp_path):
    by_day = frame.sort_values("timestamp", kind="stable")
    data = write_parts(by_day, tmp_path / "data", [300, 600, 900])
    result = predict_batch(model, data, tmp_path / "out", block_rows=200)
    found = pd.read_parquet(tmp_path / "out").sort_values(["series_id", "timestamp"])
    pd.testing.assert_frame_equal(found.reset_index(drop=True), expected, rtol=1e-6)
    assert result.blocks > 3
    assert not (tmp_path / "out" / "_grouped").exists()
    before = read_parts(tmp_path / "out")
    (tmp_path / "out" / "part-00001.parquet").unlink()
    predict_batch(model, data, tmp_path / "out")
    assert read_parts(tmp_path / "out") == before


def test_what_is_wrong_is_named_by_its_first_place(model, frame, tmp_path):
    broken = frame.copy()
    broken.loc[500, "value"] = float("inf")
    series = broken["series_id"][500]
    data = write_parts(broken, tmp_path / "data", [333, 700])
    with pytest.raises(DataError, match=rf"{series}.*row 167 of in-01\.parquet"):
        predict_batch(model, data, tmp_path / "out", block_rows=200)
    by_day = broken.sort_values("timestamp", kind="stable").reset_index(drop=True)
    row = int((by_day["value"] == float("inf")).argmax())
    scattered = write_parts(by_day, tmp_path / "scattered", [100])
    with pytest.raises(DataError, match=rf"{series}.*row {row - 100} of in-01\.parquet"):
        predict_batch(model, scattered, tmp_path / "out2", block_rows=200)


def test_another_job_is_not_mixed_in(model, data, frame, tmp_path):
    out = tmp_path / "out"
    predict_batch(model, data, out, block_rows=200)
    with pytest.raises(DataError, match="horizon=3 and now horizon=2"):
        predict_batch(model, data, out, horizon=2)
    with pytest.raises(DataError, match="batch_size=8 and now batch_size=4"):
        predict_batch(model, data, out, batch_size=4)
    other = write_parts(frame.assign(value=frame["value"] + 1), tmp_path / "other", [333, 700])
    before = read_parts(out)
    with pytest.raises(DataError, match=r"started with other data \('.*data'\)"):
        predict_batch(model, other, out)
    assert read_parts(out) == before
    (out / "_manifest.json").unlink()
    with pytest.raises(DataError, match=r"holds 'part-00000\.parquet' and no job"):
        predict_batch(model, data, out)


def test_one_process_at_a_time(model, data, tmp_path):
    (tmp_path / "out").mkdir()
    with filelock.FileLock(tmp_path / "out" / ".lock"), pytest.raises(DataError, match="another"):
        predict_batch(model, data, tmp_path / "out")


def test_a_manifest_leads_nowhere_else_and_is_as_it_was_written(model, data, tmp_path):
    out = tmp_path / "out"
    predict_batch(model, data, out, block_rows=200)
    written = (out / "_manifest.json").read_text()

    def change(**values):
        (out / "_manifest.json").write_text(json.dumps(json.loads(written) | values))
        with pytest.raises(DataError, match="no manifest") as caught:
            predict_batch(model, data, out)
        return str(caught.value)

    (_, rows, digest), *others = json.loads(written)["parts"]
    for elsewhere in ("../secret.parquet", "/etc/passwd", "a/../../b.parquet"):
        assert "a path out of its folder" in change(parts=[[elsewhere, rows, digest], *others])
    assert "not as it was written" in change(blocks=[[30, [[0, 0, 10**9]]]])
    for odd in ({"blocks": 3}, {"parts": [[]]}, {"request": {}}, {"format": "x"}, {"more": 1}):
        change(**odd)
    (out / "_manifest.json").write_text("[" * 100_000)
    with pytest.raises(DataError, match="no manifest"):
        predict_batch(model, data, out)


def test_warnings_are_said_once_a_kind(model, frame, tmp_path):
    constant = frame.assign(value=frame["value"].where(frame["series_id"] > "s0015", 5.0))
    data = write_parts(constant, tmp_path / "data", [])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        predict_batch(model, data, tmp_path / "out", block_rows=100)
    said = [str(w.message) for w in caught if str(w.message).startswith("constant")]
    assert len(said) == 2 and "a warning of" in said[1]


def test_the_batch_size_is_measured_and_then_kept(model, data, tmp_path, monkeypatch):
    result = predict_batch(model, data, tmp_path / "out", batch_size="auto", block_rows=200)
    assert result.batch_size >= 16
    assert json.loads((tmp_path / "out" / "_manifest.json").read_text())["batch_size"] == (
        result.batch_size
    )
    monkeypatch.setattr("tsllm.batch.planning.measure_batch_size", lambda *a, **k: 1)
    (tmp_path / "out" / "part-00000.parquet").unlink()
    again = predict_batch(model, data, tmp_path / "out", batch_size="auto")
    assert again.batch_size == result.batch_size


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"engine": "spark"}, "engine must be"),
        ({"batch_size": 0}, "batch_size must be"),
        ({"batch_size": True}, "batch_size must be"),
        ({"block_rows": 0}, "block_rows must be a whole number of at least 1, found 0"),
        ({"block_rows": 1.5}, "block_rows must be a whole number of at least 1, found 1.5"),
        ({"block_rows": "x"}, "block_rows must be a whole number"),
        ({"workers": 3}, "workers must be a tsllm.batch.Workers, found 3"),
        ({"future": 3}, "future must be a path, found 3"),
        ({"sort": "yes"}, "sort must be True or False, found 'yes'"),
        ({"on_error": 3}, "on_error must be 'raise'"),
        ({"horizon": 0}, "horizon must be"),
        ({"id_col": "nope"}, "no column"),
    ],
)
def test_bad_arguments(model, data, tmp_path, arguments, words):
    with pytest.raises(DataError, match=words):
        predict_batch(model, data, tmp_path / "out", **arguments)


def test_bad_data_and_models(model, frame, tmp_path):
    out = tmp_path / "out"
    frame.to_csv(tmp_path / "data.csv")
    with pytest.raises(DataError, match="no Parquet"):
        predict_batch(model, tmp_path / "data.csv", out)
    with pytest.raises(DataError, match="no file or directory"):
        predict_batch(model, tmp_path / "nowhere", out)
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match="cannot be read"):
        predict_batch(model, tmp_path / "bad.parquet", out)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no \.parquet"):
        predict_batch(model, tmp_path / "empty", out)
    write_parts(frame, tmp_path / "data", [])
    with pytest.raises(ModelFormatError):
        predict_batch(tmp_path / "empty", tmp_path / "data", out)
    frame.rename(columns={"value": "other"}).to_parquet(tmp_path / "data" / "in-01.parquet")
    with pytest.raises(DataError, match="'value' of 'data' is missing"):
        predict_batch(model, tmp_path / "data", out)


def test_a_single_series_without_a_name(model, frame, expected, tmp_path):
    alone = frame[frame["series_id"] == "s0009"].drop(columns="series_id")
    alone.to_parquet(tmp_path / "alone.parquet", index=False)
    predict_batch(model, tmp_path / "alone.parquet", tmp_path / "out", quantiles=[])
    found = pd.read_parquet(tmp_path / "out")
    assert found["series_id"].tolist() == ["series"] * 3
    wanted = expected[expected["series_id"] == "s0009"]["forecast"]
    assert found["forecast"].tolist() == pytest.approx(wanted.tolist(), rel=1e-6)


def test_short_series_have_the_frequency_of_the_model(model, frame, tmp_path):
    short = frame.groupby("series_id").tail(1).iloc[:4]
    short.to_parquet(tmp_path / "short.parquet", index=False)
    predict_batch(model, tmp_path / "short.parquet", tmp_path / "out", quantiles=[])
    found = pd.read_parquet(tmp_path / "out")
    first = found.groupby("series_id")["timestamp"].first()
    last = short.set_index("series_id")["timestamp"]
    assert (first - last == pd.Timedelta(days=1)).all()


def test_ray_gives_the_same_though_a_worker_is_killed(model, data, expected, tmp_path, monkeypatch):
    pytest.importorskip("ray")
    from tsllm.batch import Workers

    killed, processes = [], set()

    def kill(block):
        processes.add(block.process)
        if not killed:
            killed.append(block.process)
            os.kill(block.process, signal.SIGKILL)

    monkeypatch.setattr(
        worker_module, "load_forecaster", None
    )  # the driver's code is not the workers'
    result = predict_batch(
        model,
        data,
        tmp_path / "ray",
        block_rows=100,
        engine="ray",
        workers=Workers(2),
        on_block=kill,
    )
    assert killed and os.getpid() not in processes
    assert result.series == 30
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "ray"), expected, rtol=1e-6)
    predict_batch(model, data, tmp_path / "local", block_rows=100)
    local, rays = read_parts(tmp_path / "local"), read_parts(tmp_path / "ray")
    for one, other in zip(local, rays, strict=True):
        a = pd.read_parquet(tmp_path / "local" / one)
        b = pd.read_parquet(tmp_path / "ray" / other)
        pd.testing.assert_frame_equal(a, b, check_exact=True)


def test_a_cluster_that_does_not_answer_is_named_at_once(model, data, tmp_path, monkeypatch):
    pytest.importorskip("ray")
    with socket.socket() as free:  # a port that nobody listens at
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(ClusterNotFoundError, match=rf"RAY_ADDRESS={address} .*unset RAY_ADDRESS"):
        predict_batch(model, data, tmp_path / "out", engine="ray")


def test_blocks_of_a_lost_worker_go_to_those_that_run():
    """A replacement that never starts, because the cluster lost its room, holds no block."""
    cluster = FakeCluster(lost={1: [2]}, starting=[0, 1])
    results = list(_distribute(cluster, cluster.start, [0, 1, 2, 3], 2))
    assert sorted(results) == [0, 1, 2, 3]
    # Also one that is lost with the last block, when the other worker has nothing left to do.
    cluster = FakeCluster(lost={1: [1]}, starting=[0, 1], slow=[1])
    assert sorted(_distribute(cluster, cluster.start, [0, 1], 2)) == [0, 1]


def test_a_block_that_ends_its_workers_ends_the_job():
    cluster = FakeCluster(lost={number: [1] for number in range(9)}, starting=range(9))
    with pytest.raises(WorkerDiedError, match="died 4 times"):
        list(_distribute(cluster, cluster.start, [0, 1, 2], 2))


class FakeCluster:
    """Ray's calls, for workers that run, die on a block, or never start.

    ``lost`` are the blocks that each worker dies on, ``starting`` the workers that there is room
    for, ``slow`` those whose results come last.
    """

    class exceptions:  # noqa: N801 (Ray's name)
        class RayTaskError(Exception):
            pass

        class RayActorError(Exception):
            pass

    def __init__(self, lost, starting, slow=()):
        self.lost, self.starting, self.slow, self.workers = lost, starting, slow, 0

    def start(self):
        worker, self.workers = self.workers, self.workers + 1
        ready = SimpleNamespace(remote=lambda: (worker, None))
        return SimpleNamespace(
            ready=ready, run=SimpleNamespace(remote=lambda number: (worker, number))
        )

    def wait(self, calls):
        able = [call for call in calls if call[0] in self.starting]
        assert able, "the job waits for a worker that never starts"
        first = min(able, key=lambda call: call[0] in self.slow)
        return [first], [call for call in calls if call != first]

    def get(self, call):
        worker, number = call
        if number is not None and number in self.lost.get(worker, ()):
            raise self.exceptions.RayActorError
        return number


@pytest.mark.slow
def test_the_same_command_runs_on_a_cluster_of_two_nodes(model, data, expected, tmp_path):
    pytest.importorskip("ray")
    ray = [sys.executable, "-m", "ray.scripts.scripts"]
    node = ["--num-cpus=1", "--disable-usage-stats"]
    there = os.environ | {"RAY_AUTH_MODE": "token"}

    def run(*command):
        return subprocess.run(command, capture_output=True, text=True, check=True, env=there).stdout

    try:
        told = run(*ray, "start", "--head", "--port=0", "--include-dashboard=false", *node)
        there["RAY_ADDRESS"] = re.search(r"--address='([^']+)'", told)[1]
        run(*ray, "start", f"--address={there['RAY_ADDRESS']}", *node)
        job = ["predict", model, data, "--engine", "ray", "--workers", "2", "--block-rows", "100"]
        job += ["--horizon", "3", "--out", tmp_path / "out"]
        run(sys.executable, "-m", "tsllm.cli", *map(str, job))
    finally:
        run(*ray, "stop", "--force")
    found = pd.read_parquet(tmp_path / "out")
    pd.testing.assert_frame_equal(found[expected.columns], expected, rtol=1e-6)
