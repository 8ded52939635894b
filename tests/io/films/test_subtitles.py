"""Text subtitles made into another container's."""

import io
from fractions import Fraction
from typing import Any

import av
import pytest

from srcli.io.films.remux import TextSubtitles

MS = Fraction(1, 1000)
HEADER = (
    b"[Script Info]\nScriptType: v4.00+\n\n[V4+ Styles]\nFormat: Name, Fontname, Fontsize, PrimaryColour, "
    b"SecondaryColour, OutlineColour, BackColour, Bold, Italic, Underline, StrikeOut, ScaleX, ScaleY, "
    b"Spacing, Angle, BorderStyle, Outline, Shadow, Alignment, MarginL, MarginR, MarginV, Encoding\n"
    b"Style: Default,Arial,16,&Hffffff,&Hffffff,&H0,&H0,0,0,0,0,100,100,0,0,1,1,0,2,10,10,10,0\n\n"
    b"[Events]\nFormat: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text\n"
)


def converted(
    events: list[tuple[int, int, str]], codec: str = "mov_text", source: str = "subrip"
) -> list[Any]:
    """Begin, duration (ms) and text of what `events` become, through files of both containers."""
    file, copy = io.BytesIO(), io.BytesIO()
    with av.open(file, "w", format="matroska") as out:
        stream: Any = out.add_mux_stream(source) if source == "subrip" else out.add_stream(source)
        stream.time_base = MS
        if source == "ass":
            stream.codec_context.subtitle_header = HEADER
        for begin, duration, text in events:
            packet = av.Packet(text.encode())
            packet.stream, packet.time_base = stream, MS
            packet.pts, packet.dts, packet.duration = begin, begin, duration
            out.mux(packet)
    file.seek(0)
    with av.open(file) as film, av.open(copy, "w", format="mp4" if codec == "mov_text" else "webm") as out:
        target: Any = out.add_stream(codec)
        target.time_base = target.codec_context.time_base = MS
        track = TextSubtitles(film.streams[0], target)
        for packet in film.demux(film.streams[0]):
            for made in track.convert(packet) if packet.size else track.flush():
                made.stream = target
                out.mux(made)
    copy.seek(0)
    with av.open(copy) as container:
        texts: Any = container.streams.subtitles[0]
        return [
            (
                round(packet.pts * texts.time_base * 1000),
                round(packet.duration * texts.time_base * 1000),
                text,
            )
            for packet in container.demux(texts)
            if packet.size
            for text in [b"\n".join(each.dialogue for each in texts.decode(packet)).decode()]
            if text
        ]


def test_texts_keep_their_times() -> None:
    events = [(100, 300, "one"), (400, 200, "two"), (5000, 10, "three")]
    assert converted(events) == events


def test_texts_shown_at_once_share_a_line_each() -> None:
    events = [(100, 300, "one"), (100, 300, "two"), (200, 400, "three")]
    assert converted(events) == [(100, 100, "one\ntwo"), (200, 200, "one\ntwo\nthree"), (400, 200, "three")]


def test_webvtt_may_overlap() -> None:
    events = [(100, 300, "one"), (100, 300, "two"), (200, 400, "three")]
    assert converted(events, "webvtt") == events


def test_a_text_without_end_stays_until_the_next_or_five_seconds() -> None:
    assert converted([(100, 0, "one"), (700, 0, "two")]) == [(100, 600, "one"), (700, 5000, "two")]


def test_slanted_text_stays_and_drawings_are_left_out() -> None:
    events = [
        (0, 100, r"0,0,Default,,0,0,0,,{\i1}slanted{\i0}, plain"),
        (100, 100, r"1,0,Default,,0,0,0,,{\p1}m 0 0 l 100 0 100 100{\p0}"),
        (200, 100, r"2,0,Default,,0,0,0,,two\Nlines"),
    ]
    slanted = r"{\i1}slanted{\r}, plain"
    assert converted(events, source="ass") == [(0, 100, slanted), (200, 100, "two\nlines")]


@pytest.mark.parametrize("text", ["", " ", "<i></i>"])
def test_nothing_is_written_where_nothing_is_shown(text: str) -> None:
    assert converted([(100, 300, text or " "), (500, 100, "one")]) == [(500, 100, "one")]
