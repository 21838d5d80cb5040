"""The networks of ECDM from sizes, and those of a base from the hub's cache. No tensor is read in building."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import nn

from zoo.errors import WeightsError
from zoo.models.ecdm import hub
from zoo.models.ecdm.codecs import Codec, IdentityCodec, KLCodec, PCACodec
from zoo.models.ecdm.hints import HINTS
from zoo.models.ecdm.text import ClipPrompts, PromptEncoder, word_encoder

if TYPE_CHECKING:
    from diffusers import ControlNetModel, UNet2DConditionModel

    from zoo.models.ecdm.controlnet import ECDMControlNet

Options = Mapping[str, Any]
OF_ACDA = (
    "acda", "acda_channels", "acda_blocks", "acda_radius", "acda_window", "acda_norm_scope", "acda_amp", "acda_phase",
    "acda_hole_fill", "acda_double_self_attn",
)  # fmt: skip


class Held(dict[str, nn.Module]):
    """Published networks by name, beside a module instead of in it.

    A module that registers them would save them, send them to every process and average them with its own parameters.
    A copy of the module, as for such an average, shares them: nothing changes them.
    """

    def __deepcopy__(self, memo: dict[int, Any]) -> Held:
        return self


def codec(o: Options) -> Codec:
    """The first stage of `codec` and its sizes, untrained."""
    if o["codec"] == "pca":
        return PCACodec(o["codec_factor"], o["codec_channels"])
    if o["codec"] == "identity":
        return IdentityCodec(o["codec_factor"])
    from diffusers import AutoencoderKL

    levels = len(o["codec_widths"])
    return KLCodec(
        AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            block_out_channels=tuple(o["codec_widths"]),
            layers_per_block=o["codec_layers"],
            latent_channels=o["codec_channels"],
            norm_num_groups=o["codec_groups"],
            sample_size=o["size"],
            scaling_factor=1.0,
            mid_block_add_attention=o["codec_attention"],
        )
    )


def text(o: Options) -> PromptEncoder:
    """An untrained encoder of the vocabulary's words."""
    return word_encoder(o["vocabulary"], o["text_length"], o["text_width"], o["text_layers"], o["text_heads"])


def latent_channels(o: Options) -> int:
    """Channels of the latents."""
    return 3 * o["codec_factor"] ** 2 if o["codec"] == "identity" else int(o["codec_channels"])


def _sizes(o: Options) -> dict[str, Any]:
    """What UNet and ControlNets have in common."""
    levels, plain = len(o["unet_channels"]), o["unet_plain"]
    return {
        "in_channels": latent_channels(o),
        "down_block_types": ("CrossAttnDownBlock2D",) * (levels - plain) + ("DownBlock2D",) * plain,
        "block_out_channels": tuple(o["unet_channels"]),
        "layers_per_block": o["unet_layers"],
        "attention_head_dim": o["unet_heads"],  # the number of heads, for all its name
        "norm_num_groups": o["unet_groups"],
        "cross_attention_dim": o["text_width"],
    }


def unet(o: Options) -> UNet2DConditionModel:
    """Stable Diffusion 1's UNet in other sizes, untrained."""
    from diffusers import UNet2DConditionModel

    levels, plain = len(o["unet_channels"]), o["unet_plain"]
    up = ("UpBlock2D",) * plain + ("CrossAttnUpBlock2D",) * (levels - plain)
    size = o["size"] // o["codec_factor"]
    return UNet2DConditionModel(sample_size=size, out_channels=latent_channels(o), up_block_types=up, **_sizes(o))


def teacher(o: Options) -> ControlNetModel:
    """A ControlNet for that UNet whose hint is three channels of edges, untrained."""
    from diffusers import ControlNetModel

    return ControlNetModel(conditioning_embedding_out_channels=tuple(o["hint_widths"]), **_sizes(o))


def student(o: Options) -> ECDMControlNet:
    """The student for that UNet, untrained."""
    from zoo.models.ecdm.controlnet import ECDMControlNet

    made: ECDMControlNet = ECDMControlNet(
        **{name: o[name] for name in OF_ACDA},
        **_sizes(o),
        conditioning_channels=HINTS[o["hint"]],
        conditioning_embedding_out_channels=tuple(o["hint_widths"]),
    )
    return made


