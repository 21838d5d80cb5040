"""DeepFill-v2 as a method of the zoo: construction, completion, and the training step in the order of the paper."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import Adam, Optimizer

from zoo.batch import Batch
from zoo.compose import composite, hide
from zoo.errors import UsageError
from zoo.keyed import Noise
from zoo.models.deepfill import losses
from zoo.models.deepfill.attention import AttentionOptions
from zoo.models.deepfill.discriminator import Critics, PatchDiscriminator
from zoo.models.deepfill.layers import balance
from zoo.models.deepfill.network import Generated, Generator, GeneratorOptions
from zoo.module import InpaintingModule

Discriminator = PatchDiscriminator | Critics

CHOICES = {
    "gated": ("on", "plain", "partial"),
    "pad_mode": ("symmetric", "tf_same", "reflect"),
    "pre_attention": ("relu", "elu"),
    "refine_input": ("rgb", "rgb_ones_mask"),
    "output": ("tanh", "clamp"),
    "ca_masking": ("masked", "official"),
    "ca_overlap": ("coverage", "quarter"),
    "ca_down": ("stride", "tf_align", "area"),
    "ca_mask_down": ("max", "nearest"),
    "init": ("xavier", "balanced"),
    "gan": ("sn_patch", "wgan_gp", "none"),
    "critics": ("global", "local", "both"),
    "gp_mode": ("masked", "per_pixel", "plain"),
}


class DeepFill(InpaintingModule):
    """Free-form image inpainting with gated convolution (Yu et al. 2019), with the options of its predecessor.

    Sources: Yu et al., "Free-Form Image Inpainting with Gated Convolution", ICCV 2019; Yu et al., "Generative Image
    Inpainting with Contextual Attention", CVPR 2018 (v1). The defaults are the former's.

    Args:
        size: Side of the training images.
        width: Channels after gating at full resolution (24; v1: 32).
        dilations: Of the atrous layers.
        gated: `on`, `plain` (v1) or `partial` convolutions.
        pad_mode: `symmetric`, `tf_same` or `reflect` padding.
        pre_attention: The activation right before contextual attention, `relu` or `elu`.
        attn_branch: Whether there is an attention branch.
        coarse: Whether there is a coarse network.
        coarse_sup: Whether the coarse result has a loss of its own.
        detach_coarse: Whether the refinement network's gradient stops at the coarse result.
        refine_input: `rgb`, or `rgb_ones_mask` (v1).
        output: `tanh`, or `clamp` (v1).
        gated_output: Gate the last layers too.
        decoder_width: Width of the refinement decoder; 0 for `width`.
        guided: Whether a sketch (`edge`, used inside the hole) guides the completion.
        init: `xavier`, or `balanced`, which keeps features from vanishing in short trainings.
        ca_scale: λ of the attention's softmax.
        ca_fuse: Attention propagation.
        ca_fuse_wrap: Propagation along the flattened index, as in the published code.
        ca_masking: `masked` or `official` softmax over keys.
        ca_overlap: Overlapping patches are divided by their `coverage` or all by 4 (`quarter`).
        ca_down: `stride`, `tf_align` or `area` for the maps that are matched.
        ca_mask_down: `max` or `nearest`.
        ca_normalize_query: Cosine on both sides.
        ca_query_chunk: Rows of queries at a time; 0 chooses by size.
        gan: `sn_patch`, `wgan_gp` (v1) or `none`.
        d_base: Channels of the first layer of the discriminator or of the critics.
        d_layers: Layers of the discriminator.
        d_mask: Whether the discriminator sees the mask.
        critics: `global`, `local` or `both` (v1).
        critic_steps: Discriminator steps per generator step (1; v1: 5), each on a batch of its own.
        critic_mask: Whether the critics see the mask.
        gp_mode: The gradient penalty is `masked` (v1), `per_pixel` or `plain`.
        gp_lambda: λ of the gradient penalty.
        spatial_discount: γ of v1's reconstruction (0.99); 0 for v2's.
        l1: Weight of the reconstruction (v1: 1.2).
        coarse_l1: Weight of the coarse result within it (v1: 1.2).
        autoencoding: Weight of v1's loss on known pixels (1.2); only with a spatial discount.
        adv: Weight of the adversarial loss (v1: 0.001).
        pretrain_coarse: Iterations in which only the coarse network is trained (v1's optional first phase).
        lr: Adam's learning rate, of both networks.
        betas: Adam's β1 and β2 (v1: 0.5, 0.9).
        clip_norm: See `InpaintingModule`.
        accumulate: See `InpaintingModule`.

    Raises:
        UsageError: A choice that is not offered, or a combination that makes no sense.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"image", "mask"})
    training_only: ClassVar[tuple[str, ...]] = ("discriminator",)

    def __init__(
        self,
        size: int = 256,
        width: int = 24,
        dilations: Sequence[int] = (2, 4, 8, 16),
        gated: str = "on",
        pad_mode: str = "symmetric",
        pre_attention: str = "relu",
        attn_branch: bool = True,
        coarse: bool = True,
        coarse_sup: bool = True,
        detach_coarse: bool = False,
        refine_input: str = "rgb",
        output: str = "tanh",
        gated_output: bool = False,
        decoder_width: int = 0,
        guided: bool = False,
        init: str = "xavier",
        ca_scale: float = 10.0,
        ca_fuse: bool = True,
        ca_fuse_wrap: bool = False,
        ca_masking: str = "masked",
        ca_overlap: str = "coverage",
        ca_down: str = "stride",
        ca_mask_down: str = "max",
        ca_normalize_query: bool = False,
        ca_query_chunk: int = 0,
        gan: str = "sn_patch",
        d_base: int = 64,
        d_layers: int = 6,
        d_mask: bool = True,
        critics: str = "both",
        critic_steps: int = 1,
        critic_mask: bool = False,
        gp_mode: str = "masked",
        gp_lambda: float = 10.0,
        spatial_discount: float = 0.0,
        l1: float = 1.0,
        coarse_l1: float = 1.0,
        autoencoding: float = 1.2,
        adv: float = 1.0,
        pretrain_coarse: int = 0,
        lr: float = 1e-4,
        betas: Sequence[float] = (0.5, 0.999),
        clip_norm: float = 0.0,
        accumulate: int = 1,
    ) -> None:
        # Deviation: images whose sides are no multiples of 8 are padded, not cropped.
        super().__init__(size=size, multiple=8, clip_norm=clip_norm, accumulate=accumulate)
        dilations, betas = list(dilations), list(betas)
        self.save_hyperparameters()
        options = dict(self.hparams)
        _check(options)
        self.generator = Generator(_generator_options(options), _attention_options(options))
        # Deviation: a short training starts from weights that keep features through the gates.
        if init == "balanced":
            balance(self.generator)
        self.discriminator = _discriminator(options)
        self.to(memory_format=torch.channels_last)  # faster on CPUs and tensor cores
        if guided:
            self.__dict__["needs"] = self.needs | {"edge"}  # this model's own; the class attribute stays

    # --- completing an image ---------------------------------------------------------------------------------------

    def inpaint(self, batch: Batch, noise: Noise) -> Tensor:
        return (self._generate(batch).refined + 1.0) / 2.0

    def _generate(self, batch: Batch) -> Generated:
        """Both stages, in [-1, 1]; the only place where the range changes on the way in."""
        generated: Generated = self.generator(batch["image"] * 2.0 - 1.0, batch["mask"], self._sketch(batch))
        return generated

    def _sketch(self, batch: Batch) -> Tensor | None:
        return batch["edge"] if self.hparams["guided"] else None

    # --- training --------------------------------------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """One step: the generator runs once, then the discriminator learns, then the generator."""
        I, M = batch["image"] * 2.0 - 1.0, batch["mask"]  # noqa: E741
        if self.iteration < self.hparams["pretrain_coarse"]:
            self._pretrain_coarse(batch, I)
            return
        D = self.discriminator
        generators_turn = self._generators_turn()
        with torch.set_grad_enabled(generators_turn):
            x1, x2 = self._generate(batch)
        # Deviation: one batch serves the discriminator's step and the generator's.
        C2 = composite(x2, I, M)
        terms: dict[str, Tensor] = {}
        if D is not None:
            with self.turn("discriminator") as minimize:
                terms |= self._discriminator_terms(D, batch, I, C2.detach())
                minimize(terms["l_d"])
        if generators_turn:
            with self.turn("generator") as minimize:
                terms |= self._reconstruction_terms(I, x1, x2, M)
                l_g = terms["l_rec"]
                if D is not None:
                    terms["l_adv"] = self._adversarial_loss(D, batch, C2)
                    l_g = l_g + self.hparams["adv"] * terms["l_adv"]
                minimize(l_g)
        self.log_terms("train", terms)

    def _pretrain_coarse(self, batch: Batch, I: Tensor) -> None:  # noqa: E741
        """v1's optional first phase: the coarse network alone, by its l1 loss."""
        with self.turn("generator") as minimize:
            l_coarse = losses.reconstruction(I, self.generator.rough(I, batch["mask"], self._sketch(batch)))
            minimize(l_coarse)
        self.log_terms("train", {"l_coarse": l_coarse})

    def _generators_turn(self) -> bool:
        """Whether this batch is one of the `critic_steps`-th, on which the generator learns too."""
        steps = self._backwards.get("discriminator", 0) // self.accumulate
        return self.discriminator is None or (steps + 1) % int(self.hparams["critic_steps"]) == 0

    def _discriminator_terms(self, D: Discriminator, batch: Batch, I: Tensor, C2: Tensor) -> dict[str, Tensor]:  # noqa: E741
        """L_D. Truth and composite go through D as one batch, which DDP and spectral norm ask for."""
        if isinstance(D, Critics):
            return self._critic_terms(D, batch, I, C2)
        D_real, D_fake = D(self._seen(batch, I, C2)).float().chunk(2)
        return {"l_d": losses.hinge_discriminator(D_real, D_fake)}

    def _critic_terms(self, D: Critics, batch: Batch, I: Tensor, C2: Tensor) -> dict[str, Tensor]:  # noqa: E741
        """v1's L_D = Σ over critics of the Wasserstein loss + λ times the penalty, in float32."""
        M, step = batch["mask"], self._backwards.get("discriminator", 0)
        with torch.autocast(self.device.type, enabled=False):
            scores = [score.chunk(2) for score in D(torch.cat([I, C2]), torch.cat([M, M])).values()]
            l_wgan = torch.stack([losses.wasserstein_critic(*pair) for pair in scores]).sum()
            t = Noise(batch["id"], step).uniform("interpolation", (1, 1, 1), I.device)
            views = D.views(losses.interpolate(I, C2, t), M).items()
            mode = self.hparams["gp_mode"]
            penalties = [losses.gradient_penalty(partial(D.score, name, mask=m), x, m, mode) for name, (x, m) in views]
            l_gp = torch.stack(penalties).sum()
        return {"l_d": l_wgan + self.hparams["gp_lambda"] * l_gp, "l_wgan": l_wgan, "l_gp": l_gp}

    def _adversarial_loss(self, D: Discriminator, batch: Batch, C2: Tensor) -> Tensor:
        """The generator's side of the game, without its weight."""
        if isinstance(D, Critics):
            with torch.autocast(self.device.type, enabled=False):
                return torch.stack([losses.wasserstein_generator(s) for s in D(C2, batch["mask"]).values()]).sum()
        return losses.hinge_generator(D(self._seen(batch, C2)).float())

    def _seen(self, batch: Batch, *images: Tensor) -> Tensor:
        """What SN-PatchGAN sees of several images of a batch, as one batch: image, mask, sketch in the hole."""
        parts = [torch.cat(images)]
        if self.hparams["d_mask"]:
            parts.append(torch.cat([batch["mask"]] * len(images)))
        sketch = self._sketch(batch)
        if sketch is not None:
            parts.append(torch.cat([hide(sketch, 1.0 - batch["mask"], 0.0)] * len(images)))
        return torch.cat(parts, 1)

    def _reconstruction_terms(self, I: Tensor, x1: Tensor | None, x2: Tensor, M: Tensor) -> dict[str, Tensor]:  # noqa: E741
        """L_rec and its parts, v2's or, with a spatial discount, v1's."""
        options = dict(self.hparams)
        results = {"refined": (1.0, x2)}
        if x1 is not None and options["coarse_sup"]:
            results["coarse"] = (options["coarse_l1"], x1)
        if options["spatial_discount"] == 0:
            terms = {f"l_{name}": losses.reconstruction(I, x) for name, (_, x) in results.items()}
            total = torch.stack([weight * terms[f"l_{name}"] for name, (weight, _) in results.items()]).sum()
            return {"l_rec": options["l1"] * total, **terms}
        W = losses.discount(M, options["spatial_discount"])
        l_hole = torch.stack([w * losses.discounted_l1(I, x, M, W) for w, x in results.values()]).sum()
        l_ae = torch.stack([w * losses.autoencoding_l1(I, x, M) for w, x in results.values()]).sum()
        return {"l_rec": options["l1"] * l_hole + options["autoencoding"] * l_ae, "l_hole": l_hole, "l_ae": l_ae}

    def optimizers_by_name(self) -> dict[str, Optimizer]:
        """The generator leads: its steps are the iterations."""
        lr, betas = self.hparams["lr"], tuple(self.hparams["betas"])
        optimizers: dict[str, Optimizer] = {"generator": Adam(self.generator.parameters(), lr, betas)}
        if self.discriminator is not None:
            optimizers["discriminator"] = Adam(self.discriminator.parameters(), lr, betas)
        return optimizers


