"""How films are written is settled, or refused with what is possible, before the first frame."""

import os
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
import scenes

from srcli.errors import UsageError
from srcli.imaging.yuv import Coding
from srcli.io.films import codecs
from srcli.io.films.codecs import CODECS
from srcli.io.films.encoding import Encoding, choose
from srcli.io.films.facts import Facts, probe

HD, UHD, EIGHT_K = (1080, 1920), (2160, 3840), (4320, 7680)
MASTERING = (34000, 50000, 16000, 50000, 13250, 50000, 34500, 50000, 7500, 50000, 3000, 50000,
             15635, 50000, 16450, 50000, 50, 10000, 10000000, 10000, 1, 1)  # fmt: skip


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Facts:
    """An ordinary film: 8 bits, 4:2:0, limited range, BT.709."""
    path = tmp_path_factory.mktemp("film") / "film.mkv"
    scenes.write(path, scenes.Scene(frames=2, audio=()))
    return probe(path)


def coded(facts: Facts, *coding: Any, **changes: Any) -> Facts:
    return replace(facts, coding=Coding(*coding), **changes)


def hdr(facts: Facts, transfer: int = 16, bits: int = 10) -> Facts:
    return coded(facts, bits, 9, False, 2, 2, transfer=transfer, primaries=9)


def settle(facts: Facts, size: tuple[int, int] = HD, name: str = "a.mp4", **asked: Any) -> Encoding:
    return choose(facts, size, Path(name), **asked)


@pytest.mark.parametrize(
    ("size", "name", "encoder"),
    [
        (HD, "a.mp4", "libx264"),
        (HD, "a.mkv", "libx264"),
        (UHD, "a.MOV", "libx264"),
        ((3840, 2160), "a.m4v", "libx264"),
        (HD, "a.webm", "libsvtav1"),
        (EIGHT_K, "a.mp4", "libx265"),
        (EIGHT_K, "a.mov", "libx265"),
        (EIGHT_K, "a.webm", "libsvtav1"),
        ((2400, 4320), "a.mkv", "libx265"),
        ((128, 12000), "a.mkv", "libx264"),
    ],
)
def test_the_usual_codec_plays_everywhere(
    film: Facts, size: tuple[int, int], name: str, encoder: str
) -> None:
    encoding = settle(film, size, name)
    assert (encoding.encoder, encoding.pixel_format) == (encoder, "yuv420p")
    assert encoding.coding == film.coding
    assert any("large" in note for note in encoding.notes) == (encoder == "libx265")


@pytest.mark.parametrize(
    ("name", "encoder"), [("a.mp4", "libsvtav1"), ("a.mkv", "libsvtav1"), ("a.mov", "libx265")]
)
@pytest.mark.parametrize("transfer", [1, 16, 18])
def test_more_than_8_bits_are_kept(film: Facts, name: str, encoder: str, transfer: int) -> None:
    encoding = settle(hdr(film, transfer), HD, name)
    assert (encoding.encoder, encoding.pixel_format) == (encoder, "yuv420p10le")
    assert encoding.coding == hdr(film).coding
    assert (encoding.primaries, encoding.transfer) == (9, transfer)


def test_fast_films_leave_h264_earlier(film: Facts) -> None:
    assert settle(replace(film, rate=Fraction(60)), UHD).codec == "h264"
    assert settle(replace(film, rate=Fraction(120)), UHD).codec == "hevc"


@pytest.mark.parametrize(
    ("codec", "pixel_format"),
    [
        ("h264", "yuv420p10le"),
        ("h265", "yuv420p12le"),
        ("av1", "yuv420p10le"),
        ("vp9", "yuv420p"),
        ("prores", "yuv422p10le"),
        ("ffv1", "yuv420p12le"),
    ],
)
def test_each_codec_takes_the_bits_it_has(film: Facts, codec: str, pixel_format: str) -> None:
    encoding = settle(hdr(film, 1, bits=12), HD, "a.mkv", codec=codec)
    assert encoding.pixel_format == pixel_format
    assert any("12 bits" in note for note in encoding.notes) == (codec not in ("h265", "ffv1"))


