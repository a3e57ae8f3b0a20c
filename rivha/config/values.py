"""The small grammar of configuration values: seconds, sizes, flags, addresses; and how a mistake in one is put into words.

Used by `rivha.config.file` and `rivha.config.shared` only. It must never put a secret into a message.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

DEPTH = 32  # sections within sections; our own keys need five
SECRET = re.compile(r"password|passwd|secret|token", re.IGNORECASE)

SECONDS_IN = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}  # PostgreSQL's units of time
BYTES_IN = {"B": 1, "kB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30, "TB": 1 << 40}  # and of memory
QUANTITY = re.compile(r"\s*([+-]?(?:\d{1,18}(?:\.\d{0,9})?|\.\d{1,9}))\s*([A-Za-z]*)\s*")


class Section(BaseModel):
    """One mapping of the file. Keys that it does not know are kept aside (`unknown_keys`), values are never shown by repr."""

    model_config = ConfigDict(extra="allow", frozen=True, hide_input_in_errors=True, regex_engine="python-re")

    def __repr_args__(self) -> Iterator[tuple[str, Any]]:
        return iter(())


def setting(default: Any, why: str, **limits: Any) -> Any:
    """A field: its default, and what it hurts when it is wrong (shown behind every mistake in it)."""
    return Field(default, description=why, **limits)


def section(model: type[BaseModel]) -> Any:
    """A field that holds a section with all its defaults."""
    return Field(default_factory=model)


def wrong(text: str) -> PydanticCustomError:
    return PydanticCustomError("rivha", "{text}", {"text": text})


# ---- single values


def quantity(value: object, units: Mapping[str, float], base: str, what: str) -> float:
    """A plain number counts in `base`; text may carry one of `units`. Raises PydanticCustomError."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise wrong(f"must be {what}, a number or text like {'5min' if base == 's' else '16MB'}")
    if isinstance(value, str):
        found = QUANTITY.fullmatch(value)
        unit = (found and found[2]) or base
        if found is None or unit not in units:
            raise wrong(f"{shown(value)} is not {what}; units are {', '.join(units)}")
        return float(found[1]) * units[unit]
    if isinstance(value, float) and not math.isfinite(value):
        raise wrong(f"must be {what}, not {value}")
    if isinstance(value, int) and abs(value) > 1 << 62:
        raise wrong(f"is too large for {what}")
    return float(value)


def seconds(value: object) -> float:
    return quantity(value, SECONDS_IN, "s", "a duration in seconds")


def size(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= 1 << 62:
        return value  # exactly; a float would round it
    return int(quantity(value, BYTES_IN, "B", "a size in bytes"))


def whole(value: object) -> int:
    number = quantity(value, {"": 1}, "", "a whole number")
    if not number.is_integer():
        raise wrong(f"must be a whole number, not {value}")
    return int(number)


FLAGS = {"on": True, "true": True, "yes": True, "1": True, "off": False, "false": False, "no": False, "0": False}


def flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, int | str) and str(value).strip().lower() in FLAGS:
        return FLAGS[str(value).strip().lower()]
    raise wrong("must be true or false")


def text(value: object) -> str:
    """YAML turns an unquoted 1234 into a number: that is taken as its digits."""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise wrong("must be text; put it into quotes")


def words(value: object) -> tuple[str, ...]:
    """A list of texts, or one text with commas; quotes around the parts are taken off (Patroni's environment variables have them)."""
    if isinstance(value, str):
        value = value.strip().strip("[]").split(",")
    if not isinstance(value, list | tuple):
        raise wrong("must be a list, or text with commas")
    return tuple(part for part in (text(item).strip().strip("'\"").strip() for item in value) if part)


def lines(value: object) -> tuple[str, ...]:
    """A list of lines (pg_hba.conf, pg_ident.conf), or one text of several lines."""
    if isinstance(value, str):
        value = value.splitlines()
    if not isinstance(value, list | tuple):
        raise wrong("must be a list of lines")
    found = tuple(text(item) for item in value)
    if any("\n" in line or "\r" in line or "\0" in line for line in found):
        raise wrong("one of its lines contains a line break; write one entry per rule")
    return tuple(line for line in found if line.strip())


def texts(value: object) -> dict[str, str]:
    """A mapping of texts (HTTP headers). Without line breaks, which would end a header early."""
    if not isinstance(value, Mapping):
        raise wrong("must be a mapping")
    found = {str(name): text(item) for name, item in value.items()}
    if any(set("\r\n\0") & set(name + item) for name, item in found.items()):
        raise wrong("must not contain line breaks")
    return found


