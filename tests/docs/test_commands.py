"""Every command in README and docs: run on small pictures and networks, or held against the command line."""

import json
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from subprocess import PIPE
from typing import Any

import cv2
import numpy as np
import pytest
import scenes
import torch
import typer
from PIL import Image
from shell_blocks import PAGES, ROOT, Block, Command, blocks, commands, inline_commands
from torch.distributed.run import get_args_parser
from typer.core import TyperGroup

from srcli.cli.app import app, main

sys.path.append(str(ROOT / "tests" / "export"))

from foreign_weights import edsr

SMALL = {
    **{"--long-edge": "192", "--width": "192", "--height": "128", "--minutes": "0.02", "--updates": "2"},
    **{"--init": "runs/mdsr-baseline/last.pt"},
    **{"--size": "16", "--repetitions": "1", "--starts": "0", "--memory": "512M"},
}
"""Option -> a small value in place of the documented one."""

ADDED = {
    "train": ("--batch", "1", "--patch", "8", "--updates", "2", "--device", "cpu"),
    "benchmark": ("--repetitions", "1", "--starts", "0", "--size", "16"),
}
"""Sub-command -> options that make it small."""

_UsageError: Any = typer.BadParameter.__base__
_MissingParameter = "MissingParameter"


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT))


def parse(argv: Sequence[str]) -> Any:
    """The context of the sub-command that a command line of srcli reaches; nothing is executed.

    Raises:
        typer's UsageError: no such command, option or value, or an argument is missing.
    """
    command: Any = typer.main.get_command(app)
    name, arguments = "srcli", list(argv)
    context = command.make_context(name, arguments, resilient_parsing=False)
    while isinstance(command, TyperGroup):
        rest = [*context._protected_args, *context.args]
        if not rest and command.invoke_without_command:
            break
        name, command, arguments = command.resolve_command(context, rest)
        context = command.make_context(name, arguments, parent=context)
    return context


def check_pip(arguments: Sequence[str]) -> None:
    """Extras that are named exist."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    target = arguments[-1]
    assert arguments[0] == "install"
    assert target.startswith(".[")
    assert set(target[2:-1].split(",")) <= set(extras)


def is_run_by_ci(argv: Sequence[str]) -> bool:
    """Whether `.ci/run` has this program, and installs these extras."""
    text = (ROOT / ".ci" / "run").read_text()
    known = argv[0] == ".ci/run" or argv[0] in text
    return known and (argv[0] != "pip" or argv[-1].removeprefix(".") in text)


def check_torchrun(arguments: Sequence[str]) -> None:
    """torchrun's options and those of the command that it starts."""
    options = get_args_parser().parse_args(list(arguments))
    assert options.no_python
    check((options.training_script, *options.training_script_args))


def check_parallel(arguments: Sequence[str]) -> None:
    """The command that GNU parallel starts."""
    assert ":::" in arguments
    check(arguments[arguments.index("srcli") : arguments.index(":::")])


def check_ray(arguments: Sequence[str]) -> None:
    """Ray's own commands and their options."""
    from ray.scripts.scripts import cli

    cli.commands[arguments[0]].make_context(arguments[0], list(arguments[1:]))


def script_errors(lines: Sequence[Sequence[str]]) -> list[str]:
    """What scripts say of their options, one process for all; "" for those that take them."""
    program = [sys.executable, str(Path(__file__).with_name("parse_scripts.py"))]
    done = subprocess.run(program, input=json.dumps(lines), cwd=ROOT, stdout=PIPE, text=True, check=True)
    return list(json.loads(done.stdout))


CHECKS: dict[str, Callable[[Sequence[str]], object]] = {
    "srcli": parse,
    "pip": check_pip,
    "torchrun": check_torchrun,
    "parallel": check_parallel,
    "ray": check_ray,
}


def check(argv: Sequence[str]) -> None:
    """Refuse a command whose options do not exist."""
    if argv[0] in CHECKS:
        with suppress(typer.Exit):  # --help ends there
            CHECKS[argv[0]](argv[1:])
    elif argv[0] == "python" or "/" in argv[0]:
        assert (ROOT / argv[argv[0] == "python"]).exists()


