"""The record of what made a picture: through files of every format, compared, and summed."""

import hashlib
import json
import os
import pickle
import resource
import struct
import tracemalloc
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import media_samples
import numpy as np
import pytest
import xmp_samples
from hypothesis import given
from hypothesis import strategies as st

from srcli.errors import InputError, ModelFileError
from srcli.io import pictures, provenance, xmp
from srcli.io.pictures import Metadata, Picture
from srcli.io.provenance import Finished, Provenance, Setting, finished

MADE = Provenance(
    "0.1.0",
    "mdsr-photo",
    "ab" * 32,
    {"scale": 4, "ensemble": False, "precision": "fp32", "scales": (2, 2), "quality": None},
    5120,
    "cd" * 32,
)
HOLD_XMP = ["a.png", "a.jpg", "a.webp", "a.tif", "a.avif"]

settings: st.SearchStrategy[Setting] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=6,
)
records = st.builds(
    Provenance,
    st.text(),
    st.text(),
    st.text(),
    st.dictionaries(st.text(), settings),
    st.integers(0),
    st.text(),
)


def stored(path: Path, record: Provenance = MADE, **known: bytes) -> tuple[str, ...]:
    """Write a picture with the record; what was left out."""
    metadata, notes = provenance.add_to(Metadata(**known), pictures.format_of(path), record)
    return notes + pictures.write(path, Picture(media_samples.photo("rgb", size=(24, 40)), metadata))


@pytest.mark.parametrize("name", HOLD_XMP)
@pytest.mark.parametrize("packet", [None, *xmp_samples.ALL.values()], ids=["none", *xmp_samples.ALL])
def test_the_record_comes_back_from_a_file(tmp_path: Path, name: str, packet: bytes | None) -> None:
    known = {"xmp": packet} if packet else {}
    assert stored(tmp_path / name, **known) == ()
    assert provenance.read(tmp_path / name) == MADE
    kept = pictures.read(tmp_path / name).metadata.xmp
    assert kept == provenance.embed(packet, MADE)


@pytest.mark.parametrize("name", HOLD_XMP)
def test_a_picture_made_again_has_the_newer_record(tmp_path: Path, name: str) -> None:
    stored(tmp_path / name, xmp=xmp_samples.LIGHTROOM)
    newer = replace(MADE, model="mdsr", input_size=7)
    stored(tmp_path / name, newer, xmp=pictures.read(tmp_path / name).metadata.xmp or b"")
    assert provenance.read(tmp_path / name) == newer
    assert pictures.read(tmp_path / name).metadata.xmp == provenance.embed(xmp_samples.LIGHTROOM, newer)


def test_all_other_metadata_is_kept(tmp_path: Path) -> None:
    known = replace(media_samples.METADATA, xmp=xmp_samples.GIMP, dpi=(300, 300), texts=(b"tEXtTitle\0a",))
    added, notes = provenance.add_to(known, "png", MADE)
    assert notes == ()
    assert replace(added, xmp=xmp_samples.GIMP) == known


def test_bmp_metadata_stays_as_it_is(tmp_path: Path) -> None:
    assert provenance.add_to(media_samples.METADATA, "bmp", MADE) == (media_samples.METADATA, ())
    assert stored(tmp_path / "a.bmp") == ()
    assert provenance.read(tmp_path / "a.bmp") is None


@pytest.mark.parametrize("packet", [None, *xmp_samples.ALL.values()], ids=["none", *xmp_samples.ALL])
def test_a_record_that_is_removed_leaves_no_trace(packet: bytes | None) -> None:
    known = replace(media_samples.METADATA, xmp=packet)
    assert provenance.remove_from(known) == known
    added, _ = provenance.add_to(known, "png", MADE)
    removed = provenance.remove_from(added)
    assert removed.xmp == (packet.replace(b" />", b" ></rdf:RDF>") if packet else None)
    assert replace(removed, xmp=packet) == known


def test_xmp_without_a_record_stays_as_it_is() -> None:
    for packet in (*xmp_samples.REFUSED.values(), xmp_samples.LIGHTROOM.decode().encode("utf-16")):
        assert provenance.remove_from(Metadata(xmp=packet)) == Metadata(xmp=packet)


@pytest.mark.parametrize("packet", xmp_samples.REFUSED.values(), ids=xmp_samples.REFUSED)
def test_a_packet_that_readers_refuse_is_left_out(tmp_path: Path, packet: bytes) -> None:
    (note,) = stored(tmp_path / "a.png", xmp=packet)
    assert "damaged" in note
    assert pictures.read(tmp_path / "a.png").metadata.xmp == provenance.embed(packet, MADE)
    assert provenance.embed(packet, MADE) == provenance.embed(None, MADE)