Seconds = Annotated[float, BeforeValidator(seconds)]
Size = Annotated[int, BeforeValidator(size)]
Whole = Annotated[int, BeforeValidator(whole)]
Flag = Annotated[bool, BeforeValidator(flag)]
Text = Annotated[str, BeforeValidator(text)]
Words = Annotated[tuple[str, ...], BeforeValidator(words)]
Lines = Annotated[tuple[str, ...], BeforeValidator(lines)]
Texts = Annotated[dict[str, str], BeforeValidator(texts)]


# ---- addresses


def split_address(value: str, port: int) -> tuple[str, int]:
    """`host:port`, `[::1]:port`, `::1:port` (behind the last colon stands the port), `host` alone. Raises ValueError, in words."""
    host, colon, tail = value.strip().rpartition(":")
    if not colon or not tail.isdecimal() or (":" in host and not bracketed(host) and not is_ip(host)):
        host, tail = value.strip(), str(port)
    number = int(tail) if len(tail) <= 5 else 65536
    if not 0 < number < 65536:
        raise ValueError(f"port {tail[:12]} is not between 1 and 65535")
    host = host[1:-1] if bracketed(host) else host
    if not host or re.search(r"[\s/@\[\],]", host) or (":" in host and not is_ip(host)):
        raise ValueError(f"{shown(value)} is not of the form host:port")
    return host, number


def split_listen(value: str, port: int) -> tuple[tuple[str, ...], int]:
    """`host,host:port`: several hosts, the port once at the end. Raises ValueError, in words."""
    first, _, last = value.replace(" ", "").rpartition(",")
    host, number = split_address(last, port)
    others = tuple(name[1:-1] if bracketed(name) else name for name in first.split(",")) if first else ()
    for name in others:
        if not name or re.search(r"[\s/@\[\]]", name) or (":" in name and not is_ip(name)):
            raise ValueError(f"{shown(value)} is not of the form host,host:port")
    return (*others, host), number


def join_address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def bracketed(host: str) -> bool:
    return len(host) > 2 and host[0] == "[" and host[-1] == "]"


def is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def everywhere(host: str) -> bool:
    """Is it a "listen on all addresses", which nobody can connect to from outside?"""
    return host in ("*", "0.0.0.0", "::", "")  # noqa: S104  (recognised, not bound)


# ---- mistakes in words


def shown(value: object, limit: int = 60) -> str:
    """A value as it may be quoted in a message: short, on one line."""
    found = repr(value)
    return found if len(found) <= limit else found[: limit - 3] + "..."


M = TypeVar("M", bound=BaseModel)


def path_of(location: tuple[int | str, ...]) -> str:
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return "".join(parts).lstrip(".")


def mistakes_in(error: ValidationError, model: type[BaseModel], root: str = "") -> list[tuple[tuple[int | str, ...], str]]:
    """(where, sentence) of every mistake: the path, what is wrong, and why it would hurt."""
    found = []
    for item in error.errors(include_url=False, include_input=False, include_context=True):
        where = item["loc"]
        why = reason_of(model, where)
        path = path_of((root, *where) if root else where)
        found.append((where, f"{path}: {in_words(item['type'], item['msg'])}" + (f"; {why}" if why else "")))
    return found


def in_words(kind: str, message: str) -> str:
    if kind == "missing":
        return "is missing"
    if kind in ("model_type", "model_attributes_type", "dict_type", "mapping_type"):
        return "must be a section, that is a mapping of keys"
    if kind in ("tuple_type", "list_type"):
        return "must be a list"
    return message.replace("Input should be", "must be", 1).replace("String should", "must", 1)


def reason_of(model: type[BaseModel], where: tuple[int | str, ...]) -> str:
    """The `why` of the innermost field on the way to the mistake."""
    why = ""
    here: type[BaseModel] | None = model
    for part in where:
        field = here.model_fields.get(str(part)) if here is not None else None
        if field is None:
            break
        why = field.description or why
        here = inner_model(field.annotation)
    return why


def without(raw: Mapping[str, Any], where: tuple[int | str, ...]) -> dict[str, Any]:
    """A copy that lacks the key with the mistake: the innermost one that is still a key of a section."""
    result = dict(raw)
    head, rest = str(where[0]) if where else "", where[1:]
    inner = result.get(head)
    if rest and isinstance(inner, Mapping) and str(rest[0]) in inner:
        result[head] = without(inner, rest)
    else:
        result.pop(head, None)
    return result


def inner_model(annotation: Any) -> type[BaseModel] | None:
    """The section that a field holds, also when it may be absent."""
    for candidate in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def unknown_keys(found: BaseModel, root: str = "") -> Iterator[str]:
    """Paths of the keys that no model knows."""
    for name in found.model_extra or {}:
        yield f"{root}{name}"
    for name in type(found).model_fields:
        value = getattr(found, name)
        if isinstance(value, BaseModel):
            yield from unknown_keys(value, f"{root}{name}.")
