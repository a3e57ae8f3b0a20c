"""What several keys of the local file say together: mistakes that stop the agent, and warnings that are logged once. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence

from pydantic import BaseModel

from rivha.config import shared
from rivha.config.build import endpoints
from rivha.config.parameters import wrong_parameters
from rivha.config.sample import PASSWORD
from rivha.config.sections import Etcd, Local
from rivha.config.shape import merged, translated, translated_postgres
from rivha.config.shared import SHARED_PARAMETERS, Dynamic, judged, rule_broken, undermined, unserved, without_effect
from rivha.config.values import everywhere, split_address, split_listen, unknown_keys

OTHER_STORES = ("consul", "zookeeper", "exhibitor", "raft", "kubernetes")

# Patroni's keys of the local file that Rivha does not act upon, with what that means.
NOT_SERVED = {
    "thread_pool_size": "Rivha's agent needs no threads",
    "thread_stack_size": "Rivha's agent needs no threads",
    "citus": "Rivha does not manage Citus",
    "mpp": "Rivha does not manage Citus",
    "standby_cluster": "Rivha does not run standby clusters",
    "etcd.use_proxies": "Rivha always keeps to the hosts that are named",
    "etcd3.use_proxies": "Rivha always keeps to the hosts that are named",
    "etcd.srv": "Rivha does not look up SRV records; name the hosts",
    "etcd3.srv": "Rivha does not look up SRV records; name the hosts",
    "etcd.srv_suffix": "Rivha does not look up SRV records; name the hosts",
    "etcd3.srv_suffix": "Rivha does not look up SRV records; name the hosts",
    "etcd.proxy": "name the proxy's host and port in hosts",
    "etcd3.proxy": "name the proxy's host and port in hosts",
    "restapi.request_queue_size": "Rivha's API sets its own backlog",
    "restapi.server_tokens": "Rivha's API does not tell its version in headers",
    "restapi.proxy_address": "members are reached by restapi.connect_address",
    "bootstrap.users": "create users in post_bootstrap",
    "postgresql.proxy_address": "Rivha does not publish a proxy's address",
    "postgresql.krbsrvname": "Kerberos is not served by this version",
    "postgresql.database": "Rivha connects to the database postgres",
    "postgresql.pg_ctl_timeout": "starts have no time limit of their own; primary_start_timeout bounds a leader's",
    "postgresql.pre_promote": "no script is run before a promotion; fence in on_role_change",
    "postgresql.before_stop": "no script is run before a stop",
    "postgresql.pg_hosts": "Rivha does not write pg_hosts.conf",
    "postgresql.scope": "the scope at the top of the file counts",
    "postgresql.name": "the name at the top of the file counts",
    "postgresql.create_replica_method": "it is called create_replica_methods; please rename it",
}


def judge(local: Local) -> list[str]:
    """Mistakes that would hurt at once. Patroni's working files have none."""
    return [
        *etcd_mistakes(local),
        *address_mistakes(local),
        *rest_mistakes(local),
        *postgres_mistakes(local),
        *judged_dcs(local)[1].values(),
        *(f"bootstrap.dcs.{sentence}" for sentence in wrong_parameters(judged_dcs(local)[0].postgresql.parameters)),
        *standby_mistakes(local),
    ]


def told_about(local: Local) -> list[str]:
    """Warnings: what is not used, translated, or unwise."""
    return [
        *not_used(local),
        *etcd_warnings(local),
        *tag_warnings(local.tags),
        *postgres_warnings(local),
        *dcs_warnings(local),
        *hba_warnings(local),
        *example_passwords(local),
    ]


# ---- mistakes


def etcd_mistakes(local: Local) -> Iterator[str]:
    name, found = ("etcd3", local.etcd3) if local.etcd3 else ("etcd", local.etcd)
    if found is None:
        other = next((store for store in OTHER_STORES if store in (local.model_extra or {})), None)
        instead = f" ({other} is not served)" if other else ""
        yield f"etcd3.hosts: is missing{instead}; Rivha keeps its cluster in etcd, name its endpoints as host:port"
        return
    if not (found.hosts or found.host or found.url):
        yield f"{name}.hosts: is missing; name etcd's endpoints as host:port"
        return
    try:
        endpoints(found)
    except ValueError as error:
        yield f"{name}.url: {error}"
        return
    yield from login_mistakes(name, found)


def login_mistakes(name: str, found: Etcd) -> Iterator[str]:
    if found.key and not found.cert:
        yield f"{name}.cert: is missing although {name}.key is set; a key without its certificate proves nothing"
    if found.password and not found.username:
        yield f"{name}.username: is missing although {name}.password is set; etcd would not know whose it is"
    if found.username and not found.password:
        yield f"{name}.password: is missing although {name}.username is set; etcd would refuse the name alone"


