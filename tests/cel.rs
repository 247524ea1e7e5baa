//! CEL expressions have the same results as in a `ValidatingAdmissionPolicy` of a real API server.

#![allow(clippy::unwrap_used, reason = "a failure here fails the test")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use common::{ControlPlane, SCOPE, SOON, Sandbox, wait_until};
use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tidegate_engine::BUILTIN;
use tidegate_engine::api::ServingPolicy;
use tidegate_engine::decision::{Operation, Request, User, Violation, decide};
use tidegate_engine::facts::{Facts, Namespace};
use tidegate_engine::policy::{Policy, PolicySet};
use tidegate_engine::workload::Workload;

/// The objects of `tests/cases/cel`, each with the table of expressions to evaluate on it.
const TABLES: [(&str, &str); 3] =
    [("object", "expressions"), ("bare", "bare-expressions"), ("stateful-set", "stateful-set-expressions")];

/// The number of expressions per request: the API server truncates warnings after about 4,000 characters.
const CHUNK: usize = 5;

#[derive(Deserialize)]
struct Case {
    expression: String,
    gives: Gives,
}

#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
enum Gives {
    Bool(bool),
    Nothing(Nothing),
}

#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Nothing {
    Error,
}

fn read<T: DeserializeOwned>(name: &str) -> T {
    serde_saphyr::from_str(&fs::read_to_string(format!("tests/cases/cel/{name}.yaml")).unwrap()).unwrap()
}

fn cases(table: &str) -> Vec<Case> {
    read::<BTreeMap<String, Vec<Case>>>(table).into_values().flatten().collect()
}

/// The variables for the expressions, in the form of both Kubernetes and Tidegate.
fn variables() -> Value {
    json!([
        {"name": "containers", "expression": "object.spec.template.spec.containers"},
        {"name": "names", "expression": "variables.containers.map(c, c.name)"},
        {"name": "images", "expression": "variables.containers.map(c, c.image)"}
    ])
}

/// Returns the result of an expression for the message that is shown if it is not `true`.
fn result_of(message: Option<&str>) -> Gives {
    match message {
        None => Gives::Bool(true),
        Some(text) if text.contains("cannot be evaluated") || text.contains("resulted in error") => {
            Gives::Nothing(Nothing::Error)
        }
        Some(_) => Gives::Bool(false),
    }
}

#[test]
fn evaluates_the_expressions_of_the_tables() {
    let (mut count, mut wrong) = (0, Vec::new());
    for (object, table) in TABLES {
        let object: Value = read(object);
        for case in cases(table) {
            count += 1;
            let rule =
                json!({"id": "case", "expression": case.expression, "message": "false", "variables": variables()});
            let found = violations(&object, &rule).map(|all| result_of(all.first().map(|found| &*found.finding.found)));
            if found.as_ref() != Ok(&case.gives) {
                wrong.push(format!("{table}: {}: {found:?}, not {:?}", case.expression, case.gives));
            }
        }
    }
    assert!(count >= 130, "{count} expressions");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Checks an object with a custom rule.
fn violations(object: &Value, rule: &Value) -> Result<Vec<Violation>, String> {
    let policy = json!({
        "apiVersion": "tidegate.dev/v1alpha1", "kind": "ServingPolicy", "metadata": {"name": "custom"},
        "spec": {"customRules": [rule]}
    });
    let policy: ServingPolicy = serde_json::from_value(policy).unwrap();
    let policy = Policy::compile(&policy, &BUILTIN).map_err(|error| error.to_string())?;
    let scope = [(SCOPE.0.to_owned(), SCOPE.1.to_owned())].into();
    let policies = PolicySet::new(scope, vec![Arc::new(policy)]);
    let mut object = object.clone();
    object["metadata"]["namespace"] = "ml".into();
    let labels = BTreeMap::from([("kubernetes.io/metadata.name".to_owned(), "ml".to_owned())]);
    let namespaces = [("ml".to_owned(), Namespace { labels, terminating: false })].into();
    let facts = Facts { namespaces, ..Facts::default() };
    let workload = Workload::view(&object).unwrap();
    let request =
        Request { user: User::named("jane"), ..Request::new(Operation::Create, workload, Timestamp::UNIX_EPOCH) };
    let mut violations = decide(&request, &policies, &facts).verdict.violations;
    violations.retain(|violation| violation.rule == rule["id"]);
    Ok(violations)
}

#[test]
#[ignore = "needs the control plane"]
fn the_api_server_has_the_same_results() {
    let sandbox = Sandbox::on(ControlPlane::shared().0, None, "cel");
    let tables = TABLES.map(|(object, table)| (object, cases(table)));
    for (name, cases) in &tables {
        cases
            .chunks(CHUNK)
            .enumerate()
            .for_each(|(chunk, cases)| admission_policy(&sandbox, &chunk_of(name, chunk), cases));
    }
    let chunks =
        tables.iter().flat_map(|(name, cases)| cases.chunks(CHUNK).enumerate().map(move |chunk| (name, chunk)));
    for (name, (chunk, cases)) in chunks {
        let mut object: Value = read(name);
        object["metadata"]["labels"]["chunk"] = chunk_of(name, chunk).into();
        let warnings = || sandbox.kubectl_with(&["create", "--dry-run=server", "-f", "-"], &object).succeeds().stderr;
        wait_until("the policy to be evaluated", SOON, || warnings().contains("always false"));
        let output = warnings();
        for (index, case) in cases.iter().enumerate() {
            let is_about = |line: &&str| line.ends_with(&format!(": case-{index}")) || line.contains(&case.expression);
            assert_eq!(result_of(output.lines().find(is_about)), case.gives, "{}\n{output}", case.expression);
        }
    }
}

fn chunk_of(object: &str, chunk: usize) -> String {
    format!("{object}-{chunk}")
}

/// Creates a `ValidatingAdmissionPolicy` that warns of each expression that is not `true`.
fn admission_policy(sandbox: &Sandbox, name: &str, cases: &[Case]) {
    let validations = cases
        .iter()
        .enumerate()
        .map(|(index, case)| json!({"expression": case.expression, "message": format!("case-{index}")}));
    let sentinel = json!({"expression": "object == null", "message": "always false"});
    let workloads = json!([{"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE"],
        "resources": ["deployments", "statefulsets"]}]);
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": {"name": name},
        "spec": {
            "failurePolicy": "Fail", "matchConstraints": {"resourceRules": workloads}, "variables": variables(),
            "validations": validations.chain([sentinel]).collect::<Vec<_>>()
        }
    });
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": name},
        "spec": {
            "policyName": name, "validationActions": ["Warn"],
            "matchResources": {"objectSelector": {"matchLabels": {"chunk": name}}}
        }
    });
    for object in [policy, binding] {
        sandbox.kubectl_with(&["create", "-f", "-"], &object).succeeds();
    }
}
