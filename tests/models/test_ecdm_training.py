"""The training steps of ECDM: which loss reaches what, and how they add up."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.evaluations import evaluations
from tests.fakes_cma import changed, logged, scenes, some, states
from tests.fakes_ecdm import edged, fit, gradients, make, own
from zoo.batch import Batch
from zoo.errors import UsageError
from zoo.keyed import Noise, key
from zoo.layers.muon import Muon
from zoo.models.ecdm import ECDM, stages
from zoo.models.ecdm.diffusion import q_sample
from zoo.models.ecdm.hints import inpainting_hint

ONCE: dict[str, Any] = {"max_steps": -1, "max_epochs": 1}  # for steps that do not count, as nothing is stepped
NEVER: dict[str, Any] = {"unet_lr": 0.0, "teacher_lr": 0.0, "codec_lr": 0.0, "lr": 0.0, "weight_decay": 0.0}


def reached(module: ECDM, batch: Batch, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Names of the parameters that a step reaches, from the weights that the module has."""
    found: set[str] = set()

    def record(name: Any, loss: Tensor) -> None:
        module.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        found.update(gradients(module))

    monkeypatch.setattr(module, "_minimize", record)
    monkeypatch.setattr(stages, "start", lambda module: None)
    fit(module, batch, **ONCE)
    return found