def large(size: int, padding: int = 0) -> bytes:
    """A packet of that many bytes, so many of them padding."""
    start, end = xmp.EMPTY.split(b"></rdf:RDF>")
    description = b'><rdf:Description xmlns:a="urn:a/" a:b="%s"/></rdf:RDF>'
    packet = start + description + end.replace(b"\n", b"\n" + b" " * padding)
    return packet % (b"x" * (size - len(packet) + 2))


ROOM = provenance.MAX_JPEG_XMP - len(provenance.embed(None, MADE)) + len(xmp.EMPTY)
"""Bytes of the largest packet that a JPEG holds with the record."""


@pytest.mark.parametrize(("size", "padding"), [(ROOM, 0), (ROOM + 1, 100), (70_000, 6000), (ROOM, 2000)])
def test_a_jpeg_keeps_xmp_that_fits_without_padding(tmp_path: Path, size: int, padding: int) -> None:
    packet = large(size, padding)
    assert len(packet) == size
    assert stored(tmp_path / "a.jpg", xmp=packet) == ()
    assert provenance.read(tmp_path / "a.jpg") == MADE
    kept = pictures.read(tmp_path / "a.jpg").metadata.xmp or b""
    assert b"x" * (size - padding - 1000) in kept
    assert (kept == provenance.embed(packet, MADE)) == (size <= ROOM)


@pytest.mark.parametrize(("size", "padding"), [(ROOM + 1, 0), (65_502, 0), (90_000, 100)])
def test_a_jpeg_keeps_the_record_rather_than_large_xmp(tmp_path: Path, size: int, padding: int) -> None:
    (note,) = stored(tmp_path / "a.jpg", xmp=large(size, padding))
    assert "too large" in note
    assert provenance.read(tmp_path / "a.jpg") == MADE
    assert pictures.read(tmp_path / "a.jpg").metadata.xmp == provenance.embed(None, MADE)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.webp", "a.avif"])
def test_other_formats_hold_large_xmp(tmp_path: Path, name: str) -> None:
    packet = large(200_000)
    assert stored(tmp_path / name, xmp=packet) == ()
    assert provenance.read(tmp_path / name) == MADE
    assert pictures.read(tmp_path / name).metadata.xmp == provenance.embed(packet, MADE)


@given(records, st.sampled_from([None, *xmp_samples.ALL.values()]))
def test_any_record_comes_back(record: Provenance, packet: bytes | None) -> None:
    added = provenance.embed(packet, record)
    ElementTree.fromstring(added)
    assert provenance.parse(added) == record
    assert provenance.embed(added, record) == added
    assert provenance.differences(record, provenance.parse(added) or MADE) == ""
    assert pickle.loads(pickle.dumps(record)) == record


def test_equal_settings_are_equal_bytes() -> None:
    one = Provenance("1", "m", "", {"b": 4.0, "a": [1, 2.0]}, 5)
    other = Provenance("1", "m", "", {"a": (1, 2), "b": 4}, 5)
    assert one.text == other.text
    assert one == other
    assert provenance.embed(None, one) == provenance.embed(None, other)


@pytest.mark.parametrize(
    ("value", "error"),
    [(float("nan"), ValueError), ([float("inf")], ValueError), (Path("a"), TypeError), (b"a", TypeError)],
)
def test_settings_that_json_lacks_are_refused(value: Setting, error: type[Exception]) -> None:
    with pytest.raises(error):
        Provenance("1", "m", "", {"a": value}, 5)


def with_text(text: str) -> bytes:
    return xmp.with_value(xmp.EMPTY, provenance.RECORD, text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        "7",
        "{",
        "[" * 100_000,
        json.dumps({**json.loads(MADE.text), "input_size": "5120"}),
        json.dumps({**json.loads(MADE.text), "input_size": True}),
        json.dumps({**json.loads(MADE.text), "model": None}),
        json.dumps({**json.loads(MADE.text), "settings": {"a": {"b": 1}}}),
        json.dumps({**json.loads(MADE.text), "settings": {"a": float("inf")}}),
        json.dumps({key: value for key, value in json.loads(MADE.text).items() if key != "model_sha256"}),
    ],
)
def test_what_is_no_record_is_none(text: str) -> None:
    assert provenance.parse(with_text(text)) is None


def test_fields_of_later_versions_are_passed_over() -> None:
    assert provenance.parse(with_text(json.dumps({**json.loads(MADE.text), "more": {"a": 1}}))) == MADE


