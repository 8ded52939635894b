"""Films made by code. Each frame shows its number as bars, and each flash of white has a click in the sound.

`write` makes one from keywords; `read_number` and `is_flash` read a frame again, at any scale and depth;
`clicks` finds the clicks. Small, so that making and reading one takes well under a second.
"""

import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from math import lcm
from pathlib import Path
from typing import Any, TypeAlias

import av
import numpy as np
from av.stream import Disposition
from numpy.typing import NDArray

Plane = NDArray[Any]
Packet: TypeAlias = "av.Packet[Any]"

BITS = 12
"""Bars that hold the number; a white and a black one stand before them."""
FLASH_EVERY = 8
"""Frames 0, 8, 16 … are flashes."""
SAMPLE_RATE = 48000
CLICK = 240
"""Samples of a click, 5 ms."""

X264 = {"preset": "ultrafast", "crf": "12"}
B_FRAMES = {**X264, "bf": "3", "b_strategy": "0", "b-pyramid": "strict", "g": "12"}
"""Options for libx264: reordered frames, closed groups of pictures."""
OPEN_GOP = {**B_FRAMES, "x264-params": "open-gop=1:keyint=12:min-keyint=12:scenecut=0:bframes=3:b-adapt=0"}

_AUDIO = {".mp4": "aac", ".m4v": "aac", ".webm": "libopus", ".ts": "mp2", ".mpg": "mp2", ".vob": "mp2"}
"""Codec of the sound by suffix; PCM elsewhere."""

_PLANAR = {
    "nv12": "yuv420p", "nv16": "yuv422p", "yuyv422": "yuv422p", "uyvy422": "yuv422p", "p010le": "yuv420p10le",
}  # fmt: skip
"""Packed formats -> the planar one with the same samples."""


