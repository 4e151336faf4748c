//! What can go wrong at startup: the exit code, the reason and the termination message. Each case is a row of the
//! table in docs/server.md.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use modelservice_contract::{ExitReason, TerminationMessage};
use prost::Message as _;
use sha2::{Digest, Sha256};
use std::path::Path;
use support::onnx::{self, Entry, FLOAT, identity, matmul, node};
use support::{Server, check_docs_table, example};

struct Case {
    /// The text in the documentation.
    what: &'static str,
    reason: ExitReason,
    /// Part of the message.
    words: &'static str,
    /// Creates the configuration, and the files it needs, in an empty folder.
    config: fn(&Path) -> String,
    arguments: &'static [&'static str],
}

impl Case {
    const fn new(
        what: &'static str,
        reason: ExitReason,
        words: &'static str,
        config: fn(&Path) -> String,
    ) -> Self {
        Self {
            what,
            reason,
            words,
            config,
            arguments: &[],
        }
    }

    const fn with(mut self, arguments: &'static [&'static str]) -> Self {
        self.arguments = arguments;
        self
    }
}

const CASES: &[Case] = &[
    Case::new(
        "a key of the configuration that does not exist",
        ExitReason::ConfigInvalid,
        "colour",
        |folder| format!("{}colour: red\n", colors(folder)),
    ),
    Case::new(
        "a misspelt key",
        ExitReason::ConfigInvalid,
        "did you mean `queueLength`?",
        |folder| format!("{}limits: {{queueLenght: 9}}\n", colors(folder)),
    ),
    Case::new(
        "a certificate that does not exist",
        ExitReason::ConfigInvalid,
        "tls.crt: No such file",
        |folder| {
            let file = |name: &str| folder.join(name).display().to_string();
            format!(
                "{}tls: {{certificateFile: '{}', keyFile: '{}'}}\n",
                colors(folder),
                file("tls.crt"),
                file("tls.key")
            )
        },
    ),
    Case::new(
        "a token file without a token",
        ExitReason::ConfigInvalid,
        "contains no token",
        |folder| {
            let path = folder.join("tokens");
            std::fs::write(&path, "# none yet\n").unwrap();
            format!("{}auth: {{tokenFile: '{}'}}\n", colors(folder), path.display())
        },
    ),
    Case::new(
        "a trace collector that is not a URL",
        ExitReason::ConfigInvalid,
        "such as http://collector",
        |folder| format!("{}tracing: {{endpoint: 'collector:4317'}}\n", colors(folder)),
    ),
    Case::new(
        "a configuration without models",
        ExitReason::ConfigInvalid,
        "name at least one model",
        |_| "models: []".into(),
    ),
    Case::new(
        "options for the CPU, which takes none",
        ExitReason::ConfigInvalid,
        "does not accept",
        |folder| {
            format!(
                "{}executionProvider: {{name: CPUExecutionProvider, options: {{a: b}}}}\n",
                colors(folder)
            )
        },
    ),
    Case::new(
        "no folder at the model's path",
        ExitReason::ModelMissing,
        "does not exist",
        |folder| serve(&folder.join("nothing")),
    ),
    Case::new(
        "a file at the model's path",
        ExitReason::ModelMissing,
        "is a file: give the folder that holds model.onnx",
        |folder| {
            colors(folder);
            serve(&folder.join("model.onnx"))
        },
    ),
    Case::new(
        "an empty folder (a mounted OCI artifact)",
        ExitReason::ModelMissing,
        "OCI artifact",
        serve,
    ),
    Case::new(
        "a folder without model.onnx",
        ExitReason::ModelMissing,
        "only: weights.pt",
        |folder| {
            std::fs::write(folder.join("weights.pt"), "x").unwrap();
            serve(folder)
        },
    ),
    Case::new(
        "a digest other than the configured one",
        ExitReason::ModelDigestMismatch,
        "is configured",
        |folder| {
            let digest = "0".repeat(64);
            colors(folder).replace("}]", &format!(", digest: 'sha256:{digest}'}}]"))
        },
    ),
    Case::new(
        "the digest of model.onnx alone, which stores weights in another file",
        ExitReason::ModelDigestMismatch,
        "stores weights in weights.data: use the digest of the whole package",
        |folder| {
            let (model, weights) = matmul(8, Some("weights.data"));
            std::fs::write(folder.join("weights.data"), weights).unwrap();
            let digest = format!(", digest: 'sha256:{:x}'}}]", Sha256::digest(&model));
            with_model(folder, &model).replace("}]", &digest)
        },
    ),
    Case::new(
        "an empty model.onnx",
        ExitReason::ModelInvalid,
        "is empty",
        |folder| with_model(folder, b""),
    ),
    Case::new(
        "a model.onnx that is not ONNX",
        ExitReason::ModelInvalid,
        "check the file with onnx.checker",
        |folder| with_model(folder, b"version https://git-lfs.github.com/spec/v1"),
    ),
    Case::new(
        "a truncated model.onnx",
        ExitReason::ModelInvalid,
        "cannot load the model",
        |folder| {
            let model = std::fs::read(example("tiny/model.onnx")).unwrap();
            with_model(folder, &model[..model.len() / 2])
        },
    ),
    Case::new(
        "external data that the package does not contain",
        ExitReason::ModelInvalid,
        "stores weights in \"weights.data\"",
        |folder| with_model(folder, &matmul(8, Some("weights.data")).0),
    ),
    Case::new(
        "external data outside the package",
        ExitReason::ModelInvalid,
        "outside its package",
        |folder| with_model(folder, &matmul(8, Some("../weights.data")).0),
    ),
    Case::new(
        "a link that leads out of the package in place of a file",
        ExitReason::ModelInvalid,
        "outside its package",
        |folder| {
            std::os::unix::fs::symlink("/etc/passwd", folder.join("weights.data")).unwrap();
            with_model(folder, &matmul(8, Some("weights.data")).0)
        },
    ),
    Case::new(
        "a loop of links",
        ExitReason::ModelInvalid,
        "loop of links",
        |folder| {
            let config = colors(folder);
            std::fs::remove_file(folder.join("model.yaml")).unwrap();
            std::os::unix::fs::symlink("model.yaml", folder.join("model.yaml")).unwrap();
            config
        },
    ),
    Case::new(
        "a named pipe, a device or a folder in place of a file",
        ExitReason::ModelInvalid,
        "is a named pipe, not a file",
        |folder| {
            let (pipe, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR);
            let path = folder.join("model.onnx");
            rustix::fs::mknodat(rustix::fs::CWD, path, pipe, mode, 0).unwrap();
            serve(folder)
        },
    ),
    Case::new(
        "a file that is too large",
        ExitReason::ModelInvalid,
        "has 1099511627776 bytes, but at most 2147483647 are read",
        |folder| {
            let file = std::fs::File::create(folder.join("model.onnx")).unwrap();
            file.set_len(1 << 40).unwrap();
            serve(folder)
        },
    ),
    Case::new(
        "an opset that this ONNX Runtime does not know",
        ExitReason::ModelInvalid,
        "older opset",
        |folder| with_model(folder, &with_opset(99)),
    ),
    Case::new(
        "a key of model.yaml that does not exist",
        ExitReason::ModelInvalid,
        "colour",
        |folder| {
            let config = colors(folder);
            append(&folder.join("model.yaml"), "colour: red\n");
            config
        },
    ),
    Case::new(
        "a number of labels other than the output's number of values",
        ExitReason::ModelInvalid,
        "2 labels",
        |folder| {
            let config = colors(folder);
            let path = folder.join("model.yaml");
            let manifest = std::fs::read_to_string(&path).unwrap();
            std::fs::write(path, manifest.replace("[red, green, blue]", "[red, green]")).unwrap();
            config
        },
    ),
    Case::new(
        "a label file that the package does not contain",
        ExitReason::ModelInvalid,
        "\"names.txt\", which does not exist",
        |folder| {
            let config = colors(folder);
            let path = folder.join("model.yaml");
            let manifest = std::fs::read_to_string(&path).unwrap();
            std::fs::write(path, manifest.replace("[red, green, blue]", "names.txt")).unwrap();
            config
        },
    ),
    Case::new(
        "an execution provider that the runtime does not have",
        ExitReason::AcceleratorUnavailable,
        "only: AzureExecutionProvider, CPUExecutionProvider",
        |folder| {
            format!(
                "{}executionProvider: {{name: CUDAExecutionProvider}}\n",
                colors(folder)
            )
        },
    ),
    Case::new(
        "an unknown execution provider",
        ExitReason::AcceleratorUnavailable,
        "TpuExecutionProvider",
        |folder| {
            format!(
                "{}executionProvider: {{name: TpuExecutionProvider}}\n",
                colors(folder)
            )
        },
    ),
    Case::new(
        "an execution provider that cannot run the whole graph",
        ExitReason::ExecutionProviderFallback,
        "runs none of the model's 3 compute nodes, and the CPU would run",
        |folder| {
            format!(
                "{}executionProvider: {{name: AzureExecutionProvider}}\n",
                colors(folder)
            )
        },
    ),
    Case::new(
        "a provider's library that does not exist",
        ExitReason::AcceleratorUnavailable,
        "there is no library /nowhere/provider.so",
        |folder| on_plugin(folder, "{library: /nowhere/provider.so}", ""),
    ),
    Case::new(
        "a provider's library that cannot be loaded",
        ExitReason::AcceleratorUnavailable,
        "ONNX Runtime cannot load",
        |folder| {
            let path = folder.join("provider.so");
            std::fs::write(&path, "no library").unwrap();
            on_plugin(folder, &format!("{{library: '{}'}}", path.display()), "")
        },
    ),
    Case::new(
        "a provider's library without a device that matches",
        ExitReason::AcceleratorUnavailable,
        "finds no device for provider TestExecutionProvider, type NPU",
        |folder| on_plugin(folder, &format!("{}, deviceType: NPU}}", library()), ""),
    ),
    Case::new(
        "a device that fails in the first run",
        ExitReason::AcceleratorUnavailable,
        "the first run on TestExecutionProvider failed, and the CPU runs the same inputs",
        |folder| {
            let relu = onnx::rows(FLOAT, [2, 2], vec![node("Relu", &["x"], &["y"])], Vec::new());
            std::fs::write(folder.join("model.onnx"), relu).unwrap();
            let options = ", options: {mode: fail-first-run}";
            format!(
                "{}{}",
                serve(folder),
                provider(&format!("{}}}", library()), options)
            )
        },
    ),
    Case::new(
        "a number of runners that no device has use for",
        ExitReason::ConfigInvalid,
        "runners must be from 1 to 8",
        |folder| on_plugin(folder, &format!("{}}}", library()), ", runners: 9"),
    ),
    Case::new(
        "a misspelt option of a provider",
        ExitReason::ConfigInvalid,
        "does not accept the option \"colour\"",
        |folder| on_plugin(folder, &format!("{}}}", library()), ", options: {colour: red}"),
    ),
    Case::new(
        "a memory limit for a provider that has no option for it",
        ExitReason::ConfigInvalid,
        "has no known option for memoryLimitBytes",
        |folder| on_plugin(folder, &format!("{}}}", library()), ", memoryLimitBytes: 1048576"),
    ),
    Case::new(
        "no ONNX Runtime library",
        ExitReason::RuntimeUnavailable,
        "set ORT_DYLIB_PATH",
        colors,
    )
    .with(&["--onnx-runtime=/nowhere/libonnxruntime.so"]),
    Case::new(
        "a library that is not ONNX Runtime",
        ExitReason::RuntimeUnavailable,
        "dlopen failed",
        colors,
    )
    .with(&["--onnx-runtime=Cargo.toml"]),
    Case::new(
        "a port that is not permitted or already in use",
        ExitReason::SystemError,
        "cannot listen on port",
        colors,
    ),
];

