//! Serves one connection.

use std::future::Future;
use std::time::Duration;

use axum::Router;
use hyper::rt::Executor;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::Watcher;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::{Instrument as _, debug};

use super::Limits;
use super::tls::ALPN_HTTP2;

const MAX_CONCURRENT_STREAMS: u32 = 250;
/// How long an HTTP/2 connection may be silent before a ping is sent.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// The layer between TCP and HTTP.
pub(super) enum Transport {
    Plain,
    Tls(TlsAcceptor),
}

/// State shared by the connections of one listener.
pub(super) struct Service {
    transport: Transport,
    http1: Builder<Spawner>,
    http2: Builder<Spawner>,
    router: TowerToHyperService<Router>,
    limits: Limits,
}

impl Service {
    pub(super) fn new(transport: Transport, router: Router, limits: Limits) -> Self {
        // `with_state` here builds the routes once instead of at every request.
        let router = TowerToHyperService::new(router.with_state(()));
        Self { transport, http1: http1(limits), http2: http2(), router, limits }
    }

    pub(super) async fn serve(&self, stream: TcpStream, watcher: Watcher) {
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%error, "cannot set TCP_NODELAY");
        }
        match &self.transport {
            Transport::Plain => serve_http(&self.http1, &self.router, stream, watcher).await,
            Transport::Tls(acceptor) => self.serve_tls(acceptor, stream, watcher).await,
        }
    }

    /// Takes the protocol from ALPN: detecting it from the first bytes would wait for them without a time limit.
    async fn serve_tls(&self, acceptor: &TlsAcceptor, stream: TcpStream, watcher: Watcher) {
        let Some(mut stream) = handshake(acceptor, stream, self.limits.handshake).await else {
            return;
        };
        if stream.get_ref().1.alpn_protocol() != Some(ALPN_HTTP2) {
            return serve_http(&self.http1, &self.router, stream, watcher).await;
        }
        if first_bytes_arrive(&mut stream, self.limits.headers).await {
            serve_http(&self.http2, &self.router, stream, watcher).await;
        }
    }
}

async fn handshake(acceptor: &TlsAcceptor, stream: TcpStream, limit: Duration) -> Option<TlsStream<TcpStream>> {
    match time::timeout(limit, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => Some(stream),
        Ok(Err(error)) => {
            debug!(%error, "TLS handshake failed");
            None
        }
        Err(_) => {
            debug!("TLS handshake timed out");
            None
        }
    }
}

/// Waits for the first bytes of HTTP/2, for which hyper itself has no time limit.
async fn first_bytes_arrive(stream: &mut TlsStream<TcpStream>, limit: Duration) -> bool {
    match time::timeout(limit, stream.fill_buf()).await {
        Ok(Ok(bytes)) => !bytes.is_empty(),
        Ok(Err(error)) => {
            debug!(%error, "connection closed before a request");
            false
        }
        Err(_) => {
            debug!("timed out waiting for a request");
            false
        }
    }
}

async fn serve_http<S>(protocol: &Builder<Spawner>, router: &TowerToHyperService<Router>, stream: S, watcher: Watcher)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connection = protocol.serve_connection(TokioIo::new(stream), router.clone());
    if let Err(error) = watcher.watch(connection).await {
        debug!(error, "connection closed early");
    }
}

fn http1(limits: Limits) -> Builder<Spawner> {
    let mut builder = Builder::new(Spawner).http1_only();
    builder.http1().timer(TokioTimer::new()).header_read_timeout(limits.headers);
    builder
}

fn http2() -> Builder<Spawner> {
    let mut builder = Builder::new(Spawner).http2_only();
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_CONCURRENT_STREAMS)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    builder
}

/// Runs the requests of an HTTP/2 connection in the span of that connection.
#[derive(Clone, Copy)]
struct Spawner;

impl<F> Executor<F> for Spawner
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, request: F) {
        tokio::spawn(request.in_current_span());
    }
}
