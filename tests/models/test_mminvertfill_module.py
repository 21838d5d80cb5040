"""MMInvertFill as a method of the zoo: construction and completion."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.fakes_cma import some
from tests.fakes_mminvertfill import enliven, fed, fit, guided, make, without
from zoo.batch import UNKNOWN_CLASS, Batch
from zoo.errors import DataError, UsageError
from zoo.keyed import Noise
from zoo.models.mminvertfill import MMInvertFill
from zoo.models.mminvertfill.choices import CHOICES
from zoo.models.mminvertfill.premodulation import spread
from zoo.module import hide_truth, pad_batch

BOTH = ("edge", "segmentation")


def inverted(module: MMInvertFill, batch: Batch) -> Any:
    """What a batch without guidance becomes before the generator."""
    X, M = torch.where(batch["mask"] > 0.5, 0.0, batch["image"] * 2 - 1), batch["mask"]
    return module._invert(X, M, module._shown(without(batch, *BOTH)))


# --- construction -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", MMInvertFill.stages)
@pytest.mark.parametrize("name", list(CHOICES))
def test_other_choices_are_refused_by_name(name: str, stage: str) -> None:
    with pytest.raises(UsageError, match=f"{name} cannot be 'nonsense'") as caught:
        make(stage=stage, **{name: "nonsense"})
    assert all(choice in str(caught.value) for choice in CHOICES[name])


@pytest.mark.parametrize("name", list(CHOICES))
def test_every_choice_that_is_offered_can_be_built(name: str) -> None:
    for choice in CHOICES[name]:
        with torch.device("meta"):  # some features are large
            more = {"perc": "vgg16"} if choice == "rfr" else {}
            assert make(**{**more, name: choice}).options[name] == choice


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"stage": "first"}, "MMInvertFill has no stage 'first'[\\s\\S]*generator, inpaint"),
        ({"size": 48, "generator_channels": []}, "a power of two from 8 on, not 48"),
        ({"size": 64}, "need channels at 64 pixels too"),
        ({"stage": "generator", "style_critic_channels": [4, 4]}, "need channels at 16 pixels too"),
        ({"patches": [2, 8]}, "patches of 8 cells do not divide[\\s\\S]*multiple of 64"),
        ({"widths": [5, 8, 10]}, "5 channels cannot be split into 2 heads"),
        ({"n_blocks": 0}, "0 blocks"),
        ({"tau": 2.0}, "cannot work with tau 2[\\s\\S]*tau in"),
        ({"classes": 1}, "at least two classes[\\s\\S]*segmentation false"),
        ({"ipt": "rfr"}, "perceptual terms[\\s\\S]*perc vgg16, or hrf"),
        ({"ipt": "rfr", "perc": "hrf", "hrf": "none"}, "perceptual terms"),
        ({"r1_every": 0}, "r1_every must be at least 1[\\s\\S]*r1 0"),
        ({"pl_every": 0}, "pl_every must be at least 1[\\s\\S]*pl 0"),
        ({"accumulate": 0}, "accumulate must be at least 1"),
    ],
    ids=str,
)
def test_what_cannot_work_is_refused(change: dict[str, Any], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        make(**change)


def test_sizes_and_readings_reach_their_parts() -> None:
    module = make(
        acb_tau=0.5, mask_down="nearest", dec_up="convT", gma_gate="post", ff_variant="mmt", adn_order="adn", tau=0.25,
        mean_eps=0.5, clip_norm=0.5, accumulate=3, patches=(1, 4), betas=(0.1, 0.9), acb_variant="paper", size=32,
    )  # fmt: skip
    o = module.inverter.encoder.options
    assert (o.acb_tau, o.mask_down, o.dec_up, o.gma_gate, o.ff_variant, o.adn_order, o.patches) == (
        0.5, "nearest", "convT", "post", "mmt", "adn", (1, 4)
    )  # fmt: skip
    assert (o.widths, o.auxiliary, o.n_blocks, o.rates, o.segmentation, o.channels_in) == (
        (6, 8, 10), (7, 5, 3), 2, (1, 2), 4, 11
    )  # fmt: skip
    assert (module.mean.mode, module.mean.tau, module.mean.n, module.mean.eps, module.mean.first) == (
        "soft", 0.25, 3, 0.5, 50
    )  # fmt: skip
    assert (module.clip_norm, module.accumulate, module.size) == (0.5, 3, 32)
    assert module.generator.channels == {4: 9, 8: 8, 16: 7, 32: 5}
    assert {n: p.out_channels for n, p in module.inverter.branch.projections.items()} == {"32": 5, "16": 7, "8": 8}
    assert {n: c.out_channels for n, c in module.inverter.branch.layers.items()} == {"32": 3, "16": 4, "8": 6}
    assert module.critic(torch.zeros(1, 3, 32, 32), torch.zeros(1, 1, 32, 32)).shape == (1, 1, 2, 2)
    assert make(stage="generator").style_critic(torch.zeros(2, 3, 32, 32)).shape == (2,)


def test_the_papers_settings_are_the_defaults() -> None:
    with torch.device("meta"):
        options = MMInvertFill(hrf="random", perc="none").options
    names = ("w_hrf", "w_adv", "msr", "w_rec", "w_perc", "w_edge", "w_seg", "fid", "lr", "critic_lr", "w_l1", "tau")
    assert [options[name] for name in names] == [30.0, 1.0, 1.0, 10.0, 0.05, 0.5, 0.5, 0.005, 1e-4, 1e-4, 0.0, 1e-3]
    assert (options["w_l1_hole"], options["clip_norm"], options["adv_start"], options["mean_samples"]) == (
        0.0,
        0.0,
        0,
        16,
    )
    assert (options["r1"], options["r1_every"], options["pl"], options["pl_every"], options["mixing"]) == (
        10.0, 16, 2.0, 4, 0.9
    )  # fmt: skip
    assert (tuple(options["betas"]), tuple(options["style_betas"]), options["style_lr"]) == (
        (0.5, 0.999),
        (0.0, 0.99),
        2e-3,
    )
    assert (options["n_blocks"], tuple(options["rates"]), tuple(options["patches"])) == (8, (1, 2, 3, 4), (2, 4))
    assert (options["sml"], options["sml_mode"], options["f4"], options["adv_on"]) == ("soft", "offset", "add", "raw")


@pytest.mark.parametrize(("size", "styles"), [(32, 8), (64, 10), (256, 14), (512, 16)])
def test_5_styles_and_their_levels_follow_the_size(size: int, styles: int) -> None:
    """Three coarse ones, four in the middle, the rest fine."""
    channels = [4] * (size.bit_length() - 2)
    with torch.device("meta"):
        module = make(size=size, generator_channels=channels, branch_widths=channels[1:], style_critic_channels=[])
    assert module.generator.styles == module.inverter.styles == module.inverter.premodulation.styles == styles
    assert spread(torch.arange(3.0).view(1, 3, 1), styles).flatten().tolist() == [0] * 3 + [1] * 4 + [2] * (styles - 7)


def test_hyperparameters_are_plain_and_rebuild_the_method() -> None:
    for stage in MMInvertFill.stages:
        module = make(widths=(6, 8, 10), stage=stage)
        again = MMInvertFill(**module.hparams)
        assert {n: p.shape for n, p in again.named_parameters()} == {n: p.shape for n, p in module.named_parameters()}
        assert all(isinstance(v, int | float | str | bool | list | tuple) for v in module.hparams.values())


def test_guidance_is_what_the_method_has_branches_for() -> None:
    assert MMInvertFill.needs == {"image", "mask"}
    assert make().uses == {"edge", "segmentation"}
    assert make(edge=False).uses == {"segmentation"}
    assert make(edge=False, segmentation=False).uses == set()


# --- the generator behind it ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{}, {"f4": "replace"}, {"fw": False}, {"noise": "none"}], ids=str)
def test_4_a_fresh_module_is_the_plain_generator(changes: dict[str, Any]) -> None:
    """Of w* = w̄_o + Δ, with fixed noise; the RGB branch changes nothing yet."""
    module, batch = make(**changes).eval(), guided()
    module.mean.start(module.codes)
    if module.options["f4"] == "replace":
        module.inverter.branch.start(module.generator.constant)
    made = inverted(module, batch)
    assert made.delta.abs().min() > 0
    assert set(made.structure) == (set() if "fw" in changes else {4, 8, 16, 32})
    noise = None if "noise" in changes else module.generator.fixed_noise()
    for layer in module.generator.layers:
        torch.nn.init.constant_(layer.strength, 0.5)  # so that noise counts
    plain = module.generator.synthesize(made.delta + module.mean.online, noise)
    assert torch.equal(module._generate(made, module._noise(Noise(batch["id"]))), plain.clamp(-1, 1))
    raw = (plain.clamp(-1, 1) + 1) / 2
    torch.testing.assert_close(module.complete(without(batch, *BOTH)).raw, raw)


def test_4_when_perturbed_gradients_reach_every_parameter_of_the_branch() -> None:
    module, batch = make(lively=True), guided()
    made = inverted(module, batch)
    image = module.generator.synthesize(made.delta, module.generator.fixed_noise(), made.structure)
    (image * torch.randn_like(image)).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.inverter.branch.parameters())
    plain = module.generator.synthesize(made.delta, module.generator.fixed_noise())
    assert not torch.allclose(image, plain, atol=0.1)


def test_styles_are_offsets_from_the_mean_or_themselves() -> None:
    for mode in ("offset", "regularise"):
        module, batch = make(lively=True, sml_mode=mode).eval(), guided()
        module.mean.online.fill_(3.0)
        made = inverted(module, batch)
        torch.testing.assert_close(module._styles(made), made.delta + (3.0 if mode == "offset" else 0.0))


# --- completing an image ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("guidance", [(), BOTH], ids=str)
@pytest.mark.parametrize("changes", [{}, {"size": 64, "generator_channels": [9, 8, 7, 5, 4], "branch_widths": []}])
def test_nothing_in_the_hole_is_looked_at_and_known_pixels_stay_to_the_bit(
    changes: dict[str, Any], guidance: tuple[str, ...]
) -> None:
    module, batch = make(lively=True, **changes), guided()
    completed = module.complete(batch, guidance=guidance)
    hole = (batch["mask"] > 0.5).expand_as(batch["image"])
    assert torch.equal(completed.image[~hole], batch["image"][~hole])
    assert torch.equal(completed.image[hole], completed.raw[hole])
    assert 0 <= completed.raw.min() < completed.raw.max() <= 1
    for other in (torch.nan, 0.0, torch.rand_like(batch["image"])[hole]):
        blind = guided()
        blind["image"][hole] = other
        again = module.complete(blind, guidance=guidance)
        assert torch.equal(again.raw, completed.raw)
        assert torch.equal(again.image[hole], completed.image[hole])


def test_the_image_is_seen() -> None:
    module, batch = make(lively=True), guided()
    raw = module.complete(batch).raw
    assert not torch.allclose(module.complete(Batch(**{**batch, "image": 1 - batch["image"]})).raw, raw, atol=1e-2)


@pytest.mark.parametrize("name", BOTH)
def test_guidance_changes_the_hole_and_only_the_hole(name: str) -> None:
    module, batch = make(lively=True), guided()
    known = (batch["mask"] < 0.5).expand_as(batch["image"])
    plain, shown = module.complete(batch).image, module.complete(batch, guidance=(name,)).image
    assert torch.equal(plain[known], shown[known])
    assert (plain - shown)[~known].abs().mean() > 1e-3
    other = guided()
    other[name] = other[name].roll(5, -1)  # type: ignore[literal-required]
    assert (module.complete(other, guidance=(name,)).image - shown)[~known].abs().mean() > 1e-3
    assert torch.equal(module.complete(other).image, plain)  # withheld unless it is asked for


def test_guidance_that_the_method_has_no_branch_for_is_not_looked_at() -> None:
    module, batch = make(lively=True, edge=False), guided()
    assert torch.equal(module.complete(batch, guidance=BOTH).raw, module.complete(batch, guidance=BOTH[1:]).raw)
    assert torch.equal(
        module.complete(without(batch, "edge"), guidance=BOTH[1:]).raw, module.complete(batch, guidance=BOTH).raw
    )


@pytest.mark.parametrize("aux_source", ["feature", "pred", "hybrid"])
def test_10_empty_guidance_equals_missing_guidance(aux_source: str) -> None:
    """Whatever the hidden edges and classes were."""
    module, batch = make(lively=True, aux_source=aux_source), guided()
    missing = module.complete(without(batch, *BOTH)).raw
    assert torch.equal(module.complete(batch).raw, missing)
    ones = torch.ones_like(batch["mask"])
    for E, S in ((0, UNKNOWN_CLASS), (1, 2), (torch.nan, 3)):
        hidden = without(batch, *BOTH)
        hidden["image"] = torch.where(batch["mask"] > 0.5, 0.5, batch["image"])
        hidden |= {"edge": ones * E, "edge_mask": ones, "segmentation_mask": ones}
        hidden["segmentation"] = torch.full_like(batch["segmentation"], S)
        with torch.no_grad():
            raw = module.eval().inpaint(hidden, Noise(batch["id"]))
        torch.testing.assert_close(raw, missing)
        hidden["edge_mask"] = torch.zeros_like(ones)
        hidden["edge"] = batch["edge"]
        with torch.no_grad():
            assert not torch.allclose(module.inpaint(hidden, Noise(batch["id"])), missing, atol=1e-3)


def test_of_guidance_that_hides_the_hole_only_the_rest_is_seen() -> None:
    module, batch = make(lively=True).eval(), guided()
    given = fed(module.inverter.encoder)
    with torch.no_grad():
        module.inpaint(hide_truth(batch), Noise(batch["id"]))
        module.inpaint(hide_truth(batch, BOTH), Noise(batch["id"]))
    M, S = batch["mask"], batch["segmentation"]
    for (inputs, mask, _), shown in zip(given, (False, True), strict=True):
        X, m, E, M_E, one_hot, M_S = inputs.split([3, 1, 1, 1, 4, 1], 1)
        assert torch.equal(X, torch.where(M > 0.5, 0.0, batch["image"] * 2 - 1))
        assert torch.equal(m, M)
        assert torch.equal(mask, M)
        assert torch.equal(E, batch["edge"] if shown else torch.zeros_like(M))
        assert torch.equal(M_E, torch.zeros_like(M) if shown else torch.ones_like(M))
        hidden = (S == UNKNOWN_CLASS)[:, None] | ((M > 0.5) & (not shown))
        assert torch.equal(M_S, hidden.float())
        known = F.one_hot(S.clamp(max=3), 4).permute(0, 3, 1, 2) * ~hidden
        assert torch.equal(one_hot, known.float())


def test_classes_that_the_model_does_not_know_are_refused() -> None:
    batch = guided()
    batch["segmentation"][0, 16, 16] = 4
    with pytest.raises(DataError, match=r"class 4, beside 4 classes[\s\S]*number of classes"):
        make().complete(batch, guidance=("segmentation",))


@pytest.mark.parametrize("noise", ["fixed", "random"])
@pytest.mark.parametrize(("height", "width"), [(32, 32), (40, 57)])
def test_an_image_does_not_depend_on_its_batch(noise: str, height: int, width: int) -> None:
    module, batch = make(lively=True, noise=noise), guided(5, height, width)
    together = module.complete(batch, 2, BOTH).raw
    for k in range(5):
        alone = module.complete(some(batch, k), 2, BOTH).raw
        torch.testing.assert_close(alone, together[k : k + 1], atol=2e-5, rtol=0.0)
    backwards = module.complete(some(batch, 4, 3, 2, 1, 0), 2, BOTH).raw
    torch.testing.assert_close(backwards.flip(0), together, atol=2e-5, rtol=0.0)


@pytest.mark.parametrize(
    ("height", "width"), [(96, 64), (32, 40), (61, 75), (30, 26), (24, 24), (20, 90), (4, 8), (1, 1)]
)
def test_any_size_is_completed(height: int, width: int) -> None:
    batch = guided(2, height, width)
    completed = make(lively=True).complete(batch, guidance=BOTH)
    known = (batch["mask"] < 0.5).expand_as(batch["image"])
    assert completed.image.shape == (2, 3, height, width)
    assert completed.raw.isfinite().all()
    assert torch.equal(completed.image[known], batch["image"][known])


def native(module: MMInvertFill, batch: Batch) -> tuple[Tensor, ...]:
    """Image, mask, edge, its mask, classes and their mask as the encoder is given them."""
    given = fed(module.inverter.encoder)
    module.complete(batch, guidance=BOTH)
    return given[0][0].split([3, 1, 1, 1, 4, 1], 1)  # type: ignore[no-any-return]


def test_a_small_image_is_padded_and_comes_back_from_its_corner() -> None:
    module, batch = make(lively=True), guided(2, 24, 30)
    X, M, E, *_ = native(module, batch)
    assert X.shape == (2, 3, 32, 32)
    assert torch.equal(X[..., :24, :30], torch.where(batch["mask"] > 0.5, 0.0, batch["image"] * 2 - 1))
    assert torch.equal(X[..., 24:, :], X[..., 15:23, :].flip(2))  # mirrored
    assert torch.equal(M[..., 24:, :], M[..., 15:23, :].flip(2))
    assert torch.equal(E[..., :24, :30], batch["edge"])
    wide = module.complete(pad_batch(batch, 32), guidance=BOTH)
    torch.testing.assert_close(module.complete(batch, guidance=BOTH).raw, wide.raw[..., :24, :30])


def test_a_large_image_is_made_smaller_and_no_hole_colour_mixes_with_known_ones() -> None:
    module, batch = make(lively=True), guided(2, 64, 64)
    X, M, E, M_E, S, M_S = native(module, batch)
    cells = [batch[k].view(2, -1, 32, 2, 32, 2) for k in ("mask", "edge", "image")]  # type: ignore[literal-required]
    hole, edge = (x.amax((3, 5)) for x in cells[:2])
    assert torch.equal(M, hole)
    assert torch.equal(E, edge)
    assert not M_E.any()
    torch.testing.assert_close(X, torch.where(hole > 0.5, 0.0, cells[2].mean((3, 5)) * 2 - 1))
    classes = batch["segmentation"][:, ::2, ::2]
    assert torch.equal(M_S[:, 0], (classes == UNKNOWN_CLASS).float())
    assert torch.equal(S.argmax(1)[M_S[:, 0] == 0], classes[M_S[:, 0] == 0])
    assert not S.sum(1)[M_S[:, 0] == 1].any()
    blind = Batch(**{**batch, "image": batch["image"].masked_fill(batch["mask"] > 0.5, torch.nan)})
    assert torch.equal(module.complete(blind, guidance=BOTH).raw, module.complete(batch, guidance=BOTH).raw)


def test_a_large_result_is_the_small_one_enlarged() -> None:
    module, batch = make(lively=True), guided(2, 64, 48)
    given = fed(module.inverter)
    raw = module.complete(batch).raw
    with torch.no_grad():
        O_G = module._generate(module.inverter(*given[0]), module.generator.fixed_noise())
    large = F.interpolate((O_G + 1) / 2, (64, 64), mode="bilinear")
    torch.testing.assert_close(raw, large[..., :48])


def test_no_hole_returns_the_image_and_nothing_known_still_runs() -> None:
    module, batch = make(lively=True), guided()
    batch["mask"] = torch.zeros_like(batch["mask"])
    assert torch.equal(module.complete(batch).image, batch["image"])  # 1
    batch["mask"] = torch.ones_like(batch["mask"])
    blind, shown = module.complete(batch).image, module.complete(batch, guidance=BOTH).image
    assert blind.isfinite().all()
    torch.testing.assert_close(blind[0], blind[2])  # of nothing, the same
    assert (shown[0] - shown[2]).abs().max() > 1e-3


def test_fixed_noise_gives_one_completion_and_random_noise_differs_in_the_hole_alone() -> None:
    batch = guided()
    known = (batch["mask"] < 0.5).expand_as(batch["image"])
    for noise in ("fixed", "none"):
        module = make(lively=True, noise=noise)
        assert torch.equal(module.complete(batch, seed=0).raw, module.complete(batch, seed=1).raw)
    module = make(lively=True, noise="random")
    zero, one, again = (module.complete(batch, seed=s).image for s in (0, 1, 0))
    plain = make(lively=True)
    with plain.sampling():
        assert torch.equal(plain.complete(batch, seed=1).image, one)
    assert torch.equal(plain.complete(batch, seed=1).raw, plain.complete(batch, seed=0).raw)
    assert torch.equal(zero, again)
    assert torch.equal(zero[known], one[known])
    assert (zero - one)[~known].abs().mean() > 1e-3
    twice = some(batch, 0, 0)
    twice["id"] = ["a", "b"]
    a, b = module.complete(twice).raw
    assert (a - b).abs().mean() > 1e-3


def test_the_kinds_of_noise_differ() -> None:
    made = {noise: make(lively=True, noise=noise).complete(guided()).raw for noise in ("fixed", "random", "none")}
    for one, other in (("fixed", "random"), ("fixed", "none"), ("random", "none")):
        assert (made[one] - made[other]).abs().mean() > 1e-3


def test_completing_uses_neither_discriminator_nor_features() -> None:
    module = make(lively=True)
    given = [fed(part) for part in (module.critic, module.phi)]
    module.complete(guided())
    assert given == [[], []]
    for part in (module.critic, module.phi):
        for parameter in part.parameters():
            parameter.data.fill_(torch.nan)
    assert module.complete(guided()).raw.isfinite().all()


def test_a_generator_shows_a_sheet_of_its_images() -> None:
    module = enliven(make(stage="generator")).eval()
    with torch.no_grad():
        sheet = module.sheet()
        again = module.sheet()
    assert sheet.shape == (32, 3, 32, 32)
    assert 0 <= sheet.min() < sheet.max() <= 1
    assert torch.equal(sheet, again)
    assert (sheet[0] - sheet[1]).abs().mean() > 1e-3
    assert make().sheet() is None


def test_training_images_must_have_the_generators_size() -> None:
    for stage in MMInvertFill.stages:
        with pytest.raises(DataError, match=r"size 32 cannot be trained on images of 64 x 48[\s\S]*the same size"):
            fit(make(stage=stage), guided(2, 64, 48))
