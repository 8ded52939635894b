"""What made a picture, as a record in its XMP: model, settings and input; stored, read and compared."""

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import Enum
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias, TypeVar

from srcli.errors import InputError, ModelFileError, shown
from srcli.io import pictures, xmp
from srcli.io.metadata import Metadata

_T = TypeVar("_T")
Setting: TypeAlias = "bool | int | float | str | Sequence[Setting] | None"

RECORD = xmp.Property("urn:srcli:provenance:1/", "srcli", "record")
"""The number in the namespace changes with the record's meaning."""

MAX_JPEG_XMP = 65502
"""Bytes of a packet in one JPEG segment (XMP specification, part 3, section 1.1.3)."""

_MOST_NAMED = 5
_LONGEST_SHOWN = 60


@dataclass(frozen=True, slots=True)
class Provenance:
    """What made a picture. It names no moment, path or machine: same input and settings, same bytes.

    Attributes:
        version: of srcli; recorded, never compared.
        model: its name, for people.
        model_sha256: of the files that decide the network, as `model_sha256` gives it.
        settings: what else decides the pixels or the stored file, as resolved. Whole floats become integers
            and sequences tuples, so that equal settings are equal bytes.
        input_size: of the input file, in bytes.
        input_sha256: of the input file; "" where it is not known yet.

    Raises:
        TypeError: a setting is no None, bool, number, text or sequence of them.
        ValueError: a number is not finite.
    """

    version: str
    model: str
    model_sha256: str
    settings: Mapping[str, Setting] = field(hash=False)
    input_size: int
    input_sha256: str = ""

    def __post_init__(self) -> None:
        ordered = {name: _plain(self.settings[name]) for name in sorted(self.settings)}
        object.__setattr__(self, "settings", ordered)

    @property
    def text(self) -> str:
        """The record as canonical JSON: sorted, without spaces, ASCII."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"), allow_nan=False)


def _plain(value: object) -> Setting:
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"a setting is {value}")
        return int(value) if value.is_integer() and abs(value) < 2**53 else value
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
        return tuple(_plain(item) for item in value)
    raise TypeError(f"a setting is of type {type(value).__name__}")


def embed(packet: bytes | None, provenance: Provenance) -> bytes:
    """An XMP packet with the record.

    Args:
        packet: the input's. It is kept byte for byte, but for an older record, which is replaced, and NUL
            bytes after its end; UTF-16 and UTF-32 become UTF-8. One that XMP readers refuse (not well-formed,
            with a document type, without rdf:RDF) is left out.
        provenance: the record to add.
    """
    try:
        return xmp.with_value(packet or xmp.EMPTY, RECORD, provenance.text)
    except xmp.DamagedError:
        return xmp.with_value(xmp.EMPTY, RECORD, provenance.text)


def add_to(metadata: Metadata, name: str, provenance: Provenance) -> tuple[Metadata, tuple[str, ...]]:
    """Metadata with the record in its XMP, and what is left out for it, one sentence each.

    Where a JPEG cannot hold the input's XMP and the record, the packet's padding goes first and then the
    input's XMP, never the record.

    Args:
        metadata: of the input.
        name: the format to write, a value of `pictures.SUFFIXES`. For BMP, without XMP, nothing changes.
        provenance: the record to add.
    """
    if name == "bmp":
        return metadata, ()
    alone = replace(metadata, xmp=embed(None, provenance))
    if not metadata.xmp:
        return alone, ()
    try:
        packet = xmp.with_value(metadata.xmp, RECORD, provenance.text)
    except xmp.DamagedError:
        return alone, ("the XMP data is damaged, or has a document type: left out",)
    if name == "jpeg" and len(packet) > MAX_JPEG_XMP:
        packet = xmp.without_padding(packet)
    if name == "jpeg" and len(packet) > MAX_JPEG_XMP:
        return alone, ("XMP is too large for a JPEG: left out",)
    return replace(metadata, xmp=packet), ()


def remove_from(metadata: Metadata) -> Metadata:
    """Metadata that does not say what srcli did to the input, for outputs that are to carry no record."""
    try:
        packet = xmp.without_value(metadata.xmp or xmp.EMPTY, RECORD)
    except xmp.DamagedError:
        return metadata
    return replace(metadata, xmp=None if packet == xmp.EMPTY else packet)


def read(path: Path | str) -> Provenance | None:
    """The record of a picture file, by a read of the file's start and end.

    Returns:
        None where the file says nothing of srcli, or is of a format without XMP.

    Raises:
        InputError: missing, unreadable, empty, cut off, damaged or no picture.
    """
    packet = pictures.xmp_of(path)
    return parse(packet) if packet else None


def parse(packet: bytes) -> Provenance | None:
    """The record in an XMP packet; None where there is none that this version understands."""
    try:
        text = xmp.value(packet, RECORD)
    except (ValueError, TypeError, LookupError, RecursionError):
        return None
    return parse_text(text) if text else None


def parse_text(text: str) -> Provenance | None:
    """The record in its JSON; None where it is none that this version understands."""
    try:
        return _from_json(json.loads(text))
    except (ValueError, TypeError, LookupError, RecursionError):
        return None


def _from_json(found: dict[str, object]) -> Provenance:
    """Raises KeyError, TypeError or ValueError where it is no record."""
    texts = (found[name] for name in ("version", "model", "model_sha256", "input_sha256"))
    version, model, model_digest, input_digest = (_of_type(text, str) for text in texts)
    settings, size = _of_type(found["settings"], dict), _of_type(found["input_size"], int)
    return Provenance(version, model, model_digest, settings, size, input_digest)


def _of_type(value: object, kind: type[_T]) -> _T:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError(f"{type(value).__name__} in place of {kind.__name__}")
    return value


def differences(ours: Provenance, theirs: Provenance) -> str:
    """What differs between how a picture would be made and how one was made, in one line for people.

    Returns:
        "" if the same picture would come out; otherwise e.g. "made with model mdsr-photo, now mdsr; scale 4,
        now 2". The version does not count, nor an input's SHA-256 that one of the two does not know.
    """
    return _line(_differing(ours, theirs))


def _line(parts: Sequence[str]) -> str:
    if not parts:
        return ""
    more = [f"{len(parts) - _MOST_NAMED} more"] if len(parts) > _MOST_NAMED else []
    return f"made with {'; '.join([*parts[:_MOST_NAMED], *more])}"


def _differing(ours: Provenance, theirs: Provenance) -> list[str]:
    """A part of the line for each difference: input, model, settings by name."""
    parts = []
    if ours.input_size != theirs.input_size:
        parts.append(f"another input ({theirs.input_size} bytes, now {ours.input_size})")
    elif ours.input_sha256 and theirs.input_sha256 and ours.input_sha256 != theirs.input_sha256:
        parts.append("another input of the same size")
    other_files = any(
        ours.settings.get(name) != theirs.settings.get(name) for name in ("scales", "precision")
    )
    if ours.model_sha256 != theirs.model_sha256 and (ours.model != theirs.model or not other_files):
        old, new = _shown(theirs.model), _shown(ours.model)
        parts.append(f"another version of model {new}" if old == new else f"model {old}, now {new}")
    for name in sorted({*ours.settings, *theirs.settings}):
        old, new = (
            _shown(one.settings[name]) if name in one.settings else "not set" for one in (theirs, ours)
        )
        if ours.settings.get(name, ours) != theirs.settings.get(name, theirs):
            parts.append(f"{_shown(name.replace('_', ' '))} {old}, now {new}")
    return parts


def _shown(value: Setting) -> str:
    """A setting for people, on one line: 4, on, auto, 1080×1920."""
    if value is None or isinstance(value, bool):
        return "none" if value is None else "on" if value else "off"
    if isinstance(value, str):
        text = value if value.isprintable() and value else repr(value)
    elif isinstance(value, int | float):
        text = str(value)
    else:
        text = "×".join(_shown(item) for item in value) or "none"
    return text if len(text) <= _LONGEST_SHOWN else f"{text[: _LONGEST_SHOWN - 1]}…"


class Finished(Enum):
    """Whether an output that exists is what a run would make."""

    SAME = "same"
    """Yes: it can be skipped."""
    OTHER = "other"
    """No: other settings, another model or another input made it."""
    UNKNOWN = "unknown"
    """It does not say what made it."""


def finished(
    existing: Provenance | None,
    wanted: Sequence[Provenance],
    *,
    older: bool,
    input_sha256: Callable[[], str],
) -> tuple[Finished, str]:
    """Compare an output's record with what this run would write.

    Args:
        existing: the record of the output, as `read` gives it.
        wanted: the record this run would write, its input's SHA-256 left "". Several where the run does not
            know yet which (model "auto" before the picture is decoded) or where several mean equal pixels.
        older: whether the output is older than the input: the same size is no proof then.
        input_sha256: computes the input's SHA-256; called only where the output is older and all else equal.

    Returns:
        The finding, and for OTHER what differs from the wanted record that is nearest, in one line.
    """
    if existing is None:
        return Finished.UNKNOWN, ""
    closest = min(wanted, key=lambda one: (one.model != existing.model, len(_differing(one, existing))))
    same = [one for one in wanted if not _differing(one, existing)]
    nearest = _differing(same[0] if same else closest, existing)
    if not nearest and older and input_sha256() != existing.input_sha256:
        nearest = ["another input of the same size"]
    return (Finished.OTHER, _line(nearest)) if nearest else (Finished.SAME, "")


def file_sha256(path: Path | str) -> str:
    """The SHA-256 of a file, in hex, read piece by piece.

    Raises:
        InputError: it cannot be read.
    """
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{shown(path)} cannot be read ({reason}).") from error


def model_sha256(paths: Sequence[Path]) -> str:
    """The SHA-256 of the files that decide a network, in hex: of one its own, of several that of their sums.

    Files of the same size and time are not read again. Names and folders do not count.

    Args:
        paths: at least one, in an order that is always the same.

    Raises:
        ModelFileError: one cannot be read.
    """
    sums = [_file_sum(path) for path in paths]
    return sums[0] if len(sums) == 1 else hashlib.sha256("".join(sums).encode()).hexdigest()


def _file_sum(path: Path) -> str:
    try:
        facts = path.stat()
        return _kept_sum(path.absolute(), facts.st_mtime_ns, facts.st_size)
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read ({error.strerror}).") from error


@lru_cache(maxsize=64)
def _kept_sum(path: Path, modified: int, size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
