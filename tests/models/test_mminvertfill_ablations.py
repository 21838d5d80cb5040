"""Ablations and variants of MMInvertFill: what is left out, and that every choice trains."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision

from tests.fakes_cma import changed, logged, states
from tests.fakes_mminvertfill import TERMS, Seeded, enliven, fed, fit, guided, make, own, without
from zoo.errors import UsageError
from zoo.models.mminvertfill import MMInvertFill
from zoo.models.mminvertfill.choices import CHOICES
from zoo.models.mminvertfill.premodulation import spread


def names(module: MMInvertFill) -> set[str]:
    return {n for n, _ in module.named_parameters()}


@pytest.mark.parametrize(
    ("changes", "gone"),
    [
        ({"edge": False}, "inverter.encoder.decoder.auxiliary.edge."),
        ({"segmentation": False}, "inverter.encoder.decoder.auxiliary.segmentation."),
        ({"pm": False}, "inverter.premodulation."),
        ({"pm": False}, "inverter.map2structure."),
        ({"fw": False}, "inverter.branch."),
        ({"w_adv": 0.0}, "critic."),
        ({"gma_gate": "none"}, ".attention.gate."),
        ({"fusion": "none"}, ".gma."),
        ({"fusion": "concat"}, ".gma."),
        ({"hrf": "none"}, "phi."),
    ],
    ids=str,
)
def test_what_is_left_out_is_not_built(changes: dict[str, Any], gone: str) -> None:
    assert any(gone in n for n in names(make()))
    assert not any(gone in n for n in names(make(**changes)))


def test_without_a_modality_its_channels_are_gone_everywhere() -> None:
    """7 + K go into the encoder, 4 + K into map2structure, 4 into the discriminator."""
    for edge, segmentation in ((True, True), (False, True), (True, False), (False, False)):
        module = make(lively=True, edge=edge, segmentation=segmentation)
        given = [fed(m) for m in (module.inverter.encoder, module.inverter.map2structure[0])]
        values = logged(fit(module))
        assert given[0][0][0].shape[1] == 4 + 2 * edge + 5 * segmentation
        assert given[1][0][0].shape[1] == 3 + edge + 4 * segmentation
        assert module.critic.layers[0].in_channels == 3 + edge
        gone = {name for name, there in (("l_msr_edge", edge), ("l_msr_seg", segmentation)) if not there}
        assert set(values) == TERMS - gone
        assert module.complete(without(guided(), "edge", "segmentation")).raw.isfinite().all()


def test_without_pre_modulation_styles_are_the_vectors_of_their_scale() -> None:
    module = make(lively=True, pm=False)
    made: list[torch.Tensor] = []
    for net in module.inverter.map2style:
        net.register_forward_hook(lambda *a: made.append(a[2]))
    X, M = guided()["image"] * 2 - 1, guided()["mask"]
    delta = module._invert(X, M, module._shown(guided())).delta
    assert torch.equal(delta, spread(torch.stack(made, 1), 8))


def test_a_guided_branch_sees_what_the_encoder_sees() -> None:
    """X and M, and the rest of the 7 + K channels where it is asked to; then guidance moves the maps it makes."""
    batch = guided()
    for kind, channels in (("image", 4), ("guided", 11)):
        module = make(lively=True, branch_input=kind)
        assert module.inverter.branch.stem.in_channels == channels
        X, M = batch["image"] * 2 - 1, batch["mask"]
        shown, bare = (
            module._invert(X, M, module._shown(b)).structure for b in (batch, without(batch, "segmentation"))
        )
        assert all(torch.equal(shown[n], bare[n]) == (kind == "image") for n in shown)
    with pytest.raises(UsageError, match="built for guidance"):
        module.inverter.branch(X, M)


def test_without_the_branch_the_generator_has_styles_alone() -> None:
    module, given = make(lively=True, fw=False), []
    synthesize = module.generator.synthesize
    module.generator.synthesize = lambda *a: given.append(a) or synthesize(*a)  # type: ignore[method-assign,func-returns-value]
    module.complete(guided())
    assert given[0][2] == {}


@pytest.mark.parametrize(
    "changes",
    [
        *({name: choice} for name, choices in CHOICES.items() for choice in choices[1:] if name not in ("hrf", "perc")),
        {"perc": "hrf"}, {"gated_stem": True}, {"acb_tau": 0.1}, {"bottleneck": "res", "matched": True},
        {"bottleneck": "aot", "matched": True}, {"n_blocks": 1}, {"rates": [1]}, {"edge": False},
        {"segmentation": False}, {"pm": False}, {"fw": False}, {"train_generator": True}, {"accumulate": 2},
        {"clip_norm": 0.1}, {"w_l1": 1.0, "w_l1_hole": 1.0}, {"stage": "generator", "mixing": 0.5},
        {"stage": "generator", "accumulate": 2},
    ],
    ids=str,
)  # fmt: skip
def test_every_choice_takes_finite_steps(changes: dict[str, Any]) -> None:
    more = {"perc": "hrf"} if changes.get("ipt") == "rfr" else {}
    module = make(lively=True, **more, **changes)
    before, batch = states(module), guided(4)
    made = fit(module, batch, max_steps=2)
    assert made.global_step == 2
    assert all(value.isfinite() for value in made.logged_metrics.values())
    assert all(p.isfinite().all() for p in module.parameters())
    moved = {"generator", "style_critic"} if module.stage == "generator" else {"inverter", "critic"}
    assert changed(module, before) == moved | ({"generator"} if "train_generator" in changes else set())
    if module.completes:
        assert module.complete(batch).raw.isfinite().all()


@pytest.mark.parametrize(
    "changes",
    [
        *({"fusion": f} for f in CHOICES["fusion"][1:]), {"gma_gate": "value"}, {"acb_variant": "code"}, {"pm": False},
        {"fw": False}, {"aux_source": "pred"}, {"sml": "static"}, {"sml_mode": "regularise"}, {"f4": "replace"},
    ],
    ids=str,
)  # fmt: skip
def test_ablations_change_the_loss(changes: dict[str, Any]) -> None:
    """Weights that both have are the same."""
    whole = make(lively=True).state_dict()

    def terms(**options: Any) -> dict[str, float]:
        module = Seeded(**make(lr=0.0, critic_lr=0.0, tau=0.5, **options).hparams)
        own_state = module.state_dict()
        same = {n: t for n, t in whole.items() if n in own_state and own_state[n].shape == t.shape}
        module.load_state_dict(same, strict=False)
        return logged(fit(module, max_steps=2))

    plain, ablated = terms(), terms(**changes)
    assert ablated["l_hrf"] != pytest.approx(plain["l_hrf"], rel=1e-4)
    assert terms() == plain


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
@pytest.mark.parametrize("stage", MMInvertFill.stages)
def test_mixed_precision_trains(precision: Any, stage: str) -> None:
    changes = {"stage": stage, "lr": 0.0, "critic_lr": 0.0, "style_lr": 0.0, "perc": "hrf"}

    def module_of(**more: Any) -> Seeded:
        return enliven(Seeded(**make(**{**changes, **more}).hparams))  # type: ignore[return-value]

    def plugin() -> MixedPrecision:
        scaler = torch.amp.GradScaler("cpu", init_scale=1.0) if precision == "16-mixed" else None
        return MixedPrecision(precision, "cpu", scaler)

    torch.manual_seed(0)
    exact = logged(fit(module_of()))
    torch.manual_seed(0)
    values = logged(fit(module_of(), plugins=[plugin()]))
    assert values.keys() == exact.keys()
    assert values == pytest.approx(exact, abs=0.1, rel=0.1)
    module = module_of(lr=1e-3, critic_lr=1e-3, style_lr=1e-3)
    before = states(module)
    fit(module, max_steps=3, plugins=[plugin()])
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in module.parameters())
    assert changed(module, before) == (
        {"generator", "style_critic"} if stage == "generator" else {"inverter", "critic"}
    )
    if stage == "inpaint":
        with torch.autocast("cpu", torch.bfloat16):
            completed = module.complete(guided())
        assert completed.raw.isfinite().all()
        assert (completed.raw - module.complete(guided()).raw).abs().mean() < 0.05


def test_every_parameter_of_every_ablation_has_a_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    """None is built that no loss reaches: distributed training would wait for it, and its count would mislead."""
    for changes in (
        {}, {"edge": False}, {"segmentation": False}, {"edge": False, "segmentation": False}, {"fw": False},
        {"bottleneck": "res"}, {"bottleneck": "aot"}, {"acb_variant": "code"}, {"gated_stem": True},
        *({"fusion": f} for f in CHOICES["fusion"]), *({"aux_source": s} for s in CHOICES["aux_source"]),
    ):  # fmt: skip
        module, reached = make(lively=True, **changes), {}

        def record(which: tuple[str, ...], loss: torch.Tensor, module: Any = module, reached: Any = reached) -> None:
            module.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            reached[which] = {n for n, p in module.named_parameters() if p.grad is not None}

        monkeypatch.setattr(module, "_minimize", record)
        fit(module, max_steps=-1, max_epochs=1)
        assert own(module, "inverter") - reached[("inverter",)] == set(), changes
