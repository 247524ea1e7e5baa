//! How long one decision takes, alone and from bytes to bytes; and the cost of the facts of many workloads.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;
use tidegate::admission::{self, Webhook};
use tidegate::manifests;
use tidegate::shared_state::SharedState;
use tidegate_engine::api::DatabaseProvider;
use tidegate_engine::decision::{Operation, Request, User, decide};
use tidegate_engine::facts::{Apis, Autoscaler, Claim, Database, Facts, Metric, Namespace};
use tidegate_engine::policy::{self, PolicySet};
use tidegate_engine::workload::{Workload, WorkloadRef};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A review that an API server sent; see `fixtures/README.md`.
struct Recorded {
    name: &'static str,
    webhook: Webhook,
    operation: Operation,
    body: &'static [u8],
}

const RECORDED: [Recorded; 4] = [
    Recorded {
        name: "create",
        webhook: Webhook::Mutate,
        operation: Operation::Create,
        body: include_bytes!("fixtures/create.json"),
    },
    Recorded {
        name: "create-validate",
        webhook: Webhook::Validate,
        operation: Operation::Create,
        body: include_bytes!("fixtures/create-validate.json"),
    },
    Recorded {
        name: "label",
        webhook: Webhook::Mutate,
        operation: Operation::Update,
        body: include_bytes!("fixtures/label.json"),
    },
    Recorded {
        name: "set-image",
        webhook: Webhook::Mutate,
        operation: Operation::Update,
        body: include_bytes!("fixtures/set-image.json"),
    },
];

fn decision_alone(criterion: &mut Criterion) {
    let policies = policies();
    let mut group = criterion.benchmark_group("decide");
    for Recorded { name, operation, body, .. } in RECORDED {
        let review: Value = serde_json::from_slice(body).expect("the fixture is JSON");
        let (object, old) = (&review["request"]["object"], &review["request"]["oldObject"]);
        let old = (!old.is_null()).then(|| view(old));
        let request =
            Request { operation, workload: view(object), old, user: User::named("admin"), now: Timestamp::UNIX_EPOCH };
        let facts = facts(operation);
        group.bench_function(name, |bencher| bencher.iter(|| decide(black_box(&request), &policies, &facts)));
    }
}

/// From the bytes of a request to those of its answer, as the handlers do it.
fn answer_in_bytes(criterion: &mut Criterion) {
    let policies = policies();
    let mut group = criterion.benchmark_group("answer");
    for Recorded { name, webhook, operation, body } in RECORDED {
        let facts = facts(operation);
        let answer = |body| {
            let review = admission::decode(body).expect("the fixture is a review");
            review.answer(webhook, Timestamp::UNIX_EPOCH, &policies, &facts).encode()
        };
        group.bench_function(name, |bencher| bencher.iter(|| answer(black_box(body))));
    }
}

/// The number of workloads, each in a namespace of its own.
const WORKLOADS: usize = 10_000;

/// The cost of reading the facts, and of updating one: alone, and while a decision holds an earlier snapshot.
fn facts_of_many(criterion: &mut Criterion) {
    let state = SharedState::new(policies());
    (0..WORKLOADS).for_each(|number| state.note(|facts| add_workload(facts, number)));
    let mut group = criterion.benchmark_group("facts-10000");
    group.bench_function("read", |bencher| bencher.iter(|| state.read(|_, facts| black_box(facts).apis)));
    group.bench_function("note", |bencher| bencher.iter(|| state.note(|facts| add_workload(facts, black_box(7)))));
    let note = |before| {
        state.note(|facts| add_workload(facts, black_box(7)));
        before
    };
    group.bench_function("note-while-decided", |bencher| {
        bencher.iter_batched(|| state.snapshot(), note, BatchSize::PerIteration);
    });
}

fn add_workload(facts: &mut Facts, number: usize) {
    let (namespace, name) = (format!("team-{number}"), format!("model-{number}"));
    let labels =
        ["kubernetes.io/metadata.name", "team", "environment"].map(|label| (label.to_owned(), namespace.clone()));
    facts.namespaces.insert(namespace.clone(), Namespace { labels: labels.into(), terminating: false });
    let metric = Metric { kind: "ContainerResource".into(), name: "cpu".into(), ..Metric::default() };
    let kind = "HorizontalPodAutoscaler".to_owned();
    let (metrics, name_of_hpa) = (vec![metric], format!("{name}-tidegate"));
    let autoscaler =
        Autoscaler { kind, name: name_of_hpa, min: 1, max: 10, ours: true, metrics, static_fallback: None };
    let workload = WorkloadRef { namespace: namespace.clone(), kind: "Deployment".into(), name: name.clone() };
    facts.autoscalers.insert(workload, vec![autoscaler]);
    let database = Database { made_for: Some(format!("Deployment/{name}")), ..Database::default() };
    let inside = [((DatabaseProvider::Zalando, format!("acid-{name}")), database)].into();
    facts.databases.insert(namespace.clone(), Arc::new(inside));
    facts.claims.entry(namespace.clone()).or_default().insert(name.clone(), Claim::default());
    facts.services.insert(namespace, Arc::new([name].into()));
}

fn view(object: &Value) -> Workload<'_> {
    Workload::view(object).expect("the fixture is a workload")
}

fn policies() -> PolicySet {
    let scope = [("app.kubernetes.io/component".to_owned(), "model-server".to_owned())].into();
    let text = policy::shipped("serving").expect("the policy is shipped");
    manifests::policies("serving", text, scope).expect("the policy is valid")
}

/// The facts: at the time of an update, the autoscaler and the database exist.
fn facts(operation: Operation) -> Facts {
    let namespaces = [("default".to_owned(), Namespace::default())].into();
    let mut facts = Facts { namespaces, apis: Apis::all(), ..Facts::default() };
    if operation == Operation::Update {
        let name = "ai-model-serving".to_owned();
        let workload = WorkloadRef { namespace: "default".into(), kind: "Deployment".into(), name };
        let kind = "HorizontalPodAutoscaler".to_owned();
        let autoscaler = Autoscaler {
            kind,
            name: "ai-model-serving-tidegate".into(),
            min: 1,
            max: 10,
            ours: true,
            metrics: Vec::new(),
            static_fallback: None,
        };
        facts.autoscalers.insert(workload, vec![autoscaler]);
        let database = Database { made_for: Some("Deployment/ai-model-serving".into()), ..Database::default() };
        let inside = [((DatabaseProvider::Zalando, "acid-ai-model-serving".into()), database)].into();
        facts.databases.insert("default".into(), Arc::new(inside));
    }
    facts
}

criterion_group!(benches, decision_alone, answer_in_bytes, facts_of_many);
criterion_main!(benches);
