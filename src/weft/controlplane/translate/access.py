"""AccessPolicies as Envoy enforces them: RBAC filters on the listener of the agent that is called.

They come to what `weft.model.decision` says: one filter for identities that were revoked, one for the
policies that deny, one for those that allow where the mesh-wide default is to deny. The listener has them
without rules; these come with the routes, and only those that concern the agent. Where rules depend on
bodies, the routes of their paths turn on the filters that read these.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from envoy.config.rbac.v3 import rbac_pb2 as rules_pb2
from envoy.config.rbac.v3.rbac_pb2 import Permission, Policy
from envoy.config.rbac.v3.rbac_pb2 import Principal as Identity
from envoy.config.route.v3.route_components_pb2 import RouteMatch
from envoy.config.route.v3.route_pb2 import RouteConfiguration
from envoy.extensions.filters.http.rbac.v3.rbac_pb2 import RBAC, RBACPerRoute
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
)
from envoy.type.matcher.v3.string_pb2 import StringMatcher

from weft.controlplane.translate.bodies import add_body_filters, read_bodies, says, unambiguous, unreadable
from weft.controlplane.translate.denied import DEFAULT_KEY, ROUTE_METADATA
from weft.controlplane.translate.replies import CALLER_HEADER
from weft.model.a2a_methods import A2A_METHODS, HttpForm
from weft.model.access import (
    TOOLS_CALL,
    A2aMatch,
    AccessPolicySpec,
    AccessRule,
    Action,
    Effect,
    McpMatch,
    Mode,
    Principal,
)
from weft.model.decision import (
    AMBIGUOUS,
    REVOKED,
    AccessPolicies,
    AccessTarget,
    TargetKind,
    concerns,
    default_of,
    is_principal,
)
from weft.model.node import Inbound
from weft.model.request_path import AMBIGUOUS_PATHS
from weft.model.spiffe import DEFAULT_TRUST_DOMAIN, SCHEME, Role, parse_spiffe_id

REVOKED_FILTER = "weft.access.revoked"
DENY_FILTER = "weft.access.deny"
ALLOW_FILTER = "weft.access.allow"

DEFAULT_SHADOW_PREFIX = "default_"
"""Begins the metadata (in `envoy.filters.http.rbac`) in which a mesh-wide default on trial leaves its result.

`default_shadow_engine_result` is `denied` where it would have denied. What policies on trial would have
denied is in `shadow_engine_result` and `shadow_effective_policy_id`, without a prefix.
"""


@dataclass(frozen=True, slots=True)
class Access:
    """What all listeners' filters are made from."""

    policies: AccessPolicies = field(default_factory=dict)
    trust_domain: str = DEFAULT_TRUST_DOMAIN
    """The mesh's own."""
    labels_of: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """The labels that the authority attested, by SPIFFE ID."""
    revoked: frozenset[str] = frozenset()
    """SPIFFE IDs that count no more."""


NO_ACCESS_RULES = Access()
"""Without policies, whoever has an identity may call everybody."""


def add_access_filters(manager: HttpConnectionManager) -> None:
    """Have `manager` enforce what its routes say of access. Call it before its router is added."""
    add_body_filters(manager)
    for name, config in (
        (REVOKED_FILTER, RBAC()),
        (DENY_FILTER, RBAC()),
        (ALLOW_FILTER, RBAC(shadow_rules_stat_prefix=DEFAULT_SHADOW_PREFIX)),
    ):
        manager.http_filters.add(name=name).typed_config.Pack(config)


def called(inbound: Inbound) -> AccessTarget:
    """The agent behind an inbound listener, as policies see it."""
    return AccessTarget(TargetKind.AGENT, inbound.type, inbound.version, inbound.capabilities)


def restrict(routes: RouteConfiguration, agent: AccessTarget, access: Access) -> None:
    """Have `routes`, which lead to `agent`, say who may use them."""
    own = about_calls(agent, access.policies)
    if default := default_of(own)[0]:
        for host in routes.virtual_hosts:
            for route in host.routes:
                route.metadata.filter_metadata[ROUTE_METADATA].update({DEFAULT_KEY: default})
    reading = [rule for spec in own.values() for rule in spec.rules if rule.reads_bodies]
    if reading:
        read_bodies(routes, _post_routes(reading))
    for name, config in _filters(own, access):
        routes.typed_per_filter_config[name].Pack(RBACPerRoute(rbac=config))


def about_calls(agent: AccessTarget, policies: AccessPolicies) -> AccessPolicies:
    """The policies about calls of `agent`, each with its rules about calls only."""
    own = {}
    for name, spec in sorted(policies.items()):
        rules = tuple(rule for rule in spec.rules if not rule.actions or Action.CALL in rule.actions)
        if concerns(spec, agent) and bool(rules) == bool(spec.rules):
            own[name] = spec.model_copy(update={"rules": rules})
    return own


