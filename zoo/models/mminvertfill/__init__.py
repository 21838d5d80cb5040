"""MMInvertFill: inpainting by GAN inversion with multi-modal guidance (Zhang et al. 2025)."""

from zoo.models.mminvertfill.module import MMInvertFill

__all__ = ["MMInvertFill"]
