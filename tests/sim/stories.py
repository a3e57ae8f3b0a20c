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

Header lines may be left out; `seed`, `tags` and `settings` (JSON, on top of the usual ones) may be given too. `jitter on`: messages take
their time as in a seed's run; else each takes a millisecond, so that a transcript changes only when what it tells of does.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from rivha.config.shared import mistakes
from tests.sim import faults
from tests.sim.shape import SETTINGS, Shape
from tests.sim.world import World

FOLDER = Path(__file__).parent / "stories"
HEADER = ("seed", "nodes", "lasts", "jitter", "settings", "tags")
FAULTS, TRANSCRIPT = "faults:", "transcript:"


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

    def told(self) -> Story:
        """Played now."""
        world = World(self.seed, self.shape, transcript=True, script=list(self.script))
        world.network.jitter = self.jitter
        world.transcript.from_whole = True
        world.lasts_s = self.lasts_s
        world.run()
        return replace(self, transcript="\n".join([*world.lines, *_end(world)]) + "\n")

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
    """Raises StoryError."""
    head, found, rest = text.partition(f"\n{FAULTS}\n")
    if not found:
        raise StoryError(f"a story has a line `{FAULTS}`, and its faults after it")
    script, found, transcript = rest.partition(f"{TRANSCRIPT}\n")
    if found and script and not script.endswith("\n"):
        raise StoryError(f"`{TRANSCRIPT}` stands on a line of its own")
    story = _header(head)
    try:
        parsed = faults.parse(script)
        faults.check_hosts(parsed, story.shape.names)
    except faults.ScriptError as error:
        raise StoryError(f"in the faults, {error}") from error
    return replace(story, script=tuple(parsed), transcript=transcript)


def _header(text: str) -> Story:
    about: list[str] = []
    given: dict[str, str] = {}
    for n, line in enumerate(text.splitlines(), 1):
        key, _, value = line.partition(" ")
        if line.startswith("#"):
            about.append(line.removeprefix("#").strip())
        elif key not in HEADER:
            raise StoryError(f"line {n}: should be a comment or one of {', '.join(HEADER)}, is {line!r}")
        elif key in given:
            raise StoryError(f"line {n}: {key} is given twice")
        else:
            given[key] = value
    try:
        seed, lasts_s = int(given.get("seed", "0")), float(given.get("lasts", "0"))
        settings, tags = json.loads(given.get("settings", "{}")), json.loads(given.get("tags", "{}"))
        shape = Shape(int(given.get("nodes", "3")), {**SETTINGS, **settings}, tags)
    except (ValueError, TypeError) as error:
        raise StoryError(f"in the header: {error}") from error
    _check(shape, lasts_s)
    if given.get("jitter", "off") not in ("on", "off"):
        raise StoryError(f"jitter {given['jitter']}: on or off")
    return Story("\n".join(about), seed, shape, given.get("jitter") == "on", lasts_s)


def _check(shape: Shape, lasts_s: float) -> None:
    if not 1 <= shape.nodes <= 7:
        raise StoryError(f"nodes {shape.nodes}: one to seven can be simulated")
    if not 0 <= lasts_s <= 3600:
        raise StoryError(f"lasts {lasts_s:g}: up to an hour, in seconds")
    if not isinstance(shape.tags, Mapping) or any(h not in shape.names or not isinstance(t, Mapping) for h, t in shape.tags.items()):
        raise StoryError(f"tags: a host of {', '.join(shape.names)} -> its tags, not {json.dumps(shape.tags)}")
    if wrong := mistakes(shape.settings):
        raise StoryError(f"settings: {'; '.join(wrong)}")


def rewrite(folder: Path = FOLDER) -> list[Path]:
    """Plays all stories and writes down how they go now; returns those that changed. Raises StoryError before anything is written."""
    stories = {path: read(path) for path in sorted(folder.glob("*.txt"))}
    changed = []
    for path, story in stories.items():
        now = str(story.told())
        if now != path.read_text():
            path.write_text(now)
            changed.append(path)
    return changed