def _check(options: dict[str, Any]) -> None:
    for name, choices in CHOICES.items():
        if options[name] not in choices:
            raise UsageError(f"deepfill's {name} cannot be '{options[name]}'", remedy=f"one of {', '.join(choices)}")
    if options["critic_steps"] < 1:
        raise UsageError(f"critic_steps must be at least 1, got {options['critic_steps']}")
    if not 0.0 <= options["spatial_discount"] <= 1.0:
        raise UsageError(f"spatial_discount must lie in [0, 1], got {options['spatial_discount']}")
    if options["pretrain_coarse"] and not options["coarse"]:
        raise UsageError("pretrain_coarse trains a network that coarse=False leaves out")


def _generator_options(options: dict[str, Any]) -> GeneratorOptions:
    same = ("width", "gated", "pad_mode", "pre_attention", "coarse", "detach_coarse", "refine_input", "output")
    more = ("gated_output", "decoder_width", "guided")
    return GeneratorOptions(
        dilations=tuple(options["dilations"]),
        attention_branch=options["attn_branch"],
        **{name: options[name] for name in same + more},
    )


def _attention_options(options: dict[str, Any]) -> AttentionOptions:
    return AttentionOptions(**{name[3:]: value for name, value in options.items() if name.startswith("ca_")})


def _discriminator(options: dict[str, Any]) -> Discriminator | None:
    if options["gan"] == "none":
        return None
    if options["gan"] == "sn_patch":
        channels_in = 3 + int(options["d_mask"]) + int(options["guided"])
        return PatchDiscriminator(channels_in, options["d_base"], options["d_layers"])
    size = options["size"]
    return Critics(options["critics"], options["d_base"], size, size // 2, options["critic_mask"])