@dataclass(frozen=True, slots=True)
class Audio:
    """A track of sound: silence with a click at each flash.

    Attributes:
        codec: an encoder; None takes what suits the container.
        seconds: its length; None: as long as the picture.
        start: seconds by which the track begins after the picture; clicks stay at the flashes.
        language: of its tag.
    """

    codec: str | None = None
    seconds: float | None = None
    start: Fraction = Fraction(0)
    language: str = "eng"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What a film made here is.

    Attributes:
        codec, options: the video encoder; None: no video.
        frames, width, height, pixel_format: of the picture; any planar format, nv12, p010le and packed RGB.
        rate: frames a second.
        times: presentation times in `time_base`; None: constant rate.
        time_base: of the video; None: 1 / rate, or finer where the start needs it.
        start: seconds at which the first frame is shown.
        full_range, matrix, primaries, transfer: tags; the samples are made for the range.
        sar: sample aspect ratio.
        rotation, hflip: display matrix, degrees counter-clockwise.
        interlaced: said to be, by the codec or the container, top field first; the two fields show the same.
        audio: tracks; none: silent film.
        audio_first: streams of sound come before the video.
        subtitles, chapters, cover, attachment: one text subtitle, two chapters, a PNG, a font.
        container_options: for the muxer.
    """

    codec: str | None = "libx264"
    options: Mapping[str, str] = field(default_factory=lambda: dict(X264))
    frames: int = 24
    width: int = 128
    height: int = 96
    pixel_format: str = "yuv420p"
    rate: Fraction = Fraction(25)
    times: Sequence[int] | None = None
    time_base: Fraction | None = None
    start: Fraction = Fraction(0)
    full_range: bool = False
    matrix: int = 1
    primaries: int = 1
    transfer: int = 1
    sar: Fraction | None = None
    rotation: int = 0
    hflip: bool = False
    interlaced: bool = False
    audio: Sequence[Audio] = (Audio(),)
    audio_first: bool = False
    subtitles: bool = False
    chapters: bool = False
    cover: bool = False
    attachment: bool = False
    container_options: Mapping[str, str] = field(default_factory=dict)

    @property
    def base(self) -> Fraction:
        """Time base of the video."""
        if self.time_base or not self.start:
            return self.time_base or 1 / self.rate
        return Fraction(1, lcm(self.rate.numerator, self.start.denominator))

    @property
    def seconds(self) -> list[Fraction]:
        """When each frame is shown."""
        if self.times is not None:
            return [self.start + time * self.base for time in self.times]
        return [self.start + number / self.rate for number in range(self.frames)]

    @property
    def length(self) -> Fraction:
        """End of the last frame, in seconds."""
        return self.seconds[-1] + 1 / self.rate

    @property
    def flashes(self) -> list[Fraction]:
        """When each flash is shown, in seconds."""
        return self.seconds[::FLASH_EVERY]


def write(path: Path, scene: Scene | None = None) -> Scene:
    """Write a film; the container follows from the suffix. Returns the scene.

    Streams: video, then sound, then subtitles (sound first where the scene says so), then the cover.
    """
    scene = scene or Scene()
    with av.open(str(path), "w", container_options=dict(scene.container_options)) as out:
        out.metadata["title"] = "A scene"
        packets: list[Packet] = []
        if scene.audio_first:
            packets += _sound(out, path, scene)
        if scene.codec:
            packets += _video(out, scene)
        if not scene.audio_first:
            packets += _sound(out, path, scene)
        if scene.subtitles:
            packets += _subtitles(out, path)
        if scene.cover or scene.attachment:
            packets += _extras(out, path, scene)
        if scene.chapters:
            half = round(scene.length * 500)
            end, base = round(scene.length * 1000), Fraction(1, 1000)
            out.set_chapters([
                {"id": 0, "start": 0, "end": half, "time_base": base, "metadata": {"title": "One"}},
                {"id": 1, "start": half, "end": end, "time_base": base, "metadata": {"title": "Two"}},
            ])  # fmt: skip
        for packet in sorted(packets, key=_moment):
            out.mux(packet)
    return scene


def picture(scene: Scene, number: int, bits: int, chroma: tuple[int, int] | None) -> list[Plane]:
    """The planes of a frame: luma, then Cb and Cr of `chroma` (height, width) if there are any."""
    low, high = _codes(scene.full_range, bits)
    kind = np.uint8 if bits == 8 else np.uint16
    luma = np.full((scene.height, scene.width), (low + high) // 2, kind)
    top, bottom = scene.height // 2, scene.height * 3 // 4
    ramp = (np.arange(scene.width) * 2 + number * 3) % scene.width
    luma[top:bottom] = low + (high - low) * ramp // scene.width
    for index, lit in enumerate((1, 0, *(number >> bit & 1 for bit in range(BITS)))):
        left, right = (scene.width * edge // (BITS + 2) for edge in (index, index + 1))
        luma[:top, left:right] = high if lit else low
    luma[bottom:] = high if number % FLASH_EVERY == 0 else low
    if chroma is None:
        return [luma]
    span = (high - low) // 3
    slope = np.linspace(-span, span, chroma[1]).round().astype(int) + (1 << bits - 1)
    return [luma, *(np.broadcast_to(part, chroma).astype(kind) for part in (slope, slope[::-1]))]


def read_number(pixels: Plane | Sequence[Plane]) -> int:
    """The number of a frame: of its planes (luma first; G first of RGB planes), or of (H, W[, C]) pixels."""
    luma = _luma(pixels)
    rows = luma[luma.shape[0] // 8 : luma.shape[0] * 3 // 8].astype(float)
    edges = [luma.shape[1] * edge / (BITS + 2) for edge in range(BITS + 3)]
    bars = [
        rows[:, round(left + (right - left) / 4) : round(right - (right - left) / 4)].mean()
        for left, right in pairwise(edges)
    ]
    middle = (bars[0] + bars[1]) / 2
    return sum(1 << bit for bit, bar in enumerate(bars[2:]) if bar > middle)


def is_flash(pixels: Plane | Sequence[Plane]) -> bool:
    """Whether a frame is a flash; pixels as of `read_number`."""
    luma = _luma(pixels)
    height, width = luma.shape
    gray = luma[
        height // 8 : height * 3 // 8, : 2 * width // (BITS + 2)
    ].mean()  # of the white and the black bar
    return bool(luma[height * 7 // 8 :].mean() > gray)


def clicks(path: Path, track: int = 0) -> list[Fraction]:
    """When the clicks of a track of sound begin, in seconds, within 3 ms."""
    found: list[Fraction] = []
    with av.open(str(path)) as container:
        for frame in container.decode(audio=track):
            samples = frame.to_ndarray()[0]
            if frame.format.is_packed:
                samples = samples[:: frame.layout.nb_channels]
            loud = np.flatnonzero(
                np.abs(samples.astype(float)) > (0.2 if samples.dtype.kind == "f" else 6000)
            )
            assert frame.pts is not None
            assert frame.time_base is not None
            begin = frame.pts * frame.time_base
            for index in loud:
                moment = begin + Fraction(int(index), frame.sample_rate)
                if not found or moment - found[-1] > Fraction(1, 50):
                    found.append(moment)
    return found


def damage(path: Path, packets: Iterable[int]) -> None:
    """Fill the packets with these numbers (of the video, in the order of the file) with noise, sizes kept."""
    wanted = set(packets)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        found = [(packet.pos or 0, bytes(packet)) for packet in container.demux(stream) if packet.size]
    data = bytearray(path.read_bytes())
    noise = np.random.default_rng(1)
    for number in wanted:
        place, packet = found[number]
        at = data.find(packet, place)
        assert at >= 0, "a packet is not stored in one piece"
        data[at : at + len(packet)] = noise.bytes(len(packet))
    path.write_bytes(data)


def cut(path: Path, share: float) -> None:
    """Keep the first part of a file."""
    data = path.read_bytes()
    path.write_bytes(data[: round(len(data) * share)])


def png(width: int = 16, height: int = 16) -> bytes:
    """A gray PNG, for covers."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = b"".join(b"\0" + bytes([128] * width) for _ in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def _moment(packet: Packet) -> Fraction:
    time = packet.dts if packet.dts is not None else packet.pts
    return (time or 0) * packet.time_base


