"""The environment alone can make a node; ours wins over Patroni's, both over the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from rivha.config import load
from rivha.errors import ConfigError

PLAIN = Path(__file__).parent / "patroni" / "plain.yml"

ENOUGH = {
    "PATRONI_SCOPE": "main",
    "PATRONI_NAME": "db1",
    "PATRONI_ETCD3_HOSTS": "'10.0.0.1:2379','10.0.0.2:2379'",
    "PATRONI_RESTAPI_LISTEN": "0.0.0.0:8008",
    "PATRONI_RESTAPI_CONNECT_ADDRESS": "10.0.0.1:8008",
    "PATRONI_RESTAPI_USERNAME": "ops",
    "PATRONI_RESTAPI_PASSWORD": "pw",
    "PATRONI_POSTGRESQL_LISTEN": "0.0.0.0:5432",
    "PATRONI_POSTGRESQL_CONNECT_ADDRESS": "10.0.0.1:5432",
    "PATRONI_POSTGRESQL_DATA_DIR": "/var/lib/pg",
    "PATRONI_POSTGRESQL_BIN_POSTGRES": "postgres15",
    "PATRONI_REPLICATION_USERNAME": "replicator",
    "PATRONI_REPLICATION_PASSWORD": "12345",
    "PATRONI_REPLICATION_SSLMODE": "require",
    "PATRONI_SUPERUSER_PASSWORD": "super",
    "PATRONI_LOG_LEVEL": "debug",
    "PATRONI_LOG_LOGGERS": "{rivha.dcs: WARNING}",
    "PATRONI_RESTAPI_HTTP_EXTRA_HEADERS": "{X-A: b}",
    "PATRONI_CTL_INSECURE": "on",
    "HOME": "/root",
}


def test_the_environment_alone_makes_a_node():
    config = load(None, ENOUGH)
    assert config.warnings == ()
    assert (config.name, config.prefix) == ("db1", "/service/main/")
    assert config.etcd.hosts == ("10.0.0.1:2379", "10.0.0.2:2379")
    assert (config.restapi.username, config.restapi.http_extra_headers) == ("ops", {"X-A": "b"})
    assert config.postgres.bin_names == {"postgres": "postgres15"}
    assert (config.postgres.replication.password, config.postgres.replication.options) == ("12345", {"sslmode": "require"})
    assert config.postgres.superuser.password == "super"
    assert (config.log.level, config.log.loggers) == ("DEBUG", {"rivha.dcs": "WARNING"})
    assert config.ctl.insecure is True


def test_our_variables_win_over_patronis_and_both_over_the_file():
    config = load(str(PLAIN), {"PATRONI_NAME": "b", "RIVHA_NAME": "c", "PATRONI_SCOPE": "d"})
    assert (config.name, config.scope) == ("c", "d")


def test_a_whole_file_in_one_variable_leaves_all_else_aside():
    config = load("/nonexistent", {"PATRONI_CONFIGURATION": PLAIN.read_text(), "PATRONI_NAME": "other"})
    assert config.name == "postgresql0"


def test_an_unknown_variable_is_named_once_without_its_value():
    config = load(str(PLAIN), {"RIVHA_ETCD3_HOTS": "x", "PATRONI_admin_PASSWORD": "hush", "PATRONI_VERSION": "4", "RIVHA_DEMO_SPEED": "1"})
    assert [text.partition(":")[0] for text in config.warnings] == ["PATRONI_admin_PASSWORD", "RIVHA_ETCD3_HOTS"]
    assert "hush" not in " ".join(config.warnings)


def test_fields_of_a_json_log_may_come_as_a_list():
    config = load(str(PLAIN), {"PATRONI_LOG_TYPE": "json", "PATRONI_LOG_FORMAT": "[asctime, {levelname: level}]"})
    assert config.log.format == ("asctime", {"levelname": "level"})
    with pytest.raises(ConfigError, match="RIVHA_LOG_FORMAT"):
        load(str(PLAIN), {"RIVHA_LOG_FORMAT": "[asctime"})


def test_an_empty_variable_is_not_set():
    assert load(str(PLAIN), {"PATRONI_SCOPE": ""}).scope == "batman"


@pytest.mark.parametrize("value", ["[1, 2]", "{a: ", "just words", "\x00"])
def test_a_mapping_that_is_none_is_a_mistake_that_names_the_variable(value):
    with pytest.raises(ConfigError, match="RIVHA_LOG_LOGGERS"):
        load(str(PLAIN), {"RIVHA_LOG_LOGGERS": value})


def test_what_is_still_missing_is_all_named():
    with pytest.raises(ConfigError) as refused:
        load(None, {"RIVHA_SCOPE": "main"})
    assert [text.partition(":")[0] for text in refused.value.mistakes] == [
        "name",
        "postgresql",
        "etcd3.hosts",
        "postgresql.authentication.replication.username",
    ]


def test_nothing_at_all_is_said_so():
    with pytest.raises(ConfigError, match="there is no configuration"):
        load(None, {})
