//! `GET /healthz` and `GET /readyz`, on a port of their own: a kubelet has no client certificate and needs no TLS.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::sync::watch;

/// What must have happened before requests can be answered as they should be.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    missing: watch::Sender<BTreeSet<&'static str>>,
}

/// One thing that must have happened.
#[derive(Debug)]
pub struct Step {
    name: &'static str,
    readiness: Readiness,
}

impl Step {
    /// Notes that it has happened.
    pub fn done(&self) {
        self.readiness.missing.send_modify(|missing| {
            missing.remove(self.name);
        });
    }
}

impl Readiness {
    /// Adds something that must have happened.
    #[must_use]
    pub fn step(&self, name: &'static str) -> Step {
        self.missing.send_modify(|missing| {
            missing.insert(name);
        });
        Step { name, readiness: self.clone() }
    }

    /// Returns what is still to happen.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        self.missing.borrow().iter().copied().collect()
    }

    /// Waits until nothing is to happen any more.
    pub async fn reached(&self) {
        // The sender is held by `self`, so the channel is not closed.
        let _ = self.missing.subscribe().wait_for(BTreeSet::is_empty).await;
    }
}

/// Returns the health routes; ready is what has no step left in any of these.
pub fn routes(readiness: Vec<Readiness>) -> Router {
    let readiness = Arc::new(readiness);
    Router::new().route("/healthz", get(|| async { "ok\n" })).route("/readyz", get(ready)).with_state(readiness)
}

async fn ready(State(readiness): State<Arc<Vec<Readiness>>>) -> (StatusCode, String) {
    let missing: Vec<&str> = readiness.iter().flat_map(Readiness::missing).collect();
    if missing.is_empty() {
        return (StatusCode::OK, "ok\n".to_owned());
    }
    (StatusCode::SERVICE_UNAVAILABLE, format!("waiting for {}\n", missing.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ready_is_what_has_no_step_left() {
        let readiness = Readiness::default();
        let (first, second) = (readiness.step("a"), readiness.step("b"));
        let later = Readiness::default();
        let last = later.step("c");
        let all = Arc::new(vec![readiness.clone(), later]);
        first.done();
        assert_eq!(ready(State(Arc::clone(&all))).await.1, "waiting for b, c\n");
        second.done();
        readiness.reached().await;
        assert_eq!(ready(State(Arc::clone(&all))).await.0, StatusCode::SERVICE_UNAVAILABLE);
        last.done();
        assert_eq!(ready(State(all)).await.0, StatusCode::OK);
    }
}