@pytest.mark.parametrize(
    ("coding", "pixel_format"),
    [
        ((8, 1, False, 2, 2), "yuv420p"),
        ((8, 1, True, 1, 1), "yuv444p"),
        ((9, 1, False, 2, 1), "yuv422p9le"),
        ((10, 9, False, 2, 2, "topleft"), "yuv420p10le"),
        ((12, 1, False, 1, 1), "yuv444p12le"),
        ((8, 1, False, 4, 1), "yuv411p"),
        ((8, 0, True), "bgr0"),
        ((10, 0, True), "gbrp10le"),
        ((16, 0, True), "gbrp16le"),
    ],
)
def test_lossless_keeps_the_pixels_as_they_are(
    film: Facts, coding: tuple[Any, ...], pixel_format: str
) -> None:
    facts = coded(film, *coding)
    encoding = settle(facts, HD, "a.mkv", lossless=True)
    assert (encoding.encoder, encoding.pixel_format, encoding.coding) == ("ffv1", pixel_format, facts.coding)
    assert encoding.notes == ()


@pytest.mark.parametrize(
    ("bits", "alpha", "pixel_format"), [(8, False, "gray"), (10, False, "gray10le"), (8, True, "yuva444p")]
)
def test_lossless_gray_stays_gray(film: Facts, bits: int, alpha: bool, pixel_format: str) -> None:
    facts = coded(film, bits, 1, True, gray=True, alpha=alpha)
    assert settle(facts, HD, "a.mkv", lossless=True).pixel_format == pixel_format


@pytest.mark.parametrize(
    ("name", "pixel_format", "bits"),
    [
        ("a.mkv", "yuva420p", 8),
        ("a.webm", "yuva420p", 8),
        ("a.mov", "yuva444p10le", 10),
        ("a.mp4", "yuv420p", 8),
    ],
)
def test_alpha_goes_where_it_can(film: Facts, name: str, pixel_format: str, bits: int) -> None:
    encoding = settle(replace(film, alpha=True), HD, name)
    assert (encoding.pixel_format, encoding.coding.bits) == (pixel_format, bits)
    assert encoding.alpha == (name != "a.mp4")
    assert any("laid over white" in note for note in encoding.notes) == (name == "a.mp4")


def test_rgb_becomes_yuv_and_says_so(film: Facts) -> None:
    encoding = settle(coded(film, 8, 0, True))
    assert encoding.coding == Coding(8, 1, False, 2, 2)
    assert any("RGB" in note for note in encoding.notes)


def test_full_range_stays_but_in_prores(film: Facts) -> None:
    facts = coded(film, 8, 5, True, 2, 2)
    assert settle(facts).coding.full_range
    assert not settle(facts, HD, "a.mov", codec="prores").coding.full_range


@pytest.mark.parametrize(
    ("codec", "name", "siting", "kept"),
    [
        ("h264", "a.mp4", "center", True),
        ("h265", "a.mov", "topleft", True),
        ("av1", "a.mp4", "topleft", True),
        ("av1", "a.mp4", "center", False),
        ("av1", "a.mkv", "center", True),
        ("vp9", "a.mp4", "topleft", False),
        ("vp9", "a.webm", "topleft", True),
    ],
)
def test_chroma_lies_where_players_are_told(
    film: Facts, codec: str, name: str, siting: str, kept: bool
) -> None:
    encoding = settle(coded(film, 8, 1, False, 2, 2, siting), HD, name, codec=codec)
    assert encoding.coding.siting == (siting if kept else "left")


# -- geometry ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("codec", "size", "result"),
    [
        ("h264", (95, 127), (94, 126)),
        ("h265", (95, 127), (94, 126)),
        ("h264", (1, 3), (2, 2)),
        ("av1", (95, 127), (95, 127)),
        ("ffv1", (95, 127), (95, 127)),
    ],
)
def test_odd_sizes_are_rounded_where_the_encoder_needs_it(
    film: Facts, codec: str, size: tuple[int, int], result: tuple[int, int]
) -> None:
    encoding = settle(film, size, "a.mkv", codec=codec)
    assert encoding.size == result
    assert any("even" in note for note in encoding.notes) == (size != result)


