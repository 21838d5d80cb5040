"""The multi-modal mutual decoder and its heads (Sec. 3.2.2, Fig. 3a): image, edge and segmentation, coarse to fine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.errors import UsageError, unknown_name
from zoo.models.mminvertfill.attention import GMA
from zoo.models.mminvertfill.backbone import SLOPE, make_norm
from zoo.models.mminvertfill.denormalization import denormalization
from zoo.models.mminvertfill.encoder_options import EncoderOptions

FUSIONS = ("gma+adn", "gma+adain", "gma+spade", "gma+add", "gma+conv", "concat", "adain", "spade", "none")
SOURCES = ("feature", "pred", "hybrid", "truth")
ENLARGEMENTS = ("nearest_conv", "convT")
MASKS = ("max", "nearest")
STAGES = 3  # at s/8, s/4, s/2


class Truth(NamedTuple):
    """Complete maps, for `aux_source: truth` only.

    Attributes:
        edge: B 1 s s in {0, 1}, or None where there is no edge branch.
        segmentation: B K s s one-hot (all zero where unknown), or None where there is no segmentation branch.
    """

    edge: Tensor | None
    segmentation: Tensor | None


class Decoded(NamedTuple):
    """What the decoder gives, a map for each stage, coarse to fine: at s/8, s/4, s/2.

    Attributes:
        features: x of the inpainting branch after GMA, B C_r h w.
        image: B 3 h w in [-1, 1].
        edge: Logits, B 1 h w; None without that branch.
        segmentation: Logits, B K h w; None without that branch.
    """

    features: list[Tensor]
    image: list[Tensor]
    edge: list[Tensor] | None
    segmentation: list[Tensor] | None


def enlarge(kind: str, channels_in: int, channels_out: int, bias: bool = True) -> nn.Module:
    """A layer that doubles the size: `nearest_conv`, nearest and 3x3, or `convT`, a transposed 4x4 of stride 2.

    Raises:
        UsageError: Another kind.
    """
    if kind == "convT":
        return nn.ConvTranspose2d(channels_in, channels_out, 4, 2, 1, bias=bias)
    # Deviation: the decoder enlarges by nearest pixels and a convolution.
    if kind == "nearest_conv":  # a transposed convolution can leave a chequerboard
        conv = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=bias)
        return nn.Sequential(nn.Upsample(scale_factor=2, mode="nearest"), conv)
    raise unknown_name("dec_up", kind, list(ENLARGEMENTS))


def smaller_mask(M: Tensor, size: tuple[int, int], kind: str = "max") -> Tensor:
    """M at a stage's size, B 1 h w: `max`, a cell with any hole is hole, or `nearest`, which misses thin strokes.

    Args:
        M: B 1 H W, 1 = hole.
        size: h, w.
        kind: One of `MASKS`.
    """
    # Deviation: a cell with any hole pixel counts as a hole.
    return F.adaptive_max_pool2d(M, size) if kind == "max" else F.interpolate(M, size=size, mode="nearest")


class Fusion(nn.Module):
    """How x takes in a at one stage; without guides only GMA remains of it, without denormalization by a.

    `gma+add` and `gma+conv` add a projection of a, or merge [x; a] by two convolutions, before GMA; `concat` merges
    by one convolution; `adain` and `spade` denormalize; `none` leaves x as it is (Table 7).

    Args:
        channels: C of x.
        guides: A, channels of a; 0 for none.
        o: Its `fusion`, and the options of attention.

    Raises:
        UsageError: An unknown name.
    """

    def __init__(self, channels: int, guides: int, o: EncoderOptions) -> None:
        super().__init__()
        name = o.fusion
        if name not in FUSIONS:
            raise unknown_name("fusion", name, list(FUSIONS))
        c, self.add = channels, name == "gma+add"
        self.merge: nn.Module | None = None
        if guides and self.add:
            self.merge = nn.Conv2d(guides, c, 1)
        elif guides and name in ("gma+conv", "concat"):
            layers: list[nn.Module] = [nn.Conv2d(c + guides, c, 3, padding=1), nn.LeakyReLU(SLOPE)]
            self.merge = nn.Sequential(*layers, *([nn.Conv2d(c, c, 3, padding=1)] if name == "gma+conv" else []))
        self.denorm = denormalization(name, c, guides) if guides and name in ("adain", "spade") else None
        self.gma: GMA | None = None
        if name.startswith("gma+"):
            denorm = name.removeprefix("gma+")
            denorm = "layer" if denorm in ("add", "conv") else denorm
            self.gma = GMA(c, guides, denorm, o.gma_gate, o.patches, o.adn_order, o.ff_variant)

    def forward(self, x: Tensor, a: Tensor, M: Tensor) -> Tensor:
        """x after fusion, B C h w, of x B C h w, a B A h w and the mask B 1 h w."""
        if self.merge is not None:
            x = x + self.merge(a) if self.add else self.merge(torch.cat([x, a], 1))
        if self.denorm is not None:
            x = self.denorm(x, self.denorm.context(a))
        return x if self.gma is None else self.gma(x, a, M)


class Auxiliary(nn.Module):
    """The edge or segmentation branch: lrelu of one layer a stage, and a head of one convolution each.

    Args:
        widths: C of x at s/2, s/4 and s/8.
        channels: Of the branch, coarse to fine.
        maps: Channels of the predicted map.
        up: As of `enlarge`.
    """

    def __init__(self, widths: tuple[int, int, int], channels: tuple[int, int, int], maps: int, up: str) -> None:
        super().__init__()
        _, b, c = widths
        d, e, f = channels
        self.layers = nn.ModuleList(
            [nn.Conv2d(2 * c, d, 3, padding=1), enlarge(up, d + 2 * c, e), enlarge(up, e + 2 * b, f)]
        )
        self.heads = nn.ModuleList(nn.Conv2d(width, maps, 3, padding=1) for width in channels)

    def forward(self, stage: int, *parts: Tensor) -> tuple[Tensor, Tensor]:
        """Features and logits of a stage (0 to 2), of the maps that its layer reads, concatenated."""
        m = F.leaky_relu(self.layers[stage](torch.cat(parts, 1)), SLOPE)
        return m, self.heads[stage](m)


class Decoder(nn.Module):
    """Three branches that read each other: auxiliary ones x of the stage before, x the auxiliary ones by `Fusion`.

    Args:
        o: The options.

    Raises:
        UsageError: An unknown name.
    """

    def __init__(self, o: EncoderOptions) -> None:
        super().__init__()
        source, up = o.aux_source, o.dec_up
        for kind, name, known in (("aux_source", source, SOURCES), ("mask_down", o.mask_down, MASKS)):
            if name not in known:
                raise unknown_name(kind, name, list(known))
        self.source, self.mask_down = source, o.mask_down
        a, b, c = o.widths
        maps = {"edge": int(o.edge), "segmentation": o.segmentation}
        maps = {name: k for name, k in maps.items() if k}
        self.auxiliary = nn.ModuleDict({name: Auxiliary(o.widths, o.auxiliary, k, up) for name, k in maps.items()})
        self.layers = nn.ModuleList(
            [
                nn.Conv2d(2 * c, c, 3, padding=1, bias=False),
                enlarge(up, 2 * c, b, bias=False),
                enlarge(up, 2 * b, a, bias=False),
            ]
        )
        self.norms = nn.ModuleList(make_norm(o.norm, width) for width in (c, b, a))
        read = sum(maps.values()) * (source != "feature")
        features = len(maps) * (source in ("feature", "hybrid"))
        self.fusions = nn.ModuleList(
            Fusion(width, features * d + read, o) for width, d in zip((c, b, a), o.auxiliary, strict=True)
        )
        self.heads = nn.ModuleList(nn.Conv2d(width, 3, 3, padding=1) for width in (c, b, a))

    def forward(self, f: Tensor, skips: Sequence[Tensor], M: Tensor, truth: Truth | None = None) -> Decoded:
        """All maps of all stages.

        Args:
            f: f*, the bottleneck's result, B C s/8 s/8.
            skips: h₁, h₂, h₃ of the backbone.
            M: B 1 s s, 1 = hole.
            truth: The complete maps where the source is `truth`, else not read.

        Raises:
            UsageError: The source is `truth` and a map is missing.
        """
        x, m = f, dict.fromkeys(self.auxiliary, f)
        out: dict[str, list[Tensor]] = {name: [] for name in ("features", "image", *self.auxiliary)}
        for stage, h in enumerate(reversed(skips)):
            before = [] if stage == 0 else [x]  # at first x, e and s are one
            x = F.leaky_relu(self.norms[stage](self.layers[stage](torch.cat([x, h], 1))), SLOPE)
            for name, branch in self.auxiliary.items():
                m[name], logits = branch(stage, m[name], *before, h)
                out[name].append(logits)
            x = self.fusions[stage](x, *self._guides(x, m, out, M, truth))
            out["features"].append(x)
            out["image"].append(self.heads[stage](x).tanh())
        return Decoded(out["features"], out["image"], out.get("edge"), out.get("segmentation"))

    def _guides(
        self, x: Tensor, m: dict[str, Tensor], out: dict[str, list[Tensor]], M: Tensor, truth: Truth | None
    ) -> tuple[Tensor, Tensor]:
        """a, B A h w (A may be 0), and M at this stage's size."""
        size = (x.shape[-2], x.shape[-1])
        a = [x[:, :0]]
        if self.source in ("feature", "hybrid"):
            a += m.values()
        if self.source in ("pred", "hybrid"):
            a += [t[-1].sigmoid() if name == "edge" else t[-1].softmax(1) for name, t in out.items() if name in m]
        if self.source == "truth":
            a += [_given(truth, name, size) for name in m]
        return torch.cat([t.to(x.dtype) for t in a], 1), smaller_mask(M, size, self.mask_down)


def _given(truth: Truth | None, name: str, size: tuple[int, int]) -> Tensor:
    given: Tensor | None = getattr(truth, name, None)
    if given is None:
        raise UsageError(
            f"aux_source 'truth' needs the complete {name}", remedy="give maps, or choose feature, pred or hybrid"
        )
    if name == "edge":  # an edge is one pixel wide
        return F.adaptive_max_pool2d(given, size)
    return F.interpolate(given, size=size, mode="nearest")
