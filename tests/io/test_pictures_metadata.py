"""EXIF, ICC and XMP through every format that can hold them, checked with an independent reader."""

import io
import struct
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import media_samples as samples
import numpy as np
import pytest
import tifffile
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from srcli.io import metadata, pictures
from srcli.io.pictures import Metadata, Picture

ALL_KEPT = ["a.png", "a.jpg", "a.webp", "a.tif", "a.avif"]
SIZE = (24, 40)


def stored(tmp_path: Path, name: str, kept: Metadata, kind: str = "rgb") -> tuple[Path, tuple[str, ...]]:
    path = tmp_path / name
    return path, pictures.write(path, Picture(samples.photo(kind, size=SIZE), kept))


@pytest.mark.parametrize("name", ALL_KEPT)
def test_all_three_come_back(tmp_path: Path, name: str) -> None:
    path, notes = stored(tmp_path, name, samples.METADATA)
    assert notes == ()
    back = pictures.read(path).metadata
    assert back.icc == samples.METADATA.icc
    assert back.xmp == samples.METADATA.xmp
    if name == "a.tif":  # a TIFF holds EXIF as its own tags: the same values, laid out anew
        tags = Image.Exif()
        tags.load(back.exif)
        assert (tags[271], tags[274], dict(tags.get_ifd(34665))) == ("abc", 1, {0xA002: 40, 0xA003: 24})
    else:
        assert back.exif == samples.METADATA.exif


@pytest.mark.parametrize("name", ALL_KEPT)
@pytest.mark.parametrize("field", ["exif", "icc", "xmp"])
def test_each_alone(tmp_path: Path, name: str, field: str) -> None:
    alone = Metadata(**{field: getattr(samples.METADATA, field)})
    back = pictures.read(stored(tmp_path, name, alone)[0]).metadata
    present = {key: getattr(back, key) is not None for key in ("exif", "icc", "xmp")}
    # OpenCV's TIFF encoder writes no descriptive tags of its own, so nothing else may appear.
    assert present == {key: key == field for key in present}


@pytest.mark.parametrize("kind", ["rgb", "gray", "gray+alpha"])
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.bmp"])
@pytest.mark.parametrize("dpi", [(300.0, 300.0), (240.0, 72.0)])
def test_resolution_is_kept(tmp_path: Path, name: str, dpi: tuple[float, float], kind: str) -> None:
    path, _ = stored(tmp_path, name, Metadata(dpi=dpi), kind)
    assert pictures.read(path).metadata.dpi == pytest.approx(dpi, abs=0.02)
    with Image.open(path) as opened:
        assert opened.info["dpi"] == pytest.approx(dpi, abs=0.02)
    again, _ = stored(tmp_path, f"again-{name}", pictures.read(path).metadata, kind)
    assert pictures.read(again).metadata.dpi == pictures.read(path).metadata.dpi


@pytest.mark.parametrize(
    ("suffix", "options"), [("png", {}), ("jpg", {}), ("tif", {}), ("jpg", {"exif": b""})]
)
def test_resolution_that_others_wrote_is_read(tmp_path: Path, suffix: str, options: dict[str, Any]) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(samples.photo("rgb", size=SIZE)).save(path, dpi=(200, 100), **options)
    assert pictures.read(path).metadata.dpi == pytest.approx((200, 100), abs=0.02)
    Image.fromarray(samples.photo("rgb", size=SIZE)).save(path, **options)
    assert pictures.read(path).metadata.dpi is None


def test_resolution_in_centimetres(tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "a.tif", samples.photo("rgb", size=SIZE), resolution=(100, 50), resolutionunit=3
    )
    assert pictures.read(tmp_path / "a.tif").metadata.dpi == pytest.approx((254, 127))
    plain, _ = stored(tmp_path, "a.jpg", Metadata(dpi=(100, 50)))
    blob = bytearray(plain.read_bytes())
    assert blob[13] == 1
    blob[13] = 2
    plain.write_bytes(blob)
    assert pictures.read(plain).metadata.dpi == pytest.approx((254, 127))


def test_a_turned_picture_has_its_resolution_turned(tmp_path: Path) -> None:
    path, _ = stored(tmp_path, "a.png", Metadata(exif=samples.exif(6), dpi=(300, 100)))
    assert pictures.read(path).metadata.dpi == pytest.approx((100, 300), abs=0.02)


