//! `POST /mutate`, `/validate`, `/policies` and `/guard`: the handlers know HTTP and nothing about policy.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State as Shared};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use k8s_openapi::jiff::Timestamp;
use tracing::{debug, error, warn};

use crate::admission::{self, Answer, BadReview, Review, Webhook, guard, own_kinds};
use crate::report;
use crate::state::State;

/// The most bytes of a body: a review carries an object and its old self, each of which etcd bounds at about 1.5 MiB
/// and the API server at 3 MiB.
const BODY_LIMIT: usize = 8 * 1024 * 1024;

/// Returns the routes of the webhooks.
pub fn webhooks(state: Arc<State>) -> Router {
    Router::new()
        .route("/mutate", post(mutate))
        .route("/validate", post(validate))
        .route("/policies", post(policies))
        .route("/guard", post(guard_databases))
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(state)
}

async fn mutate(Shared(state): Shared<Arc<State>>, body: Bytes) -> Response {
    answer(&state, Webhook::Mutate, &body).await
}

async fn validate(Shared(state): Shared<Arc<State>>, body: Bytes) -> Response {
    answer(&state, Webhook::Validate, &body).await
}

/// Answers a review of one of Tidegate's own kinds. A panic is the API server's to tell of: it closes the connection.
async fn policies(Shared(state): Shared<Arc<State>>, body: Bytes) -> Response {
    if !state.is_complete() {
        return not_ready();
    }
    let stored = |workload: &_| state.workload(workload);
    let answer = state.read(|policies, facts| own_kinds::answer(&body, Timestamp::now(), policies, facts, &stored));
    answer.map_or_else(|bad| bad_request(&bad), json)
}

/// Answers a review of deleting a database. A panic is the API server's to tell of: it closes the connection.
async fn guard_databases(Shared(state): Shared<Arc<State>>, body: Bytes) -> Response {
    if !state.is_complete() {
        return not_ready();
    }
    let answer = state.read(|_, facts| guard::answer(&body, facts));
    answer.map_or_else(|bad| bad_request(&bad), json)
}

/// The API server takes this as a failure: an object is let through unchanged, and refused by the webhooks that judge it.
fn not_ready() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, "tidegate has not read the cluster yet\n").into_response()
}

fn bad_request(bad: &BadReview) -> Response {
    let why = report::chain(bad);
    warn!(error = %why, "a request is not a review");
    (StatusCode::BAD_REQUEST, format!("{why}\n")).into_response()
}

fn json(encoded: Vec<u8>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], encoded).into_response()
}

/// Answers a review. Whatever happens while deciding, a readable envelope gets an answer with its `uid`.
async fn answer(state: &State, webhook: Webhook, body: &[u8]) -> Response {
    let review = match admission::decode(body) {
        Ok(review) => review,
        Err(bad) => return bad_request(&bad),
    };
    if !state.is_complete() {
        return not_ready();
    }
    state.wait_for_namespace(review.namespace()).await;
    let encoded = guarded(webhook, &review, || {
        state.read(|policies, facts| review.answer(webhook, Timestamp::now(), policies, facts))
    });
    json(encoded)
}

/// Answers also where deciding panics.
fn guarded<'r>(webhook: Webhook, review: &'r Review, decide: impl FnOnce() -> Answer<'r>) -> Vec<u8> {
    let (uid, namespace, name) = (review.uid(), review.namespace(), review.name());
    let answer = catch_unwind(AssertUnwindSafe(decide)).unwrap_or_else(|_| {
        let told = "deciding failed: this is a fault in tidegate; please report it with the object";
        error!(?webhook, uid, namespace, name, "{told}");
        review.failure(webhook, "a fault in tidegate")
    });
    debug!(?webhook, uid, namespace, name, allowed = answer.allowed, "reviewed");
    answer.encode()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn a_fault_while_deciding_is_answered_with_the_uid() {
        let body = br#"{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"uid": "u-1"}}"#;
        let review = admission::decode(body).unwrap();
        let answer = |webhook| {
            let encoded = guarded(webhook, &review, || panic!("this panic is part of a test"));
            serde_json::from_slice::<Value>(&encoded).unwrap()["response"].take()
        };
        let mutation = answer(Webhook::Mutate);
        assert_eq!((&mutation["uid"], &mutation["allowed"]), (&"u-1".into(), &true.into()));
        assert_eq!(mutation["warnings"][0], "tidegate left the object as it is: a fault in tidegate");
        let verdict = answer(Webhook::Validate);
        assert_eq!((&verdict["uid"], &verdict["allowed"]), (&"u-1".into(), &false.into()));
        assert_eq!(verdict["status"]["message"], "tidegate cannot judge the object: a fault in tidegate");
    }
}
