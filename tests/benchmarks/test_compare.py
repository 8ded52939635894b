"""Two checkouts side by side, on tiny inputs and without a network."""

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "benchmarks"))

import compare  # noqa: E402


def few(out: Path, *cases: str) -> list[str]:
    sizes = ["--folder", "2", "--large", "40", "60", "--small", "3", "--scale", "2"]
    return [*sizes, "--model", "bicubic", "--only", ",".join(cases), "--out", str(out)]


def checkout(folder: Path, upscale: str) -> Path:
    """A package named srcli whose command does nothing else than this line."""
    package = folder / "srcli"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "__main__.py").write_text(f"import sys\nif sys.argv[1] == 'upscale':\n    {upscale}\n")
    return folder


def test_every_case_is_measured_on_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "compare.json"
    other = tmp_path / "other"
    other.symlink_to(ROOT)
    compare.main([str(ROOT), str(other), "--rounds", "1", *few(out, *compare.CASES)])
    section = json.loads(out.read_text())["compare"]
    assert section["measurements"].keys() == compare.CASES.keys()
    for pair in section["measurements"].values():
        assert {side: len(runs) for side, runs in pair.items()} == {"before": 1, "after": 1}
        assert all(run["seconds"] > 0 and run["peak"] > 5e6 for runs in pair.values() for run in runs)
    assert {"cpu", "cores", "load"} <= section["machine"].keys()
    shown = capsys.readouterr().out
    for case in ("a folder of 2 photographs", "one photograph of 60×40", "a folder of 3 pictures"):
        assert case in shown
    assert str(tmp_path) not in section["command"]
    assert out.with_suffix(".md").is_file()


def test_ratios_are_after_by_before() -> None:
    def run(seconds: float) -> compare.Taken:
        return compare.Taken(seconds, seconds / 2, 100_000_000, None)

    pair = {"before": [run(1.0), run(2.0), run(4.0)], "after": [run(2.0), run(2.0), run(2.0)]}
    rows = compare._rows("help", pair, compare._parse(["a", "b"]))
    assert [row[1] for row in rows] == ["seconds", "CPU seconds", "peak MB"]
    assert rows[0][2:] == ("1.00 / 2.00 / 4.00", "2.00 / 2.00 / 2.00", "**1.000** (0.500 – 2.000)")


def test_each_checkout_writes_into_empty_folders(tmp_path: Path) -> None:
    log = tmp_path / "log"
    line = "open({!r}, 'a').write(__file__ + ' ' + str(__import__('os').path.exists(sys.argv[8])) + '\\n')"
    folders = [checkout(tmp_path / name, line.format(str(log))) for name in ("one", "two")]
    compare.main([*map(str, folders), "--rounds", "2", *few(tmp_path / "compare.json", "single")])
    lines = [text.split() for text in log.read_text().splitlines()]
    names = [Path(file).parents[1].name for file, _ in lines]
    assert names == ["one", "two", "one", "two", "two", "one"], "after a warm-up, in turns"
    assert {exists for _, exists in lines} == {"False"}, "no output of another run is there"


def test_a_checkout_that_fails_is_named_and_others_published(tmp_path: Path) -> None:
    good, bad = checkout(tmp_path / "good", "pass"), checkout(tmp_path / "bad", "sys.exit('It broke.')")
    out = tmp_path / "compare.json"
    with pytest.raises(SystemExit, match=r"single, after: exit code 1: .*It broke\."):
        compare.main([str(good), str(bad), "--rounds", "1", *few(out, "single", "help")])
    measured = json.loads(out.read_text())["compare"]["measurements"]
    assert measured["single"] == {}
    assert len(measured["help"]["after"]) == 1


def test_a_folder_without_srcli_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no checkout of srcli"):
        compare.main([str(ROOT), str(tmp_path), "--only", "help"])


def test_unknown_cases_are_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        compare.main(["a", "b", "--only", "help,huge"])
    assert "no case 'huge'" in capsys.readouterr().err
