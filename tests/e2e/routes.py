"""The Route of the crew's workers: a rule for everything a rule can do, told apart by path."""

from __future__ import annotations

ROUTES = """
apiVersion: weft.dev/v1alpha1
kind: Route
metadata: {name: worker}
spec:
  destination: {type: worker}
  rules:
  - match:
    - {path: {exact: /match/exact}}
    - {path: {regex: "/match/v[0-9]+"}}
    - {path: {prefix: /match/method}, method: PUT}
    - path: {prefix: /match/header}
      headers: [{name: x-canary, exact: "yes"}]
    - path: {prefix: /match/header}
      headers: [{name: x-user, prefix: test-}, {name: x-debug, present: true}]
    split: [{version: "2", weight: 1}]
  - match: [{path: {prefix: /split}}]
    split: [{version: "1", weight: 80}, {version: "2", weight: 20}]
  - match: [{path: {prefix: /to-shadow}}]
    split: [{type: shadow, weight: 1}, {version: "1", weight: 0}]
  - match: [{path: {prefix: /mirror}}]
    mirror: {type: shadow}
  - match: [{path: {prefix: /headers}}]
    requestHeaders: {set: {x-model: "100% small"}, add: {x-tag: second}, remove: [x-secret]}
    responseHeaders: {set: {x-served-by: weft}, remove: [x-internal]}
  - match: [{path: {prefix: /abort}}]
    fault: {abort: {status: 418}}
  - match: [{path: {prefix: /half}}]
    fault: {abort: {status: 503, percent: 50}}
  - match: [{path: {prefix: /delay}}]
    fault: {delay: {duration: 700ms}}
  - match: [{path: {prefix: /slow}}]
    timeout: 300ms
"""
