"""A network of CLIP's kind that is 50 times smaller, loaded from a file as the real one is."""

from __future__ import annotations

import functools
import json
import tempfile
from pathlib import Path

import pytest
import torch

from zoo.metrics import text
from zoo.metrics.text import ClipScore

CAPTIONS = ["a red square on a striped background", "a boat on a lake"]
TINY = {
    "embed_dim": 16,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


@functools.cache
def tiny_clip() -> ClipScore:
    """The score with seeded weights; open_clip knows the network as `tiny-clip` from then on."""
    import open_clip
    from safetensors.torch import save_file

    with tempfile.TemporaryDirectory() as place, pytest.MonkeyPatch.context() as patch:
        folder = Path(place)
        (folder / "tiny-clip.json").write_text(json.dumps(TINY))
        open_clip.add_model_config(folder / "tiny-clip.json")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = open_clip.create_model("tiny-clip")
        save_file(network.state_dict(), folder / "tiny.safetensors")
        patch.setattr(text, "MODEL", "tiny-clip")
        return ClipScore.load(folder / "tiny.safetensors")
