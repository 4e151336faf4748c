//! What names, keys, images and quantities must look like: rules with a message for our own fields, and patterns for
//! fields of Kubernetes' own types, where rules would cost the API server too much.

use kube::core::{Message, Rule};
use modelservice_contract::{CACHE_PATH, MODEL_PATH};

// Patterns stand in many places of Kubernetes' own types, so they are short (a CRD stays below 100 KB): they have the
// right characters and lengths, and leave it to the API server where in a word a dash or a dot may stand.

/// Pattern of an object's name.
pub(super) const NAME_PATTERN: &str = "^[-.a-z0-9]{1,253}$";
/// Pattern of a label's key: prefix, slash, name.
pub(super) const KEY_PATTERN: &str = "^[-._/A-Za-z0-9]{1,317}$";
/// Pattern of a label's value.
pub(super) const VALUE_PATTERN: &str = "^[-._A-Za-z0-9]{0,63}$";
/// Pattern of what a node affinity compares with: values of labels, and names of nodes, which may be longer.
pub(super) const NODE_VALUE_PATTERN: &str = "^[-._A-Za-z0-9]{0,253}$";

/// Longest value of a label.
pub(super) const MAX_VALUE_LENGTH: u32 = 63;

/// The name of a Kubernetes object.
pub(super) fn object_name(what: &str) -> Rule {
    Rule::new("!format.dns1123Subdomain().validate(self).hasValue()").message(Message::Message(format!(
        "must be the name of {what}: a-z, 0-9, '-' and '.'"
    )))
}

/// Every key of a map is a label key.
pub(super) fn label_keys() -> Rule {
    Rule::new("self.all(k, !format.qualifiedName().validate(k).hasValue())").message(
        "keys must be label keys: at most 63 of A-Z, a-z, 0-9, '-', '_' and '.', optionally after a DNS name \
         and a slash, such as example.com/team",
    )
}

/// Every key of a map is an annotation key, whose prefix may contain capitals.
pub(super) fn annotation_keys() -> Rule {
    Rule::new("self.all(k, !format.qualifiedName().validate(k.lowerAscii()).hasValue())").message(
        "keys must be annotation keys: at most 63 of A-Z, a-z, 0-9, '-', '_' and '.', optionally after a DNS \
         name and a slash, such as example.com/owner",
    )
}

/// A label's value.
pub(super) fn label_value() -> Rule {
    Rule::new("!format.labelValue().validate(self).hasValue()").message(
        "must be a label value: empty, or at most 63 of A-Z, a-z, 0-9, '-', '_' and '.', with a letter or \
         digit at both ends",
    )
}

/// Every key of a map is one of Kubernetes' own resources or an extended one.
pub(super) fn resource_names() -> Rule {
    Rule::new(
        "self.all(k, k in ['cpu', 'memory', 'ephemeral-storage'] || k.startsWith('hugepages-') || (k.contains('/') && !format.qualifiedName().validate(k).hasValue()))",
    )
    .message("keys must be cpu, memory, ephemeral-storage, hugepages-<size> or an extended resource such as nvidia.com/gpu")
}

/// Every key of a map is one of the resources that every container has.
pub(super) fn own_resource_names() -> Rule {
    Rule::new("self.all(k, k in ['cpu', 'memory', 'ephemeral-storage'])")
        .message("keys must be cpu, memory or ephemeral-storage")
}

/// The name of an extended resource. Device plug-ins must not offer resources with kubernetes.io/ in their names.
pub(super) fn extended_resource() -> Rule {
    Rule::new(
        "self.contains('/') && !self.contains('kubernetes.io/') && !self.startsWith('requests.') && !format.qualifiedName().validate(self).hasValue()",
    )
    .message("must be an extended resource such as nvidia.com/gpu; omit resource for the CPU")
}

/// A quantity of at least zero, as a string or a number.
pub(super) fn quantity() -> Rule {
    Rule::new(
        "type(self) == int ? self >= 0 : (isQuantity(self) && quantity(self).compareTo(quantity('0')) >= 0)",
    )
    .message("must be a quantity of at least zero, for example 500m, 2 or 1Gi")
}

/// An image by tag or digest.
pub(super) fn image() -> Rule {
    Rule::new(matches(&format!("{}(:{TAG})?(@{DIGEST})?", repository())))
        .message("must be an image: registry/repository:tag or registry/repository@sha256:<64 hexadecimal digits>, the repository in lower case")
}

/// An image by digest.
pub(super) fn pinned_image() -> Rule {
    Rule::new(matches(&format!("{}(:{TAG})?@{DIGEST}", repository())))
        .message("must be pinned by digest: registry/repository@sha256:<64 hexadecimal digits>, the repository in lower case; a tag can change under a running service")
}

