//! The process: arguments, start, serve, shut down.

mod arguments;
mod check;
mod optimize;
mod ports;

pub use arguments::{Arguments, CheckArguments, Command, LogFormat, Output};

use crate::config;
use crate::connections::{Server, Settings};
use crate::models::Service;
use crate::package;
use crate::process::cgroup;
use crate::process::exit::{self, Fatal};
use crate::process::lifecycle::{Lifecycle, Phase};
use crate::process::loss::DeviceLoss;
use crate::process::signals::{Signals, Told};
use crate::protocol::{self, Management};
use modelservice_contract::{CONFIG_ENV, Drain, ExitReason, ServerConfig};
use optimize::optimize;
use ports::{Serving, address, listen, start_management, warn_if_open};
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Handle, Runtime, RuntimeFlavor};

/// Exit code after a second signal: 128 + 15, as if SIGTERM had not been caught.
const INSISTED: i32 = 143;

/// Up to this many cores, one thread for all connections is enough.
const ONE_NETWORK_THREAD: usize = 4;

/// Runs the server until it is told to stop. Returns the exit code.
///
/// # Errors
/// Why it cannot serve.
pub fn run(arguments: &Arguments) -> Result<u8, Fatal> {
    match &arguments.command {
        Some(Command::Optimize { packages }) => {
            for graph in optimize(packages, &arguments.onnx_runtime)? {
                tracing::info!(folder = %graph.display(), "optimised");
            }
            return Ok(0);
        }
        Some(Command::Digest { package }) => {
            return print(&format!("{}\n", package::digest(package)?)).map(|()| 0);
        }
        Some(Command::Schema) => return print(package::SCHEMA).map(|()| 0),
        Some(Command::Check(check)) => {
            let (text, code) = check::check(check, &arguments.onnx_runtime)?;
            return print(&text).map(|()| code);
        }
        None => {}
    }
    let environment = std::env::var(CONFIG_ENV).ok();
    let overrides = arguments.overrides();
    let config = config::load(arguments.config.as_deref(), environment.as_deref(), overrides)?;
    if arguments.check_config {
        // Printing it shows the user how the configuration was understood.
        let text = config::effective(&config);
        let text = text.map_err(|error| Fatal::system("cannot print the configuration", &error))?;
        return print(&text).map(|()| 0);
    }
    let cores = cgroup::cores();
    let runtime = runtime(cores);
    let runtime = runtime.map_err(|error| Fatal::system("cannot start threads", &error))?;
    let result = runtime.block_on(live(arguments, config, cores));
    // Do not wait for responses that slow clients are still reading.
    runtime.shutdown_background();
    result.map(|()| 0)
}

/// With few cores, one thread serves all connections and also runs jobs of up to 1 ms. With many cores, one thread is
/// too few, and sharing one core between both kinds of work gains nothing.
fn runtime(cores: usize) -> std::io::Result<Runtime> {
    if cores <= ONE_NETWORK_THREAD {
        Builder::new_current_thread().enable_all().build()
    } else {
        let threads = cores / ONE_NETWORK_THREAD + 1;
        Builder::new_multi_thread()
            .worker_threads(threads)
            .enable_all()
            .build()
    }
}

fn print(text: &str) -> Result<(), Fatal> {
    use std::io::Write as _;
    let written = std::io::stdout().write_all(text.as_bytes());
    written.map_err(|error| Fatal::system("cannot write to standard output", &error))
}

async fn live(arguments: &Arguments, config: ServerConfig, cores: usize) -> Result<(), Fatal> {
    let mut signals = Signals::new()?;
    let management = Management::default();
    let settings = Settings::of_process(&config.connections, &config.limits);
    let serving = Serving::new(&config, settings)?;
    let listen = |port| listen(arguments.address, port);
    start_management(listen(arguments.management_port)?, management.clone(), &settings)?;
    let lifecycle = management.lifecycle.clone();
    tracing::info!(cores, models = config.models.len(), "loading");
    let (library, loaded) = (arguments.onnx_runtime.clone(), config.clone());
    let loading = tokio::task::spawn_blocking(move || Service::load(&loaded, &library, cores));
    let service = tokio::select! {
        service = loading => service.map_err(|error| Fatal::system("loading failed", &error))??,
        _ = signals.next() => leave_unloaded(),
    };
    let service = Arc::new(service);
    if Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread {
        service.enable_inline_execution();
    }
    let listener = listen(arguments.http_port)?;
    let protocols = protocol::protocols(Arc::clone(&service), lifecycle.clone());
    let traces = serving.traces();
    let server = serving.server(protocols, &lifecycle, service.connection_metrics());
    // It is set only here.
    let _ = management.service.set(Arc::clone(&service));
    lifecycle.enter(Phase::Ready);
    // Scripts wait for this line: everything is ready when it appears.
    announce(&service, &listener);
    warn_if_open(address(&listener), &config);
    serve_until_told(
        server,
        listener,
        &lifecycle,
        &config.drain,
        signals,
        service.loss(),
    )
    .await;
    if let Some(traces) = traces {
        // This blocks until the exporter's own thread has ended, which sends through this runtime.
        let _ = tokio::task::spawn_blocking(move || traces.finish()).await;
    }
    service.loss().words().map_or(Ok(()), |words| {
        let message = format!(
            "{} lost its device while serving: {words}; check the device and its driver on this node",
            service.report().execution_provider
        );
        Err(Fatal::new(ExitReason::AcceleratorUnavailable, message))
    })
}

async fn serve_until_told(
    server: Server,
    listener: TcpListener,
    lifecycle: &Lifecycle,
    drain: &Drain,
    mut signals: Signals,
    loss: &DeviceLoss,
) {
    let (stop, stopped) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        let _ = stop.send(signals.next().await);
        signals.next().await;
        tracing::warn!("second signal: exiting at once");
        exit::now(INSISTED);
    });
    let at_once = || Drain {
        accept_seconds: 0,
        ..drain.clone()
    };
    let stopped = async {
        tokio::select! {
            told = stopped => match told {
                // A person at a terminal is waiting, and no load balancer has to be told first.
                Ok(Told::Interrupt) => at_once(),
                Ok(Told::Terminate) | Err(_) => drain.clone(),
            },
            // All requests would fail.
            _ = loss.happened() => at_once(),
        }
    };
    match server.serve_until(listener, lifecycle, stopped).await {
        0 => tracing::info!("drained"),
        cut_off => tracing::warn!(cut_off, "requests did not finish in time"),
    }
}

/// No request has been served yet, so there is nothing to drain. Loading cannot be interrupted.
fn leave_unloaded() -> ! {
    tracing::info!("stopped before the models were loaded");
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
        if let Some(assignment) = &model.assignment {
            tracing::info!(
                model = model.name,
                execution_provider = assignment.provider,
                device = assignment.device.as_ref().map(|device| &device.name),
                nodes = assignment.nodes,
                elsewhere = ?assignment.elsewhere,
                "nodes assigned"
            );
        }
    }
    tracing::info!(
        address = %address(listener),
        execution_provider = report.execution_provider,
        onnxruntime_version = report.onnx_runtime_version,
        "serving"
    );
}
