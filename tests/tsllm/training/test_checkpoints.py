"""Trainings that are killed and resumed, and checkpoints that cannot be trusted."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from torch import nn

from tsllm.errors import DataError, ModelFormatError
from tsllm.training import loop
from tsllm.training.callbacks import Callback
from tsllm.training.checkpoints import (
    held,
    load_checkpoint,
    remove_checkpoints,
    save_checkpoint,
)
from tsllm.training.loop import train
from tsllm.training.randomness import seeded
from tsllm.training.settings import Loss, TrainingSettings
from tsllm.training.windows import Windows

CONTEXT = 4
STEPS_PER_EPOCH = 6


class KilledError(Exception):
    pass


class KillAt(Callback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, state):
        if state.step == self.step:
            raise KilledError


def make_model(width=8):
    """Dropout, so that the random stream matters, and tied weights and buffers to be saved."""
    with seeded(0):
        model = nn.Sequential(
            nn.Linear(CONTEXT, width),
            nn.BatchNorm1d(width),
            nn.Dropout(0.5),
            nn.Linear(width, width),
            nn.Linear(width, width),
            nn.Linear(width, 1),
        )
    model[4].weight = model[3].weight
    model[0].bias.requires_grad_(False)
    return model


def make_windows():
    series = torch.sin(torch.arange(110) / 3)[:, None]
    series = series + 0.3 * torch.randn(series.shape, generator=torch.Generator().manual_seed(1))
    return Windows([series], context_length=CONTEXT, target_length=1).split(0.1)


def squared_error(model, batch):
    error = (model(batch.values[:, :-1, 0]) - batch.values[:, -1:, 0]) ** 2
    return Loss(error.sum(), batch.mask[:, -1:].sum(), {"largest": error.max()})


def run(callbacks=(), model=None, loss=squared_error, **settings):
    model = make_model() if model is None else model
    settings = {"max_epochs": 4, "batch_size": 16, "learning_rate": 0.05} | settings
    result = train(model, loss, *make_windows(), TrainingSettings(**settings), callbacks)
    history = [{k: v for k, v in row.items() if k != "seconds"} for row in result.history]
    outcome = history, result.best_epoch, result.steps, result.stopped
    return {name: value.clone() for name, value in model.state_dict().items()}, outcome


def assert_same_training(first, second):
    assert first[1] == second[1]
    assert first[0].keys() == second[0].keys()
    for name, value in first[0].items():
        assert value.equal(second[0][name]), name


@pytest.fixture(scope="module")
def uninterrupted():
    return run()


def test_the_epochs_are_as_long_as_the_tests_below_suppose(uninterrupted):
    assert [row["step"] for row in uninterrupted[1][0]] == [
        STEPS_PER_EPOCH * e for e in (1, 2, 3, 4)
    ]


@pytest.mark.parametrize("every", [None, 1, 4])
@pytest.mark.parametrize("killed_at", [7, 12, 13, 23])
def test_a_killed_training_resumes_bit_for_bit(tmp_path, uninterrupted, every, killed_at):
    saving = {"checkpoint_dir": tmp_path / "run", "checkpoint_every": every}
    with pytest.raises(KilledError):
        run([KillAt(killed_at)], **saving)
    _, facts = load_checkpoint(tmp_path / "run")
    interval = every or STEPS_PER_EPOCH
    assert facts["step"] == (killed_at - 1) // interval * interval
    assert_same_training(run(**saving), uninterrupted)


def test_a_training_may_be_killed_again_and_again(tmp_path, uninterrupted):
    saving = {"checkpoint_dir": tmp_path, "checkpoint_every": 2}
    with pytest.raises(KilledError):
        run([KillAt(3)], **saving)
    for step in (8, 11, 20):
        with pytest.raises(KilledError):
            run([KillAt(step)], **saving)
    assert_same_training(run(**saving), uninterrupted)


def test_saving_checkpoints_does_not_change_the_training(tmp_path, uninterrupted):
    assert_same_training(run(checkpoint_dir=tmp_path, checkpoint_every=1), uninterrupted)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.long
def test_a_process_killed_by_signal_resumes_bit_for_bit(tmp_path, uninterrupted):
    script = f"""
        import importlib.util, os, signal, sys, torch
        spec = importlib.util.spec_from_file_location("checkpointed", {str(Path(__file__))!r})
        tests = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(tests)
        torch.set_num_threads({torch.get_num_threads()})

        class Kill(tests.Callback):
            def on_step_end(self, state):
                if state.step == 15:
                    os.kill(os.getpid(), signal.SIGKILL)

        from pathlib import Path
        tests.run([Kill()], checkpoint_dir=Path({str(tmp_path)!r}), checkpoint_every=4)
    """
    environment = os.environ | {"PYTHONSAFEPATH": "1"}
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], env=environment)
    assert ended.returncode == -signal.SIGKILL
    assert load_checkpoint(tmp_path)[1]["step"] == 12
    assert_same_training(run(checkpoint_dir=tmp_path), uninterrupted)


def test_resuming_a_finished_training_only_restores_it(tmp_path):
    stops_early = {"learning_rate": 2.0, "patience": 1, "max_epochs": 50}
    finished = run(checkpoint_dir=tmp_path, **stops_early)
    assert finished[1][3] == "patience"

    def never(model, batch):
        raise AssertionError("nothing is left to train")

    assert_same_training(run(loss=never, checkpoint_dir=tmp_path, **stops_early), finished)


def test_time_before_the_interruption_counts(tmp_path):
    with pytest.raises(KilledError):
        run([KillAt(10)], checkpoint_dir=tmp_path)
    tensors, facts = load_checkpoint(tmp_path)
    save_checkpoint(tmp_path, tensors, facts | {"seconds": 1000.0})
    settings = TrainingSettings(
        max_epochs=4, batch_size=16, learning_rate=0.05, checkpoint_dir=tmp_path
    )
    result = train(make_model(), squared_error, *make_windows(), settings)
    assert 1000 < result.seconds < 1100


@pytest.mark.parametrize("fails_on", ["state-", "state.json"])
def test_a_crash_while_writing_leaves_the_former_checkpoint(
    tmp_path, monkeypatch, uninterrupted, fails_on
):
    replace = Path.replace

    def crash(self, target):
        if self.name.startswith(fails_on):
            raise KilledError
        return replace(self, target)

    class CrashLater(Callback):
        def on_step_end(self, state):
            if state.step == 9:
                monkeypatch.setattr(Path, "replace", crash)

    saving = {"checkpoint_dir": tmp_path, "checkpoint_every": 5}
    with pytest.raises(KilledError):
        run([CrashLater()], **saving)
    monkeypatch.undo()
    assert load_checkpoint(tmp_path)[1]["step"] == 5
    assert_same_training(run(**saving), uninterrupted)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".safetensors"]


@pytest.fixture
def interrupted(tmp_path):
    with pytest.raises(KilledError):
        run([KillAt(8)], checkpoint_dir=tmp_path)
    return tmp_path


def only_tensors(directory):
    (path,) = directory.glob("state-*.safetensors")
    return path


def count_a_step_more(run):
    state = json.loads((run / "state.json").read_text())
    state["facts"]["step"] += 1
    (run / "state.json").write_text(json.dumps(state))


def make_a_folder(path):
    path.unlink()
    path.mkdir()


def truncate(path):
    path.write_bytes(path.read_bytes()[:-10])


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda run: truncate(only_tensors(run)), "damaged: state-.* is not as it was written"),
        (lambda run: flip_a_bit(only_tensors(run)), "damaged: state-.* is not as it was written"),
        (lambda run: only_tensors(run).unlink(), "damaged: state-.* is missing"),
        (lambda run: truncate(run / "state.json"), "damaged: state.json"),
        (lambda run: (run / "state.json").write_text("[]"), "damaged: state.json"),
        (lambda run: count_a_step_more(run), "damaged: state.json is not as it was written"),
        (lambda run: make_a_folder(run / "state.json"), "damaged: state.json cannot be read"),
        (lambda run: make_a_folder(only_tensors(run)), "damaged: state-.* cannot be read"),
        (lambda run: (run / "state.json").write_bytes(b"\xff\x00"), "damaged: state.json"),
        (
            lambda run: (run / "state.json").write_text('{"format_version": 99}'),
            "format version 99, this tsllm reads version 1",
        ),
    ],
)
def test_a_damaged_checkpoint_is_refused_with_the_reason(interrupted, damage, reason):
    damage(interrupted)
    with pytest.raises(ModelFormatError, match=reason):
        run(checkpoint_dir=interrupted)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"batch_size": 32}, "batch_size=16, this training has 32"),
        ({"learning_rate": 0.1}, "learning_rate=0.05, this training has 0.1"),
        ({"rate_factors": {"1.": 2.0}}, r"rate_factors=\{\}, this training has \{'1.': 2.0\}"),
        ({"max_steps": 20}, "max_steps=None, this training has 20"),
        ({"seed": 1}, "seed=0, this training has 1"),
        ({"autocast": torch.bfloat16}, "autocast=None, this training has torch.bfloat16"),
        ({"model": make_model(width=9)}, "another model"),
        ({"identity": {"loss": "mse"}}, "loss=None, this training has mse"),
    ],
)
def test_a_checkpoint_of_another_training_is_refused(interrupted, changed, reason):
    with pytest.raises(ModelFormatError, match=reason):
        run(checkpoint_dir=interrupted, **changed)


def test_a_checkpoint_of_other_windows_is_refused(interrupted):
    training, validation = make_windows()
    settings = TrainingSettings(
        max_epochs=4, batch_size=16, learning_rate=0.05, checkpoint_dir=interrupted
    )
    with pytest.raises(ModelFormatError, match="training_windows=95, this training has 50"):
        train(make_model(), squared_error, training.thin(50), validation, settings)
    with pytest.raises(ModelFormatError, match="validation_windows=11, this training has None"):
        train(make_model(), squared_error, training, None, settings)
    training.series[0][3] += 1
    with pytest.raises(ModelFormatError, match="was written with other training data"):
        train(make_model(), squared_error, training, validation, settings)


def test_facts_of_the_caller_come_first_and_are_compared_as_json(tmp_path):
    facts = {"levels": (0.1, 0.9), "data": "one"}
    with pytest.raises(KilledError):
        run([KillAt(8)], checkpoint_dir=tmp_path, identity=facts)
    run(checkpoint_dir=tmp_path, identity={"levels": [0.1, 0.9], "data": "one"})
    with pytest.raises(ModelFormatError, match="written with other data; continue with the same"):
        run(checkpoint_dir=tmp_path, identity=facts | {"data": "two"}, batch_size=32)


def test_a_directory_without_a_checkpoint_starts_a_training(tmp_path, uninterrupted):
    (tmp_path / "state-0123456789abcdef.safetensors.part").write_bytes(b"killed while it wrote")
    mine = {"notes.txt", "state-of-the-art.safetensors", "state.json.bak"}
    for name in mine:
        (tmp_path / name).write_text("mine")
    assert load_checkpoint(tmp_path) is None
    assert_same_training(run(checkpoint_dir=tmp_path), uninterrupted)
    remove_checkpoints(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == mine


def test_a_directory_that_takes_no_checkpoint_is_refused_before_training(tmp_path):
    (tmp_path / "file").write_text("mine")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(DataError, match=r"checkpoints cannot be written to .*: give a dir"):
            run([KillAt(1)], checkpoint_dir=folder)


def test_two_trainings_do_not_share_a_directory(tmp_path, uninterrupted):
    with held(tmp_path), pytest.raises(DataError, match=r"another training writes to .* own"):
        run(checkpoint_dir=tmp_path)
    assert_same_training(run(checkpoint_dir=tmp_path), uninterrupted)


def test_a_long_epoch_is_saved_before_its_end(tmp_path, monkeypatch, uninterrupted):
    monkeypatch.setattr(loop, "_SAVE_AFTER", 0)
    with pytest.raises(KilledError):
        run([KillAt(3)], checkpoint_dir=tmp_path)
    assert load_checkpoint(tmp_path)[1]["step"] == 2
    assert_same_training(run(checkpoint_dir=tmp_path), uninterrupted)


def test_any_tensors_and_facts_come_back_as_they_were(tmp_path):
    whole = torch.arange(12.0).reshape(3, 4)
    tensors = {
        "transposed": whole.T,
        "shared": whole[1:],
        "half": whole.bfloat16(),
        "bytes": torch.arange(7, dtype=torch.uint8),
        "scalar": torch.tensor(3),
    }
    facts = {"float": 0.1 + 0.2, "none": None, "list": [1, "zwölf"]}
    save_checkpoint(tmp_path / "new" / "folder", tensors, facts)
    loaded, loaded_facts = load_checkpoint(tmp_path / "new" / "folder")
    assert loaded_facts == facts
    assert loaded.keys() == tensors.keys()
    for name, value in tensors.items():
        assert loaded[name].dtype == value.dtype
        assert loaded[name].equal(value)
