"""The training loop against closed forms, hand-written loops and scripted losses."""

import math
import threading

import numpy as np
import pytest
import torch
from torch import nn

from tsllm.backbone import load_backbone
from tsllm.errors import (
    DataError,
    DeviceMemoryError,
    NotEnoughDataError,
    TrainingDivergedError,
)
from tsllm.training.callbacks import Callback
from tsllm.training.checkpoints import trainable_state
from tsllm.training.loop import cosine_learning_rate, train
from tsllm.training.randomness import seeded
from tsllm.training.settings import Loss, TrainingSettings
from tsllm.training.windows import Windows

CONTEXT = 4


class Recorder(Callback):
    """Keep what callbacks are shown, and the weights at the end of each epoch."""

    def __init__(self):
        self.rates, self.losses, self.weights = [], [], []

    def on_step_end(self, state):
        self.rates.append(state.learning_rate)
        self.losses.append(state.loss)

    def on_epoch_end(self, state):
        self.weights.append({n: t.clone() for n, t in trainable_state(state.model).items()})


class StopAtStep(Callback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, state):
        return state.step == self.step


def autoregressive_series(steps=300, missing=0.0, seed=0):
    rng = np.random.default_rng(seed)
    values = np.zeros(steps, dtype=np.float32)
    for t in range(2, steps):
        values[t] = 0.5 * values[t - 1] - 0.3 * values[t - 2] + rng.standard_normal()
    values[rng.random(steps) < missing] = np.nan
    return values


def make_windows(steps=300, missing=0.0, context=CONTEXT):
    series = torch.from_numpy(autoregressive_series(steps, missing))[:, None]
    return Windows([series], context_length=context, target_length=1)


def squared_error(model, batch):
    context, target = batch.values[:, :-1, 0], batch.values[:, -1:, 0]
    observed = batch.mask[:, -1:, 0]
    error = (model(context) - target) ** 2 * observed
    return Loss(error.sum(), observed.sum(), {"doubled": 2 * error.sum() / observed.sum()})


def linear(seed=0, dropout=0.0):
    with seeded(seed):
        if dropout:
            return nn.Sequential(
                nn.Linear(CONTEXT, 16), nn.Tanh(), nn.Dropout(dropout), nn.Linear(16, 1)
            )
        return nn.Linear(CONTEXT, 1)


