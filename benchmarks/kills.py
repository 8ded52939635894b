"""Films: killed at random moments and continued, and compared with undisturbed runs.

python benchmarks/kills.py                             # 50 kills; writes results/kills.{json,md}
python benchmarks/kills.py --kills 12 --seed 2

`srcli upscale` runs in processes of its own, which are ended by SIGKILL with all that they started. The same
command follows until the film is there; then it begins anew, until all kills are done.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

from common import RESULTS, Section, Table, machine, publish
from srcli.io.films.journal import folder_of

sys.path.append(str(Path(__file__).parents[1] / "tests" / "io" / "films"))

import copies
import scenes
from scenes import B_FRAMES, OPEN_GOP, Audio, Scene

RATE = 25
MOMENTS = ("before the first frame", "among the frames", "at the join")


@dataclass(frozen=True, slots=True)
class Case:
    """A film, what it becomes, and how that is compared.

    Attributes:
        name: in words.
        source, target: names of files.
        scene: what the film shows, but for the number of its frames.
        options: of `srcli upscale`.
        exact: the bytes are the same; else frames, times and sound are.
        lost: packets that are damaged.
    """

    name: str
    source: str
    target: str
    scene: Callable[[int], Scene]
    options: tuple[str, ...]
    exact: bool = True
    lost: tuple[int, ...] = ()


@dataclass(slots=True)
class Found:
    """What became of a film.

    Attributes:
        seconds: of the undisturbed run.
        moments: how many kills came when, by `MOMENTS`.
        films: how often it was finished.
        wrong: of those, how many were not as the undisturbed one.
    """

    seconds: float
    moments: Counter[str] = field(default_factory=Counter)
    films: int = 0
    wrong: int = 0


def _variable(frames: int) -> Scene:
    """Frames 20, 40 and 100 ms long, in turns."""
    times = [sum((2, 4, 10)[place % 3] for place in range(number)) for number in range(frames)]
    return Scene(times=times, time_base=Fraction(1, 100), options=B_FRAMES)


CASES = {
    "h265": Case(
        "B-frames, two tracks of sound, subtitles, chapters, a font; .mkv",
        "film.mkv",
        "film_h265.mkv",
        lambda frames: Scene(
            frames=frames,
            options=B_FRAMES,
            audio=(Audio(), Audio("flac", language="ger")),
            subtitles=True,
            chapters=True,
            attachment=True,
        ),
        ("--codec", "h265"),
    ),
    "av1": Case("variable rate; .mp4", "variable.mp4", "film_av1.mp4", _variable, ("--codec", "av1")),
    "vp9": Case(
        "open groups of pictures, a late start; .ts",
        "open.ts",
        "film_vp9.mkv",
        lambda frames: Scene(frames=frames, options=OPEN_GOP, start=Fraction(3)),
        ("--codec", "vp9"),
    ),
    "ffv1": Case(
        "MPEG-4 without times, four packets damaged; .avi",
        "damaged.avi",
        "film_ffv1.mkv",
        lambda frames: Scene(frames=frames, codec="mpeg4", options={"g": "12", "bf": "2"}),
        ("--lossless",),
        lost=(10, 23, 24, 25),
    ),
    "h265, 10 bits": Case(
        "10 bits, turned; .mov",
        "turned.mov",
        "film_h265.mp4",
        lambda frames: Scene(
            frames=frames, codec="libx265", pixel_format="yuv420p10le", rotation=90, options=_X265
        ),
        ("--codec", "h265"),
    ),
    "h264": Case(
        "VP9, 23.976 frames a second; .webm",
        "cinema.webm",
        "film_h264.mp4",
        lambda frames: Scene(
            frames=frames, codec="libvpx-vp9", rate=Fraction(24000, 1001), options={"cpu-used": "8"}
        ),
        ("--codec", "h264", "--container", "mp4"),
        exact=False,
    ),
}
"""By what is written, as `--only` takes them."""
_X265 = {"preset": "ultrafast", "x265-params": "log-level=none"}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and publish; exit code 1 where a film differs."""
    given = sys.argv[1:] if arguments is None else arguments
    options = _parse(given)
    before, chance = machine(), random.Random(options.seed)
    found: dict[str, Found] = {}
    for number, name in enumerate(options.only):
        kills = options.kills // len(options.only) + (number < options.kills % len(options.only))
        with TemporaryDirectory() as scratch:
            found[name] = _killed(CASES[name], Path(scratch), options.frames, kills, chance)
    publish(options.out, _section(found, options.frames), given, before)
    if any(one.wrong for one in found.values()):
        sys.exit(1)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add = parser.add_argument
    add("--only", nargs="+", choices=CASES, default=list(CASES), help="films, by what is written")
    add("--kills", type=int, default=50, help="over all films")
    add("--frames", type=int, default=400, help="of each film")
    add("--seed", type=int, default=1)
    add("--out", type=Path, default=RESULTS / "kills.json")
    return parser.parse_args(arguments)


