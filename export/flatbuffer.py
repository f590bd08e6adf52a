"""Reading and writing flatbuffer tables by the positions of their fields in a schema."""

import flatbuffers
import numpy as np
from flatbuffers import number_types
from flatbuffers.table import Table


def byte_vector(builder: flatbuffers.Builder, data: bytes) -> int:
    """[ubyte] (force_align: 16)."""
    builder.StartVector(1, len(data), 16)
    builder.head = builder.Head() - len(data)
    builder.Bytes[builder.Head() : builder.Head() + len(data)] = data
    return builder.EndVector()


def offset_vector(builder: flatbuffers.Builder, offsets: list[int]) -> int:
    """A vector of tables or strings."""
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return builder.EndVector()


def table(
    builder: flatbuffers.Builder,
    offsets: dict[int, int] | None = None,
    *,
    bytes_: dict[int, int] | None = None,
    uints: dict[int, int] | None = None,
) -> int:
    """A table from its fields by position in the schema; `offsets` are strings, vectors, tables."""
    offsets, bytes_, uints = offsets or {}, bytes_ or {}, uints or {}
    builder.StartObject(1 + max([*offsets, *bytes_, *uints], default=-1))
    for slot, value in offsets.items():
        builder.PrependUOffsetTRelativeSlot(slot, value, 0)
    for slot, value in uints.items():
        builder.PrependUint32Slot(slot, value, 0)
    for slot, value in bytes_.items():
        builder.PrependUint8Slot(slot, value, 0)
    return builder.EndObject()


class Reader:
    """Fields of a flatbuffer table by position in the schema; missing ones are empty."""

    def __init__(self, buffer: bytes, position: int):
        self._table = Table(buffer, position)

    @classmethod
    def root(cls, buffer: bytes) -> "Reader":
        return cls(buffer, int(np.frombuffer(buffer[:4], "<u4")[0]))

    def _at(self, slot: int) -> int:
        """Where a field lies, 0 if it is missing."""
        offset = self._table.Offset(4 + 2 * slot)
        return self._table.Pos + offset if offset else 0

    def byte(self, slot: int) -> int:
        at = self._at(slot)
        return self._table.Get(number_types.Uint8Flags, at) if at else 0

    def string(self, slot: int) -> str:
        at = self._at(slot)
        return self._table.String(at).decode() if at else ""

    def table(self, slot: int) -> "Reader":
        return Reader(self._table.Bytes, self._table.Indirect(self._at(slot)))

    def tables(self, slot: int) -> "list[Reader]":
        return [Reader(self._table.Bytes, self._table.Indirect(at)) for at in self._items(slot, 4)]

    def floats(self, slot: int) -> tuple[float, ...]:
        return tuple(
            float(self._table.Get(number_types.Float32Flags, at)) for at in self._items(slot, 4)
        )

    def raw(self, slot: int) -> bytes:
        at = self._items(slot, 1)
        return bytes(self._table.Bytes[at.start : at.stop])

    def _items(self, slot: int, width: int) -> range:
        """Positions of a vector's items."""
        if not self._at(slot):
            return range(0)
        offset = self._at(slot) - self._table.Pos
        start = self._table.Vector(offset)
        return range(start, start + width * self._table.VectorLen(offset), width)
