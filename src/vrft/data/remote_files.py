"""Files at addresses, of which parts are read: by HTTP ranges, and through ``fsspec`` from S3, GCS, the hub and others.

HTTP needs no further package, and each part is a request of its own, which a forked process can make as well. What
fails for a moment is tried again. Addresses are shown without user names, passwords and signatures.
"""

import http.client
import io
import re
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit, urlunsplit

from vrft.errors import DataError, UserError, first_line
from vrft.extras import need

Result = TypeVar("Result")

BLOCK = 4 << 20
"""Bytes that are read at once where a file is read from its beginning to its end."""

PAUSES = (1.0, 4.0, 16.0)
"""Seconds before a read that failed is tried again."""

TIMEOUT = 60
"""Seconds without an answer after which a request has failed."""

STAMPS = ("ETag", "etag", "Last-Modified", "LastModified", "last_modified", "mtime", "updated", "created", "blob_id")
"""Facts about a file that change with its content, by the names that file systems have for them."""


@dataclass(frozen=True)
class RemoteFacts:
    """The size of a file at an address in bytes, and a text that changes with its content."""

    size: int
    stamp: str


@dataclass(frozen=True)
class RemotePart:
    """The bytes of an image in an archive at an address."""

    address: str
    start: int
    """The position of the first byte."""
    length: int
    stamp: str
    """Of the archive."""

    @property
    def identity(self) -> list[Any]:
        """See ``vrft.sample.ByteSource``."""
        return [shown(self.address), self.stamp, self.start, self.length]

    def read(self) -> bytes:
        """The bytes of the image file.

        Raises:
            DataError: they cannot be read.
        """
        return _part(self)


@lru_cache(maxsize=4)  # the header and the pixels of an image, and the slices of a volume, are read one after another
def _part(part: RemotePart) -> bytes:
    return read_range(part.address, part.start, part.start + part.length)


def is_address(path: str) -> bool:
    """Whether a path is an address such as ``s3://bucket/file``, and no file of this machine."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", path) is not None


def shown(address: str) -> str:
    """An address without its user, password and query, which may hold a signature.

    >>> shown("https://me:secret@host/a.tar?signature=1")
    'https://host/a.tar'
    """
    parts = urlsplit(address)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def facts_of(address: str) -> RemoteFacts:
    """The size and the stamp of a file.

    Raises:
        DataError: it cannot be read, or not in parts.
        UserError: the package for such addresses is not installed.
    """
    if _is_http(address):
        return _tried(address, lambda: _http_facts(address))
    system, path = _system(address)
    found = _tried(address, lambda: system.info(path))
    stamp = [str(found[key]) for key in STAMPS if found.get(key)]
    return RemoteFacts(int(found["size"]), _hashed([str(found["size"]), *stamp]))


def read_range(address: str, start: int, end: int) -> bytes:
    """The bytes of a file from ``start`` up to, and without, ``end``.

    Raises:
        DataError: they cannot be read.
        UserError: the package for such addresses is not installed.
    """
    if start >= end:
        return b""
    if _is_http(address):
        return _tried(address, lambda: _http_range(address, start, end)[0])
    system, path = _system(address)

    def read() -> bytes:
        data = bytes(system.cat_file(path, start=start, end=end))
        if len(data) != end - start:
            raise DataError(f"{shown(address)}: ends before byte {end}; copy it again.")
        return data

    return _tried(address, read)


def glob(pattern: str) -> list[str]:
    """The addresses that fit a pattern with ``*``, sorted.

    Raises:
        DataError: the files cannot be listed.
        UserError: the package for such addresses is not installed.
    """
    if _is_http(pattern):
        raise DataError(f"{shown(pattern)}: files cannot be listed over HTTP; write {{000..099}} in place of *.")
    system, path = _system(pattern)
    found = _tried(pattern, lambda: system.glob(path))
    return sorted(system.unstrip_protocol(one) for one in found)


class RemoteFile(io.RawIOBase):
    """A file at an address, to read from its beginning to its end: one block of ``BLOCK`` bytes is kept.

    Args:
        address: of the file.
        size: in bytes.
    """

    def __init__(self, address: str, size: int) -> None:
        self.address, self.size, self.at = address, size, 0
        self.start, self.block = 0, b""

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """The position in bytes."""
        return self.at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position; returns it."""
        self.at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.at, io.SEEK_END: self.size}[whence]
        return self.at

    def read(self, count: int = -1) -> bytes:
        """The next bytes, fewer at the end of the file.

        Raises:
            DataError: they cannot be read.
        """
        end = self.size if count < 0 else min(self.at + count, self.size)
        if not (self.start <= self.at and end <= self.start + len(self.block)):
            self.start = self.at
            self.block = read_range(self.address, self.at, min(max(end, self.at + BLOCK), self.size))
        data = self.block[self.at - self.start : end - self.start]
        self.at += len(data)
        return data


def _is_http(address: str) -> bool:
    return address.lower().startswith(("http://", "https://"))


def _system(address: str) -> tuple[Any, str]:
    """The file system of an address and the path in it."""
    need("reading remote shards", ("fsspec",), "data")
    import fsspec

    try:
        system, path = fsspec.core.url_to_fs(address)
    except ImportError as error:  # the message names the package of this file system
        raise UserError(f"{shown(address)}: cannot be read: {first_line(error)}.") from None
    except ValueError as error:
        raise DataError(f"{shown(address)}: is no address that can be read ({first_line(error)}).") from None
    return system, str(path)


def _http_range(address: str, start: int, end: int) -> tuple[bytes, Any]:
    parts = urlsplit(address)
    plain = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    request = urllib.request.Request(plain, headers={"Range": f"bytes={start}-{end - 1}"})
    if parts.username is not None:
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        request.add_unredirected_header("Authorization", f"Basic {b64encode(login.encode()).decode()}")
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
        if answer.status != 206:
            raise DataError(f"{shown(address)}: the server gives no parts of files (no HTTP ranges); copy the shards.")
        data, headers = answer.read(end - start + 1), answer.headers
    if len(data) != end - start:
        raise DataError(f"{shown(address)}: ends before byte {end}; copy it again.")
    return data, headers


def _http_facts(address: str) -> RemoteFacts:
    _, headers = _http_range(address, 0, 1)
    size = (headers.get("Content-Range") or "").rpartition("/")[2]
    if not size.isdecimal():
        raise DataError(f"{shown(address)}: the server does not say how long the file is; copy the shards.")
    return RemoteFacts(int(size), _hashed([size, *(headers[key] for key in STAMPS if headers.get(key))]))


def _hashed(facts: list[str]) -> str:
    return sha256(repr(facts).encode()).hexdigest()[:16]


def _tried(address: str, read: Callable[[], Result]) -> Result:
    """The result of a function that reads from an address, which is called again where the network failed."""
    for pause in (*PAUSES, None):
        try:
            return read()
        except (UserError, MemoryError):
            raise
        except Exception as error:  # file systems have errors of their own
            status = getattr(error, "code", None)
            lasting = isinstance(error, FileNotFoundError | PermissionError) or (
                isinstance(error, urllib.error.HTTPError) and error.code < 500 and error.code != 429
            )
            if lasting or pause is None or not isinstance(error, OSError | http.client.HTTPException):
                why = f"HTTP {status}" if status else first_line(error)[:200] or type(error).__name__
                raise DataError(
                    f"{shown(address)}: cannot be read ({why}); check the address and the access."
                ) from None
            time.sleep(pause)
    raise AssertionError