@pytest.mark.parametrize("name", [*HOLD_XMP, "a.bmp"])
def test_files_of_other_programs_say_nothing(tmp_path: Path, name: str) -> None:
    pictures.write(tmp_path / name, Picture(np.zeros((8, 8, 3), np.uint8), Metadata(xmp=xmp_samples.GIMP)))
    assert provenance.read(tmp_path / name) is None


@pytest.mark.parametrize("content", [b"a text", b"RIFF0000WEBP", b"II*\0", b"\xff\xd8\xff"])
def test_what_is_no_whole_picture_is_an_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(InputError):
        provenance.read(tmp_path / "a.png")


def test_bytes_after_another_programs_jpeg_are_no_damage(tmp_path: Path) -> None:
    pictures.write(tmp_path / "a.jpg", Picture(np.zeros((8, 8, 3), np.uint8), Metadata(xmp=xmp_samples.GIMP)))
    with (tmp_path / "a.jpg").open("ab") as file:
        file.write(b"a film behind the picture")
    assert provenance.read(tmp_path / "a.jpg") is None


@pytest.mark.parametrize("name", HOLD_XMP)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.999])
def test_an_output_that_is_cut_off_is_an_error(tmp_path: Path, name: str, share: float) -> None:
    stored(tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(InputError):
        provenance.read(tmp_path / name)


@pytest.mark.parametrize("name", HOLD_XMP)
def test_damaged_files_raise_nothing_else(tmp_path: Path, name: str) -> None:
    stored(tmp_path / name)
    whole, random = (tmp_path / name).read_bytes(), np.random.default_rng(3)
    for _ in range(300):
        damaged = bytearray(whole)
        for at in random.integers(0, min(len(whole), 2000), 3):
            damaged[int(at) if random.random() < 0.5 else -int(at)] = int(random.integers(256))
        (tmp_path / name).write_bytes(damaged)
        with suppress(InputError):
            assert isinstance(provenance.read(tmp_path / name), Provenance | None)


def test_unreadable_files_are_input_errors(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    os.mkfifo(tmp_path / "pipe.png")
    for name in ("empty.png", "missing.png", "pipe.png", ".", "a\0b.png"):
        with pytest.raises(InputError):
            provenance.read(tmp_path / name)


LARGE = 256 << 20


def enlarge(path: Path) -> None:
    """Make a file much larger where its format lets one, mostly by holes; the picture is damaged then."""
    whole = path.read_bytes()
    with path.open("r+b") as file:
        if path.suffix == ".png":  # many chunks of picture data, as encoders write them
            file.seek(whole.index(b"IDAT") - 4)
            while file.tell() < LARGE - (1 << 17):
                file.write(struct.pack(">I4s", 1 << 16, b"IDAT"))
                file.seek((1 << 16) + 4, os.SEEK_CUR)
            file.write(whole[-12:])
        elif path.suffix == ".jpg":
            file.seek(LARGE - 2)
            file.write(whole[-2:])
        else:
            file.truncate(LARGE)


@pytest.mark.parametrize("name", HOLD_XMP)
def test_large_files_are_not_read_whole(tmp_path: Path, name: str) -> None:
    stored(tmp_path / name)
    enlarge(tmp_path / name)
    assert (tmp_path / name).stat().st_size > LARGE - (1 << 18)
    provenance.read(tmp_path / name)  # what is done once, e.g. imports
    before = faulted()
    tracemalloc.start()
    try:
        found = provenance.read(tmp_path / name)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    faults = faulted() - before
    assert found == MADE
    assert peak < 1 << 20
    assert faults < 1000  # each brings at most 64 KB of a mapped file; a walk over it needs 4000


def faulted() -> int:
    """Pages that this process has had to be given."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_minflt + usage.ru_majflt


def test_nothing_of_a_png_counts_after_its_picture_data(tmp_path: Path) -> None:
    stored(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    at = whole.index(b"iTXt") - 4
    length = 12 + struct.unpack_from(">I", whole, at)[0]
    record, rest = whole[at : at + length], whole[:at] + whole[at + length :]
    (tmp_path / "a.png").write_bytes(rest[:-12] + record + rest[-12:])
    assert pictures.read(tmp_path / "a.png").metadata.xmp is not None
    assert provenance.read(tmp_path / "a.png") is None


def changed(**settings: Setting) -> Provenance:
    return replace(MADE, settings={**MADE.settings, **settings})


@pytest.mark.parametrize(
    ("ours", "line"),
    [
        (replace(MADE, version="2.0", input_sha256=""), ""),
        (replace(MADE, model="other name"), ""),
        (changed(scale=4.0), ""),
        (changed(scale=2), "made with scale 4, now 2"),
        (replace(MADE, model="mdsr", model_sha256="ef"), "made with model mdsr-photo, now mdsr"),
        (replace(MADE, model_sha256="ef"), "made with another version of model mdsr-photo"),
        (replace(MADE, input_size=9), "made with another input (5120 bytes, now 9)"),
        (replace(MADE, input_sha256="ef"), "made with another input of the same size"),
        (changed(ensemble=True, quality=90), "made with ensemble off, now on; quality none, now 90"),
        (changed(scales=(4,)), "made with scales 2×2, now 4"),
        (changed(halo_used=8), "made with halo used not set, now 8"),
        (changed(a="", b="x\ny"), "made with a not set, now ''; b not set, now 'x\\ny'"),
    ],
)
def test_differences_are_named_in_one_line(ours: Provenance, line: str) -> None:
    assert provenance.differences(ours, MADE) == line


def test_many_differences_are_counted() -> None:
    line = provenance.differences(changed(**dict.fromkeys("abcdefgh", 1)), MADE)
    assert line.count(";") == 5
    assert line.endswith("; 3 more")


@given(records, records)
def test_differences_are_one_printable_line(ours: Provenance, theirs: Provenance) -> None:
    line = provenance.differences(ours, theirs)
    assert line.isprintable()
    assert (line == "") == (provenance.differences(theirs, ours) == "")


def found(
    existing: Provenance | None, wanted: Sequence[Provenance], *, older: bool = False, digest: str = "no"
) -> tuple[Finished, str]:
    """`finished`, where the input's checksum may only be asked for if one is given."""

    def compute() -> str:
        assert digest != "no"
        return digest

    return finished(existing, wanted, older=older, input_sha256=compute)


WANTED = replace(MADE, version="9", input_sha256="")


def test_an_output_of_equal_settings_is_the_same() -> None:
    assert found(MADE, [WANTED]) == (Finished.SAME, "")


def test_an_output_without_record_is_unknown() -> None:
    assert found(None, [WANTED], older=True) == (Finished.UNKNOWN, "")


def test_the_checksum_decides_where_the_output_is_older() -> None:
    assert found(MADE, [WANTED], older=True, digest=MADE.input_sha256) == (Finished.SAME, "")
    assert found(MADE, [WANTED], older=True, digest="ef")[0] is Finished.OTHER


def test_an_input_of_another_size_is_never_summed() -> None:
    kind, line = found(MADE, [replace(WANTED, input_size=9)], older=True)
    assert kind is Finished.OTHER
    assert "9" in line


def test_other_settings_are_named_without_a_checksum() -> None:
    other = replace(WANTED, settings={**MADE.settings, "scale": 2})
    assert found(MADE, [other], older=True) == (Finished.OTHER, "made with scale 4, now 2")


def test_one_of_several_wanted_records_suffices() -> None:
    other = replace(WANTED, model="mdsr", model_sha256="ef")
    assert found(MADE, [other, WANTED]) == (Finished.SAME, "")
    far = replace(other, settings={})
    assert found(MADE, [far, other]) == (Finished.OTHER, "made with model mdsr-photo, now mdsr")


def test_a_files_checksum_is_that_of_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc" * 100_000)
    assert provenance.file_sha256(tmp_path / "a") == hashlib.sha256(b"abc" * 100_000).hexdigest()
    for name in ("missing", ".", "a\0b"):
        with pytest.raises(InputError):
            provenance.file_sha256(tmp_path / name)


def test_a_models_checksum_covers_all_its_files(tmp_path: Path) -> None:
    one, other = tmp_path / "a.onnx", tmp_path / "a.weights"
    one.write_bytes(b"1")
    other.write_bytes(b"2")
    assert provenance.model_sha256([one]) == hashlib.sha256(b"1").hexdigest()
    both = provenance.model_sha256([one, other])
    assert both not in (provenance.model_sha256([one]), provenance.model_sha256([other, one]))
    (tmp_path / "moved").mkdir()
    moved = [path.rename(tmp_path / "moved" / f"b{path.suffix}") for path in (one, other)]
    assert provenance.model_sha256(moved) == both
    with pytest.raises(ModelFileError):
        provenance.model_sha256([one])


def test_a_models_file_is_read_again_only_if_it_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, reads = tmp_path / "a.onnx", []
    path.write_bytes(b"1")
    digest = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda *given: (reads.append(1), digest(*given))[1])
    first = provenance.model_sha256([path])
    assert provenance.model_sha256([path]) == first
    assert len(reads) == 1
    path.write_bytes(b"2")
    os.utime(path, ns=(1, 1))
    assert provenance.model_sha256([path]) == hashlib.sha256(b"2").hexdigest()
