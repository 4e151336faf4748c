//! What the server calls itself and its models in the protocols.

/// The server's name in the protocols.
pub(crate) const NAME: &str = "modelservice-server";
/// Supported extensions of the Open Inference Protocol, by Triton's names.
pub(crate) const EXTENSIONS: [&str; 5] = [
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "statistics",
];
/// The engine, in the terms of the protocol.
pub(crate) const PLATFORM: &str = "onnx_onnxv1";
/// A model has one version: another version is another ModelService.
pub(crate) const MODEL_VERSION: &str = "1";
/// The service of the Open Inference Protocol over gRPC.
pub(crate) const GRPC_SERVICE: &str = "inference.GRPCInferenceService";
