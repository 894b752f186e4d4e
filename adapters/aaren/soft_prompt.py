"""A language model that reads a few vectors behind a text prompt, as soft tokens."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from tsllm.backbone import Backbone, PrivateBackbone


class SoftPromptReader(nn.Module):
    """Read vectors with a language model behind a text prompt, and add its outputs to them.

    Each vector is projected to a token behind the prompt (soft prompts: Lester et al., EMNLP 2021,
    section 2); the model's state at the token is projected back and added to the vector. The last
    projection starts at zero: an untrained reader changes nothing. The keys and values of the
    prompt are computed once in evaluation mode.

    Parameters
    ----------
    backbone : Backbone or PrivateBackbone
        The language model.
    hidden : int
        Width of the vectors.
    tokens : int
        Maximal number of vectors that are read at once.
    prompt : str
        The text before them; may be empty.

    Raises
    ------
    ValueError
        When prompt and tokens are more than the backbone's positions.

    Examples
    --------
    >>> from tsllm.backbone import load_backbone
    >>> reader = SoftPromptReader(load_backbone("random:gpt2", device="cpu"), 8, 4, "Rain, daily.")
    >>> x = torch.randn(2, 10, 8)
    >>> torch.equal(reader(x), x)
    True
    """

    def __init__(
        self, backbone: Backbone | PrivateBackbone, hidden: int, tokens: int, prompt: str
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.tokens = tokens
        ids = backbone.tokenizer(prompt, add_special_tokens=False)["input_ids"] if prompt else []
        most = backbone.max_positions
        if most is not None and len(ids) + tokens > most:
            raise ValueError(
                f"a prompt of {len(ids)} tokens and soft_prompt_length={tokens} are more than the "
                f"backbone's {most} positions: shorten the prompt, or use fewer soft tokens"
            )
        self._ids: list[int] = list(ids)
        self._prefix: Any = None
        self.in_layer = nn.Linear(hidden, backbone.hidden_size)
        self.out_layer = nn.Linear(backbone.hidden_size, hidden)
        nn.init.zeros_(self.out_layer.weight)
        nn.init.zeros_(self.out_layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Read a sequence (rows, length, hidden) of any length, in groups of ``tokens``."""
        rows, length, _ = x.shape
        groups = functional.pad(x, (0, 0, 0, -length % self.tokens))
        groups = groups.unflatten(1, (-1, self.tokens)).flatten(0, 1)  # (rows * groups, tokens, _)
        read = self._read(groups).unflatten(0, (rows, -1)).flatten(1, 2)
        return x + read[:, :length]

    def last(self, x: Tensor, counts: Tensor) -> Tensor:
        """Read the last ``counts`` (rows,) of some vectors, and return the last: (rows, hidden).

        ``x`` is (rows, tokens, hidden), the newest last. Rows with fewer vectors are read without
        padding.
        """
        places = torch.arange(x.shape[1], device=x.device)
        moved = (places + (x.shape[1] - counts)[:, None]).clamp_max(x.shape[1] - 1)
        x = x.gather(1, moved[..., None].expand_as(x))  # the first vector first
        final = (counts - 1)[:, None, None].expand(-1, 1, x.shape[2])
        return (x + self._read(x)).gather(1, final)[:, 0]

    def train(self, mode: bool = True) -> SoftPromptReader:
        """Set the mode, and delete the keys and values of the prompt."""
        super().train(mode)
        self._prefix = None
        return self

    def _read(self, x: Tensor) -> Tensor:
        """Run the language model over vectors (rows, tokens, hidden)."""
        tokens = self.in_layer(x)  # (rows, tokens, width)
        past = self._prompt_states(len(x))
        states = self.backbone.hidden(tokens, past).states  # (rows, tokens, width)
        out: Tensor = self.out_layer(states)
        return out

    def _prompt_states(self, rows: int) -> Any:
        """Return keys and values of the prompt for so many rows, as a copy that may be changed."""
        if not self._ids:
            return None
        prefix = self._prefix
        if prefix is None:
            ids = torch.tensor(self._ids, device=self.backbone.device)
            words = self.backbone.word_embeddings[ids][None]  # (1, prompt, width)
            prefix = self.backbone.hidden(words, use_cache=True).past
            if not self.training:
                self._prefix = prefix
        prefix = copy.deepcopy(prefix) if self._prefix is prefix else prefix
        prefix.batch_repeat_interleave(rows)
        return prefix

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_prefix": None}
