"""Image file directories (IFD): of EXIF blobs and TIFF files, as of TIFF 6.0 (section 2) and BigTIFF."""

import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from mmap import mmap
from pathlib import Path

EXIF_POINTER, GPS_POINTER, INTEROP_POINTER = 34665, 34853, 40965
_POINTERS = (EXIF_POINTER, GPS_POINTER, INTEROP_POINTER)

_SIZES = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
    16: 8,
    17: 8,
    18: 8,
}
"""Bytes of a value, by its type number."""
_UNITS = _SIZES | {5: 4, 10: 4}  # what is byte-swapped: a rational is two 4-byte numbers
_INTEGERS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}

SHORT, LONG, RATIONAL, UNDEFINED, BYTE = 3, 4, 5, 7, 1


Bytes = bytes | memoryview | mmap


@dataclass(frozen=True, slots=True)
class Form:
    """How a file writes its numbers: byte order, and the wider fields of BigTIFF."""

    order: str
    big: bool = False

    @property
    def inline(self) -> int:
        """Bytes of the value field; longer values are stored elsewhere."""
        return 8 if self.big else 4

    @property
    def offset(self) -> str:
        """struct code of file offsets and counts."""
        return "Q" if self.big else "I"

    @property
    def count(self) -> str:
        """struct code of the number of entries."""
        return "Q" if self.big else "H"


@dataclass(frozen=True, slots=True)
class Entry:
    """One directory entry in place: `position` is the file offset of its value field."""

    code: int
    kind: int
    count: int
    position: int


@dataclass(frozen=True, slots=True)
class Tag:
    """One value taken out of its file: little-endian bytes, or the directory it points to."""

    code: int
    kind: int
    data: bytes
    children: "tuple[Tag, ...]" = field(default=())

    @property
    def numbers(self) -> tuple[int, ...]:
        """The value as unsigned integers; empty for other kinds."""
        letter = _INTEGERS.get(self.kind)
        return struct.unpack(f"<{len(self.data) // _SIZES[self.kind]}{letter}", self.data) if letter else ()


def shorts(code: int, *values: int) -> Tag:
    """A tag of unsigned 16-bit numbers."""
    return Tag(code, SHORT, struct.pack(f"<{len(values)}H", *values))


def longs(code: int, *values: int) -> Tag:
    """A tag of unsigned 32-bit numbers."""
    return Tag(code, LONG, struct.pack(f"<{len(values)}I", *values))


def rational(code: int, value: float) -> Tag:
    """A tag of one positive fraction, to four decimal places."""
    return Tag(code, RATIONAL, struct.pack("<II", min(max(1, round(value * 10_000)), 2**32 - 1), 10_000))


def tiff_header(data: Bytes) -> tuple[Form, int]:
    """(form, offset of the first directory). Raises ValueError if this is no TIFF structure."""
    order = {b"II": "<", b"MM": ">"}.get(bytes(data[:2]))
    if order is None or len(data) < 8:
        raise ValueError("no TIFF header")
    magic = struct.unpack_from(order + "H", data, 2)[0]
    if magic == 43 and len(data) >= 16:
        return Form(order, big=True), struct.unpack_from(order + "Q", data, 8)[0]
    if magic != 42:
        raise ValueError("no TIFF header")
    return Form(order), struct.unpack_from(order + "I", data, 4)[0]


def entries(data: Bytes, offset: int, form: Form) -> Iterator[Entry]:
    """The entries of one directory. Raises struct.error where the data ends early."""
    (number,) = struct.unpack_from(form.order + form.count, data, offset)
    start = offset + struct.calcsize("<" + form.count)
    layout = form.order + "HH" + form.offset
    step = struct.calcsize(layout) + form.inline
    for position in range(start, start + number * step, step):
        code, kind, count = struct.unpack_from(layout, data, position)
        yield Entry(code, kind, count, position + step - form.inline)


def link(data: Bytes, offset: int, form: Form) -> int:
    """Where the offset of the following directory is stored."""
    (number,) = struct.unpack_from(form.order + form.count, data, offset)
    size = struct.calcsize("<HH" + form.offset) + form.inline
    return offset + struct.calcsize("<" + form.count) + int(number) * size


def directory(data: Bytes, offset: int, form: Form, depth: int = 0) -> tuple[Tag, ...]:
    """The directory with its EXIF, GPS and interoperability directories; unreadable tags are left out."""
    found = (_tag(data, entry, form, depth) for entry in entries(data, offset, form))
    return tuple(tag for tag in found if tag is not None)


