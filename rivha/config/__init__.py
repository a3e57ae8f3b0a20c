"""The configuration: YAML files and environment in, one frozen `Config` out, every mistake reported at once.

`load` is called at start and on reload; `dynamic`, `policy` and `complaints` whenever etcd's `config` key changed; `check_patch` by the API
and rivhactl. Reads the named files and nothing else; what must be looked up on the machine is `rivha.config.check`'s. Never shows a secret.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from rivha.api.settings import RestSettings
from rivha.config import build
from rivha.config.env import from_environment, whole
from rivha.config.judge import judge, told_about
from rivha.config.sections import Client, Local
from rivha.config.shape import merged, overlaid, shaped, translated, without_nulls
from rivha.config.shared import check_patch, complaints, effective, policy
from rivha.config.values import mistakes_in, without
from rivha.dcs.etcd import EtcdSettings
from rivha.errors import ConfigError
from rivha.log import LogSettings
from rivha.postgres.settings import PostgresSettings

M = TypeVar("M", bound=BaseModel)

__all__ = ["ClientConfig", "Config", "changed", "check_patch", "complaints", "dynamic", "load", "load_client", "policy"]


@dataclass(frozen=True, slots=True)
class Watchdog:
    mode: str = "off"  # off | automatic | required
    device: str = "/dev/watchdog"
    safety_margin_s: float | None = None  # before the lease's end; -1: half the ttl; None: the watchdog chooses
    guard: bool = True  # Rivha's own: a small process that acts for an agent that cannot (agent/guard.py)


@dataclass(frozen=True, slots=True)
class CtlSettings:
    """How rivhactl speaks to agents."""

    insecure: bool = False  # does not check their certificates
    cacert: str | None = None
    certfile: str | None = None
    keyfile: str | None = None
    keyfile_password: str | None = field(default=None, repr=False)
    username: str | None = None  # else restapi's
    password: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Config:
    """What this node was told. `postgres`, `etcd`, `restapi`, `log` are what their packages ask for."""

    name: str
    scope: str
    namespace: str  # without slashes at its ends
    etcd: EtcdSettings = field(repr=False)
    postgres: PostgresSettings
    restapi: RestSettings
    log: LogSettings
    tags: Mapping[str, object]  # as published: alphabetical, plain `false` of known tags left out (REFERENCE 1.18)
    callbacks: Mapping[str, str]
    bootstrap_dcs: Mapping[str, object]  # goes to etcd's `config` key when this node makes the cluster
    watchdog: Watchdog
    ctl: CtlSettings
    local: Mapping[str, object] = field(repr=False)  # the `postgresql` section as written, for `dynamic`
    source: str | None = None  # the file or directory, for reading it again; None: the environment alone
    warnings: tuple[str, ...] = ()  # for the agent to log once

    @property
    def prefix(self) -> str:
        """`/service/main/`: where the cluster lives in etcd."""
        return f"/{self.namespace}/{self.scope}/"


@dataclass(frozen=True, slots=True)
class ClientConfig:
    """What rivhactl takes from a file, which may be a node's or have only these sections. None: not said."""

    scope: str | None
    namespace: str
    etcd: EtcdSettings | None
    restapi: RestSettings
    ctl: CtlSettings
    warnings: tuple[str, ...] = ()


def load(path: str | None, environ: Mapping[str, str]) -> Config:
    """The configuration of `path` (a YAML file, or a directory of them) under the environment's variables.

    Raises ConfigError with every mistake.
    """
    raw, warnings = gathered(path, environ)
    local, found = modelled(Local, raw, SKELETON)
    found += [sentence for sentence in judge(local) if sentence.partition(":")[0] not in {other.partition(":")[0] for other in found}]
    if found:
        raise ConfigError(found)
    warnings += told_about(local)
    return Config(
        name=local.name,
        scope=local.scope,
        namespace=local.namespace.strip("/"),
        etcd=build.etcd(local),
        postgres=build.postgres(local),
        restapi=build.rest(local.restapi),
        log=build.log(local.log),
        tags=build.published_tags(local.tags),
        callbacks=build.callbacks(local),
        bootstrap_dcs=translated(merged({}, local.bootstrap.dcs))[0],
        watchdog=Watchdog(local.watchdog.mode, local.watchdog.device, local.watchdog.safety_margin, local.watchdog.guard),
        ctl=CtlSettings(**build.ctl(local.ctl, local.restapi)),
        local=dict(raw["postgresql"]),
        source=path,
        warnings=tuple(dict.fromkeys(warnings)),
    )


def load_client(path: str | None, environ: Mapping[str, str]) -> ClientConfig:
    """What rivhactl needs; sections of a node that are missing or wrong do not matter to it. Raises ConfigError."""
    raw, warnings = gathered(path, environ)
    client, found = modelled(Client, {name: raw[name] for name in Client.model_fields if name in raw}, {})
    if found:
        raise ConfigError(found)
    return ClientConfig(
        scope=client.scope,
        namespace=client.namespace.strip("/"),
        etcd=build.etcd(client) if (client.etcd3 or client.etcd) else None,
        restapi=build.rest(client.restapi),
        ctl=CtlSettings(**build.ctl(client.ctl, client.restapi)),
        warnings=tuple(warnings),
    )


def dynamic(config: Config, from_dcs: Mapping[str, object] | None) -> Mapping[str, object]:
    """The effective dynamic configuration of this node: etcd's, with its own `postgresql` section laid over it.

    None (no such key yet): what this node would bootstrap the cluster with. A caller that has seen a configuration passes that one instead
    of None when the key vanished (HAZARDS 16).
    """
    return effective(config.local, config.bootstrap_dcs if from_dcs is None else from_dcs)


