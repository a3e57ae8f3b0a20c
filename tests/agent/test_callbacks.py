"""What the operator's scripts are told in a cluster's life: the real core in the simulator's world. Patroni's words (REFERENCE 1.14)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest

from rivha.agent.callbacks import Herald
from rivha.model import Data
from rivha.postgres.callbacks import Callbacks as Scripts
from rivha.postgres.settings import PostgresSettings
from tests.build import PRIMARY, STANDBY, a_view
from tests.sim.faults import parse
from tests.sim.host import Told
from tests.sim.shape import QUORUM, SETTINGS, Shape
from tests.sim.world import World

BORN = ["on_start primary"]  # db1 leads: the agents begin one after the other
JOINED = ["on_start replica"]
BECAME_REPLICA = ["on_role_change replica"]


def ran(script: str, settings: Mapping[str, object] = SETTINGS, lasts_s: float = 20.0) -> World:
    world = World(0, Shape(settings=dict(settings)), transcript=True, script=parse(script))
    world.network.jitter = False
    world.lasts_s = lasts_s
    assert not world.run()
    return world


def told(script: str, settings: Mapping[str, object] = SETTINGS, lasts_s: float = 20.0) -> dict[str, list[str]]:
    """Node -> what its scripts were told from the beginning on."""
    return {name: host.told.lines for name, host in ran(script, settings, lasts_s).hosts.items()}


def test_a_new_cluster_starts_and_its_standbys_do():
    assert told("") == {"db1": BORN, "db2": JOINED, "db3": JOINED}


def test_a_primary_that_died_and_was_succeeded_is_demoted_and_then_a_replica():
    """Nobody stopped it: only the agent can say that its virtual address must go (HAZARDS C 47)."""
    lines = told("2 postmaster_killed leader 0", QUORUM)

    assert lines["db1"] == [*BORN, "on_role_change demoted", *BECAME_REPLICA]
    assert sorted([lines["db2"], lines["db3"]]) == sorted([[*JOINED, "on_role_change primary"], JOINED])


def test_an_agent_that_adopts_what_runs_says_so_and_a_primarys_death_afterwards():
    """As Patroni's does."""
    lines = told("2 agent_killed leader 0\n2 agent_killed db2 0\n6 postmaster_killed leader 0", QUORUM)

    assert lines["db1"] == [*BORN, *BORN, "on_role_change demoted", *BECAME_REPLICA]
    assert lines["db2"][:2] == [*JOINED, *JOINED]


@pytest.mark.parametrize("after", [0.0, 4.0, 6.0], ids=["at once", "in its middle", "at its end"])
@pytest.mark.parametrize("settings", [SETTINGS, QUORUM], ids=["off", "quorum"])
def test_an_agent_that_dies_in_a_promotion_has_told_nobody_so_the_next_one_does(settings: Mapping[str, object], after: float):
    """Postgres goes on to become the primary; without a word its virtual address would stay away until the next failover."""
    world = ran(f"1 agent_killed_in_promote db1 {after}\n2 power_off db1 20", settings, lasts_s=30)
    leader = world.laws.leaders[-1]

    assert leader != "db1"
    assert world.hosts[leader].starts == 2
    assert world.hosts[leader].told.lines[-1].endswith(" primary")


def test_a_standby_that_a_person_promoted_and_that_leads_is_told_of():
    scripts = Told()
    herald = Herald(scripts)
    herald.saw(a_view().me(STANDBY).view())
    herald.saw(a_view().me(PRIMARY).view())
    assert scripts.lines == ["on_start replica"], "it does not lead"
    herald.saw(a_view().me(PRIMARY).leads().view())

    assert scripts.lines == ["on_start replica", "on_role_change primary"]


def test_a_primary_that_was_adopted_is_demoted_although_its_directory_says_nothing_any_more():
    """pg_control is gone with the disk, say: what the directory was, only the agent knows, from having seen it run."""
    scripts = Told()
    herald = Herald(scripts)
    herald.saw(a_view().me(PRIMARY).leads().view())
    gone = a_view().no_data(Data.INACCESSIBLE).view()
    herald.deposed_if_dead(gone, leads=True)
    assert scripts.lines == BORN
    herald.deposed_if_dead(gone, leads=False)

    assert scripts.lines == [*BORN, "on_role_change demoted"]


