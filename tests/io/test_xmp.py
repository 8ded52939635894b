"""One property in packets of every writer: every other byte stays, and XML parsers take the result."""

from xml.etree import ElementTree

import pytest
import xmp_samples as samples
from hypothesis import given
from hypothesis import strategies as st

from srcli.io import xmp

NOTE = xmp.Property("urn:example:note/", "note", "text")
ASCII = st.text(st.characters(max_codepoint=126, min_codepoint=32))


def by_etree(packet: bytes) -> list[str | None]:
    """The values of the property as an independent parser finds them."""
    root = ElementTree.fromstring(packet)
    return [element.text or "" for element in root.iter(f"{{{NOTE.namespace}}}{NOTE.local}")]


@pytest.mark.parametrize("packet", samples.ALL.values(), ids=samples.ALL)
def test_every_byte_of_a_packet_is_kept(packet: bytes) -> None:
    added = xmp.with_value(packet, NOTE, "a")
    start, end = added.index(b"<rdf:Description xmlns:rdf"), added.rindex(b"</rdf:Description>")
    rest = added[:start] + added[end + len(b"</rdf:Description>") :]
    assert rest == packet.replace(b" />", b" ></rdf:RDF>")
    assert xmp.value(added, NOTE) == "a"
    assert by_etree(added) == ["a"]


@pytest.mark.parametrize("packet", samples.ALL.values(), ids=samples.ALL)
def test_a_second_value_replaces_the_first(packet: bytes) -> None:
    once = xmp.with_value(packet, NOTE, "a" * 50)
    assert xmp.with_value(once, NOTE, "b") == xmp.with_value(packet, NOTE, "b")


def test_the_packet_stays_about_one_thing() -> None:
    added = ElementTree.fromstring(xmp.with_value(samples.GIMP, NOTE, "a"))
    abouts = [part.get(f"{{{samples.RDF}}}about") for part in added.iter(f"{{{samples.RDF}}}Description")]
    assert abouts == ["uuid:ä-1"] * 3


@pytest.mark.parametrize(
    "old",
    [
        b' xmlns:n="urn:example:note/" n:text="old"',
        b" xmlns:n='urn:example:note/'\n  n:text = 'old \" > /> n:text=\"x\"'",
    ],
)
def test_an_attribute_of_another_writer_is_replaced(old: bytes) -> None:
    packet = samples.LIGHTROOM.replace(b" xmp:CreatorTool", old + b" xmp:CreatorTool")
    assert (xmp.value(packet, NOTE) or "").startswith("old")
    added = xmp.with_value(packet, NOTE, "new")
    assert xmp.value(added, NOTE) == "new"
    assert by_etree(added) == ["new"]
    declared = old[: old.index(b"note/") + 6]
    without = samples.LIGHTROOM.replace(b" xmp:CreatorTool", declared + b" xmp:CreatorTool")
    assert added == xmp.with_value(without, NOTE, "new")


def test_an_element_among_others_is_replaced_alone() -> None:
    other = b'<note:text xmlns:note="urn:example:note/">old</note:text>'
    packet = samples.LIGHTROOM.replace(b"<dc:subject>", other + b"<dc:subject>")
    assert xmp.with_value(packet, NOTE, "new") == xmp.with_value(samples.LIGHTROOM, NOTE, "new")


def test_the_same_name_deeper_down_is_not_touched() -> None:
    other = b'<rdf:li><note:text xmlns:note="urn:example:note/">old</note:text></rdf:li>'
    packet = samples.LIGHTROOM.replace(b"<rdf:Bag>", b"<rdf:Bag>" + other)
    assert xmp.value(packet, NOTE) is None
    assert other in xmp.with_value(packet, NOTE, "new")


@pytest.mark.parametrize("codec", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("name", ["lightroom", "darktable", "gimp"])
def test_wide_encodings_become_utf8(codec: str, name: str) -> None:
    text = samples.ALL[name].decode().replace('encoding="UTF-8"', f'encoding="{codec[:6]}"')
    plain = samples.ALL[name].replace(b' encoding="UTF-8"', b"")
    wide = (text + "\0").encode(codec)
    assert xmp.with_value(wide, NOTE, "a") == xmp.with_value(plain, NOTE, "a")
    assert xmp.value(wide, NOTE) is None


def test_nul_bytes_after_a_packet_are_cut_off() -> None:
    padded = samples.LIGHTROOM + b"\0\0"
    assert xmp.with_value(padded, NOTE, "a") == xmp.with_value(samples.LIGHTROOM, NOTE, "a")


@pytest.mark.parametrize("packet", samples.REFUSED.values(), ids=samples.REFUSED)
def test_packets_that_readers_refuse_are_damaged(packet: bytes) -> None:
    with pytest.raises(xmp.DamagedError):
        xmp.with_value(packet, NOTE, "a")
    with pytest.raises(xmp.DamagedError):
        xmp.value(packet, NOTE)


def test_deep_nesting_ends_in_no_crash() -> None:
    deep = b"<a>" * 50_000 + b"</a>" * 50_000
    with pytest.raises(xmp.DamagedError):
        xmp.value(deep, NOTE)


def test_padding_can_be_left_out() -> None:
    short = xmp.without_padding(samples.LIGHTROOM)
    assert short == samples.LIGHTROOM.replace((b" " * 100 + b"\n") * 20, b"")
    assert xmp.without_padding(samples.DARKTABLE) == samples.DARKTABLE


@given(ASCII, st.sampled_from(list(samples.ALL.values())))
def test_any_ascii_text_comes_back(text: str, packet: bytes) -> None:
    added = xmp.with_value(packet, NOTE, text)
    assert xmp.value(added, NOTE) == text
    assert by_etree(added) == [text]
    assert xmp.with_value(added, NOTE, text) == added


@given(st.binary(max_size=300), st.integers(0, 800), st.integers(0, 40))
def test_any_bytes_are_read_or_damaged(noise: bytes, at: int, cut: int) -> None:
    for packet in (noise, samples.LIGHTROOM[:at] + noise + samples.LIGHTROOM[at + cut :]):
        try:
            added = xmp.with_value(packet, NOTE, "a")
        except xmp.DamagedError:
            continue
        assert by_etree(added) == ["a"]
