"""The recipes and stages of ECDM: counts, weights between stages, a base from files, checkpoints, two processes."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from safetensors.torch import load_file
from torch import Tensor
from torch.utils.data import DataLoader

from tests import ecdm_ddp
from tests.fakes_cma import changed, scenes, states, trainer
from tests.fakes_ecdm import BASED, arguments_of, count, edged, enliven, fit, make
from tests.fakes_stable_diffusion import save_control, save_pipeline
from tests.processes import call_apart
from zoo.batch import Batch
from zoo.cli.checkpoint import Ema
from zoo.cli.fit import _load_predecessors
from zoo.errors import WeightsError
from zoo.models import recipe, resolve
from zoo.models.ecdm import ECDM, networks
from zoo.models.ecdm.convert import convert_upstream, to_upstream
from zoo.weights import load_weights, read_header, save_weights

ROOT = Path(__file__).resolve().parents[2]
STAGES = pytest.mark.parametrize("stage", ECDM.stages)

# --- recipes ----------------------------------------------------------------------------------------------------------


def counted(**options: Any) -> dict[str, int]:
    """The parameters of each network of the last stage; nothing is allocated."""
    with torch.device("meta"):
        module = ECDM(**options)
    return {name: count(network) for name, network in module.named_children()}


def test_the_papers_networks_have_the_specifications_sizes() -> None:
    assert counted(**arguments_of("paper")) == {"student": 370_279_952}
    found = counted(**arguments_of("paper", base=""))
    assert {name: found[name] for name in ("codec", "unet", "teacher", "student")} == {
        "codec": 83_653_863, "unet": 859_520_964, "teacher": 361_279_120, "student": 370_279_952
    }  # fmt: skip
    from transformers import CLIPTextConfig, CLIPTextModel

    o = arguments_of("paper", **{name: value for name, value in _defaults().items() if name.startswith("text_")})
    with torch.device("meta"):
        text = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=49408, hidden_size=o["text_width"], intermediate_size=4 * o["text_width"],
                num_hidden_layers=o["text_layers"], num_attention_heads=o["text_heads"],
                max_position_embeddings=o["text_length"],
            )
        )  # fmt: skip
    assert count(text) == 123_060_480


def _defaults() -> dict[str, Any]:
    with torch.device("meta"):
        return dict(ECDM().options)


def test_nano_has_the_sizes_it_had_and_the_specifications_of_its_widths() -> None:
    words = [f"word{k}" for k in range(124)]
    assert counted(**arguments_of("nano", vocabulary=words)) == {
        "codec": 0, "text": 77_824, "unet": 1_668_248, "teacher": 839_152, "student": 1_000_880
    }  # fmt: skip
    of_shapes = counted(**arguments_of("nano", vocabulary=words[:86]))
    assert (of_shapes["text"], sum(of_shapes.values()) - of_shapes["teacher"]) == (75_392, 2_744_520)
    narrow = {"vocabulary": words, "unet_channels": [32, 64], "text_length": 16}
    found = counted(**arguments_of("nano", **narrow))
    assert found == {"codec": 0, "text": 76_288, "unet": 1_079_880, "teacher": 559_056, "student": 717_712}
    assert counted(**arguments_of("nano", **narrow, hint="rgbm"))["student"] == 717_856
    sizes = {"codec": "kl", "codec_channels": 4, "codec_widths": [16, 32, 64], "codec_layers": 1, "codec_groups": 8}
    found = counted(**arguments_of("nano", **narrow, **sizes, codec_attention=False))
    assert found == {"codec": 648_375, "text": 76_288, "unet": 1_077_572, "teacher": 557_904, "student": 716_560}


def test_recipes_name_the_method_and_agree_with_themselves() -> None:
    for preset in ("nano", "paper"):
        content: Any = recipe("ecdm", preset)
        arguments = content["model"]["init_args"]
        assert resolve(content["model"]["class_path"]) is ECDM
        assert content["data"]["size"] == arguments["size"]
        assert content["data"]["edges"]
        assert bool(arguments.get("base", "hub")) == (preset == "paper")


def test_every_stage_of_the_nano_recipe_takes_a_step() -> None:
    batch = edged(2, 64, 64)
    for stage in ECDM.stages:
        module = ECDM(**arguments_of("nano", stage=stage))
        before = states(module)
        fit(module, batch, max_steps=2)
        learning = {"autoencoder": {"fitted"}, "unet": {"unet", "text"}, "inpaint": {"student"}}.get(stage, {stage})
        assert changed(module, before) == learning
        assert all(tensor.isfinite().all() for tensor in module.state_dict().values())
    assert module.complete(batch).image.shape == (2, 3, 64, 64)


# --- stages and weights -----------------------------------------------------------------------------------------------


def run_of(folder: Path, **options: Any) -> ECDM:
    """Trains all stages as `zoo fit` does, two steps each, and reads the last one's weights."""
    for stage in ECDM.stages_for({"base": "", **options}):
        module = make(stage=stage, **options)
        before = [s for s in ECDM.stages_for({"base": "", **options}) if (folder / s).is_dir()]
        _load_predecessors(module, folder, before)
        held = {name: tensor.clone() for name, tensor in module.state_dict().items()}
        fit(module, edged(), max_steps=2)
        kept = {name for name in held if name.split(".")[0] not in ("codec", "fitted", *learning(stage))}
        assert all(torch.equal(module.state_dict()[name], held[name]) for name in kept)
        save_weights(module, folder / stage / "weights.safetensors")
    found = load_weights(folder / "inpaint" / "weights.safetensors")
    assert isinstance(found, ECDM)
    completed = module.complete(edged(), seed=4)
    torch.testing.assert_close(found.complete(edged(), seed=4).raw, completed.raw, atol=1e-6, rtol=0)
    return found


