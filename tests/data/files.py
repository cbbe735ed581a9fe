"""Small image files for the tests of this folder."""

import struct
import zlib

import numpy as np
from PIL import Image

# How each EXIF orientation stores the upright picture, written down from the standard with numpy.
STORED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, -1),
}


def noise(height, width, channels=3, seed=0, dtype=np.uint8):
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def save(path, array, mode=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(np.asarray(array))
    (picture if mode is None else picture.convert(mode)).save(path, **options)
    return path


def data_set(folder, masks, size=(6, 8)):
    """A folder of images beside a folder of masks, given as arrays or as values that fill one."""
    for i, mask in enumerate(masks):
        values = np.broadcast_to(np.asarray(mask, dtype=np.uint8), size) if np.ndim(mask) < 2 else np.asarray(mask)
        save(folder / "images" / f"s{i:02d}.png", noise(*values.shape, seed=i))
        save(folder / "masks" / f"s{i:02d}.png", values)
    return {"images": str(folder / "images"), "masks": str(folder / "masks")}


def tiff(samples, bits, *, height, width, photometric=1, per_pixel=1, planar=1, sample_format=1):
    """A little-endian TIFF of one uncompressed strip, for layouts that Pillow cannot write."""
    extra = struct.pack(f"<{per_pixel}H", *[bits] * per_pixel)
    tags = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, per_pixel, bits if per_pixel == 1 else 8),
        (259, 3, 1, 1),
        (262, 3, 1, photometric),
        (273, 4, 1, 8 + len(extra)),
        (277, 3, 1, per_pixel),
        (278, 4, 1, height),
        (279, 4, 1, len(samples)),
        (284, 3, 1, planar),
        (339, 3, 1, sample_format),
    ]
    offset = 8 + len(extra) + len(samples)
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return b"II*\x00" + struct.pack("<I", offset) + extra + samples + struct.pack("<H", len(tags)) + entries + bytes(4)


def png_header(height, width, depth=8, colour=2):
    """The first 33 bytes of a PNG file of any size."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))


def png_grey(values, depth):
    """A grey PNG of 2 or 4 bits a pixel, which Pillow cannot write; the width fills whole bytes."""
    height, width = values.shape
    packed = np.zeros((height, width * depth // 8), dtype=np.uint8)
    for i in range(8 // depth):
        packed |= (values[:, i :: 8 // depth] << (8 - depth * (i + 1))).astype(np.uint8)
    data = zlib.compress(b"".join(b"\x00" + row.tobytes() for row in packed))
    chunks = b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in ((b"IDAT", data), (b"IEND", b""))
    )
    return png_header(height, width, depth, 0) + chunks


def corrupted(content, rng):
    """Bytes changed at random, most of them where headers are; sometimes cut, doubled or pushed apart."""
    content = bytearray(content)
    for _ in range(rng.integers(1, 5)):
        place = rng.integers(0, min(600, len(content)) if rng.random() < 0.4 else len(content))
        length = int(rng.choice([1, 1, 1, 2, 4]))
        content[place : place + length] = rng.choice([b"\0", b"\xff", b"\x7f", rng.bytes(1)]) * length
    kind = rng.random()
    if kind < 0.15:
        del content[rng.integers(0, len(content)) :]
    elif kind < 0.2:
        content[0:0] = rng.bytes(rng.integers(1, 9))
    elif kind < 0.25:
        place = rng.integers(0, len(content))
        content[place:place] = content[place : place + 50]
    return bytes(content)
