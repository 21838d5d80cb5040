"""The losses by hand, and whom they teach."""

from __future__ import annotations

import pytest
import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from torch import Tensor

from tests.fakes_ecdm_nets import inputs, residuals, student, teacher, unet
from zoo.errors import UsageError
from zoo.models.ecdm.controlnet import ECDMControlNet
from zoo.models.ecdm.losses import L_simple, L_soft, L_total, timesteps
from zoo.models.ecdm.unet import decode, encode


def features(seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(3, c, s, s, generator=generator) for c, s in ((4, 2), (3, 4), (2, 8))]


def test_losses_are_the_equations() -> None:
    a, b = features(0), features(1)
    by_hand = sum(sum(abs(x - y) for x, y in zip(f.flatten().tolist(), g.flatten().tolist(), strict=True)) / f.numel()
                  for f, g in zip(a, b, strict=True)) / 3  # fmt: skip
    assert L_soft(a, b).item() == pytest.approx(by_hand, rel=1e-5)
    assert L_simple(a[0], b[0]).item() == pytest.approx((a[0] - b[0]).square().sum().item() / a[0].numel(), rel=1e-5)
    assert L_total(torch.tensor(2.0), torch.tensor(3.0)).item() == pytest.approx(2.3)
    assert L_total(torch.tensor(2.0), torch.tensor(3.0), 0.5).item() == pytest.approx(3.5)


def test_half_precision_is_summed_in_float32() -> None:
    a, b = ([f.bfloat16() for f in features(k)] for k in (0, 1))
    wanted = L_soft([f.float() for f in a], [f.float() for f in b])
    assert L_soft(a, b).dtype == torch.float32
    assert torch.equal(L_soft(a, b), wanted)
    assert L_simple(a[0], b[0]).dtype == torch.float32


def test_samples_that_are_not_taught_count_as_zeros() -> None:
    a, b = features(0), features(1)
    taught = torch.tensor([True, False, True])
    each = [L_soft([f[i : i + 1] for f in a], [f[i : i + 1] for f in b]) for i in range(3)]
    assert torch.allclose(L_soft(a, b, taught), (each[0] + each[2]) / 3)
    assert torch.allclose(L_soft(a, b, torch.ones(3, dtype=torch.bool)), L_soft(a, b))
    assert L_soft(a, b, torch.zeros(3, dtype=torch.bool)).item() == 0


def test_the_teachers_features_get_no_gradient() -> None:
    a, b = ([f.requires_grad_() for f in features(k)] for k in (0, 1))
    L_soft(a, b).backward()
    assert all(f.grad is None for f in a)
    for f, g in zip(a, b, strict=True):
        assert g.grad is not None
        assert torch.allclose(g.grad, (g - f).sign() / g.numel() / 3)
    assert not L_soft(a, b, detached=True).requires_grad
    assert torch.equal(L_soft(a, b, detached=True), L_soft(a, b))


def test_another_number_of_features_is_refused() -> None:
    with pytest.raises(UsageError, match="2 features of the teacher, 3 of the student"):
        L_soft(features(0)[:2], features(1))


# --- the networks ---------------------------------------------------------------------------------------------------


