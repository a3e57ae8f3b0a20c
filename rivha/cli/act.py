"""rivhactl's commands that make something happen: switchover, failover, restart, reinit, reload, pause, resume, flush, remove.

Each shows the cluster, asks, has an agent do it, and tells what happens meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import click

from rivha.api.switching import why_it_may_lose
from rivha.cli.common import asked, chosen, command, confirm, each, force_option, names_argument, scope_argument, show
from rivha.cli.config import change_config
from rivha.cli.loss import loss, of_the_old_leader
from rivha.cli.place import Failed, Options, Place, UnreachableError, leader_first, place, place_and_names
from rivha.cli.story import Story, is_whole, telling
from rivha.config import policy
from rivha.dcs.base import Delete, Txn, Unchanged
from rivha.dcs.writes import file_failover
from rivha.model import Cluster, Outcome

SWITCH_S = 60.0  # an agent answers within twice the ttl or 20 s
SETTLE_S = 30.0  # until the others stream again; what takes longer is reported, not an error
RESTART_S = 310.0  # primary_start_timeout's default, and a little
PAUSE_S = 30.0
REINIT_S = 86_400.0
REMOVE_AT_ONCE = 60  # etcd takes 128 operations in a transaction, and each key is a compare and a delete

# ---- who leads


@click.command()
@scope_argument
@click.option("--leader", "--primary", "leader", help="Who leads now; nothing is done when it is another.")
@click.option("--candidate", help="Who is to take over; else the best replica.")
@click.option("--scheduled", metavar="TIME", help="ISO 8601 with a zone; `now` is now.")
@force_option
@command
async def switchover(
    options: Options, scope: str | None, leader: str | None, candidate: str | None, scheduled: str | None, force: bool
) -> None:
    """A planned change of the leader; nothing is lost."""
    async with place(options, scope) as here:
        cluster = await here.read()
        show(cluster, here.scope)
        now_leads = cluster.leader.name if cluster.leader else None
        if now_leads is None:
            raise Failed("nobody leads, so nobody can hand over; see `rivhactl failover`")
        if leader not in (None, now_leads):
            raise Failed(f"{leader} does not lead, {now_leads} does")
        if candidate is None and not force:
            others = [member.name for member in cluster.members if member.name != now_leads]
            candidate = click.prompt(f"Candidate {others}", default="", show_default=False).strip() or None
        at = None if scheduled in (None, "now") else scheduled
        what = f"switchover cluster {here.scope}, demoting current leader {now_leads}"
        confirm(f"Are you sure you want to {f'schedule {what} at {at}' if at else what}?", force=force)
        body = {"leader": now_leads, "candidate": candidate, "scheduled_at": at}
        await _switch(here, cluster, "/switchover", {key: value for key, value in body.items() if value})


@click.command()
@scope_argument
@click.option("--candidate", help="Who is to take over.")
@click.option("--accept-loss", is_flag=True, help="In a synchronous mode: also to a member that may lack acknowledged commits.")
@force_option
@command
async def failover(options: Options, scope: str | None, candidate: str | None, accept_loss: bool, force: bool) -> None:
    """Promotes a named member, also when nobody leads. In asynchronous mode, and with --accept-loss, what it has not received is lost."""
    async with place(options, scope) as here:
        cluster = await here.read()
        show(cluster, here.scope)
        if candidate is None:
            if force:
                raise click.UsageError("--candidate is needed: a failover is to a named member")
            candidate = str(click.prompt(f"Candidate {[m.name for m in cluster.members]}")).strip()
        mode = policy(cluster.config or {}).synchronous_mode
        if mode == "off" or (accept_loss and why_it_may_lose(cluster, mode, candidate)):
            for line in (*await loss(here.agents, cluster, candidate), *(of_the_old_leader(cluster, candidate) if accept_loss else ())):
                click.echo(line)
        demoting = f", demoting current leader {cluster.leader.name}" if cluster.leader else ""
        confirm(f"Are you sure you want to failover cluster {here.scope} to {candidate}{demoting}?", force=force)
        try:
            await _switch(here, cluster, "/failover", {"candidate": candidate, **({"accept_loss": True} if accept_loss else {})})
        except UnreachableError as why:
            click.echo(f"No agent answers ({why}); writing the request to etcd.")
            await _file_failover(here, cluster, candidate, accept_loss)


async def _switch(here: Place, cluster: Cluster, path: str, body: Mapping[str, object]) -> None:
    """Asks, and tells what happens until all is well again. Raises UnreachableError when no agent can be reached."""
    async with telling(here, cluster, click.echo) as story:
        asking = asyncio.create_task(asked(here, leader_first(cluster), "POST", path, body, SWITCH_S))
        asking.add_done_callback(lambda _task: story.wake(""))
        while not asking.done():
            await story.look()
        answer = await asking
        story.wake("")  # what was read last may be from before the answer
        await story.look()
        story.say(answer)
        if "scheduled_at" not in body:
            await _settle(story)
    show(story.now, here.scope)


async def _settle(story: Story) -> None:
    if not await story.until(is_whole, story.elapsed_s + SETTLE_S):
        click.echo(f"Not everybody streams from the new leader after {SETTLE_S:g} s; see the table and `rivhactl explain MEMBER`.")


async def _file_failover(here: Place, cluster: Cluster, candidate: str, accept_loss: bool) -> None:
    """Under the check that an agent would have made."""
    if cluster.member(candidate) is None:
        raise Failed(f"there is no member {candidate}; there are: {', '.join(m.name for m in cluster.members) or 'none'}")
    why = None if accept_loss else why_it_may_lose(cluster, policy(cluster.config or {}).synchronous_mode, candidate)
    if why is not None:
        raise Failed(f"failover is not possible: {why}; --accept-loss promotes it all the same")
    outcome = await here.commit(file_failover(cluster, None, candidate, None, accept_loss))
    if outcome is not Outcome.DONE:
        raise Failed("another request came first" if outcome is Outcome.REFUSED else "unknown whether it was written: etcd did not answer")
    async with telling(here, cluster, click.echo) as story:
        story.say("the request is in etcd; waiting for an agent to take it up")
        if not await story.until(lambda now: now.leader is not None and now.leader.name == candidate, SWITCH_S):
            raise Failed(f"nobody took the request up within {SWITCH_S:g} s; it stays in etcd (`rivhactl flush switchover` removes it)")
        await _settle(story)
    show(story.now, here.scope)


# ---- members


@click.command()
@names_argument
@click.option("-r", "--role", type=click.Choice(["leader", "primary", "replica", "standby", "any"]), default="any", show_default=True)
@click.option("--any", "any_one", is_flag=True, help="Only one of them.")
@click.option("--pg-version", help="Only if PostgreSQL is older than this.")
@click.option("--pending", is_flag=True, help="Only where a setting waits for a restart.")
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), help="Seconds for each restart.")
@click.option("--scheduled", metavar="TIME", help="ISO 8601 with a zone; `now` is now.")
@force_option
@command
async def restart(
    options: Options,
    names: tuple[str, ...],
    role: str,
    any_one: bool,
    pg_version: str | None,
    pending: bool,
    timeout: float | None,
    scheduled: str | None,
    force: bool,
) -> None:
    """Restarts Postgres on members: all of them, or the named; replicas first."""
    async with place_and_names(options, names) as (here, members):
        cluster = await here.read()
        show(cluster, here.scope)
        found = chosen(cluster, members, role)
        replicas_first = [member for member in reversed(leader_first(cluster)) if member in found]
        wanted = replicas_first[:1] if any_one else replicas_first
        at = None if scheduled in (None, "now") else scheduled
        what = f"restart members {', '.join(m.name for m in wanted)}"
        confirm(f"Are you sure you want to {f'schedule: {what} at {at}' if at else what}?", force=force)
        given = {"schedule": at, "postgres_version": pg_version, "restart_pending": pending or None, "timeout": timeout}
        body = {key: value for key, value in given.items() if value is not None}
        await each(here.agents, wanted, "restart", "POST", "/restart", body, (timeout or RESTART_S) + 5)


@click.command()
@names_argument
@click.option("--from-leader", is_flag=True, help="Clone from the leader, not from a replica.")
@click.option("--wait", is_flag=True, help="Until they stream again.")
@force_option
@command
async def reinit(options: Options, names: tuple[str, ...], from_leader: bool, wait: bool, force: bool) -> None:
    """Clones replicas anew. Their data directories are moved aside, not deleted."""
    async with place_and_names(options, names) as (here, members):
        cluster = await here.read()
        show(cluster, here.scope)
        if not members:
            raise click.UsageError("which member? Name those that are to be cloned anew")
        wanted = chosen(cluster, members)
        confirm(f"Are you sure you want to reinitialize members {', '.join(m.name for m in wanted)}?", force=force)
        async with telling(here, cluster, click.echo) as story:
            await each(here.agents, wanted, "reinitialize", "POST", "/reinitialize", {"force": force, "from_leader": from_leader})
            if wait:
                await _wait_for_clones(story, {member.name for member in wanted})


async def _wait_for_clones(story: Story, names: set[str]) -> None:
    """A member is done when it streams again after it had stopped streaming: else it has not begun."""
    begun: set[str] = set()

    def streams(cluster: Cluster, name: str) -> bool:
        member = cluster.member(name)
        return member is not None and member.state == "running" and member.replication_state == "streaming"

    def done(cluster: Cluster) -> bool:
        begun.update(name for name in names if not streams(cluster, name))
        return names <= begun and all(streams(cluster, name) for name in names)

    if not await story.until(done, REINIT_S):
        raise Failed(f"{', '.join(sorted(names))} do not stream yet; see `rivhactl list`")


@click.command("reload")
@names_argument
@click.option("-r", "--role", type=click.Choice(["leader", "primary", "replica", "standby", "any"]), default="any", show_default=True)
@force_option
@command
async def reload_file(options: Options, names: tuple[str, ...], role: str, force: bool) -> None:
    """Has the agents read their configuration files again."""
    async with place_and_names(options, names) as (here, members):
        cluster = await here.read()
        show(cluster, here.scope)
        wanted = chosen(cluster, members, role)
        confirm(f"Are you sure you want to reload members {', '.join(m.name for m in wanted)}?", force=force)
        await each(here.agents, wanted, "reload", "POST", "/reload", None)


@click.command()
@names_argument
@click.argument("target", type=click.Choice(["switchover", "restart"]))
@click.option("-r", "--role", type=click.Choice(["leader", "primary", "replica", "standby", "any"]), default="any", show_default=True)
@force_option
@command
async def flush(options: Options, names: tuple[str, ...], target: str, role: str, force: bool) -> None:
    """Withdraws what was scheduled: a switchover, or members' restarts."""
    async with place_and_names(options, names) as (here, members):
        cluster = await here.read()
        if target == "switchover":
            click.echo(await asked(here, leader_first(cluster), "DELETE", "/switchover", None))
            return
        wanted = [m for m in chosen(cluster, members, role) if m.scheduled_restart]
        if not wanted:
            raise Failed("no restarts are scheduled")
        confirm(f"Are you sure you want to delete scheduled restarts of {', '.join(m.name for m in wanted)}?", force=force)
        await each(here.agents, wanted, "delete scheduled restart", "DELETE", "/restart", None)


