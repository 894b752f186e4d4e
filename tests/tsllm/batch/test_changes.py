"""A job whose data change, or whose output is damaged, writes what a new job would write."""

import numpy as np
import pandas as pd
import pytest
from covariate_frames import covariate_frames
from long_frames import read_parts, write_parts

import tsllm
from tsllm.batch import predict_batch
from tsllm.errors import DataError

pytestmark = pytest.mark.filterwarnings("ignore:the intervals ")
ROWS = 200  # in a block
BORDERS = [333, 700]


@pytest.fixture
def data(frame, tmp_path):
    return write_parts(frame, tmp_path / "data", BORDERS)


def rewrite(path, change):
    """Change a part as `change` does to its frame, in place or by its result."""
    part = pd.read_parquet(path)
    changed = change(part)
    (part if changed is None else changed).to_parquet(path, index=False)


def run_again(model, data, tmp_path, match="changed since the job was started", **options):
    """Continue the job in ``out``; check that it ends as a new job does. Return its result."""
    with pytest.warns(UserWarning, match=match):
        result = predict_batch(model, data, tmp_path / "out", **options)
    fresh = tmp_path / "fresh"
    predict_batch(model, data, fresh, block_rows=ROWS, **options)
    pd.testing.assert_frame_equal(
        pd.read_parquet(tmp_path / "out"), pd.read_parquet(fresh), check_exact=True
    )
    assert not list((tmp_path / "out").glob(".*.parquet"))
    assert len(list((tmp_path / "out" / "_blocks").iterdir())) == result.blocks
    return result


@pytest.mark.parametrize("part", [0, 1, 2])
def test_a_value_that_changed_at_full_precision_is_noticed(model, frame, data, tmp_path, part):
    predict_batch(model, data, tmp_path / "out", block_rows=ROWS)
    before = read_parts(tmp_path / "out")
    path = data / f"in-{part:02d}.parquet"
    size = path.stat().st_size

    def change(rows):
        rows.loc[17, "value"] = np.nextafter(rows.loc[17, "value"], np.inf)

    rewrite(path, change)
    assert path.stat().st_size == size
    result = run_again(model, data, tmp_path)
    # The series of each block, and the parts that they lie in.
    there = pd.cut(np.arange(len(frame)), [-1, *np.array(BORDERS) - 1, len(frame)], labels=False)
    of = pd.Series(there).groupby(frame["series_id"].to_numpy()).agg(set)
    blocks = [set(pd.read_parquet(p)["series_id"]) for p in sorted((tmp_path / "out").glob("p*"))]
    reading = sum(any(part in of[name] for name in block) for block in blocks)
    assert result.blocks_before == result.blocks - reading < result.blocks
    after = read_parts(tmp_path / "out")
    assert sum(after[name] == before[name] for name in before) >= result.blocks_before


@pytest.mark.parametrize("change", ["first", "longer", "shorter", "removed", "added", "renamed"])
def test_other_parts_are_never_forecast_again(model, frame, data, tmp_path, change):
    whole = predict_batch(model, data, tmp_path / "out", block_rows=ROWS)
    kept = read_parts(tmp_path / "out")
    extra = frame[frame["series_id"] == "s0001"].assign(series_id="new")
    if change == "first":  # every block gets another number
        extra.to_parquet(data / "a.parquet", index=False)
    elif change == "longer":
        at = int((frame["series_id"] == "s0010").argmax()) - BORDERS[0]
        rewrite(data / "in-01.parquet", lambda rows: pd.concat([rows[:at], extra, rows[at:]]))
    elif change == "shorter":
        rewrite(data / "in-00.parquet", lambda rows: rows[rows["series_id"] != "s0003"])
    elif change == "removed":
        whole_series = frame.drop_duplicates("series_id").index
        start = int(whole_series[whole_series <= BORDERS[0]].max())
        cut = int(whole_series[whole_series > BORDERS[0]].min())
        rewrite(data / "in-00.parquet", lambda rows: rows[:start])
        rewrite(data / "in-01.parquet", lambda rows: rows[cut - BORDERS[0] :])
    elif change == "added":
        extra.to_parquet(data / "z.parquet", index=False)
    else:
        (data / "in-01.parquet").rename(data / "in-01b.parquet")
    result = run_again(model, data, tmp_path)
    if change in ("first", "added"):
        assert result.blocks_before == whole.blocks == result.blocks - 1
    elif change == "renamed":
        assert result.blocks_before == whole.blocks == result.blocks
    else:
        assert result.blocks_before >= 3
    after = set(read_parts(tmp_path / "out").values())
    assert len(after & set(kept.values())) >= result.blocks_before


def test_a_job_goes_on_when_its_bad_part_is_repaired(model, frame, data, tmp_path):
    rewrite(data / "in-01.parquet", lambda rows: rows.__setitem__("value", np.inf))
    with pytest.raises(DataError, match="holds inf"):
        predict_batch(model, data, tmp_path / "out", block_rows=ROWS)
    frame[BORDERS[0] : BORDERS[1]].to_parquet(data / "in-01.parquet", index=False)
    assert run_again(model, data, tmp_path).blocks_before == 1


