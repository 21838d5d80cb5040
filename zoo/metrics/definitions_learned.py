"""The texts of the metrics that are taken when they are asked for: protocols, feature networks, distributions.

Plain tuples, so that the table can be listed without any library.
"""

from __future__ import annotations

from typing import Literal

Better = Literal["lower", "higher", "none"]
# text, better, unit, digits, libraries
Entry = tuple[str, Better, str, int, tuple[str, ...]]

_GREY = "grey = 0.2125 R + 0.7154 G + 0.0721 B in [0, 1]; on our rounded 8-bit composite, where that code truncates"
_TDANET = f"as TDANet's final evaluation code (CMA's tables), whole image, {_GREY}: "
_PICNET = "as PICNet's evaluation code (NIGDT's table), whole image, RGB in 0..255: "

PROTOCOLS: dict[str, Entry] = {
    "tdanet_l1": (_TDANET + "100 sum |truth - composite| / sum (truth + composite)", "lower", "%", 2, ()),
    "tdanet_psnr": (
        _TDANET + "-10 log10(MSE), where that code has infinity for identical images: 100",
        "higher",
        "dB",
        2,
        (),
    ),
    "tdanet_ssim": (
        _TDANET + "100 times the mean of one SSIM per column: uniform window of 7 pixels along the column, sample "
        "variances, K = (0.01, 0.03), L = the composite's maximum minus its minimum, windows wholly inside; undefined "
        "on a composite of one grey",
        "higher",
        "%",
        2,
        (),
    ),
    "tdanet_tv": (
        _TDANET + "100 times the mean of sqrt(dx^2 + dy^2) of the composite, forward differences that wrap around at "
        "the border",
        "none",
        "%",
        2,
        (),
    ),
    "picnet_l1": (_PICNET + "mean absolute difference", "lower", "levels", 2, ()),
    "picnet_psnr": (_PICNET + "20 log10(255 / sqrt(MSE)), identical images: 100", "higher", "dB", 2, ()),
    "picnet_ssim": (
        _PICNET + "mean over the channels of SSIM with a uniform 7x7 window, sample variances, K = (0.01, 0.03), L = "
        "the composite's maximum minus its minimum, windows wholly inside; undefined on a composite of one level",
        "higher",
        "",
        4,
        (),
    ),
    "picnet_tv": (
        _PICNET + "mean over pixels and channels of sqrt(dx^2 + dy^2) of the composite, forward differences that wrap "
        "around at the border",
        "none",
        "levels",
        2,
        (),
    ),
}

_LPIPS = (
    "LPIPS v0.1 (Zhang et al. 2018) by torchmetrics, {net} with torchvision's ImageNet weights, RGB in [-1, 1], the "
    "image at its own size, {where}"
)
_WHOLE = "mean over the whole image"
_HOLE = "mean over the hole's pixels of the distance map, each layer's map resized bilinearly to the image first"
_CLIP = (
    "100 max(cosine, 0) of the caption that was given and {what}, by open_clip's ViT-B-32-quickgelu with the weights "
    "`openai` and its own preprocessing (bicubic, 224 pixels); undefined without a caption{more}"
)
CROP = (
    "the hole's bounding box, made square about its centre and moved into the image (cut where the square is larger "
    "than the image)"
)
_VISION = ("torchmetrics", "torchvision")

