"""Faults at a moment: in the middle of a promotion, a rewind, a clone, a switchover; and what is rare: a full disk, a clock that jumps."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from tests.faults.faults import CUT_S, fault, replaced
from tests.faults.servers import Database
from tests.faults.site import CLOCK_JUMP_S, Site
from tests.lab.node import SQL_ERRORS, Node, now
from tests.lab.processes import working_below

LOOK_S = 0.003
WATCH_OPENS_S = 0.3
SEEN_S = 60.0  # within this something has to begin that the fault waits for
TRIES = 3
SWITCHOVER_S = 60.0
WAL_AT_A_TIME = 2**20
LOOK_TAKES_S = 1.0  # an agent whose look at etcd is younger than the configuration by so much knows that
VOTER_STAYS_S = 600  # degrade_after, while one who hears nothing shall stay a voter


# ---- promotion


@asynccontextmanager
async def watching_for_the_winner(site: Site, old: Node) -> AsyncIterator[Callable[[], Awaitable[Database]]]:
    """`await it()`: who wrote itself into the leader key, known the moment it stands in etcd: it has not been promoted yet."""
    found: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def watch() -> None:
        async for change in site.etcd.watch(site.prefix + "leader"):
            if change.value not in (None, old.name) and not found.done():
                found.set_result(str(change.value))

    async def wait() -> Database:
        async def won() -> bool:
            return found.done()

        await site.wait_for(won, f"somebody but {old.name} writes itself into the leader key", SEEN_S, poll_s=LOOK_S)
        return site.database(found.result())

    watching = asyncio.create_task(watch(), name="watch the leader key")
    await asyncio.sleep(WATCH_OPENS_S)
    try:
        yield wait
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


@fault
async def winner_powered_off_during_promotion(site: Site) -> None:
    """The primary's host is lost, and the one that takes over is lost the moment it has won; both come back."""
    old = await site.primary_database()
    async with watching_for_the_winner(site, old) as winner:
        await old.host.power_off()
        new = await winner()
        await new.host.power_off()
    await asyncio.sleep(1.0)
    for node in (new, old):
        await node.host.power_on()
        node.agent.start()
    await site.writing(now(), 120)


@fault
async def winner_killed_during_promotion(site: Site) -> None:
    """kill -9 of agent and Postgres of the one that has just won; systemd starts its agent again."""
    old = await site.primary_database()
    async with watching_for_the_winner(site, old) as winner:
        await old.host.power_off()
        new = await winner()
        new.service.babysit(True)
        new.agent.signal(signal.SIGKILL)
        await new.kill_postgres()
    await site.writing(now(), 120)
    new.service.babysit(False)


# ---- rewind and clone


async def seen(node: Database, program: str, *, unless_streaming: bool = False) -> bool:
    """Waits until the program runs on the node's host. False: it has not in time; or not before the node streamed, when it had no need."""
    path = node.bin_dir / program
    until = time.monotonic() + SEEN_S
    while not working_below(node.folder, programs=path):
        if time.monotonic() > until:
            return False
        if unless_streaming and (await node.status()).get("replication_state") == "streaming":
            return False
        await asyncio.sleep(LOOK_S)
    return True


async def fall_behind(site: Site) -> Database:
    """A primary is cut off while clients write, and loses its leadership; it is back on the wire, with WAL that nobody else has."""
    old = await site.primary_database()
    await old.host.unplug()
    await replaced(site, old)
    await old.host.plug_in()
    return old


@fault
async def powered_off_during_rewind(site: Site) -> None:
    """A directory that is half rewound must be rewound again, or cloned; never started."""
    for _ in range(TRIES):
        old = await fall_behind(site)
        if await seen(old, "pg_rewind", unless_streaming=True):
            await old.host.power_off()
            await asyncio.sleep(1.0)
            return
        await site.heal()
    raise AssertionError(f"no rewind in {TRIES} tries: nothing was interrupted")


@fault
async def rewind_killed(site: Site) -> None:
    """kill -9 of pg_rewind alone."""
    for _ in range(TRIES):
        old = await fall_behind(site)
        if await seen(old, "pg_rewind", unless_streaming=True):
            for pid in working_below(old.folder, programs=old.bin_dir / "pg_rewind"):
                os.kill(pid, signal.SIGKILL)
            return
        await site.heal()
    raise AssertionError(f"no rewind in {TRIES} tries: nothing was interrupted")


async def reinitialize(node: Database) -> None:
    code, text = await node.ask("POST", "/reinitialize", {"force": True}, SWITCHOVER_S)
    assert code == 200, f"{node.name} is not reinitialized: {code} {text}"


