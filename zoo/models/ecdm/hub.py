"""Published networks, from a folder or the Hugging Face hub's cache: one loader, one error, and their licences.

transformers and diffusers say misleading things where files are absent, and a tokenizer without files even loads, with
two words. So the files are looked for here, and the libraries only ever see a folder that has them.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from zoo.errors import WeightsError, unknown_name

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

IDS, LENGTH = 49408, 77  # of CLIP's tokenizer
SD15 = "stable-diffusion-v1-5/stable-diffusion-v1-5"
SD15_INPAINTING = "stable-diffusion-v1-5/stable-diffusion-inpainting"
CONTROL_INPAINT = "lllyasviel/control_v11p_sd15_inpaint"
CONTROL_CANNY = "lllyasviel/control_v11p_sd15_canny"
LICENCES = {
    SD15: "CreativeML OpenRAIL-M: its use restrictions pass on to networks trained from it",
    SD15_INPAINTING: "CreativeML OpenRAIL-M: its use restrictions pass on to networks trained from it",
    CONTROL_INPAINT: "OpenRAIL: its use restrictions pass on to networks trained from it",
    CONTROL_CANNY: "OpenRAIL: its use restrictions pass on to networks trained from it",
}


class Part(NamedTuple):
    """A network of a pipeline.

    Attributes:
        module: Where its class is defined.
        name: Its class.
        folder: Its folder in a repository of a whole pipeline; "" where the repository is of it alone.
        weights: Its weights files; the first that is there. Several groups: one file of each is needed.
    """

    module: str
    name: str
    folder: str
    weights: tuple[tuple[str, ...], ...]


_DIFFUSERS = (("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin"),)
_TRANSFORMERS = (("model.safetensors", "pytorch_model.bin"),)
PARTS = {
    "vae": Part("diffusers.models.autoencoders.autoencoder_kl", "AutoencoderKL", "vae", _DIFFUSERS),
    "unet": Part("diffusers.models.unets.unet_2d_condition", "UNet2DConditionModel", "unet", _DIFFUSERS),
    "controlnet": Part("diffusers.models.controlnets.controlnet", "ControlNetModel", "", _DIFFUSERS),
    "text_encoder": Part("transformers", "CLIPTextModel", "text_encoder", _TRANSFORMERS),
    "tokenizer": Part(
        "transformers",
        "CLIPTokenizer",
        "tokenizer",
        (("vocab.json", "tokenizer.json"), ("merges.txt", "tokenizer.json")),
    ),
}
_shown: set[str] = set()


def load(part: str, source: str) -> Any:
    """A published network, every tensor of which comes from the files; float32, in evaluation mode.

    Args:
        part: A key of `PARTS`, but `tokenizer` (see `load_tokenizer`).
        source: A folder as diffusers writes it, of a pipeline or of the network alone; or the id of a repository.

    Raises:
        WeightsError: It is not there, is damaged, or lacks tensors.
    """
    import torch

    kind = _part(part)
    folder = locate(part, source)
    cls = getattr(importlib.import_module(kind.module), kind.name)
    options: dict[str, Any] = {"local_files_only": True, "output_loading_info": True}
    if kind.module == "transformers":
        options["dtype"] = torch.float32
    else:  # low_cpu_mem_usage wants accelerate, and says so at every load
        options |= {"torch_dtype": torch.float32, "low_cpu_mem_usage": False}
    try:
        network, info = _quietly(lambda: cls.from_pretrained(str(folder), **options))
    except Exception as error:  # damage shows as any of half a dozen errors
        what = f"the {part} of '{source}' cannot be read: {_line(error)}"
        raise WeightsError(what, str(folder), _remedy(part, source)) from error
    lacking = sorted(info["missing_keys"]) + sorted(str(key) for key in info["mismatched_keys"])
    if lacking:
        what = f"the {part} of '{source}' lacks {len(lacking)} tensors: {', '.join(lacking[:3])}"
        raise WeightsError(what, str(folder), _remedy(part, source))
    return network.eval()


def load_tokenizer(source: str, *, ids: int = IDS, length: int = LENGTH) -> CLIPTokenizer:
    """CLIP's tokenizer, checked: without its files transformers gives one that knows two words, and says nothing.

    Args:
        source: As in `load`.
        ids: How many ids it must have: those of the text encoder it is for.
        length: How many ids per caption.

    Raises:
        WeightsError: It is not there, or of another size.
    """
    folder = locate("tokenizer", source)
    from transformers import CLIPTokenizer

    try:
        tokenizer: CLIPTokenizer = CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:
        what = f"the tokenizer of '{source}' cannot be read: {_line(error)}"
        raise WeightsError(what, str(folder), _remedy("tokenizer", source)) from error
    found = (len(tokenizer), tokenizer.model_max_length)
    if found != (ids, length):
        what = f"the tokenizer of '{source}' has {found[0]} ids and captions of {found[1]}, not {ids} and {length}"
        raise WeightsError(what, str(folder), _remedy("tokenizer", source))
    return tokenizer


def locate(part: str, source: str) -> Path:
    """The folder with the files of a part of a pipeline; says once per repository under what licence they are.

    Args:
        part: A key of `PARTS`.
        source: As in `load`.

    Raises:
        WeightsError: Files are missing; the one error says which, where they were looked for, and how to get them.
    """
    kind = _part(part)
    path = Path(source).expanduser()
    if source and path.is_dir():  # an empty path is the folder that the program runs in
        tried = path / kind.folder if (path / kind.folder).is_dir() else path
    else:
        cached = _cached(source)
        tried = (cached or _cache(source)) / kind.folder
    lacking = _lacking(tried, kind, part)
    if lacking:
        what = f"the {part} of '{source}' is not here: no {lacking}"
        raise WeightsError(what, str(tried), _remedy(part, source))
    _show_licence(source)
    return tried


def check_here(needed: dict[str, str]) -> None:
    """Refuses, without reading a tensor, what is not on this machine.

    Args:
        needed: The source of each part.

    Raises:
        WeightsError: As in `locate`, for the first part that is missing.
    """
    for part, source in needed.items():
        locate(part, source)


def _part(part: str) -> Part:
    if part not in PARTS:
        raise unknown_name("part of a pipeline", part, list(PARTS))
    return PARTS[part]


def _lacking(folder: Path, kind: Part, part: str) -> str:
    """What a folder does not have; empty where it has all."""
    groups = kind.weights if part == "tokenizer" else (("config.json",), *kind.weights)
    return ", ".join(" or ".join(names) for names in groups if not any((folder / name).is_file() for name in names))


def _cached(repository: str) -> Path | None:
    """The folder of a repository in the hub's cache, whole or not; None where there is none."""
    main = _cache(repository) / "refs" / "main"
    if not main.is_file():
        return None
    return _cache(repository) / "snapshots" / main.read_text(encoding="utf-8").strip()


