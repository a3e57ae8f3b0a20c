"""The faults by name (the moments are in moments.py).

Each does its harm, waits for what must come of it where something must, and leaves the repair to `Site.heal`. None of them asserts a time:
an outage is measured by the clients and reported. tests/faults/trial.py runs them.
"""

from __future__ import annotations

import asyncio
import signal

from tests.faults.servers import Database
from tests.faults.site import Site
from tests.faults.trial import Fault
from tests.lab.node import now

CUT_S = 15.0  # longer than a lease lives (ttl 10) and everybody has drawn his conclusions
ETCD_LOSS_S = 45.0
LATE_S, LOST_SHARE = 0.04, 0.1
SUSPECT_AFTER_S = 2.0  # Rivha's default

FAULTS: dict[str, Fault] = {}


def fault(harm: Fault) -> Fault:
    FAULTS[harm.__name__] = harm
    return harm


async def replaced(site: Site, old: Database) -> None:
    """Somebody else leads, and clients write there."""
    await site.another_leads(old)
    await site.writing(now())


async def still_leads(site: Site, old: Database, seconds: float) -> None:
    """Asked at the end only: what happened in between is in the ledger."""
    await asyncio.sleep(seconds)
    leader = await site.primary()
    assert leader is old, f"{leader.name} leads now, not {old.name}\n{await site.describe()}"


# ---- Postgres and hosts


@fault
async def postmaster_killed(site: Site) -> None:
    """kill -9 of the primary's postmaster; its children end by themselves."""
    old = await site.primary_database()
    at = now()
    old.kill_postmaster()
    await site.writing(at + 0.5)


@fault
async def primary_powered_off(site: Site) -> None:
    """The primary's host is off, and on again when somebody else has taken over."""
    old = await site.primary_database()
    await old.host.power_off()
    await replaced(site, old)


@fault
async def primary_killed_whole(site: Site) -> None:
    """kill -9 of agent, guard and Postgres at once, on a host that lives: it resets connections; systemd is late."""
    old = await site.primary_database()
    await old.kill_all_programs()
    await replaced(site, old)
    old.agent.start()
    await site.writing(now())


@fault
async def primary_power_cycled(site: Site) -> None:
    """Off and on again at once: it is back before anybody can be sure that it is gone."""
    old = await site.primary_database()
    await old.host.power_off()
    await old.host.power_on()
    old.agent.start()
    await site.writing(now())


@fault
async def voter_powered_off(site: Site) -> None:
    """A standby's host is off for a while."""
    old = await site.primary_database()
    [standby, _] = await site.standbys()
    await standby.host.power_off()
    await still_leads(site, old, CUT_S)
    await site.writing(now())


@fault
async def all_standbys_powered_off(site: Site) -> None:
    """With nobody left to vote a cluster that is not strict goes on alone."""
    old = await site.primary_database()
    for standby in await site.standbys():
        await standby.host.power_off()
    await still_leads(site, old, CUT_S)
    await site.writing(now())


@fault
async def all_databases_power_cycled(site: Site) -> None:
    """A blackout of the database hosts; the last primary has everything, the others may not."""
    for host in site.databases:
        await host.power_off()
    for host in reversed(site.databases):
        await host.power_on()
        host.services["agent"].start()
    await site.writing(now())


@fault
async def postgres_frozen(site: Site) -> None:
    """SIGSTOP of every Postgres process of the primary: it neither answers nor dies."""
    old = await site.primary_database()
    at = now()
    old.freeze_postgres()
    await site.writing(at + 0.5, 120)


@fault
async def primary_frozen(site: Site) -> None:
    """Agent and Postgres stand still, as on a paused virtual machine, and go on when somebody else leads."""
    old = await site.primary_database()
    old.freeze_everything()
    await replaced(site, old)
    old.thaw_everything()
    await asyncio.sleep(2.0)


# ---- the agent


@fault
async def agent_killed_and_restarted(site: Site) -> None:
    """kill -9, and systemd starts it again at once: no failover, and Postgres goes on, if it answers before anybody may suspect it."""
    old = await site.primary_database()
    before, starts, at = old.postmaster(), old.service.starts, now()
    old.service.babysit(True)
    old.agent.signal(signal.SIGKILL)

    async def answers() -> bool:
        return old.agent.alive and old.service.starts > starts and bool((await old.ask("GET", "/liveness", timeout_s=0.5))[0])

    await site.wait_for(answers, "the agent is back", poll_s=0.01)
    in_time = now() - at < SUSPECT_AFTER_S  # on an overloaded machine Python alone may need longer than that to start
    await asyncio.sleep(CUT_S / 2)
    old.service.babysit(False)
    if in_time:
        await still_leads(site, old, 0.0)
        assert old.postmaster() == before, "Postgres was restarted"
    await site.writing(now())


@fault
async def agent_killed(site: Site) -> None:
    """kill -9, and nobody starts it again; its Postgres runs on and nobody may believe it."""
    old = await site.primary_database()
    await old.kill_agent()
    await replaced(site, old)


@fault
async def agent_frozen(site: Site) -> None:
    """SIGSTOP, and SIGCONT when somebody else leads."""
    old = await site.primary_database()
    old.agent.freeze()
    await replaced(site, old)
    old.agent.thaw()
    await asyncio.sleep(2.0)


@fault
async def standby_agent_frozen(site: Site) -> None:
    """A voter's agent stands still while its Postgres streams on; nobody else is disturbed."""
    old = await site.primary_database()
    [standby, _] = await site.standbys()
    standby.agent.freeze()
    await still_leads(site, old, CUT_S)
    standby.agent.thaw()
    await site.writing(now())