def _filters(own: AccessPolicies, access: Access) -> Iterator[tuple[str, RBAC]]:
    if access.revoked:
        identities = [_exactly(each) for each in sorted(access.revoked)]
        rules = _rules(rules_pb2.RBAC.DENY, {REVOKED: Policy(permissions=[ANYTHING], principals=identities)})
        yield REVOKED_FILTER, RBAC(rules=rules)
    enforced, on_trial = _of_mode(own, Mode.ENFORCE), _of_mode(own, Mode.DRY_RUN)
    denying = _policies(enforced, Effect.DENY, access)
    if ambiguous := ambiguous_paths(enforced):
        denying[AMBIGUOUS] = Policy(permissions=ambiguous, principals=[ANYONE])
    denying_on_trial = _policies(on_trial, Effect.DENY, access)
    if denying or denying_on_trial:
        yield DENY_FILTER, _filter(rules_pb2.RBAC.DENY, denying, denying_on_trial)
    yield from _allow_filter(own, enforced, access)


def _allow_filter(
    own: AccessPolicies, enforced: AccessPolicies, access: Access
) -> Iterator[tuple[str, RBAC]]:
    """Nothing if everything is allowed by default, and no other default is on trial."""
    if default_of(own)[1] is Effect.ALLOW:
        return
    allowing, everything = (_policies(each, Effect.ALLOW, access) for each in (enforced, own))
    config = RBAC(shadow_rules_stat_prefix=DEFAULT_SHADOW_PREFIX)
    denies = default_of(enforced)[1] is Effect.DENY
    if denies:
        config.rules.CopyFrom(_rules(rules_pb2.RBAC.ALLOW, allowing))
    if not denies or everything.keys() != allowing.keys():
        config.shadow_rules.CopyFrom(_rules(rules_pb2.RBAC.ALLOW, everything))
    yield ALLOW_FILTER, config


def _of_mode(policies: AccessPolicies, mode: Mode) -> AccessPolicies:
    return {name: spec for name, spec in policies.items() if spec.mode is mode}


def _policies(policies: AccessPolicies, effect: Effect, access: Access) -> dict[str, Policy]:
    """The policies of one effect, but for those that are about nobody there is."""
    found = {}
    for name, spec in policies.items():
        if spec.effect is effect and (identities := _identities(spec, access)):
            found[name] = Policy(permissions=permissions_of(spec), principals=identities)
    return found


def _filter(
    action: rules_pb2.RBAC.Action, enforced: Mapping[str, Policy], on_trial: Mapping[str, Policy]
) -> RBAC:
    config = RBAC()
    if enforced:
        config.rules.CopyFrom(_rules(action, enforced))
    if on_trial:
        config.shadow_rules.CopyFrom(_rules(action, on_trial))
    return config


def _rules(action: rules_pb2.RBAC.Action, policies: Mapping[str, Policy]) -> rules_pb2.RBAC:
    return rules_pb2.RBAC(action=action, policies=policies)


# Who

ANYONE = Identity(any=True)
"""Whoever calls."""


def _identities(spec: AccessPolicySpec, access: Access) -> list[Identity]:
    """Whom a policy is about; empty: nobody there is."""
    if not spec.callers:
        # Allowing anyone is not allowing those who have not said who they are.
        return [ANYONE if spec.effect is Effect.DENY else Identity(authenticated=Identity.Authenticated())]
    return [identity for each in spec.callers for identity in _identity(each, access)]


def _identity(principal: Principal, access: Access) -> Iterator[Identity]:
    domain = f"{SCHEME}{principal.trust_domain or access.trust_domain}/"
    if principal.labels:
        for name, labels in sorted(access.labels_of.items()):
            if is_principal(principal, parse_spiffe_id(name), labels, access.trust_domain):
                yield _exactly(name)
    elif principal.instance is not None:
        yield _exactly(f"{domain}{Role.AGENT}/{principal.instance}")
    elif principal.type is not None:
        yield _beginning(f"{domain}{Role.AGENT}/{principal.type}/")
    elif principal.operator is not None:
        yield _beginning(f"{domain}{Role.OPERATOR}/{principal.operator}/")
    else:
        yield _beginning(domain)


def _exactly(name: str) -> Identity:
    return _known_as(StringMatcher(exact=name))


def _beginning(prefix: str) -> Identity:
    """`prefix` ends in a slash, so that it is no other name's beginning."""
    return _known_as(StringMatcher(prefix=prefix))


def _known_as(name: StringMatcher) -> Identity:
    """Whose SPIFFE ID is like `name`.

    Envoy takes ten times as long to look into the certificate as at the header, which it made from it before
    (and from nothing else): so it looks there first, and with many policies that is all it does.
    """
    identity = Identity()
    header, certificate = identity.and_ids.ids.add(), identity.and_ids.ids.add()
    header.header.name = CALLER_HEADER
    header.header.string_match.CopyFrom(name)
    certificate.authenticated.principal_name.CopyFrom(name)
    return identity


# What

ANYTHING = Permission(any=True)
"""Every call."""


def permissions_of(spec: AccessPolicySpec) -> list[Permission]:
    """Which calls a policy is about: any of these."""
    denies = spec.effect is Effect.DENY
    return [_permission(rule, denies=denies) for rule in spec.rules] or [ANYTHING]


