"""Published ViLT weights for the encoder: finding them, their word pieces, and their tensors under transformers' names.

A source is a folder as transformers writes it, a lone file, or the id of a repository of the Hugging Face hub. Nothing
is fetched before it was said what, from where, how large and under what licence. No code inside a file is run.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import ViltModel

PUBLISHED = "dandelin/vilt-b32-mlm"  # 0.5 GB, Apache-2.0
CONFIG = "config.json"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # the first that is there; safetensors cannot hold code
VOCABULARIES = ("vocab.txt", "tokenizer.json")
_PICKLED = (".bin", ".ckpt", ".pt", ".pth")
_SUFFIXES = (".safetensors", *_PICKLED)
_YES = {"1", "ON", "YES", "TRUE"}  # how huggingface_hub reads its own switches

# What published files hold besides the encoder: the pooler, the heads of the tasks, and numbers that count positions.
_BESIDES = re.compile(r"((pooler|mlm_score|itm_score|mpp_score|rank_output|(\w+_)?classifier)\..*|.*\bposition_ids)")
# Beginnings of original names, and transformers' beside them; the original's of the transformer are timm's.
_ORIGINAL = {
    "transformer.cls_token": "embeddings.cls_token",
    "transformer.pos_embed": "embeddings.position_embeddings",
    "transformer.patch_embed.proj.": "embeddings.patch_embeddings.projection.",
    "transformer.norm.": "layernorm.",
    "text_embeddings.": "embeddings.text_embeddings.",
    "token_type_embeddings.": "embeddings.token_type_embeddings.",
}
_ORIGINAL_BLOCK = {
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "attn.proj": "attention.output.dense",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}
_TEXT = "embeddings.text_embeddings"
_MODALITIES = "embeddings.token_type_embeddings.weight"
# Tables whose size is a choice of whoever asks, and what to say where it differs.
_TABLES = {
    f"{_TEXT}.word_embeddings.weight": "the word table has {0} rows, the vocabulary {1} pieces: use the vocab.txt that "
    "belongs to these weights",
    f"{_TEXT}.position_embeddings.weight": "there are {0} text positions, not {1}: set the text length to {0}",
    "embeddings.position_embeddings": "the position table has {0} rows, not {1}: these weights were trained at another "
    "image or patch size; ViLT-B/32 has 145, for 384 pixels and patches of 32",
}
# What no tensor shows, and other values of which compute something else.
_SILENT = ("num_attention_heads", "hidden_act")


def locate(source: str, announce: Callable[[str], None] | None = None) -> Path:
    """Where the weights lie on this machine; fetches them from the hub where they do not.

    Args:
        source: A folder with `config.json`, `model.safetensors` or `pytorch_model.bin`, and `vocab.txt`; a file
            (`.safetensors` with transformers' names, or a `.ckpt` of the original ViLT); or a hub id such as
            `dandelin/vilt-b32-mlm`, which is looked for in the hub's cache first.
        announce: Is told before a download what comes, from where, how large and under what licence; by default a
            logger's warning, which Python writes to stderr.

    Returns:
        A folder or a file.

    Raises:
        WeightsError: It is not there, incomplete, or cannot be fetched.
    """
    path = Path(source).expanduser()
    if source and path.is_dir():  # an empty path is the folder that the program runs in
        lacking = _lacking(path, vocabulary=False)
        if lacking:
            raise WeightsError(f"this folder lacks {lacking}", str(path), _remedy())
        return path
    if path.is_file():
        return path
    try:
        if source.count("/") != 1 or path.suffix in _SUFFIXES:
            raise ValueError("not an id of the hub")
        cached = _cached(source)
    except ValueError as error:
        raise WeightsError("no such file or folder of pretrained ViLT weights", source, _remedy()) from error
    if cached and not _lacking(cached):
        return cached
    return _fetch(source, announce or logging.getLogger(__name__).warning)


def word_pieces(source: str | Path) -> list[str]:
    """The vocabulary of pretrained weights, from `vocab.txt` or `tokenizer.json` beside them; places are ids.

    Raises:
        WeightsError: There is none, or it cannot be read.
    """
    path = locate(str(source))
    folder = path if path.is_dir() else path.parent
    file = next((folder / name for name in VOCABULARIES if (folder / name).is_file()), None)
    if file is None:
        remedy = f"put bert-base-uncased's vocab.txt beside the weights (it is also in {PUBLISHED})"
        raise WeightsError("there is no vocabulary beside these weights", str(folder), remedy)
    try:
        text = file.read_text(encoding="utf-8")
        if file.suffix == ".txt":
            return text.removesuffix("\n").split("\n")  # splitlines() would also split at characters that are pieces
        ids = dict(json.loads(text)["model"]["vocab"])
        pieces = sorted(ids, key=lambda piece: int(ids[piece]))
        if [ids[piece] for piece in pieces] == list(range(len(pieces))):
            return pieces
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"this vocabulary cannot be read: {error}", str(file), _damaged(file)) from error
    raise WeightsError("the ids of this vocabulary are not 0, 1, 2, ...", str(file), _damaged(file))


def load_vilt(vilt: ViltModel, source: str | Path) -> None:
    """Loads pretrained weights into a ViLT; every tensor of it comes from the file.

    Poolers and heads of tasks are left out, where `vilt` has none. Anything else that has no place is an error.

    Args:
        vilt: The model, of the sizes of the weights; its numbers are replaced.
        source: As in `locate`; tensors under transformers' names, with or without `vilt.`, or the original ones.

    Raises:
        WeightsError: The file cannot be read; tensors are missing, left over, of another shape or not finite; or the
            `config.json` beside them names another architecture.
    """
    path = locate(str(source))
    if path.is_dir():
        _check_config(vilt, path / CONFIG)
        path = next(path / name for name in WEIGHTS if (path / name).is_file())
    found = _named(_read(path))
    wanted = {name: tensor.shape for name, tensor in vilt.state_dict().items()}
    found = {name: tensor for name, tensor in found.items() if name in wanted or not _BESIDES.fullmatch(name)}
    if _MODALITIES in found and found[_MODALITIES].shape[:1] == (3,) and wanted[_MODALITIES][0] == 2:
        # NLVR2 asks about two images: rows 0 and 1 are still text and image, row 2 is the second image.
        found[_MODALITIES] = found[_MODALITIES][:2]
    problems = _problems(found, wanted)
    if problems:
        more = f"; and {len(problems) - 6} more" if len(problems) > 6 else ""
        raise WeightsError("these weights do not fit: " + "; ".join(problems[:6]) + more, str(path), _remedy())
    vilt.load_state_dict(found)


def from_original(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of the original ViLT under transformers' names; what is not of the encoder keeps its name.

    Args:
        state: The `state_dict` of an original checkpoint.

    Raises:
        WeightsError: A fused query-key-value tensor cannot be split into three.
    """
    renamed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        block = re.fullmatch(r"transformer\.blocks\.(\d+)\.(.+)\.(weight|bias)", name)
        if block is None:
            start = next((start for start in _ORIGINAL if name.startswith(start)), "")
            renamed[_ORIGINAL.get(start, "") + name.removeprefix(start)] = tensor
            continue
        index, part, role = block.groups()
        layer = f"encoder.layer.{index}"
        if part == "attn.qkv":
            if tensor.dim() == 0 or len(tensor) % 3:
                raise WeightsError(f"{name} is {tuple(tensor.shape)}, which is not three parts", remedy=_remedy())
            for ours, third in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                renamed[f"{layer}.attention.attention.{ours}.{role}"] = third
        elif part in _ORIGINAL_BLOCK:
            renamed[f"{layer}.{_ORIGINAL_BLOCK[part]}.{role}"] = tensor
        else:
            renamed[name] = tensor
    return renamed


# --- the hub -------------------------------------------------------------------------------------------------------


def _cached(repository: str) -> Path | None:
    """The folder of a repository in the hub's cache, whole or not.

    Not by `snapshot_download(local_files_only=True)`: where the repository has both kinds of weights it takes a cache
    with one of them, as `_fetch` leaves it, for incomplete.

    Raises:
        ValueError: This is no id of a repository.
    """
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repository, CONFIG)
    return Path(found).parent if isinstance(found, str) else None