fn serve(folder: &Path) -> String {
    format!("models: [{{name: photos, path: '{}'}}]\n", folder.display())
}

/// The package `colors` on the provider of tests.
fn on_plugin(folder: &Path, plugin: &str, more: &str) -> String {
    format!("{}{}", colors(folder), provider(plugin, more))
}

fn provider(plugin: &str, more: &str) -> String {
    format!("executionProvider: {{name: TestExecutionProvider, plugin: {plugin}{more}}}\n")
}

/// The beginning of a plug-in's configuration.
fn library() -> String {
    format!("{{library: '{}'", support::test_provider().display())
}

/// A copy of the package `colors`.
fn colors(folder: &Path) -> String {
    for file in ["model.onnx", "model.yaml"] {
        std::fs::copy(example("colors").join(file), folder.join(file)).unwrap();
    }
    serve(folder)
}

fn with_model(folder: &Path, model: &[u8]) -> String {
    std::fs::write(folder.join("model.onnx"), model).unwrap();
    serve(folder)
}

/// The model `colors`, claiming that it needs another opset.
fn with_opset(opset: u8) -> Vec<u8> {
    let mut model = std::fs::read(example("colors/model.onnx")).unwrap();
    // Field 8 of ModelProto, an OperatorSetIdProto with an empty domain and version 17.
    let import = [0x42, 4, 0x0A, 0, 0x10, 17];
    let at = model
        .windows(import.len())
        .position(|bytes| bytes == import)
        .unwrap();
    model[at + import.len() - 1] = opset;
    model
}

