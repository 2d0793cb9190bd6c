//go:build tools

// Package assets names what make helm builds where it builds Helm, so that go.mod keeps it.
package assets

import _ "helm.sh/helm/v4/cmd/helm"
