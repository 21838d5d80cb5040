"""Guidance: edges and segmentation with masks of their own, and what of them the encoder is shown."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from zoo.batch import UNKNOWN_CLASS
from zoo.errors import DataError, UsageError

FULL = 65536  # a keyed integer lies in [0, FULL)


def one_hot(segmentation: Tensor, classes: int) -> Tensor:
    """Class ids B H W (255 = unknown) as B K H W float32; zeros where unknown.

    Raises:
        DataError: An id that is neither below K nor 255.
    """
    known = segmentation != UNKNOWN_CLASS
    wrong = known & ((segmentation >= classes) | (segmentation < 0))
    if bool(wrong.any()):
        raise DataError(
            f"the segmentation has class {int(segmentation[wrong][0])}, beside {classes} classes of the model",
            remedy="set the model's number of classes to the data's; 255 stands for unknown",
        )
    ids = torch.arange(classes, device=segmentation.device).view(1, -1, 1, 1)
    return (segmentation[:, None] == ids).float()


def guidance_mask(
    M: Tensor,
    ids: Sequence[str],
    modality: str,
    seed: int = 0,
    visit: int = 0,
    shares: tuple[float, float] = (0.5, 0.25),
    whole: float = 0.5,
) -> Tensor:
    """Which part of a modality is withheld in training, drawn for each sample: B 1 H W, 1 = missing.

    All of it, what the hole M hides, or what a free-form mask of its own hides, which may be nothing. One network thus
    learns to do without guidance and with it. It is keyed by (seed, visit, id, modality), whatever the batch.

    Args:
        M: B 1 H W, 1 = hole.
        ids: Of the samples.
        modality: `edge` or `segmentation`: their draws are independent.
        seed: The seed of the run.
        visit: How often, or in which epoch, the sample has been seen.
        shares: How often all is missing, and how often the hole; the rest is a mask of its own.
        whole: How often such a mask hides nothing.

    Raises:
        UsageError: Shares that are no probabilities.
    """
    from zoo.keyed import integers

    # Deviation: training withholds guidance at random.
    everything, hole = shares
    if min(*shares, whole) < 0 or sum(shares) > 1 or whole > 1:
        raise UsageError(f"shares of withheld guidance must be probabilities, got {shares} and {whole:g}")
    rows = []
    for i, sample in enumerate(ids):
        first, second = (word / FULL for word in integers(2, "guidance", modality, seed, visit, sample))
        if first < everything:
            rows.append(torch.ones_like(M[i]))
        elif first < everything + hole:
            rows.append(M[i])
        elif second < whole:
            rows.append(torch.zeros_like(M[i]))
        else:
            rows.append(_freeform(M[i], sample, modality, seed, visit))
    return torch.stack(rows)


def _freeform(like: Tensor, sample: str, modality: str, seed: int, visit: int) -> Tensor:
    from zoo.masks.canvas import Canvas
    from zoo.masks.freeform import brush

    canvas = Canvas(dataset=f"guidance/{modality}/{visit}", id=sample, height=like.shape[-2], width=like.shape[-1])
    return torch.from_numpy(brush(canvas, "freeform", seed))[None].to(like)


def assemble(
    X: Tensor,
    M: Tensor,
    E: Tensor | None = None,
    M_E: Tensor | None = None,
    S: Tensor | None = None,
    M_S: Tensor | None = None,
) -> Tensor:
    """The encoder's input [X ; M ; E ; M_E ; S ; M_S], B 7+K H W, with zeros wherever a mask is 1.

    What lies under a mask changes nothing, be it NaN. A modality that is None has no channels.

    Args:
        X: B 3 H W in [-1, 1].
        M: B 1 H W, 1 = hole.
        E: Edges, B 1 H W in [0, 1].
        M_E: B 1 H W, 1 = missing; needed with E.
        S: One-hot segmentation, B K H W.
        M_S: B 1 H W, 1 = missing; needed with S.

    Raises:
        UsageError: A modality without its mask.
    """
    parts = []
    for name, values, mask in (("image", X, M), ("edge", E, M_E), ("segmentation", S, M_S)):
        if values is None:
            continue
        if mask is None:
            raise UsageError(f"the {name} comes without a mask of what is missing", remedy="zeros where all is known")
        # Deviation: the encoder reads the masks besides what they leave of image, edges and segmentation.
        parts += [values.masked_fill(mask > 0.5, 0.0), mask.to(values.dtype)]
    return torch.cat(parts, 1)