fn append(path: &Path, text: &str) {
    let old = std::fs::read_to_string(path).unwrap();
    std::fs::write(path, old + text).unwrap();
}

/// Without this, people see "CrashLoopBackOff" and no reason.
#[test]
fn every_failure_has_its_exit_code_and_last_words() {
    for case in CASES {
        let folder = tempfile::tempdir().unwrap();
        let config = (case.config)(folder.path());
        let taken = std::net::TcpListener::bind(("::", 0)).unwrap();
        let port = format!("--http-port={}", taken.local_addr().unwrap().port());
        let mut arguments = case.arguments.to_vec();
        if case.reason == ExitReason::SystemError {
            arguments.push(&port);
        }
        let mut server = Server::start(&config, &arguments);
        let status = server.wait();
        assert_eq!(
            status.code(),
            Some(case.reason.code().into()),
            "{}: {:#?}",
            case.what,
            server.log()
        );
        let words = std::fs::read(server.termination_log.path()).unwrap();
        let words: TerminationMessage = serde_json::from_slice(&words).unwrap();
        assert_eq!(words.reason, case.reason, "{}", case.what);
        assert!(
            words.message.contains(case.words),
            "{}: {}",
            case.what,
            words.message
        );
        let last = server.log().last().unwrap();
        assert_eq!(
            last["message"].as_str(),
            Some(words.message.as_str()),
            "the log ends with the same words"
        );
    }
}

