//! What the types of a configuration cannot say: which values go together, and which are impossible.

use modelservice_contract::{Cors, ExecutionProvider, ModelConfig, ServerConfig};
use std::collections::BTreeSet;

const CPU: &str = "CPUExecutionProvider";
/// More runs at a time on one device only wait for each other.
const MAX_RUNNERS: u32 = 8;
/// Even ordinary clients send more than this.
const MIN_HEADER_BYTES: u32 = 1024;

pub(super) fn check(config: &ServerConfig) -> Result<(), String> {
    if config.models.is_empty() {
        return Err("models is empty: name at least one model".to_owned());
    }
    let mut names = BTreeSet::new();
    for model in &config.models {
        check_model(model)?;
        if !names.insert(&model.name) {
            return Err(format!("models: the name {:?} is given twice", model.name));
        }
    }
    let limits = &config.limits;
    let sizes = [limits.max_body_bytes, limits.max_image_pixels];
    let counts = [limits.max_images_per_request, limits.queue_length];
    if sizes.contains(&0) || counts.contains(&0) {
        let message =
            "limits: maxBodyBytes, maxImagePixels, maxImagesPerRequest and queueLength must be at least 1";
        return Err(message.to_owned());
    }
    if limits.header_seconds == 0 || limits.body_seconds == 0 || limits.max_header_bytes < MIN_HEADER_BYTES {
        return Err(format!(
            "limits: headerSeconds and bodySeconds must be at least 1, maxHeaderBytes at least {MIN_HEADER_BYTES}"
        ));
    }
    let connections = &config.connections;
    if connections.max == Some(0) || connections.idle_seconds == 0 || connections.max_concurrent_requests == 0
    {
        return Err("connections: max, idleSeconds and maxConcurrentRequests must be at least 1".to_owned());
    }
    check_provider(&config.execution_provider)?;
    check_observability(config)
}

fn check_provider(provider: &ExecutionProvider) -> Result<(), String> {
    let ExecutionProvider {
        name,
        options: _,
        plugin,
        runners,
        memory_limit_bytes,
        allow_cpu_percent,
    } = provider;
    let is_for_device =
        runners.is_some() || memory_limit_bytes.is_some() || *allow_cpu_percent > 0 || plugin.is_some();
    if name == CPU && is_for_device {
        return Err(format!(
            "executionProvider: {CPU} takes no plugin, runners, memoryLimitBytes or allowCpuPercent"
        ));
    }
    if runners.is_some_and(|runners| !(1..=MAX_RUNNERS).contains(&runners)) {
        return Err(format!(
            "executionProvider: runners must be from 1 to {MAX_RUNNERS}"
        ));
    }
    if *allow_cpu_percent > 100 || *memory_limit_bytes == Some(0) {
        return Err(
            "executionProvider: allowCpuPercent is at most 100, memoryLimitBytes at least 1".to_owned(),
        );
    }
    let kind = plugin.as_ref().and_then(|plugin| plugin.device_type.as_deref());
    match kind {
        Some(kind) if !["CPU", "GPU", "NPU"].contains(&kind) => Err(format!(
            "executionProvider: plugin.deviceType is {kind:?}, it must be CPU, GPU or NPU"
        )),
        _ => Ok(()),
    }
}

fn check_observability(config: &ServerConfig) -> Result<(), String> {
    let share = 0.0..=1.0;
    if !share.contains(&config.access_log.sample_ratio) {
        return Err("accessLog: sampleRatio must be a number from 0 to 1".to_owned());
    }
    config.cors.as_ref().map_or(Ok(()), check_cors)?;
    let Some(tracing) = &config.tracing else {
        return Ok(());
    };
    if !share.contains(&tracing.sample_ratio) {
        return Err("tracing: sampleRatio must be a number from 0 to 1".to_owned());
    }
    if !tracing.endpoint.starts_with("http://") {
        return Err(format!(
            "tracing: endpoint is {:?}, it must be a URL such as http://collector.observability:4317",
            tracing.endpoint
        ));
    }
    Ok(())
}

fn check_cors(cors: &Cors) -> Result<(), String> {
    let is_host = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._:[]".contains(&byte);
    // As browsers write it: without a path, and without the scheme's default port.
    let is_origin = |origin: &String| {
        let https = origin.strip_prefix("https://").map(|host| (host, ":443"));
        let http = origin.strip_prefix("http://").map(|host| (host, ":80"));
        https.or(http).is_some_and(|(host, port)| {
            !host.is_empty() && host.bytes().all(is_host) && !host.ends_with(port)
        })
    };
    match cors
        .allowed_origins
        .iter()
        .find(|origin| *origin != "*" && !is_origin(origin))
    {
        Some(origin) => Err(format!(
            "cors: allowedOrigins has {origin:?}, it must be '*', or a scheme, a host and optionally a port, \
             in lower case and without a slash at the end, such as https://app.example.com"
        )),
        None if cors.allowed_origins.is_empty() => {
            Err("cors: allowedOrigins is empty: remove cors".to_owned())
        }
        None => Ok(()),
    }
}

fn check_model(model: &ModelConfig) -> Result<(), String> {
    let name = &model.name;
    // The name appears in request paths, before a colon.
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if name.is_empty() || name.len() > 253 || !name.bytes().all(is_plain) {
        return Err(format!(
            "models: {name:?} is not a valid name: use 1 to 253 letters, digits, '.', '_' and '-'"
        ));
    }
    if model.path.is_empty() {
        return Err(format!("models: {name:?} has an empty path"));
    }
    match &model.digest {
        Some(digest) if !is_digest(digest) => Err(format!(
            "models: {name:?} has the digest {digest:?}, it must be sha256: and 64 lower-case hexadecimal digits"
        )),
        _ => Ok(()),
    }
}

fn is_digest(digest: &str) -> bool {
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    digest
        .strip_prefix("sha256:")
        .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(is_hex))
}
