#![allow(clippy::unwrap_used)]
use super::*;

const SMALLEST: &str = "models: [{name: photos, path: /mnt/model}]\n";

#[test]
fn the_smallest_configuration_serves_on_the_cpu() {
    let config = parse(SMALLEST).unwrap();
    assert_eq!(config.execution_provider.name, "CPUExecutionProvider");
    assert_eq!(
        (config.drain.accept_seconds, config.drain.finish_seconds),
        (5, 20)
    );
}

/// The server must read what the operator writes as it was meant.
#[test]
fn what_is_written_as_json_is_read_back() {
    let config = parse(SMALLEST).unwrap();
    assert_eq!(parse(&serde_json::to_string(&config).unwrap()).unwrap(), config);
}

#[test]
fn what_is_impossible_is_named() {
    let model = |fields: &str| format!("models: [{{name: photos, path: /mnt/model, {fields}}}]");
    let provider = |fields: &str| format!("{SMALLEST}executionProvider: {{name: {fields}}}");
    for (text, word) in [
        ("models: []".to_owned(), "models is empty"),
        ("limits: {}".to_owned(), "models"),
        (model("colour: red"), "colour"),
        (format!("{SMALLEST}limit: {{}}"), "limit"),
        (format!("{SMALLEST}limits: {{queueLength: 0}}"), "queueLength"),
        (
            format!("{SMALLEST}limits: {{maxImagesPerRequest: 0}}"),
            "maxImagesPerRequest",
        ),
        (format!("{SMALLEST}limits: {{queueLength: many}}"), "queueLength"),
        (format!("{SMALLEST}drain: {{acceptSeconds: -1}}"), "acceptSeconds"),
        (format!("{SMALLEST}cors: {{allowedOrigins: []}}"), "empty"),
        (
            format!("{SMALLEST}cors: {{allowedOrigins: [a.example]}}"),
            "a.example",
        ),
        (
            format!("{SMALLEST}cors: {{allowedOrigins: ['https://a/']}}"),
            "https://a/",
        ),
        (
            format!("{SMALLEST}cors: {{allowedOrigins: ['https://a:443']}}"),
            ":443",
        ),
        (
            format!("{SMALLEST}cors: {{allowedOrigins: ['*', 'null']}}"),
            "null",
        ),
        ("models: [{name: a/b, path: x}]".to_owned(), "a/b"),
        ("models: [{name: '', path: x}]".to_owned(), "not a valid name"),
        ("models: [{name: a, path: ''}]".to_owned(), "empty path"),
        (
            "models: [{name: a, path: x}, {name: a, path: y}]".to_owned(),
            "twice",
        ),
        (model("digest: sha256:00"), "sha256:00"),
        (
            provider("CPUExecutionProvider, runners: 2"),
            "takes no plugin, runners",
        ),
        (provider("tpu, runners: 0"), "runners must be from 1 to 8"),
        (provider("tpu, allowCpuPercent: 101"), "at most 100"),
        (provider("tpu, memoryLimitBytes: 0"), "at least 1"),
        (
            provider("tpu, plugin: {library: /a, deviceType: TPU}"),
            "must be CPU, GPU or NPU",
        ),
        (provider("tpu, plugin: {libary: /a}"), "did you mean `library`?"),
        ("models: [".to_owned(), "line"),
    ] {
        let problem = parse(&text).unwrap_err();
        assert!(problem.contains(word), "{text}\n{problem}");
    }
}

#[test]
fn a_file_goes_before_the_environment_and_one_of_them_or_a_model_is_needed() {
    let none = Overrides::default;
    let fatal = load(None, None, none()).unwrap_err();
    assert!(fatal.reason == ExitReason::ConfigInvalid && fatal.message.contains("MODELSERVICE_CONFIG"));
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), SMALLEST).unwrap();
    assert!(load(Some(file.path()), Some("nonsense"), none()).is_ok());
    let fatal = load(Some(Path::new("/nowhere/config.yaml")), Some(SMALLEST), none()).unwrap_err();
    assert!(fatal.message.contains("/nowhere/config.yaml"));
    let typed = |name: &str| Overrides {
        models: parse(&SMALLEST.replace("photos", name)).unwrap().models,
        execution_provider: Some("Other".to_owned()),
    };
    let config = load(None, Some(SMALLEST), typed("letters")).unwrap();
    let names: Vec<&str> = config.models.iter().map(|model| model.name.as_str()).collect();
    assert_eq!(
        (names, config.execution_provider.name.as_str()),
        (vec!["photos", "letters"], "Other")
    );
    assert_eq!(load(None, None, typed("a")).unwrap().models[0].name, "a");
    assert!(
        load(None, Some(SMALLEST), typed("photos"))
            .unwrap_err()
            .message
            .contains("twice")
    );
}

/// The printed configuration is the one in force, and can be used as a configuration.
#[test]
fn the_effective_configuration_holds_every_value_and_is_read_back() {
    let config = parse(SMALLEST).unwrap();
    let text = effective(&config).unwrap();
    assert_eq!(parse(&text).unwrap(), config);
    for key in [
        "maxAgeSeconds: 300",
        "queueLength: 128",
        "acceptSeconds: 5",
        "tls: null",
        "failures: true",
    ] {
        assert!(text.contains(key), "{key} is not in\n{text}");
    }
}
