"""A server of S3 on this machine for tests, and buckets on it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import pytest

SECRETS = ("keyofthetests", "secretofthetests")


@contextmanager
def served() -> Iterator[str]:
    """The URL of a server."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer(
        ip_address="127.0.0.1", port=0, verbose=False
    )
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


class Bucket:
    """A new bucket of a server."""

    def __init__(self, files: Any) -> None:
        self.files, self.name = files, f"bucket-{uuid4().hex[:12]}"
        self.url = f"s3://{self.name}"
        files.mkdir(self.name)

    def put(self, objects: dict[str, bytes]) -> None:
        """Make objects."""
        self.files.pipe({f"{self.name}/{key}": content for key, content in objects.items()})

    def count(self, folder: str) -> int:
        """How many objects are below a folder."""
        self.files.invalidate_cache()
        return len(self.files.find(f"{self.name}/{folder}"))

    def contents(self, folder: str = "") -> dict[str, bytes]:
        """All objects below a folder."""
        self.files.invalidate_cache()
        below = f"{self.name}/{folder}".rstrip("/")
        names = self.files.find(below)
        found = self.files.cat(names) if names else {}
        return {name[len(below) + 1 :]: found[name] for name in names}


def bucket_of(server: str, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """A bucket, with the environment that reaches it."""
    import s3fs

    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", SECRETS[0])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRETS[1])
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    s3fs.S3FileSystem.clear_instance_cache()  # each has the server of its time
    return Bucket(s3fs.S3FileSystem())