@fault
async def powered_off_during_clone(site: Site) -> None:
    """A half copy must not be started, nor count as a voter."""
    [standby, _] = await site.standbys()
    asked = asyncio.create_task(reinitialize(standby))
    assert await seen(standby, "pg_basebackup"), "no clone began"
    await standby.host.power_off()
    await asyncio.gather(asked, return_exceptions=True)
    await asyncio.sleep(1.0)


@fault
async def primary_lost_during_clone(site: Site) -> None:
    """Who is being cloned is no voter; the other standby is enough to take over."""
    old = await site.primary_database()
    [standby, _] = await site.standbys()
    asked = asyncio.create_task(reinitialize(standby))
    assert await seen(standby, "pg_basebackup"), "no clone began"
    await old.host.power_off()
    await asyncio.gather(asked, return_exceptions=True)
    await asyncio.sleep(CUT_S)
    await old.host.power_on()
    old.agent.start()
    await site.writing(now(), 120)


# ---- switchover


async def switch(via: Node, leader: Node, candidate: Node) -> tuple[int, str]:
    return await via.ask("POST", "/switchover", {"leader": leader.name, "candidate": candidate.name}, SWITCHOVER_S)


async def hand_over_begins(old: Node, candidate: Node) -> asyncio.Task[tuple[int, str]]:
    """A switchover that the primary has begun to stop for; what is answered later is the harm's doing; answered before, it fails."""
    told = old.agent.log.stat().st_size
    asked = asyncio.create_task(switch(old, old, candidate))
    until = time.monotonic() + SEEN_S
    while not any('"job begins"' in line and '"handover"' in line for line in _said_since(old, told)):
        assert not asked.done(), f"{old.name} did not begin to hand over: {asked.result()}"
        assert time.monotonic() < until, f"{old.name} does not begin to hand over"
        await asyncio.sleep(LOOK_S)
    return asked


def _said_since(node: Node, offset: int) -> list[str]:
    """The whole lines of its agent's log from there on."""
    with node.agent.log.open("rb") as file:
        file.seek(offset)
        return file.read().decode(errors="replace").split("\n")[:-1]


@fault
async def switchover(site: Site) -> None:
    """No harm at all: the primary hands over to whom it was told to."""
    old = await site.primary_database()
    [candidate, _] = await site.standbys()
    code, text = await switch(old, old, candidate)
    assert code == 200, f"{code} {text}"
    leader = await site.primary()
    assert leader is candidate, f"{leader.name} leads"
    await site.writing(now())


@fault
async def switchover_to_a_candidate_that_dies(site: Site) -> None:
    """The candidate's host is lost in the middle of it; somebody takes writes again all the same."""
    old = await site.primary_database()
    [candidate, _] = await site.standbys()
    asked = await hand_over_begins(old, candidate)
    await candidate.host.power_off()
    await asked
    await site.writing(now(), 120)


@fault
async def two_switchovers_at_once(site: Site) -> None:
    """To two candidates, through two agents: one wins or none does, and no request is left over."""
    old = await site.primary_database()
    one, other = await site.standbys()
    answers = await asyncio.gather(switch(old, old, one), switch(other, old, other))
    assert all(code for code, _ in answers), f"no answer: {answers}"
    await site.writing(now())
    await site.heal()
    left = {key: value for key, value in (await site.keys()).items() if key == "failover" and json.loads(value or "{}")}
    assert not left, left


@fault
async def primary_killed_during_switchover(site: Site) -> None:
    """kill -9 of the primary's Postgres while it hands over."""
    old = await site.primary_database()
    [candidate, _] = await site.standbys()
    asked = await hand_over_begins(old, candidate)
    await old.kill_postgres()
    await asked
    await site.writing(now(), 120)


@fault
async def started_while_etcd_is_silent(site: Site) -> None:
    """A host that comes back without etcd serves reads with the cluster's parameters, not with Postgres's own; then it becomes primary."""
    old = await site.primary_database()
    [standby, _] = await site.standbys()
    site.cut([standby.host], site.etcds.members)
    await standby.host.power_off()
    await standby.host.power_on()
    standby.agent.start()

    async def serves_reads() -> bool:
        return standby.postmaster() is not None and bool(await _setting(standby))

    await site.wait_for(serves_reads, f"{standby.name} serves reads without etcd")
    assert (its := await _setting(standby)) == (own := await _setting(old)), f"max_connections: {standby.name} has {its}, {old.name} {own}"
    await site.heal()
    code, text = await switch(old, old, standby)
    assert code == 200, f"{code} {text}"
    await site.writing(now())


async def _setting(node: Node) -> str:
    """Of a parameter that lies in the cluster's configuration and takes a restart; "" while Postgres does not answer."""
    try:
        return str((await node.fetch("show max_connections"))[0]["max_connections"])
    except SQL_ERRORS:
        return ""


# ---- what clients and disks do to synchronous replication (HAZARDS H)


