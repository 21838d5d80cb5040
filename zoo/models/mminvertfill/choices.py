"""What the options of MMInvertFill may be; either stage refuses others, also of what only the other stage builds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from zoo.errors import UsageError
from zoo.models.mminvertfill import attention, backbone, bottleneck, branch, decoder, features, losses, maps, mean

CHOICES: dict[str, Sequence[str]] = {
    "norm": backbone.NORMS,
    "bottleneck": bottleneck.KINDS,
    "acb_variant": bottleneck.VARIANTS,
    "fusion": decoder.FUSIONS,
    "aux_source": decoder.SOURCES,
    "gma_gate": attention.GATES,
    "adn_order": attention.ORDERS,
    "ff_variant": attention.FEED_FORWARDS,
    "dec_up": decoder.ENLARGEMENTS,
    "mask_down": decoder.MASKS,
    "map_width": maps.WIDTHS,
    "sml": mean.MODES,
    "sml_mode": ("offset", "regularise"),
    "f4": branch.F4,
    "branch_input": branch.INPUTS,
    "noise": ("fixed", "random", "none"),
    "adv_on": ("raw", "composite"),
    "adv_kind": losses.ADVERSARIAL,
    "ipt": ("hrf", "rfr"),
    "hrf": features.HRF,
    "perc": features.PERC,
    "fid_kind": losses.FIDELITY,
    "decay": ("linear", "constant"),
}


def check(options: Mapping[str, Any]) -> None:
    """Refuses options that cannot work.

    Raises:
        UsageError: A choice that is not offered, or options that contradict each other.
    """
    o = options
    for name, choices in CHOICES.items():
        if o[name] not in choices:
            raise UsageError(f"mminvertfill's {name} cannot be '{o[name]}'", remedy=f"one of {', '.join(choices)}")
    multiple = 8 * max(o["patches"], default=1)
    if o["size"] % multiple:
        raise UsageError(
            f"patches of {max(o['patches'])} cells do not divide the maps of images of {o['size']} pixels",
            remedy=f"a size that is a multiple of {multiple}, or smaller patches",
        )
    if o["ipt"] == "rfr" and (o["perc"] == "none" or (o["perc"], o["hrf"]) == ("hrf", "none")):
        raise UsageError("InvertFill's loss (ipt: rfr) has perceptual terms", remedy="--model.perc vgg16, or hrf")
    if o["segmentation"] and o["classes"] < 2:
        raise UsageError("a segmentation has at least two classes", remedy="--model.segmentation false")
    for weight, every in (("r1", "r1_every"), ("pl", "pl_every")):
        if o[weight] > 0 and o[every] < 1:
            raise UsageError(f"{every} must be at least 1, got {o[every]}", remedy=f"--model.{weight} 0 leaves it out")


def by_resolution(channels: Sequence[int], first: int = 4) -> dict[int, int] | None:
    """Channels by resolution, doubled each time from `first` on; None where none are given."""
    return {first * 2**i: c for i, c in enumerate(channels)} or None
