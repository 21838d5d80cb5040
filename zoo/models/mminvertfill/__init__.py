"""MMInvertFill: inpainting by GAN inversion with multi-modal guidance (Yu et al. 2024)."""

from zoo.models.mminvertfill.module import MMInvertFill

__all__ = ["MMInvertFill"]
