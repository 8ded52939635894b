"""Is int8 worth it? It is offered where it costs little and is the fastest way on this CPU."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from srcli.backends import registry
from srcli.backends.base import BackendOptions
from srcli.benchmark.rounds import Run, Spread, interleave, timed
from srcli.errors import BackendUnavailableError, ExportError
from srcli.models.spec import ModelSpec

MAX_LOSS = 0.1
"""Decibels that int8 may lose."""

_OTHERS = (("openvino", "fp32"), ("openvino", "bf16"), ("onnxruntime", "fp32"))
_INT8 = (("openvino", "auto"), ("onnxruntime", "auto"))
"""(backend, precision) to measure the float32 file and the int8 file with; "auto" is for what is not int8."""
_SIDE = 192
_REPETITIONS = 7


@dataclass(frozen=True, slots=True)
class Timing:
    """One way to run the network on this CPU.

    Attributes:
        engine: for people, e.g. "openvino bf16".
        int8: whether it ran the int8 file.
        seconds: median for one tile.
    """

    engine: str
    int8: bool
    seconds: float


Stopwatch = Callable[[Path, Path, ModelSpec], Sequence[Timing]]
"""(float32 file, int8 file, spec of the int8 file) -> every way that works here, both files among them."""


def measure_timings(full: Path, int8: Path, spec: ModelSpec) -> list[Timing]:
    """Run both files on a 192×192 tile with every backend that is here, in turns; all cores are used.

    Raises:
        InferenceError: an engine failed.
    """
    batch = np.random.default_rng(0).random((1, 3, _SIDE, _SIDE), dtype=np.float32)
    runs: dict[tuple[str, bool], Run] = {}
    plain = replace(spec, precision="fp32", arithmetic="fp32")
    for path, about, ways in ((full, plain, _OTHERS), (int8, spec, _INT8)):
        for backend, precision in ways:
            try:
                engine = registry.load(backend, path, about, BackendOptions(precision, "cpu"))
            except BackendUnavailableError:
                continue
            name = f"{backend} {engine.info.precision}" if path == full else f"{backend} int8"
            runs[name, path == int8] = timed(partial(engine.run, batch))
    seconds = interleave(runs, _REPETITIONS)
    return [Timing(name, is_int8, Spread.of(seconds[name, is_int8]).median) for name, is_int8 in runs]


def check_gain(name: str, lost: float, timings: Sequence[Timing]) -> float:
    """Refuse an int8 file that costs too much or wins no time.

    Args:
        name: of the file, for people.
        lost: PSNR lost against the float32 checkpoint on HR images, dB.
        timings: of this machine; at least one of int8 and one of something else.

    Returns:
        Its time as a share of that of the best other way.

    Raises:
        ExportError: it loses more than 0.1 dB, or is not faster; the message has both numbers.
    """
    best = min((t for t in timings if t.int8), key=lambda t: t.seconds)
    other = min((t for t in timings if not t.int8), key=lambda t: t.seconds)
    share = best.seconds / other.seconds
    if lost <= MAX_LOSS and share < 1:
        return share
    raise ExportError(
        f"{name}: int8 loses {lost:.3f} dB (at most {MAX_LOSS} is allowed) and, on {best.engine}, takes "
        f"{share:.2f} times as long as {other.engine}, the best other way on this CPU (less than 1 is "
        "needed).",
        "Nothing was written. Leave int8 out of the precisions.",
    )
