"""etcd3-py without its synchronous half: importing the package costs 5 MB more, resident, for `requests`, which no agent uses.

For the moment of the import a stand-in answers to that name; afterwards it is gone, and whoever wants the real one gets it. The price:
etcd3's synchronous `Client` and `Watcher` do not work in a process that imported this first. Called by `node` only.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

__all__ = ["AioClient", "BaseClient", "Version"]


class _Never(Exception):
    """What the synchronous watcher would catch."""


def _stand_in() -> dict[str, ModuleType]:
    requests, exceptions = ModuleType("requests"), ModuleType("requests.exceptions")
    vars(requests)["ConnectionError"] = _Never
    vars(exceptions)["ChunkedEncodingError"] = _Never
    return {"requests": requests, "requests.exceptions": exceptions}


def _load() -> tuple[Any, Any, Any]:
    spare = {} if "requests" in sys.modules else _stand_in()
    sys.modules.update(spare)
    try:
        from etcd3.aio_client import AioClient
        from etcd3.baseclient import BaseClient, sem
    finally:
        for name in spare:
            del sys.modules[name]
    return AioClient, BaseClient, sem.Version


if TYPE_CHECKING:
    from etcd3.aio_client import AioClient
    from etcd3.baseclient import BaseClient

    Version: Any
else:
    AioClient, BaseClient, Version = _load()