#[test]
fn the_documentation_lists_every_failure() {
    let row = |case: &Case| {
        format!(
            "| {} | {} | `{:?}` | …{}… |",
            case.what,
            case.reason.code(),
            case.reason,
            case.words
        )
    };
    let rows: Vec<String> = CASES.iter().map(row).collect();
    check_docs_table(
        "failures at start",
        "| What is wrong | Exit code | Reason | Message |",
        &rows,
    );
}

#[test]
fn no_configuration_at_all_is_explained() {
    let status = std::process::Command::new(env!("CARGO_BIN_EXE_modelservice-server"))
        .env_remove("MODELSERVICE_CONFIG")
        .output()
        .unwrap();
    assert_eq!(status.status.code(), Some(10));
    assert!(
        String::from_utf8(status.stdout)
            .unwrap()
            .contains("--model FOLDER")
    );
}

/// Nobody should have to write YAML to try a model.
#[test]
fn a_model_can_be_named_by_a_flag_or_by_the_environment_alone() {
    let check = |arguments: &[&str], models: Option<&str>| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_modelservice-server"));
        command
            .env_remove("MODELSERVICE_CONFIG")
            .args(arguments)
            .arg("--check-config");
        if let Some(models) = models {
            command.env("MODELSERVICE_MODELS", models);
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let config = modelservice_server::config::parse(&String::from_utf8(output.stdout).unwrap()).unwrap();
        let pair = |model: modelservice_contract::ModelConfig| format!("{} in {}", model.name, model.path);
        config.models.into_iter().map(pair).collect::<Vec<_>>()
    };
    assert_eq!(
        check(&["--model", "a=/x", "--model", "/y/b"], None),
        ["a in /x", "b in /y/b"]
    );
    assert_eq!(check(&[], Some("a=/x,/y/b")), ["a in /x", "b in /y/b"]);
}

