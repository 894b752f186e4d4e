"""``PrivateBackbone``: a shell around the shared weights that owns the weights trained in it."""

from collections.abc import Iterator, Mapping, Sequence
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn

from tsllm.backbone.architectures import ARCHITECTURES
from tsllm.backbone.handle import Backbone, Hidden, ModelFacts, run_causally
from tsllm.backbone.model_files import reason
from tsllm.backbone.own_generator import OwnGenerator
from tsllm.errors import DataError

_TRAINABLE = ("layer_norms", "positions")
_POSITION_MODULES = ("wpe", "embed_positions", "position_embeddings")
_LORA_DEFAULTS: dict[str, Any] = {"r": 8, "alpha": 16, "dropout": 0.0, "target_modules": None}


class PrivateBackbone(ModelFacts, nn.Module):
    """A language model with shared frozen weights and trained weights of its own.

    `tuned` makes it. ``parameters``, ``state_dict``, ``to`` and ``train`` see only the owned
    weights: float32 copies of layer norms and position embeddings, and LoRA adapters. Deep copies
    and pickles hold only these. Frozen modules stay in eval mode; LoRA's dropout follows ``train``.

    Parameters
    ----------
    backbone : Backbone
        The backbone whose weights are shared.
    train : sequence of {"layer_norms", "positions"}, default=()
    lora : mapping or None, default=None
        As for `tuned`.

    See Also
    --------
    tuned : Build a shell where something is trained.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        train: Sequence[str] = (),
        lora: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self._shared = backbone._shared
        self._train = _check_train(train)
        self._lora = _check_lora(lora)
        if backbone.trained_whole and lora is not None:
            raise DataError(
                f"lora={dict(lora)!r} tunes frozen weights, and the backbone {backbone.spec!r} is "
                "one layer that is trained whole: leave lora out."
            )
        shell = self._shared.new_shell()
        # nn.Module's own __setattr__ would register the frozen weights.
        object.__setattr__(self, "_shell", shell)
        # Adapters come first: peft freezes everything else that it finds.
        self._dropouts: list[nn.Module] = []
        if self._lora is not None:
            _inject_lora(shell, self._lora, ARCHITECTURES[backbone.model_type].lora_targets)
            self._dropouts = [m for n, m in shell.named_modules() if "lora_dropout." in n]
        self._slots: list[tuple[str, nn.Module, str]] = []
        self._own(shell)
        shell.eval()
        self.train(self.training)

    def hidden(
        self,
        inputs_embeds: Tensor,
        past: Any = None,
        *,
        attention_mask: Tensor | None = None,
        positions: Tensor | None = None,
        use_cache: bool = False,
        last_only: bool = False,
    ) -> Hidden:
        """Run the language model causally, as :meth:`Backbone.hidden`.

        Gradients flow to ``inputs_embeds`` and to the owned weights. ``last_only`` computes all
        tokens here, and returns the last one.
        """
        # Loading a state dict with assign=True replaces parameters; the shell must use the new.
        for name, module, attribute in self._slots:
            module._parameters[attribute] = self._parameters[name]
        return run_causally(
            self._shared,
            self._shell,  # type: ignore[arg-type]
            inputs_embeds,
            past,
            attention_mask=attention_mask,
            positions=positions,
            use_cache=use_cache,
            last_only=last_only,
        )

    def train(self, mode: bool = True) -> "PrivateBackbone":
        """Set LoRA's dropout on or off; the frozen modules stay in eval mode."""
        super().train(mode)
        for dropout in self._dropouts:
            dropout.train(mode)
        return self

    def _own(self, shell: nn.Module) -> None:
        """Put own parameters into the shell and register them here."""
        whole = self.backbone.trained_whole
        for path, module, attribute in list(_trainable(shell, self._train, whole=whole)):
            frozen = module._parameters[attribute]
            assert frozen is not None
            if "lora_" in path:
                owned = frozen
                owned.data = owned.data.float()
            else:
                owned = nn.Parameter(frozen.detach().float().clone())
                if frozen.dtype != torch.float32 and attribute == "weight":
                    module.register_forward_pre_hook(_to_float32)
                    module.register_forward_hook(_to_bfloat16)
            module._parameters[attribute] = owned
            # A parameter's name must not hold dots.
            name = path.replace(".", "/")
            self.register_parameter(name, owned)
            self._slots.append((name, module, attribute))

    def __reduce__(self) -> tuple[Any, ...]:
        # On the CPU, so that a model trained on CUDA can be unpickled without it.
        owned = {
            name: (parameter.detach().cpu().clone(), parameter.requires_grad)
            for name, parameter in self._parameters.items()
            if parameter is not None
        }
        return _restore, (self.backbone, self._train, self._lora, owned, self.training)


