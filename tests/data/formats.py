"""Data sets of known pixels in every format and mode, written with the libraries of their fields or by hand."""

import io
from xml.etree import ElementTree

import numpy as np
import yaml
from PIL import Image
from pycocotools import mask as coco_masks

from tests.data.known import COLOURS, IDS, IMAGES, NAMED, NAMES, corners, parts_of
from tests.data.readers.drawing import write_json
from tests.data.readers.test_label_studio import pack
from tests.data.scientific.formats import dicom, geotiff, nifti, outlines_on_earth, tiff_pages


def save_images(folder, suffix=".png"):
    folder.mkdir(parents=True)
    for i, image in enumerate(IMAGES):
        Image.fromarray(image).save(folder / f"s{i}{suffix}")
    return str(folder)


def folders(mode="L", suffix=".png", **options):
    def write(root):
        (root / "masks").mkdir()
        for i, ids in enumerate(IDS):
            _picture(ids, mode).save(root / "masks" / f"s{i}{suffix}", **options)
        return {"images": save_images(root / "images"), "masks": str(root / "masks"), **NAMED}

    return write


def _picture(ids, mode):
    if mode == "P":
        picture = Image.fromarray(ids)
        picture.putpalette([v for colour in COLOURS for v in colour])
        return picture
    if mode in ("LA", "RGB", "RGBA"):
        return Image.fromarray(ids).convert(mode)
    return Image.fromarray(ids.astype({"L": np.uint8, "I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]))


def binary(mode):
    def write(root):
        (root / "masks").mkdir()
        for i, ids in enumerate(IDS):
            Image.fromarray((ids > 0) * np.uint8(255)).convert(mode).save(root / "masks" / f"s{i}.png")
        return {"images": save_images(root / "images"), "masks": str(root / "masks")}

    write.binary = True
    return write


def coloured(mode):
    def write(root):
        (root / "masks").mkdir()
        for i, ids in enumerate(IDS):
            picture = _picture(ids, "P")
            (picture if mode == "P" else picture.convert(mode)).save(root / "masks" / f"s{i}.png")
        lines = [f"{name} {' '.join(map(str, colour))}" for name, colour in zip(NAMES, COLOURS, strict=True)]
        (root / "colours.txt").write_text("\n".join(lines))
        more = {"mask_format": "colours", "colours": str(root / "colours.txt")}
        return {"images": save_images(root / "images"), "masks": str(root / "masks"), **more}

    return write


def pattern(root):
    images = save_images(root / "all")
    for i, ids in enumerate(IDS):
        Image.fromarray(ids).save(root / "all" / f"s{i}_mask.png")
    return {"images": images, "mask_pattern": "{stem}_mask.png", **NAMED}


def listing(column):
    def write(root):
        folders()(root)
        rows = [f"images/s{i}.png,masks/s{i}.png" for i in range(len(IDS))]
        (root / "list.csv").write_text("\n".join([f"image,{column}", *rows]))
        return {"images": str(root / "list.csv"), **NAMED}

    return write


def coco(kind):
    def outlines(ids):
        for class_id in (1, 2):
            inside = np.asfortranarray(ids == class_id).astype(np.uint8)
            packed = coco_masks.encode(inside)
            if kind == "packed runs":
                yield class_id, {"size": packed["size"], "counts": packed["counts"].decode()}
            elif kind == "runs":
                flat = np.concatenate([[0], inside.ravel(order="F")])
                bounds = [0, *np.flatnonzero(np.diff(flat)).tolist(), inside.size]
                yield class_id, {"size": list(ids.shape), "counts": np.diff(bounds).tolist()}
        if kind == "polygons":
            for class_id, *part in parts_of(ids):
                yield class_id, [[float(v) for point in corners(*part) for v in point]]

    def write(root):
        content = {"images": [], "annotations": [], "categories": [{"id": 7, "name": "a"}, {"id": 9, "name": "b"}]}
        for i, ids in enumerate(IDS):
            height, width = ids.shape
            content["images"].append({"id": i, "file_name": f"s{i}.png", "height": height, "width": width})
            for class_id, outline in outlines(ids):
                number = len(content["annotations"]) + 1
                entry = {"id": number, "image_id": i, "category_id": 5 + 2 * class_id, "iscrowd": 0}
                content["annotations"].append({**entry, "segmentation": outline, "bbox": [0, 0, 1, 1], "area": 1})
        path = write_json(root / "instances.json", content)
        return {"images": save_images(root / "images"), "masks": str(path)}

    return write


def panoptic(root):
    categories = [{"id": 3, "name": "a", "isthing": 1}, {"id": 5, "name": "b", "isthing": 0}]
    categories.append({"id": 8, "name": "background", "isthing": 0})
    numbers = np.array([70_000, 300, 5])  # of segments: more than one byte of the PNG
    content = {"images": [], "annotations": [], "categories": categories}
    (root / "panoptic").mkdir()
    for i, ids in enumerate(IDS):
        segments = numbers[ids]
        channels = np.stack([segments % 256, segments // 256 % 256, segments // 65536], axis=2)
        Image.fromarray(channels.astype(np.uint8)).save(root / "panoptic" / f"s{i}.png")
        height, width = ids.shape
        content["images"].append({"id": i, "file_name": f"s{i}.png", "height": height, "width": width})
        info = [{"id": int(n), "category_id": c, "iscrowd": 0} for n, c in zip(numbers, (8, 3, 5), strict=True)]
        content["annotations"].append({"image_id": i, "file_name": f"s{i}.png", "segments_info": info})
    path = write_json(root / "panoptic.json", content)
    return {"images": save_images(root / "images"), "masks": str(path)}


def yolo(root):
    save_images(root / "images")
    (root / "labels").mkdir()
    for i, ids in enumerate(IDS):
        height, width = ids.shape
        lines = []
        for class_id, *part in parts_of(ids):
            points = [f"{x / width:.8f} {y / height:.8f}" for x, y in corners(*part)]
            lines.append(" ".join([str(class_id - 1), *points]))
        (root / "labels" / f"s{i}.txt").write_text("\n".join(lines))
    (root / "data.yaml").write_text(yaml.safe_dump({"train": "images", "names": ["a", "b"]}))
    return {"images": str(root)}


def label_studio(kind):
    def results(ids):
        height, width = ids.shape
        size = {"original_width": width, "original_height": height, "image_rotation": 0}
        if kind == "brush":
            for class_id in (1, 2):
                alpha = np.repeat(((ids == class_id) * 255).astype(int).ravel(), 4)
                value = {"format": "rle", "rle": pack(alpha.tolist()), "brushlabels": [NAMES[class_id]]}
                yield {"type": "brushlabels", "value": value, **size}
            return
        for class_id, row, left, right in parts_of(ids):
            percent = [[100 * x / width, 100 * y / height] for x, y in corners(row, left, right)]
            value = {"points": percent, "polygonlabels": [NAMES[class_id]]}
            yield {"type": "polygonlabels", "value": value, **size}

    def write(root):
        tasks = [
            {
                "id": i,
                "data": {"image": f"/data/local-files/?d=images/s{i}.png"},
                "annotations": [{"id": i, "was_cancelled": False, "result": list(results(ids))}],
            }
            for i, ids in enumerate(IDS)
        ]
        path = write_json(root / "export.json", tasks)
        return {"images": save_images(root / "images"), "masks": str(path)}

    return write


def roboflow_masks(root):
    save_images(root / "train", ".png")
    for i, ids in enumerate(IDS):
        Image.fromarray(ids).save(root / "train" / f"s{i}_mask.png")
    (root / "train" / "_classes.csv").write_text("Pixel Value, Class\n0, background\n1, a\n2, b\n")
    return {"images": str(root)}


def run_lengths(root):
    """Runs down the columns of the whole mask of a class."""
    lines = ["ImageId,ClassId,EncodedPixels"]
    for i, ids in enumerate(IDS):
        for class_id in (1, 2):
            inside = (ids == class_id).ravel(order="F").astype(int)
            bounds = np.flatnonzero(np.diff(inside, prepend=0, append=0))
            pairs = zip((bounds[::2] + 1).tolist(), (bounds[1::2] - bounds[::2]).tolist(), strict=True)
            lines.append(f"s{i}.png,{NAMES[class_id]}," + " ".join(f"{start} {length}" for start, length in pairs))
    (root / "train.csv").write_text("\n".join(lines))
    return {"images": save_images(root / "images"), "masks": str(root / "train.csv")}


def labelme(root):
    images = save_images(root / "set")
    for i, ids in enumerate(IDS):
        shapes = [
            {
                "label": NAMES[class_id],
                "shape_type": "polygon",
                "points": corners(*part),
                "group_id": None,
                "flags": {},
            }
            for class_id, *part in parts_of(ids)
        ]
        height, width = ids.shape
        content = {"version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": f"s{i}.png", "imageData": None}
        write_json(root / "set" / f"s{i}.json", {**content, "imageHeight": height, "imageWidth": width})
    return {"images": images}


def cvat(root):
    document = ElementTree.Element("annotations")
    labels = ElementTree.SubElement(ElementTree.SubElement(ElementTree.SubElement(document, "meta"), "task"), "labels")
    for name in NAMES[1:]:
        ElementTree.SubElement(ElementTree.SubElement(labels, "label"), "name").text = name
    for i, ids in enumerate(IDS):
        height, width = ids.shape
        size = {"id": str(i), "name": f"s{i}.png", "width": str(width), "height": str(height)}
        image = ElementTree.SubElement(document, "image", size)
        for class_id, *part in parts_of(ids):
            points = ";".join(f"{x}.0,{y}.0" for x, y in corners(*part))
            ElementTree.SubElement(image, "polygon", {"label": NAMES[class_id], "points": points, "occluded": "0"})
    ElementTree.ElementTree(document).write(root / "annotations.xml")
    return {"images": save_images(root / "images"), "masks": str(root / "annotations.xml")}


def voc(mode):
    def write(root):
        save_images(root / "JPEGImages")
        (root / "SegmentationClass").mkdir()
        for i, ids in enumerate(IDS):
            picture = _picture(ids, "P")
            picture = picture.convert("RGB") if mode == "RGB" else picture
            picture.save(root / "SegmentationClass" / f"s{i}.png")
        lines = [f"{name}:{','.join(map(str, colour))}::" for name, colour in zip(NAMES, COLOURS, strict=True)]
        (root / "labelmap.txt").write_text("# label:color_rgb:parts:actions\n" + "\n".join(lines))
        return {"images": str(root)}

    return write


def _png(array):
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "PNG")
    return stream.getvalue()


def parquet(root):
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = {"image": [_png(image) for image in IMAGES], "mask": [_png(ids) for ids in IDS]}
    pq.write_table(pa.table(rows), root / "t.parquet")
    return {"images": str(root / "t.parquet"), **NAMED}


def hf(root):
    import datasets

    features = datasets.Features({"image": datasets.Image(), "mask": datasets.Image()})
    rows = {"image": [Image.fromarray(image) for image in IMAGES], "mask": [Image.fromarray(ids) for ids in IDS]}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(root / "saved")
    return {"images": str(root / "saved"), **NAMED}


FORMATS = {
    **{f"folders, {mode}": folders(mode) for mode in ("L", "P", "LA", "RGB", "RGBA", "I;16")},
    **{f"folders, TIFF {mode}": folders(mode, ".tif") for mode in ("L", "P", "I;16", "I", "F")},
    "folders, BMP": folders("L", ".bmp"),
    "folders, WebP": folders("RGB", ".webp", lossless=True),
    **{f"folders, 0 and 255, {mode}": binary(mode) for mode in ("1", "L", "RGB")},
    **{f"folders, colours, {mode}": coloured(mode) for mode in ("RGB", "RGBA", "P")},
    "mask_pattern": pattern,
    "csv, mask": listing("mask"),
    "csv, label": listing("label"),
    **{f"coco, {kind}": coco(kind) for kind in ("packed runs", "runs", "polygons")},
    "coco-panoptic": panoptic,
    "yolo": yolo,
    "label-studio, polygons": label_studio("polygons"),
    "label-studio, brush": label_studio("brush"),
    "roboflow-masks": roboflow_masks,
    "run-lengths": run_lengths,
    "labelme": labelme,
    "cvat": cvat,
    "voc, P": voc("P"),
    "voc, RGB": voc("RGB"),
    "parquet": parquet,
    "hf": hf,
    **{
        f"nifti, {codes} {t}": nifti(codes, t)
        for codes, t in (("RAS", "u1"), ("LPS", "i2"), ("SAL", "f4"), ("PIR", "u1"))
    },
    "dicom": dicom,
    **{f"geotiff, {dtype}": geotiff(dtype) for dtype in ("uint8", "int16", "int32", "float32")},
    **{f"outlines on earth, {suffix}": outlines_on_earth(suffix) for suffix in (".geojson", ".gpkg", ".shp", ".fgb")},
    "tiff pages": tiff_pages,
}
"""By name: a function that writes the data set into a folder, and returns the settings to read it with."""
