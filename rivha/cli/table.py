"""What rivhactl prints: members as rows, rows as a table, JSON, YAML or TSV. Pure; the columns are Patroni's (REFERENCE 1.16)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

import yaml

from rivha.api.cluster import cluster_json
from rivha.api.status import Json
from rivha.config import policy
from rivha.model import Cluster

FORMATS = ("pretty", "topology", "tsv", "json", "yaml")
COLUMNS = ("Cluster", "Member", "Host", "Role", "State", "TL", "Receive LSN", "Receive Lag", "Replay LSN", "Replay Lag")
SOMETIMES = ("Pending restart", "Pending restart reason", "Scheduled restart", "Tags")
RIGHT = frozenset({"TL", "Receive Lag", "Replay Lag"})
HEADERS = {"Receive Lag": "Lag", "Replay Lag": "Lag"}  # each stands right of its LSN, so the short word is enough; in MB

Row = dict[str, object]


def described(cluster: Cluster, scope: str) -> Json:
    """`/cluster` as an agent would answer it, from what etcd holds."""
    return cluster_json(cluster, scope, policy(cluster.config or {}))


def member_rows(document: Mapping[str, object], *, extended: bool = False, topology: bool = False) -> tuple[list[str], list[Row]]:
    """(columns, a row per member). The rarer columns appear when some member has something to say there, or when `extended`."""
    members = document["members"]
    assert isinstance(members, list)
    with_port = any(m.get("port", 5432) != 5432 for m in members) or len({m.get("host") for m in members}) < len(members)
    ordered = _as_tree(members) if topology else [(m, "") for m in members]
    rows = [_member_row(str(document["scope"]), member, prefix, with_port=with_port) for member, prefix in ordered]
    more = [column for column in SOMETIMES if extended or any(row.get(column) for row in rows)]
    return [*COLUMNS, *more], rows


def _member_row(scope: str, member: Json, prefix: str, *, with_port: bool) -> Row:
    host = str(member.get("host", ""))
    leads = member["role"] == "leader"
    return {
        "Cluster": scope,
        "Member": prefix + str(member["name"]),
        "Host": f"{host}:{member['port']}" if host and with_port else host,
        "Role": str(member["role"]).replace("_", " ").title(),
        "State": member["state"],
        "TL": member.get("timeline", ""),
        "Receive LSN": "" if leads else member.get("receive_lsn", ""),
        "Receive Lag": "" if leads else megabytes(member.get("receive_lag")),
        "Replay LSN": "" if leads else member.get("replay_lsn", ""),
        "Replay Lag": "" if leads else megabytes(member.get("replay_lag")),
        "Pending restart": "*" if member.get("pending_restart") else "",
        "Pending restart reason": _reasons(member.get("pending_restart_reason")),
        "Scheduled restart": _scheduled(member.get("scheduled_restart")),
        "Tags": member.get("tags", ""),
    }


def megabytes(lag: object) -> object:
    return round(lag / (1 << 20)) if isinstance(lag, int) else lag or ""


def _reasons(reasons: object) -> str:
    if not isinstance(reasons, dict):
        return ""
    return "; ".join(f"{name}: {change['old_value']}->{change['new_value']}" for name, change in reasons.items())


def _scheduled(restart: object) -> str:
    if not isinstance(restart, dict):
        return ""
    conditions = ", ".join(f"{key}: {value}" for key, value in restart.items() if key != "schedule")
    return f"{restart.get('schedule', '')}{f' ({conditions})' if conditions else ''}"


def _as_tree(members: Sequence[Json]) -> list[tuple[Json, str]]:
    """The leader, below it who streams from it, below those who stream from them (tag replicatefrom)."""
    names = {str(m["name"]) for m in members}
    leader = next((str(m["name"]) for m in members if m["role"] == "leader"), None)
    below: dict[str | None, list[Json]] = {}
    for member in members:
        tags = member.get("tags")
        source = tags.get("replicatefrom") if isinstance(tags, dict) else None
        parent = None if member["name"] == leader else source if source in names else leader
        below.setdefault(parent, []).append(member)
    found: list[tuple[Json, str]] = []

    def visit(parent: str | None, depth: int) -> None:
        for member in below.pop(parent, []):
            found.append((member, "  " * (depth - 1) + "+ " if depth else ""))
            visit(str(member["name"]), depth + 1)

    visit(None, 0)
    for ring in list(below):  # replicatefrom in a circle
        visit(ring, 1)
    return found


def footer(document: Mapping[str, object]) -> list[str]:
    """What is to be known about the whole cluster."""
    lines = [" Maintenance mode: on"] if document.get("pause") else []
    request = document.get("scheduled_switchover")
    if isinstance(request, dict):
        lines.append(f" Switchover scheduled at: {request.get('at')}")
        lines += [f"                    {word}: {request[word]}" for word in ("from", "to") if request.get(word)]
    if document.get("degraded"):
        lines.append(f" Degraded: {document['degraded']}")
    members = document.get("members")
    for member in members if isinstance(members, list) else []:
        if member.get("problem"):
            lines.append(f" {member['name']}: {member['problem']}")
    complaints = document.get("complaints")
    if isinstance(complaints, list):
        lines += [f" Not readable in etcd: {complaint}" for complaint in complaints]
    if document.get("reason"):
        lines.append(f" Nobody leads: {str(document['reason']).removeprefix('nobody leads; ')}")
    return lines


def rendered(fmt: str, columns: Sequence[str], rows: Sequence[Row], title: str = "") -> str:
    """The rows in one of FORMATS, without a newline at the end."""
    if fmt in ("pretty", "topology"):
        return pretty([c for c in columns if c != "Cluster"], rows, title)
    if fmt == "tsv":
        lines = [columns, *([_cell(row.get(column, "")) for column in columns] for row in rows)]
        return "\n".join("\t".join(line) for line in lines)
    told = [{column: row[column] for column in columns if row.get(column) not in ("", None)} for row in rows]
    return json.dumps(told) if fmt == "json" else yaml.safe_dump(told, sort_keys=False, allow_unicode=True).rstrip()


def pretty(columns: Sequence[str], rows: Iterable[Row], title: str = "") -> str:
    """A box of +, - and |, the title in its upper edge."""
    cells = [[_cell(row.get(column, "")) for column in columns] for row in rows]
    heads = [HEADERS.get(column, column) for column in columns]
    widths = [max(len(head), *(len(line[n]) for line in cells), 0) for n, head in enumerate(heads)]
    edge = "+" + "+".join("-" * (width + 2) for width in widths) + "+"
    named = f"+ {title} " if title else ""
    top = named + edge[len(named) :] if len(named) < len(edge) else named + "+"
    lines = [_line(heads, widths, columns), *(_line(line, widths, columns) for line in cells)]
    return "\n".join([top, lines[0], edge, *lines[1:], edge] if cells else [top, lines[0], edge])


def _line(cells: Sequence[str], widths: Sequence[int], columns: Sequence[str]) -> str:
    placed = zip(cells, widths, columns, strict=True)
    return "| " + " | ".join(cell.rjust(width) if column in RIGHT else cell.ljust(width) for cell, width, column in placed) + " |"


def _cell(value: object) -> str:
    """On one line, whatever it is."""
    text = json.dumps(value) if isinstance(value, dict) else str(value)
    return " ".join(text.split()) if any(letter in text for letter in "\n\r\t") else text


def titled(cluster: Cluster, scope: str) -> str:
    known = {None: "uninitialized", "": "initializing"}.get(cluster.initialize, cluster.initialize)
    return f"Cluster: {scope} ({known})"
