//! What Triton's clients request in addition to the protocol, as its messages: the configuration of a model, its
//! statistics, and the repository's index.

use crate::engine::Port;
use crate::metrics::Total;
use crate::package::MODEL_FILE;
use crate::package::manifest::Layout;
use crate::protocol::api::{Api, Named};
use crate::protocol::error::ApiError;
use crate::protocol::inference::takes_batches;
use crate::protocol::names::MODEL_VERSION;
use crate::protocol::proto::model_input::Format;
use crate::protocol::proto::model_version_policy::{Latest, PolicyChoice};
use crate::protocol::proto::repository_index_response::ModelIndex;
use crate::protocol::proto::{
    DataType as Type, InferBatchStatistics, InferStatistics, ModelConfig, ModelInput, ModelOutput,
    ModelStatistics, ModelTensorReshape, ModelVersionPolicy, StatisticDuration,
};
use crate::tensor::{DataType, element_count};

/// Triton's name for models that ONNX Runtime runs.
const PLATFORM: &str = "onnxruntime_onnx";
const BACKEND: &str = "onnxruntime";

/// The configuration that Triton would need to serve the model in the same way.
pub(crate) fn config(api: &Api, named: Named<'_>) -> ModelConfig {
    let signature = named.model.signature();
    let batches = takes_batches(signature);
    let dims = |port: &Port| dims(port.told_shape().split_off(usize::from(batches)));
    let layout = named.model.classifier().map(|classifier| classifier.layout());
    let input = |port: &Port| {
        let (dims, reshape) = dims(port);
        ModelInput {
            name: port.name.clone(),
            data_type: data_type(port.datatype).into(),
            format: format(layout, &dims).into(),
            dims,
            reshape,
        }
    };
    let output = |port: &Port| {
        let (dims, reshape) = dims(port);
        ModelOutput {
            name: port.name.clone(),
            data_type: data_type(port.datatype).into(),
            dims,
            reshape,
        }
    };
    ModelConfig {
        name: named.name.to_owned(),
        platform: PLATFORM.to_owned(),
        backend: BACKEND.to_owned(),
        version_policy: Some(ModelVersionPolicy {
            policy_choice: Some(PolicyChoice::Latest(Latest { num_versions: 1 })),
        }),
        max_batch_size: if batches {
            max_batch_size(api, &signature.inputs)
        } else {
            0
        },
        input: signature.inputs.iter().map(input).collect(),
        output: signature.outputs.iter().map(output).collect(),
        default_model_filename: MODEL_FILE.to_owned(),
    }
}

/// The dimensions. Triton wants at least one; a scalar gets one of size 1, which `reshape` removes before the model
/// runs
/// (<https://github.com/triton-inference-server/server/blob/main/docs/user_guide/model_configuration.md#reshape>).
fn dims(shape: Vec<i64>) -> (Vec<i64>, Option<ModelTensorReshape>) {
    if shape.is_empty() {
        (vec![1], Some(ModelTensorReshape { shape }))
    } else {
        (shape, None)
    }
}

/// The order of the dimensions of an image, as `model.yaml` has it. Triton defines it only for three dimensions, so
/// not for a model that takes a single image with a batch dimension of 1.
const fn format(layout: Option<Layout>, dims: &[i64]) -> Format {
    match layout {
        Some(Layout::Nchw) if dims.len() == 3 => Format::Nchw,
        Some(Layout::Nhwc) if dims.len() == 3 => Format::Nhwc,
        _ => Format::None,
    }
}

/// As many rows as fit into a body; other dynamic dimensions count as 1.
fn max_batch_size(api: &Api, inputs: &[Port]) -> i32 {
    let row = |port: &Port| {
        let dims: Vec<i64> = port
            .shape
            .iter()
            .skip(1)
            .map(|&dimension| dimension.max(1))
            .collect();
        element_count(&dims).and_then(|count| count.checked_mul(port.datatype.size().unwrap_or(1)))
    };
    let row: Option<usize> = inputs.iter().map(row).sum();
    let rows = api.budget.max_body() / row.unwrap_or(usize::MAX).max(1);
    i32::try_from(rows.max(1)).unwrap_or(i32::MAX)
}