def weights(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(first, second):
    return first.keys() == second.keys() and all(first[name].equal(second[name]) for name in first)


@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_linear_regression_reaches_the_closed_form(missing):
    windows = make_windows(missing=missing)
    model = linear()
    settings = TrainingSettings(max_epochs=300, batch_size=1000, learning_rate=0.05)
    train(model, squared_error, windows, None, settings)

    values = autoregressive_series(missing=missing)
    rows = [values[t - CONTEXT : t] for t in range(CONTEXT, len(values))]
    inputs = np.nan_to_num(np.array(rows, dtype=np.float64))
    inputs = np.hstack([inputs, np.ones((len(inputs), 1))])
    targets = values[CONTEXT:].astype(np.float64)
    observed = ~np.isnan(targets)
    solution = np.linalg.lstsq(inputs[observed], targets[observed], rcond=None)[0]
    trained = np.append(model.weight.detach().numpy(), model.bias.detach().numpy())
    assert np.allclose(trained, solution, atol=2e-4)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("clip_norm", [None, 0.05])
def test_the_loop_equals_one_written_by_hand_with_torchs_scheduler(weight_decay, clip_norm):
    windows = make_windows(100)
    settings = TrainingSettings(
        max_epochs=12,
        batch_size=1000,
        learning_rate=0.05,
        weight_decay=weight_decay,
        final_learning_rate=1e-4,
        clip_norm=clip_norm,
    )
    trained = linear()
    recorder = Recorder()
    result = train(trained, squared_error, windows, None, settings, [recorder])

    model = linear()
    optimizer = (
        torch.optim.AdamW(model.parameters(), lr=0.05, weight_decay=0.1)
        if weight_decay
        else torch.optim.Adam(model.parameters(), lr=0.05)
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 12, eta_min=1e-4)
    batch = windows.gather(range(len(windows)))
    for step in range(12):
        loss = ((model(batch.values[:, :-1, 0]) - batch.values[:, -1:, 0]) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        if clip_norm:
            nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
        assert recorder.rates[step] == pytest.approx(schedule.get_last_lr()[0], rel=1e-9)
        assert recorder.losses[step] == pytest.approx(loss.item(), rel=1e-4)
        assert result.history[step]["train_loss"] == pytest.approx(loss.item(), rel=1e-4)
        assert result.history[step]["doubled"] == pytest.approx(2 * loss.item(), rel=1e-4)
        optimizer.step()
        schedule.step()
    for name, value in model.state_dict().items():
        assert torch.allclose(trained.state_dict()[name], value, atol=1e-5)


@pytest.mark.parametrize(("max_steps", "planned"), [(None, 15), (7, 7), (100, 15)])
def test_the_learning_rate_falls_along_a_cosine_over_the_planned_steps(max_steps, planned):
    settings = TrainingSettings(
        max_epochs=3,
        max_steps=max_steps,
        batch_size=20,
        learning_rate=0.2,
        final_learning_rate=0.1,
    )
    recorder = Recorder()
    train(linear(), squared_error, make_windows(104), None, settings, [recorder])
    assert recorder.rates == pytest.approx(
        [0.1 + 0.05 * (1 + math.cos(math.pi * k / planned)) for k in range(planned)]
    )
    assert recorder.rates[0] == 0.2
    assert cosine_learning_rate(settings, planned, planned) == pytest.approx(0.1)


def test_each_epoch_sees_every_window_once_in_an_order_of_its_own():
    def order(seed):
        starts, sizes = [], []

        def loss(model, batch):
            starts.extend(batch.start.tolist())
            sizes.append(len(batch.start))
            return squared_error(model, batch)

        settings = TrainingSettings(max_epochs=2, batch_size=30, seed=seed)
        train(linear(), loss, make_windows(104), None, settings)
        assert sizes == [30, 30, 30, 10] * 2
        return starts[:100], starts[100:]

    first, second = order(0)
    assert sorted(first) == sorted(second) == list(range(100))
    assert first != second
    assert order(0) == (first, second)
    assert order(1) != (first, second)


def test_validation_loss_is_the_mean_over_all_windows_in_evaluation_mode():
    training, validation = make_windows(missing=0.1).split(0.2)
    model = linear(dropout=0.5)
    recorder = Recorder()
    settings = TrainingSettings(max_epochs=2, batch_size=7, learning_rate=0.01)
    result = train(model, squared_error, training, validation, settings, [recorder])
    batch = validation.gather(range(len(validation)))
    for row, recorded in zip(result.history, recorder.weights):
        model.load_state_dict(recorded)
        with torch.no_grad():
            expected = squared_error(model.eval(), batch)
        assert row["validation_loss"] == pytest.approx(float(expected.total / expected.count))


def scripted_validation(script):
    """The squared error in training; in validation, the next loss of the script."""
    losses = iter(script)

    def loss(model, batch):
        if model.training:
            return squared_error(model, batch)
        return Loss(torch.tensor(next(losses)), torch.tensor(1))

    return loss


@pytest.mark.parametrize(
    ("script", "patience", "best", "epochs", "stopped"),
    [
        ([5.0, 3.0, 4.0, 3.0, 6.0], 3, 2, 5, "patience"),
        ([5.0, 3.0, 4.0, 2.0, 6.0, 7.0], 2, 4, 6, "patience"),
        ([3.0, 3.0], 1, 1, 2, "patience"),
        ([9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0], 1, 8, 8, "max_epochs"),
        ([9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 4.0, 4.5], 2, 6, 8, "max_epochs"),
    ],
)
def test_early_stopping_restores_exactly_the_best_epoch(script, patience, best, epochs, stopped):
    training, validation = make_windows(100).split(0.1)
    assert len(validation) <= 32
    model = nn.Sequential(nn.BatchNorm1d(CONTEXT), nn.Linear(CONTEXT, 1))
    settings = TrainingSettings(max_epochs=8, batch_size=32, learning_rate=0.1, patience=patience)
    recorder = Recorder()
    loss = scripted_validation(script)
    result = train(model, loss, training, validation, settings, [recorder])
    assert [row["validation_loss"] for row in result.history] == script
    assert [row["epoch"] for row in result.history] == list(range(1, epochs + 1))
    assert (result.best_epoch, result.stopped) == (best, stopped)
    assert result.steps == result.history[-1]["step"] == 3 * epochs
    assert same(weights(model), recorder.weights[best - 1])
    assert not same(recorder.weights[best - 1], recorder.weights[best - 2])
    assert not model.training


@pytest.mark.parametrize("validation", ["none", "empty", "unobserved"])
def test_without_validation_every_epoch_runs_and_the_last_weights_stay(validation):
    windows = make_windows(60)
    held_out = None
    if validation == "empty":
        held_out = windows.split(0.0)[1]
    if validation == "unobserved":
        held_out = Windows([torch.full((9, 1), torch.nan)], context_length=CONTEXT, target_length=1)
    recorder = Recorder()
    model = linear()
    settings = TrainingSettings(max_epochs=6, patience=1, batch_size=20)
    result = train(model, squared_error, windows, held_out, settings, [recorder])
    assert [row["validation_loss"] for row in result.history] == [None] * 6
    assert (result.best_epoch, result.stopped) == (6, "max_epochs")
    assert same(weights(model), recorder.weights[-1])


def test_fewer_steps_than_an_epoch_still_end_with_a_validation():
    training, validation = make_windows().split(0.1)
    settings = TrainingSettings(max_steps=3, batch_size=16)
    result = train(linear(), squared_error, training, validation, settings)
    assert (result.steps, result.stopped, result.best_epoch) == (3, "max_steps", 1)
    assert [row["step"] for row in result.history] == [3]
    assert result.history[0]["validation_loss"] > 0


def test_a_callback_stops_training_and_the_others_are_still_called():
    training, validation = make_windows().split(0.1)
    recorder = Recorder()
    settings = TrainingSettings(batch_size=16)
    callbacks = [StopAtStep(5), recorder]
    result = train(linear(), squared_error, training, validation, settings, callbacks)
    assert (result.steps, result.stopped) == (5, "callback")
    assert len(recorder.losses) == 5
    assert result.history[-1]["validation_loss"] > 0

    class StopAfterEpoch(Callback):
        def on_epoch_end(self, state):
            return state.history[-1]["epoch"] == 2

    result = train(linear(), squared_error, training, None, settings, [StopAfterEpoch()])
    assert (len(result.history), result.stopped) == (2, "callback")


def test_frozen_parameters_are_left_alone():
    model = nn.Sequential(nn.Linear(CONTEXT, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
    model[0].requires_grad_(False)
    before = weights(model)
    train(model, squared_error, make_windows(60), None, TrainingSettings(max_epochs=1))
    after = weights(model)
    assert same(model[0].state_dict(), {"weight": before["0.weight"], "bias": before["0.bias"]})
    assert model[0].weight.grad is None
    assert not after["2.weight"].equal(before["2.weight"])
    assert trainable_state(model).keys() == after.keys() - {"0.weight", "0.bias"}
    assert trainable_state(model)["2.weight"].data_ptr() == model[2].weight.data_ptr()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_at_once(bad):
    def loss(model, batch):
        figures = squared_error(model, batch)
        return figures if len(recorder.losses) < 2 else Loss(figures.total * bad, figures.count)

    recorder = Recorder()
    model = linear()
    settings = TrainingSettings(batch_size=16, learning_rate=0.01)
    with pytest.raises(TrainingDivergedError, match=r"step 3; lower learning_rate \(0.01\)"):
        train(model, loss, make_windows(), None, settings, [recorder])
    assert len(recorder.losses) == 2
    assert all(value.isfinite().all() for value in weights(model).values())


def test_a_gradient_that_is_not_finite_stops_before_it_reaches_the_weights():
    def loss(model, batch):
        error = (model(batch.values[:, :-1, 0]) * 0).abs().sum().sqrt()
        return Loss(error, batch.mask[:, -1:].sum())

    model = linear()
    before = weights(model)
    with pytest.raises(TrainingDivergedError, match="norm nan at step 1"):
        train(model, loss, make_windows(), None, TrainingSettings())
    assert same(weights(model), before)


def test_a_validation_loss_that_is_not_finite_is_an_error():
    training, validation = make_windows(100).split(0.1)
    with pytest.raises(TrainingDivergedError, match="validation loss is nan after step 1"):
        loss = scripted_validation([math.nan])
        train(linear(), loss, training, validation, TrainingSettings())


def test_running_out_of_memory_names_the_remedies():
    def loss(model, batch):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(
        DeviceMemoryError, match=r"batch_size=48; .*backbone_layers.*dtype"
    ) as error:
        train(linear(), loss, make_windows(), None, TrainingSettings(batch_size=48))
    assert isinstance(error.value.__cause__, torch.OutOfMemoryError)


def test_nothing_to_train_on_is_an_error():
    settings = TrainingSettings(max_epochs=1)
    empty = make_windows().split(0.0)[1]
    with pytest.raises(NotEnoughDataError, match="no training window"):
        train(linear(), squared_error, empty, None, settings)
    missing = Windows([torch.full((20, 1), torch.nan)], context_length=CONTEXT, target_length=1)
    with pytest.raises(DataError, match="no target of the training windows holds an observed"):
        train(linear(), squared_error, missing, None, settings)
    with pytest.raises(DataError, match="no parameter to train"):
        train(linear().requires_grad_(False), squared_error, make_windows(), None, settings)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"max_epochs": 0}, "max_epochs is 0; it must be at least 1"),
        ({"max_steps": 0}, "max_steps is 0"),
        ({"batch_size": -4}, "batch_size is -4"),
        ({"patience": 0}, "patience is 0"),
        ({"checkpoint_every": 0}, "checkpoint_every is 0"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0; it must be above 0"),
        ({"clip_norm": math.nan}, "clip_norm is nan"),
        ({"weight_decay": -0.1}, "weight_decay is -0.1; it must not be negative"),
        ({"seed": -1}, "seed is -1"),
        ({"rate_factors": {"pool.": 0.0}}, "the rate factor of 'pool.' is 0.0; it must be above"),
    ],
)
def test_settings_out_of_range_are_named(setting, message):
    with pytest.raises(DataError, match=message):
        TrainingSettings(**setting)


def test_training_leaves_the_global_random_state_as_it_was():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    training, validation = make_windows().split(0.1)
    train(linear(dropout=0.5), squared_error, training, validation, TrainingSettings(max_epochs=1))
    assert torch.get_rng_state().equal(before)


class Ragged:
    """Sequences of several lengths, batched by length: what events are trained from."""

    def __init__(self, lengths):
        generator = torch.Generator().manual_seed(0)
        self.sequences = [torch.randn(n, CONTEXT, generator=generator) for n in lengths]
        self.gathered = []

    def __len__(self):
        return len(self.sequences)

    def fingerprint(self):
        return {"sequences": len(self)}

    def batches(self, batch_size, generator):
        order = torch.tensor([len(one) for one in self.sequences]).argsort(stable=True)
        parts = list(order.split(batch_size))
        if generator is None:
            return parts
        return [parts[i] for i in torch.randperm(len(parts), generator=generator)]

    def gather(self, indices):
        self.gathered.append(indices.tolist())
        return torch.cat([self.sequences[i] for i in indices])  # (events, CONTEXT)


def ragged_error(model, batch):
    error = (model(batch) - batch.sum(dim=1, keepdim=True)) ** 2
    return Loss(error.sum(), torch.tensor(len(batch)))


def test_a_training_set_may_choose_its_own_batches():
    training, validation = Ragged([5, 1, 9, 2, 7, 3, 1]), Ragged([4, 2, 6])
    model = linear()
    settings = TrainingSettings(max_epochs=60, batch_size=2, learning_rate=0.05)
    result = train(model, ragged_error, training, validation, settings)
    epochs = [training.gathered[i : i + 4] for i in range(0, len(training.gathered), 4)]
    assert sorted(epochs[0]) == [[0, 4], [1, 6], [2], [3, 5]]
    assert all(sorted(epoch) == sorted(epochs[0]) for epoch in epochs)
    assert len({str(epoch) for epoch in epochs}) > 1  # each epoch in an order of its own
    assert validation.gathered[:2] == [[1, 0], [2]]
    assert result.history[-1]["validation_loss"] < 1e-3
    again = Ragged([5, 1, 9, 2, 7, 3, 1])
    train(linear(), ragged_error, again, Ragged([4, 2, 6]), settings)
    assert again.gathered == training.gathered


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_parameters_may_have_learning_rates_of_their_own(weight_decay):
    windows = make_windows(100)
    settings = TrainingSettings(
        max_epochs=6,
        batch_size=1000,
        learning_rate=0.01,
        weight_decay=weight_decay,
        rate_factors={"0.": 10.0, "0.bias": 3.0},
        clip_norm=None,
    )

    def two_layers():
        with seeded(0):
            return nn.Sequential(nn.Linear(CONTEXT, 3), nn.Tanh(), nn.Linear(3, 1))

    trained, recorder = two_layers(), Recorder()
    train(trained, squared_error, windows, None, settings, [recorder])
    assert recorder.rates[0] == 0.01

    model = two_layers()
    optimizer = (torch.optim.AdamW if weight_decay else torch.optim.Adam)(
        [
            {"params": [model[0].weight], "lr": 0.1},
            {"params": [model[0].bias], "lr": 0.03},
            {"params": [*model[2].parameters()], "lr": 0.01},
        ],
        weight_decay=weight_decay,
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 6)
    batch = windows.gather(range(len(windows)))
    for _ in range(6):
        optimizer.zero_grad()
        ((model(batch.values[:, :-1, 0]) - batch.values[:, -1:, 0]) ** 2).mean().backward()
        optimizer.step()
        schedule.step()
    for name, value in model.state_dict().items():
        assert torch.allclose(trained.state_dict()[name], value, atol=1e-6)


def test_a_rate_factor_that_fits_nothing_is_an_error():
    settings = TrainingSettings(rate_factors={"pool.": 10.0})
    with pytest.raises(DataError, match=r"rate_factors names 'pool\.', and no parameter"):
        train(linear(), squared_error, make_windows(), None, settings)


def train_with_dropout(seed):
    model = linear(dropout=0.5)
    settings = TrainingSettings(max_epochs=3, batch_size=16, learning_rate=0.01, seed=seed)
    train(model, squared_error, make_windows(), None, settings)
    return weights(model)


def test_equal_seeds_train_equal_weights_whatever_the_global_random_state():
    torch.manual_seed(1)
    first = train_with_dropout(0)
    torch.manual_seed(2)
    assert same(first, train_with_dropout(0))
    assert not same(first, train_with_dropout(1))


def in_threads(*jobs):
    """Run the jobs at once and return their results."""
    results = [None] * len(jobs)
    start = threading.Barrier(len(jobs))

    def work(place, job):
        start.wait()
        results[place] = job()

    threads = [threading.Thread(target=work, args=pair) for pair in enumerate(jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_two_threads_train_what_each_trains_alone():
    before = torch.get_rng_state()
    together = in_threads(lambda: train_with_dropout(0), lambda: train_with_dropout(1))
    assert same(together[0], train_with_dropout(0))
    assert same(together[1], train_with_dropout(1))
    assert torch.get_rng_state().equal(before)


def train_over_backbone(autocast):
    backbone = load_backbone("random:gpt2?hidden=32&layers=2&heads=2&seed=0", device="cpu")

    class OverBackbone(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Linear(1, backbone.hidden_size)
            self.head = nn.Linear(backbone.hidden_size, 1)

        def forward(self, context):
            return self.head(backbone.hidden(self.embed(context[..., None])).states[:, -1])

    with seeded(0):
        model = OverBackbone()
    settings = TrainingSettings(max_steps=4, batch_size=16, learning_rate=0.01, autocast=autocast)
    training, validation = make_windows(120).split(0.2)
    result = train(model, squared_error, training, validation, settings)
    assert all(value.dtype == torch.float32 for value in weights(model).values())
    return weights(model), result.history[-1]["validation_loss"]


def test_two_threads_train_in_types_of_their_own():
    single, half = train_over_backbone(None), train_over_backbone(torch.bfloat16)
    assert not same(single[0], half[0])
    assert single[1] == pytest.approx(half[1], rel=0.05)
    together = in_threads(
        lambda: train_over_backbone(None), lambda: train_over_backbone(torch.bfloat16)
    )
    assert same(together[0][0], single[0])
    assert same(together[1][0], half[0])


@pytest.mark.parametrize("verbose", [0, 1])
def test_progress_goes_to_stderr_when_asked_for(verbose, capsys):
    settings = TrainingSettings(max_epochs=2, verbose=verbose)
    train(linear(), squared_error, make_windows(100), None, settings)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert ("2/2" in captured.err) == bool(verbose)
    assert bool(captured.err) == bool(verbose)


@pytest.mark.gpu
def test_on_a_gpu_dropout_repeats_and_the_generators_are_left_alone():
    if not torch.cuda.is_available():
        pytest.skip("this machine has no gpu")

    def run():
        model = linear(dropout=0.5)
        settings = TrainingSettings(max_epochs=2, batch_size=16, device=torch.device("cuda"))
        train(model, squared_error, make_windows(), None, settings)
        return weights(model)

    torch.cuda.manual_seed(3)
    before = torch.cuda.get_rng_state()
    first = run()
    assert all(value.is_cuda for value in first.values())
    assert torch.cuda.get_rng_state().equal(before)
    torch.rand(5, device="cuda")
    assert same(first, run())
