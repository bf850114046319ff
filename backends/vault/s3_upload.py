"""An object of unknown length on its way into a bucket: one PUT when it is small, else a multipart upload.

A provider takes 10 000 parts, some (Scaleway) only 1 000. Parts are 5 MiB (the least AWS takes) up to the 256th, then
each is a third of a MiB larger than the one before, up to 256 MiB: 1 000 parts make 95 GiB, 10 000 make 2.3 TiB. Four
parts exist at once: one that fills and three on their way. Those of 5 MiB are kept in memory, larger ones in unnamed
temporary files (below TMPDIR), so that memory does not grow with size; what is in them is encrypted already.
"""

from __future__ import annotations

import tempfile
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import IO, Any

from backends.errors import VaultError
from backends.vault.base import Upload
from backends.vault.s3_bucket import Bucket
from backends.vault.s3_errors import UploadGone

FIRST_PART = 5 * 1024 * 1024
LARGEST_PART = 256 * 1024 * 1024
_SAME_UNTIL = 256
_STEP = 349_525
_ON_THE_WAY = 3


def part_size(number: int) -> int:
    """Bytes of the part with that number, which begin at 1."""
    return min(FIRST_PART + max(number - _SAME_UNTIL, 0) * _STEP, LARGEST_PART)


class S3Upload(Upload):
    """Parts are sent by three threads while the next one fills."""

    def __init__(self, bucket: Bucket, key: str, parameters: dict[str, Any]) -> None:
        self._bucket, self._key, self._parameters = bucket, key, parameters
        self._part = _Part(bucket, 1)
        self._number = 1
        self._bytes = 0
        self._upload_id = ""
        self._tags: dict[int, str] = {}
        self._error: VaultError | None = None
        self._stop = threading.Event()
        self._room = threading.Semaphore(_ON_THE_WAY)
        self._senders: ThreadPoolExecutor | None = None
        self._sent: list[Future[None]] = []
        self._ended = False

    def write(self, data: bytes) -> None:
        """Take the next bytes; waits while three parts are on their way."""
        view = memoryview(data)
        while view:
            if self._part.full:
                self._ship()
            view = view[self._part.take(view, self._bucket) :]
        self._bytes += len(data)

    def commit(self) -> None:
        """Put the object, or complete its parts."""
        if self._senders is None:
            self._bucket.call("PutObject", self._key, **self._bucket.body(self._part.body()), **self._parameters)
        else:
            self._ship(last=True)
            for sent in self._sent:
                sent.result()
            self._fail()
            self._complete()
        self._ended = True
        self._close()

    def abort(self) -> None:
        """Give up. Parts that are on their way end first, or the provider would keep them."""
        if self._ended:
            return
        self._ended = True
        self._stop.set()
        self._close()
        if self._upload_id:
            try:
                self._bucket.call("AbortMultipartUpload", self._key, UploadId=self._upload_id)
            except VaultError:  # what stays is a leftover: prune removes it, or the bucket's lifecycle
                return

    def _ship(self, *, last: bool = False) -> None:
        """Hand the part to a sender, and begin the next one."""
        if self._senders is None:
            answer = self._bucket.call("CreateMultipartUpload", self._key, **self._parameters)
            self._upload_id = str(answer["UploadId"])
            self._senders = ThreadPoolExecutor(_ON_THE_WAY, thread_name_prefix=f"to {self._bucket.name}")
        self._room.acquire()
        self._fail()
        self._sent = [sent for sent in self._sent if not sent.done()]
        self._sent.append(self._senders.submit(self._send, self._number, self._part))
        if not last:
            self._number += 1
            self._part = _Part(self._bucket, self._number)

    def _send(self, number: int, part: _Part) -> None:
        try:
            if not self._stop.is_set():
                body = self._bucket.body(part.body())
                answer = self._bucket.call(
                    "UploadPart", self._key, UploadId=self._upload_id, PartNumber=number, stop=self._stop, **body
                )
                self._tags[number] = str(answer["ETag"])
        except VaultError as error:
            self._error = self._error or error
            self._stop.set()
        finally:
            part.close(self._bucket)
            self._room.release()

    def _fail(self) -> None:
        if self._error is not None:
            raise self._error

    def _complete(self) -> None:
        parts = [{"PartNumber": number, "ETag": tag} for number, tag in sorted(self._tags.items())]
        if len(parts) != self._number:
            raise VaultError(f"parts of {self._key} are missing", "Report this as a bug.")
        retried: list[VaultError] = []
        try:
            self._bucket.call(
                "CompleteMultipartUpload",
                self._key,
                UploadId=self._upload_id,
                MultipartUpload={"Parts": parts},
                retried=retried.append,
            )
        except UploadGone:
            # completed by a try whose answer was lost?
            if not retried or self._bucket.call("HeadObject", self._key).get("ContentLength") != self._bytes:
                raise

    def _close(self) -> None:
        if self._senders is not None:
            self._senders.shutdown(wait=True, cancel_futures=True)
        self._part.close(self._bucket)


class _Part:
    """Bytes of one part: in memory, or in a temporary file without a name."""

    def __init__(self, bucket: Bucket, number: int) -> None:
        self.size = part_size(number)
        self._filled = 0
        self._memory: bytearray | None = None
        self._file: IO[bytes] | None = None
        if self.size == FIRST_PART:
            self._memory = bucket.spare.pop() if bucket.spare else bytearray(FIRST_PART)

    @property
    def full(self) -> bool:
        """Whether it takes no more."""
        return self._filled == self.size

    def take(self, data: memoryview, bucket: Bucket) -> int:
        """Keep as much as there is room for; returns how much. Raises `VaultError`: no room for the file."""
        piece = data[: self.size - self._filled]
        if self._memory is not None:
            self._memory[self._filled : self._filled + len(piece)] = piece
        else:
            try:
                if self._file is None:
                    self._file = tempfile.TemporaryFile(prefix="mastovault-")  # noqa: SIM115 - closed by close()
                self._file.write(piece)
            except OSError as error:
                raise VaultError(
                    f"a part for {bucket.place.where} does not fit into {tempfile.gettempdir()}: {error.strerror}",
                    "Make room there, or let TMPDIR name another directory.",
                ) from error
        self._filled += len(piece)
        return len(piece)

    def body(self) -> Any:
        """The bytes as boto3 takes them; nothing can be added afterwards."""
        if self._memory is None:
            if self._file is not None:
                self._file.flush()
            return self._file or b""
        if self._filled < self.size:
            del self._memory[self._filled :]
        return self._memory

    def close(self, bucket: Bucket) -> None:
        """Let go of the bytes. Idempotent."""
        memory, self._memory = self._memory, None
        if memory is not None and len(memory) == FIRST_PART and len(bucket.spare) <= _ON_THE_WAY:
            bucket.spare.append(memory)
        if self._file is not None:
            self._file.close()
