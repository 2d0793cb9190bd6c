"""API keys, the preferences of requests, and limits of rates: the parts of a gateway without I/O."""

from __future__ import annotations

import pytest

from weft.errors import InvalidRequest
from weft.gateway.preferences import wait_preferred
from weft.gateway.rate_limit import RateLimits
from weft.model.api_key import ApiKey, ApiKeyCodec, api_key_hash, is_api_key, new_api_key
from weft.model.gateway import Rate


def _record(**members: object) -> ApiKey:
    return ApiKey.model_validate({"name": "ci", "sha256": "0" * 64, "created_at": 1.0, **members})


def test_keys_are_told_apart_from_other_texts_and_never_alike() -> None:
    key = new_api_key("build-farm")
    assert is_api_key(key)
    assert key.startswith("wk_build-farm_")
    assert new_api_key("build-farm") != key
    for other in ("", key + "x", key[:-1], key.replace("wk_", "sk_"), key + "\n", "wk_a_b"):
        assert not is_api_key(other)
        with pytest.raises(InvalidRequest):
            api_key_hash(other)
    with pytest.raises(InvalidRequest):
        new_api_key("Build Farm")


def test_a_record_reads_as_it_was_written_and_one_with_a_restriction_unknown_here_is_not_taken() -> None:
    record = _record(queues=("a",), rate=Rate(requests=5, per=60), expires_at=9.5, sees_all=True)
    codec = ApiKeyCodec()
    assert codec.decode(codec.encode(record)) == record
    assert ApiKey.from_json(_record().to_json()) == _record()
    for garbage in (b"", b"[]", b'{"name": "ci"}', _record().to_json()[:-1] + b',"networks":["10.0.0.0/8"]}'):
        with pytest.raises(ValueError, match="not the record"):
            codec.decode(garbage)


@pytest.mark.parametrize(
    ("values", "wait"),
    [
        ([], None),
        (["respond-async"], None),
        (["wait=10"], 10),
        (["respond-async, wait=10"], 10),
        (["Wait=10", "wait=20"], 10),
        (['wait="7"; x=y'], 7),
        (["handling=lenient ; a=b,wait = 3"], 3),
        (["wait"], None),
        (["wait=-1"], None),
        (["wait=1.5"], None),
        (["wait=\u0661"], None),
        (["wait=99999999999999999999"], None),
        ([";;=,,"], None),
    ],
)
def test_a_wait_is_read_out_of_preferences(values: list[str], wait: int | None) -> None:
    assert wait_preferred(values) == wait


def test_a_rate_is_granted_evenly_over_time_and_to_each_caller_for_itself() -> None:
    now = 0.0
    limits = RateLimits(lambda: 1, clock=lambda: now)
    rate = Rate(requests=10, per=60)
    assert [limits.take("a", rate).granted for _ in range(11)] == [True] * 10 + [False]
    assert limits.take("b", rate).granted
    wait = limits.take("a", rate).wait
    assert wait == pytest.approx(6)
    now += wait
    assert limits.take("a", rate).granted
    assert not limits.take("a", rate).granted
    now += 3600
    assert sum(limits.take("a", rate).granted for _ in range(50)) == 10


def test_instances_share_a_rate_and_each_grants_something() -> None:
    now = 0.0
    rate = Rate(requests=9, per=10)
    third = RateLimits(lambda: 3, clock=lambda: now)
    assert sum(third.take("a", rate).granted for _ in range(20)) == 3
    many = RateLimits(lambda: 100, clock=lambda: now)
    assert sum(many.take("a", rate).granted for _ in range(20)) == 1
    quota = many.take("a", rate)
    assert quota.headers == {"ratelimit-policy": '"default";q=9;w=10', "ratelimit": '"default";r=0;t=112'}
