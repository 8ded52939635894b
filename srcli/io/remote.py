"""Files in buckets and on servers, through fsspec: listed, looked at, fetched, and put whole or not at all.

Libraries and their messages may name URLs with passwords, so that no text of theirs is passed on.
"""

import errno
import glob
import inspect
import io
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import lru_cache
from pathlib import Path, PurePosixPath
from threading import Lock
from typing import Any, BinaryIO, TypeAlias
from uuid import uuid4

from srcli.errors import InputError, MissingExtraError, OutputError, SrcliError, UsageError, shown
from srcli.io.storage import unfinished

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]+)://(?:([^/?]*)@)?([^?]*)(\?.*)?", re.DOTALL)
_WEB = ("http", "https")
_AT_ONCE = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "wasb")
"""Stores where an object appears when all of it is there; elsewhere it is put beside its place and moved."""
_BUCKETS = ("s3", "s3a", "gs", "gcs")
_PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs",
             "abfss": "adlfs", "sftp": "paramiko", "http": "aiohttp", "https": "aiohttp"}  # fmt: skip
_MODIFIED = ("LastModified", "last_modified", "mtime", "updated", "created")
_HEAD, _TAIL = 64 << 10, 16 << 10
"""Bytes of a large file's start and end that tell what it is."""
_PART, _MOST_PARTS = 8 << 20, 9000
"""Bytes of a part of an upload, and how many S3 takes, about."""
UPLOAD_MEMORY = 2 * _PART
"""Bytes of memory that an upload takes at most; of files from 70 GB on it is more."""
_RANGE = 1 << 20
"""Bytes of the ranges that films are read by."""
_RANGES_KEPT = 32
"""Ranges of a film that are kept in memory."""
_LONG_READ = 32 << 20
"""Bytes from which a read takes so long that the file may be replaced meanwhile."""
_CREDENTIALS = "Credentials are those that fsspec finds: for S3 AWS_ACCESS_KEY_ID, AWS_PROFILE and the like."


@dataclass(frozen=True, slots=True)
class Remote:
    """A file or folder behind a URL, and what a listing said of it. As text it has no user and no query.

    Attributes:
        protocol: "s3", "gs", "sftp", ...
        path: what follows "://", e.g. "bucket/photos/a.png"; no slash at its end.
        access, query: "user:password@" and "?..." of the URL, if any.
        size: in bytes; None: a folder, or nothing is known to be there.
        modified: nanoseconds since 1970 when it was written, by the clock of the store; 0 where that is not
            known.
        tag: what the store calls this version of its content (ETag); empty where it does not.
    """

    protocol: str
    path: str
    access: str = field(default="", repr=False)
    query: str = field(default="", repr=False)
    size: int | None = field(default=None, compare=False)
    modified: int = field(default=0, compare=False)
    tag: str = field(default="", compare=False)

    def __str__(self) -> str:
        return f"{self.protocol}://{self.path}"

    def __truediv__(self, relative: Path | str) -> "Remote":
        below = relative.as_posix() if isinstance(relative, Path) else relative
        return replace(self, path=f"{self.path}/{below}", query="", size=None, modified=0, tag="")

    @property
    def name(self) -> str:
        """What follows the last slash."""
        return self.path.rpartition("/")[2]

    @property
    def suffix(self) -> str:
        """As of a Path."""
        return PurePosixPath(self.name).suffix

    @property
    def stem(self) -> str:
        """As of a Path."""
        return PurePosixPath(self.name).stem

    @property
    def parent(self) -> "Remote":
        """The folder that it lies in."""
        return replace(self, path=self.path.rpartition("/")[0], query="", size=None, modified=0, tag="")


Location: TypeAlias = Path | Remote
"""Where a file is, or goes."""


def location(text: str) -> Location:
    """A path on this machine, or a URL; "file:///a" is a path, too.

    Raises:
        UsageError: the URL names no bucket or server, or has what srcli does not take.
    """
    match = _URL.fullmatch(text)
    if match is None:
        return Path(text)
    protocol, user, path, query = match[1].lower(), match[2], match[3].rstrip("/"), match[4] or ""
    if protocol in ("file", "local"):
        return Path(path)
    here = Remote(protocol, path, "" if user is None else f"{user}@", query)
    if not path.strip("/") and protocol != "memory":
        raise UsageError(f"{protocol}:// names no place.", f"Write it like {protocol}://bucket/folder/.")
    if "::" in path:
        raise UsageError(f"{shown(here)}: chained URLs are not taken.", "Name one place.")
    if user is not None and protocol in _BUCKETS:
        raise UsageError(f"{shown(here)}: a user or key in its URL is not taken.", _CREDENTIALS)
    server, colon, port = path.partition("/")[0].partition(":")
    if colon and not port.isdigit() and not server.startswith(("[", "arn")):  # KEY:SECRET/WITH/SLASH@bucket
        raise UsageError(f"A {protocol} URL with a key or password in it is not taken.", _CREDENTIALS)
    return here


