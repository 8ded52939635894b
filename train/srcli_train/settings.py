"""Numbers of a recipe or a network, changed by name."""

import json
from collections.abc import Iterable
from dataclasses import fields, replace
from typing import Any, TypeVar

from srcli.errors import UsageError

Description = TypeVar("Description")
_NETWORK = "network."


def divided(settings: Iterable[str]) -> tuple[list[str], list[str]]:
    """Settings about the network, without the "network." that marks them, and those about the recipe."""
    about = list(settings)
    network = [setting.removeprefix(_NETWORK) for setting in about if setting.startswith(_NETWORK)]
    return network, [setting for setting in about if not setting.startswith(_NETWORK)]


def changed(described: Description, settings: Iterable[str]) -> Description:
    """A recipe or network spec with some fields replaced.

    Args:
        described: a dataclass; it is not changed itself.
        settings: "field=value" each, values as in JSON: `patch=32`, `flip=false`, `betas=[0.9,0.99]`;
            the quotes around a word may be left out.

    Raises:
        UsageError: no such field, a value of another kind, or one that the dataclass refuses.
    """
    known = {field.name: getattr(described, field.name) for field in fields(described)}  # type: ignore[arg-type]
    values = {}
    for setting in settings:
        name, _, text = setting.partition("=")
        if name not in known:
            raise UsageError(f"There is no {name!r} to set.", f"There is: {', '.join(known)}.")
        values[name] = _value(setting, text, known[name])
    return replace(described, **values)  # type: ignore[type-var]


def _value(setting: str, text: str, now: object) -> Any:
    """The value, of the type that the field has."""
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    value = tuple(value) if isinstance(value, list) else value
    value = float(value) if isinstance(now, float) and type(value) is int else value
    if type(value) is not type(now):
        raise UsageError(f"{setting!r} does not fit.", f"It is {type(now).__name__}, like {now!r}.")
    return value
