"""The student: diffusers' ControlNet with asymmetric cross-domain attention in its down path (Sec. 4.2, Fig. 3).

A drop-in for diffusers' pipelines, which hand a ControlNet nothing but the hint: without `freq_kv` the forward pass
makes it. A sampling loop makes it once: it depends neither on the time step, nor on the text, nor on the latent.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from diffusers.configuration_utils import register_to_config
from diffusers.models.controlnets.controlnet import ControlNetOutput
from torch import Tensor, nn

from zoo.errors import UsageError, WeightsError, unknown_name
from zoo.models.ecdm.acda import CHANNELS, ACDAProcessor, FrequencyEncoder, KeyValue
from zoo.models.ecdm.spectrum import SpectrumOptions, frequency_map

DOWN_BLOCKS = ("CrossAttnDownBlock2D", "DownBlock2D")
INITS = ("zero", "warm")
HINT = "controlnet_cond_embedding.conv_in.weight"
NEW = ("freq_encoder.", "acda_kv.")  # what a plain ControlNet does not have


def _with_arguments_of(parent: Any) -> Any:
    """Gives a constructor the parent's arguments besides its own, by name.

    diffusers saves the arguments that the signature names; a bare `**kwargs` there makes saving crash.
    """

    def decorate(init: Any) -> Any:
        own = [p for p in inspect.signature(init).parameters.values() if p.kind is not p.VAR_KEYWORD]
        theirs = list(inspect.signature(parent).parameters.values())[1:]
        init.__signature__ = inspect.Signature([*own, *(p.replace(kind=p.KEYWORD_ONLY) for p in theirs)])
        return init

    return decorate


class ECDMControlNet(ControlNetModel):  # type: ignore[misc]
    """diffusers' `ControlNetModel`, all of whose arguments it takes by name, with ACDA.

    Args:
        acda: Whether there is ACDA; without it this is the plain ControlNet, as in the baseline and with SAIL alone.
        acda_channels: Widths of the token encoder, one for each halving.
        acda_blocks: The down blocks that have ACDA in their cross-attention; None: each that has any.
        acda_radius: As `radius` of `SpectrumOptions`; and so the next five.
        acda_window: `square` or `disc`.
        acda_norm_scope: `sample` or `batch`.
        acda_amp: `linear` or `log1p`.
        acda_phase: `radians`, `over_pi` or `sincos`.
        acda_hole_fill: `neg1`, `zero` or `mean`.
        acda_double_self_attn: Whether self-attention of the same blocks has a second term too, over its own input, as
            in the released code; its values begin at zero.
        **arguments: `ControlNetModel`'s; `conditioning_channels` is 3, or 4 with the mask.

    Raises:
        UsageError: An unknown name, a hint of other channels, or blocks that ACDA does not know.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    @_with_arguments_of(ControlNetModel.__init__)  # type: ignore[untyped-decorator]
    def __init__(
        self,
        *,
        acda: bool = True,
        acda_channels: Sequence[int] = CHANNELS,
        acda_blocks: Sequence[int] | None = None,
        acda_radius: int | str = 4,
        acda_window: str = "square",
        acda_norm_scope: str = "sample",
        acda_amp: str = "linear",
        acda_phase: str = "radians",
        acda_hole_fill: str = "neg1",
        acda_double_self_attn: bool = False,
        **arguments: Any,
    ) -> None:
        super().__init__(**arguments)
        self.spectrum = SpectrumOptions(acda_radius, acda_window, acda_norm_scope, acda_amp, acda_phase, acda_hole_fill)
        _check(self.config)
        self.acda_kv = nn.ModuleDict()
        self.freq_encoder: FrequencyEncoder | None = None
        layers = self._layers(acda_blocks) if acda else {}
        processors = {name: ACDAProcessor() for name in self.attn_processors}
        for name, layer in layers.items():
            own = name.endswith("attn1")
            if own and not acda_double_self_attn:
                continue
            key = name.replace(".", "_")
            width = layer.query_dim if own else layer.cross_attention_dim
            kv = nn.ModuleDict({part: nn.Linear(width, layer.inner_dim, bias=False) for part in ("k", "v")})
            if own:
                nn.init.zeros_(kv.get_parameter("v.weight"))
            self.acda_kv[key] = kv
            processors[f"{name}.processor"] = ACDAProcessor(None, kv) if own else ACDAProcessor(key)
        if acda:
            self.freq_encoder = FrequencyEncoder(
                self.config["cross_attention_dim"], self.spectrum.channels, acda_channels
            )
        self.set_attn_processor(processors)
        self._attending = list(layers.values())

    def _layers(self, blocks: Sequence[int] | None) -> dict[str, Any]:
        """The attention layers of the named down blocks, by name."""
        if blocks is not None and not blocks:
            raise UsageError("acda_blocks is empty", remedy="acda: false")
        chosen = range(len(self.down_blocks)) if blocks is None else blocks
        begins = tuple(f"down_blocks.{b}.attentions." for b in chosen)
        found = {n: m for n, m in self.named_modules() if n.startswith(begins) and n.endswith((".attn1", ".attn2"))}
        lacking = [b for b, start in zip(chosen, begins, strict=True) if not any(n.startswith(start) for n in found)]
        if blocks is not None and lacking:
            raise UsageError(f"acda_blocks names {lacking}, down blocks without attention", remedy="leave them out")
        return found

    def precompute(self, hint: Tensor, repeat: int = 1) -> dict[str, KeyValue]:
        """K' and V' of each layer with ACDA, by its key: B N c each; empty without ACDA.

        Args:
            hint: B 3|4 H W, as the forward pass takes it.
            repeat: How often the batch is stacked: 2 for both halves of classifier-free guidance.
        """
        if self.freq_encoder is None:
            return {}
        tokens = self.freq_encoder(frequency_map(hint, self.spectrum))
        made = {}
        for key in self.acda_kv:
            if key.endswith("attn2"):
                k, v = (self.acda_kv.get_submodule(f"{key}.{part}")(tokens) for part in ("k", "v"))
                made[key] = (k, v) if repeat == 1 else (k.repeat(repeat, 1, 1), v.repeat(repeat, 1, 1))
        return made

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor | float | int,
        encoder_hidden_states: Tensor,
        controlnet_cond: Tensor,
        conditioning_scale: float = 1.0,
        class_labels: Tensor | None = None,
        timestep_cond: Tensor | None = None,
        attention_mask: Tensor | None = None,
        added_cond_kwargs: dict[str, Tensor] | None = None,
        cross_attention_kwargs: dict[str, Any] | None = None,
        guess_mode: bool = False,
        return_dict: bool = True,
    ) -> ControlNetOutput | tuple[list[Tensor], Tensor]:
        """The residuals of the down path and of the middle, as `ControlNetModel` gives them.

        Args:
            sample: B C h w, the noisy latent.
            timestep: One, or B.
            encoder_hidden_states: B T c, the text.
            controlnet_cond: The hint, B 3|4 H W, -1 in the hole.
            conditioning_scale: Times the residuals; 1 is the paper's.
            class_labels: As there.
            timestep_cond: As there.
            attention_mask: As there.
            added_cond_kwargs: As there.
            cross_attention_kwargs: May hold `freq_kv`, what `precompute` made of this hint; it is made where it lacks.
            guess_mode: As there.
            return_dict: As there.

        Raises:
            UsageError: ACDA is there and its attention processors were replaced.
        """
        if not all(isinstance(layer.processor, ACDAProcessor) for layer in self._attending):
            what = "diffusers has replaced attention processors of the student, and ACDA with them"
            raise UsageError(what, remedy="leave out enable_attention_slicing and the like: attention here is fused")
        extra = dict(cross_attention_kwargs or {})
        if "freq_kv" not in extra:
            extra["freq_kv"] = self.precompute(controlnet_cond)
        return super().forward(
            sample, timestep, encoder_hidden_states, controlnet_cond, conditioning_scale, class_labels, timestep_cond,
            attention_mask, added_cond_kwargs, cross_attention_kwargs=extra, guess_mode=guess_mode,
            return_dict=return_dict,
        )  # fmt: skip

    @classmethod
    def from_unet(
        cls,
        unet: UNet2DConditionModel,
        controlnet_conditioning_channel_order: str = "rgb",
        conditioning_embedding_out_channels: tuple[int, ...] | None = (16, 32, 96, 256),
        load_weights_from_unet: bool = True,
        conditioning_channels: int = 3,
        init: str = "zero",
        **options: Any,
    ) -> Self:
        """A student that starts as a copy of the UNet's down path and middle, as a ControlNet does.

        Args:
            unet: Its sizes, and its weights.
            controlnet_conditioning_channel_order: `rgb` or `bgr`.
            conditioning_embedding_out_channels: Widths of the hint's encoder: log2 of the codec's factor, and one more.
            load_weights_from_unet: Whether weights are copied, or only sizes.
            conditioning_channels: Of the hint, 3 or 4.
            init: As in `initialize`.
            **options: Of ACDA, by the constructor's names.

        Raises:
            UsageError: As of the constructor and of `initialize`.
        """
        plain = ControlNetModel.from_unet(
            unet, controlnet_conditioning_channel_order, conditioning_embedding_out_channels, load_weights_from_unet,
            conditioning_channels,
        )  # fmt: skip
        student: Self = cls.from_controlnet(plain, **options)
        initialize(student, init)
        return student

    @classmethod
    def from_controlnet(
        cls, controlnet: ControlNetModel, conditioning_channels: int | None = None, **options: Any
    ) -> Self:
        """A student that starts as a ControlNet, such as `control_v11p_sd15_inpaint`, and computes the same as yet.

        Args:
            controlnet: Its sizes and weights.
            conditioning_channels: Of the student's hint; None: as many as the ControlNet's. A mask channel that it does
                not have begins at zero; the hole must stay -1 in the colours, or these weights never saw such a hint.
            **options: Of ACDA, by the constructor's names.

        Raises:
            UsageError: As of the constructor.
            WeightsError: As of `warm_start`.
        """
        known = inspect.signature(ControlNetModel.__init__).parameters
        config = {name: value for name, value in controlnet.config.items() if name in known}
        if conditioning_channels is not None:
            config["conditioning_channels"] = conditioning_channels
        student: Self = cls(**config, **options)
        nn.Module.to(student, controlnet.device, controlnet.dtype)  # ControlNetModel.to warns of any change of dtype
        warm_start(student, controlnet.state_dict())
        return student


