"""Published DeepFill-v2 weights in other projects' layouts, read into this one: one renamer, one table per layout.

Layers map by position, because every layout keeps the order of the architecture figure. No code of those projects is
needed, and no pickle is loaded. The flags that make the network compute what theirs does are in the table too, and end
up in the header of the converted file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.errors import WeightsError, unknown_name
from zoo.models.deepfill.module import DeepFill
from zoo.weights import save_weights, sha256

NON_COMMERCIAL = "CC-BY-NC-4.0"
COMPATIBLE = {  # what the published TensorFlow code computes
    "pad_mode": "tf_same",
    "ca_down": "tf_align",
    "ca_mask_down": "nearest",
    "ca_masking": "official",
    "ca_overlap": "quarter",
    "ca_fuse_wrap": True,
}

# This project's layers in the order of the figure: 17 coarse ones, 10 + 6 + 2 + 7 of the refinement, 6 of SN-PatchGAN.
_PARTS = [("coarse", 17), ("refine.conv_branch", 10), ("refine.attn_pre", 6), ("refine.attn_post", 2)]
GENERATOR = [f"generator.{part}.{i}.conv" for part, n in [*_PARTS, ("refine.decoder", 7)] for i in range(n)]
DISCRIMINATOR = [f"discriminator.layers.{i}" for i in range(6)]


@dataclass(frozen=True)
class Layout:
    """How one project stores the weights.

    Attributes:
        generator: Its names of the layers of `GENERATOR`, in that order.
        discriminator: Its names of the layers of `DISCRIMINATOR`.
        roles: What the last part of a name stands for: `weight`, `bias`, and the vectors `u` and `v` of spectral norm.
        ignored: A pattern of names that hold no weights.
        options: The constructor arguments that make `DeepFill` compute what that project's network does.
        licence: Under which terms the published weights are.
        separator: Between the parts of a name.
    """

    generator: list[str]
    discriminator: list[str]
    roles: dict[str, str]
    ignored: str
    options: dict[str, Any]
    licence: str
    separator: str = "."


def _numbered(prefix: str, merge: bool = False) -> list[str]:
    """The TensorFlow names conv1..conv17, or xconv, pmconv and allconv of the second stage."""
    first = 11 if merge else 1
    suffixes = {2: "_downsample", 4: "_downsample", 13: "_upsample", 15: "_upsample"}
    suffixes |= dict.fromkeys(range(7, 11), "_atrous")
    return [f"{prefix}{i}{suffixes.get(i, '')}" for i in range(first, 18)]


_TF = [*_numbered("conv"), *_numbered("xconv")[:10], *_numbered("pmconv")[:6], "pmconv9", "pmconv10"]
_TF += _numbered("allconv", merge=True)


def _blocks(prefix: str, down: str, between: list[str]) -> list[str]:
    """nipponjo's encoders: a convolution, two downsampling blocks, and what follows."""
    blocks = [f"{down}_block{i}.{layer}" for i in (1, 2) for layer in ("conv1_downsample", "conv2")]
    return [f"{prefix}{name}.conv" for name in (*blocks, *between)]


def _ups(prefix: str) -> list[str]:
    blocks = [f"up_block{i}.{layer}" for i in (1, 2) for layer in ("conv1_upsample.conv", "conv2")]
    return [f"{prefix}{name}.conv" for name in (*blocks, "conv_to_rgb")]


_NIPPONJO = [
    "G.stage1.conv1.conv", *_blocks("G.stage1.", "down", [f"conv_bn{i}" for i in range(1, 8)]), *_ups("G.stage1."),
    "G.stage2.conv_conv1.conv", *_blocks("G.stage2.", "conv_down", [f"conv_conv_bn{i}" for i in range(1, 6)]),
    "G.stage2.ca_conv1.conv", *_blocks("G.stage2.", "ca_down", ["ca_conv_bn1", "ca_conv_bn4", "ca_conv_bn5"]),
    "G.stage2.conv_bn6.conv", "G.stage2.conv_bn7.conv", *_ups("G.stage2."),
]  # fmt: skip


def _mmagic(*parts: tuple[str, int, int]) -> list[str]:
    return [f"generator.{part}{i}.conv.conv" for part, first, last in parts for i in range(first, last + 1)]


_MMAGIC = _mmagic(
    ("stage1.encoder.enc", 1, 6), ("stage1.dilation_neck.dilation_convs.", 0, 3), ("stage1.decoder.dec", 1, 7),
    ("stage2.encoder_conv.enc", 1, 6), ("stage2.dilation_neck.dilation_convs.", 0, 3),
    ("stage2.encoder_attention.enc", 1, 6), ("stage2.contextual_attention_neck.conv", 1, 2),
    ("stage2.decoder.dec", 1, 7),
)  # fmt: skip

