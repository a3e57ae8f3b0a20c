"""The dynamic configuration: what the whole cluster shares, kept in etcd under `config`, changed by PATCH /config and edit-config.

Pure. Local sections win over etcd for what one node may decide for itself (`effective`); what must be equal everywhere comes from etcd.
`policy` never raises: a value that came through etcd must not be able to stop an agent. Called through `rivha.config`.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ValidationError

from rivha.config.parameters import STANDBY_NAMES, own_names, said, wrong_parameters
from rivha.config.shape import merged, shaped, translated, translated_postgres
from rivha.config.values import (
    Flag,
    Lines,
    Seconds,
    Section,
    Size,
    Whole,
    mistakes_in,
    section,
    setting,
    shown,
    unknown_keys,
    without,
    wrong,
)
from rivha.errors import ConfigError
from rivha.model import Policy
from rivha.postgres import conf

# etcd's smallest lease is 2 s with its default election timeout, and it looks for expired ones every half second (HAZARDS I 1): below 3 s
# there is no room for one lost renewal.
TTL_MIN = 3.0
# Each loop costs a few milliseconds of CPU and one etcd read; every event wakes the loop anyway, so a shorter wait buys nothing.
LOOP_WAIT_MIN = 0.2
# etcd elects a new leader of its own in 1 to 2 s: giving up earlier would make every such election look like an outage.
RETRY_TIMEOUT_MIN = 1.0

# Settings that a standby needs at least as large as its primary, or that Rivha gives on the command line: one value for all nodes.
SHARED_PARAMETERS = frozenset(
    {
        "cluster_name",
        "hot_standby",
        "listen_addresses",
        "max_connections",
        "max_locks_per_transaction",
        "max_prepared_transactions",
        "max_replication_slots",
        "max_wal_senders",
        "max_worker_processes",
        "port",
        "track_commit_timestamp",
        "wal_keep_segments",
        "wal_keep_size",
        "wal_level",
        "wal_log_hints",
    }
)

# Keys of Patroni's dynamic configuration that Rivha does not act upon: accepted, kept, and named once with the reason.
NOT_SERVED = {
    "failsafe_mode": "Rivha has no failsafe mode; a leader whose lease runs out steps down",
    "primary_race_backoff": "Rivha judges a leader by two witnesses for suspect_after instead",
    "standby_cluster": "Rivha does not run standby clusters",
    "citus": "Rivha does not manage Citus",
    "mpp": "Rivha does not manage Citus",
    "postgresql.pg_hosts": "Rivha does not write pg_hosts.conf",
}


def mode(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    found = str(value).strip().lower() if isinstance(value, str) else ""
    found = {"true": "on", "yes": "on", "1": "on", "false": "off", "no": "off", "0": "off"}.get(found, found)
    if found not in ("off", "on", "quorum"):
        raise wrong("must be off, on or quorum")
    return found


def parameters(value: object) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise wrong("must be a mapping of PostgreSQL settings")
    found = {str(name): item for name, item in value.items()}
    for name, item in found.items():
        if not (item is None or isinstance(item, str | int | float | bool)):
            raise wrong(f"{name} must be one value, not {'a list' if isinstance(item, list | tuple) else 'a section'}")
        if not all(letter.isalnum() or letter in "_.$" for letter in name) or not name:
            raise wrong(f"{shown(name)} is not the name of a PostgreSQL setting")
        if isinstance(item, str) and set("\r\n\0") & set(item):
            raise wrong(f"{name} contains a line break, which would start a new line in postgresql.conf")
    return found


Mode = Annotated[str, BeforeValidator(mode)]
Parameters = Annotated[dict[str, Any], BeforeValidator(parameters)]


class DynamicPostgres(Section):
    """`postgresql` in the dynamic configuration."""

    use_pg_rewind: Flag = setting(True, "without it a diverged old primary can only be cloned anew")
    use_slots: Flag = setting(True, "without slots a replica that was away for long may miss WAL and need a new clone")
    remove_data_directory_on_rewind_failure: Flag = setting(False, "it allows a failed rewind to be followed by a new clone")
    remove_data_directory_on_diverged_timelines: Flag = setting(False, "it allows a new clone where rewind is not possible")
    parameters: Parameters = setting({}, "PostgreSQL would refuse to start with it")
    pg_hba: Lines | None = setting(None, "PostgreSQL would refuse its pg_hba.conf, and clients and replicas with it")
    pg_ident: Lines | None = setting(None, "PostgreSQL would refuse its pg_ident.conf")
    recovery_conf: Parameters = setting({}, "standbys would not find their archive")


class Dynamic(Section):
    """The dynamic configuration, with Rivha's defaults."""

    ttl: Seconds = setting(10.0, "below 3 s one lost renewal costs the leadership, far above 30 a dead host keeps it", ge=TTL_MIN, le=3600)
    loop_wait: Seconds = setting(1.0, "shorter only costs CPU, longer delays what no event announces", ge=LOOP_WAIT_MIN, le=1200)
    retry_timeout: Seconds = setting(3.0, "below etcd's own election a hiccup of etcd becomes an outage", ge=RETRY_TIMEOUT_MIN, le=1200)
    maximum_lag_on_failover: Size = setting(1_048_576, "it bounds what an asynchronous failover may lose", ge=0)
    check_timeline: Flag = setting(False, "it keeps nodes of an older timeline out of elections")
    primary_start_timeout: Seconds = setting(300.0, "it bounds how long a crashed primary may recover before a failover", ge=0, le=86400)
    primary_stop_timeout: Seconds = setting(0.0, "it bounds a fast stop; 0 leaves that to the lease", le=86400)
    suspect_after: Seconds = setting(2.0, "too short convicts a leader that only hiccups, too long adds to every outage", ge=0.5, le=600)
    hang_timeout: Seconds = setting(10.0, "too short kills a slow Postgres, too long keeps clients on a hung one", ge=1, le=3600)
    failover_on_crash: Flag = setting(True, "false restarts a crashed primary in place, as Patroni does")
    member_slots_ttl: Seconds = setting(1800.0, "too short lets WAL go that a rebooting replica needs, too long fills the disk", ge=0)
    max_timelines_history: Whole = setting(0, "it bounds the history kept in etcd; 0 keeps all", ge=0)
    pause: Flag = setting(False, "while true nobody fails over")
    synchronous_mode: Mode = setting("off", "it decides whether a commit may be lost")
    synchronous_mode_strict: Flag = setting(False, "it decides whether commits wait when no voter is left")
    synchronous_node_count: Whole = setting(1, "it says how many standbys must hold a commit", ge=1, le=100)
    maximum_lag_on_syncnode: Size = setting(-1, "it swaps out a synchronous standby that lags; -1 never does")
    degrade_after: Seconds = setting(2.0, "too short drops a voter that only hiccups, too long holds up commits", ge=0.5, le=3600)
    ignore_slots: list[dict[str, Any]] = setting([], "slots of others would be dropped or copied")
    slots: dict[str, Any] = setting({}, "permanent slots would be lost at a failover")
    postgresql: DynamicPostgres = section(DynamicPostgres)