@pytest.mark.parametrize("name", ["a.webp", "a.avif"])
def test_formats_without_resolution_leave_it_out(tmp_path: Path, name: str) -> None:
    path, notes = stored(tmp_path, name, Metadata(dpi=(300, 300)))
    assert notes == ()
    assert pictures.read(path).metadata == Metadata()


@pytest.mark.parametrize("name", ALL_KEPT)
def test_pillow_finds_them(tmp_path: Path, name: str) -> None:
    opened = Image.open(stored(tmp_path, name, samples.METADATA)[0])
    assert opened.info["icc_profile"] == samples.METADATA.icc
    assert opened.getexif()[271] == "abc"
    assert opened.getexif().get_ifd(34665)[0xA002] == 40
    text = opened.info.get("xmp", opened.info.get("XML:com.adobe.xmp", b""))
    found = text.encode() if isinstance(text, str) else text
    assert found == samples.METADATA.xmp


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP", "AVIF", "TIFF"])
def test_what_pillow_wrote_is_read(tmp_path: Path, file_format: str) -> None:
    blobs: dict[str, Any] = {
        "icc_profile": samples.icc(),
        "xmp": samples.METADATA.xmp,
        "exif": samples.exif(),
    }
    if file_format == "JPEG":
        blobs["exif"] = b"Exif\0\0" + samples.exif()
    if file_format == "TIFF":
        blobs = {"icc_profile": samples.icc(), "tiffinfo": {271: "abc", 700: samples.METADATA.xmp}}
    if file_format == "PNG":
        text = PngInfo()
        text.add_itxt("XML:com.adobe.xmp", (samples.METADATA.xmp or b"").decode(), zip=True)
        blobs = {"icc_profile": samples.icc(), "exif": samples.exif(), "pnginfo": text}
    path = tmp_path / "a.bin"
    path.write_bytes(samples.by_pillow(samples.photo("rgb", size=SIZE), file_format, **blobs))
    back = pictures.read(path).metadata
    assert back.icc == samples.icc()
    assert back.xmp == samples.METADATA.xmp
    assert back.exif is not None
    assert b"abc" in back.exif


def test_large_icc_is_split_over_jpeg_segments(tmp_path: Path) -> None:
    large = Metadata(icc=samples.icc(size=200_000))
    path, notes = stored(tmp_path, "a.jpg", large)
    assert notes == ()
    assert pictures.read(path).metadata == large
    assert Image.open(path).info["icc_profile"] == large.icc


def test_what_is_too_large_for_jpeg_is_said(tmp_path: Path) -> None:
    path, notes = stored(tmp_path, "a.jpg", replace(samples.METADATA, xmp=b"x" * 70_000))
    assert notes == ("XMP is too large for a JPEG: left out",)
    assert pictures.read(path).metadata == replace(samples.METADATA, xmp=None)


def test_bmp_says_what_it_leaves_out(tmp_path: Path) -> None:
    path, notes = stored(
        tmp_path, "a.bmp", replace(samples.METADATA, dpi=(254.0, 127.0), texts=(b"tEXtA\0b",))
    )
    assert notes == ("BMP holds no metadata: EXIF, ICC profile, XMP, text (A) left out",)
    assert pictures.read(path).metadata == Metadata(dpi=pytest.approx((254, 127)))


@pytest.mark.parametrize(
    ("name", "kind", "space", "kept"),
    [
        ("a.png", "gray", b"GRAY", True),
        ("a.png", "gray", b"RGB ", False),  # PNG forbids it
        ("a.jpg", "gray", b"GRAY", True),
        ("a.webp", "gray", b"GRAY", False),  # WebP stores gray as RGB
        ("a.png", "rgb", b"GRAY", False),
    ],
)
def test_profile_of_another_colour_space(
    tmp_path: Path, name: str, kind: str, space: bytes, kept: bool
) -> None:
    path, notes = stored(tmp_path, name, Metadata(icc=samples.icc(space)), kind)
    assert (pictures.read(path).metadata.icc is not None) == kept
    assert bool(notes) != kept


@pytest.mark.parametrize("order", ["<", ">"])
def test_orientation_is_reset_and_size_follows(tmp_path: Path, order: str) -> None:
    turned = replace(samples.METADATA, exif=samples.exif(6, order), xmp=samples.XMP)
    upright = metadata.upright(turned)
    assert metadata.orientation(turned) == 6
    assert upright == Metadata(samples.exif(1, order), samples.icc(), samples.METADATA.xmp)
    pictures.write(tmp_path / "a.png", Picture(np.zeros((90, 70_000), np.uint8), upright))
    inner = Image.open(tmp_path / "a.png").getexif().get_ifd(34665)
    assert (inner[0xA002], inner[0xA003]) == (70_000, 90)  # too large for the SHORT that was there


