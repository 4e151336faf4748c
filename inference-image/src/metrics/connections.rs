//! Metrics of connections and of reloaded files.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Why a connection was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Closed {
    /// The client closed it, or asked for it.
    Client,
    /// It reached its maximum age or number of requests.
    Age,
    /// Nothing was sent for too long.
    Idle,
    /// A request's head or the TLS handshake took too long.
    Slow,
    /// It was idle while other connections were waiting for a slot.
    Room,
    /// The server is shutting down.
    Drain,
    /// The TLS handshake failed: no TLS, no certificate, or one that is not trusted.
    Handshake,
    /// It broke, or carried something other than HTTP.
    Error,
}

const REASONS: [Closed; 8] = [
    Closed::Client,
    Closed::Age,
    Closed::Idle,
    Closed::Slow,
    Closed::Room,
    Closed::Drain,
    Closed::Handshake,
    Closed::Error,
];

impl EncodeLabelValue for Closed {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> Result<(), std::fmt::Error> {
        let value = match self {
            Self::Client => "client",
            Self::Age => "age",
            Self::Idle => "idle",
            Self::Slow => "slow",
            Self::Room => "room",
            Self::Drain => "drain",
            Self::Handshake => "handshake",
            Self::Error => "error",
        };
        EncodeLabelValue::encode(&value, encoder)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ClosedLabels {
    reason: Closed,
}

/// A file that is re-read when it changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reloaded {
    /// Certificate, key and client CA.
    Certificate,
    /// Bearer tokens.
    Tokens,
}

impl EncodeLabelValue for Reloaded {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> Result<(), std::fmt::Error> {
        let value = match self {
            Self::Certificate => "certificate",
            Self::Tokens => "tokens",
        };
        EncodeLabelValue::encode(&value, encoder)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReloadLabels {
    what: Reloaded,
    result: &'static str,
}

/// Metrics of the serving port's connections. Clones share their values.
#[derive(Clone, Debug)]
pub struct ConnectionMetrics {
    /// Open connections.
    pub open: Gauge,
    /// Accepted connections.
    pub accepted: Counter,
    closed: [Counter; REASONS.len()],
    reloads: Family<ReloadLabels, Counter>,
    /// Requests without a known token.
    pub unauthorized: Counter,
}

impl ConnectionMetrics {
    /// Metrics that are not exported.
    #[must_use]
    pub fn unread() -> Self {
        Self::register(&mut Registry::default())
    }

    pub(super) fn register(registry: &mut Registry) -> Self {
        let closed: Family<ClosedLabels, Counter> = Family::default();
        let metrics = Self {
            open: Gauge::default(),
            accepted: Counter::default(),
            // All of them exist from the start: a rate over one that appears later would miss its first event.
            closed: REASONS.map(|reason| closed.get_or_create(&ClosedLabels { reason }).clone()),
            reloads: Family::default(),
            unauthorized: Counter::default(),
        };
        let r = registry;
        r.register(
            "connections_open",
            "Connections that are open",
            metrics.open.clone(),
        );
        r.register(
            "connections_accepted",
            "Connections accepted",
            metrics.accepted.clone(),
        );
        r.register("connections_closed", "Connections closed, by reason", closed);
        r.register("reloads", "Files reloaded", metrics.reloads.clone());
        r.register(
            "unauthorized_requests",
            "Requests without a known token",
            metrics.unauthorized.clone(),
        );
        metrics
    }

    /// Counts a closed connection.
    pub fn closed(&self, reason: Closed) {
        self.open.dec();
        self.closed[reason as usize].inc();
    }

    /// Counts a changed file, whose contents were accepted or rejected.
    pub fn reloaded(&self, what: Reloaded, ok: bool) {
        let result = if ok { "ok" } else { "failed" };
        self.reloads.get_or_create(&ReloadLabels { what, result }).inc();
    }
}
