//! Expressions in CEL give what they give in a `ValidatingAdmissionPolicy` of a real API server.

#![allow(clippy::unwrap_used, reason = "a helper of tests fails as a test does")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use common::{ControlPlane, SCOPE, SOON, Sandbox, wait_until};
use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use tidegate_engine::BUILTIN;
use tidegate_engine::api::ServingPolicy;
use tidegate_engine::decision::{Operation, Request, User, Violation, decide};
use tidegate_engine::facts::{Facts, Namespace};
use tidegate_engine::policy::{Policy, PolicySet};
use tidegate_engine::workload::Workload;

const TABLE: &str = "tests/cases/cel/expressions.yaml";

/// How many expressions are asked at a time: the API server cuts off warnings after some 4,000 characters.
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

fn cases() -> Vec<Case> {
    let table: BTreeMap<String, Vec<Case>> = serde_saphyr::from_str(&fs::read_to_string(TABLE).unwrap()).unwrap();
    table.into_values().flatten().collect()
}

fn object() -> Value {
    serde_saphyr::from_str(&fs::read_to_string("tests/cases/cel/object.yaml").unwrap()).unwrap()
}

/// The variables that the expressions may use, in the form that is Kubernetes' and Tidegate's.
fn variables() -> Value {
    json!([
        {"name": "containers", "expression": "object.spec.template.spec.containers"},
        {"name": "names", "expression": "variables.containers.map(c, c.name)"},
        {"name": "images", "expression": "variables.containers.map(c, c.image)"}
    ])
}

/// What an expression gives where this is said of it when it does not give `true`.
fn given(told: Option<&str>) -> Gives {
    match told {
        None => Gives::Bool(true),
        Some(told) if told.contains("cannot be evaluated") || told.contains("resulted in error") => {
            Gives::Nothing(Nothing::Error)
        }
        Some(_) => Gives::Bool(false),
    }
}

#[test]
fn expressions_give_what_the_table_says() {
    let cases = cases();
    assert!(cases.len() >= 80, "{} expressions", cases.len());
    let wrong = cases.iter().filter_map(|case| {
        let rule = json!({"id": "case", "expression": case.expression, "message": "false", "variables": variables()});
        let found = judged(&rule).map(|told| given(told.first().map(|violation| &*violation.finding.found)));
        (found.as_ref() != Ok(&case.gives)).then(|| format!("{}: {found:?}, not {:?}", case.expression, case.gives))
    });
    let wrong: Vec<String> = wrong.collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Judges the object by a custom rule.
fn judged(rule: &Value) -> Result<Vec<Violation>, String> {
    let policy = json!({
        "apiVersion": "tidegate.dev/v1alpha1", "kind": "ServingPolicy", "metadata": {"name": "custom"},
        "spec": {"customRules": [rule]}
    });
    let policy: ServingPolicy = serde_json::from_value(policy).unwrap();
    let policy = Policy::compile(&policy, &BUILTIN).map_err(|error| error.to_string())?;
    let scope = [(SCOPE.0.to_owned(), SCOPE.1.to_owned())].into();
    let policies = PolicySet::new(scope, vec![Arc::new(policy)]);
    let mut object = object();
    object["metadata"]["namespace"] = "ml".into();
    let labels = BTreeMap::from([("kubernetes.io/metadata.name".to_owned(), "ml".to_owned())]);
    let namespaces = [("ml".to_owned(), Namespace { labels, terminating: false })].into();
    let facts = Facts { namespaces, ..Facts::default() };
    let workload = Workload::view(&object).unwrap();
    let request = Request {
        operation: Operation::Create,
        workload,
        old: None,
        user: User::named("jane"),
        now: Timestamp::UNIX_EPOCH,
    };
    let mut violations = decide(&request, &policies, &facts).verdict.violations;
    violations.retain(|violation| violation.rule == rule["id"]);
    Ok(violations)
}

#[test]
#[ignore = "needs the control plane"]
fn the_api_server_gives_the_same() {
    let sandbox = Sandbox::on(ControlPlane::shared().0, None, "cel");
    let cases = cases();
    for (chunk, cases) in cases.chunks(CHUNK).enumerate() {
        admission_policy(&sandbox, chunk, cases);
    }
    for (chunk, cases) in cases.chunks(CHUNK).enumerate() {
        let mut object = object();
        object["metadata"]["labels"]["chunk"] = format!("chunk-{chunk}").into();
        let asked = || sandbox.kubectl_with(&["create", "--dry-run=server", "-f", "-"], &object).succeeds().stderr;
        wait_until("the policy to be evaluated", SOON, || asked().contains("always told"));
        let told = asked();
        for (index, case) in cases.iter().enumerate() {
            let is_about = |line: &&str| line.ends_with(&format!(": case-{index}")) || line.contains(&case.expression);
            assert_eq!(given(told.lines().find(is_about)), case.gives, "{}\n{told}", case.expression);
        }
    }
}

/// Makes a policy of the API server's own that warns of each expression that does not give `true`.
fn admission_policy(sandbox: &Sandbox, chunk: usize, cases: &[Case]) {
    let name = format!("chunk-{chunk}");
    let validations = cases
        .iter()
        .enumerate()
        .map(|(index, case)| json!({"expression": case.expression, "message": format!("case-{index}")}));
    let sentinel = json!({"expression": "object == null", "message": "always told"});
    let deployments =
        json!([{"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["deployments"]}]);
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": {"name": name},
        "spec": {
            "failurePolicy": "Fail", "matchConstraints": {"resourceRules": deployments}, "variables": variables(),
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
