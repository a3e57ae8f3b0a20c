"""Stories: golden transcripts of the classic cases, in tests/sim/stories/*.txt. A change of behaviour shows there as a diff to read.

A story is a header, the faults, and what came of them:

    # what it is about, in a line or more
    nodes 3
    lasts 20
    settings {"ttl": 10}
    faults:
    1.0 postmaster_killed leader 0
    transcript:
    ...

Header lines may be left out; `seed`, `tags` and `settings` (JSON, on top of shape.py's) may be given too. `jitter on`: messages take
their time as in a seed's run; else each takes a millisecond, so that a transcript changes only when what it tells of does.
`traffic` (JSON) gives what Shape says of clients and links: write_every_s, goes_past_the_proxy, lags.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from rivha.config.build import PLAIN_FALSE
from rivha.config.file import tags as checked_tags
from rivha.config.shared import Dynamic, likely, mistakes
from tests.sim import faults
from tests.sim.many import judged
from tests.sim.shape import SETTINGS, Shape
from tests.sim.world import World

FOLDER = Path(__file__).parent / "stories"
HEADER = ("seed", "nodes", "lasts", "jitter", "settings", "tags", "traffic")
FAULTS, TRANSCRIPT = "faults:", "transcript:"
TAGS = (*PLAIN_FALSE, "failover_priority", "sync_priority")
# What the laws read of the settings, they read as it is: Patroni's other spellings, and 2.5 or "5s", would be another to them.
MODES = ("off", "on", "quorum")
PLAIN_NUMBERS = ("ttl", "loop_wait", "retry_timeout", "maximum_lag_on_failover", "synchronous_node_count")
PLAIN_FLAGS = ("synchronous_mode_strict", "check_timeline", "pause")
T = TypeVar("T")


class StoryError(ValueError):
    """A story that does not parse; the text says where and why."""


@dataclass(frozen=True, slots=True)
class Story:
    about: str
    seed: int = 0
    shape: Shape = field(default_factory=Shape)
    jitter: bool = False
    lasts_s: float = 0.0
    script: tuple[faults.Fault, ...] = ()
    transcript: str = ""
    broken: tuple[str, ...] = ()  # the laws that it broke when it was told

    def told(self) -> Story:
        """Played now."""
        world = World(self.seed, self.shape, transcript=True, script=list(self.script))
        world.network.jitter = self.jitter
        world.transcript.from_whole = True
        world.lasts_s = self.lasts_s
        broken = judged(world)
        return replace(self, transcript="\n".join([*world.lines, *_end(world)]) + "\n", broken=tuple(broken))

    def differs(self, other: Story) -> str:
        """A diff of the transcripts, "" when they are the same."""
        before, after = self.transcript.splitlines(), other.transcript.splitlines()
        return "\n".join(difflib.unified_diff(before, after, "as written", "as it goes now", lineterm="", n=2))

    def __str__(self) -> str:
        changed = {k: v for k, v in self.shape.settings.items() if SETTINGS.get(k) != v}
        header = [f"# {line}".rstrip() for line in self.about.splitlines()]
        header += [f"seed {self.seed}"] if self.seed else []
        header += [f"nodes {self.shape.nodes}", f"lasts {self.lasts_s:g}"]
        header += ["jitter on"] if self.jitter else []
        header += [f"settings {json.dumps(changed)}"] if changed else []
        header += [f"tags {json.dumps(self.shape.tags)}"] if self.shape.tags else []
        header += [f"traffic {json.dumps(self.shape.traffic)}"] if self.shape.traffic else []
        return "\n".join([*header, FAULTS, *(str(fault) for fault in self.script), TRANSCRIPT, self.transcript])


def _end(world: World) -> list[str]:
    clients, longest_s = world.clients, world.clients.longest_outage_s(world.whole_at)
    return [
        f"leaders: {' '.join(world.laws.leaders)}; laws broken: {len(world.laws.broken)}",
        f"writes: {len(clients.acknowledged)} acknowledged, of which {lost(world)} are lost; {clients.unknown} unknown, {clients.refused} "
        f"refused, the longest outage {longest_s:.2f} s",
    ]


def lost(world: World) -> int:
    leader = world.instances.get(world.store.value("leader") or "")
    held = {entry.ident for entry in leader.disk.wal} if leader else set()
    return len([a for a in world.clients.acknowledged if a.ident not in held])


# ---- reading


def read(path: Path) -> Story:
    """Raises StoryError, naming the file."""
    try:
        return parse(path.read_text())
    except (OSError, UnicodeDecodeError, StoryError) as error:
        raise StoryError(f"{path}: {error}") from error


def parse(text: str) -> Story:
    """Raises StoryError. What has no `transcript:` yet has never been told."""
    lines = text.splitlines(keepends=True)
    plain = [line.rstrip("\n") for line in lines]
    if FAULTS not in plain:
        raise StoryError(f"a story has a line `{FAULTS}`, and its faults after it")
    begin = plain.index(FAULTS) + 1
    end = plain.index(TRANSCRIPT, begin) if TRANSCRIPT in plain[begin:] else len(lines)
    story = _header(plain[: begin - 1])
    try:
        script = faults.parse("".join(lines[begin:end]), begin + 1)
        faults.check_hosts(script, story.shape.names)
    except faults.ScriptError as error:
        raise StoryError(f"in the faults, {error}") from error
    return replace(story, script=tuple(script), transcript="".join(lines[end + 1 :]))


def _header(lines: Sequence[str]) -> Story:
    about: list[str] = []
    given: dict[str, str] = {}
    for n, line in enumerate(lines, 1):
        key, _, value = line.partition(" ")
        if line.startswith("#"):
            about.append(line.removeprefix("#").strip())
        elif key not in HEADER:
            raise StoryError(f"line {n}: should be a comment or one of {', '.join(HEADER)}, is {line!r}")
        elif key in given:
            raise StoryError(f"line {n}: {key} is given twice")
        else:
            given[key] = value
    seed, nodes, lasts_s = _value(given, "seed", int, 0), _value(given, "nodes", int, 3), _value(given, "lasts", float, 0.0)
    settings: Any = _value(given, "settings", json.loads, {})
    tags: Any = _value(given, "tags", json.loads, {})
    if not isinstance(settings, dict):
        raise StoryError(f"settings: names and values, not {json.dumps(settings)}")
    traffic: Any = _value(given, "traffic", json.loads, {})
    try:
        shape = Shape(nodes, {**SETTINGS, **settings}, tags).with_traffic(traffic)
    except (TypeError, ValueError) as error:
        raise StoryError(f"traffic: {error}") from error
    _check(shape, lasts_s)
    if given.get("jitter", "off") not in ("on", "off"):
        raise StoryError(f"jitter {given['jitter']}: on or off")
    return Story("\n".join(about), seed, shape, given.get("jitter") == "on", lasts_s)


def _value(given: Mapping[str, str], key: str, read: Callable[[str], T], usual: T) -> T:
    try:
        return read(given[key]) if key in given else usual
    except ValueError as error:
        raise StoryError(f"{key}: {error}") from error


def _check(shape: Shape, lasts_s: float) -> None:
    if not 1 <= shape.nodes <= 7:
        raise StoryError(f"nodes {shape.nodes}: one to seven can be simulated")
    if not 0 <= lasts_s <= 3600:
        raise StoryError(f"lasts {lasts_s:g}: up to an hour, in seconds")
    if not isinstance(shape.tags, Mapping) or any(h not in shape.names or not isinstance(t, Mapping) for h, t in shape.tags.items()):
        raise StoryError(f"tags: a host of {', '.join(shape.names)} -> its tags, not {json.dumps(shape.tags)}")
    for host, tags in shape.tags.items():
        _check_tags(host, tags)
    unknown = [f"{key} is none of them{likely(key)}" for key in shape.settings if key not in Dynamic.model_fields]
    not_plain = [text for key, value in shape.settings.items() if (text := _not_plain(key, value))]
    if wrong := unknown or mistakes(shape.settings) or not_plain:
        raise StoryError(f"settings: {'; '.join(wrong)}")


def _not_plain(key: str, value: object) -> str:
    """Why the laws could not read this setting, which the agent can, or ""."""
    if key in PLAIN_NUMBERS and (isinstance(value, bool) or not isinstance(value, int)):
        return f"{key}: a whole number in a story, not {json.dumps(value)}"
    if key in PLAIN_FLAGS and not isinstance(value, bool):
        return f"{key}: true or false in a story, not {json.dumps(value)}"
    if key == "synchronous_mode" and value not in MODES:
        return f"{key}: one of {', '.join(MODES)} in a story, not {json.dumps(value)}"
    return ""


def _check_tags(host: str, tags: Mapping[str, object]) -> None:
    """Of an operator's own making they may be anything, but here nobody would heed them."""
    for tag in tags:
        if tag not in TAGS:
            raise StoryError(f"tags of {host}: {tag} is none of {', '.join(TAGS)}")
    try:
        checked_tags(tags)
    except ValueError as error:
        raise StoryError(f"tags of {host}: {error}") from error


class Rewritten(NamedTuple):
    changed: list[Path]
    broken: list[Path]  # in which a law was


def rewrite(folder: Path = FOLDER) -> Rewritten:
    """Plays all stories and writes down how they go now. Raises StoryError before anything is written."""
    stories = {path: read(path) for path in sorted(folder.glob("*.txt"))}
    done = Rewritten([], [])
    for path, story in stories.items():
        now = story.told()
        if str(now) != path.read_text():
            path.write_text(str(now))
            done.changed.append(path)
        if now.broken:
            done.broken.append(path)
    return done
