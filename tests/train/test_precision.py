"""What a device computes in."""

import pytest
import torch

from srcli.errors import UsageError
from srcli_train import precision
from srcli_train.precision import lowered, rough, settled

CPU = torch.device("cpu")


@pytest.mark.parametrize("native", [True, False])
def test_auto_is_bf16_only_where_it_is_native(native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_bf16", lambda *_: native)
    assert settled("auto", CPU) == ("bf16" if native else "fp32")
    assert rough(CPU) == (torch.bfloat16 if native else torch.float32)
    assert settled("fp32", CPU) == "fp32"
    with lowered(CPU, "auto"):
        product = torch.eye(2) @ torch.eye(2)
    assert product.dtype == rough(CPU)
    with lowered(CPU, "fp32"):
        assert (torch.eye(2) @ torch.eye(2)).dtype == torch.float32


def test_bf16_that_would_be_emulated_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU with AVX2 alone such a product took ninety times as long as one in fp32."""
    monkeypatch.setattr(precision, "has_bf16", lambda *_: False)
    with pytest.raises(UsageError, match="cpu does not multiply bf16 natively"):
        settled("bf16", CPU)
    monkeypatch.setattr(precision, "has_bf16", lambda *_: True)
    assert settled("bf16", CPU) == "bf16"