/// A quantity of memory of at least a mebibyte.
pub(super) fn memory() -> Rule {
    Rule::new(
        "type(self) == int ? self >= 1048576 : (isQuantity(self) && quantity(self).compareTo(quantity('1Mi')) >= 0)",
    )
    .message("must be a quantity of at least 1Mi, for example 4Gi")
}

/// A file of the runtime image.
pub(super) fn library() -> Rule {
    let folders = [MODEL_PATH, CACHE_PATH].map(|folder| format!("!self.startsWith('{folder}')"));
    Rule::new(format!(
        "self.startsWith('/') && !self.contains('..') && {}",
        folders.join(" && ")
    ))
    .message("must be the absolute path of a library in the runtime image, for example /opt/provider/libprovider.so: not of a file of the model package or the cache")
}

/// `http://HOST:PORT`.
pub(super) fn collector() -> Rule {
    Rule::new(matches(&format!("http://{HOST}:[0-9]{{1,5}}"))).message(
        "must be http://HOST:PORT of a collector that accepts OTLP over gRPC without TLS, for \
            example http://collector.observability:4317",
    )
}

/// Where a model comes from: exactly one place.
pub(super) fn one_source() -> Rule {
    Rule::new("[has(self.image), has(self.uri), has(self.volumeClaim)].filter(given, given).size() == 1")
        .message("set exactly one of image, uri and volumeClaim; a merge patch keeps the old one unless it is set to null")
}

/// Stores that have other servers than their vendor's.
pub(super) fn endpoint_has_a_store() -> Rule {
    Rule::new("!has(self.endpoint) || has(self.image) || (has(self.uri) && self.uri.matches('^(s3|gs|az|hf|oci)://'))")
        .message("endpoint needs an image, or a uri with s3://, gs://, az://, hf:// or oci://; remove it")
}

/// `SCHEME://AUTHORITY/PATH`, and for the web a query: no credentials, no fragment.
pub(super) fn uri() -> Rule {
    Rule::new(r"self.matches(r'^((s3|gs|az|hf|oci)://[^/@?#\s\p{Cc}]+/[^?#\s\p{Cc}]+|https://[^/@?#\s\p{Cc}]+/[^#\s\p{Cc}]+)$')")
        .message("must be s3://BUCKET/KEY, gs://BUCKET/KEY, az://CONTAINER/KEY, https://HOST/FILE, hf://ORG/REPO@REVISION or oci://REGISTRY/REPOSITORY:TAG, without password, query (except with https) and fragment; credentials belong in spec.fetch")
}

/// Nothing that a client or a server would resolve to another path.
pub(super) fn plain_path() -> Rule {
    Rule::new(r"!self.contains(r'\') && !self.lowerAscii().contains('%2e') && !self.matches('(/[.][.]?(/|[?]|$)|[^:]//)')")
        .message("must not have '.', '..' or nothing between two slashes, '%2e' or a backslash")
}

/// What a web server has is a file, never a folder.
pub(super) fn web_file() -> Rule {
    Rule::new(
        "!self.startsWith('https://') || self.matches('^[^?]+[.](onnx|tar|tar[.]gz|tar[.]zst|zip)([?].*)?$')",
    )
    .message("with https, the path must end with .onnx, .tar, .tar.gz, .tar.zst or .zip")
}

/// The Hub's revision is always written.
pub(super) fn hub_repository() -> Rule {
    Rule::new(
        "!self.startsWith('hf://') || self.matches('^hf://[-._A-Za-z0-9]+/[-._A-Za-z0-9]+@[^/@]+(/.*)?$')",
    )
    .message("must be hf://ORG/REPO@REVISION, with a branch, tag or commit")
}

/// `http://HOST:PORT` or `https://HOST:PORT`.
pub(super) fn endpoint() -> Rule {
    Rule::new(matches(&format!("https?://{HOST}(:[0-9]{{1,5}})?"))).message(
        "must be http://HOST:PORT or https://HOST:PORT of the store, without a path, for example \
            https://minio.storage:9000",
    )
}

/// A folder below another one.
pub(super) fn relative_path() -> Rule {
    Rule::new("self.split('/').all(part, part != '' && part != '.' && part != '..')")
        .message("must be a folder of the volume, for example models/net, without '.' and '..'")
}

/// A host name, or an address as written in URLs.
const HOST: &str = "([A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?([.][A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?)*|[[][0-9A-Fa-f:.]+[]])";
const TAG: &str = "[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}";
const DIGEST: &str = "sha256:[a-f0-9]{64}";

/// Registry and repository, as <https://github.com/distribution/reference> defines them.
fn repository() -> String {
    const PART: &str = "[a-z0-9]+(([.]|_|__|-+)[a-z0-9]+)*";
    format!("({HOST}(:[0-9]{{1,5}})?/)?{PART}(/{PART})*")
}

fn matches(pattern: &str) -> String {
    format!("self.matches('^{pattern}$')")
}