def warm_start(student: ECDMControlNet, state: Mapping[str, Tensor], where: str = "") -> None:
    """Loads a ControlNet's tensors, with those of ACDA or without; those that lack stay as they are.

    Args:
        student: Changed in place.
        state: Under diffusers' names. A hint encoder of three channels fits one of four: the mask's weights are zero.
        where: The file, for the error.

    Raises:
        WeightsError: A tensor of the ControlNet lacks, is left over or has another shape.
    """
    found, wanted = dict(state), student.state_dict()
    hint = found.get(HINT)
    if hint is not None and hint.dim() == 4 and hint.shape[1] == 3 and wanted[HINT].shape[1] == 4:
        found[HINT] = torch.cat([hint, torch.zeros_like(hint[:, :1])], 1)
    problems = [f"{name} is missing" for name in wanted if name not in found and not name.startswith(NEW)]
    for name, tensor in found.items():
        if name not in wanted:
            problems.append(f"{name} has no place")
        elif tensor.shape != wanted[name].shape:
            problems.append(f"{name} is {tuple(tensor.shape)}, not {tuple(wanted[name].shape)}")
    if problems:
        more = f"; and {len(problems) - 4} more" if len(problems) > 4 else ""
        remedy = "the sizes of the student (UNet, hint channels, ACDA) must be those of these weights"
        raise WeightsError("these weights do not fit the student: " + "; ".join(problems[:4]) + more, where, remedy)
    student.load_state_dict(found, strict=False)


