"""From the file's sections to the settings that each package asks for. Pure, and only for sections that `rivha.config.judge` has passed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from rivha.api.settings import RestSettings
from rivha.config.sections import Client, Ctl, Etcd, Local, Log, Login, RestApi
from rivha.config.shape import merged, translated_postgres
from rivha.config.shared import SHARED_PARAMETERS
from rivha.config.values import everywhere, join_address, split_address, split_listen
from rivha.dcs.etcd import EtcdSettings
from rivha.log import LogSettings
from rivha.postgres.settings import Credentials, PostgresSettings

PLAIN_FALSE = ("clonefrom", "nofailover", "noloadbalance", "nosync", "nostream")


def etcd(local: Local | Client) -> EtcdSettings:
    """`etcd3`, or the older `etcd` when that is all there is."""
    found = local.etcd3 or local.etcd
    assert found is not None
    protocol, hosts = endpoints(found)
    return EtcdSettings(
        hosts=hosts,
        protocol=protocol,
        cacert=found.cacert,
        cert=found.cert,
        key=found.key,
        username=found.username,
        password=found.password,
    )


def endpoints(found: Etcd) -> tuple[str, tuple[str, ...]]:
    """(protocol, hosts); `hosts` wins over `host`, and that over `url`. Raises ValueError for a url that is none."""
    if found.hosts:
        return found.protocol or "http", found.hosts
    if found.host:
        host, port = split_address(found.host[0], 2379)
        return found.protocol or "http", (join_address(host, found.port if found.port and port == 2379 else port),)
    protocol, mark, rest = (found.url or "").partition("://")
    if mark and protocol not in ("http", "https"):
        raise ValueError("must begin with http:// or https://")
    host, port = split_address((rest if mark else protocol).rstrip("/").rpartition("@")[2], 2379)
    return found.protocol or (protocol if mark else "http"), (join_address(host, port),)


def rest(found: RestApi) -> RestSettings:
    host, port = split_address(found.listen, 8008)
    if found.connect_address:
        connect_host, connect_port = split_address(found.connect_address, 8008)
    else:
        connect_host, connect_port = ("127.0.0.1" if everywhere(host) else host), port
    return RestSettings(
        listen_host="" if host == "*" else host,
        listen_port=port,
        connect_address=join_address(connect_host, connect_port),
        certfile=found.certfile,
        keyfile=found.keyfile,
        keyfile_password=found.keyfile_password,
        cafile=found.cafile,
        verify_client=found.verify_client,
        ciphers=found.ciphers,
        username=found.authentication.username,
        password=found.authentication.password,
        allowlist=found.allowlist,
        allowlist_include_members=found.allowlist_include_members,
        http_extra_headers=found.http_extra_headers,
        https_extra_headers=found.https_extra_headers,
    )


def ctl(found: Ctl, api: RestApi) -> dict[str, Any]:
    return {
        "insecure": found.insecure,
        "cacert": found.cacert or api.cafile,
        "certfile": found.certfile,
        "keyfile": found.keyfile,
        "keyfile_password": found.keyfile_password,
        "username": found.authentication.username or api.authentication.username,
        "password": found.authentication.password or api.authentication.password,
    }


def log(found: Log) -> LogSettings:
    chosen = found.format
    return LogSettings(
        type=found.type,
        level=found.level,
        traceback_level=found.traceback_level,
        format=tuple(chosen) if isinstance(chosen, list) else chosen,
        dateformat=found.dateformat,
        max_queue_size=found.max_queue_size,
        dir=found.dir,
        mode=found.mode,
        file_num=found.file_num,
        file_size=found.file_size,
        loggers=found.loggers,
        static_fields=found.static_fields,
    )


def credentials(found: Login, default: str) -> Credentials:
    options = {name: getattr(found, name) for name in type(found).model_fields if name not in ("username", "password")}
    return Credentials(found.username or default, found.password, {name: value for name, value in options.items() if value is not None})


def postgres(local: Local) -> PostgresSettings:
    found, boot = local.postgresql, local.bootstrap
    own, _ = translated_postgres({"parameters": found.parameters}, "")
    hosts, port = split_listen(found.listen, 5432)
    superuser = credentials(found.authentication.superuser, "postgres")
    return PostgresSettings(
        name=local.name,
        scope=local.scope,
        data_dir=os.path.abspath(found.data_dir),
        listen=found.listen,
        connect_address=connect_address(found.connect_address, hosts, port),
        bin_dir=found.bin_dir,
        bin_names=found.bin_name,
        config_dir=os.path.abspath(found.config_dir) if found.config_dir else "",
        pgpass=os.path.abspath(found.pgpass) if found.pgpass else "",
        superuser=superuser,
        replication=credentials(found.authentication.replication, "replicator"),
        rewind=credentials(found.authentication.rewind, superuser.username) if found.authentication.rewind else None,
        parameters={name: value for name, value in merged({}, own["parameters"]).items() if name not in SHARED_PARAMETERS},
        pg_hba=found.pg_hba,
        pg_ident=found.pg_ident,
        recovery_conf=merged({}, found.recovery_conf),
        custom_conf=found.custom_conf,
        use_unix_socket=found.use_unix_socket,
        use_unix_socket_repl=found.use_unix_socket_repl,
        create_replica_methods=found.create_replica_methods,
        replica_methods={name: section for name, section in (found.model_extra or {}).items() if name in found.create_replica_methods},
        initdb=boot.initdb,
        bootstrap_pg_hba=boot.pg_hba,
        post_init=boot.post_bootstrap or boot.post_init,
        callbacks=callbacks(local),
    )


def connect_address(given: str | None, hosts: tuple[str, ...], port: int) -> str:
    if given:
        return join_address(*split_address(given, port))
    return join_address("127.0.0.1" if everywhere(hosts[0]) else hosts[0], port)


def callbacks(local: Local) -> dict[str, str]:
    found = local.postgresql.callbacks
    return {name: getattr(found, name) for name in type(found).model_fields if getattr(found, name) is not None}


def published_tags(tags: Mapping[str, object]) -> dict[str, object]:
    """REFERENCE 1.18: alphabetical; `false` of a known tag is left out unless it contradicts a priority."""
    return {
        name: tags[name]
        for name in sorted(tags)
        if name not in PLAIN_FALSE or tags[name] or (name == "nofailover" and "failover_priority" in tags)
    }
