"""What a stream over SSH says when its connection goes at the moment of a write."""

from __future__ import annotations

from typing import Any, cast

import pytest

from backends.connection.ssh import SshStream
from backends.connection.tail import StderrTail
from backends.errors import ConnectionFailed


class CutChannel:
    """A channel whose transport is gone before anybody has heard of it (paramiko/packet.py, write_all)."""

    tail = StderrTail()
    out_max_packet_size = 1024
    ended_by_server = False

    def send(self, data: bytes) -> int:
        raise EOFError


def test_a_connection_that_goes_while_writing_is_said_to_be_lost() -> None:
    lost = ConnectionFailed("the connection to social was lost")
    stream = SshStream(cast(Any, CutChannel()), lost, cast(Any, None))
    with pytest.raises(ConnectionFailed) as caught:
        stream.send(b"secret")
    assert caught.value is lost
