"""Masks: keyed by (dataset, image id, kind, seed); 1 = hole."""

from zoo.masks.canvas import Canvas
from zoo.masks.kinds import check_kind, draw_mask, examples, kinds
from zoo.masks.mixture import Mixture, draw_mixture, parse_mixture

__all__ = ["Canvas", "Mixture", "check_kind", "draw_mask", "draw_mixture", "examples", "kinds", "parse_mixture"]