def _codes(full: bool, bits: int) -> tuple[int, int]:
    """Black and white."""
    return (0, (1 << bits) - 1) if full else (16 << bits - 8, 235 << bits - 8)


def _luma(pixels: Plane | Sequence[Plane]) -> Plane:
    if isinstance(pixels, np.ndarray):
        return pixels if pixels.ndim == 2 else pixels[..., 0]
    return pixels[0]


def _frame(scene: Scene, number: int) -> av.VideoFrame:
    """A frame, made in a planar format and repacked by swscale where the scene's is none."""
    name = scene.pixel_format
    planar = _PLANAR.get(name, name)
    form = av.VideoFormat(planar, scene.width, scene.height)
    if not form.is_planar and len(form.components) > 1:
        bits = form.components[0].bits
        planar = ("gbrap" if len(form.components) == 4 else "gbrp") + (f"{bits}le" if bits > 8 else "")
        form = av.VideoFormat(planar, scene.width, scene.height)
    bits = form.components[0].bits
    frame = av.VideoFrame(scene.width, scene.height, planar)
    planes = [picture(scene, number, bits, None)[0]] * 3
    if not form.is_rgb and len(form.components) > 2:
        planes = picture(scene, number, bits, (form.components[1].height, form.components[1].width))
    if len(form.components) in (2, 4):  # alpha: opaque at the left, clear at the right
        kind = planes[0].dtype
        clear = np.linspace((1 << bits) - 1, 0, scene.width).round().astype(kind)
        planes = [*planes, np.broadcast_to(clear, planes[0].shape)]
    for target, plane in zip(frame.planes, planes, strict=False):
        rows = np.zeros((target.height, target.line_size), np.uint8)
        samples = np.ascontiguousarray(plane, ">u2" if form.is_big_endian else None).view(np.uint8)
        rows[:, : samples.shape[1]] = samples
        target.update(rows)
    return frame if planar == name else frame.reformat(format=name)


