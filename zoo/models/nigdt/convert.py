"""Published TDANet weights, NIGDT's under its later name, read into this project.

They are a file for each network, `latest_net_E.pth` and so on; the text encoder and its words come from AttnGAN. Each
block keeps its name there, so that a table of blocks names every tensor. No code of that project is needed, and no code
in a file is run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from zoo.errors import WeightsError, unknown_name
from zoo.models.nigdt.convert_match import read_words, text_encoder
from zoo.models.nigdt.inception import load_exactly, read_tensors
from zoo.models.nigdt.module import NIGDT
from zoo.weights import save_weights, sha256

LICENCE = "educational and academic research only (github.com/idealwhite/tdanet)"
REMEDY = (
    "put *_net_E.pth and *_net_G.pth of TDANet, text_encoder*.pth and captions.pickle of the same data set into one "
    "folder, and name it, or one of several net_E files in it"
)
KINDS = ("tdanet",)
OPTIONS: dict[str, Any] = {  # what the published networks are and compute, where the paper's differ
    "text_length": 128, "cell": "lstm", "blocks": 1, "prior_before": 6, "norm_dim": 0, "cell_rule": "strict",
    "invalid_as_zero": True, "kl_direction": "reverse", "match": 0.1,
    "use_match": False,  # the match networks train only, and have a converter of their own
}  # fmt: skip
DUPLICATE = re.compile(r".*\.(model|shortcut)\.\d+\..*")  # a convolution is stored again by its place in the block


class Block(NamedTuple):
    """A residual block: the name of it there and here, and its kind."""

    theirs: str
    ours: str
    kind: str


KIND = {  # the layers of a block, there and here
    "first": {"conv1": "main.0", "conv2": "main.2", "bypass": "shortcut.1"},
    "down": {"conv1": "main.1", "conv2": "main.3", "bypass": "shortcut.0"},
    "same": {"conv1": "main.1", "conv2": "main.3", "bypass": "shortcut.0"},
    "up": {"conv1": "main.2", "conv2": "main.5", "bypass": "shortcut.0"},
    "layer": {"": ""},
}
ROLES = {
    "module.bias": "bias",
    "module.weight_bar": "parametrizations.weight.original",
    "module.weight_u": "parametrizations.weight.0._u",
    "module.weight_v": "parametrizations.weight.0._v",
}
CRITIC = [
    Block("block0", "layers.0", "first"), Block("encoder0", "layers.1", "down"), Block("encoder1", "layers.2", "down"),
    Block("encoder2", "layers.4", "down"), Block("encoder3", "layers.5", "down"), Block("block1", "layers.6", "same"),
    Block("conv", "score", "layer"),
]  # fmt: skip
BLOCKS: dict[str, list[Block]] = {
    "net_E": [
        Block("block0", "encoder.stages.0", "first"),
        *(Block(f"encoder{k}", f"encoder.stages.{k + 1}", "down") for k in range(4)),
        *(Block(f"infer_prior{k}", f"prior.before.{k}", "same") for k in range(6)),
        Block("prior", "prior.blocks.0", "same"),
        Block("posterior", "posterior.blocks.0", "same"),
    ],
    "net_G": [
        Block("generator", "generator.project_z", "same"),
        Block("f_transformer", "generator.project_h", "same"),
        *(Block(f"decoder{k}", f"generator.layers.{k}", "up") for k in range(5)),
        *(Block(f"out{k}.conv1", f"generator.heads.{k - 1}.conv", "layer") for k in range(1, 5)),
        Block("attn1.model", "generator.attention.fuse", "same"),
    ],
    # D1 compares features of the reconstructive path, D2 judges whether an image is real
    "net_D_rec": [Block(b.theirs, f"critics.d1.{b.ours}", b.kind) for b in CRITIC],
    "net_D": [Block(b.theirs, f"critics.d2.{b.ours}", b.kind) for b in CRITIC],
}
ATTENTION = {"gamma": "gamma", "query_conv.weight": "query.weight", "query_conv.bias": "query.bias"}
OTHERS: dict[str, dict[str, str]] = {
    "net_E": {"word_attention.conv_image.weight": "attention.query.weight"},
    "net_G": {f"attn1.{there}": f"generator.attention.{here}" for there, here in ATTENTION.items()}
    | {"attn1.alpha": "generator.attention.alpha"},
    "net_D_rec": {f"attn2.{there}": f"critics.d1.layers.3.{here}" for there, here in ATTENTION.items()},
    "net_D": {f"attn2.{there}": f"critics.d2.layers.3.{here}" for there, here in ATTENTION.items()},
}
UNUSED = re.compile(r"attn2\.(alpha|model\..*)")  # discriminators have the long term, but never use it
READ_H = ("prior.blocks.0.", "posterior.blocks.0.", "generator.project_h.")  # blocks whose input is h
CRITICS = ("net_D", "net_D_rec")


def convert_upstream(source: Path, kind: str, out: Path, **changes: Any) -> Path:
    """Converts published weights to a file of this project; returns its path.

    The file has what completes an image. Posterior and discriminators are for training on: `module_from_upstream`.

    Args:
        source: The folder of the files, or one `net_E` file in it.
        kind: The layout, one of `KINDS`.
        out: The safetensors file to write.
        **changes: Constructor arguments that differ from the published ones.

    Raises:
        WeightsError: A file is missing or cannot be read, or a tensor is missing, left over or of another shape.
        UsageError: No such layout.
    """
    module = module_from_upstream(source, kind, **changes)
    hashes = {path.name: sha256(path) for path in find(source).values()}
    provenance = {"converted_from": kind, "files": hashes}
    return save_weights(module, out, preset=kind, provenance=provenance, licence=LICENCE)


def module_from_upstream(source: Path | Mapping[str, Any], kind: str, **changes: Any) -> NIGDT:
    """The method with published weights, in evaluation mode; discriminators that the source lacks are new ones.

    Arguments and errors as of `convert_upstream`, whose source may also be what the files hold: tensors by `net_E`,
    `net_G`, `net_D`, `net_D_rec` and `text`, and the list `words`.
    """
    if kind not in KINDS:
        raise unknown_name("layout", kind, list(KINDS))
    where = str(source) if isinstance(source, Path) else ""
    content = _read(source) if isinstance(source, Path) else source
    lacking = [name for name in ("net_E", "net_G", "text", "words") if name not in content]
    if lacking:
        raise WeightsError(f"these weights lack {', '.join(lacking)}", where, REMEDY)
    text = text_encoder(content["text"], content["words"])
    found = {f"text.{name}": tensor for name, tensor in text.state_dict().items()}
    for net in BLOCKS:
        if net in content:
            found |= _renamed(net, content[net], where)
    sizes = _sizes(found, where)
    module = NIGDT(vocabulary=list(content["words"]), **{**OPTIONS, **sizes, **changes})
    state = module.state_dict()
    kept = {name: tensor for name, tensor in state.items() if name.startswith(_new(content))}
    load_exactly(module, {**kept, **_reordered(found, sizes["encoder"][-1], sizes["words"])}, where, REMEDY)
    return module.eval()


def find(source: Path) -> dict[str, Path]:
    """The files of published weights by what they hold; discriminators may be absent.

    Args:
        source: Their folder, or one `net_E` file in it.

    Raises:
        WeightsError: A file is missing, or there are several of a kind.
    """
    folder, prefix = source, "*"
    if source.is_file() and source.stem.endswith("net_E"):
        folder, prefix = source.parent, source.stem.removesuffix("net_E")
    patterns = {net: f"{prefix}{net}.pth" for net in BLOCKS}
    patterns |= {"text": "text_encoder*.pth", "words": "*captions*.pickle"}
    files: dict[str, Path] = {}
    for name, pattern in patterns.items():
        found = sorted(folder.glob(pattern))
        if len(found) > 1:
            raise WeightsError(f"there are several {pattern}: {', '.join(p.name for p in found)}", str(folder), REMEDY)
        if found:
            files[name] = found[0]
        elif name not in CRITICS:
            raise WeightsError(f"there is no {pattern}", str(folder), REMEDY)
    return files


def _read(source: Path) -> dict[str, Any]:
    files = find(source)
    return {name: read_words(path) if name == "words" else read_tensors(path, REMEDY) for name, path in files.items()}


def _names(net: str) -> Iterator[tuple[str, str]]:
    """Every tensor of a network: its name there and here."""
    yield from OTHERS[net].items()
    for theirs, ours, kind in BLOCKS[net]:
        for there, here in KIND[kind].items():
            for role, parameter in ROLES.items():
                yield ".".join(filter(None, (theirs, there, role))), ".".join(filter(None, (ours, here, parameter)))
        for place in (0, 3) if kind == "up" else ():  # the instance normalizations, known by their place alone
            for parameter in ("weight", "bias"):
                yield f"{theirs}.model.{place}.{parameter}", f"{ours}.main.{place}.{parameter}"


def _renamed(net: str, tensors: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """The tensors of a network by this project's names; each is used once."""
    names = dict(_names(net))
    tensors = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    ignored = [DUPLICATE, UNUSED] if net in CRITICS else [DUPLICATE]
    left = [n for n in tensors if n not in names and not any(pattern.fullmatch(n) for pattern in ignored)]
    missing = [n for n in names if n not in tensors]
    for problem, concerned in (("have no place", left), ("are missing", missing)):
        if concerned:
            listed = ", ".join(sorted(concerned)[:4])
            raise WeightsError(f"{len(concerned)} tensors of {net} {problem}: {listed}", where, REMEDY)
    return {ours: tensors[theirs].float() for theirs, ours in names.items()}


