"""A store that comes back older than it was."""

import shutil
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.servers import RedisServer


class Backup:
    """A copy of all that a store had written to its disk at one moment. A context manager: the copy goes at its end."""

    def __init__(self, store: RedisServer, directory: Path) -> None:
        self._store = store
        self._data = store.log.parent / "appendonlydir"
        self._copy = directory / "backup"
        shutil.copytree(self._data, self._copy)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self._copy)

    def restore(self) -> None:
        """Kill the store, and start it again as it was."""
        self._store.kill()
        shutil.rmtree(self._data)
        shutil.copytree(self._copy, self._data)
        self._store.start()
