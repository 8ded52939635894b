from fractions import Fraction
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from srcli.io.films.planes import layout_of, planes_of

CHROMA = {(1, 1): "444", (2, 1): "422", (2, 2): "420", (4, 1): "411", (4, 4): "410", (1, 2): "440"}


def random_frame(name: str, width: int, height: int) -> av.VideoFrame:
    """Any codes that the format allows."""
    frame, rng = av.VideoFrame(width, height, name), np.random.default_rng(3)
    for plane in frame.planes:
        codes: NDArray[Any] = rng.integers(0, 256, plane.buffer_size, np.uint8)
        if frame.format.components[0].bits > 8:
            codes = codes.view(np.uint16) & (1 << frame.format.components[0].bits) - 1
        plane.update(codes.tobytes())
    return frame


def planar(name: str) -> str:
    """The planar format with the same samples."""
    layout = layout_of(name)
    assert layout is not None
    depth = "" if layout.bits == 8 else f"{layout.bits}le"
    if layout.gray:
        return f"ya{layout.bits}{depth and 'le'}" if layout.alpha else f"gray{depth}"
    if layout.rgb:
        return f"gbr{'a' * layout.alpha}p{depth}"
    return f"yuv{'a' * layout.alpha}{CHROMA[layout.sub_x, layout.sub_y]}p{depth}"


@pytest.mark.parametrize(
    "name",
    [
        "nv12", "nv21", "nv16", "nv24", "nv42", "nv20le", "p010be", "p012le", "p210le", "p216le",
        "p410le", "p416be", "yuyv422", "uyvy422", "yvyu422", "y210le", "y212le", "y216le", "rgb24",
        "bgr24", "rgba", "bgra", "argb", "abgr", "rgb0", "bgr0", "0rgb", "0bgr", "rgb48le", "rgb48be",
        "bgr48le", "rgba64le", "bgra64be", "ya16be", "ayuv", "ayuv64le", "vuya", "vuyx", "uyva",
        "vyu444", "xv36le", "xv48le", "yuv420p9be", "yuv422p14be", "gray16be", "gbrp12be",
    ],
)  # fmt: skip
@pytest.mark.parametrize("width", [32, 31])
def test_packed_samples_are_those_of_planar_formats(name: str, width: int) -> None:
    frame = random_frame(planar(name), width, 18)
    expected, alpha = planes_of(frame)
    planes, packed_alpha = planes_of(frame.reformat(format=name))
    assert all((ours == theirs).all() for ours, theirs in zip(planes, expected, strict=True))
    assert [plane.dtype for plane in planes] == [plane.dtype for plane in expected]
    assert all(plane.strides[1] == plane.itemsize and not plane.flags.writeable for plane in planes)
    if alpha is not None:
        assert packed_alpha is not None
        assert (packed_alpha == alpha).all()


@pytest.mark.parametrize(
    ("name", "bits", "kind", "chroma"),
    [
        ("yuv420p", 8, np.uint8, (9, 16)), ("yuv411p", 8, np.uint8, (17, 8)),
        ("yuv410p", 8, np.uint8, (5, 8)), ("yuv440p", 8, np.uint8, (9, 31)),
        ("yuv420p9le", 9, np.uint16, (9, 16)),
        ("yuv422p10le", 10, np.uint16, (17, 16)), ("yuva444p12le", 12, np.uint16, (17, 31)),
        ("yuv420p14le", 14, np.uint16, (9, 16)), ("yuv444p16le", 16, np.uint16, (17, 31)),
        ("gbrap10le", 10, np.uint16, (17, 31)),
    ],
)  # fmt: skip
def test_planes_of_odd_sizes_round_up(name: str, bits: int, kind: Any, chroma: tuple[int, int]) -> None:
    frame = random_frame(name, 31, 17)
    planes, alpha = planes_of(frame)
    layout = layout_of(name)
    assert layout is not None
    assert (layout.bits, layout.alpha) == (bits, alpha is not None)
    assert [plane.shape for plane in planes] == [(17, 31), chroma, chroma]
    assert {plane.dtype for plane in planes} == {np.dtype(kind)}
    assert planes_of(frame, alpha=False)[1] is None


def test_gray_is_one_plane() -> None:
    planes, alpha = planes_of(random_frame("gray10le", 31, 17))
    assert [plane.shape for plane in planes] == [(17, 31)]
    assert alpha is None


def test_palette_gives_colours_and_alpha() -> None:
    frame = av.VideoFrame(4, 2, "pal8")
    frame.planes[0].update((b"\0\1\2\3" + bytes(frame.planes[0].line_size - 4)) * 2)
    frame.planes[1].update(bytes([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]) + bytes(1008))
    (green, blue, red), alpha = planes_of(frame)
    assert green.tolist() == [[2, 6, 10, 14]] * 2
    assert blue.tolist() == [[1, 5, 9, 13]] * 2
    assert red.tolist() == [[3, 7, 11, 15]] * 2
    assert alpha is not None
    assert alpha.tolist() == [[4, 8, 12, 16]] * 2


def test_rows_from_bottom_to_top_are_turned() -> None:
    frame = random_frame("yuv420p10le", 31, 18)
    graph = av.filter.Graph()
    source = graph.add_buffer(width=31, height=18, format=frame.format, time_base=Fraction(1, 25))
    graph.link_nodes(source, graph.add("vflip"), graph.add("buffersink")).configure()
    graph.push(frame)
    turned: Any = graph.vpull()
    assert turned.planes[0].line_size < 0
    pairs = zip(planes_of(turned)[0], planes_of(frame)[0], strict=True)
    assert all((ours == theirs[::-1]).all() for ours, theirs in pairs)


def test_planes_outlive_their_frame() -> None:
    frame = random_frame("yuv420p", 64, 64)
    expected = bytes(frame.planes[0])
    planes, _ = planes_of(frame)
    del frame
    assert planes[0].tobytes() == expected


@pytest.mark.parametrize(
    "name", ["bayer_rggb8", "monow", "rgb565le", "rgb8", "gbrpf32le", "gray32le", "xyz12le", "cuda"]
)
def test_other_formats_are_not_read(name: str) -> None:
    assert layout_of(name) is None
