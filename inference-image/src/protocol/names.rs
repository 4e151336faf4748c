//! What the server calls itself and its models in the protocols.

/// The server's name in the protocols: Triton's own clients check it literally. `/report` and `/openapi.json` have the
/// real one.
pub(crate) const NAME: &str = "triton";
/// Supported extensions of the Open Inference Protocol, by Triton's names. `model_repository` is missing, since it
/// promises loading and unloading; its index is available anyway.
pub(crate) const EXTENSIONS: [&str; 4] = [
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "statistics",
];
/// The engine, in the terms of the protocol.
pub(crate) const PLATFORM: &str = "onnx_onnxv1";
/// A model has only one version: another version is another ModelService.
pub(crate) const MODEL_VERSION: &str = "1";
/// The service of the Open Inference Protocol over gRPC.
pub(crate) const GRPC_SERVICE: &str = "inference.GRPCInferenceService";
