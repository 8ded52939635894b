"""The codecs a film can be written with: what each holds, FFmpeg's encoder for it, and its options."""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

import cv2

from srcli.imaging.yuv import Coding
from srcli.io.films.facts import Facts

_X26X = (
    "ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow", "placebo"
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Codec:
    """A codec and the encoder for it.

    Attributes:
        title: as people write it.
        canonical: FFmpeg's name of the codec.
        encoder: FFmpeg's name of the encoder.
        depths: bits a sample, ascending.
        preset, presets: of speed: the default, and all there are. None: it has none.
        crf, crfs: constant quality: the default, and the best and the worst. None: it has none.
        pixels, width, height: of the largest picture.
        smallest: the shortest side.
        narrowest: the least width. libx265 writes beyond its memory where pictures have 48 or fewer columns.
        even: sides of pictures with subsampled chroma must be even.
        sitings: of 4:2:0 chroma, that its bitstream can tell. Players take what is not told as "left".
        full_range: whether it can tell full range.
    """

    title: str
    canonical: str
    encoder: str
    depths: tuple[int, ...]
    preset: str | None = None
    presets: tuple[str, ...] = ()
    crf: int | None = None
    crfs: tuple[int, int] = (0, 0)
    pixels: int = 16384 * 16384
    width: int = 16384
    height: int = 16384
    smallest: int = 1
    narrowest: int = 1
    even: bool = False
    sitings: tuple[str, ...] = ("left",)
    full_range: bool = True

    def fits(self, height: int, width: int) -> bool:
        """Whether a picture is within the limits of the codec's highest level and of its encoder."""
        return (
            min(height, width) >= self.smallest
            and height <= self.height
            and self.narrowest <= width <= self.width
            and height * width <= self.pixels
        )


ALL_SITINGS = ("left", "center", "topleft", "top")

CODECS: Mapping[str, Codec] = {
    "h264": Codec(
        "H.264", "h264", "libx264", (8, 10), "veryfast", _X26X, 17, (0, 51),
        pixels=139264 * 256, even=True, sitings=ALL_SITINGS,
    ),
    "h265": Codec(
        "H.265", "hevc", "libx265", (8, 10, 12), "fast", _X26X, 19, (0, 51),
        pixels=35651584, width=16888, height=16888, smallest=16, narrowest=50, even=True, sitings=ALL_SITINGS,
    ),
    "av1": Codec(
        "AV1", "av1", "libsvtav1", (8, 10), "8", tuple(map(str, range(14))), 22, (1, 63),
        pixels=35651584, height=8704, smallest=4, sitings=("left", "topleft"),
    ),
    "vp9": Codec("VP9", "vp9", "libvpx-vp9", (8,), "4", tuple(map(str, range(9))), 22, (0, 63)),
    "prores": Codec("ProRes", "prores", "prores_ks", (10,), full_range=False),
    "ffv1": Codec(
        "FFV1", "ffv1", "ffv1", (8, 9, 10, 12, 14, 16), pixels=1 << 32, width=65535, height=65535
    ),
}  # fmt: skip
"""By the names of --codec. The limits are those of levels 6.2 and of the encoders."""

_QUALITY = {
    "nvenc": {"rc": "vbr", "b": "0", "cq": "{}"},
    "qsv": {"global_quality": "{}"},
    "amf": {"rc": "cqp", "qp_i": "{}", "qp_p": "{}"},
}
HARDWARE = tuple(_QUALITY)
"""How the names of hardware encoders end."""
_AVX512F = 13
"""OpenCV's number of the CPU feature."""
_PARAMETERS = {"libx264": "x264-params", "libx265": "x265-params", "libsvtav1": "svtav1-params"}
"""Options that pass options of the library on."""


def options(
    codec: Codec, coding: Coding, size: tuple[int, int], *, preset: str, crf: int, alpha: bool, threads: int,
    library: Mapping[str, str],
) -> dict[str, str]:  # fmt: skip
    """Options of an encoder.

    Args:
        coding, size, alpha: of the planes.
        threads: pinned, since libx264's output depends on their number, libx265's on what it says of them.
        library: further options, for the encoder's library; from `hdr10`.
    """
    own = {"libx265": {"log-level": "none", "pools": str(threads)}, "libsvtav1": {"lp": str(min(6, threads))}}
    passed = ":".join(f"{key}={value}" for key, value in {**own.get(codec.encoder, {}), **library}.items())
    found = {_PARAMETERS[codec.encoder]: passed} if passed else {}
    if (coding.sub_x, coding.sub_y) == (2, 2) and coding.siting in codec.sitings and len(codec.sitings) > 1:
        found["chroma_sample_location"] = coding.siting
    if codec.encoder in _PARAMETERS:
        return {"preset": preset, "crf": str(crf), **found}
    if codec.encoder == "libvpx-vp9":  # it cannot have both alpha and frames that are not shown
        speed = {"deadline": "good", "cpu-used": preset, "row-mt": "1", "auto-alt-ref": "0" if alpha else "1"}
        return {"crf": str(crf), "b": "0", **speed}
    if codec.encoder == "prores_ks":
        return {"profile": "4", "alpha_bits": "16"} if coding.sub_x == 1 else {"profile": "3"}
    if codec.encoder == "ffv1":  # its own number of slices depends only on the size, and fails for tiny ones
        return {"level": "3", "slicecrc": "1"} | ({"slices": "1"} if min(size) < 16 else {})
    quality = _QUALITY[codec.encoder.rpartition("_")[2]]
    return {key: value.format(crf) for key, value in quality.items()} | ({"preset": preset} if preset else {})


def repeatable_x264(options: Mapping[str, str]) -> dict[str, str]:
    """Options of libx264 on this machine, with which equal frames always give equal bytes.

    x264's AVX-512 code sometimes gives another result for the same frames, even on one thread. Its AVX2 code
    does not, and takes 30% more time for 4K.

    Args:
        options: of the encoding, which hold on all machines.
    """
    if not cv2.checkHardwareSupport(_AVX512F):
        return dict(options)
    name = _PARAMETERS["libx264"]
    return {**options, name: ":".join(filter(None, (options.get(name), "asm=AVX2")))}


def hdr10(facts: Facts, encoder: str) -> dict[str, str]:
    """The metadata of HDR10 as options of the encoder's library; empty where film or encoder has none."""
    names = {
        "libx264": ("mastering-display", "cll"),
        "libx265": ("master-display", "max-cll"),
        "libsvtav1": ("mastering-display", "content-light"),
    }
    if encoder not in names:
        return {}
    display, light = names[encoder]
    found: dict[str, str] = {}
    if facts.mastering and all(facts.mastering[20:]):
        found[display] = _mastering(facts.mastering, exact=encoder != "libsvtav1")
    if facts.light:
        found[light] = f"{facts.light[0]},{facts.light[1]}"
    return {**found, "hdr10": "1"} if found and encoder == "libx265" else found


def _mastering(numbers: tuple[int, ...], *, exact: bool) -> str:
    """The display the film was mastered on: in 1/50000 and 1/10000 cd/m², or as decimal fractions."""
    values = [
        Fraction(number, unit or 1) for number, unit in zip(numbers[0:20:2], numbers[1:20:2], strict=True)
    ]

    def pair(first: Fraction, second: Fraction, unit: int) -> str:
        if exact:
            return f"({round(first * unit)},{round(second * unit)})"
        return f"({float(first):.5f},{float(second):.5f})"

    red, green, blue, white = (pair(values[at], values[at + 1], 50000) for at in range(0, 8, 2))
    return f"G{green}B{blue}R{red}WP{white}L{pair(values[9], values[8], 10000)}"
