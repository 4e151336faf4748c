//! Calls that describe the server and its models.

use crate::engine::Port;
use crate::models::VERSION;
use crate::protocol::api::Api;
use crate::protocol::error::ApiError;
use crate::protocol::names::{EXTENSIONS, MODEL_VERSION, NAME, PLATFORM};
use crate::protocol::oip::triton;
use crate::protocol::proto::model_metadata_response::TensorMetadata;
use crate::protocol::proto::{
    ModelConfigRequest, ModelConfigResponse, ModelMetadataRequest, ModelMetadataResponse, ModelReadyRequest,
    ModelReadyResponse, ModelStatisticsRequest, ModelStatisticsResponse, RepositoryIndexRequest,
    RepositoryIndexResponse, ServerLiveRequest, ServerLiveResponse, ServerMetadataRequest,
    ServerMetadataResponse, ServerReadyRequest, ServerReadyResponse,
};

pub(super) fn server_live(_: &Api, _: ServerLiveRequest) -> Result<ServerLiveResponse, ApiError> {
    Ok(ServerLiveResponse { live: true })
}

pub(super) fn server_ready(api: &Api, _: ServerReadyRequest) -> Result<ServerReadyResponse, ApiError> {
    let ready = api.is_ready();
    Ok(ServerReadyResponse { ready })
}

pub(super) fn model_ready(api: &Api, request: ModelReadyRequest) -> Result<ModelReadyResponse, ApiError> {
    api.named(&request.name, &request.version)?;
    let ready = api.is_ready();
    Ok(ModelReadyResponse { ready })
}

pub(super) fn server_metadata(_: &Api, _: ServerMetadataRequest) -> Result<ServerMetadataResponse, ApiError> {
    Ok(ServerMetadataResponse {
        name: NAME.to_owned(),
        version: VERSION.to_owned(),
        extensions: EXTENSIONS.map(str::to_owned).to_vec(),
    })
}

pub(super) fn model_metadata(
    api: &Api,
    request: ModelMetadataRequest,
) -> Result<ModelMetadataResponse, ApiError> {
    let signature = api.named(&request.name, &request.version)?.model.signature();
    let tensor = |port: &Port| TensorMetadata {
        name: port.name.clone(),
        datatype: port.datatype.name().to_owned(),
        shape: port.told_shape(),
    };
    Ok(ModelMetadataResponse {
        name: request.name,
        versions: vec![MODEL_VERSION.to_owned()],
        platform: PLATFORM.to_owned(),
        inputs: signature.inputs.iter().map(tensor).collect(),
        outputs: signature.outputs.iter().map(tensor).collect(),
    })
}

pub(super) fn model_config(api: &Api, request: ModelConfigRequest) -> Result<ModelConfigResponse, ApiError> {
    let named = api.named(&request.name, &request.version)?;
    Ok(ModelConfigResponse {
        config: Some(triton::config(api, named)),
    })
}

pub(super) fn model_statistics(
    api: &Api,
    request: ModelStatisticsRequest,
) -> Result<ModelStatisticsResponse, ApiError> {
    let model_stats = triton::statistics(api, &request.name, &request.version)?;
    Ok(ModelStatisticsResponse { model_stats })
}

pub(super) fn repository_index(
    api: &Api,
    request: RepositoryIndexRequest,
) -> Result<RepositoryIndexResponse, ApiError> {
    let models = triton::index(api, request.ready);
    Ok(RepositoryIndexResponse { models })
}
