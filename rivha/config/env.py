"""Environment variables as a configuration: `PATRONI_*` as Patroni reads them, `RIVHA_*` the same names of ours, which win.

Pure: takes the environment as a mapping. Everything that a node needs can come from here alone (REFERENCE 1.18). Called by `rivha.config`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import yaml

from rivha.errors import ConfigError

PREFIXES = ("PATRONI_", "RIVHA_")  # in rising order of precedence
WHOLE = "CONFIGURATION"  # PATRONI_CONFIGURATION: the whole file as text; nothing else of the environment counts then

CONNECTION = (
    *("username", "password", "sslmode", "sslcert", "sslkey", "sslpassword", "sslrootcert", "sslcrl", "sslcrldir"),
    *("sslnegotiation", "gssencmode", "channel_binding"),
)
ETCD = (
    *("host", "hosts", "port", "url", "proxy", "protocol", "srv", "srv_suffix", "use_proxies"),
    *("cacert", "cert", "key", "username", "password"),
)

# section -> the keys that one variable each may set: <PREFIX><SECTION>_<KEY>
SECTIONS: Mapping[str, tuple[str, ...]] = {
    "restapi": (
        *("listen", "connect_address", "certfile", "keyfile", "keyfile_password", "cafile", "ciphers", "verify_client"),
        *("allowlist", "allowlist_include_members", "http_extra_headers", "https_extra_headers", "request_queue_size", "server_tokens"),
    ),
    "ctl": ("insecure", "cacert", "certfile", "keyfile", "keyfile_password"),
    "postgresql": ("listen", "connect_address", "proxy_address", "data_dir", "config_dir", "bin_dir", "pgpass"),
    "log": (
        *("type", "level", "traceback_level", "format", "dateformat", "max_queue_size", "dir", "mode", "file_num", "file_size"),
        *("loggers", "static_fields", "deduplicate_heartbeat_logs"),
    ),
    "etcd3": ETCD,
    "etcd": ETCD,
    "watchdog": ("mode", "device", "safety_margin", "guard"),
}
STRUCTURED = {"loggers", "static_fields", "http_extra_headers", "https_extra_headers"}  # YAML within the variable
PROGRAMS = ["pg_ctl", "initdb", "pg_controldata", "pg_basebackup", "postgres", "pg_isready", "pg_rewind", "pg_waldump"]

# Variables that share the prefix and are none of the configuration's: images, haproxy.cfg and our own scripts have them.
FOREIGN = ("VERSION", "HOME", "CONFIG_LOCATION", "CONFIG_FILE", "CACHE", "DB", "DEMO_", "LAB_", "PROXY_", "TEST_")


def known_names() -> dict[str, tuple[str, ...]]:
    """Variable without prefix -> where its value goes."""
    names: dict[str, tuple[str, ...]] = {name.upper(): (name,) for name in ("name", "namespace", "scope")}
    for section, keys in SECTIONS.items():
        names.update({f"{section}_{key}".upper(): (section, key) for key in keys})
    for section in ("restapi", "ctl"):
        names.update({f"{section}_{key}".upper(): (section, "authentication", key) for key in ("username", "password")})
    for role in ("superuser", "replication", "rewind"):
        names.update({f"{role}_{key}".upper(): ("postgresql", "authentication", role, key) for key in CONNECTION})
    names.update({f"POSTGRESQL_BIN_{program.upper()}": ("postgresql", "bin_name", program) for program in PROGRAMS})
    names.update({"LOGLEVEL": ("log", "level"), "LOGFORMAT": ("log", "format"), "LOGDATEFORMAT": ("log", "dateformat")})
    return names


NAMES = known_names()


def whole(environ: Mapping[str, str]) -> tuple[str, str] | None:
    """(variable, text) of a configuration given as one variable."""
    for prefix in reversed(PREFIXES):
        if environ.get(prefix + WHOLE):
            return prefix + WHOLE, environ[prefix + WHOLE]
    return None


def from_environment(environ: Mapping[str, str], warn: Callable[[str], None]) -> dict[str, Any]:
    """A configuration made of the variables; `warn` hears of those that mean nothing. Raises ConfigError naming the variables."""
    result: dict[str, Any] = {}
    mistakes = []
    for prefix in PREFIXES:
        for variable in sorted(environ):
            name = variable.removeprefix(prefix).upper()
            if not variable.startswith(prefix) or not environ[variable] or name == WHOLE:
                continue
            if name not in NAMES:
                if not name.startswith(FOREIGN):
                    warn(f"{variable}: Rivha has no such variable; it is not used")
                continue
            place = NAMES[name]
            try:
                value = understood(environ[variable], place)
            except ValueError as error:
                mistakes.append(f"{variable}: {error}")
                continue
            here = result
            for part in place[:-1]:
                here = here.setdefault(part, {})
            here[place[-1]] = value
    if mistakes:
        raise ConfigError(mistakes)
    return result


def understood(value: str, place: tuple[str, ...]) -> object:
    """Text, or the YAML within it where the key holds more than text. Raises ValueError."""
    if place == ("log", "format") and value.lstrip().startswith("["):
        return words_of(value)
    return structured(value) if place[-1] in STRUCTURED else value


def words_of(value: str) -> object:
    try:
        return yaml.safe_load(value)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError("is not a YAML list, like [asctime, {levelname: level}]") from error


def structured(value: str) -> object:
    """A mapping within a variable, `{a: b}` as Patroni has it. Raises ValueError."""
    try:
        found = yaml.safe_load(value)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError("is not a YAML mapping, like {name: value}") from error
    if not isinstance(found, Mapping):
        raise ValueError("must be a YAML mapping, like {name: value}")
    return found