_TORCH = {"weight": "weight", "bias": "bias", "weight_u": "u"}
_NIPPONJO_D = [f"D.conv{i}.conv_sn" for i in range(1, 7)]

LAYOUTS = {
    "tf": Layout(
        generator=[f"inpaint_net/{n}/{n}_conv" if n.endswith("_upsample") else f"inpaint_net/{n}" for n in _TF],
        discriminator=[f"discriminator/sn_patch_gan/conv{i}" for i in range(1, 7)],
        roles={"kernel": "weight", "bias": "bias", "kernel_sn/u": "u"},
        ignored=r"global_step|.*beta[12]_power|.*/Adam(_1)?",
        options=COMPATIBLE,
        licence=NON_COMMERCIAL,
        separator="/",
    ),
    "nipponjo_tf": Layout(
        generator=[f"G.{n}.conv.conv" if n.endswith("_upsample") else f"G.{n}.conv" for n in _TF],
        discriminator=_NIPPONJO_D,
        roles=_TORCH,
        ignored=r".*\.fuse_weight",
        options={**COMPATIBLE, "ca_fuse": False},
        licence=NON_COMMERCIAL,
    ),
    "nipponjo": Layout(
        generator=_NIPPONJO,
        discriminator=_NIPPONJO_D,
        roles=_TORCH,
        ignored=r".*\.fuse_weight",
        options={"ca_mask_down": "nearest", "ca_masking": "official", "ca_fuse_wrap": True},
        licence=NON_COMMERCIAL,
    ),
    "mmagic": Layout(
        generator=_MMAGIC,
        discriminator=[f"disc.conv{i}.conv" for i in range(1, 7)],
        roles={"weight": "weight", "bias": "bias", "weight_orig": "weight", "weight_u": "u", "weight_v": "v"},
        ignored=r".*\.fuse_kernel",
        options={
            "pad_mode": "reflect",
            "refine_input": "rgb_ones_mask",
            "gated_output": True,
            "pre_attention": "elu",
            "ca_mask_down": "nearest",
            "ca_fuse_wrap": True,
        },
        licence="Apache-2.0",
    ),
}


def convert_upstream(source: Path | Mapping[str, Any], kind: str, out: Path, **changes: Any) -> Path:
    """Converts published weights to a file of this project; returns its path.

    Args:
        source: A file (`.npz` or `.safetensors` of TensorFlow variables, `.pth`, `.pt`, `.safetensors`), or what such
            a file holds.
        kind: The layout, a key of `LAYOUTS`.
        out: The safetensors file to write.
        **changes: Constructor arguments that differ from the layout's.

    Raises:
        WeightsError: The file cannot be read, or a tensor is missing, left over or of another shape.
        UsageError: No such layout.
    """
    module = module_from_upstream(source, kind, **changes)
    provenance = {"converted_from": kind}
    if isinstance(source, Path):
        provenance |= {"file": source.name, "sha256": sha256(source)}
    return save_weights(module, out, preset="paper", provenance=provenance, licence=LAYOUTS[kind].licence)


def module_from_upstream(source: Path | Mapping[str, Any], kind: str, **changes: Any) -> DeepFill:
    """The method with published weights, in evaluation mode; with its discriminator, where the source has one.

    Arguments and errors as of `convert_upstream`.
    """
    if kind not in LAYOUTS:
        raise unknown_name("layout", kind, list(LAYOUTS))
    layout = LAYOUTS[kind]
    tensors = _unwrap(_read(source) if isinstance(source, Path) else source, layout)
    renamed = _rename(tensors, layout)
    module = DeepFill(**{**layout.options, **_sizes(renamed), **changes})
    state = module.state_dict()
    _check(renamed, state)
    module.load_state_dict({**state, **renamed})
    return module.eval()


def _read(path: Path) -> Mapping[str, Any]:
    """The content of a file, without running any code in it."""
    if not path.is_file():
        raise WeightsError("no such weights file", where=str(path))
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                return {name: file[name] for name in file.files}
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        if path.suffix in (".pth", ".pt", ".ckpt"):
            content = torch.load(path, map_location="cpu", weights_only=True)
            if isinstance(content, Mapping):
                return content
            raise WeightsError(f"a {type(content).__name__}, not a dict of tensors", where=str(path))
    except WeightsError:
        raise
    except Exception as error:  # each reader has its own kinds of errors
        raise WeightsError(f"cannot be read: {error}", where=str(path), remedy=_REMEDY) from error
    raise WeightsError(f"'{path.suffix}' files are not read here", where=str(path), remedy=_REMEDY)


