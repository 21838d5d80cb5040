"""The mixtures that methods train with, by name: `mixture:cma` stands for the text here.

What a method's paper leaves open is ours. Each method's `paper` recipe trains with the mixture of its name.
"""

from __future__ import annotations

MIXTURES: dict[str, tuple[str, str]] = {
    "deepfill": ("deepfill", "DeepFill-v2, a box and brush strokes in one mask"),
    "tdanet": ("center,picnet:regular,picnet:irregular,object", "TDANet, in equal parts"),
    "cma": ("center,picnet:regular,picnet:irregular,object", "as TDANet, since the paper names none"),
    "nigdt": ("center,picnet:regular,picnet:irregular,object", "as TDANet, since the paper names none"),
    "picnet": ("center,picnet:regular,picnet:irregular", "PICNet, in equal parts"),
    "ecdm": (
        "10*freeform,5*rectangle:5-65,3*instance,half,outpaint:random",
        "half brush, a quarter rectangles, 15 % objects, 10 % halves and sides",
    ),
    "mminvertfill": (
        "mmt:strokes,mmt:square,irregular:40-60,irregular:70-90",
        "MMT's strokes and squares, and the large test masks",
    ),
    "mmt": ("mmt:strokes,mmt:square", "MMT, in equal parts"),
    "lama": ("lama:train", "LaMa's strokes or boxes"),
    "mat": ("mat", "MAT's rectangles and strokes"),
    "comodgan": ("comodgan", "CoModGAN's rectangles and strokes"),
    "nano": ("2*object,freeform,center", "every nano method of the zoo"),
}
"""Name to the mixture's text and a line about it."""
