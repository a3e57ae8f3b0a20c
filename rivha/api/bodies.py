"""The bodies of the requests that change something, as models; every mistake in one answer. Used by `control`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import TypeVar

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from rivha.api.reply import Reply, as_text


class Body(BaseModel):
    model_config = ConfigDict(populate_by_name=True)


class SwitchBody(Body):
    """POST /switchover and /failover."""

    leader: str | None = None
    candidate: str | None = Field(None, validation_alias=AliasChoices("candidate", "member"))
    scheduled_at: str | None = None
    accept_loss: bool = Field(False, validation_alias=AliasChoices("accept_loss", "accept-loss"))  # failover: see switching.why_it_may_lose


class RestartBody(Body):
    """POST /restart. All that is given must hold, else nothing is restarted."""

    schedule: str | None = None
    role: str | None = Field(None, pattern="^(primary|master|leader|replica|standby)$")
    postgres_version: str | None = Field(None, pattern=r"^\d+(\.\d+)*$")  # only a server older than this
    timeout: float | None = Field(None, gt=0, le=86_400)  # seconds
    restart_pending: bool = False


class ReinitializeBody(Body):
    force: bool = False
    from_leader: bool = Field(False, validation_alias=AliasChoices("from_leader", "from-leader"))


B = TypeVar("B", bound=Body)


def parse_object(raw: bytes, *, optional: bool = False) -> dict[str, object] | Reply:
    """The JSON object in a body (no Content-Type is asked for), or 400 with what is wrong; 411 when there is none and one is needed."""
    if not raw.strip():
        return {} if optional else as_text(411, "this request needs a body: a JSON object")
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError) as error:
        return as_text(400, f"the body is no JSON: {error}")
    if not isinstance(found, dict):
        return as_text(400, f"the body must be a JSON object, like {{}}, and is {type(found).__name__}")
    return found


def parse_body(kind: type[B], raw: bytes, *, optional: bool = False) -> B | Reply:
    found = parse_object(raw, optional=optional)
    if isinstance(found, Reply):
        return found
    try:
        return kind.model_validate({key: value for key, value in found.items() if value != ""})
    except ValidationError as error:
        return as_text(400, "; ".join(_sentence(mistake) for mistake in error.errors(include_url=False)))


def _sentence(mistake: Mapping[str, object]) -> str:
    where = mistake["loc"]
    assert isinstance(where, tuple)
    return f"{'.'.join(map(str, where))}: {mistake['msg']}, not {mistake['input']!r}"


def parse_instant(text: str, what: str, wall_now: float) -> float | Reply:
    """Seconds since 1970. 400 for what is no date, has no zone, or has passed; `what` is the scheduled thing."""
    try:
        instant = datetime.fromisoformat(text)
        seconds = instant.timestamp()
    except (ValueError, OverflowError):
        return as_text(400, f"Unable to parse scheduled timestamp {text!r}. Use ISO 8601 with a zone, like 2026-07-01T03:00:00+00:00")
    if instant.tzinfo is None:
        return as_text(400, f"Timezone information is mandatory for the scheduled {what}")
    return as_text(400, f"Cannot schedule {what} in the past") if seconds <= wall_now else seconds
