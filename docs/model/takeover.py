#!/usr/bin/env python3
"""An exhaustive check of DESIGN 5 to 8: three or four nodes, a few writes, every order of events, no clocks at all.

State: what etcd holds, what each Postgres holds, what was acknowledged, and at most one transaction that was sent, not answered, and may
be carried out any time later as long as its guard holds. Law: whatever was acknowledged is in the log of whoever etcd says leads, at
every moment. Run `takeover.py`; `takeover.py --bug NAME` breaks one rule and must find a history that loses a write. See README.md.
"""

import argparse
import sys
from itertools import combinations
from typing import NamedTuple

BUGS = (
    # one rule of DESIGN 5 or 6 each
    "pledge-without-stopping", "win-with-q", "no-barrier", "etcd-relaxed-first", "withdraw-blindly", "stream-while-pledged",
    "async-before-etcd", "worst-candidate", "sync-changed-unguarded", "voters-before-barrier", "stranger-votes",
    # handing over, and who counts
    "hand-over-behind", "hand-over-to-anybody", "resigned-kept", "nonvoters-count",
    # transactions without an answer
    "late-sync", "late-sync-at-start", "late-resign", "late-pledge",
)  # fmt: skip
OUTSIDERS = {"stranger-votes": "strange", "hand-over-to-anybody": "strange", "nonvoters-count": "idle"}
NODES = {"nonvoters-count": 4}
PROMOTED, STRANGE = 50, 90  # the number of an entry that is no write: the record of a term's promotion, an outsider's own history
NONE = frozenset()


class Node(NamedTuple):
    log: tuple = ()            # entries (timeline, number), flushed; Postgres numbers timelines by what it has seen
    role: str = "standby"      # standby | primary | crashed | stopped (cleanly: the end of its log is known)
    term: int = 0              # the leadership it believes it exercises, as a primary
    upstream: str = ""         # streams from, as a standby
    names: frozenset = NONE    # synchronous_standby_names: W
    need: int = 0              # n
    barrier: int = 0           # log length when the names came into force


class State(NamedTuple):
    leader: str                # the leader key; "" when its lease ran out, or it was given back
    term: int
    holder: str                # the leader named in `sync`: holds all that was acknowledged before the voters' time
    voters: frozenset          # V; empty: only the holder may lead
    quorum: int                # q: an electing set has q + 1 voters
    pledges: frozenset         # of (name, rank)
    resigned: tuple            # (rank of the log's end, candidate or "") of a leader that stopped cleanly, or ()
    late: tuple                # (kind, sender, ...): sent, without an answer, its guard still true; or ()
    nodes: tuple               # of (name, Node), sorted
    acked: frozenset
    writes: int


def rank(log):
    """All that can be compared of two logs: the timeline and the position of the end."""
    return (log[-1][0], len(log)) if log else (0, 0)


def held(s, entry, names):
    return sum(entry in v.log for x, v in s.nodes if x in names)


def put(s, name, **changes):
    return s._replace(nodes=tuple((n, v._replace(**changes) if n == name else v) for n, v in s.nodes))


def led(s, leader, **changes):
    """The leader key changed: every transaction under way is guarded by it as it was read."""
    return s._replace(leader=leader, late=(), **changes)


def synced(s, voters, quorum):
    """`sync` has a new revision, though perhaps the same text."""
    return s._replace(voters=voters, quorum=quorum, late=() if s.late[:1] in (("sync",), ("pledge",)) else s.late)


def is_late(s, kind, sender):
    return s.late[:2] == (kind, sender)


def follow_log(mine, theirs):
    """What a standby keeps when it follows: its own prefix of their history (a rewind cuts the rest)."""
    n = 0
    while n < len(mine) and n < len(theirs) and mine[n] == theirs[n]:
        n += 1
    return mine[:n]


def subsets(names):
    return [frozenset(c) for k in range(1, len(names) + 1) for c in combinations(sorted(names), k)]


def keeps_the_rule(voters, quorum, names, need):
    return not voters or len(voters | names) <= need + quorum


def is_easier(s, voters, quorum):
    return quorum < len(voters) and quorum - s.quorum < len(voters - s.voters)


# ---- what Postgres does by itself ------------------------------------------------------------------------------------------------


def running(s, p, N, max_writes):
    if N.role == "primary":
        if s.writes < max_writes:
            entry = (max(rank(N.log)[0], 1), s.writes)
            yield f"write {p}", put(s, p, log=(*N.log, entry))._replace(writes=s.writes + 1)
        for e in N.log:
            if e[1] < PROMOTED and e not in s.acked and held(s, e, N.names) >= N.need:
                yield f"ack {p} {e}", s._replace(acked=s.acked | {e})
        yield f"crash {p}", put(s, p, role="crashed")
    if N.role == "standby" and N.upstream:
        U = dict(s.nodes)[N.upstream]
        if U.role == "primary" and len(U.log) > len(N.log) and U.log[: len(N.log)] == N.log:
            yield f"replicate {N.upstream}->{p}", put(s, p, log=U.log[: len(N.log) + 1])