def _cache(repository: str) -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"


def terms(source: str) -> str:
    """A line on the licence of a source, for the weights that are trained from it; of a folder only where it lies."""
    return f"{source}: {LICENCES[source]}" if source in LICENCES else f"that of the weights in '{source}'"


def _show_licence(source: str) -> None:
    if source in LICENCES and source not in _shown:
        _shown.add(source)
        logging.getLogger(__name__).warning("the weights of %s are under %s", source, LICENCES[source])


def _quietly(call: Callable[[], Any]) -> Any:
    """Without transformers' progress bar, which is drawn for every network."""
    from transformers.utils import logging as theirs

    shown = theirs.is_progress_bar_enabled()
    theirs.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        return call()
    finally:
        if shown:
            theirs.enable_progress_bar()  # type: ignore[no-untyped-call]


def _line(error: Exception) -> str:
    """What an error says, in a line."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _remedy(part: str, source: str) -> str:
    licence = f" ({LICENCES[source].partition(':')[0]})" if source in LICENCES else ""
    fetch = (
        ""
        if Path(source).expanduser().is_dir()
        else f"`hf download {source} {' '.join(_wanted(part))}` fetches it{licence} where there is a network; "
    )
    return f"{fetch}a local folder as diffusers writes it does, too; ecdm's --preset nano needs no such weights"


def _wanted(part: str) -> list[str]:
    """The files to fetch of a repository: all parts of a pipeline, and not the same weights in five other formats."""
    parts = [kind for kind in PARTS.values() if bool(kind.folder) == bool(PARTS[part].folder)]
    files = []
    for kind in parts:
        words = kind.folder == "tokenizer"
        names = ["vocab.json", "merges.txt", "tokenizer_config.json"] if words else ["config.json", kind.weights[0][0]]
        files += [f"{kind.folder}/{name}".lstrip("/") for name in names]
    return files
