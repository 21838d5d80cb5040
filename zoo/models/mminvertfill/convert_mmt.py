"""Published MMT weights (Yu et al. 2022, CelebA-HQ), read into the encoder, for the parts that both have.

Those are the convolutions e3 to e5, the bottleneck and the mutual decoder. New are the first two convolutions, since
MMT reads three channels; self-attention; the image heads; and the gate of the attention, if any. Only safetensors are
read: MMT's own file is a pickle. No code of that project is needed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from zoo.errors import WeightsError
from zoo.models.mminvertfill.decoder import STAGES
from zoo.models.mminvertfill.encoder import Encoder

LICENCE = "Apache-2.0 (code of MMT, ECCV 2022); trained on CelebA-HQ, for non-commercial research only"
OPTIONS: dict[str, Any] = {  # what the published network computes, where the defaults differ
    "segmentation": 15, "norm": "bn", "acb_variant": "code", "ff_variant": "mmt", "dec_up": "convT", "gma_gate": "none",
}  # fmt: skip
FREE = ("segmentation", "gma_gate")  # of these an encoder may have others
REMEDY = (
    "export MMT's file where it was made: safetensors.torch.save_file(torch.load('MMT.pth', weights_only=True, "
    "map_location='cpu')['generator'], 'mmt.safetensors'); and build the encoder with convert_mmt.OPTIONS"
)
MMT_ONLY = re.compile(
    r"(conv1|conv2|conv21|conv22)\.(conv|gate)\.weight|bn(1|20|2|3)\.\w+"  # the stem
    r"|(Tconv|tail1|tail2|out|seg_projector|edge_projector)\..+"  # what makes a whole image of the features
)
NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


class Layer(NamedTuple):
    """A layer: its name there and here; for a norm the name here of the convolution right before it, else empty."""

    theirs: str
    ours: str
    before: str = ""


def _layers(blocks: int, paths: int) -> Iterator[Layer]:
    """Every layer that both have, but for the denormalizations' β and the heads."""
    for k in (1, 2):
        yield Layer(f"enc_{k}.0", f"backbone.e{k + 2}.conv")
        yield Layer(f"enc_{k}.1", f"backbone.e{k + 2}.norm", f"enc_{k}.0")
    for theirs, ours in (("conv", "conv"), ("gate", "gate"), ("post.0", "norm")):
        yield Layer(f"enc_3.{theirs}", f"backbone.e5.{ours}")
    for i in range(blocks):
        names = {f"block{r:02d}.1": f"paths.{r}" for r in range(paths)}
        names |= {"fuse.0": "fuse", "gate.0": "gate", "post.0": "norm"}
        for theirs, ours in names.items():
            yield Layer(f"bottleneck_{i + 1}.{theirs}", f"bottleneck.{i}.{ours}")
    for k in range(STAGES):
        number, gma = STAGES - k, f"decoder.fusions.{k}.gma"
        names = {f"{part}_embedding": f"attention.{part}" for part in ("query", "key", "value")}
        names |= {"scale.0": "feed_forward.gate", "bias.0": "feed_forward.dilated", "bias.2": "feed_forward.out"}
        for theirs, ours in (("denorm_1", "attention.denorm"), ("denorm_2", "denorm")):
            names |= {f"{theirs}.embed.0": f"{ours}.embed", f"{theirs}.scale.0": f"{ours}.gamma"}
        for theirs, ours in names.items():
            yield Layer(f"att_{number}.{theirs}", f"{gma}.{ours}")
        yield Layer(f"dec_{number}.0", f"decoder.layers.{k}")
        yield Layer(f"dec_{number}.1", f"decoder.norms.{k}", f"dec_{number}.0")
        for theirs, ours in (("edge", "edge"), ("seg", "segmentation")):
            yield Layer(f"{theirs}_dec_{number}.conv_block.0", f"decoder.auxiliary.{ours}.layers.{k}")


def _heads() -> Iterator[Layer]:
    """The heads of edge and segmentation, which only some of MMT's files hold."""
    for k in range(STAGES):
        for theirs, ours in (("edge", "edge"), ("seg", "segmentation")):
            yield Layer(f"{theirs}_dec_{STAGES - k}.auxiliary_head", f"decoder.auxiliary.{ours}.heads.{k}")