def address_mistakes(local: Local) -> Iterator[str]:
    rest_host, rest_port = split_address(local.restapi.listen, 8008)
    hosts, port = split_listen(local.postgresql.listen, 5432)
    if local.restapi.connect_address is None and everywhere(rest_host):
        yield "restapi.connect_address: is missing; the other agents cannot guess which address of this host to use"
    if local.postgresql.connect_address is None and any(everywhere(host) for host in hosts[:1]):
        yield "postgresql.connect_address: is missing; replicas cannot guess which address of this host to use"
    overlap = rest_host in hosts or everywhere(rest_host) or any(everywhere(host) for host in hosts)
    if rest_port == port and overlap:
        yield f"restapi.listen: uses port {port} as postgresql.listen does; only one of them could start"


def rest_mistakes(local: Local) -> Iterator[str]:
    api = local.restapi
    if (api.keyfile or api.cafile) and not api.certfile:
        yield "restapi.certfile: is missing although keyfile or cafile is set; the API would speak plain HTTP"
    if api.verify_client != "none" and not (api.cafile and api.certfile):
        yield f"restapi.verify_client: is {api.verify_client} without certfile and cafile; nothing could be verified"
    auth = api.authentication
    if bool(auth.username) != bool(auth.password):
        missing = "password" if auth.username else "username"
        yield f"restapi.authentication.{missing}: is missing; unsafe calls would stand open"


def postgres_mistakes(local: Local) -> Iterator[str]:
    pg = local.postgresql
    sections = pg.model_extra or {}
    if not pg.authentication.replication.username:
        yield "postgresql.authentication.replication.username: is missing; replicas could not connect to their primary"
    if not pg.create_replica_methods:
        yield "postgresql.create_replica_methods: is empty; no replica could get its data"
    for method in pg.create_replica_methods:
        found = sections.get(method)
        if method == "basebackup":
            if found is not None and not isinstance(found, list | Mapping):
                yield "postgresql.basebackup: must be a list of options or a mapping; pg_basebackup would not understand it"
        elif not isinstance(found, Mapping):
            yield f"postgresql.{method}: is missing although create_replica_methods names it; no replica could be made with it"
        elif not isinstance(found.get("command"), str):
            yield f"postgresql.{method}.command: is missing; there is nothing to run for this method"


def standby_mistakes(local: Local) -> Iterator[str]:
    if local.bootstrap.dcs.get("standby_cluster"):
        yield "bootstrap.dcs.standby_cluster: Rivha does not run standby clusters; this one would start as a primary of its own"


def judged_dcs(local: Local) -> tuple[Dynamic, dict[tuple[int | str, ...], str]]:
    raw, _ = translated(merged({}, local.bootstrap.dcs))
    found, by_place = judged(raw)
    return found, {where: f"bootstrap.dcs.{sentence}" for where, sentence in by_place.items()}


# ---- warnings


def not_used(local: Local) -> Iterator[str]:
    excused = {f"postgresql.{method}" for method in local.postgresql.create_replica_methods}
    method = local.bootstrap.method
    if method and method != "initdb":
        excused.add(f"bootstrap.{method}")
        yield f"bootstrap.method: only initdb is served; a new cluster would begin empty, not with what {method} restores"
    dynamic = set(Dynamic.model_fields) | set(shared.NOT_SERVED)
    for path in unknown_keys(local):
        if path in excused or (path in OTHER_STORES and (local.etcd3 or local.etcd) is None):
            continue
        if path in NOT_SERVED:
            yield f"{path}: is not used; {NOT_SERVED[path]}"
        elif path in OTHER_STORES:
            yield f"{path}: is not used; Rivha keeps its cluster in etcd"
        elif path in dynamic:
            yield f"{path}: is not used here; the whole cluster shares it: rivhactl edit-config, or bootstrap.dcs for a new one"
        elif path.startswith(("postgresql.pg_", "postgresql.parameters_")):
            yield f"{path}: is not used; Rivha has no settings by role"
        else:
            yield f"{path}: is not used; Rivha has no such key{likely(path, local)}"
    if local.log.deduplicate_heartbeat_logs:
        yield "log.deduplicate_heartbeat_logs: is not needed; Rivha logs changes, not beats"


def likely(path: str, model: BaseModel) -> str:
    """` (did you mean ...?)` for a slip of the pen, among the keys of the same section."""
    parent, _, name = path.rpartition(".")
    here: object = model
    for part in parent.split(".") if parent else ():
        here = getattr(here, part, None)
    names = list(type(here).model_fields) if isinstance(here, BaseModel) else []
    close = difflib.get_close_matches(name, names, 1, 0.75)
    return f" (did you mean {close[0]}?)" if close else ""


