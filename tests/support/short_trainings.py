"""Trainings of two steps: for tests of text and notebooks, which need a model, not a good one."""

from dataclasses import replace

import tsllm.events.prompttpp.trainer
import tsllm.forecasters.learning
from tsllm.training.loop import train

STEPS = 2
#: The modules that train, each through its name ``train``.
TRAINERS = (tsllm.forecasters.learning, tsllm.events.prompttpp.trainer)


def train_briefly(model, loss, training, validation, settings, callbacks=()):
    """Train for two steps, where the settings ask for more."""
    steps = min(settings.max_steps or STEPS, STEPS)
    return train(model, loss, training, validation, replace(settings, max_steps=steps), callbacks)


def shorten():
    """Shorten every training of this process."""
    for module in TRAINERS:
        module.train = train_briefly