# --- the gradient map -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ECDM.stages)
def test_each_stage_reaches_all_of_its_own_parameters_and_no_others(
    stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = make(lively=True, stage=stage, codec="kl" if stage == "autoencoder" else "pca", prompt_dropout=0.0)
    expected = own(module, *stages.TRAINED[stage])
    if stage == "unet":
        rows = "text.model.embeddings.token_embedding.weight"
        assert rows in expected
    assert reached(module, edged(4), monkeypatch) == expected
    assert {n for n, p in module.named_parameters() if p.requires_grad} == expected


@pytest.mark.parametrize("muon_lr", [0.0, 0.01])
def test_20_the_optimizers_have_the_students_parameters_alone(muon_lr: float) -> None:
    module = make(muon_lr=muon_lr, weight_decay=0.02)
    before = states(module)
    fit(module, edged(), max_steps=2)
    made = module.by_name
    assert set(made) == ({"student", "matrices"} if muon_lr else {"student"})
    owned = [id(p) for optimizer in made.values() for group in optimizer.param_groups for p in group["params"]]
    assert sorted(owned) == sorted(id(p) for p in module.student.parameters())
    assert changed(module, before) == {"student"}
    assert isinstance(made["student"], torch.optim.AdamW)
    assert made["student"].param_groups[0]["betas"] == (0.9, 0.999)
    assert {group["weight_decay"] for optimizer in made.values() for group in optimizer.param_groups} == {0.02}


def test_muon_takes_the_matrices_of_what_a_stage_trains_and_steps_with_the_rest_of_it() -> None:
    module = make(stage="unet", muon_lr=0.01, decay="linear", weight_decay=0.0)
    before = {name: p.clone() for name, p in module.named_parameters()}
    made = module.optimizers_by_name()
    assert {name: type(optimizer) for name, optimizer in made.items()} == {"unet": torch.optim.AdamW, "matrices": Muon}
    names = {id(p): name for name, p in module.named_parameters()}
    owned = {key: {names[id(p)] for g in o.param_groups for p in g["params"]} for key, o in made.items()}
    assert owned["unet"] | owned["matrices"] == own(module, "unet", "text")
    assert not owned["unet"] & owned["matrices"]
    assert "text.model.embeddings.token_embedding.weight" in owned["unet"]
    assert {name for name in owned["matrices"] if name.endswith(("bias", "embedding.weight"))} == set()
    assert {"unet.mid_block.resnets.0.conv1.weight", "text.model.encoder.layers.0.self_attn.q_proj.weight"} <= (
        owned["matrices"]
    )
    fit(module, edged(), max_steps=2)
    assert module.global_step == 2
    assert {name for name, p in module.named_parameters() if not torch.equal(p, before[name])} >= owned["matrices"]


def test_the_decoder_is_trained_too_where_it_is_unlocked(monkeypatch: pytest.MonkeyPatch) -> None:
    module = make(lively=True, unlock_decoder=True)
    found = reached(module, edged(), monkeypatch)
    decoder = own(module, "unet.up_blocks", "unet.conv_norm_out", "unet.conv_out")
    assert found == own(module, "student") | decoder
    assert decoder


# --- the steps by hand ------------------------------------------------------------------------------------------------


def noised(module: ECDM, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Noisy latents, what is to be predicted, and time steps of the first iteration, from what the module draws.

    The velocity is the derivative of the noisy latents by the angle whose cosine is the square root of alpha.
    """
    noise = Noise(batch["id"], key("ecdm", module.stage, 0, 0))
    z = module.codec.encode(batch["image"] * 2 - 1)
    ε = noise.normal("noise", z.shape[1:])
    t = stages._times(noise, 1000, "sample", 1000)[0]
    angle = module.alphas[t].sqrt().acos()[:, None, None, None]
    target = ε if module.options["prediction"] == "noise" else ε * angle.cos() - z * angle.sin()
    return q_sample(z, module.alphas[t], ε), target, t


@pytest.mark.parametrize("prediction", ["noise", "velocity"])
@pytest.mark.parametrize("stage", ["unet", "teacher"])
def test_a_network_is_taught_the_noise_or_the_velocity(
    stage: str, prediction: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, batch = make(lively=True, stage=stage, prediction=prediction, prompt_dropout=0.0, **NEVER), edged()
    monkeypatch.setattr(stages, "start", lambda module: None)
    values = logged(fit(module, batch))
    with torch.no_grad():
        x, target, t = noised(module, batch)
        c = module.text(batch["caption"])
        residuals: dict[str, Any] = {}
        if stage == "teacher":
            hint = batch["edge"].expand(-1, 3, -1, -1)
            down, mid = module.teacher(x, t, c, hint, return_dict=False)
            residuals = {"down_block_additional_residuals": down, "mid_block_additional_residual": mid}
        predicted = module.unet(x, t, c, return_dict=False, **residuals)[0]
    assert values == {"l_simple": pytest.approx(F.mse_loss(predicted, target).item(), rel=1e-5)}


@pytest.mark.parametrize(
    ("tap", "weight", "prediction"),
    [
        ("decoder", 0.1, "noise"),
        ("decoder", 0.7, "velocity"),
        ("residual", 0.1, "velocity"),
        ("residual", 0.7, "noise"),
    ],
)
def test_the_students_loss_is_eq_12(tap: str, weight: float, prediction: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from zoo.models.ecdm.unet import decode, encode

    sail: dict[str, Any] = {"sail_tap": tap, "sail_weight": weight}
    module, batch = make(lively=True, prediction=prediction, prompt_dropout=0.0, **sail, **NEVER), edged()
    monkeypatch.setattr(stages, "start", lambda module: None)
    for network in (module.student, module.teacher):  # so much that a wrong hint shows
        for parameter in network.controlnet_cond_embedding.parameters():
            parameter.data.mul_(10)
    losses: list[float] = []
    monkeypatch.setattr(module, "_minimize", lambda names, loss: losses.append(loss.item()))
    made = fit(module, batch, **ONCE)
    values = logged(made)
    with torch.no_grad():
        x, target, t = noised(module, batch)
        c = module.text(batch["caption"])
        hint = inpainting_hint(batch["image"], batch["mask"])
        down, mid = module.student(x, t, c, hint, return_dict=False)
        state = encode(module.unet, x, t, c)
        predicted, features = decode(module.unet, state, down, mid)

        def soft_of(edges: Tensor) -> float:
            down_T, mid_T = module.teacher(x, t, c, edges, return_dict=False)
            taps = (
                (features, decode(module.unet, state, down_T, mid_T)[1])
                if tap == "decoder"
                else ([*down, mid], [*down_T, mid_T])
            )
            return sum((a - b).abs().mean().item() for a, b in zip(*taps, strict=True)) / len(taps[0])

        edges = batch["edge"].expand(-1, 3, -1, -1)
        soft = soft_of(edges)
        assert soft_of(0 * edges) != pytest.approx(soft, rel=1e-2)
        whole = module.unet(
            x, t, c, down_block_additional_residuals=down, mid_block_additional_residual=mid, return_dict=False
        )[0]
    assert torch.equal(whole, predicted)
    assert values["l_simple"] == pytest.approx(F.mse_loss(predicted, target).item(), rel=1e-5)
    assert values["l_soft"] == pytest.approx(soft, rel=1e-5)
    assert losses == [pytest.approx(values["l_simple"] + weight * values["l_soft"], rel=1e-6)]


def test_10_a_detached_soft_loss_changes_no_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "start", lambda module: None)
    found = {}
    for name, options in {"baseline": {"sail": False}, "official": {"sail_detached": True}, "ours": {}}.items():
        module = make(lively=True, **options)
        for parameter in module.student.parameters():
            torch.manual_seed(parameter.numel())
            parameter.data = 0.1 * torch.randn_like(parameter)
        monkeypatch.setattr(module, "_minimize", lambda names, loss: loss.backward())
        values = logged(fit(module, edged(), **ONCE))
        assert ("l_soft" in values) == (name != "baseline")
        found[name] = torch.cat([p.grad.flatten() for p in module.student.parameters() if p.grad is not None])
    assert torch.equal(found["official"], found["baseline"])
    assert not torch.allclose(found["ours"], found["baseline"])


def test_the_unets_encoder_runs_once_a_step_and_its_decoder_twice() -> None:
    module = make()
    calls: list[str] = []
    module.unet.conv_in.register_forward_hook(lambda *_: calls.append("encoder"))
    module.unet.up_blocks[-1].resnets[-1].register_forward_hook(lambda *_: calls.append("decoder"))
    fit(module, edged())
    assert calls == ["encoder", "decoder", "decoder"]


def test_an_autoencoders_latents_are_drawn_from_their_posterior() -> None:
    module, batch = make(codec="kl"), edged()
    noise = Noise(batch["id"], 5)
    made = stages.noised(module, batch["image"], noise)
    alpha = module.alphas[made.t][:, None, None, None]
    with torch.no_grad():
        z, x = (made.x - (1 - alpha).sqrt() * made.ε) / alpha.sqrt(), batch["image"] * 2 - 1
        drawn = module.codec.encode(x, noise.normal("posterior", z.shape[1:]))
        clear = alpha.flatten() > 0.01  # else the division leaves few digits
    assert clear.any()
    torch.testing.assert_close(z[clear], drawn[clear], atol=1e-3, rtol=1e-3)
    assert not torch.allclose(z[clear], module.codec.encode(x)[clear], atol=1e-2)


# --- the codec --------------------------------------------------------------------------------------------------------


def test_principal_components_are_fitted_to_all_batches() -> None:
    module, batches = make(stage="autoencoder"), [edged(), some(scenes(8), 5, 6, 7)]
    whole = make(stage="autoencoder").codec
    for batch in batches:
        whole.accumulate(batch["image"] * 2 - 1)
    whole.solve()
    trainer = fit(module, *batches, max_steps=2)
    assert trainer.global_step == 2
    assert module.fitted.item() == 2
    for name in ("mean", "basis", "scale"):
        torch.testing.assert_close(getattr(module.codec, name), getattr(whole, name))
    z = module.codec.encode(torch.cat([batch["image"] for batch in batches]) * 2 - 1)
    assert z.std().item() == pytest.approx(1.0, abs=0.3)
    assert "fitted" not in module.exported_state()


def test_an_autoencoder_learns_and_its_latents_have_unit_deviation() -> None:
    module, batch = make(stage="autoencoder", codec="kl", codec_lr=5e-3, decay="linear"), edged()
    first = logged(fit(module, batch))
    again = logged(fit(module, batch, max_steps=60))
    assert set(first) == {"l_1", "l_2", "kl"}
    assert again["l_1"] < 0.8 * first["l_1"]
    assert module.codec.encode(batch["image"] * 2 - 1).std().item() == pytest.approx(1.0, abs=0.2)


# --- prompts, edges, draws --------------------------------------------------------------------------------------------


def test_18_all_prompts_dropped_is_the_empty_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "start", lambda module: None)
    empty = Batch(**{**edged(), "caption": ["", "", ""]})
    values = [
        logged(fit(make(lively=True, prompt_dropout=share, **NEVER), batch))
        for share, batch in ((1.0, edged()), (0.0, empty), (0.0, edged()))
    ]
    assert values[0] == values[1] != values[2]


@pytest.mark.parametrize("stage", ["teacher", "inpaint"])
def test_a_teacher_without_edges_is_an_error_that_says_what_to_do(stage: str) -> None:
    with pytest.raises(UsageError, match=r"--data.edges true"):
        fit(make(stage=stage), scenes())
    if stage == "inpaint":
        assert set(logged(fit(make(sail=False), scenes()))) == {"l_simple"}


@pytest.mark.parametrize("gate", ["sample", "batch"])
def test_what_is_drawn_depends_on_sample_and_iteration_alone(gate: str) -> None:
    module, batch = make(sail_gate=gate, sail_max_timestep=500), edged(4)
    for seed in range(8):
        whole = stages.noised(module, batch["image"], Noise(batch["id"], seed))
        part = stages.noised(module, batch["image"][2:], Noise(batch["id"][2:], seed))
        for a, b in zip(whole, part, strict=True):
            assert torch.equal(a[2:], b)
    whole = stages.noised(module, batch["image"], Noise(batch["id"], 7))
    other = stages.noised(module, batch["image"], Noise(batch["id"], 8))
    assert not torch.equal(other.ε, whole.ε)
    assert whole.t.unique().numel() > 1


@pytest.mark.parametrize("prediction", ["noise", "velocity"])
def test_the_target_is_the_noise_or_the_velocity(prediction: str) -> None:
    """The velocity is the derivative of the noised latents by the angle whose cosine is the square root of alpha."""
    module, batch = make(prediction=prediction), edged(4)
    made = stages.noised(module, batch["image"], Noise(batch["id"], 7))
    z = module.part("codec").encode(batch["image"] * 2.0 - 1.0)
    angle = module.alphas[made.t].sqrt().acos()[:, None, None, None]
    torch.testing.assert_close(made.x, z * angle.cos() + made.ε * angle.sin())
    moved = z * -angle.sin() + made.ε * angle.cos()
    torch.testing.assert_close(made.target, made.ε if prediction == "noise" else moved)


def test_a_right_prediction_has_no_error_in_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is that of the noise, whether a network predicts this or the velocity."""
    for prediction in ("noise", "velocity"):
        module, batch = make(stage="unet", prediction=prediction), edged(4)
        made = stages.noised(module, batch["image"], Noise(batch["id"]))
        monkeypatch.setattr(type(module.unet), "forward", lambda *_, made=made, **__: (made.target,))
        assert max(stages.scores(module, batch)["noise_mse"]) < 1e-6


@pytest.mark.parametrize(("gate", "below"), [("sample", 500), ("batch", 500), ("sample", 0), ("sample", 1000)])
def test_the_teacher_teaches_below_its_time_step(gate: str, below: int) -> None:
    module, batch = make(sail_gate=gate, sail_max_timestep=below), edged(8)
    draws = [stages.noised(module, batch["image"], Noise(batch["id"], seed)) for seed in range(30)]
    t, taught = (torch.cat([getattr(made, name) for made in draws]) for name in ("t", "taught"))
    assert torch.equal(taught, t < below)
    assert abs(taught.float().mean().item() - below / 1000) < 0.15
    alike = [bool(made.taught.all() or not made.taught.any()) for made in draws]
    assert all(alike) == (gate == "batch" or below != 500)


@pytest.mark.parametrize("stage", ["unet", "teacher"])
def test_the_gate_is_of_the_last_stage_and_the_others_see_all_time_steps(stage: str) -> None:
    gated, usual = (
        make(stage=stage, sail_max_timestep=below, sail_gate=gate) for below, gate in ((500, "batch"), (1000, "sample"))
    )
    batch = edged(8)
    for seed in range(4):
        a, b = (stages.noised(module, batch["image"], Noise(batch["id"], seed)).t for module in (gated, usual))
        assert torch.equal(a, b)


# --- learning rates and memory ----------------------------------------------------------------------------------------


def test_learning_rates_fall_as_asked() -> None:
    assert [stages.factor("linear", step, 4) for step in range(6)] == [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    assert [round(stages.factor("cosine", step, 4), 3) for step in range(5)] == [1.0, 0.854, 0.5, 0.146, 0.0]
    for decay, rate in (("constant", 1e-3), ("linear", 5e-4), ("cosine", 5e-4)):
        module = make(decay=decay)
        fit(module, edged(), max_steps=4, limit_train_batches=2, max_epochs=1)
        assert module.by_name["student"].param_groups[0]["lr"] == pytest.approx(rate if decay == "constant" else 0.0)


def test_16_activations_made_anew_give_the_same_weights() -> None:
    after = []
    for checkpointing, times in ((False, 1), (True, 2)):
        module = make(checkpointing=checkpointing)
        blocks = {"student": module.student.down_blocks[0].resnets[0], "unet": module.unet.up_blocks[0].resnets[0]}
        with evaluations(**blocks) as counted:
            fit(module, edged(), max_steps=2)
        assert counted["student"].calls == 2 * times
        assert counted["unet"].calls == 2 * (times + 1), "under the teacher's residuals without a gradient"
        after.append(states(module.student))
    assert all(torch.equal(after[0][name], after[1][name]) for name in after[0])


@pytest.mark.parametrize("stage", ECDM.stages[1:])
def test_a_few_scenes_are_learnt(stage: str) -> None:
    """The prediction of the same scenes' noise gets better, without any change of the frozen networks."""
    module = make(stage=stage, unet_lr=4e-3, teacher_lr=4e-3, lr=4e-3, sail=False)
    batch = edged()
    first = fit(module, batch)
    module.eval()
    before = sum(score(module, batch))
    fit(module, batch, max_steps=40)
    module.eval()
    assert sum(score(module, batch)) < 0.97 * before
    assert first.global_step == 1


@torch.no_grad()
def score(module: ECDM, batch: Batch) -> list[float]:
    """The squared error of the noise at noise and time steps that are fixed."""
    if module.stage != "inpaint":
        return list(module.validate_batch(batch)["noise_mse"])
    made = stages.noised(module, batch["image"], Noise(batch["id"]))
    c = module.text(batch["caption"])
    hint = inpainting_hint(batch["image"], batch["mask"])
    down, mid = module.student(made.x, made.t, c, hint, return_dict=False)
    residuals = {"down_block_additional_residuals": down, "mid_block_additional_residual": mid}
    ε_θ = module.unet(made.x, made.t, c, return_dict=False, **residuals)[0]
    return [F.mse_loss(ε_θ, made.ε).item()]
