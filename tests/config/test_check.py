"""`rivha --validate-config`: what this machine shows, and the command line's exit codes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rivha.__main__ import main
from rivha.config import load
from rivha.config.check import PROGRAMS, check

PLAIN = Path(__file__).parent / "patroni" / "plain.yml"


@pytest.fixture
def node(tmp_path):
    """A file whose every place exists; `postgres` is a script that says which version it is."""
    bin_dir = tmp_path / "bin"
    bin_dir.mkdir()
    for name in PROGRAMS:
        (bin_dir / name).write_text("#!/bin/sh\necho 'postgres (PostgreSQL) 15.6 (Debian 15.6-0+deb12u1)'\n")
        (bin_dir / name).chmod(0o755)

    def write(**changes):
        text = PLAIN.read_text().replace("data_dir: data/postgresql0", f"data_dir: {tmp_path}/data\n  bin_dir: {bin_dir}")
        text = text.replace("'..'", f"'{tmp_path}'").replace("/tmp/pgpass0", f"{tmp_path}/pgpass")
        for old, new in changes.items():
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / "node.yml"
        path.write_text(text)
        return str(path)

    write.root = tmp_path
    return write


def found(path):
    return check(load(path, {}))


def test_a_sound_file_has_no_mistake(node, capsys):
    assert found(node()) == []
    assert main(["--validate-config", node()]) == 0
    assert capsys.readouterr().out == "the configuration is valid\n"


def test_missing_programs_are_all_named(node):
    (node.root / "bin" / "pg_rewind").unlink()
    (node.root / "bin" / "initdb").chmod(0o644)
    assert [text.split(" is not ")[0] for text in found(node())] == ["postgresql.bin_dir: initdb", "postgresql.bin_dir: pg_rewind"]


def test_a_directory_without_programs_is_one_mistake(node):
    shutil.rmtree(node.root / "bin")
    assert len(found(node())) == 1


@pytest.mark.parametrize(("answer", "words"), [("postgres (PostgreSQL) 12.9", "needs 14"), ("hello", "is not PostgreSQL's")])
def test_a_wrong_server_is_named(node, answer, words):
    (node.root / "bin" / "postgres").write_text(f"#!/bin/sh\necho '{answer}'\n")
    assert words in found(node())[0]


def test_data_of_another_version_is_named(node):
    data = node.root / "data"
    (data / "global").mkdir(parents=True)
    (data / "PG_VERSION").write_text("13\n")
    data.chmod(0o700)
    assert ["was made by 13" in text for text in found(node())] == [True]


def test_a_directory_with_other_files_is_left_alone(node):
    (node.root / "data").mkdir()
    (node.root / "data" / "photo.jpg").write_text("x")
    assert "never writes into it" in found(node())[0]


def test_a_mount_point_counts_as_empty(node):
    (node.root / "data" / "lost+found").mkdir(parents=True)
    assert found(node()) == []


def test_a_data_directory_that_all_may_read_is_refused(node):
    data = node.root / "data"
    (data / "global").mkdir(parents=True)
    (data / "PG_VERSION").write_text("15\n")
    data.chmod(0o755)
    assert "0700" in found(node())[0]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_place_that_cannot_be_written_is_named(node):
    path = node()
    node.root.chmod(0o500)
    try:
        assert sorted(text.partition(":")[0] for text in found(path)) == [
            "postgresql.data_dir",
            "postgresql.parameters.unix_socket_directories",
            "postgresql.pgpass",
        ]
    finally:
        node.root.chmod(0o700)


def test_times_that_break_the_rule_are_a_mistake_here(node):
    assert "bootstrap.dcs.ttl" in found(node(**{"ttl: 30": "ttl: 29"}))[0]


@pytest.mark.parametrize(
    ("rule", "right"),
    [
        ("host replication replicator 127.0.0.1/32 md5", True),
        ("hostssl all,replication all 0.0.0.0/0 scram-sha-256 # all", True),
        ("host replication +admins 0.0.0.0/0 md5", True),
        ("include_dir hba.d", True),
        ("host all all 0.0.0.0/0 md5", False),
        ("host replication replicator 0.0.0.0/0 reject", False),
        ("local replication replicator trust", False),
        ("host replication somebody 0.0.0.0/0 md5", False),
    ],
)
def test_the_replication_user_must_be_let_in(node, rule, right):
    assert (found(node(**{"host replication replicator 127.0.0.1/32 md5": rule})) == []) == right


def test_the_replication_user_had_better_not_be_the_superuser(node):
    config = load(node(**{"username: replicator": "username: postgres", "host replication replicator": "host replication postgres"}), {})
    assert any("opens the whole primary" in text for text in config.warnings)


def test_certificates_are_opened(node):
    cert, other = make_certificate(node.root, "a"), make_certificate(node.root, "b")
    good = f"certfile: {cert}.crt\n  keyfile: {cert}.key\n  cafile: {cert}.crt\n"
    line = "connect_address: 127.0.0.1:8008"
    assert found(node(**{line: f"{line}\n  {good}"})) == []
    swapped = good.replace(f"{cert}.key", f"{other}.key")
    assert "do not fit together" in found(node(**{line: f"{line}\n  {swapped}"}))[0]
    assert "cannot be read" in found(node(**{line: f"{line}\n  {good.replace('.key', '.none')}"}))[0]
    bad = node.root / "bad.pem"
    bad.write_text("no certificate")
    etcd = "host: 127.0.0.1:2379"
    assert "no certificates in PEM" in found(node(**{etcd: f"{etcd}\n  protocol: https\n  cacert: {bad}"}))[0]


def make_certificate(folder, name):
    base = folder / name
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-subj",
        f"/CN={name}",
        "-keyout",
        f"{base}.key",
        "-out",
        f"{base}.crt",
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return base


def test_a_callback_that_is_not_there_is_named(node):
    mistakes = found(node(**{"  authentication:": "  callbacks: {on_start: /nonexistent/cb.sh x}\n  authentication:"}))
    assert mistakes == ["postgresql.callbacks.on_start: /nonexistent/cb.sh cannot be run (not found, or not executable for this user)"]


# ---- the command line


def test_all_mistakes_are_listed_and_the_code_is_1(node, capsys):
    path = node(**{"name: postgresql0": "name: '*'", "ttl: 30": "ttl: 1"})
    assert main(["--validate-config", path]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert "mistake: name:" in told.err
    assert "mistake: bootstrap.dcs.ttl:" in told.err
    assert "2 mistakes" in told.err


def test_the_program_as_people_start_it(node):
    def run(*arguments):
        environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[2])}
        return subprocess.run(
            [sys.executable, "-m", "rivha", *arguments], capture_output=True, text=True, timeout=60, env=environ, check=False
        )

    assert run("--version").stdout.startswith("rivha ")
    assert run().returncode == 2
    assert run("--no-such").returncode == 2
    wrong = run(str(node.root / "none.yml"))
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert "No such file" in wrong.stderr
    assert "Traceback" not in wrong.stderr
    target = node.root / "sample.yml"
    assert run("--generate-sample-config", str(target)).returncode == 0
    assert run("--generate-sample-config", str(target)).returncode == 1
    assert target.read_text() == run("--generate-sample-config").stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to be refused")
def test_root_is_refused_in_words(node, capsys):
    assert main([node()]) == 8
    assert "does not run as root" in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() == 0, reason="root is refused before")
def test_a_log_directory_that_is_not_there_is_a_mistake(node, capsys):
    assert main([node(**{"tags:": "log: {dir: /nonexistent}\ntags:"})]) == 1
    assert "log.dir" in capsys.readouterr().err
