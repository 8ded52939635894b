"""`srcli train`: a folder of HR images becomes a checkpoint; a bar on a terminal, lines elsewhere."""

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from srcli.cli.console import (
    Screen,
    Silent,
    command_line,
    duration,
    missing_extra,
    printable,
    product_path,
    screen,
    talk,
)
from srcli.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from srcli_train.data import Pixels
    from srcli_train.job import Job
    from srcli_train.log import Status
    from srcli_train.networks import NetworkSpec


def train(
    context: typer.Context,
    folder: Annotated[
        Path | None,
        typer.Argument(
            help="Folder of HR images, or DIV2K in its official layout; with --resume also a run's alone."
        ),
    ] = None,
    model: Annotated[
        str, typer.Option(help="edsr-baseline, edsr, mdsr-baseline, mdsr or srresnet.")
    ] = "mdsr-baseline",
    scale: Annotated[
        int | None, typer.Option("-s", "--scale", help="2, 3 or 4; MDSR takes none and learns all three.")
    ] = None,
    recipe: Annotated[
        str,
        typer.Option(
            help="paper (the paper's numbers), fast (for CPUs), modern (what gained on it in experiments), "
            "photo (fast, on degraded LR) or film (photo, and H.264 and H.265)."
        ),
    ] = "paper",
    run: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="Folder for checkpoint and logs. [default: runs/MODEL-xSCALE]"),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Go on from the last checkpoint of a run: --resume RUN takes its options, too."
        ),
    ] = False,
    init: Annotated[
        Path | None,
        typer.Option(help="Start from the weights of this checkpoint (x3 and x4 from x2) or this model."),
    ] = None,
    valid: Annotated[
        Path | None, typer.Option(help="Folder of validation images. [default: some are held back]")
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Wall-clock budget of the whole run; the cosine schedule then runs on time. 0: none. "
            "[default: none; with --resume, the run's]",
        ),
    ] = None,
    device: Annotated[
        str, typer.Option(help="cpu, cuda or cuda:N; auto takes a GPU where there is one.")
    ] = "auto",
    gpus: Annotated[
        int,
        typer.Option(min=1, help="Processes that share each minibatch, one a GPU."),
    ] = 1,
    cache: Annotated[
        Path | None, typer.Option(help="Folder for decoded images. [default: user's cache]")
    ] = None,
    data_name: Annotated[str, typer.Option(help="Name of the data for the model card.")] = "",
    updates: Annotated[int | None, typer.Option(help="Minibatches in all. [default: the recipe's]")] = None,
    batch: Annotated[int | None, typer.Option(help="Patches a minibatch. [default: the recipe's]")] = None,
    patch: Annotated[int | None, typer.Option(help="Side of an LR patch. [default: the recipe's]")] = None,
    lr: Annotated[float | None, typer.Option(help="Adam's learning rate. [default: the recipe's]")] = None,
    muon_lr: Annotated[
        float | None, typer.Option(help="Muon's learning rate. [default: the recipe's]")
    ] = None,
    loss: Annotated[str | None, typer.Option(help="l1 or l2. [default: the recipe's]")] = None,
    precision: Annotated[
        str | None,
        typer.Option(help="auto (bf16 where the device has it), bf16 or fp32. [default: the recipe's]"),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Decides start and order of patches. [default: 1]")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FIELD=VALUE",
            help="Any other number of the recipe, or network.FIELD=VALUE; may be repeated.",
        ),
    ] = None,
    validate_every: Annotated[int, typer.Option(min=1, help="Updates between validations.")] = 1000,
) -> None:
    """Train a network on a folder of HR images."""
    try:
        from srcli_train.checkpoint import holds_run, load
        from srcli_train.command import check
        from srcli_train.job import Job, Remembered, remembered
        from srcli_train.ranks import launched
        from srcli_train.recipes import find, split_settings, with_settings
    except ImportError as error:
        raise missing_extra(error, "Training", "train") from error

    numbers = {"updates": updates, "batch": batch, "patch": patch, "lr": lr, "muon_lr": muon_lr}
    named = {**numbers, "loss": loss, "precision": precision, "seed": seed}
    given: dict[str, Any] = {name: value for name, value in named.items() if value is not None}
    of_network, of_recipe = split_settings(settings or ())
    by_default = {name for name in context.params if not _is_given(context, name)}
    home, data = _places(folder, run, model, scale, resume=resume)
    before = load(home)[1] if resume and holds_run(home) else None
    known = remembered(home) if resume else Remembered()
    base = find(recipe)
    if before and "recipe" in by_default:
        base = replace(before.recipe, precision="auto")  # the run's own, or what this device has
    job = Job(
        data=_data(data or known.data, home, resume=resume),
        network=_network(
            model, scale, of_network, before.network if before and "model" in by_default else None
        ),
        recipe=replace(with_settings(base, of_recipe), **given),
        folder=home,
        valid=valid or known.valid,
        cache=cache or known.cache,
        device=device,
        minutes=minutes,
        init=init,
        resume=resume,
        validate_every=known.validate_every if "validate_every" in by_default else validate_every,
        data_name=data_name or known.data_name,
        command=command_line(sys.argv[1:]),
    )
    if gpus > 1 and not launched():
        check(job, gpus)
        _launch(gpus)
    _run(job)


