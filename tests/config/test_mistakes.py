"""Every mistake is named at once, with its path, what is wrong, and why it would hurt."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from rivha.config import load
from rivha.config.sample import SAMPLE
from rivha.errors import ConfigError

PLAIN = Path(__file__).parent / "patroni" / "plain.yml"


def mistakes(tmp_path, **changes):
    """The mistakes of the plain file with `section__key=value` changed; DROP takes a key away."""
    raw = yaml.safe_load(PLAIN.read_text())
    for place, value in changes.items():
        *parents, last = place.split("__")
        here = raw
        for part in parents:
            here = here.setdefault(part, {})
        if value is DROP:
            del here[last]
        else:
            here[last] = value
    path = tmp_path / "node.yml"
    path.write_text(yaml.safe_dump(raw))
    with pytest.raises(ConfigError) as refused:
        load(str(path), {})
    return refused.value.mistakes


DROP = object()


@pytest.mark.parametrize(
    ("place", "value", "path", "words"),
    [
        ("name", "*", "name", "synchronous_standby_names"),
        ("name", "any", "name", "synchronous_standby_names"),
        ("name", "First", "name", "synchronous_standby_names"),
        ("name", "a,b", "name", "no comma"),
        ("name", "nö", "name", "ASCII"),
        ("name", "n" * 64, "name", "63 letters"),
        ("name", DROP, "name", "is missing"),
        ("scope", "a/b", "scope", "two clusters could share keys"),
        ("restapi__connect_address", "0.0.0.0:8008", "restapi.connect_address", "connect to themselves"),
        ("restapi__listen", "127.0.0.1:80080", "restapi.listen", "not between 1 and 65535"),
        ("restapi__listen", "127.0.0.1:5432", "restapi.listen", "only one of them could start"),
        ("restapi__verify_client", "required", "restapi.verify_client", "nothing could be verified"),
        ("restapi__verify_client", "maybe", "restapi.verify_client", "must be"),
        ("restapi__authentication", {"username": "u"}, "restapi.authentication.password", "stand open"),
        ("restapi__http_extra_headers", {"A": "b\r\nC: d"}, "restapi.http_extra_headers", "line breaks"),
        ("etcd3__host", "http://e:2379", "etcd3.host", "write host:port"),
        ("etcd3__hosts", ["e:2379", "e:0"], "etcd3.hosts", "not between 1 and 65535"),
        ("etcd3__protocol", "gopher", "etcd3.protocol", "must be"),
        ("etcd3__username", "u", "etcd3.password", "is missing"),
        ("etcd3", DROP, "etcd3.hosts", "name its endpoints"),
        ("etcd3", {}, "etcd3.hosts", "is missing"),
        ("etcd3", {"url": "ftp://e"}, "etcd3.url", "http"),
        ("postgresql__connect_address", "*:5432", "postgresql.connect_address", "connect to themselves"),
        ("postgresql__listen", "0.0.0.0:x", "postgresql.listen", "host:port"),
        ("postgresql__data_dir", DROP, "postgresql.data_dir", "is missing"),
        ("postgresql__authentication__replication", DROP, "postgresql.authentication.replication.username", "could not connect"),
        ("postgresql__authentication__superuser__password", [1], "postgresql.authentication.superuser.password", "must be text"),
        ("postgresql__authentication__superuser__sslmode", "yes", "postgresql.authentication.superuser.sslmode", "must be"),
        ("postgresql__create_replica_methods", ["barman"], "postgresql.barman", "create_replica_methods names it"),
        ("postgresql__callbacks", {"on_start": 'cb.sh "'}, "postgresql.callbacks.on_start", "no command line"),
        ("postgresql__pg_hba", "host all all all trust\0", "postgresql.pg_hba", "line break"),
        ("postgresql__parameters", {"work_mem": [1]}, "postgresql.parameters", "one value"),
        ("bootstrap__initdb", ["nosync"], "bootstrap.initdb", "not allowed"),
        ("bootstrap__initdb", [{"pgdata": "/x"}], "bootstrap.initdb", "not allowed"),
        ("bootstrap__dcs__ttl", 2, "bootstrap.dcs.ttl", "lost renewal"),
        ("bootstrap__dcs__postgresql__use_slots", "perhaps", "bootstrap.dcs.postgresql.use_slots", "true or false"),
        ("bootstrap__dcs__standby_cluster", {"host": "h"}, "bootstrap.dcs.standby_cluster", "primary of its own"),
        ("log__level", "LOUD", "log.level", "DEBUG"),
        ("log__format", "%(nonsense)s", "log.format", "format"),
        ("log__max_queue_size", 0, "log.max_queue_size", "dropped"),
        ("tags__nofailover", "yes please", "tags", "true or false"),
        ("tags__failover_priority", "high", "tags", "whole number"),
        ("watchdog__mode", "sometimes", "watchdog.mode", "must be"),
        ("postgresql", 5, "postgresql", "must be a section"),
        ("bootstrap", [], "bootstrap", "must be a section"),
    ],
)
def test_a_mistake_names_its_path_and_why(tmp_path, place, value, path, words):
    found = [text for text in mistakes(tmp_path, **{place: value}) if text.startswith(f"{path}:")]
    assert found, mistakes(tmp_path, **{place: value})
    assert words in found[0]


def test_all_mistakes_of_all_kinds_come_in_one_run(tmp_path):
    found = mistakes(
        tmp_path,
        name="*",
        restapi__listen="x:0",
        etcd3=DROP,
        bootstrap__dcs__ttl="soon",
        postgresql__connect_address="0.0.0.0:1",
        postgresql__create_replica_methods=["barman"],
        log__type="loud",
    )
    assert sorted(text.partition(":")[0] for text in found) == [
        "bootstrap.dcs.ttl",
        "etcd3.hosts",
        "log.type",
        "name",
        "postgresql.barman",
        "postgresql.connect_address",
        "restapi.listen",
    ]


def test_a_password_is_not_repeated_in_a_message(tmp_path):
    found = " ".join(mistakes(tmp_path, postgresql__authentication__superuser__password=["hush-hush"], etcd3__password="hush-hush"))
    assert "hush" not in found


def test_another_store_is_named(tmp_path):
    found = mistakes(tmp_path, etcd3=DROP, consul={"host": "c"})
    assert any("consul is not served" in text for text in found)


def test_a_slip_of_the_pen_is_pointed_at(tmp_path):
    path = tmp_path / "node.yml"
    path.write_text(PLAIN.read_text().replace("  pgpass:", "  pgpas:"))
    assert any("postgresql.pgpas: is not used" in text and "did you mean pgpass" in text for text in load(str(path), {}).warnings)


def test_tags_that_nobody_acts_upon_are_named(tmp_path):
    path = tmp_path / "node.yml"
    path.write_text(
        f"{PLAIN.read_text().partition('tags:')[0]}tags: {{replicatefrom: db2, nostream: true, clonefrom: true, nosync: true}}\n"
    )
    told = [text for text in load(str(path), {}).warnings if text.startswith("tags.")]
    assert [text.partition(":")[0] for text in told] == ["tags.clonefrom", "tags.replicatefrom", "tags.nostream"]
    assert all("is not used by this version" in text for text in told)


def test_a_key_that_stands_twice_is_named(tmp_path):
    path = tmp_path / "node.yml"
    path.write_text(PLAIN.read_text() + "scope: robin\n")
    config = load(str(path), {})
    assert config.scope == "robin"
    assert any("scope stands twice" in text for text in config.warnings)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"scope: [", "line 1"),
        (b"a: b: c", "line 1"),
        (b"- a", "must hold a mapping"),
        (b"", "must hold a mapping"),
        (b"\xff\xfe\x00", "UTF-8"),
        (b"scope: \x00", "not YAML"),
        (b"a: &a {b: *a}", "deep"),
        (b"? [x]\n: y", "not YAML"),
        (b"ttl: !!python/object:os.system x", "line 1"),
        (b"bootstrap: {dcs: {ttl: .nan}}", "bootstrap.dcs.ttl: nan"),
        (b"tags: {a: !!binary aGk=}", "tags.a"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused_in_words(tmp_path, content, words):
    path = tmp_path / "bad.yml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=words):
        load(str(path), {})


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        load(str(tmp_path / "none.yml"), {})
    with pytest.raises(ConfigError, match="no file that ends"):
        load(str(tmp_path), {})


def test_the_examples_passwords_are_told_and_others_are_not(tmp_path):
    """The generated file is valid as it is, and its passwords are in everybody's hands."""
    path = tmp_path / "node.yml"
    path.write_text(SAMPLE.replace("  # username: rivha\n  # password", "  username: rivha\n  password"))
    users = [f"postgresql.authentication.{user}" for user in ("superuser", "replication", "rewind")]
    told = [text.partition(":")[0] for text in load(str(path), {}).warnings if "the example's" in text]
    assert told == [*(f"{user}.password" for user in users), "etcd3.password"]
    path.write_text(SAMPLE.replace("choose-one", "chosen"))
    assert not any("the example's" in text for text in load(str(path), {}).warnings)
