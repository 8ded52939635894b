"""The table of formats says what the code does."""

import struct
import zlib
from pathlib import Path

import container_table
import pytest
from format_table import BEGIN, END, PAGE, table
from media_samples import chunk

from srcli.errors import InputError
from srcli.io.pictures import probe


def test_format_table_is_what_files_hold() -> None:
    written = PAGE.read_text(encoding="utf-8").split(BEGIN)[1].split(END)[0].strip()
    assert written == table().strip(), "run python tests/docs/format_table.py"


def test_container_table_is_what_films_are_written_by() -> None:
    text = container_table.PAGE.read_text(encoding="utf-8")
    written = text.split(container_table.BEGIN)[1].split(container_table.END)[0].strip()
    assert written == container_table.table(), "run python tests/docs/container_table.py"


@pytest.mark.parametrize(("rows", "fits"), [(32_745, True), (32_776, False)])
def test_stated_largest_input_is_the_limit(tmp_path: Path, rows: int, fits: bool) -> None:
    assert "1,073 megapixels" in " ".join(PAGE.read_text(encoding="utf-8").split())
    path = tmp_path / "large.png"
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 32_768, rows, 8, 0, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"\0"))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + pixels + chunk(b"IEND", b""))
    if fits:
        assert probe(path).height == rows
    else:
        with pytest.raises(InputError):
            probe(path)
