"""What the tests of the command line share: a method that trains in seconds, and two ways to run a command."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

TOY = '''
"""Two networks, two optimizers, dropout and noise from the global generator: what makes resuming hard."""
import torch
from torch import nn
from zoo.module import InpaintingModule

class Toy(InpaintingModule):
    """A small method of a third party."""
    training_only = ("critic",)

    def __init__(self, size: int = 32, lr: float = 1e-3, width: int = 4, clip_norm: float = 0.0, accumulate: int = 1):
        super().__init__(size=size, multiple=4, clip_norm=clip_norm, accumulate=accumulate)
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Conv2d(4, width, 3, padding=1), nn.Dropout(0.1), nn.Conv2d(width, 3, 1))
        self.critic = nn.Conv2d(3, 1, 3)
        self.lr = lr

    def inpaint(self, batch, noise):
        return self.net(torch.cat([batch["image"], batch["mask"]], 1)).sigmoid()

    def optimizers_by_name(self):
        return {name: torch.optim.Adam(getattr(self, name).parameters(), self.lr) for name in ("net", "critic")}

    def training_step(self, batch, batch_idx):
        hidden = dict(batch, image=torch.where(batch["mask"] > 0.5, 0.5, batch["image"]))
        raw = self.inpaint(hidden, None) + 0.01 * torch.randn(1, device=self.device)
        with self.turn("critic") as minimize:
            l_d = (self.critic(raw.detach()) - self.critic(batch["image"])).mean()
            minimize(l_d)
        with self.turn("net") as minimize:
            l_rec = (raw - batch["image"]).abs().mean()
            minimize(l_rec - 0.01 * self.critic(raw).mean())
        self.log_terms("train", {"l_rec": l_rec, "l_d": l_d})


class Staged(Toy):
    """The same in two stages."""
    stages = ("first", "second")

    def __init__(self, size: int = 32, lr: float = 1e-3, stage: str = ""):
        super().__init__(size=size, lr=lr)
        self.save_hyperparameters()
        if stage:
            self.stage = stage


class Reader(Toy):
    """A method that needs a caption."""
    needs = frozenset({"image", "mask", "caption"})

    def inpaint(self, batch, noise):
        assert batch["caption"][0] == "a red ball", batch["caption"]
        return batch["image"]
'''

SMALL = (
    *("--size", "32", "--seed", "1", "--data.train_count", "20", "--data.val_count", "8", "--data.batch_size", "4"),
    *("--trainer.max_steps", "6", "--trainer.val_check_interval", "3", "--trainer.log_every_n_steps", "2"),
)


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str


Run = Callable[..., Done]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder to work in, with the module `toymethod` beside it."""
    library = tmp_path / "library"
    library.mkdir()
    (library / "toymethod.py").write_text(TOY)
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(library), str(ROOT)]))
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for name in ("ZOO_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.syspath_prepend(str(library))
    yield work
    sys.modules.pop("toymethod", None)


@pytest.fixture
def zoo(place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command in this process."""
    from zoo.cli.main import OFFLINE, main

    def run(*words: object) -> Done:
        for name in OFFLINE:  # so that what --offline sets is undone after the test
            monkeypatch.setenv(name, os.environ.get(name, "0"))
        capsys.readouterr()
        code = main([str(word) for word in words])
        captured = capsys.readouterr()
        return Done(code, captured.out, captured.err)

    return run


@pytest.fixture
def zoo_process(place: Path) -> Run:
    """Runs a command in a process of its own, as a user does."""

    def run(*words: object) -> Done:
        command = [sys.executable, "-m", "zoo", *(str(word) for word in words)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
        return Done(done.returncode, done.stdout, done.stderr)

    return run