def test_read_resets_orientation_in_every_part(tmp_path: Path) -> None:
    tagged = replace(samples.METADATA, exif=samples.exif(6), xmp=samples.XMP)
    path, _ = stored(tmp_path, "a.jpg", tagged)
    picture = pictures.read(path)
    assert picture.pixels.shape == (40, 24, 3)
    assert picture.metadata.exif is not None
    assert metadata.orientation(replace(picture.metadata, xmp=None)) == 1
    assert b'tiff:Orientation="1"' in (picture.metadata.xmp or b"")


def test_thumbnail_of_a_turned_picture_is_unlinked() -> None:
    blob = bytearray(samples.exif(3))
    struct.pack_into("<I", blob, 46, 80)  # IFD0's link to a thumbnail directory
    upright = metadata.upright(Metadata(exif=bytes(blob))).exif
    assert upright == samples.exif(1)


@pytest.mark.parametrize("cut", [0, 3, 7, 9, 20, 45, 60, 75])
def test_damaged_exif_is_harmless(tmp_path: Path, cut: int) -> None:
    """Metadata that cannot be read never costs the picture."""
    broken = Metadata(exif=samples.exif(6)[:cut] or None)
    assert metadata.orientation(broken) in (1, 6)
    for name in ALL_KEPT:
        path, _ = stored(tmp_path, name, broken)
        assert pictures.read(path).pixels.size == 24 * 40 * 3


def test_gps_and_exif_directories_reach_a_tiff(tmp_path: Path) -> None:
    tags = Image.Exif()
    tags[305] = "camera"
    tags.get_ifd(34665)[0x829A] = (1, 250)  # ExposureTime
    tags.get_ifd(34853)[1] = "N"
    tags.get_ifd(34853)[2] = (50.0, 30.0, 0.0)
    buffer = io.BytesIO()
    Image.fromarray(samples.photo("rgb")).save(buffer, "JPEG", exif=tags)
    (tmp_path / "a.jpg").write_bytes(buffer.getvalue())
    pictures.write(tmp_path / "a.tif", pictures.read(tmp_path / "a.jpg"))
    found = tifffile.TiffFile(tmp_path / "a.tif").pages[0].tags
    assert found["Software"].value == "camera"
    assert found["ExifTag"].value["ExposureTime"] == (1, 250)
    assert found["GPSTag"].value["GPSLatitudeRef"] == "N"
    pictures.write(tmp_path / "b.jpg", pictures.read(tmp_path / "a.tif"))
    again = Image.open(tmp_path / "b.jpg").getexif()
    assert again[305] == "camera"
    assert again.get_ifd(34853)[2] == (50.0, 30.0, 0.0)


def with_segments(*segments: tuple[int, bytes]) -> bytes:
    """A JPEG with these (marker, content) right after its start."""
    plain = samples.by_pillow(samples.photo("rgb"), "JPEG")
    added = (struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content for marker, content in segments)
    return plain[:2] + b"".join(added) + plain[2:]


HAS_MORE = b' xmpNote:HasExtendedXMP="0123456789ABCDEF0123456789ABCDEF"'
MORE = b"http://ns.adobe.com/xmp/extension/\0" + b"0" * 32 + struct.pack(">II", 5, 0) + b"<x/>\n"


@pytest.mark.parametrize(
    "packet",
    [
        (samples.METADATA.xmp or b"").replace(b" title", HAS_MORE + b" title"),
        (samples.METADATA.xmp or b"").replace(
            b"</rdf:RDF>", b"<xmpNote:HasExtendedXMP>0123</xmpNote:HasExtendedXMP></rdf:RDF>"
        ),
    ],
)
def test_extended_xmp_is_dropped_with_note(tmp_path: Path, packet: bytes) -> None:
    assert b"HasExtendedXMP" in packet
    main = b"http://ns.adobe.com/xap/1.0/\0" + packet
    (tmp_path / "a.jpg").write_bytes(with_segments((0xE1, main), (0xE1, MORE), (0xE1, MORE)))
    picture = pictures.read(tmp_path / "a.jpg")
    assert picture.notes == ("its extended XMP is not kept",)
    assert picture.metadata.xmp == samples.METADATA.xmp


