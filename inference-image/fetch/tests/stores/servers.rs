//! The stores: real servers as processes on this machine, each started once, each test with buckets of its own.

use http::{HeaderMap, Method, header};
use modelservice_fetch::http::{Audience, Client, Policy, Request, Response, Timeouts};
use object_store::{
    aws::{AwsAuthorizer, AwsCredential},
    azure::{AzureAccessKey, AzureAuthorizer, AzureCredential},
    client::{HttpRequest, HttpRequestBody},
};
use std::{
    io::{BufRead, BufReader, Read},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use url::Url;

/// The account of versitygw, whose secret is needed to sign.
pub(crate) const S3_KEY_ID: &str = "AKIATESTSTORES";
pub(crate) const S3_SECRET: &str = "tests-secret-of-the-stores";
/// Another account of versitygw, which may do the same.
pub(crate) const S3_OTHER_KEY_ID: &str = "AKIARENEWED";
pub(crate) const S3_OTHER_SECRET: &str = "another-secret-of-the-stores";
/// The account of every azurite, published in its manual.
pub(crate) const AZURE_ACCOUNT: &str = "devstoreaccount1";
pub(crate) const AZURE_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// How long a server may take to start.
const START: Duration = Duration::from_secs(60);

/// The servers. They end with this value.
pub(crate) struct Servers {
    pub(crate) s3: Url,
    pub(crate) gcs: Url,
    pub(crate) azure: Url,
    _processes: [Process; 3],
    _folder: tempfile::TempDir,
}

/// A server's process, which ends with this value.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Servers {
    pub(crate) fn start() -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let (s3, s3_process) = versitygw(folder.path())?;
        let (gcs, gcs_process) = fake_gcs()?;
        let (azure, azure_process) = azurite(folder.path())?;
        Ok(Self {
            s3,
            gcs,
            azure,
            _processes: [s3_process, gcs_process, azure_process],
            _folder: folder,
        })
    }
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn program(name: &str) -> Result<PathBuf, String> {
    let path = repository().join(".cache/tools/bin").join(name);
    if path.exists() {
        return Ok(path);
    }
    Err(format!(
        "{} is missing; build it with `scripts/tools versitygw fake-gcs`",
        path.display()
    ))
}