def test_a_stopped_repair_leaves_nothing_old(model, data, tmp_path):
    out = tmp_path / "out"
    predict_batch(model, data, out, block_rows=ROWS)
    for path in data.iterdir():
        rewrite(path, lambda rows: rows.__setitem__("value", rows["value"] + 100))

    def stop(block):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), pytest.warns(UserWarning, match="0 of 8 blocks stay"):
        predict_batch(model, data, out, on_block=stop)
    predict_batch(model, data, tmp_path / "fresh", block_rows=ROWS)
    fresh = read_parts(tmp_path / "fresh")
    assert read_parts(out) == {"part-00000.parquet": fresh["part-00000.parquet"]}
    assert predict_batch(model, data, out).blocks_before == 1
    assert read_parts(out) == fresh


def test_data_that_change_under_a_job_stop_it(model, data, tmp_path):
    def change(block):
        if block.number == 1:
            rewrite(
                data / "in-02.parquet", lambda rows: rows.__setitem__("value", rows["value"] + 1)
            )

    with pytest.raises(DataError, match=r"'in-02\.parquet' has changed while the job was running"):
        predict_batch(model, data, tmp_path / "out", block_rows=ROWS, on_block=change)
    assert run_again(model, data, tmp_path).blocks_before >= 3


def test_scattered_series_are_forecast_again_alone(model, frame, tmp_path):
    by_day = frame.sort_values("timestamp", kind="stable")
    data = write_parts(by_day, tmp_path / "data", [300, 600, 900])
    whole = predict_batch(model, data, tmp_path / "out", block_rows=ROWS)

    def change(rows):
        rows.loc[17, "value"] += 1

    rewrite(data / "in-02.parquet", change)
    result = run_again(model, data, tmp_path)
    assert result.blocks_before == whole.blocks - 1


def test_regrouped_parts_of_other_data_are_not_used(model, frame, tmp_path):
    data = write_parts(frame.sort_values("timestamp", kind="stable"), tmp_path / "data", [300])

    def stop(block):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_batch(model, data, tmp_path / "out", block_rows=ROWS, on_block=stop)
    for path in (tmp_path / "out" / "_grouped").iterdir():
        rewrite(path, lambda rows: rows.__setitem__("value", rows["value"] + 1))
    predict_batch(model, data, tmp_path / "out")
    predict_batch(model, data, tmp_path / "fresh", block_rows=ROWS)
    assert read_parts(tmp_path / "out") == read_parts(tmp_path / "fresh")


def test_a_changed_future_is_used_by_every_block(covariate_model, tmp_path):
    values, known = covariate_frames([f"s{i}" for i in range(6)])
    model = tsllm.save(covariate_model, tmp_path / "model")
    data, future = tmp_path / "data.parquet", tmp_path / "future.parquet"
    values.to_parquet(data, index=False)
    known.to_parquet(future, index=False)
    predict_batch(model, data, tmp_path / "out", future=future, block_rows=ROWS)
    future = future.rename(tmp_path / "moved.parquet")
    again = predict_batch(model, data, tmp_path / "out", future=future)
    assert again.blocks_before == again.blocks > 1
    rewrite(future, lambda rows: rows.__setitem__("warm", -rows["warm"]))
    result = run_again(model, data, tmp_path, "known future of the covariates has", future=future)
    assert result.blocks_before == 0


@pytest.mark.parametrize("where", [0.1, 0.3, 0.5, 0.7, 0.9, 0.99])
def test_a_damaged_part_is_named_and_forecast_again(model, data, tmp_path, where):
    out = tmp_path / "out"
    predict_batch(model, data, out, block_rows=ROWS)
    before = read_parts(out)
    path = out / "part-00002.parquet"
    content = bytearray(path.read_bytes())
    content[int(where * len(content))] ^= 4
    path.write_bytes(content)
    with pytest.warns(UserWarning, match=r"damaged parts: part-00002\.parquet in '.*out'"):
        result = predict_batch(model, data, out)
    assert result.blocks_before == result.blocks - 1
    assert read_parts(out) == before


def test_a_part_without_its_record_is_forecast_again(model, data, tmp_path):
    out = tmp_path / "out"
    whole = predict_batch(model, data, out, block_rows=ROWS)
    before = read_parts(out)
    first, second, *_ = sorted((out / "_blocks").iterdir())
    first.unlink()
    second.write_text("{}")
    with pytest.warns(UserWarning, match="damaged parts"):
        result = predict_batch(model, data, out)
    assert result.blocks_before == whole.blocks - 2
    assert read_parts(out) == before


def test_a_part_of_another_job_is_refused(model, data, tmp_path):
    predict_batch(model, data, tmp_path / "out", block_rows=ROWS)
    predict_batch(model, data, tmp_path / "other", block_rows=ROWS, horizon=2)
    stranger = (tmp_path / "other" / "part-00001.parquet").read_bytes()
    (tmp_path / "out" / "part-00001.parquet").write_bytes(stranger)
    with pytest.raises(DataError, match="belongs to another job"):
        predict_batch(model, data, tmp_path / "out")
