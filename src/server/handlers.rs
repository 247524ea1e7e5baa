//! `POST /mutate`, `/validate`, `/policies` and `/guard`: the handlers know HTTP and nothing about policy.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State as Shared};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use k8s_openapi::jiff::Timestamp;
use tracing::{debug, error, warn};

use crate::admission::{self, Answer, BadReview, Review, Webhook, database_deletion, policy_validation};
use crate::report;
use crate::server::slow_lane::SlowLane;
use crate::shared_state::SharedState;

/// The most bytes of a body: a review carries an object and its old self, each of which etcd bounds at about 1.5 MiB
/// and the API server at 3 MiB.
const BODY_LIMIT: usize = 8 * 1024 * 1024;

/// How long a request waits for a thread: with what its rules may cost, and the wait for its namespace, it is answered before
/// the API server gives up on it.
const PATIENCE: Duration = Duration::from_secs(1);

/// What the webhooks share.
///
/// What may take long is done on threads of its own, so that connections and health are served meanwhile: requests that are
/// judged by custom rules, and reviews of policies. All others are answered where they are read: that takes a few hundred
/// microseconds, and to hand them over would add some tens to each.
#[derive(Clone)]
struct Webhooks {
    state: Arc<SharedState>,
    lane: SlowLane,
}

/// Returns the routes of the webhooks.
pub fn webhooks(state: Arc<SharedState>) -> Router {
    let webhooks = Webhooks { state, lane: SlowLane::of_cores() };
    Router::new()
        .route("/mutate", post(mutate))
        .route("/validate", post(validate))
        .route("/policies", post(policies))
        .route("/guard", post(guard_databases))
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(webhooks)
}

async fn mutate(Shared(webhooks): Shared<Webhooks>, body: Bytes) -> Response {
    answer(&webhooks, Webhook::Mutate, &body).await
}

async fn validate(Shared(webhooks): Shared<Webhooks>, body: Bytes) -> Response {
    answer(&webhooks, Webhook::Validate, &body).await
}

/// Answers a review of one of Tidegate's own kinds. A panic is the API server's to tell of: it closes the connection.
async fn policies(Shared(Webhooks { state, lane }): Shared<Webhooks>, body: Bytes) -> Response {
    if !state.is_complete() {
        return not_ready();
    }
    let answer = move || {
        let stored = |workload: &_| state.workload(workload);
        state.read(|policies, facts| policy_validation::answer(&body, Timestamp::now(), policies, facts, &stored))
    };
    lane.run_within(PATIENCE, answer)
        .await
        .map_or_else(busy, |answer| answer.map_or_else(|bad| bad_request(&bad), json))
}

/// Answers a review of deleting a database. A panic is the API server's to tell of: it closes the connection.
async fn guard_databases(Shared(Webhooks { state, .. }): Shared<Webhooks>, body: Bytes) -> Response {
    if !state.is_complete() {
        return not_ready();
    }
    let answer = state.read(|_, facts| database_deletion::answer(&body, facts));
    answer.map_or_else(|bad| bad_request(&bad), json)
}

/// The API server takes this as a failure: an object is let through unchanged, and refused by the webhooks that judge it.
fn not_ready() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, "tidegate has not read the cluster yet\n").into_response()
}

/// The same, of a request for which there was no thread in time.
fn busy() -> Response {
    warn!("a request was not answered: custom rules keep all threads busy");
    (StatusCode::SERVICE_UNAVAILABLE, "tidegate is busy with custom rules of other requests; try again\n")
        .into_response()
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
async fn answer(Webhooks { state, lane }: &Webhooks, webhook: Webhook, body: &[u8]) -> Response {
    let review = match admission::decode(body) {
        Ok(review) => review,
        Err(bad) => return bad_request(&bad),
    };
    if !state.is_complete() {
        return not_ready();
    }
    state.wait_for_namespace(review.namespace()).await;
    if !may_take_long(webhook, &review, state) {
        return json(decided(webhook, &review, state));
    }
    let (review, state) = (review.into_owned(), Arc::clone(state));
    lane.run_within(PATIENCE, move || decided(webhook, &review, &state)).await.map_or_else(busy, json)
}

fn decided(webhook: Webhook, review: &Review, state: &SharedState) -> Vec<u8> {
    guarded(webhook, review, || state.read(|policies, facts| review.answer(webhook, Timestamp::now(), policies, facts)))
}

/// Tells whether a review may take long to answer. Where telling that panics, so does deciding, which is guarded.
fn may_take_long(webhook: Webhook, review: &Review, state: &SharedState) -> bool {
    let told = || state.read(|policies, facts| review.may_take_long(webhook, policies, facts));
    catch_unwind(AssertUnwindSafe(told)).unwrap_or_default()
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
