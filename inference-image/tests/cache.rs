//! Optimised graphs: created once, found again, never trusted blindly; and what the sessions of a model share. Uses
//! the real process and real files.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use modelservice_server::engine::weight;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use support::onnx::{conditional, matmul};
use support::{Server, example, library};
use tokio::net::TcpStream;

async fn exchange(address: SocketAddr, request: Request<Full<Bytes>>) -> Value {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let response = sender.send_request(request).await.unwrap();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    serde_json::from_slice(&body).unwrap_or_else(|_| panic!("{body:?}"))
}

struct Running {
    _server: Server,
    pid: u32,
    http: SocketAddr,
    management: SocketAddr,
}

fn start(package: &Path, cache: Option<&Path>) -> Running {
    let mut config = json!({"models": [{"name": "m", "path": package}]});
    if let Some(cache) = cache {
        config["cache"] = json!({"path": cache});
    }
    Running::of(Server::start(&config.to_string(), &[]))
}

impl Running {
    fn of(mut server: Server) -> Self {
        let (http, management) = server.addresses();
        Self {
            pid: server.pid(),
            _server: server,
            http,
            management,
        }
    }

    /// Where the graph came from.
    async fn graph(&self) -> String {
        let request = Request::get("/report")
            .header("host", "m")
            .body(Full::default())
            .unwrap();
        let report = exchange(self.management, request).await;
        report["models"][0]["graph"].as_str().unwrap().to_owned()
    }

    async fn classify(&self) -> Value {
        let photo = std::fs::read(example("photos/cat.jpg")).unwrap();
        let request = Request::post("/v1/models/m:classify")
            .header("host", "m")
            .body(photo.into())
            .unwrap();
        exchange(self.http, request).await["predictions"].clone()
    }

    /// The first number of `y = x · w` for a row of ones.
    async fn multiply(&self, width: i64) -> f64 {
        let row = vec![1.0; usize::try_from(width).unwrap()];
        let input = json!({"name": "x", "shape": [1, width], "datatype": "FP32", "data": row});
        let request = Request::post("/v2/models/m/infer")
            .header("host", "m")
            .body(json!({"inputs": [input]}).to_string().into())
            .unwrap();
        let answer = exchange(self.http, request).await;
        answer["outputs"][0]["data"][0]
            .as_f64()
            .unwrap_or_else(|| panic!("{answer}"))
    }