# ---- the leader's upkeep: one change of one side at a time (quorum.py takes a few of these steps) --------------------------------


def upkeep(s, p, N, bug, late):
    i_lead = s.leader == p and s.term == N.term
    others = frozenset(x for x, _ in s.nodes if x != p)
    streaming = frozenset(x for x, v in s.nodes if v.role == "standby" and v.upstream == p)
    if i_lead or bug == "sync-changed-unguarded":
        for V, q in [(NONE, 0), *((V, q) for V in subsets(others) for q in range(len(V)))]:
            if (V, q) != (s.voters, s.quorum) and may_elect(s, N, V, q, streaming, bug):
                label = f"etcd {''.join(sorted(V))}+{q}"
                yield label, synced(s, V, q)
                if late and not s.late and i_lead:
                    yield f"sent, no answer: {label}", s._replace(late=("sync", p, V, q))
    if s.holder == p and s.term == N.term and (not is_late(s, "sync", p) or bug == "late-sync"):
        for W, n in [(NONE, 0), *((W, n) for W in subsets(others) for n in range(1, len(W) + 1))]:
            allowed = keeps_the_rule(s.voters, s.quorum, W, n) or (bug == "async-before-etcd" and not n)
            if (W, n) != (N.names, N.need) and allowed:
                yield f"names {n}({''.join(sorted(W))})", put(s, p, names=W, need=n, barrier=len(N.log))
    if i_lead and s.late:
        yield "sync written anew", synced(s, s.voters, s.quorum)


def may_elect(s, N, voters, quorum, streaming, bug):
    """The rule with the names in force; a barrier before it becomes easier; and only who streams from me shares my history."""
    if bug == "etcd-relaxed-first" and voters < s.voters:
        return True
    if not voters - s.voters <= streaming and bug != "stranger-votes":
        return False
    barrier = bug == "no-barrier" or all(held(s, e, N.names) >= N.need for e in N.log[: N.barrier])
    return keeps_the_rule(voters, quorum, N.names, N.need) and (barrier or not is_easier(s, voters, quorum))


# ---- leases, ends and returns: at any time, no law depends on them ---------------------------------------------------------------


def comings_and_goings(s, p, N, bug, late, max_term):
    if s.leader == p:
        yield f"lease lost {p}", led(s, "")
    mine = s.leader == p and s.term == N.term
    if N.role == "primary":
        if s.term != N.term or s.leader not in ("", p):
            yield f"demote {p}", put(s, p, role="standby", upstream="", names=NONE, need=0, barrier=0)
        yield f"stop {p}", put(s, p, role="stopped")
        if not s.leader and s.holder == p and s.term == N.term and s.term < max_term:
            yield f"lease again {p}", lead_again(s, p, bug)
    if N.role in ("crashed", "stopped"):
        yield f"return {p}", put(s, p, role="standby", upstream="", names=NONE, need=0, barrier=0)
        if mine and (not is_late(s, "resign", p) or bug == "late-resign"):
            yield f"restart in place {p}", put(s, p, role="primary")
            if s.voters and (not is_late(s, "sync", p) or bug == "late-sync-at-start"):
                names = {"names": s.voters, "need": len(s.voters) - s.quorum, "barrier": len(N.log)}
                yield f"restart in place {p}, names by etcd", put(s, p, role="primary", **names)
    if mine and is_late(s, "resign", p) and s.term < max_term:
        yield f"new term {p}", led(put(s, p, term=s.term + 1), p, term=s.term + 1)
    if N.role == "stopped" and mine:
        for candidate in ["", *(x for x, v in s.nodes if v.role == "standby" and v.upstream == p)]:
            record = (rank(N.log), candidate)
            yield f"resign {p} {candidate}", led(s, "", resigned=record)
            if late and not s.late:
                yield f"sent, no answer: resign {p} {candidate}", s._replace(late=("resign", p, *record))
    if N.role != "primary" and not N.upstream and s.holder == p and not s.leader and p not in dict(s.pledges) and s.term < max_term:
        yield f"lead again {p}", lead_again(promoted(s, p, N) if N.role == "standby" else put(s, p, role="primary"), p, bug)


def promoted(s, p, N):
    """A new timeline, and names before the first commit; nobody may elect yet, so any names will do."""
    log = (*N.log, (max(rank(N.log)[0], 1) + 1, PROMOTED + s.term + 1))
    others = frozenset(x for x, _ in s.nodes if x != p)
    return put(s, p, role="primary", log=log, upstream="", names=others, need=1, barrier=len(log))


