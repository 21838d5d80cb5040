"""ECDM as a method of the zoo: construction and completion. Numbers are those of the specification's properties."""

from __future__ import annotations

import logging
import time
from typing import Any

import pytest
import torch

from tests.evaluations import evaluations
from tests.fakes_cma import WORDS, scenes, some
from tests.fakes_ecdm import NETWORKS, arguments_of, hole, make
from zoo.batch import Batch
from zoo.errors import DataError, UsageError
from zoo.keyed import Noise
from zoo.models.ecdm import ECDM, choices, completion
from zoo.models.ecdm.hints import fill
from zoo.models.ecdm.hub import CONTROL_CANNY, CONTROL_INPAINT, LICENCES, SD15
from zoo.models.ecdm.sampler import Sampler
from zoo.models.ecdm.stages import TRAINED

# --- construction -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(choices.CHOICES))
def test_other_choices_are_refused_by_name(name: str) -> None:
    with pytest.raises(UsageError, match=f"{name} cannot be 'nonsense'") as caught:
        make(**{name: "nonsense"})
    assert all(choice in str(caught.value) for choice in choices.CHOICES[name])


@pytest.mark.parametrize("name", list(choices.CHOICES))
def test_every_choice_that_is_offered_can_be_built(name: str) -> None:
    for choice in choices.CHOICES[name]:
        assert make(**{name: choice, "unet_groups": 2}).options[name] == choice


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"stage": "first"}, "ECDM has no stage 'first'"),
        ({"vocabulary": []}, "needs a vocabulary"),
        ({"text_length": 2}, "no room for a word"),
        ({"text_heads": 5}, "heads must divide the width"),
        ({"codec_factor": 6}, "power of two"),
        ({"hint_widths": [4, 8]}, "hint_widths has 2 widths, and codec_factor is 4"),
        ({"codec": "kl", "codec_widths": [4]}, "codec_widths has 1 widths"),
        ({"codec_channels": 60}, "60 components"),
        ({"codec": "identity", "stage": "autoencoder"}, "nothing to fit"),
        ({"base": "somewhere", "stage": "unet"}, "there is no stage 'unet'"),
        ({"unet_plain": 2}, "unet_plain must be from 0 to 1"),
        ({"prompt_dropout": 1.5}, "prompt_dropout"),
        ({"sail_weight": -0.1}, "at least 0"),
        ({"acda_window": "round"}, "acda_window"),
        ({"acda_radius": -1}, "acda_radius"),
        ({"steps": 1000}, "1 to 999"),
        ({"solver": "unipc", "eta": 1.0}, "eta must be 0"),
        ({"accumulate": 0}, "accumulate must be at least 1"),
    ],
    ids=str,
)
def test_what_cannot_work_is_refused(change: dict[str, Any], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        make(**change)


def test_a_stage_builds_what_it_needs() -> None:
    built = {stage: {n for n, _ in make(stage=stage).named_children()} for stage in ECDM.stages}
    assert built == {
        "autoencoder": {"codec"},
        "unet": {"codec", "text", "unet"},
        "teacher": {"codec", "text", "unet", "teacher"},
        "inpaint": set(NETWORKS),
    }
    assert {n for n, _ in make(base="somewhere").named_children()} == {"student"}
    assert {n for n, _ in make(base="somewhere", teacher_source="").named_children()} == {"student", "teacher"}


@pytest.mark.parametrize("stage", ECDM.stages)
def test_what_a_stage_does_not_train_stays_in_evaluation_mode(stage: str) -> None:
    module = make(stage=stage).train()
    modes = {name: network.training for name, network in module.named_children()}
    assert {name for name, training in modes.items() if training} == {*TRAINED[stage]} & {*modes}
    assert len(modes) > 1 or stage == "autoencoder"


def test_the_papers_settings_are_the_defaults() -> None:
    with torch.device("meta"):
        module = ECDM()
    o = module.options
    assert o["weight_decay"] == 0.01
    assert (o["size"], o["lr"], o["sail_weight"], o["steps"], o["guidance"], o["eta"]) == (512, 5e-5, 0.1, 50, 7.5, 0)
    assert (o["sail"], o["sail_tap"], o["sail_max_timestep"], o["sail_detached"]) == (True, "decoder", 1000, False)
    assert (o["acda"], o["acda_radius"], o["acda_window"], o["acda_amp"]) == (True, 4, "square", "linear")
    assert (o["acda_norm_scope"], o["acda_double_self_attn"]) == ("sample", False)
    assert (o["known_latent"], o["latent_mask"], o["hint"]) == ("filled", "max", "neg1")
    assert (o["blend_entry"], o["blend_final"], o["solver"], o["decay"]) == (True, True, "ddim", "constant")
    assert (o["clip_norm"], o["unlock_decoder"], o["controlnet_init"]) == (0.0, False, "zero")
    assert module.sampler == Sampler(steps=50)
    assert module.multiple == 64


def test_hyperparameters_are_plain_and_rebuild_the_method() -> None:
    for stage in ECDM.stages:
        module = make(vocabulary=tuple(WORDS), unet_channels=(8, 16), acda_blocks=(0,), stage=stage)
        again = ECDM(**module.hparams)
        assert {n: p.shape for n, p in again.named_parameters()} == {n: p.shape for n, p in module.named_parameters()}
        assert all(isinstance(module.hparams[n], list) for n in ("vocabulary", "unet_channels", "acda_blocks"))


def test_the_terms_of_published_weights_hold_for_what_starts_from_them() -> None:
    base, student, teacher = (f"{source}: {LICENCES[source]}" for source in (SD15, CONTROL_INPAINT, CONTROL_CANNY))
    assert make().licences == ()
    assert make(base=SD15).licences == (base, student, teacher)
    assert make(base=SD15, sail=False, student_source="").licences == (base,)
    assert make(base=SD15, stage="teacher", teacher_source="").licences == (base,)
    assert make(base="folder", sail=False, student_source="").licences == ("that of the weights in 'folder'",)


def test_words_come_from_captions_where_there_is_no_base() -> None:
    assert ECDM.vocabulary_for({"base": ""}, lambda: ["A red square.", "a blue"]) == ["a", "blue", "red", "square"]
    assert ECDM.vocabulary_for({}, lambda: pytest.fail("captions were read")) == []


def test_captions_are_asked_for() -> None:
    batch = scenes()
    del batch["caption"]
    with pytest.raises(DataError, match="no 'caption'"):
        make().complete(batch)


# --- completing an image ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes", [{}, {"solver": "unipc"}, {"codec": "kl"}, {"hint": "rgbm", "known_latent": "masked"}]
)
def test_11_12_nothing_in_the_hole_is_looked_at_and_known_pixels_stay_to_the_bit(changes: dict[str, Any]) -> None:
    module, batch = make(lively=True, **changes), scenes()
    completed, inside = module.complete(batch), hole(batch)
    assert torch.equal(completed.image[~inside], batch["image"][~inside])
    assert torch.equal(completed.image[inside], completed.raw[inside])
    assert 0 <= completed.raw.min() < completed.raw.max() <= 1
    for other in (torch.nan, 0.0, torch.rand_like(batch["image"])[inside]):
        blind = scenes()
        blind["image"][inside] = other
        assert torch.equal(module.complete(blind).raw, completed.raw)


