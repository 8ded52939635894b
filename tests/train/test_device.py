"""The precision that a device computes in, and what is refused before training."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_training import FAST, TINY, Quiet, trainer

from srcli.errors import SrcliError, UsageError
from srcli_train import device
from srcli_train.checkpoint import load_checkpoint, save_checkpoint
from srcli_train.command import check, train
from srcli_train.device import autocast, fastest_dtype, resolve_precision
from srcli_train.job import Job

CPU = torch.device("cpu")


@pytest.mark.parametrize("native", [True, False])
def test_auto_is_bf16_only_where_it_is_native(native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "has_bf16", lambda *_: native)
    assert resolve_precision("auto", CPU) == ("bf16" if native else "fp32")
    assert fastest_dtype(CPU) == (torch.bfloat16 if native else torch.float32)
    assert resolve_precision("fp32", CPU) == "fp32"
    with autocast(CPU, "auto"):
        product = torch.eye(2) @ torch.eye(2)
    assert product.dtype == fastest_dtype(CPU)
    with autocast(CPU, "fp32"):
        assert (torch.eye(2) @ torch.eye(2)).dtype == torch.float32


def test_bf16_that_would_be_emulated_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU with AVX2 alone such a product took ninety times as long as one in fp32."""
    monkeypatch.setattr(device, "has_bf16", lambda *_: False)
    with pytest.raises(UsageError, match="no native bf16 on this cpu"):
        resolve_precision("bf16", CPU)
    monkeypatch.setattr(device, "has_bf16", lambda *_: True)
    assert resolve_precision("bf16", CPU) == "bf16"


def as_of(path: Path, precision: str) -> None:
    """Make a checkpoint one of a run in this precision."""
    kept = load_checkpoint(path)
    save_checkpoint(path, replace(kept, recipe=replace(kept.recipe, precision=precision)))


def test_a_run_goes_on_in_its_own_precision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever the machine would take for a new one, so that it goes on to the bit."""
    monkeypatch.setattr(device, "has_bf16", lambda *_: False)
    first = trainer(tmp_path)
    assert first.precision == "fp32"
    first.run(stop_at=2)
    monkeypatch.setattr(device, "has_bf16", lambda *_: True)
    assert trainer(tmp_path, resume=True).precision == "fp32"
    assert not [message for message in caplog.messages if "fp32" in message]
    with pytest.raises(UsageError, match="precision was fp32, now bf16"):
        trainer(tmp_path, recipe=replace(FAST, precision="bf16"), resume=True)


def test_a_bf16_run_resumes_in_fp32_without_bf16(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = trainer(tmp_path).run(stop_at=2)
    as_of(path, "bf16")
    monkeypatch.setattr(device, "has_bf16", lambda *_: False)
    resumed = trainer(tmp_path, resume=True)
    assert resumed.precision == "fp32"
    assert [text for text in caplog.messages if "computed in bf16" in text and "goes on in fp32" in text]
    assert load_checkpoint(resumed.run(stop_at=4)).recipe.precision == "fp32"


def test_a_wrong_request_is_refused_before_pictures_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "has_bf16", lambda *_: False)
    job = Job(tmp_path / "nowhere", TINY, FAST, tmp_path / "run")
    for changed, why in (
        ({"recipe": replace(FAST, precision="bf16")}, "no native bf16"),
        ({"init": Path("nosuch")}, "nosuch"),
        ({"init": Path("nosuch.pt")}, "no such checkpoint"),
    ):
        wrong = replace(job, **changed)
        with pytest.raises(SrcliError, match=why):
            train(wrong, Quiet())
        with pytest.raises(SrcliError, match=why):
            check(wrong, 2)
    assert not (tmp_path / "run").exists(), "what is refused leaves nothing behind"


def test_only_the_first_machine_needs_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = Job(tmp_path / "nowhere", TINY, FAST, tmp_path / "run", init=Path("nosuch.pt"))
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(SrcliError, match="nowhere"):  # it comes as far as the pictures
        train(job, Quiet())