def learning(stage: str) -> tuple[str, ...]:
    from zoo.models.ecdm.stages import TRAINED

    return TRAINED[stage]


def test_all_stages_follow_each_other(tmp_path: Path) -> None:
    found = run_of(tmp_path)
    state = load_file(tmp_path / "inpaint" / "weights.safetensors")
    assert {name.split(".")[0] for name in state} == {"codec", "text", "unet", "student"}
    for stage in ("autoencoder", "unet"):
        for name, tensor in load_file(tmp_path / stage / "weights.safetensors").items():
            if stage == "unet" or name.startswith("codec"):
                assert torch.equal(found.state_dict()[name], tensor), name
    assert {n.split(".")[0] for n in load_file(tmp_path / "autoencoder" / "weights.safetensors")} == {"codec"}
    header = read_header(tmp_path / "inpaint" / "weights.safetensors")
    assert header.vocabulary
    assert not {"teacher_source", "student_source"} & set(header.config)


def test_other_codecs_and_rows_follow_each_other(tmp_path: Path) -> None:
    run_of(tmp_path / "kl", codec="kl", codec_channels=4, unlock_decoder=False)
    run_of(tmp_path / "identity", codec="identity", sail=False, acda=False)
    assert not (tmp_path / "identity" / "teacher").exists()


def test_stages_before_the_last_complete_nothing_and_show_what_they_learnt(tmp_path: Path) -> None:
    for stage in ECDM.stages[:-1]:
        module, batch = enliven(make(stage=stage)).eval(), edged()
        assert module.sheet() is None
        with torch.no_grad():
            values = module.validate_batch(batch)
            assert values == module.validate_batch(batch)
        assert set(values) == {"psnr" if stage == "autoencoder" else "noise_mse"}
        assert all(len(value) == 3 for value in values.values())
        sheet = module.sheet()
        assert sheet is not None
        assert sheet.shape == ((9 if stage == "teacher" else 6), 3, 32, 32)
        assert torch.equal(sheet[:3], batch["image"])
        assert 0 <= sheet.min() <= sheet.max() <= 1
        with pytest.raises(WeightsError, match=f"stage '{stage}' of ECDM does not complete images"):
            module.complete(batch)
    assert make().completes


class Far(Tensor):
    """A tensor that knows whether it was brought to the CPU."""

    brought = 0

    def cpu(self, *arguments: Any, **options: Any) -> Tensor:  # type: ignore[override]
        Far.brought += 1
        return self.as_subclass(Tensor)


def test_what_a_stage_shows_outlasts_the_end_of_its_training_on_a_gpu() -> None:
    """Lightning moves a module to the CPU then; its batches stay where they were."""
    module, batch = make(stage="teacher").eval(), edged()
    moved = {name: value.as_subclass(Far) if isinstance(value, Tensor) else value for name, value in batch.items()}
    with torch.no_grad():
        module.validate_batch(Batch(**moved))  # type: ignore[typeddict-item]
    assert module.shown is not None
    assert not [name for name, value in module.shown.items() if isinstance(value, Far)]
    assert Far.brought == 3  # image, mask and edge
    assert module.sheet() is not None


