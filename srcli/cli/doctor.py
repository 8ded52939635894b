"""`srcli doctor`: what can run here, what cannot, and the command that changes that."""

from typing import TYPE_CHECKING, Annotated

import typer

from srcli.cli.console import printable, product, table, talk
from srcli.errors import ExitCode

if TYPE_CHECKING:
    from srcli.backends.doctor import Diagnosis, Trial

_HEADER = ["backend", "device", "precision", "runs", "start (s)", "tile (ms)"]


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Everything as JSON.")] = False) -> None:
    """Say what this machine can run, by trying it, and how to get the rest."""
    from srcli.backends.doctor import examine

    diagnosis = examine(talk)
    for line in [_json(diagnosis)] if as_json else _report(diagnosis):
        product(line)
    if not diagnosis.healthy:
        raise typer.Exit(ExitCode.FAILED)


def _json(diagnosis: "Diagnosis") -> str:
    import json
    from dataclasses import asdict

    return json.dumps({**asdict(diagnosis), "healthy": diagnosis.healthy}, indent=2)


def _report(diagnosis: "Diagnosis") -> list[str]:
    processor, nvidia = diagnosis.processor, diagnosis.nvidia
    features = ", ".join(processor.features) or "no vector units known"
    lines = [
        diagnosis.system,
        f"CPU: {processor.name}, {processor.cores} cores ({features})",
        *([f"NVIDIA: {nvidia.problem}"] if nvidia.problem else []),
        *(
            f"NVIDIA: cuda:{number} {gpu.name}, compute {gpu.capability}, {gpu.memory / 2**30:.0f} GiB, "
            f"driver for CUDA {nvidia.cuda}"
            for number, gpu in enumerate(nvidia.gpus)
        ),
        "Packages: " + ", ".join(f"{name} {number}" for name, number in diagnosis.versions.items()),
        "",
        *table(
            [
                ["backend", "device", "precision", "runs", "start (s)", "tile (ms)"],
                *map(_row, diagnosis.trials),
            ]
        ),
    ]
    missing = dict.fromkeys(
        f"{t.backend}: {t.reason} {t.fix}".strip() for t in diagnosis.trials if not t.works
    )
    lines += ["", *missing] if missing else []
    lines += ["", *(f"problem: {problem}" for problem in diagnosis.problems)] if diagnosis.problems else []
    return [printable(line) for line in lines]


def _row(trial: "Trial") -> list[str]:
    times = [f"{trial.start:.2f}", f"{trial.tile * 1000:.1f}"] if trial.works else ["–", "–"]
    return [trial.backend, trial.device, trial.precision, "yes" if trial.works else "no", *times]
