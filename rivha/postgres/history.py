"""Timeline histories, and whether one position is a prefix of another's past. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from rivha.model import History, HistoryLine, Lsn, format_lsn, parse_lsn

PAGE_HEADER = 24  # bytes; SizeOfXLogShortPHD of xlog_internal.h
SEGMENT_HEADER = 40  # SizeOfXLogLongPHD, on the first page of a segment
ALIGNMENT = 8  # MAXIMUM_ALIGNOF


def parse(text: str) -> tuple[HistoryLine, ...]:
    """A .history file: `timeline <tab> where it ended <tab> why`. Lines that are none are skipped, as PostgreSQL does with comments."""
    lines = []
    for line in text.splitlines():
        words = line.split(None, 2)
        if len(words) >= 2 and words[0].isdigit() and "/" in words[1]:
            lines.append(HistoryLine(int(words[0]), parse_lsn(words[1]), words[2].strip() if len(words) > 2 else ""))
    return tuple(lines)


def record_end(start: Lsn, length: int, page_bytes: int, segment_bytes: int) -> Lsn:
    """Where a WAL record of `length` bytes that begins at `start` ends: it flows around the headers of the pages it crosses."""
    position = start
    left = page_bytes - position % page_bytes
    rest = length
    while rest > left:
        rest -= left
        position += left
        header = SEGMENT_HEADER if position % segment_bytes == 0 else PAGE_HEADER
        position += header
        left = page_bytes - header
    position += rest
    return (position + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT


def judge(
    timeline: int,
    end: Lsn,
    past: Sequence[HistoryLine],
    leader_timeline: int,
    leader_lsn: Lsn,
    leader_past: Sequence[HistoryLine],
) -> tuple[History, str]:
    """Is WAL up to `end` on `timeline`, whose own past is `past`, a prefix of the leader's? The text explains.

    Numbers alone do not tell: two nodes can each have made "timeline 3" (HAZARDS D 56), so the common past must agree in every switch.
    """
    mine = f"my WAL ends at {format_lsn(end)} on timeline {timeline}"
    if timeline > leader_timeline:
        return History.DIVERGED, f"{mine}, the leader is on timeline {leader_timeline}"
    switches = {line.timeline: line.lsn for line in leader_past}
    for line in past:
        if line.timeline < timeline and switches.get(line.timeline) != line.lsn:
            return History.DIVERGED, f"{mine}; I left timeline {line.timeline} at {format_lsn(line.lsn)}, the leader did not"
    if timeline == leader_timeline:
        if end > leader_lsn:
            return History.DIVERGED, f"{mine}, beyond the leader's end {format_lsn(leader_lsn)} on the same timeline"
        return History.SAME, f"{mine}, the leader's timeline"
    if timeline not in switches:
        return History.DIVERGED, f"{mine}, which is not in the leader's history"
    switch = switches[timeline]
    if end > switch:
        return History.DIVERGED, f"{mine}, but the leader left that timeline at {format_lsn(switch)}"
    return History.SAME, f"{mine}; the leader left that timeline at {format_lsn(switch)}"
