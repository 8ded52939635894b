"""Writes the table of containers into docs/films.md: `python tests/docs/container_table.py`."""

from pathlib import Path

from srcli.io.films.codecs import CODECS
from srcli.io.films.streams import CONTAINERS, Container

PAGE = Path(__file__).parents[2] / "docs" / "films.md"
BEGIN, END = "<!-- containers -->", "<!-- end -->"
_TITLES = {codec.canonical: codec.title for codec in CODECS.values()}
_SHORT = {"pcm": "PCM", "hdmv_pgs_subtitle": "PGS", "dvd_subtitle": "VobSub", "dvb_subtitle": "DVB"}


def table() -> str:
    """The table in Markdown."""
    header = ("container", "picture", "sound", "subtitles", "text becomes", "fonts", "cover")
    header = (*header, "pixels not square", "alpha")
    rows = [_row(suffix, holds) for suffix, holds in CONTAINERS.items()]
    return "\n".join([f"| {' | '.join(header)} |", "|---" * len(header) + "|", *rows])


def _row(suffix: str, holds: Container) -> str:
    cells = (
        suffix[1:],
        _titled(holds.pictures),
        _listed(holds.audio),
        _listed(holds.subtitles),
        holds.text,
        "yes" if holds.attachments else "–",
        _listed(holds.covers),
        _titled(holds.aspects),
        _titled(holds.alpha),
    )
    return f"| {' | '.join(cells)} |"


def _titled(codecs: frozenset[str]) -> str:
    return ", ".join(title for name, title in _TITLES.items() if name in codecs) or "–"


def _listed(codecs: frozenset[str]) -> str:
    names = sorted(
        {_SHORT.get("pcm" if name.startswith("pcm_") else name, name) for name in codecs}, key=str.lower
    )
    names = ["PCM" if name == "pcm" else name for name in names]
    return ", ".join(names) or "–"


if __name__ == "__main__":
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{table()}\n{END}{rest.split(END)[1]}", encoding="utf-8")
