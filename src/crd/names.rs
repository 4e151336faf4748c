//! Names, labels and annotations that are part of the API.

use modelservice_contract::MODEL_PATH;

/// API group of both kinds.
pub const GROUP: &str = "serving.modelservice.dev";
/// Field manager of everything the operator applies.
pub const FIELD_MANAGER: &str = "modelservice-operator";
/// Second field manager: holds a Deployment's `spec.replicas` while the field passes between us and the autoscaler.
pub const SCALE_FIELD_MANAGER: &str = "modelservice-operator-scale";

/// Label of every child: the name of its `ModelService`. Immutable; part of selectors.
pub const SERVICE_LABEL: &str = "serving.modelservice.dev/service";
/// Label of a revision's Deployment and pods: the revision's hash. Immutable; part of selectors.
pub const REVISION_LABEL: &str = "serving.modelservice.dev/revision";
/// Label of a Deployment and its pods if the revision names several AcceleratorClasses: the class that this one is for.
/// Immutable; part of selectors.
pub const PLACEMENT_LABEL: &str = "serving.modelservice.dev/placement";
/// Label that says what a pod is for; its value for servers is [`SERVER`].
pub const COMPONENT_LABEL: &str = "app.kubernetes.io/component";
/// Value of [`COMPONENT_LABEL`] of servers' pods, which no other pod of a service has.
pub const SERVER: &str = "server";
/// Value of [`COMPONENT_LABEL`] of pods that find out which version of a model a new revision gets.
pub const RESOLVER: &str = "resolver";
/// Label of such a pod: the revision. Not [`REVISION_LABEL`], because selectors of servers have that one.
pub const RESOLVES_LABEL: &str = "serving.modelservice.dev/resolves";
/// Label of such a pod: how many there have been for its revision, itself included.
pub const ATTEMPT_LABEL: &str = "serving.modelservice.dev/attempt";

/// `"true"` on a `ModelService`: nothing is reconciled until it is removed.
pub const PAUSED_ANNOTATION: &str = "serving.modelservice.dev/paused";
/// On a Deployment: the revision's frozen pod template, as canonical JSON.
pub const TEMPLATE_ANNOTATION: &str = "serving.modelservice.dev/pod-template";
/// On a Deployment whose pods get devices by DRA: the revision's frozen ResourceClaimTemplate, as canonical JSON.
pub const CLAIM_ANNOTATION: &str = "serving.modelservice.dev/claim-template";
/// On every child: hash of what was last applied, to notice fields that are no longer wanted.
pub const APPLIED_ANNOTATION: &str = "serving.modelservice.dev/applied";
/// `"fixed"` on a Deployment while we own its `spec.replicas`; absent while the autoscaler does.
pub const REPLICAS_ANNOTATION: &str = "serving.modelservice.dev/replicas";
/// On a Deployment: since when (RFC 3339) its revision gives way to the one that serves, or `"tried"`; see
/// src/plan/room.rs.
pub const GIVES_WAY_ANNOTATION: &str = "serving.modelservice.dev/gives-way";
/// On a Deployment: number of the revision, which increases by one with each new revision.
pub const REVISION_NUMBER_ANNOTATION: &str = "serving.modelservice.dev/revision-number";
/// On the Service: when the traffic moved to its revision (RFC 3339), which is when the old one starts to drain.
pub const SWITCHED_ANNOTATION: &str = "serving.modelservice.dev/switched-at";
/// On a Deployment: the name of the AcceleratorClass that its template was created with.
pub const CLASS_ANNOTATION: &str = "serving.modelservice.dev/accelerator-class";
/// On a Deployment: version of the operator that created its template.
pub const RUNTIME_VERSION_ANNOTATION: &str = "serving.modelservice.dev/runtime-version";
/// On a placement's Deployment: the classes that come after its own, and their frozen templates, as canonical JSON.
pub const FALLBACKS_ANNOTATION: &str = "serving.modelservice.dev/fallbacks";
/// On a placement's Deployment: when a pod of it was first seen to be scheduled (RFC 3339).
pub const PLACED_ANNOTATION: &str = "serving.modelservice.dev/first-scheduled";
/// On a placement's Deployment: since when (RFC 3339) its pods have been waiting for the device of its class.
pub const WAITING_ANNOTATION: &str = "serving.modelservice.dev/waiting-for-device";
/// On the Service during a rolling update: the revision that it replaces, a space, and the number of servers of both.
pub const ROLLING_ANNOTATION: &str = "serving.modelservice.dev/rolling";
/// On a Deployment: when (RFC 3339) the first server of its revision gave its device back in a rolling update.
pub const GAVE_BACK_ANNOTATION: &str = "serving.modelservice.dev/gave-back";
/// On a Deployment: when (RFC 3339) a pod of it was last deleted because its device was lost, when the first one of
/// those that followed each other was, and the pause in seconds before one that takes the place of another.
pub const LOST_ANNOTATION: &str = "serving.modelservice.dev/device-lost";

/// Name of the server's container in its pod. Every other container was injected by somebody else.
pub const SERVER_CONTAINER: &str = "server";

/// Name of the init container that fetches the model.
pub const FETCH_CONTAINER: &str = "fetch";
/// Name of the init container that checks the signature of a model that is mounted.
pub const VERIFY_CONTAINER: &str = "verify";
/// Name of the container that finds out which version of a model a new revision gets.
pub const RESOLVE_CONTAINER: &str = "resolve";
/// The program of these three, in the operator's runtime image.
pub const FETCH_PROGRAM: &str = "/usr/bin/modelservice-fetch";
/// Its arguments to fetch a model; to find or verify one, it is told so by the container's name.
pub const FETCH_ARGUMENTS: [&str; 3] = ["fetch", "--into", MODEL_PATH];

/// Name of a pod's claim of devices, and of the only request in it.
pub const DEVICE_CLAIM: &str = "device";

/// Longest name of a `ModelService`: a child's name is `<name>-<10 characters>` and must stay a DNS label.
pub const MAX_NAME_LENGTH: usize = 52;