def _tag(data: Bytes, entry: Entry, form: Form, depth: int) -> Tag | None:
    size = _SIZES.get(entry.kind, 0) * entry.count
    at = entry.position
    if size > form.inline:
        (at,) = struct.unpack_from(form.order + form.offset, data, at)
    if size == 0 or at + size > len(data):
        return None
    value = _swap(bytes(data[at : at + size]), entry.kind, form.order)
    tag = Tag(entry.code, entry.kind, value)
    if entry.code not in _POINTERS or not tag.numbers or depth > 2:
        return tag
    try:
        return Tag(entry.code, LONG, b"", directory(data, tag.numbers[0], form, depth + 1))
    except struct.error:
        return None


def _swap(value: bytes, kind: int, order: str) -> bytes:
    """Between the file's byte order and little-endian, either way."""
    unit = _UNITS[kind]
    if order == "<" or unit == 1:
        return value
    return b"".join(value[i : i + unit][::-1] for i in range(0, len(value), unit))


def directory_bytes(tags: Iterable[Tag], at: int, form: Form) -> bytes:
    """The bytes of a directory and its values, to stand at file offset `at`; no further directory."""
    ordered = sorted(tags, key=lambda tag: tag.code)
    layout = form.order + "HH" + form.offset
    step = struct.calcsize(layout) + form.inline
    table = struct.pack(form.order + form.count, len(ordered))
    values, free = b"", at + len(table) + step * len(ordered) + form.inline
    for tag in ordered:
        data, kind, count, extra = _placed(tag, free, form)
        table += struct.pack(layout, tag.code, kind, count) + data.ljust(form.inline, b"\0")
        extra += b"\0" * (len(extra) % 2)
        values, free = values + extra, free + len(extra)
    return table + b"\0" * form.inline + values


def _placed(tag: Tag, free: int, form: Form) -> tuple[bytes, int, int, bytes]:
    """(value field, kind, count, bytes to store at `free`)."""
    pointer = struct.pack(form.order + form.offset, free)
    if tag.children:
        return pointer, 16 if form.big else LONG, 1, directory_bytes(tag.children, free, form)
    value = _swap(tag.data, tag.kind, form.order)
    count = len(value) // _SIZES[tag.kind]
    return (value, tag.kind, count, b"") if len(value) <= form.inline else (pointer, tag.kind, count, value)


def append_directory(file: Path, tags: Iterable[Tag]) -> None:
    """Give a TIFF file this first directory, written at its end; the old one stays as unused bytes."""
    with file.open("rb+") as stream:
        form, _ = tiff_header(stream.read(16))
        end = stream.seek(0, 2)
        end += stream.write(b"\0" * (end % 2))
        stream.write(directory_bytes(tags, end, form))
        stream.seek(8 if form.big else 4)
        stream.write(struct.pack(form.order + form.offset, end))


def edit_directory(data: mmap, offset: int, form: Form, changes: Mapping[int, Tag | None]) -> None:
    """Change tags of a directory in place.

    Args:
        data: the file.
        offset: of the directory.
        form: of the file.
        changes: by code; None takes a tag out. A value must fit where the old one is.

    Raises:
        ValueError: there is no room for a value or a further tag.
    """
    found = {entry.code: entry for entry in entries(data, offset, form)}
    layout = form.order + "HH" + form.offset
    head = struct.calcsize(layout)
    rows = {e.code: data[e.position - head : e.position + form.inline] for e in found.values()}
    after = link(data, offset, form)
    following = data[after : after + struct.calcsize(form.order + form.offset)]
    for code, tag in changes.items():
        rows.pop(code, None)
        if tag is not None:
            rows[code] = _edited(data, tag, found.get(code), form)
    if len(rows) > len(found):
        raise ValueError("no room for a further tag")
    table = struct.pack(form.order + form.count, len(rows)) + b"".join(rows[code] for code in sorted(rows))
    data[offset : offset + len(table) + len(following)] = table + following


def _edited(data: mmap, tag: Tag, old: Entry | None, form: Form) -> bytes:
    """The directory entry of a tag, whose value may go where the old one is stored."""
    value = _swap(tag.data, tag.kind, form.order)
    head = struct.pack(form.order + "HH" + form.offset, tag.code, tag.kind, len(value) // _SIZES[tag.kind])
    if len(value) <= form.inline:
        return head + value.ljust(form.inline, b"\0")
    if old is None or _SIZES.get(old.kind, 0) * old.count < len(value):
        raise ValueError("no room for a longer value")
    field = data[old.position : old.position + form.inline]
    (at,) = struct.unpack(form.order + form.offset, field)
    data[at : at + len(value)] = value
    return head + field
