"""The same figures on screen and in every file."""

import csv
import io
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from benchmark_fakes import failed, report

from srcli.benchmark import page
from srcli.benchmark.page import to_html
from srcli.benchmark.quality import Quality
from srcli.benchmark.report import write
from srcli.errors import OutputError


def test_cells_of_a_row() -> None:
    cells = report().rows[0].cells
    assert cells[:4] == ("tiny <b> x4", "openvino bf16 cpu", "64²", "0.75")
    # 200 ms; p95 of 180, 200, 220 is 218; 40 of 200 ms; 1.25 MP in 0.2 s
    assert cells[4:10] == ("200.0", "218.0", "20%", "6.250", "0.500", "80%")
    assert cells[10:] == ("123", "–", "51.50", "28.12", "0.011", "0.222", "0.033")
    assert report().rows[1].cells[12] == "–"  # the fp32 run that others are compared with


def test_json_csv_and_table_agree() -> None:
    made = report()
    rows = json.loads(made.to_json())["rows"]
    lines = list(csv.DictReader(io.StringIO(made.to_csv())))
    assert len(rows) == len(lines) == len(made.table) - 1 == 4
    for found, line, cells in zip(rows, lines, made.table[1:], strict=True):
        assert {key: "" if value is None else str(value) for key, value in found.items()} == line
        assert f"{found['latency_s'] * 1e3:.1f}" == cells[4]
        assert f"{found['latency_p95_s'] * 1e3:.1f}" == cells[5]
        assert f"{found['output_mp_per_s']:.3f}" == cells[7]
        assert f"{found['tflops'] / found['peak_tflops']:.0%}" == cells[9]
        assert f"{found['psnr_y_to_hr_db']:.2f}" == cells[13]
        assert [f"{found[f'{stage}_s']:.3f}" for stage in ("decode", "infer", "encode")] == list(cells[14:])


def test_reports_say_where_they_come_from() -> None:
    made = report()
    head = json.loads(made.to_json())
    assert head["schema"] == "srcli.benchmark/3"
    assert (head["command"], head["versions"]) == ("srcli benchmark --quick", {"python": "3.11"})
    assert (head["machine"]["cpu"], head["machine"]["load"]) == ("A CPU", 0.25)
    for text in (made.to_markdown(), to_html(made)):
        for fact in ("srcli benchmark --quick", "2030-01-01", "A CPU, 2 cores (avx2)", "load before: 0.25"):
            assert fact in text


def test_markdown_has_the_cells_of_the_table() -> None:
    made = report()
    lines = made.to_markdown().splitlines()
    shown = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")]
    assert shown == [made.table[0], shown[1], *made.table[1:]]


def test_equal_pictures_are_null_in_json() -> None:
    made = report()
    equal = replace(made, rows=(replace(made.rows[0], quality=Quality(math.inf, 28.0)),))
    assert equal.table[1][12] == "∞"
    assert json.loads(equal.to_json())["rows"][0]["psnr_y_to_fp32_db"] is None


def test_a_failed_row_keeps_its_reason_and_the_others() -> None:
    made = report()
    broken = replace(made, rows=(failed(made.rows[0]), *made.rows[1:]))
    assert set(broken.table[1][3:]) == {"–"}
    assert broken.table[1][:3] == made.table[1][:3]
    assert broken.table[2:] == made.table[2:]
    line = "tiny <b> x4, openvino bf16 cpu, 64²: speed: out of memory"
    assert broken.problems == (line,)
    record = json.loads(broken.to_json())["rows"][0]
    assert (record["latency_s"], record["problem"]) == (None, "speed: out of memory")
    assert f"- {line}" in broken.to_markdown()
    assert "speed: out of memory" in broken.to_csv()
    assert "64²: speed: out of memory" in to_html(broken)
    nothing = replace(made, rows=tuple(map(failed, made.rows)))
    assert to_html(nothing).count("<svg") == 3


def test_inputs_of_several_tiles_show_the_tile() -> None:
    made = report()
    assert replace(made.rows[0], size=3464, tile=384).cells[2] == "3464² in 384²"


def test_the_page_refers_to_nothing_outside() -> None:
    html = to_html(report())
    assert "http" not in html
    assert html.count("<svg") == html.count("</svg>") == 3
    assert "<script" not in html
    assert "tiny &lt;b&gt; x4" in html
    assert "<b>" not in html
    for cell in report().table[3]:
        assert cell in html or "<" in cell
    for words in ("output megapixels a second", "side of the input", "decode", "encode"):
        assert words in html


def test_plots_take_a_single_row() -> None:
    made = report()
    assert len(page.draw(replace(made, rows=made.rows[:1]))) == 3


def test_files_appear_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "new" / "report.csv"
    write(path, "é\n")
    assert path.read_bytes() == "é\n".encode()
    with pytest.raises(OutputError, match="cannot be written"):
        write(path / "below", "text")
    assert [p.name for p in path.parent.iterdir()] == ["report.csv"]
