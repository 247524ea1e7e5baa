//! Serving HTTP: the webhook over TLS, health and metrics in the clear.
//!
//! The loop is written out rather than taken from a server crate because its limits matter to a
//! webhook: a client that stalls its handshake or its headers is dropped, the number of connections is
//! capped, a renewed certificate needs no restart, and a shutdown lets the requests in flight finish.

mod accept;
mod connection;
pub mod handlers;
pub mod health;
mod limits;
pub mod slow_lane;
mod tls;

use std::future::Future;

use axum::Router;
use tokio::net::TcpListener;

pub use self::limits::Limits;
pub use self::tls::{ServerCertificate, TlsError};

use self::connection::{Service, Transport};

/// Serves `router` over TLS until `shutdown` completes and the open connections have ended.
///
/// Clients choose HTTP/2 or HTTP/1.1 by ALPN. No connection outlives the call: those still busy after
/// [`Limits::drain`] are closed, and dropping the future closes all of them at once. New connections
/// are refused once `shutdown` completes, so give the cluster time to stop sending them first.
pub async fn serve_tls(
    listener: TcpListener,
    router: Router,
    certificate: ServerCertificate,
    limits: Limits,
    shutdown: impl Future<Output = ()>,
) {
    let transport = Transport::Tls(certificate.acceptor());
    accept::run(listener, Service::new(transport, router, limits), limits, shutdown).await;
}

/// Serves `router` over plain HTTP/1.1, which is what probes and scrapers speak; otherwise like
/// [`serve_tls`].
pub async fn serve_plain(listener: TcpListener, router: Router, limits: Limits, shutdown: impl Future<Output = ()>) {
    accept::run(listener, Service::new(Transport::Plain, router, limits), limits, shutdown).await;
}
