"""Put all results into one page: results/README.md, with the plots that exist.

python benchmarks/report.py
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from common import RESULTS, markdown

_AVX2 = ", on a CPU with AVX2 alone"
_FILES = {
    "speed": "",
    "speed-avx2": _AVX2,
    "side-by-side": "",
    "side-by-side-avx2": _AVX2,
    "pipeline": "",
    "quality": "",
    "photo": "",
    "networks": "",
    "fast": ", fast networks",
    "film": ", damaged films",
    "film-choice": "",
    "training": "",
    "training-h200": ", on an NVIDIA H200",
    "experiments": "",
    "compare": "",
    "films": "",
    "cluster": "",
    "kills": "",
    "reliability": "",
}
"""Results by name, and what is to be added to the titles of their sections."""
_PLOTS = {
    "side-by-side.png": "Side by side",
    "side-by-side-avx2.png": f"Side by side{_AVX2}",
    "training.png": "Validation PSNR while training",
}
_INTRODUCTION = """# Measured results

Written by `python benchmarks/report.py` from the JSON files of this folder. Every table says which command
made it, when, and on which machine and versions; `load before` is the machine's load average when it began,
so anything well above 0 means that other work disturbed it."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS)
    folder = parser.parse_args(arguments).results
    parts = [_INTRODUCTION, *_sections(folder), *_plots(folder)]
    (folder / "README.md").write_text("\n\n".join(parts) + "\n")
    print(folder / "README.md")


def _sections(folder: Path) -> list[str]:
    """Every section of the known results files, in the order a reader wants them."""
    files = {folder / f"{name}.json": added for name, added in _FILES.items()}
    return [part for file, added in files.items() if file.is_file() for part in _parts(file, added)]


def _parts(file: Path, added: str) -> Iterator[str]:
    """The sections of a results file, each with the plot of its own that lies in the file's folder."""
    for name, entry in json.loads(file.read_text()).items():
        yield markdown(entry | {"title": entry["title"] + added})
        plot = Path(file.stem, f"{name}.png")
        if (file.parent / plot).is_file():
            yield f"![{entry['title']}]({plot.as_posix()})"


def _plots(folder: Path) -> list[str]:
    return [
        f"## {title}\n\n![{title}]({name})" for name, title in _PLOTS.items() if (folder / name).is_file()
    ]


if __name__ == "__main__":
    main()
