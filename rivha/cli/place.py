"""Where rivhactl finds a cluster: its keys in etcd, and its agents' REST APIs. Used by every command; decides nothing.

Reading goes to etcd directly, so that it works when agents are down; acting goes through an agent, so that it is checked there.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import ssl
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

import aiohttp
import click

from rivha.api.settings import RestSettings
from rivha.config import ClientConfig, CtlSettings, load_client
from rivha.dcs.base import Txn
from rivha.dcs.etcd import Etcd, EtcdSettings
from rivha.dcs.records import cluster as parsed
from rivha.errors import ConfigError, DcsUnavailable
from rivha.model import Cluster, Member, Outcome

READ_S = 5.0
WRITE_S = 5.0
CONNECT_S = 2.0  # an agent's host that is dark must not hold up the one that answers


class Failed(click.ClickException):
    """Refused or not done: exit code 1, the text on stderr."""

    exit_code = 1


class UnreachableError(Exception):
    """The request certainly did not reach the agent."""


@dataclass(frozen=True, slots=True)
class Options:
    """What stands before the command's name."""

    config: str | None = None
    etcd: tuple[str, ...] = ()
    namespace: str | None = None
    insecure: bool = False


class Agents:
    """The members' REST APIs."""

    def __init__(self, settings: CtlSettings) -> None:
        self._tls = _client_tls(settings)
        login = f"{settings.username}:{settings.password or ''}".encode()
        self._headers = {"Authorization": "Basic " + base64.b64encode(login).decode()} if settings.username else {}

    async def ask(self, member: Member, method: str, path: str, body: object = None, *, timeout_s: float = 10.0) -> tuple[int, str]:
        """(status, text). Raises UnreachableError when it did not reach the agent, Failed when it may have and nothing came back."""
        address = urlsplit(member.api_url)
        if not address.netloc:
            raise UnreachableError(f"{member.name} has published no address of its REST API")
        limit = aiohttp.ClientTimeout(total=timeout_s, connect=CONNECT_S)
        data = None if body is None else json.dumps(body)
        url = f"{address.scheme}://{address.netloc}{path}"
        try:
            async with (
                aiohttp.ClientSession(timeout=limit, headers=self._headers) as session,
                session.request(method, url, data=data, ssl=self._tls) as answer,
            ):
                return answer.status, await answer.text()
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL) as error:
            raise UnreachableError(f"{member.name} ({address.netloc}) does not answer: {error}") from error
        except (aiohttp.ClientError, TimeoutError) as error:
            text = f"{member.name} ({address.netloc}) was asked and did not answer within {timeout_s:g} s"
            raise Failed(f"{text}; whether it happened is not known: look at `rivhactl list` ({error or type(error).__name__})") from error

    async def ask_any(
        self, members: Iterable[Member], method: str, path: str, body: object = None, *, timeout_s: float = 10.0
    ) -> tuple[Member, int, str]:
        """The first that can be reached. Raises UnreachableError, naming each, when none can."""
        silent = []
        for member in members:
            try:
                return member, *await self.ask(member, method, path, body, timeout_s=timeout_s)
            except UnreachableError as why:
                silent.append(str(why))
        raise UnreachableError("; ".join(silent) or "no member is published in etcd")


class Place:
    """One cluster."""

    def __init__(self, etcd: Etcd, scope: str, where: str, agents: Agents) -> None:
        self.etcd = etcd
        self.scope = scope
        self.agents = agents
        self._where = where

    async def read(self) -> Cluster:
        """What etcd holds now. Raises Failed when it does not answer."""
        try:
            return parsed(await self.etcd.read(READ_S))
        except DcsUnavailable as error:
            raise Failed(f"etcd at {self._where} does not answer: {error}; see --etcd, or `etcd3` in the configuration") from error

    async def commit(self, txn: Txn) -> Outcome:
        return await self.etcd.commit(txn, WRITE_S)


def leader_first(cluster: Cluster) -> list[Member]:
    leader = cluster.leader.name if cluster.leader else None
    return sorted(cluster.members, key=lambda member: member.name != leader)


@asynccontextmanager
async def place(options: Options, scope: str | None) -> AsyncIterator[Place]:
    """The cluster that is meant, which must exist. Raises UsageError when that is not clear, Failed when it is not there."""
    settings, namespace, known, ctl = _settings(options)
    where = ", ".join(settings.hosts)
    wanted = scope or known or await _only_scope(settings, namespace, where)
    etcd = Etcd(settings, f"/{namespace}/{wanted}/", time.monotonic)
    try:
        found = Place(etcd, wanted, where, Agents(ctl))
        if not (cluster := await found.read()).members and cluster.initialize is None and not cluster.config_revision:
            others = ", ".join(await _scopes(settings, namespace, where)) or "none"
            raise Failed(f"there is no cluster {wanted} under /{namespace} in etcd at {where}; there are: {others}")
        yield found
    finally:
        await etcd.close()


