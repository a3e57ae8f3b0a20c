"""Whatever is written, the answer is a configuration or a ConfigError: never a traceback; and `policy` always answers."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rivha.config import check_patch, complaints, dynamic, load, policy
from rivha.config.env import NAMES
from rivha.config.sections import Local, Postgresql
from rivha.config.shared import Dynamic, DynamicPostgres
from rivha.config.values import split_address, split_listen
from rivha.errors import ConfigError
from rivha.model import Policy

PLAIN = yaml.safe_load((Path(__file__).parent / "patroni" / "plain.yml").read_text())
CALM = settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=10**30),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=12),
    st.sampled_from(
        ["10s", "5 min", "1e9", "-1", "0", "*", "0.0.0.0:5432", "[::1]:1", "on", "quorum", "%(x)s", "%9999999999d", '"', "a,b", "\x00"]
    ),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6) | st.sampled_from(["host", "a"]), inner, max_size=3),
    max_leaves=6,
)


def keys_of(model):
    return st.sampled_from(sorted(model.model_fields))


dynamics = st.dictionaries(
    keys_of(Dynamic) | st.sampled_from(["master_start_timeout", "standby_cluster", "x"]),
    values | st.dictionaries(keys_of(DynamicPostgres) | st.just("pg_hba_primary"), values, max_size=4),
    max_size=6,
)


@CALM
@given(dynamics)
def test_policy_answers_whatever_etcd_holds(found):
    answer = policy(found)
    assert isinstance(answer, Policy)
    assert answer.ttl_s >= answer.loop_wait_s + 2 * answer.retry_timeout_s - 1e-6
    assert answer.ttl_s >= 3
    assert all(isinstance(text, str) for text in complaints(found))


@CALM
@given(dynamics, dynamics)
def test_an_accepted_patch_brings_no_mistake_and_json_can_hold_it(current, patch):
    with contextlib.suppress(ConfigError):
        start = check_patch({}, current)
        found = check_patch(start, patch)
        json.dumps(found, allow_nan=False)
        assert policy(found) == policy(found, Policy(ttl_s=77))


def node(tmp_path, changes):
    raw = json.loads(json.dumps(PLAIN))
    for path, value in changes.items():
        here = raw
        *parents, last = path
        for part in parents:
            here = here.setdefault(part, {}) if isinstance(here.get(part, {}), dict) else {}
        here[last] = value
    path = tmp_path / "node.yml"
    path.write_text(yaml.safe_dump(raw), encoding="utf-8")
    return str(path)


places = st.one_of(
    st.tuples(keys_of(Local)),
    st.tuples(st.just("postgresql"), keys_of(Postgresql)),
    *(
        st.tuples(st.just(name), keys_of(field.default_factory))
        for name, field in Local.model_fields.items()
        if field.default_factory is not None
    ),
)


@CALM
@given(changes=st.dictionaries(places, values, max_size=3))
def test_a_file_with_anything_in_any_place_is_loaded_or_refused_in_words(tmp_path, changes):
    with contextlib.suppress(ConfigError):
        config = load(node(tmp_path, changes), {})
        policy(dynamic(config, None))
        assert config.postgres.port
        assert config.postgres.listen_addresses
        assert config.restapi.base_url


@CALM
@given(content=st.text(max_size=60) | st.binary(max_size=60))
def test_any_text_as_a_file(tmp_path, content):
    path = tmp_path / "any.yml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    with contextlib.suppress(ConfigError):
        load(str(path), {})


@CALM
@given(
    st.dictionaries(
        st.sampled_from([f"{p}_{name}" for p in ("RIVHA", "PATRONI") for name in [*NAMES, "CONFIGURATION"]]),
        st.text(max_size=20),
        max_size=6,
    )
)
def test_any_environment(environ):
    with contextlib.suppress(ConfigError):
        load(None, environ)


@CALM
@given(st.text(alphabet="0123456789abcdef:.[]*,/ -", max_size=30))
def test_an_address_is_understood_or_refused(text):
    with contextlib.suppress(ValueError):
        host, port = split_address(text, 5432)
        assert host
        assert 0 < port < 65536
    with contextlib.suppress(ValueError):
        hosts, port = split_listen(text, 5432)
        assert split_listen(f"{','.join(hosts)}:{port}", 1) == (hosts, port)