PER_IMAGE: dict[str, Entry] = {
    "lpips_alex": (_LPIPS.format(net="AlexNet", where=_WHOLE), "lower", "", 4, _VISION),
    "lpips_alex_hole": (_LPIPS.format(net="AlexNet", where=_HOLE), "lower", "", 4, _VISION),
    "lpips_vgg": (_LPIPS.format(net="VGG-16", where=_WHOLE), "lower", "", 4, _VISION),
    "lpips_vgg_hole": (_LPIPS.format(net="VGG-16", where=_HOLE), "lower", "", 4, _VISION),
    "dists": (
        "DISTS (Ding et al. 2020) by torchmetrics, VGG-16 with torchvision's ImageNet weights, RGB in [0, 1], the "
        "image at its own size",
        "lower",
        "",
        4,
        _VISION,
    ),
    "clip": (_CLIP.format(what="the composite", more=""), "higher", "", 2, ("open-clip-torch",)),
    "clip_hole": (
        _CLIP.format(what=f"a crop of the composite: {CROP}", more=" or a hole"),
        "higher",
        "",
        2,
        ("open-clip-torch",),
    ),
}

_INCEPTION = (
    "2,048 pooled features of the Inception network of 2015-12-05 (torch-fidelity's port) on 8-bit images, resized to "
    "299 pixels by "
)
_TF = _INCEPTION + "TensorFlow 1's bilinear rule, no antialiasing"
_PAIRS = "truth and composites of the same images"
_FID = (
    f"Frechet distance of Gaussians fitted to {_PAIRS}: {{features}}; unbiased covariances, double precision, the "
    "trace of the root from the eigenvalues of L' S L (L: Cholesky factor of the other covariance); interval: "
    "1.96 standard deviations of resampled ids to either side, centred on the value, for resampling biases it upwards; "
    "depends on the number of images"
)
_KID = f"squared MMD of {_PAIRS} with the kernel (x y / 2048 + 1)^3: {_TF}; "
_SVM = f"linear SVM (squared hinge, C = 1, primal, tolerance 1e-8) on {_PAIRS}: {_TF}; "
_SCORES = {
    "p_ids": "the fraction of images whose composite scores more real than its own truth",
    "u_ids": "the fraction of truths and composites that the SVM mistakes for the other",
}
_PAPER = ", on the images it was fitted to (Zhao et al. 2021); not computed for fewer than 4,096 images"
_CROSS = (
    ", on the half of the images that it was not fitted to, for both halves (drawn with a fixed seed); ties count "
    "half: 0.5 where the two cannot be told apart; interval over images, the SVMs held"
)
_FIDELITY = ("torch-fidelity",)
_SKLEARN = ("torch-fidelity", "scikit-learn")

PER_SET: dict[str, Entry] = {
    "fid_tf": (_FID.format(features=_TF), "lower", "", 3, _FIDELITY),
    "fid_clean": (
        _FID.format(
            features=_INCEPTION
            + "Pillow's antialiased bicubic filter on floats, clipped and not rounded, as clean-fid "
            "does with PNG files"
        ),
        "lower",
        "",
        3,
        (*_FIDELITY, "pillow"),
    ),
    "kid": (
        _KID + "over all pairs, a composite and its own truth among them, as the libraries do: unbiased for sets that "
        "are independent, else lower by about 2/n of what own pairs are more alike than others; interval by the "
        "variance of its projection on the images",
        "lower",
        "",
        5,
        _FIDELITY,
    ),
    "kid_subsets": (
        _KID + "mean over 50 subsets of 1,000 drawn with seed 2020, by torch-fidelity; not computed for fewer images",
        "lower",
        "",
        5,
        _FIDELITY,
    ),
    "p_ids": (_SVM + _SCORES["p_ids"] + _PAPER, "higher", "", 4, _SKLEARN),
    "u_ids": (_SVM + _SCORES["u_ids"] + _PAPER, "higher", "", 4, _SKLEARN),
    "p_ids_cross": (_SVM + _SCORES["p_ids"] + _CROSS, "higher", "", 4, _SKLEARN),
    "u_ids_cross": (_SVM + _SCORES["u_ids"] + _CROSS, "higher", "", 4, _SKLEARN),
}
REVISIONS = {"fid_tf": "2", "fid_clean": "2", "p_ids_cross": "2"}
"""Of metrics that have changed: distances are never below 0, and ties of the cross-fitted P-IDS count half."""
