"""MMInvertFill as a method of the zoo: construction, completion, and the training step of either stage."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from zoo.batch import UNKNOWN_CLASS, Batch
from zoo.compose import composite, hide
from zoo.errors import DataError
from zoo.keyed import Noise, torch_generator
from zoo.models.mminvertfill import losses, optimization, pretraining
from zoo.models.mminvertfill.choices import by_resolution, check
from zoo.models.mminvertfill.convert_mmt import load_mmt
from zoo.models.mminvertfill.decoder import Truth
from zoo.models.mminvertfill.discriminator import PatchDiscriminator
from zoo.models.mminvertfill.encoder_options import EncoderOptions
from zoo.models.mminvertfill.features import hrf_features, perc_features
from zoo.models.mminvertfill.generator import StyleGenerator
from zoo.models.mminvertfill.guidance import assemble, guidance_mask, one_hot
from zoo.models.mminvertfill.mean import MeanLatent
from zoo.models.mminvertfill.native import from_native, to_native
from zoo.models.mminvertfill.network import Inverted, Inverter
from zoo.models.mminvertfill.stylegan_discriminator import StyleDiscriminator
from zoo.module import InpaintingModule

CHUNK = 10_000  # codes of the mapping network at a time


class Guides(NamedTuple):
    """Guidance as the encoder reads it; None for a modality that the model does without.

    Attributes:
        E: Edges, B 1 H W in {0, 1}.
        M_E: Where they are missing, B 1 H W.
        S: One-hot segmentation, B K H W.
        M_S: Where it is missing, B 1 H W.
    """

    E: Tensor | None
    M_E: Tensor | None
    S: Tensor | None
    M_S: Tensor | None


class MMInvertFill(InpaintingModule):
    """Image inpainting by GAN inversion with multi-modal guidance (Zhang et al., IJCV 2025).

    A guided encoder turns a corrupted image, with edges and a segmentation where there are any, into styles and
    features of a StyleGAN2 generator that was trained before, on whole images, and stays as it is. The defaults are the
    paper's at 256 pixels, as far as it can be read; see the card.

    Args:
        size: s, the side of the generator's images.
        classes: K, classes of the segmentation.
        edge: Whether edges can guide; False is the ablation "w/o edge".
        segmentation: Whether a segmentation can; False is "w/o segmentation".
        w: Numbers in a style vector.
        mapping: Layers of the mapping network.
        generator_channels: Of the generator, from 4 pixels up; empty for StyleGAN2's config F.
        style_critic_channels: Of the discriminator of the first stage, from 4 pixels up; empty for config F.
        widths: Of the encoder at s/2, s/4, s/8.
        auxiliary: Channels of edge and segmentation branches, coarse to fine.
        norm: Of the encoder: `gn`, `bn` or `syncbn`.
        gated_stem: Whether the encoder's first two convolutions are gated, as in MMT.
        bottleneck: `acb`, `res` or `aot` (Table 8).
        n_blocks: How many of them.
        rates: R, their dilations.
        acb_variant: `paper`, or `code` for the form of MMT's code.
        acb_tau: Temperature of ACB's softmax.
        matched: Whether `res` and `aot` have the channels of ACB's four paths.
        fusion: How the image's branch takes in the others (Table 7): one of `decoder.FUSIONS`.
        aux_source: What it takes in (Table 6): one of `decoder.SOURCES`.
        gma_gate: How attention trusts hole cells less: one of `attention.GATES`.
        patches: Cells on a side of the patches, a head for each.
        adn_order: Whether `conv` or `adn` comes first in q, k and v.
        ff_variant: `gated`, or `mmt` for the form of MMT's code.
        dec_up: The decoder enlarges by `nearest_conv` or `convT`.
        mask_down: The mask at a stage's size is the `max` or the `nearest`.
        mmt_file: Where a training takes the encoder of MMT from, tensors in its layout; see `convert_mmt.OPTIONS`.
        map_width: See `maps.map_widths`.
        pm: False is "w/o PM".
        sml: Mean latent: `soft`, `static` ("w/o SML") or `off`.
        tau: τ, the share of the way to its target that the mean latent goes in one step.
        mean_samples: Samples of one target.
        mean_eps: A new target is drawn when this share of the way is left.
        mean_first: Samples of the mean that training begins with.
        sml_mode: w* is `offset` from the mean latent, or Δ itself, and the mean only `regularise`s.
        fw: False is "w/o F&W+".
        branch_widths: Of the RGB branch, from 8 pixels up; empty for `branch.branch_widths`.
        branch_dense: Channels of its 4 x 4 map.
        f4: `add` to the generator's constant or `replace` it.
        branch_input: The RGB branch sees the `image` (the paper's), or the guidance too (`guided`).
        noise: The generator's when completing: `fixed`, `random` (another seed, another completion) or `none`.
        train_generator: Whether the second stage trains the generator too.
        critic: Channels of the first layer of the patch discriminator.
        adv_on: The discriminator sees the `raw` output or the `composite`.
        adv_kind: `hinge` or `nsgan`.
        adv_start: Iterations before its game begins.
        ipt: Eq. 7, `hrf`; or InvertFill's terms, `rfr`.
        hrf: Features of L_hrf: `ade20k`, `torchvision_dilated`, `random` or `none`.
        hrf_file: Where their weights are.
        perc: Features of the other perceptual terms: `vgg16`, `hrf` (the same) or `none`.
        perc_file: Where their weights are.
        w_hrf: Weight of L_hrf.
        w_adv: Weight of L_adv.
        w_l1: Weight of the mean |I - O_G|; 0 is the paper's.
        w_l1_hole: Weight of the same over each hole; 0 is the paper's.
        msr: λ_msr.
        w_rec: Weight of the reconstruction within it.
        w_perc: Weight of the perceptual term within it, and of nothing else.
        w_edge: Weight of the edges' entropy.
        w_seg: Weight of the classes' entropy.
        fid: λ_fid.
        fid_kind: `norm` or `mse`.
        shares: How often in training all guidance is withheld, and how often what the hole hides; see `guidance_mask`.
        whole: Of the rest, how often all is shown.
        lr: Learning rate of the second stage.
        muon_lr: Of the inverter's matrices and kernels, whose updates are then made orthogonal (`layers.muon`), for
            training from scratch; 0 leaves them to Adam.
        critic_lr: Of its discriminator.
        betas: Of both.
        decay: `linear` to zero, or `constant`.
        style_lr: Learning rate of the first stage.
        style_betas: Of its optimizers.
        r1: γ of R1.
        r1_every: Iterations between two R1.
        pl: Weight of the path length; 0 leaves it out.
        pl_every: Iterations between two path lengths.
        mixing: How often two z share an image in the first stage.
        mirror: Whether images are mirrored at random in the first stage.
        stage: `generator` or `inpaint`.
        clip_norm: See `InpaintingModule`; of the second stage.
        accumulate: See `InpaintingModule`.

    Raises:
        UsageError: A choice that is not offered, or sizes that do not fit together.
    """

    uses = frozenset({"edge", "segmentation"})
    stochastic: ClassVar[bool] = True
    stages: ClassVar[tuple[str, ...]] = ("generator", "inpaint")
    training_only: ClassVar[tuple[str, ...]] = ("critic", "style_critic", "path_mean")
    frozen: ClassVar[tuple[str, ...]] = ("phi", "psi")
    starting: ClassVar[tuple[str, ...]] = ("hrf_file", "perc_file", "mmt_file")

    path_mean: Tensor

    def __init__(
        self,
        size: int = 256,
        classes: int = 15,
        edge: bool = True,
        segmentation: bool = True,
        w: int = 512,
        mapping: int = 8,
        generator_channels: Sequence[int] = (),
        style_critic_channels: Sequence[int] = (),
        widths: Sequence[int] = (64, 128, 256),
        auxiliary: Sequence[int] = (128, 128, 64),
        norm: str = "gn",
        gated_stem: bool = False,
        bottleneck: str = "acb",
        n_blocks: int = 8,
        rates: Sequence[int] = (1, 2, 3, 4),
        acb_variant: str = "paper",
        acb_tau: float = 1.0,
        matched: bool = False,
        fusion: str = "gma+adn",
        aux_source: str = "feature",
        gma_gate: str = "attention",
        patches: Sequence[int] = (2, 4),
        adn_order: str = "conv",
        ff_variant: str = "gated",
        dec_up: str = "nearest_conv",
        mask_down: str = "max",
        mmt_file: str = "",
        map_width: str = "grow",
        pm: bool = True,
        sml: str = "soft",
        tau: float = 1e-3,
        mean_samples: int = 16,
        mean_eps: float = 0.05,
        mean_first: int = 100_000,
        sml_mode: str = "offset",
        fw: bool = True,
        branch_widths: Sequence[int] = (),
        branch_dense: int = 64,
        f4: str = "add",
        branch_input: str = "image",
        noise: str = "fixed",
        train_generator: bool = False,
        critic: int = 64,
        adv_on: str = "raw",
        adv_kind: str = "hinge",
        adv_start: int = 0,
        ipt: str = "hrf",
        hrf: str = "ade20k",
        hrf_file: str = "",
        perc: str = "vgg16",
        perc_file: str = "",
        w_hrf: float = 30.0,
        w_adv: float = 1.0,
        w_l1: float = 0.0,
        w_l1_hole: float = 0.0,
        msr: float = 1.0,
        w_rec: float = 10.0,
        w_perc: float = 0.05,
        w_edge: float = 0.5,
        w_seg: float = 0.5,
        fid: float = 0.005,
        fid_kind: str = "norm",
        shares: Sequence[float] = (0.5, 0.25),
        whole: float = 0.5,
        lr: float = 1e-4,
        muon_lr: float = 0.0,
        critic_lr: float = 1e-4,
        betas: Sequence[float] = (0.5, 0.999),
        decay: str = "constant",
        style_lr: float = 2e-3,
        style_betas: Sequence[float] = (0.0, 0.99),
        r1: float = 10.0,
        r1_every: int = 16,
        pl: float = 2.0,
        pl_every: int = 4,
        mixing: float = 0.9,
        mirror: bool = True,
        stage: str = "",
        clip_norm: float = 0.0,
        accumulate: int = 1,
    ) -> None:
        super().__init__(
            size=size, multiple=1, stage=stage or self.stages[-1], clip_norm=clip_norm, accumulate=accumulate
        )
        self.save_hyperparameters()
        self.options: dict[str, Any] = dict(self.hparams)
        check(self.options)
        self.uses = frozenset(name for name in ("edge", "segmentation") if self.options[name])
        channels = by_resolution(generator_channels)
        self.generator = StyleGenerator(size, w, mapping, channels)
        if self.stage == "generator":
            self.style_critic = StyleDiscriminator(size, by_resolution(style_critic_channels))
            self.register_buffer("path_mean", torch.zeros(()))
        else:
            self._build()
        self.to(memory_format=torch.channels_last)  # faster on CPUs and tensor cores
        self.train()  # Lightning keeps the mode that it finds: what is frozen must be in evaluation mode by now

    def _build(self) -> None:
        """The networks of the second stage."""
        o, G = self.options, self.generator
        encoder = EncoderOptions(
            o["edge"], o["classes"] if o["segmentation"] else 0, tuple(o["widths"]), tuple(o["auxiliary"]), o["norm"],
            o["gated_stem"], o["bottleneck"], o["n_blocks"], tuple(o["rates"]), o["acb_variant"], o["acb_tau"],
            o["matched"], o["fusion"], o["aux_source"], o["gma_gate"], tuple(o["patches"]), o["adn_order"],
            o["ff_variant"], o["dec_up"], o["mask_down"],
        )  # fmt: skip
        branch = by_resolution(o["branch_widths"], first=8)
        self.inverter = Inverter(
            encoder, self.size, G.w, G.styles, G.channels, o["map_width"], o["pm"], o["fw"], branch,
            o["branch_dense"], o["f4"], o["branch_input"],
        )  # fmt: skip
        self.mean = MeanLatent(G.w, o["sml"], o["tau"], o["mean_samples"], o["mean_eps"], o["mean_first"])
        if o["w_adv"] > 0:
            self.critic = PatchDiscriminator(3 + o["edge"], o["critic"])
        self.phi = hrf_features(o["hrf"])
        self.psi = perc_features(o["perc"], self.phi)
        self.generator.requires_grad_(o["train_generator"])

    # --- completing an image ---------------------------------------------------------------------------------------

    @property
    def completes(self) -> bool:
        """A generator alone completes nothing."""
        return self.stage == "inpaint"

    def inpaint(self, batch: Batch, noise: Noise) -> Tensor:
        """Images of another size than the generator's are padded to a square and made smaller, see `native`."""
        height, width = batch["image"].shape[-2:]
        batch = to_native(batch, self.size)
        X, M = batch["image"] * 2.0 - 1.0, batch["mask"]
        made = self._invert(X, M, self._shown(batch))
        O_G = self._generate(made, self._noise(noise))
        return from_native((O_G + 1.0) / 2.0, height, width)

    def _shown(self, batch: Batch) -> Guides:
        """The guidance that came with a batch; a modality that did not is missing everywhere."""
        M = batch["mask"]
        E = M_E = S = M_S = None
        if self.options["edge"]:
            E, M_E = batch.get("edge", torch.zeros_like(M)), batch.get("edge_mask", torch.ones_like(M))
        if self.options["segmentation"]:
            unknown = torch.full_like(M[:, 0], UNKNOWN_CLASS, dtype=torch.long)
            ids = batch.get("segmentation", unknown)
            S = one_hot(ids, self.options["classes"])
            M_S = torch.maximum(batch.get("segmentation_mask", M), (ids == UNKNOWN_CLASS)[:, None].to(M))
        return Guides(E, M_E, S, M_S)

    def _invert(self, X: Tensor, M: Tensor, guides: Guides, truth: Truth | None = None) -> Inverted:
        inputs = assemble(X, M, *guides)
        if self.options["aux_source"] == "truth" and truth is None:
            truth = Truth(guides.E, guides.S)
        made: Inverted = self.inverter(inputs, X, M, truth)
        return made

    def _styles(self, made: Inverted) -> Tensor:
        """w*, B L w."""
        return made.delta + self.mean.online if self.options["sml_mode"] == "offset" else made.delta

    def _generate(self, made: Inverted, noise: Sequence[Tensor] | None) -> Tensor:
        replace = self.options["f4"] == "replace"
        return self.generator.synthesize(self._styles(made), noise, made.structure, replace).clamp(-1.0, 1.0)

    @contextmanager
    def sampling(self) -> Iterator[None]:
        """Inside, the generator's noise is random: each seed gives another completion."""
        before = self.options["noise"]
        self.options["noise"] = "random"
        try:
            yield
        finally:
            self.options["noise"] = before

    def _noise(self, noise: Noise) -> list[Tensor] | None:
        fixed = self.generator.fixed_noise()
        if self.options["noise"] == "random":
            return [noise.normal(f"layer {k}", n.shape[1:], n.device) for k, n in enumerate(fixed)]
        return fixed if self.options["noise"] == "fixed" else None

    # --- training --------------------------------------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        height, width = batch["image"].shape[-2:]
        if (height, width) != (self.size, self.size):
            raise DataError(
                f"mminvertfill of size {self.size} cannot be trained on images of {height} x {width}",
                remedy="give model and data the same size",
            )
        if self.stage == "generator":
            self.log_terms("train", pretraining.step(self, batch))
        else:
            self._inpaint_step(batch)

    def _inpaint_step(self, batch: Batch) -> None:
        """One step (Sec. 3.5): complete, then the discriminator learns, then the encoder."""
        I, M = batch["image"] * 2.0 - 1.0, batch["mask"]  # noqa: E741
        guides = self._withheld(batch)
        self.mean.step(self.codes)
        made = self._invert(hide(I, M, 0.0), M, guides, Truth(guides.E, guides.S))
        O_G = self.generator.synthesize(
            self._styles(made), self.generator.fresh_noise(len(I), I.device), made.structure,
            self.options["f4"] == "replace",
        )  # fmt: skip
        seen = O_G if self.options["adv_on"] == "raw" else composite(O_G, I, M)
        E_O = self._predicted_edges(made, batch)
        terms: dict[str, Tensor] = {}
        game = self.options["w_adv"] > 0 and self.iteration >= self.options["adv_start"]
        if game:
            with self.turn("critic") as minimize:
                both = None if E_O is None or guides.E is None else torch.cat([guides.E, E_O.detach()])
                D_I, D_O = self.critic(torch.cat([I, seen.detach()]), both).chunk(2)
                terms["l_d"] = losses.L_D(D_I, D_O, self.options["adv_kind"])
                minimize(terms["l_d"])
        with self.turn(*(name for name in self.by_name if name != "critic")) as minimize:
            weighed = self._image_terms(I, O_G, M) | self._scale_terms(I, made, guides, batch)
            if game:
                weighed["adv"] = (self.options["w_adv"], losses.L_adv(self.critic(seen, E_O), self.options["adv_kind"]))
            l_fid = losses.L_fid(self._styles(made), self.mean.online, self.options["fid_kind"])
            weighed["fid"] = (self.options["fid"], l_fid)
            minimize(torch.stack([weight * loss for weight, loss in weighed.values()]).sum())  # Eq. 10
        self.log_terms("train", terms | {f"l_{name}": loss for name, (_, loss) in weighed.items()})

    def _predicted_edges(self, made: Inverted, batch: Batch) -> Tensor | None:
        """What the discriminator sees beside an output, B 1 s s: edges from half the size; None without that branch.

        Nothing where the data has no edges, as beside the truth: it could not but tell the two apart.
        """
        if made.decoded.edge is None or "edge" not in batch:
            return None if made.decoded.edge is None else torch.zeros_like(batch["mask"])
        edge = made.decoded.edge[-1].float().sigmoid()
        return F.interpolate(edge, (self.size, self.size), mode="bilinear", align_corners=False)

    def _withheld(self, batch: Batch) -> Guides:
        """Whole guidance, with masks of what of it this step withholds."""
        M, o = batch["mask"], self.options
        seed = getattr(getattr(self.trainer, "datamodule", None), "seed", 0)
        shown = Batch(**batch)
        for name in self.uses & set(batch):
            shown[f"{name}_mask"] = guidance_mask(  # type: ignore[literal-required]
                M, batch["id"], name, seed, self.iteration, tuple(o["shares"]), o["whole"]
            )
        return self._shown(shown)

    def _image_terms(self, I: Tensor, O_G: Tensor, M: Tensor) -> dict[str, tuple[float, Tensor]]:  # noqa: E741
        """Eq. 7 but for its adversarial term, with the weights."""
        o = self.options
        weighed: dict[str, tuple[float, Tensor]] = {}
        if o["ipt"] == "rfr" and self.psi is not None:
            terms = losses.L_rfr(I, O_G, M, self.psi)
            weighed = {name: (losses.RFR_WEIGHTS[name], term) for name, term in terms.items()}
        elif self.phi is not None and o["w_hrf"] > 0:
            with torch.no_grad():
                φ_I = self.phi(I)
            weighed["hrf"] = (o["w_hrf"], losses.L_hrf(φ_I, self.phi(O_G)))
        for name, region in (("l1", torch.ones_like(M)), ("l1_hole", M)):
            if o[f"w_{name}"] > 0:
                weighed[name] = (o[f"w_{name}"], losses.distance(I, O_G, region))
        return weighed

    def _scale_terms(self, I: Tensor, made: Inverted, guides: Guides, batch: Batch) -> dict[str, tuple[float, Tensor]]:  # noqa: E741
        """Eq. 8 with its weights; a modality that the data does not have has no term."""
        o, decoded = self.options, made.decoded
        E = None if decoded.edge is None or "edge" not in batch else (decoded.edge, guides.E)
        there = decoded.segmentation is not None and "segmentation" in batch
        S = (decoded.segmentation, batch["segmentation"]) if there else None
        φ = self.psi if o["w_perc"] > 0 else None
        terms = losses.L_msr(decoded.image, I, E, S, φ)  # type: ignore[arg-type]
        return {f"msr_{name}": (o["msr"] * o[f"w_{name}"], term) for name, term in terms.items()}

    def validate_batch(self, batch: Batch) -> Mapping[str, list[float]]:
        """Of the first stage: see `pretraining.scores`."""
        return pretraining.scores(self, batch)

    def _completion_scores(self, batch: Batch, guidance: Sequence[str] = ()) -> dict[str, list[float]]:
        """Also what the judge says, and the hole's L1, when all guidance is shown."""
        values = super()._completion_scores(batch, guidance)
        guided = super()._completion_scores(batch, tuple(self.uses & set(batch)))
        judged = {name: value for name, value in guided.items() if name.endswith("fidelity") or name == "l1_hole"}
        return values | {f"guided_{name}": value for name, value in judged.items()}

    def sheet(self) -> Tensor | None:
        """Images of the generator, after the first stage."""
        if self.stage != "generator":
            return None
        z = torch.randn(32, self.generator.w, generator=torch_generator("sheet", 0)).to(self.device)
        image: Tensor = self.generator(z, self.generator.fixed_noise())
        return (image.clamp(-1.0, 1.0) + 1.0) / 2.0

    # --- starting and optimizing -----------------------------------------------------------------------------------

    def on_fit_start(self) -> None:
        """Loads frozen features, which no checkpoint holds; when the second stage starts, draws the mean latent."""
        if self.stage != "inpaint":
            return
        for features, file in ((self.phi, "hrf_file"), (self.psi, "perc_file")):
            if features is not None and (features is not self.phi or file == "hrf_file"):
                features.load(self.options[file])
        if not self.trainer.ckpt_path:
            self.mean.start(self.codes)
            if self.options["mmt_file"]:
                load_mmt(self.inverter.encoder, Path(self.options["mmt_file"]))
            if self.inverter.branch is not None:
                self.inverter.branch.start(self.generator.constant)

    @torch.no_grad()
    def codes(self, count: int) -> Tensor:
        """f(z) of `count` normal z, count x w; keyed by how many means were drawn, so that processes agree."""
        z = torch.randn(count, self.generator.w, generator=torch_generator("mean latent", int(self.mean.draws)))
        return torch.cat([self.generator.map(part.to(self.device)) for part in torch.split(z, CHUNK)])

    def optimizers_by_name(self) -> dict[str, Optimizer]:
        """`generator` leads the first stage, `inverter` the second; either has its discriminator's beside it."""
        return pretraining.optimizers(self) if self.stage == "generator" else optimization.optimizers(self)

    def schedulers_by_name(self) -> dict[str, LRScheduler]:
        """In the second stage, as `decay` says."""
        return {} if self.stage == "generator" else optimization.schedulers(self)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Clips the second stage alone: StyleGAN2 trains unclipped."""
        if self.stage == "inpaint":
            super().on_before_optimizer_step(optimizer)

    def exported_state(self) -> dict[str, Tensor]:
        """Also without the discriminator of the first stage: the second has another."""
        return {k: v for k, v in super().exported_state().items() if not k.startswith(("style_critic.", "path_mean"))}

    def train(self, mode: bool = True) -> MMInvertFill:
        """In the second stage a frozen generator stays in evaluation mode."""
        super().train(mode)
        if self.stage == "inpaint" and not self.options["train_generator"]:
            self.generator.eval()
        return self
