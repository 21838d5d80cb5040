"""The high-passed spectrum against closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from zoo.errors import UsageError
from zoo.models.ecdm.spectrum import SpectrumOptions, frequency_map, high_passed, low_frequencies, without_hole


def waves(*frequencies: tuple[int, int], height: int = 32, width: int = 32) -> Tensor:
    """The sum of cosines of (rows, columns) cycles, 1 3 H W."""
    y, x = torch.arange(height).double()[:, None] / height, torch.arange(width).double() / width
    image = sum(torch.cos(2 * math.pi * (v * y + u * x) + 0.3) for v, u in frequencies)
    assert isinstance(image, Tensor)
    return image.float().expand(1, 3, -1, -1)


def hints(batch: int = 3, height: int = 24, width: int = 32) -> Tensor:
    hint = torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(0))
    hint[:, :, 5:14, 8:20] = -1
    return hint


def by_hand(image: Tensor, radius: int) -> tuple[Tensor, Tensor]:
    """Amplitude and phase, H W, by the definition of the discrete Fourier transform and of the window."""
    H, W = image.shape
    y, x = torch.arange(H, dtype=torch.float64), torch.arange(W, dtype=torch.float64)
    rows = torch.exp(-2j * math.pi * y[:, None] * y / H)
    columns = torch.exp(-2j * math.pi * x[:, None] * x / W)
    X = rows @ image.to(torch.complex128) @ columns
    for i in range(H):
        for j in range(W):
            v, u = (i if i < (H + 1) // 2 else i - H), (j if j < (W + 1) // 2 else j - W)
            if -radius <= v < radius and -radius <= u < radius:
                X[i, j] = 0
    return X.abs(), torch.where(X.abs() > 0, X.angle(), 0.0)


@pytest.mark.parametrize("size", [(24, 32), (15, 21)])
def test_the_map_is_the_definitions(size: tuple[int, int]) -> None:
    hint = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(1))
    found = frequency_map(hint, SpectrumOptions(radius=3))
    for sample, image in zip(found, hint, strict=True):
        A, φ = (torch.stack(parts) for parts in zip(*(by_hand(c.double(), 3) for c in image), strict=True))
        assert torch.allclose(sample[:3].double(), 2 * (A - A.min()) / (A.max() - A.min()) - 1, atol=1e-5)
        # the phase of a bin that is real, and so at π, may be rounded to -π
        distance = (sample[3:].double() - φ).abs()
        assert torch.minimum(distance, 2 * math.pi - distance).max() < 1e-3


def test_the_window_is_half_open_and_its_centre_in_the_corner() -> None:
    low = low_frequencies(32, 24, 4)
    assert low.shape == (32, 24)
    assert int(low.sum()) == 8 * 8
    assert low[0, 0]
    assert low[-4, -4]
    assert not low[4, 0]
    assert not low[0, 4]
    disc = low_frequencies(32, 24, 4, "disc")
    assert disc[4, 0]
    assert disc[-4, 0]
    assert not disc[3, 3]
    assert int(disc.sum()) == sum(v * v + u * u <= 16 for v in range(-16, 16) for u in range(-12, 12))
    assert not low_frequencies(32, 24, 0).any()
    assert not low_frequencies(32, 24, 0, "disc").any()
    assert int(low_frequencies(512, 512, "official").sum()) == 32 * 32


def test_a_constant_image_has_equal_amplitudes_and_no_phase() -> None:
    for size in (64, 48, 30):
        found = frequency_map(torch.full((2, 3, size, size), 0.3))
        assert torch.equal(found[:, :3], torch.full_like(found[:, :3], -1.0))
        assert torch.equal(found[:, 3:], torch.zeros_like(found[:, 3:]))


@pytest.mark.parametrize("window", ["square", "disc"])
def test_removed_bins_are_exactly_zero_in_amplitude_and_phase(window: str) -> None:
    hint = hints()
    low = low_frequencies(*hint.shape[-2:], 4, window)  # type: ignore[misc]
    I_h = high_passed(hint, 4, window)
    assert torch.equal(I_h[..., low], torch.zeros_like(I_h[..., low]))
    assert I_h[..., ~low].abs().min() > 0
    φ = frequency_map(hint, SpectrumOptions(window=window))[:, 3:]
    assert torch.equal(φ[..., low], torch.zeros_like(φ[..., low]))
    assert not torch.signbit(φ[..., low]).any()
    assert φ[..., ~low].abs().max() > 3


def test_low_frequencies_vanish_and_a_grating_has_two_bins() -> None:
    assert torch.equal(high_passed(waves((1, 2), (3, -3), (0, 3))), torch.zeros(1, 3, 32, 32, dtype=torch.complex64))
    found = high_passed(waves((7, 10), (1, 1)))
    for channel in found[0]:
        assert channel.nonzero().tolist() == [[7, 10], [25, 22]]
    assert torch.allclose(found.abs().amax((2, 3)), torch.full((1, 3), 32 * 32 / 2), rtol=1e-4)
    φ = frequency_map(0.5 + 0.4 * waves((7, 10)))[0, 3:]
    assert torch.allclose(φ[:, 7, 10], torch.full((3,), 0.3), atol=1e-4)
    assert torch.allclose(φ[:, 25, 22], torch.full((3,), -0.3), atol=1e-4)


def test_a_real_negative_bin_is_at_pi() -> None:
    checks = 0.5 - 0.4 * waves((16, 16))  # the highest frequency, whose bin is real
    assert frequency_map(checks)[0, 3:, 16, 16].tolist() == pytest.approx([math.pi] * 3)


def test_amplitudes_are_scaled_of_each_sample_or_of_the_batch() -> None:
    hint = hints()
    hint[1:] = torch.where(hint[1:] < 0, hint[1:], 0.2 * hint[1:])
    sample = frequency_map(hint)
    assert torch.equal(sample[1:2], frequency_map(hint[1:2]))
    assert torch.allclose(sample[:, :3].amin((1, 2, 3)), torch.full((3,), -1.0))
    assert torch.allclose(sample[:, :3].amax((1, 2, 3)), torch.full((3,), 1.0))
    batch = frequency_map(hint, SpectrumOptions(norm_scope="batch"))
    assert batch[:, :3].amax((1, 2, 3)).tolist()[0] == pytest.approx(1.0)
    assert float(batch[1, :3].max()) < 0.9
    assert not torch.allclose(batch[1:2], frequency_map(hint[1:2], SpectrumOptions(norm_scope="batch")), atol=0.1)


def test_amplitude_and_phase_have_their_options() -> None:
    hint = hints()
    plain = frequency_map(hint)
    I_h = high_passed(hint)
    logarithm = I_h.abs().log1p()
    high = logarithm.amax((1, 2, 3), keepdim=True)
    assert torch.allclose(frequency_map(hint, SpectrumOptions(amp="log1p"))[:, :3], 2 * logarithm / high - 1, atol=1e-5)
    assert torch.allclose(frequency_map(hint, SpectrumOptions(phase="over_pi"))[:, 3:] * math.pi, plain[:, 3:])
    options = SpectrumOptions(phase="sincos")
    found = frequency_map(hint, options)
    assert found.shape[1] == options.channels == 9
    assert plain.shape[1] == SpectrumOptions().channels == 6
    assert torch.allclose(found[:, 3:6], plain[:, 3:].sin(), atol=1e-6)
    assert torch.allclose(found[:, 6:], plain[:, 3:].cos(), atol=1e-6)


def test_the_hole_is_filled_as_asked_whatever_the_kind_of_hint() -> None:
    hint = hints()
    mask = (hint[:, :1] < 0).float()
    literal = torch.cat([hint * (1 - mask), mask], 1)  # colours 0 in the hole
    for fill in ("neg1", "zero", "mean"):
        found = without_hole(hint, fill)
        assert torch.equal(found, without_hole(literal, fill))
        assert torch.equal(found * (1 - mask), hint * (1 - mask))
        options = SpectrumOptions(hole_fill=fill)
        assert torch.equal(frequency_map(hint, options), frequency_map(literal, options))
    assert torch.equal(without_hole(hint), hint)
    assert (without_hole(hint, "zero") * mask).abs().max() == 0
    mean = torch.stack([h[:, m[0] == 0].mean(1) for h, m in zip(hint, mask, strict=True)])
    assert torch.allclose(without_hole(hint, "mean")[:, :, 7, 9], mean, atol=1e-5)
    assert torch.isfinite(without_hole(torch.full((1, 3, 8, 8), -1.0), "mean")).all()


def test_half_precision_and_autocast_change_nothing() -> None:
    hint = (hints(height=30) * 64).round() / 64  # what bfloat16 holds exactly
    wanted = frequency_map(hint)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(frequency_map(hint), wanted)
    found = frequency_map(hint.bfloat16())
    assert found.dtype == torch.float32
    assert torch.equal(found, wanted)


def test_the_spectrum_has_no_gradient() -> None:
    assert not frequency_map(hints().requires_grad_()).requires_grad


@pytest.mark.parametrize(
    "wrong",
    [{"radius": -1}, {"radius": "wide"}, {"window": "round"}, {"norm_scope": "all"}, {"amp": "sqrt"}, {"phase": "deg"},
     {"hole_fill": "gray"}],
)  # fmt: skip
def test_wrong_options_are_refused(wrong: dict[str, int | str]) -> None:
    with pytest.raises(UsageError, match=str(next(iter(wrong)))):
        SpectrumOptions(**wrong)  # type: ignore[arg-type]
