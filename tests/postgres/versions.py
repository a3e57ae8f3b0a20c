"""Which versions of PostgreSQL the tests run on, or those in $RIVHA_POSTGRES_VERSIONS ("14,17").

What the agent relies on (tests/contract) is held to the oldest and the newest that are supported, all else to the newest of the machine's
own and 18: a third version of everything would cost CI minutes.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.lab import binaries
from tests.postgres.nodes import Nodes

DEFAULT = "machine,18"
OF_THE_CONTRACT = "14,18"
VERSIONS = os.environ.get("RIVHA_POSTGRES_VERSIONS", DEFAULT).split(",")
CONTRACT_VERSIONS = os.environ.get("RIVHA_POSTGRES_VERSIONS", OF_THE_CONTRACT).split(",")


def bin_dir(version: str) -> Path:
    """Skips the machine's version when it is one of those named."""
    if version != "machine":
        return binaries.postgres(int(version))
    found = binaries.postgres()
    if str(binaries.version_of(found)) in VERSIONS:
        pytest.skip(f"the machine's PostgreSQL is {binaries.version_of(found)}, which is tested anyway")
    return found


@pytest.fixture(params=[pytest.param(v, id=f"postgres-{v}") for v in VERSIONS])
async def nodes(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Nodes]:
    made = Nodes(bin_dir(request.param), tmp_path)
    yield made
    await made.end()


@pytest.fixture
async def newest(tmp_path: Path) -> AsyncIterator[Nodes]:
    """For what does not depend on the version."""
    made = Nodes(bin_dir(VERSIONS[-1]), tmp_path)
    yield made
    await made.end()