    /// Proportional set size in bytes; also checks that the server responds.
    fn pss(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", self.pid)).unwrap();
        let line = text.lines().find(|line| line.starts_with("Pss:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }
}

/// The only entry of a cache folder.
fn entry(cache: &Path) -> PathBuf {
    let mut entries = std::fs::read_dir(cache).unwrap();
    let entry = entries.next().unwrap().unwrap().path();
    assert!(
        entries.next().is_none(),
        "nothing else is left in {}",
        cache.display()
    );
    entry
}

fn copy(package: &str, to: &Path) {
    for file in std::fs::read_dir(example(package)).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

/// Without the cache, every start of a container optimises again.
#[tokio::test]
async fn a_graph_is_optimised_once_and_a_damaged_one_is_made_again() {
    let (package, cache) = (example("efficientnet-lite0"), tempfile::tempdir().unwrap());
    let first = start(&package, Some(cache.path()));
    assert_eq!(first.graph().await, "Optimised");
    let expected = first.classify().await;
    assert!(expected[0]["label"].as_str().is_some(), "{expected}");
    drop(first);

    let second = start(&package, Some(cache.path()));
    assert_eq!(second.graph().await, "Cached");
    assert_eq!(second.classify().await, expected);
    drop(second);

    // One bit of one weight.
    let weights = entry(cache.path()).join("weights.bin");
    let mut bytes = std::fs::read(&weights).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&weights, bytes).unwrap();
    let third = start(&package, Some(cache.path()));
    assert_eq!(third.graph().await, "Optimised");
    assert_eq!(third.classify().await, expected);
    drop(third);
    assert_eq!(start(&package, Some(cache.path())).graph().await, "Cached");
}

/// A graph is read before the digest of the model is known: another model's graph must not be used in its place.
#[tokio::test]
async fn models_of_the_same_size_are_served_from_graphs_of_their_own() {
    let (width, cache) = (64, tempfile::tempdir().unwrap());
    let (model, weights) = matmul(width, None);
    let first = model.windows(weights.len()).position(|part| part == weights);
    let first = first.unwrap();
    let mut other = model.clone();
    other[first..first + 4].copy_from_slice(&1000f32.to_le_bytes());
    let [model, other] = [model, other].map(|bytes| {
        let package = tempfile::tempdir().unwrap();
        std::fs::write(package.path().join("model.onnx"), bytes).unwrap();
        package
    });
    for graph in ["Optimised", "Cached", "Cached"] {
        for (package, is_large) in [(&model, false), (&other, true)] {
            let server = start(package.path(), Some(cache.path()));
            assert_eq!(server.graph().await, graph);
            assert_eq!(server.multiply(width).await > 500.0, is_large);
        }
    }
}

/// With a memory map, a file that shrinks raises SIGBUS: a stray `cp` would kill the server.
#[tokio::test]
async fn files_that_change_under_a_running_server_change_nothing() {
    let (package, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    copy("efficientnet-lite0", package.path());
    let server = start(package.path(), Some(cache.path()));
    let expected = server.classify().await;
    let entry = entry(cache.path());
    for file in [
        package.path().join("model.onnx"),
        package.path().join("model.yaml"),
        entry.join("graph.onnx"),
        entry.join("weights.bin"),
    ] {
        std::fs::File::create(&file).unwrap();
        assert_eq!(server.classify().await, expected, "{}", file.display());
        std::fs::rename(&file, file.with_extension("old")).unwrap();
        std::fs::write(&file, "something else").unwrap();
        assert_eq!(server.classify().await, expected, "{}", file.display());
    }
}

/// What is baked into a package speeds up the first start of every pod.
#[tokio::test]
async fn a_package_can_carry_its_optimised_graph() {
    let package = tempfile::tempdir().unwrap();
    copy("efficientnet-lite0", package.path());
    let optimize = || {
        let command = std::process::Command::new(env!("CARGO_BIN_EXE_modelservice-server"))
            .arg("optimize")
            .arg(package.path())
            .arg("--onnx-runtime")
            .arg(library())
            .output();
        let output = command.unwrap();
        assert!(output.status.success(), "{output:?}");
        entry(&package.path().join(".optimized"))
    };
    let graph = optimize();
    let made = std::fs::metadata(graph.join("weights.bin"))
        .unwrap()
        .modified()
        .unwrap();
    assert_eq!(optimize(), graph, "a second time it keeps what is there");
    let kept = std::fs::metadata(graph.join("weights.bin"))
        .unwrap()
        .modified()
        .unwrap();
    assert_eq!(kept, made);
    let server = start(package.path(), None);
    assert_eq!(server.graph().await, "Cached");
    let plain = start(&example("efficientnet-lite0"), None);
    assert_eq!(server.classify().await, plain.classify().await);
}

/// A graph has its own weights: with a digest that does not cover it, other weights could be served.
#[tokio::test]
async fn a_graph_in_a_package_is_used_if_the_digest_covers_it() {
    let package = tempfile::tempdir().unwrap();
    copy("tiny", package.path());
    let command = |name: &str| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_modelservice-server"))
            .arg(name)
            .arg(package.path())
            .arg("--onnx-runtime")
            .arg(library())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    command("optimize");
    let of_package = command("digest").trim_end().to_owned();
    let model = std::fs::read(package.path().join("model.onnx")).unwrap();
    let of_model = format!("sha256:{:x}", Sha256::digest(&model));
    for (wanted, graph, covers) in [
        (None, "Cached", "ModelFile"),
        (Some(&of_package), "Cached", "Package"),
        (Some(&of_model), "Optimised", "ModelFile"),
    ] {
        let mut config = json!({"models": [{"name": "m", "path": package.path()}]});
        if let Some(wanted) = wanted {
            config["models"][0]["digest"] = json!(wanted);
        }
        let mut server = Server::start(&config.to_string(), &[]);
        let (_, management) = server.addresses();
        let request = Request::get("/report").header("host", "m").body(Full::default());
        let report = exchange(management, request.unwrap()).await["models"][0].clone();
        assert_eq!(report["graph"], graph, "{wanted:?}");
        assert_eq!(report["digest"], json!(wanted.unwrap_or(&of_model)));
        assert_eq!(report["digestCovers"], covers, "{wanted:?}");
        assert_eq!(report["digestChecked"], json!(wanted.is_some()));
    }
}

/// A server that cannot write anywhere still serves.
#[tokio::test]
async fn a_cache_that_cannot_be_written_costs_time_and_memory_and_nothing_else() {
    let nowhere = tempfile::NamedTempFile::new().unwrap();
    let server = start(
        &example("efficientnet-lite0"),
        Some(&nowhere.path().join("below")),
    );
    assert_eq!(server.graph().await, "Original");
    assert!(server.classify().await[0]["label"].as_str().is_some());
}

#[tokio::test]
async fn weights_may_be_in_a_file_beside_the_model() {
    let width = 64;
    let (folder, (model, weights)) = (tempfile::tempdir().unwrap(), matmul(width, Some("weights.data")));
    std::fs::write(folder.path().join("model.onnx"), model).unwrap();
    std::fs::write(folder.path().join("weights.data"), &weights).unwrap();
    let column = weights.chunks_exact(4).step_by(64);
    let expected: f32 = column
        .map(|four| f32::from_le_bytes(four.try_into().unwrap()))
        .sum();
    let answer = start(folder.path(), None).multiply(width).await;
    assert!((answer - f64::from(expected)).abs() < 1e-3, "{answer} {expected}");
}

/// ONNX Runtime reads the weights of a branch from a folder, or else from the working directory: they must be the
/// package's, and not those of another file with the same name.
#[tokio::test]
async fn weights_of_a_branch_may_be_in_a_file_beside_the_model_and_are_taken_from_nowhere_else() {
    let (width, package, cache) = (64, tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let name = "below/weights.data";
    let (_, weights) = matmul(width, None);
    std::fs::write(package.path().join("model.onnx"), conditional(width, name)).unwrap();
    std::fs::create_dir(package.path().join("below")).unwrap();
    std::fs::write(package.path().join(name), &weights).unwrap();
    let column = weights.chunks_exact(4).step_by(64);
    let expected: f32 = column
        .map(|four| f32::from_le_bytes(four.try_into().unwrap()))
        .sum();
    for graph in ["Optimised", "Cached"] {
        let server = start(package.path(), Some(cache.path()));
        assert_eq!(server.graph().await, graph);
        let answer = server.multiply(width).await;
        assert!((answer - f64::from(expected)).abs() < 1e-3, "{answer} {expected}");
    }
    std::fs::remove_file(package.path().join(name)).unwrap();
    let config = json!({"models": [{"name": "m", "path": package.path()}]});
    let elsewhere = tempfile::tempdir().unwrap();
    std::fs::create_dir(elsewhere.path().join("below")).unwrap();
    std::fs::write(elsewhere.path().join(name), &weights).unwrap();
    let directory = format!("--chdir={}", elsewhere.path().display());
    let mut server = Server::start_with(&["env", &directory], &config.to_string(), &[]);
    assert_eq!(server.wait().code(), Some(13));
}

/// Text that is not UTF-8 hides a file's name from some ONNX readers, but not from ONNX Runtime.
#[tokio::test]
async fn a_model_that_is_only_half_understood_gets_no_file_that_was_not_checked() {
    let (package, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (mut model, weights) = matmul(64, Some("weights.data"));
    // The producer's name.
    model.extend([0x12, 2, 0xff, 0xfe]);
    std::fs::write(package.path().join("model.onnx"), model).unwrap();
    std::fs::write(elsewhere.path().join("weights.data"), weights).unwrap();
    let directory = format!("--chdir={}", elsewhere.path().display());
    let config = json!({"models": [{"name": "m", "path": package.path()}]});
    let mut server = Server::start_with(&["env", &directory], &config.to_string(), &[]);
    assert_eq!(server.wait().code(), Some(13));
}

/// If each session had its own weights, they would take several times the memory of the model.
#[tokio::test]
async fn sessions_share_weights_and_what_kernels_pack_of_them() {
    let width = 4096;
    let (folder, (model, weights)) = (tempfile::tempdir().unwrap(), matmul(width, None));
    std::fs::write(folder.path().join("model.onnx"), model).unwrap();
    let on = |cores: &str| {
        let config = json!({"models": [{"name": "m", "path": folder.path()}]}).to_string();
        Running::of(Server::start_with(
            &["taskset", "--cpu-list", cores],
            &config,
            &[],
        ))
    };
    let all = format!("0-{}", std::thread::available_parallelism().unwrap().get() - 1);
    let (one, many) = (on("0"), on(&all));
    assert_eq!(one.multiply(width).await, many.multiply(width).await);
    let more = || many.pss().saturating_sub(one.pss());
    // In idle moments a server measures on another session, for a while.
    let patience = Instant::now() + Duration::from_secs(30);
    let most = weights.len() as u64 / 2;
    while more() >= most && Instant::now() < patience {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(
        more() < most,
        "sessions for more cores take {} bytes more, the weights have {}",
        more(),
        weights.len()
    );
}

/// ONNX Runtime's convolutions take 6 to 8 % longer with weights that are not aligned.
#[test]
fn weights_are_aligned_wherever_they_come_from() {
    const ALIGNMENT: usize = 64;
    ort::init_from(library()).unwrap().build().unwrap();
    let bytes: Vec<u8> = (0..=255).collect();
    for start in 0..8 {
        let weight = weight(2, &[2, 100], &bytes[start..start + 200]).unwrap();
        let (shape, elements) = weight.try_extract_tensor::<u8>().unwrap();
        assert_eq!((&**shape, elements), (&[2, 100][..], &bytes[start..start + 200]));
        assert_eq!(elements.as_ptr().align_offset(ALIGNMENT), 0);
    }
    assert!(weight(2, &[2, 100], &bytes[..199]).is_none());
    assert!(weight(8, &[1], &bytes[..1]).is_none());
}
