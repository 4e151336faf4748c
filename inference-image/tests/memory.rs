//! What runs of many sizes, and huge ones, leave of the server's memory: real processes, one of them in a control group of
//! 512 MiB, which needs root.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Bytes;
use prost::Message;
use serde_json::{Value, json};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use support::Server;
use support::http::{Sender, connect, post};
use support::onnx::{FLOAT, Graph, INT64, Model, Port, model, node, port, tensor, unshaped};

const MEBIBYTE: u64 = 1 << 20;
const DEADLINE: Duration = Duration::from_secs(30);

/// Images of any size, through some layers to one number for each of eight channels. One of 900 × 900 pixels needs
/// more than 100 MiB.
fn any_size() -> Model {
    let weight = |name: &str, inputs: i64| {
        let values = (0..8 * inputs * 9).map(|index| ((index % 7) as f32 - 3.0) / 20.0);
        let bytes: Vec<u8> = values.flat_map(f32::to_le_bytes).collect();
        tensor(name, FLOAT, &[8, inputs, 3, 3], &bytes)
    };
    let convolution =
        |inputs: &[&str], output: &str| node("Conv", inputs, &[output]).ints("pads", &[1, 1, 1, 1]);
    model(Graph {
        nodes: vec![
            convolution(&["x", "w1"], "a"),
            node("Sigmoid", &["a"], &["b"]),
            convolution(&["b", "w2"], "c"),
            node("Add", &["b", "c"], &["d"]),
            node("GlobalAveragePool", &["d"], &["y"]),
        ],
        name: "any-size".into(),
        initializers: vec![weight("w1", 3), weight("w2", 8)],
        inputs: vec![port("x", FLOAT, &[-1, 3, -1, -1])],
        outputs: vec![port("y", FLOAT, &[-1, 8, 1, 1])],
    })
}

/// As many zeros as `n` says, of which only their sum is answered, or all.
fn zeros(inputs: Vec<Port>, all: bool) -> Model {
    let sum = node("ReduceSum", &["zeros"], &["y"]).int("keepdims", 0);
    let zeros = node("ConstantOfShape", &["n"], &[if all { "y" } else { "zeros" }]);
    let output = if all {
        unshaped("y", FLOAT)
    } else {
        port("y", FLOAT, &[])
    };
    model(Graph {
        nodes: if all { vec![zeros] } else { vec![zeros, sum] },
        name: "zeros".into(),
        initializers: Vec::new(),
        inputs,
        outputs: vec![output],
    })
}

/// The mean of each row, which takes 16 KiB.
fn rows() -> Model {
    let repeats: Vec<u8> = [1_i64, 1024].iter().flat_map(|size| size.to_le_bytes()).collect();
    model(Graph {
        nodes: vec![
            node("Tile", &["x", "repeats"], &["wide"]),
            node("ReduceMean", &["wide"], &["y"]).ints("axes", &[1]),
        ],
        name: "rows".into(),
        initializers: vec![tensor("repeats", INT64, &[2], &repeats)],
        inputs: vec![port("x", FLOAT, &[-1, 4])],
        outputs: vec![port("y", FLOAT, &[-1, 1])],
    })
}

struct Running {
    server: Server,
    http: SocketAddr,
}

/// Starts the server, through another program if there is one.
fn start(folder: &Path, program: &[&str]) -> Running {
    let models = [
        ("any-size", any_size()),
        ("sum", zeros(vec![port("n", INT64, &[1])], false)),
        ("zeros", zeros(vec![port("n", INT64, &[1])], true)),
        ("rows", rows()),
    ];
    let package = |(name, model): (&str, Model)| {
        let path = folder.join(name);
        fs::create_dir(&path).unwrap();
        fs::write(path.join("model.onnx"), model.encode_to_vec()).unwrap();
        json!({"name": name, "path": path})
    };
    let models: Vec<Value> = models.into_iter().map(package).collect();
    let config = json!({ "models": models }).to_string();
    let mut server = if program.is_empty() {
        Server::start(&config, &[])
    } else {
        Server::start_with(program, &config, &[])
    };
    let (http, _) = server.addresses();
    Running { server, http }
}

impl Running {
    /// A number of `/proc/PID/status`, in bytes.
    fn status(&self, key: &str) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/status", self.server.pid())).unwrap();
        let line = text.lines().find(|line| line.starts_with(key)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }

    fn resident(&self) -> u64 {
        self.status("VmRSS:")
    }

    /// The most since this was called last.
    fn most(&self) -> u64 {
        let most = self.status("VmHWM:");
        fs::write(format!("/proc/{}/clear_refs", self.server.pid()), "5").unwrap();
        most
    }

