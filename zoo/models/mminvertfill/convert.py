"""Published StyleGAN2 generators as weights of the first stage, from which the second goes on.

    zoo weights convert FILE --model mminvertfill --kind nvidia --out runs/NAME/generator/weights.safetensors
    zoo fit --model mminvertfill --out runs/NAME

No code of those projects is needed, and none in a file is run: they are read from safetensors alone.
"""

from __future__ import annotations

from pathlib import Path

from zoo.errors import UsageError, unknown_name
from zoo.models.mminvertfill.convert_mmt import FREE, OPTIONS
from zoo.models.mminvertfill.convert_stylegan import KINDS as GENERATORS
from zoo.models.mminvertfill.convert_stylegan import Published, generator_from_upstream
from zoo.models.mminvertfill.generator import config_f
from zoo.models.mminvertfill.module import MMInvertFill
from zoo.weights import save_weights, sha256

ENCODER = "mmt"
KINDS = (*GENERATORS, ENCODER)


def convert_upstream(source: Path, kind: str, out: Path) -> Path:
    """Converts a published generator to weights of the stage `generator`; returns its path.

    Args:
        source: A safetensors file with the tensors of the layout.
        kind: The layout: `nvidia`, `rosinality` or `psp`.
        out: The safetensors file to write.

    Raises:
        WeightsError: The file is no safetensors file, cannot be read, or a tensor is missing, left over or of another
            shape.
        UsageError: No such layout; or `mmt`, whose encoder a training reads itself.
    """
    if kind == ENCODER:
        raise UsageError(
            "MMT's weights are of an encoder, which is not a whole method: training reads them as they are",
            str(source),
            f"zoo fit --model mminvertfill --model.mmt_file {source} {mmt_options()}",
        )
    if kind not in KINDS:
        raise unknown_name("layout", kind, list(KINDS))
    published = generator_from_upstream(source, kind)
    provenance = {"converted_from": kind, "files": {source.name: sha256(source)}}
    return save_weights(_module(published), out, preset=kind, provenance=provenance, licence=published.licence)


def mmt_options() -> str:
    """What the command line must say for MMT's encoder to fit."""
    # `segmentation` of an encoder is the number of classes.
    return " ".join(f"--model.{name} {value}" for name, value in OPTIONS.items() if name not in FREE)


def _module(published: Published) -> MMInvertFill:
    """The first stage around a published generator, of its sizes."""
    G = published.generator
    channels = [] if G.channels == config_f(G.size) else list(G.channels.values())
    module = MMInvertFill(
        size=G.size, w=G.w, mapping=len(G.mapping), generator_channels=channels, style_critic_channels=channels,
        stage="generator",
    )  # fmt: skip
    module.generator.load_state_dict(G.state_dict())
    return module.eval()