def _fetch(repository: str, announce: Callable[[str], None]) -> Path:
    from huggingface_hub import HfApi, snapshot_download

    if _offline():
        raise _absent(repository, "downloads are forbidden (--offline, HF_HUB_OFFLINE)")
    try:
        info = HfApi().model_info(repository, files_metadata=True, timeout=30)
        sizes = {file.rfilename: file.size or 0 for file in info.siblings or []}
        wanted = [CONFIG, *(next((n for n in names if n in sizes), names[0]) for names in (WEIGHTS, VOCABULARIES))]
        lacking = [name for name in wanted if name not in sizes]
        if lacking:
            raise WeightsError(f"the repository {repository} has no {', '.join(lacking)}", repository, _remedy())
        licence = info.card_data.get("license") if info.card_data else None
        announce(
            f"downloading {repository}: {', '.join(wanted)}, {sum(sizes[n] for n in wanted) / 1e6:.1f} MB, "
            f"licence {licence or 'not stated there (ViLT itself: Apache-2.0)'}\n"
            f"  from {HfApi().endpoint}/{repository}\n  to   {_cache(repository)}"
        )
        return Path(snapshot_download(repository, allow_patterns=wanted))
    except WeightsError:
        raise
    except Exception as error:  # the hub's client changed its HTTP library, and with it its errors, more than once
        raise _absent(repository, f"it cannot be fetched ({type(error).__name__}: {_line(error)})") from error


def _offline() -> bool:
    return any(os.environ.get(name, "").upper() in _YES for name in ("ZOO_OFFLINE", "HF_HUB_OFFLINE"))


def _cache(repository: str) -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"