@pytest.mark.parametrize(
    ("codec", "name", "size", "aspect"),
    [
        ("h264", "a.mkv", (480, 720), Fraction(64, 45)),
        ("av1", "a.mp4", (480, 720), Fraction(64, 45)),
        ("av1", "a.mkv", (480, 1024), Fraction(1)),
        ("vp9", "a.webm", (480, 1024), Fraction(1)),
        ("ffv1", "a.mkv", (480, 1024), Fraction(1)),
    ],
)
def test_pixels_become_square_where_others_cannot_be_told(
    film: Facts, codec: str, name: str, size: tuple[int, int], aspect: Fraction
) -> None:
    encoding = settle(replace(film, sample_aspect=Fraction(64, 45)), (480, 720), name, codec=codec)
    assert (encoding.size, encoding.sample_aspect) == (size, aspect)
    assert any("square" in note for note in encoding.notes) == (aspect == 1)


def test_narrow_pixels_make_a_taller_picture(film: Facts) -> None:
    encoding = settle(replace(film, sample_aspect=Fraction(8, 9)), (480, 720), "a.webm")
    assert encoding.size == (540, 720)


# -- HDR10 ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("encoder", "expected"),
    [
        (
            "libx265",
            {
                "master-display": "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)",
                "max-cll": "1000,400",
                "hdr10": "1",
            },
        ),
        (
            "libsvtav1",
            {
                "mastering-display": "G(0.26500,0.69000)B(0.15000,0.06000)R(0.68000,0.32000)"
                "WP(0.31270,0.32900)L(1000.00000,0.00500)",
                "content-light": "1000,400",
            },
        ),
        ("libvpx-vp9", {}),
    ],
)
def test_hdr10_becomes_options_of_the_library(film: Facts, encoder: str, expected: dict[str, str]) -> None:
    assert codecs.hdr10(replace(hdr(film), mastering=MASTERING, light=(1000, 400)), encoder) == expected


def test_half_of_the_metadata_is_written_too(film: Facts) -> None:
    assert codecs.hdr10(replace(hdr(film), light=(1000, 400)), "libx264") == {"cll": "1000,400"}
    incomplete = (*MASTERING[:21], 0)
    assert codecs.hdr10(replace(hdr(film), mastering=incomplete), "libx265") == {}


@pytest.mark.parametrize(("codec", "kept"), [("h265", True), ("av1", True), ("vp9", False), ("ffv1", False)])
def test_lost_metadata_of_hdr10_is_said(film: Facts, codec: str, kept: bool) -> None:
    encoding = settle(replace(hdr(film), light=(1000, 400)), HD, "a.mkv", codec=codec)
    assert any("HDR10" in note for note in encoding.notes) != kept


# -- what is asked for ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", CODECS)
def test_presets_and_quality_reach_the_encoder(film: Facts, codec: str) -> None:
    entry = CODECS[codec]
    asked = {"crf": entry.crfs[1], "preset": entry.presets[-1]} if entry.presets else {}
    options = dict(settle(film, (48, 64), "a.mkv", codec=codec, **asked).options)
    known = av.Codec(entry.encoder, "w").create().supported_options
    assert set(options) <= {option.name for option in (*known.generic, *known.private)}
    if entry.presets:
        assert options["crf"] == str(entry.crfs[1])
        assert options["cpu-used" if codec == "vp9" else "preset"] == entry.presets[-1]