def _permission(rule: AccessRule, *, denies: bool) -> Permission:
    parts = []
    if rule.methods:
        parts.append(any_of(_method(each, ignore_case=denies) for each in rule.methods))
    if rule.paths:
        parts.append(any_of(form for each in rule.paths for form in _path(each, denies=denies)))
    if rule.mcp is not None:
        parts.append(_mcp(rule.mcp, denies=denies))
    if rule.a2a is not None:
        parts.append(_a2a(rule.a2a, denies=denies))
    return _all(parts)


def _all(permissions: Iterable[Permission]) -> Permission:
    rules = list(permissions) or [ANYTHING]
    return rules[0] if len(rules) == 1 else Permission(and_rules=Permission.Set(rules=rules))


def any_of(permissions: Iterable[Permission]) -> Permission:
    """What one of `permissions`, of which there is at least one, holds for."""
    rules = list(permissions)
    return rules[0] if len(rules) == 1 else Permission(or_rules=Permission.Set(rules=rules))


def negated(permission: Permission) -> Permission:
    """What `permission` does not hold for."""
    return Permission(not_rule=permission)


def _method(method: str, *, ignore_case: bool) -> Permission:
    permission = Permission()
    permission.header.name = ":method"
    permission.header.string_match.exact = method
    permission.header.string_match.ignore_case = ignore_case
    return permission


def _path(path: str, *, denies: bool) -> Iterator[Permission]:
    for exact in _exact_paths(path, denies=denies):
        permission = Permission()
        permission.url_path.path.exact = exact
        permission.url_path.path.ignore_case = denies
        yield permission
    if path.endswith("*"):
        permission = Permission()
        permission.url_path.path.prefix = path[:-1]
        permission.url_path.path.ignore_case = denies
        yield permission


def ambiguous_paths(policies: AccessPolicies) -> list[Permission]:
    """The calls that nobody may make while any of `policies` depends on paths; none where none does."""
    if not any(rule.reads_paths for spec in policies.values() for rule in spec.rules):
        return []
    return [_path_regex(each) for each in AMBIGUOUS_PATHS]


def _exact_paths(path: str, *, denies: bool) -> list[str]:
    """The whole paths that `path` means. Many agents do not care for a slash at the end."""
    if not path.endswith("*"):
        return sorted({path, path.rstrip("/") or "/", path.rstrip("/") + "/"}) if denies else [path]
    bare = path[:-1].rstrip("/")
    return [bare] if denies and bare and path.endswith("/*") else []


def _path_regex(pattern: str, *, ignore_case: bool = False) -> Permission:
    permission = Permission()
    # RE2's dot matches no line feed, but no path has one.
    permission.url_path.path.safe_regex.regex = f"(?i){pattern}" if ignore_case else pattern
    return permission


def _mcp(match: McpMatch, *, denies: bool) -> Permission:
    methods = match.methods or (TOOLS_CALL,)
    forms = [says("method", each) for each in methods if each != TOOLS_CALL or not match.tools]
    if match.tools:
        tool = any_of(says("name", each) for each in match.tools)
        forms.append(_all([says("method", TOOLS_CALL), tool]))
    if denies:
        return _all([_post(denies=True), any_of([*forms, unreadable()])])
    return _all([_post(denies=False), any_of(forms), unambiguous()])


def _a2a(match: A2aMatch, *, denies: bool) -> Permission:
    methods = [A2A_METHODS[each] for each in match.methods]
    posted = [says("method", name) for each in methods for name in each.rpc_names]
    if denies:
        every = any_of(_form(form, ignore_case=False) for each in A2A_METHODS.values() for form in each.http)
        posted.append(_all([unreadable(), negated(every)]))
    body = [any_of(posted)] if denies else [any_of(posted), unambiguous()]
    return any_of(
        [
            *(_form(form, ignore_case=denies) for each in methods for form in each.http),
            _all([_post(denies=denies), *body]),
        ]
    )


def _form(form: HttpForm, *, ignore_case: bool) -> Permission:
    parts = [
        any_of(_method(each, ignore_case=ignore_case) for each in form.methods),
        _path_regex(form.pattern, ignore_case=ignore_case),
    ]
    if form.unless:
        parts.append(negated(_path_regex(form.unless, ignore_case=ignore_case)))
    return _all(parts)


def _post(*, denies: bool) -> Permission:
    return _method("POST", ignore_case=denies)


def _post_routes(rules: Iterable[AccessRule]) -> Iterator[RouteMatch]:
    """The POSTs that `rules` are about."""
    paths = {path for rule in rules for path in rule.paths or ("/*",)}
    for path in sorted({"/*"} if "/*" in paths else paths):
        matches = [RouteMatch(path=exact) for exact in _exact_paths(path, denies=True)]
        if path.endswith("*"):
            matches.append(RouteMatch(prefix=path[:-1]))
        for match in matches:
            match.case_sensitive.value = False
            method = match.headers.add(name=":method")
            method.string_match.exact = "POST"
            method.string_match.ignore_case = True
            yield match
