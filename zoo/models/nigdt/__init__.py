"""NIGDT: neural image inpainting guided with descriptive text (Zhang et al. 2020)."""

from zoo.models.nigdt.module import NIGDT

__all__ = ["NIGDT"]
