"""The dynamic configuration: what wins, what is refused, and that a bad value in etcd stops nobody."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path

import pytest

from rivha.agent.brain.view import REPLY_EVERY_S
from rivha.config import check_patch, complaints, dynamic, load, policy
from rivha.config.shared import LOOP_WAIT_MIN, PLACES, RETRY_TIMEOUT_MIN, TTL_MIN, Dynamic, first, mistakes
from rivha.errors import ConfigError
from rivha.model import Policy
from rivha.postgres import conf

PLAIN = str(Path(__file__).parent / "patroni" / "plain.yml")


def test_the_defaults_are_the_same_in_the_configuration_and_in_the_brain():
    assert policy({}) == Policy()
    assert set(PLACES) == {item.name for item in fields(Policy)}


def test_the_smallest_times_keep_the_rule_together():
    assert TTL_MIN >= LOOP_WAIT_MIN + 2 * RETRY_TIMEOUT_MIN
    found = policy({"ttl": 3, "loop_wait": 1, "retry_timeout": 1})
    assert (found.ttl_s, found.loop_wait_s, found.retry_timeout_s) == (3, 1, 1)


@pytest.mark.parametrize(
    ("given", "loop_wait", "retry_timeout"),
    [
        ({"ttl": 30, "loop_wait": 10, "retry_timeout": 10}, 10, 10),
        ({"ttl": 25, "loop_wait": 10, "retry_timeout": 10}, 5, 10),
        ({"ttl": 20, "loop_wait": 10, "retry_timeout": 10}, 0.2, 9.9),
        ({"ttl": 3}, 0.2, 1.4),
        ({"loop_wait": 10}, 4, 3),
    ],
)
def test_times_that_break_the_rule_are_repaired_loop_wait_first(given, loop_wait, retry_timeout):
    found = policy(given)
    assert (found.loop_wait_s, found.retry_timeout_s) == (loop_wait, pytest.approx(retry_timeout))
    assert found.ttl_s >= found.loop_wait_s + 2 * found.retry_timeout_s - 1e-6
    assert any("running with loop_wait" in text for text in complaints(given)) == (
        given != {"ttl": 30, "loop_wait": 10, "retry_timeout": 10}
    )


def test_a_bad_value_keeps_the_last_one_and_is_reported():
    last = replace(Policy(), ttl_s=20, use_pg_rewind=False, synchronous_mode="on")
    bad = {"ttl": "soon", "pause": True, "synchronous_mode": "perhaps", "postgresql": {"use_pg_rewind": 7}}
    found = policy(bad, last)
    assert (found.ttl_s, found.paused, found.synchronous_mode, found.use_pg_rewind) == (20, True, "on", False)
    assert [text.partition(":")[0] for text in complaints(bad)] == ["ttl", "synchronous_mode", "postgresql.use_pg_rewind"]
    assert policy(bad).ttl_s == Policy().ttl_s
    assert policy({"postgresql": "nonsense"}, last).use_pg_rewind is False


@pytest.mark.parametrize(
    ("value", "mode"), [(True, "on"), (False, "off"), ("on", "on"), ("OFF", "off"), ("quorum", "quorum"), ("true", "on")]
)
def test_synchronous_mode_in_all_its_spellings(value, mode):
    assert policy({"synchronous_mode": value}).synchronous_mode == mode


def test_the_synchronous_modes_come_with_their_numbers():
    given = {"synchronous_mode": "quorum", "synchronous_mode_strict": True, "synchronous_node_count": 2, "maximum_lag_on_syncnode": "1MB"}
    found = policy({**given, "degrade_after": "500ms"})
    assert (found.synchronous_mode, found.synchronous_mode_strict, found.synchronous_node_count) == ("quorum", True, 2)
    assert (found.maximum_lag_on_syncnode, found.degrade_after_s) == (1 << 20, 0.5)
    assert complaints({**given, "degrade_after": "500ms"}) == ()
    assert policy({"degrade_after": 0.1}).degrade_after_s == Policy().degrade_after_s
    assert policy({"maximum_lag_on_syncnode": -1}).maximum_lag_on_syncnode == -1


@pytest.mark.parametrize(
    ("key", "given"),
    [
        ("synchronous_mode_strict", {"synchronous_mode_strict": True}),
        ("synchronous_node_count", {"synchronous_mode": "off", "synchronous_node_count": 2}),
        ("maximum_lag_on_syncnode", {"synchronous_mode": False, "maximum_lag_on_syncnode": 5}),
        (
            "postgresql.parameters.synchronous_standby_names",
            {"synchronous_mode": "on", "postgresql": {"parameters": {"Synchronous_Standby_Names": "*"}}},
        ),
    ],
)
def test_what_another_key_makes_void_is_told(key, given):
    assert [text.partition(":")[0] for text in complaints(given)] == [key]
    assert "has no effect while synchronous_mode is" in complaints(given)[0]


@pytest.mark.parametrize("mode", ["on", "quorum", True])
@pytest.mark.parametrize(
    ("level", "shown"), [("off", "off"), (False, "off"), ("0", "off"), ("LOCAL", "local"), ("remote_write", "remote_write")]
)
def test_a_synchronous_commit_that_may_lose_what_was_acknowledged_is_told(mode, level, shown):
    found = complaints({"synchronous_mode": mode, "postgresql": {"parameters": {"Synchronous_Commit": level}}})
    assert [text.partition(":")[0] for text in found] == ["postgresql.parameters.synchronous_commit"]
    assert f"is {shown} although synchronous_mode is {policy({'synchronous_mode': mode}).synchronous_mode}" in found[0]
    assert "may lose" in found[0]


@pytest.mark.parametrize("level", ["on", True, "remote_apply", None])
def test_a_synchronous_commit_that_keeps_the_promise_is_not(level):
    assert complaints({"synchronous_mode": "quorum", "postgresql": {"parameters": {"synchronous_commit": level}}}) == ()


def test_in_asynchronous_mode_nobody_promised_that_a_commit_waits():
    assert complaints({"synchronous_mode": "off", "postgresql": {"parameters": {"synchronous_commit": "local"}}}) == ()


def test_the_nodes_own_synchronous_commit_and_that_of_a_cluster_to_be_are_told_too(tmp_path):
    unsafe = "{synchronous_mode: true, postgresql: {parameters: {synchronous_commit: local}}}"
    config = local(tmp_path, f"  parameters: {{synchronous_commit: off}}\nbootstrap: {{dcs: {unsafe}}}\n")
    assert any("is off although" in text for text in complaints(dynamic(config, {"synchronous_mode": "quorum"})))
    assert any(text.startswith("bootstrap.dcs.postgresql.parameters.synchronous_commit: is local although") for text in config.warnings)


def test_two_confirmations_without_slots_are_named():
    """PostgreSQL counts connections: an old one of the same standby that is not over yet would be the second."""
    without = {"synchronous_mode": "quorum", "postgresql": {"use_slots": False}}

    assert any("PostgreSQL counts connections" in text for text in complaints({**without, "synchronous_node_count": 2}))
    assert not complaints({**without, "synchronous_node_count": 1})
    assert not complaints({**without, "synchronous_node_count": 2, "postgresql": {}})


@pytest.mark.parametrize("mode", ["off", "quorum"])
@pytest.mark.parametrize("interval", [0, 10, "10s", "1min", "0", False])
def test_how_often_a_standby_replies_is_not_the_operators(mode, interval):
    """Whether a voter lives is judged by its replies: less often, and an idle one looks lost."""
    given = {"synchronous_mode": mode, "postgresql": {"parameters": {"WAL_receiver_status_interval": interval}}}
    found = complaints(given)
    assert [text.partition(":")[0] for text in found] == ["postgresql.parameters.wal_receiver_status_interval"]
    assert "has no effect; it is 1s always" in found[0]
    node = load(PLAIN, {}).postgres
    for settings in (node, replace(node, parameters=given["postgresql"]["parameters"])):
        assert conf.parameters(settings, given)["wal_receiver_status_interval"] == f"{REPLY_EVERY_S:g}s"
    assert conf.without_ours(f"wal_receiver_status_interval = '{interval}'\nwork_mem = '1MB'\n") == "work_mem = '1MB'\n"


def test_a_permanent_slot_that_is_not_kept_is_told_and_one_that_is_is_not():
    given = {"slots": {"backup": {"type": "physical"}, "plain": None, "feed": {"type": "logical", "database": "d", "plugin": "p"}}}
    assert [text.partition(":")[0] for text in complaints(given)] == ["slots.feed"]


@pytest.mark.parametrize("key", ["remove_data_directory_on_rewind_failure", "remove_data_directory_on_diverged_timelines"])
def test_a_permission_that_nobody_asks_for_is_told(key):
    assert [text.partition(";")[0] for text in complaints({"postgresql": {key: True}})] == [f"postgresql.{key}: has no effect"]
    assert complaints({"postgresql": {key: False}}) == ()


@pytest.mark.parametrize("interval", ["1s", 1, "1 s", None])
def test_as_often_as_it_does_anyway_is_not_worth_a_word(interval):
    assert complaints({"postgresql": {"parameters": {"wal_receiver_status_interval": interval}}}) == ()


def test_the_operators_own_standby_names_are_for_mode_off():
    last = policy({"postgresql": {"parameters": {"SYNCHRONOUS_STANDBY_NAMES": "ANY 1 (*)"}}})
    assert last.own_standby_names == "ANY 1 (*)"
    assert policy({"postgresql": {"parameters": {"synchronous_standby_names": None}}}).own_standby_names == ""
    assert policy({"postgresql": {"parameters": ["nonsense"]}}, last).own_standby_names == "ANY 1 (*)"
    assert policy({}, last).own_standby_names == ""


def test_a_new_cluster_says_quorum_and_nobody_else_does():
    assert first({"ttl": 5}) == {"synchronous_mode": "quorum", "ttl": 5}
    assert policy(first({"synchronous_mode": False})).synchronous_mode == "off"
    assert policy(dynamic(load(PLAIN, {}), None)).synchronous_mode == "off"


def test_durations_and_sizes_take_units():
    found = policy({"ttl": "1min", "member_slots_ttl": "30min", "hang_timeout": "2500ms", "maximum_lag_on_failover": "16MB"})
    assert (found.ttl_s, found.member_slots_ttl_s, found.hang_timeout_s, found.maximum_lag_on_failover) == (60, 1800, 2.5, 16 << 20)


def test_a_negative_stop_timeout_means_none():
    assert policy({"primary_stop_timeout": -1}).primary_stop_timeout_s == 0


def test_old_names_are_translated_and_the_new_one_wins():
    assert policy({"master_start_timeout": 5}).primary_start_timeout_s == 5
    assert policy({"master_start_timeout": 5, "primary_start_timeout": 7}).primary_start_timeout_s == 7
    assert "primary_start_timeout" in complaints({"master_start_timeout": 5})[0]


# ---- what wins


def local(tmp_path, section):
    path = tmp_path / "node.yml"
    path.write_text(Path(PLAIN).read_text().replace("  parameters:\n    unix_socket_directories: '..'\n", section))
    return load(str(path), {})


def test_the_local_file_wins_over_etcd_parameter_by_parameter_and_null_removes(tmp_path):
    config = local(
        tmp_path, "  parameters: {work_mem: 8MB, log_connections: null}\n  use_pg_rewind: false\n  pg_hba: [host all all all trust]\n"
    )
    shared = {"postgresql": {"parameters": {"work_mem": "4MB", "log_connections": "on", "jit": "off"}, "pg_hba": ["local all all peer"]}}
    found = dynamic(config, shared)["postgresql"]
    assert found["parameters"] == {"work_mem": "8MB", "jit": "off"}
    assert found["pg_hba"] == ["host all all all trust"]
    assert policy(dynamic(config, shared)).use_pg_rewind is False


def test_settings_that_all_nodes_must_share_come_from_etcd_only(tmp_path):
    config = local(tmp_path, "  parameters: {max_connections: 5, wal_level: minimal, work_mem: 1MB}\n  use_slots: false\n")
    found = dynamic(config, {"postgresql": {"parameters": {"max_connections": 300}}})
    assert found["postgresql"]["parameters"] == {"max_connections": 300, "work_mem": "1MB"}
    assert config.postgres.parameters == {"work_mem": "1MB"}
    assert policy(found).use_slots is True
    told = [text.partition(":")[0] for text in config.warnings]
    assert {"postgresql.parameters.max_connections", "postgresql.parameters.wal_level", "postgresql.use_slots"} <= set(told)


def test_without_a_key_in_etcd_the_node_goes_by_what_it_would_bootstrap():
    config = load(PLAIN, {})
    assert policy(dynamic(config, None)).ttl_s == 30
    assert policy(dynamic(config, {})).ttl_s == Policy().ttl_s


def test_a_cluster_wide_key_in_the_local_file_is_named_and_not_used(tmp_path):
    config = local(tmp_path, "ttl: 5\n")
    assert policy(dynamic(config, None)).ttl_s == 30
    assert any(text.startswith("ttl: is not used here") for text in config.warnings)


def test_the_inputs_are_not_changed():
    config = load(PLAIN, {})
    shared = {"master_start_timeout": 5, "postgresql": {"parameters": {"wal_keep_segments": 3}}}
    before = json.dumps(shared)
    dynamic(config, shared)
    policy(shared)
    complaints(shared)
    check_patch(shared, {"postgresql": {"parameters": {"a": 1}}})
    assert json.dumps(shared) == before


# ---- patches


def test_a_patch_merges_and_null_deletes():
    current = {"ttl": 30, "pause": True, "postgresql": {"parameters": {"a": 1, "b": 2}}}
    found = check_patch(current, {"pause": None, "postgresql": {"parameters": {"a": None, "c": 3}}})
    assert found == {"ttl": 30, "postgresql": {"parameters": {"b": 2, "c": 3}}}


def test_a_patch_with_mistakes_is_refused_with_all_of_them():
    patch = {
        "ttl": 2,
        "loop_wait": "x",
        "synchronus_mode": "on",
        "postgresql": {"use_slots": "maybe", "parameters": {"a b": 1}},
        "standby_cluster": {"host": "h"},
    }
    with pytest.raises(ConfigError) as refused:
        check_patch({}, patch)
    paths = [text.partition(":")[0] for text in refused.value.mistakes]
    assert sorted(paths) == ["loop_wait", "postgresql.parameters", "postgresql.use_slots", "standby_cluster", "synchronus_mode", "ttl"]
    assert "did you mean synchronous_mode?" in str(refused.value)
    assert "one lost renewal costs the leadership" in str(refused.value)


def test_a_patch_that_breaks_the_rule_is_refused_and_one_that_mends_it_is_not():
    with pytest.raises(ConfigError, match="loop_wait \\+ 2 \\* retry_timeout"):
        check_patch({"ttl": 10}, {"retry_timeout": 8})
    broken = {"ttl": 10, "retry_timeout": 8}
    assert check_patch(broken, {"retry_timeout": 3})["retry_timeout"] == 3


def test_a_mistake_that_was_there_before_does_not_stand_in_the_way():
    current = {"ttl": 10, "retry_timeout": 8, "hang_timeout": "never"}
    assert check_patch(current, {"pause": True})["pause"] is True


def test_keys_of_patroni_that_do_nothing_here_may_be_stored():
    assert check_patch({}, {"failsafe_mode": True, "postgresql": {"parameters_replica": {}}})["failsafe_mode"] is True
    assert any(text.startswith("failsafe_mode") for text in complaints({"failsafe_mode": True}))


@pytest.mark.parametrize("patch", [[], "x", None, 3, {"a": {"b": float("nan")}}, {"ttl": float("inf")}])
def test_a_patch_that_is_no_configuration_is_refused(patch):
    with pytest.raises(ConfigError):
        check_patch({}, patch)


def test_a_setting_cannot_smuggle_in_a_second_line():
    for patch in (
        {"postgresql": {"parameters": {"a": "1\nfsync = off"}}},
        {"postgresql": {"pg_hba": ["local all all peer\nhost all all all trust"]}},
    ):
        with pytest.raises(ConfigError, match="line break"):
            check_patch({}, patch)


def test_a_default_of_every_key_passes_its_own_limits():
    Dynamic.model_validate(json.loads(Dynamic().model_dump_json(exclude_none=True)))


def test_names_of_the_operators_own_that_postgres_would_refuse_are_named_and_not_used():
    """In mode off they are put in force before each promotion, which would fail with them."""
    raw = {"synchronous_mode": "off", "postgresql": {"parameters": {"synchronous_standby_names": "ANY 0 (a)"}}}

    assert policy(raw).own_standby_names == ""
    assert any("ANY 0 (a)" in sentence for sentence in complaints(raw))
    assert any("ANY 0 (a)" in sentence for sentence in mistakes(raw))
    right = {"synchronous_mode": "off", "postgresql": {"parameters": {"synchronous_standby_names": "ANY 1 (a)"}}}
    assert policy(right).own_standby_names == "ANY 1 (a)"


# ---- the sizes that stand on Postgres's command line


@pytest.mark.parametrize("name", ["max_connections", "max_wal_senders", "max_prepared_transactions", "Max_Locks_Per_Transaction"])
@pytest.mark.parametrize("item", ["abc", "", "1e2", "1_000", -1, 1.5, True, "64kB", 10**12])
def test_a_size_that_is_no_whole_number_is_refused_by_its_name(name, item):
    """It became the default in silence, on all nodes."""
    with pytest.raises(ConfigError, match=rf"^postgresql\.parameters\.{name}: must be a whole number of at least 0, not"):
        check_patch({"ttl": 20}, {"postgresql": {"parameters": {name: item}}})
    assert [text.partition(":")[0] for text in complaints({"postgresql": {"parameters": {name: item}}})] == [
        f"postgresql.parameters.{name}"
    ]


def test_a_size_with_which_postgres_would_not_start_is_refused():
    with pytest.raises(ConfigError, match=r"^postgresql\.parameters\.max_connections: must be at most 262143, not 262144"):
        check_patch({}, {"postgresql": {"parameters": {"max_connections": 262_144}}})


@pytest.mark.parametrize("item", [200, "200", " 200 ", None])
def test_a_size_that_is_a_whole_number_is_taken(item):
    found = check_patch(
        {}, {"postgresql": {"parameters": {"max_connections": item, "max_locks_per_transaction": 300_000, "work_mem": "x"}}}
    )
    assert complaints(found) == ()


def test_a_size_that_is_none_in_the_file_of_a_cluster_to_be_is_a_mistake(tmp_path):
    with pytest.raises(
        ConfigError, match=r"bootstrap\.dcs\.postgresql\.parameters\.max_connections: must be a whole number of at least 0, not 'abc'"
    ):
        local(tmp_path, "bootstrap: {dcs: {postgresql: {parameters: {max_connections: abc}}}}\n")
