"""rivhactl as a person runs it: the program itself, a real etcd, real REST servers."""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from pathlib import Path

import pytest
import yaml

from rivha.dcs.base import Put, Txn
from rivha.dcs.etcd import Etcd, EtcdSettings
from rivha.model import Outcome
from tests.api.views import END
from tests.cli.stage import Stage, rivhactl
from tests.etcd_process import EtcdServer, eventually

pytestmark = pytest.mark.real

# ---- finding the cluster ---------------------------------------------------------------------------------------------------------


async def test_list_shows_the_members_without_colours_for_a_script(stage: Stage) -> None:
    said = await stage.ctl("list", stage.scope)
    assert said.code == 0, said.err
    lines = said.out.splitlines()
    assert lines[0].startswith(f"+ Cluster: {stage.scope} (7277694203142172922) -")
    assert re.fullmatch(r"\| Member +\| Host +\| Role +\| State +\| TL \| Receive LSN \| Lag \| Replay LSN \| Lag \|", lines[1])
    assert [line.split("|")[1:5] for line in lines[3:6]] == [
        [" a      ", " 127.0.0.1:5497 ", " Leader  ", " running   "],
        [" b      ", " 127.0.0.1:5498 ", " Replica ", " streaming "],
        [" c      ", " 127.0.0.1:5499 ", " Replica ", " streaming "],
    ]
    assert "\x1b" not in said.out


@pytest.mark.parametrize("fmt", ["json", "yaml"])
async def test_list_for_machines_is_one_document(stage: Stage, fmt: str) -> None:
    said = await stage.ctl("list", stage.scope, "-f", fmt)
    found = json.loads(said.out) if fmt == "json" else yaml.safe_load(said.out)
    assert [(row["Member"], row["Role"]) for row in found] == [("a", "Leader"), ("b", "Replica"), ("c", "Replica")]


async def test_a_nodes_own_file_says_where_the_cluster_is(stage: Stage, tmp_path: Path) -> None:
    file = tmp_path / "node.yml"
    file.write_text(yaml.safe_dump({"scope": stage.scope, "name": "a", "etcd3": {"hosts": stage.host}}))
    for arguments in (["list"], ["topology", "-e", "-t"], ["history"], ["show-config"], ["explain"], ["explain", "b"]):
        said = await rivhactl("-c", str(file), *arguments)
        assert said.code == 0, (arguments, said.err)
    assert "b keeps the lease  [keep_it]" in said.out
    other = await rivhactl("-c", str(file), "list", "no-such-cluster")
    assert (other.code, "there is no cluster no-such-cluster under /service" in other.err) == (1, True)
    nobody = await rivhactl("-c", str(file), "explain", "nobody")
    assert (nobody.code, "there is no member nobody; there are: a, b, c" in nobody.err) == (1, True)


async def test_the_environment_alone_may_say_it(stage: Stage) -> None:
    said = await stage.ctl("list", etcd="", PATRONI_ETCD3_HOSTS=stage.host, PATRONI_SCOPE=stage.scope)
    assert said.code == 0, said.err


async def test_patronis_url_form_names_etcd_and_namespace(stage: Stage) -> None:
    said = await rivhactl("-d", f"etcd3://{stage.host}/service", "list", stage.scope)
    assert said.code == 0, said.err