def _killed(case: Case, folder: Path, frames: int, kills: int, chance: random.Random) -> Found:
    """One film, killed so many times, each time at a moment of the length of an undisturbed run."""
    source, whole, target = (
        folder / name for name in (case.source, f"whole/{case.target}", f"out/{case.target}")
    )
    scenes.write(source, case.scene(frames))
    if case.lost:
        scenes.damage(source, case.lost)
    begin = perf_counter()
    _finished(case, source, whole)
    found = Found(perf_counter() - begin)
    while found.moments.total() < kills:
        process = _started(case, source, target)
        try:
            process.wait(chance.uniform(0, found.seconds))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            found.moments[_moment(target)] += 1
        if target.exists():
            _compare(case, whole, target, found)
    _finished(case, source, target)
    _compare(case, whole, target, found)
    return found


def _started(case: Case, source: Path, target: Path) -> "subprocess.Popen[bytes]":
    """The command, in a process group of its own."""
    words = ["upscale", str(source), "-s", "2", "--backend", "bicubic", "-q", "-o", str(target)]
    command = [sys.executable, "-m", "srcli", *words, *case.options]
    return subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)


def _finished(case: Case, source: Path, target: Path) -> None:
    process = _started(case, source, target)
    if process.wait():
        raise RuntimeError(f"srcli ended with exit code {process.returncode}")


def _moment(target: Path) -> str:
    """What a run was at when it was killed, by what it left."""
    work = folder_of(target)
    if any(work.glob("whole*")) or (target.exists() and not work.exists()):
        return MOMENTS[2]
    begun = any(work.glob("*.nut")) or any(work.glob("*.frames")) or any(work.glob(".srcli-*"))
    return MOMENTS[1] if begun else MOMENTS[0]


def _compare(case: Case, whole: Path, target: Path, found: Found) -> None:
    """Compare a finished film with the undisturbed one, and clear its folder for the next."""
    if case.exact:
        same = target.read_bytes() == whole.read_bytes()
    else:
        same = (
            copies.numbers(target) == copies.numbers(whole)
            and copies.times(target) == copies.times(whole)
            and copies.packets(target, "audio") == copies.packets(whole, "audio")
        )
    found.films += 1
    found.wrong += not same
    shutil.rmtree(target.parent)


def _section(found: dict[str, Found], frames: int) -> Section:
    rows = [
        (
            name,
            CASES[name].name,
            f"{one.seconds:.1f} s",
            *(str(one.moments[moment]) for moment in MOMENTS),
            f"**{one.films - one.wrong} of {one.films}**",
            "bytes" if CASES[name].exact else "frames, times, sound",
        )
        for name, one in found.items()
    ]
    kills = sum(one.moments.total() for one in found.values())
    films, wrong = sum(one.films for one in found.values()), sum(one.wrong for one in found.values())
    method = (
        f"`srcli upscale -s 2 --backend bicubic` on films of {frames} frames (128×96), killed {kills} times "
        "(SIGKILL to its process group) at moments drawn evenly from the length of an undisturbed run, and "
        f"continued by the same command: {films - wrong} of {films} finished films are as an undisturbed one."
    )
    header = (
        "written",
        "film",
        "undisturbed",
        *(f"kills {moment}" for moment in MOMENTS),
        "the same",
        "what",
    )
    measurements = {
        name: {"seconds": one.seconds, "kills": dict(one.moments), "films": one.films, "wrong": one.wrong}
        for name, one in found.items()
    }
    return Section(
        "kills", "Films: killed and continued", method, (Table(header, tuple(rows)),), measurements
    )


if __name__ == "__main__":
    main()