def read_mmt(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        WeightsError: No such file, another kind of file, or a damaged one.
    """
    if not path.is_file():
        raise WeightsError("no such weights file", str(path), REMEDY)
    if path.suffix != ".safetensors":
        raise WeightsError("MMT's weights are read from safetensors only", str(path), REMEDY)
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"this file cannot be read: {error}", str(path), REMEDY) from error


def load_mmt(encoder: Encoder, source: Path | Mapping[str, Tensor]) -> list[str]:
    """Puts published weights into an encoder; returns the names of its tensors that stay new.

    Args:
        encoder: Built with `OPTIONS`; its `segmentation` and `gma_gate` may be others.
        source: A safetensors file, or the tensors by MMT's names; `module.` may precede all of them.

    Raises:
        WeightsError: The encoder has other options, the file cannot be read, or a tensor is missing, left over, of
            another shape or not finite.
    """
    where = str(source) if isinstance(source, Path) else ""
    wrong = [n for n, v in OPTIONS.items() if n not in FREE and getattr(encoder.options, n) != v]
    wrong = [n for n in wrong if n != "norm" or encoder.options.norm != "syncbn"]
    wrong += [n for n, v in (("fusion", "gma+adn"), ("aux_source", "feature")) if getattr(encoder.options, n) != v]
    if wrong:
        raise WeightsError(f"MMT's weights do not fit an encoder with other {', '.join(wrong)}", where, REMEDY)
    tensors = read_mmt(source) if isinstance(source, Path) else source
    state = encoder.state_dict()
    found = _renamed(tensors, encoder, state, where)
    wrong = [
        f"{n} is {tuple(t.shape)}, not {tuple(state[n].shape)}" for n, t in found.items() if t.shape != state[n].shape
    ]
    wrong += [f"{n} is not finite" for n, t in found.items() if not torch.isfinite(t).all()]
    if wrong:
        more = f"; and {len(wrong) - 4} more" if len(wrong) > 4 else ""
        raise WeightsError("these weights do not fit: " + "; ".join(wrong[:4]) + more, where, REMEDY)
    encoder.load_state_dict(found, strict=False)
    return [name for name in state if name not in found]


def _renamed(
    tensors: Mapping[str, Tensor], encoder: Encoder, state: Mapping[str, Tensor], where: str
) -> dict[str, Tensor]:
    """The tensors by the encoder's names; each of the file's is used once or is MMT's alone."""
    left = {n.removeprefix("module."): t.float() for n, t in tensors.items()}
    left = {n.removeprefix("MMTModule."): t for n, t in left.items() if not MMT_ONLY.fullmatch(n)}
    found: dict[str, Tensor] = {}
    missing: list[str] = []
    layers = list(_layers(encoder.options.n_blocks, len(encoder.options.rates)))
    if any(".auxiliary_head." in name for name in left):
        layers += _heads()
    for layer in layers:
        _take(layer, left, found, state, missing)
    for k in range(STAGES):
        for theirs, ours in (("denorm_1", "attention.denorm"), ("denorm_2", "denorm")):
            _split(f"att_{STAGES - k}.{theirs}.bias.0", f"decoder.fusions.{k}.gma.{ours}", left, found, missing)
    for i in range(encoder.options.n_blocks):
        _move(f"bottleneck_{i + 1}.W", f"bottleneck.{i}.W", left, found, missing)
    for problem, names in (("are missing", missing), ("have no place", [*left])):
        if names:
            listed = ", ".join(sorted(names)[:4])
            raise WeightsError(f"{len(names)} tensors of MMT {problem}: {listed}", where, REMEDY)
    return found


def _take(
    layer: Layer, left: dict[str, Tensor], found: dict[str, Tensor], state: Mapping[str, Tensor], missing: list[str]
) -> None:
    """Moves a layer's tensors from `left` to `found`. A bias that only one side has changes nothing.

    One that is not in the file is zero; one that we lack, before a norm, is what the norm's mean has more.
    """
    theirs, ours, before = layer
    for role in NORM if f"{ours}.running_mean" in state else ("weight", "bias"):
        name = f"{ours}.{role}"
        if name not in state:
            continue
        optional = role == "num_batches_tracked" or (role == "bias" and f"{ours}.running_mean" not in state)
        if optional and f"{theirs}.{role}" not in left:
            found[name] = torch.zeros_like(state[name])
        else:
            _move(f"{theirs}.{role}", name, left, found, missing)
    if before and f"{before}.bias" in left and f"{ours}.running_mean" in found:
        found[f"{ours}.running_mean"] = found[f"{ours}.running_mean"] - left.pop(f"{before}.bias")


def _move(theirs: str, ours: str, left: dict[str, Tensor], found: dict[str, Tensor], missing: list[str]) -> None:
    if theirs in left:
        found[ours] = left.pop(theirs)
    else:
        missing.append(theirs)


def _split(theirs: str, ours: str, left: dict[str, Tensor], found: dict[str, Tensor], missing: list[str]) -> None:
    """β's convolution of [x; u], into that of x and that of u."""
    _move(f"{theirs}.weight", f"{ours}.beta_u.weight", left, found, missing)
    both = found.pop(f"{ours}.beta_u.weight", None)
    if both is not None:
        x, u = both[:, : len(both)], both[:, len(both) :]
        found |= {f"{ours}.beta_x.weight": x.contiguous(), f"{ours}.beta_u.weight": u.contiguous()}
        bias = left.pop(f"{theirs}.bias", None)
        found[f"{ours}.beta_u.bias"] = torch.zeros(len(both)) if bias is None else bias