def _new(content: Mapping[str, Any]) -> tuple[str, ...]:
    """Prefixes of what these weights do not hold: the match networks, and discriminators that are absent."""
    absent = [f"critics.{ours}." for ours, net in (("d1", "net_D_rec"), ("d2", "net_D")) if net not in content]
    return ("match.", *absent)


def _sizes(found: Mapping[str, Tensor], where: str) -> dict[str, Any]:
    """The widths, which the shapes tell."""

    def width(layer: str, dim: int = 0) -> int:
        return found[f"{layer}.parametrizations.weight.original"].shape[dim]

    encoder = [width("encoder.stages.0.main.2"), *(width(f"encoder.stages.{k}.main.3") for k in range(1, 5))]
    embedding, state = found["text.embedding.weight"].shape[1], found["text.rnn.weight_hh_l0"].shape[1]
    h, wanted = width("prior.blocks.0.main.1", dim=1), encoder[-1] + 4 * state
    if h != wanted:
        said = (
            f"these networks read {h} channels, where the image's {encoder[-1]} and twice the text's {2 * state} make"
        )
        raise WeightsError(f"{said} {wanted}", where, REMEDY)
    sizes: dict[str, Any] = {
        "encoder": encoder,
        "embedding": embedding,
        "words": 2 * state,
        "latent": width("generator.project_z.main.1", dim=1),
        "width": width("generator.project_z.main.3"),
        "up": [width(f"generator.layers.{k}.main.2") for k in range(5)],
    }
    for critic in ("critics.d1", "critics.d2"):
        if f"{critic}.score.bias" in found:
            layers = [f"{critic}.layers.{k}.main.3" for k in (1, 2, 4, 5, 6)]
            sizes["critic"] = [width(f"{critic}.layers.0.main.2"), *map(width, layers)]
    return sizes


def _reordered(found: Mapping[str, Tensor], image: int, words: int) -> dict[str, Tensor]:
    """Their h is [v_h, t_sent, t_e], the paper's is [v_h, t_e, t_sent]: weights that read it, and their vectors v."""
    t_sent, t_e = image, image + words  # where they begin there
    order = torch.tensor([*range(image), *range(t_e, t_e + words), *range(t_sent, t_sent + words)])
    reordered = dict(found)
    for name, tensor in found.items():
        if name.startswith(READ_H) and (".main.1." in name or ".shortcut.0." in name):
            if name.endswith(".original"):
                reordered[name] = tensor[:, order]
            elif name.endswith("._v"):
                reordered[name] = tensor.view(len(order), -1)[order].flatten()
    return reordered
