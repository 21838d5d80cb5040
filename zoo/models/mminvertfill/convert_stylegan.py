"""Published StyleGAN2 generators, read from safetensors by the names they have in three layouts.

`nvidia` is `G_ema.state_dict()` of NVIDIA's PyTorch code, `rosinality` the tensors of `g_ema` of rosinality's, `psp`
those of pSp's `state_dict` with its `latent_avg` beside them. The files these come in are pickles, of classes in
NVIDIA's case: whoever has them exports the tensors, and no pickle is read here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from zoo.errors import WeightsError, unknown_name
from zoo.models.mminvertfill.fir import kernel
from zoo.models.mminvertfill.generator import StyleGenerator

REMEDY = "where the published file can be opened, save its tensors: safetensors.torch.save_file({name: t.contiguous()})"
NVIDIA = (
    "NVIDIA Source Code License: non-commercial, research and evaluation only (github.com/NVlabs/stylegan2-ada-pytorch)"
)
LICENCES = {
    "nvidia": NVIDIA,
    "rosinality": "code MIT (github.com/rosinality/stylegan2-pytorch), its CUDA operators NVIDIA Source Code License; "
    "weights trained on FFHQ: CC BY-NC-SA 4.0, non-commercial",
    "psp": f"code MIT (github.com/eladrich/pixel2style2pixel); a decoder from NVIDIA's weights: {NVIDIA}",
}
KINDS = tuple(LICENCES)


class Published(NamedTuple):
    """A generator with published weights.

    Attributes:
        generator: In evaluation mode.
        mean: Its mean style vector (w), or None where the file has none.
        licence: One line on what the weights may be used for.
    """

    generator: StyleGenerator
    mean: Tensor | None
    licence: str


class Layout(NamedTuple):
    """How a layout calls things.

    Attributes:
        prefix: Before every name of the generator.
        optional: Whether the prefix may be left out, of all of them.
        ignored: Names that are no part of the generator.
        mean: The mean style vector.
        name: Its name and shape for one of ours.
    """

    prefix: str
    optional: bool
    ignored: re.Pattern[str]
    mean: str
    name: Callable[[str, tuple[int, ...]], tuple[str, tuple[int, ...]]]


def _nvidia_name(ours: str, shape: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
    part, _, rest = ours.partition(".")
    if ours == "constant":
        return "synthesis.b4.const", shape[1:]
    if part.startswith("noise_"):
        return f"{_nvidia_layer(int(part[6:]))}.noise_const", shape[2:]
    number, _, tensor = rest.partition(".")
    if part == "mapping":
        return f"mapping.fc{number}.{tensor}", shape
    if part == "rgb":
        return f"synthesis.b{4 << int(number)}.torgb.{tensor}", shape
    return f"{_nvidia_layer(int(number))}.{tensor.replace('strength', 'noise_strength')}", shape


def _nvidia_layer(k: int) -> str:
    return f"synthesis.b{4 << (k + 1) // 2}.conv{int(k % 2 == 0)}"  # conv0 doubles the size; there is none at 4


def _rosinality_name(ours: str, shape: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
    part, _, rest = ours.partition(".")
    if ours == "constant":
        return "input.input", shape
    if part.startswith("noise_"):
        return f"noises.{part}", shape
    number, _, tensor = rest.partition(".")
    if part == "mapping":
        return f"style.{int(number) + 1}.{tensor}", shape
    if part == "rgb":
        base = f"to_rgbs.{int(number) - 1}" if number != "0" else "to_rgb1"
        if tensor == "bias":
            return f"{base}.bias", (1, *shape, 1, 1)
    else:
        base = f"convs.{int(number) - 1}" if number != "0" else "conv1"
        if tensor in ("strength", "bias"):
            return f"{base}.{'noise.weight' if tensor == 'strength' else 'activate.bias'}", shape or (1,)
    if tensor == "weight":
        return f"{base}.conv.weight", (1, *shape)
    return f"{base}.conv.{tensor.replace('affine', 'modulation')}", shape


NOTHING = re.compile(r"(?!)")
LAYOUTS = {
    "nvidia": Layout("", True, NOTHING, "mapping.w_avg", _nvidia_name),
    "rosinality": Layout("g_ema.", True, NOTHING, "latent_avg", _rosinality_name),
    "psp": Layout("decoder.", False, re.compile(r"encoder\..*"), "latent_avg", _rosinality_name),
}
FILTER = re.compile(r".*\.(resample_filter|conv\.blur\.kernel|upsample\.kernel)")


def generator_from_upstream(source: Path | Mapping[str, Tensor], kind: str) -> Published:
    """The generator with published weights; its sizes are read off their shapes.

    Args:
        source: A safetensors file of the layout, or its tensors.
        kind: The layout, one of `KINDS`.

    Raises:
        UsageError: No such layout.
        WeightsError: The file cannot be read, or a tensor is missing, left over, of another shape or not finite, or a
            filter is not [1, 3, 3, 1].
    """
    if kind not in LAYOUTS:
        raise unknown_name("layout", kind, list(KINDS))
    layout, where = LAYOUTS[kind], str(source) if isinstance(source, Path) else ""
    mean, tensors = _parts(_read(source) if isinstance(source, Path) else source, layout, where)
    generator = _sized(tensors, layout, kind, where)
    shapes = {ours: tuple(tensor.shape) for ours, tensor in generator.state_dict().items()}
    names = {ours: layout.name(ours, shape) for ours, shape in shapes.items()}
    _check(tensors, dict(names.values()), where)
    generator.load_state_dict({n: tensors[theirs].float().reshape(shapes[n]) for n, (theirs, _) in names.items()})
    if mean is not None and mean.shape != (generator.w,):
        raise _error(f"{layout.mean} is {tuple(mean.shape)}, not ({generator.w},) in every row", where)
    return Published(generator.eval(), mean, LICENCES[kind])


def _error(what: str, where: str) -> WeightsError:
    return WeightsError(what, where, REMEDY)


def _read(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if path.suffix != ".safetensors":
        raise _error("published generators are read from safetensors alone, for a pickle can run code", str(path))
    if not path.is_file():
        raise _error("no such weights file", str(path))
    try:
        return load_file(path)
    except SafetensorError as error:
        raise _error(f"this file cannot be read: {error}", str(path)) from error


def _parts(content: Mapping[str, Tensor], layout: Layout, where: str) -> tuple[Tensor | None, dict[str, Tensor]]:
    """The mean style vector, and the generator's tensors without their prefix and without filters."""
    content = {name: tensor for name, tensor in content.items() if not layout.ignored.fullmatch(name)}
    mean = content.pop(layout.mean, None)
    if mean is not None:
        mean = mean.float()
        if mean.ndim == 2 and bool((mean == mean[:1]).all()):  # pSp repeats it for every style
            mean = mean[0]
    strays = [name for name in content if not name.startswith(layout.prefix)]
    if strays and not (layout.optional and len(strays) == len(content)):
        raise _error(f"{strays[0]} does not begin with {layout.prefix}", where)
    tensors = {name.removeprefix(layout.prefix): tensor for name, tensor in content.items()}
    for name in [name for name in tensors if FILTER.fullmatch(name)]:
        taps = tensors.pop(name).float()
        if taps.shape != (4, 4) or not torch.allclose(taps / taps.sum(), kernel(taps.dtype, taps.device)[0, 0]):
            raise _error(f"{name} is another filter than [1, 3, 3, 1]", where)
    return mean, tensors


