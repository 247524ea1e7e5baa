//! Accepts connections on a listener, within limits, until shutdown.

use std::convert::Infallible;
use std::future::Future;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinError, JoinSet};
use tokio::time;
use tracing::{Instrument as _, debug_span, error, info, warn};

use super::Limits;
use super::connection::Service;

/// How long to wait when the system is out of file descriptors or memory, so that connections can end.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves every connection of `listener` until `shutdown`, then waits for the open ones.
pub(super) async fn run(listener: TcpListener, service: Service, limits: Limits, shutdown: impl Future<Output = ()>) {
    let mut connections = Connections::new(limits);
    let service = Arc::new(service);
    tokio::select! {
        never = accept_all(&listener, &service, &mut connections) => match never {},
        () = shutdown => {}
    }
    drop(listener);
    connections.drain().await;
}

async fn accept_all(listener: &TcpListener, service: &Arc<Service>, connections: &mut Connections) -> Infallible {
    loop {
        connections.wait_for_room().await;
        match listener.accept().await {
            Ok((stream, peer)) => {
                // At debug level, because entering it at every poll costs too much otherwise.
                let span = debug_span!("connection", %peer);
                span.in_scope(|| connections.spawn(Arc::clone(service), stream));
            }
            Err(error) => pause_on_shortage(&error).await,
        }
    }
}

/// Waits after an error, unless it concerns only the connection that was about to be accepted.
async fn pause_on_shortage(error: &io::Error) {
    if !concerns_one_connection(error) {
        warn!(%error, "cannot accept connections; trying again shortly");
        time::sleep(PAUSE).await;
    }
}

fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset)
}

/// The open connections of one listener; dropping it closes them.
struct Connections {
    tasks: JoinSet<()>,
    graceful: GracefulShutdown,
    limits: Limits,
}

impl Connections {
    fn new(limits: Limits) -> Self {
        Self { tasks: JoinSet::new(), graceful: GracefulShutdown::new(), limits }
    }

    /// Waits until there is room for one more connection.
    async fn wait_for_room(&mut self) {
        while let Some(ended) = self.tasks.try_join_next() {
            log_panic(ended);
        }
        while self.tasks.len() >= self.limits.connections.max(1) {
            self.tasks.join_next().await.into_iter().for_each(log_panic);
        }
    }

    fn spawn(&mut self, service: Arc<Service>, stream: TcpStream) {
        let watcher = self.graceful.watcher();
        self.tasks.spawn(async move { service.serve(stream, watcher).await }.in_current_span());
    }

    /// Shuts every connection down gracefully; closes those that are still open after the limit.
    async fn drain(self) {
        let Self { mut tasks, graceful, limits } = self;
        info!(connections = tasks.len(), "waiting for open connections to finish");
        let finished = async {
            graceful.shutdown().await;
            while let Some(ended) = tasks.join_next().await {
                log_panic(ended);
            }
        };
        if time::timeout(limits.drain, finished).await.is_err() {
            warn!(connections = tasks.len(), "closing connections that are still busy");
            tasks.shutdown().await;
        }
    }
}

fn log_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        error!(%error, "connection handler panicked");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn does_not_pause_after_an_aborted_connection() {
        assert!(concerns_one_connection(&ErrorKind::ConnectionAborted.into()));
    }

    #[test]
    fn pauses_when_file_descriptors_are_exhausted() {
        let too_many_open_files = io::Error::from_raw_os_error(24);
        assert!(!concerns_one_connection(&too_many_open_files));
    }
}
