"""`srcli doctor`: what can run here, what cannot, and the command that changes that."""

import platform
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from srcli.cli.console import printable, product, table
from srcli.errors import ExitCode

if TYPE_CHECKING:
    from srcli.backends.devices import Driver, Processor
    from srcli.benchmark.subjects import Trial

_FIXES = {
    "torch": "Update the driver, or install a build for CUDA {major}: https://pytorch.org/get-started/locally/",
    "onnxruntime-gpu": "Update the driver.",
}
"""What to do about a package that was built for a newer CUDA than the driver runs."""

_HEADER = ["backend", "device", "precision", "runs", "start (s)", "tile (ms)"]


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Everything that `srcli doctor` reports.

    Attributes:
        system: operating system, Python.
        versions: of the installed packages, as `devices.installed`.
        processor, nvidia: the CPU, and the NVIDIA driver with its GPUs.
        trials: one for each backend, device and precision.
        problems: of the installation, each with its fix.
    """

    system: str
    versions: dict[str, str]
    processor: "Processor"
    nvidia: "Driver"
    trials: "tuple[Trial, ...]"
    problems: tuple[str, ...]

    @property
    def healthy(self) -> bool:
        """Whether a network runs on some backend and the installation has no problems."""
        return any(t.works for t in self.trials if t.backend != "bicubic") and not self.problems


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Everything as JSON.")] = False) -> None:
    """Say what this machine can run, by trying it, and how to get the rest."""
    diagnosis = examine()
    for line in [_json(diagnosis)] if as_json else _report(diagnosis):
        product(line)
    if not diagnosis.healthy:
        raise typer.Exit(ExitCode.FAILED)


def examine() -> Diagnosis:
    """Try every installed backend in every precision on every kind of device that is present.

    TensorRT builds its engine for this first, which takes up to minutes and is logged.
    """
    from srcli.backends import devices, registry

    nvidia, versions = devices.ask(), devices.installed()
    return Diagnosis(
        system=f"{platform.platform()}, Python {platform.python_version()}",
        versions=versions,
        processor=devices.processor(),
        nvidia=nvidia,
        trials=tuple(tried for name in registry.BACKENDS for tried in _trials(name, nvidia)),
        problems=tuple(problems(versions, nvidia, devices.cuda_of_packages())),
    )


def problems(versions: dict[str, str], nvidia: "Driver", cuda: dict[str, str]) -> list[str]:
    """Problems of this combination of packages and driver, each with its fix.

    Args:
        versions: of the installed packages.
        nvidia: the driver.
        cuda: CUDA version that packages were built for, where known.
    """
    found = []
    both = {"onnxruntime", "onnxruntime-gpu"}
    if both <= versions.keys():
        found.append(
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other. "
            "Remove both: pip uninstall onnxruntime onnxruntime-gpu, then install one: "
            f'pip install "srcli[{"gpu" if nvidia.gpus else "cpu"}]"'
        )
    if nvidia.gpus and versions.get("torch", "").endswith("+cpu"):
        found.append(
            "There is a GPU, but this PyTorch is a CPU build. "
            "Install the CUDA build: https://pytorch.org/get-started/locally/"
        )
    too_new = [name for name in cuda if nvidia.gpus and name in versions and _newer(cuda[name], nvidia.cuda)]
    found += [
        f"The NVIDIA driver runs CUDA {nvidia.cuda} at most, {name} {versions[name]} was built for "
        f"{cuda[name]}. {_FIXES[name].format(major=_major(nvidia.cuda))}"
        for name in too_new
    ]
    return found


def _newer(built_for: str, cuda: str) -> bool:
    """Whether a build needs a newer driver: drivers run builds of their own major version and older ones."""
    return _major(built_for) > _major(cuda)


def _major(version: str) -> int:
    return int(version.partition(".")[0])


def _trials(name: str, nvidia: "Driver") -> "list[Trial]":
    """A trial of every precision on every device of the backend that the machine has."""
    from srcli.backends import registry
    from srcli.benchmark.subjects import Trial, trial

    entry = registry.BACKENDS[name]
    devices = registry.present(entry)
    if not devices:
        reason = f"It needs an NVIDIA GPU, but {nvidia.problem}."
        return [Trial(name, d, p, False, reason=reason) for d in entry.computes for p in entry.computes[d]]
    return [trial(name, device, precision) for device in devices for precision in entry.computes[device]]


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
                _HEADER,
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
