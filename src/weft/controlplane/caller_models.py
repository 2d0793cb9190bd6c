"""Which models each caller has, kept up to date as pools, Budgets, AccessPolicies and Secrets change."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from weft.controlplane.caller_identity import caller_identities
from weft.controlplane.outside import OpenedValue, SecretValue, opened_values
from weft.controlplane.translate.credentials import credential_secret
from weft.controlplane.translate.llm_clusters import key_value, provider_clusters
from weft.controlplane.translate.llm_pools import Denial, Models, key_name
from weft.controlplane.xds.snapshot import EncodedResource, encode
from weft.model.access import AccessPolicySpec, Action
from weft.model.budget import BudgetSpec
from weft.model.decision import (
    AccessPolicies,
    AccessRequest,
    AccessTarget,
    TargetKind,
    access_policies,
    concerns,
    decide,
)
from weft.model.model_pool import ModelPool, ModelPoolSpec
from weft.model.node import Node
from weft.model.resource import AnyResource
from weft.model.secret import SecretSpec

Encoded = Mapping[str, EncodedResource]

MAX_CALLERS = 4096
"""For how many callers it is kept which models they have."""

_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


@dataclass(frozen=True, slots=True)
class _Rules:
    """What decides who may use which pool."""

    policies: AccessPolicies = field(default_factory=dict)
    """Those that are about any pool."""
    labels_of: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Of all who have an identity, by SPIFFE ID; nobody where there are no such policies."""
    revoked: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class _Declared:
    """All that models are made from."""

    pools: tuple[ModelPool, ...] = ()
    budgeted: frozenset[str] = frozenset()
    keys: Mapping[str, OpenedValue] = field(default_factory=dict)
    """What goes into the header, by its name in SDS."""
    rules: _Rules = _Rules()