async def test_with_two_clusters_one_has_to_be_named(stage: Stage) -> None:
    space = f"space-{uuid.uuid4().hex[:8]}"

    async def make(scope: str) -> None:
        etcd = Etcd(EtcdSettings((stage.host,)), f"/{space}/{scope}/", asyncio.get_running_loop().time)
        assert await etcd.commit(Txn((), (Put("initialize", "7"),)), 10) is Outcome.DONE
        await etcd.close()

    none = await stage.ctl("--namespace", space, "list")
    assert (none.code, f"there is no cluster under /{space}" in none.err) == (1, True)
    await make("one")
    only = await stage.ctl("--namespace", space, "list")
    assert (only.code, "Cluster: one (7)" in only.out) == (0, True)
    await make("two")
    which = await stage.ctl("--namespace", space, "list")
    assert (which.code, "which cluster? There are one, two: name one" in which.err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["list"], 2, "which etcd?"),
        (["--etcd", "http://", "list"], 2, "is no address"),
        (["--etcd", "host:port", "list"], 2, "--etcd"),
        (["--etcd", "127.0.0.1:1", "list", "x"], 1, "etcd at 127.0.0.1:1 does not answer"),
        (["-c", "/nowhere.yml", "list"], 2, "/nowhere.yml"),
        (["dance"], 2, "No such command"),
        (["list", "-f", "xml"], 2, "xml"),
    ],
)
async def test_wrong_usage_is_2_and_failure_is_1_with_a_text(arguments: list[str], code: int, text: str) -> None:
    said = await rivhactl(*arguments)
    assert said.code == code
    assert text in said.err
    assert "Traceback" not in said.err


# ---- looking ---------------------------------------------------------------------------------------------------------------------


async def test_without_a_leader_list_says_why(stage: Stage) -> None:
    await stage.delete("leader")
    await eventually(lambda: all(d.latest and d.latest.cluster and not d.latest.cluster.leader for d in stage.desks.values()), "noticed")
    said = await stage.ctl("list", stage.scope)
    assert "Nobody leads: a keeps the lease" in said.out


async def test_list_works_when_no_agent_does(stage: Stage) -> None:
    await stage.delete("leader")
    for api in stage.apis.values():
        await api.stop()
    said = await stage.ctl("list", stage.scope)
    assert said.code == 0
    assert "does not answer" in said.out


async def test_history_config_and_versions(stage: Stage) -> None:
    history = await stage.ctl("history", stage.scope)
    assert re.search(r"\|  2 \| 0/3000060 \| no recovery target specified \| 2026-07-01T00:00:00\+00:00 \| a +\|", history.out)
    assert json.loads((await stage.ctl("history", stage.scope, "-f", "json")).out)[0]["LSN"] == 50331744
    assert yaml.safe_load((await stage.ctl("show-config", stage.scope)).out) == {"ttl": 10, "loop_wait": 1, "retry_timeout": 3}
    versions = await stage.ctl("version", stage.scope)
    assert re.search(r"^rivhactl version \S+\na: Rivha \S+ PostgreSQL 15.18$", versions.out, re.MULTILINE)
    explained = await stage.ctl("explain", stage.scope, "c", "-n", "1")
    assert "lease:    Nothing       c keeps the lease  [keep_it]" in explained.out


# ---- acting ----------------------------------------------------------------------------------------------------------------------


async def test_switchover_asks_first_and_does_nothing_without_a_yes(stage: Stage) -> None:
    said = await stage.ctl("switchover", stage.scope, "--candidate", "b")
    assert said.code == 1
    assert "Are you sure you want to switchover cluster" in said.out
    assert said.out.index("Cluster: ") < said.out.index("Are you sure")
    assert "failover" not in {item.key for item in (await stage.etcd.read(10)).items}


async def test_switchover_tells_what_happens_and_shows_the_end(stage: Stage) -> None:
    said = await stage.ctl("switchover", stage.scope, says="c\ny\n")
    assert said.code == 0, said.err
    assert "Candidate ['b', 'c']" in said.out
    assert re.search(r"^ +\d+ ms  c is the leader$", said.out, re.MULTILINE)
    assert re.search(r"^ +\d+ ms  c: replica streaming -> primary running$", said.out, re.MULTILINE)
    assert re.search(r'^ +\d+ ms  Successfully switched over to "c"$', said.out, re.MULTILINE)
    assert "| c      | 127.0.0.1:5499 | Leader  |" in said.out.splitlines()[-2]