fn versitygw(folder: &Path) -> Result<(Url, Process), String> {
    let port = free_port()?;
    for name in ["objects", "versions", "metadata", "accounts"] {
        std::fs::create_dir(folder.join(name)).map_err(|error| error.to_string())?;
    }
    let account =
        format!(r#"{{"access": "{S3_OTHER_KEY_ID}", "secret": "{S3_OTHER_SECRET}", "role": "admin"}}"#);
    let accounts = format!(r#"{{"accessAccounts": {{"{S3_OTHER_KEY_ID}": {account}}}}}"#);
    std::fs::write(folder.join("accounts/users.json"), accounts).map_err(|error| error.to_string())?;
    let mut command = Command::new(program("versitygw")?);
    command
        .args([
            "--port",
            &format!("127.0.0.1:{port}"),
            "--access",
            S3_KEY_ID,
            "--secret",
            S3_SECRET,
            "--quiet",
        ])
        .arg("--iam-dir")
        .arg(folder.join("accounts"))
        .args(["--keep-alive", "posix", "--versioning-dir"])
        .arg(folder.join("versions"))
        // The temporary folder may have no extended attributes.
        .arg("--sidecar")
        .arg(folder.join("metadata"))
        .arg(folder.join("objects"));
    serve(command, port, "")
}

fn fake_gcs() -> Result<(Url, Process), String> {
    let port = free_port()?;
    let mut command = Command::new(program("fake-gcs-server")?);
    command
        .args([
            "-backend",
            "memory",
            "-scheme",
            "http",
            "-host",
            "127.0.0.1",
            "-log-level",
            "error",
        ])
        .args([
            "-port",
            &port.to_string(),
            "-public-host",
            &format!("127.0.0.1:{port}"),
        ])
        // Without it, it looks for objects in /data.
        .args(["-data", "/nonexistent"]);
    serve(command, port, "")
}

fn azurite(folder: &Path) -> Result<(Url, Process), String> {
    let script = repository().join(".cache/azurite/node_modules/.bin/azurite-blob");
    if !script.exists() {
        return Err(format!(
            "{} is missing; install it with inference-image/fetch/tests/azurite/prepare",
            script.display()
        ));
    }
    let port = free_port()?;
    let mut command = Command::new(script);
    // It writes where it is.
    command
        .current_dir(folder)
        .args([
            "--inMemoryPersistence",
            "--disableTelemetry",
            "--skipApiVersionCheck",
            "--silent",
        ])
        .args(["--blobPort", &port.to_string()]);
    serve(command, port, AZURE_ACCOUNT)
}

/// A port that is free now. Nobody else takes it in the moment before the server does, or its start fails.
fn free_port() -> Result<u16, String> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
    listener
        .local_addr()
        .map(|address| address.port())
        .map_err(|error| error.to_string())
}

fn serve(mut command: Command, port: u16, path: &str) -> Result<(Url, Process), String> {
    let shown = format!("{command:?}");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut process = Process(command.spawn().map_err(|error| format!("{shown}: {error}"))?);
    let deadline = Instant::now() + START;
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        if process.0.try_wait().map_err(|error| error.to_string())?.is_some() || Instant::now() > deadline {
            let _ = process.0.kill();
            let mut said = String::new();
            let _ = process
                .0
                .stderr
                .take()
                .map(|mut stderr| stderr.read_to_string(&mut said));
            return Err(format!("{shown} did not start: {said}"));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    // Read, so that the server does not block.
    if let Some(stderr) = process.0.stderr.take() {
        std::thread::spawn(move || {
            BufReader::new(stderr)
                .lines()
                .map_while(Result::ok)
                .for_each(drop)
        });
    }
    let url = Url::parse(&format!("http://127.0.0.1:{port}/{path}")).map_err(|error| error.to_string())?;
    Ok((url, process))
}

/// Sends a request and demands success.
pub(crate) async fn send(method: Method, url: Url, headers: HeaderMap, body: Vec<u8>) -> Response {
    let shown = format!("{method} {url}");
    let client = Client::new(Policy::default().with_loopback(), None, Timeouts::default()).unwrap();
    let request = Request::new(method, url.clone())
        .headers(headers)
        .body(body)
        .audience(Audience::origin_of(&url));
    let response = client.send(request).await.unwrap();
    let (status, headers) = (response.status, response.headers.clone());
    if status.is_success() {
        return response;
    }
    let said = response.bytes(1 << 20).await.unwrap();
    panic!("{shown}: {status} {headers:?} {}", String::from_utf8_lossy(&said));
}

fn unsigned(method: &Method, url: &Url, body: &[u8]) -> HttpRequest {
    http::Request::builder()
        .method(method)
        .uri(url.as_str())
        .body(HttpRequestBody::from(body.to_vec()))
        .unwrap()
}

/// A request to versitygw, signed. Its answer's version of the object, if there is one.
pub(crate) async fn s3(method: Method, url: Url, body: Vec<u8>) -> Option<String> {
    let credential = AwsCredential {
        key_id: S3_KEY_ID.to_owned(),
        secret_key: S3_SECRET.to_owned(),
        token: None,
    };
    let mut request = unsigned(&method, &url, &body);
    AwsAuthorizer::new(&credential, "s3", "us-east-1")
        .try_authorize(&mut request, None)
        .unwrap();
    let response = send(method, url, request.headers().clone(), body).await;
    response.header("x-amz-version-id").map(str::to_owned)
}

/// A request to azurite, signed.
pub(crate) async fn azure(method: Method, url: Url, headers: HeaderMap, body: Vec<u8>) {
    let credential = AzureCredential::AccessKey(AzureAccessKey::try_new(AZURE_KEY).unwrap());
    let mut request = unsigned(&method, &url, &body);
    *request.headers_mut() = headers;
    request
        .headers_mut()
        .insert(header::CONTENT_LENGTH, body.len().into());
    AzureAuthorizer::new(&credential, AZURE_ACCOUNT)
        .try_authorize(&mut request)
        .unwrap();
    send(method, url, request.headers().clone(), body).await;
}