def _video(out: av.container.OutputContainer, scene: Scene) -> list[Packet]:
    assert scene.codec
    options = dict(scene.options) if scene.codec == "libx264" or scene.options != X264 else {}
    stream: Any = out.add_stream(scene.codec, rate=scene.rate, options=options)
    stream.width, stream.height, stream.pix_fmt = scene.width, scene.height, scene.pixel_format
    context = stream.codec_context
    context.thread_count = 1
    context.time_base = stream.time_base = scene.base
    context.color_range = 2 if scene.full_range else 1
    context.colorspace, context.color_primaries, context.color_trc = (
        scene.matrix,
        scene.primaries,
        scene.transfer,
    )
    if scene.sar:
        context.sample_aspect_ratio = scene.sar
    if scene.rotation or scene.hflip:
        stream.set_display_rotation(scene.rotation, hflip=scene.hflip)
    if scene.interlaced:
        context.field_order = 2  # AV_FIELD_TT
        context.flags |= 1 << 18 | 1 << 29  # AV_CODEC_FLAG_INTERLACED_DCT, AV_CODEC_FLAG_INTERLACED_ME
    packets: list[Packet] = []
    for number in range(len(scene.times) if scene.times is not None else scene.frames):
        frame = _frame(scene, number)
        frame.pts = round(scene.seconds[number] / scene.base)
        frame.time_base = scene.base
        frame.colorspace, frame.color_range = scene.matrix, context.color_range
        frame.color_primaries, frame.color_trc = scene.primaries, scene.transfer
        packets += stream.encode(frame)
    packets += stream.encode(None)
    return packets


def _sound(out: av.container.OutputContainer, path: Path, scene: Scene) -> list[Packet]:
    packets: list[Packet] = []
    for track in scene.audio:
        stream: Any = out.add_stream(track.codec or _AUDIO.get(path.suffix, "pcm_s16le"), rate=SAMPLE_RATE)
        stream.layout = "mono"
        stream.metadata["language"] = track.language
        length = track.seconds if track.seconds is not None else float(scene.length)
        samples = np.zeros(round(length * SAMPLE_RATE), np.int16)
        tone = (20000 * np.sin(np.arange(CLICK) * 0.4)).astype(np.int16)
        for flash in scene.flashes if scene.codec else ():
            at = round((flash - track.start) * SAMPLE_RATE)
            if 0 <= at <= len(samples) - CLICK:
                samples[at : at + CLICK] = tone
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        frame.pts, frame.time_base = round(track.start * SAMPLE_RATE), Fraction(1, SAMPLE_RATE)
        context = stream.codec_context
        context.open()
        size = context.frame_size or 1024
        resampler = av.AudioResampler(context.format, context.layout, SAMPLE_RATE, frame_size=size)
        for part in (*resampler.resample(frame), *resampler.resample(None)):
            packets += stream.encode(part)
        packets += stream.encode(None)
    return packets


def _subtitles(out: av.container.OutputContainer, path: Path) -> list[Packet]:
    text = "First line", "Second line"
    codec = {".mp4": "mov_text", ".mov": "mov_text", ".webm": "webvtt"}.get(path.suffix, "subrip")
    stream: Any = out.add_mux_stream(codec)
    stream.time_base = Fraction(1, 1000)
    stream.metadata["language"] = "ger"
    packets = []
    for index, line in enumerate(text):
        data = line.encode()
        packet = av.Packet(struct.pack(">H", len(data)) + data if codec == "mov_text" else data)
        packet.stream, packet.time_base = stream, Fraction(1, 1000)
        packet.pts = packet.dts = 100 + 400 * index
        packet.duration = 300
        packets.append(packet)
    return packets


def _extras(out: av.container.OutputContainer, path: Path, scene: Scene) -> list[Packet]:
    if scene.attachment:
        out.add_attachment("font.ttf", "font/ttf", b"\0\1\0\0" + bytes(60))
    if not scene.cover:
        return []
    if path.suffix == ".mkv":
        out.add_attachment("cover.png", "image/png", png())
        return []
    stream: Any = out.add_mux_stream("png", width=16, height=16)
    stream.disposition = Disposition.attached_pic
    packet = av.Packet(png())
    packet.stream, packet.time_base, packet.pts, packet.dts = stream, Fraction(1, 25), 0, 0
    packet.is_keyframe = True
    return [packet]
