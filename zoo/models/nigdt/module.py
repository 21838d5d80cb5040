"""NIGDT as a method of the zoo: construction, completion, and the training steps in the order of the paper."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from zoo.batch import Batch
from zoo.compose import hide
from zoo.errors import UsageError
from zoo.keyed import Noise
from zoo.models.nigdt import losses
from zoo.models.nigdt.attention import RULES, SOFTMAXES, Cells, DualAttention, valid_cells
from zoo.models.nigdt.discriminator import Discriminator
from zoo.models.nigdt.gather import Codes, gather, keys
from zoo.models.nigdt.inception import load_inception
from zoo.models.nigdt.match import InceptionTrunk, MatchNetwork, SmallTrunk
from zoo.models.nigdt.network import Generator, ImageEncoder
from zoo.models.nigdt.projection import Gaussian, Projection, join
from zoo.models.nigdt.text import CELLS, Described, TextEncoder
from zoo.module import InpaintingModule
from zoo.words import Tokens, WordTokenizer

RNN_CLIP = 0.25  # as AttnGAN trains its text encoder
CHOICES: dict[str, Sequence[str]] = {
    "cell": tuple(CELLS),
    "trunk": ("inception", "small"),
    "cell_rule": RULES,
    "attention_softmax": SOFTMAXES,
    "pool": ("both", "negative", "none"),
    "paths": ("two", "one"),
    "d1_feature": ("score", "penultimate"),
    "d2_fakes": ("both", "reconstructive", "generative"),
    "kl_direction": losses.DIRECTIONS,
}


class NIGDT(InpaintingModule):
    """Neural image inpainting guided with descriptive text (Zhang et al., arXiv 2004.03212v1, later TDANet).

    Dual multimodal attention finds what a caption says beyond the visible part of an image; a conditional variational
    autoencoder of two paths makes different completions from it. Two stages: `match` trains text encoder and match
    networks, `inpaint` the rest while those are frozen. The defaults are the paper's.

    Args:
        size: Side of the training images.
        vocabulary: The words of the training captions.
        text_length: The most words of a caption.
        embedding: Width of word embeddings.
        words: Width of word and sentence vectors.
        cell: `gru`, or the `lstm` of the published networks.
        bidirectional: Whether captions are read in both directions.
        dropout: Of the word embeddings while they are trained.
        encoder: Channels of the image encoder's layers.
        halvings: How many of them halve the size.
        low: After which of them v_l is taken.
        latent: Channels of z.
        width: Channels within the projections, and of r = h ⊕ z.
        blocks: Residual layers of prior and posterior.
        prior_before: Residual layers on v_h alone before the prior's (6 in the published networks).
        up: Channels of the generator's layers.
        kept: How many of them keep the size.
        attention_at: After which of them the short+long-term attention stands.
        outputs: How many scales are made.
        longterm_mixed: Whether that attention reads the decoder's own features in the hole.
        mask_skip: Whether every layer of the generator is shown the mask.
        critic: Channels of either discriminator's layers.
        critic_halvings: How many of them halve the size.
        critic_attention: After which of them the attention stands; 0 for none.
        norm_dim: 1 is PyTorch's; 0 normalizes transposed convolutions as the published networks do.
        trunk: Image side of the match networks: `inception` (frozen, from a file) or `small` (trained).
        inception: Where a training takes Inception-v3 from, a local file in torchvision's layout.
        match_channels: Of the small trunk.
        cell_rule: Which cells of v_h belong to the hole, see `attention.valid_cells`.
        attention_softmax: Over `words`, or over the `area`.
        pool: Eq. 7 on `both` paths, on the `negative` one alone, or on `none` (ablation "no max-pooling").
        invalid_as_zero: See `DualAttention`.
        use_text: False is the ablation without text, and so without L_T.
        use_attention: False is the ablation without attention.
        use_match: False is the ablation without L_T; the first stage trains the text encoder all the same.
        freeze_text: False trains the text encoder in the second stage too.
        paths: `two`, or `one`: without the reconstructive path.
        legacy_swap: The generative path is trained with the text of the complement, as the published networks were.
        l1: λ_I of the first term of Eq. 12.
        l1_hole: How much the hole alone counts besides within that term; 0 is the paper's.
        d1: Weight of its second term.
        adv: Weight of its third.
        kl: λ_KL.
        kl_per_output: Whether λ_KL is multiplied by the number of scales.
        match: λ_T.
        kl_direction: Of the reconstructive path, see `losses.KL_r`.
        free_bits: See `losses.KL_r`.
        dynamic_sigma: Whether the prior of the reconstructive path widens with the hole.
        d1_feature: D1 compares `score` maps or the features before them (`penultimate`).
        d2_fakes: What D2 learns from.
        gammas: γ1, γ2, γ3 of L_T.
        match_gamma1: γ1 when match networks are trained.
        match_lr: Learning rate of the first stage.
        adv_start: Iterations before the adversarial game begins.
        lr: Learning rate of encoder and generator.
        critic_lr: Of the discriminators.
        betas: β1 and β2 of the second stage.
        decay: The learning rate of encoder and generator stays `constant`, or falls `linear`ly to zero.
        k: How far completions deviate from the mean: 0 the mean, 1 a sample.
        stage: `match` or `inpaint`.
        clip_norm: See `InpaintingModule`; second stage.
        accumulate: See `InpaintingModule`.

    Raises:
        UsageError: A choice that is not offered, or an empty vocabulary.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"image", "mask", "caption"})
    stages: ClassVar[tuple[str, ...]] = ("match", "inpaint")
    training_only: ClassVar[tuple[str, ...]] = ("match", "posterior", "critics")
    starting: ClassVar[tuple[str, ...]] = ("inception",)
    stochastic: ClassVar[bool] = True

    def __init__(
        self,
        size: int = 256,
        vocabulary: Sequence[str] = (),
        text_length: int = 40,
        embedding: int = 300,
        words: int = 256,
        cell: str = "gru",
        bidirectional: bool = True,
        dropout: float = 0.5,
        encoder: Sequence[int] = (32, 128, 256, 256, 256, 256, 256),
        halvings: int = 5,
        low: int = 3,
        latent: int = 256,
        width: int = 256,
        blocks: int = 5,
        prior_before: int = 0,
        up: Sequence[int] = (256, 256, 128, 64, 32),
        kept: int = 0,
        attention_at: int = 2,
        outputs: int = 4,
        longterm_mixed: bool = False,
        mask_skip: bool = False,
        critic: Sequence[int] = (32, 64, 128, 128, 128, 128),
        critic_halvings: int = 5,
        critic_attention: int = 3,
        norm_dim: int = 1,
        trunk: str = "inception",
        inception: str = "",
        match_channels: Sequence[int] = (16, 32, 48),
        cell_rule: str = "majority",
        attention_softmax: str = "words",
        pool: str = "both",
        invalid_as_zero: bool = False,
        use_text: bool = True,
        use_attention: bool = True,
        use_match: bool = True,
        freeze_text: bool = True,
        paths: str = "two",
        legacy_swap: bool = False,
        l1: float = 20.0,
        l1_hole: float = 0.0,
        d1: float = 1.0,
        adv: float = 1.0,
        kl: float = 20.0,
        kl_per_output: bool = True,
        match: float = 0.5,
        kl_direction: str = "forward",
        free_bits: float = 0.0,
        dynamic_sigma: bool = False,
        d1_feature: str = "score",
        d2_fakes: str = "both",
        gammas: Sequence[float] = (5.0, 5.0, 10.0),
        match_gamma1: float = 4.0,
        match_lr: float = 2e-3,
        adv_start: int = 0,
        lr: float = 1e-4,
        critic_lr: float = 1e-4,
        betas: Sequence[float] = (0.0, 0.999),
        decay: str = "constant",
        k: float = 0.0,
        stage: str = "",
        clip_norm: float = 0.0,
        accumulate: int = 1,
    ) -> None:
        super().__init__(
            size=size, multiple=2**halvings, stage=stage or self.stages[-1], clip_norm=clip_norm, accumulate=accumulate
        )
        vocabulary, encoder, up, critic = list(vocabulary), list(encoder), list(up), list(critic)
        match_channels, gammas, betas = list(match_channels), list(gammas), list(betas)
        self.save_hyperparameters()
        self.options = dict(self.hparams)
        _check(self.options)
        self.k = k
        self.tokenizer = WordTokenizer(vocabulary, text_length, brackets=False)
        self.text = TextEncoder(len(self.tokenizer), embedding, words, cell, dropout, bidirectional)
        self.matched = use_match and use_text  # L_T of no text has no gradient
        if self.stage == "match" or self.matched:
            side: InceptionTrunk | SmallTrunk = InceptionTrunk() if trunk == "inception" else SmallTrunk(match_channels)
            self.match = MatchNetwork(side, side.regions, side.pooled, words)
        if self.stage == "inpaint":
            self._build()
            self.text.requires_grad_(not freeze_text)
            if self.matched:
                self.match.requires_grad_(False)
        self.to(memory_format=torch.channels_last)  # faster on CPUs and tensor cores
        self.train()  # Lightning keeps the mode that it finds: what is frozen must be in evaluation mode by now

    def _build(self) -> None:
        """The networks of the second stage."""
        o = self.options
        c, e = o["encoder"][-1], o["words"]
        self.encoder = ImageEncoder(o["encoder"], o["halvings"], o["low"])
        self.attention = DualAttention(
            c, e, o["attention_softmax"], o["pool"] != "none", o["invalid_as_zero"], o["use_attention"]
        )
        sizes = (c + 2 * e, o["latent"], o["width"], o["blocks"])
        self.prior = Projection(*sizes, before=o["prior_before"], visual=c)
        self.generator = Generator(
            c + 2 * e, o["latent"], o["width"], o["up"], o["encoder"][o["low"] - 1], o["attention_at"], o["outputs"],
            o["kept"], o["longterm_mixed"], o["mask_skip"], dim=o["norm_dim"],
        )  # fmt: skip
        if o["paths"] == "two":
            self.posterior = Projection(*sizes)
        self.critics = nn.ModuleDict()
        for name, weight in (("d1", o["d1"]), ("d2", o["adv"])):
            if weight > 0:
                self.critics[name] = Discriminator(o["critic"], o["critic_halvings"], o["critic_attention"])

    # --- completing an image ---------------------------------------------------------------------------------------

    @property
    def completes(self) -> bool:
        """Match networks complete nothing."""
        return self.stage == "inpaint"

    @contextmanager
    def sampling(self) -> Iterator[None]:
        """Inside, k is 1 where it was 0: each seed gives another completion."""
        k = self.k
        self.k = k or 1.0
        try:
            yield
        finally:
            self.k = k

    def inpaint(self, batch: Batch, noise: Noise) -> Tensor:
        """The generative path alone: nothing of the complement exists here."""
        I_m, M = batch["image"] * 2.0 - 1.0, batch["mask"]
        v_l, v_h = self.encoder(I_m)
        cells = self._cells(M, v_h)
        described = self._describe(batch["caption"])
        h_g = join(v_h, self._attended(v_h, described, cells.known, -1.0), described.sentence)
        p: Gaussian = self.prior(h_g)
        ε = noise.normal("latent", p.mean.shape[1:], p.mean.device)
        I_g: Tensor = self.generator(h_g, p.draw(ε, self.k).to(h_g), v_l, M)[-1]
        return (I_g + 1.0) / 2.0

    def _describe(self, captions: Sequence[str]) -> Described:
        """t_wrd and t_sent; zeros without text, in the second stage."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.options["freeze_text"]):
            described: Described = self.text(Tokens(*(part.to(self.device) for part in self.tokenizer(captions))))
        if self.options["use_text"] or self.stage == "match":
            return described
        return Described(torch.zeros_like(described.words), torch.zeros_like(described.sentence), described.known)

    def _cells(self, M: Tensor, v_h: Tensor) -> Cells:
        return valid_cells(M, (v_h.shape[-2], v_h.shape[-1]), self.options["cell_rule"])

    def _attended(self, v_h: Tensor, described: Described, valid: Tensor, sign: float) -> Tensor:
        """t_e of one path (Eq. 3 to 7): sign 1 is the positive path, -1 the negative one."""
        pool = self.options["pool"] == "both" or (self.options["pool"] == "negative" and sign < 0)
        t_e: Tensor = self.attention(v_h, described, valid, sign, pool)
        return t_e

    # --- training --------------------------------------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        if self.stage == "match":
            self._match_step(batch)
        else:
            self._inpaint_step(batch)

    def _match_step(self, batch: Batch) -> None:
        """DAMSM: images and captions of a batch find each other, by words and regions and as wholes."""
        described = self.text(Tokens(*(part.to(self.device) for part in self.tokenizer(batch["caption"]))))
        _, _, γ3 = self.options["gammas"]
        with self.turn("match") as minimize:
            codes = gather(self._codes(batch["image"] * 2.0 - 1.0, described, batch["id"]))
            l_word, l_sentence = losses.match(codes, self.options["match_gamma1"], self.options["gammas"][1], γ3)
            minimize(l_word + l_sentence)
        self.log_terms("train", {"l_word": l_word, "l_sentence": l_sentence})

    def _codes(self, image: Tensor, described: Described, ids: Sequence[str]) -> Codes:
        regions, whole = self.match(image)
        words, sentence, known = described
        return Codes(regions, whole, words, sentence, known, keys(ids, self.device))

    def validate_batch(self, batch: Batch) -> Mapping[str, list[float]]:
        """Of the first stage: whether an image's caption is the best of its batch, by words and by sentences."""
        codes = self._codes(batch["image"] * 2.0 - 1.0, self._describe(batch["caption"]), batch["id"])
        γ1, γ2, _ = self.options["gammas"]
        scores = {
            "match_words": losses.word_scores(codes.regions, codes.words, codes.known, γ1, γ2),
            "match_sentence": losses.sentence_scores(codes.image, codes.sentence),
        }
        truth = torch.arange(len(codes.key), device=self.device)
        return {name: (score.argmax(1) == truth).float().tolist() for name, score in scores.items()}

    def _inpaint_step(self, batch: Batch) -> None:
        """One step: both paths, then the discriminators, then everything else."""
        I, M, iteration = batch["image"] * 2.0 - 1.0, batch["mask"], self.iteration  # noqa: E741
        described = self._describe(batch["caption"])
        p, q, paths = self._paths(I, M, described)
        finals = {name: outputs[-1] for name, outputs in paths.items()}
        critics = dict(self.critics) if iteration >= self.options["adv_start"] else {}
        terms: dict[str, Tensor] = {}
        if critics:
            with self.turn("critics") as minimize:
                for name, D in critics.items():
                    fakes = torch.cat([x.detach() for x in self._fakes(name, finals)])
                    D_I, D_g = D(torch.cat([I, fakes])).split([len(I), len(fakes)])
                    terms[f"l_{name}"] = losses.adversarial_discriminator(D_I, D_g)
                minimize(torch.stack(list(terms.values())).sum())
        with self.turn("generator") as minimize:
            weighed = self._distribution_terms(p, q, M, len(paths["g"]))
            for name, outputs in paths.items():
                weighed |= self._image_terms(name, outputs, I, M, critics)
                if self.matched:
                    words, sentence, known = described  # they are no targets of this loss
                    fixed = Described(words.detach(), sentence.detach(), known)
                    codes = gather(self._codes(outputs[-1], fixed, batch["id"]))
                    l_T = torch.stack(losses.match(codes, *self.options["gammas"])).sum()
                    weighed[f"l_T_{name}"] = (self.options["match"], l_T)
            minimize(torch.stack([weight * loss for weight, loss in weighed.values()]).sum())  # Eq. 19
        self.log_terms("train", terms | {name: loss for name, (_, loss) in weighed.items()})

    def _paths(self, I: Tensor, M: Tensor, described: Described) -> tuple[Gaussian, Gaussian | None, dict[str, Any]]:  # noqa: E741
        """Prior, posterior, and the outputs of the generative path "g" and the reconstructive path "r"."""
        two, B = self.options["paths"] == "two", len(I)
        I_m, I_c = hide(I, M, 0.0), hide(I, 1.0 - M, 0.0)
        v_l, v_h = self.encoder(torch.cat([I_m, I_c]) if two else I_m)
        v_l, cells = v_l[:B], self._cells(M, v_h)
        h_g = join(v_h[:B], self._attended(v_h[:B], described, cells.known, -1.0), described.sentence)
        p: Gaussian = self.prior(h_g)
        z_g = p.draw(torch.randn_like(p.mean)).to(h_g)
        if not two:
            return p, None, {"g": self.generator(h_g, z_g, v_l, M)}
        t_positive = self._attended(v_h[B:], described, cells.hole, 1.0)
        q: Gaussian = self.posterior(join(v_h[B:], t_positive, described.sentence))
        z_r = q.draw(torch.randn_like(q.mean)).to(h_g)
        # Deviation: the generative path never reads what attention found in the complement.
        read = join(v_h[:B], t_positive, described.sentence) if self.options["legacy_swap"] else h_g
        both = self.generator(torch.cat([read, h_g]), torch.cat([z_g, z_r]), torch.cat([v_l, v_l]), torch.cat([M, M]))
        return p, q, {"g": [x[:B] for x in both], "r": [x[B:] for x in both]}

    def _fakes(self, name: str, finals: Mapping[str, Tensor]) -> list[Tensor]:
        """What a discriminator learns from: D1 the reconstructive path, D2 what `d2_fakes` says."""
        if "r" not in finals:
            return [finals["g"]]
        # Deviation: D2 learns from both paths.
        wanted = {"both": ("g", "r"), "reconstructive": ("r",), "generative": ("g",)}[self.options["d2_fakes"]]
        return [finals[path] for path in (wanted if name == "d2" else ("r",))]

    def _distribution_terms(
        self, p: Gaussian, q: Gaussian | None, M: Tensor, outputs: int
    ) -> dict[str, tuple[float, Tensor]]:
        """Eq. 17 and 18 with their weights."""
        o = self.options
        weight = o["kl"] * (outputs if o["kl_per_output"] else 1)
        σ_m = losses.dynamic_sigma(M) if o["dynamic_sigma"] else 1.0
        if q is None:
            return {"KL_g": (weight, losses.KL_r(p, σ_m, "reverse", o["free_bits"]))}
        KL_r = losses.KL_r(q, σ_m, o["kl_direction"], o["free_bits"])
        return {"KL_r": (weight, KL_r), "KL_g": (weight, losses.KL_g(q, p, free_bits=o["free_bits"]))}

    def _image_terms(
        self,
        name: str,
        outputs: Sequence[Tensor],
        I: Tensor,  # noqa: E741
        M: Tensor,
        critics: Mapping[str, Any],
    ) -> dict[str, tuple[float, Tensor]]:
        """Eq. 12 of one path, with the weights of its terms."""
        o = self.options
        # Deviation: λ_I weighs the L1 distance alone.
        weighed = {f"l_1_{name}": (o["l1"], losses.reconstruction(outputs, I, M, o["l1_hole"]))}
        if "d1" in critics:
            D1 = critics["d1"] if o["d1_feature"] == "score" else critics["d1"].features
            with torch.no_grad():
                truth = D1(I)
            weighed[f"l_D1_{name}"] = (o["d1"], losses.feature(truth, D1(outputs[-1])))
        if "d2" in critics:
            weighed[f"l_D2_{name}"] = (o["adv"], losses.adversarial_generator(critics["d2"](outputs[-1])))
        return weighed

    # --- optimizing ------------------------------------------------------------------------------------------------

    def optimizers_by_name(self) -> dict[str, Optimizer]:
        """`match` in the first stage; encoder and generator lead in the second, both discriminators share one."""
        o = self.options
        if self.stage == "match":
            learning = [p for m in (self.text, self.match) for p in m.parameters() if p.requires_grad]
            return {"match": Adam(learning, o["match_lr"], (0.5, 0.999))}
        names = ["encoder", "attention", "prior", "posterior", "generator", *([] if o["freeze_text"] else ["text"])]
        learning = [p for name in names if hasattr(self, name) for p in getattr(self, name).parameters()]
        optimizers: dict[str, Optimizer] = {"generator": Adam(learning, o["lr"], tuple(o["betas"]))}
        if self.critics:
            optimizers["critics"] = Adam(self.critics.parameters(), o["critic_lr"], tuple(o["betas"]))
        return optimizers

    def schedulers_by_name(self) -> dict[str, LRScheduler]:
        """Match networks slow down by 2 % an epoch to a tenth, as AttnGAN's; the rest as `decay` says."""
        if self.stage == "match":
            self.trainer.fit_loop.setup_data()  # it sets num_training_batches, infinite for endless data
            epoch = max(1.0, self.trainer.num_training_batches / self.accumulate)
            return {"match": LambdaLR(self.by_name["match"], lambda step: max(0.1, 0.98 ** (step // epoch)))}
        if self.options["decay"] == "constant":
            return {}
        total = self.total_iterations()
        return {"generator": LambdaLR(self.by_name["generator"], lambda step: max(0.0, 1.0 - step / total))}

    def on_fit_start(self) -> None:
        """Loads Inception-v3 when match networks begin to be trained; later stages and resumed runs hold it."""
        trunk = self.match.trunk if self.stage == "match" else None
        if isinstance(trunk, InceptionTrunk) and not self.trainer.ckpt_path:
            load_inception(trunk, self.options["inception"])

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Clips the recurrent network alone while match networks are trained."""
        if self.stage == "match":
            nn.utils.clip_grad_norm_(self.text.rnn.parameters(), RNN_CLIP)
        else:
            super().on_before_optimizer_step(optimizer)

    def train(self, mode: bool = True) -> NIGDT:
        """In the second stage the match networks, and a frozen text encoder, stay in evaluation mode."""
        super().train(mode)
        if self.stage == "inpaint":
            if self.options["freeze_text"]:
                self.text.eval()
            if self.matched:
                self.match.eval()
        return self


def _check(options: Mapping[str, Any]) -> None:
    for name, choices in CHOICES.items():
        if options[name] not in choices:
            raise UsageError(f"nigdt's {name} cannot be '{options[name]}'", remedy=f"one of {', '.join(choices)}")
    if options["legacy_swap"] and options["paths"] == "one":
        raise UsageError("legacy_swap takes the text of the complement, which one path alone does not read")