def tuned(
    backbone: Backbone | None,
    *,
    train: Sequence[str] = (),
    lora: Mapping[str, Any] | None = None,
) -> Backbone | PrivateBackbone | None:
    """Return a backbone in which some weights are trained: a shell around the shared weights.

    For a ``layer:...`` the shell has the layer, which is trained whole, from weights drawn from
    torch's global generator.

    Parameters
    ----------
    backbone : Backbone or None
        None is returned as it is.
    train : sequence of {"layer_norms", "positions"}, default=()
        Groups of weights of which the shell gets trainable copies: every layer norm, and the
        learned absolute position embeddings (a rotary model has none, so nothing is added).
    lora : mapping or None, default=None
        Low-rank adapters, made with peft: ``r`` (8), ``alpha`` (16), ``dropout`` (0.0) and
        ``target_modules`` (None: the query and value projections). They are initialised from
        torch's global generator and never merged into the base.

    Returns
    -------
    PrivateBackbone, Backbone or None
        The backbone itself where nothing in it is trained.

    Raises
    ------
    DataError
        An unknown group or LoRA entry.
    ImportError
        LoRA without peft.

    References
    ----------
    Hu et al. (2021), "LoRA: Low-Rank Adaptation of Large Language Models", arXiv 2106.09685,
    section 4.1.

    Examples
    --------
    >>> from tsllm.backbone import load_backbone
    >>> private = tuned(load_backbone("random:gpt2", device="cpu"), train=["layer_norms"])
    >>> sum(parameter.numel() for parameter in private.parameters())
    640
    """
    if backbone is None or (not train and lora is None and not backbone.trained_whole):
        return backbone
    return PrivateBackbone(backbone, train=train, lora=lora)


def _restore(
    backbone: Backbone,
    train: Sequence[str],
    lora: Mapping[str, Any] | None,
    owned: Mapping[str, tuple[Tensor, bool]],
    training: bool,
) -> PrivateBackbone:
    """Rebuild a private shell from its own weights."""
    # The initial values of new adapters are overwritten; the caller's generator must not move.
    with OwnGenerator(seed=0):
        private = PrivateBackbone(backbone, train=train, lora=lora)
    for name, parameter in private.named_parameters():
        values, requires_grad = owned[name]
        parameter.data = values.to(parameter.device)
        parameter.requires_grad_(requires_grad)
    return private.train(training)


def _trainable(
    shell: nn.Module, train: Sequence[str], *, whole: bool
) -> Iterator[tuple[str, nn.Module, str]]:
    """Yield path, module and attribute of each owned parameter; of all where ``whole``."""
    for module_path, module in shell.named_modules():
        norm = type(module).__name__.endswith(("LayerNorm", "RMSNorm"))
        positions = module_path.rpartition(".")[2] in _POSITION_MODULES
        wanted = whole or (norm and "layer_norms" in train) or (positions and "positions" in train)
        for attribute in module._parameters:
            path = f"{module_path}.{attribute}"
            if module._parameters[attribute] is not None and (wanted or "lora_" in path):
                yield path, module, attribute


def _inject_lora(shell: nn.Module, lora: Mapping[str, Any], usual: Sequence[str]) -> None:
    """Wrap linear layers, by default the ``usual`` ones, into peft's adapters in place."""
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ImportError("lora needs peft: pip install 'peft>=0.17'") from error
    targets = usual if lora["target_modules"] is None else lora["target_modules"]
    config = LoraConfig(
        r=lora["r"],
        lora_alpha=lora["alpha"],
        lora_dropout=lora["dropout"],
        target_modules=targets if isinstance(targets, str) else list(targets),
        # GPT-2 stores its linear weights transposed.
        fan_in_fan_out=any(type(module).__name__ == "Conv1D" for module in shell.modules()),
    )
    try:
        inject_adapter_in_model(config, shell)
    except (ValueError, TypeError) as error:
        raise DataError(f"lora={dict(lora)!r} does not work: {reason(error)}.") from error


def _to_float32(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Cast the inputs of an owned float32 norm inside a bfloat16 model."""
    return tuple(
        value.float() if isinstance(value, Tensor) and value.is_floating_point() else value
        for value in inputs
    )


def _to_bfloat16(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
    """Cast the output of an owned float32 module inside a bfloat16 model."""
    return output.bfloat16()


def _check_train(train: Sequence[str]) -> tuple[str, ...]:
    """Check the names of the groups."""
    unknown = [train] if isinstance(train, str) else [g for g in train if g not in _TRAINABLE]
    if unknown:
        raise DataError(f"train={train!r} is not possible; give a list of {list(_TRAINABLE)}.")
    return tuple(train)


def _check_lora(lora: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Fill in LoRA's defaults and check the entries."""
    if lora is None:
        return None
    if not isinstance(lora, Mapping):
        raise DataError(f"lora must be a mapping such as {_LORA_DEFAULTS}, found {lora!r}")
    unknown = sorted(set(lora) - set(_LORA_DEFAULTS))
    if unknown:
        raise DataError(f"lora has the unknown entries {unknown}; use {sorted(_LORA_DEFAULTS)}.")
    settings = _LORA_DEFAULTS | dict(lora)
    rank, alpha, dropout = (settings[name] for name in ("r", "alpha", "dropout"))
    targets = settings["target_modules"]
    if isinstance(rank, bool) or not isinstance(rank, Integral) or rank < 1:
        wrong = "'r' must be a whole number of at least 1"
    elif isinstance(alpha, bool) or not isinstance(alpha, int | float) or not alpha > 0:
        wrong = "'alpha' must be a number above 0"
    elif isinstance(dropout, bool) or not isinstance(dropout, int | float) or not 0 <= dropout < 1:
        wrong = "'dropout' must be a number of at least 0 and below 1"
    elif targets is not None and (
        not targets
        or not isinstance(targets, str | list | tuple)
        or not all(isinstance(target, str) for target in targets)
    ):
        wrong = "'target_modules' must be names of linear layers, or None"
    else:
        return settings
    raise DataError(f"lora={dict(lora)!r} cannot be used: {wrong}.")
