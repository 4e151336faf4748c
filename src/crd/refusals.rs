//! Refusals: pod settings that an editor of ModelServices must not use, because they would run code other than the
//! runtime image's, reach devices or Secrets, or weaken the pods' security. docs/security.md lists the same.

use kube::core::Rule;
use modelservice_contract::{LOADER_NAMES, LOADER_PREFIXES, is_loader_variable};

/// Variables that the operator itself sets.
const OURS: &str = "MODELSERVICE_";
/// Prefixes of variables that name libraries for the drivers and tools of devices, or devices themselves.
const DEVICE_PREFIXES: &[&str] = &[
    "ASCEND_",
    "HSA_TOOLS_",
    "NVIDIA_",
    "OCL_ICD_",
    "OMP_TOOL",
    "OPENSSL_",
    "ROCP",
    "VK_",
];
/// The same, as full names.
const DEVICE_NAMES: &[&str] = &[
    "ADSP_LIBRARY_PATH",
    "CUDA_INJECTION32_PATH",
    "CUDA_INJECTION64_PATH",
    "NVTX_INJECTION32_PATH",
    "NVTX_INJECTION64_PATH",
    "TPU_LIBRARY_PATH",
    "ZE_ENABLE_ALT_DRIVERS",
];
/// Suffix of variables with which container runtimes give devices to a container.
const DEVICES: &str = "_VISIBLE_DEVICES";
/// Prefixes of variables whose values the server may repeat in its log, its termination message or its traces.
const REPEATED: &str = "^(LOG_|OTEL_)";

/// Prefixes of annotations with which the kubelet and container runtimes change how a pod is confined.
const ANNOTATION_PREFIXES: &[&str] = &[
    "cdi.k8s.io/",
    "dev.gvisor.",
    "io.containerd.",
    "io.katacontainers.",
    "io.kubernetes.cri",
    "org.systemd.property.",
    "run.oci.",
];
/// The same, anywhere in the key.
const ANNOTATION_PARTS: &[&str] = &[
    ".cri-o.io",
    ".crio.io",
    ".noderesource.dev",
    ".nri.containerd.io",
    ".nri.io",
    "security.alpha.kubernetes.io",
    "security.beta.kubernetes.io",
];

/// Whether `spec.pod.env` may not set this variable.
#[must_use]
pub fn is_refused_variable(name: &str) -> bool {
    name.starts_with(OURS)
        || is_loader_variable(name)
        || DEVICE_NAMES.contains(&name)
        || DEVICE_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        || name.ends_with(DEVICES)
}

/// Whether an AcceleratorClass may not set this variable either: the launcher of the runtime image would remove it.
#[must_use]
pub fn is_refused_class_variable(name: &str) -> bool {
    name.starts_with(OURS) || is_loader_variable(name)
}

/// Whether `spec.pod.annotations` may not have this key.
#[must_use]
pub fn is_refused_annotation(key: &str) -> bool {
    ANNOTATION_PREFIXES.iter().any(|prefix| key.starts_with(prefix))
        || ANNOTATION_PARTS.iter().any(|part| key.contains(part))
}

/// Rules for one variable.
pub(super) fn variable() -> [Rule; 3] {
    let prefixes = [LOADER_PREFIXES, DEVICE_PREFIXES].concat().join("|");
    let names = [LOADER_NAMES, DEVICE_NAMES].concat().join("|");
    [
        Rule::new(format!("!self.name.startsWith('{OURS}') && self.name != 'ORT_DYLIB_PATH'"))
            .message("environment variables MODELSERVICE_… and ORT_DYLIB_PATH are set by the operator and the runtime image"),
        Rule::new(format!("!self.name.matches('^(({prefixes}).*|{names}|.*{DEVICES})$')"))
            .message("this environment variable is refused: it can make the server load a library, or give it devices. Libraries belong to the runtime image, devices to the AcceleratorClass"),
        Rule::new(format!(
            "!has(self.valueFrom) || has(self.valueFrom.fieldRef) || has(self.valueFrom.resourceFieldRef) || !self.name.matches('{REPEATED}')"
        ))
        .message("LOG_… and OTEL_… must not take a value from a Secret or ConfigMap: the server may repeat \
            it in its log, its status or its traces"),
    ]
}