@asynccontextmanager
async def place_and_names(options: Options, arguments: Sequence[str]) -> AsyncIterator[tuple[Place, tuple[str, ...]]]:
    """The cluster, and the members named: the first argument is the cluster's name, unless it is none and the cluster is clear anyway."""
    settings, namespace, known, _ = _settings(options)
    scope, names = None, tuple(arguments)
    if names and names[0] == known:
        scope, names = known, names[1:]
    elif names:
        where = ", ".join(settings.hosts)
        scopes = await _scopes(settings, namespace, where)
        if names[0] in scopes:
            scope, names = names[0], names[1:]
        elif known is None and len(scopes) != 1:
            raise Failed(f"there is no cluster {names[0]} under /{namespace} in etcd at {where}; there are: {', '.join(scopes) or 'none'}")
    async with place(options, scope) as here:
        yield here, names


def _settings(options: Options) -> tuple[EtcdSettings, str, str | None, CtlSettings]:
    """(etcd, namespace, scope or None, how to speak to agents)."""
    client = _told(options)
    ctl = replace(client.ctl, insecure=True) if options.insecure else client.ctl
    namespace, etcd = client.namespace, client.etcd
    if options.etcd:
        protocol, hosts, named = _urls(options.etcd)
        etcd = replace(etcd or EtcdSettings(()), hosts=hosts, **({"protocol": protocol} if protocol else {}))
        namespace = named or namespace
    if etcd is None:
        raise click.UsageError("which etcd? Give -c CONFIG, or --etcd HOST:PORT, or set RIVHA_ETCD3_HOSTS")
    return etcd, (options.namespace or namespace or "service").strip("/"), client.scope, ctl


def _told(options: Options) -> ClientConfig:
    """What the file and the environment say; nothing, when there is neither."""
    if options.config is None and not any(name.startswith(("RIVHA_", "PATRONI_")) for name in os.environ):
        return ClientConfig(scope=None, namespace="", etcd=None, restapi=RestSettings(), ctl=CtlSettings())
    try:
        return load_client(options.config, os.environ)
    except ConfigError as error:
        raise click.UsageError(f"{options.config or 'the environment'}: {error}") from error


def _urls(given: Iterable[str]) -> tuple[str, tuple[str, ...], str]:
    """(protocol, hosts, namespace) of `host:port,host:port`, `https://host:port` or Patroni's `etcd3://host:port/namespace`."""
    protocol, namespace, hosts = "", "", []
    for item in ",".join(given).split(","):
        url = urlsplit(item if "://" in item else f"//{item}")
        try:
            port = url.port
        except ValueError as error:
            raise click.UsageError(f"--etcd: {item!r}: {error}") from error
        if not url.hostname or url.scheme not in ("", "http", "https", "etcd", "etcd3"):
            raise click.UsageError(f"--etcd: {item!r} is no address; use HOST:PORT or https://HOST:PORT")
        protocol = url.scheme if url.scheme in ("http", "https") else protocol
        namespace = url.path.strip("/") or namespace
        host = f"[{url.hostname}]" if ":" in url.hostname else url.hostname
        hosts.append(f"{host}:{port or 2379}")
    return protocol, tuple(hosts), namespace


async def _scopes(settings: EtcdSettings, namespace: str, where: str) -> list[str]:
    """The clusters below a namespace: what has a key that only clusters have."""
    etcd = Etcd(settings, f"/{namespace}/", time.monotonic)
    try:
        reading = await etcd.read(READ_S)
    except DcsUnavailable as error:
        raise Failed(f"etcd at {where} does not answer: {error}; see --etcd, or `etcd3` in the configuration") from error
    finally:
        await etcd.close()
    names = (item.key.split("/") for item in reading.items)
    return sorted({parts[0] for parts in names if len(parts) > 1 and parts[1] in ("initialize", "config", "leader", "members")})


async def _only_scope(settings: EtcdSettings, namespace: str, where: str) -> str:
    scopes = await _scopes(settings, namespace, where)
    if not scopes:
        raise Failed(f"there is no cluster under /{namespace} in etcd at {where}")
    if len(scopes) > 1:
        raise click.UsageError(f"which cluster? There are {', '.join(scopes)}: name one")
    return scopes[0]


def _client_tls(settings: CtlSettings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.cacert)
        if settings.certfile:
            context.load_cert_chain(settings.certfile, settings.keyfile, settings.keyfile_password)
    except (OSError, ssl.SSLError) as error:
        raise click.UsageError(f"ctl: cannot use {settings.cacert or ''} {settings.certfile or ''}: {error}") from error
    if settings.insecure:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


async def gathered(agents: Agents, members: Iterable[Member], path: str) -> Mapping[str, tuple[int, str] | str]:
    """Every member's answer to a GET, or why there is none; asked at once."""

    async def one(member: Member) -> tuple[int, str] | str:
        try:
            return await agents.ask(member, "GET", path)
        except (UnreachableError, Failed) as why:
            return str(why)

    listed = list(members)
    answers = await asyncio.gather(*(one(member) for member in listed))
    return dict(zip((member.name for member in listed), answers, strict=True))