# What a reload cannot bring about, and what does.
LATER = {
    "name": "when the agent is restarted (other members know this node by it)",
    "scope": "when the agent is restarted (it is another cluster)",
    "namespace": "when the agent is restarted (it is another cluster)",
    "etcd": "when the agent is restarted (leases and watches hang on the old connections)",
    "watchdog": "when the agent is restarted",
    "postgres.data_dir": "when the agent is restarted (it is another database)",
    "postgres.name": "when the agent is restarted",
    "postgres.scope": "when the agent is restarted",
    "postgres.listen": "when Postgres is restarted",
    "restapi.listen_host": "when the agent is restarted",
    "restapi.listen_port": "when the agent is restarted",
    "log.dir": "when the agent is restarted (the files are open)",
    "log.file_num": "when the agent is restarted (the files are open)",
    "log.file_size": "when the agent is restarted (the files are open)",
    "log.max_queue_size": "when the agent is restarted",
    "bootstrap_dcs": "never for a cluster that exists; use rivhactl edit-config",
}


def changed(old: Config, new: Config) -> tuple[str, ...]:
    """What differs, by name, for the log and for POST /reload, and where a reload is not enough. Values are not shown."""
    names = (name for name in differences(old, new) if name not in ("warnings", "local", "source"))
    return tuple(f"{name} changed" + (f", takes effect {LATER[name]}" if name in LATER else "") for name in sorted(names))


def differences(old: Any, new: Any, root: str = "") -> list[str]:
    found = []
    for item in fields(old):
        before, after = getattr(old, item.name), getattr(new, item.name)
        if before == after:
            continue
        if item.name in ("postgres", "restapi", "log"):
            found += differences(before, after, f"{item.name}.")
        else:
            found.append(f"{root}{item.name}")
    return found


# ---- reading


def gathered(path: str | None, environ: Mapping[str, str]) -> tuple[dict[str, Any], list[str]]:
    """The raw configuration of file and environment, and warnings. Raises ConfigError."""
    warnings: list[str] = []
    given = whole(environ)
    if given is not None:
        raw = parsed(given[1], given[0], warnings)
        return without_nulls(raw), warnings
    raw = {}
    for name in files(path) if path is not None else ():
        raw = overlaid(raw, parsed(read(name), name, warnings))
    raw = overlaid(raw, shaped(from_environment(environ, warnings.append)))
    if not raw:
        raise ConfigError(["there is no configuration: name a file, or set RIVHA_SCOPE, RIVHA_NAME and so on in the environment"])
    return without_nulls(raw), warnings


def files(path: str) -> list[str]:
    """The YAML files of a directory in the order of their names; a file is itself."""
    if not os.path.isdir(path):
        return [path]
    try:
        names = sorted(name for name in os.listdir(path) if name.endswith((".yml", ".yaml")) and not name.startswith("."))
    except OSError as error:
        raise ConfigError([f"{path}: {error.strerror}"]) from error
    if not names:
        raise ConfigError([f"{path}: the directory has no file that ends in .yml or .yaml"])
    return [os.path.join(path, name) for name in names]


def read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except OSError as error:
        raise ConfigError([f"{path}: {error.strerror or error}"]) from error
    except ValueError as error:
        raise ConfigError([f"{path}: is not UTF-8 text"]) from error


class Loader(yaml.SafeLoader):
    """Remembers keys that stand twice in one section: YAML takes the last one, people mean the first."""

    twice: list[str]

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        names = [item.value for item, _ in pairs if isinstance(item, yaml.ScalarNode) and item.value != "<<"]
        self.twice += [f"line {node.start_mark.line + 1}: {name}" for name in dict.fromkeys(names) if names.count(name) > 1]
        return super().construct_mapping(node, deep)


def parsed(text: str, source: str, warnings: list[str]) -> dict[str, Any]:
    """One YAML document. Raises ConfigError that names the line."""
    try:
        loader = Loader(text)
        loader.twice = []
        try:
            found = loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f" line {mark.line + 1}" if mark else ""
        raise ConfigError([f"{source}{line}: is not YAML: {error.problem or error.context}"]) from error
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError([f"{source}: is not YAML that can be read: {reason}"]) from error
    if not isinstance(found, Mapping):
        raise ConfigError([f"{source}: must hold a mapping of keys (scope, name, ...), not {type(found).__name__}"])
    warnings += [f"{source} {place} stands twice in its section; the last one counts" for place in dict.fromkeys(loader.twice)]
    return shaped(found)


# Stands in for what is missing, so that the rest of the file can be judged in the same run.
SKELETON: Mapping[str, Any] = {"scope": "x", "name": "x", "postgresql": {"data_dir": "/x"}}


def modelled(model: type[M], raw: Mapping[str, Any], skeleton: Mapping[str, Any]) -> tuple[M, list[str]]:
    """The raw configuration as its model, and its mistakes; with mistakes, the model of what is left."""
    left, found = dict(raw), list[str]()
    for _ in range(4):  # a mistake in a section may hide those in its keys
        try:
            return model.model_validate(left), found
        except ValidationError as error:
            for where, sentence in mistakes_in(error, model):
                found += [sentence] if sentence not in found else []
                left = without(left, where)
            left = merged(skeleton, left)
    return model.model_validate(skeleton), found