class CallerModels:
    """The models of every caller, by what was last given to `update`."""

    def __init__(self, trust_domain: str, secret_value: SecretValue) -> None:
        self._trust_domain = trust_domain
        self._secret_value = secret_value
        self._declared = _Declared()
        self._callers: dict[str, Models] = {}
        self._alike: dict[tuple[Denial | None, ...], Models] = {}
        """By what was decided about each pool."""
        self._clusters: dict[Models, Encoded] = {}
        self._joined: dict[Models, tuple[Encoded, Encoded]] = {}
        """What was joined, and what came of it."""
        self._secrets: dict[Models, Encoded] = {}

    def update(
        self,
        resources: Iterable[AnyResource],
        labels_of: Mapping[str, Mapping[str, str]],
        revoked: Collection[str],
    ) -> bool:
        """Take over what is declared now, and who there is; whether that changes anything for anyone."""
        declared = self._read(tuple(resources), labels_of, revoked)
        if declared == self._declared:
            return False
        self._declared = declared
        for each in (self._callers, self._alike, self._clusters, self._joined, self._secrets):
            each.clear()
        return True

    def of(self, node: Node) -> Models:
        """The models as `node` has them; the same object for all who are treated alike."""
        if node.key not in self._callers:
            while len(self._callers) >= MAX_CALLERS:
                del self._callers[next(iter(self._callers))]
            self._callers[node.key] = self._decided(node)
        return self._callers[node.key]

    def clusters(self, models: Models, others: Encoded) -> Encoded:
        """The clusters of `others`, and those of `models`; the same mapping as long as both are the same."""
        if not models.pools:
            return others
        before, joined = self._joined.get(models, (None, others))
        if before is not others:
            if models not in self._clusters:
                self._clusters[models] = {
                    each.name: encode(each.name, each)
                    for pool in models.pools
                    for each in provider_clusters(pool, models.usable)
                }
            joined = {**others, **self._clusters[models]}
            self._joined[models] = (others, joined)
        return joined

    def secrets(self, models: Models, others: Encoded) -> Encoded:
        """The values of `others`, and the keys of the providers of `models`."""
        if not models.usable:
            return others
        if models not in self._secrets:
            self._secrets[models] = {
                name: encode(name, credential_secret(name, value.text), identity=value.box.encode())
                for name, value in self._declared.keys.items()
                if name in models.usable
            }
        return {**others, **self._secrets[models]} if others else self._secrets[models]

    def _read(
        self,
        resources: tuple[AnyResource, ...],
        labels_of: Mapping[str, Mapping[str, str]],
        revoked: Collection[str],
    ) -> _Declared:
        pools = tuple(
            ModelPool(each.metadata.name, each.spec)
            for each in sorted(resources, key=lambda each: each.metadata.name)
            if isinstance(each.spec, ModelPoolSpec)
        )
        if not pools:
            return _Declared()
        policies = {name: spec for name, spec in access_policies(resources).items() if _is_about(spec, pools)}
        rules = _Rules(policies, dict(labels_of), frozenset(revoked)) if policies else _Rules()
        return _Declared(pools, _budgeted(resources, pools), self._keys(resources, pools), rules)

    def _keys(
        self, resources: Iterable[AnyResource], pools: Iterable[ModelPool]
    ) -> Mapping[str, OpenedValue]:
        wanted = {
            key_name(pool.name, each.name): (each, each.key)
            for pool in pools
            for each in pool.spec.providers
            if each.key is not None
        }
        by_secret: dict[str, set[str]] = {}
        for _, reference in wanted.values():
            by_secret.setdefault(reference.secret, set()).add(reference.key)
        secrets = [each for each in resources if isinstance(each.spec, SecretSpec)]
        opened = opened_values(
            secrets, lambda each: by_secret.get(each.metadata.name, ()), self._secret_value
        )
        found = {}
        for name, (provider, reference) in wanted.items():
            value = opened.get((reference.secret, reference.key))
            if value is not None and _HEADER_VALUE.fullmatch(value.text):
                text = key_value(provider, value.text)
                found[name] = OpenedValue(text, f"{provider.preset}\n{value.box}")
        return found

    def _decided(self, node: Node) -> Models:
        declared = self._declared
        decided = tuple(self._denial(node, pool) for pool in declared.pools)
        if decided not in self._alike:
            pairs = list(zip(declared.pools, decided, strict=True))
            pools = tuple(pool for pool, denial in pairs if denial is None)
            own = {key_name(pool.name, each.name) for pool in pools for each in pool.spec.providers}
            self._alike[decided] = Models(
                pools=pools,
                denied=tuple((pool, denial) for pool, denial in pairs if denial is not None),
                budgeted=declared.budgeted,
                usable=frozenset(own & declared.keys.keys()),
            )
        return self._alike[decided]

    def _denial(self, node: Node, pool: ModelPool) -> Denial | None:
        """Why `node` may not use `pool`; None: it may."""
        rules = self._declared.rules
        if not rules.policies:
            return None
        request = AccessRequest(Action.CALL, AccessTarget(TargetKind.POOL, pool.name))
        for identity in caller_identities(node, rules.labels_of, self._trust_domain):
            decision = decide(
                rules.policies,
                identity,
                request,
                trust_domain=self._trust_domain,
                labels=rules.labels_of.get(str(identity)),
                revoked=rules.revoked,
            )
            if not decision.allowed:
                return Denial(decision.policy, decision.reason)
        return None


def _is_about(spec: AccessPolicySpec, pools: Iterable[ModelPool]) -> bool:
    return any(concerns(spec, AccessTarget(TargetKind.POOL, each.name)) for each in pools)


def _budgeted(resources: Iterable[AnyResource], pools: Iterable[ModelPool]) -> frozenset[str]:
    """The names of pools that a Budget is about."""
    budgets = [each.spec for each in resources if isinstance(each.spec, BudgetSpec)]
    return frozenset(
        pool.name for pool in pools if any(each.pools is None or pool.name in each.pools for each in budgets)
    )
