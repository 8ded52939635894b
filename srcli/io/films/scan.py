"""One reading of a whole stream: its packets, its first frames, and the times that follow from them."""

from collections.abc import Iterable, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Any, NamedTuple

import av
from av import VideoFrame
from av.container import InputContainer
from av.video.stream import VideoStream

from srcli.errors import InputError
from srcli.io.films.packets import Shown
from srcli.io.films.source import codec_name, decoder, reason

_SLACK = Fraction(11, 10)
"""Ticks by which times of a constant rate may differ from it, from the earliest to the latest; 1 comes from
rounding once, the rest from clocks that were rounded before."""
_ROUGH = Fraction(2, 10000)
"""Share by which a rate that FFmpeg names may differ from what it means; rates of NTSC differ by 1/1001."""
_SLOWEST, _FASTEST = Fraction(1, 60), Fraction(1000)


def constant_rate(
    times: Sequence[int], base: Fraction, hints: Iterable[Fraction | None] = ()
) -> Fraction | None:
    """Frames a second if the times are those of a constant rate, else None.

    Args:
        times: ascending, in `base`; rounded to it in any way.
        base: seconds a tick.
        hints: rates that the film names, likeliest first.

    Of usual rates (n, n / 2 and their 1000/1001) that the times agree with, one that is named is taken, else
    the one that they agree with best; else another one that is named; else the step if it is always the same.
    """
    named = [hint for hint in hints if hint and _SLOWEST <= hint <= _FASTEST]
    steps = len(times) - 1
    if steps < 1:
        return _usual(named[0]) if named else None
    mean = steps / ((times[-1] - times[0]) * base)
    spreads = {rate: _spread(times, 1 / (rate * base)) for rate in _around(mean)}
    fitting = [(spread, rate) for rate, spread in spreads.items() if spread is not None]
    for hint in named:
        if any(rate == _usual(hint) for _, rate in fitting):
            return _usual(hint)
    if fitting:
        return min(fitting)[1]
    for hint in named:
        if _spread(times, 1 / (hint * base)) is not None:
            return hint
    step = times[1] - times[0]
    return 1 / (step * base) if all(b - a == step for a, b in pairwise(times)) else None


def _around(rate: Fraction) -> list[Fraction]:
    """Usual rates close to one."""
    halves = (Fraction(count, 2) for count in range(max(1, round(2 * rate) - 2), round(2 * rate) + 3))
    return sorted(half * ntsc for half in halves for ntsc in (Fraction(1), Fraction(1000, 1001)))


def _usual(rate: Fraction) -> Fraction:
    """The usual rate that a rate means: FFmpeg has some from clocks of a millisecond, such as 19001/317."""
    nearest = min(_around(rate), key=lambda usual: abs(usual - rate))
    return nearest if abs(nearest - rate) < rate * _ROUGH else rate


def _spread(times: Sequence[int], step: Fraction) -> Fraction | None:
    """Ticks from the earliest to the latest against a constant step; None: more than rounding explains."""
    ticks, parts = step.numerator, step.denominator
    if abs((times[-1] - times[0]) * parts - (len(times) - 1) * ticks) > _SLACK * parts:
        return None
    errors = [time * parts - number * ticks for number, time in enumerate(times)]
    spread = Fraction(max(errors) - min(errors), parts)
    return spread if spread <= _SLACK else None


def ascending(times: Iterable[int]) -> tuple[list[int], int]:
    """Times in order, each later than the one before by a tick at least; and how many had to be moved."""
    ordered: list[int] = []
    moved = 0
    for time in sorted(times):
        if ordered and time <= ordered[-1]:
            time, moved = ordered[-1] + 1, moved + 1
        ordered.append(time)
    return ordered, moved


def last_duration(
    times: Sequence[int], durations: Sequence[int], base: Fraction, rate: Fraction | None, *, stored: bool
) -> int:
    """Ticks for which the last frame is shown.

    Args:
        times, durations: of all frames, in order; a duration may be 0 where the film has none.
        base: seconds a tick.
        rate: if constant.
        stored: the container stores durations (MP4, GIF). Elsewhere FFmpeg makes them up, so that they count
            only where most agree with the steps.
    """
    steps = [after - before for before, after in pairwise(times)]
    agreeing = sum(abs(step - duration) <= 1 for step, duration in zip(steps, durations, strict=False))
    if durations[-1] > 0 and stored:
        return durations[-1]
    if rate:
        return max(1, round(1 / (rate * base)))
    if durations[-1] > 0 and 2 * agreeing > len(steps):
        return durations[-1]
    return steps[-1] if steps else max(1, durations[-1])


HEAD = 8
"""Frames decoded to see what they are; they tell interlaced material and wrong times too."""
_REORDERED_IN_AVI = ("h264", "hevc")
"""Codecs whose times FFmpeg gets wrong in AVI, which stores none."""


_JUMP = Fraction(1, 2)
"""Seconds back in time that are no mere disorder."""
_BEGIN_ANYWHERE = ("mpegts", "mpeg")
"""Containers of recordings, which begin with whatever was sent."""


class Packet(NamedTuple):
    """What is kept of a packet, in ticks."""

    pts: int | None
    dts: int | None
    duration: int
    key: bool
    visible: bool


class Scan(NamedTuple):
    """A stream read once.

    Attributes:
        packets: all, in decoding order.
        head: the first frames.
        failure: why it ended early, in words; empty: it did not, as far as its packets tell.
        damaged: packets before the first frame could not be decoded.
    """

    packets: list[Packet]
    head: list[VideoFrame]
    failure: str
    damaged: bool