def small(argv: Sequence[str]) -> list[str]:
    """A command line of srcli with small values in place of the documented ones."""
    values = list(argv)
    for position, option in enumerate(values[:-1]):
        if option in SMALL:
            values[position + 1] = SMALL[option]
    more = ADDED.get(values[0], ())
    if values[0] == "train":
        model = parse(values).params["model"]
        more += ("--set", "network.blocks=1", "--set", "network.features=8", "--set", f"network.name={model}")
    if values[0] == "benchmark" and "--model" not in values:
        more += ("--model", "bicubic", "--backend", "bicubic")
    return [*values, *more]


def picture(path: Path, size: tuple[int, int] = (40, 56)) -> None:
    """A file of smooth noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(len(path.name)).integers(0, 256, (size[0] // 4, size[1] // 4, 3), np.uint8)
    cv2.imwrite(str(path), cv2.resize(noise, size[::-1], interpolation=cv2.INTER_CUBIC))


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with all inputs that the documentation names."""
    for name in ("photo.jpg", "scan.tif", "photos/a.jpg", "photos/b.png", "holiday/a.jpg", "examples/a.png"):
        picture(tmp_path / name)
    picture(tmp_path / "Set5" / "baby.png", (96, 96))
    for name in ("film.mkv", "clips/a.mkv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        scenes.write(tmp_path / name, scenes.Scene(frames=40, width=48, height=32))
    frames = [Image.new("RGB", (24, 16), colour) for colour in ("red", "green", "blue")]
    frames[0].save(tmp_path / "banner.gif", save_all=True, append_images=frames[1:], duration=100)
    torch.save(edsr(2), tmp_path / "edsr_baseline_x2-1bc95232.pt")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def documented(pages: Sequence[Path], folder: Path) -> Iterator[tuple[Block, list[Command]]]:
    """The blocks of commands on some pages; `folder` is an empty one."""
    for page in pages:
        for block in blocks(page, "sh"):
            (stubs := folder / f"{page.parent.name}-{page.stem}-{block.line}").mkdir()
            yield block, commands(block, stubs)


def run(command: Command, *, fresh: bool) -> None:
    """Run a command of srcli in this process.

    Args:
        command: what the documentation shows.
        fresh: whether results of earlier commands are removed first.
    """
    arguments = small(command.argv[1:])
    if fresh and arguments[0] == "upscale":
        shutil.rmtree(parse(arguments).params["out"], ignore_errors=True)
    assert main(arguments) == command.code, command.line


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_documented_commands_work(page: Path, work: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    for block, found in documented([page], tmp_path_factory.mktemp("stubs")):
        in_order = "exit code" in block.text
        for command in found:
            check(command.argv)
            if command.run and command.argv[0] == "srcli":
                run(command, fresh=not in_order)
            elif command.run:
                assert is_run_by_ci(command.argv), f"mark it as not run: {command.line}"


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_commands_inside_sentences_parse(page: Path) -> None:
    for argv in inline_commands(page):
        try:
            check(argv)
        except _UsageError as error:
            assert type(error).__name__ == _MissingParameter, argv  # noqa: PT017 - parts of commands are fine


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_documented_python_runs(page: Path, work: Path) -> None:
    for block in blocks(page, "python"):
        exec(compile(block.text, f"{page.name}:{block.line}", "exec"), {"__name__": "documented"})


@pytest.mark.parametrize(
    "argv",
    [
        ("srcli", "upscale", "photo.jpg", "--sale", "2"),
        ("srcli", "upscal", "photo.jpg"),
        ("srcli", "upscale", "photo.jpg", "--quality", "many"),
        ("srcli", "models", "import"),
    ],
)
def test_wrong_command_lines_are_refused(argv: tuple[str, ...]) -> None:
    with pytest.raises(_UsageError):
        check(argv)


def test_wrong_options_of_scripts_and_extras_are_refused() -> None:
    assert "nonsense" in script_errors([["benchmarks/choice.py", "--nonsense", "1"]])[0]
    with pytest.raises(AssertionError):
        check(("pip", "install", ".[nonsense]"))


def test_unmarked_line_runs_and_marks_are_read(tmp_path: Path) -> None:
    text = "srcli a  # fine\nsrcli b \\\n  -c  # slow (not run)\n# not run: these\nsrcli d # exit code 1\n"
    found = commands(Block(ROOT / "README.md", 1, "sh", text), tmp_path)
    assert [(c.argv, c.run, c.code) for c in found] == [
        (("srcli", "a"), True, 0),
        (("srcli", "b", "-c"), False, 0),
        (("srcli", "d"), False, 1),
    ]