@pytest.mark.parametrize(
    ("name", "asked", "hint"),
    [
        ("a.mov", {"codec": "av1"}, ".mkv, .mp4, .m4v or .webm, or choose --codec h264, h265 or prores"),
        ("a.mp4", {"codec": "prores"}, ".mkv or .mov"),
        ("a.mp4", {"lossless": True}, "Write .mkv"),
        ("a.mkv", {"lossless": True, "codec": "h264"}, "Leave out one"),
        ("a.webm", {"codec": "h264"}, "--codec av1 or vp9"),
        ("a.mkv", {"codec": "mpeg2"}, "h264, h265, av1"),
        ("a.mkv", {"codec": "h264_magic"}, "h264, h265, av1"),
        ("a.mkv", {"crf": 60}, "--crf 51"),
        ("a.mkv", {"codec": "av1", "crf": 0}, "--crf 1"),
        ("a.mkv", {"codec": "ffv1", "crf": 5}, "Leave out --crf"),
        ("a.mkv", {"codec": "prores", "preset": "slow"}, "Leave out --preset"),
        ("a.mkv", {"preset": "8"}, "veryfast"),
        ("a.mkv", {"codec": "av1", "preset": "fast"}, "0, 1, 2"),
        ("a.mkv", {"container": "avi"}, ".mkv"),
        ("a.txt", {}, ".mkv"),
    ],
)
def test_what_is_impossible_is_refused_with_what_is_possible(
    film: Facts, name: str, asked: dict[str, Any], hint: str
) -> None:
    with pytest.raises(UsageError) as caught:
        settle(film, HD, name, **asked)
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("size", "asked", "hint"),
    [
        ((8192, 8192), {"codec": "h264"}, "--codec vp9"),
        ((4320, 8192), {"codec": "h264"}, None),
        ((8705, 2000), {"codec": "av1"}, "--codec h264"),
        ((8, 8), {"codec": "h265"}, "--codec h264"),
        ((64, 48), {"codec": "h265"}, "--codec h264"),
        ((16, 50), {"codec": "h265"}, None),
        ((20000, 20000), {}, "--codec ffv1"),
    ],
)
def test_sizes_beyond_a_codec_are_refused(
    film: Facts, size: tuple[int, int], asked: dict[str, Any], hint: str | None
) -> None:
    if hint is None:
        assert settle(film, size, "a.mkv", **asked).size == size
        return
    with pytest.raises(UsageError) as caught:
        settle(film, size, "a.mkv", **asked)
    assert hint in caught.value.hint


def test_a_container_may_be_named_beside_the_target(film: Facts) -> None:
    assert settle(film, HD, "-", container="mkv").container == ".mkv"
    assert settle(film, HD, "a.mp4", container=".WEBM").container == ".webm"


@pytest.mark.parametrize(
    ("name", "usual"), [("h264_nvenc", "h264"), ("hevc_nvenc", "h265"), ("av1_qsv", "av1")]
)
def test_hardware_encoders_are_tried_before_they_are_promised(
    film: Facts, monkeypatch: pytest.MonkeyPatch, name: str, usual: str
) -> None:
    def fails(*_: object) -> None:
        raise av.error.ExternalError(1, "no device")

    monkeypatch.setattr(av.CodecContext, "create", fails)
    with pytest.raises(UsageError, match=f"{name} does not open") as caught:
        settle(film, HD, "a.mp4", codec=name)
    assert caught.value.hint == f"Use --codec {usual}."


@pytest.mark.parametrize("name", ["h264_nvenc", "hevc_qsv", "av1_amf"])
def test_hardware_encoders_get_options_that_they_have(
    film: Facts, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("srcli.io.films.encoding._check_opens", lambda *_: None)
    encoding = settle(hdr(film), HD, "a.mp4", codec=name, preset="p5", crf=30)
    options = dict(encoding.options)
    known = av.Codec(name, "w").create().supported_options
    assert set(options) <= {option.name for option in (*known.generic, *known.private)}
    assert "30" in options.values()
    assert encoding.pixel_format in {form.name for form in av.Codec(name, "w").video_formats or ()}
    assert encoding.coding.bits == (10 if encoding.pixel_format.endswith("10le") else 8)


def test_threads_are_pinned(film: Facts) -> None:
    assert settle(film, threads=3).threads == 3
    usual = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert settle(film).threads == min(16, usual or 1)
    assert dict(settle(film, codec="h265", threads=3).options)["x265-params"].endswith("pools=3")
