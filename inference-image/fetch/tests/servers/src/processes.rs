//! The object stores: real servers as processes, each with an account that may do everything.

use crate::{certificate::Certificate, place::Place};
use std::{
    fs,
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;
use url::Url;

/// The account of versitygw, whose secret is needed to sign.
pub const S3_KEY_ID: &str = "AKIATESTSTORES";
pub const S3_SECRET: &str = "tests-secret-of-the-stores";
/// Another account of versitygw, which may do the same.
pub const S3_OTHER_KEY_ID: &str = "AKIARENEWED";
pub const S3_OTHER_SECRET: &str = "another-secret-of-the-stores";
/// The account of every azurite, published in its manual.
pub const AZURE_ACCOUNT: &str = "devstoreaccount1";
pub const AZURE_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// How long a server may take to start.
const START: Duration = Duration::from_secs(60);

/// The servers. They end with this value.
pub struct Servers {
    pub s3: Url,
    pub gcs: Url,
    pub azure: Url,
    _processes: [Process; 3],
    folder: TempDir,
}

/// What versitygw has in its buckets, over TLS: a web server for whatever everybody may read.
pub struct Web {
    pub url: Url,
    /// The authority of its certificate, as PEM.
    pub authority: String,
    _process: Process,
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
    /// Starts the object stores.
    ///
    /// # Errors
    /// When a program is missing, or does not start; the message says what to do, or what it said.
    pub fn start(place: &Place) -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(text)?;
        let (s3, s3_process) = versitygw(place, folder.path())?;
        let (gcs, gcs_process) = fake_gcs(place)?;
        let (azure, azure_process) = azurite(place, folder.path())?;
        Ok(Self {
            s3: url("http", s3, ""),
            gcs: url("http", gcs, ""),
            azure: url("http", azure, AZURE_ACCOUNT),
            _processes: [s3_process, gcs_process, azure_process],
            folder,
        })
    }

    /// Starts a web server.
    ///
    /// # Errors
    /// As those of [`Servers::start`].
    pub fn web(&self, place: &Place) -> Result<Web, String> {
        let (address, folder) = (place.free_address().map_err(text)?, self.folder.path());
        let certificate = Certificate::of(&address.ip().to_string());
        let files = [
            ("web.crt", certificate.server.pem()),
            ("web.key", certificate.key.serialize_pem()),
        ];
        let [certificate_file, key_file] = files.map(|(name, content)| {
            let path = folder.join(name);
            fs::write(&path, content).map(|()| path)
        });
        let mut command = place.command(&program("versitygw")?);
        command
            .arg("--cert")
            .arg(certificate_file.map_err(text)?)
            .arg("--key")
            .arg(key_file.map_err(text)?);
        Ok(Web {
            url: url("https", address, ""),
            authority: certificate.authority,
            _process: serve(gateway(command, folder, address), address)?,
        })
    }
}

fn text(error: std::io::Error) -> String {
    error.to_string()
}

fn url(scheme: &str, address: SocketAddr, path: &str) -> Url {
    Url::parse(&format!("{scheme}://{address}/{path}")).unwrap()
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../..")
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

fn versitygw(place: &Place, folder: &Path) -> Result<(SocketAddr, Process), String> {
    for name in ["objects", "versions", "metadata", "accounts"] {
        fs::create_dir(folder.join(name)).map_err(text)?;
    }
    let account =
        format!(r#"{{"access": "{S3_OTHER_KEY_ID}", "secret": "{S3_OTHER_SECRET}", "role": "admin"}}"#);
    let accounts = format!(r#"{{"accessAccounts": {{"{S3_OTHER_KEY_ID}": {account}}}}}"#);
    fs::write(folder.join("accounts/users.json"), accounts).map_err(text)?;
    let address = place.free_address().map_err(text)?;
    let command = place.command(&program("versitygw")?);
    Ok((address, serve(gateway(command, folder, address), address)?))
}

/// What versitygw is told wherever it listens. Several can serve one folder.
fn gateway(mut command: Command, folder: &Path, address: SocketAddr) -> Command {
    command
        .args(["--port", &address.to_string()])
        .args(["--access", S3_KEY_ID, "--secret", S3_SECRET, "--quiet"])
        .arg("--iam-dir")
        .arg(folder.join("accounts"))
        .args(["--keep-alive", "posix", "--versioning-dir"])
        .arg(folder.join("versions"))
        // The temporary folder may have no extended attributes.
        .arg("--sidecar")
        .arg(folder.join("metadata"))
        .arg(folder.join("objects"));
    command
}

fn fake_gcs(place: &Place) -> Result<(SocketAddr, Process), String> {
    let address = place.free_address().map_err(text)?;
    let mut command = place.command(&program("fake-gcs-server")?);
    command
        .args(["-backend", "memory", "-scheme", "http", "-log-level", "error"])
        .args(["-host", &address.ip().to_string()])
        .args(["-port", &address.port().to_string()])
        .args(["-public-host", &address.to_string()])
        // Without it, it looks for objects in /data.
        .args(["-data", "/nonexistent"]);
    Ok((address, serve(command, address)?))
}

fn azurite(place: &Place, folder: &Path) -> Result<(SocketAddr, Process), String> {
    let script = repository().join(".cache/azurite/node_modules/.bin/azurite-blob");
    if !script.exists() {
        return Err(format!(
            "{} is missing; install it with inference-image/fetch/tests/azurite/prepare",
            script.display()
        ));
    }
    let address = place.free_address().map_err(text)?;
    let mut command = place.command(&script);
    // It writes where it is.
    command
        .current_dir(folder)
        .args([
            "--inMemoryPersistence",
            "--disableTelemetry",
            "--skipApiVersionCheck",
            "--silent",
        ])
        .args(["--blobHost", &address.ip().to_string()])
        .args(["--blobPort", &address.port().to_string()]);
    Ok((address, serve(command, address)?))
}

fn serve(mut command: Command, address: SocketAddr) -> Result<Process, String> {
    let shown = format!("{command:?}");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut process = Process(command.spawn().map_err(|error| format!("{shown}: {error}"))?);
    let deadline = Instant::now() + START;
    while std::net::TcpStream::connect(address).is_err() {
        if process.0.try_wait().map_err(text)?.is_some() || Instant::now() > deadline {
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
    Ok(process)
}