def lead_again(s, p, bug):
    kept = s.resigned if bug == "resigned-kept" else ()
    return led(put(s, p, term=s.term + 1), p, term=s.term + 1, voters=NONE, quorum=0, resigned=kept)


# ---- pledges ---------------------------------------------------------------------------------------------------------------------


def pledging(s, p, N, bug, late):
    pledged, nodes = dict(s.pledges), dict(s.nodes)
    if N.upstream:
        yield f"stop receiver {p}", put(s, p, upstream="")
    if p not in pledged and (p in s.voters or bug == "nonvoters-count") and (not N.upstream or bug == "pledge-without-stopping"):
        yield f"pledge {p}", s._replace(pledges=s.pledges | {(p, rank(N.log))})
        if late and not s.late:
            yield f"sent, no answer: pledge {p}", s._replace(late=("pledge", p, rank(N.log)))
    if is_late(s, "pledge", p):
        yield f"pledges of {p} before now refused", s._replace(late=())
    leads = s.leader and s.leader != p and nodes[s.leader].role == "primary" and nodes[s.leader].term == s.term
    if leads and not N.upstream and (not is_late(s, "pledge", p) or bug == "late-pledge"):
        cut = follow_log(N.log, nodes[s.leader].log)
        if cut == N.log or p not in s.voters:  # the log may only be cut when nobody counts on it
            kept = s.pledges if bug == "stream-while-pledged" else frozenset(x for x in s.pledges if x[0] != p)
            label = "withdraw and follow" if p in pledged else "follow"
            yield f"{label} {p}", put(s, p, upstream=s.leader, log=cut)._replace(pledges=kept)
    if bug == "withdraw-blindly" and p in pledged and not N.upstream:
        for x, X in s.nodes:
            if X.role == "primary" and x != p and X.log[: len(N.log)] == N.log:
                yield f"BUG stream again {p}<-{x}", put(s, p, upstream=x)


# ---- taking over -----------------------------------------------------------------------------------------------------------------


def taking_over(s, p, N, bug, max_term):
    if s.term >= max_term:
        return
    if has_the_votes(s, p, bug):
        yield f"win {p}", won(s, p, N, bug)
    if s.resigned and not s.leader and not N.upstream and holds_the_whole(s, p, N, bug):
        yield f"handed over to {p}", won(s, p, N, bug)


def has_the_votes(s, p, bug):
    """q + 1 pledged voters, mine among them, that rank no higher: one of them holds each commit, and so do I. A better one may be idle."""
    if p not in s.voters or p not in dict(s.pledges):
        return False
    mine = dict(s.pledges)[p]
    counted = [x for x in s.pledges if x[0] in s.voters or bug == "nonvoters-count"]
    support = [x for x, theirs in counted if theirs <= mine or bug == "worst-candidate"]
    return len(support) >= max(s.quorum if bug == "win-with-q" else s.quorum + 1, 1)


def holds_the_whole(s, p, N, bug):
    """The leader stopped and said where its log ends. Only who streamed from it can tell that timeline by its number."""
    (timeline, length), candidate = s.resigned
    whole = rank(N.log)[0] == timeline and len(N.log) >= length
    return (whole or bug == "hand-over-behind") and (p in s.voters or p == candidate or bug == "hand-over-to-anybody")


def won(s, p, N, bug):
    """Nobody else holds what only the winner has, until it passed the barrier: no voters yet."""
    rest = frozenset(x for x, _ in s.pledges if x in s.voters and x != p) if bug == "voters-before-barrier" else NONE
    t = put(promoted(s, p, N), p, term=s.term + 1)
    pledges = frozenset(x for x in s.pledges if x[0] != p)
    return led(t, p, term=s.term + 1, holder=p, voters=rest, quorum=max(len(rest) - 1, 0), pledges=pledges, resigned=())


# ---- a transaction without an answer ---------------------------------------------------------------------------------------------


def carried_out(s):
    kind, sender, *what = s.late
    if kind == "sync":
        return synced(s, *what)
    if kind == "resign":
        return led(s, "", resigned=tuple(what))
    return s._replace(pledges=frozenset(x for x in s.pledges if x[0] != sender) | {(sender, *what)}, late=())


def steps(s, bug, max_writes, max_term, late):
    if s.late:
        yield f"LATE: {s.late[0]} {s.late[1]}", carried_out(s)
    for p, N in s.nodes:
        yield from running(s, p, N, max_writes)
        yield from comings_and_goings(s, p, N, bug, late, max_term)
        if N.role == "primary":
            yield from upkeep(s, p, N, bug, late)
        if N.role == "standby":
            yield from pledging(s, p, N, bug, late)
            yield from taking_over(s, p, N, bug, max_term)


def broken(s):
    L = dict(s.nodes).get(s.leader)
    return L is not None and L.role == "primary" and L.term == s.term and bool(s.acked - set(L.log))