@fault
async def commits_cancelled_while_they_wait(site: Site) -> None:
    """H 1: somebody cancels commits that wait for a voter; they are there, with a warning, and go down with their primary."""
    old = await site.primary_database()
    site.cut([old.host], [standby.host for standby in await site.standbys()])
    waiting = "from pg_stat_activity where wait_event = 'SyncRep' and backend_type = 'client backend'"

    async def some_wait() -> bool:
        return bool(await old.fetch(f"select 1 {waiting}"))

    if await site.mode() != "off":
        await site.wait_for(some_wait, "commits wait for a voter", poll_s=LOOK_S)
        await old.fetch(f"select pg_cancel_backend(pid) {waiting}")
    await old.host.power_off()
    await site.mend_network()
    await replaced(site, old)


@asynccontextmanager
async def silent_voters_stay(site: Site, leader: Node) -> AsyncIterator[None]:
    """Meanwhile who does not reply is not taken out of `sync`, so that commits wait for it or for another voter."""
    before = json.loads((await site.keys())["config"]).get("degrade_after")
    await _patch(site, {"degrade_after": VOTER_STAYS_S})
    since = time.time()  # as dcs_last_seen

    async def has_looked() -> bool:
        return float((await leader.status()).get("dcs_last_seen", 0)) >= since + LOOK_TAKES_S

    await site.wait_for(has_looked, f"{leader.name} has read the configuration")
    try:
        yield
    finally:
        await _patch(site, {"degrade_after": before})


async def _patch(site: Site, changes: dict[str, object]) -> None:
    async def done() -> bool:
        for node in site.nodes:
            if (await node.ask("PATCH", "/config", changes))[0] == 200:
                return True
        return False

    await site.wait_for(done, f"{changes} is in the configuration")


@fault
async def voter_comes_back_empty(site: Site) -> None:
    """H 11: a voter has lost its data, which it alone had acknowledged, and the primary is lost: its word is worth nothing."""
    old = await site.primary_database()
    synchronous, voters = await site.mode() != "off", await site.voters()
    voter, other = await site.standbys()
    async with silent_voters_stay(site, old):
        site.cut([old.host], [other.host])
        await site.writing(now())  # more commits than were under way to the other one
        await voter.host.power_off()
        await old.host.power_off()
        await asyncio.to_thread(shutil.rmtree, voter.data)
        await site.mend_network()
        await voter.host.power_on()
        voter.agent.start()
        await asyncio.sleep(CUT_S)
        if synchronous:
            assert not await site.primaries(), f"somebody was promoted who lacks commits\n{await site.describe()}"
            assert await site.voters() == voters, f"who is to elect has changed\n{await site.describe()}"
        await old.host.power_on()
        old.agent.start()
        await site.writing(now(), 120)
        if synchronous:
            assert await site.primary() is old, f"somebody leads who lacked commits\n{await site.describe()}"


# ---- the disk


@fault
async def disk_full(site: Site) -> None:
    """Not a byte is left for the primary's data and WAL, and it dies of that. Only on a site whose databases have own disks."""
    old = await site.primary_database()
    before = old.postmaster()
    site.fill_disk(old)
    # Rows are refused from now on, and that is all right: it is WAL that it cannot do without, and refused rows write none.
    until = time.monotonic() + SEEN_S
    while old.postmaster() == before:
        assert time.monotonic() < until, "Postgres lives on without a disk"
        try:
            await old.fetch(f"select pg_logical_emit_message(false, 'fill', repeat('x', {WAL_AT_A_TIME}))")
        except SQL_ERRORS:
            await asyncio.sleep(LOOK_S)
    await replaced(site, old)


# ---- the clock


async def clock_jumps(site: Site, seconds: float) -> None:
    """Of the primary's whole host, and of one standby's the other way round: what people call the time decides nothing."""
    old = await site.primary_database()
    [standby, _] = await site.standbys()
    at = now()
    site.set_clock(old, seconds)
    site.set_clock(standby, -seconds)
    await asyncio.sleep(CUT_S)
    assert await site.primary() is old, "the clock made another one lead"
    await site.writing(at + 1.0)
    old.kill_postmaster()  # and with wrong clocks a failover goes as ever
    await site.writing(now() + 0.5)
    site.set_clock(old, 0.0)
    site.set_clock(standby, 0.0)
    await asyncio.sleep(3.0)


@fault
async def clock_stepped_forward(site: Site) -> None:
    """The primary's clock jumps ten minutes ahead, a standby's ten minutes back. Only on a site with clocks of its own."""
    await clock_jumps(site, CLOCK_JUMP_S)


@fault
async def clock_stepped_back(site: Site) -> None:
    """The primary's clock jumps ten minutes back, a standby's ten minutes ahead. Only on a site with clocks of its own."""
    await clock_jumps(site, -CLOCK_JUMP_S)
