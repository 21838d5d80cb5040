"""CMA as a method of the zoo: construction, completion, and the training step in the order of the paper."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.optim import Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from zoo.batch import Batch
from zoo.compose import composite, hide
from zoo.errors import UsageError
from zoo.keyed import Noise
from zoo.layers.muon import Muon
from zoo.models.cma import losses, schedule
from zoo.models.cma.crop import crop, hole_squares
from zoo.models.cma.encoder import RULES, Encoded, EncoderOptions, VisionLanguageEncoder, masked_patches
from zoo.models.cma.network import DOWN_INPUTS, KEPT, PRIOR_SKIPS, Discriminator, Generator, GeneratorOptions
from zoo.models.cma.pretrained import load_vilt, word_pieces
from zoo.models.cma.tokenizer import make_tokenizer
from zoo.models.cma.transport import PLANS
from zoo.module import InpaintingModule
from zoo.words import Tokens

COLLAPSED = 0.95
CHOICES: dict[str, Sequence[str]] = {
    "tokenizer": ("word", "wordpiece"),
    "patch_rule": RULES,
    "down_input": DOWN_INPUTS,
    "prior_skip": PRIOR_SKIPS,
    "kept": KEPT,
    "teacher": ("shared_sg", "shared_grad", "frozen", "ema"),
    "isd_kind": losses.ISD_KINDS,
    "isd_region": ("all", "masked"),
    "wpa_mode": ("positive", "contrastive"),
    "wpa_solver": tuple(PLANS),
    "adv_input": ("raw", "composite"),
    "local_crop": ("box_resize", "mask_multiply"),
    "optimizer": ("adamw", "adam", "muon"),
    "decay": ("linear", "cooldown", "constant"),
}


class CMA(InpaintingModule):
    """Text-guided image inpainting by cross-modal alignment (Zhou and Long, EACL 2023).

    A vision-and-language encoder reads the caption and the corrupted image together; a convolutional generator makes
    the image from the corrupted pixels and the encoder's visual priors. The defaults are the paper's.

    Args:
        size: Side of the training images.
        vocabulary: Words, or word pieces, in the order of their ids.
        tokenizer: `wordpiece` (BERT's, with ViLT) or `word`.
        pretrained: Where a training takes ViLT from: a folder, a file, or a repository of the Hugging Face hub; empty
            for random weights. Weights files hold the encoder itself instead.
        patch: P, side of a patch.
        table: Patches a side in the encoder's position table.
        hidden: e, width of the encoder.
        layers: Transformer layers.
        heads: Attention heads.
        intermediate: Width of the feed-forward layers.
        text_length: The most tokens of a caption.
        init_std: Of the encoder's random weights.
        patch_rule: Which partly masked patches become [Vmask]: `any`, `all`, `majority`, `soft`.
        down: Channels of the five layers of the down-sampling encoder.
        up: Channels of the five layers of the up-sampling decoder.
        down_input: What Eq. 3 down-samples: `pixels`, `prior_image`, `both` or `tokens`.
        mask_channel: Whether pixels come with their mask.
        prior_skip: V̂ enters the decoder at the `bottleneck` or at `all` layers.
        mask_skip: Whether every layer of the decoder is shown the mask.
        kept: Its layers that keep the size come `first`, or `between` those that double it.
        critic: Channels of the five layers of either discriminator.
        critic_halvings: Layers of the global discriminator that halve the size.
        local_halvings: Layers of the local discriminator that halve the size.
        local_size: Side of the local discriminator's crop.
        local_least: The smallest side of the square that is cropped.
        local_crop: `box_resize`, or `mask_multiply`: the whole image, zero outside the hole.
        adv_input: What the discriminators see: the `raw` output (the paper's I_r) or the `composite`.
        global_adv: False is the ablation "w/o G-Adv".
        local_adv: False is "w/o L-Adv"; both False, "w/o Adv".
        recon: False is "w/o Recon".
        cmad: False is "w/o CMAD".
        isd: False is "w/o ISD".
        wpa: False is "w/o WPA".
        lam: λ, weight of CMAD and ISD.
        alpha: α, weight of WPA.
        beta: β, weight of the reconstruction.
        gamma: γ, weight of the adversarial losses.
        recon_hole: Weight of the hole alone within the reconstruction; 0 is the paper's.
        teacher: Where the targets of CMAD and ISD come from: the encoder itself, `shared_sg` without gradient or
            `shared_grad` with; a copy of its start, `frozen`; or its moving average, `ema`.
        ema_decay: Of the `ema` teacher.
        isd_kind: See `losses.isd`.
        isd_tau: See `losses.isd`.
        isd_region: ISD counts `all` patches or the `masked` ones.
        align_special: Whether [CLS] and [SEP] take part in CMAD and WPA.
        wpa_mode: `positive` (the paper's), or `contrastive` for training from scratch, against the captions of the
            same batch in the same process.
        wpa_margin: See `losses.contrastive_wpa`.
        wpa_solver: `ipot` or `pot`.
        adv_start: Iterations before the adversarial game begins.
        lr: Learning rate of both sides.
        betas: β1 and β2 of encoder and generator.
        critic_betas: β1 and β2 of the discriminators.
        optimizer: `adamw`; `adam` with coupled L2; or `muon`: AdamW but for the matrices of the encoder's layers and
            the generator's kernels, whose updates are made orthogonal (`layers.muon`), for training from scratch.
        muon_lr: Learning rate of those matrices and kernels.
        weight_decay: Not applied to biases, norms, embeddings and [Vmask].
        warmup: Iterations of linear warm-up.
        decay: After it, the learning rate of encoder and generator falls `linear`ly to zero, falls so in the last fifth
            of the training alone (`cooldown`), or stays `constant`.
        clip_norm: See `InpaintingModule`.
        accumulate: See `InpaintingModule`.

    Raises:
        UsageError: A choice that is not offered, or an empty vocabulary.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"image", "mask", "caption"})
    training_only: ClassVar[tuple[str, ...]] = ("critics", "teacher")
    starting: ClassVar[tuple[str, ...]] = ("pretrained",)

    def __init__(
        self,
        size: int = 256,
        vocabulary: Sequence[str] = (),
        tokenizer: str = "wordpiece",
        pretrained: str = "",
        patch: int = 32,
        table: int = 12,
        hidden: int = 768,
        layers: int = 12,
        heads: int = 12,
        intermediate: int = 3072,
        text_length: int = 40,
        init_std: float = 0.02,
        patch_rule: str = "any",
        down: Sequence[int] = (64, 128, 256, 512, 512),
        up: Sequence[int] = (512, 256, 128, 64, 32),
        down_input: str = "pixels",
        mask_channel: bool = True,
        prior_skip: str = "bottleneck",
        mask_skip: bool = False,
        kept: str = "first",
        critic: Sequence[int] = (64, 128, 256, 512, 512),
        critic_halvings: int = 5,
        local_halvings: int = 5,
        local_size: int = 128,
        local_least: int = 32,
        local_crop: str = "box_resize",
        adv_input: str = "raw",
        global_adv: bool = True,
        local_adv: bool = True,
        recon: bool = True,
        cmad: bool = True,
        isd: bool = True,
        wpa: bool = True,
        lam: float = 2.0,
        alpha: float = 1.0,
        beta: float = 1.0,
        gamma: float = 0.1,
        recon_hole: float = 0.0,
        teacher: str = "shared_sg",
        ema_decay: float = 0.999,
        isd_kind: str = "channel_softmax",
        isd_tau: float = 1.0,
        isd_region: str = "all",
        align_special: bool = False,
        wpa_mode: str = "positive",
        wpa_margin: float = 0.2,
        wpa_solver: str = "ipot",
        adv_start: int = 0,
        lr: float = 1e-4,
        betas: Sequence[float] = (0.9, 0.999),
        critic_betas: Sequence[float] = (0.5, 0.999),
        optimizer: str = "adamw",
        muon_lr: float = 2e-3,
        weight_decay: float = 0.01,
        warmup: int = 2000,
        decay: str = "linear",
        clip_norm: float = 1.0,
        accumulate: int = 1,
    ) -> None:
        super().__init__(size=size, multiple=patch, clip_norm=clip_norm, accumulate=accumulate)
        vocabulary, down, up, critic = list(vocabulary), list(down), list(up), list(critic)
        betas, critic_betas = list(betas), list(critic_betas)
        self.save_hyperparameters()
        options = self.options = dict(self.hparams)
        _check(options)
        self.tokenizer = make_tokenizer(tokenizer, vocabulary, text_length)
        sizes = EncoderOptions(patch, table, hidden, layers, heads, intermediate, text_length, init_std)
        self.encoder = VisionLanguageEncoder(len(self.tokenizer), sizes)
        readings = GeneratorOptions(hidden, patch, down, up, down_input, mask_channel, prior_skip, mask_skip, kept)
        self.generator = Generator(readings)
        self.critics = torch.nn.ModuleDict()
        if global_adv:
            self.critics["global"] = Discriminator(critic, critic_halvings)
        if local_adv:
            self.critics["local"] = Discriminator(critic, local_halvings)
        self.teacher = copy.deepcopy(self.encoder).requires_grad_(False) if self._has_teacher else None
        self.to(memory_format=torch.channels_last)  # faster on CPUs and tensor cores

    # --- completing an image ---------------------------------------------------------------------------------------

    def inpaint(self, batch: Batch, noise: Noise) -> Tensor:
        x_m, M = batch["image"] * 2.0 - 1.0, batch["mask"]
        encoded = self.encoder(x_m, self._masked(M), self._tokens(batch["caption"]))
        I_r: Tensor = self.generator(x_m, M, encoded.patches)
        return (I_r + 1.0) / 2.0

    def _masked(self, M: Tensor) -> Tensor:
        return masked_patches(M, self.options["patch"], self.options["patch_rule"])

    def _tokens(self, captions: Sequence[str]) -> Tokens:
        return Tokens(*(part.to(self.device) for part in self.tokenizer(captions)))

    # --- training --------------------------------------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """One step: encode the corrupted and the original image together, restore, then either side learns."""
        I_gt, M, iteration = batch["image"] * 2.0 - 1.0, batch["mask"], self.iteration
        x_m = hide(I_gt, M, 0.0)
        tokens = self._tokens(batch["caption"])
        encoded = self._encode(x_m, I_gt, M, tokens)
        I_r = self.generator(x_m, M, encoded["r"].patches)
        seen = I_r if self.options["adv_input"] == "raw" else composite(I_r, I_gt, M)
        critics = dict(self.critics) if iteration >= self.options["adv_start"] else {}
        terms: dict[str, Tensor] = {}
        for name, D in critics.items():
            with self.turn(name) as minimize:
                x, counted = self._views(name, torch.cat([I_gt, seen.detach()]), M)
                D_real, D_fake = D(x).chunk(2)
                terms[f"l_d_{name}"] = losses.adversarial_discriminator(D_real, D_fake, counted)
                minimize(self.options["gamma"] * terms[f"l_d_{name}"])  # Eq. 18
        with self.turn(*(name for name in self.by_name if name not in self.critics)) as minimize:
            weighed = self._alignment_terms(encoded, M, tokens, batch["id"])
            if self.options["recon"]:
                l_1 = losses.reconstruction(I_r, I_gt, M, self.options["recon_hole"])
                weighed["l_1"] = (self.options["beta"], l_1)
            for name, D in critics.items():
                x, counted = self._views(name, seen, M)
                weighed[f"l_g_{name}"] = (self.options["gamma"], losses.adversarial_generator(D(x), counted))
            minimize(torch.stack([weight * loss for weight, loss in weighed.values()]).sum())  # Eq. 17
        if self.iteration > iteration:
            self._follow()
        terms |= {name: loss for name, (_, loss) in weighed.items()}
        self.log_terms("train", terms | self._monitor(encoded, tokens))

    def _encode(self, x_m: Tensor, I_gt: Tensor, M: Tensor, tokens: Tokens) -> dict[str, Encoded]:
        """The corrupted image ("r"), the original ("o"), and that with another caption ("n"), as one batch.

        The original as a teacher apart sees it is "t".
        """
        masked = self._masked(M)
        images, masks, captions = {"r": x_m}, {"r": masked}, {"r": tokens}
        if self._original:
            images["o"], masks["o"], captions["o"] = I_gt, torch.zeros_like(masked), tokens
        if self._contrastive:
            rolled = Tokens(*(part.roll(1, 0) for part in tokens))
            images["n"], masks["n"], captions["n"] = I_gt, torch.zeros_like(masked), rolled
        joined = Tokens(*(torch.cat(parts) for parts in zip(*captions.values(), strict=True)))
        out = self.encoder(torch.cat(list(images.values())), torch.cat(list(masks.values())), joined)
        pairs = zip(*(part.chunk(len(images)) for part in out), strict=True)
        encoded = dict(zip(images, (Encoded(*pair) for pair in pairs), strict=True))
        if self.teacher is not None:
            with torch.no_grad():
                encoded["t"] = self.teacher(I_gt, torch.zeros_like(masked), tokens)
        return encoded

    def _alignment_terms(
        self, encoded: Mapping[str, Encoded], M: Tensor, tokens: Tokens, ids: Sequence[str]
    ) -> dict[str, tuple[float, Tensor]]:
        """CMAD, ISD and WPA with their weights (Eq. 5 to 11)."""
        options, terms = self.options, {}
        words = tokens.known if options["align_special"] else tokens.words
        r, target = encoded["r"], self._target(encoded, tokens)
        if options["cmad"] and target is not None:
            M_r, M_o = losses.correlation(*r), losses.correlation(*target)
            terms["l_cmad"] = (options["lam"], losses.cmad(M_r, M_o, words))
        if options["isd"] and target is not None:
            where = self._masked(M) if options["isd_region"] == "masked" else None
            l_isd = losses.isd(target.patches, r.patches, options["isd_kind"], options["isd_tau"], where)
            terms["l_isd"] = (options["lam"], l_isd)
        if options["wpa"]:
            terms["l_wpa"] = (options["alpha"], self._word_patch_alignment(encoded, words, ids))
        return terms

    def _target(self, encoded: Mapping[str, Encoded], tokens: Tokens) -> Encoded | None:
        """What the corrupted image's features are drawn towards (T̂_o and V̂_o)."""
        # Deviation: the targets of CMAD and ISD carry no gradient.
        if "t" in encoded or "o" not in encoded:
            return encoded.get("t")
        o = encoded["o"]
        return o if self.options["teacher"] == "shared_grad" else Encoded(o.text.detach(), o.patches.detach())

    def _word_patch_alignment(self, encoded: Mapping[str, Encoded], words: Tensor, ids: Sequence[str]) -> Tensor:
        solver = self.options["wpa_solver"]
        o = encoded["o"]
        d_pos = losses.wpa(o.patches, o.text, words, solver)
        if not self._contrastive:
            return d_pos.mean()
        if len(ids) == 1:
            rank_zero_warn("CMA's contrastive alignment needs other captions; a batch of one has none")
        n, others = encoded["n"], [ids[k - 1] for k in range(len(ids))]
        usable = torch.tensor([a != b for a, b in zip(ids, others, strict=True)], device=d_pos.device)
        d_neg = losses.wpa(n.patches, n.text, words.roll(1, 0), solver)
        return losses.contrastive_wpa(d_pos, d_neg, usable, self.options["wpa_margin"])

    def _views(self, name: str, x: Tensor, M: Tensor) -> tuple[Tensor, Tensor | None]:
        """What a discriminator sees of images (k B 3 H W), and which of the B samples count: those with a hole."""
        if name == "global":
            return x, None
        copies, counted = len(x) // len(M), M.amax((1, 2, 3)) > 0.5
        if self.options["local_crop"] == "mask_multiply":
            return x * M.repeat(copies, 1, 1, 1), counted
        # Deviation: the local discriminator sees the square around the hole, resized.
        squares = hole_squares(M, self.options["local_least"])
        return crop(x, squares.repeat(copies, 1), self.options["local_size"]), counted

    def _follow(self) -> None:
        """Moves the `ema` teacher towards the encoder."""
        if self.teacher is not None and self.options["teacher"] == "ema":
            with torch.no_grad():
                for mean, now in zip(self.teacher.parameters(), self.encoder.parameters(), strict=True):
                    mean.lerp_(now, 1.0 - self.options["ema_decay"])

    def _monitor(self, encoded: Mapping[str, Encoded], tokens: Tokens) -> dict[str, Tensor]:
        """The signs of collapsing features, with a warning once a hundred iterations."""
        patches, across = losses.collapse(*encoded["r"], tokens.words)
        if self.iteration % 100 == 0 and min(float(patches), float(across)) > COLLAPSED:
            rank_zero_warn(
                f"all features of CMA's encoder point one way (cosine of patches {patches:.3f}, with words "
                f"{across:.3f}): captions no longer matter. From scratch set wpa_mode=contrastive or a smaller lam; "
                "from pretrained weights teacher=frozen."
            )
        return {"cosine_patches": patches, "cosine_text": across}

    @property
    def _has_teacher(self) -> bool:
        return self.options["teacher"] in ("frozen", "ema") and bool(self.options["cmad"] or self.options["isd"])

    @property
    def _original(self) -> bool:
        """Whether the original image passes through the encoder that learns."""
        return bool(self.options["wpa"] or (not self._has_teacher and (self.options["cmad"] or self.options["isd"])))

    @property
    def _contrastive(self) -> bool:
        return bool(self.options["wpa"] and self.options["wpa_mode"] == "contrastive")

    # --- starting and optimizing -----------------------------------------------------------------------------------

    @classmethod
    def vocabulary_for(cls, arguments: Mapping[str, Any], captions: Callable[[], Iterable[str]]) -> list[str]:
        """Word pieces come with the pretrained encoder, words from the training captions."""
        if arguments.get("tokenizer", "wordpiece") == "word":
            return super().vocabulary_for(arguments, captions)
        source = arguments.get("pretrained", "")
        if not source:
            raise UsageError(
                "word pieces come with a pretrained encoder, and none is named",
                remedy="--model.pretrained dandelin/vilt-b32-mlm, or --model.tokenizer word",
            )
        return word_pieces(source)

    def on_fit_start(self) -> None:
        """Loads the pretrained encoder when a training starts; a checkpoint that is resumed has its own.

        Not in `setup`, where the trainer does not say yet that it resumes.
        """
        if self.options["pretrained"] and not self.trainer.ckpt_path:
            load_vilt(self.encoder.vilt, self.options["pretrained"])
            if self.teacher is not None:
                self.teacher.load_state_dict(self.encoder.state_dict())

    def optimizers_by_name(self) -> dict[str, Optimizer]:
        """Encoder and generator lead; either discriminator has its own, so that each is clipped by itself.

        With `muon` the matrices of the encoder's layers and the generator's kernels have their own too, which steps
        with the first.
        """
        options, weight_decay = self.options, self.options["weight_decay"]
        # Deviation: weight decay is decoupled from the gradient.
        make = Adam if options["optimizer"] == "adam" else AdamW
        muon = options["optimizer"] == "muon"
        matrices = [*self.encoder.matrices(), *self.generator.kernels()] if muon else []
        groups = schedule.parameter_groups([self.encoder, self.generator], weight_decay, matrices)
        optimizers: dict[str, Optimizer] = {"generator": make(groups, options["lr"], tuple(options["betas"]))}
        if matrices:
            optimizers["matrices"] = Muon(matrices, options["muon_lr"], weight_decay)
        for name, critic in self.critics.items():
            groups = schedule.parameter_groups([critic], weight_decay)
            optimizers[name] = make(groups, options["lr"], tuple(options["critic_betas"]))
        return optimizers

    def schedulers_by_name(self) -> dict[str, LRScheduler]:
        """Warm-up for all; after it encoder and generator decay, the discriminators stay."""
        warmup = self.options["warmup"]
        decay = self.options["decay"]
        total = self.total_iterations() if decay != "constant" else None
        made: dict[str, LRScheduler] = {}
        for name, optimizer in self.by_name.items():
            made[name] = LambdaLR(optimizer, schedule.warm_up(warmup, None if name in self.critics else total, decay))
        return made


def _check(options: Mapping[str, Any]) -> None:
    for name, choices in CHOICES.items():
        if options[name] not in choices:
            raise UsageError(f"cma's {name} cannot be '{options[name]}'", remedy=f"one of {', '.join(choices)}")
    for name in ("down", "up", "critic"):
        if len(options[name]) != 5:
            raise UsageError(f"cma's {name} are the channels of five layers, not of {len(options[name])}")
    if options["isd_kind"] == "spatial_softmax" and options["isd_region"] == "masked":
        raise UsageError(
            "a softmax over all patches has no divergence over some of them",
            remedy="isd_region=all, or isd_kind=channel_softmax",
        )
    if options["isd_tau"] <= 0:
        raise UsageError(f"isd_tau must be above 0, got {options['isd_tau']}")
    if options["hidden"] % options["heads"]:
        raise UsageError(f"hidden must be a multiple of heads, got {options['hidden']} and {options['heads']}")
    adversarial = (options["global_adv"] or options["local_adv"]) and options["adv_start"] == 0
    if not (adversarial or any(options[name] for name in ("recon", "cmad", "isd", "wpa"))):
        raise UsageError("every loss of cma is off, or off until adv_start", remedy="leave one on from the start")