def is_url(text: str) -> bool:
    """Whether a name on the command line is a URL, by its form."""
    return _URL.fullmatch(text) is not None


def looked_up(here: Remote) -> Remote:
    """The same with its size and time; without a size where it is a folder.

    Raises:
        InputError: there is no such thing, or it may not be read.
    """
    with _translated(here, InputError, "read"):
        files, path = _opened(here)
        files.invalidate_cache()
        return _with(here, files.info(path))


def exists(here: Remote) -> bool:
    """Whether it is there now.

    Raises:
        InputError: the store does not say, or the bucket is missing.
    """
    try:
        looked_up(here)
    except InputError as error:
        if _is_absent(error):
            return False
        raise
    return True


def there(folder: Remote, targets: Sequence[Remote]) -> list[Remote]:
    """Outputs below a folder, or the folder itself as the one output, with the sizes and times of those that
    are there: by one listing, of a single one by one look-up.

    Raises:
        OutputError: the store does not say, or the bucket is missing.
    """
    try:
        if len(targets) == 1:
            return [looked_up(targets[0])]
        found = {one.path: one for one in listing(folder).values()}
        return [found.get(one.path, one) for one in targets]
    except InputError as error:
        if not _is_absent(error):
            raise OutputError(error.message, error.hint) from error
    return list(targets)


def _is_absent(error: InputError) -> bool:
    """Whether it only says that there is no such file or folder, in a bucket that is there."""
    return isinstance(error.__cause__, FileNotFoundError) and _reason(error.__cause__)[0] == _ABSENT


def listing(folder: Remote, *, recursive: bool = True) -> dict[str, Remote]:
    """All files in a folder by their paths below it, sorted; by one listing if `recursive`.

    Raises:
        InputError: it cannot be listed.
    """
    with _translated(folder, InputError, "listed"):
        files, path = _opened(folder)
        files.invalidate_cache()
        found = files.find(path, maxdepth=None if recursive else 1, detail=True)
        files.invalidate_cache()  # it has kept them, too
        below = path.rstrip("/") + "/"
        kept = {name[len(below) :]: facts for name, facts in found.items() if name.startswith(below)}
        return {name: _with(folder / name, kept[name]) for name in sorted(kept) if name[-1:] not in ("", "/")}


def matches(pattern: Remote) -> list[Remote]:
    """The files and folders that a pattern names, sorted.

    Raises:
        InputError: it cannot be listed.
    """
    with _translated(pattern, InputError, "listed"):
        files, path = _opened(pattern)
        found = files.glob(path, detail=True)
        more = len(path) - len(pattern.path)  # "/" before it, or less its server
        names = {name: name[more:] if more >= 0 else pattern.path[:-more] + name for name in sorted(found)}
        return [_with(replace(pattern, path=path), found[name]) for name, path in names.items()]


def is_pattern(here: Remote) -> bool:
    """Whether it holds characters of patterns."""
    return glob.has_magic(here.path)


def look(here: Remote, file: Path) -> None:
    """Make a local file of the same size and date that has its start and end, and holes between: of a small
    one all of it.

    Raises:
        InputError: it cannot be read.
        OutputError: the local file cannot be written.
    """
    size = here.size or 0
    if not size:  # empty, or the store does not say
        fetch(here, file)
        return
    with _translated(here, InputError, "read"):
        files, path = _opened(here)
        head = files.cat_file(path, start=0, end=size if size <= 4 * _HEAD else _HEAD)
        tail = files.cat_file(path, start=size - _TAIL, end=size) if len(head) < size else b""
    with _local(file), unfinished(file) as part, part.open("rb+") as stream:
        stream.write(head)
        stream.truncate(max(size, len(head)))
        stream.seek(-len(tail), os.SEEK_END)
        stream.write(tail)
    date(here, file)


def fetch(here: Remote, file: Path) -> None:
    """Copy it to a local file of the same date, whole or not at all.

    Raises:
        InputError: it cannot be read, or was replaced meanwhile.
        OutputError: the local file cannot be written.
    """
    with _local(file), unfinished(file) as part:
        with _translated(here, InputError, "read"):
            files, path = _opened(here)
            files.get_file(path, str(part), **_only(files, "_get_file", max_concurrency=1))
        if (here.size or 0) >= _LONG_READ and looked_up(here).modified != here.modified:
            raise _changed(here)
    date(here, file)


@contextmanager
def opened(here: Remote) -> Iterator[BinaryIO]:
    """Its bytes as a stream that can seek and reads by ranges.

    Raises:
        InputError: it cannot be read.
    """
    with _translated(here, InputError, "read"):
        files, path = _opened(here)
        with files.open(path, "rb", block_size=_RANGE) as stream:
            yield stream


