"""What MMInvertFill trains beside the generator: encoder, map networks, pre-modulation and RGB branch (Fig. 2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from zoo.models.mminvertfill.branch import RGBBranch
from zoo.models.mminvertfill.decoder import Decoded, Truth
from zoo.models.mminvertfill.encoder import Encoder
from zoo.models.mminvertfill.encoder_options import EncoderOptions
from zoo.models.mminvertfill.maps import MapToVector, structure_map
from zoo.models.mminvertfill.premodulation import PreModulation, spread


class Inverted(NamedTuple):
    """What a corrupted image becomes, before the generator.

    Attributes:
        decoded: Features, images, edges and segmentations of three scales.
        delta: Δ, B L w: where the styles lie, seen from the mean latent.
        structure: f4 and F_n by resolution, B C n n; empty without the RGB branch.
    """

    decoded: Decoded
    delta: Tensor
    structure: dict[int, Tensor]


class Inverter(nn.Module):
    """From a corrupted image with guidance to the F&W+ space of a generator.

    Args:
        options: Of the encoder.
        size: s, the side of the images.
        width: Numbers in a style vector.
        styles: L.
        channels: The generator's channels by resolution.
        map_width: See `maps.map_widths`.
        pm: False is the ablation "w/o PM": Δ_l is w'_r.
        fw: False is "w/o F&W+": no RGB branch, the W+ space.
        branch_widths: Of the RGB branch, by resolution; None for those of `branch.branch_widths`.
        branch_dense: Channels of its 4 x 4 map.
        f4: `add` or `replace`, see `RGBBranch`.
        branch_input: What the branch sees: the corrupted `image`, or that with the guidance (`guided`).
    """

    def __init__(
        self,
        options: EncoderOptions,
        size: int,
        width: int,
        styles: int,
        channels: Mapping[int, int],
        map_width: str = "grow",
        pm: bool = True,
        fw: bool = True,
        branch_widths: Mapping[int, int] | None = None,
        branch_dense: int = 64,
        f4: str = "add",
        branch_input: str = "image",
    ) -> None:
        super().__init__()
        self.styles = styles
        self.encoder = Encoder(options)
        sides = [size // 8, size // 4, size // 2]
        read = 3 + options.edge + options.segmentation
        self.map2style = nn.ModuleList(
            MapToVector(c, n, width, map_width) for c, n in zip(reversed(options.widths), sides, strict=True)
        )
        # Without pre-modulation nothing reads the structure vectors.
        self.map2structure = nn.ModuleList(MapToVector(read, n, width, map_width) for n in sides if pm)
        self.premodulation = PreModulation(styles, width) if pm else None
        seen = options.channels_in - 4 if branch_input == "guided" else 0  # all that the encoder sees but X and M
        self.branch = RGBBranch(channels, branch_widths, branch_dense, f4=f4, guidance=seen) if fw else None

    def matrices(self) -> list[nn.Parameter]:
        """Matrices and kernels of eight rows and columns or more; pre-modulation's are stacked and not among them."""
        return [p for p in self.parameters() if p.ndim in (2, 4) and min(p.flatten(1).shape) >= 8]

    def forward(self, inputs: Tensor, X: Tensor, M: Tensor, truth: Truth | None = None) -> Inverted:
        """Sec. 3.2 to 3.4.

        Args:
            inputs: B 7+K s s, see `guidance.assemble`.
            X: The corrupted image, B 3 s s in [-1, 1], zero in the hole.
            M: B 1 s s, 1 = hole.
            truth: For `aux_source: truth` only.
        """
        decoded: Decoded = self.encoder(inputs, M, truth)
        w = torch.stack([net(x) for net, x in zip(self.map2style, decoded.features, strict=True)], 1)
        if self.premodulation is None:
            delta = spread(w.float(), self.styles)
        else:
            S = torch.stack([net(_scale(decoded, r)) for r, net in enumerate(self.map2structure)], 1)
            delta = self.premodulation(w, S)
        structure = self.branch(X, M, inputs[:, 4:]) if self.branch is not None else {}
        return Inverted(decoded, delta, structure)


def _scale(decoded: Decoded, r: int) -> Tensor:
    """Y_r, of the scale with index r."""
    edge = decoded.edge[r] if decoded.edge is not None else None
    segmentation = decoded.segmentation[r] if decoded.segmentation is not None else None
    return structure_map(decoded.image[r], edge, segmentation)