    async fn wait_until_at_most(&self, bytes: u64, what: &str) {
        let deadline = Instant::now() + DEADLINE;
        while self.resident() > bytes {
            let (now, bytes) = (self.resident() / MEBIBYTE, bytes / MEBIBYTE);
            assert!(Instant::now() < deadline, "{what}: {now} MiB, not {bytes}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn infer(model: &str, input: &str, datatype: &str, shape: &[usize], elements: &[u8]) -> Request<Full<Bytes>> {
    let parameters = json!({"binary_data_size": elements.len()});
    let input = json!({"name": input, "datatype": datatype, "shape": shape, "parameters": parameters});
    let head = json!({"inputs": [input], "parameters": {"binary_data_output": true}}).to_string();
    let mut request = post(
        &format!("/v2/models/{model}/infer"),
        [head.as_bytes(), elements].concat(),
    );
    let length = head.len().into();
    request
        .headers_mut()
        .insert("inference-header-content-length", length);
    request
}

fn image(height: usize, width: usize) -> Request<Full<Bytes>> {
    infer(
        "any-size",
        "x",
        "FP32",
        &[1, 3, height, width],
        &vec![0; 12 * height * width],
    )
}

fn number(model: &str, n: i64) -> Request<Full<Bytes>> {
    infer(model, "n", "INT64", &[1], &n.to_le_bytes())
}

async fn answered(sender: &mut Sender, request: Request<Full<Bytes>>) {
    sender.ready().await.unwrap();
    let response = sender.send_request(request).await.unwrap();
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(
        status,
        200,
        "{}",
        String::from_utf8_lossy(&body[..body.len().min(500)])
    );
}

/// A container of 512 MiB was ended after some hundred images of different sizes, each of which needs a fifth of that at most.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_512_mebibytes_survives_images_of_any_size() {
    let folder = tempfile::tempdir().unwrap();
    let group = Group::new(512 * MEBIBYTE);
    let enter = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", group.0.display());
    let running = start(folder.path(), &["sh", "-c", &enter, "sh"]);
    let before = running.resident();
    let client = async |seed: usize| {
        let mut sender = connect(running.http).await;
        let mut random = seed;
        let mut side = || {
            random = (random * 1_103_515_245 + 12345) % (1 << 31);
            200 + (random >> 8) % 701
        };
        for _ in 0..80 {
            answered(&mut sender, image(side(), side())).await;
        }
    };
    tokio::join!(client(1), client(2));
    running
        .wait_until_at_most(before + 40 * MEBIBYTE, "afterwards")
        .await;
}

/// One request used to take its memory for ever.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_huge_run_has_used_is_returned() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(folder.path(), &[]);
    let mut sender = connect(running.http).await;
    let huge = [
        ("an image", image(2000, 2000)),
        ("a tensor within the graph", number("sum", 100 << 20)),
        ("an output", number("zeros", 32 << 20)),
        (
            "many rows",
            infer("rows", "x", "FP32", &[8192, 4], &[0; 8192 * 16]),
        ),
    ];
    let before = running.resident();
    for (what, request) in huge {
        running.most();
        for _ in 0..2 {
            answered(&mut sender, request.clone()).await;
        }
        let most = running.most();
        assert!(most > before + 100 * MEBIBYTE, "{what}: {} MiB", most / MEBIBYTE);
        running.wait_until_at_most(before + 40 * MEBIBYTE, what).await;
    }
}

/// A control group, removed with the test.
struct Group(PathBuf);

impl Group {
    fn new(bytes: u64) -> Self {
        let root = Path::new("/sys/fs/cgroup");
        let name = format!("msvc-memory-{}", std::process::id());
        if root.join("cgroup.controllers").exists() {
            let _ = fs::write(root.join("cgroup.subtree_control"), "+memory");
            let group = Self(root.join(name));
            group.limit(&[("memory.max", bytes), ("memory.swap.max", 0)]);
            group
        } else {
            let group = Self(root.join("memory").join(name));
            group.limit(&[
                ("memory.limit_in_bytes", bytes),
                ("memory.memsw.limit_in_bytes", bytes),
            ]);
            group
        }
    }

    /// Without swap, there is no file for it.
    fn limit(&self, limits: &[(&str, u64)]) {
        fs::create_dir(&self.0).unwrap_or_else(|error| panic!("{}: {error}", self.0.display()));
        let exists = |file: &str| self.0.join(file).exists();
        assert!(exists(limits[0].0), "no {} in {}", limits[0].0, self.0.display());
        for (file, bytes) in limits.iter().filter(|(file, _)| exists(file)) {
            fs::write(self.0.join(file), bytes.to_string()).unwrap();
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The kernel lets go of it a moment after its last process.
        let deadline = Instant::now() + DEADLINE;
        while fs::remove_dir(&self.0).is_err() && Instant::now() < deadline {
            std::thread::yield_now();
        }
    }
}