@contextmanager
def ranged(here: Remote) -> Iterator[BinaryIO]:
    """The same of a large file that was looked up; what was read lately is kept for all who read it.

    Raises:
        InputError: it cannot be read, or is not what was looked up. Reading raises that, too.
    """
    with io.BufferedReader(_RangedFile(_ranges(here, here.size, here.modified, here.tag))) as file:
        yield file


@lru_cache(maxsize=2)
def _ranges(here: Remote, *_version: object) -> "_Ranges":
    return _Ranges(here)


class _Ranges:
    """Ranges of a file; the last ones are kept. Used by several threads.

    Raises:
        InputError: it cannot be read, or is not what was looked up.
    """

    def __init__(self, here: Remote) -> None:
        self.here, self.size = here, here.size or 0
        self._lock = Lock()
        with _translated(here, InputError, "read"):
            files, path = _opened(here)
            files.invalidate_cache()
            self._stream = files.open(path, "rb", cache_type="none")
            now = _with(here, files.info(path))
        if (now.size, now.modified, now.tag) != (here.size, here.modified, here.tag):
            raise _changed(here)
        self.get = lru_cache(maxsize=_RANGES_KEPT)(self._fetch)

    def _fetch(self, number: int) -> bytes:
        begin = number * _RANGE
        with self._lock, _translated(self.here, InputError, "read"):
            self._stream.seek(begin)
            content: bytes = self._stream.read(min(_RANGE, self.size - begin))
        if len(content) < min(_RANGE, self.size - begin):
            raise _changed(self.here)
        return content


class _RangedFile(io.RawIOBase):
    """A file of ranges with a place of its own. After an error, which is raised once, it is at its end.

    PyAV keeps what a stream raises until FFmpeg returns, and prints what is raised after that.
    """

    def __init__(self, ranges: _Ranges) -> None:
        self._ranges, self._at, self._failed = ranges, 0, False
        self.name = str(ranges.here)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_CUR: self._at, os.SEEK_END: self._ranges.size}.get(whence, 0)
        return self._at

    def readinto(self, buffer: Any) -> int:
        number, begin = divmod(self._at, _RANGE)
        if self._failed or self._at >= self._ranges.size:
            return 0
        try:
            content = memoryview(self._ranges.get(number))[begin : begin + len(buffer)]
        except InputError:
            self._failed = True
            raise
        buffer[: len(content)] = content
        self._at += len(content)
        return len(content)


def _changed(here: Remote) -> InputError:
    return InputError(f"{shown(here)} changed while it was read.", "Run again when it is complete.")


