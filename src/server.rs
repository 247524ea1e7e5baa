//! HTTP servers: the webhooks over TLS, health over plain HTTP.
//!
//! The accept loop is our own rather than a server crate's because a webhook needs its limits: clients that stall
//! during the handshake or the headers are dropped, the number of connections is capped, a renewed certificate needs no
//! restart, and shutdown lets requests in flight finish.

mod accept;
mod connection;
pub mod handlers;
pub mod health;
mod limits;
mod tls;
pub mod worker_threads;

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
/// are refused once `shutdown` completes, so give the API server time to stop sending requests first.
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

/// Like [`serve_tls`], but over plain HTTP/1.1, for probes.
pub async fn serve_plain(listener: TcpListener, router: Router, limits: Limits, shutdown: impl Future<Output = ()>) {
    accept::run(listener, Service::new(Transport::Plain, router, limits), limits, shutdown).await;
}
