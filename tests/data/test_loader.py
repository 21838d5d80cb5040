"""Orders keyed by (seed, epoch), exact resume, and shares that neither overlap nor leave anything out."""

from __future__ import annotations

import contextlib
import multiprocessing
from collections import Counter
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from tests.fakes import Pictures
from zoo.data import loader as loader_module
from zoo.data.loader import EvaluationLoader, TrainingLoader
from zoo.data.masked import EvaluationSet, TrainingSet
from zoo.data.module import InpaintingData
from zoo.errors import DataError, UsageError

Ids = list[tuple[str, ...]]


class Numbers:
    """Items that say which epoch and position they are."""

    def __init__(self, count: int = 10) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def visit(self, epoch: int, index: int) -> dict[str, Any]:
        return {"id": f"{epoch}/{index}", "image": torch.full((3, 2, 2), index, dtype=torch.uint8)}

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.visit(0, index)


def _ids(batches: Any) -> Ids:
    return [tuple(batch["id"]) for batch in batches]


def _take(loader: TrainingLoader, count: int) -> Ids:
    found: Ids = []
    while len(found) < count:
        for batch in loader:
            found.append(tuple(batch["id"]))
            if len(found) == count:
                break
    return found


def test_an_epoch_shows_everything_once_in_a_keyed_order() -> None:
    loader = TrainingLoader(Numbers(), 2, seed=3)
    first, second = _ids(loader), _ids(loader)
    assert len(loader) == len(first) == 5
    assert sorted(i for b in first for i in b) == sorted(f"0/{n}" for n in range(10))
    assert sorted(i for b in second for i in b) == sorted(f"1/{n}" for n in range(10))
    assert [i[2:] for b in first for i in b] != [i[2:] for b in second for i in b]
    assert _ids(TrainingLoader(Numbers(), 2, seed=3)) == first
    assert _ids(TrainingLoader(Numbers(), 2, seed=4)) != first


def test_the_rest_of_an_epoch_is_left_out_and_small_sets_are_repeated() -> None:
    assert [len(b) for b in _ids(TrainingLoader(Numbers(10), 4))] == [4, 4]
    (batch,) = _ids(TrainingLoader(Numbers(3), 8))
    assert len(batch) == 8
    assert set(Counter(batch).values()) == {2, 3}


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("used", [0, 1, 4, 5, 7, 10, 13])
def test_a_fresh_loader_goes_on_where_the_state_was_saved(used: int, workers: int) -> None:
    want = _take(TrainingLoader(Numbers(), 2, seed=1), 18)
    loader = TrainingLoader(Numbers(), 2, seed=1, workers=workers)
    assert _take(loader, used) == want[:used]
    fresh = TrainingLoader(Numbers(), 2, seed=1, workers=workers)
    fresh.load_state_dict(loader.state_dict())
    assert _take(fresh, 18 - used) == want[used:]


def test_a_pass_cut_short_loses_and_repeats_nothing() -> None:
    want = _take(TrainingLoader(Numbers(), 2), 12)
    loader = TrainingLoader(Numbers(), 2)
    iter(loader)  # never used
    assert _take(loader, 3) + _take(loader, 4) + _take(loader, 5) == want
    loader.set_epoch(1)
    assert _take(loader, 2) == want[5:7]


def test_reading_ahead_does_not_count() -> None:
    loader = TrainingLoader(Numbers(40), 2, workers=2)
    next(iter(loader))
    assert loader.state_dict() == {"epoch": 0, "batches": 1}


def test_a_batch_that_was_not_trained_on_is_repeated() -> None:
    loader = TrainingLoader(Numbers(), 2)
    loader.finished = lambda: 2
    _take(loader, 3)
    assert loader.state_dict() == {"epoch": 0, "batches": 2}


def test_workers_read_the_same_items() -> None:
    dataset = TrainingSet(Pictures(), "freeform,center", seed=5)
    for alone, helped in zip(TrainingLoader(dataset, 3), TrainingLoader(dataset, 3, workers=2), strict=True):
        assert alone["id"] == helped["id"]
        assert alone["caption"] == helped["caption"]
        assert torch.equal(alone["mask"], helped["mask"])