def test_a_codec_that_is_fitted_to_its_images_is_near_them() -> None:
    module, batch = make(stage="autoencoder", codec_channels=24), edged()
    before = module.eval().validate_batch(batch)["psnr"]
    fit(module, batch)
    after = module.eval().validate_batch(batch)["psnr"]
    assert min(after) > max(before)


def test_a_controlnet_starts_from_the_unet() -> None:
    for stage in ("teacher", "inpaint"):
        for init in ("zero", "warm"):
            module = make(stage=stage, controlnet_init=init, teacher_lr=0.0, lr=0.0, weight_decay=0.0)
            fit(module, edged())
            network = module.teacher if stage == "teacher" else module.student
            assert torch.equal(network.conv_in.weight, module.unet.conv_in.weight)
            assert torch.equal(network.mid_block.resnets[0].conv1.weight, module.unet.mid_block.resnets[0].conv1.weight)
            assert bool(network.controlnet_mid_block.weight.any()) == (init == "warm")


# --- a base from files ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Arguments that name a pipeline and two ControlNets on disk."""
    root = tmp_path_factory.mktemp("hub")
    return {
        **BASED,
        "base": str(save_pipeline(root / "base")),
        "teacher_source": str(save_control(root / "canny", seed=1)),
        "student_source": str(save_control(root / "inpaint", seed=2)),
    }


def captioned() -> Batch:
    return Batch(**{**edged(), "caption": ["a red a", "", "blue red"]})


def test_a_base_is_loaded_trained_on_and_saved_nowhere(hub: dict[str, Any], tmp_path: Path) -> None:
    module, batch = ECDM(**hub), captioned()
    made = fit(module, batch, max_steps=2)
    assert {name.split(".")[0] for name in module.state_dict()} == {"student"}
    assert set(module.held) == {"codec", "text", "unet", "teacher"}
    assert not any(p.requires_grad or p.grad is not None for n in module.held.values() for p in n.parameters())
    assert not any(network.training for network in module.held.values())
    theirs = load_file(Path(hub["base"]) / "unet" / "diffusion_pytorch_model.safetensors")
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in module.held["unet"].state_dict().items())
    made.save_checkpoint(tmp_path / "last.ckpt")
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    path = save_weights(module, tmp_path / "weights.safetensors")
    assert {n.split(".")[0] for n in load_file(path)} == {n.split(".")[0] for n in saved} == {"student"}
    again = load_weights(path)
    assert isinstance(again, ECDM)
    assert not again.held
    torch.testing.assert_close(again.complete(batch, 3).raw, module.complete(batch, 3).raw, atol=1e-6, rtol=0)
    assert set(again.held) == {"codec", "text", "unet"}  # no teacher to complete an image


def test_a_base_moves_with_the_module(hub: dict[str, Any]) -> None:
    module = ECDM(**hub)
    module.load_base(teacher=True)
    assert set(module.held) == {"codec", "text", "unet", "teacher"}
    module.to("meta")
    assert {p.device.type for network in module.held.values() for p in network.parameters()} == {"meta"}


def test_the_student_starts_from_its_source_and_not_when_it_is_resumed(hub: dict[str, Any], tmp_path: Path) -> None:
    module = ECDM(**{**hub, "lr": 0.0, "weight_decay": 0.0})
    fit(module, captioned())
    source = load_file(Path(hub["student_source"]) / "diffusion_pytorch_model.safetensors")
    state = module.student.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in source.items())
    changed_once = ECDM(**hub)
    fit(changed_once, captioned()).save_checkpoint(tmp_path / "last.ckpt")
    resumed = ECDM(**{**hub, "student_source": str(tmp_path / "gone")})
    fit_on(resumed, tmp_path / "last.ckpt", captioned(), max_steps=1)
    torch.testing.assert_close(resumed.state_dict(), changed_once.state_dict(), atol=0, rtol=0)
    from_unet = ECDM(**{**hub, "student_source": "", "lr": 0.0, "weight_decay": 0.0})
    fit(from_unet, captioned())
    assert torch.equal(from_unet.student.conv_in.weight, from_unet.held["unet"].conv_in.weight)