IPTC = b"8BIM\x04\x04\0\0\0\0\0\x08\x1c\x02\x78\0\x03abc"
RESOLUTION = b"8BIM\x03\xed\0\0\0\0\0\x10" + bytes(16)
THUMBNAIL = b"8BIM\x04\x0c\x05thumb\0\0\0\x05" + bytes(6)
COPYRIGHT = b"8BIM\x04\x0a\0\0\0\0\0\x01\x01\0"


def test_photoshop_data_stay_in_a_jpeg_without_those_about_the_file(tmp_path: Path) -> None:
    block = IPTC + RESOLUTION + THUMBNAIL + COPYRIGHT
    photoshop = b"Photoshop 3.0\0"
    (tmp_path / "a.jpg").write_bytes(
        with_segments((0xED, photoshop + block[:20]), (0xED, photoshop + block[20:]))
    )
    picture = pictures.read(tmp_path / "a.jpg")
    assert picture.notes == ()
    assert picture.metadata.photoshop == IPTC + COPYRIGHT
    assert pictures.write(tmp_path / "b.jpg", picture) == ()
    assert pictures.read(tmp_path / "b.jpg").metadata.photoshop == IPTC + COPYRIGHT
    assert Image.open(tmp_path / "b.jpg").info["photoshop"].keys() == {0x0404, 0x040A}
    assert any("IPTC" in note for note in pictures.write(tmp_path / "b.png", picture))


@pytest.mark.parametrize("cut", [5, 7, 12, 21, 30])
def test_damaged_photoshop_data_are_harmless(tmp_path: Path, cut: int) -> None:
    (tmp_path / "a.jpg").write_bytes(with_segments((0xED, b"Photoshop 3.0\0" + (IPTC + COPYRIGHT)[:cut])))
    assert pictures.read(tmp_path / "a.jpg").metadata.photoshop in (None, IPTC)


def test_long_photoshop_data_take_several_segments(tmp_path: Path) -> None:
    long = b"8BIM\x04\x04\0\0" + struct.pack(">I", 100_000) + bytes(100_000)
    pictures.write(tmp_path / "a.jpg", Picture(samples.photo("rgb"), Metadata(photoshop=long)))
    assert pictures.read(tmp_path / "a.jpg").metadata.photoshop == long


def test_a_comment_stays_in_a_jpeg_and_is_said_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(with_segments((0xFE, b"by hand"), (0xFE, b"again")))
    picture = pictures.read(tmp_path / "a.jpg")
    assert pictures.write(tmp_path / "b.jpg", picture) == ()
    assert Image.open(tmp_path / "b.jpg").info["comment"] == b"again"
    assert b"by hand" in (tmp_path / "b.jpg").read_bytes()
    assert any("comment" in note for note in pictures.write(tmp_path / "b.png", picture))


def packet(content: str) -> bytes:
    names = {
        "tiff": "http://ns.adobe.com/tiff/1.0/", "exif": "http://ns.adobe.com/exif/1.0/",
        "dc": "http://purl.org/dc/elements/1.1/", "GPano": "http://ns.google.com/photos/1.0/panorama/",
        "GCamera": "http://ns.google.com/photos/1.0/camera/", "hdrgm": "http://ns.adobe.com/hdr-gain-map/1.0/",
        "Container": "http://ns.google.com/photos/1.0/container/",
    }  # fmt: skip
    spaces = " ".join(f'xmlns:{prefix}="{name}"' for prefix, name in names.items())
    rdf = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
    return (
        f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{rdf}">'
        f"<rdf:Description {spaces} {content}</rdf:Description></rdf:RDF></x:xmpmeta>"
    ).encode()


def in_jpeg(path: Path, xmp: bytes) -> Picture:
    path.write_bytes(with_segments((0xE1, b"http://ns.adobe.com/xap/1.0/\0" + xmp)))
    return pictures.read(path)


@pytest.mark.parametrize("written", ['tiff:Orientation="6">', "><tiff:Orientation>6</tiff:Orientation>"])
def test_an_orientation_in_xmp_alone_turns_the_picture_once(tmp_path: Path, written: str) -> None:
    picture = in_jpeg(tmp_path / "a.jpg", packet(written))
    assert picture.pixels.shape[:2] == samples.photo("rgb").shape[1::-1]
    header = pictures.probe(tmp_path / "a.jpg")
    assert (header.height, header.width) == picture.pixels.shape[:2]
    assert picture.metadata.xmp == packet(written.replace("6", "1"))
    assert metadata.orientation(picture.metadata) == 1


