//! The process: arguments, load, serve, leave.

use crate::connections::{self, Server, Settings, Tls};
use crate::exit::{self, Fatal};
use crate::front::{Front, Tokens};
use crate::lifecycle::{Lifecycle, Phase};
use crate::metrics::ConnectionMetrics;
use crate::protocol::{self, Management};
use crate::reload::{self, Watched};
use crate::service::Service;
use crate::{cgroup, config};
use clap::{Parser, ValueEnum};
use modelservice_contract::{
    CONFIG_ENV, Drain, ExitReason, HTTP_PORT, MANAGEMENT_PORT, ServerConfig, TERMINATION_LOG,
};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Exit code after a second signal: 128 + 15, as if SIGTERM had not been caught.
const INSISTED: i32 = 143;

/// Connections to the management port.
const MANAGEMENT_CONNECTIONS: usize = 128;

/// ONNX Runtime inference server for image models.
#[derive(Clone, Debug, Parser)]
#[command(name = "modelservice-server", version, args_override_self = true)]
pub struct Arguments {
    /// File with the configuration; without it the environment variable `MODELSERVICE_CONFIG` holds its text.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Checks the configuration and ends.
    #[arg(long)]
    pub check_config: bool,
    /// Port of the inference protocols; 0 is any free one.
    #[arg(long, default_value_t = HTTP_PORT)]
    pub http_port: u16,
    /// Port of health, metrics and the report; 0 is any free one.
    #[arg(long, default_value_t = MANAGEMENT_PORT)]
    pub management_port: u16,
    /// The ONNX Runtime library.
    #[arg(
        long,
        env = "ORT_DYLIB_PATH",
        default_value = "/usr/lib/libonnxruntime.so",
        value_name = "FILE"
    )]
    pub onnx_runtime: PathBuf,
    /// Where the last words go, if that file exists.
    #[arg(long, default_value = TERMINATION_LOG, value_name = "FILE")]
    pub termination_log: PathBuf,
    /// What is logged: a level, or tracing's directives (`info,onnxruntime=debug`).
    #[arg(long, env = "LOG_LEVEL", default_value = "info")]
    pub log_level: String,
    /// How it is logged.
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value_t = LogFormat::Json)]
    pub log_format: LogFormat,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// For people.
    Text,
}

/// Runs the server until it is told to leave.
///
/// # Errors
/// Why it cannot serve.
pub fn run(arguments: &Arguments) -> Result<(), Fatal> {
    let environment = std::env::var(CONFIG_ENV).ok();
    let config = config::load(arguments.config.as_deref(), environment.as_deref())?;
    if arguments.check_config {
        tracing::info!("the configuration is valid");
        return Ok(());
    }
    let cores = cgroup::cores();
    // While nothing waits, a request runs its model on the thread of its connection: one more thread than such
    // runs can be is always there for the other connections.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores + 1)
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| system("cannot start threads", &error))?;
    let result = runtime.block_on(live(arguments, config, cores));
    // What still waits for slow clients is not waited for.
    runtime.shutdown_background();
    result
}

async fn live(arguments: &Arguments, config: ServerConfig, cores: usize) -> Result<(), Fatal> {
    let mut signals = Signals::new()?;
    let management = Management::default();
    let settings = Settings::new(&config.connections, &config.limits, connections::by_open_files());
    let guards = Guards::read(&config)?;
    start_management(listen(arguments.management_port)?, management.clone(), &settings)?;
    let lifecycle = management.lifecycle.clone();
    tracing::info!(cores, models = config.models.len(), "loading");
    let (library, drain) = (arguments.onnx_runtime.clone(), config.drain.clone());
    let loading = tokio::task::spawn_blocking(move || Service::load(&config, &library, cores));
    let service = tokio::select! {
        service = loading => service.map_err(|error| system("loading failed", &error))??,
        () = signals.next() => leave_unloaded(),
    };
    let service = Arc::new(service);
    let listener = listen(arguments.http_port)?;
    let router = protocol::router(Arc::clone(&service), lifecycle.clone());
    let server = guards.server(router, &lifecycle, settings, service.connection_metrics());
    // Set once, here.
    let _ = management.service.set(Arc::clone(&service));
    lifecycle.enter(Phase::Ready);
    // Who waits for this line finds all ready.
    announce(&service, &listener);
    serve_until_told(server, listener, &lifecycle, &drain, signals).await;
    Ok(())
}

/// Who is let in, from files that are looked at while the server runs.
struct Guards {
    tls: Option<(Tls, Watched)>,
    tokens: Option<(Tokens, Watched)>,
}

