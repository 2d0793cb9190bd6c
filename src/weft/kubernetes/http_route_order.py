"""Rules of HTTPRoutes in the order in which a mesh has to try them. Pure.

The Gateway API takes the most specific match, wherever it stands; a Route of a mesh takes the first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, groupby
from typing import Final

from weft.kubernetes.http_route_rules import TranslatedRule
from weft.model.route import AbortFault, Fault, RequestMatch, RouteRule, RouteSpec
from weft.model.target import Target

MAX_MATCHES: Final = 32
"""Of one rule of a Route."""

NO_RULE: Final = "no-rule-matches"
NO_RULE_STATUS: Final = 404
"""What calls are answered with that match no rule: the Gateway API says so."""

_ANY: Final = RequestMatch()


def merged_route(agent_type: str, http_routes: Iterable[Iterable[TranslatedRule]]) -> RouteSpec:
    """The Route of a type that HTTPRoutes make together, each of them given by its rules, the oldest first.

    Raises pydantic's ValidationError if a Route cannot have that many rules.
    """
    return RouteSpec(destination=Target(type=agent_type), rules=tuple(_rules([*chain(*http_routes)])))


def _rules(rules: Sequence[TranslatedRule]) -> Iterator[RouteRule]:
    ranked = [(match, number) for number, rule in enumerate(rules) for match in rule.matches]
    # What is as specific stays in its order: by HTTPRoute, rule, match.
    ranked.sort(key=lambda each: each[0].rank)
    for number, matches in groupby(ranked, key=lambda each: each[1]):
        requests = [*chain.from_iterable(match.requests for match, _ in matches)]
        if _ANY in requests:
            yield rules[number].rule
            return
        for start in range(0, len(requests), MAX_MATCHES):
            some = tuple(requests[start : start + MAX_MATCHES])
            yield rules[number].rule.model_copy(update={"match": some})
    yield RouteRule(name=NO_RULE, fault=Fault(abort=AbortFault(status=NO_RULE_STATUS)))
