//! `GET /healthz` and `GET /readyz`, on a separate port without TLS, for the kubelet.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::sync::watch;

/// The steps to complete before requests can be answered correctly.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    missing: watch::Sender<BTreeSet<&'static str>>,
}

/// One step to complete.
#[derive(Debug)]
pub struct Step {
    name: &'static str,
    readiness: Readiness,
}

impl Step {
    /// Marks the step as complete.
    pub fn done(&self) {
        self.readiness.missing.send_modify(|missing| {
            missing.remove(self.name);
        });
    }
}

impl Readiness {
    /// Adds a step.
    #[must_use]
    pub fn step(&self, name: &'static str) -> Step {
        self.missing.send_modify(|missing| {
            missing.insert(name);
        });
        Step { name, readiness: self.clone() }
    }

    /// Returns the steps that are not complete.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        self.missing.borrow().iter().copied().collect()
    }

    /// Waits until all steps are complete.
    pub async fn reached(&self) {
        // The sender is held by `self`, so the channel is not closed.
        let _ = self.missing.subscribe().wait_for(BTreeSet::is_empty).await;
    }
}

/// Returns the health routes; `/readyz` succeeds once all steps of all of these are complete.
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
    async fn is_ready_when_no_step_is_left() {
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