def test_loading_leaves_the_global_random_state_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    list(TrainingLoader(TrainingSet(Pictures(), "freeform"), 4))
    assert torch.equal(before, torch.get_rng_state())


def test_evaluation_is_in_order_every_time() -> None:
    loader = EvaluationLoader(EvaluationSet(Pictures(count=7), "center"), 3)
    want = [tuple(f"pictures/train/{i:03d}" for i in part) for part in ((0, 1, 2), (3, 4, 5), (6,))]
    next(iter(loader))  # as Lightning's sanity check does
    assert _ids(loader) == _ids(loader) == want
    assert len(loader) == 3


@pytest.mark.parametrize("count", [5, 8, 9])
def test_ranks_share_evaluation_without_duplicates(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: Counter[str] = Counter()
    for rank in range(3):
        monkeypatch.setattr(loader_module, "position", lambda rank=rank: (rank, 3))
        loader = EvaluationLoader(Numbers(count), 2)
        batches = _ids(loader)
        assert len(batches) == len(loader)
        seen.update(i for batch in batches for i in batch)
    assert seen == Counter(f"0/{n}" for n in range(count))


def test_ranks_share_each_training_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = [set(batch) for batch in _take(TrainingLoader(Numbers(17), 4, seed=2), 9)]
    parts = []
    for rank in range(2):
        monkeypatch.setattr(loader_module, "position", lambda rank=rank: (rank, 2))
        loader = TrainingLoader(Numbers(17), 2, seed=2)
        assert len(loader) == 4
        parts.append(_take(loader, 9))
    assert [set(a) | set(b) for a, b in zip(*parts, strict=True)] == whole
    assert all(not set(a) & set(b) for a, b in zip(*parts, strict=True))


def test_fewer_samples_than_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader_module, "position", lambda: (0, 4))
    with pytest.raises(UsageError, match="3 samples cannot be shared among 4"):
        len(EvaluationLoader(Numbers(3), 2))


@pytest.mark.parametrize(("count", "size", "workers"), [(0, 2, 0), (5, 0, 0), (5, 2, -1)])
def test_numbers_out_of_range(count: int, size: int, workers: int) -> None:
    with pytest.raises(UsageError):
        EvaluationLoader(Numbers(count), size, workers=workers)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_sample_is_one_clear_error(workers: int) -> None:
    others = set(multiprocessing.active_children())
    loader = EvaluationLoader(EvaluationSet(Pictures(bad=5), "center"), 2, workers=workers)
    with pytest.raises(DataError) as caught:
        list(loader)
    assert set(multiprocessing.active_children()) <= others  # the workers have ended with the error
    assert str(caught.value).splitlines()[0] == "the image cannot be read"
    assert caught.value.where == "pictures/train/005"


@pytest.mark.parametrize("workers", [0, 1])
def test_unequal_sizes_are_one_clear_error(workers: int) -> None:
    class Sizes(Numbers):
        def visit(self, epoch: int, index: int) -> dict[str, Any]:
            return {"id": str(index), "image": torch.zeros(3, 2, 2 + index)}

    with pytest.raises(DataError, match="different sizes"):
        list(EvaluationLoader(Sizes(), 2, workers=workers))


# --- in a Trainer ----------------------------------------------------------------------------------------------------


class Recorder(LightningModule):
    """Steps one number, writes down what it saw, and stops where it is told."""

    def __init__(self, manual: bool, stop_at: int = -1) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.automatic_optimization = not manual
        self.seen: Ids = []
        self.stop_at = stop_at

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Any:
        if len(self.seen) == self.stop_at:
            raise InterruptedError
        self.seen.append(tuple(batch["id"]))
        loss = (self.weight - batch["image"].mean()).square().sum()
        if self.automatic_optimization:
            return loss
        optimizer: Any = self.optimizers()
        self.manual_backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        return None

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        self.log("value", float(len(batch["id"])), batch_size=len(batch["id"]))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.1)