# ---- the network


@fault
async def primary_partitioned(site: Site) -> None:
    """The primary's cable carries nothing; it must notice by itself before it is heard again."""
    old = await site.primary_database()
    await old.host.unplug()
    await replaced(site, old)
    await asyncio.sleep(CUT_S)


@fault
async def primary_partitioned_briefly(site: Site) -> None:
    """The cable is back the moment somebody else leads: the old primary may still believe in itself."""
    old = await site.primary_database()
    await old.host.unplug()
    await site.another_leads(old)
    await old.host.plug_in()
    await site.writing(now())


@fault
async def voter_partitioned(site: Site) -> None:
    """One standby hears and says nothing; the other one is enough."""
    old = await site.primary_database()
    [standby, _] = await site.standbys()
    await standby.host.unplug()
    await still_leads(site, old, CUT_S)
    await site.writing(now())


@fault
async def etcd_leader_partitioned(site: Site) -> None:
    """etcd elects another leader; the cluster's stays."""
    old = await site.primary_database()
    await (await site.etcds.leader()).unplug()
    await still_leads(site, old, CUT_S)
    await site.writing(now())


@fault
async def primary_cut_from_etcd(site: Site) -> None:
    """Only from etcd: the voters hear it, and their replies are its proof. Asynchronous, it must step down."""
    old = await site.primary_database()
    synchronous = await site.mode() != "off"
    site.cut([old.host], site.etcds.members)
    if synchronous:
        await asyncio.sleep(CUT_S)
        await site.writing(now())
    else:
        await replaced(site, old)


@fault
async def primary_cut_from_standbys(site: Site) -> None:
    """Only from the other database hosts: nobody can vote, and nobody may take over."""
    old = await site.primary_database()
    site.cut([old.host], [standby.host for standby in await site.standbys()])
    await still_leads(site, old, CUT_S)
    await site.writing(now())


@fault
async def primary_cut_from_standbys_and_lost(site: Site) -> None:
    """What it would have acknowledged between the two is what replication must not let it acknowledge."""
    old = await site.primary_database()
    site.cut([old.host], [standby.host for standby in await site.standbys()])
    await asyncio.sleep(SUSPECT_AFTER_S / 2)  # it goes on alone only after two seconds
    await old.host.power_off()
    await site.mend_network()
    await replaced(site, old)


@fault
async def primary_cut_from_clients(site: Site) -> None:
    """HAProxy cannot reach it, everybody else can: no reason for a failover."""
    old = await site.primary_database()
    outside = [host for host in site.hosts if host.name in ("proxy", "client")]
    site.cut([old.host], outside)
    await still_leads(site, old, CUT_S)
    await site.mend_network()
    await site.writing(now())


@fault
async def primary_deaf(site: Site) -> None:
    """A one-way cut: it sends, and hears nobody."""
    old = await site.primary_database()
    site.cut([host for host in site.hosts if host is not old.host], [old.host], both_ways=False)
    await asyncio.sleep(CUT_S)
    await site.mend_network()
    await site.writing(now())


@fault
async def primary_mute(site: Site) -> None:
    """The other one-way cut: it hears, and nobody hears it."""
    old = await site.primary_database()
    site.cut([old.host], [host for host in site.hosts if host is not old.host], both_ways=False)
    await asyncio.sleep(CUT_S)
    await site.mend_network()
    await site.writing(now())


@fault
async def voter_deaf_to_the_primary(site: Site) -> None:
    """One standby gets nothing from the primary, and the primary all from it."""
    old = await site.primary_database()
    [standby, _] = await site.standbys()
    site.cut([old.host], [standby.host], both_ways=False)
    await still_leads(site, old, CUT_S)
    await site.writing(now())


@fault
async def primary_on_a_slow_wire(site: Site) -> None:
    """40 ms more each way: commits are slow, and nobody has a reason to take over; then it dies, and somebody does."""
    old = await site.primary_database()
    await old.host.delay(LATE_S)
    await still_leads(site, old, CUT_S)
    await site.writing(now())
    old.kill_postmaster()
    await site.writing(now() + 0.5)


@fault
async def everything_on_a_lossy_wire(site: Site) -> None:
    """Every host loses a tenth of what it receives; TCP mends that slowly. Whoever leads at the end, nothing acknowledged is lost."""
    for host in site.hosts:
        host.loses = LOST_SHARE
        host.filter()
    await asyncio.sleep(2 * CUT_S)
    await site.mend_network()
    await site.writing(now())


# ---- etcd


@fault
async def etcd_without_quorum(site: Site) -> None:
    """Two of three etcd hosts are off for 45 s: synchronous, the voters' proof keeps the primary; asynchronous, it must step down."""
    synchronous = await site.mode() != "off"
    for host in site.etcds.members[:2]:
        await host.power_off()
    await asyncio.sleep(ETCD_LOSS_S)
    if synchronous:
        await site.writing(now())
    for host in site.etcds.members[:2]:
        await host.power_on()
        host.services["etcd"].start()
    await site.writing(now())


@fault
async def etcd_leader_and_primary_lost(site: Site) -> None:
    """Both hosts at once: a new etcd leader extends every lease, and nobody may wait for that."""
    old = await site.primary_database()
    etcd = await site.etcds.leader()
    await asyncio.gather(old.host.power_off(), etcd.power_off())
    await replaced(site, old)
