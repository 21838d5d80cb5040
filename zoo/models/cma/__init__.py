"""CMA: text-guided inpainting by cross-modal alignment (Zhou and Long, EACL 2023)."""

from zoo.models.cma.module import CMA

__all__ = ["CMA"]
