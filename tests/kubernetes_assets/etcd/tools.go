//go:build tools

// Package assets names what make kubernetes-assets builds, so that go.mod keeps it.
package assets

import _ "go.etcd.io/etcd/server/v3"
