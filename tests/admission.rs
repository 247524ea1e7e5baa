//! Calls the webhooks' router in process: answers to invalid bodies, and messages to users.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use tidegate::manifests;
use tidegate::server::handlers::webhooks;
use tidegate::server::health::routes;
use tidegate::shared_state::SharedState;
use tidegate_engine::api::DatabaseProvider;
use tidegate_engine::facts::{Apis, Autoscaler, Database, Facts, Namespace};
use tidegate_engine::policy::PolicySet;
use tidegate_engine::workload::WorkloadRef;
use tower::ServiceExt as _;

const SERVING: &str = include_str!("../policies/serving.yaml");
const EXAMPLE: &str = include_str!("../examples/model-server.yaml");
const SCOPE: (&str, &str) = ("app.kubernetes.io/component", "model-server");

/// A webhook call times out after ten seconds; no body may take even half of that.
const TIMEOUT: Duration = Duration::from_secs(5);

fn policies(yaml: &str) -> PolicySet {
    manifests::policies("policy.yaml", yaml, [(SCOPE.0.to_owned(), SCOPE.1.to_owned())].into()).unwrap()
}

fn facts() -> Facts {
    Facts { namespaces: [("ml".to_owned(), Namespace::default())].into(), apis: Apis::all(), ..Facts::default() }
}

fn state(yaml: &str, facts: Facts) -> Arc<SharedState> {
    let state = SharedState::new(policies(yaml));
    state.note(|known| *known = facts);
    state.completed();
    Arc::new(state)
}

struct Response {
    status: StatusCode,
    text: String,
}

impl Response {
    /// Returns the answer of a review.
    fn answer(&self) -> Value {
        assert_eq!(self.status, StatusCode::OK, "{}", self.text);
        let mut review: Value = serde_json::from_str(&self.text).unwrap();
        assert_eq!(review["apiVersion"], "admission.k8s.io/v1");
        assert_eq!(review["kind"], "AdmissionReview");
        review["response"].take()
    }
}

async fn post(state: &Arc<SharedState>, path: &str, body: impl Into<Body>) -> Response {
    let request = Request::post(path).header("content-type", "application/json").body(body.into()).unwrap();
    let answered = async {
        let response = webhooks(Arc::clone(state)).oneshot(request).await.unwrap();
        let status = response.status();
        let text = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        Response { status, text: String::from_utf8(text.to_vec()).unwrap() }
    };
    tokio::time::timeout(TIMEOUT, answered).await.expect("an answer comes in time")
}

/// A review of the example, as an API server sends it.
fn review(object: &Value) -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "u-1", "kind": {"group": "apps", "version": "v1", "kind": "Deployment"},
            "resource": {"group": "apps", "version": "v1", "resource": "deployments"},
            "name": object["metadata"]["name"].as_str().unwrap_or_default(), "namespace": "ml", "operation": "CREATE",
            "userInfo": {"username": "jane", "groups": ["system:authenticated"]},
            "object": object, "oldObject": null, "dryRun": false, "options": {"kind": "CreateOptions"}
        }
    })
}

fn example() -> Value {
    let mut object: Value = serde_saphyr::from_str(EXAMPLE).unwrap();
    object["metadata"]["namespace"] = "ml".into();
    object
}

/// The example with some of it changed.
fn with(change: impl FnOnce(&mut Value)) -> Value {
    let mut object = example();
    change(&mut object);
    object
}

/// The example with its container changed.
fn with_container(change: &Value) -> Value {
    with(|object| json_patch::merge(container(object), change))
}

fn container(object: &mut Value) -> &mut Value {
    &mut object["spec"]["template"]["spec"]["containers"][0]
}

mod bad_input {
    use super::*;

    /// The answers of both webhooks.
    #[derive(Clone, Copy, Debug)]
    enum Answer {
        /// Not a review: this HTTP status.
        Http(u16),
        /// The object cannot be parsed: allowed with a warning, then refused, each with this uid.
        Unreadable(&'static str),
        /// The object can be parsed and is admitted.
        Admitted,
        /// It does not concern Tidegate: it is allowed unchanged, without warnings.
        Ignored,
    }
    use Answer::{Admitted, Http, Ignored, Unreadable};

