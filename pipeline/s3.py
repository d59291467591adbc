"""S3, and stores that speak its protocol: whole objects, created once, read to their last byte.

s3fs finds the credentials, signs and lists. What it leaves open is done here: an answer that was
lost on its way although the store had done the work, a body that ends early, parts of an upload
that nobody finishes, and an error that a person can act on.
"""

from __future__ import annotations

import asyncio
import io
import logging
import random
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import cache
from mmap import mmap
from typing import Any, ClassVar, TypeVar

from fsspec.asyn import sync_wrapper
from s3fs import S3FileSystem

from pipeline.errors import StoreError
from pipeline.ranged import Ranged
from pipeline.s3_errors import ERRORS, CutShortError, explained, named, passes, status

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

_MARK = "writer"
"""Metadata of an object: a random word of the call that wrote it."""

_SIDE_BY_SIDE = 4
"""Parts of one object on their way at once: so many are in memory a second time; ours."""

_PAUSE_S = 0.2
"""Before the second try at most; twice as long before each further one."""


@cache
def store_of(pid: int) -> Store:
    """The one store of a process, for all its threads.

    A fork gets its own, and leaves alone what it inherited: those sockets are its parent's.
    """
    return Store(use_listings_cache=False, skip_instance_cache=True)


class Store(S3FileSystem):
    """An S3 file system with the promises of storage.py.

    tries: of a request, with pauses between them that grow up to longest_pause_s; whole_bytes: a
    larger object is written in parts of part_bytes. Like all settings of s3fs they may come from
    fsspec's own configuration: FSSPEC_S3='{"tries": 20}'.

    Raises FileNotFoundError, FileExistsError (in create mode), NoPermissionError, and StoreError
    for whatever is not about one object.
    """

    retries: ClassVar[int] = 1  # of s3fs: it would take a second try of ours for somebody else's
    read_timeout: ClassVar[int] = 60  # seconds; s3fs has 15, and a busy store takes longer

    def __init__(
        self,
        tries: int = 10,
        longest_pause_s: float = 20.0,
        whole_bytes: int = 64 << 20,
        part_bytes: int = 16 << 20,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        once = {"retries": {"total_max_attempts": 1, "mode": "standard"}}
        self.config_kwargs = {**once, **self.config_kwargs}
        self._tries, self._longest_pause_s = tries, longest_pause_s
        self._whole_bytes, self._part_bytes = whole_bytes, part_bytes

    async def _clear_uploads(self, path: str, older_s: float) -> int:
        """Aborts the uploads below a path that were begun so long ago; returns how many."""
        bucket, key, _ = self.split_path(path)
        before = datetime.now(UTC) - timedelta(seconds=older_s)
        cleared = 0
        async for upload in self._uploads(bucket, f"{key.rstrip('/')}/"):
            if upload["Initiated"] <= before:
                await self._abort(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
                cleared += 1
        return cleared

    clear_uploads = sync_wrapper(_clear_uploads)

    async def _call_s3(self, method: str, *more: Any, **given: Any) -> Any:
        """Every request that s3fs makes comes through here."""
        return await self._kept_at(given, lambda: self._once(method, *more, **given))

    async def _once(self, method: str, *more: Any, **given: Any) -> Any:
        return await super()._call_s3(method, *more, **given)

    async def _kept_at(self, given: Any, request: Callable[[], Awaitable[_T]]) -> _T:
        """Makes a request until it is answered, or was made often enough."""
        url = f"s3://{given.get('Bucket', '')}/{given.get('Key') or given.get('Prefix') or ''}"
        for failed in range(1, self._tries + 1):
            try:
                return await request()
            except ERRORS as error:
                if not passes(error):
                    raise explained(url, self._endpoint(), error) from error
                what = named(self._endpoint(), error)
                if failed == self._tries:
                    raise StoreError(
                        f"{url}: no answer in {failed} tries, the last one: {what}; look whether "
                        "the store is well, then start the same command again"
                    ) from error
                if failed >= 3:
                    _log.warning("%s: %s; trying again (%d)", url, what, failed)
                pause_s = min(self._longest_pause_s, _PAUSE_S * 2 ** (failed - 1))
                await asyncio.sleep(random.uniform(pause_s / 8, pause_s))
        raise AssertionError("the last try returns or raises")

    def _endpoint(self) -> str:
        """The address that is asked; "" before the first request."""
        return getattr(getattr(self._s3, "meta", None), "endpoint_url", None) or ""

    async def _pipe_file(
        self, path: str, data: bytes | mmap, *_: Any, mode: str = "overwrite", **__: Any
    ) -> None:
        """Writes a whole object; in create mode FileExistsError unless it was not there.

        Whose object lies there is told by its mark: after an answer was lost, it may be ours.
        """
        bucket, key, _version = self.split_path(path)
        place = {"Bucket": bucket, "Key": key}
        mark = secrets.token_hex(16)
        only_new = {"IfNoneMatch": "*"} if mode == "create" else {}
        about = {**place, "Metadata": {_MARK: mark}}
        try:
            if len(data) <= self._whole_bytes:
                await self._call_s3("put_object", **about, Body=bytes(data), **only_new)
                return
            if only_new and await self._mark_at(place) is not None:
                raise FileExistsError(path)  # before gigabytes are sent for nothing
            await self._put_in_parts(about, data, only_new)
        except (FileExistsError, FileNotFoundError) as error:
            there = await self._mark_at(place)
            if there == mark:
                return
            if only_new and there is not None:
                raise FileExistsError(path) from error
            raise StoreError(f"s3://{path}: its upload was aborted; start again") from error

    async def _put_in_parts(self, about: dict[str, Any], data: bytes | mmap, only_new: Any) -> None:
        """FileNotFoundError when somebody aborted the upload."""
        begun = await self._call_s3("create_multipart_upload", **about)
        upload = {"Bucket": about["Bucket"], "Key": about["Key"], "UploadId": begun["UploadId"]}
        try:
            parts = await self._parts(upload, data)
            together = {"MultipartUpload": {"Parts": parts}}
            await self._call_s3("complete_multipart_upload", **upload, **together, **only_new)
        except BaseException:
            await self._abort(**upload)
            raise
        if only_new:  # what killed writers of this object left, and others who can only lose now
            async for other in self._uploads(about["Bucket"], about["Key"]):
                if other["Key"] == about["Key"]:
                    await self._abort(**{**upload, "UploadId": other["UploadId"]})

    async def _parts(self, upload: Any, data: bytes | mmap) -> list[dict[str, Any]]:
        """Sends all bytes; what finishes the upload."""
        turns = asyncio.Semaphore(_SIDE_BY_SIDE)

        async def send(number: int, start: int) -> dict[str, Any]:
            async with turns:
                body = bytes(view[start : start + self._part_bytes])
                sent = await self._call_s3("upload_part", **upload, PartNumber=number, Body=body)
                return {"PartNumber": number, "ETag": sent["ETag"]}

        starts = range(0, len(data), self._part_bytes)
        with memoryview(data) as view:
            sending = [asyncio.create_task(send(*one)) for one in enumerate(starts, 1)]
            try:
                return await asyncio.gather(*sending)
            finally:  # nothing may arrive after the upload is aborted
                for task in sending:
                    task.cancel()
                await asyncio.gather(*sending, return_exceptions=True)

    async def _uploads(self, bucket: str, prefix: str) -> AsyncIterator[dict[str, Any]]:
        """The uploads that were begun and not finished; none where listing them is forbidden."""
        after: dict[str, str] = {}
        while True:
            try:
                page = await self._call_s3(
                    "list_multipart_uploads", Bucket=bucket, Prefix=prefix, **after
                )
            except (PermissionError, StoreError) as error:
                _log.info("unfinished uploads are not cleared: %s", error)
                return
            for upload in page.get("Uploads", []):
                yield upload
            if not page.get("IsTruncated"):
                return
            after = {
                "KeyMarker": page["NextKeyMarker"],
                "UploadIdMarker": page["NextUploadIdMarker"],
            }

    async def _abort(self, **upload: str) -> None:
        """One that is gone already, or cannot be aborted now, is no error: it hurts nobody."""
        with suppress(OSError, StoreError):
            await self._call_s3("abort_multipart_upload", **upload)

    async def _mark_at(self, place: dict[str, str]) -> str | None:
        """The mark of the object that is there; None when there is none."""
        try:
            found = await self._call_s3("head_object", **place)
        except FileNotFoundError:
            return None
        return found.get("Metadata", {}).get(_MARK, "")

    async def _cat_file(
        self,
        path: str,
        *_: Any,
        start: int | None = None,
        end: int | None = None,
        etag: str | None = None,
        **__: Any,
    ) -> bytes:
        """The bytes from start to end, fewer where the object ends; one request, without a HEAD.

        etag: of the object as it has to be still.
        """
        bucket, key, _version = self.split_path(path)
        place = {"Bucket": bucket, "Key": key}
        if start is not None and end is not None and end <= start:
            return b""
        given = {**place, "IfMatch": etag} if etag else place
        return await self._kept_at(place, lambda: self._body(given, start or 0, end))

    async def _body(self, given: dict[str, str], start: int, end: int | None) -> bytes:
        ranged = start > 0 or end is not None
        if ranged:
            given = {**given, "Range": f"bytes={start}-{'' if end is None else end - 1}"}
        try:
            answer = await self._once("get_object", **given)
        except OSError as error:
            if status(error) == 416:  # it ends before
                return b""
            if status(error) == 412:
                url = f"s3://{given['Bucket']}/{given['Key']}"
                raise StoreError(f"{url}: changed while it was read; start again") from error
            raise
        async with answer["Body"] as body:
            data = await body.read()
        wanted = answer["ContentLength"]
        if ranged:
            length = int(answer["ContentRange"].rpartition("/")[2])
            wanted = (length if end is None else min(end, length)) - start
        if len(data) != wanted:
            raise CutShortError(f"{len(data)} bytes came of {wanted}")
        return data

    def _open(self, path: str, mode: str = "rb", *_: Any, **__: Any) -> Any:
        """To read from, in the state that it has now.

        A handle for writing would commit half an object when its block raises.
        """
        if mode != "rb":
            raise ValueError(f"found mode {mode!r}, wanted rb; objects are written whole")
        found = self.info(path)

        def fetch(offset: int, size: int) -> Any:
            return self.cat_file(path, start=offset, end=offset + size, etag=found.get("ETag"))

        return io.BufferedReader(Ranged(int(found["size"]), fetch), 8 << 20)
