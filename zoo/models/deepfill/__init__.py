"""DeepFill-v2 (Yu et al. 2019): gated convolution, contextual attention, SN-PatchGAN; and the options of v1."""

from zoo.models.deepfill.module import DeepFill

__all__ = ["DeepFill"]
