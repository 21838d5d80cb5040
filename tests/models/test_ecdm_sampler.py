"""Noise schedule, solvers and the blended sampling loop, with predictors whose answer is known."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn

from tests.evaluations import evaluations
from zoo.errors import UsageError
from zoo.keyed import Noise
from zoo.models.ecdm.codecs import PCACodec
from zoo.models.ecdm.completion import predictor
from zoo.models.ecdm.diffusion import SOLVERS, NoiseSchedule, clean_of, noise_from, q_sample, velocity
from zoo.models.ecdm.hints import known_image, latent_mask
from zoo.models.ecdm.sampler import Predictor, Sampler, blend, guided, halves

IDS = ["a", "b", "c"]
ALPHAS = NoiseSchedule().alphas()


def latents(seed: int, count: int = 3) -> Tensor:
    return torch.randn(count, 4, 8, 8, generator=torch.Generator().manual_seed(seed))


def hole(count: int = 3) -> Tensor:
    mask = torch.zeros(count, 1, 8, 8)
    mask[:, :, 2:7, 1:5] = 1
    return mask


def knowing(clean: Tensor) -> Predictor:
    """Predicts the noise that leads to these latents, whatever it is shown."""
    return lambda x, t: (x - clean * ALPHAS[t][0] ** 0.5) / (1 - ALPHAS[t][0]) ** 0.5


def network(x: Tensor, t: Tensor) -> Tensor:
    """Something smooth that looks at its surroundings."""
    wide = torch.nn.functional.avg_pool2d(x, 3, 1, 1)
    return 0.8 * x + 0.3 * torch.tanh(wide) + t.reshape(-1, 1, 1, 1) / 5000


# --- the schedule ----------------------------------------------------------------------------------------------------


def test_the_schedule_is_scaled_linear_as_stable_diffusions() -> None:
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=np.float64) ** 2
    assert np.allclose(ALPHAS.numpy(), np.cumprod(1 - betas), rtol=2e-5)
    assert ALPHAS[-1].item() == pytest.approx(0.00466, abs=1e-5)
    for solver in SOLVERS:
        assert torch.equal(NoiseSchedule().scheduler(solver).alphas_cumprod, ALPHAS)


def test_fifty_ddim_steps_are_981_to_1() -> None:
    scheduler = NoiseSchedule().scheduler()
    scheduler.set_timesteps(50)
    assert scheduler.timesteps.tolist() == list(range(981, 0, -20))


def test_q_sample_is_inverted_by_the_clean_estimate() -> None:
    clean, noise, t = latents(0), latents(1), torch.tensor([1, 500, 981])
    noisy = q_sample(clean, ALPHAS[t], noise)
    for k, step in enumerate(t.tolist()):
        a = float(ALPHAS[step])
        assert torch.allclose(noisy[k], a**0.5 * clean[k] + (1 - a) ** 0.5 * noise[k], atol=1e-6)
        assert torch.allclose(q_sample(clean, a, noise)[k], noisy[k], atol=1e-6)
    assert torch.allclose(clean_of(noisy, ALPHAS[t], noise), clean, atol=1e-4)


def test_the_velocity_says_as_much_as_the_noise() -> None:
    generator = torch.Generator().manual_seed(0)
    clean, noise = (torch.randn(3, 4, 5, 6, generator=generator) for _ in range(2))
    t = torch.tensor([0, 400, 999])
    noisy, v = q_sample(clean, ALPHAS[t], noise), velocity(clean, ALPHAS[t], noise)
    torch.testing.assert_close(noise_from(noisy, ALPHAS[t], v), noise)
    back = noisy * ALPHAS[t].sqrt().reshape(-1, 1, 1, 1) - v * (1 - ALPHAS[t]).sqrt().reshape(-1, 1, 1, 1)
    torch.testing.assert_close(back, clean)


def test_a_perfect_velocity_leads_to_the_image() -> None:
    """A network that knows the clean latents ends at them, also where little but noise is left of them."""
    clean = torch.randn(2, 4, 5, 6, generator=torch.Generator().manual_seed(1))

    def unet(x: Tensor, t: Tensor, *_: Any, **__: Any) -> tuple[Tensor]:
        alpha = ALPHAS[t].reshape(-1, 1, 1, 1)
        return (velocity(clean, ALPHAS[t], (x - clean * alpha.sqrt()) / (1 - alpha).sqrt()),)

    predict = predictor(unet, torch.zeros(2, 1, 1), velocity_at=ALPHAS)
    made = Sampler(steps=8)(predict, torch.zeros_like(clean), torch.ones(2, 1, 5, 6), Noise(["a", "b"]))
    assert (made - clean).abs().mean() < 0.03  # the last step of the schedule leaves 0.029 of noise


# --- guidance and blending -------------------------------------------------------------------------------------------


def test_guidance_is_one_call_for_both_halves_the_empty_prompts_first() -> None:
    context, calls = halves(torch.full((3, 1, 1), -1.0), torch.ones(3, 1, 1), 2.0), []

    def predict(x: Tensor, t: Tensor) -> Tensor:
        calls.append(x.shape[0])
        return x * context[..., None] + t.reshape(-1, 1, 1, 1)

    x, t = latents(0), torch.tensor([1, 2, 3])
    found = guided(predict, 2.0)(x, t)
    assert torch.allclose(found, -x + 2.0 * (x - -x) + t.reshape(-1, 1, 1, 1), atol=1e-5)
    assert calls == [6]
    assert guided(predict, 1.0) is predict
    assert halves(torch.zeros(3, 1, 1), context[3:], 1.0).equal(context[3:])


def test_blending_keeps_known_cells_to_the_bit_whatever_the_other_holds() -> None:
    known, other, mask = latents(0), latents(1), hole()
    other[:, :, 0, 0] = float("nan")
    blended = blend(known, other, mask)
    assert torch.equal(blended[:, :, mask[0, 0] == 0], known[:, :, mask[0, 0] == 0])
    assert torch.equal(blended[:, :, mask[0, 0] == 1], other[:, :, mask[0, 0] == 1])
    assert torch.allclose(blend(known, latents(1), 0.25 * mask + 0.25 * (1 - mask)), 0.75 * known + 0.25 * latents(1))


# --- the loop --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_perfect_predictor_is_followed_and_known_cells_are_the_known_latents(solver: str) -> None:
    known, truth, mask = latents(0), latents(1), hole()
    wanted = blend(known, truth, mask)
    found = Sampler(10, solver)(knowing(wanted), known, mask, Noise(IDS))
    assert torch.equal(found[:, :, mask[0, 0] == 0], known[:, :, mask[0, 0] == 0])
    # DDIM ends at the first time step, where a little of the noise is left.
    assert torch.allclose(found, wanted, atol=0.15 if solver == "ddim" else 1e-3)


@pytest.mark.parametrize(("spacing", "first"), [("leading", 951), ("trailing", 999)])
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_ddim_is_an_independent_loop_of_it(spacing: str, first: int, eta: float) -> None:
    known, mask, noise = latents(0), hole(), Noise(IDS, 7)
    found = Sampler(20, eta=eta, spacing=spacing)(network, known, mask, Noise(IDS, 7))
    x = noise.normal("start", (4, 8, 8)).double()
    z = known.double()
    alphas = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2, 0)
    drawn = noise.normal("known", (20, 4, 8, 8)).double()
    extra = noise.normal("eta", (20, 4, 8, 8)).double()
    for index, t in enumerate(range(first, 0, -50)):
        a, before = alphas[t], alphas[max(t - 50, 0)]
        x = (1 - mask) * (a.sqrt() * z + (1 - a).sqrt() * drawn[:, index]) + mask * x
        e = network(x, torch.full((3,), t))
        σ = eta * ((1 - before) / (1 - a) * (1 - a / before)).sqrt()  # Song et al. 2021, Eq. 16
        clean = (x - (1 - a).sqrt() * e) / a.sqrt()
        x = before.sqrt() * clean + (1 - before - σ**2).sqrt() * e + σ * extra[:, index]
    x = (1 - mask) * z + mask * x
    assert torch.allclose(found.double(), x, atol=1e-3)


@pytest.mark.parametrize("solver", ["unipc", "dpmsolver++"])
def test_a_multistep_history_agrees_with_the_known_latents(solver: str) -> None:
    """Known cells stay on one trajectory: putting them back changes nothing but rounding, at any step."""
    known, mask, seen = latents(0), hole(), list[Tensor]()

    def watching(x: Tensor, t: Tensor) -> Tensor:
        seen.append(x)
        return network(x, t)

    sampler = Sampler(12, solver)
    found = sampler(watching, known, mask, Noise(IDS))
    start = Noise(IDS).normal("start", (4, 8, 8))
    scheduler = NoiseSchedule().scheduler(solver)
    scheduler.set_timesteps(12)
    x, outside = start, mask[0, 0] == 0
    for index, t in enumerate(scheduler.timesteps.tolist()):
        a = float(ALPHAS[t])
        path = q_sample(known, a, start)
        if index:
            assert torch.allclose(x[:, :, outside], path[:, :, outside], atol=1e-3)  # before it is put back
        x = blend(path, x, mask)
        assert torch.allclose(x, seen[index], atol=1e-4)
        clean = blend(known, clean_of(x, a, network(x, torch.full((3,), t))), mask)
        x = scheduler.step((x - a**0.5 * clean) / (1 - a) ** 0.5, t, x, return_dict=False)[0]
    assert torch.allclose(found, blend(known, x, mask), atol=1e-4)


@pytest.mark.parametrize(
    "options", [{}, {"solver": "unipc"}, {"solver": "dpmsolver++"}, {"eta": 1.0}, {"draw": "fixed", "skip": 0.25}]
)
def test_a_sample_is_repeatable_and_the_same_alone_and_in_a_batch(options: dict[str, object]) -> None:
    known, mask = latents(0), hole()
    sampler = Sampler(8, **options)  # type: ignore[arg-type]
    together = sampler(network, known, mask, Noise(IDS, 3))
    assert torch.equal(together, sampler(network, known, mask, Noise(IDS, 3)))
    alone = torch.cat([sampler(network, known[k : k + 1], mask[:1], Noise([IDS[k]], 3)) for k in range(3)])
    assert torch.allclose(together, alone, atol=1e-4)
    other = sampler(network, known, mask, Noise(IDS, 4))
    assert (other - together)[:, :, mask[0, 0] == 1].abs().mean() > 1e-3


def test_the_predictor_is_called_once_a_step_and_not_at_all_without_a_hole() -> None:
    class Net(nn.Module):
        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return network(x, t)

    net, known = Net(), latents(0)
    with evaluations(net=net) as counts:
        Sampler(7)(guided(net, 3.0), known, hole(), Noise(IDS))
    assert (counts["net"].calls, counts["net"].samples) == (7, 7 * 6)
    with evaluations(net=net) as counts:
        Sampler(8, skip=0.25)(net, known, hole(), Noise(IDS))
        assert torch.equal(Sampler(8)(net, known, torch.zeros(3, 1, 8, 8), Noise(IDS)), known)
    assert (counts["net"].calls, counts["net"].samples) == (6, 18)
    net(known, torch.ones(3))
    assert counts["net"].calls == 6  # nothing is counted after the block


def test_everything_may_be_a_hole() -> None:
    found = Sampler(5)(network, latents(0), torch.ones(3, 1, 8, 8), Noise(IDS))
    assert found.isfinite().all()
    assert torch.equal(found, Sampler(5)(network, latents(9), torch.ones(3, 1, 8, 8), Noise(IDS)))


def test_entry_and_final_blend_can_be_left_out() -> None:
    known, mask, shown = latents(0), hole(), list[Tensor]()

    def watching(x: Tensor, t: Tensor) -> Tensor:
        shown.append(x)
        return network(x, t)

    free = Sampler(3, entry=False, final=False)(watching, known, mask, Noise(IDS))
    assert torch.equal(shown[0], Noise(IDS).normal("start", (4, 8, 8)))
    assert torch.equal(free, Sampler(3, entry=False, final=False)(network, latents(5), mask, Noise(IDS)))
    outside = mask[0, 0] == 0
    assert not torch.equal(
        Sampler(3, final=False)(network, known, mask, Noise(IDS))[:, :, outside], known[:, :, outside]
    )


@pytest.mark.parametrize("solver", SOLVERS)
def test_clean_estimates_are_clamped(solver: str) -> None:
    wild: Callable[[Tensor, Tensor], Tensor] = lambda x, t: -3.0 * x  # noqa: E731
    known, mask = latents(0).clamp(-1, 1), hole()
    assert Sampler(6, solver, clip=2.0)(wild, known, mask, Noise(IDS)).abs().max() < 12
    assert Sampler(6, solver)(wild, known, mask, Noise(IDS)).abs().max() > 100


def test_skipping_starts_from_the_noised_known_latents() -> None:
    known, shown = latents(0), list[tuple[Tensor, int]]()

    def watching(x: Tensor, t: Tensor) -> Tensor:
        shown.append((x, int(t[0])))
        return network(x, t)

    Sampler(8, skip=0.25)(watching, known, torch.ones(3, 1, 8, 8), Noise(IDS))
    x, t = shown[0]
    assert t == 626  # 876 and 751 are left out
    assert torch.allclose(x, q_sample(known, ALPHAS[t], Noise(IDS).normal("start", (4, 8, 8))))


@pytest.mark.parametrize(
    "options",
    [{"solver": "euler"}, {"draw": "same"}, {"steps": 0}, {"steps": 1000}, {"steps": 334}, {"steps": 600},
     {"eta": -1.0}, {"skip": 1.0}, {"solver": "unipc", "eta": 0.5}, {"spacing": "even"}],
)  # fmt: skip
def test_impossible_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        Sampler(**options)  # type: ignore[arg-type]


def test_leading_steps_must_begin_near_noise() -> None:
    with pytest.raises(UsageError, match=r"(?s)begin at time step 667 of 1000.*333 steps, or spacing trailing"):
        Sampler(334)
    for steps, spacing in ((50, "leading"), (300, "leading"), (333, "leading"), (999, "leading"), (334, "trailing")):
        scheduler = NoiseSchedule().scheduler(spacing=Sampler(steps, spacing=spacing).spacing)
        scheduler.set_timesteps(steps)
        assert scheduler.timesteps.max() > 890


@pytest.mark.parametrize("options", [{"solver": "euler"}, {"spacing": "even"}])
def test_the_schedule_refuses_what_it_does_not_have(options: dict[str, str]) -> None:
    (name,) = options
    with pytest.raises(UsageError, match=f"unknown {name} '{options[name]}'"):
        NoiseSchedule().scheduler(**options)  # type: ignore[arg-type]


def test_hole_pixels_do_not_reach_the_result_unless_the_truth_is_encoded() -> None:
    codec = PCACodec(4, 8)
    image = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(2, 1, 32, 32)
    mask[:, :, 5:18, 9:23] = 1
    other = torch.where(mask > 0.5, 1.0 - image, image)

    def completed(picture: Tensor, kind: str, draw: str = "fresh") -> Tensor:
        known = codec.encode(known_image(picture, mask, kind) * 2 - 1)
        found = Sampler(4, draw=draw, skip=0.25)(network, known, latent_mask(mask, 4), Noise(["a", "b"]))
        return codec.decode(found)

    for kind in ("filled", "masked"):
        assert torch.equal(completed(image, kind), completed(other, kind))
    assert not torch.equal(completed(image, "gt"), completed(other, "gt"))


def test_the_loop_costs_less_than_a_twentieth_of_nanos_networks() -> None:
    """The sampler with its draws, blends and scheduler, against the UNet alone: a share of a step, in CPU time."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=16, in_channels=8, out_channels=8, layers_per_block=1, block_out_channels=(32, 64),
        norm_num_groups=8, down_block_types=("CrossAttnDownBlock2D",) * 2, up_block_types=("CrossAttnUpBlock2D",) * 2,
        cross_attention_dim=64, attention_head_dim=4,
    ).eval()  # fmt: skip
    known, mask, context = torch.zeros(8, 8, 16, 16), torch.ones(8, 1, 16, 16), torch.zeros(16, 24, 64)
    inside = list[float]()

    def predict(x: Tensor, t: Tensor) -> Tensor:
        started = time.thread_time()
        found: Tensor = unet(x, t, context, return_dict=False)[0]
        inside.append(time.thread_time() - started)
        return found

    def share(steps: int = 5) -> float:
        inside.clear()
        started = time.thread_time()
        Sampler(steps)(guided(predict, 2.0), known, mask, Noise([str(k) for k in range(8)]))
        return (time.thread_time() - started - sum(inside)) / sum(inside)

    share(1)
    assert min(share() for _ in range(2)) < 0.05  # of the UNet alone; the student's cost comes on top of it
