"""ECDM as a method of the zoo: construction, completion, and what Lightning asks of it; the steps are in `stages`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from zoo.batch import Batch
from zoo.compose import pad_to_multiple
from zoo.keyed import Noise
from zoo.models.ecdm import completion, hub, networks, stages
from zoo.models.ecdm.cache import Cache
from zoo.models.ecdm.choices import check, stages_of
from zoo.models.ecdm.diffusion import NoiseSchedule
from zoo.module import Completed, InpaintingModule
from zoo.words import vocabulary as words_of

SHOWN = 8  # images of a stage's sheet, the width of a row


class ECDM(InpaintingModule):
    """Text-guided inpainting without cross-domain misalignment (Huang et al. 2024): a ControlNet on Stable Diffusion.

    The student is shown the masked image, and its down path attends to that image's frequencies beside the text
    (ACDA). A teacher that is shown the edges of the whole image teaches it what the UNet's decoder is to see (SAIL).
    On published networks (`base`) the student alone is trained; without a base the stages `autoencoder`, `unet` and
    `teacher` come before it. The defaults are the paper's.

    Args:
        size: Side of the training images.
        vocabulary: The words of the training captions, without a base.
        base: The pipeline under the student: a repository of the hub, or a folder as diffusers writes it; empty for
            networks of its own.
        teacher_source: With a base, where the teacher comes from; empty: the stage `teacher` trains it.
        student_source: With a base, the ControlNet that the student starts from; empty: it starts from the UNet.
        codec: First stage: `kl` (an autoencoder), `pca` or `identity` (patches as channels).
        codec_factor: Pixels of a latent cell along each side; a power of two.
        codec_channels: Channels of the latents; of `identity` they follow from the factor.
        codec_widths: Widths of the autoencoder's levels, one for each halving and one more.
        codec_layers: Residual blocks in each of them.
        codec_groups: Of its group normalization.
        codec_attention: Whether its middle has self-attention.
        text_width: Width of a token, c.
        text_length: Tokens of a caption, the two brackets included.
        text_layers: Transformer blocks of the text encoder.
        text_heads: Heads of its attention.
        unet_channels: Widths of the UNet's levels.
        unet_plain: How many of its levels, the deepest, are without attention.
        unet_layers: Residual blocks in each level.
        unet_heads: Heads of its attention.
        unet_groups: Of its group normalization.
        hint: What the student is shown: `neg1` (3 channels, -1 in the hole), `rgbm` (4: colours, 0 in the hole, and the
            mask) or `rgbm_neg1` (4, -1 in the hole).
        hint_widths: Of the encoders of hints, as many as `codec_widths`.
        acda: Whether there is ACDA; and so the next nine, see `ECDMControlNet`.
        acda_channels: Widths of the token encoder, one for each halving.
        acda_blocks: The down blocks that have it; None: each that attends to text.
        acda_radius: Half the side of the window of removed frequencies in bins, or `official`.
        acda_window: `square` or `disc`.
        acda_norm_scope: `sample` or `batch`.
        acda_amp: `linear` or `log1p`.
        acda_phase: `radians`, `over_pi` or `sincos`.
        acda_hole_fill: `neg1`, `zero` or `mean`.
        acda_double_self_attn: Whether self-attention is doubled too.
        controlnet_init: Where a ControlNet made from the UNet starts: `zero` or `warm`, see `initialize`.
        sail: Whether there is SAIL, and so a teacher.
        sail_tap: What is compared: features of the UNet's `decoder`, or the `residual`s of either branch.
        sail_weight: λ of Eq. 12.
        sail_max_timestep: The teacher teaches below this time step.
        sail_gate: Whether that is decided for each `sample` or for each `batch`, see `losses.timesteps`.
        sail_detached: Whether the soft loss is without gradient, as in the released code.
        unlock_decoder: Whether the UNet's decoder is trained too; the weights then hold the UNet.
        prediction: What the networks learn to predict: the `noise`, as the paper's, or the `velocity`.
        prompt_dropout: Share of captions that training replaces by the empty prompt.
        known_latent: The image behind the known latents: `filled`, `masked`, or `gt`, which lets the truth through.
        latent_mask: Which latent cells are of the hole: `max`, `area` or `nearest`, see `hints.latent_mask`.
        blend_entry: Whether the known latents are put back before each step.
        blend_final: Whether they are put back after the last.
        steps: Sampling steps.
        solver: `ddim`, `unipc` or `dpmsolver++`.
        eta: Share of the ancestral noise of DDIM.
        spacing: Which time steps are sampled at: `leading` ends with the first, `trailing` begins with the last.
        guidance: Scale of classifier-free guidance; 1 is without.
        clip: Bound of estimates of clean latents in sampling; 0 for none.
        draw: Noise of the known latents: `fresh` at each step, or `fixed`.
        checkpointing: Whether training computes activations anew to save memory.
        cache: GiB of memory, of each process, for what the frozen autoencoder and text encoder make of the images and
            captions of a training, which come again; 0: none. What no longer fits is computed anew. See `Cache`.
        codec_lr: Learning rate of the autoencoder.
        unet_lr: Of UNet and text encoder.
        teacher_lr: Of the teacher.
        lr: Of the student.
        muon_lr: Of the matrices and kernels that a stage trains, the autoencoder's too, whose updates are then made
            orthogonal (`layers.muon`), for training from scratch; 0: AdamW has all.
        weight_decay: Of all.
        decay: Learning rates stay `constant`, or fall to zero, `linear`ly or as a `cosine`.
        stage: `autoencoder`, `unet`, `teacher` or `inpaint`.
        clip_norm: See `InpaintingModule`.
        accumulate: See `InpaintingModule`.

    Raises:
        UsageError: A choice that is not offered, sizes that do not fit each other, or an empty vocabulary without base.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"image", "mask", "caption"})
    stages: ClassVar[tuple[str, ...]] = ("autoencoder", "unet", "teacher", "inpaint")
    training_only: ClassVar[tuple[str, ...]] = ("teacher",)
    starting: ClassVar[tuple[str, ...]] = ("teacher_source", "student_source")
    stochastic: ClassVar[bool] = True

    def __init__(
        self,
        size: int = 512,
        vocabulary: Sequence[str] = (),
        base: str = hub.SD15,
        teacher_source: str = hub.CONTROL_CANNY,
        student_source: str = hub.CONTROL_INPAINT,
        codec: str = "kl",
        codec_factor: int = 8,
        codec_channels: int = 4,
        codec_widths: Sequence[int] = (128, 256, 512, 512),
        codec_layers: int = 2,
        codec_groups: int = 32,
        codec_attention: bool = True,
        text_width: int = 768,
        text_length: int = 77,
        text_layers: int = 12,
        text_heads: int = 12,
        unet_channels: Sequence[int] = (320, 640, 1280, 1280),
        unet_plain: int = 1,
        unet_layers: int = 2,
        unet_heads: int = 8,
        unet_groups: int = 32,
        hint: str = "neg1",
        hint_widths: Sequence[int] = (16, 32, 96, 256),
        acda: bool = True,
        acda_channels: Sequence[int] = (16, 32, 96, 256),
        acda_blocks: Sequence[int] | None = None,
        acda_radius: int | str = 4,
        acda_window: str = "square",
        acda_norm_scope: str = "sample",
        acda_amp: str = "linear",
        acda_phase: str = "radians",
        acda_hole_fill: str = "neg1",
        acda_double_self_attn: bool = False,
        controlnet_init: str = "zero",
        sail: bool = True,
        sail_tap: str = "decoder",
        sail_weight: float = 0.1,
        sail_max_timestep: int = 1000,
        sail_gate: str = "sample",
        sail_detached: bool = False,
        unlock_decoder: bool = False,
        prediction: str = "noise",
        prompt_dropout: float = 0.1,
        known_latent: str = "filled",
        latent_mask: str = "max",
        blend_entry: bool = True,
        blend_final: bool = True,
        steps: int = 50,
        solver: str = "ddim",
        eta: float = 0.0,
        spacing: str = "leading",
        guidance: float = 7.5,
        clip: float = 0.0,
        draw: str = "fresh",
        checkpointing: bool = False,
        cache: float = 0.0,
        codec_lr: float = 1e-4,
        unet_lr: float = 1e-4,
        teacher_lr: float = 1e-5,
        lr: float = 5e-5,
        muon_lr: float = 0.0,
        weight_decay: float = 1e-2,
        decay: str = "constant",
        stage: str = "",
        clip_norm: float = 0.0,
        accumulate: int = 1,
    ) -> None:
        multiple = codec_factor * 2 ** (len(unet_channels) - 1)
        super().__init__(
            size=size, multiple=multiple, stage=stage or self.stages[-1], clip_norm=clip_norm, accumulate=accumulate
        )
        vocabulary, codec_widths, unet_channels = list(vocabulary), list(codec_widths), list(unet_channels)
        hint_widths, acda_channels = list(hint_widths), list(acda_channels)
        acda_blocks = None if acda_blocks is None else list(acda_blocks)
        self.save_hyperparameters()
        self.options: dict[str, Any] = dict(self.hparams)
        check(self.options, self.stage)
        self.held, self.cache = networks.Held(), Cache(cache)
        self.shown: Batch | None = None  # of the validation data, for the sheet
        self._truth: Tensor | None = None
        self.sampler = completion.sampler_of(self.options)
        self.register_buffer("alphas", NoiseSchedule().alphas(), persistent=False)
        self._build()
        stages.freeze(self)
        self.train()  # Lightning keeps the mode that it finds: what is frozen must be in evaluation mode by now

    alphas: Tensor

    @property
    def velocity_at(self) -> Tensor | None:
        """The cumulative alphas of all time steps, where the networks predict the velocity."""
        return self.alphas if self.options["prediction"] == "velocity" else None

    def _build(self) -> None:
        """The networks of the stage that do not come from elsewhere."""
        o, before = self.options, self.stages.index(self.stage)
        if not o["base"]:
            self.codec = networks.codec(o)
            if before > 0:
                self.text, self.unet = networks.text(o), networks.unet(o)
            elif o["codec"] == "pca":
                # How many batches it was fitted to. A parameter, because Lightning counts the steps of optimizers, and
                # several processes want one to share; nothing else is trained here.
                self.fitted = nn.Parameter(torch.zeros(()))
        elif o["unlock_decoder"] and self.stage == "inpaint":
            self.unet = networks.unet(o)
        if self.stage == "teacher" or (self.stage == "inpaint" and "teacher" in stages_of(o, self.stages)):
            self.teacher = networks.teacher(o)
        if self.stage == "inpaint":
            self.student = networks.student(o)
        for name in ("unet", "teacher", "student"):
            if o["checkpointing"] and name in self._modules:
                self.get_submodule(name).enable_gradient_checkpointing()  # type: ignore[operator]

    # --- networks that come from elsewhere --------------------------------------------------------------------------

    def part(self, name: str) -> Any:
        """A network by name, of this module or of the base, which is loaded at the first call.

        Args:
            name: `codec`, `text`, `unet`, `teacher` or `student`.

        Raises:
            WeightsError: The base, or the teacher, is not on this machine.
        """
        own = self._modules.get(name)
        if own is not None:
            return own
        if name not in self.held:
            self.load_base()
        return self.held[name]

    def load_base(self, teacher: bool = False) -> None:
        """Loads the networks of the base, unless they are here.

        Args:
            teacher: Also the teacher, where it comes from elsewhere; completing an image does without.

        Raises:
            WeightsError: They are not on this machine, or of other sizes than the student.
        """
        o = self.options
        found = {} if "codec" in self.held or not o["base"] else networks.load_base(o)
        wanted = teacher and self.stage == "inpaint" and o["sail"]
        if wanted and o["base"] and o["teacher_source"] and "teacher" not in self.held:
            found["teacher"] = networks.load_teacher(o)
        if "unet" in self._modules:  # with an unlocked decoder it is the module's own
            found.pop("unet", None)
        for name, network in found.items():
            if o["checkpointing"] and name == "unet":
                network.enable_gradient_checkpointing()  # type: ignore[operator]
            self.held[name] = network.to(self.device)

    @classmethod
    def stages_for(cls, arguments: Mapping[str, Any]) -> tuple[str, ...]:
        """Without those of networks that a base brings or that are not used."""
        return stages_of(_with_defaults(cls, arguments), cls.stages)

    @classmethod
    def check_available(cls, settings: Mapping[str, Any] | None = None) -> None:
        """Refuses, before any work, a base that is not on this machine.

        Args:
            settings: Arguments of the constructor that differ from the defaults.

        Raises:
            WeightsError: It is not here; the error says how to get it.
        """
        networks.check_here(_with_defaults(cls, settings or {}))

    @property
    def licences(self) -> tuple[str, ...]:
        """Those of the base, of the ControlNet that the student starts from, and of the teacher that teaches it."""
        o = self.options
        if not o["base"]:
            return ()
        student = [o["student_source"], o["teacher_source"] if o["sail"] else ""] if self.stage == "inpaint" else []
        return tuple(hub.terms(source) for source in (o["base"], *student) if source)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> ECDM:
        """Moves the networks of the base with the module, of which they are no part."""
        for network in self.held.values():
            network._apply(fn, recurse)  # type: ignore[no-untyped-call]
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    @classmethod
    def vocabulary_for(cls, arguments: Mapping[str, Any], captions: Callable[[], Iterable[str]]) -> list[str]:
        """The words of the captions; none with a base, which has a tokenizer of its own."""
        return [] if _with_defaults(cls, arguments)["base"] else words_of(captions())

    # --- completing an image ---------------------------------------------------------------------------------------

    @property
    def completes(self) -> bool:
        """Only the student completes images."""
        return self.stage == "inpaint"

    @torch.no_grad()
    def complete(self, batch: Batch, seed: int = 0, guidance: Sequence[str] = ()) -> Completed:
        """See `InpaintingModule`; with `known_latent` gt the whole image is looked at, which is its point."""
        if self.options["known_latent"] == "gt":
            self._truth = pad_to_multiple(batch["image"], self.multiple)
        try:
            return super().complete(batch, seed, guidance)
        finally:
            self._truth = None

    def inpaint(self, batch: Batch, noise: Noise) -> Tensor:
        """Sampling with the known latents blended in, see `zoo.models.ecdm.sampler`."""
        return completion.inpaint(self, batch, noise, self._truth)

    # --- training --------------------------------------------------------------------------------------------------

    def on_fit_start(self) -> None:
        """Loads what comes from elsewhere, and puts the network that is trained where it starts."""
        self.load_base(teacher=True)
        if not self.trainer.ckpt_path:
            stages.start(self)

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        self.log_terms("train", stages.step(self, batch))

    def optimizers_by_name(self) -> dict[str, Optimizer]:
        """Of the stage: `codec`, `unet`, `teacher` or `student`, and `matrices` beside it, see `stages.optimizers`."""
        return stages.optimizers(self)

    def schedulers_by_name(self) -> dict[str, LRScheduler]:
        """As `decay` says; a codec in closed form has no learning rate."""
        decay = self.options["decay"]
        if decay == "constant" or "fitted" in self._parameters:
            return {}
        total = self.total_iterations()
        return {
            name: LambdaLR(optimizer, lambda step: stages.factor(decay, step, total))
            for name, optimizer in self.by_name.items()
        }

    def validate_batch(self, batch: Batch) -> Mapping[str, list[float]]:
        """See `stages.scores`."""
        if self.shown is None:
            self.shown = completion.few(batch, SHOWN)
        return stages.scores(self, batch)

    def sheet(self) -> Tensor | None:
        """See `completion.sheet`."""
        return completion.sheet(self)

    def train(self, mode: bool = True) -> ECDM:
        """What the stage does not train stays in evaluation mode."""
        super().train(mode)
        for name, network in self.named_children():
            if name not in stages.TRAINED[self.stage]:
                network.eval()
        return self

    # --- checkpoints -----------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """With the sums of a codec that is being fitted."""
        super().on_save_checkpoint(checkpoint)
        if "fitted" in self._parameters:
            checkpoint["codec_sums"] = [total.clone() for total in self.codec.sums()]  # type: ignore[operator]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        if "fitted" in self._parameters:
            for total, saved in zip(self.codec.sums(), checkpoint["codec_sums"], strict=True):  # type: ignore[operator]
                total.copy_(saved)

    def exported_state(self) -> dict[str, Tensor]:
        """Without the count of batches that a codec was fitted to."""
        return {name: tensor for name, tensor in super().exported_state().items() if name != "fitted"}


def _with_defaults(cls: type[ECDM], arguments: Mapping[str, Any]) -> dict[str, Any]:
    defaults = {name: p.default for name, p in inspect.signature(cls).parameters.items()}
    return {**defaults, **arguments}
