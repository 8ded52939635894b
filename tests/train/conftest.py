"""Tests of training compute in one thread, and `caplog` keeps log messages from INFO on."""

import logging
from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def _log_level(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="srcli_train")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Threads of a tiny network wait for one another longer than they compute, above all on a busy CPU."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
