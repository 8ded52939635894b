"""Writes a card for each shipped model from its files' descriptions and the quality measured on them.

python benchmarks/quality.py Set5 Set14 valid --out benchmarks/results/quality.json
python benchmarks/quality.py valid --degradations bicubic photo --models mdsr-baseline mdsr-photo \
    --out benchmarks/results/photo.json
python benchmarks/model_cards.py                      writes srcli/models/<name>.md
"""

import csv
from collections.abc import Iterable
from pathlib import Path

from common import RESULTS
from srcli.models.catalog import MODELS_FOLDER, list_models, resolve
from srcli.models.spec import ModelSpec

SOURCES = (
    "imazen/codec-corpus (CID22, CLIC 2025), gb82-image-set, the wallpaper collections of JappeOS, Ubuntu, Ubuntu MATE, "
    "Deepin, Solus, Antergos, Budgie, AOSC, pop-os and MATE, pixls.us, the photo-stream collections of Cecil and "
    "Waschinski, MatheusTT/wallpapers, work_suite, oceanic-awesomewm-theme, netlify-photo-gallery, immich "
    "test-assets, akc"
)
ABOUT = {
    "mdsr": "MDSR (section 3.4 of the paper) in its baseline size: one trunk of 16 residual blocks with 64 features, "
    "a pre-processing module and an upsampler a scale. All files share one file of weights.",
    "edsr": "EDSR (section 3.3 of the paper) in its baseline size: 16 residual blocks with 64 features, one network a "
    "scale.",
}
PHOTO = (
    "The same network as mdsr-baseline, trained on from it on LR images that went through a random chain of blur, "
    "resampling, sensor-like noise (up to 25 of 255) and JPEG (quality 30 to 98, half the time twice), two fifths of "
    "them plain bicubic at first and three tenths later. In the last updates a tenth were drawings with hard edges. It "
    "removes what such pictures suffered from; on clean ones mdsr-baseline is more faithful. `--model auto` measures each picture and takes one of the two."
)
FAST = (
    "EDSR's block and nothing else: 8 residual blocks with 32 features, one network a scale, about a seventh "
    "of edsr-baseline's multiply-adds. For films on a CPU, where `--model auto` takes it or fast-photo, and for previews."
)
FILM = (
    "The same networks as fast, trained on from them on LR images of which a quarter are plain bicubic. Three quarters of "
    "the others are one frame of a film in H.264 (CRF 16 to 34) or H.265 (18 to 36) with chroma at half size, one to "
    "three frames that move, some with grain; the rest went through mdsr-photo's chain of blur, noise and JPEG. Three "
    "tenths are blurred first, and a few patches are drawings with hard or smooth edges. It removes blur, noise and "
    "blocks; on clean films, and on films that H.264 at CRF 24 or better did all the damage to, fast is more faithful."
)
BY_NAME = {"mdsr-photo": PHOTO, "fast": FAST, "fast-photo": FILM}
"""About a network of that name; else what its family is."""
_DESTROYED = (
    "Fine texture that noise or compression has destroyed is not invented: such areas become smooth. Motion blur and "
    "large defocus were not trained for."
)
_SHARPENS = (
    "Trained for bicubic downscaling: it sharpens clean pictures faithfully, and also the blocks and noise of others, "
    "which {} removes."
)
LIMITS = {
    "mdsr-photo": _DESTROYED,
    "fast-photo": _DESTROYED,
    "fast": _SHARPENS.format("fast-photo"),
    "": _SHARPENS.format("mdsr-photo"),
}
QUALITY_HEADER = "| set | scale | precision | PSNR Y, dB | SSIM Y | PSNR RGB, dB | SSIM RGB |"


def main() -> None:
    """Write them."""
    for path, text in cards().items():
        path.write_text(text)
        print(path)


def cards() -> dict[Path, str]:
    """One card a name, and where it lies."""
    rows = [row for name in ("quality", "photo", "fast", "film") for row in _rows(RESULTS / f"{name}.csv")]
    specs = list_models(MODELS_FOLDER)
    found = {}
    for name in dict.fromkeys(spec.name for spec in specs):
        own = [spec for spec in specs if spec.name == name]
        text = card(own, _once(row for row in rows if row["model"] == name))
        found[MODELS_FOLDER / f"{name}.md"] = text
    return found


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _once(rows: Iterable[dict[str, str]]) -> list[dict[str, str]]:
    """The first row of each set, scale and precision: some are in both files."""
    found: dict[tuple[str, ...], dict[str, str]] = {}
    for row in rows:
        found.setdefault((row["set"], row["scale"], row["precision"]), row)
    return list(found.values())


