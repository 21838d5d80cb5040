"""The RGB branch, the F of the F&W+ space: features of the corrupted image for every resolution of the generator."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.errors import DataError, UsageError, unknown_name

SLOPE = 0.2  # of the leaky ReLU
F4 = ("add", "replace")
INPUTS = ("image", "guided")


def branch_widths(size: int) -> dict[int, int]:
    """The branch's channels by resolution, from `size` down to 8: 32 at 256, 64 at 128, 128 below."""
    return {n: min(128, 8192 // n) for n in _resolutions(size)}


class RGBBranch(nn.Module):
    """From the full resolution down to 4 x 4, with a projection to the generator's channels at every resolution.

    The projections and the last layer begin at zero: the generator then is what its pre-training made it, exactly.

    Args:
        channels: The generator's channels by resolution, 4 to the image's size.
        widths: The branch's channels by resolution, 8 to the image's size; those of `branch_widths` where None.
        dense: Channels of the 4 x 4 map that a linear layer mixes.
        mask_channel: Whether the branch sees the mask besides the corrupted image.
        f4: Whether f4 is to `add` to the generator's learned constant or to `replace` it; then its last bias is a map,
            which `start` takes over from the constant.
        guidance: Channels of edges, segmentation and their masks that it sees, too; 0 is the paper's.

    Raises:
        UsageError: An unknown `f4`.
    """

    def __init__(
        self,
        channels: Mapping[int, int],
        widths: Mapping[int, int] | None = None,
        dense: int = 64,
        mask_channel: bool = True,
        f4: str = "add",
        guidance: int = 0,
    ) -> None:
        super().__init__()
        if f4 not in F4:
            raise unknown_name("f4", f4, list(F4))
        self.size, self.mask_channel, self.f4 = max(channels), mask_channel, f4
        widths = widths or branch_widths(self.size)
        resolutions = _resolutions(self.size)
        # Deviation: the RGB branch sees the mask besides the corrupted image.
        c = widths[self.size]
        # Deviation: the RGB branch sees the guidance besides the corrupted image.
        self.guidance = guidance
        self.stem = nn.Conv2d(3 + mask_channel + guidance, c, 3, padding=1)
        self.layers, self.projections = nn.ModuleDict(), nn.ModuleDict()
        for n in resolutions:
            self.layers[str(n)] = nn.Conv2d(c, widths[n], 3, padding=1)
            self.projections[str(n)] = nn.Conv2d(widths[n], channels[n], 1)
            c = widths[n]
        self.narrow = nn.Conv2d(c, dense, 3, padding=1)
        self.dense = nn.Linear(16 * dense, 16 * dense)
        # Deviation: f4 is added to the generator's learned constant instead of taking its place.
        self.last = nn.Conv2d(dense, channels[4], 3, padding=1, bias=f4 == "add")
        if f4 == "replace":
            self.constant = nn.Parameter(torch.zeros(1, channels[4], 4, 4))
        for layer in (*self.projections.values(), self.last):
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)

    @torch.no_grad()
    def start(self, constant: Tensor) -> None:
        """Takes over the generator's learned constant (1 C 4 4) where f4 replaces it; nothing where f4 is added."""
        if self.f4 == "replace":
            self.constant.copy_(constant)

    def forward(self, X: Tensor, M: Tensor, guidance: Tensor | None = None) -> dict[int, Tensor]:
        """f4 (B C 4 4) under 4, and F_n (B C n n) under every n from 8 to the image's size.

        Args:
            X: The corrupted image, B 3 s s in [-1, 1], zero in the hole.
            M: B 1 s s, 1 = hole.
            guidance: B G s s, zero where missing; needed where the branch has channels for it.

        Raises:
            DataError: The image is not of the generator's size.
            UsageError: There is no guidance where the branch was built for it.
        """
        if X.shape[-2:] != (self.size, self.size):
            raise DataError(
                f"the RGB branch was built for {self.size} x {self.size} images, got {X.shape[-2]} x {X.shape[-1]}",
                remedy="set the model's size to the data's",
            )
        seen = [X, *([M.to(X.dtype)] if self.mask_channel else ())]
        if self.guidance:
            if guidance is None:
                raise UsageError("this RGB branch was built for guidance, and was given none")
            seen.append(guidance.to(X.dtype))
        x = torch.cat(seen, 1)
        x = F.leaky_relu(self.stem(x), SLOPE)
        features = {}
        for n, layer in self.layers.items():
            x = F.leaky_relu(layer(x), SLOPE)
            features[int(n)] = self.projections[n](x)
            x = F.avg_pool2d(x, 2)
        x = F.leaky_relu(self.narrow(x), SLOPE)
        x = F.leaky_relu(self.dense(x.flatten(1)), SLOPE).view(x.shape)
        f4 = self.last(x)
        features[4] = f4 + self.constant if self.f4 == "replace" else f4
        return features


def _resolutions(size: int) -> list[int]:
    return [2**k for k in range(size.bit_length() - 1, 2, -1)]
