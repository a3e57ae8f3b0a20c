"""What a program said, as one line with what to do about it; and a failure that merely goes on is told in a line."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from rivha.advice import advice, advised, brief
from rivha.agent.brain.memory import HINDERED
from rivha.agent.job import JobSlot
from rivha.errors import CommandFailed, NoSpace, PostgresUnavailable, RivhaError

REFUSED = (
    'pg_basebackup: error: connection to server at "10.0.0.1", port 5432 failed: FATAL:  password authentication failed for user "rep"\n'
    'password retrieved from file "/x/pgpass"'
)
FULL = '2026-11-23 06:49:59 UTC [2] FATAL:  could not write to file "pg_wal/xlogtemp.2": No space left on device\nchild process exited'


def test_of_many_lines_the_telling_one_is_kept_without_its_timestamp():
    assert brief("initdb failed", FULL) == 'initdb failed: FATAL: could not write to file "pg_wal/xlogtemp.2": No space left on device'
    assert brief("clone", REFUSED).endswith('FATAL: password authentication failed for user "rep"')
    assert brief("nothing told", "") == "nothing told"
    assert brief("strange", "one\ntwo\n") == "strange: two"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (REFUSED, "correct the password of rep in postgresql.authentication"),
        (FULL, "free space"),
        ("Address already in use", "ss -ltnp"),
        ('FATAL:  no pg_hba.conf entry for replication connection from host "10.0.0.2", user "rep", no encryption', "pg_hba"),
        ('FATAL:  role "rep" does not exist', "create the user rep"),
    ],
)
def test_known_words_come_with_what_to_do(text: str, words: str):
    assert words in advice(text)
    assert words in advised("short", text)


def test_unknown_words_come_without():
    assert advised("a program said something new") == "a program said something new"


async def failing(slot: JobSlot, error: RivhaError) -> None:
    async def work() -> None:
        raise error

    assert slot.begin("start", work, subject="primary")
    async with asyncio.timeout(5):
        while slot.busy:
            await asyncio.sleep(0)


async def test_the_same_failure_is_told_whole_once_and_in_a_line_afterwards():
    slot = JobSlot(lambda: 7.0, lambda: None)
    with capture_logs() as logs:
        for pid in (1, 2, 3):
            await failing(slot, CommandFailed("Postgres did not start", f"LOG: starting [{pid}]\nFATAL:  no luck with {pid}"))
        await failing(slot, CommandFailed("Postgres did not start", "FATAL:  another reason"))
    told = [(line["event"], line["error"].count("\n"), line.get("times")) for line in logs if "failed" in line["event"]]
    assert told == [("job failed", 1, None), ("job failed again", 0, 2), ("job failed again", 0, 3), ("job failed", 0, None)]


@pytest.mark.parametrize(
    ("error", "result"), [(PostgresUnavailable("silent"), HINDERED), (NoSpace("full"), HINDERED), (CommandFailed("no"), "")]
)
async def test_what_says_nothing_about_the_data_is_marked_as_such(error: RivhaError, result: str):
    slot = JobSlot(lambda: 7.0, lambda: None)
    await failing(slot, error)
    assert slot.job is not None
    assert slot.job.result == result
