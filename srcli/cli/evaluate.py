"""`srcli evaluate`: PSNR and SSIM of a model on a folder of HR images."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from srcli.cli.console import product, screen, table, talk
from srcli.errors import UsageError

if TYPE_CHECKING:
    from srcli_train.evaluate import Score, Upscale

_SCALES = (2, 3, 4)
_HEADER = ["", "PSNR Y", "SSIM Y", "PSNR RGB", "SSIM RGB"]


def evaluate(
    folder: Annotated[Path, typer.Argument(help="Folder of HR images, e.g. Set5; or DIV2K.")],
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="Model, auto, .onnx file or .pt checkpoint; may be given several times. [default: mdsr]"
        ),
    ] = None,
    scale: Annotated[int, typer.Option("-s", "--scale", help="2, 3 or 4.")] = 4,
    ensemble: Annotated[
        bool, typer.Option("--ensemble", help="Mean over the eight flips and rotations.")
    ] = False,
    backend: Annotated[str, typer.Option(help="auto, openvino, onnxruntime, torch or bicubic.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, fp32, bf16, fp16 or int8.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0: all.")] = 0,
    degradation: Annotated[
        str,
        typer.Option(
            help="How LR is made: bicubic, unknown (blur), photo (noise, JPEG, blur) or film (H.264, H.265)."
        ),
    ] = "bicubic",
    seed: Annotated[int, typer.Option(min=0, help="Of the degradation: same seed, same LR.")] = 0,
    images: Annotated[bool, typer.Option("--images", help="Also show each image.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of a table.")] = False,
) -> None:
    """Measure PSNR and SSIM on a folder of HR images.

    Y: luma, shave = scale (benchmark protocol). RGB: shave = scale + 6 (DIV2K protocol).
    """
    if scale not in _SCALES:
        raise UsageError(f"Scale {scale} cannot be evaluated.", "Choose 2, 3 or 4.")
    from srcli_train.evaluate import bicubic
    from srcli_train.evaluate import evaluate as measure
    from srcli_train.folders import find_source

    names = model or ["mdsr"]
    if any(name.endswith(".pt") for name in names):
        _check_pytorch()
    find_source(folder, "valid")  # before a network is loaded
    methods = {"bicubic": bicubic(scale)}
    for name in names:
        if name.endswith(".pt"):
            _only_pytorch(name, backend, precision, device)
            methods |= _checkpoint(name, scale, ensemble)
        else:
            methods |= _model(name, scale, ensemble, backend, precision, device, threads)
    shown = screen(quiet=False)
    try:
        scores = measure(
            folder,
            scale,
            methods,
            lambda done, total: shown.update(done, total, f"{done}/{total} images"),
            degradation=degradation,
            seed=seed,
        )
    finally:
        shown.close()
    if as_json:
        product(_json(folder, scale, degradation, seed, scores))
        return
    rows = _rows(f"{folder.resolve().name} x{scale}{_how(degradation, seed)}", scores, images)
    if degradation == "bicubic":  # what papers report
        rows += _published_rows(folder, scale)
    for line in table(rows):
        product(line)


def _only_pytorch(name: str, backend: str, precision: str, device: str) -> None:
    """Refuse to run a checkpoint otherwise than it can be run."""
    asked = ((backend, ("auto", "torch")), (precision, ("auto", "fp32")), (device, ("auto", "cpu")))
    for value, possible in asked:
        if value not in possible:
            hint = f"For {value}, export it first: srcli export {name}"
            raise UsageError(f"{name}: a checkpoint runs in PyTorch fp32 on the CPU, not in {value}.", hint)


def _check_pytorch() -> None:
    from srcli.cli.console import missing_extra

    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise missing_extra(error, "Evaluating a checkpoint", "train") from error


def _checkpoint(name: str, scale: int, ensemble: bool) -> "dict[str, Upscale]":
    from srcli_train.evaluate import from_checkpoint

    run = from_checkpoint(Path(name), scale, ensemble=ensemble)
    talk(f"{name} x{scale}: PyTorch fp32 on cpu, whole images")
    return {_plus(name, ensemble): run}


def _model(
    name: str, scale: int, ensemble: bool, backend: str, precision: str, device: str, threads: int
) -> "dict[str, Upscale]":
    from srcli.models.auto import name_of
    from srcli.models.catalog import is_path
    from srcli.upscaler import Upscaler

    upscaler = Upscaler(
        name,
        scale,
        backend=backend,
        precision=precision,
        device=device,
        ensemble=ensemble,
        threads=threads,
    )
    named = name_of(name, upscaler.spec)
    talk(f"{named} x{scale}: {upscaler.reason}")
    return {_plus(name if is_path(name) else named, ensemble): upscaler}


def _plus(name: str, ensemble: bool) -> str:
    """The paper marks self-ensembles with a plus."""
    return f"{name}+" if ensemble else name


def _how(degradation: str, seed: int) -> str:
    return "" if degradation == "bicubic" else f", {degradation} {seed}"


def _rows(title: str, scores: "dict[str, list[Score]]", images: bool) -> list[list[str]]:
    from srcli_train.evaluate import mean

    rows = [[title, *_HEADER[1:]]]
    for name, values in scores.items():
        if images:
            rows += [_row(f"{name} {score.name}", score) for score in values]
        rows.append(_row(name, mean(values)))
    return rows


def _published_rows(folder: Path, scale: int) -> list[list[str]]:
    from srcli_train.evaluate import published

    rows = []
    for row in published(folder.resolve().name, scale):
        figures = [f"{row.psnr:.2f}", f"{row.ssim:.4f}" if row.ssim else "–"]
        cells = [*figures, "–", "–"] if row.protocol == "Y" else ["–", "–", *figures]
        rows.append([f"{row.method}, published", *cells])
    return rows


def _row(name: str, score: "Score") -> list[str]:
    return [
        name,
        f"{score.psnr_y:.2f}",
        f"{score.ssim_y:.4f}",
        f"{score.psnr_rgb:.2f}",
        f"{score.ssim_rgb:.4f}",
    ]


def _json(folder: Path, scale: int, degradation: str, seed: int, scores: "dict[str, list[Score]]") -> str:
    import json
    from dataclasses import asdict
    from math import inf

    from srcli_train.evaluate import mean

    def plain(score: "Score") -> dict[str, str | float | None]:
        """Infinite PSNR, of identical images, is null: JSON has no infinity."""
        return {k: None if v in (inf, -inf) else v for k, v in asdict(score).items()}

    methods = {
        name: {"mean": plain(mean(values)), "images": [plain(score) for score in values]}
        for name, values in scores.items()
    }
    lr = {"degradation": degradation} | ({} if degradation == "bicubic" else {"seed": seed})
    return json.dumps({"set": folder.resolve().name, "scale": scale, **lr, "methods": methods}, indent=2)
