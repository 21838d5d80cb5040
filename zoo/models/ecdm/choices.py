"""What the options of ECDM may be; every stage refuses others, also of what only another stage builds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from zoo.errors import UsageError
from zoo.models.ecdm import hints
from zoo.models.ecdm.diffusion import SOLVERS, SPACINGS
from zoo.models.ecdm.losses import GATES, TAPS
from zoo.models.ecdm.sampler import DRAWS
from zoo.models.ecdm.spectrum import SpectrumOptions

CHOICES: dict[str, Sequence[str]] = {
    "codec": ("kl", "pca", "identity"),
    "hint": tuple(hints.HINTS),
    "controlnet_init": ("zero", "warm"),
    "sail_tap": TAPS,
    "sail_gate": GATES,
    "known_latent": hints.KNOWN,
    "latent_mask": hints.LATENT_MASKS,
    "solver": SOLVERS,
    "spacing": SPACINGS,
    "draw": DRAWS,
    "prediction": ("noise", "velocity"),
    "decay": ("constant", "linear", "cosine"),
}


def stages_of(options: Mapping[str, Any], stages: Sequence[str]) -> tuple[str, ...]:
    """The stages that are to be trained: what comes from a base, or is not used, needs no training.

    Args:
        options: All constructor arguments.
        stages: All stages, in order.
    """
    own = not options["base"]
    needed = {
        "autoencoder": own and options["codec"] != "identity",
        "unet": own,
        "teacher": options["sail"] and (own or not options["teacher_source"]),
        "inpaint": True,
    }
    return tuple(stage for stage in stages if needed[stage])


def check(options: Mapping[str, Any], stage: str) -> None:
    """Refuses options that cannot work.

    Raises:
        UsageError: A choice that is not offered, or options that contradict each other.
    """
    o = options
    for name, choices in CHOICES.items():
        if o[name] not in choices:
            raise UsageError(f"ecdm's {name} cannot be '{o[name]}'", remedy=f"one of {', '.join(choices)}")
    factor = o["codec_factor"]
    if factor < 1 or factor & (factor - 1):
        raise UsageError(f"codec_factor must be a power of two, got {factor}")
    halvings = factor.bit_length() - 1
    lists = ["hint_widths"] if o["base"] or o["codec"] != "kl" else ["hint_widths", "codec_widths"]
    for name in lists:
        if len(o[name]) != halvings + 1:
            remedy = f"{name} of {halvings + 1} numbers: one for each halving, and one more"
            raise UsageError(f"{name} has {len(o[name])} widths, and codec_factor is {factor}", remedy=remedy)
    if not 0 <= o["unet_plain"] < len(o["unet_channels"]):
        raise UsageError(f"unet_plain must be from 0 to {len(o['unet_channels']) - 1}, got {o['unet_plain']}")
    spectrum = ("radius", "window", "norm_scope", "amp", "phase", "hole_fill")
    SpectrumOptions(**{name: o[f"acda_{name}"] for name in spectrum})
    attending = range(len(o["unet_channels"]) - o["unet_plain"])
    if o["acda_blocks"] is not None and not (o["acda_blocks"] and {*o["acda_blocks"]} <= {*attending}):
        remedy = f"blocks of {[*attending]}; none of them: --model.acda false"
        raise UsageError(f"acda_blocks cannot be {list(o['acda_blocks'])}", remedy=remedy)
    if o["base"] and o["prediction"] != "noise":
        raise UsageError(f"the UNet of the base '{o['base']}' predicts noise", remedy="--model.prediction noise")
    if not 0.0 <= o["prompt_dropout"] <= 1.0:
        raise UsageError(f"prompt_dropout must lie in [0, 1], got {o['prompt_dropout']}")
    for name in ("sail_weight", "sail_max_timestep", "cache"):
        if o[name] < 0:
            raise UsageError(f"{name} must be at least 0, got {o[name]}")
    if o["base"] and stage in ("autoencoder", "unet"):
        what = f"the base '{o['base']}' has an autoencoder and a UNet: there is no stage '{stage}'"
        raise UsageError(what, remedy="--stage inpaint, or no base (--model.base '')")
    if o["codec"] == "identity" and stage == "autoencoder":
        raise UsageError("the codec 'identity' has nothing to fit", remedy="--stage unet")
