//go:build tools

// Package assets names what make kubernetes-assets builds, so that go.mod keeps it.
package assets

import _ "k8s.io/kubernetes/cmd/kube-apiserver"
