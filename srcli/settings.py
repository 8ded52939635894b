"""Settings: every choice of an upscaling, made once, checked once and handed down whole."""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

from srcli.errors import InputError, UsageError

Size = tuple[int, int]
"""(height, width) in pixels."""

MAX_SCALE = 16
PRECISIONS = ("auto", "fp32", "bf16", "fp16", "int8")
_ALIASES = {"f32": "fp32", "f16": "fp16"}
OnError = Literal["repeat", "skip", "stop"]
ON_ERROR: tuple[OnError, ...] = ("repeat", "skip", "stop")
PIPED = ("mkv", "y4m")
"""What films in pipes are."""
DEFAULT_MEMORY = 1 << 30
"""Bytes that the process may take where nobody says otherwise."""


@dataclass(frozen=True, slots=True)
class FilmSettings:
    """How films are read and stored. Frozen and picklable.

    Attributes:
        codec: "h264", "h265", "av1", "vp9", "prores", "ffv1" or a hardware encoder by FFmpeg's name, in any
            case; None: what plays everywhere at that size and depth.
        crf: constant quality, as the encoder counts it; None: `srcli.io.films.encoding` has one for each.
        preset: of the encoder; None: likewise.
        lossless: FFV1.
        container: "mkv", "mp4", "mov" or "webm"; None: that of the input or of the output's name.
        on_error: of frames that are damaged: "repeat" the one before, "skip" them, or "stop" there with an
            error.
        deinterlace: weave the fields of interlaced films into whole frames; they are refused without.
        still: difference of 255 up to which a part of a frame counts as that of the frame before and is not
            computed again. 0: equal ones only, so that nothing differs.
        start, end: seconds from the first frame; None: all of it.
        keep_partial: when a run ends early, join what is done to a film of its own.
        preview: make a contact sheet with so many frames, and no film. 0: films.
        pipe: "mkv" or "y4m": the film goes to stdout as that, frame by frame. None: into a file.
    """

    codec: str | None = None
    crf: int | None = None
    preset: str | None = None
    lossless: bool = False
    container: str | None = None
    on_error: OnError = "repeat"
    deinterlace: bool = False
    still: int = 0
    start: Fraction | None = None
    end: Fraction | None = None
    keep_partial: bool = False
    preview: int = 0
    pipe: str | None = None

    def __post_init__(self) -> None:
        for name in ("codec", "pipe"):
            given: str | None = getattr(self, name)
            object.__setattr__(self, name, given and given.lower())
        if self.lossless and (self.crf is not None or self.codec not in (None, "ffv1")):
            raise UsageError("--lossless is FFV1, without --crf or another --codec.", "Keep one of them.")
        if self.crf is not None and self.crf < 0:
            raise UsageError(f"A quality of {self.crf} is not possible.", "Give 0 or more.")
        if not 0 <= self.still <= 255:
            raise UsageError(
                f"--still {self.still} is no difference of 0 to 255.", "Give a small number, or 0."
            )
        if self.pipe not in (None, *PIPED):
            raise UsageError(
                f"{self.pipe} cannot be written to a pipe.", f"Use --container {' or '.join(PIPED)}."
            )
        if self.pipe == "y4m" and not self.lossless:
            raise UsageError("Y4M is not coded: it has no --codec.", "Leave it out, or use --container mkv.")
        if self.preview < 0:
            raise UsageError(f"A preview of {self.preview} frames is not possible.", "Give 1 or more.")
        if (self.start or 0) < 0 or (self.end is not None and self.end <= (self.start or 0)):
            raise UsageError("--start and --end hold no part of a film.", "Give seconds, the end last.")


