"""What Stable Diffusion 1.5 can do without ECDM, under the same contract: three methods that need published weights.

They share ECDM's sampler, first stage and loader. Nothing is trained; the networks come from the hub's cache.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from zoo.batch import Batch
from zoo.errors import WeightsError
from zoo.keyed import Noise
from zoo.models.ecdm import hub
from zoo.models.ecdm.completion import contexts, predictor
from zoo.models.ecdm.hints import inpainting_hint, known_image, latent_mask
from zoo.models.ecdm.networks import load_pipeline
from zoo.models.ecdm.sampler import Predictor, Sampler, guided
from zoo.module import InpaintingModule


class Pretrained(InpaintingModule):
    """Stable Diffusion behind the zoo's contract; a subclass says what its network is shown.

    Args:
        size: The native image size.
        source: A repository of the hub, or a folder as diffusers writes it: the whole pipeline.
        guidance: The scale of classifier-free guidance; 1 is without.
        sampler: The sampling loop.

    Raises:
        WeightsError: The weights are not here, or of another kind of network.
    """

    trainable: ClassVar[bool] = False
    stochastic: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset({"image", "mask", "caption"})
    known: ClassVar[str] = "filled"  # of `zoo.models.ecdm.hints.KNOWN`
    pipeline: ClassVar[tuple[str, ...]] = ("vae", "unet", "text_encoder", "tokenizer")

    def __init__(self, size: int, source: str, guidance: float, sampler: Sampler) -> None:
        super().__init__(size=size)
        self.guidance, self.sampler = guidance, sampler
        self.codec, self.text, self.unet = load_pipeline(source)
        self.multiple = self.codec.factor * 2 ** (len(self.unet.config.block_out_channels) - 1)
        found, wanted = int(self.unet.config.in_channels), self.inputs(self.codec.channels)
        if found != wanted:
            what = f"{type(self).__name__} needs a UNet of {wanted} input channels, this one has {found}"
            raise WeightsError(what, source, f"its usual source is {type(self).defaults()['source']}")
        self.requires_grad_(False)

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """The default of each argument of the constructor."""
        import inspect

        parameters = inspect.signature(cls).parameters.values()
        return {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}

    @classmethod
    def check_available(cls, settings: Mapping[str, Any] | None = None) -> None:
        """Refuses, before any work, a method whose weights are not on this machine.

        Args:
            settings: Arguments of the constructor that differ from the defaults.

        Raises:
            WeightsError: They are not here; the error says how to get them.
        """
        arguments = {**cls.defaults(), **(settings or {})}
        hub.check_here(dict.fromkeys(cls.pipeline, str(arguments["source"])))
        if "control" in arguments:
            hub.check_here({"controlnet": str(arguments["control"])})

    def inputs(self, channels: int) -> int:
        """How many input channels the UNet has for latents of so many."""
        return channels

    def predictor(self, batch: Batch, known: Tensor, mask: Tensor, context: Tensor) -> Predictor:
        """What predicts the noise.

        Args:
            batch: The hidden batch.
            known: The latents of the known image, B C h w.
            mask: Of latent cells, B 1 h w.
            context: Encoded prompts, B T c, or twice as many where guidance doubles the latents.
        """
        return predictor(self.unet, context)

    def inpaint(self, batch: Batch, noise: Noise) -> Tensor:
        context = contexts(self.text, batch["caption"], self.guidance)
        known = self.codec.encode(known_image(batch["image"], batch["mask"], self.known) * 2.0 - 1.0)
        mask = latent_mask(batch["mask"], self.codec.factor, "nearest")
        predict = guided(self.predictor(batch, known, mask, context), self.guidance)
        latents = self.sampler(predict, known, mask, noise)
        return self.codec.decode(latents).clamp(-1.0, 1.0) / 2.0 + 0.5


class StableDiffusionInpaint(Pretrained):
    """Stable Diffusion 1.5 fine-tuned for inpainting (Rombach et al. 2022): the network sees mask and masked latents.

    Nothing is blended in latent space.

    Args:
        size: The native image size.
        source: A repository of the hub, or a folder as diffusers writes it: the whole pipeline.
        steps: Sampling steps.
        guidance: The scale of classifier-free guidance; 1 is without.
        solver: One of `zoo.models.ecdm.diffusion.SOLVERS`.
    """

    known: ClassVar[str] = "masked"

    def __init__(
        self,
        size: int = 512,
        source: str = hub.SD15_INPAINTING,
        steps: int = 50,
        guidance: float = 7.5,
        solver: str = "ddim",
    ) -> None:
        super().__init__(size, source, guidance, Sampler(steps, solver, entry=False, final=False))
        self.save_hyperparameters()

    def inputs(self, channels: int) -> int:
        return 2 * channels + 1

    def predictor(self, batch: Batch, known: Tensor, mask: Tensor, context: Tensor) -> Predictor:
        beside, unet = _repeated(torch.cat([mask, known], 1), context), self.unet
        return lambda noisy, time: unet(torch.cat([noisy, beside], 1), time, context, return_dict=False)[0]


class ControlNetInpaint(Pretrained):
    """Stable Diffusion 1.5 under the inpainting ControlNet 1.1 (Zhang et al. 2023), the known latents blended in.

    Args:
        size: The native image size.
        source: A repository of the hub, or a folder as diffusers writes it: the whole pipeline.
        steps: Sampling steps.
        guidance: The scale of classifier-free guidance; 1 is without.
        solver: One of `zoo.models.ecdm.diffusion.SOLVERS`.
        control: The ControlNet: a repository of the hub, or a folder.
    """

    def __init__(
        self,
        size: int = 512,
        source: str = hub.SD15,
        steps: int = 50,
        guidance: float = 7.5,
        solver: str = "ddim",
        control: str = hub.CONTROL_INPAINT,
    ) -> None:
        super().__init__(size, source, guidance, Sampler(steps, solver, draw="fixed"))
        self.save_hyperparameters()
        self.control = hub.load("controlnet", control).requires_grad_(False)

    def predictor(self, batch: Batch, known: Tensor, mask: Tensor, context: Tensor) -> Predictor:
        hint = _repeated(inpainting_hint(batch["image"], batch["mask"]), context)
        return predictor(self.unet, context, self.control, hint)


class BlendedLatentDiffusion(Pretrained):
    """Blended Latent Diffusion (Avrahami et al. 2023) on Stable Diffusion 1.5, its background not reconstructed.

    Args:
        size: The native image size.
        source: A repository of the hub, or a folder as diffusers writes it: the whole pipeline.
        steps: Sampling steps.
        guidance: The scale of classifier-free guidance; 1 is without.
        solver: One of `zoo.models.ecdm.diffusion.SOLVERS`.
        skip: Share of the steps left out at the beginning; the filled image, noised, takes their place.
    """

    def __init__(
        self,
        size: int = 512,
        source: str = hub.SD15,
        steps: int = 50,
        guidance: float = 7.5,
        solver: str = "ddim",
        skip: float = 0.25,
    ) -> None:
        super().__init__(size, source, guidance, Sampler(steps, solver, skip=skip))
        self.save_hyperparameters()


def _repeated(maps: Tensor, context: Tensor) -> Tensor:
    """Maps of B images as often as `context` has B prompts."""
    return maps.repeat(len(context) // len(maps), 1, 1, 1)