def test_12_latents_of_the_truth_let_it_through() -> None:
    module, batch = make(lively=True, known_latent="gt", latent_mask="area"), scenes()
    batch["mask"][:, :, 10:11] = 0
    other = scenes()
    other["mask"] = batch["mask"]
    other["image"] = torch.where(hole(batch), 1.0 - batch["image"], batch["image"])
    assert not torch.equal(module.complete(other).raw, module.complete(batch).raw)
    blind = make(lively=True, known_latent="filled", latent_mask="area")
    assert torch.equal(blind.complete(other).raw, blind.complete(batch).raw)


def test_latents_are_known_where_the_last_blend_says(monkeypatch: pytest.MonkeyPatch) -> None:
    module, batch = make(lively=True), scenes()
    decoded: list[torch.Tensor] = []
    decode = module.codec.decode
    monkeypatch.setattr(module.codec, "decode", lambda z: decoded.append(z) or decode(z))  # type: ignore[func-returns-value]
    module.complete(batch)
    known = torch.nn.functional.max_pool2d(batch["mask"], 4) == 0
    z = module.codec.encode(batch["image"] * 2 - 1)
    assert torch.equal(decoded[0][known.expand_as(z)], z[known.expand_as(z)])


def test_13_no_hole_returns_the_image_and_nothing_known_still_runs() -> None:
    module, batch = make(lively=True), scenes()
    batch["mask"] = torch.zeros_like(batch["mask"])
    with evaluations(unet=module.unet) as counted:
        assert torch.equal(module.complete(batch).image, batch["image"])
    assert counted["unet"].calls == 0
    batch["mask"] = torch.ones_like(batch["mask"])
    shown: list[torch.Tensor] = []
    module.student.register_forward_pre_hook(lambda _, given: shown.append(given[3]))
    completed = module.complete(batch).image
    assert bool((shown[0] == -1).all())
    assert completed.isfinite().all()
    assert not torch.equal(completed[0], completed[2])


