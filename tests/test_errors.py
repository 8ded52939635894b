"""Errors travel between processes as they are."""

import pickle

import pytest

from srcli import errors
from srcli.errors import MissingExtraError, SrcliError

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, SrcliError)]


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_survives_pickling(kind: type[SrcliError]) -> None:
    error = kind("The thing", "cpu") if kind is MissingExtraError else kind("What happened.", "What to do.")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert (again.message, again.hint, str(again)) == (error.message, error.hint, str(error))
    assert again.hint