@dataclass(frozen=True, slots=True)
class Settings:
    """How pictures are enlarged and stored. Frozen and picklable; raises UsageError where fields contradict.

    Attributes:
        model: a shipped model, a family ("mdsr", "edsr"), "auto" (mdsr or mdsr-photo, by what each picture
            shows), the path of an .onnx file (that network alone is used), or "bicubic".
        scale: output / input, any real number from 1 to 16; used where no size is given. Where the model has
            no network for it, the next larger one runs (twice where one is not enough) and bicubic finishes.
        width, height: of the output in pixels; one alone keeps the aspect ratio.
        long_edge: the larger of output height and width in pixels.
        backend: "auto" (the fastest installed), or one of `srcli.backends.registry.BACKENDS`.
        precision: one of `PRECISIONS`. Anything but "auto" is used or refused.
        device: "auto", "cpu", "cuda", "cuda:1", several as "cuda:0,1", or "all" GPUs. Anything but "auto" is
            used or refused.
        threads: CPU threads of the network; 0: all cores.
        tile: largest window side fed to the network, LR pixels; None: 256 to 512, see `srcli.tiles`.
        halo: LR pixels of context around each tile; None: the model's measured one. "exact" is the model's
            receptive field: tiled then equals whole up to the rounding of the kernels.
        ensemble: mean over eight flips and rotations (paper, section 3.4): eight times the work.
        memory: bytes that the whole process may take, network included.
        format: of the outputs, as in `srcli.io.pictures.SUFFIXES`; None: that of each input.
        quality: 1 to 100 for lossy formats; None leaves it to the format.
        overwrite: replace outputs that exist.
        trust_names: skip inputs whose outputs exist, without a look at what made them.
        provenance: write into each output what made it.
        keep_dpi: leave a picture's resolution as it is; else it follows the size, and prints stay as large.
        keep_times: give each output the modification time of its input.
        workers: threads that decode pictures, and as many that encode.
        film: what only films have.
    """

    model: str | Path = "auto"
    scale: float = 4.0
    width: int | None = None
    height: int | None = None
    long_edge: int | None = None
    backend: str = "auto"
    precision: str = "auto"
    device: str = "auto"
    threads: int = 0
    tile: int | None = None
    halo: int | str | None = None
    ensemble: bool = False
    memory: int = DEFAULT_MEMORY
    format: str | None = None
    quality: int | None = None
    overwrite: bool = False
    trust_names: bool = False
    provenance: bool = True
    keep_dpi: bool = False
    keep_times: bool = True
    workers: int = 2
    film: FilmSettings = FilmSettings()

    def __post_init__(self) -> None:
        object.__setattr__(self, "precision", _ALIASES.get(self.precision, self.precision))
        if not 1 <= self.scale <= MAX_SCALE:
            raise UsageError(
                f"Scale {self.scale:g} is out of range.", f"Give a number from 1 to {MAX_SCALE}."
            )
        if self.long_edge is not None and (self.width is not None or self.height is not None):
            raise UsageError("--long-edge cannot be combined with --width or --height.", "Keep one of them.")
        if any(side is not None and side < 1 for side in (self.width, self.height, self.long_edge)):
            raise UsageError("An output side has at least 1 pixel.", "Give 1 or more.")
        if self.precision not in PRECISIONS:
            raise UsageError(f"No precision {self.precision!r}.", f"Choose from {', '.join(PRECISIONS)}.")
        if self.threads < 0:
            raise UsageError(f"{self.threads} threads cannot run.", "Give 1 or more, or 0 for all cores.")
        if (self.tile is not None and self.tile < 1) or (isinstance(self.halo, int) and self.halo < 0):
            raise UsageError(
                f"Tile {self.tile} with halo {self.halo}: both count pixels.", "Give a tile of 1 or more."
            )
        if isinstance(self.halo, str) and self.halo != "exact":
            raise UsageError(f"No halo {self.halo!r}.", 'Give a number of pixels, or "exact".')
        if self.quality is not None and not 0 <= self.quality <= 100:
            raise UsageError(f"Quality {self.quality} is not possible.", "Use 0 to 100.")
        if self.trust_names and self.overwrite:
            raise UsageError("--trust-names skips results, --overwrite replaces them.", "Keep one of them.")
        if self.memory < 1 or self.workers < 1:
            raise UsageError("Memory and workers start at 1.", "Give 1 or more.")

    @property
    def by_factor(self) -> bool:
        """Whether the size is `scale` times the input, rather than one in pixels."""
        return self.width is None and self.height is None and self.long_edge is None

    def output_size(self, source: Size) -> Size:
        """(height, width) of the output for an input of that size, rounded half up, at least 1×1."""
        height, width = source
        if self.by_factor:
            return scaled(source, self.scale)
        if self.long_edge is not None:
            edge = max(source)
            return _share(height, self.long_edge, edge), _share(width, self.long_edge, edge)
        new_height = self.height or _share(height, self.width or 0, width)
        return new_height, self.width or _share(width, new_height, height)

    def factor(self, source: Size) -> float:
        """The larger of the two output / input ratios; the scale itself where that is asked for.

        Raises:
            InputError: the size asked for is more than `MAX_SCALE` times this picture.
        """
        if self.by_factor:
            return self.scale
        try:
            return factor_between(source, self.output_size(source))
        except UsageError as error:
            raise InputError(error.message, error.hint) from error


def factor_between(source: Size, target: Size) -> float:
    """The larger of the two target / source ratios.

    Raises:
        UsageError: the target has no pixels, or is more than `MAX_SCALE` times the source.
    """
    if min(target) < 1:
        raise UsageError(f"A size of {target[1]}×{target[0]} is no picture.", "Give 1 pixel or more a side.")
    factor = max(target[0] / source[0], target[1] / source[1])
    if factor > MAX_SCALE:
        sizes = f"{source[1]}×{source[0]} to {target[1]}×{target[0]}"
        raise UsageError(
            f"{sizes} is {factor:.1f} times larger; {MAX_SCALE} times is the limit.",
            "Ask for a smaller size.",
        )
    return factor


def scaled(size: Size, scale: float) -> Size:
    """A size times a scale, rounded half up, at least 1×1."""
    return max(1, int(size[0] * scale + 0.5)), max(1, int(size[1] * scale + 0.5))


def _share(length: int, numerator: int, denominator: int) -> int:
    """length * numerator / denominator, rounded half up, at least 1."""
    return max(1, (2 * length * numerator + denominator) // (2 * denominator))
