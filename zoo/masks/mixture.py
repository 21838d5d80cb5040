"""Mixtures of kinds, as training uses them.

`freeform,object,center`, with weights `2*object,freeform`, or by name `mixture:cma`.
"""

from __future__ import annotations

from dataclasses import dataclass

from zoo.errors import UsageError, unknown_name
from zoo.keyed import integers
from zoo.masks.canvas import Canvas, Mask
from zoo.masks.kinds import check_kind, draw_mask
from zoo.masks.mixtures import MIXTURES

NAMED = "mixture:"


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

    `mixture:NAME` stands for a mixture with a name, and may be a part of another.

    Raises:
        UsageError: An unknown kind, or a weight that is no positive number.
    """
    kinds: list[str] = []
    weights: list[float] = []
    for part in (p.strip() for p in text.split(",")):
        weight, star, kind = part.partition("*")
        kind = kind.strip() if star else part
        share = _weight(weight if star else "1", kind)
        if kind.startswith(NAMED):
            name = kind.removeprefix(NAMED)
            if name not in MIXTURES:
                raise unknown_name("mixture", name, list(MIXTURES))
            inner = parse_mixture(MIXTURES[name][0])
            kinds += inner.kinds
            weights += [share * probability for probability in inner.probabilities]
        else:
            check_kind(kind)
            kinds.append(kind)
            weights.append(share)
    return Mixture(tuple(kinds), tuple(weight / sum(weights) for weight in weights))


def _weight(text: str, kind: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        raise UsageError(f"'{text}' is no weight", remedy="write 2*object,freeform") from None
    if not 0 < weight < float("inf"):
        raise UsageError(f"the weight of '{kind}' must be positive, got {weight:g}")
    return weight


def draw_mixture(mixture: Mixture, canvas: Canvas, seed: int = 0) -> Mask:
    """The mask of an image under a mixture: first the kind, then the mask, both keyed."""
    return draw_mask(mixture.pick(canvas.id, seed), canvas, seed)