# ---- the cluster


async def _set_pause(options: Options, scope: str | None, *, paused: bool, wait: bool) -> None:
    async with place(options, scope) as here:
        cluster = await here.read()
        if bool((cluster.config or {}).get("pause")) is paused:
            raise Failed(f"Cluster is {'already' if paused else 'not'} paused")
        async with telling(here, cluster, click.echo) as story:
            await change_config(here, cluster, {"pause": True if paused else None})
            if wait:
                click.echo("Waiting for all members to know it.")
                if not await story.until(lambda now: all(m.paused is paused for m in now.members), PAUSE_S):
                    late = ", ".join(m.name for m in story.now.members if m.paused is not paused)
                    raise Failed(f"{late} did not confirm it within {PAUSE_S:g} s; the request stands")
        click.echo(f"Success: cluster management is {'paused' if paused else 'resumed'}")


@click.command()
@scope_argument
@click.option("--wait", is_flag=True, help="Until every member has confirmed it.")
@command
async def pause(options: Options, scope: str | None, wait: bool) -> None:
    """Maintenance mode: no failover, nothing is started or stopped by itself."""
    await _set_pause(options, scope, paused=True, wait=wait)


@click.command()
@scope_argument
@click.option("--wait", is_flag=True, help="Until every member has confirmed it.")
@command
async def resume(options: Options, scope: str | None, wait: bool) -> None:
    """Ends the maintenance mode."""
    await _set_pause(options, scope, paused=False, wait=wait)