def test_a_teacher_can_be_trained_on_a_base(hub: dict[str, Any], tmp_path: Path) -> None:
    options = {**hub, "teacher_source": ""}
    first = ECDM(**options, stage="teacher")
    fit(first, captioned(), max_steps=2)
    save_weights(first, tmp_path / "teacher" / "weights.safetensors")
    module = ECDM(**options)
    _load_predecessors(module, tmp_path, ("teacher",))
    before = states(module)
    fit(module, captioned())
    assert changed(module, before) == {"student"}
    torch.testing.assert_close(module.teacher.state_dict(), first.teacher.state_dict(), atol=0, rtol=0)
    assert {n.split(".")[0] for n in module.exported_state()} == {"student"}


def test_an_unlocked_decoder_is_saved(hub: dict[str, Any], tmp_path: Path) -> None:
    module = ECDM(**hub, unlock_decoder=True)
    fit(module, captioned())
    theirs = load_file(Path(hub["base"]) / "unet" / "diffusion_pytorch_model.safetensors")
    moved = {n.split(".")[0] for n, t in module.unet.state_dict().items() if not torch.equal(t, theirs[n])}
    assert moved == {"up_blocks", "conv_norm_out", "conv_out"}
    assert set(module.held) == {"codec", "text", "teacher"}  # no second UNet beside its own
    again = load_weights(save_weights(module, tmp_path / "weights.safetensors"))
    torch.testing.assert_close(again.complete(captioned()).raw, module.complete(captioned()).raw, atol=1e-6, rtol=0)
    assert set(again.held) == {"codec", "text"}
    fit(module, captioned())  # starts anew, from the base
    assert module.global_step == 1


@pytest.mark.parametrize("checkpointing", [False, True])
def test_activations_of_a_bases_unet_are_made_anew_where_that_is_asked_for(
    checkpointing: bool, hub: dict[str, Any]
) -> None:
    module = ECDM(**hub, checkpointing=checkpointing)
    module.load_base()
    assert module.held["unet"].is_gradient_checkpointing == checkpointing


def test_what_is_not_here_is_one_error(hub: dict[str, Any], tmp_path: Path) -> None:
    nowhere = str(tmp_path / "nowhere")
    for name, settings in (("base", {}), ("teacher_source", {}), ("student_source", {})):
        module = ECDM(**{**hub, name: nowhere, **settings})
        with pytest.raises(WeightsError, match=r"is not here[\s\S]*nowhere[\s\S]*nano needs no such weights"):
            fit(module, captioned())
    with pytest.raises(WeightsError, match="is not here"):
        ECDM.check_available({"base": nowhere})
    ECDM.check_available({"base": hub["base"]})
    ECDM.check_available({"base": ""})
    other = save_control(tmp_path / "other", hint_widths=(4, 8, 16))
    with pytest.raises(WeightsError, match=r"the teacher '.*other' has other sizes than the student: conditioning_emb"):
        fit(ECDM(**{**hub, "teacher_source": str(other)}), captioned())
    with pytest.raises(
        WeightsError, match=r"other sizes than the student: block_out_channels \[8, 16\], not \[8, 24\]"
    ):
        ECDM(**{**hub, "unet_channels": [8, 24]}).complete(captioned())


def test_a_moving_average_is_of_the_student_alone(hub: dict[str, Any]) -> None:
    module, average = ECDM(**hub), Ema(0.5)
    fit(module, captioned(), max_steps=2, callbacks=[average])
    average.finish(module)
    assert module.complete(captioned()).image.isfinite().all()
    twin = copy.deepcopy(module)
    assert twin.held is module.held
    assert twin.student is not module.student


def test_published_weights_become_a_weights_file(hub: dict[str, Any], tmp_path: Path) -> None:
    theirs = ECDM(**hub)
    enliven(theirs)
    source = tmp_path / "last.ckpt"
    torch.save({"state_dict": to_upstream(theirs.student)}, source)
    path = convert_upstream(source, "ecdm", tmp_path / "w.safetensors", base=hub["base"], **dict(theirs.student.config))
    found = load_weights(path)
    assert isinstance(found, ECDM)
    torch.testing.assert_close(found.student.state_dict(), theirs.student.state_dict(), atol=0, rtol=0)
    found.sampler = theirs.sampler
    torch.testing.assert_close(found.complete(captioned()).raw, theirs.complete(captioned()).raw, atol=1e-6, rtol=0)
    assert "OpenRAIL" in read_header(path).licence
    sizes = networks.options_of(theirs.student)
    assert all(found.options[name] == value for name, value in sizes.items())


# --- checkpoints ------------------------------------------------------------------------------------------------------