async def test_a_switchover_that_is_refused_is_1_with_the_agents_words(stage: Stage) -> None:
    said = await stage.ctl("switchover", stage.scope, "--leader", "a", "--candidate", "x", "--force")
    assert said.code == 1
    assert "a refused (412): switchover is not possible: candidate does not exists" in said.err
    wrong = await stage.ctl("switchover", stage.scope, "--leader", "b", "--force")
    assert (wrong.code, "b does not lead, a does" in wrong.err) == (1, True)


async def test_a_switchover_can_be_scheduled_and_flushed(stage: Stage) -> None:
    said = await stage.ctl("switchover", stage.scope, "--scheduled", "2099-01-01T00:00:00+00:00", "--candidate", "b", "--force")
    assert (said.code, "Switchover scheduled" in said.out) == (0, True)
    assert "Switchover scheduled at: 2099-01-01T00:00:00+00:00" in (await stage.ctl("list", stage.scope)).out
    await eventually(lambda: all(d.latest and d.latest.cluster and d.latest.cluster.failover for d in stage.desks.values()), "seen")
    assert (await stage.ctl("flush", stage.scope, "switchover", "--force")).code == 0
    assert (await stage.cluster()).failover is None


async def test_acting_works_when_the_leaders_agent_is_down(stage: Stage) -> None:
    await stage.apis["a"].stop()
    said = await stage.ctl("failover", stage.scope, "--candidate", "b", "--force")
    assert said.code == 0, said.err
    assert 'Successfully failed over to "b"' in said.out


async def test_failover_writes_the_request_itself_when_no_agent_answers(stage: Stage) -> None:
    for api in stage.apis.values():
        await api.stop()
    said = await stage.ctl("failover", stage.scope, "--candidate", "b", "--force")
    assert said.code == 0, said.err
    assert "writing the request to etcd" in said.out
    assert re.search(r"ms  b is the leader$", said.out, re.MULTILINE)
    unknown = await stage.ctl("failover", stage.scope, "--candidate", "x", "--force")
    assert (unknown.code, "there is no member x" in unknown.err) == (1, True)
    planned = await stage.ctl("switchover", stage.scope, "--force")
    assert (planned.code, "does not answer" in planned.err) == (1, True)


async def test_a_failover_that_may_lose_commits_says_how_many_and_wants_to_be_told_so(stage: Stage) -> None:
    await stage.put("config", '{"synchronous_mode":"quorum"}')
    await stage.put("sync", '{"leader":"a","sync_standby":"b","quorum":0}')
    await stage.publish("c", xlog_location=END - 5000, receive_lsn=END - 5000, replay_lsn=END - 5000)
    await eventually(lambda: all(d.latest and d.latest.cluster and d.latest.cluster.sync for d in stage.desks.values()), "seen")
    refused = await stage.ctl("failover", stage.scope, "--candidate", "c", "--force")
    assert refused.code == 1
    assert (
        "refused (412): failover is not possible: c is no synchronous standby and may lack acknowledged commits, which b held"
        in refused.err
    )
    asked = await stage.ctl("failover", stage.scope, "--candidate", "c", "--accept-loss")
    assert asked.code == 1
    assert asked.out.index("5000 bytes (0.0 MB) are lost") < asked.out.index("Are you sure")
    assert asked.out.index("The data directory of a is rewound") < asked.out.index("Are you sure")
    assert "How old c's last transaction is, is not known" in asked.out
    done = await stage.ctl("failover", stage.scope, "--candidate", "c", "--accept-loss", "--force")
    assert done.code == 0, done.err
    assert 'Successfully failed over to "c"' in done.out
    voter = await stage.ctl("failover", stage.scope, "--candidate", "b", "--force")
    assert (voter.code, "are lost" in voter.out) == (0, False)


async def test_the_same_is_refused_when_no_agent_answers(stage: Stage) -> None:
    await stage.put("sync", '{"leader":"a","sync_standby":"b","quorum":0}')
    for api in stage.apis.values():
        await api.stop()
    refused = await stage.ctl("failover", stage.scope, "--candidate", "c", "--force")
    assert (refused.code, "--accept-loss promotes it all the same" in refused.err) == (1, True)
    assert (await stage.ctl("failover", stage.scope, "--candidate", "c", "--accept-loss", "--force")).code == 0


