"""The sections of the local file as models. See `rivha.config.file` for the values; judged together in `rivha.config`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from rivha.config.file import (
    BinDir,
    Command,
    Etcds,
    Level,
    Path,
    Tags,
    address,
    file_mode,
    key_part,
    levels,
    log_format,
    member_name,
    options,
    postgres_listen,
    scope_name,
    word,
)
from rivha.config.shared import DynamicPostgres
from rivha.config.values import Flag, Lines, Seconds, Section, Text, Texts, Whole, Words, section, setting


class Authentication(Section):
    username: Text | None = setting(None, "unsafe REST calls are not asked for a name without it")
    password: Text | None = setting(None, "unsafe REST calls are not asked for a password without it")


class RestApi(Section):
    listen: Annotated[str, address(8008, listens=True)] = setting("127.0.0.1:8008", "HAProxy and the other agents ask here")
    connect_address: Annotated[str, address(8008, listens=False)] | None = setting(None, "the other agents and rivhactl call it")
    authentication: Authentication = section(Authentication)
    certfile: Path | None = setting(None, "set, the API speaks TLS")
    keyfile: Path | None = setting(None, "the certificate's key")
    keyfile_password: Text | None = setting(None, "opens the key")
    cafile: Path | None = setting(None, "client certificates are checked against it")
    verify_client: Literal["none", "optional", "required"] = setting("none", "it decides who may change the cluster")
    ciphers: Text | None = setting(None, "OpenSSL's list of ciphers")
    allowlist: Words = setting((), "it names who may use unsafe calls; empty: everybody")
    allowlist_include_members: Flag = setting(False, "it lets the members' own addresses in")
    http_extra_headers: Texts = setting({}, "headers of every answer")
    https_extra_headers: Texts = setting({}, "headers of every answer over TLS")


class Etcd(Section):
    host: Etcds | None = setting(None, "one endpoint")
    hosts: Etcds | None = setting(None, "without a reachable etcd nobody can lead")
    port: Whole | None = setting(None, "the port of `host`, when it has none", ge=1, le=65535)
    url: Text | None = setting(None, "one endpoint with its protocol")
    protocol: Literal["http", "https"] | None = setting(None, "https also checks etcd's certificate")
    cacert: Path | None = setting(None, "who signed etcd's certificate; else the system's authorities count")
    cert: Path | None = setting(None, "this client's certificate")
    key: Path | None = setting(None, "this client's key; may be part of `cert`")
    username: Text | None = setting(None, "etcd's user, when its authentication is on")
    password: Text | None = setting(None, "its password")


class Bootstrap(Section):
    dcs: dict[str, Any] = setting({}, "it becomes the whole cluster's configuration")
    initdb: Annotated[tuple[str, ...], BeforeValidator(options)] = setting((), "initdb would refuse to make the first database")
    pg_hba: Lines | None = setting(None, "a new cluster's pg_hba.conf, when postgresql.pg_hba is not set")
    post_init: Command | None = setting(None, "it runs once on a new cluster; its failure stops the bootstrap")
    post_bootstrap: Command | None = setting(None, "the same by its newer name; it wins")
    method: Text | None = setting(None, "how a new cluster comes to be")


class Login(Section):
    username: Text | None = setting(None, "Rivha connects with it")
    password: Text | None = setting(None, "Rivha connects with it")
    sslmode: Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"] | None = setting(None, "libpq's")
    sslcert: Path | None = setting(None, "libpq's")
    sslkey: Path | None = setting(None, "libpq's")
    sslpassword: Text | None = setting(None, "libpq's")
    sslrootcert: Path | None = setting(None, "libpq's")
    sslcrl: Path | None = setting(None, "libpq's")
    sslcrldir: Path | None = setting(None, "libpq's")
    sslnegotiation: Text | None = setting(None, "libpq's")
    gssencmode: Text | None = setting(None, "libpq's")
    channel_binding: Text | None = setting(None, "libpq's")


class Logins(Section):
    superuser: Login = section(Login)
    replication: Login = section(Login)
    rewind: Login | None = setting(None, "pg_rewind connects with it; else the superuser")


class Callbacks(Section):
    on_start: Command | None = setting(None, "it runs after Postgres has started")
    on_stop: Command | None = setting(None, "it runs after Postgres has stopped")
    on_restart: Command | None = setting(None, "it runs after a restart")
    on_reload: Command | None = setting(None, "it runs after a reload")
    on_role_change: Command | None = setting(None, "it runs after a promotion or demotion")


class Postgresql(DynamicPostgres):
    """The local section; what it shares with the dynamic one is laid over it for this node."""

    data_dir: Path = setting(..., "Rivha must know where the database is, or is to be")
    listen: Annotated[str, BeforeValidator(postgres_listen)] = setting("127.0.0.1:5432", "clients and replicas connect here")
    connect_address: Annotated[str, address(5432, listens=False)] | None = setting(None, "replicas and clients reach this node by it")
    bin_dir: BinDir = setting("", "PostgreSQL's programs are found in PATH otherwise")
    bin_name: Texts = setting({}, "other names of PostgreSQL's programs")
    config_dir: Path | None = setting(None, "where postgresql.conf lies; else in data_dir")
    pgpass: Path | None = setting(None, "the password file that Rivha writes; else beside data_dir")
    authentication: Logins = section(Logins)
    callbacks: Callbacks = section(Callbacks)
    create_replica_methods: Words = setting(("basebackup",), "how a replica gets its data, in this order")
    custom_conf: Path | None = setting(None, "included instead of postgresql.base.conf")
    use_unix_socket: Flag = setting(False, "the agent connects by socket")
    use_unix_socket_repl: Flag = setting(False, "local replication connections use the socket")


class Log(Section):
    type: Literal["plain", "json"] = setting("plain", "it decides the shape of every line")
    level: Level = setting("INFO", "it decides what is written")
    traceback_level: Level = setting("ERROR", "from here on a record carries its traceback")
    format: Annotated[Any, BeforeValidator(log_format)] = setting(None, "lines would not be written")
    dateformat: Text | None = setting(None, "strftime's, for %(asctime)s")
    max_queue_size: Whole = setting(1000, "records beyond it are dropped and counted", ge=1, le=1_000_000)
    dir: Path | None = setting(None, "files are written there instead of stderr")
    mode: Annotated[int | None, BeforeValidator(file_mode)] = setting(None, "the log files' permissions")
    file_num: Whole = setting(4, "how many old files are kept", ge=1, le=10_000)
    file_size: Whole = setting(25_000_000, "bytes after which a new file begins", ge=1000)
    loggers: Annotated[dict[str, str], BeforeValidator(levels)] = setting({}, "levels by module")
    static_fields: dict[str, Any] = setting({}, "fields added to every JSON record")
    deduplicate_heartbeat_logs: Flag = setting(False, "accepted; Rivha logs changes, not beats")


class Watchdog(Section):
    mode: Annotated[Literal["off", "automatic", "required"], BeforeValidator(word)] = setting("off", "it resets a frozen host")
    device: Path = setting("/dev/watchdog", "the kernel's device")
    safety_margin: Seconds | None = setting(None, "seconds before the ttl at which it fires; -1: half the ttl", ge=-1)
    guard: Flag = setting(True, "a small process kills Postgres when the agent cannot any more and its lease ends")


class Ctl(Section):
    insecure: Flag = setting(False, "true: rivhactl does not check the agents' certificates")
    cacert: Path | None = setting(None, "who signed the agents' certificates")
    certfile: Path | None = setting(None, "rivhactl's client certificate")
    keyfile: Path | None = setting(None, "its key")
    keyfile_password: Text | None = setting(None, "opens the key")
    authentication: Authentication = section(Authentication)


class Local(Section):
    """The whole file."""

    scope: Annotated[str, BeforeValidator(scope_name)] = setting(..., "it names the cluster")
    namespace: Annotated[str, BeforeValidator(key_part)] = setting("/service/", "the first part of etcd's keys")
    name: Annotated[str, BeforeValidator(member_name)] = setting(..., "it names this node, uniquely in the cluster")
    restapi: RestApi = section(RestApi)
    etcd3: Etcd | None = setting(None, "without etcd nobody can lead")
    etcd: Etcd | None = setting(None, "without etcd nobody can lead")
    bootstrap: Bootstrap = section(Bootstrap)
    postgresql: Postgresql = setting(..., "Rivha must know which PostgreSQL it keeps")
    tags: Tags = setting({}, "they decide what this node may become")
    log: Log = section(Log)
    watchdog: Watchdog = section(Watchdog)
    ctl: Ctl = section(Ctl)


class Client(Section):
    """The part of a file that rivhactl reads."""

    scope: Annotated[str, BeforeValidator(scope_name)] | None = setting(None, "it names the cluster")
    namespace: Annotated[str, BeforeValidator(key_part)] = setting("/service/", "the first part of etcd's keys")
    restapi: RestApi = section(RestApi)
    etcd3: Etcd | None = setting(None, "rivhactl reads the cluster from etcd")
    etcd: Etcd | None = setting(None, "rivhactl reads the cluster from etcd")
    ctl: Ctl = section(Ctl)
