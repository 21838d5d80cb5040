"""First stages of ECDM: round trips, the closed form of principal components, and what a cell depends on."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from tests.fakes_stable_diffusion import autoencoder
from zoo.errors import DataError, UsageError
from zoo.models.ecdm.codecs import Codec, IdentityCodec, KLCodec, PCACodec


def images(count: int, seed: int = 0, size: int = 32) -> torch.Tensor:
    """Smooth random images in [-1, 1]."""
    noise = torch.randn(count, 3, size // 4, size // 4, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(noise, size=size, mode="bicubic").tanh()


def fitted(channels: int = 8) -> PCACodec:
    codec = PCACodec(4, channels)
    for batch in images(48).split(16):
        codec.accumulate(batch)
    codec.solve()
    return codec


@pytest.mark.parametrize("codec", [PCACodec(4, 48), IdentityCodec(4), PCACodec(2, 12)])
def test_codecs_of_all_components_lose_nothing(codec: Codec) -> None:
    x = images(2)
    z = codec.encode(x)
    assert z.shape == (2, codec.channels, 32 // codec.factor, 32 // codec.factor)
    assert torch.allclose(codec.decode(z), x, atol=1e-5)


def test_principal_components_are_those_of_all_patches_at_once() -> None:
    codec = fitted()
    patches = F.pixel_unshuffle(images(48), 4).movedim(1, -1).flatten(0, -2).double()
    left = patches - patches.mean(0)
    _, values, vectors = torch.linalg.svd(left, full_matrices=False)
    assert torch.allclose(codec.mean.double(), patches.mean(0), atol=1e-6)
    assert torch.allclose(codec.scale.double(), values[:8] / len(patches) ** 0.5, rtol=1e-4)
    signs = (codec.basis.double() * vectors[:8].T).sum(0)
    assert torch.allclose(signs.abs(), torch.ones(8, dtype=torch.float64), atol=1e-4)
    assert (codec.basis.gather(0, codec.basis.abs().argmax(0, keepdim=True)) > 0).all()


def test_whitened_latents_have_unit_deviation_and_decode_better_than_cosines() -> None:
    codec, x = fitted(), images(48)
    z = codec.encode(x)
    assert torch.allclose(z.movedim(1, 0).flatten(1).std(1), torch.ones(8), atol=1e-2)
    error = (codec.decode(z) - x).square().mean()
    cosines = PCACodec(4, 8)
    assert error < (cosines.decode(cosines.encode(x)) - x).square().mean() < 0.5 * x.square().mean()
    assert torch.allclose(cosines.basis.T @ cosines.basis, torch.eye(8), atol=1e-6)


def test_a_cell_depends_on_its_own_pixels_alone_to_the_bit() -> None:
    codec, x = fitted(), images(1)
    other = x.clone()
    other[..., 8:16, 4:12] = 0.3
    changed = (codec.encode(x) != codec.encode(other)).any(1)[0]
    assert changed[2:4, 1:3].all()
    assert changed.sum() == 4


def test_latents_stay_float32_under_autocast() -> None:
    codec, x = fitted(), images(1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        z = codec.encode(x)
        back = codec.decode(z)
    assert torch.equal(z, codec.encode(x))
    assert torch.equal(back, codec.decode(z))


def test_half_precision_never_reaches_the_autoencoder() -> None:
    torch.manual_seed(0)
    codec, x = KLCodec(autoencoder().eval()), images(1)
    with torch.no_grad():
        z = codec.encode(x)
        plain = codec.decode(z)
        with torch.autocast("cpu", dtype=torch.float16):
            assert torch.equal(codec.encode(x), z)
            assert torch.equal(codec.decode(z), plain)


def test_a_fitted_codec_travels_in_its_state_without_its_sums() -> None:
    codec, copy = fitted(), PCACodec(4, 8)
    state = codec.state_dict()
    assert set(state) == {"mean", "basis", "scale"}
    assert {buffer.dtype for buffer in codec.buffers()} == {torch.float32}  # Apple's GPUs have no float64
    copy.load_state_dict(state)
    assert torch.equal(copy.encode(images(1)), codec.encode(images(1)))
    with pytest.raises(DataError, match="no images"):
        codec.solve()  # the sums were used up


def test_components_without_variance_are_not_blown_up() -> None:
    codec = PCACodec(4, 48)
    ramp = torch.linspace(-1, 1, 16)[:, None, None, None].expand(16, 3, 32, 32)
    codec.accumulate(ramp)
    codec.solve()
    assert codec.encode(images(2)).abs().max() < 1e4
    flat = PCACodec()
    flat.accumulate(torch.full((2, 3, 8, 8), 0.25))
    with pytest.raises(DataError, match="one colour"):
        flat.solve()


@pytest.mark.parametrize("sizes", [(4, 49), (4, 0), (0, 1)])
def test_impossible_sizes_are_refused(sizes: tuple[int, int]) -> None:
    with pytest.raises(UsageError, match="components"):
        PCACodec(*sizes)


def test_the_autoencoder_is_diffusers_own_with_its_scale() -> None:
    torch.manual_seed(0)
    vae = autoencoder().eval()
    codec, x = KLCodec(vae), images(2)
    assert (codec.factor, codec.channels) == (4, 4)
    with torch.no_grad():
        posterior = vae.encode(x).latent_dist
        z = codec.encode(x)
        noise = torch.randn(z.shape, generator=torch.Generator().manual_seed(1))
        assert torch.equal(z, posterior.mode() * 0.18215)
        assert torch.allclose(codec.encode(x, noise), (posterior.mean + posterior.std * noise) * 0.18215)
        assert torch.allclose(codec.decode(z), vae.decode(z / 0.18215).sample, atol=1e-5)
        codec.follow_scale(posterior.mode(), 1.0)
        assert codec.encode(x).std().item() == pytest.approx(1.0, abs=1e-4)
    assert "scale" in codec.state_dict()
