"""Frames for encoders hold the planes they are made of; encoders say what their samples mean."""

import io
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any

import av
import copies
import numpy as np
import pytest
import scenes
from scenes import Scene
from test_encoding import MASTERING

from srcli.imaging.yuv import Coding
from srcli.io.films.encoder import add_encoder, make_frame
from srcli.io.films.encoding import Encoding
from srcli.io.films.facts import probe
from srcli.io.films.planes import layout_of, planes_of

BASE = Fraction(1, 25)


def encoding(pixel_format: str, coding: Coding, size: tuple[int, int] = (48, 64), **changes: Any) -> Encoding:
    values = {
        "codec": "ffv1", "encoder": "ffv1", "options": (), "alpha": False, "sample_aspect": Fraction(1),
        "container": ".mkv", "codec_tag": "", "primaries": 9, "transfer": 16, "threads": 1,
    }  # fmt: skip
    return Encoding(pixel_format=pixel_format, coding=coding, size=size, **{**values, **changes})


def planes(coding: Coding, size: tuple[int, int], seed: int = 0) -> list[np.ndarray]:
    small = (-(-size[0] // coding.sub_y), -(-size[1] // coding.sub_x))
    kind = np.uint8 if coding.bits == 8 else np.uint16
    noise = np.random.default_rng(seed)
    return [noise.integers(0, 1 << coding.bits, shape).astype(kind) for shape in (size, small, small)]


@pytest.mark.parametrize("size", list(product((1, 17, 47), (1, 13, 33, 127))))
@pytest.mark.parametrize(
    "name", ["yuv420p", "yuv422p10le", "yuv444p12le", "gbrp16le", "bgr0", "nv12", "p010le"]
)
def test_frames_hold_their_planes_whatever_their_width(name: str, size: tuple[int, int]) -> None:
    layout = layout_of(name)
    assert layout is not None
    coding = Coding(layout.bits, 0 if layout.rgb else 1, layout.rgb, layout.sub_x, layout.sub_y)
    given = planes(coding, size)
    frame = make_frame(given, None, 7, BASE, encoding(name, coding, size))
    assert (frame.width, frame.height, frame.format.name) == (size[1], size[0], name)
    assert (frame.pts, frame.time_base) == (7, BASE)
    found, alpha = planes_of(frame)
    assert alpha is None
    for before, after in zip(given, found, strict=True):
        np.testing.assert_array_equal(after, before)


@pytest.mark.parametrize("name", ["yuva420p", "yuva444p10le", "bgra", "gbrap12le"])
def test_frames_hold_alpha(name: str) -> None:
    layout = layout_of(name)
    assert layout is not None
    coding = Coding(layout.bits, 0 if layout.rgb else 1, layout.rgb, layout.sub_x, layout.sub_y)
    given, alpha = planes(coding, (33, 47)), planes(coding, (33, 47), seed=1)[0]
    frame = make_frame(given, alpha, 0, BASE, encoding(name, coding, (33, 47), alpha=True))
    np.testing.assert_array_equal(planes_of(frame)[1], alpha)
    with pytest.raises(ValueError, match="alpha"):
        make_frame(given, None, 0, BASE, encoding(name, coding, (33, 47), alpha=True))


@pytest.mark.parametrize("name", ["gray", "gray10le"])
def test_gray_formats_take_the_luma_of_three_planes(name: str) -> None:
    coding = Coding(8 if name == "gray" else 10, 1, False)
    given = planes(coding, (33, 47))
    frame = make_frame(given, None, 0, BASE, encoding(name, coding, (33, 47)))
    np.testing.assert_array_equal(planes_of(frame)[0][0], given[0])


def test_luma_alone_gets_chroma_without_colour() -> None:
    coding = Coding(10, 1, False, 2, 2)
    luma = planes(coding, (33, 47))[:1]
    found, _ = planes_of(make_frame(luma, None, 0, BASE, encoding("yuv420p10le", coding, (33, 47))))
    np.testing.assert_array_equal(found[0], luma[0])
    assert all((plane == 512).all() for plane in found[1:])


def test_planes_of_another_size_are_refused() -> None:
    coding = Coding(8, 1, False, 2, 2)
    with pytest.raises(ValueError, match="shape"):
        make_frame(planes(coding, (32, 64)), None, 0, BASE, encoding("yuv420p", coding))


def test_frames_and_contexts_carry_the_same_tags() -> None:
    coding = Coding(8, 9, True, 2, 2)
    settings = encoding("yuv420p", coding, sample_aspect=Fraction(4, 3))
    frame = make_frame(planes(coding, (48, 64)), None, 0, BASE, settings)
    with av.open(io.BytesIO(), "w", format="nut") as out:
        context = add_encoder(out, settings, BASE, Fraction(25)).codec_context
        assert context.sample_aspect_ratio == Fraction(4, 3)
        for tagged in (frame, context):
            tags = tagged.color_range, tagged.colorspace, tagged.color_primaries, tagged.color_trc
            assert tags == (2, 9, 9, 16)


@pytest.mark.parametrize(
    ("codec", "suffix"), [("h265", ".mp4"), ("h265", ".mkv"), ("av1", ".mp4"), ("av1", ".webm")]
)
def test_hdr10_is_in_the_bitstream(tmp_path: Path, codec: str, suffix: str) -> None:
    scene = Scene(
        frames=3, pixel_format="yuv420p10le", codec="libx265", matrix=9, primaries=9, transfer=16,
        options={"x265-params": "log-level=none:hdr10=1:max-cll=1000,400:master-display="
                 "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)"},
    )  # fmt: skip
    scenes.write(tmp_path / "a.mkv", scene)
    assert probe(tmp_path / "a.mkv").mastering == MASTERING
    copies.copy(tmp_path / "a.mkv", tmp_path / f"out{suffix}", codec=codec)
    found = probe(tmp_path / f"out{suffix}")
    assert found.light == (1000, 400)
    assert (found.transfer, found.primaries, found.matrix) == (16, 9, 9)
    assert found.mastering is not None
    values = [
        pair[0] / pair[1] for pair in zip(found.mastering[0:20:2], found.mastering[1:20:2], strict=True)
    ]
    wanted = [pair[0] / pair[1] for pair in zip(MASTERING[0:20:2], MASTERING[1:20:2], strict=True)]
    np.testing.assert_allclose(values, wanted, rtol=0.002, atol=2e-5)


FORMATS = ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv444p12le", "gray", "gray10le", "bgr0"]


@pytest.mark.parametrize("name", [*FORMATS, "gbrp10le", "yuva420p", "yuva444p10le", "bgra"])
def test_lossless_copies_have_the_same_samples(tmp_path: Path, name: str) -> None:
    rgb = "gb" in name
    scene = Scene(
        codec="ffv1", options={}, frames=3, width=97, height=95, pixel_format=name, full_range=rgb,
        matrix=0 if rgb else 1,
    )  # fmt: skip
    scenes.write(tmp_path / "a.mkv", scene)
    copies.copy(tmp_path / "a.mkv", tmp_path / "b.mkv", lossless=True)
    before, after = (probe(tmp_path / each) for each in ("a.mkv", "b.mkv"))
    assert (after.coding, after.pixel_format) == (before.coding, name)
    pairs = zip(copies.decoded(before), copies.decoded(after), strict=True)
    for (_, old, old_alpha), (_, new, new_alpha) in pairs:
        for left, right in zip([*old, old_alpha], [*new, new_alpha], strict=True):
            np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("suffix", [".mkv", ".webm", ".mov"])
def test_alpha_is_kept_by_vp9_and_prores(tmp_path: Path, suffix: str) -> None:
    scene = Scene(
        codec="ffv1", options={}, frames=12, pixel_format="yuva420p", start=Fraction(1, 3), rate=Fraction(24)
    )
    scenes.write(tmp_path / "a.mkv", scene)
    copies.copy(tmp_path / "a.mkv", tmp_path / f"out{suffix}", every=5)
    before, after = (probe(tmp_path / each) for each in ("a.mkv", f"out{suffix}"))
    assert after.alpha
    for (_, _, old), (_, _, new) in zip(copies.decoded(before), copies.decoded(after), strict=True):
        assert old is not None
        assert new is not None
        assert np.abs(old.astype(float) - new / ((1 << after.coding.bits) - 1) * 255).max() <= 1
    start = copies.times(tmp_path / "a.mkv")[0]
    exact = [start + number / Fraction(24) for number in range(12)]
    tolerance = 0 if suffix == ".mov" else Fraction(1, 1000)
    found = copies.times(tmp_path / f"out{suffix}")
    assert max(abs(a - b) for a, b in zip(found, exact, strict=True)) <= tolerance


@pytest.mark.parametrize("siting", ["left", "topleft", "top", "center"])
@pytest.mark.parametrize("codec", ["ffv1", "vp9", "av1", "h264"])
def test_players_are_told_where_chroma_lies(tmp_path: Path, siting: str, codec: str) -> None:
    scene = Scene(frames=2, audio=(), options={**scenes.X264, "chroma_sample_location": siting})
    scenes.write(tmp_path / "a.mkv", scene)
    out = tmp_path / "out.mkv"
    assert copies.copy(tmp_path / "a.mkv", out, codec=codec).encoding.coding.siting == siting
    if codec == "h264":
        assert probe(out).coding.siting == siting
    else:  # EBML: ChromaSitingHorz and ChromaSitingVert; 1 at the left or top, 2 between
        told = {"left": (1, 2), "topleft": (1, 1), "top": (2, 1), "center": (2, 2)}[siting]
        assert bytes([0x55, 0xB7, 0x81, told[0], 0x55, 0xB8, 0x81, told[1]]) in out.read_bytes()
