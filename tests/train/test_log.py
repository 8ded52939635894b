"""TensorBoard events, read back."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_training import Quiet, trainer

from srcli_train.log import Board, Status

STATUS = Status(5, 0.5, loss=1.5, rate=1.0, updates_per_second=2.0, seconds_left=9.0, psnr={})


def _read(folder: Path) -> EventAccumulator:
    events = EventAccumulator(str(folder))
    events.Reload()
    return events


def test_events_hold_a_runs_figures_and_picture(tmp_path: Path) -> None:
    """Scalars are stored as float32; the picture is a PNG, so not a bit of it may differ."""
    seen = Quiet()
    trainer(tmp_path, watcher=Board(tmp_path / "board", seen)).run()
    events = _read(tmp_path / "board")
    named = {
        "loss": [(s.update, np.float32(s.loss)) for s in seen.statuses],
        "rate": [(s.update, np.float32(s.rate)) for s in seen.statuses],
        "updates_per_second": [(s.update, np.float32(s.updates_per_second)) for s in seen.statuses],
        "psnr/x2": [(s.update, np.float32(s.psnr[2])) for s in seen.statuses if s.psnr],
    }
    assert [update for update, _ in named["loss"]] == [5, 10, 15, 20]
    assert [update for update, _ in named["psnr/x2"]] == [10, 15, 20]  # validated at 10 and 20
    assert set(events.Tags()["scalars"]) == set(named)
    for name, values in named.items():
        assert [(e.step, np.float32(e.value)) for e in events.Scalars(name)] == values, name
    pictures = events.Images("validation")
    assert [picture.step for picture in pictures] == [10, 20]
    decoded = cv2.imdecode(np.frombuffer(pictures[-1].encoded_image_string, np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(decoded[..., ::-1], seen.pictures[-1])
    assert decoded.std() > 10  # of 0-255: neither black nor flat


def test_events_that_cannot_be_written_are_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    board = Board(tmp_path, seen := Quiet())

    def full(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    board._events.add_scalar = board._events.add_image = full
    for _ in range(2):
        board.status(STATUS)
        board.picture(5, np.zeros((4, 12, 3), np.uint8))
    assert caplog.messages == [f"{tmp_path}: no TensorBoard events can be written (No space left on device)."]
    assert (len(seen.statuses), len(seen.pictures)) == (2, 2)
