"""Published ControlNet weights, and checkpoints of ECDM's own code, read into the student.

ECDM's authors published no weights; whoever trains with their code gets a checkpoint of all networks, of which the
student is one. No code of other projects is needed, and no code in a file is run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo.errors import WeightsError, unknown_name
from zoo.models.ecdm import hub
from zoo.models.ecdm.controlnet import NEW, ECDMControlNet, warm_start
from zoo.models.ecdm.module import ECDM
from zoo.models.ecdm.names import Names
from zoo.models.ecdm.networks import options_of
from zoo.weights import save_weights, sha256

LICENCE = "OpenRAIL (ControlNet v1.1 on Stable Diffusion 1.5): its restrictions of use hold for what is made of it"
REMEDY = (
    "give control_v11p_sd15_inpaint.pth of lllyasviel/ControlNet-v1-1, diffusion_pytorch_model.safetensors of "
    "lllyasviel/control_v11p_sd15_inpaint, or, as `ecdm`, a checkpoint of ECDM's training code; for networks of other "
    "sizes, name the sizes"
)
SD15: dict[str, Any] = {"cross_attention_dim": 768}  # and else ControlNetModel's defaults


@dataclass(frozen=True)
class Layout:
    """How a checkpoint stores the student.

    Attributes:
        prefix: Before the names of its tensors.
        whole: Whether it has ACDA's tensors.
        options: Constructor arguments that make the student compute what that network does, but for the phases of
            removed frequencies, which are arbitrary there and zero here.
    """

    prefix: str
    whole: bool
    options: dict[str, Any]


KINDS = {
    "controlnet": Layout("control_model.", whole=False, options={}),
    "ecdm": Layout("inpaint_model.", whole=True, options={"acda_radius": "official", "acda_norm_scope": "batch"}),
}


def convert_upstream(source: Path, kind: str, out: Path, base: str = hub.SD15, **changes: Any) -> Path:
    """Converts published weights to a file of this project, which holds the student; returns its path.

    Args:
        source: The file.
        kind: The layout, a key of `KINDS`.
        out: The safetensors file to write.
        base: The pipeline that the student is for: a repository of the hub, or a folder.
        **changes: Constructor arguments of the student that differ from the layout's and from Stable Diffusion 1.5.

    Raises:
        WeightsError: The file cannot be read, or a tensor is missing, left over or of another shape.
        UsageError: No such layout, or an argument the student does not take.
    """
    student = student_from_upstream(source, kind, **changes)
    module = ECDM(base=base, **options_of(student))
    module.student.load_state_dict(student.state_dict())
    provenance = {"converted_from": kind, "files": {source.name: sha256(source)}}
    return save_weights(module.eval(), out, preset=kind, provenance=provenance, licence=LICENCE)


def student_from_upstream(source: Path | Mapping[str, Tensor], kind: str, **changes: Any) -> ECDMControlNet:
    """The student with published weights, in evaluation mode.

    Of `controlnet` ACDA is new, and computes nothing as yet; so does the mask channel with `conditioning_channels=4`.
    Of `ecdm` all comes from the file, and the options are the released code's (see `Layout`).

    Args:
        source: The file, or the tensors in it.
        kind: The layout, a key of `KINDS`.
        **changes: Constructor arguments that differ from the layout's and from Stable Diffusion 1.5.

    Raises:
        WeightsError: As of `convert_upstream`.
        UsageError: As of `convert_upstream`.
    """
    if kind not in KINDS:
        raise unknown_name("layout", kind, list(KINDS))
    where = str(source) if isinstance(source, Path) else ""
    layout = KINDS[kind]
    found = _unprefixed(_read(source) if isinstance(source, Path) else source, layout.prefix, where)
    options = {**SD15, **layout.options, **_told(found), **changes}
    student: ECDMControlNet = ECDMControlNet(**options)
    names = list(student.state_dict())
    table = Names.of(student).table(names)
    if not any(name in table for name in found):  # diffusers' own file of the same network
        table = {name: name for name in names}
    renamed = {table.get(name, name): tensor for name, tensor in found.items()}
    lacking = [name for name in names if name.startswith(NEW) and name not in renamed]
    if layout.whole and lacking:
        raise WeightsError(f"these weights lack ACDA: {', '.join(lacking[:4])}", where, REMEDY)
    warm_start(student, renamed, where)
    student.eval()
    return student


def to_upstream(student: ECDMControlNet, kind: str = "ecdm") -> dict[str, Tensor]:
    """The student's tensors under the names of a CompVis checkpoint.

    Args:
        student: Any.
        kind: The layout; `controlnet` leaves ACDA out.

    Raises:
        UsageError: No such layout.
    """
    if kind not in KINDS:
        raise unknown_name("layout", kind, list(KINDS))
    layout, state = KINDS[kind], student.state_dict()
    table = Names.of(student).table(name for name in state if layout.whole or not name.startswith(NEW))
    return {layout.prefix + there: state[here] for there, here in table.items()}


def _told(found: Mapping[str, Tensor]) -> dict[str, Any]:
    """What names and shapes tell of the network, where nobody says otherwise."""
    told: dict[str, Any] = {}
    if any(name.endswith("attn1.to_ki.weight") for name in found):
        told["acda_double_self_attn"] = True
    hint = found.get("input_hint_block.0.weight", found.get("controlnet_cond_embedding.conv_in.weight"))
    if hint is not None and hint.dim() == 4:
        told["conditioning_channels"] = hint.shape[1]
    return told


def _unprefixed(content: Mapping[str, Any], prefix: str, where: str) -> dict[str, Tensor]:
    """The tensors of the student alone, float32, without the prefix; all of them where none has one."""
    content = content.get("state_dict", content)
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    chosen = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    other = KINDS["ecdm"].prefix
    if prefix != other and any(name.startswith(other) for name in tensors):
        what = f"a checkpoint of ECDM's training code: its '{prefix}...' is the teacher, and '{other}...' the student"
        raise WeightsError(what, where, "--kind ecdm")
    if not chosen and any(name.startswith("model.diffusion_model.") for name in tensors):
        raise WeightsError(f"this checkpoint has no tensor '{prefix}...'", where, REMEDY)
    return {name: value.float() for name, value in (chosen or tensors).items()}


def _read(path: Path) -> Mapping[str, Any]:
    """What a file holds, without running any code in it."""
    if not path.is_file():
        raise WeightsError("no such weights file", str(path), REMEDY)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damage shows as any of half a dozen errors; torch's go on for a screen
        line = next(iter(str(error).splitlines()), type(error).__name__)
        raise WeightsError(f"this file cannot be read: {line}", str(path), REMEDY) from error
    if not isinstance(content, Mapping):
        raise WeightsError(f"a {type(content).__name__}, not a dict of tensors", str(path), REMEDY)
    return content