@pytest.mark.parametrize("fault", ["crash_loop leader 8", "power_off leader 20"])
def test_one_that_was_rewound_in_between_has_become_a_replica_too(fault: str):
    """The directory says `standby` after pg_rewind; what the scripts believe does not come from it."""
    world = ran(f"2 cut_from_standbys leader 20\n3 {fault}", lasts_s=40)

    assert any("begins rewind db" in line for line in world.lines)
    assert world.hosts["db1"].told.lines[-2:] == ["on_role_change demoted", *BECAME_REPLICA]


def test_one_that_died_and_is_started_in_place_is_no_replica_in_between():
    assert told("2 postmaster_killed leader 0")["db1"] == [*BORN, "on_start primary"]


def test_one_that_cannot_be_started_again_is_demoted_once():
    lines = told("2 crash_loop leader 40", lasts_s=60)

    assert lines["db1"].count("on_role_change demoted") == 1
    assert lines["db1"][-1:] == BECAME_REPLICA


def test_a_switchover_stops_one_and_promotes_the_other():
    lines = told("2 switchover db2 0")

    assert lines == {"db1": [*BORN, "on_stop primary", *BECAME_REPLICA], "db2": [*JOINED, "on_role_change primary"], "db3": JOINED}


@pytest.mark.parametrize(("host", "role"), [("db1", "primary"), ("db2", "replica")])
def test_a_restart_is_a_restart(host: str, role: str):
    assert told(f"2 restart_asked {host} 0")[host][1:] == [f"on_restart {role}"]


def test_a_restart_that_fails_is_told_by_what_comes_of_it():
    lines = told("1.9 disk_full leader 30\n2 restart_asked leader 0", QUORUM, lasts_s=40)

    assert lines["db1"] == [*BORN, "on_role_change demoted", *BECAME_REPLICA]


def test_an_agent_that_ends_stops_its_postgres():
    assert told("2 agent_told_to_end db2 5")["db2"] == [*JOINED, "on_stop replica", *JOINED]
    assert told("2 agent_told_to_end db1 5")["db1"] == [*BORN, "on_stop primary", *BECAME_REPLICA]


def test_what_the_fence_stops_was_stopped_and_told_once():
    """The tick hangs on a disk, and only the fence is left; it fires twice."""
    world = ran("2 config_edited_on_a_slow_disk leader 10", lasts_s=30)

    assert len([line for line in world.lines if "db1" in line and "fence: Postgres has stopped" in line]) > 1
    assert world.hosts["db1"].told.lines == [*BORN, "on_stop primary", *BORN]


# ---- the agent's own end


def test_an_agent_that_ends_does_not_wait_for_its_checkpoint_as_long_as_it_takes():
    world = ran("2 slow_checkpoint leader 600\n3 agent_told_to_end db1 200", lasts_s=100)

    assert world.laws.leaders == ["db1", "db2"]
    assert world.hosts["db1"].told.lines[:2] == [*BORN, "on_stop primary"]


def test_not_even_for_one_that_has_begun():
    """A switchover's."""
    world = ran("2 slow_checkpoint leader 600\n3 switchover db2 0\n10 agent_told_to_end db1 200", lasts_s=100)

    assert world.laws.leaders[:2] == ["db1", "db2"]


def test_a_restart_that_waits_for_its_checkpoint_gives_way():
    world = ran("2 slow_checkpoint leader 600\n3 restart_asked db1 0\n10 agent_told_to_end db1 200", lasts_s=100)

    assert world.laws.leaders == ["db1", "db2"]
    assert world.hosts["db1"].told.lines[:2] == [*BORN, "on_stop primary"]


async def test_a_script_that_tells_of_the_end_may_finish(tmp_path: Path):
    """The agent ends right after the stop that it tells of; a virtual address that is half removed is not removed."""
    script = tmp_path / "script"
    script.write_text(f"#!/bin/sh\ntouch {tmp_path}/begun\nuntil [ -e {tmp_path}/go ]; do sleep 0.02; done\necho $1 $2 > {tmp_path}/said\n")
    script.chmod(0o755)
    made = Scripts(PostgresSettings("a", "demo", str(tmp_path), callbacks={"on_stop": str(script)}))
    made.call("on_stop", "primary")
    closing = asyncio.create_task(made.close(60.0))
    async with asyncio.timeout(60):
        while not (tmp_path / "begun").exists():
            await asyncio.sleep(0.02)
    (tmp_path / "go").touch()
    await closing

    assert (tmp_path / "said").read_text() == "on_stop primary\n"