def etcd_warnings(local: Local) -> Iterator[str]:
    if local.etcd3 is None:
        yield "etcd: is read as etcd3; Rivha speaks etcd's v3 API, keys written through v2 are not seen"
    elif local.etcd is not None:
        yield "etcd: is not used; etcd3 stands beside it"
    found = local.etcd3 or local.etcd
    assert found is not None
    protocol, _ = endpoints(found)
    if protocol == "http" and (found.cacert or found.cert):
        yield "etcd3.protocol: is http, so the certificates beside it are not used; write https to have them count"
    if protocol == "http" and found.password:
        yield "etcd3.protocol: is http; the password crosses the network in clear"


def tag_warnings(tags: Mapping[str, object]) -> Iterator[str]:
    """What is not served, and REFERENCE 1.18: the text that people's alerts match."""
    for name in ("clonefrom", "replicatefrom", "nostream"):
        if tags.get(name):
            yield f"tags.{name}: is not used by this version; every standby is copied from the leader and streams from it"
    flag, priority = tags.get("nofailover"), tags.get("failover_priority")
    if flag is None or not isinstance(priority, int):
        return
    if bool(flag) != (priority <= 0):
        yield (f"Conflicting configuration between nofailover: {flag} and failover_priority: {priority}. Defaulting to nofailover: {flag}")


def postgres_warnings(local: Local) -> Iterator[str]:
    pg = local.postgresql
    _, told = translated_postgres({"parameters": pg.parameters}, "postgresql.")
    yield from told
    for name in sorted(SHARED_PARAMETERS & pg.parameters.keys() - {"wal_keep_segments"}):
        yield f"postgresql.parameters.{name}: is not used here; all nodes must agree on it, set it in the cluster's configuration"
    if pg.use_slots is not Dynamic().postgresql.use_slots:
        yield "postgresql.use_slots: is not used here; slots are for all nodes or none, set it in the cluster's configuration"
    superuser = pg.authentication.superuser.username or "postgres"
    if pg.authentication.replication.username == superuser:
        yield f"postgresql.authentication.replication: is the superuser {superuser}; a replica's password file then opens the whole primary"


def dcs_warnings(local: Local) -> Iterator[str]:
    raw, told = translated(merged({}, local.bootstrap.dcs), "bootstrap.dcs.")
    yield from told
    found, _ = judged(raw)
    broken = rule_broken(found)
    if broken:
        loop_wait, retry_timeout = shared.repaired(found)
        yield f"bootstrap.dcs.{broken}; running with loop_wait {loop_wait:g} and retry_timeout {retry_timeout:g}"
    yield from (f"bootstrap.dcs.{sentence}" for sentence in (*undermined(found), *without_effect(found), *unserved(found)))


def hba_warnings(local: Local) -> Iterator[str]:
    """The first list that is there counts, as when Postgres' file is written."""
    lists = {
        "postgresql.pg_hba": local.postgresql.pg_hba,
        "bootstrap.dcs.postgresql.pg_hba": judged_dcs(local)[0].postgresql.pg_hba,
        "bootstrap.pg_hba": local.bootstrap.pg_hba,
    }
    yield from shut_out(lists, local.postgresql.authentication.replication.username or "")


def shut_out(lists: Mapping[str, Sequence[str] | None], user: str) -> Iterator[str]:
    """Does any rule let the replication user in from another host?"""
    for name, rules in lists.items():
        if rules is None:
            continue
        if not any(admits(rule, user) for rule in rules):
            yield f"{name}: no rule lets {user} in for replication over the network; replicas could not stream"
        return


def example_passwords(local: Local) -> Iterator[str]:
    """The example is public, and valid as it is."""
    given = {f"postgresql.authentication.{user}": login for user, login in local.postgresql.authentication if login is not None}
    given |= {"restapi.authentication": local.restapi.authentication, "ctl.authentication": local.ctl.authentication}
    given |= {name: found for name, found in (("etcd3", local.etcd3), ("etcd", local.etcd)) if found is not None}
    for path, login in given.items():
        if login.password == PASSWORD:
            yield f"{path}.password: is the example's, which everybody knows; choose one"


def admits(rule: str, user: str) -> bool:
    """A `host` rule for the database `replication`; groups, files and includes are trusted to do so."""
    words = rule.split("#")[0].replace('"', "").split()
    if words and words[0].startswith("include"):
        return True
    if len(words) < 5 or words[0] not in ("host", "hostssl", "hostnossl", "hostgssenc", "hostnogssenc"):
        return False
    users = words[2].split(",")
    known = user in users or "all" in users or any(name.startswith(("+", "@", "/")) for name in users)
    return "replication" in words[1].split(",") and known and words[-1] != "reject"