def _is_given(context: typer.Context, name: str) -> bool:
    """Whether an option is on the command line."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _places(
    folder: Path | None, run: Path | None, model: str, scale: int | None, *, resume: bool
) -> tuple[Path, Path | None]:
    """The run's folder, and that of the pictures if it is given: `--resume RUN` names the run alone."""
    from srcli_train.checkpoint import holds_run

    home = run or Path("runs") / (f"{model}-x{scale}" if scale else model)
    if resume and run is None and folder is not None and (holds_run(folder) or not holds_run(home)):
        return folder, None
    return home, folder


def _data(data: Path | None, home: Path, *, resume: bool) -> Path:
    """The folder of pictures.

    Raises:
        UsageError: it is neither given nor known.
    """
    from srcli_train.checkpoint import holds_run

    if data is not None:
        return data
    if not resume:
        raise UsageError("There is nothing to train on.", "Give a folder of HR images.")
    if not holds_run(home):
        raise UsageError(f"{home} holds no checkpoint to resume.", "Leave out --resume to start anew.")
    raise UsageError(
        f"{home} does not say what it was trained on.",
        f"Give the folder of HR images too: srcli train FOLDER --resume -o {home}",
    )


def _network(
    model: str, scale: int | None, settings: Sequence[str], before: "NetworkSpec | None"
) -> "NetworkSpec":
    """The preset, with what was set; a changed one is no longer called by the preset's name.

    Args:
        before: of the run that is resumed, in place of the preset.
    """
    from srcli_train.networks import preset
    from srcli_train.recipes import with_settings

    if before:
        network = with_settings(before, settings)
        return replace(network, scales=(scale,)) if scale else network
    named = [f"name={model}-custom", *settings] if settings else []
    network = with_settings(preset(model, scale), named)
    if scale is not None and network.family == "mdsr":
        hint = "Leave out -s; fewer scales: --set 'network.scales=[2,4]'."
        raise UsageError(f"{model} learns all of its scales together.", hint)
    if not network.scales:
        raise UsageError("A network needs at least one scale.", "For example network.scales=[2,4].")
    return network


def _run(job: "Job") -> None:
    """Train, show it, and print where the result is; of several ranks only the first one prints."""
    from srcli_train.command import train as start
    from srcli_train.ranks import is_first_rank

    first = is_first_rank()
    shown = screen(quiet=False) if first else Mute()
    try:
        with log_messages(shown):
            checkpoint = start(job, TrainingWatcher(shown))
    except KeyboardInterrupt:
        shown.close()
        if first:
            talk(_stopped(job.folder))
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    finally:
        shown.close()
    if first:
        product_path(checkpoint)
        talk(f"Trained. Make it a model with: srcli export {checkpoint}")


class TrainingWatcher:
    """Shows a run's progress on a screen."""

    def __init__(self, shown: Screen) -> None:
        self._screen = shown
        self._validated: dict[int, float] = {}

    def status(self, status: "Status") -> None:
        """Progress, and a line that stays whenever there are new PSNR figures."""
        scores = ", ".join(f"x{scale} {value:.2f} dB" for scale, value in status.psnr.items())
        text = (
            f"update {status.update}, loss {status.loss:.3f}, "
            f"{status.updates_per_second:.2f} updates/s, {duration(status.seconds_left)} left"
        )
        self._screen.update(status.progress, 1, f"{text}, validation {scores}" if scores else text)
        if status.psnr != self._validated:
            self._validated = dict(status.psnr)
            self._screen.line(f"update {status.update}: loss {status.loss:.3f}, validation {scores}")

    def picture(self, update: int, image: "Pixels") -> None:
        """Pictures are shown by TensorBoard."""


class Mute(Silent):
    """The screen of the second and later ranks: shows nothing."""

    def line(self, text: str) -> None:
        """Nothing."""


@contextmanager
def log_messages(shown: Screen) -> Iterator[None]:
    """While entered, log messages of training from INFO on are lines of this screen, and go nowhere else."""
    logger = logging.getLogger("srcli_train")
    before = logger.handlers, logger.level, logger.propagate
    logger.handlers, logger.level, logger.propagate = [_ScreenHandler(shown)], logging.INFO, False
    try:
        yield
    finally:
        logger.handlers, logger.level, logger.propagate = before


class _ScreenHandler(logging.Handler):
    """Log messages as lines of a screen."""

    def __init__(self, shown: Screen) -> None:
        super().__init__(logging.INFO)
        self._screen = shown

    def emit(self, record: logging.LogRecord) -> None:
        """One message."""
        self._screen.line(printable(record.getMessage()))


def _launch(processes: int) -> None:
    """Start the processes of one run, which do the rest.

    Raises:
        typer.Exit: always, with their exit code; they have printed everything.
    """
    from srcli_train.ranks import launch

    try:
        raise typer.Exit(launch(processes, sys.argv[1:]))
    except KeyboardInterrupt:
        raise typer.Exit(ExitCode.INTERRUPTED) from None


def _stopped(home: Path) -> str:
    """How to go on after Ctrl-C."""
    if any(home.glob("*.pt")):
        again = f"or with srcli train --resume {home}"
        return f"Stopped. The checkpoint is in {home}; go on with the same command and --resume, {again}."
    return "Stopped before there was anything to save; the same command starts anew."