const fn data_type(datatype: DataType) -> Type {
    match datatype {
        DataType::Bool => Type::TypeBool,
        DataType::Uint8 => Type::TypeUint8,
        DataType::Uint16 => Type::TypeUint16,
        DataType::Uint32 => Type::TypeUint32,
        DataType::Uint64 => Type::TypeUint64,
        DataType::Int8 => Type::TypeInt8,
        DataType::Int16 => Type::TypeInt16,
        DataType::Int32 => Type::TypeInt32,
        DataType::Int64 => Type::TypeInt64,
        DataType::Fp16 => Type::TypeFp16,
        DataType::Bf16 => Type::TypeBf16,
        DataType::Fp32 => Type::TypeFp32,
        DataType::Fp64 => Type::TypeFp64,
        DataType::Bytes => Type::TypeString,
    }
}

/// The repository's index; every model is ready at the same time.
pub(crate) fn index(api: &Api, only_ready: bool) -> Vec<ModelIndex> {
    let ready = api.is_ready();
    let model = |name: &str| ModelIndex {
        name: name.to_owned(),
        version: MODEL_VERSION.to_owned(),
        state: if ready { "READY" } else { "UNAVAILABLE" }.to_owned(),
        reason: String::new(),
    };
    let models = api.service.names().filter(|_| ready || !only_ready);
    models.map(model).collect()
}

/// The statistics of the model of this name, or of all models if it is empty.
///
/// # Errors
/// 404 if there is no such model or version.
pub(crate) fn statistics(api: &Api, name: &str, version: &str) -> Result<Vec<ModelStatistics>, ApiError> {
    if name.is_empty() {
        let models = api.service.names().map(|name| api.named(name, version));
        return models.map(|named| named.map(of_model)).collect();
    }
    Ok(vec![of_model(api.named(name, version)?)])
}

fn of_model(named: Named<'_>) -> ModelStatistics {
    let statistics = named.model.metrics().statistics.read();
    let total = |Total { count, nanoseconds }| {
        let ns = nanoseconds;
        Some(StatisticDuration { count, ns })
    };
    let none = Some(StatisticDuration::default());
    let batches = statistics.batches.into_iter().map(|(batch_size, batch)| {
        let time = |ns| {
            let count = batch.count;
            Some(StatisticDuration { count, ns })
        };
        InferBatchStatistics {
            batch_size,
            compute_input: time(batch.input),
            compute_infer: time(batch.infer),
            compute_output: time(batch.output),
        }
    });
    ModelStatistics {
        name: named.name.to_owned(),
        version: MODEL_VERSION.to_owned(),
        last_inference: statistics.last_inference,
        inference_count: statistics.inferences,
        execution_count: statistics.executions,
        inference_stats: Some(InferStatistics {
            success: total(statistics.success),
            fail: total(statistics.fail),
            queue: total(statistics.queue),
            compute_input: total(statistics.compute_input),
            compute_infer: total(statistics.compute_infer),
            compute_output: total(statistics.compute_output),
            cache_hit: none,
            cache_miss: none,
        }),
        batch_stats: batches.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Triton's image_client accepts no image without it.
    #[test]
    fn images_have_the_format_of_their_layout() {
        let (image, batch_of_one) = ([3, 224, 224], [1, 3, 224, 224]);
        for (layout, dims, expected) in [
            (Some(Layout::Nchw), &image[..], Format::Nchw),
            (Some(Layout::Nhwc), &image, Format::Nhwc),
            (Some(Layout::Nhwc), &batch_of_one, Format::None),
            (None, &image, Format::None),
        ] {
            assert_eq!(format(layout, dims), expected, "{layout:?} {dims:?}");
        }
    }
}
