//! Shared by the tests: where the examples and ONNX Runtime are, and a server process.

#![allow(dead_code)]

pub(crate) mod engine;
pub(crate) mod grpc;
pub(crate) mod http;
pub(crate) mod onnx;

use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// A file or folder below .cache/examples.
pub(crate) fn example(path: &str) -> PathBuf {
    let path = root().join(".cache/examples").join(path);
    assert!(
        path.exists(),
        "{} does not exist: run examples/prepare",
        path.display()
    );
    path
}

/// What `model.yaml` of a package below .cache/examples says.
pub(crate) fn manifest(package: &str) -> modelservice_server::package::manifest::Manifest {
    let config = modelservice_contract::ModelConfig {
        name: package.to_owned(),
        path: example(package).display().to_string(),
        ..modelservice_contract::ModelConfig::default()
    };
    let parsed = modelservice_server::package::open(&config).unwrap();
    parsed.package.manifest.unwrap()
}

/// A file below .cache/examples-images.
pub(crate) fn image(path: &str) -> PathBuf {
    let path = root().join(".cache/examples-images").join(path);
    assert!(
        path.exists(),
        "{} does not exist: run examples/images/prepare",
        path.display()
    );
    path
}

/// The ONNX Runtime library: ORT_DYLIB_PATH, or the one that inference-image/onnxruntime extracts.
pub(crate) fn library() -> PathBuf {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let default = || root().join(format!(".cache/onnxruntime/{arch}/libonnxruntime.so"));
    let path = std::env::var_os("ORT_DYLIB_PATH").map_or_else(default, PathBuf::from);
    assert!(
        path.exists(),
        "{} does not exist: run inference-image/onnxruntime",
        path.display()
    );
    path
}

/// The libraries of another flavour of the runtime, which inference-image/onnxruntime extracts.
pub(crate) fn flavour(name: &str) -> PathBuf {
    let path = root().join(format!(".cache/onnxruntime/amd64-{name}"));
    assert!(
        path.exists(),
        "{} does not exist: run FLAVOUR={name} inference-image/onnxruntime",
        path.display()
    );
    path
}

/// The library with the provider of tests, which is built with them.
pub(crate) fn test_provider() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let path = tests.with_file_name("libmodelservice_test_provider.so");
    assert!(path.exists(), "{} does not exist", path.display());
    path
}

/// The raw little-endian floats of a file.
pub(crate) fn floats(path: &Path) -> Vec<f32> {
    let bytes = std::fs::read(path).unwrap();
    bytes
        .chunks_exact(4)
        .map(|four| f32::from_le_bytes(four.try_into().unwrap()))
        .collect()
}

/// A server process on free ports; killed when dropped.
pub(crate) struct Server {
    child: Child,
    lines: Receiver<Value>,
    log: Vec<Value>,
    pub(crate) termination_log: tempfile::NamedTempFile,
}

const DEADLINE: Duration = Duration::from_secs(60);

impl Server {
    /// Starts the server with this configuration and additional arguments.
    pub(crate) fn start(config: &str, arguments: &[&str]) -> Self {
        Self::start_in(Path::new("/nowhere"), config, arguments)
    }

    /// The same, with this home folder.
    pub(crate) fn start_in(home: &Path, config: &str, arguments: &[&str]) -> Self {
        let command = Command::new(env!("CARGO_BIN_EXE_modelservice-server"));
        Self::launch(command, home, config, arguments)
    }

    /// The same, through another program that replaces itself with the server (`taskset`).
    pub(crate) fn start_with(program: &[&str], config: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(program[0]);
        command
            .args(&program[1..])
            .arg(env!("CARGO_BIN_EXE_modelservice-server"));
        Self::launch(command, Path::new("/nowhere"), config, arguments)
    }

    fn launch(mut command: Command, home: &Path, config: &str, arguments: &[&str]) -> Self {
        let termination_log = tempfile::NamedTempFile::new().unwrap();
        command
            .env_remove("ORT_DISABLE_TELEMETRY")
            .env("HOME", home)
            .env("XDG_CACHE_HOME", home);
        command
            .env("MODELSERVICE_CONFIG", config)
            .args(["--http-port=0", "--management-port=0"]);
        command.arg("--termination-log").arg(termination_log.path());
        if !arguments
            .iter()
            .any(|argument| argument.starts_with("--onnx-runtime"))
        {
            command.arg("--onnx-runtime").arg(library());
        }
        command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (sender, lines) = channel();
        let output = child.stdout.take().unwrap();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let line = serde_json::from_str(&line).unwrap_or(Value::String(line));
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self {
            child,
            lines,
            log: Vec::new(),
            termination_log,
        }
    }

    /// Waits for the log line with this message.
    pub(crate) fn wait_for(&mut self, message: &str) -> Value {
        let deadline = Instant::now() + DEADLINE;
        loop {
            match self
                .lines
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            {
                Ok(line) => {
                    self.log.push(line.clone());
                    if line["message"] == message {
                        return line;
                    }
                }
                Err(RecvTimeoutError::Timeout) => panic!("no {message:?} in time, but {:#?}", self.log),
                Err(RecvTimeoutError::Disconnected) => panic!("ended without {message:?}: {:#?}", self.log),
            }
        }
    }

    /// Waits until it serves; returns the addresses of the serving and the management port.
    pub(crate) fn addresses(&mut self) -> (SocketAddr, SocketAddr) {
        let management = local(&self.wait_for("management port open"));
        (local(&self.wait_for("serving")), management)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits until it exits.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + DEADLINE;
        // The output ends first; then only the exit remains.
        loop {
            match self
                .lines
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            {
                Ok(line) => self.log.push(line),
                Err(RecvTimeoutError::Timeout) => panic!("did not end in time: {:#?}", self.log),
                Err(RecvTimeoutError::Disconnected) => return self.child.wait().unwrap(),
            }
        }
    }

    /// Its log so far.
    pub(crate) fn log(&self) -> &[Value] {
        &self.log
    }
}

fn local(line: &Value) -> SocketAddr {
    let address: SocketAddr = line["address"].as_str().unwrap().parse().unwrap();
    SocketAddr::from(([127, 0, 0, 1], address.port()))
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Compares a table in docs/server.md, between `<!-- NAME -->` and `<!-- end -->`, with what the tests check;
/// `UPDATE_DOCS=1` writes it.
pub(crate) fn check_docs_table(name: &str, header: &str, rows: &[String]) {
    let path = root().join("docs/server.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (start, end) = (format!("<!-- {name} -->\n"), "<!-- end -->");
    let (before, rest) = text
        .split_once(&start)
        .unwrap_or_else(|| panic!("no {start} in {}", path.display()));
    let (table, after) = rest.split_once(end).unwrap();
    let columns = header.matches('|').count() - 1;
    let expected = format!("{header}\n|{}\n{}\n", "---|".repeat(columns), rows.join("\n"));
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, format!("{before}{start}{expected}{end}{after}")).unwrap();
        return;
    }
    assert_eq!(
        table, expected,
        "docs/server.md differs: run UPDATE_DOCS=1 cargo test -p modelservice-server"
    );
}
