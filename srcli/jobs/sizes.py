"""How large the output shall be: a factor, or a size in pixels."""

from dataclasses import dataclass

from srcli.errors import InputError, UsageError

Size = tuple[int, int]
"""(height, width) in pixels."""

MAX_SCALE = 16


@dataclass(frozen=True, slots=True)
class SizeRequest:
    """What the user asked for: either `scale`, or one or both of width and height, or the long edge.

    Attributes:
        scale: output / input, 1 to 16; used where no size is given.
        width: output width in pixels; alone, it keeps the aspect ratio.
        height: output height in pixels; alone, it keeps the aspect ratio.
        long_edge: the larger of output height and width in pixels.
    """

    scale: float = 4.0
    width: int | None = None
    height: int | None = None
    long_edge: int | None = None

    def __post_init__(self) -> None:
        if self.long_edge is not None and (self.width is not None or self.height is not None):
            raise UsageError("--long-edge cannot be combined with --width or --height.", "Keep one of them.")
        if not 1 <= self.scale <= MAX_SCALE:
            raise UsageError(
                f"Scale {self.scale:g} is not between 1 and {MAX_SCALE}.", "Any number between is possible."
            )

    @property
    def by_factor(self) -> bool:
        """Whether the size is `scale` times the input, rather than one in pixels."""
        return self.width is None and self.height is None and self.long_edge is None

    def output(self, size: Size) -> Size:
        """Output size for an input size, rounded half up, at least 1×1."""
        height, width = size
        if self.by_factor:
            return _half_up(height * self.scale), _half_up(width * self.scale)
        if self.long_edge is not None:
            edge = max(size)
            return _share(height, self.long_edge, edge), _share(width, self.long_edge, edge)
        new_height = self.height or _share(height, self.width or 0, width)
        return new_height, self.width or _share(width, new_height, height)

    def factor(self, size: Size) -> float:
        """The larger of the two output / input ratios.

        Raises:
            InputError: the size asked for is more than 16 times this picture.
        """
        if self.by_factor:
            return self.scale
        output = self.output(size)
        factor = max(output[0] / size[0], output[1] / size[1])
        if factor > MAX_SCALE:
            raise InputError(
                f"{size[1]}×{size[0]} to {output[1]}×{output[0]} is {factor:.1f} times larger; "
                f"{MAX_SCALE} times is the limit.",
                "Ask for a smaller size.",
            )
        return factor


def _share(length: int, numerator: int, denominator: int) -> int:
    """length * numerator / denominator, rounded half up, at least 1."""
    return max(1, (2 * length * numerator + denominator) // (2 * denominator))


def _half_up(value: float) -> int:
    return max(1, int(value + 0.5))
