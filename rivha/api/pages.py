"""The GETs that are no health checks: /cluster, /history, /config, /metrics, /journal. From the Desk alone; called by `app`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from rivha.agent.brain.actions import A, Verdict
from rivha.agent.desk import Desk
from rivha.agent.journal import Entry
from rivha.api.cluster import cluster_json
from rivha.api.reply import Reply, as_json, as_text
from rivha.api.status import Json
from rivha.metrics import Metrics
from rivha.model import Cluster

METRICS_TYPE = "text/plain"
SILENT = "this node has not heard from etcd since it was started; look at its log for why"


class Pages:
    """What a browser or a script may read."""

    def __init__(self, desk: Desk, scope: str, metrics: Metrics) -> None:
        self._desk = desk
        self._scope = scope
        self._metrics = metrics

    def routes(self) -> Mapping[str, Callable[[], Reply]]:
        return {
            "/cluster": self.cluster,
            "/history": self.history,
            "/config": self.config,
            "/metrics": self.metrics,
            "/journal": self.journal,
        }

    def _known(self) -> Cluster | None:
        view = self._desk.latest
        return None if view is None else view.cluster or view.last_cluster

    def cluster(self) -> Reply:
        view, cluster = self._desk.latest, self._known()
        if view is None or cluster is None:
            return as_text(503, SILENT)
        document = cluster_json(cluster, self._scope, view.policy, view)
        if view.cluster_seen_at is not None:
            document["age"] = round(max(0.0, self._desk.clock() - view.cluster_seen_at), 3)
        entry = self._desk.journal.latest
        if cluster.leader is None and entry is not None:
            document["reason"] = entry.decision.lease.reason
        return as_json(document)

    def history(self) -> Reply:
        cluster = self._known()
        if cluster is None:
            return as_text(503, SILENT)
        return as_json([[line.timeline, line.lsn, line.reason, line.at, line.new_leader] for line in cluster.history])

    def config(self) -> Reply:
        cluster = self._known()
        if cluster is None or cluster.config is None:
            return as_text(502, "there is no configuration of the cluster in etcd, or it cannot be read")
        return as_json(dict(cluster.config))

    def metrics(self) -> Reply:
        return Reply(200, self._metrics.render(self._desk.latest, self._desk.clock()), METRICS_TYPE)

    def journal(self) -> Reply:
        """Oldest first: each change of mind, with the rule and the sentence of both decisions."""
        return as_json([_entry_json(entry) for entry in self._desk.journal])


def _entry_json(entry: Entry) -> Json:
    return {
        "at": datetime.fromtimestamp(entry.wall, UTC).isoformat(timespec="milliseconds"),
        "seconds": round(entry.seconds, 4),
        "situation": entry.view.situation.value,
        "lease": _verdict_json(entry.decision.lease),
        "postgres": _verdict_json(entry.decision.postgres),
    }


def _verdict_json(verdict: Verdict[A]) -> Json:
    return {"action": type(verdict.action).__name__, "rule": verdict.rule, "reason": verdict.reason}
