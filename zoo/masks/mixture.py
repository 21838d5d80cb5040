"""Mixtures of kinds, as training uses them: `freeform,object,center`, or with weights `2*object,freeform`."""

from __future__ import annotations

from dataclasses import dataclass

from zoo.errors import UsageError
from zoo.keyed import integers
from zoo.masks.canvas import Canvas, Mask
from zoo.masks.kinds import check_kind, draw_mask


@dataclass(frozen=True)
class Mixture:
    """Kinds and their probabilities, which sum to 1."""

    kinds: tuple[str, ...]
    probabilities: tuple[float, ...]

    def pick(self, sample: str, seed: int) -> str:
        """The kind an image gets, keyed by its id and the seed."""
        if len(self.kinds) == 1:
            return self.kinds[0]
        draw = integers(1, "mixture", sample, seed)[0] / 65536
        reached = 0.0
        for kind, probability in zip(self.kinds, self.probabilities, strict=True):
            reached += probability
            if draw < reached:
                return kind
        return self.kinds[-1]


def parse_mixture(text: str) -> Mixture:
    """Reads `kind,kind` (equal parts) or `weight*kind,...`; one kind is a mixture of one.

    Raises:
        UsageError: An unknown kind, or a weight that is no positive number.
    """
    kinds, weights = [], []
    for part in (p.strip() for p in text.split(",")):
        weight, star, kind = part.partition("*")
        kinds.append(kind.strip() if star else part)
        try:
            weights.append(float(weight) if star else 1.0)
        except ValueError:
            raise UsageError(f"'{weight}' is no weight", remedy="write 2*object,freeform") from None
        check_kind(kinds[-1])
        if not 0 < weights[-1] < float("inf"):
            raise UsageError(f"the weight of '{kinds[-1]}' must be positive, got {weights[-1]:g}")
    return Mixture(tuple(kinds), tuple(weight / sum(weights) for weight in weights))


def draw_mixture(mixture: Mixture, canvas: Canvas, seed: int = 0) -> Mask:
    """The mask of an image under a mixture: first the kind, then the mask, both keyed."""
    return draw_mask(mixture.pick(canvas.id, seed), canvas, seed)
