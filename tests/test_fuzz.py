"""The fuzz of benchmarks/fuzz: its runner counts every kind of fault, and each door opens."""

import os
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def fuzz(monkeypatch):
    """Make the package ``fuzz`` importable here and in the workers."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    path = f"{BENCHMARKS}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    monkeypatch.setenv("PYTHONPATH", path)


def test_every_kind_of_fault_is_counted_as_what_it_is(fuzz):
    from fuzz.planted import ATTACKS, COUNTED
    from fuzz.runner import Job, run_jobs

    jobs = [Job("planted", number, 0) for number in range(len(ATTACKS))]
    outcomes = run_jobs(jobs, workers=1, limit=0.3)
    counted = {outcome.attack: outcome.count for outcome in outcomes}
    assert counted == {attack.__name__: count for attack, count in COUNTED.items()}
    said = {outcome.attack: outcome.said for outcome in outcomes}
    assert said["killed"] == "killed by SIGBUS"
    assert "KeyError" in said["foreign_exception"]


def test_a_case_is_the_same_at_each_run_and_another_with_another_seed(fuzz):
    from fuzz.cases import DOORS, attacks_of, run_case

    attacks = attacks_of("horizons")
    steps = [one.__name__ for one in attacks].index("horizons_of_the_shared_fit")
    first, again = run_case("horizons", steps, 0), run_case("horizons", steps, 0)
    assert (first.count, first.drawn) == (again.count, again.drawn)
    drawn = {run_case("horizons", steps, seed).drawn for seed in range(4)}
    assert len(drawn) > 1
    for door in DOORS:
        assert all(attack.__doc__ for attack in attacks_of(door))


def test_one_case_is_shown_with_its_traceback(fuzz, capsys):
    from fuzz.__main__ import show

    assert show("planted:7", 0) == 1
    shown = capsys.readouterr().out
    assert "foreign_exception(): raw" in shown and "Traceback" in shown