def put(file: Path, here: Remote, *, replaces: bool) -> bool:
    """Copy a finished local file there: all of it appears, or nothing.

    Args:
        replaces: else nothing is put where a file is there already. Stores that cannot be asked for that take
            the last one.

    Returns:
        Whether it was put.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        with _translated(here, OutputError, "written"):
            files, path = _opened(here)
            if here.protocol in _AT_ONCE:
                mode = "overwrite" if replaces else "create"
                part = max(_PART, file.stat().st_size // _MOST_PARTS)
                bounds = _only(files, "_put_file", mode=mode, chunksize=part, max_concurrency=2)
                files.put_file(str(file), path, **bounds)
            else:
                _put_and_move(files, file, path, replaces)
    except FileExistsError:
        return False
    return True


def remove(here: Remote) -> None:
    """Remove a file, or a folder with all that is in it; what cannot be removed stays."""
    with suppress(Exception):
        files, path = _opened(here)
        files.rm(path, recursive=True)


def _only(files: Any, method: str, **options: Any) -> dict[str, Any]:
    """Those of the options that a file system has for a method."""
    known = inspect.signature(getattr(files, method, None) or getattr(files, method[1:])).parameters
    return {name: value for name, value in options.items() if name in known}


def _put_and_move(files: Any, file: Path, path: str, replaces: bool) -> None:
    folder = path.rpartition("/")[0]
    part = f"{folder}/.srcli-{uuid4().hex}.part"
    files.makedirs(folder, exist_ok=True)
    try:
        files.put_file(str(file), part)
        if files.exists(path):
            if not replaces:
                raise FileExistsError
            files.rm_file(path)
        files.mv(part, path)
    except BaseException:
        with suppress(Exception):
            files.rm_file(part)
        raise


def reads_ranges(here: Remote) -> bool:
    """Whether its protocol has ranges for sure; servers of the web may or may not."""
    return here.protocol not in _WEB


def check_output(here: Remote) -> None:
    """Refuse what cannot be written to: the web, or a protocol whose package is missing.

    Raises:
        UsageError, MissingExtraError: it is that.
    """
    if here.protocol in _WEB:
        raise UsageError(f"{shown(here)}: the web can be read, not written.", "Name a folder or bucket.")
    with _translated(here, OutputError, "written"):
        _opened(here)


def _opened(here: Remote) -> tuple[Any, str]:
    """The file system, and its own form of the path. Only what the user wrote is parsed as a URL."""
    try:
        import fsspec
    except ImportError as error:
        raise MissingExtraError("What reads buckets (fsspec)", "cloud") from error
    server = here.path if here.protocol in _WEB else here.path.partition("/")[0]
    url = f"{here.protocol}://{here.access}{server}{here.query}"
    try:
        files, _ = fsspec.url_to_fs(url)
    except ImportError as error:
        package = _PACKAGES.get(here.protocol, "")
        if package == "s3fs":
            raise MissingExtraError("What reads buckets of S3 (s3fs)", "cloud") from error
        hint = f"Add it with: pip install {package}" if package else ""
        raise UsageError(f"{here.protocol}:// needs a package that is not installed.", hint) from error
    except ValueError as error:
        raise UsageError(f"{here.protocol}:// is not known.", "s3:// is, and what fsspec has.") from error
    return files, files._strip_protocol(f"{here.protocol}://{here.access}{here.path}{here.query}")


def _with(here: Remote, facts: dict[str, Any]) -> Remote:
    """The same with what the store said of it."""
    if facts.get("type") == "directory":
        return replace(here, size=None, modified=0, tag="")
    at = next((facts[name] for name in _MODIFIED if facts.get(name)), 0)
    with suppress(ValueError):
        at = datetime.fromisoformat(at) if isinstance(at, str) else at
    if isinstance(at, datetime):
        at = at.timestamp()
    modified = int(at * 1e9) if isinstance(at, int | float) else 0
    return replace(here, size=facts.get("size") or 0, modified=modified, tag=str(facts.get("ETag") or ""))


def date(here: Remote, file: Path) -> None:
    """Give a local file its date, where that is known."""
    if here.modified:
        os.utime(file, ns=(here.modified, here.modified))


@contextmanager
def _local(file: Path) -> Iterator[None]:
    """Errors of the local disk as OutputError."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise OutputError(
            f"{shown(file)}: a scratch file cannot be written ({reason}).",
            "Free some space, or choose another place for scratch files with TMPDIR and SRCLI_CACHE.",
        ) from error


@contextmanager
def _translated(here: Remote, kind: type[SrcliError], what: str) -> Iterator[None]:
    """Errors of fsspec and the libraries below it as srcli's, in words of its own."""
    try:
        yield
    except SrcliError:
        raise
    except FileExistsError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise  # of the local disk
        reason, hint = _reason(error)
        raise kind(f"{shown(here)} cannot be {what}: {reason}.", hint) from error


_ABSENT = "it does not exist"
_REASONS = (
    (("NoSuchBucket",), "its bucket does not exist", "Check the name, and AWS_ENDPOINT_URL if that is set."),
    (("NoCredentialsError", "PartialCredentialsError", "TokenRetrievalError", "ProfileNotFound"),
     "there are no credentials for it", _CREDENTIALS),
    (("PermissionError", "AuthenticationException", "AccessDenied", "403"), "access is denied", _CREDENTIALS),
    (("FileExpired",), "it changed while it was read", "Run again when it is complete."),
    (("ConnectTimeoutError", "ReadTimeoutError", "TimeoutError", "FSTimeoutError", "ServerTimeoutError",
      "EndpointConnectionError", "ConnectionError", "ClientConnectorError", "ConnectionClosedError",
      "HTTPClientError", "ClientConnectionError", "ConnectionRefusedError", "ConnectionResetError",
      "gaierror", "ClientPayloadError", "IncompleteReadError", "ResponseStreamingError"),
     "the server does not answer", "Check the network; the same command goes on."),
    (("FileNotFoundError",), _ABSENT, "Check the bucket and the name."),
)  # fmt: skip
"""Classes and codes of errors, what they mean, and what to do, in the order in which they are looked for."""


def _reason(error: BaseException) -> tuple[str, str]:
    """What went wrong, in words, and what to do."""
    names, codes, last = set[str](), list[str](), error
    step: BaseException | None = error
    while step is not None:
        names |= {one.__name__ for one in type(step).__mro__}
        names |= {"PermissionError"} if getattr(step, "status", None) in (401, 403) else set()
        response = getattr(step, "response", None)
        if isinstance(response, dict) and (code := str(response.get("Error", {}).get("Code", ""))):
            codes.append(code)
        last, step = step, step.__cause__ or step.__context__
    for known, reason, hint in _REASONS:
        if names.intersection(known) or set(codes).intersection(known):
            return reason, hint
    if codes:
        return f"the store answers {codes[0]}", "Its documentation says what that means."
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno).lower(), ""
    return f"{type(last).__name__}", ""