# ---- the search ------------------------------------------------------------------------------------------------------------------


def key(s):
    """Nodes differ only in what they hold, so a state is kept once for all its renamings (sorting misses some: then it is kept twice).

    Kept as a hash of 64 bits: among ten million states two share one with a chance of one in 300,000, and then one would be skipped.
    """
    pledged = dict(s.pledges)
    nodes = [(x, still_matters(s, x, v)) for x, v in s.nodes]

    def features(item):
        x, v = item
        flags = (x == s.leader, x == s.holder, x in s.voters, x in s.late[1:], x in s.resigned[1:])
        return flags, v.role, v.log, v.upstream != "", len(v.names), v.need, v.barrier, pledged.get(x, ())

    order = {x: i for i, (x, _) in enumerate(sorted(nodes, key=features))}

    def of(names):
        return sum(1 << order[x] for x in names)

    nodes = tuple(sorted((order[x], v.log, v.role, v.term, order.get(v.upstream, -9), of(v.names), v.need, v.barrier) for x, v in nodes))
    late = tuple(order[x] if isinstance(x, str) and x in order else of(x) if isinstance(x, frozenset) else x for x in s.late)
    pledges = tuple(sorted((order[x], r) for x, r in s.pledges))
    resigned = (s.resigned[0], order.get(s.resigned[1], -9)) if s.resigned else ()
    etcd = (order.get(s.leader, -9), s.term, order[s.holder], of(s.voters), s.quorum, pledges, resigned, late)
    return hash((etcd, nodes, tuple(sorted(s.acked)), s.writes))


def still_matters(s, x, v):
    """Who is not the holder has no term to come back to: only its log counts, and, while it believes itself primary, its names."""
    if v.role == "standby":
        return v._replace(term=0)
    if x == s.holder:
        return v
    v = v._replace(term=v.term if v.term == s.term else 0, barrier=v.barrier if v.term == s.term else 0)
    return v if v.role == "primary" or v.term else v._replace(role="crashed", names=NONE, need=0)


def starts(names, outsider):
    """A leader and its voters. The last node may be no voter: idle, or strange, once a primary of another history under the same number."""
    first, last = names[0], names[-1]
    voters = frozenset(names[1:-1] if outsider else names[1:])
    nodes = {n: Node(role="primary", term=1, names=voters, need=1) if n == first else Node(upstream=first) for n in names}
    if outsider == "strange":
        nodes[last] = Node(log=((1, STRANGE), (1, STRANGE + 1)))
    return State(first, 1, first, voters, len(voters) - 1, NONE, (), (), tuple(sorted(nodes.items())), NONE, 0)


def explore(start, bug, max_writes, max_term, limit, late):
    """(states, depth, why it ended: a history that loses a write, "limit", or None: these were all)."""
    seen, frontier, depth = {key(start): 0}, [(key(start), start)], 0
    while frontier:
        successors = []
        for here, s in frontier:
            for _, t in steps(s, bug, max_writes, max_term, late):
                there = key(t)
                if there in seen:
                    continue
                seen[there] = here
                if broken(t):
                    return len(seen), depth + 1, history(start, there, seen, lambda s: steps(s, bug, max_writes, max_term, late))
                successors.append((there, t))
            if len(seen) > limit:
                return len(seen), depth, "limit"
        frontier, depth = successors, depth + 1
    return len(seen), depth - 1, None


def history(start, there, seen, successors):
    path = [there]
    while seen[path[-1]]:
        path.append(seen[path[-1]])
    labels, s = [], start
    for wanted in reversed(path[:-1]):
        label, s = next((label, t) for label, t in successors(s) if key(t) == wanted)
        labels.append(label)
    return labels


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--bug", choices=BUGS)
    ap.add_argument("--nodes", type=int)
    ap.add_argument("--writes", type=int, default=2)
    ap.add_argument("--terms", type=int, default=3)
    ap.add_argument("--limit", type=int, default=20_000_000, help="states; a million takes 150 MB")
    ap.add_argument("--late", action="store_true", help="transactions may go without an answer and be carried out later")
    ap.add_argument("--outsider", choices=("idle", "strange"), help="the last node is no voter; strange: it once led another history")
    a = ap.parse_args()
    start = starts("abcde"[: a.nodes or NODES.get(a.bug, 3)], OUTSIDERS.get(a.bug, a.outsider))
    states, depth, found = explore(start, a.bug, a.writes, a.terms, a.limit, a.late or (a.bug or "").startswith("late-"))
    if isinstance(found, list):
        print("LOST after:", " | ".join(found))
        print(f"{states} states, depth {depth}")
        sys.exit(0 if a.bug else 1)
    print(f"no loss in {states} states, depth {depth}", "(limit reached)" if found else "(all of them)")
    sys.exit(1 if a.bug else 0)


if __name__ == "__main__":
    main()
