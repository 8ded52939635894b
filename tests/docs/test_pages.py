"""README and pages agree with the tree and with the measured results."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from shell_blocks import PAGES, ROOT

MOST_WORDS = 900
RESULTS = (ROOT / "benchmarks" / "results" / "README.md").read_text(encoding="utf-8")


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    """What links can point to: headings as the site and GitHub name them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w-]", "", heading.lower().replace(" ", "-")) for heading in headings}


def rows(text: str) -> Iterator[list[str]]:
    """The cells of every row of every table."""
    for line in text.splitlines():
        if line.startswith("|"):
            yield [cell.strip(" *") for cell in line[1:].removesuffix("|").split("|")]


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= MOST_WORDS


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_relative_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            path, _, anchor = target.partition("#")
            linked = page.parent / path if path else page
            assert linked.exists(), target
            assert not anchor or anchor in anchors(linked), target


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_named_paths_exist(page: Path) -> None:
    named = set(
        re.findall(r"`((?:srcli|train|export|benchmarks|tests)/[\w./-]+)`", page.read_text(encoding="utf-8"))
    )
    missing = {path for path in named if not (ROOT / path).exists()}
    assert missing <= {"srcli/models"}  # the user's own folder has this name, too


def test_house_is_as_drawn() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    tree = text.partition("pyproject.toml  mkdocs.yml")[2].partition("```")[0]
    drawn, folder = [], ""
    for indent, name in re.findall(r"^( *)([\w./]+)  ", tree, re.MULTILINE):
        folder = folder if indent else name
        drawn.append(folder + name if indent else name)
    assert {path for path in drawn if not (ROOT / path).exists()} == set()
    rooms = {path for path in (ROOT / "srcli").iterdir() if path.name[:2] not in ("__", "py")}
    names = {f"srcli/{path.name}{'/' * path.is_dir()}" for path in rooms}
    assert names - set(drawn) == set()


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "docs" / "benchmarks.md"], ids=page_id)
def test_quality_is_as_measured(page: Path) -> None:
    measured, heading = {}, ""
    for row in rows(RESULTS):
        heading = row[0] if re.fullmatch(r"[\w, ]+ x\d", row[0]) else heading
        measured.setdefault((heading, row[0], row[1].rpartition(" ")[2]), row[2:4])  # the section of quality
    checked, kind = 0, ""
    for row in rows(page.read_text(encoding="utf-8")):
        kind = row[0] if row[0] in ("Set5", "Set14", "valid") else kind if row[0] == "" else ""
        if kind and re.fullmatch(r"x\d", row[1]):
            shown = {("bicubic", "–"): row[2], ("mdsr-baseline", "int8"): row[3]}
            for (model, precision), cell in shown.items():
                figures = cell.split(" / ")
                assert figures == measured[f"{kind} {row[1]}", model, precision][: len(figures)]
                checked += 1
    assert checked >= 12


def results_of(heading: str) -> Iterator[list[str]]:
    """The rows of a section of the measured results."""
    return rows(RESULTS.partition(f"## {heading}\n")[2].partition("\n## ")[0])


@pytest.mark.parametrize("name", ["README.md", "docs/models.md", "docs/benchmarks.md"])
def test_the_range_is_as_measured(name: str) -> None:
    """By network, at x2 or at x2 / x3 / x4: work, MP/s, PSNR (at x2 of Set14, too), times edsr-baseline."""
    measured: dict[str, list[list[str]]] = {}
    for network, scale, engine, *cells in results_of("The range of networks"):
        if scale.startswith("x"):
            measured.setdefault(f"{network}, {engine}" if network == "compact" else network, []).append(cells)
    shown = set()
    for network, *cells in rows((ROOT / name).read_text(encoding="utf-8")):
        if network.strip("`") in measured and cells[0].endswith(" k"):
            scales = measured[network.strip("`")][: cells[0].count("/") + 1]
            work, rate, faster, psnr = zip(*(row[:4] for row in scales), strict=True)
            assert cells[0] == f"{' / '.join(one.removesuffix(' k') for one in work)} k"
            assert cells[1] == " / ".join(rate)
            set5 = [one.partition(" / ")[0] for one in psnr if one != "–"] or ["–"]
            if len(scales) == 1:
                assert cells[2] in (psnr[0], set5[0])
            else:
                assert cells[2] == " / ".join(set5)
                assert cells[3] == " / ".join(one.partition("×")[0] for one in faster)
            shown.add(network.strip("`"))
    assert {one for one in measured if "compact" not in one} <= shown


def test_sides_of_tiles_are_as_measured() -> None:
    measured = {(name, precision): rates for name, precision, *rates in results_of("Sides of tiles")}
    page = rows((ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8"))
    shown = {(row[0].strip("`"), row[1]): row[2:] for row in page if row[1] in ("int8", "bf16", "fp32")}
    assert len(shown) == 6
    assert shown.items() <= measured.items()


def test_speed_in_readme_is_as_measured() -> None:
    section = RESULTS.partition("## Side by side at x4, on a CPU with AVX2 alone")[2].partition("\n## ")[0]
    measured = {row[0].removeprefix("srcli --precision "): row for row in rows(section)}
    names = {"srcli (int8)": "srcli", "srcli, fp32": "fp32"}
    checked = 0
    for row in rows((ROOT / "README.md").read_text(encoding="utf-8")):
        if len(row) == 3 and row[2].endswith("×"):
            speed, faster = measured[names.get(row[0].replace("*", ""), row[0])][1:3]
            assert (row[1], row[2]) == (speed, f"{float(faster[:-1]) + 1e-9:.1f}×")
            checked += 1
    assert checked == 7
