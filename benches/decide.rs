//! How long one decision takes, alone and with the bytes around it.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;
use tidegate::admission::{self, Webhook};
use tidegate::input;
use tidegate_engine::api::DatabaseProvider;
use tidegate_engine::decision::{Operation, Request, User, decide};
use tidegate_engine::facts::{Apis, Autoscaler, Database, Facts, Namespace};
use tidegate_engine::policy::{self, PolicySet};
use tidegate_engine::workload::{Workload, WorkloadRef};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A review that an API server sent; see the README beside them.
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

fn view(object: &Value) -> Workload<'_> {
    Workload::view(object).expect("the fixture is a workload")
}

fn policies() -> PolicySet {
    let scope = [("app.kubernetes.io/component".to_owned(), "model-server".to_owned())].into();
    let text = policy::shipped("serving").expect("the policy is one that we ship");
    input::policies("serving", text, scope).expect("it makes sense")
}

/// What is known of the cluster: at the time of an update, the autoscaler and the database are there.
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
        };
        facts.autoscalers.insert(workload, vec![autoscaler]);
        let database = Database { made_for: Some("Deployment/ai-model-serving".into()), ..Database::default() };
        facts
            .databases
            .entry("default".into())
            .or_default()
            .insert((DatabaseProvider::Zalando, "acid-ai-model-serving".into()), database);
    }
    facts
}

criterion_group!(benches, decision_alone, answer_in_bytes);
criterion_main!(benches);
