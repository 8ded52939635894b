"""What each picture format holds, found out by writing files and reading them again.

python tests/docs/format_table.py     puts the table into docs/formats.md
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from math import ceil, log2
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.append(str(Path(__file__).parents[1] / "io"))

import pillow_heif
from media_samples import METADATA, icc
from PIL import Image

from srcli.errors import OutputError
from srcli.io.pictures import READ_ONLY_SUFFIXES, SUFFIXES, Metadata, Picture, read, write
from srcli.jobs.inputs import discover
from srcli.jobs.outputs import name_outputs

PAGE = Path(__file__).parents[2] / "docs" / "formats.md"
BEGIN, END = "<!-- written by tests/docs/format_table.py -->\n", "<!-- until here -->\n"

_NAMES = {
    "png": "PNG", "jpeg": "JPEG", "webp": "WebP", "tiff": "TIFF", "bmp": "BMP", "avif": "AVIF", "gif": "GIF",
    "heif": "HEIC (extra `heif`)",
}  # fmt: skip
_SIDES = (16_383, 32_768, 65_500, 1_000_000)
"""Largest sides that a format may have; tried from the smallest, each with one pixel more."""
_TEXT = b"tEXt" + b"Title\0A title"

Pixels = NDArray[Any]


_IPTC = b"8BIM\x04\x04\0\0\0\0\0\x08\x1c\x02\x78\0\x03abc"
_PQ = b"cICP\x09\x10\0\x01"


@dataclass(frozen=True)
class Trial:
    """A folder to write into and a format to write: by srcli, or by Pillow where srcli only reads it."""

    folder: Path
    name: str

    @property
    def is_written(self) -> bool:
        """Whether srcli writes it."""
        return self.name in SUFFIXES.values()

    def again(self, picture: Picture) -> Picture:
        """A picture written and read."""
        path = self.folder / f"picture.{self.name}"
        if self.is_written:
            write(path, picture, format=self.name)
        else:
            self._by_pillow(path, picture)
        return read(path)

    def _by_pillow(self, path: Path, picture: Picture) -> None:
        pixels, kept = picture.pixels, picture.metadata
        if pixels.dtype == np.uint16 and self.name == "heif":
            deep = np.stack([pixels] * 3, axis=-1) if pixels.ndim == 2 else pixels
            size = (deep.shape[1], deep.shape[0])
            pillow_heif.from_bytes("RGB;16", size, deep.tobytes()).save(path, quality=-1)
            return
        made = Image.fromarray((pixels >> 8).astype(np.uint8) if pixels.dtype == np.uint16 else pixels)
        found = {"exif": kept.exif, "icc_profile": kept.icc, "xmp": kept.xmp, "dpi": kept.dpi}
        made.save(path, format=self.name.upper(), **{key: value for key, value in found.items() if value})


def table() -> str:
    """The table in Markdown, one row a format."""
    pillow_heif.register_heif_opener()
    formats = list(dict.fromkeys((*SUFFIXES.values(), *READ_ONLY_SUFFIXES.values())))
    assert set(formats) == set(_NAMES), "a format is missing in this table"
    lines = [f"| | {' | '.join(COLUMNS)} |", "|" + "---|" * (len(COLUMNS) + 1)]
    with TemporaryDirectory() as folder:
        for name in formats:
            trial = Trial(Path(folder), name)
            cells = [column(trial) for column in COLUMNS.values()]
            lines.append(f"| {_NAMES[name]} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _mark(held: bool) -> str:
    return "yes" if held else "–"


def _bits(trial: Trial) -> str:
    """Bits a channel of which a ramp of all 16-bit values still has different ones."""
    ramp = np.arange(1 << 16, dtype=np.uint16).reshape(256, 256)
    values = len(np.unique(trial.again(Picture(ramp)).pixels))
    return "8" if values <= 256 else f"8, {ceil(log2(values))}"


def _lossless(trial: Trial) -> str:
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    if np.array_equal(trial.again(Picture(noise)).pixels, noise):
        return "yes"
    return "as the input" if np.array_equal(trial.again(Picture(noise, lossless=True)).pixels, noise) else "–"


def _written(trial: Trial) -> str:
    return _mark(trial.is_written)


def _animation(trial: Trial) -> str:
    """Whether an animation stays one, of the same format."""
    suffix = {"png": "apng"}.get(trial.name, trial.name)
    frames = [Image.new("RGB", (24, 16), colour) for colour in ("red", "blue")]
    path = trial.folder / f"animated.{suffix}"
    try:
        frames[0].save(path, format=trial.name.upper(), save_all=True, append_images=frames[1:], duration=100)
    except (OSError, KeyError, ValueError, TypeError):
        return "–"
    found = discover([str(path)], trial.folder / "out", recursive=False, films=True)
    (job,) = name_outputs(found.pictures, trial.folder / "out")
    return "extra `video`" if job.film and job.target.suffix == path.suffix else "–"


def _shape(*channels: int) -> Callable[[Trial], str]:
    """Whether pixels with these channels come back with as many."""

    def column(trial: Trial) -> str:
        pixels = np.full((16, 16, *channels), 100, np.uint8)
        return _mark(trial.again(Picture(pixels)).pixels.shape == pixels.shape)

    return column


def _with(metadata: Metadata, *, gray: bool = False) -> Callable[[Trial], str]:
    """Whether metadata comes back."""

    def column(trial: Trial) -> str:
        pixels = np.full((24, 40) if gray else (24, 40, 3), 100, np.uint8)  # the size that the EXIF tells
        found = trial.again(Picture(pixels, metadata)).metadata
        if metadata.dpi:
            return _mark(bool(found.dpi) and np.allclose(found.dpi, metadata.dpi, rtol=0.01))
        if metadata.exif:
            return _mark(found.exif is not None)
        same = [getattr(found, field.name) == getattr(metadata, field.name) for field in fields(Metadata)]
        return _mark(all(same))

    return column


def _side(trial: Trial) -> str:
    """The largest side in pixels."""
    if not trial.is_written:
        return "–"
    for side in _SIDES:
        try:
            write(trial.folder / "long", Picture(np.zeros((1, side + 1), np.uint8)), format=trial.name)
        except OutputError:
            return f"{side:,}"
    return f"over {_SIDES[-1]:,}"


COLUMNS: dict[str, Callable[[Trial], str]] = {
    "written": _written,
    "bits a channel": _bits,
    "lossless": _lossless,
    "gray": _shape(),
    "gray + alpha": _shape(2),
    "RGB + alpha": _shape(4),
    "EXIF": _with(Metadata(exif=METADATA.exif)),
    "ICC": _with(Metadata(icc=METADATA.icc)),
    "ICC, gray": _with(Metadata(icc=icc(b"GRAY")), gray=True),
    "XMP": _with(Metadata(xmp=METADATA.xmp)),
    "dpi": _with(Metadata(dpi=(300.0, 300.0))),
    "IPTC": _with(Metadata(photoshop=_IPTC)),
    "comment": _with(Metadata(comments=(b"a comment",))),
    "colours": _with(Metadata(colour=(_PQ,))),
    "texts": _with(Metadata(texts=(_TEXT,))),
    "animation": _animation,
    "largest side": _side,
}
"""Heading -> what finds a cell of it."""


def main() -> None:
    """Put the table into the page."""
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    _, after = rest.split(END)
    PAGE.write_text(f"{before}{BEGIN}\n{table()}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
