"""ECDM: text-guided inpainting with structure-aware learning and cross-domain attention (Huang et al. 2024)."""

from zoo.models.ecdm.module import ECDM

__all__ = ["ECDM"]