def _absent(repository: str, why: str) -> WeightsError:
    cached = _cached(repository)
    state = f"in the hub's cache without {_lacking(cached)}" if cached else "neither a path nor in the hub's cache"
    return WeightsError(
        f"the pretrained weights '{repository}' are {state}, and {why}",
        where=str(cached or _cache(repository)),
        remedy=_remedy(repository),
    )


# --- files ---------------------------------------------------------------------------------------------------------


def _lacking(folder: Path, vocabulary: bool = True) -> str:
    """What a folder of weights does not have; empty where it has all."""
    groups = [(CONFIG,), WEIGHTS, *([VOCABULARIES] if vocabulary else [])]
    return ", ".join(" or ".join(names) for names in groups if not any((folder / name).is_file() for name in names))


def _read(path: Path) -> dict[str, Tensor]:
    """The tensors of a file."""
    if path.suffix not in _SUFFIXES:
        raise WeightsError(f"'{path.suffix}' files are not read here", str(path), f"one of {', '.join(_SUFFIXES)}")
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise WeightsError(f"this file is damaged: {_line(error)}", str(path), _damaged(path)) from error
    import torch

    content = _unpickle(path)
    content = content.get("state_dict", content) if isinstance(content, Mapping) else content
    if isinstance(content, Mapping) and content and all(isinstance(v, torch.Tensor) for v in content.values()):
        return dict(content)
    raise WeightsError("this file holds no dict of tensors", str(path), _remedy())


def _unpickle(path: Path) -> Any:
    """The content of a `torch.save` file, without running code of it or importing what it names.

    Original checkpoints hold more than tensors: the settings and callbacks of the Lightning release that wrote them.
    An empty class stands in for each of those names, so that torch's restricted reader gets past them.
    """
    import torch
    from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

    try:
        names = get_unsafe_globals_in_checkpoint(path)
    except Exception:  # not the present format of torch.save; the reader below reads the older one or says what it is
        names = []
    try:
        with safe_globals([(type("StandIn", (_StandIn,), {}), name) for name in names]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damage shows as any of half a dozen errors
        raise WeightsError(f"torch does not read this file: {_line(error)}", str(path), _damaged(path)) from error


class _StandIn:
    """Takes the place of a class that a checkpoint names; takes whatever it is given and does nothing."""

    def __init__(self, *arguments: Any, **options: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...


def _named(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under the names of a bare `ViltModel`."""
    if any(name.startswith("transformer.") for name in state):
        return from_original(state)
    return {name.removeprefix("vilt."): tensor for name, tensor in state.items()}


def _problems(found: Mapping[str, Tensor], wanted: Mapping[str, tuple[int, ...]]) -> list[str]:
    """What keeps tensors from being loaded; the sizes of tables first, as they tell the most."""
    import torch

    tables, others = [], []
    for name, shape in wanted.items():
        given = found[name].shape if name in found else None
        if given is None:
            others.append(f"{name} is missing")
        elif given != shape:
            same_width = len(given) == len(shape) and given[-1] == shape[-1]
            if name in _TABLES and same_width:
                tables.append(_TABLES[name].format(given[-2], shape[-2]))
            else:
                others.append(f"{name} is {tuple(given)}, not {tuple(shape)}")
        elif not torch.isfinite(found[name]).all():
            others.append(f"{name} is not finite")
    return [*tables, *others, *(f"{name} has no place" for name in found if name not in wanted)]


def _check_config(vilt: ViltModel, path: Path) -> None:
    """Refuses weights of an architecture that differs in what their shapes do not show."""
    try:
        config = dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise WeightsError(f"this file is damaged: {error}", str(path), _damaged(path)) from error
    for name in _SILENT:
        wanted = getattr(vilt.config, name)
        given = config.get(name, getattr(type(vilt.config)(), name))  # what is usual may be left out
        if given != wanted:
            raise WeightsError(f"these weights have {name} {given}, not {wanted}", str(path), _remedy())


def _line(error: Exception) -> str:
    """What an error says, in a line; torch's and the hub's go on for a screen."""
    text = str(error)
    refused = re.search(r"WeightsUnpickler error:\s*(.+)|(Trying to load unsupported .+)", text)
    if refused:  # before this torch advises to run the file's code
        return (refused[1] or refused[2]).partition(". Please")[0]
    return next(iter(text.strip().splitlines()), type(error).__name__)


def _damaged(path: Path) -> str:
    with path.open("rb") as file:
        if file.read(40).startswith(b"version https://git-lfs"):
            return "this is what git leaves in the place of a large file: `git lfs pull` in its folder fetches it"
    again = "fetch it again"
    if path.suffix in _PICKLED:
        again += ", or write its tensors alone where it was made: torch.save(checkpoint['state_dict'], 'vilt.pt')"
    return f"{again}; {_remedy()}"


def _remedy(repository: str = PUBLISHED) -> str:
    about = " (0.5 GB, Apache-2.0)" if repository == PUBLISHED else ""
    return (
        f"`hf download {repository}` fetches them{about} where there is a network; "
        "--model.pretrained PATH takes a local folder or file; --preset nano needs none"
    )