# ---- shaping


def first(bootstrap: Mapping[str, Any]) -> dict[str, Any]:
    """`config` of a cluster that is about to be made: its durability stands there for all to see, also when nobody asked for any.

    Only then: in a cluster that exists already, and in one that is adopted, a missing key means `off`, as for Patroni.
    """
    return {"synchronous_mode": "quorum", **bootstrap}


def effective(local_postgres: Mapping[str, Any], shared: Mapping[str, Any]) -> dict[str, Any]:
    """etcd's configuration with this node's own `postgresql` section laid over it; see SHARED_PARAMETERS for what etcd alone decides."""
    result, _ = translated(shared)
    own, _ = translated_postgres(local_postgres, "")
    found = result.get("postgresql")
    base = dict(found) if isinstance(found, Mapping) else {}
    for name in DynamicPostgres.model_fields:
        if name not in own or name == "use_slots":  # slots are everybody's or nobody's
            continue
        if name == "parameters" and isinstance(own[name], Mapping):
            mine = {setting: value for setting, value in own[name].items() if setting not in SHARED_PARAMETERS}
            theirs = base.get(name)
            base[name] = merged(theirs if isinstance(theirs, Mapping) else {}, mine)
        elif own[name] is None:
            base.pop(name, None)
        else:
            base[name] = own[name]
    result["postgresql"] = base
    return result


# ---- judging


def judged(raw: Mapping[str, Any]) -> tuple[Dynamic, dict[tuple[int | str, ...], str]]:
    """The configuration without what is wrong in it, and the mistakes by place. Never raises."""
    left, found = dict(raw), dict[tuple[int | str, ...], str]()
    for _ in range(3):  # a section that is no section at all, then fields, then nothing
        try:
            return Dynamic.model_validate(left), found
        except ValidationError as error:
            for where, sentence in mistakes_in(error, Dynamic):
                found.setdefault(where, sentence)
                left = without(left, where)
    return Dynamic(), found


def rule_broken(d: Dynamic) -> str | None:
    """ttl >= loop_wait + 2 * retry_timeout: a sleep, a failing read and a failing renewal must fit before the lease ends (HAZARDS 6)."""
    if d.ttl >= d.loop_wait + 2 * d.retry_timeout - 1e-9:
        return None
    return (
        f"ttl: {d.ttl:g} is less than loop_wait + 2 * retry_timeout = {d.loop_wait:g} + 2 * {d.retry_timeout:g}; "
        "a healthy leader would lose its lease while it still retries"
    )


