"""The trained weights that come with the package."""

from tsllm.pretrained.weights import ZERO_SHOT, PackagedWeights

__all__ = ["ZERO_SHOT", "PackagedWeights"]
