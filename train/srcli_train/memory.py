"""Running out of memory, said for people."""

from collections.abc import Iterator
from contextlib import contextmanager

from srcli.backends.libraries import run_failed
from srcli.errors import TrainingError
from srcli_train.recipes import Recipe


@contextmanager
def enough_memory(recipe: Recipe) -> Iterator[None]:
    """Around what trains.

    Raises:
        TrainingError: the memory of the machine or of the GPU ran out.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        failure = run_failed("training", error)
        if not isinstance(failure, MemoryError):
            raise
        raise TrainingError(
            f"Memory ran out ({failure}).",
            f"Lower --batch (now {recipe.batch}) or --patch (now {recipe.patch}).",
        ) from error