def repaired(d: Dynamic) -> tuple[float, float]:
    """(loop_wait, retry_timeout) that keep the rule: loop_wait gives way first, then retry_timeout."""
    if rule_broken(d) is None:
        return d.loop_wait, d.retry_timeout
    if d.ttl >= LOOP_WAIT_MIN + 2 * d.retry_timeout:
        return round(d.ttl - 2 * d.retry_timeout, 6), d.retry_timeout
    return LOOP_WAIT_MIN, round((d.ttl - LOOP_WAIT_MIN) / 2, 6)


def unserved(d: Dynamic) -> list[str]:
    """Keys that Rivha does not act upon, when they ask for something, or does not know."""
    told = [f"{path}: {why}" for path, why in NOT_SERVED.items() if asked_for(d, path)]
    logical = [name for name, facts in d.slots.items() if isinstance(facts, Mapping) and facts.get("type", "physical") != "physical"]
    told += [f"slots.{name}: logical slots are not kept by this version; create it again after a failover" for name in logical]
    for path in unknown_keys(d):
        if path in NOT_SERVED:
            continue
        if path.startswith(("postgresql.pg_", "postgresql.parameters_")):
            told.append(f"{path}: Rivha has no settings by role; it is not used")
            continue
        told.append(f"{path}: Rivha has no such key; it is not used{likely(path)}")
    return told


def asked_for(d: Dynamic, path: str) -> bool:
    field = Dynamic.model_fields.get(path)
    if field is not None:
        return bool(getattr(d, path) != field.get_default(call_default_factory=True))
    holder = d.postgresql if path.startswith("postgresql.") else d
    return (holder.model_extra or {}).get(path.removeprefix("postgresql.")) not in (False, 0, None, {}, [])


def without_effect(d: Dynamic) -> list[str]:
    """Keys that ask for something which another key, or Rivha, makes void."""
    return [*_forced(d.postgresql.parameters), *_permitted(d.postgresql), *_void_in_this_mode(d)]


def _permitted(pg: DynamicPostgres) -> list[str]:
    """Nothing is ever deleted, so there is nothing to permit (docs/decisions/0005)."""
    given = ("remove_data_directory_on_rewind_failure", "remove_data_directory_on_diverged_timelines")
    why = "a directory that cannot be rewound is moved aside and cloned anew in any case"
    return [f"postgresql.{name}: has no effect; {why}" for name in given if getattr(pg, name)]


def _forced(given: Mapping[str, Any]) -> list[str]:
    return [
        f"postgresql.parameters.{name}: has no effect; it is {value} always, or an idle synchronous standby would be taken for lost"
        for name, value in conf.EVIDENCE.items()
        if said(given, name).replace(" ", "") not in ("", value, value.removesuffix("s"))
    ]


def _void_in_this_mode(d: Dynamic) -> list[str]:
    if d.synchronous_mode != "off":
        names = own_names(d.postgresql.parameters)
        managed = (
            f"postgresql.parameters.{STANDBY_NAMES}: has no effect while synchronous_mode is {d.synchronous_mode}; Rivha sets it itself"
        )
        return [managed] if names else []
    void = ("synchronous_mode_strict", "synchronous_node_count", "maximum_lag_on_syncnode")
    return [f"{name}: has no effect while synchronous_mode is off; commits wait for no standby" for name in void if asked_for(d, name)]


# What a session loses that does not wait until standbys have flushed its commit (HAZARDS H 4); PostgreSQL takes False, "no" and 0 for off.
UNSAFE_COMMITS = {
    "off": "commits are acknowledged before they are on any disk, and a failover may lose them",
    "local": "commits wait for no standby, and a failover may lose them",
    "remote_write": "a standby's power failure together with a failover may lose acknowledged commits",
}


def undermined(d: Dynamic) -> list[str]:
    """Settings under which the synchronous modes do not keep their promise. They are the operator's to choose, and any session's."""
    if d.synchronous_mode == "off":
        return []
    text = said(d.postgresql.parameters, "synchronous_commit").strip().lower()
    level = "off" if text in ("false", "no", "0") else text
    found = []
    if why := UNSAFE_COMMITS.get(level):
        found.append(f"postgresql.parameters.synchronous_commit: is {level} although synchronous_mode is {d.synchronous_mode}; {why}")
    if d.synchronous_node_count > 1 and not d.postgresql.use_slots:
        why = "PostgreSQL counts connections, and only a slot keeps one standby from counting twice while its old connection dies"
        found.append(f"postgresql.use_slots: is false although synchronous_node_count is {d.synchronous_node_count}; {why}")
    return found