def test_an_orientation_in_exif_counts_before_that_in_xmp() -> None:
    both = Metadata(exif=samples.exif(1), xmp=packet('tiff:Orientation="6">'))
    assert metadata.orientation(both) == 1


def test_what_xmp_says_of_pixels_follows_the_picture() -> None:
    given = packet(
        'exif:PixelXDimension="100" tiff:ImageLength="50" GPano:CroppedAreaLeftPixels="30"'
        ' tiff:XResolution="300/1"'
        " dc:format='image/jpeg'><exif:PixelYDimension>50</exif:PixelYDimension>"
        "<GPano:FullPanoWidthPixels>400</GPano:FullPanoWidthPixels><dc:title>&lt;50&gt;</dc:title>"
    )
    found = metadata.resized(Metadata(xmp=given), (50, 100), (200, 400)).xmp
    assert found == packet(
        'exif:PixelXDimension="400" tiff:ImageLength="200" GPano:CroppedAreaLeftPixels="120"'
        ' tiff:XResolution="1200/1"'
        " dc:format='image/jpeg'><exif:PixelYDimension>200</exif:PixelYDimension>"
        "<GPano:FullPanoWidthPixels>1600</GPano:FullPanoWidthPixels><dc:title>&lt;50&gt;</dc:title>"
    )
    same = metadata.resized(Metadata(xmp=given), (50, 100), (50, 100)).xmp
    assert same == given


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (
            'hdrgm:Version="1.0" dc:format="a"><Container:Directory><rdf:Seq><rdf:li/></rdf:Seq>'
            "</Container:Directory>",
            "gain map",
        ),
        ('GCamera:MotionPhoto="1" GCamera:MotionPhotoVersion="1" dc:format="a">', "motion photo"),
        ('GCamera:MicroVideo="1" GCamera:MicroVideoOffset="123" dc:format="a">', "motion photo"),
    ],
)  # fmt: skip
def test_pictures_and_films_behind_a_jpeg_are_said_and_no_longer_announced(
    tmp_path: Path, content: str, what: str
) -> None:
    picture = in_jpeg(tmp_path / "a.jpg", packet(content))
    assert any(what in note for note in picture.notes)
    pictures.write(tmp_path / "b.jpg", picture)
    kept = pictures.read(tmp_path / "b.jpg")
    assert kept.notes == ()
    xmp = kept.metadata.xmp or b""
    assert b'dc:format="a"' in xmp
    for gone in (b"hdrgm:Version", b"Container:Directory", b"MotionPhoto=", b"MicroVideo"):
        assert gone not in xmp


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp", ".bmp"])
def test_the_resolution_follows_the_size(tmp_path: Path, suffix: str) -> None:
    """A page of 300 dpi is 1200 dpi at four times its size, and as large on paper."""
    dpi = {} if suffix == ".webp" else {"dpi": (300, 300)}
    exif = Image.Exif()
    exif[282], exif[283], exif[296] = 300.0, 300.0, 2
    if suffix in (".jpg", ".webp", ".png"):
        dpi["exif"] = exif.tobytes()  # type: ignore[assignment]
    Image.fromarray(samples.photo("rgb")).save(tmp_path / f"a{suffix}", **dpi)
    picture = pictures.read(tmp_path / f"a{suffix}")
    larger = replace(picture, pixels=picture.pixels.repeat(4, 0).repeat(4, 1))
    for keep, wanted in ((False, 1200), (True, 300)):
        pictures.write(tmp_path / f"b{suffix}", larger, keep_dpi=keep)
        with Image.open(tmp_path / f"b{suffix}") as image:
            found = [image.getexif().get(282)] if "exif" in dpi else []
            found += [image.info["dpi"][0]] if suffix != ".webp" else []
        assert [round(float(value)) for value in found] == [wanted] * len(found)
        assert found


TEXTS = [(b"tEXt", b"Title\0a"), (b"zTXt", b"Title\0\0a"), (b"iTXt", b"Author\0\0\0\0\0\xc3\xa9")]