class SaveAt(Callback):
    """Saves one checkpoint, the n-th time that a hook is called."""

    def __init__(self, hook: str, at: int, path: str) -> None:
        self.at, self.path, self.calls, self.steps = at, path, 0, -1
        setattr(self, hook, self._called)

    def _called(self, trainer: Trainer, module: Recorder, *_: Any) -> None:
        self.calls += not trainer.sanity_checking
        if self.calls == self.at and self.steps < 0:
            trainer.save_checkpoint(self.path)
            self.steps = len(module.seen)


def _fit(limits: dict[str, Any], module: Recorder, *callbacks: Callback, path: str | None = None, **data: Any) -> Ids:
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(accelerator="cpu", enable_checkpointing=False, callbacks=list(callbacks), **quiet, **limits)
    options = {"size": 16, "batch_size": 4, "train_count": 20, "val_count": 5, "mask": "center", **data}
    with contextlib.suppress(InterruptedError):
        data = InpaintingData("tests.fakes:Pictures", **options)
        trainer.fit(module, datamodule=data, ckpt_path=path, weights_only=True)
    return module.seen


HOOKS = [
    ("on_train_batch_end", 3),
    ("on_train_batch_end", 5),
    ("on_train_batch_end", 7),
    ("on_train_epoch_end", 1),
    ("on_train_epoch_end", 2),
    ("on_validation_end", 1),
    ("on_validation_end", 2),
    ("on_exception", 1),
]


@pytest.mark.parametrize(
    "limits",
    [
        {"max_steps": 13},
        {"max_epochs": 3},
        {"max_steps": 13, "limit_val_batches": 0},
        {"max_steps": 13, "limit_train_batches": 3, "val_check_interval": 2},
        {"max_steps": 13, "check_val_every_n_epoch": None, "val_check_interval": 4},
        {"max_epochs": 3, "reload_dataloaders_every_n_epochs": 1},
    ],
    ids=str,
)
@pytest.mark.parametrize("manual", [True, False])
def test_a_resumed_run_sees_what_an_undisturbed_one_sees(limits: dict[str, Any], manual: bool, tmp_path: Any) -> None:
    whole = Recorder(manual)
    want = _fit(limits, whole)
    saves = {(hook, at): SaveAt(hook, at, str(tmp_path / f"{hook}{at}.ckpt")) for hook, at in HOOKS}
    stopped = saves["on_exception", 1]
    assert _fit(limits, Recorder(manual), *(save for save in saves.values() if save is not stopped)) == want
    _fit(limits, Recorder(manual, stop_at=7), stopped)
    for (hook, at), save in saves.items():
        if save.steps < 0:
            assert hook == "on_validation_end"  # the one hook that some of the limits switch off
            continue
        resumed = Recorder(manual)
        assert _fit(limits, resumed, path=save.path) == want[save.steps :], (hook, at)
        assert torch.equal(resumed.weight, whole.weight)


def test_a_resumed_run_with_workers(tmp_path: Any) -> None:
    want = _fit({"max_steps": 9}, Recorder(True))
    save = SaveAt("on_train_batch_end", 3, str(tmp_path / "a.ckpt"))
    assert _fit({"max_steps": 9}, Recorder(True), save, workers=1) == want
    assert _fit({"max_steps": 9}, Recorder(True), path=save.path, workers=1) == want[3:]


def test_overfitting_sees_the_same_batches_every_epoch() -> None:
    seen = _fit({"max_epochs": 2, "overfit_batches": 2}, Recorder(True))
    assert seen[:2] == seen[2:]


def test_a_second_fit_starts_anew() -> None:
    data = InpaintingData("tests.fakes:Pictures", size=16, batch_size=4, mask="center")
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    runs = []
    for _ in range(2):
        recorder = Recorder(True)
        Trainer(accelerator="cpu", max_steps=2, enable_checkpointing=False, **quiet).fit(recorder, datamodule=data)
        runs.append(recorder.seen)
    assert runs[0] == runs[1]
