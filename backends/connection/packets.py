"""SSH packets from a socket, with few system calls and few copies; paramiko needs four and six for each."""

from __future__ import annotations

import errno
from typing import Any, Protocol

from paramiko.common import MSG_CHANNEL_DATA
from paramiko.message import Message
from paramiko.packet import NeedRekeyException, Packetizer
from paramiko.ssh_exception import SSHException

_STORE = 1024 * 1024
_LARGEST = 512 * 1024
"""Bytes of a packet; nobody may send more than the 256 KiB that we allow, and some padding."""


class SocketLike(Protocol):
    """What paramiko asks of a socket; a channel of another connection (ProxyJump) has it too."""

    def send(self, data: bytes, /) -> int:
        """Send some of the bytes and return how many."""

    def recv(self, size: int, /) -> bytes:
        """Receive at most `size` bytes."""

    def settimeout(self, seconds: float | None, /) -> None:
        """Set how long the two may block."""

    def close(self) -> None:
        """Close it."""


class BufferedSocket:
    """A socket that is read in large pieces into one store, and handed out in small ones."""

    def __init__(self, inner: SocketLike) -> None:
        self._inner = inner
        self._recv_into = getattr(inner, "recv_into", None)
        self._store = memoryview(bytearray(_STORE))
        self._begin = 0
        self._end = 0
        self._closed = False

    def __len__(self) -> int:
        return self._end - self._begin

    def fill(self, wanted: int) -> bool:
        """Receive once, where `wanted` bytes have room in one piece; False at the end of the stream."""
        if self._begin == self._end:
            self._begin = self._end = 0
        elif self._begin + wanted > _STORE:
            left = bytes(self._store[self._begin : self._end])
            self._store[: len(left)] = left
            self._begin, self._end = 0, len(left)
        if self._recv_into is not None:
            size = self._recv_into(self._store[self._end :])
        else:
            piece = self._inner.recv(_STORE - self._end)
            size = len(piece)
            self._store[self._end : self._end + size] = piece
        self._end += size
        return bool(size)

    def peek(self, size: int) -> memoryview:
        """The next bytes, which must be there, without taking them; good until the next `fill`."""
        return self._store[self._begin : self._begin + size]

    def skip(self, size: int) -> None:
        """Take bytes that were looked at."""
        self._begin += size

    def recv(self, size: int) -> bytes:
        """Return up to `size` bytes, from the store when there are some."""
        if not len(self) and not self.fill(1):
            return b""
        taken = bytes(self.peek(min(size, len(self))))
        self.skip(len(taken))
        return taken

    def send(self, data: bytes) -> int:
        """Send as the socket does."""
        return self._inner.send(data)

    def settimeout(self, seconds: float | None) -> None:
        """Set the socket's own time-out."""
        self._inner.settimeout(seconds)

    def close(self) -> None:
        """Close the socket."""
        self._closed = True
        self._inner.close()


class _Packetizer(Packetizer):
    """Reads packets of AES-GCM from the store; everything else is paramiko's.

    Python spells `__name` in here as it does in paramiko's Packetizer, because leading underscores of a class do not
    count (Python reference, 6.2.1): these are paramiko's own attributes.
    """

    # OpenSSH renews AES keys after 2^32 blocks (64 GiB); paramiko's 512 MiB stops a fast transfer every other second.
    REKEY_BYTES = 2**34
    REKEY_BYTES_OVERFLOW_MAX = 2**34
    REKEY_PACKETS = 2**31
    REKEY_PACKETS_OVERFLOW_MAX = 2**31

    # Private to paramiko and missing in its stubs.
    __socket: BufferedSocket
    __aead_in: bool
    __block_engine_in: Any
    __mac_size_in: int
    __iv_in: bytes
    __sequence_number_in: int
    __compress_engine_in: Any
    __remainder: bytes
    __need_rekey: bool
    __received_bytes: int
    __received_packets: int
    _inc_iv_counter: Any
    _check_keepalive: Any
    _trigger_rekey: Any

    def read_message(self) -> tuple[int, Message]:
        """Read one packet and return its type and content, as paramiko's does.

        Raises:
            EOFError: the stream has ended.
            NeedRekeyException: it is time for new keys, and nothing is under way.
            SSHException: the packet is damaged.
        """
        if not self.__aead_in or self.__compress_engine_in is not None or self.__remainder:
            return super().read_message()
        stream = self.__socket
        self._gather(4, may_rekey=True)
        length = int.from_bytes(stream.peek(4), "big")
        whole = 4 + length + self.__mac_size_in
        if not 8 <= length <= _LARGEST:
            raise SSHException(f"Invalid packet length {length}")
        self._gather(whole)
        packet = stream.peek(whole)
        plain: bytes = self.__block_engine_in.decrypt(self.__iv_in, packet[4:], packet[:4])
        stream.skip(whole)
        self.__iv_in = self._inc_iv_counter(self.__iv_in)
        if plain[1] == MSG_CHANNEL_DATA:
            # No copy: the reader stops before the padding by itself.
            message = Message(plain)
            message.packet.seek(2)
        else:
            message = Message(plain[2 : length - plain[0]])
        message.seqno = self.__sequence_number_in
        self.__sequence_number_in = (self.__sequence_number_in + 1) & 0xFFFFFFFF
        self._count(whole)
        return plain[1], message

    def _count(self, size: int) -> None:
        self.__received_bytes += size
        self.__received_packets += 1
        due = self.__received_bytes >= self.REKEY_BYTES or self.__received_packets >= self.REKEY_PACKETS
        if due and not self.__need_rekey:
            self._trigger_rekey()

    def _gather(self, wanted: int, *, may_rekey: bool = False) -> None:
        """Wait until so many bytes are there."""
        stream = self.__socket
        while len(stream) < wanted:
            try:
                if not stream.fill(wanted):
                    raise EOFError
            except TimeoutError:
                self._idle(may_rekey and not len(stream))
            except OSError as error:
                if error.errno != errno.EAGAIN:
                    raise EOFError from None
                self._idle(may_rekey and not len(stream))

    def _idle(self, may_rekey: bool) -> None:
        if self.closed:
            raise EOFError
        if may_rekey and self.__need_rekey:
            raise NeedRekeyException
        self._check_keepalive()


FastPacketizer = _Packetizer