def options_of(controlnet: Any) -> dict[str, Any]:
    """Constructor arguments of `ECDM` with which its student is that one.

    Args:
        controlnet: An `ECDMControlNet`.
    """
    c = controlnet.config
    kinds = {channels: name for name, channels in reversed(HINTS.items())}
    return {name: c[name] for name in OF_ACDA} | {
        "codec_channels": c["in_channels"],
        "codec_factor": 2 ** (len(c["conditioning_embedding_out_channels"]) - 1),
        "hint": "rgbm_neg1" if c["conditioning_channels"] == 4 else kinds[c["conditioning_channels"]],
        "hint_widths": list(c["conditioning_embedding_out_channels"]),
        "unet_channels": list(c["block_out_channels"]),
        "unet_layers": c["layers_per_block"],
        "unet_heads": c["attention_head_dim"],
        "unet_groups": c["norm_num_groups"],
        "unet_plain": list(c["down_block_types"]).count("DownBlock2D"),
        "text_width": c["cross_attention_dim"],
    }


def load_pipeline(source: str) -> tuple[KLCodec, PromptEncoder, UNet2DConditionModel]:
    """Codec, text encoder and UNet of a published pipeline, in evaluation mode.

    Raises:
        WeightsError: They are not here, or damaged.
    """
    model = hub.load("text_encoder", source)
    ids, length = model.config.vocab_size, model.config.max_position_embeddings
    prompts = PromptEncoder(model, ClipPrompts(hub.load_tokenizer(source, ids=ids, length=length)))
    return KLCodec(hub.load("vae", source)), prompts, hub.load("unet", source)


def load_base(o: Options) -> dict[str, nn.Module]:
    """Codec, text encoder and UNet of the base, frozen, in evaluation mode.

    Raises:
        WeightsError: They are not here, or of other sizes than the student is for.
        UsageError: The UNet has parts that Stable Diffusion 1 does not have.
    """
    from zoo.models.ecdm.unet import check

    found: dict[str, Any] = dict(zip(("codec", "text", "unet"), load_pipeline(o["base"]), strict=True))
    check(found["unet"])
    _check_sizes(o, found)
    return {name: network.requires_grad_(False).eval() for name, network in found.items()}


def load_teacher(o: Options) -> nn.Module:
    """The published ControlNet that teaches, frozen, in evaluation mode.

    Raises:
        WeightsError: It is not here, of other sizes than the student, or shown something else than edges.
    """
    found: Any = hub.load("controlnet", o["teacher_source"]).requires_grad_(False)
    edges = {"conditioning_channels": 3, "conditioning_embedding_out_channels": tuple(o["hint_widths"])}
    _refuse(f"the teacher '{o['teacher_source']}'", found.config, _sizes(o) | edges)
    network: nn.Module = found
    return network


def check_here(o: Options) -> None:
    """Refuses, without reading a tensor, a base that is not on this machine.

    Raises:
        WeightsError: As of `load_base`.
    """
    if o["base"]:
        hub.check_here(dict.fromkeys(("vae", "unet", "text_encoder", "tokenizer"), str(o["base"])))


def _check_sizes(o: Options, found: Mapping[str, Any]) -> None:
    config = found["unet"].config
    wanted = _sizes(o) | {"codec_factor": o["codec_factor"], "codec_channels": latent_channels(o)}
    there = {name: config[name] for name in wanted if name in config}
    there |= {"codec_factor": found["codec"].factor, "codec_channels": found["codec"].channels}
    _refuse(f"the base '{o['base']}'", there, wanted)


def _refuse(what: str, there: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Refuses a published network that has other sizes than the student."""
    differ = [
        f"{name} {_plain(there[name])}, not {_plain(wanted[name])}"
        for name in wanted
        if _plain(there[name]) != _plain(wanted[name])
    ]
    if differ:
        problem = f"{what} has other sizes than the student: {'; '.join(differ)}"
        raise WeightsError(problem, remedy="give the model its sizes (--model.unet_channels and so on), or another one")


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, list | tuple) else value