async def test_restart_goes_to_replicas_first_and_can_be_filtered(stage: Stage) -> None:
    said = await stage.ctl("restart", stage.scope, "--force")
    assert said.code == 0, said.err
    assert [name for name, _, _ in stage.done] == ["c", "b", "a"]
    stage.done.clear()
    await stage.ctl("restart", stage.scope, "-r", "replica", "--any", "--timeout", "5", "--force")
    assert stage.done == [("c", "restart", {"timeout": 5.0, "restart_pending": False})]
    pending = await stage.ctl("restart", stage.scope, "b", "--pending", "--force")
    assert (pending.code, "Failed: restart for member b, status code=503" in pending.out) == (1, True)
    scheduled = await stage.ctl("restart", stage.scope, "b", "--scheduled", "2099-01-01T00:00:00+00:00", "--force")
    assert (scheduled.code, stage.apis["b"].scheduled_restart is not None) == (0, True)
    assert (await stage.ctl("restart", stage.scope, "nobody", "--force")).code == 1
    stage.refuse_wishes = "out of disk"
    failed = await stage.ctl("restart", stage.scope, "b", "--force")
    assert (failed.code, "(out of disk)" in failed.out) == (1, True)


async def test_reinit_needs_a_name_and_refuses_the_leader(stage: Stage) -> None:
    assert (await stage.ctl("reinit", stage.scope, "--force")).code == 2
    leader = await stage.ctl("reinit", stage.scope, "a", "--force")
    assert (leader.code, "I am the leader, can not reinitialize" in leader.out) == (1, True)
    said = await stage.ctl("reinit", stage.scope, "b", "--from-leader", "--force")
    assert said.code == 0, said.err
    assert stage.done == [("b", "reinitialize", {"force": True, "from_leader": True})]


async def test_reinit_waits_until_the_member_streams_again(stage: Stage) -> None:
    running = asyncio.create_task(stage.ctl("reinit", stage.scope, "b", "--wait", "--force"))
    await eventually(lambda: stage.done, "the wish is filed")
    await stage.publish("b", state="creating replica", replication_state=None)
    await asyncio.sleep(0.5)
    assert not running.done()
    await stage.publish("b")
    said = await running
    assert said.code == 0, said.err
    assert "b: replica creating replica -> replica streaming" in said.out


async def test_reload_says_what_changed(stage: Stage) -> None:
    said = await stage.ctl("reload", stage.scope, "b", "--force")
    assert said.out.endswith("Success: reload on member b\n  nothing changed\n")


async def test_pause_waits_for_every_member_and_resume_ends_it(stage: Stage) -> None:
    running = asyncio.create_task(stage.ctl("pause", stage.scope, "--wait"))

    async def confirm(paused: bool) -> None:
        async with asyncio.timeout(60):
            while bool((await stage.cluster()).config.get("pause")) is not paused:  # type: ignore[union-attr]
                await asyncio.sleep(0.02)
        for name in "abc":
            await stage.publish(name, paused=paused)

    await confirm(True)
    said = await running
    assert (said.code, "Success: cluster management is paused" in said.out) == (0, True), said
    assert "Maintenance mode: on" in (await stage.ctl("list", stage.scope)).out
    again = await stage.ctl("pause", stage.scope)
    assert (again.code, "already paused" in again.err) == (1, True)
    await eventually(lambda: all(d.latest and d.latest.policy.paused for d in stage.desks.values()), "the agents know")
    running = asyncio.create_task(stage.ctl("resume", stage.scope, "--wait"))
    await confirm(False)
    assert (await running).code == 0
    assert "pause" not in ((await stage.cluster()).config or {})