impl Guards {
    fn read(config: &ServerConfig) -> Result<Self, Fatal> {
        let tls = config.tls.as_ref().map(Tls::read).transpose();
        let tokens = config.auth.as_ref().map(Tokens::read).transpose();
        let invalid = |key: &'static str| {
            move |problem: String| Fatal::new(ExitReason::ConfigInvalid, format!("{key}: {problem}"))
        };
        Ok(Self {
            tls: tls.map_err(invalid("tls"))?,
            tokens: tokens.map_err(invalid("auth"))?,
        })
    }

    fn server(
        self,
        router: axum::Router,
        lifecycle: &Lifecycle,
        settings: Settings,
        metrics: &ConnectionMetrics,
    ) -> Server {
        let (tls, certificate) = self.tls.unzip();
        let (tokens, token_file) = self.tokens.unzip();
        for watched in [certificate, token_file].into_iter().flatten() {
            tokio::spawn(reload::watch(watched, reload::PERIOD, metrics.clone()));
        }
        let front = Front::new(router, lifecycle.clone(), tokens, metrics);
        Server::new(front, settings, tls, metrics)
    }
}

async fn serve_until_told(
    server: Server,
    listener: TcpListener,
    lifecycle: &Lifecycle,
    drain: &Drain,
    mut signals: Signals,
) {
    let (stop, stopped) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        signals.next().await;
        let _ = stop.send(());
        signals.next().await;
        tracing::warn!("told twice to leave: leaving at once");
        exit::now(INSISTED);
    });
    let stopped = async { drop(stopped.await) };
    match server.serve(listener, lifecycle, drain, stopped).await {
        0 => tracing::info!("drained"),
        cut_off => tracing::warn!(cut_off, "requests did not finish in time"),
    }
}

/// Nobody has been served yet: there is nothing to drain, and a load cannot be interrupted.
fn leave_unloaded() -> ! {
    tracing::info!("told to leave before the models were loaded");
    exit::now(0);
}

fn announce(service: &Service, listener: &TcpListener) {
    let report = service.report();
    for model in &report.models {
        tracing::info!(
            model = model.name,
            digest = model.digest,
            opset = model.opset,
            "model loaded"
        );
    }
    tracing::info!(
        address = %address(listener),
        execution_provider = report.execution_provider,
        onnxruntime_version = report.onnx_runtime_version,
        "serving"
    );
}

/// The management port has a thread of its own, so that it answers when the others are busy.
fn start_management(listener: TcpListener, management: Management, settings: &Settings) -> Result<(), Fatal> {
    tracing::info!(address = %address(&listener), "management port open");
    let failed = |error: &dyn std::fmt::Display| system("cannot start the management port", error);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| failed(&error))?;
    let listener = listener.into_std().map_err(|error| failed(&error))?;
    let settings = Settings {
        max: MANAGEMENT_CONNECTIONS,
        max_age: None,
        ..*settings
    };
    let thread = std::thread::Builder::new()
        .name("management".to_owned())
        .spawn(move || {
            runtime.block_on(async {
                tokio::spawn(protocol::record_load(management.clone()));
                match TcpListener::from_std(listener) {
                    Ok(listener) => serve_management(listener, management, settings).await,
                    Err(error) => tracing::error!("the management port is lost: {error}"),
                }
            });
        });
    thread.map(drop).map_err(|error| failed(&error))
}

/// It answers until the process ends, also while the serving port drains.
async fn serve_management(listener: TcpListener, management: Management, settings: Settings) {
    let (lifecycle, metrics) = (Lifecycle::default(), ConnectionMetrics::unread());
    let router = protocol::management_router(management);
    let front = Front::new(router, lifecycle.clone(), None, &metrics);
    let server = Server::new(front, settings, None, &metrics);
    let never = std::future::pending();
    server.serve(listener, &lifecycle, &Drain::default(), never).await;
}

fn listen(port: u16) -> Result<TcpListener, Fatal> {
    connections::listen(port).map_err(|error| system(&format!("cannot listen on port {port}"), &error))
}

fn address(listener: &TcpListener) -> SocketAddr {
    listener
        .local_addr()
        .unwrap_or_else(|_| SocketAddr::from(([0, 0, 0, 0], 0)))
}

fn system(what: &str, error: &dyn std::fmt::Display) -> Fatal {
    Fatal::new(ExitReason::SystemError, format!("{what}: {error}"))
}

/// SIGTERM and SIGINT. As the first process of a container it would ignore them unless it asked for them.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self, Fatal> {
        let handler = |kind| signal(kind).map_err(|error| system("cannot handle signals", &error));
        Ok(Self {
            terminate: handler(SignalKind::terminate())?,
            interrupt: handler(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
