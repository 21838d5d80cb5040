"""The split UNet against the whole one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from tests.evaluations import evaluations
from tests.fakes_ecdm_nets import DEEP, inputs, residuals, teacher, unet
from zoo.errors import UsageError
from zoo.models.ecdm.unet import check, decode, encode


def test_both_parts_are_the_whole_bit_for_bit() -> None:
    base = unet()
    x, t, c, hint = inputs()
    check(base)
    state = encode(base, x, t, c)
    assert torch.equal(decode(base, state)[0], base(x, t, c).sample)
    *down, mid = residuals(teacher(base), x, t, c, hint)
    wanted = base(x, t, c, down_block_additional_residuals=down, mid_block_additional_residual=mid).sample
    found, features = decode(base, state, down, mid)
    assert torch.equal(found, wanted)
    assert not torch.equal(found, decode(base, state)[0])
    assert [tuple(f.shape) for f in features] == [(2, 64, 8, 8), (2, 64, 16, 16), (2, 32, 16, 16), (2, 32, 16, 16)]
    assert torch.equal(decode(base, state, down, mid)[0], wanted)  # the state was not changed


def test_one_time_step_serves_the_batch() -> None:
    base, (x, _, c, _) = unet(), inputs()
    assert torch.equal(decode(base, encode(base, x, 7, c))[0], base(x, 7, c).sample)


@pytest.mark.parametrize("side", [16, 12])
def test_a_unet_as_deep_as_stable_diffusion_has_twelve_features(side: int) -> None:
    torch.manual_seed(0)
    base = UNet2DConditionModel(**DEEP).eval()
    x, c = torch.randn(1, 4, side, 16), torch.randn(1, 3, 12)
    found, features = decode(base, encode(base, x, 3, c))
    assert torch.equal(found, base(x, 3, c).sample)
    widths = [24, 24, 24, 24, 24, 24, 16, 16, 16, 8, 8, 8]
    columns = [2, 2, 4, 4, 4, 8, 8, 8, 16, 16, 16, 16]  # after the upsampler, where a block has one
    assert [f.shape[1] for f in features] == widths
    assert [f.shape[3] for f in features] == columns


def gradients(base: UNet2DConditionModel) -> list[Tensor]:
    x, t, c, hint = inputs()
    added = [r.detach().requires_grad_() for r in residuals(teacher(base), x, t, c, hint)]
    with torch.no_grad():
        state = encode(base, x, t, c)
    found, features = decode(base, state, added[:-1], added[-1])
    (found.square().mean() + sum(f.abs().mean() for f in features)).backward()
    return [found, *(r.grad for r in added if r.grad is not None)]


def test_gradients_reach_the_residuals_with_checkpointing_or_without() -> None:
    base = unet().requires_grad_(False)
    with evaluations(block=base.up_blocks[0].resnets[0]) as counted:
        plain = gradients(base)
        assert counted["block"].calls == 1
        assert len(plain) == 6
        assert all(g.abs().max() > 0 for g in plain)
        base.enable_gradient_checkpointing()
        again = gradients(base)
        assert counted["block"].calls == 1 + 2, "forward once more for the gradient"
    for a, b in zip(plain, again, strict=True):
        assert torch.allclose(a, b, atol=1e-7)


@pytest.mark.parametrize(
    "changes",
    [
        {"num_class_embeds": 3},
        {"down_block_types": ("AttnDownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "AttnUpBlock2D")},
        {"encoder_hid_dim": 5},
    ],
)
def test_a_unet_of_another_kind_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="cannot be split"):
        check(unet(**changes))
