"""An object of a directory vault while it is written: a temporary file beside its place."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import Protocol

from backends.errors import AlreadyExists, VaultError
from backends.vault.base import Upload

NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EOPNOTSUPP}


class Explains(Protocol):
    """What an upload needs of its vault."""

    where: str

    def explain(self, error: OSError) -> VaultError:
        """What an `OSError` means for somebody who keeps backups there."""
        ...


class FileUpload(Upload):
    """A temporary file that becomes an object at commit."""

    def __init__(self, vault: Explains, directory: int, file: int, temporary: str, name: str) -> None:
        self._vault, self._name, self._temporary = vault, name, temporary
        self._directory, self._file = directory, file

    def write(self, data: bytes) -> None:
        """Write all of it."""
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._file, view) :]
        except OSError as error:
            raise self._vault.explain(error) from error

    def commit(self, *, new: bool = False) -> None:
        """Sync, give it its name, sync the directory; with `new` an existing object is never replaced."""
        try:
            os.fsync(self._file)
            if new:
                self._link()
            else:
                self._rename()
            self._temporary = ""
            os.fsync(self._directory)
        except FileExistsError:
            raise AlreadyExists(f"{self._name} is already in {self._vault.where}", "Nothing was changed.") from None
        except OSError as error:
            raise self._vault.explain(error) from error
        finally:
            self.abort()

    def abort(self) -> None:
        """Close and remove the temporary file."""
        directory, file = self._directory, self._file
        if directory < 0:
            return
        self._directory = self._file = -1
        with suppress(OSError):
            os.close(file)
        if self._temporary:
            with suppress(OSError):
                os.unlink(self._temporary, dir_fd=directory)
        with suppress(OSError):
            os.close(directory)

    def _rename(self) -> None:
        os.rename(self._temporary, self._name, src_dir_fd=self._directory, dst_dir_fd=self._directory)

    def _link(self) -> None:
        try:
            os.link(self._temporary, self._name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            # exFAT and some network file systems know no links; names are random, so looking first is enough there
            with suppress(FileNotFoundError):
                os.stat(self._name, dir_fd=self._directory, follow_symlinks=False)
                raise FileExistsError(errno.EEXIST, "exists") from error
            self._rename()
            return
        os.unlink(self._temporary, dir_fd=self._directory)
