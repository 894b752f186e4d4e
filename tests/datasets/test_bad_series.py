"""Bad series are found, named with the sentence of their refusal, and left out of what is read."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsllm.datasets import read_long
from tsllm.datasets.bad_series import SkippedSeries, skipping
from tsllm.errors import DataError, NoSeriesLeftError

NAMES = [f"s{i}" for i in range(9)]


@settings(max_examples=50, deadline=None)
@given(bad=st.sets(st.sampled_from(NAMES)))
def test_exactly_the_bad_series_are_left_out(bad):
    calls = []

    def check(some):
        calls.append(some)
        for name in some:
            if name in bad:
                raise DataError(f"{name} is bad")

    skipped = SkippedSeries()
    assert skipped.keep(NAMES, check) == [name for name in NAMES if name not in bad]
    assert skipped.reasons == {name: f"{name} is bad" for name in NAMES if name in bad}
    assert bad or len(calls) == 1


def test_results_keep_the_order_and_other_errors_go_through():
    skipped = SkippedSeries()

    def work(some):
        if "s4" in some:
            raise DataError("no")
        return some

    groups = skipped.each(NAMES, work)
    assert [name for some in groups for name in some] == [n for n in NAMES if n != "s4"]
    with pytest.raises(KeyError):
        skipped.each(NAMES, lambda some: {}[some[0]])
    assert skipped.each([], work) == []


def test_the_sentence_counts_and_tells_the_first_reason():
    skipped = SkippedSeries()
    assert skipped.sentence(3) == "" and len(skipped.table()) == 0
    skipped.reasons = {"a": "series 'a' is empty", "b": "series 'b' too"}
    assert skipped.sentence(1000, " (b.csv)") == (
        "left out 2 of 1,000 series (b.csv): the first because series 'a' is empty"
    )
    assert skipped.table().to_dict("list") == {
        "series_id": ["a", "b"],
        "reason": ["series 'a' is empty", "series 'b' too"],
    }


@pytest.mark.parametrize("value", ["Skip", None, True, ["skip"]])
def test_on_error_is_one_of_two_words(value):
    with pytest.raises(DataError, match=r"on_error must be 'raise', .* or 'skip'"):
        skipping(value)


def _table(series=6, steps=12):
    days = pd.date_range("2024-01-01", periods=steps)
    frames = [
        pd.DataFrame({"series_id": name, "timestamp": days, "sales": np.arange(steps) + 10.0 * i})
        for i, name in enumerate(NAMES[:series])
    ]
    return pd.concat(frames, ignore_index=True)


def _spoil(table, name, kind):
    rows = np.flatnonzero(table["series_id"] == name)
    if kind == "infinite":
        table.loc[rows[3], "sales"] = np.inf
    elif kind == "doubled":
        return pd.concat([table, table.iloc[rows[[3]]]], ignore_index=True)
    elif kind == "gap":
        return table.drop(rows[3]).reset_index(drop=True)
    elif kind == "unsorted":
        table.loc[rows[[3, 4]], "timestamp"] = table.loc[rows[[4, 3]], "timestamp"].to_numpy()
    elif kind == "no stamp":
        table.loc[rows[3], "timestamp"] = pd.NaT
    return table


KINDS = ["infinite", "doubled", "gap", "unsorted", "no stamp"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_table_without_its_bad_series_reads_as_if_they_were_not_there(kind):
    table = _spoil(_spoil(_table(), "s1", kind), "s4", kind)
    with pytest.raises(DataError) as caught:
        read_long(table)
    skipped = SkippedSeries()
    found = read_long(table, skipped=skipped)
    assert list(skipped.reasons) == ["s1", "s4"]
    reason = skipped.reasons["s1"]
    assert str(caught.value).endswith(reason)  # the sentence of the refusal
    good = table[~table["series_id"].isin(skipped.reasons)]
    pd.testing.assert_frame_equal(found, read_long(good))


def test_rows_are_named_by_their_place_in_the_file(tmp_path):
    table = _table()
    cells = table.astype(str)
    cells.loc[40, "sales"] = "many"
    cells.to_csv(tmp_path / "sales.csv", index=False)
    skipped = SkippedSeries()
    found = read_long(tmp_path / "sales.csv", skipped=skipped)
    assert found["series_id"].nunique() == 5
    assert "series 's3', line 42, column 'sales' holds 'many'" in skipped.reasons["s3"]


def test_a_short_series_has_the_frequency_of_the_others():
    table = _spoil(_table(), "s0", "infinite")
    table = table.drop(np.flatnonzero(table["series_id"] == "s2")[1:])
    skipped = SkippedSeries()
    found = read_long(table, skipped=skipped)
    assert list(skipped.reasons) == ["s0"]
    assert (found["series_id"] == "s2").sum() == 1


def test_when_nothing_is_left_the_first_reason_is_the_error():
    table = _table().assign(sales=np.inf)
    with pytest.raises(NoSeriesLeftError, match="none of the 6 series can be used: series 's0', r"):
        read_long(table, skipped=SkippedSeries())
    with pytest.raises(DataError, match="column 'sales' holds inf"):
        read_long(table[:12].drop(columns="series_id"), skipped=SkippedSeries())


def test_a_mistake_in_the_whole_table_is_no_bad_series():
    for options in ({"target_cols": "nope"}, {"time_col": "when"}, {"freq": "never"}):
        skipped = SkippedSeries()
        with pytest.raises(DataError):
            read_long(_table(), skipped=skipped, **options)
        assert not skipped.reasons
