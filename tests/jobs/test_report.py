"""The report: exit codes, JSON schema, and writing it whole or not at all."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from srcli.backends.base import EngineInfo
from srcli.errors import ExitCode, OutputError
from srcli.jobs.report import FilmResult, Loaded, PictureResult, Report, Status, write_report
from srcli.upscaler import Computed

ENGINE = Loaded("mdsr-baseline", "openvino", "cpu", "bf16", "openvino bf16 on cpu", ("a note",))
MADE = Computed("mdsr-baseline", (2, 2), EngineInfo("openvino", "cpu", "fp32"))
WRITTEN = PictureResult(
    Path("a.png"), Path("out/a.png"), Status.WRITTEN, (10, 20), (40, 80), 0.5, computed=MADE
)
FAILED = PictureResult(Path("b\n.png"), None, Status.FAILED, error="b: broken.", hint="Mend it.")
SKIPPED = PictureResult(Path("c.png"), Path("out/c.png"), Status.SKIPPED)


@pytest.mark.parametrize(
    ("pictures", "interrupted", "code"),
    [
        ([WRITTEN, SKIPPED], False, ExitCode.OK),
        ([WRITTEN, FAILED], False, ExitCode.FAILED),
        ([WRITTEN, FAILED], True, ExitCode.INTERRUPTED),
    ],
)
def test_exit_codes(pictures: list[PictureResult], interrupted: bool, code: ExitCode) -> None:
    assert Report(ENGINE, pictures, 1.0, interrupted).exit_code == code


def test_json_says_everything() -> None:
    report = json.loads(Report(ENGINE, [WRITTEN, FAILED, SKIPPED], 1.0).to_json())
    assert report["schema"] == "srcli.upscale/2"
    assert report["counts"] == {
        "written": 1,
        "skipped": 1,
        "unchanged": 0,
        "kept": 0,
        "failed": 1,
        "planned": 0,
        "pending": 0,
    }
    assert report["reason"] == ENGINE.reason
    assert report["notes"] == ["a note"]
    assert report["pictures"][0] == {
        "input": "a.png",
        "output": "out/a.png",
        "status": "written",
        "input_size": {"width": 20, "height": 10},
        "output_size": {"width": 80, "height": 40},
        "model": "mdsr-baseline",
        "scales": [2, 2],
        "backend": "openvino",
        "device": "cpu",
        "precision": "fp32",
        "seconds": 0.5,
        "error": None,
        "hint": None,
        "notes": [],
        "film": None,
    }
    assert report["engine"]["precision"] == "bf16"
    assert report["pictures"][1]["model"] is report["pictures"][2]["precision"] is None
    assert report["pictures"][1]["input"] == "b\n.png"
    assert (report["pictures"][1]["error"], report["pictures"][1]["hint"]) == ("b: broken.", "Mend it.")


def test_json_says_what_became_of_a_film() -> None:
    film = FilmResult(120, (0.4,), 0.25, ("audio 1 (aac)",), ("data 2",), ("120 frames read again",))
    report = Report(ENGINE, [replace(WRITTEN, film=film)], 1.0)
    assert report.pictures[0].megapixels == pytest.approx(120 * WRITTEN.megapixels)
    assert json.loads(report.to_json())["pictures"][0]["film"] == {
        "frames": 120,
        "lost": [0.4],
        "clipped": 0.25,
        "carried": ["audio 1 (aac)"],
        "dropped": ["data 2"],
        "checks": ["120 frames read again"],
    }


def test_names_that_are_no_text_survive() -> None:
    name = Path("\udcff.png")
    text = Report(ENGINE, [PictureResult(name, None, Status.FAILED)], 0.0).to_json()
    assert text.isascii()
    assert json.loads(text)["pictures"][0]["input"] == str(name)


def test_megapixels_count_written_pictures_only() -> None:
    assert WRITTEN.megapixels == 0.0032
    assert SKIPPED.megapixels == FAILED.megapixels == 0


def test_a_report_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    report = Report(ENGINE, [WRITTEN], 1.0)
    write_report(report, tmp_path / "new" / "out.json")
    assert json.loads((tmp_path / "new" / "out.json").read_text())["counts"]["written"] == 1
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="report cannot be written"):
        write_report(report, tmp_path / "file" / "out.json")
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(OutputError):
        write_report(report, tmp_path / "folder.json")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.json", "new"]


def test_a_report_in_lines_holds_what_the_other_does(tmp_path: Path) -> None:
    report = Report(
        Loaded("m", "b", "d", "p"), [PictureResult(Path(name), None, Status.KEPT) for name in ("a", "é")], 1.0
    )
    for name in ("r.json", "r.jsonl"):
        write_report(report, tmp_path / "new" / name)
    whole = json.loads((tmp_path / "new/r.json").read_text())
    head, *lines = map(json.loads, (tmp_path / "new/r.jsonl").read_text().splitlines())
    assert {**head, "pictures": lines} == whole
    assert (tmp_path / "new/r.json").read_text() == json.dumps(whole, indent=2) + "\n"
    assert Report(report.engine, [], 0.0).to_json() == json.dumps(
        json.loads(Report(report.engine, [], 0.0).to_json()), indent=2
    )
