"""First stages: images in [-1, 1] to latents of about unit deviation and back, behind one interface."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.errors import DataError, UsageError

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

_FLATTEST = 1e-3  # of the largest deviation: a component of less is noise, and whitening would blow it up


class Codec(nn.Module):
    """What every first stage does.

    Attributes:
        factor: Pixels of a latent cell along each side.
        channels: Channels of the latents.
    """

    factor: int
    channels: int

    def posterior_of(self, x: Tensor) -> Tensor:
        """All that `draw` reads of images, B M H/factor W/factor; the latents themselves where nothing is drawn.

        Args:
            x: B 3 H W in [-1, 1], H and W multiples of `factor`.
        """
        raise NotImplementedError(f"{type(self).__name__} must define posterior_of(x)")

    def draw(self, posterior: Tensor, noise: Tensor | None = None) -> Tensor:
        """Scaled latents, B C h w float32.

        Args:
            posterior: Of `posterior_of`.
            noise: Standard normal, of the latents' shape, to draw from the posterior; None is its mode. A codec
                without a posterior does not look at it.
        """
        return posterior

    def encode(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        """Scaled latents of images, B C H/factor W/factor float32: `draw` after `posterior_of`."""
        return self.draw(self.posterior_of(x), noise)

    def decode(self, z: Tensor) -> Tensor:
        """The image of scaled latents, B 3 H W float32, about [-1, 1]."""
        raise NotImplementedError(f"{type(self).__name__} must define decode(z)")


class KLCodec(Codec):
    """A variational autoencoder of diffusers.

    Args:
        autoencoder: The network; `scale` begins as its `scaling_factor`.
    """

    scale: Tensor

    def __init__(self, autoencoder: AutoencoderKL) -> None:
        super().__init__()
        self.autoencoder = autoencoder
        config: Any = autoencoder.config
        self.factor = 2 ** (len(config.block_out_channels) - 1)
        self.channels = int(config.latent_channels)
        self.register_buffer("scale", torch.tensor(float(config.scaling_factor)))

    def posterior(self, x: Tensor) -> DiagonalGaussianDistribution:
        """The posterior of unscaled latents, as the training of the autoencoder needs it."""
        found: DiagonalGaussianDistribution = self.autoencoder.encode(x.to(self.autoencoder.dtype)).latent_dist
        return found

    def posterior_of(self, x: Tensor) -> Tensor:
        with _no_half(x):
            moments: Tensor = self.posterior(x).parameters
        return moments

    def draw(self, posterior: Tensor, noise: Tensor | None = None) -> Tensor:
        from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

        found = DiagonalGaussianDistribution(posterior)
        z: Tensor = found.mode().float()
        if noise is not None:
            z = z + found.std.float() * noise
        return z * self.scale

    def decode(self, z: Tensor) -> Tensor:
        with _no_half(z):
            x: Tensor = self.autoencoder.decode((z / self.scale).to(self.autoencoder.dtype)).sample
        return x.float()

    @torch.no_grad()
    def follow_scale(self, mode: Tensor, share: float) -> None:
        """Moves the scale towards what gives these latents unit deviation; for each batch of a training.

        Args:
            mode: Unscaled latents, B C h w, as of `posterior(x).mode()`; of all processes alike.
            share: How much these latents count, in (0, 1]; 1 forgets what was before.
        """
        z = mode.float()
        moments = torch.stack([z.new_tensor(z.numel()), z.sum(), z.square().sum()])
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(moments)
        count, first, second = moments
        variance = (second - first.square() / count) / (count - 1.0)
        self.scale.copy_((1.0 - share) * self.scale**-2 + share * variance.clamp(min=1e-12)).pow_(-0.5)


class PCACodec(Codec):
    """Patches of `factor` x `factor` pixels as whitened principal components: fitted in closed form, no training.

    An unfitted one has the lowest frequencies of the cosine transform over rows, columns and colours in the place of
    principal components. A cell depends on its own pixels alone.

    Args:
        factor: Side of a patch in pixels.
        channels: How many components to keep, at most 3 factor².

    Raises:
        UsageError: A patch does not have so many.
    """

    mean: Tensor
    basis: Tensor
    scale: Tensor

    def __init__(self, factor: int = 4, channels: int = 8) -> None:
        super().__init__()
        width = 3 * factor * factor
        if factor < 1 or not 1 <= channels <= width:
            raise UsageError(f"{channels} components of patches of {factor} x {factor} pixels: there are 1 to {width}")
        self.factor, self.channels = factor, channels
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("basis", _cosines(factor)[:, :channels].contiguous())
        self.register_buffer("scale", torch.ones(channels))
        # No buffers, which move with a module: Apple's GPUs have no float64.
        self._sums = [torch.zeros(shape, dtype=torch.float64) for shape in ((), (width,), (width, width))]

    def posterior_of(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            patches = F.pixel_unshuffle(x.float(), self.factor).movedim(1, -1)
            z = (patches - self.mean) @ self.basis / self.scale
        return z.movedim(-1, 1).contiguous()

    def decode(self, z: Tensor) -> Tensor:
        with torch.autocast(z.device.type, enabled=False):
            patches = (z.float().movedim(1, -1) * self.scale) @ self.basis.T + self.mean
        return F.pixel_shuffle(patches.movedim(-1, 1), self.factor)

    @torch.no_grad()
    def accumulate(self, x: Tensor) -> None:
        """Adds images of all processes, each of which must call it, to the sums that `solve` reads.

        The sums are float64 on the CPU, and no part of the state; see `sums`.

        Args:
            x: B 3 H W in [-1, 1], H and W multiples of `factor`.
        """
        exact = x.cpu() if x.device.type == "mps" else x  # NCCL wants the parts on its device
        with torch.autocast(exact.device.type, enabled=False):
            patches = F.pixel_unshuffle(exact.double(), self.factor).movedim(1, -1).flatten(0, -2)
            more = [patches.new_tensor(len(patches)), patches.sum(0), patches.T @ patches]
        for total, part in zip(self._sums, more, strict=True):
            if torch.distributed.is_available() and torch.distributed.is_initialized():
                torch.distributed.all_reduce(part)
            total += part.cpu()

    def sums(self) -> tuple[Tensor, Tensor, Tensor]:
        """How many patches were accumulated, their sum and the sum of their outer products."""
        count, total, outer = self._sums
        return count, total, outer

    @torch.no_grad()
    def solve(self, keep: bool = False) -> None:
        """Fits the components to what was accumulated, and forgets it.

        Args:
            keep: Does not forget it: more images are to come.

        Raises:
            DataError: Nothing, or images of a single colour, were accumulated.
        """
        count, total, outer = self.sums()
        if not float(count) > 0:
            raise DataError("no images to fit the codec to", remedy="call accumulate(images) first")
        mean = total / count
        covariance = outer / count - torch.outer(mean, mean)
        variances, vectors = torch.linalg.eigh(covariance)
        deviations = variances.flip(0)[: self.channels].clamp(min=0).sqrt()
        vectors = vectors.flip(1)[:, : self.channels]
        if not float(deviations[0]) > 1e-6:  # of [-1, 1]: rounding alone
            raise DataError("all images to fit the codec to have one colour", remedy="accumulate other images")
        # An eigenvector's sign is a matter of the library: the largest entry is positive on every machine.
        signs = vectors.gather(0, vectors.abs().argmax(0, keepdim=True)).sign()
        self.mean.copy_(mean)
        self.basis.copy_(vectors * signs)
        self.scale.copy_(deviations.clamp(min=_FLATTEST * float(deviations[0])))
        if not keep:
            for part in self._sums:
                part.zero_()


class IdentityCodec(Codec):
    """Patches as channels, without loss. The networks need more than twice as many channels of their own.

    Args:
        factor: Side of a patch in pixels.
    """

    def __init__(self, factor: int = 4) -> None:
        super().__init__()
        if factor < 1:
            raise UsageError(f"the factor must be at least 1, got {factor}")
        self.factor, self.channels = factor, 3 * factor * factor

    def posterior_of(self, x: Tensor) -> Tensor:
        return F.pixel_unshuffle(x.float(), self.factor)

    def decode(self, z: Tensor) -> Tensor:
        return F.pixel_shuffle(z.float(), self.factor)


def _no_half(x: Tensor) -> AbstractContextManager[Any]:
    """Leaves autocast to float16, in which the published decoder overflows; bfloat16 has the range."""
    kind = x.device.type
    if torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == torch.float16:
        return torch.autocast(kind, enabled=False)
    return nullcontext()


def _cosines(factor: int) -> Tensor:
    """The cosine transform of a patch, columns from low to high frequency, 3 factor² squared, orthonormal."""

    def transform(size: int) -> Tensor:
        place, frequency = torch.arange(size, dtype=torch.float64), torch.arange(size, dtype=torch.float64)[:, None]
        rows = torch.cos(math.pi * (place + 0.5) * frequency / size) * math.sqrt(2.0 / size)
        rows[0] /= math.sqrt(2.0)
        return rows

    colour, side = transform(3), transform(factor)
    whole = torch.kron(colour, torch.kron(side, side))  # pixel_unshuffle: colours, then rows, then columns
    frequency = [c + r + k for c in range(3) for r in range(factor) for k in range(factor)]
    order = sorted(range(len(frequency)), key=lambda index: frequency[index])
    return whole[order].T.float()