class Timing(NamedTuple):
    """When frames are shown and for how long, by the container, in ticks, in order; `timed` as of `Facts`."""

    times: list[int]
    durations: list[int]
    timed: bool
    notes: list[str]


def scan(container: InputContainer, stream: VideoStream, where: str, *, only_head: bool = False) -> Scan:
    """Read all packets of a stream and decode its first frames.

    Args:
        where: file and stream, for errors.
        only_head: read no more than the first frames take.

    Raises:
        InputError: it is encrypted, or no frame can be decoded.
    """
    context = decoder(stream)
    shows = Shown(codec_name(stream), stream.codec_context.extradata)
    packets: list[Packet] = []
    head: list[VideoFrame] = []
    failure, whole, damaged = "", True, False
    try:
        for packet in container.demux(stream):
            if not packet.size:
                continue
            if packet.has_sidedata("encryption_info"):
                raise InputError(f"{where} is encrypted.", "Decrypt it first.")
            visible = shows(packet) and not packet.is_discard
            packets.append(Packet(packet.pts, packet.dts, packet.duration or 0, packet.is_keyframe, visible))
            whole = not packet.is_corrupt
            if len(head) < HEAD:
                frames = _decoded(context, packet)
                damaged = damaged or (frames is None and not head)
                head += frames or []
            elif only_head:
                break
    except av.error.FFmpegError as error:
        failure = reason(error)
    if packets and not whole:
        packets[-1] = packets[-1]._replace(visible=False)
        failure = failure or "its last frame is not whole"
    if len(head) < HEAD:
        head += _decoded(context, None) or []
    if not any(packet.visible for packet in packets):
        raise InputError(f"{where} has no frames{f' ({failure})' if failure else ''}.", "Is it cut off?")
    if not head:
        raise InputError(
            f"{where}: none of {len(packets)} frames can be decoded.", "Is it damaged or encrypted?"
        )
    return Scan(packets, head, failure, damaged)


def _decoded(context: Any, packet: Any) -> list[VideoFrame] | None:
    try:
        return list(context.decode(packet))
    except av.error.FFmpegError:
        return None


def timing(found: Scan, stream: VideoStream, hints: Sequence[Fraction | None], where: str) -> Timing:
    """When the visible frames are shown.

    Args:
        hints: frames a second that the stream names, for films without times.
        where: file and stream, for errors.

    Raises:
        InputError: the times begin anew in the middle.
    """
    _refuse_jumps(found.packets, stream.time_base or Fraction(1), where)
    visible = [packet for packet in found.packets if packet.visible]
    avi = stream.container.format.name == "avi"
    reordered = any(packet.pts != packet.dts for packet in visible)
    stamps = {packet.pts for packet in visible}
    shown = [frame.pts for frame in found.head if frame.pts is not None]
    if (
        None not in stamps
        and len(stamps) == len(visible)
        and stamps.issuperset(shown)
        and len(shown) == len(found.head)
        and all(before < after for before, after in pairwise(shown))
        and not (avi and (reordered or codec_name(stream) in _REORDERED_IN_AVI))
    ):
        cut_in = not found.damaged or stream.container.format.name in _BEGIN_ANYWHERE
        return _by_stamps(visible, shown[0] if cut_in else None)
    return _by_order(visible, stream, hints, avi=avi)


def _refuse_jumps(packets: list[Packet], base: Fraction, where: str) -> None:
    latest = None
    for number, packet in enumerate(packets):
        if packet.dts is None:
            continue
        if latest is not None and (latest - packet.dts) * base > _JUMP:
            raise InputError(
                f"{where}: its clock begins anew at frame {number}; it was joined from several recordings.",
                "Let another tool write it anew first, e.g. ffmpeg -i FILM -c copy NEW.mkv.",
            )
        latest = packet.dts


def _by_stamps(visible: list[Packet], first: int | None) -> Timing:
    """Times as the packets have them, but for frames that depend on what came before the film.

    Args:
        first: when the first frame that can be decoded is shown; None: those before it are damaged.
    """
    ordered = sorted((packet.pts or 0, packet.duration) for packet in visible)
    key = next((packet.pts for packet in visible if packet.key), None)
    kept = (
        ordered
        if key is None or first is None
        else [entry for entry in ordered if entry[0] >= min(key, first)]
    )
    left = len(ordered) - len(kept)
    notes = [f"{left} frames before the first key frame cannot be decoded and are left out."] if left else []
    return Timing([time for time, _ in kept], [duration for _, duration in kept], timed=True, notes=notes)


def _by_order(
    visible: list[Packet], stream: VideoStream, hints: Sequence[Fraction | None], *, avi: bool
) -> Timing:
    """Times of decoding, in order, moved to where the first frame is shown. AVI has only those."""
    assert stream.time_base is not None
    rate = next((hint for hint in hints if hint), Fraction(25))
    step = max(1, round(1 / (rate * stream.time_base)))
    times: list[int] = []
    for packet in visible:
        following = times[-1] + step if times else 0
        times.append(packet.dts if packet.dts is not None else following)
    shift = 0 if avi or visible[0].pts is None else visible[0].pts - times[0]
    ordered, moved = ascending(time + shift for time in times)
    notes = []
    if all(packet.pts is None and packet.dts is None for packet in visible):
        notes.append(f"The film has no times; {float(rate):g} frames a second are assumed.")
    elif moved:
        notes.append(f"{moved} frames had the time of another frame; they are shown a little later.")
    return Timing(ordered, [packet.duration for packet in visible], timed=False, notes=notes)