#[test]
fn a_configuration_can_be_checked_without_a_model() {
    let mut server = Server::start("models: [{name: photos, path: /nowhere}]", &["--check-config"]);
    assert!(server.wait().success());
    // The values in force, including defaults.
    let shown: Vec<&str> = server.log().iter().filter_map(|line| line.as_str()).collect();
    assert!(shown.contains(&"  maxAgeSeconds: 300"), "{shown:#?}");
    let mut server = Server::start("models: [{name: photos}]", &["--check-config"]);
    assert_eq!(server.wait().code(), Some(10));
}

/// People who try a model on a laptop do not want to serve the whole network.
#[test]
fn the_server_listens_where_it_is_told_and_warns_when_everyone_is_answered() {
    const OPEN: &str = "anyone who can reach this address can use the models";
    let folder = tempfile::tempdir().unwrap();
    let tokens = folder.path().join("tokens");
    std::fs::write(&tokens, "secret\n").unwrap();
    let open = format!("{}drain: {{acceptSeconds: 0}}\n", colors(folder.path()));
    let closed = format!("{open}auth: {{tokenFile: '{}'}}\n", tokens.display());
    for (config, arguments, address, warns) in [
        (&open, &[][..], "[::]:", true),
        (&open, &["--address", "0.0.0.0"], "0.0.0.0:", true),
        (&open, &["--address=127.0.0.1"], "127.0.0.1:", false),
        (&closed, &[], "[::]:", false),
    ] {
        let mut server = Server::start(config, arguments);
        for line in ["management port open", "serving"] {
            let line = server.wait_for(line);
            assert!(line["address"].as_str().unwrap().starts_with(address), "{line}");
        }
        server.signal(rustix::process::Signal::TERM);
        assert!(server.wait().success());
        let log = format!("{:?}", server.log());
        assert_eq!(log.contains(OPEN), warns, "{arguments:?}: {log}");
    }
}

/// ONNX Runtime must not report what is run here; if it prepares to, it leaves files in the home folder. A model is
/// data. With this variable, ONNX Runtime reads session options from a model's metadata, and its execution providers
/// have variables that name libraries and files.
#[test]
fn variables_of_onnx_runtime_do_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut model = identity(&[("x", FLOAT, &[1, 2])]);
    model.metadata = vec![Entry {
        key: "ort_config".into(),
        value: "no JSON".into(),
    }];
    let config = with_model(folder.path(), &model.encode_to_vec());
    let mut server = Server::start_with(&["env", "ORT_LOAD_CONFIG_FROM_MODEL=1"], &config, &[]);
    server.addresses();
}

#[test]
fn no_telemetry_is_prepared() {
    let (folder, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let config = format!("{}drain: {{acceptSeconds: 0}}\n", colors(folder.path()));
    let mut server = Server::start_in(home.path(), &config, &[]);
    server.addresses();
    server.signal(rustix::process::Signal::TERM);
    assert!(server.wait().success());
    assert_eq!(
        std::fs::read_dir(home.path()).unwrap().count(),
        0,
        "{:#?}",
        server.log()
    );
    assert!(
        !format!("{:?}", server.log()).contains("telemetry"),
        "{:#?}",
        server.log()
    );
}
