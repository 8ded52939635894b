"""Engines of foreign networks that want another range than 0-1, or sizes that are multiples."""

import numpy as np

from srcli.backends.base import Batch, Engine, EngineInfo, Releasing
from srcli.models.spec import Feed


class Fed:
    """An engine whose network is given pictures as it wants them, and whose results come back on 0-1.

    Args:
        engine: of the network.
        feed: what it wants.
    """

    def __init__(self, engine: Engine, feed: Feed) -> None:
        self._engine, self._feed = engine, feed
        self.info: EngineInfo = engine.info
        self.scale: int = engine.scale

    def run(self, lr: Batch) -> Batch:
        """(N, 3, H, W) -> (N, 3, scale*H, scale*W); sides are filled up with what they mirror."""
        height, width = lr.shape[2:]
        more = [(0, -side % self._feed.multiple) for side in (height, width)]
        filled = np.pad(lr, [(0, 0), (0, 0), *more], mode="symmetric") if any(map(any, more)) else lr
        sr = self._engine.run(np.ascontiguousarray(filled * np.float32(self._feed.white)))
        wanted = sr[:, :, : height * self.scale, : width * self.scale]
        return np.ascontiguousarray(wanted * np.float32(1 / self._feed.out_white))

    def release(self) -> None:
        """As of `Releasing`."""
        if isinstance(self._engine, Releasing):
            self._engine.release()


def fed(engine: Engine, feed: Feed) -> Engine:
    """The engine itself where its network wants what srcli gives anyway."""
    return engine if feed == Feed() else Fed(engine, feed)