def _sized(tensors: Mapping[str, Tensor], layout: Layout, kind: str, where: str) -> StyleGenerator:
    """A generator of the sizes that the shapes tell."""

    def weights(part: str) -> list[Tensor]:
        found: list[Tensor] = []
        while (name := layout.name(f"{part}.{len(found)}.weight", ())[0]) in tensors:
            found.append(tensors[name])
        return found

    mapping, rgb = weights("mapping"), weights("rgb")
    if not mapping or len(rgb) < 2 or any(tensor.ndim < 3 for tensor in rgb):
        raise _error(f"these are no weights of the layout {kind}", where)
    channels = {4 << i: tensor.shape[-3] for i, tensor in enumerate(rgb)}
    return StyleGenerator(max(channels), mapping[0].shape[0], len(mapping), channels)


def _check(tensors: Mapping[str, Tensor], wanted: Mapping[str, tuple[int, ...]], where: str) -> None:
    problems = [f"{name} is missing" for name in wanted if name not in tensors]
    for name, tensor in tensors.items():
        if name not in wanted:
            problems.append(f"{name} has no place")
        elif tensor.shape != wanted[name]:
            problems.append(f"{name} is {tuple(tensor.shape)}, not {wanted[name]}")
        elif not torch.isfinite(tensor).all():
            problems.append(f"{name} is not finite")
    if problems:
        more = f"; and {len(problems) - 4} more" if len(problems) > 4 else ""
        raise _error("these weights do not fit: " + "; ".join(problems[:4]) + more, where)
