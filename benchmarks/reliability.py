"""Public collections of pictures: what srcli reads and writes, beside other readers of the same files.

python benchmarks/reliability.py COLLECTIONS      # a folder for each; writes results/reliability.{json,md}

Every file that is named like a picture of a format that srcli reads, or begins like one, is read, written as
PNG and read again, in a process of its own. What is right is told by Pillow (with pillow-heif), tifffile and
FFmpeg, and by the collection itself.
"""

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

import readers
from common import RESULTS, Section, Table, machine, publish
from isolated import Ended, Worker
from srcli.errors import InputError
from srcli.io import pictures
from srcli.io import pillow as through_pillow

_SUFFIXES = frozenset((*pictures.SUFFIXES, *pictures.READ_ONLY_SUFFIXES))
_SECONDS, _MEMORY = 120.0, 8 << 30
_NAMED = ("raw file", "samples are not supported", "made for iPhones", "it is too large", "is empty")
"""What refusals say whose kind the documentation names."""
_DAMAGED = re.compile(
    r"bmp/b/|bmpsuite/b/|/bad/|badrle|badpal|fuzz_images|crashers|ImageTestSuite/|truncated|corrupted"
    r"|crash-|mmap_error|overflow_rows|pngsuite/x[^/]*\.png$|png/x[^/]*\.png$|PngSuite/x|/x_[^/]*\.png$"
)
"""Files of which their collection says that they are damaged, or that are made to break readers."""
_SEEN = (
    "rgb16-231 rgb16-880 rgb16-3103 rgb32-7187 rgb32-111110 rgb32bf rgba16-1924 rgba16-4444 rgba16-5551 "
    "rgba32-1010102 rgba32-61754 rgba32-81284 rgba32abf"
)
BY_HAND = {
    "xmp_tags_orientation.avif": "MIAF: only the container's rotation counts, and there is none",
    "dscf0013.tif": "within half a level of the equations of YCbCr, by numpy",
    "weld_sato_12B_8B_q0.avif": "within 0.04 levels of the equations of YCbCr, by numpy on FFmpeg's planes",
    "tiff_tiled_planar_16bit_RGBa.tiff": "the same pixels as in tiff_16bit_RGBa.tiff",
    "empty_ancillary_chunks.png": "its only pixel, by hand",
} | dict.fromkeys(
    [f"{name}.bmp" for name in _SEEN.split()], "as the picture that comes with bmpsuite, in copies without it"
)
"""Files that no reader here tells right from wrong: why they are right."""
RIGHT, ALONE, REFUSED, THOUGH, WRONG = (
    "written right",
    "written, not to be judged",
    "refused rightly",
    "refused though whole",
    "wrong",
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """About one file.

    Attributes:
        verdict: one of the five; not to be judged are damaged files on whose pixels readers differ, and files
            that no other reader reads.
        reason: of a refusal, in srcli's words; of what is wrong, how.
        agree, differ: readers that give the same pixels, or others.
        by: the library that decoded it for srcli, where it is one of the readers.
    """

    verdict: str
    reason: str = ""
    agree: tuple[str, ...] = ()
    differ: tuple[str, ...] = ()
    by: str = ""


def judge(path: Path) -> Verdict:
    """Read, write, read again, and compare."""
    others: dict[str, readers.Read] = {}
    for name, reader in readers.READERS.items():
        try:
            others[name] = reader(path)
        except Exception:
            continue
    used: list[str] = []
    opened = through_pillow.opened
    through_pillow.opened = lambda kind, data: (used.append(kind), opened(kind, data))[1]
    try:
        picture = pictures.read(path)
    except InputError as error:
        return _refused(path, error, others)
    finally:
        through_pillow.opened = opened
    by = "Pillow" if used or picture.format == "heif" else ""
    with TemporaryDirectory() as folder:
        pictures.write(Path(folder, "x.png"), picture)
        again = pictures.read(Path(folder, "x.png"))
    if again.pixels.dtype != picture.pixels.dtype or not np.array_equal(again.pixels, picture.pixels):
        return Verdict(WRONG, "the PNG differs", by=by)
    levels = 2 if any("stored as CMYK" in note for note in picture.notes) else 1
    levels = 3 if picture.format == "avif" and picture.pixels.itemsize == 2 else levels
    ours = readers.spread(again.pixels)
    found = {name: difference(ours, other, levels) for name, other in others.items()}
    agree = tuple(name for name, difference in found.items() if not difference)
    differ = tuple(f"{name}: {difference}" for name, difference in found.items() if difference)
    verdict = WRONG if found and not _DAMAGED.search(str(path)) else ALONE
    if agree or path.name in BY_HAND:
        verdict, agree = RIGHT, agree or ("by hand: " + BY_HAND[path.name],)
    return Verdict(verdict, "; ".join(picture.notes), agree, differ, by)


def _refused(path: Path, error: InputError, others: dict[str, readers.Read]) -> Verdict:
    reason = error.message.replace(str(path), "").lstrip(": ")
    rightly = not others or _DAMAGED.search(str(path)) or any(words in error.message for words in _NAMED)
    return Verdict(REFUSED if rightly else THOUGH, reason, differ=tuple(others))


def difference(ours: readers.Read, other: readers.Read, levels: int = 1) -> str:
    """How two pictures differ by more than so many levels of the coarser depth, "" if not at all.

    Colours count as much as they are seen: they are weighted by their alpha.
    """
    (mine, deep), (theirs, their_depth) = ours, other
    if mine.shape != theirs.shape:
        return f"{mine.shape[1]}x{mine.shape[0]}, not {theirs.shape[1]}x{theirs.shape[0]}"
    if their_depth > deep:
        return f"{deep} bits, not {their_depth}"
    step = 1 if deep == their_depth == 16 else 257
    apart = np.abs(_seen(mine) - _seen(theirs))
    most = float(apart.max(initial=0))
    if most <= levels * step + 1:
        return ""
    share = (apart.max(axis=2) > levels * step).mean()
    return f"up to {most / step:.0f} levels, {share:.1%} of the pixels"


def _seen(pixels: readers.Pixels) -> readers.Pixels:
    """Colours times alpha, and alpha."""
    alpha = pixels[..., 3:].astype(np.float32)
    return np.concatenate([pixels[..., :3] * (alpha / 65535), alpha], 2)


def files(folder: Path, megapixels: float) -> Iterator[Path]:
    """Those that are named or begin like a picture that srcli reads, up to a size."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and (path.suffix.lower() in _SUFFIXES or pictures.kind_of(path)):
            with suppress(InputError):
                header = pictures.probe(path)
                if megapixels * 1e6 < header.height * header.width < readers.MOST:
                    continue
            yield path


def main(arguments: Sequence[str] | None = None) -> None:
    """Judge and publish; exit code 1 where a file is wrong."""
    given = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, help="of folders, one for each collection")
    parser.add_argument("--only", nargs="+", help="names of some of them")
    parser.add_argument("--megapixels", type=float, default=50, help="leave larger ones out, to save time")
    parser.add_argument("--out", type=Path, default=RESULTS / "reliability.json")
    options = parser.parse_args(given)
    before, found = machine(), _earlier(options.out) if options.only else {}
    worker = Worker(judge, _SECONDS, _MEMORY)
    for collection in sorted(path for path in options.folder.iterdir() if path.is_dir()):
        if not options.only or collection.name in options.only:
            found[collection.name] = summary(_judged(worker, collection, options.megapixels))
            print(collection.name, found[collection.name]["counts"], flush=True)
    worker.close()
    publish(options.out, section(found), given, before)
    if any(one["counts"].get(WRONG) for one in found.values()):
        sys.exit(1)


def _earlier(out: Path) -> dict[str, Any]:
    """What earlier runs found in other collections."""
    if not out.is_file():
        return {}
    return dict(json.loads(out.read_text()).get("collections", {}).get("measurements", {}))


def summary(judged: Iterable[tuple[str, Verdict]]) -> dict[str, Any]:
    """Counts by verdict, and every file that is not plainly right."""
    every = dict(judged)
    notable = {path: one for path, one in every.items() if one.verdict != RIGHT or one.differ or one.by}
    return {
        "counts": dict(Counter(one.verdict for one in every.values())),
        "files": {path: {k: v for k, v in asdict(one).items() if v} for path, one in notable.items()},
    }


def _judged(worker: Worker, folder: Path, megapixels: float) -> Iterator[tuple[str, Verdict]]:
    for path in files(folder, megapixels):
        try:
            verdict, _ = worker(path)
        except Ended as ended:
            verdict = Verdict(WRONG, str(ended))
        yield path.relative_to(folder).as_posix(), verdict


def section(found: dict[str, Any]) -> Section:
    """The table of all collections, and what was refused why."""
    columns = (RIGHT, ALONE, REFUSED, THOUGH, WRONG)
    counts = {name: Counter(found[name]["counts"]) for name in sorted(found)}
    total = sum(counts.values(), Counter[str]())
    rows = [
        (name, str(count.total()), *(str(count[column]) for column in columns))
        for name, count in (counts | {"**all**": total}).items()
    ]
    reasons = Counter(
        (one["verdict"], _kind(one["reason"]))
        for part in found.values()
        for one in part["files"].values()
        if one["verdict"] in (REFUSED, THOUGH)
    )
    kinds = [(verdict, reason, str(count)) for (verdict, reason), count in sorted(reasons.items())]
    method = (
        "Every file that is named or begins like a picture of a format that srcli reads was read, written as "
        "PNG and read again. Right: as Pillow, tifffile or FFmpeg read it, upright, within 1 level of the "
        "coarser depth (CMYK: 2; AVIF of more than 8 bits, which Pillow converts in 8: 3), colours weighted "
        "by their alpha, or as the collection's own reference picture. Refused rightly: none of them reads "
        "it either, the collection says that it is damaged, or the documentation names its kind."
    )
    tables = (
        Table(("collection", "files", *columns), tuple(rows)),
        Table(("", "reason", "files"), tuple(kinds)),
    )
    return Section("collections", "Public collections of pictures", method, tables, found)


def _kind(reason: str) -> str:
    """A reason without what differs from file to file: brackets, names of chunks, numbers."""
    words = reason.removeprefix("cannot be used: ").split(" (")[0].rstrip(".")
    words = re.sub(r"[A-Z]\w{3} data", "… data", re.sub(r"-?\d+x\d+|\b\d+-bit\b|[\d.]+ GB", "…", words))
    return words.split(", at most")[0].split(", 8 and 16")[0]


if __name__ == "__main__":
    main()
