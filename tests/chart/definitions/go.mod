// CRDs of other projects, against which the API server judges the manifests of chart and documentation that
// use them. Only their YAML is read; nothing of it is compiled.
module chart-test-definitions

go 1.26

require (
	github.com/fluxcd/helm-controller v1.4.0
	github.com/fluxcd/kustomize-controller v1.9.6
	github.com/kedacore/keda/v2 v2.21.0
	github.com/prometheus-operator/prometheus-operator v0.85.0
	sigs.k8s.io/gateway-api v1.6.1
)
