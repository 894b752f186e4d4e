"""The trained weights that come with the package: safetensors files beside this module.

They are checked before they are used.
"""

import hashlib
from dataclasses import dataclass
from importlib import resources
from typing import Any

import torch
from safetensors.torch import load
from torch import Tensor

from tsllm.backbone import DEFAULT_BACKBONE, Backbone, load_backbone
from tsllm.errors import ModelFormatError


@dataclass(frozen=True)
class PackagedWeights:
    """Trained weights in a file of this folder.

    Parameters
    ----------
    file : str
        A safetensors file of this folder, with half-precision numbers.
    sha256 : str
        Of the file.

    See Also
    --------
    tsllm.ZeroShotEventForecaster : The forecaster that uses `ZERO_SHOT_EVENTS`.

    Examples
    --------
    >>> tensors = ZERO_SHOT_EVENTS.read()
    >>> sum(tensor.numel() for tensor in tensors.values()) < 100_000
    True
    """

    file: str
    sha256: str

    def read(self) -> dict[str, Tensor]:
        """Return the tensors by name, in float32.

        Raises
        ------
        ModelFormatError
            The file is not the one that this version of the package was published with.
        """
        content = resources.files(__package__).joinpath(self.file).read_bytes()
        found = hashlib.sha256(content).hexdigest()
        if found != self.sha256:
            raise ModelFormatError(
                f"the packaged file {self.file} has the sha256 {found}, not {self.sha256}: install "
                "tsllm anew"
            )
        return {name: tensor.to(torch.float32) for name, tensor in load(content).items()}


@dataclass(frozen=True)
class PackagedPart(PackagedWeights):
    """The trained part of a model, and the language model that it was trained around.

    Parameters
    ----------
    file, sha256 : str
        See `PackagedWeights`.
    backbone : str
        The language model, as `load_backbone` takes it.
    layers : int
        Layers of it.
    digest : str
        The digest of these layers.
    lora : dict
        The LoRA adapters in it, as `tsllm.backbone.tuned` takes them.

    See Also
    --------
    tsllm.ZeroShotForecaster : The forecaster that uses `ZERO_SHOT`.

    Examples
    --------
    >>> tensors = ZERO_SHOT.read()
    >>> sum(tensor.numel() for tensor in tensors.values()) < 2_500_000
    True
    """

    backbone: str
    layers: int
    digest: str
    lora: dict[str, Any]

    def load_backbone(self, spec: str, device: str) -> Backbone:
        """Load the language model in float32, from ``spec``.

        Raises
        ------
        BackboneMismatchError
            The language model has other weights than the one of the training.
        """
        backbone = load_backbone(spec, layers=self.layers, device=device, dtype="float32")
        backbone.check_state({"spec": self.backbone, "digest": self.digest})
        return backbone


#: Forecasts without training: see `tsllm.ZeroShotForecaster` and ``benchmarks/zero_shot``.
ZERO_SHOT = PackagedPart(
    file="zero_shot.safetensors",
    sha256="469daeda2d4578927c9249ac802f8c3d4f0274fb232cb19454365de15fcd241a",
    backbone=DEFAULT_BACKBONE,
    layers=2,
    digest="ce616fed54d0f3cbcd328c25d6f98e0ba82360e7f08a5f5109337c00b8182f5a",
    lora={"r": 16, "alpha": 32, "target_modules": ["query", "key", "value", "dense"]},
)
#: Forecasts of events without training: see `tsllm.events.ZeroShotEventForecaster` and
#: ``benchmarks/zero_shot_events``.
ZERO_SHOT_EVENTS = PackagedWeights(
    file="zero_shot_events.safetensors",
    sha256="3849e05cace4271a4b2b6cd5043df0812aaff9304d294fa59ff22ae7cf89311c",
)