@torch.no_grad()
def initialize(controlnet: ControlNetModel, init: str = "zero") -> None:
    """Sets where a ControlNet made from a UNet starts.

    Args:
        controlnet: Changed in place.
        init: `zero`, as it is made: its residuals are zero, and nothing is learned for thousands of steps; or `warm`:
            the hint's last convolution after Kaiming and residuals of N(0, 0.05²), for short trainings.

    Raises:
        UsageError: An unknown name.
    """
    if init not in INITS:
        raise unknown_name("controlnet_init", init, list(INITS))
    if init == "warm":
        nn.init.kaiming_normal_(controlnet.controlnet_cond_embedding.conv_out.weight)
        for layer in (*controlnet.controlnet_down_blocks, controlnet.controlnet_mid_block):
            nn.init.normal_(layer.weight, std=0.05)


def _check(config: Mapping[str, Any]) -> None:
    others = sorted(set(config["down_block_types"]) - set(DOWN_BLOCKS))
    if others:
        raise UsageError(
            f"ACDA does not know down blocks {', '.join(others)}", remedy=f"known: {', '.join(DOWN_BLOCKS)}"
        )
    if config["conditioning_channels"] not in (3, 4):
        remedy = "3: the masked image with -1 in the hole; 4: the mask besides"
        raise UsageError(f"the hint cannot have {config['conditioning_channels']} channels", remedy=remedy)