def fit_on(module: ECDM, checkpoint: Path, batch: Batch | None = None, **settings: Any) -> Trainer:
    """Goes on from a checkpoint, on the same batch."""
    made, loader = trainer(**settings), DataLoader([batch or edged()], batch_size=None)  # type: ignore[arg-type]
    made.fit(module, loader, ckpt_path=checkpoint, weights_only=True)
    return made


class StopAt(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        trainer.should_stop = trainer.global_step >= self.step


@pytest.mark.parametrize(
    "changes",
    [
        {"decay": "cosine", "sail_max_timestep": 600},
        {"accumulate": 2, "acda": False},
        {"stage": "autoencoder"},
        {"stage": "autoencoder", "codec": "kl", "codec_channels": 4},
        {"stage": "unet"},
        {"stage": "teacher"},
    ],
    ids=str,
)
def test_a_stopped_training_goes_on_to_the_bit(changes: dict[str, Any], tmp_path: Path) -> None:
    """Weights, optimizers, and the sums of a codec that is fitted; whatever the global generator is at."""
    straight, stopped = make(**changes), make(**changes)
    whole = fit(straight, max_steps=4)
    half = fit(stopped, max_steps=4, callbacks=[StopAt(2)])
    assert half.global_step == 2
    half.save_checkpoint(tmp_path / "last.ckpt")
    resumed = make(**changes)
    torch.manual_seed(7)
    made = fit_on(resumed, tmp_path / "last.ckpt", max_steps=4)
    assert made.global_step == whole.global_step == 4
    torch.testing.assert_close(resumed.state_dict(), straight.state_dict(), atol=0.0, rtol=0.0)
    for name, optimizer in straight.by_name.items():
        torch.testing.assert_close(resumed.by_name[name].state_dict(), optimizer.state_dict(), atol=0.0, rtol=0.0)


@STAGES
def test_checkpoints_load_without_pickle(stage: str, tmp_path: Path) -> None:
    module = make(stage=stage)
    fit(module).save_checkpoint(tmp_path / "last.ckpt")
    again = ECDM.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True)
    torch.testing.assert_close(again.state_dict(), module.state_dict())
    assert dict(again.hparams) == dict(module.hparams)


# --- two processes ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights after two steps of one process with batches of 4, and of two processes with 2; run apart: DDP forks."""
    folder = tmp_path_factory.mktemp("ddp")
    call_apart(ecdm_ddp.one_and_two, folder)
    return folder


@STAGES
def test_two_processes_equal_one(stage: str, trained: Path) -> None:
    start, state = alike(trained, f"{stage}-pca")
    moved = {n.split(".")[0] for n, p in start.items() if (state[n] - p).abs().max() > 1e-4}
    assert moved == set(learning(stage)) | ({"fitted"} if stage == "autoencoder" else set())


def test_two_processes_scale_the_latents_of_an_autoencoder_as_one_does(trained: Path) -> None:
    start, state = alike(trained, "autoencoder-kl")
    assert abs(state["codec.scale"] - start["codec.scale"]) > 0.1


def alike(folder: Path, name: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The state before and after, which is the same of one process and of two."""
    one, two = (torch.load(folder / f"{name}-{devices}.pt", weights_only=True) for devices in (1, 2))
    assert one["state"].keys() == two["state"].keys() == one["start"].keys()
    for key, value in one["state"].items():
        torch.testing.assert_close(two["state"][key], value, atol=5e-6, rtol=1e-4, msg=key)
    return one["start"], one["state"]


# --- validation -------------------------------------------------------------------------------------------------------


@STAGES
def test_validation_runs_in_every_stage(stage: str) -> None:
    loader: Any = DataLoader([edged(), edged(2)], batch_size=None)  # type: ignore[arg-type]
    values = trainer().validate(make(lively=True, stage=stage), loader, verbose=False)[0]
    wanted = {"autoencoder": {"val/psnr"}, "inpaint": {"val/psnr", "val/l1", "val/l1_hole"}}
    assert wanted.get(stage, {"val/noise_mse"}) <= set(values)
    assert all(torch.tensor(value).isfinite() for value in values.values())


def test_a_loaded_method_completes_scenes_of_another_size(tmp_path: Path) -> None:
    path = save_weights(make(lively=True), tmp_path / "weights.safetensors")
    assert load_weights(path).complete(scenes(2, 40, 48)).image.shape == (2, 3, 40, 48)