    /// The review of the example with some of the envelope changed.
    fn envelope(change: &Value) -> Vec<u8> {
        let mut review = review(&example());
        json_patch::merge(&mut review, change);
        review.to_string().into_bytes()
    }

    fn request(change: &Value) -> Vec<u8> {
        envelope(&json!({"request": change}))
    }

    fn object(object: &Value) -> Vec<u8> {
        review(object).to_string().into_bytes()
    }

    /// The review of the example with its object replaced by a text that is not necessarily JSON.
    fn raw_object(text: &str) -> Vec<u8> {
        replaced(r#""object":"PLACE""#, &format!(r#""object":{text}"#))
    }

    fn raw_uid(text: &str) -> Vec<u8> {
        let body = String::from_utf8(replaced(r#""object":"PLACE""#, r#""object":null"#)).unwrap();
        body.replace(r#""uid":"u-1""#, &format!(r#""uid":{text}"#)).into_bytes()
    }

    fn replaced(old: &str, new: &str) -> Vec<u8> {
        let mut review = review(&example());
        review["request"]["object"] = "PLACE".into();
        let body = review.to_string();
        assert!(body.contains(old));
        body.replace(old, new).into_bytes()
    }

    fn deep_envelope(levels: usize) -> Vec<u8> {
        review(&example()).to_string().replacen('{', &format!(r#"{{"extra":{},"#, nested(levels)), 1).into_bytes()
    }

    fn nested(levels: usize) -> String {
        format!("{}1{}", r#"{"a":"#.repeat(levels), "}".repeat(levels))
    }

    fn template(change: impl FnOnce(&mut Value)) -> Vec<u8> {
        object(&with(|object| change(&mut object["spec"]["template"])))
    }

    fn not_reviews() -> Vec<(&'static str, Vec<u8>, Answer)> {
        let whole = object(&example());
        vec![
            ("empty", Vec::new(), Http(400)),
            ("garbage", b"\x00\x01 not json".to_vec(), Http(400)),
            ("a list", b"[]".to_vec(), Http(400)),
            ("null", b"null".to_vec(), Http(400)),
            ("an empty object", b"{}".to_vec(), Http(400)),
            ("truncated", whole[..whole.len() / 2].to_vec(), Http(400)),
            ("cut before the last brace", whole[..whole.len() - 1].to_vec(), Http(400)),
            ("more after the end", [&whole[..], b"x"].concat(), Http(400)),
            ("10 MiB of spaces", vec![b' '; 10 << 20], Http(413)),
            ("10 MiB of object", raw_object(&format!(r#"{{"a":"{}"}}"#, "a".repeat(10 << 20))), Http(413)),
            ("non-UTF-8", [&whole[..40], b"\xff\xfe", &whole[40..]].concat(), Http(400)),
            ("a Pod for an envelope", br#"{"apiVersion":"v1","kind":"Pod","spec":{}}"#.to_vec(), Http(400)),
            ("a v1beta1 review", envelope(&json!({"apiVersion": "admission.k8s.io/v1beta1"})), Http(400)),
            ("no request", envelope(&json!({"request": null})), Http(400)),
            ("a request that is text", envelope(&json!({"request": "please"})), Http(400)),
            ("no uid", request(&json!({"uid": null})), Http(400)),
            ("an empty uid", request(&json!({"uid": ""})), Http(400)),
            ("a uid that is a number", request(&json!({"uid": 1})), Http(400)),
            ("a uid twice", raw_uid(r#""u-1","uid":"u-2""#), Http(400)),
            ("half a surrogate in the uid", raw_uid(r#""\ud800""#), Http(400)),
        ]
    }

    fn unreadable() -> Vec<(&'static str, Vec<u8>, Answer)> {
        let none = Unreadable("u-1");
        vec![
            ("no object", request(&json!({"object": null})), none),
            ("an object that is text", raw_object(r#""Deployment""#), none),
            ("an object that is a list", raw_object("[1]"), none),
            ("200 levels deep", raw_object(&nested(200)), none),
            ("a million levels deep", raw_object(&nested(1_000_000)), none),
            ("half a surrogate", raw_object(r#"{"metadata":{"name":"\ud800"}}"#), none),
            ("a number out of range", raw_object(r#"{"spec":{"replicas":1e999}}"#), none),
            ("managers that are numbers", raw_object(r#"{"metadata":{"managedFields":[1]}}"#), none),
            ("metadata that is text", raw_object(r#"{"metadata":"api"}"#), none),
            ("labels that are a list", object(&with(|object| object["metadata"]["labels"] = json!(["a"]))), none),
            ("a label that is a number", object(&with(|object| object["metadata"]["labels"]["a"] = json!(1))), none),
            ("annotations that are text", object(&with(|object| object["metadata"]["annotations"] = json!("a"))), none),
            ("replicas that are text", object(&with(|object| object["spec"]["replicas"] = json!("2"))), none),
            ("a spec that is a list", object(&with(|object| object["spec"] = json!([]))), none),
            ("a template that is text", template(|template| *template = json!("x")), none),
            ("a pod spec that is a number", template(|template| template["spec"] = json!(1)), none),
            ("containers that are text", template(|template| template["spec"]["containers"] = json!("api")), none),
            ("containers that are an object", template(|template| template["spec"]["containers"] = json!({})), none),
            ("a null container", template(|template| template["spec"]["containers"] = json!([null])), none),
            ("a container that is text", template(|template| template["spec"]["containers"] = json!(["api"])), none),
            ("init containers that are true", template(|t| t["spec"]["initContainers"] = json!(true)), none),
            ("env that is an object", object(&with_container(&json!({"env": {"A": "1"}}))), none),
            ("a variable that is text", object(&with_container(&json!({"env": ["A=1"]}))), none),
            (
                "a variable whose value is a number",
                object(&with_container(&json!({"env": [{"name": "A", "value": 1}]}))),
                none,
            ),
            ("resources that are a number", object(&with_container(&json!({"resources": 1}))), none),
            ("limits that are a list", object(&with_container(&json!({"resources": {"limits": ["cpu"]}}))), none),
            ("a limit that is true", object(&with_container(&json!({"resources": {"limits": {"cpu": true}}}))), none),
            ("a limit of lots", object(&with_container(&json!({"resources": {"limits": {"memory": "lots"}}}))), none),
            ("ports that are a number", object(&with_container(&json!({"ports": 8080}))), none),
            ("a port that is text", object(&with_container(&json!({"ports": [{"containerPort": "8080"}]}))), none),
            ("a command that is text", object(&with_container(&json!({"command": "run"}))), none),
            ("a probe that is text", object(&with_container(&json!({"readinessProbe": "/healthz"}))), none),
            (
                "privileged that is text",
                object(&with_container(&json!({"securityContext": {"privileged": "no"}}))),
                none,
            ),
            ("an old object that is text", request(&json!({"operation": "UPDATE", "oldObject": "before"})), none),
            ("an escaped uid", raw_uid(r#""\u0075-\"\\\/\n\ud83d\ude00\u0000""#), Unreadable("u-\"\\/\n😀\0")),
            ("a long uid", raw_uid(&format!("\"{}\"", "u".repeat(300))), Unreadable(LONG)),
        ]
    }

    /// The longest uid of the table.
    const LONG: &str = match str::from_utf8(&[b'u'; 300]) {
        Ok(text) => text,
        Err(_) => "",
    };

    fn readable() -> Vec<(&'static str, Vec<u8>, Answer)> {
        let mut pod = review(&json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {}}));
        pod["request"]["kind"] = json!({"group": "", "version": "v1", "kind": "Pod"});
        let twice = example().to_string().replacen('{', r#"{"spec":"x","metadata":{"name":1},"#, 1);
        let receipt = |text: &str| {
            object(&with(|object| object["metadata"]["annotations"] = json!({"tidegate.dev/receipt": text})))
        };
        vec![
            ("the example", object(&example()), Admitted),
            ("200 levels deep in the envelope", deep_envelope(200), Admitted),
            ("7 MiB", [&object(&example())[..], &vec![b'\n'; 7 << 20]].concat(), Admitted),
            ("duplicate keys in the object", raw_object(&twice), Admitted),
            ("no containers", template(|template| template["spec"] = json!({})), Admitted),
            ("containers null", template(|template| template["spec"] = json!({"containers": null})), Admitted),
            ("containers empty", template(|template| template["spec"] = json!({"containers": []})), Admitted),
            ("no template", template(|template| *template = json!(null)), Admitted),
            ("no spec", object(&with(|object| object["spec"] = json!(null))), Admitted),
            ("a container without an image", object(&with_container(&json!({"image": null}))), Admitted),
            ("the most replicas", object(&with(|object| object["spec"]["replicas"] = json!(u64::MAX))), Admitted),
            ("half a replica", object(&with(|object| object["spec"]["replicas"] = json!(0.5))), Admitted),
            ("the highest port", object(&with_container(&json!({"ports": [{"containerPort": u64::MAX}]}))), Admitted),
            ("a receipt that is garbage", receipt("}{"), Admitted),
            ("a receipt of another form", receipt(r#"{"template":1,"set":[]}"#), Admitted),
            ("a receipt that is deep", receipt(&nested(300)), Admitted),
            (
                "applied from garbage",
                object(&with(|object| {
                    object["metadata"]["annotations"] =
                        json!({"kubectl.kubernetes.io/last-applied-configuration": "}{"});
                    object["metadata"]["managedFields"] = json!([{"operation": "Apply", "fieldsV1": []}]);
                })),
                Admitted,
            ),
            ("an update without an old object", request(&json!({"operation": "UPDATE"})), Admitted),
            ("no user", request(&json!({"userInfo": {}})), Admitted),
            ("no name", request(&json!({"name": null, "object": {"metadata": {"name": null}}})), Admitted),
            ("an unknown operation", request(&json!({"operation": "SMASH"})), Ignored),
            ("no operation", request(&json!({"operation": null})), Ignored),
            ("a subresource", request(&json!({"subResource": "scale"})), Ignored),
            ("a deletion", request(&json!({"operation": "DELETE", "object": null, "oldObject": example()})), Ignored),
            ("a connection", request(&json!({"operation": "CONNECT"})), Ignored),
            ("a Pod for an object", pod.to_string().into_bytes(), Ignored),
            ("no kind", request(&json!({"kind": null})), Ignored),
            ("a Deployment of another group", request(&json!({"kind": {"group": "example.com"}})), Ignored),
            (
                "an update of an object without the label",
                request(&json!({
                    "operation": "UPDATE",
                    "object": {"metadata": {"labels": null}, "spec": {"replicas": 2, "template": {"spec": {"hostNetwork": true}}}},
                    "oldObject": {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"}}
                })),
                Ignored,
            ),
            (
                "an object without the label",
                object(&with(|object| object["metadata"]["labels"] = json!(null))),
                Ignored,
            ),
        ]
    }

    async fn ask(name: &str, body: Vec<u8>, expected: Answer) {
        let state = state(SERVING, facts());
        for path in ["/mutate", "/validate"] {
            let mutates = path == "/mutate";
            let response = post(&state, path, body.clone()).await;
            if let Http(status) = expected {
                assert_eq!(response.status.as_u16(), status, "{name}, {path}: {}", response.text);
                continue;
            }
            let answer = response.answer();
            let (uid, allowed) = match expected {
                Unreadable(uid) => (uid, mutates),
                _ => ("u-1", true),
            };
            assert_eq!(
                (&answer["uid"], &answer["allowed"]),
                (&json!(uid), &json!(allowed)),
                "{name}, {path}: {answer}"
            );
            match expected {
                Unreadable(_) => {
                    assert!(answer["patch"].is_null(), "{name}, {path}: {answer}");
                    let message = if mutates { &answer["warnings"][0] } else { &answer["status"]["message"] };
                    assert!(
                        message.as_str().is_some_and(|message| message.starts_with("tidegate ")),
                        "{name}, {path}: {answer}"
                    );
                }
                Ignored => assert_eq!(answer, json!({"uid": "u-1", "allowed": true}), "{name}, {path}"),
                _ => {}
            }
        }
    }

    #[tokio::test]
    async fn bodies_that_are_not_reviews_get_an_http_error() {
        for (name, body, expected) in not_reviews() {
            ask(name, body, expected).await;
        }
    }

    #[tokio::test]
    async fn an_unreadable_object_passes_mutation_and_fails_validation() {
        for (name, body, expected) in unreadable() {
            ask(name, body, expected).await;
        }
    }

    #[tokio::test]
    async fn an_odd_but_readable_object_is_admitted() {
        for (name, body, expected) in readable() {
            ask(name, body, expected).await;
        }
    }

    #[tokio::test]
    async fn nothing_is_injected_without_a_pod() {
        for spec in [json!(null), json!({}), json!({"template": {}}), json!({"template": {"spec": {"containers": []}}})]
        {
            let object = with(|object| object["spec"] = spec);
            let (mutated, _) = mutate(&state(SERVING, facts()), &review(&object)).await;
            assert_eq!(mutated["spec"], object["spec"]);
        }
    }

    #[tokio::test]
    async fn containers_without_a_unique_name_are_not_changed() {
        for containers in
            [json!([{"image": "a:1"}]), json!([{"name": "a", "image": "a:1"}, {"name": "a", "image": "b:1"}])]
        {
            let object = with(|object| object["spec"]["template"]["spec"]["containers"] = containers);
            let (mutated, _) = mutate(&state(SERVING, facts()), &review(&object)).await;
            assert_eq!(mutated["spec"], object["spec"]);
        }
    }

    #[tokio::test]
    async fn only_posts_to_known_paths_are_answered() {
        let router = || webhooks(state(SERVING, facts()));
        for (request, status) in [
            (Request::get("/mutate").body(Body::empty()), StatusCode::METHOD_NOT_ALLOWED),
            (Request::post("/mutate/").body(Body::empty()), StatusCode::NOT_FOUND),
            (Request::post("/").body(Body::empty()), StatusCode::NOT_FOUND),
        ] {
            assert_eq!(router().oneshot(request.unwrap()).await.unwrap().status(), status);
        }
    }
}

#[tokio::test]
async fn is_unavailable_before_the_caches_have_synced() {
    let state = Arc::new(SharedState::new(policies(SERVING)));
    for path in ["/mutate", "/validate"] {
        let response = post(&state, path, review(&example()).to_string()).await;
        assert_eq!(response.status, StatusCode::SERVICE_UNAVAILABLE);
        let response = post(&state, path, "garbage").await;
        assert_eq!(response.status, StatusCode::BAD_REQUEST);
    }
    state.completed();
    let response = post(&state, "/validate", review(&example()).to_string()).await;
    assert_eq!(response.answer()["allowed"], true);
}

/// A policy of rules that take long for a container with many arguments, none of them too long by itself.
fn costly() -> String {
    let args = "object.spec.template.spec.containers[0].args";
    let expression = format!("{args}.all(a, {args}.all(b, {args}.all(c, a + b + c != '')))");
    let rule = |id: usize| json!({"id": format!("costly-{id}"), "expression": expression, "message": "not told"});
    json!({
        "apiVersion": "tidegate.dev/v1alpha1", "kind": "ServingPolicy", "metadata": {"name": "costly"},
        "spec": {"customRules": (0..50).map(rule).collect::<Vec<_>>()}
    })
    .to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn slow_custom_rules_do_not_block_health_and_watches() {
    let state = state(&costly(), facts());
    let args: Vec<String> = (0..25).map(|arg| format!("--a{arg}")).collect();
    let body = review(&with_container(&json!({"args": args}))).to_string();
    let request = Request::post("/validate").header("content-type", "application/json").body(Body::from(body)).unwrap();
    let slow = tokio::spawn(webhooks(Arc::clone(&state)).oneshot(request));
    let health = Request::get("/healthz").body(Body::empty()).unwrap();
    let health = tokio::spawn(routes(Vec::new()).oneshot(health)).await.unwrap().unwrap();
    state.note(|facts| facts.namespaces.insert("new".to_owned(), Namespace::default()));
    assert_eq!((health.status(), slow.is_finished()), (StatusCode::OK, false));
    let answered = to_bytes(slow.await.unwrap().unwrap().into_body(), usize::MAX).await.unwrap();
    let answer: Value = serde_json::from_slice(&answered).unwrap();
    let message = answer["response"]["status"]["message"].as_str().unwrap();
    assert!(message.contains("not evaluated: the custom rules used up the 5000000 steps allowed for one request, of which `costly-0` took "), "{message}");
}

#[tokio::test]
async fn waits_for_a_namespace_applied_with_the_deployment() {
    let only_prod = SERVING.replace(
        "spec:\n  enforcement",
        "spec:\n  match: {namespaceSelector: {matchLabels: {stage: prod}}}\n  enforcement",
    );
    let state = state(&only_prod, Facts { namespaces: [].into(), ..facts() });
    let writer = Arc::clone(&state);
    let seen = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let labels = [("stage".to_owned(), "prod".to_owned())].into();
        writer.note(|facts| facts.namespaces.insert("ml".into(), Namespace { labels, terminating: false }));
    });
    let (_, answer) = mutate(&state, &review(&example())).await;
    assert_eq!(answer["patchType"], "JSONPatch");
    seen.await.unwrap();
}

/// Calls the mutating webhook, and returns the patched object and the answer.
async fn mutate(state: &Arc<SharedState>, review: &Value) -> (Value, Value) {
    let answer = post(state, "/mutate", review.to_string()).await.answer();
    assert_eq!(answer["allowed"], true);
    let mut object = review["request"]["object"].clone();
    if let Some(patch) = answer["patch"].as_str() {
        let patch = BASE64_STANDARD.decode(patch).unwrap();
        let patch: json_patch::Patch = serde_json::from_slice(&patch).unwrap();
        json_patch::patch(&mut object, &patch).unwrap();
    }
    (object, answer)
}

mod messages {
    use super::*;

    /// Passes an object through both webhooks, as the API server does, and returns all messages.
    async fn messages(state: &Arc<SharedState>, mut review: Value) -> String {
        let (object, mutation) = mutate(state, &review).await;
        review["request"]["object"] = object;
        let verdict = post(state, "/validate", review.to_string()).await.answer();
        text(&mutation, &verdict)
    }

    fn text(mutation: &Value, verdict: &Value) -> String {
        let mut text = String::new();
        for (name, answer) in [("mutate", mutation), ("validate", verdict)] {
            for warning in answer["warnings"].as_array().into_iter().flatten() {
                let _ = writeln!(text, "{name} warns: {}", warning.as_str().unwrap());
            }
            for (key, value) in answer["auditAnnotations"].as_object().into_iter().flatten() {
                let _ = writeln!(text, "{name} adds to the audit log {key}: {}", value.as_str().unwrap());
            }
        }
        if verdict["allowed"] == true {
            return text + "admitted\n";
        }
        let status = &verdict["status"];
        let _ = writeln!(text, "refused, {} {}:", status["code"], status["reason"].as_str().unwrap());
        text += status["message"].as_str().unwrap();
        for cause in status["details"]["causes"].as_array().into_iter().flatten() {
            let _ = writeln!(text, "cause: {cause}");
        }
        text
    }

    async fn messages_for(object: &Value) -> String {
        messages(&state(SERVING, facts()), review(object)).await
    }

    async fn messages_for_update(state: &Arc<SharedState>, old: &Value, new: &Value) -> String {
        let mut review = review(new);
        review["request"]["operation"] = "UPDATE".into();
        review["request"]["oldObject"] = old.clone();
        messages(state, review).await
    }

    /// The example as it is stored after admission under a policy.
    async fn admitted(yaml: &str) -> Value {
        mutate(&state(yaml, facts()), &review(&example())).await.0
    }

    fn reference() -> WorkloadRef {
        WorkloadRef { namespace: "ml".into(), kind: "Deployment".into(), name: "ai-model-serving".into() }
    }

    fn two_containers() -> Value {
        with(|object| {
            object["spec"]["template"]["spec"]["containers"] =
                json!([{"name": "a", "image": "a:1"}, {"name": "b", "image": "b:1"}]);
        })
    }

    fn violating() -> Value {
        with_container(&json!({
            "image": "registry.example.com:5000/ai-model-serving",
            "resources": {"requests": {"cpu": "17"}, "limits": {"memory": "64000Gi", "cpu": "20"}},
            "securityContext": {"privileged": true}
        }))
    }

    #[tokio::test]
    async fn the_example_is_admitted_without_warnings() {
        let messages = messages_for(&example()).await;
        // Recorded violations are not shown to the user.
        let shown: Vec<&str> = messages.lines().filter(|line| !line.contains("adds to the audit log")).collect();
        assert_eq!(shown, ["admitted"], "{messages}");
    }

    #[tokio::test]
    async fn a_refusal_lists_every_violation() {
        insta::assert_snapshot!(messages_for(&violating()).await);
    }

    #[tokio::test]
    async fn a_refusal_for_one_violation() {
        let object = with_container(&json!({"image": "ai-model-serving:latest"}));
        insta::assert_snapshot!(messages_for(&object).await);
    }

    #[tokio::test]
    async fn a_container_without_memory_limit_where_the_policy_has_no_default() {
        let policy = SERVING.replace("limits: {cpu: 500m, memory: 500Mi}", "limits: {cpu: 500m}");
        insta::assert_snapshot!(messages(&state(&policy, facts()), review(&example())).await);
    }

    #[tokio::test]
    async fn a_request_below_the_minimum_of_the_policy() {
        let policy = SERVING.replace("memory: {max: 64Gi}", "memory: {min: 100Mi, max: 64Gi}");
        let object = with_container(&json!({"resources": {"requests": {"memory": "1Mi"}}}));
        insta::assert_snapshot!(messages(&state(&policy, facts()), review(&object)).await);
    }

    #[tokio::test]
    async fn the_label_removed() {
        let old = admitted(SERVING).await;
        let mut new = old.clone();
        new["metadata"]["labels"].as_object_mut().unwrap().remove(SCOPE.0);
        insta::assert_snapshot!(messages_for_update(&state(SERVING, facts()), &old, &new).await);
    }

    #[tokio::test]
    async fn several_containers_of_which_none_is_known() {
        insta::assert_snapshot!(messages_for(&two_containers()).await);
    }

    #[tokio::test]
    async fn an_annotation_that_names_an_unknown_container() {
        let object = with(|object| object["metadata"]["annotations"] = json!({"tidegate.dev/container": "server"}));
        insta::assert_snapshot!(messages_for(&object).await);
    }

    #[tokio::test]
    async fn no_port_to_probe() {
        insta::assert_snapshot!(messages_for(&with_container(&json!({"ports": null}))).await);
    }

    #[tokio::test]
    async fn several_ports_to_probe() {
        let ports = json!({"ports": [{"containerPort": 8080}, {"containerPort": 9090, "name": "metrics"}]});
        insta::assert_snapshot!(messages_for(&with_container(&ports)).await);
    }

    #[tokio::test]
    async fn a_workload_older_than_tidegate() {
        let old = example();
        let new = with(|object| object["metadata"]["annotations"] = json!({"a": "b"}));
        insta::assert_snapshot!(messages_for_update(&state(SERVING, facts()), &old, &new).await);
    }

    #[tokio::test]
    async fn replicas_that_an_autoscaler_holds() {
        let mut old = admitted(SERVING).await;
        let mut new = old.clone();
        (old["spec"]["replicas"], new["spec"]["replicas"]) = (4.into(), 1.into());
        let held = Autoscaler {
            kind: "HorizontalPodAutoscaler".into(),
            name: "ai-model-serving-tidegate".into(),
            min: 1,
            max: 10,
            ours: true,
            metrics: Vec::new(),
            static_fallback: None,
        };
        let facts = Facts { autoscalers: [(reference(), vec![held])].into(), ..facts() };
        insta::assert_snapshot!(messages_for_update(&state(SERVING, facts), &old, &new).await);
    }

    #[tokio::test]
    async fn replicas_in_a_new_manifest() {
        insta::assert_snapshot!(messages_for(&with(|object| object["spec"]["replicas"] = 3.into())).await);
    }

    #[tokio::test]
    async fn a_database_that_the_cluster_does_not_serve() {
        let facts = Facts { apis: Apis::default(), ..facts() };
        insta::assert_snapshot!(messages(&state(SERVING, facts), review(&example())).await);
    }

    #[tokio::test]
    async fn a_database_whose_name_is_taken() {
        let taken = Database { made_for: Some("Deployment/other".into()), ..Database::default() };
        let inside = [((DatabaseProvider::Zalando, "acid-ai-model-serving".to_owned()), taken)];
        let databases = [("ml".to_owned(), Arc::new(inside.into()))].into();
        insta::assert_snapshot!(messages(&state(SERVING, Facts { databases, ..facts() }), review(&example())).await);
    }

    #[tokio::test]
    async fn variables_that_the_author_set() {
        let env = json!([{"name": "PGHOST", "value": "db"}, {"name": "PGUSER", "valueFrom": {"fieldRef": {}}}]);
        insta::assert_snapshot!(messages_for(&with_container(&json!({"env": env}))).await);
    }

    #[tokio::test]
    async fn a_generated_name() {
        let object = with(|object| {
            let labels = object["metadata"]["labels"].take();
            object["metadata"] = json!({"generateName": "api-", "namespace": "ml", "labels": labels});
        });
        insta::assert_snapshot!(messages_for(&object).await);
        let mut wrong = object;
        container(&mut wrong)["image"] = "registry.example.com/api:latest".into();
        let refusal = messages_for(&wrong).await;
        assert!(refusal.contains("refuses Deployment ml/api- for 1 violation"), "{refusal}");
    }

    #[tokio::test]
    async fn a_violation_that_existed_before() {
        let old = mutate(&state(SERVING, facts()), &review(&violating())).await.0;
        let mut new = old.clone();
        new["spec"]["template"]["metadata"]["annotations"] = json!({"restarted": "now"});
        container(&mut new)["resources"]["requests"]["cpu"] = json!("18");
        insta::assert_snapshot!(messages_for_update(&state(SERVING, facts()), &old, &new).await);
    }

    #[tokio::test]
    async fn violations_under_a_policy_that_warns() {
        let policy = SERVING.replace("enforcement: enforce", "enforcement: warn");
        insta::assert_snapshot!(messages(&state(&policy, facts()), review(&violating())).await);
    }

    #[tokio::test]
    async fn violations_under_a_policy_in_audit() {
        let policy = SERVING.replace("enforcement: enforce", "enforcement: audit");
        insta::assert_snapshot!(messages(&state(&policy, facts()), review(&violating())).await);
    }

    #[tokio::test]
    async fn a_verdict_without_the_mutating_webhook() {
        let state = state(SERVING, facts());
        let object = with_container(&json!({"env": [{"name": "PGHOST", "value": "db"}]}));
        let verdict = post(&state, "/validate", review(&object).to_string()).await.answer();
        insta::assert_snapshot!(text(&json!({}), &verdict));
    }

    #[tokio::test]
    async fn an_object_that_cannot_be_parsed() {
        insta::assert_snapshot!(messages_for(&with_container(&json!({"env": "PGHOST=db"}))).await);
    }

    #[tokio::test]
    async fn an_object_that_is_not_json() {
        let body = review(&example()).to_string().replacen(r#""spec":"#, r#""spec":1e999,"was":"#, 1);
        let state = state(SERVING, facts());
        let mutation = post(&state, "/mutate", body.clone()).await.answer();
        let verdict = post(&state, "/validate", body).await.answer();
        insta::assert_snapshot!(text(&mutation, &verdict));
    }

    #[tokio::test]
    async fn bodies_that_are_not_reviews() {
        let state = state(SERVING, facts());
        let mut text = String::new();
        for body in [
            "",
            "{}",
            r#"{"apiVersion":"v1","kind":"Pod"}"#,
            r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}"#,
        ] {
            let _ = write!(text, "{body}\n  {}", post(&state, "/validate", body).await.text);
        }
        insta::assert_snapshot!(text);
    }
}
