"""Figures that papers report, to stand beside our own: PSNR (dB) / SSIM by set, method and scale."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Published:
    """One published row. `protocol` is "Y" (luma, shave = scale) or "RGB" (shave = scale + 6)."""

    method: str
    scale: int
    psnr: float
    ssim: float | None = None
    protocol: str = "Y"


def _rows(method: str, *figures: float, protocol: str = "Y") -> tuple[Published, ...]:
    """A row for each of x2, x3, x4, PSNR only."""
    return tuple(Published(method, s, f, None, protocol) for s, f in zip((2, 3, 4), figures, strict=True))


def _with_ssim(method: str, *figures: tuple[float, float]) -> tuple[Published, ...]:
    return tuple(Published(method, s, p, q) for s, (p, q) in zip((2, 3, 4), figures, strict=True))


PUBLISHED: dict[str, tuple[Published, ...]] = {
    "Set5": (
        *_with_ssim("bicubic", (33.66, 0.9299), (30.39, 0.8682), (28.42, 0.8104)),
        *_rows("SRCNN", 36.66, 32.75, 30.48),
        *_rows("VDSR", 37.53, 33.66, 31.35),
        *_rows("EDSR-baseline", 37.99, 34.37, 32.09),
        *_with_ssim("EDSR", (38.11, 0.9601), (34.65, 0.9282), (32.46, 0.8968)),
    ),
    "Set14": (
        *_with_ssim("bicubic", (30.24, 0.8688), (27.55, 0.7742), (26.00, 0.7027)),
        *_rows("SRCNN", 32.42, 29.28, 27.49),
        *_rows("VDSR", 33.03, 29.77, 28.01),
        *_rows("EDSR-baseline", 33.57, 30.28, 28.58),
        *_with_ssim("EDSR", (33.92, 0.9195), (30.52, 0.8462), (28.80, 0.7876)),
    ),
    "B100": (
        *_with_ssim("bicubic", (29.56, 0.8431), (27.21, 0.7385), (25.96, 0.6675)),
        *_rows("SRCNN", 31.36, 28.41, 26.90),
        *_rows("VDSR", 31.90, 28.82, 27.29),
        *_rows("EDSR-baseline", 32.16, 29.09, 27.57),
        *_with_ssim("EDSR", (32.32, 0.9013), (29.25, 0.8093), (27.71, 0.7420)),
    ),
    "Urban100": (
        *_with_ssim("bicubic", (26.88, 0.8403), (24.46, 0.7349), (23.14, 0.6577)),
        *_rows("SRCNN", 29.50, 26.24, 24.52),
        *_rows("VDSR", 30.76, 27.14, 25.18),
        *_rows("EDSR-baseline", 31.98, 28.15, 26.04),
        *_with_ssim("EDSR", (32.93, 0.9351), (28.80, 0.8653), (26.64, 0.8033)),
    ),
    "DIV2K_valid_HR": (
        *_rows("EDSR-baseline", 34.61, 30.92, 28.95, protocol="RGB"),
        *_rows("MDSR-baseline", 34.63, 30.94, 28.97, protocol="RGB"),
        *_rows("EDSR", 35.03, 31.26, 29.25, protocol="RGB"),
        *_rows("MDSR", 34.92, 31.22, 29.24, protocol="RGB"),
    ),
}
"""By name of the HR folder, in its usual spelling. EDSR-baseline as later papers report it."""

_OTHER_NAMES = {
    "BSD100": "B100",
    "BSDS100": "B100",
    "DIV2K": "DIV2K_valid_HR",
    "DIV2K_valid": "DIV2K_valid_HR",
}


def published(folder_name: str, scale: int) -> tuple[Published, ...]:
    """Published rows for a test set, recognised by its folder's name; none for unknown sets."""
    names = {name.lower(): name for name in PUBLISHED} | {k.lower(): v for k, v in _OTHER_NAMES.items()}
    known = names.get(folder_name.lower(), "")
    return tuple(row for row in PUBLISHED.get(known, ()) if row.scale == scale)
