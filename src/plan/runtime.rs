//! The operator's own runtime. Data only.

/// What new revisions run unless their AcceleratorClass says otherwise.
#[derive(Clone, Debug)]
pub struct DefaultRuntime {
    /// Image of the inference server, and of what fetches models.
    pub image: String,
    /// Version of the operator, which is also the version of its runtime.
    pub version: String,
}