@pytest.mark.parametrize("solver", ["ddim", "dpmsolver++"])
def test_17_an_image_does_not_depend_on_its_batch_and_a_seed_repeats_it(solver: str) -> None:
    module, batch = make(lively=True, solver=solver), scenes(4)
    together = module.complete(batch, seed=2)
    assert torch.equal(module.complete(batch, seed=2).raw, together.raw)
    for k in range(4):
        torch.testing.assert_close(module.complete(some(batch, k), 2).raw, together.raw[k : k + 1], atol=1e-4, rtol=0)
    other = module.complete(batch, seed=3).image
    inside = hole(batch)
    assert (other - together.image)[inside].abs().mean() > 1e-3
    assert torch.equal(other[~inside], together.image[~inside])
    assert ECDM.stochastic


def test_18_captions_of_any_length_are_read_up_to_their_limit(caplog: pytest.LogCaptureFixture) -> None:
    module, batch = make(lively=True), some(scenes(), 0, 0, 0)
    batch["caption"] = ["", "a red square " * 60, "a red square " * 2 + "a blue ground"]
    with caplog.at_level(logging.WARNING):
        raw = module.complete(batch).raw
    assert raw.isfinite().all()
    assert sum("captions are cut" in record.message for record in caplog.records) == 1
    assert not torch.allclose(raw[0], raw[1], atol=1e-4)


def test_the_caption_and_the_image_are_read() -> None:
    module, batch = make(lively=True), scenes()
    raw = module.complete(batch).raw
    assert (module.complete(Batch(**{**batch, "image": 1 - batch["image"]})).raw - raw).abs().max() > 1e-3
    rolled = Batch(**{**batch, "caption": batch["caption"][1:] + batch["caption"][:1]})
    assert (module.complete(rolled).raw - raw).abs().max() > 1e-4


@pytest.mark.parametrize(("height", "width"), [(40, 24), (33, 61), (8, 8), (5, 3)])
def test_any_size_is_completed(height: int, width: int) -> None:
    batch = scenes(2, height, width)
    completed = make(lively=True).complete(batch)
    known = ~hole(batch)
    assert completed.image.shape == (2, 3, height, width)
    assert completed.image.isfinite().all()
    assert torch.equal(completed.image[known], batch["image"][known])


