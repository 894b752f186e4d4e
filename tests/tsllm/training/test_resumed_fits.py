"""Fits that are killed at random moments, again and again, and run again."""

import functools
import multiprocessing
import random
import signal
import time

import numpy as np
import pandas as pd
import pytest
from small_events import small_prompttpp, stream

from small_forecasters import small
from tsllm import load, save
from tsllm.datasets import time_slices
from tsllm.errors import DataError, ModelFormatError
from tsllm.training.checkpoints import remove_checkpoints

KILLS = 3
LONG = {"max_epochs": 12, "max_steps": None, "patience": 20, "dropout": 0.2}


def series(change=0.0):
    index = pd.period_range("2000-01", periods=90, freq="M")
    steps = np.arange(90)
    return pd.Series(np.sin(steps / 3) + 0.3 * np.cos(steps) + change * (steps == 40), index=index)


def fit_series(method):
    def fit(folder, y=None, **settings):
        forecaster = small(method, checkpoint_dir=folder, **LONG | settings)
        forecaster.fit(series() if y is None else y, fh=[1, 2, 3])
        history = [{**row, "seconds": 0} for row in forecaster.fitted_.history]
        return forecaster.fitted_.model.state_dict(), history, forecaster.predict()

    return fit


def learn_stream(**parameters):
    def fit(folder, seed=0, **settings):
        settings = {"max_epochs": 8, "patience": 20, "dropout": 0.2, **parameters, **settings}
        model = small_prompttpp(checkpoint_dir=folder, **settings)
        table = stream(t_end=36, seed=seed)
        for number, part in enumerate(time_slices(table, 3, keep_empty=True)):
            model.partial_fit(part, **({} if number else {"types": table.type_names}))
        history = [[{**row, "seconds": 0} for row in one["history"]] for one in model.slices_]
        return model.model_.state_dict(), history, model.predict()

    return fit


FITS = {
    "autotimes": fit_series("autotimes"),
    "timecma": fit_series("timecma"),
    "s2ip": fit_series("s2ip"),
    "aaren": fit_series("aaren"),
    "prompttpp": learn_stream(),
    "prompttpp auto": learn_stream(base_update="auto"),
    "prompttpp shared": learn_stream(prompt_mode="shared", base_update="full", top_slots=2),
}


def kill_at_random(fit, folder, seconds):
    """Run a fit in other processes and kill each; return the number of fits that were killed."""
    moments, killed = random.Random(0), 0
    while killed < KILLS or not any(folder.rglob("state.json")):
        process = multiprocessing.get_context("fork").Process(target=fit, args=(folder,))
        process.start()
        time.sleep(moments.uniform(0.1, 0.6) * seconds)
        process.kill()
        process.join()
        if process.exitcode != -signal.SIGKILL:
            assert process.exitcode == 0
            if killed:
                break  # it was done before
            # The fit that was timed also imported what these have already.
            remove_checkpoints(folder)
            seconds /= 2
            continue
        killed += 1
        seconds *= 1.1
    return killed


@pytest.mark.parametrize("fit", FITS.values(), ids=FITS)
@pytest.mark.long
def test_a_fit_that_is_killed_ends_in_the_weights_of_one_that_is_not(fit, tmp_path):
    started = time.perf_counter()
    weights, history, forecasts = fit(None)
    assert kill_at_random(fit, tmp_path, time.perf_counter() - started)
    checkpoints = list(tmp_path.rglob("state.json"))
    assert checkpoints
    resumed, its_history, its_forecasts = fit(tmp_path)
    assert resumed.keys() == weights.keys()
    for name, value in weights.items():
        assert value.equal(resumed[name]), name
    assert its_history == history
    pd.testing.assert_frame_equal(
        pd.DataFrame(its_forecasts), pd.DataFrame(forecasts), check_exact=True
    )
    remove_checkpoints(tmp_path)
    assert not tmp_path.exists()


def test_other_parameters_and_other_data_are_refused_by_name(tmp_path):
    fit = fit_series("aaren")
    fit(tmp_path, max_epochs=2)
    # Days have the numbers of months: a prompt with dates tells them apart.
    same_numbers = series()
    same_numbers.index = pd.PeriodIndex.from_ordinals(series().index.asi8, freq="D")
    again = f"the checkpoint in {tmp_path} was written with "
    for changed, words in (
        ({"context_length": 15}, "context_length=12, this training has 15"),
        ({"learning_rate": 0.1}, "learning_rate="),
        ({"random_state": 1}, "random_state=0, this training has 1"),
        ({"loss": "mae"}, "loss=mse, this training has mae"),
        ({"y": series(change=1e-9)}, "other data; continue with the same, or give another"),
        ({"y": series().shift(freq="M")}, "other data"),
        ({"y": same_numbers}, "other data"),
    ):
        with pytest.raises(ModelFormatError) as refusal:
            fit(tmp_path, **({"max_epochs": 2} | changed))
        assert again + words in str(refusal.value)
    fit(tmp_path, max_epochs=2, verbose=0, device="cpu", random_state=np.int64(0))


def test_other_slices_are_refused_by_name(tmp_path):
    learn = learn_stream(max_epochs=1)
    learn(tmp_path)
    with pytest.raises(ModelFormatError, match=r"slice-000 was written with hidden=8, this .* 16"):
        learn(tmp_path, hidden=16)
    with pytest.raises(ModelFormatError, match="slice-000 was written with other training data"):
        learn(tmp_path, seed=1)


def test_other_names_of_types_are_other_data(tmp_path):
    table = stream(t_end=36)
    fit = functools.partial(small_prompttpp, "llm", checkpoint_dir=tmp_path, max_epochs=1)
    fit().fit(table)
    renamed = table.to_frame().replace({"bark": "zebra"})
    with pytest.raises(ModelFormatError, match="slice-000 was written with other training data"):
        fit().fit(renamed, windows=table.windows())


def test_a_slice_after_other_slices_is_refused(tmp_path):
    later = stream(t_end=36, seed=5)
    for seed, words in ((0, None), (0, None), (1, "slice-001 was written with other initial wei")):
        model = small_prompttpp(max_epochs=1).fit(stream(seed=seed))
        model.set_params(checkpoint_dir=tmp_path)
        if words is None:
            model.partial_fit(later)
        else:
            with pytest.raises(ModelFormatError, match=words):
                model.partial_fit(later)


def test_a_checkpoint_dir_that_is_no_path_is_refused(tmp_path):
    for wrong in (5, ""):
        with pytest.raises(DataError, match="checkpoint_dir must be"):
            fit_series("aaren")(wrong)


def test_a_fit_that_draws_anew_each_time_cannot_be_resumed(tmp_path):
    for random_state in (None, np.random.RandomState(0)):
        with pytest.raises(DataError, match=r"checkpoint_dir needs a whole number as random_state"):
            fit_series("aaren")(tmp_path, random_state=random_state)
        with pytest.raises(DataError, match=r"give random_state=0"):
            learn_stream()(tmp_path, random_state=random_state)


def test_updates_and_saved_models_have_no_checkpoint(tmp_path):
    forecaster = small("aaren", checkpoint_dir=tmp_path / "run", update_epochs=1)
    forecaster.fit(series()[:80], fh=[1, 2]).update(series()[80:])
    assert load(save(forecaster, tmp_path / "model")).checkpoint_dir is None