@pytest.mark.parametrize("agents", ["up", "down"])
async def test_edit_config_shows_the_difference_and_writes_what_was_asked(stage: Stage, agents: str) -> None:
    if agents == "down":
        for api in stage.apis.values():
            await api.stop()
    no = await stage.ctl("edit-config", stage.scope, "-s", "ttl=20", says="n\n")
    assert (no.code, "-ttl: 10\n+ttl: 20" in no.out) == (1, True)
    assert ((await stage.cluster()).config or {})["ttl"] == 10
    said = await stage.ctl("edit-config", stage.scope, "-s", "ttl=20", "-p", "work_mem=8MB", "-s", "loop_wait=null", "--force")
    assert said.code == 0, said.err
    wanted = {"ttl": 20, "retry_timeout": 3, "postgresql": {"parameters": {"work_mem": "8MB"}}}
    assert (await stage.cluster()).config == wanted
    if agents == "up":
        known = [desk for desk in stage.desks.values() if desk.latest is not None]
        await eventually(lambda: all(d.latest and d.latest.cluster and d.latest.cluster.config == wanted for d in known), "read")
    replaced = await stage.ctl("edit-config", stage.scope, "--replace", "-", "-q", "--force", says="ttl: 30\nretry_timeout: 3\n")
    assert (replaced.code, replaced.out) == (0, "Configuration changed\n")
    assert (await stage.cluster()).config == {"ttl": 30, "retry_timeout": 3}


async def test_edit_config_refuses_mistakes_with_all_of_them(stage: Stage, tmp_path: Path) -> None:
    said = await stage.ctl("edit-config", stage.scope, "-s", "ttl=soon", "-s", "synchronous_mode=maybe", "--force")
    assert said.code == 1
    assert "ttl" in said.err
    assert "synchronous_mode" in said.err
    assert (await stage.ctl("edit-config", stage.scope, "-s", "ttl", "--force")).code == 2
    assert (await stage.ctl("edit-config", stage.scope, "--apply", str(tmp_path / "none.yml"), "--force")).code == 2
    same = await stage.ctl("edit-config", stage.scope, "-s", "ttl=10", "--force")
    assert (same.code, same.out) == (0, "Not changed\n")


async def test_edit_config_opens_the_editor(stage: Stage, tmp_path: Path) -> None:
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nsed -i s/10/15/ "$1"\n')
    editor.chmod(0o755)
    said = await stage.ctl("edit-config", stage.scope, "--force", EDITOR=str(editor), VISUAL="")
    assert said.code == 0, said.err
    assert ((await stage.cluster()).config or {})["ttl"] == 15


async def test_remove_asks_three_times(stage: Stage, etcd: EtcdServer) -> None:
    for answers in ("other\n", f"{stage.scope}\nyes\n", f"{stage.scope}\nYes I am aware\nb\n"):
        assert (await stage.ctl("remove", stage.scope, says=answers)).code == 1
    assert (await stage.cluster()).initialize
    said = await stage.ctl("remove", stage.scope, says=f"{stage.scope}\nYes I am aware\na\n")
    assert said.code == 0, said.err
    assert not any(key.startswith(f"/service/{stage.scope}/") for key in list(etcd.keys()))


async def test_a_password_is_taken_from_the_file(etcd: EtcdServer, tmp_path: Path) -> None:
    scope = f"demo-{uuid.uuid4().hex[:8]}"
    file = tmp_path / "ctl.yml"
    base = {"scope": scope, "etcd3": {"host": etcd.host}}
    async with Stage(etcd.host, scope, username="admin", password="secret") as stage:
        file.write_text(yaml.safe_dump(base))
        refused = await stage.ctl("-c", str(file), "reload", "a", "--force", etcd="")
        assert (refused.code, "status code=401" in refused.out) == (1, True)
        file.write_text(yaml.safe_dump(base | {"restapi": {"authentication": {"username": "admin", "password": "secret"}}}))
        assert (await stage.ctl("-c", str(file), "reload", "a", "--force", etcd="")).code == 0