# --- what sampling costs ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("guidance", "halves"), [(2.0, 2), (1.0, 1)])
def test_a_step_is_one_call_of_student_and_unet_for_both_halves(guidance: float, halves: int) -> None:
    module, batch = make(lively=True, steps=4, guidance=guidance), scenes()
    assert module.student.freq_encoder is not None
    networks = {"tokens": module.student.freq_encoder, "text": module.text.model}
    networks |= {name: getattr(module, name) for name in ("unet", "student", "teacher")}
    with evaluations(**networks) as counted:
        module.complete(batch)
    assert {name: found.calls for name, found in counted.items()} == {
        "student": 4, "unet": 4, "teacher": 0, "tokens": 1, "text": halves
    }  # fmt: skip
    assert counted["unet"].samples == counted["student"].samples == 4 * 3 * halves
    assert counted["tokens"].samples == 3


def test_tokens_that_are_kept_change_nothing() -> None:
    module, batch = make(lively=True), scenes()
    raw = module.complete(batch).raw
    plain = module.student.precompute
    module.student.precompute = lambda hint, repeat=1: None  # type: ignore[method-assign]
    predictor = completion.predictor

    def slow(unet: Any, context: Any, control: Any, hint: Any, freq_kv: Any, velocity_at: Any) -> Any:
        module.student.precompute = plain  # type: ignore[method-assign]
        return predictor(unet, context, control, hint, velocity_at=velocity_at)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(completion, "predictor", slow)
        torch.testing.assert_close(module.complete(batch).raw, raw, atol=1e-5, rtol=0)


def test_sampling_costs_little_besides_its_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """At nano's sizes, in processor time: what is spent outside the calls of the networks is under 5 % of a step."""
    module, batch = ECDM(**arguments_of("nano")).eval(), scenes(4, 64, 64)
    spent = {"networks": 0.0}

    def timed(call: Any) -> Any:
        def run(*arguments: Any, **named: Any) -> Any:
            start = time.process_time()
            try:
                return call(*arguments, **named)
            finally:
                spent["networks"] += time.process_time() - start

        return run

    for owner, names in (
        (module.unet, ["forward"]), (module.text, ["forward"]), (module.student, ["forward", "precompute"]),
        (module.codec, ["encode", "decode"]),
    ):  # fmt: skip
        for name in names:
            monkeypatch.setattr(owner, name, timed(getattr(owner, name)))
    module.complete(batch)  # what is set up once is no part of it
    shares = []
    for _ in range(2):
        spent["networks"], start = 0.0, time.process_time()
        module.complete(batch)
        whole = time.process_time() - start
        shares.append((whole - spent["networks"]) / whole)
    assert min(shares) < 0.05


@pytest.mark.parametrize("prediction", ["noise", "velocity"])
def test_the_loop_is_the_samplers_over_the_networks(prediction: str) -> None:
    """Completion by hand: hint, halves, sampler, decoding, composite."""
    options = {"codec": "identity", "unet_groups": 2, "clip": 0.0, "prediction": prediction}
    module, batch = make(lively=True, **options).eval(), scenes()
    image, mask = torch.where(hole(batch), 0.5, batch["image"]), batch["mask"]
    hint = torch.where(mask > 0.5, -1.0, image)
    with torch.no_grad():
        text = torch.cat([module.text(["", "", ""]), module.text(batch["caption"])])

        def eps(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            x, t = torch.cat([x, x]), torch.cat([t, t])
            down, mid = module.student(x, t, text, torch.cat([hint, hint]), return_dict=False)
            out = module.unet(
                x, t, text, down_block_additional_residuals=down, mid_block_additional_residual=mid, return_dict=False
            )[0]
            if prediction == "velocity":
                angle = module.alphas[t].sqrt().acos()[:, None, None, None]
                out = out * angle.cos() + x * angle.sin()
            return out[:3] + 2.0 * (out[3:] - out[:3])

        z = module.codec.encode(fill(image, mask) * 2 - 1)
        cells = torch.nn.functional.max_pool2d(mask, 4)
        made = module.codec.decode(Sampler(steps=3)(eps, z, cells, Noise(batch["id"], 5)))
    torch.testing.assert_close(module.complete(batch, seed=5).raw, ((made + 1) / 2).clamp(0, 1), atol=1e-5, rtol=0)
