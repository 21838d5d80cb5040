"""The student: its attention against the formula, and what it shares with a plain ControlNet."""

from __future__ import annotations

import copy
import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, ControlNetModel, DDIMScheduler, StableDiffusionControlNetInpaintPipeline
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import Tensor

from tests.evaluations import evaluations
from tests.fakes_ecdm_nets import ACDA, HINT, TEXT, fill, inputs, residuals, student, teacher, unet
from zoo.errors import UsageError, WeightsError
from zoo.models.ecdm.acda import ACDAProcessor, FrequencyEncoder
from zoo.models.ecdm.controlnet import ECDMControlNet, initialize, warm_start
from zoo.models.ecdm.spectrum import SpectrumOptions, frequency_map


def count(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def equal(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


# --- attention ------------------------------------------------------------------------------------------------------


def layer(heads: int = 4, width: int = 32) -> tuple[Attention, Tensor, Tensor, tuple[Tensor, Tensor]]:
    torch.manual_seed(0)
    attention = Attention(query_dim=width, cross_attention_dim=24, heads=heads, dim_head=width // heads)
    x, text = torch.randn(2, 10, width), torch.randn(2, 6, 24)
    return attention, x, text, (torch.randn(2, 9, width), torch.randn(2, 9, width))


def split(x: Tensor, heads: int) -> list[Tensor]:
    return list(x.chunk(heads, -1))


@torch.no_grad()
def test_the_attention_is_the_sum_of_two_softmaxes() -> None:
    attention, x, text, (k2, v2) = layer()
    outs, joined = [], []
    q, k, v = attention.to_q(x), attention.to_k(text), attention.to_v(text)
    for parts in zip(*(split(t, 4) for t in (q, k, v, k2, v2)), strict=True):
        q_, k_, v_, k2_, v2_ = parts
        first, second = q_ @ k_.mT / 8**0.5, q_ @ k2_.mT / 8**0.5
        outs.append(first.softmax(-1) @ v_ + second.softmax(-1) @ v2_)
        joined.append(torch.cat([first, second], -1).softmax(-1) @ torch.cat([v_, v2_], 1))
    found = ACDAProcessor("key")(attention, x, text, freq_kv={"key": (k2, v2), "other": (v2, k2)})
    assert torch.allclose(found, attention.to_out[0](torch.cat(outs, -1)), atol=1e-5)
    assert not torch.allclose(found, attention.to_out[0](torch.cat(joined, -1)), atol=1e-2)


@torch.no_grad()
def test_without_frequencies_it_is_diffusers_attention() -> None:
    attention, x, text, kv = layer()
    wanted = AttnProcessor2_0()(attention, x, text)
    assert torch.allclose(ACDAProcessor("key")(attention, x, text), wanted, atol=1e-6)
    assert torch.allclose(ACDAProcessor()(attention, x, text, freq_kv={"key": kv}), wanted, atol=1e-6)
    mask = torch.zeros(2, 1, 6)
    mask[:, :, 4:] = -10000.0
    wanted = AttnProcessor2_0()(attention, x, text, mask)
    assert torch.allclose(ACDAProcessor("key")(attention, x, text, mask), wanted, atol=1e-6)
    assert torch.allclose(wanted, ACDAProcessor()(attention, x, text[:, :4]), atol=1e-5)


def test_the_token_encoder_begins_at_zero_and_halves_as_often_as_asked() -> None:
    encoder = FrequencyEncoder(64, 6, ACDA)
    spectrum = torch.randn(2, 6, 64, 40)
    assert torch.equal(encoder(spectrum), torch.zeros(2, 4 * 3, 64))
    assert [m.stride[0] for m in encoder.layers] == [2, 1] * 4  # type: ignore[index, union-attr]
    fill(encoder)
    tokens = encoder(spectrum)
    assert not torch.allclose(tokens[:, 0], tokens[:, 1], atol=1e-3)
    paper = FrequencyEncoder()
    shapes = [(m.in_channels, m.out_channels) for m in paper.layers]
    assert shapes == [(6, 16), (16, 16), (16, 32), (32, 32), (32, 96), (96, 96), (96, 256), (256, 768)]
    assert count(paper) == 2_119_552


# --- the student against a plain ControlNet -------------------------------------------------------------------------


@torch.no_grad()
def test_a_fresh_student_changes_nothing() -> None:
    base, arguments = unet(), inputs()
    *down, mid = residuals(student(base, filled=False), *arguments)
    assert len(down) == 4
    assert all(r.abs().max() == 0 for r in (*down, mid))
    x, t, c, _ = arguments
    changed = base(x, t, c, down_block_additional_residuals=down, mid_block_additional_residual=mid).sample
    assert torch.equal(changed, base(x, t, c).sample)


@torch.no_grad()
@pytest.mark.parametrize("doubled", [False, True])
def test_without_tokens_the_student_is_the_controlnet_it_came_from(doubled: bool) -> None:
    plain, arguments = teacher(), inputs()
    learner = ECDMControlNet.from_controlnet(plain, acda_channels=ACDA, acda_double_self_attn=doubled)
    assert equal(residuals(learner, *arguments), residuals(plain, *arguments))
    without = ECDMControlNet.from_controlnet(plain, acda=False)
    assert count(without) == count(plain)
    assert without.precompute(arguments[-1]) == {}
    assert equal(residuals(without, *arguments), residuals(plain, *arguments))
    fill(learner, std=0.2)
    assert not equal(residuals(learner, *arguments), residuals(plain, *arguments))


@torch.no_grad()
def test_a_doubled_self_attention_has_a_say() -> None:
    arguments = inputs()
    learner = student(acda_double_self_attn=True)
    keys = [key for key in learner.acda_kv if key.endswith("attn1")]
    assert len(keys) == 2
    before = residuals(learner, *arguments)
    learner.acda_kv.get_parameter(f"{keys[0]}.v.weight").add_(0.1)
    assert not equal(residuals(learner, *arguments), before)
    assert list(learner.precompute(arguments[-1])) == [key for key in learner.acda_kv if key.endswith("attn2")]
    again = copy.deepcopy(learner)  # processors follow the copy
    again.acda_kv.get_parameter(f"{keys[0]}.v.weight").add_(0.1)
    assert not equal(residuals(again, *arguments), residuals(learner, *arguments))


@torch.no_grad()
def test_tokens_that_were_made_before_change_nothing() -> None:
    learner, (x, t, c, hint) = student(), inputs()
    wanted = residuals(learner, x, t, c, hint)
    freq_kv = learner.precompute(hint)
    assert [tuple(k.shape) for k, _ in freq_kv.values()] == [(2, 16, 32), (2, 16, 64)]
    assert equal(residuals(learner, x, t, c, hint, cross_attention_kwargs={"freq_kv": freq_kv}), wanted)
    calls: list[int] = []
    assert learner.freq_encoder is not None
    learner.freq_encoder.register_forward_hook(lambda *_: calls.append(1))
    residuals(learner, x, t, c, hint, cross_attention_kwargs={"freq_kv": freq_kv})
    assert calls == []
    both = [torch.cat([part] * 2) for part in (x, t, c, hint)]
    halves = residuals(learner, *both, cross_attention_kwargs={"freq_kv": learner.precompute(hint, repeat=2)})
    assert calls == [1]
    torch.testing.assert_close(halves, residuals(learner, *both))  # tokens of two, and of four: kernels may differ


@torch.no_grad()
def test_tokens_do_not_depend_on_the_batch_unless_asked_to() -> None:
    _, _, _, hint = inputs(batch=3)
    hint[1] = torch.where(hint[1] < 0, hint[1], 0.1 * hint[1])
    for scope, same in (("sample", True), ("batch", False)):
        learner = student(acda_norm_scope=scope)
        together, alone = learner.precompute(hint), learner.precompute(hint[1:2])
        gaps = [(together[key][i][1:2] - alone[key][i]).abs().max() for key in alone for i in (0, 1)]
        assert (max(gaps) <= 1e-6) == same


def test_options_reach_the_spectrum() -> None:
    _, _, _, hint = inputs()
    learner = student(acda_radius=2, acda_window="disc", acda_phase="sincos", acda_amp="log1p", acda_hole_fill="mean")
    assert learner.spectrum == SpectrumOptions(2, "disc", "sample", "log1p", "sincos", "mean")
    assert learner.freq_encoder is not None
    tokens = learner.freq_encoder(frequency_map(hint, learner.spectrum))
    key, (k, _) = next(iter(learner.precompute(hint).items()))
    assert torch.equal(k, tokens @ learner.acda_kv.get_parameter(f"{key}.k.weight").T)
    few = student(acda_blocks=[1])
    assert list(few.acda_kv) == ["down_blocks_1_attentions_0_transformer_blocks_0_attn2"]


@pytest.mark.parametrize(
    ("options", "said"),
    [({"acda_blocks": [2]}, "acda_blocks"), ({"acda_window": "round"}, "acda_window"),
     ({"conditioning_channels": 5}, "5 channels"), ({"init": "cold"}, "controlnet_init")],
)  # fmt: skip
def test_wrong_options_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        student(**options)


def test_other_down_blocks_are_refused() -> None:
    with pytest.raises(UsageError, match="SimpleCrossAttnDownBlock2D"):
        student(unet(down_block_types=("SimpleCrossAttnDownBlock2D", "DownBlock2D"), encoder_hid_dim=TEXT))


# --- learning -------------------------------------------------------------------------------------------------------


def gradients(learner: ECDMControlNet, c: Tensor | None = None) -> list[Tensor]:
    learner.zero_grad()
    x, t, text, hint = inputs()
    found = residuals(learner, x, t, text if c is None else c, hint)
    sum(r.square().mean() for r in found).backward()  # type: ignore[union-attr]
    return [r.detach() for r in found] + [p.grad.clone() for p in learner.parameters() if p.grad is not None]


def test_every_parameter_learns_and_checkpointing_changes_nothing() -> None:
    learner = student().train()
    with evaluations(block=learner.down_blocks[0].resnets[0]) as counted:
        plain = gradients(learner)
    assert counted["block"].calls == 1
    assert len(plain) == 5 + len(list(learner.parameters()))
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in learner.parameters())
    learner.enable_gradient_checkpointing()
    with evaluations(block=learner.down_blocks[0].resnets[0]) as counted:
        again = gradients(learner)
    assert counted["block"].calls == 2, "forward once more for the gradient"
    for a, b in zip(plain, again, strict=True):
        assert torch.allclose(a, b, atol=1e-7)


def test_from_pretrained_residuals_the_tokens_learn_at_once() -> None:
    learner = ECDMControlNet.from_controlnet(teacher(), acda_channels=ACDA)
    gradients(learner)
    assert learner.freq_encoder is not None
    assert learner.freq_encoder.get_parameter("layers.7.weight").grad.abs().max() > 0  # type: ignore[union-attr]
    kv = list(learner.acda_kv.parameters())
    assert all(p.grad is not None and p.grad.abs().max() == 0 for p in kv)  # they wait for the tokens


@torch.no_grad()
def test_warm_residuals_let_the_student_learn_from_the_first_step() -> None:
    learner = student(filled=False, init="warm")
    weights = torch.cat([m.weight.flatten() for m in learner.controlnet_down_blocks])
    assert weights.std().item() == pytest.approx(0.05, rel=0.05)
    hint = learner.controlnet_cond_embedding.conv_out
    assert hint.weight.std().item() == pytest.approx((2 / (9 * HINT[-1])) ** 0.5, rel=0.05)
    assert hint.bias.abs().max() == 0
    fresh = teacher(filled=False)
    initialize(fresh, "zero")
    assert all(r.abs().max() == 0 for r in residuals(fresh, *inputs()))


# --- half precision -------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_bfloat16_is_finite_and_near() -> None:
    learner, arguments = student(), inputs()
    wanted = residuals(learner, *arguments)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = residuals(learner, *arguments)
    x, t, c, hint = arguments
    half = copy.deepcopy(learner)
    torch.nn.Module.to(half, torch.bfloat16)
    cast = residuals(half, x.bfloat16(), t, c.bfloat16(), hint.bfloat16())
    assert cast[0].dtype == torch.bfloat16
    for a, b, r in zip(found, cast, wanted, strict=True):
        assert torch.isfinite(a).all()
        assert (a.float() - r).abs().max() < 0.05 * r.abs().max()
        assert (b.float() - r).abs().max() < 0.05 * r.abs().max()


# --- files, other hints, pipelines ----------------------------------------------------------------------------------


@torch.no_grad()
def test_a_saved_student_is_the_same(tmp_path: Path) -> None:
    options = {
        "acda_radius": "official", "acda_double_self_attn": True, "acda_phase": "sincos", "acda_window": "disc",
        "acda_norm_scope": "batch", "acda_amp": "log1p", "acda_hole_fill": "zero", "acda_blocks": [0],
    }  # fmt: skip
    learner, arguments = student(**options), inputs()
    learner.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert {name: config[name] for name in options} == options
    assert config["acda_channels"] == list(ACDA)
    assert config["conditioning_channels"] == 3
    again = ECDMControlNet.from_pretrained(tmp_path, local_files_only=True)
    assert set(again.state_dict()) == set(learner.state_dict())
    assert equal(residuals(again, *arguments), residuals(learner, *arguments))
    assert {name: again.config[name] for name in options} == options
    assert again.spectrum == learner.spectrum


@torch.no_grad()
def test_a_mask_channel_changes_nothing_at_first() -> None:
    plain, (x, t, c, hint) = teacher(), inputs()
    learner = ECDMControlNet.from_controlnet(plain, conditioning_channels=4, acda_channels=ACDA)
    assert count(learner) == 717_856
    four = torch.cat([hint, (hint[:, :1] < 0).float()], 1)
    gap = [(a - b).abs().max() for a, b in zip(residuals(learner, x, t, c, four), residuals(plain, x, t, c, hint),
                                               strict=True)]  # fmt: skip
    assert max(gap) < 1e-6
    fill(learner)
    wanted = learner.precompute(hint)
    assert all(equal(list(found), list(wanted[key])) for key, found in learner.precompute(four).items())
    with pytest.raises(WeightsError, match=r"conv_in\.weight"):
        ECDMControlNet.from_controlnet(learner, conditioning_channels=3, acda_channels=ACDA)


def test_weights_of_other_sizes_are_refused() -> None:
    learner, state = student(), teacher().state_dict()
    lacking = {n: t for n, t in state.items() if n != "conv_in.bias"}
    for wrong, said in ((lacking, "conv_in.bias is missing"), (state | {"x": torch.ones(1)}, "x has no place")):
        with pytest.raises(WeightsError, match=said):
            warm_start(learner, wrong)
    with pytest.raises(WeightsError, match=r"conv_in\.weight is \(32, 4, 3, 3\), not \(32, 8, 3, 3\)"):
        warm_start(learner, state | {"conv_in.weight": torch.ones(32, 4, 3, 3)})


class Warnings(logging.Handler):
    """Keeps what diffusers says; its logger does not hand on to pytest's."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


@torch.no_grad()
def test_it_is_a_drop_in_for_diffusers_pipeline() -> None:
    torch.manual_seed(0)
    vae = AutoencoderKL(
        block_out_channels=(8, 8, 8), down_block_types=("DownEncoderBlock2D",) * 3, latent_channels=4,
        up_block_types=("UpDecoderBlock2D",) * 3, norm_num_groups=4, sample_size=64,
    )  # fmt: skip
    base = unet(in_channels=4, out_channels=4)
    learner = student(base)
    plain = ControlNetModel.from_unet(base, conditioning_embedding_out_channels=HINT)
    plain.load_state_dict({n: t for n, t in learner.state_dict().items() if not n.startswith(("freq", "acda"))})
    _, _, c, hint = inputs(1)
    image, mask = torch.rand(1, 3, 64, 64), (hint[:, :1] < 0).float()

    def run(controlnet: ControlNetModel, sliced: bool = False) -> Tensor:
        pipeline = StableDiffusionControlNetInpaintPipeline(
            vae, None, None, base, controlnet, DDIMScheduler(), None, None, requires_safety_checker=False
        )
        pipeline.set_progress_bar_config(disable=True)
        if sliced:
            pipeline.enable_attention_slicing()
        made = pipeline(
            image=image, mask_image=mask, control_image=hint, prompt_embeds=c, negative_prompt_embeds=0 * c,
            num_inference_steps=2, controlnet_conditioning_scale=1.0, output_type="pt",
            generator=torch.Generator().manual_seed(0),
        )  # fmt: skip
        return made.images  # type: ignore[no-any-return]

    heard = Warnings()
    logging.getLogger("diffusers").addHandler(heard)
    try:
        found = run(learner)
    finally:
        logging.getLogger("diffusers").removeHandler(heard)
    assert not [line for line in heard.said if "cross_attention_kwargs" in line]
    assert found.shape == (1, 3, 64, 64)
    assert not torch.allclose(found, run(plain), atol=1e-4)
    learner.freq_encoder.get_parameter("layers.7.weight").zero_()  # type: ignore[union-attr]
    learner.freq_encoder.get_parameter("layers.7.bias").zero_()  # type: ignore[union-attr]
    assert torch.equal(run(learner), run(plain))
    with pytest.raises(UsageError, match="ACDA with them"):
        run(learner, sliced=True)


# --- sizes ----------------------------------------------------------------------------------------------------------


def test_parameter_counts_of_the_small_networks() -> None:
    base, learner = unet(), student()
    assert (count(base), count(teacher(base)), count(learner)) == (1_079_880, 559_056, 717_712)
    assert learner.freq_encoder is not None
    assert (count(learner.freq_encoder), count(learner.acda_kv)) == (146_368, 12_288)
    assert count(student(conditioning_channels=4)) == 717_856
    four = unet(in_channels=4, out_channels=4)
    assert [count(n) for n in (four, teacher(four), student(four))] == [1_077_572, 557_904, 716_560]
    micro = unet(in_channels=4, out_channels=4, block_out_channels=(64, 128), norm_num_groups=16)
    assert [count(n) for n in (micro, teacher(micro), student(micro))] == [4_192_900, 2_035_024, 2_205_968]
