"""A Patroni user's files start a Rivha node unchanged, and say what of them is not used."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rivha.config import changed, dynamic, load, load_client, policy
from rivha.config.sample import SAMPLE

HERE = Path(__file__).parent / "patroni"


def test_a_plain_patroni_file_loads_without_a_word():
    config = load(str(HERE / "plain.yml"), {})
    assert config.warnings == ()
    assert (config.scope, config.name, config.prefix) == ("batman", "postgresql0", "/service/batman/")
    assert config.etcd.hosts == ("127.0.0.1:2379",)
    assert config.postgres.initdb == ("encoding=UTF8", "data-checksums")
    assert config.postgres.data_dir == os.path.abspath("data/postgresql0")
    assert config.postgres.rewind_user.username == "rewind_user"
    assert config.postgres.pg_hba is None
    assert config.tags == {}
    assert policy(dynamic(config, None)).ttl_s == 30


def test_a_grown_file_loads_and_names_what_is_not_used():
    config = load(str(HERE / "rich.yml"), {})
    assert config.postgres.listen_addresses == "*"
    assert config.postgres.port == 5432
    assert config.postgres.superuser.options == {
        "sslmode": "verify-full",
        "sslrootcert": "/etc/patroni/ca.crt",
        "channel_binding": "prefer",
    }
    assert config.restapi.listen_host == "::"
    assert config.restapi.password == "0815"
    assert config.restapi.allowlist == ("10.20.0.0/16", "bastion.example.org")
    assert config.postgres.create_replica_methods == ("pgbackrest", "basebackup")
    assert config.postgres.replica_methods["pgbackrest"]["keep_data"] is True
    assert config.postgres.replica_methods["basebackup"] == [{"checkpoint": "fast"}, {"max-rate": "200M"}]
    assert list(config.tags) == ["clonefrom", "datacenter", "failover_priority", "nofailover", "replicatefrom"]
    assert config.log.loggers == {"patroni.postmaster": "WARNING", "urllib3": "WARNING"}
    assert config.log.mode == 0o640
    assert (config.watchdog.mode, config.watchdog.safety_margin_s, config.watchdog.guard) == ("off", 5.0, True)
    assert config.ctl.username == "ops"
    assert sorted(warning.partition(":")[0] for warning in config.warnings) == [
        "bootstrap.dcs.failsafe_mode",
        "bootstrap.dcs.postgresql.remove_data_directory_on_rewind_failure",
        "bootstrap.dcs.slots.debezium",
        "bootstrap.method",
        "log.deduplicate_heartbeat_logs",
        "postgresql.parameters.max_connections",
        "postgresql.pg_ctl_timeout",
        "postgresql.pre_promote",
        "postgresql.proxy_address",
        "restapi.request_queue_size",
        "tags.clonefrom",
        "tags.replicatefrom",
    ]


def test_an_old_file_loads_with_its_names_translated():
    config = load(str(HERE / "elder.yml"), {})
    shared = dynamic(config, None)
    assert shared["primary_start_timeout"] == 120
    assert shared["postgresql"]["parameters"]["wal_keep_size"] == "1600MB"
    assert shared["postgresql"]["parameters"]["archive_mode"] is False
    assert "wal_keep_segments" not in shared["postgresql"]["parameters"]
    assert config.postgres.replication.password == "12345"
    assert config.postgres.bin_dir == ""
    assert config.tags == {}
    assert config.prefix == "/db/legacy/"
    told = "\n".join(config.warnings)
    assert "etcd: is read as etcd3" in told
    assert "bootstrap.users: is not used" in told
    assert "master_start_timeout is called primary_start_timeout now" in told
    assert "running with loop_wait 0.2 and retry_timeout 9.9" in told
    found = policy(shared)
    assert (found.ttl_s, found.loop_wait_s, found.retry_timeout_s) == (20, 0.2, 9.9)


def test_a_directory_merges_in_the_order_of_names():
    config = load(str(HERE / "pieces"), {})
    assert config.postgres.parameters == {"work_mem": "8MB"}
    assert config.postgres.listen_addresses == "10.0.0.1,::1"
    assert config.postgres.connect_address == "10.0.0.1:5433"
    assert config.restapi.connect_address == "10.0.0.1:8008"
    assert config.postgres.superuser.username == "postgres"


def test_the_example_is_what_the_program_prints_and_it_loads():
    path = Path(__file__).parents[2] / "docs" / "example.yml"
    assert path.read_text() == SAMPLE
    assert [text for text in load(str(path), {}).warnings if "is the example's, which everybody knows" not in text] == []


def test_secrets_are_never_shown():
    config = load(str(HERE / "rich.yml"), {})
    assert not any(secret in repr(config) for secret in ("etcd-secret", "'one'", "'two'", "'0815'"))


def test_a_file_for_rivhactl_needs_no_node(tmp_path):
    path = tmp_path / "ctl.yml"
    path.write_text("etcd3: {host: 'a'}\nctl: {authentication: {username: me, password: x}}\n")
    client = load_client(str(path), {"PATRONI_SCOPE": "main"})
    assert client.scope == "main"
    assert client.etcd.hosts == ("a:2379",)
    assert client.ctl.username == "me"
    assert load_client(str(HERE / "rich.yml"), {}).etcd.protocol == "https"


def test_a_url_for_etcd_gives_host_and_protocol(tmp_path):
    path = tmp_path / "ctl.yml"
    path.write_text("etcd3: {url: 'https://etcd.example.org:2379/'}\n")
    found = load_client(str(path), {}).etcd
    assert (found.protocol, found.hosts) == ("https", ("etcd.example.org:2379",))


def test_a_reload_says_what_changed_and_what_needs_more():
    before = load(str(HERE / "plain.yml"), {})
    after = load(
        str(HERE / "plain.yml"), {"RIVHA_LOG_LEVEL": "DEBUG", "RIVHA_ETCD3_HOSTS": "other:2379", "RIVHA_SUPERUSER_PASSWORD": "s3cret"}
    )
    assert changed(before, before) == ()
    found = changed(before, after)
    assert [line.partition(" ")[0] for line in found] == ["etcd", "log.level", "postgres.superuser"]
    assert "when the agent is restarted" in found[0]
    assert "s3cret" not in " ".join(found)


@pytest.mark.parametrize(
    ("tags", "published", "warned"),
    [
        ("{nofailover: true, failover_priority: 1}", {"failover_priority": 1, "nofailover": True}, True),
        ("{nofailover: false, failover_priority: 0}", {"failover_priority": 0, "nofailover": False}, True),
        ("{nofailover: true, failover_priority: 0}", {"failover_priority": 0, "nofailover": True}, False),
        ("{zone: b, nofailover: false, clonefrom: false}", {"zone": "b"}, False),
    ],
)
def test_conflicting_tags_are_named_in_the_words_that_people_match(tmp_path, tags, published, warned):
    path = tmp_path / "tags.yml"
    path.write_text(f"{(HERE / 'plain.yml').read_text().partition('tags:')[0]}tags: {tags}\n")
    config = load(str(path), {})
    assert config.tags == published
    assert list(config.tags) == sorted(config.tags)
    words = [w for w in config.warnings if w.startswith("Conflicting configuration between nofailover: ")]
    assert bool(words) == warned
    if tags.startswith("{nofailover: true, failover_priority: 1"):
        assert words == ["Conflicting configuration between nofailover: True and failover_priority: 1. Defaulting to nofailover: True"]
