//! `POST /mutate`, `/validate`, `/policies` and `/guard`: HTTP only, nothing about policy.

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
use crate::server::worker_threads::WorkerThreads;
use crate::shared_state::SharedState;

/// The most bytes of a body: a review carries an object and its old version, each limited to about 1.5 MiB by etcd and
/// to 3 MiB by the API server.
const BODY_LIMIT: usize = 8 * 1024 * 1024;

/// How long a request waits for a worker thread. Together with the cost of its rules and the wait for its namespace,
/// this stays below the API server's timeout.
const WORKER_TIMEOUT: Duration = Duration::from_secs(1);

/// State shared by the webhooks.
///
/// Requests that may take long (those checked by custom rules, and reviews of policies) run on worker threads, so that
/// connections and health are served meanwhile. All others are answered in place: that takes a few hundred
/// microseconds, and a worker thread would add some tens to each.
#[derive(Clone)]
struct Webhooks {
    state: Arc<SharedState>,
    workers: WorkerThreads,
}

/// Returns the routes of the webhooks.
pub fn webhooks(state: Arc<SharedState>) -> Router {
    let webhooks = Webhooks { state, workers: WorkerThreads::one_per_core() };
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

/// Answers a review of one of Tidegate's own kinds. A panic closes the connection, which the API server reports.
async fn policies(Shared(Webhooks { state, workers }): Shared<Webhooks>, body: Bytes) -> Response {
    if !state.is_complete() {
        return not_ready();
    }
    let answer = move || {
        let stored = |workload: &_| state.workload(workload);
        state.read(|policies, facts| policy_validation::answer(&body, Timestamp::now(), policies, facts, &stored))
    };
    workers
        .run_within(WORKER_TIMEOUT, answer)
        .await
        .map_or_else(busy, |answer| answer.map_or_else(|bad| bad_request(&bad), json))
}

/// Answers a review of the deletion of a database. A panic closes the connection, which the API server reports.
async fn guard_databases(Shared(Webhooks { state, .. }): Shared<Webhooks>, body: Bytes) -> Response {
    if !state.is_complete() {
        return not_ready();
    }
    let answer = state.read(|_, facts| database_deletion::answer(&body, facts));
    answer.map_or_else(|bad| bad_request(&bad), json)
}

/// The API server treats this as a failure: the mutating webhook is skipped, the validating ones refuse the object.
fn not_ready() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, "tidegate is not ready: its caches have not synced\n").into_response()
}

/// Like [`not_ready`], for a request that did not get a worker thread in time.
fn busy() -> Response {
    warn!("request rejected: custom rules keep all worker threads busy");
    (StatusCode::SERVICE_UNAVAILABLE, "tidegate is busy with the custom rules of other requests; try again\n")
        .into_response()
}

fn bad_request(bad: &BadReview) -> Response {
    let why = report::chain(bad);
    warn!(error = %why, "invalid AdmissionReview");
    (StatusCode::BAD_REQUEST, format!("{why}\n")).into_response()
}

fn json(encoded: Vec<u8>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], encoded).into_response()
}

/// Answers a review. A readable envelope always gets an answer with its `uid`, even if the decision fails.
async fn answer(Webhooks { state, workers }: &Webhooks, webhook: Webhook, body: &[u8]) -> Response {
    let review = match admission::decode(body) {
        Ok(review) => review,
        Err(bad) => return bad_request(&bad),
    };
    if !state.is_complete() {
        return not_ready();
    }
    state.wait_for_namespace(review.namespace()).await;
    let Some(decided) = decided(webhook, review, state, workers).await else { return busy() };
    if !decided.allowed
        && let Some(review) = rollback(body, state).await
    {
        return self::decided(webhook, review, state, workers).await.map_or_else(busy, |decided| json(decided.body));
    }
    json(decided.body)
}

/// An answer as JSON.
struct Decided {
    body: Vec<u8>,
    allowed: bool,
}

/// Decides a review, on a worker thread if that may take long; none if there is no free one in time.
async fn decided(
    webhook: Webhook,
    review: Review<'_>,
    state: &Arc<SharedState>,
    workers: &WorkerThreads,
) -> Option<Decided> {
    if !may_take_long(webhook, &review, state) {
        return Some(decide(webhook, &review, state));
    }
    let (review, state) = (review.into_owned(), Arc::clone(state));
    workers.run_within(WORKER_TIMEOUT, move || decide(webhook, &review, &state)).await
}

/// Returns the review of a refused update as a rollback, if the cluster has an admitted revision with its template.
async fn rollback<'b>(body: &'b [u8], state: &SharedState) -> Option<Review<'b>> {
    let mut review = admission::decode(body).ok()?;
    let workload = review.may_be_rollback()?;
    let revisions = state.revisions(&workload.reference(), &workload.object()["spec"]["selector"]).await;
    review.find_revision(&revisions).then_some(review)
}

fn decide(webhook: Webhook, review: &Review, state: &SharedState) -> Decided {
    guarded(webhook, review, || state.read(|policies, facts| review.answer(webhook, Timestamp::now(), policies, facts)))
}

/// Returns whether a review may take long to answer. If finding out panics, so does the decision, which is guarded.
fn may_take_long(webhook: Webhook, review: &Review, state: &SharedState) -> bool {
    let may_take_long = || state.read(|policies, facts| review.may_take_long(webhook, policies, facts));
    catch_unwind(AssertUnwindSafe(may_take_long)).unwrap_or_default()
}

/// Encodes the decision; if it panics, a failure.
fn guarded<'r>(webhook: Webhook, review: &'r Review, decide: impl FnOnce() -> Answer<'r>) -> Decided {
    let (uid, namespace, name) = (review.uid(), review.namespace(), review.name());
    let answer = catch_unwind(AssertUnwindSafe(decide)).unwrap_or_else(|_| {
        error!(?webhook, uid, namespace, name, "the decision panicked: this is a bug in tidegate; please report it");
        review.failure(webhook, "internal error in tidegate")
    });
    debug!(?webhook, uid, namespace, name, allowed = answer.allowed, "reviewed");
    Decided { body: answer.encode(), allowed: answer.allowed }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn a_panic_is_answered_with_the_uid() {
        let body = br#"{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"uid": "u-1"}}"#;
        let review = admission::decode(body).unwrap();
        let answer = |webhook| {
            let decided = guarded(webhook, &review, || panic!("this panic is part of a test"));
            serde_json::from_slice::<Value>(&decided.body).unwrap()["response"].take()
        };
        let mutation = answer(Webhook::Mutate);
        assert_eq!((&mutation["uid"], &mutation["allowed"]), (&"u-1".into(), &true.into()));
        assert_eq!(mutation["warnings"][0], "tidegate did not change the object: internal error in tidegate");
        let verdict = answer(Webhook::Validate);
        assert_eq!((&verdict["uid"], &verdict["allowed"]), (&"u-1".into(), &false.into()));
        assert_eq!(verdict["status"]["message"], "tidegate cannot check the object: internal error in tidegate");
    }
}