_REMEDY = "give .pth, .pt, .safetensors, or the variables of a TensorFlow checkpoint as .npz (tf.train.load_variable)"


def _unwrap(content: Mapping[str, Any], layout: Layout) -> dict[str, Tensor]:
    """The tensors by their full names: containers opened, optimizers left behind."""
    content = content.get("state_dict", content)
    if layout.discriminator is _NIPPONJO_D:
        if "G" in content:
            content = {f"{net}.{k}": v for net in ("G", "D") for k, v in content.get(net, {}).items()}
        else:
            content = {f"G.{k}": v for k, v in content.items()}
    tensors = {}
    for name, value in content.items():
        name = name.removesuffix(":0")  # TensorFlow's output index
        if re.fullmatch(layout.ignored, name) is None:
            tensors[name] = torch.as_tensor(value).float()
    return tensors


def _rename(tensors: dict[str, Tensor], layout: Layout) -> dict[str, Tensor]:
    """Every tensor under this project's name; each is used once."""
    theirs = dict(zip([*layout.generator, *layout.discriminator], [*GENERATOR, *DISCRIMINATOR], strict=True))
    roles: dict[str, dict[str, Tensor]] = {}
    left: list[str] = []
    for name, value in tensors.items():
        ending = max((e for e in layout.roles if name.endswith(layout.separator + e)), key=len, default=None)
        layer = theirs.get(name[: -len(ending) - 1]) if ending else None
        role = layout.roles[ending] if ending else ""
        if layer is None or role in roles.setdefault(layer, {}):
            left.append(name)
        else:
            transposed = layout.separator == "/" and value.dim() == 4
            roles[layer][role] = value.permute(3, 2, 0, 1).contiguous() if transposed else value
    if left:
        raise _mismatch(f"{len(left)} tensors have no place: {', '.join(sorted(left)[:4])}")
    names = {ours: name for name, ours in theirs.items()}
    wanted = GENERATOR + (DISCRIMINATOR if any(layer in roles for layer in DISCRIMINATOR) else [])
    missing = [names[layer] for layer in wanted if not {"weight", "bias"} <= set(roles.get(layer, {}))]
    if missing:
        raise _mismatch(f"weight or bias of {len(missing)} layers is missing: {', '.join(missing[:4])}")
    renamed: dict[str, Tensor] = {}
    for layer, found in roles.items():
        if layer in GENERATOR:
            renamed |= {f"{layer}.{role}": value for role, value in found.items()}
        else:
            renamed |= _normalized(layer, found)
    return renamed


def _normalized(layer: str, found: dict[str, Tensor]) -> dict[str, Tensor]:
    """A layer under spectral norm; where a singular vector is not stored it is computed from the weight."""
    matrix = found["weight"].flatten(1)
    u = found["u"].flatten() if "u" in found else torch.linalg.svd(matrix, full_matrices=False).U[:, 0]
    if len(u) != len(matrix):
        raise _mismatch(f"the singular vector of {layer} has {len(u)} values, its weight {len(matrix)} rows")
    v = found["v"].flatten() if "v" in found else F.normalize(matrix.t() @ u, dim=0)
    stem = f"{layer}.parametrizations.weight"
    return {f"{layer}.bias": found["bias"], f"{stem}.original": found["weight"], f"{stem}.0._u": u, f"{stem}.0._v": v}


def _sizes(renamed: dict[str, Tensor]) -> dict[str, Any]:
    """The quantities that the shapes tell: widths, and whether there is a sketch channel."""
    first, decoder = renamed[f"{GENERATOR[0]}.weight"], renamed["generator.refine.decoder.0.conv.weight"]
    width = first.shape[0] // 2
    sizes: dict[str, Any] = {"width": width, "guided": first.shape[1] == 6}
    if decoder.shape[0] != 8 * width:
        sizes["decoder_width"] = decoder.shape[0] // 8
    critic = renamed.get(f"{DISCRIMINATOR[0]}.parametrizations.weight.original")
    return sizes if critic is None else {**sizes, "d_base": critic.shape[0]}


def _check(renamed: dict[str, Tensor], state: dict[str, Tensor]) -> None:
    wrong = [
        f"{name} is {tuple(value.shape)}, not {tuple(state[name].shape) if name in state else 'there'}"
        for name, value in renamed.items()
        if name not in state or value.shape != state[name].shape
    ]
    absent = [name for name in state if name.startswith("generator.") and name not in renamed]
    if wrong or absent:
        raise _mismatch("; ".join((wrong + absent)[:3]))


def _mismatch(what: str) -> WeightsError:
    return WeightsError(what, remedy=f"these are weights of another layout or network; layouts: {', '.join(LAYOUTS)}")