def card(specs: list[ModelSpec], rows: list[dict[str, str]]) -> str:
    """Markdown: what it is, training, quality, data and licence."""
    name = specs[0].name
    about = BY_NAME.get(name) or ABOUT[specs[0].family]
    parts = [f"# {name}", about, "## Files", *_table(_files(specs))]
    parts += ["## Training", *_table(_training(specs)), *_commands(specs)]
    parts += ["## Quality", *_table(_quality(rows)), _protocol()]
    parts += ["## Data and licence", _licence(specs[0]), "## Limits", _limits(name)]
    return "\n\n".join(_joined(parts)) + "\n"


def _joined(parts: list[str]) -> list[str]:
    """Rows of a table belong together without blank lines."""
    joined: list[str] = []
    for part in parts:
        if joined and part.startswith("|") and joined[-1].startswith("|"):
            joined[-1] += f"\n{part}"
        else:
            joined.append(part)
    return joined


def _table(rows: list[str]) -> list[str]:
    return [rows[0], "|---" * (rows[0].count("|") - 1) + "|", *rows[1:]]


def _files(specs: list[ModelSpec]) -> list[str]:
    """The float32 files, then those in int8; what they lose and take was measured when they were exported.

    The next best is bf16 where the CPU that exported had it, and else fp32.
    """
    header = (
        "| file | parameters in use | multiply-adds a pixel of output | halo, exact (LR pixels) | weights stored as | "
        "loses, dB | time / next best |"
    )
    int8 = [resolve(s.name, s.scale, MODELS_FOLDER).int8 for s in specs]
    return [header] + [_file(s) for s in [*specs, *(file.spec for file in int8 if file)]]


def _file(s: ModelSpec) -> str:
    kind = "" if s.arithmetic == "fp32" else f".{s.arithmetic}"
    share = f"{s.verified['time_share']:.2f}" if "time_share" in s.verified else "–"
    lost = max(0.0, s.verified["psnr_lost"])
    return (
        f"| `{s.name}-x{s.scale}{kind}.onnx` | {s.parameters:,} | {s.macs / s.scale**2 / 1000:,.0f} k | "
        f"{s.halo}, {s.exact_halo} | {s.precision} | {lost:.3f} | {share} |"
    )


def _training(specs: list[ModelSpec]) -> list[str]:
    header = "| scale | recipe | updates | hours | machine | data |"
    groups = {s.training: [o.scale for o in specs if o.training == s.training] for s in specs}
    return [header] + [
        f"| {', '.join(f'x{n}' for n in scales)} | {t.recipe} | {t.updates:,} | {t.hours:.2f} | {t.machine} | {t.data} |"
        for t, scales in groups.items()
    ]


def _commands(specs: list[ModelSpec]) -> list[str]:
    commands = dict.fromkeys(s.training.command for s in specs)
    logs = "Logs, seeds and what was done by hand: `benchmarks/results/training/`."
    return ["```sh\n" + "\n".join(commands) + "\n```", logs]


def _quality(rows: list[dict[str, str]]) -> list[str]:
    return [QUALITY_HEADER] + [
        f"| {r['set']} | x{r['scale']} | {r['precision']} | {float(r['psnr_y']):.2f} | {float(r['ssim_y']):.4f} "
        f"| {float(r['psnr_rgb']):.2f} | {float(r['ssim_rgb']):.4f} |"
        for r in rows
    ]


def _protocol() -> str:
    return (
        "No self-ensemble. LR made with MATLAB's bicubic; Y: luma, shave = scale; RGB: shave = scale + 6. `valid`: 12 "
        "crops of 1020×768 from photographs that are not in the training data. Nothing from Set5 or Set14 chose a "
        "checkpoint: the last one of each run is shipped. `valid, photo` and `valid, film`: the same crops, degraded "
        "as `srcli evaluate --degradation photo` or `film` does it, seed 0."
    )


def _licence(spec: ModelSpec) -> str:
    return (
        f"The weights are licensed under {spec.license} and may be used commercially. They were trained on crops of "
        f"freely licensed photographs only (CC0, CC BY, CC BY-SA, Unsplash or Pexels licence) from: {SOURCES}. None of "
        "them is in Set5, Set14, B100, Urban100, Manga109 or Kodak, and no research-only data set was used."
    )


def _limits(name: str) -> str:
    data = "The training data holds few straight city structures, little text and few indoor scenes."
    return f"{LIMITS.get(name, LIMITS[''])} {data}"


if __name__ == "__main__":
    main()
