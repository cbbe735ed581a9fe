"""Answers of the encoder's frozen blocks, kept on disk.

Blocks before the first trained one give the same answer for the same pixels. Where images repeat (no augmentation, or a
fixed number of views), they are computed once.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers.models.sam.modeling_sam import SamVisionEncoder

from convlora.adapter.saving import load_tensors, save_tensors
from convlora.errors import OutputError, WeightsError
from convlora.sam.prefix import encode_prefix

_NAME = "states"


class PrefixCache:
    """Files named by the pixels, in a folder named by what computed them.

    Args:
        folder: May be shared by runs, also at the same time; made when needed.
        encoder: Its frozen blocks give the folder's name, so other weights or sizes never meet.
        blocks: How many blocks are frozen.
        precision: Of the computation.
        max_bytes: Of the folder, as this process knows it. When it is reached, what other weights left is deleted,
            oldest first; then nothing more is kept.
    """

    def __init__(self, folder: Path, encoder: SamVisionEncoder, blocks: int, precision: str, max_bytes: int) -> None:
        self.blocks = blocks
        self.max_bytes = max_bytes
        self.root = folder
        self.folder = folder / _key(encoder, blocks, precision)
        self.used = sum(size for _, size, _ in _files(folder))
        self.computed = 0

    def states(self, encoder: SamVisionEncoder, pixel_values: Tensor, digests: Sequence[str]) -> Tensor:
        """What `encode_prefix` gives, computed only for images that were not seen before.

        Args:
            encoder: Of the weights that the cache was made for.
            pixel_values: (b, 3, S, S).
            digests: `digest` of each image.
        """
        paths = [self.folder / f"{name}.safetensors" for name in digests]
        found = [_read(path) for path in paths]
        missing = [i for i, states in enumerate(found) if states is None]
        if missing:
            with torch.no_grad():
                computed = encode_prefix(encoder, pixel_values[missing], self.blocks)
            self.computed += len(missing)
            for i, states in zip(missing, computed, strict=True):
                found[i] = states
                self._keep(paths[i], states)
        return torch.stack([states.to(pixel_values.device) for states in found if states is not None])

    def _keep(self, path: Path, states: Tensor) -> None:
        size = states.numel() * states.element_size() + 128
        if self.used + size > self.max_bytes:
            self._delete_foreign(size)
        if self.used + size > self.max_bytes:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            save_tensors({_NAME: states.cpu().contiguous()}, path)
        except (OutputError, OSError):
            self.max_bytes = self.used  # a full disk ends the caching, not the training
            return
        self.used += size

    def _delete_foreign(self, size: int) -> None:
        foreign = [entry for entry in _files(self.root) if entry[2].parent != self.folder]
        for _, file_size, file in sorted(foreign):
            if self.used + size <= self.max_bytes:
                return
            self.used -= file_size
            file.unlink(missing_ok=True)


def digest(pixels: Tensor) -> str:
    """Name of one image's pixels (3, S, S)."""
    return hashlib.sha256(_bytes(pixels)).hexdigest()


def _files(folder: Path) -> list[tuple[float, int, Path]]:
    """(time, bytes, path) of every file kept; another process may delete some meanwhile."""
    entries = []
    for file in folder.rglob("*.safetensors"):
        with contextlib.suppress(FileNotFoundError):
            status = file.stat()
            entries.append((status.st_mtime, status.st_size, file))
    return entries


def _read(path: Path) -> Tensor | None:
    try:
        return load_tensors(path)[_NAME] if path.is_file() else None
    except (WeightsError, KeyError):
        return None  # damaged: computed again


def _key(encoder: SamVisionEncoder, blocks: int, precision: str) -> str:
    parts = [encoder.patch_embed, *encoder.layers[:blocks], *([encoder.neck] if blocks == len(encoder.layers) else [])]
    device = next(encoder.patch_embed.parameters()).device.type
    about = f"{torch.__version__} {device} {blocks} {precision} {encoder.config.to_json_string()}"
    hashed = hashlib.sha256(about.encode())
    tensors = [value for part in parts for value in part.state_dict().values()]
    for tensor in [*tensors, *([] if encoder.pos_embed is None else [encoder.pos_embed])]:
        hashed.update(_bytes(tensor))
    return hashed.hexdigest()[:16]


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
