"""Reports of shards become the one that a single run writes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from buckets import Bucket

from srcli.errors import ExitCode, InputError, OutputError, SrcliError, UsageError
from srcli.io.remote import Remote, location
from srcli.jobs.merge import expanded, merge
from srcli.jobs.report import Loaded, PictureResult, Report, Status, write_report

ENGINE = Loaded("mdsr", "openvino", "cpu", "int8", "openvino int8 on cpu", ("a note",))
NONE = Loaded("", "", "", "")
LOST = PictureResult(Path("in/locked"), None, Status.FAILED, error="in/locked: cannot be listed.")


def result(name: str, status: Status = Status.WRITTEN) -> PictureResult:
    return PictureResult(Path("in", name), Path("out", name), status, (1, 2), (2, 4), 0.25)


ORDER = ["b.png", "\udcff.png", "a/c.png", "a/b/a.png", "a!/a.png"]
SHARES = {
    "1/3": [result(ORDER[1]), result(ORDER[4])],
    "2/3": [],
    "3/3": [result(ORDER[i]) for i in (0, 2, 3)],
}


def written(
    folder: Path, shares: dict[str, list[PictureResult]], suffix: str = ".json", **more: bool
) -> list[Path]:
    parts = []
    for shard, results in shares.items():
        parts.append(folder / f"{shard.replace('/', '-')}{suffix}")
        engine = ENGINE if results else NONE
        write_report(Report(engine, results, 1.5, shard=shard, **more), parts[-1])  # type: ignore[arg-type]
    return parts


def test_joined_reports_are_that_of_one_run(tmp_path: Path) -> None:
    found = merge(written(tmp_path, SHARES)[::-1], tmp_path / "new" / "all.json")
    whole = Report(ENGINE, [result(name) for name in ORDER], 4.5)
    assert (tmp_path / "new" / "all.json").read_text() == whole.to_json() + "\n"
    assert (found.exit_code, found.missing, found.counts) == (ExitCode.OK, [], {"written": 5})


def test_json_lines_and_json_give_the_same_report(tmp_path: Path) -> None:
    parts = written(tmp_path, SHARES, ".jsonl")
    mixed = [*parts[:2], *written(tmp_path, {"3/3": SHARES["3/3"]})]
    whole = Report(ENGINE, [result(name) for name in ORDER], 4.5)
    for number, some in enumerate((parts, mixed)):
        for out, text in (("all.json", whole.to_json() + "\n"), ("all.jsonl", "".join(whole.lines()))):
            found = merge(some, tmp_path / f"{number}" / out)
            assert (found.exit_code, found.counts) == (ExitCode.OK, {"written": 5})
            assert (tmp_path / f"{number}" / out).read_text() == text


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda lines: lines[:-1], "has 2 of 3 results"),
        (lambda lines: [*lines[:-1], lines[-1][:20]], "line 4: "),
        (lambda lines: [*lines, lines[-1]], "has 4 of 3 results"),
    ],
)
def test_json_lines_that_are_not_whole_are_refused(
    tmp_path: Path, damage: Callable[[list[str]], list[str]], said: str
) -> None:
    part = written(tmp_path, {"3/3": SHARES["3/3"]}, ".jsonl")[0]
    part.write_text("".join(damage(part.read_text().splitlines(keepends=True))))
    with pytest.raises(InputError, match=said):
        merge([part], tmp_path / "all.json")
    assert not (tmp_path / "all.json").exists()


def test_reports_of_a_bucket_become_one_there(tmp_path: Path, bucket: Bucket) -> None:
    at = location(bucket.url)
    assert isinstance(at, Remote)
    names = [f"{folder}{name}" for folder in ("", "a/", "a-b/") for name in ("x.png", "y.png")]
    results = {name: PictureResult(at / f"in/{name}", at / f"out/{name}", Status.WRITTEN) for name in names}
    for number in range(1, 13):
        share = list(results.values())[number - 1 : number]
        loaded = ENGINE if share else NONE
        write_report(Report(loaded, share, 0.5, shard=f"{number}/12"), at / f"reports/{number}.jsonl")
    bucket.put({"reports/folder/other.txt": b"no report"})
    parts = expanded([f"{at}/reports/*.jsonl"])
    assert len(parts) == 12
    found = merge(parts, at / "all.json")
    assert (found.exit_code, found.counts) == (ExitCode.OK, {"written": 6})
    whole = Report(ENGINE, [results[name] for name in sorted(names)], 6.0).to_json() + "\n"
    assert bucket.contents()["all.json"].decode() == whole
    rest = [part for part in parts if part.name != "12.jsonl"]
    merge([*rest, *written(tmp_path, {"12/12": []})], tmp_path / "all.json")
    assert (tmp_path / "all.json").read_text() == whole.replace('"seconds": 6.0', '"seconds": 7.0', 1)
    assert expanded(["here.json", f"{at}/one.json"]) == [Path("here.json"), at / "one.json"]
    with pytest.raises(InputError, match="cannot be read"):
        expanded([f"{at}/reports/*.xml"])
    with pytest.raises(InputError, match="does not exist"):
        merge([at / "none.json"], tmp_path / "none.json")
    with pytest.raises(UsageError, match="one of the reports"):
        merge(parts, at / "reports/1.jsonl")
    with pytest.raises(OutputError, match="bucket does not exist"):
        merge(parts, Remote("s3", "no-bucket-of-ours/all.json"))


def test_shards_without_pictures_make_an_empty_report(tmp_path: Path) -> None:
    merge(written(tmp_path, {"1/1": []}), tmp_path / "all.json")
    assert (tmp_path / "all.json").read_text() == Report(NONE, [], 1.5).to_json() + "\n"


def test_what_all_shards_could_not_try_counts_once_and_comes_first(tmp_path: Path) -> None:
    shares = {shard: [LOST, *results] for shard, results in SHARES.items()}
    found = merge(written(tmp_path, shares), tmp_path / "all.json")
    report = json.loads((tmp_path / "all.json").read_text())
    assert report["counts"]["failed"] == 1
    assert report["pictures"][0]["input"] == "in/locked"
    assert found.exit_code == ExitCode.FAILED


def test_missing_shards_are_named_and_no_success(tmp_path: Path) -> None:
    found = merge(written(tmp_path, {"2/40": [result("a.png")]}), tmp_path / "all.json")
    assert found.exit_code == ExitCode.FAILED
    assert found.missing_text.startswith("1/40, 3/40, ")
    assert found.missing_text.endswith("21/40 and 19 more")


def test_the_worst_end_is_that_of_all(tmp_path: Path) -> None:
    parts = written(tmp_path, {"1/2": [result("a.png", Status.FAILED)]})
    parts += written(tmp_path, {"2/2": [result("b.png", Status.PENDING)]}, interrupted=True)
    found = merge(parts, tmp_path / "all.json")
    report = json.loads((tmp_path / "all.json").read_text())
    assert found.exit_code == ExitCode.INTERRUPTED
    assert (report["interrupted"], report["disk_full"]) == (True, False)


def test_engines_that_differ_are_all_named(tmp_path: Path) -> None:
    parts = written(tmp_path, {"1/2": [result("a.png")]})
    other = Report(Loaded("mdsr", "torch", "cuda", "fp16", "torch"), [result("b.png")], 1.0, shard="2/2")
    write_report(other, tmp_path / "b.json")
    merge([*parts, tmp_path / "b.json"], tmp_path / "all.json")
    engine = json.loads((tmp_path / "all.json").read_text())["engine"]
    assert engine == {
        "model": "mdsr",
        "backend": "openvino, torch",
        "device": "cpu, cuda",
        "precision": "int8, fp16",
    }


@pytest.mark.parametrize(
    "damage",
    [
        lambda report: report.pop("engine"),
        lambda report: report.update(shard="x"),
        lambda report: report.update(seconds=None),
        lambda report: report.update(pictures=[None]),
        lambda report: report["pictures"][0].update(status="nix"),
    ],
)
def test_a_damaged_report_is_named(tmp_path: Path, damage: Callable[[dict[str, Any]], object]) -> None:
    (part,) = written(tmp_path, {"1/1": [result("a.png")]})
    report = json.loads(part.read_text())
    damage(report)
    part.write_text(json.dumps(report))
    with pytest.raises(InputError, match=r"1-1\.json: .*damaged"):
        merge([part], tmp_path / "all.json")
    assert not (tmp_path / "all.json").exists()


def test_patterns_name_reports(tmp_path: Path) -> None:
    parts = written(tmp_path, SHARES)
    assert expanded([str(tmp_path / "*.json")]) == sorted(parts)


def test_reports_of_different_runs_are_refused(tmp_path: Path) -> None:
    one, two = written(tmp_path, {"1/2": [], "2/2": []})
    again, other, old, odd, whole = (tmp_path / f"{name}.json" for name in ("again", "4", "old", "odd", "1"))
    again.write_text(one.read_text())
    other.write_text(one.read_text().replace("1/2", "1/4"))
    old.write_text(json.dumps({**json.loads(two.read_text()), "version": "0.0"}))
    odd.write_text(two.read_text().replace("srcli.upscale/2", "srcli.upscale/1"))
    write_report(Report(ENGINE, [], 1.0), whole)
    cases: list[tuple[Path, type[SrcliError], str]] = [
        (again, UsageError, "both report shard 1/2"),
        (other, UsageError, "of shard 1/4, .* of 1/2"),
        (old, UsageError, "has the version 0.0"),
        (odd, InputError, "srcli.upscale/1"),
        (whole, UsageError, "no report of a shard"),
        (tmp_path / "none.json", InputError, "cannot be read"),
    ]
    for part, error, said in cases:
        with pytest.raises(error, match=said):
            merge([one, part], tmp_path / "all.json")
    odd.write_text("no JSON")
    with pytest.raises(InputError, match="no JSON"):
        merge([odd], tmp_path / "all.json")
    with pytest.raises(UsageError, match="one of the reports"):
        merge([one, two], two)
    with pytest.raises(OutputError):
        merge([one, two], tmp_path)
    assert not (tmp_path / "all.json").exists()
