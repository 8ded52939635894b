"""Files of every precision, exported once."""

import pytest
from tiny_exports import export_all

from srcli_export.exporter import Exported


@pytest.fixture(scope="session")
def edsr(tmp_path_factory: pytest.TempPathFactory) -> list[Exported]:
    """edsr-baseline x2 in fp32, fp16 and int8."""
    return export_all(tmp_path_factory.mktemp("edsr"))


@pytest.fixture(scope="session")
def mdsr(tmp_path_factory: pytest.TempPathFactory) -> list[Exported]:
    """mdsr in fp32, fp16 and int8, three scales each."""
    return export_all(tmp_path_factory.mktemp("mdsr"), "mdsr")