@click.command()
@click.argument("scope")
@command
async def remove(options: Options, scope: str) -> None:
    """Forgets a cluster: deletes its keys in etcd. The databases stay as they are. Asks three times."""
    async with place(options, scope) as here:
        cluster = await here.read()
        show(cluster, here.scope)
        _ask_for("Please confirm the cluster name to remove", scope)
        _ask_for('You are about to remove all information in etcd for this cluster, please type: "Yes I am aware"', "Yes I am aware")
        if cluster.leader is not None:
            _ask_for("This cluster currently is healthy. Please specify the leader name to continue", cluster.leader.name)
        items = (await here.etcd.read(5.0)).items
        for start in range(0, len(items), REMOVE_AT_ONCE):
            part = items[start : start + REMOVE_AT_ONCE]
            txn = Txn(tuple(Unchanged(i.key, i.mod_revision) for i in part), tuple(Delete(i.key) for i in part))
            if await here.commit(txn) is not Outcome.DONE:
                raise Failed("not everything was removed: an agent still writes its keys (stop the agents first), or etcd did not answer")
    click.echo(f"Removed {len(items)} keys of cluster {scope}.")


def _ask_for(question: str, answer: str) -> None:
    if click.prompt(question).strip() != answer:
        raise Failed("not what was asked for; nothing is removed")


COMMANDS: tuple[click.Command, ...] = (switchover, failover, restart, reinit, reload_file, flush, pause, resume, remove)
