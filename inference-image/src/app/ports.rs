//! The two ports: the management port, and the serving port with its TLS, tokens, origins, access log and traces.

use crate::config::reload::{self, Watched};
use crate::connections::{self, Server, Settings, Tls};
use crate::metrics::ConnectionMetrics;
use crate::middleware::{AccessLog, Cors, Middleware, Observer, Tokens, Traces};
use crate::process::exit::Fatal;
use crate::process::lifecycle::Lifecycle;
use crate::protocol::{self, Management};
use modelservice_contract::{Drain, ExitReason, ServerConfig};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::net::TcpListener;

/// Limit on connections to the management port.
const MANAGEMENT_CONNECTIONS: usize = 128;
/// Limit on the connections of one address: many idle connections of one pod must not keep the kubelet's probes out.
const MANAGEMENT_CONNECTIONS_PER_PEER: usize = 8;
/// Time for a request's head on the management port, if the configuration does not allow less.
const MANAGEMENT_HEADER: Duration = Duration::from_secs(2);

/// Listens on the address, or on every address if there is none.
pub(super) fn listen(address: Option<IpAddr>, port: u16) -> Result<TcpListener, Fatal> {
    let listener = match address {
        None => connections::listen(port),
        Some(address) => connections::listen_at(address, port),
    };
    listener.map_err(|error| {
        let place = address.map_or_else(String::new, |address| format!(" of {address}"));
        Fatal::system(&format!("cannot listen on port {port}{place}"), &error)
    })
}

/// Warns if the server answers anyone who can reach the address.
pub(super) fn warn_if_open(address: SocketAddr, config: &ServerConfig) {
    let knows_clients = config
        .tls
        .as_ref()
        .is_some_and(|tls| tls.client_ca_file.is_some());
    if config.auth.is_none() && !knows_clients && !address.ip().to_canonical().is_loopback() {
        tracing::warn!(
            %address,
            "anyone who can reach this address can use the models: set auth.tokenFile, or start the server \
             with --address 127.0.0.1 to serve this machine alone"
        );
    }
}

pub(super) fn address(listener: &TcpListener) -> SocketAddr {
    listener
        .local_addr()
        .unwrap_or_else(|_| SocketAddr::from(([0, 0, 0, 0], 0)))
}

/// The serving port, set up before the models are loaded, so that mistakes in its configuration are found early.
pub(super) struct Serving {
    settings: Settings,
    tls: Option<(Tls, Watched)>,
    tokens: Option<(Tokens, Watched)>,
    cors: Option<Cors>,
    access_log: Option<AccessLog>,
    traces: Option<Traces>,
}

impl Serving {
    pub(super) fn new(config: &ServerConfig, settings: Settings) -> Result<Self, Fatal> {
        let invalid = |key: &'static str| {
            move |problem: String| Fatal::new(ExitReason::ConfigInvalid, format!("{key}: {problem}"))
        };
        let tls = config.tls.as_ref().map(Tls::read).transpose();
        let tokens = config.auth.as_ref().map(Tokens::read).transpose();
        let traces = config.tracing.as_ref().map(Traces::start).transpose();
        Ok(Self {
            settings,
            tls: tls.map_err(invalid("tls"))?,
            tokens: tokens.map_err(invalid("auth"))?,
            cors: config.cors.as_ref().map(Cors::new),
            access_log: AccessLog::new(&config.access_log),
            traces: traces.map_err(invalid("tracing"))?,
        })
    }

    /// The traces, to be flushed when all requests have been answered.
    pub(super) fn traces(&self) -> Option<Traces> {
        self.traces.clone()
    }

    /// Answers with `protocols`.
    pub(super) fn server(
        self,
        protocols: protocol::Protocols,
        lifecycle: &Lifecycle,
        metrics: &ConnectionMetrics,
    ) -> Server {
        let (tls, certificate) = self.tls.unzip();
        let (tokens, token_file) = self.tokens.unzip();
        for watched in [certificate, token_file].into_iter().flatten() {
            tokio::spawn(reload::watch(watched, reload::PERIOD, metrics.clone()));
        }
        let middleware = Middleware::new(protocols, lifecycle.clone(), tokens, metrics)
            .with_cors(self.cors)
            .observed_by(Observer {
                access_log: self.access_log,
                traces: self.traces,
            });
        Server::new(middleware, self.settings, tls, metrics)
    }
}

/// The management port has its own thread, so that it responds when the others are busy.
pub(super) fn start_management(
    listener: TcpListener,
    management: Management,
    settings: &Settings,
) -> Result<(), Fatal> {
    tracing::info!(address = %address(&listener), "management port open");
    let failed = |error: &dyn std::fmt::Display| Fatal::system("cannot start the management port", error);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| failed(&error))?;
    let listener = listener.into_std().map_err(|error| failed(&error))?;
    let settings = Settings {
        max: MANAGEMENT_CONNECTIONS,
        max_per_peer: Some(MANAGEMENT_CONNECTIONS_PER_PEER),
        header: settings.header.min(MANAGEMENT_HEADER),
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
                    Err(error) => tracing::error!("the management port has failed: {error}"),
                }
            });
        });
    thread.map(drop).map_err(|error| failed(&error))
}

/// Responds until the process ends, even while the serving port drains.
async fn serve_management(listener: TcpListener, management: Management, settings: Settings) {
    let (lifecycle, metrics) = (Lifecycle::default(), ConnectionMetrics::unread());
    let router = protocol::management_router(management);
    let middleware = Middleware::new(router, lifecycle.clone(), None, &metrics);
    let server = Server::new(middleware, settings, None, &metrics);
    let never = std::future::pending();
    server.serve(listener, &lifecycle, &Drain::default(), never).await;
}
