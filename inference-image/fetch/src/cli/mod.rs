//! The program: arguments, log, signals, and how it ends.

mod arguments;
mod ending;

pub use arguments::{Arguments, Command, LogFormat, What};

use crate::error::FetchError;
use crate::fetch::{fetch, verify};
use crate::http::Policy;
use crate::resolve::{Behaviour, resolve};
use crate::source;
use modelservice_contract::{FETCH_CONFIG_ENV, FetchConfig, FetchReason, MODEL_PATH, Resolved};
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Exit code after SIGTERM, as if it had not been caught: 128 + 15.
const STOPPED: u8 = 143;
/// Threads for files: they wait for disks. Each has a stack.
const FILE_THREADS: usize = 16;

/// Runs the program.
#[must_use]
pub fn run(arguments: &Arguments) -> ExitCode {
    log(arguments);
    // Servers read the files as another user. Pods that share a cache share a group (fsGroup), if not a user.
    rustix::process::umask(rustix::fs::Mode::WOTH);
    match live(arguments) {
        Ok(Ended::Done(resolved)) => {
            if let Some(resolved) = resolved {
                ending::write(&arguments.termination_log, &resolved);
            }
            ExitCode::SUCCESS
        }
        Ok(Ended::Stopped) => {
            tracing::warn!("told to stop; what has arrived is kept for the next attempt");
            ExitCode::from(STOPPED)
        }
        Err(error) => {
            tracing::error!(reason = ?error.reason, "{error}");
            ending::write(&arguments.termination_log, &ending::failure(&error));
            ExitCode::from(error.reason.code())
        }
    }
}

/// How it ended without a failure.
enum Ended {
    Done(Option<Resolved>),
    Stopped,
}

fn live(arguments: &Arguments) -> Result<Ended, FetchError> {
    let system = |error| FetchError::new(FetchReason::SystemError, format!("cannot start: {error}"));
    // One thread for all connections: the network is slower.
    let mut builder = Builder::new_current_thread();
    let runtime = builder
        .enable_all()
        .max_blocking_threads(FILE_THREADS)
        .build()
        .map_err(system)?;
    let ended = runtime.block_on(async {
        let mut terminated = signal(SignalKind::terminate()).map_err(system)?;
        let mut interrupted = signal(SignalKind::interrupt()).map_err(system)?;
        tokio::select! {
            done = execute(&arguments.command) => Ok(Ended::Done(done?)),
            _ = terminated.recv() => Ok(Ended::Stopped),
            _ = interrupted.recv() => Ok(Ended::Stopped),
        }
    });
    // A thread may be unpacking: its result is not needed any more.
    runtime.shutdown_background();
    ended
}

async fn execute(command: &Command) -> Result<Option<Resolved>, FetchError> {
    let environment = std::env::var(FETCH_CONFIG_ENV).ok();
    let behaviour = Behaviour::default();
    let policy = Policy::of_pod().await;
    let open = |config: &FetchConfig| source::open(config, &policy);
    match command {
        Command::Resolve { what } => {
            let config = what.config(environment.as_deref())?;
            let resolved = resolve(&config, &open, &behaviour).await?;
            print(&serde_json::to_string(&resolved).unwrap_or_default())?;
            Ok(Some(resolved))
        }
        Command::Fetch { what, folder, into } => {
            let config = what.config(environment.as_deref())?;
            let folder = folder.as_deref().or(into.as_deref());
            // With a cache, the server reads the package there unless a folder is named.
            let by_default = config.cache.is_none().then_some(Path::new(MODEL_PATH));
            let outcome = fetch(&config, &open, folder.or(by_default), &behaviour).await?;
            tracing::info!(
                digest = outcome.marker.digest,
                bytes = outcome.marker.bytes,
                received = outcome.received,
                kept = outcome.kept,
                "the model is ready"
            );
            Ok(None)
        }
        Command::Verify { folder, digest } => {
            let config = match (folder, &environment) {
                // What is mounted for the server: no fetcher has put it there.
                (None, Some(text)) => Some(arguments::parse(text)?),
                _ => None,
            };
            let digest = digest
                .as_ref()
                .or(config.as_ref().and_then(|config| config.digest.as_ref()));
            let folder = folder.as_deref().unwrap_or(Path::new(MODEL_PATH));
            let verification = config.as_ref().and_then(|config| config.verification.as_ref());
            print(&verify(folder, digest.map(String::as_str), verification).await?)?;
            Ok(None)
        }
    }
}

fn print(line: &str) -> Result<(), FetchError> {
    let written = writeln!(std::io::stdout(), "{line}");
    written.map_err(|error| FetchError::new(FetchReason::SystemError, format!("cannot print: {error}")))
}

/// The log goes to the standard error: the output is for what was asked.
fn log(arguments: &Arguments) {
    let for_people = std::io::stderr().is_terminal();
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(&arguments.log_level))
        .with_ansi(for_people)
        .with_writer(std::io::stderr);
    let by_default = if for_people {
        LogFormat::Text
    } else {
        LogFormat::Json
    };
    match arguments.log_format.unwrap_or(by_default) {
        LogFormat::Json => subscriber.json().flatten_event(true).init(),
        LogFormat::Text => subscriber.init(),
    }
}
