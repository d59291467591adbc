"""A text detector as an ONNX file, small enough to be written by hand, without the onnx package.

Its one layer is a convolution of the picture's three channels, its output their sigmoid: it calls
text whatever is brighter than a bound.
"""

from __future__ import annotations

import struct
from pathlib import Path

_FLOAT = 1
"""ONNX's name of 32-bit floats."""


def save(file: Path, gain: float, bound: float, maps: int = 1) -> Path:
    """sigmoid(gain * (mean of the normalised channels - bound)), (1, 3, H, W) to (1, maps, H, W).

    maps: one where it is to be a text detector.
    """
    weight = _tensor("weight", (maps, 3, 1, 1), [gain / 3] * 3 * maps)
    bias = _tensor("bias", (maps,), [-gain * bound] * maps)
    graph = b"".join(
        (
            _field(1, _node("Conv", ("picture", "weight", "bias"), "map")),
            _field(1, _node("Sigmoid", ("map",), "text")),
            _field(2, b"detector"),
            _field(5, weight),
            _field(5, bias),
            _field(11, _value("picture", (1, 3, "height", "width"))),
            _field(12, _value("text", (1, maps, "height", "width"))),
        )
    )
    opset = _field(8, _number(2, 13))
    file.write_bytes(_number(1, 8) + opset + _field(7, graph))
    return file


def _node(kind: str, inputs: tuple[str, ...], output: str) -> bytes:
    named = b"".join(_field(1, name.encode()) for name in inputs)
    return named + _field(2, output.encode()) + _field(4, kind.encode())


def _tensor(name: str, shape: tuple[int, ...], values: list[float]) -> bytes:
    sizes = b"".join(_number(1, size) for size in shape)
    raw = struct.pack(f"<{len(values)}f", *values)
    return sizes + _number(2, _FLOAT) + _field(8, name.encode()) + _field(9, raw)


def _value(name: str, shape: tuple[int | str, ...]) -> bytes:
    sizes = b"".join(
        _field(1, _number(1, size) if isinstance(size, int) else _field(2, size.encode()))
        for size in shape
    )
    kind = _field(1, _number(1, _FLOAT) + _field(2, sizes))
    return _field(1, name.encode()) + _field(2, kind)


def _number(field: int, value: int) -> bytes:
    """A protocol buffer's field of a whole number."""
    return _varint(field << 3) + _varint(value)


def _field(field: int, content: bytes) -> bytes:
    """A protocol buffer's field of bytes, a text or a message."""
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])