/// Rule for the name of a variable of an AcceleratorClass.
pub(super) fn class_variable() -> Rule {
    let prefixes = [&[OURS], LOADER_PREFIXES].concat().join("|");
    let names = LOADER_NAMES.join("|");
    Rule::new(format!("!self.matches('^(({prefixes}).*|{names})$')")).message(
        "variables MODELSERVICE_… are set by the operator, and those that the loader, the C library or ONNX Runtime \
         obey have no effect: libraries and their settings belong to the runtime image",
    )
}

/// Rule for all variables together.
pub(super) fn variables() -> Rule {
    Rule::new(format!(
        "!self.exists(e, has(e.value) && e.value.contains('$(') && e.name.matches('{REPEATED}')) || self.all(e, !has(e.valueFrom) || has(e.valueFrom.fieldRef) || has(e.valueFrom.resourceFieldRef))"
    ))
    .message("LOG_… and OTEL_… must not refer to other variables by $(…) if any variable takes its value \
        from a Secret or ConfigMap: the server may repeat it in its log, its status or its traces")
}

/// Rule for all annotations.
pub(super) fn annotations() -> Rule {
    let list = |texts: &[&str]| {
        texts
            .iter()
            .map(|text| format!("'{text}'"))
            .collect::<Vec<_>>()
            .join(", ")
    };
    Rule::new(format!(
        "self.all(k, ![{}].exists(p, k.startsWith(p)) && ![{}].exists(p, k.contains(p)))",
        list(ANNOTATION_PREFIXES),
        list(ANNOTATION_PARTS)
    ))
    .message("annotations that change how the kubelet or the container runtime confines a pod (AppArmor, seccomp, devices, the sandbox) are refused: the operator confines servers, and the AcceleratorClass gives them devices")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rules of the CRD say the same: tests/apiserver/admission.rs.
    #[test]
    fn what_runs_other_code_or_weakens_a_pod_is_refused() {
        for name in [
            "MODELSERVICE_CONFIG",
            "LD_PRELOAD",
            "ORT_DYLIB_PATH",
            "OMP_TOOL_LIBRARIES",
            "CUDA_INJECTION64_PATH",
            "NVIDIA_DRIVER_CAPABILITIES",
            "AMD_VISIBLE_DEVICES",
        ] {
            assert!(is_refused_variable(name), "{name}");
        }
        for name in [
            "TZ",
            "OMP_NUM_THREADS",
            "CUDA_CACHE_DISABLE",
            "OTEL_RESOURCE_ATTRIBUTES",
        ] {
            assert!(!is_refused_variable(name), "{name}");
        }
        for name in ["MODELSERVICE_CONFIG", "LD_LIBRARY_PATH", "ORT_DYLIB_PATH"] {
            assert!(is_refused_class_variable(name), "{name}");
        }
        assert!(!is_refused_class_variable("NVIDIA_VISIBLE_DEVICES"));
        for key in [
            "container.apparmor.security.beta.kubernetes.io/server",
            "seccomp.security.alpha.kubernetes.io/pod",
            "cdi.k8s.io/gpu",
            "devices.nri.io/container.server",
            "io.kubernetes.cri-o.Devices",
            "seccomp-profile.kubernetes.cri-o.io/server",
        ] {
            assert!(is_refused_annotation(key), "{key}");
        }
        for key in [
            "prometheus.io/scrape",
            "sidecar.istio.io/inject",
            "example.com/owner",
        ] {
            assert!(!is_refused_annotation(key), "{key}");
        }
    }
}
