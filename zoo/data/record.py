"""A sample as one run of bytes: a header in JSON, then its arrays as they lie in memory.

    8 bytes     length of the header, little-endian
    header      {"id": ..., "captions": [...], "arrays": [["image", "|u1", [256, 256, 3]], ...]}, UTF-8
    arrays      one behind the other; `segments` as packed bits, eight pixels a byte

Reading copies nothing but small arrays: an image is a view of the bytes, which may be those of a file mapped to memory.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.data.base import Sample

VERSION = 1  # to be raised with every change of the layout
FIELDS = ("image", "boxes", "segments", "segmentation", "mask")
_LENGTH = 8


def pack(sample: Sample) -> bytes:
    """The bytes of a sample."""
    arrays = []
    parts = []
    for name in FIELDS:
        array = getattr(sample, name)
        if array is None:
            continue
        arrays.append([name, array.dtype.str, list(array.shape)])
        parts.append(np.packbits(array).tobytes() if name == "segments" else np.ascontiguousarray(array).tobytes())
    header = {"id": sample.id, "captions": list(sample.captions), "arrays": arrays}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    return b"".join([len(text).to_bytes(_LENGTH, "little"), text, *parts])


def unpack(record: memoryview) -> Sample:
    """The sample of some bytes, whose image is a view of them that cannot be written to.

    Raises:
        ValueError: The bytes are no record. (Damage within the arrays shows in a hash alone.)
    """
    start = _LENGTH + int.from_bytes(record[:_LENGTH], "little")
    header: dict[str, Any] = json.loads(bytes(record[_LENGTH:start]))
    found: dict[str, NDArray[Any]] = {}
    for name, dtype, shape in header["arrays"]:
        count = int(np.prod(shape))
        if name == "segments":
            size = -(-count // 8)
            bits = np.frombuffer(record, np.uint8, size, start)
            found[name] = np.unpackbits(bits, count=count).view(np.bool_).reshape(shape)
        else:
            array = np.frombuffer(record, dtype, count, start).reshape(shape)
            size = array.nbytes
            found[name] = array if name == "image" else array.copy()
        start += size
    return Sample(id=header["id"], captions=tuple(header["captions"]), **found)
