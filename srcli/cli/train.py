"""`srcli train`: a folder of HR images becomes a checkpoint."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from srcli.cli.console import command_line, product_path, talk
from srcli.cli.extras import missing_extra
from srcli.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from srcli_train.command import TrainRequest
    from srcli_train.networks import NetworkSpec


def train(
    folder: Annotated[Path, typer.Argument(help="Folder of HR images, or DIV2K in its official layout.")],
    model: Annotated[
        str, typer.Option(help="edsr-baseline, edsr, mdsr-baseline, mdsr or srresnet.")
    ] = "mdsr-baseline",
    scale: Annotated[
        int | None, typer.Option("-s", "--scale", help="2, 3 or 4; MDSR takes none and learns all three.")
    ] = None,
    recipe: Annotated[
        str,
        typer.Option(
            help="paper (the paper's numbers), fast (for CPUs), modern (what gained on it in experiments) or "
            "photo (fast, on degraded LR)."
        ),
    ] = "paper",
    run: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="Folder for checkpoint and logs. [default: runs/MODEL-xSCALE]"),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's last checkpoint.")] = False,
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
        from srcli_train.command import TrainRequest, check
        from srcli_train.launch import launched
        from srcli_train.recipes import find
        from srcli_train.settings import changed, divided
    except ImportError as error:
        raise missing_extra(error, "Training", "train") from error

    numbers = {"updates": updates, "batch": batch, "patch": patch, "lr": lr, "muon_lr": muon_lr}
    named = {**numbers, "loss": loss, "precision": precision, "seed": seed}
    given: dict[str, Any] = {name: value for name, value in named.items() if value is not None}
    about_network, about_recipe = divided(settings or ())
    chosen = replace(changed(find(recipe), about_recipe), **given)
    home = run or Path("runs") / (f"{model}-x{scale}" if scale else model)
    request = TrainRequest(
        data=folder,
        network=_network(model, scale, about_network),
        recipe=chosen,
        run=home,
        valid=valid,
        cache=cache,
        device=device,
        minutes=minutes,
        init=init,
        resume=resume,
        validate_every=validate_every,
        data_name=data_name,
        command=command_line(sys.argv[1:]),
    )
    if gpus > 1 and not launched():
        check(request, gpus)
        _share_out(gpus)
    _run(request)


def _network(model: str, scale: int | None, about: Sequence[str]) -> "NetworkSpec":
    """The preset, with what was set; a changed one is no longer called by the preset's name."""
    from srcli_train.networks import preset
    from srcli_train.settings import changed

    named = [f"name={model}-custom", *about] if about else []
    network = changed(preset(model, scale), named)
    if scale is not None and network.family == "mdsr":
        hint = "Leave out -s; fewer scales: --set 'network.scales=[2,4]'."
        raise UsageError(f"{model} learns all of its scales together.", hint)
    if not network.scales:
        raise UsageError("A network needs at least one scale.", "For example network.scales=[2,4].")
    return network


def _run(request: "TrainRequest") -> None:
    """Train, show it, and say where the result is; of several processes only the first one speaks."""
    from srcli.cli.training import watcher
    from srcli_train.command import train as start
    from srcli_train.peers import first_process

    shown, speaks = watcher(), first_process()
    try:
        checkpoint = start(request, shown)
    except KeyboardInterrupt:
        shown.close()
        if speaks:
            talk(_stopped(request.run))
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    finally:
        shown.close()
    if speaks:
        product_path(checkpoint)
        talk(f"Trained. Make it a model with: srcli export {checkpoint}")


def _share_out(processes: int) -> None:
    """Start the processes of one run, which do the rest.

    Raises:
        typer.Exit: always, with their exit code; what there is to say they have said.
    """
    from srcli_train.launch import launch

    try:
        raise typer.Exit(launch(processes, sys.argv[1:]))
    except KeyboardInterrupt:
        raise typer.Exit(ExitCode.INTERRUPTED) from None


def _stopped(home: Path) -> str:
    """How to go on after Ctrl-C."""
    if any(home.glob("*.pt")):
        return f"Stopped. The checkpoint is in {home}; go on with the same command and --resume."
    return "Stopped before there was anything to save; the same command starts anew."