def terms(
    base: UNet2DConditionModel, controlnet: ControlNetModel, learner: ECDMControlNet, tap: str = "decoder",
    detached: bool = False, same_hint: bool = False,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """L_simple and L_soft of a training step."""
    x, t, c, hint = inputs()
    ε = torch.randn(x.shape, generator=torch.Generator().manual_seed(5))
    edges = hint if same_hint else (hint > 0.8).float()
    with torch.no_grad():
        state = encode(base, x, t, c)
        r_T = residuals(controlnet, x, t, c, edges)
        f_T = decode(base, state, r_T[:-1], r_T[-1])[1] if tap == "decoder" else r_T
    r_S = residuals(learner, x, t, c, hint)
    ε_θ, f_S = decode(base, state, r_S[:-1], r_S[-1])
    return L_simple(ε, ε_θ), L_soft(f_T, f_S if tap == "decoder" else r_S, detached=detached)


@pytest.mark.parametrize("tap", ["decoder", "residual"])
def test_the_soft_loss_is_zero_for_the_same_network_and_hint_alone(tap: str) -> None:
    base, learner = unet(), student()
    assert terms(base, learner, learner, tap, same_hint=True)[1].item() == 0
    assert terms(base, learner, learner, tap)[1].item() > 0
    assert terms(base, teacher(base), learner, tap)[1].item() > 0


@pytest.mark.parametrize("tap", ["decoder", "residual"])
def test_the_soft_loss_teaches_the_student_alone(tap: str) -> None:
    base, controlnet, learner = unet(), teacher(), student()
    base.requires_grad_(False)
    soft = terms(base, controlnet, learner, tap)[1]
    assert soft.requires_grad
    soft.backward()
    lacking = [n for n, p in learner.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert lacking == []
    assert all(p.grad is None for p in controlnet.parameters())  # though nobody froze it


def test_a_fresh_student_learns_from_the_soft_loss_at_once() -> None:
    base, learner = unet().requires_grad_(False), student(filled=False)
    terms(base, teacher(), learner)[1].backward()
    assert all(layer.weight.grad.abs().max() > 0 for layer in learner.controlnet_down_blocks)
    with torch.no_grad():
        for p in learner.parameters():
            if p.grad is not None:
                p -= 10 * p.grad
    learner.zero_grad()
    terms(base, teacher(), learner)[1].backward()
    assert learner.conv_in.weight.grad.abs().max() > 0


def test_the_released_codes_soft_loss_teaches_nothing() -> None:
    base, controlnet = unet().requires_grad_(False), teacher()
    found = {}
    for name in ("baseline", "detached", "live"):
        learner = student()
        simple, soft = terms(base, controlnet, learner, detached=name == "detached")
        (simple if name == "baseline" else L_total(simple, soft)).backward()
        found[name] = torch.cat([p.grad.flatten() for p in learner.parameters() if p.grad is not None])
    assert torch.equal(found["baseline"], found["detached"])
    assert not torch.allclose(found["baseline"], found["live"], rtol=1e-3)


# --- the gate -------------------------------------------------------------------------------------------------------


def test_time_steps_are_uniform_and_the_gate_is_of_samples_or_of_batches() -> None:
    generator = torch.Generator().manual_seed(0)
    t, taught = timesteps(20000, 10, 4, generator=generator)
    assert torch.equal(taught, t < 4)
    assert (torch.bincount(t, minlength=10) / 20000 - 0.1).abs().max() < 0.01
    draws = [timesteps(8, 10, 4, "batch", generator) for _ in range(2500)]
    assert all(bool(taught.all()) or not taught.any() for _, taught in draws)
    assert all(torch.equal(taught, t < 4) for t, taught in draws)
    counts = torch.bincount(torch.cat([t for t, _ in draws]), minlength=10) / 20000
    assert (counts - 0.1).abs().max() < 0.015


@pytest.mark.parametrize("gate", ["sample", "batch"])
def test_the_teacher_teaches_always_or_never(gate: str) -> None:
    generator = torch.Generator().manual_seed(0)
    t, taught = timesteps(4000, 10, 10, gate, generator)
    assert bool(taught.all())
    assert sorted(set(t.tolist())) == list(range(10))
    t, taught = timesteps(4000, 10, 0, gate, generator)
    assert not taught.any()
    assert sorted(set(t.tolist())) == list(range(10))
    assert bool(timesteps(64, generator=generator)[1].all())


def test_a_wrong_gate_is_refused() -> None:
    with pytest.raises(UsageError, match="sail_gate"):
        timesteps(2, gate="epoch")
    with pytest.raises(UsageError, match="sail_max_timestep"):
        timesteps(2, below=-1)
