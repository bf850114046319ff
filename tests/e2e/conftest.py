"""The Debian host that several modules restore, booted once and anew after a test that left it damaged."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers.debian import Debian
from tests.servers.debian_mastodon import install
from tests.servers.debian_world import World, back_up


class _Keeper:
    """Makes a world when there is none that is as good as new."""

    def __init__(self, factory: pytest.TempPathFactory) -> None:
        self._factory = factory
        self._world: World | None = None

    def world(self) -> World:
        """One where nothing is damaged and nothing was kept aside."""
        if self._world is not None and not self._world.pristine():
            self.stop()
        if self._world is None:
            host = Debian(self._factory.mktemp("social")).start()
            try:
                self._world = back_up(host, install(host), self._factory.mktemp("operator"))
            except BaseException:
                host.stop()
                raise
        return self._world

    def stop(self) -> None:
        """End its host."""
        if self._world is not None:
            self._world.host.stop()
            self._world = None


@pytest.fixture(scope="session")
def debian_keeper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Keeper]:
    keeper = _Keeper(tmp_path_factory)
    yield keeper
    keeper.stop()


@pytest.fixture
def world(debian_keeper: _Keeper) -> World:
    """A Mastodon on Debian, backed up, undamaged."""
    return debian_keeper.world()
