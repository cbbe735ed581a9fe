"""Archives of the shape of the released ones, made of a few small images."""

import io
import zipfile

import numpy as np
from PIL import Image

from convlora.data.catalog.sets import SETS


def png(array, **options):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format=options.pop("format", "PNG"), **options)
    return buffer.getvalue()


def picture(seed, classes=2, size=(40, 48)):
    """An image with bright discs and its class ids."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: size[0], : size[1]]
    ids = np.zeros(size, dtype=np.uint8)
    for class_id in range(1, classes):
        row, column = rng.integers(8, 36, 2)
        ids[(rows - row) ** 2 + (columns - column) ** 2 < 60] = class_id
    image = (rng.normal(60, 10, (*size, 3)) + ids[..., None] * (120 / (classes - 1))).clip(0, 255)
    return image.astype(np.uint8), ids


def members(name, train=4, val=2, test=2):
    """Path → bytes of an archive of this set."""
    entry = SETS[name]
    if entry.archive is None:
        return _by_folder({"train": train, "validation": val, "test": test})
    parts = {"train.csv": train, "val.csv": val} | {part.csv: test for part in entry.tests}
    files, seed = {}, 0
    for csv, count in parts.items():
        lines = ["image,label"]
        for _ in range(count):
            image, ids = picture(seed)
            files[f"images/{seed}.jpg"] = png(image, format="JPEG", quality=95)
            files[f"masks/{seed}.png"] = png(ids * 255)
            lines.append(f"images/{seed}.jpg,masks/{seed}.png")
            seed += 1
        files[csv] = ("\n".join(lines) + "\n").encode()
    return {f"{entry.archive}/{path}": content for path, content in files.items()}


def _by_folder(counts):
    files, seed = {}, 0
    for folder, count in counts.items():
        for _ in range(count):
            image, ids = picture(seed, classes=12)
            files[f"Trans10K_cls12/{folder}/images/{seed}.jpg"] = png(image, format="JPEG", quality=95)
            files[f"Trans10K_cls12/{folder}/masks_12/{seed}_mask.png"] = png(ids)
            seed += 1
    return files


def write_zip(path, files):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path
