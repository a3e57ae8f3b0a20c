"""What Rivha writes into PostgreSQL's files and reads from its programs. No server."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rivha.errors import CommandFailed
from rivha.model import History, HistoryLine, Upstream
from rivha.postgres import conf, conninfo, controldata, history
from rivha.postgres.bootstrap import initdb_options
from rivha.postgres.clone import basebackup_options
from rivha.postgres.parts import Parts
from rivha.postgres.roles import identifier, literal
from rivha.postgres.settings import Credentials, PostgresSettings, slot_name
from rivha.postgres.slots import operators_slots

TEXT = st.text(st.characters(blacklist_characters="\0", blacklist_categories=("Cs",)), max_size=30)
CONTROL = """\
pg_control version number:            1300
Database system identifier:           7123456789012345678
Database cluster state:               in archive recovery
Latest checkpoint location:           25/9000028
Latest checkpoint's REDO location:    25/9000028
Latest checkpoint's TimeLineID:       3
Minimum recovery ending location:     25/90000A0
Min recovery ending loc's timeline:   4
wal_log_hints setting:                on
max_connections setting:              100
max_worker_processes setting:         8
max_wal_senders setting:              10
max_prepared_xacts setting:           2
max_locks_per_xact setting:           64
WAL block size:                       8192
Bytes per WAL segment:                16777216
Data page checksum version:           0
"""


def settings(**given: object) -> PostgresSettings:
    return PostgresSettings(**{"name": "db-1", "scope": "demo", "data_dir": "/data/db-1", **given})  # type: ignore[arg-type]


# ---- the control file


def test_a_control_file_is_read_with_the_old_names_too():
    for text in (CONTROL, CONTROL.replace("max_", "Current max_").replace("wal_log", "Current wal_log")):
        found = controldata.parse(text)
        assert (found.state, found.clean, found.was_standby) == ("in archive recovery", False, True)
        assert (found.checkpoint, found.minimum_recovery) == (0x25_0900_0028, 0x25_0900_00A0)
        assert found.timeline == 4, "the minimum recovery point knows of a promotion before the checkpoint does"
        assert (found.checksums, found.wal_log_hints) == (False, True)
        assert found.sizes["max_prepared_transactions"] == 2


@pytest.mark.parametrize("line", range(1, len(CONTROL.splitlines())))
def test_a_control_file_that_lacks_a_line_is_not_acted_upon(line: int):
    lines = CONTROL.splitlines()
    with pytest.raises(CommandFailed, match="not understood"):
        controldata.parse("\n".join(lines[:line] + lines[line + 1 :]))


# ---- connection strings, password file


@given(st.dictionaries(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), TEXT, max_size=4))
def test_a_connection_string_says_what_went_in(facts: dict[str, str]):
    assert conninfo.parse(conninfo.render(facts)) == facts


def test_a_connection_to_another_node_gives_up_soon_and_carries_no_password():
    user = Credentials("replicator", "secret", {"sslmode": "verify-ca"})
    text = conninfo.to_upstream(settings(), Upstream("b", "10.0.0.2", 5433), user, "/x/pgpass")
    facts = conninfo.parse(text)
    assert "secret" not in text
    assert (facts["application_name"], facts["passfile"], facts["sslmode"]) == ("db-1", "/x/pgpass", "verify-ca")
    assert int(facts["connect_timeout"]) <= 3
    assert conninfo.address(text) == "10.0.0.2:5433"
    assert conninfo.address("") is None


def test_the_password_file_escapes_and_says_each_user_once():
    users = (Credentials("r", "a:b\\c"), Credentials("r", "other"), Credentials("nobody"), Credentials("s", ""))
    assert conninfo.pgpass(users) == "*:*:*:r:a\\:b\\\\c\n*:*:*:s:\n"


# ---- postgresql.conf


@given(st.dictionaries(st.from_regex(r"[a-z]{1,8}(\.[a-z]{1,8})?", fullmatch=True), TEXT, max_size=4))
def test_a_configuration_file_says_what_went_in(given_: dict[str, str]):
    text = conf.postgresql_conf("base.conf", given_)
    written = {k: v.replace("\r", "\\r").replace("\n", "\\n").replace("\\r", "\r").replace("\\n", "\n") for k, v in given_.items()}
    if not any(c in v for v in given_.values() for c in "\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029\\"):
        assert {k: v for k, v in conf.read_conf(text).items() if k in given_} == written


def test_the_nodes_own_parameter_wins_but_not_where_all_must_agree():
    dynamic = {"postgresql": {"parameters": {"work_mem": "1MB", "max_connections": 200, "shared_buffers": "1GB", "fsync": True}}}
    own = settings(parameters={"work_mem": "2MB", "max_connections": 7, "port": 1, "Shared_Buffers": "2GB"})
    shown = conf.parameters(own, dynamic)
    assert (shown["work_mem"], shown["shared_buffers"], shown["fsync"]) == ("2MB", "2GB", "on")
    assert "max_connections" not in shown
    assert "port" not in shown
    forced = conf.forced(own, dynamic)
    assert (forced["max_connections"], forced["port"], forced["cluster_name"]) == ("200", "5432", "demo")


def test_a_standby_is_at_least_as_large_as_its_primary_was_and_wal_is_enough_for_one():
    dynamic = {"postgresql": {"parameters": {"max_connections": 50, "wal_level": "minimal", "max_wal_senders": "many"}}}
    forced = conf.forced(settings(), dynamic, {"max_connections": 300, "max_prepared_transactions": 5})
    assert (forced["max_connections"], forced["max_prepared_transactions"]) == ("300", "5")
    assert (forced["wal_level"], forced["max_wal_senders"]) == ("replica", "10")


@pytest.mark.parametrize("dynamic", [{}, {"postgresql": None}, {"postgresql": {"parameters": "?"}}, {"postgresql": [1]}])
def test_a_strange_cluster_configuration_means_defaults(dynamic: dict[str, object]):
    assert conf.parameters(settings(), dynamic)["wal_retrieve_retry_interval"] == "200ms"
    assert conf.forced(settings(), dynamic)["max_connections"] == "100"


def test_old_names_and_null_are_understood():
    dynamic = {"postgresql": {"parameters": {"wal_keep_segments": 8, "work_mem": None}}}
    shown = conf.parameters(settings(), dynamic)
    assert shown["wal_keep_size"] == "128MB"
    assert "work_mem" not in shown


def test_a_restore_command_is_found_wherever_it_stands_and_never_among_the_parameters():
    for place in ("parameters", "recovery_conf"):
        dynamic = {"postgresql": {place: {"restore_command": "cp"}}}
        assert conf.recovery(settings(), dynamic) == {"restore_command": "cp"}
        assert "restore_command" not in conf.parameters(settings(), dynamic)
    assert conf.recovery(settings(recovery_conf={"primary_conninfo": "host=evil", "recovery_target_time": "now"}), {}) == {}


def test_auto_conf_loses_what_decides_about_recovery_and_nothing_else():
    text = "# by ALTER SYSTEM\nwork_mem = '1MB'\nprimary_conninfo = 'host=x'\nRecovery_Target_Time='now'\nrecovery_prefetch = 'on'\n"
    assert conf.without_ours(text) == "# by ALTER SYSTEM\nwork_mem = '1MB'\nrecovery_prefetch = 'on'\n"


def test_a_fresh_cluster_asks_for_passwords_when_there_are_any():
    assert all("scram" in line for line in conf.default_hba(settings(superuser=Credentials("postgres", "x"))))


@pytest.mark.parametrize(
    ("listen", "addresses", "port"),
    [("127.0.0.1,::1:5433", "127.0.0.1,::1", 5433), ("*:5432", "*", 5432), ("[::1]:1", "::1", 1), ("0.0.0.0:2", "0.0.0.0", 2)],
)
def test_listen_is_patronis(listen: str, addresses: str, port: int):
    assert (settings(listen=listen).listen_addresses, settings(listen=listen).port) == (addresses, port)


def test_slot_names_are_patronis():
    assert slot_name("DB-1.eu") == "db_1_eu"
    assert len(slot_name("x" * 100)) == 63


# ---- options of programs


def parts(tmp_path: Path, **given: object) -> Parts:
    return Parts.of(settings(data_dir=str(tmp_path / "d"), **given), lambda: 0.0)


def test_initdb_gets_checksums_and_passwords_unless_the_operator_decided(tmp_path: Path):
    assert initdb_options(parts(tmp_path), "/p") == ["--username=postgres", "--data-checksums", "--pwfile=/p", "--auth=scram-sha-256"]
    chosen = parts(tmp_path, initdb=("no-data-checksums", "encoding=UTF8", "auth=md5"))
    assert initdb_options(chosen, "/p") == ["--no-data-checksums", "--encoding=UTF8", "--auth=md5", "--username=postgres", "--pwfile=/p"]
    with pytest.raises(CommandFailed, match="pgdata"):
        initdb_options(parts(tmp_path, initdb=("pgdata=/elsewhere",)), None)


def test_basebackup_takes_patronis_forms_and_not_what_would_break_the_clone():
    assert basebackup_options(None) == ["--checkpoint=fast"]
    assert basebackup_options(["verbose", {"max-rate": "100M"}, {"pgdata": "/x"}]) == ["--verbose", "--max-rate=100M", "--checkpoint=fast"]
    assert basebackup_options({"checkpoint": "spread", "format": "tar", "no-sync": False}) == ["--checkpoint=spread"]


def test_permanent_and_ignored_slots_are_the_operators():
    dynamic = {"slots": {"mine": {"type": "physical"}, "plug": {"type": "logical"}, "bad name": {}}, "ignore_slots": [{"name": "kept"}, 5]}
    assert operators_slots(dynamic) == ({"mine"}, {"kept"})
    assert operators_slots({"slots": 5, "ignore_slots": "x"}) == (set(), set())


def test_names_and_passwords_in_sql_stay_what_they_are():
    assert identifier('a"b') == '"a""b"'
    assert literal("it's") == r" E'it\'s'"
    assert literal("plain") == "'plain'"


# ---- histories


def test_a_history_file_is_read_and_its_comments_skipped():
    text = "# made by hand\n1\t0/3000148\tno recovery target specified\n\n2\t25/9000028\tbefore 2000-01-01\n"
    assert [(x.timeline, x.lsn) for x in history.parse(text)] == [(1, 0x3000148), (2, 0x25_0900_0028)]


@pytest.mark.parametrize(
    ("start", "length", "end"),
    [
        (0x3000028, 114, 0x30000A0),  # fits on its page, rounded up to 8
        (0x3001FD0, 48, 0x3002000),  # ends with its page
        (0x3001FD0, 56, 0x3002020),  # 8 bytes flow over a page header of 24
        (0x3FFFFD0, 56, 0x4000030),  # and over a segment's of 40
        (0x3001FD0, 48 + 8168 + 8, 0x3004020),  # over two pages
    ],
)
def test_a_record_ends_beyond_the_page_headers_it_crosses(start: int, length: int, end: int):
    assert history.record_end(start, length, 8192, 16 * 1024 * 1024) == end


ONE = HistoryLine(1, 100, "")
TWO = HistoryLine(2, 200, "")


@pytest.mark.parametrize(
    ("mine", "leader", "same"),
    [
        ((1, 100, ()), (2, 300, (ONE,)), True),
        ((1, 101, ()), (2, 300, (ONE,)), False),
        ((2, 150, (ONE,)), (2, 300, (ONE,)), True),
        ((2, 301, (ONE,)), (2, 300, (ONE,)), False),
        ((2, 150, (HistoryLine(1, 99, ""),)), (2, 300, (ONE,)), False),
        ((3, 10, (ONE, TWO)), (2, 300, (ONE,)), False),
        ((2, 200, (ONE,)), (4, 900, (ONE, TWO, HistoryLine(3, 300, ""))), True),
        ((2, 120, (ONE,)), (3, 900, (HistoryLine(1, 130, ""),)), False),
    ],
)
def test_what_is_a_prefix_of_the_leaders_history(mine: tuple, leader: tuple, same: bool):  # type: ignore[type-arg]
    verdict, text = history.judge(*mine, *leader)
    assert verdict is (History.SAME if same else History.DIVERGED), text
