"""The share of counted frequencies in the predicted types, chosen on validation data."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from tsllm.adapters.events.batch import EventBatch
from tsllm.adapters.events.prompttpp import PromptTPPModel

#: The shares to choose from, and how many events the frequencies of all types weigh.
SHARES = (0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 1.0)
LEANS = (1.0, 1e9)
#: What fewer errors may cost, in nats an event.
MOST_LOST = 0.01


@torch.no_grad()
def count_types(
    model: PromptTPPModel, batches: Iterable[EventBatch], slots: Sequence[int] | None = None
) -> None:
    """Count the types of a slice, each in the slots that its position retrieves among ``slots``."""
    for batch in batches:
        seen, before = batch.observed & batch.scored, _before(batch)
        for weight, guess in model.pool.parts_of(model.retrieve(batch, slots), before):
            own = seen & (weight > 0)
            guess.count(batch.next_types[own], before[own])


@torch.no_grad()
def choose_type_shares(
    model: PromptTPPModel, batches: Iterable[EventBatch], slots: Sequence[int] | None = None
) -> None:
    """Choose how much the predicted types are those counted, for each of the ``slots``.

    The choice with the highest likelihood on these batches is made. Another one is preferred if it
    costs at most `MOST_LOST` of it and makes no more errors than two guesses: the most frequent
    type of all, and the most frequent type after the last type.
    """
    model.eval()
    changed = model.pool.guesses
    if slots is not None and model.pool.mode == "allocate":
        changed = [changed[slot] for slot in slots]
    for guess in changed:
        guess.share.zero_()
    choices = [(0.0, LEANS[0]), *((share, lean) for lean in LEANS for share in SHARES)]
    # Loss and errors of each choice, and events, by slot.
    sums = {id(guess): torch.zeros(len(choices), 2, dtype=torch.float64) for guess in changed}
    counts = dict.fromkeys(sums, 0)
    for batch in batches:
        states, before = model.encode(batch, slots), _before(batch)
        types: Tensor = model.decoder.type_log_probabilities(states)  # (batch, positions, types)
        seen = batch.observed & batch.scored
        for weight, guess in model.pool.parts_of(model.retrieve(batch, slots), before):
            at = seen & (weight > 0)
            if id(guess) not in sums or not bool(at.any()):
                continue
            own, true = types[at].exp(), batch.next_types[at]  # (events, types)
            counts[id(guess)] += len(true)
            for number, (share, lean) in enumerate(choices):
                guess.lean.fill_(lean)
                found = (1 - share) * own + share * guess.probabilities(before[at])
                loss = -found.gather(1, true[:, None]).clamp_min(1e-30).log().sum()
                errors = (found.argmax(1) != true).sum()
                sums[id(guess)][number] += torch.stack([loss.double(), errors.double()]).cpu()
    for guess in changed:
        losses, errors = sums[id(guess)].T
        near = losses <= losses.min() + MOST_LOST * counts[id(guess)]
        least = min(float(errors[choices.index((1.0, lean))]) for lean in LEANS)
        good = near & (errors <= least)
        best = torch.where(good if good.any() else near, losses, torch.inf).argmin()
        share, lean = choices[int(best)]
        guess.share.fill_(share)
        guess.lean.fill_(lean)


def _before(batch: EventBatch) -> Tensor:
    """Return the type before each position, (batch, positions), -1 for none."""
    return nn.functional.pad(batch.types, (1, 0), value=-1)