def likely(path: str, model: type[BaseModel] = Dynamic) -> str:
    """` (did you mean ...?)` for a slip of the pen."""
    names = [*model.model_fields, *(f"postgresql.{name}" for name in DynamicPostgres.model_fields)]
    close = difflib.get_close_matches(path, names, 1, 0.8)
    return f" (did you mean {close[0]}?)" if close else ""


def mistakes(raw: Mapping[str, Any]) -> list[str]:
    """Everything that is wrong with a dynamic configuration as a whole."""
    found, by_place = judged(raw)
    broken = rule_broken(found)
    return [*by_place.values(), *([broken] if broken else []), *wrong_parameters(found.postgresql.parameters)]


def complaints(dynamic: Mapping[str, object]) -> tuple[str, ...]:
    """What is wrong with, or not used of, a dynamic configuration that the cluster runs on, and what is done instead."""
    raw, told = translated(dynamic)
    found, by_place = judged(raw)
    unused = [*by_place.values(), *wrong_parameters(found.postgresql.parameters)]
    result = [*told, *(f"{sentence}; the value is not used" for sentence in unused)]
    broken = rule_broken(found)
    if broken:
        loop_wait, retry_timeout = repaired(found)
        result.append(f"{broken}; running with loop_wait {loop_wait:g} and retry_timeout {retry_timeout:g}")
    return (*result, *undermined(found), *without_effect(found), *unserved(found))


# Where each of the brain's settings stands in the configuration.
PLACES: Mapping[str, tuple[str, ...]] = {
    "ttl_s": ("ttl",),
    "loop_wait_s": ("loop_wait",),
    "retry_timeout_s": ("retry_timeout",),
    "maximum_lag_on_failover": ("maximum_lag_on_failover",),
    "check_timeline": ("check_timeline",),
    "primary_start_timeout_s": ("primary_start_timeout",),
    "primary_stop_timeout_s": ("primary_stop_timeout",),
    "suspect_after_s": ("suspect_after",),
    "hang_timeout_s": ("hang_timeout",),
    "failover_on_crash": ("failover_on_crash",),
    "member_slots_ttl_s": ("member_slots_ttl",),
    "max_timelines_history": ("max_timelines_history",),
    "paused": ("pause",),
    "synchronous_mode": ("synchronous_mode",),
    "synchronous_mode_strict": ("synchronous_mode_strict",),
    "synchronous_node_count": ("synchronous_node_count",),
    "maximum_lag_on_syncnode": ("maximum_lag_on_syncnode",),
    "degrade_after_s": ("degrade_after",),
    "own_standby_names": ("postgresql", "parameters"),
    "use_pg_rewind": ("postgresql", "use_pg_rewind"),
    "use_slots": ("postgresql", "use_slots"),
    "reclone_after_failed_rewind": ("postgresql", "remove_data_directory_on_rewind_failure"),
    "reclone_when_diverged": ("postgresql", "remove_data_directory_on_diverged_timelines"),
}


def policy(dynamic: Mapping[str, object], last: Policy | None = None) -> Policy:
    """What the brain needs of a dynamic configuration. A value that is wrong keeps its `last` one, or else its default. Never raises."""
    raw, _ = translated(dynamic)
    found, by_place = judged(raw)
    values: dict[str, Any] = {}
    for name, place in PLACES.items():
        if last is not None and any(where[: len(place)] == place[: len(where)] for where in by_place):
            values[name] = getattr(last, name)
            continue
        value: Any = found
        for part in place:
            value = getattr(value, part)
        values[name] = own_names(value) if name == "own_standby_names" else value
    values["primary_stop_timeout_s"] = max(0.0, values["primary_stop_timeout_s"])
    timing = {name: values[f"{name}_s"] for name in ("ttl", "loop_wait", "retry_timeout")}
    loop_wait, retry_timeout = repaired(found.model_copy(update=timing))
    return replace(Policy(**values), loop_wait_s=loop_wait, retry_timeout_s=retry_timeout)


def check_patch(current: Mapping[str, object], patch: Mapping[str, object]) -> dict[str, object]:
    """`current` with `patch` applied (null deletes). Raises ConfigError with every mistake that the patch would bring in."""
    wanted, _ = translated(shaped(patch))
    base, _ = translated(shaped(current))
    result = merged(base, wanted)
    before = set(mistakes(base))
    found = [sentence for sentence in mistakes(result) if sentence not in before]
    given, _ = judged(merged({}, wanted))
    found += [f"{path}: there is no such key{likely(path)}" for path in unknown_keys(given) if not excused(path)]
    if "standby_cluster" in (given.model_extra or {}):
        found.append("standby_cluster: Rivha does not run standby clusters; the cluster would go on accepting writes")
    if found:
        raise ConfigError(found)
    return result


def excused(path: str) -> bool:
    """Keys of Patroni's that may be stored without effect, so that its users' scripts go on working."""
    return path in NOT_SERVED or path.startswith(("postgresql.pg_", "postgresql.parameters_"))
