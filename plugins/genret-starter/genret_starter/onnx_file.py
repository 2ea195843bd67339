"""Reads the weights of an ONNX file without the onnx package: only the protobuf fields of tensors.

Only what `weights.py` needs: dense float32, int8 and uint8 tensors stored in the file itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from genret import GenretError

# field numbers of onnx.proto3
_MODEL_GRAPH = 7
_GRAPH_NODE, _GRAPH_TENSOR = 1, 5
_NODE_INPUT, _NODE_NAME, _NODE_OPERATOR = 1, 3, 4
_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_FLOATS, _TENSOR_INTS, _TENSOR_NAME, _TENSOR_RAW = 1, 2, 4, 5, 8, 9
_TYPES: dict[int, np.dtype] = {1: np.dtype("<f4"), 2: np.dtype("u1"), 3: np.dtype("i1")}


class Node(NamedTuple):
    name: str
    operator: str
    inputs: tuple[str, ...]


class OnnxWeights(NamedTuple):
    tensors: dict[str, np.ndarray]
    nodes: list[Node]

    def dequantized(self, name: str) -> np.ndarray:
        """float32 of the tensor stored as `{name}_quantized`, `_scale` and `_zero_point`."""
        quantized = self.tensors[f"{name}_quantized"].astype(np.int32)
        zero, scale = self.tensors[f"{name}_zero_point"], self.tensors[f"{name}_scale"]
        return (quantized - zero.astype(np.int32)).astype(np.float32) * scale


def read_onnx(path: Path) -> OnnxWeights:
    try:
        return _read(path.read_bytes())
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise GenretError(f"{path} is no ONNX file that can be read: {error}") from error


def _read(data: bytes) -> OnnxWeights:
    tensors: dict[str, np.ndarray] = {}
    nodes: list[Node] = []
    for number, graph in _fields(memoryview(data)):
        if number != _MODEL_GRAPH:
            continue
        for kind, value in _fields(graph):
            if kind == _GRAPH_TENSOR:
                name, tensor = _tensor(value)
                tensors[name] = tensor
            elif kind == _GRAPH_NODE:
                nodes.append(_node(value))
    return OnnxWeights(tensors, nodes)


def _node(data: memoryview) -> Node:
    name = operator = ""
    inputs: list[str] = []
    for number, value in _fields(data):
        if number == _NODE_INPUT:
            inputs.append(str(value, "utf-8"))
        elif number == _NODE_NAME:
            name = str(value, "utf-8")
        elif number == _NODE_OPERATOR:
            operator = str(value, "utf-8")
    return Node(name, operator, tuple(inputs))


def _tensor(data: memoryview) -> tuple[str, np.ndarray]:
    name, dtype = "", 0
    shape: list[int] = []
    raw: Any = None
    for number, value in _fields(data):
        if number == _TENSOR_NAME:
            name = str(value, "utf-8")
        elif number == _TENSOR_TYPE:
            dtype = value
        elif number == _TENSOR_DIMS:
            shape += [value] if isinstance(value, int) else _varints(value)
        elif number == _TENSOR_RAW:
            raw = np.frombuffer(value, _TYPES[dtype]) if dtype in _TYPES else value
        elif number == _TENSOR_FLOATS:
            raw = np.frombuffer(value, "<f4")
        elif number == _TENSOR_INTS:
            numbers = [value] if isinstance(value, int) else _varints(value)
            # negative numbers are stored as 64-bit two's complement
            raw = np.array([n - 2**64 if n >= 2**63 else n for n in numbers])
    if dtype not in _TYPES:
        return name, np.empty(0)  # shapes and masks of the graph, not weights
    if raw is None:
        raise ValueError(f"tensor {name} has no data")
    return name, np.asarray(raw).astype(_TYPES[dtype]).reshape(shape)


def _fields(data: memoryview) -> Iterator[tuple[int, Any]]:
    """Field numbers and values of one protobuf message."""
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        wire = key & 7
        if wire == 0:
            value, position = _varint(data, position)
            yield key >> 3, value
            continue
        if wire == 2:
            size, position = _varint(data, position)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire}")
        if position + size > len(data):
            raise ValueError("it ends in the middle of a field")
        yield key >> 3, data[position : position + size]
        position += size


def _varints(data: memoryview) -> list[int]:
    values, position = [], 0
    while position < len(data):
        value, position = _varint(data, position)
        values.append(value)
    return values


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, position
        if shift > 63:
            raise ValueError("a number is longer than 64 bits")