def with_texts(path: Path, texts: list[tuple[bytes, bytes]], *, last: bool = False) -> Picture:
    extra, end = b"".join(samples.chunk(*one) for one in texts), samples.chunk(b"IEND", b"")
    plain = samples.raw_png(1, 1, 8, 0, b"\0\0")
    whole = plain.removesuffix(end) + extra + end if last else samples.raw_png(1, 1, 8, 0, b"\0\0", extra)
    path.write_bytes(whole)
    return pictures.read(path)


@pytest.mark.parametrize("last", [False, True])
def test_png_texts_stay_except_software_and_dates(tmp_path: Path, last: bool) -> None:
    programs = [(b"tEXt", b"Software\0a"), (b"tEXt", b"date:create\0a")]
    picture = with_texts(tmp_path / "a.png", programs + TEXTS, last=last)
    assert picture.notes == ()
    assert pictures.write(tmp_path / "b.png", picture) == ()
    assert pictures.read(tmp_path / "b.png").metadata.texts == tuple(kind + text for kind, text in TEXTS)
    with Image.open(tmp_path / "b.png") as opened:
        opened.load()
        assert opened.text["Author"] == "é"
        assert "Software" not in opened.text
    assert with_texts(tmp_path / "c.png", programs).metadata.texts == ()


@pytest.mark.parametrize("suffix", ["jpg", "tif", "webp", "avif"])
def test_png_texts_lost_in_other_formats_are_noted(tmp_path: Path, suffix: str) -> None:
    picture, out = with_texts(tmp_path / "a.png", TEXTS), tmp_path / f"b.{suffix}"
    assert pictures.write(out, picture) == ("its text (Title, Author) is left out: only PNG holds it",)
    many = with_texts(tmp_path / "a.png", [(b"tEXt", b"%d\0a" % number) for number in range(9)])
    assert pictures.write(out, many) == ("its text (0, 1, 2, 3, 4, 5, …) is left out: only PNG holds it",)


@pytest.mark.parametrize(
    "broken",
    [
        (b"tEXt", b"\0no keyword"),
        (b"tEXt", b"no end"),
        (b"tEXt", b"k" * 80 + b"\0"),
        (b"zTXt", b"Title\0\7unknown method"),
        (b"zTXt", b"Title\0"),
        (b"iTXt", b"Title\0\0\1"),
    ],
)
def test_texts_that_readers_stumble_over_are_left_out(tmp_path: Path, broken: tuple[bytes, bytes]) -> None:
    picture = with_texts(tmp_path / "a.png", [TEXTS[0], broken], last=True)
    assert picture.metadata.texts == (b"tEXtTitle\0a",)


def test_text_copies_of_chunks_are_left_out(tmp_path: Path) -> None:
    """The chunk's orientation is set to 1 with the pixels; ImageMagick's copy would turn them again."""
    copy = (b"zTXt", b"Raw profile type exif\0\0...")
    assert with_texts(tmp_path / "a.png", [copy]).metadata.texts == (b"".join(copy),)
    own = (b"tEXt", b"exif\0somebody's own words")
    both = with_texts(tmp_path / "a.png", [copy, (b"eXIf", samples.exif(6)), own])
    assert both.metadata.texts == (b"".join(own),)


def test_no_more_than_so_much_text_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("srcli.io.png._MAX_METADATA", 20)
    texts = [(b"tEXt", b"a\0" + b"x" * 10), (b"tEXt", b"b\0" + b"x" * 10), (b"tEXt", b"c\0x")]
    assert with_texts(tmp_path / "a.png", texts).metadata.texts == (b"tEXta\0" + b"x" * 10, b"tEXtc\0x")


@pytest.mark.parametrize("packed", [False, True])
def test_exif_in_a_text_of_a_png_counts_as_exif(tmp_path: Path, packed: bool) -> None:
    blob = b"Exif\0\0" + samples.exif(6)
    body = b"\nexif\n%8d\n" % len(blob) + blob.hex().encode() + b"\n"
    kind, content = (b"zTXt", b"\0" + zlib.compress(body)) if packed else (b"tEXt", body)
    picture = with_texts(tmp_path / "a.png", [(kind, b"Raw profile type exif\0" + content)])
    assert picture.metadata.exif == samples.exif(1)
    assert picture.metadata.texts == ()
    broken = (b"tEXt", b"Raw profile type exif\0" + body[:-10] + b"no hex")
    assert with_texts(tmp_path / "b.png", [broken]).metadata.exif is None
