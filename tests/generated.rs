//! Compares decisions about generated Deployments with a real API server.
//!
//! Each run has the same cases: `PROPTEST_RNG_SEED` chooses others, `PROPTEST_CASES` more.

#![allow(clippy::unwrap_used, reason = "a helper of tests fails as a test does")]

mod common;

use std::cell::Cell;
use std::env;

use common::accepted::deployments;
use common::{Api, Sandbox, in_force, label, serving};
use k8s_openapi::jiff::Timestamp;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{RngSeed, TestError, TestRunner};
use serde::Serialize;
use serde_json::{Value, json};
use tidegate_engine::decision::{Decision, Operation, Request, User, decide};
use tidegate_engine::facts::{Apis, Facts};
use tidegate_engine::workload::{Workload, completed};

fn runner(cases: u32) -> TestRunner {
    let given = ProptestConfig::default();
    let cases = if env::var_os("PROPTEST_CASES").is_some() { given.cases } else { cases };
    let rng_seed = if given.rng_seed == RngSeed::Random { RngSeed::Fixed(0) } else { given.rng_seed };
    TestRunner::new(ProptestConfig { cases, rng_seed, failure_persistence: None, ..given })
}

/// Policies that set many, few, and only one of a pair of fields; none refuses anything.
fn policies() -> Vec<Value> {
    let spec = |resources: Value, probes: Value| {
        let mut policy = serving("generated");
        policy["spec"]["resources"] = resources;
        policy["spec"]["probes"] = probes;
        policy
    };
    let probes = || json!({"startupBudget": "95s"});
    let mut policies = vec![
        serving("generated"),
        spec(
            json!({"cpu": {"limits": {"cpu": "100m", "memory": "100Mi"}}, "gpu": {"limits": {"memory": "1Gi"}}}),
            probes(),
        ),
        spec(json!({"cpu": {"requests": {"cpu": "2", "memory": "2Gi"}}, "gpu": {"requests": {"cpu": "8"}}}), probes()),
        spec(json!({}), json!({"from": "none"})),
    ];
    let mut all = serving("generated");
    all["spec"]["pod"]["gpuToleration"] = true.into();
    all["spec"]["autoscaling"]["minReplicas"] = 2.into();
    all["spec"]["probes"]["startupBudget"] = "20m".into();
    policies.push(all);
    for policy in &mut policies {
        policy["spec"]["enforcement"] = "warn".into();
    }
    policies
}

/// The same policy without its `match`.
fn policy_for_all(policy: &Value) -> Value {
    let mut policy = policy.clone();
    policy["spec"]["match"] = Value::Null;
    policy
}

fn create(object: &Value, policy: &Value) -> Decision {
    let facts = Facts { apis: Apis::all(), ..Facts::default() };
    let workload = Workload::view(object).unwrap();
    let request =
        Request { user: User::named("jane"), ..Request::new(Operation::Create, workload, Timestamp::UNIX_EPOCH) };
    decide(&request, &in_force(&policy_for_all(policy)), &facts)
}

/// Returns what the API server would store without Tidegate: without the label, and without the fields that it sets
/// itself.
fn stored(sandbox: &Sandbox, object: &Value) -> Result<Value, String> {
    let mut object = object.clone();
    label(&mut object, None);
    let metadata = object["metadata"].as_object_mut().unwrap();
    metadata.retain(|field, _| ["name", "namespace", "labels", "annotations"].contains(&field.as_str()));
    object.as_object_mut().unwrap().remove("status");
    let mut stored = sandbox.plane.api.create_dry_run(&object)?;
    label(&mut stored, Some("model-server"));
    Ok(stored)
}

/// Panics with a failing case, in a form that can be applied.
fn report<T: Serialize>(outcome: Result<(), TestError<T>>) {
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(reason, case)) => panic!("{reason}\n{}", serde_json::to_string(&case).unwrap()),
        Err(TestError::Abort(reason)) => panic!("{reason}"),
    }
}

/// Leaves out empty fields: server-side apply removes an object with its last field.
fn without_empty(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields.iter().map(|(name, value)| (name.clone(), without_empty(value)));
            kept.filter(|(_, value)| !(value.is_null() || *value == json!({}) || *value == json!([]))).collect()
        }
        Value::Array(items) => items.iter().map(without_empty).collect(),
        other => other.clone(),
    }
}

/// Returns the first difference between two values.
fn difference(one: &Value, other: &Value, place: &str) -> Option<String> {
    match (one, other) {
        (Value::Object(fields), Value::Object(others)) => {
            let mut names = fields.keys().chain(others.keys());
            names.find_map(|name| difference(&one[name], &other[name], &format!("{place}.{name}")))
        }
        (Value::Array(items), Value::Array(others)) if items.len() == others.len() => {
            let mut pairs = items.iter().zip(others).enumerate();
            pairs.find_map(|(index, (item, other))| difference(item, other, &format!("{place}[{index}]")))
        }
        _ => (one != other).then(|| format!("{place} is {one} and {other}")),
    }
}

#[test]
#[ignore = "needs the control plane"]
fn the_api_server_accepts_every_patched_object() {
    let sandbox = Sandbox::without_policy("generated");
    let (accepted, changed) = (Cell::new(0), Cell::new(0));
    let mut runner = runner(150);
    let cases = runner.config().cases;
    let outcome = runner.run(&(deployments("generated"), select(policies())), |(object, policy)| {
        let Ok(before) = stored(&sandbox, &object) else { return Ok(()) };
        accepted.set(accepted.get() + 1);
        let decision = create(&before, &policy);
        changed.set(changed.get() + usize::from(decision.patch.len() > 1));
        let mut patched = before.clone();
        json_patch::patch(&mut patched, &decision.patch).unwrap();
        let after = match stored(&sandbox, &patched) {
            Ok(after) => after,
            Err(refusal) => return Err(TestCaseError::fail(format!("{refusal}\n{}", decision.patch))),
        };
        let changed = difference(&patched["spec"], &after["spec"], "spec");
        prop_assert!(changed.is_none(), "the API server changes the patched object: {}", changed.unwrap_or_default());
        let again = create(&after, &policy).patch;
        prop_assert!(again.is_empty(), "the second decision patches again: {again}");
        Ok(())
    });
    report(outcome);
    let cases = usize::try_from(cases).unwrap();
    assert!(accepted.get() > cases / 2, "only {} of {cases} cases are valid", accepted.get());
    assert!(changed.get() > cases / 2, "only {} of {cases} are changed", changed.get());
}

#[test]
#[ignore = "needs the control plane"]
fn completes_objects_as_the_api_server_does() {
    let sandbox = Sandbox::without_policy("completed");
    let compared = Cell::new(0);
    let mut runner = runner(150);
    let cases = runner.config().cases;
    let both = (deployments("completed"), select(vec!["Deployment", "StatefulSet"]));
    let outcome = runner.run(&both, |(mut object, kind)| {
        object["kind"] = kind.into();
        let Ok(stored) = stored(&sandbox, &object) else { return Ok(()) };
        compared.set(compared.get() + 1);
        let completed = completed(object);
        prop_assert_eq!(difference(&stored["spec"], &completed["spec"], "spec"), None);
        prop_assert_eq!(&stored["spec"], &completed["spec"], "null and absent fields differ");
        prop_assert_eq!(&stored["status"], &completed["status"]);
        Ok(())
    });
    report(outcome);
    let cases = usize::try_from(cases).unwrap();
    assert!(compared.get() > cases / 2, "only {} of {cases} cases are valid", compared.get());
}

/// Finds traces of the old version: an injected value that stays, or one that is not injected any more. Cases where
/// server-side apply itself leaves a trace are skipped.
#[test]
#[ignore = "needs the control plane"]
fn an_update_gives_the_same_result_as_a_creation() {
    let namespaces = ["updated-0", "updated-1", "updated-2", "updated-3"];
    let sandboxes = namespaces.map(Sandbox::without_policy);
    for (sandbox, mut policy) in sandboxes.iter().zip(policies()) {
        policy["metadata"]["name"] = sandbox.namespace.into();
        policy["spec"]["match"] = serving(sandbox.namespace)["spec"]["match"].clone();
        sandbox.put_policy(&policy);
    }
    let api = &sandboxes[0].plane.api;
    let mut runner = runner(60);
    let cases = runner.config().cases;
    let compared = Cell::new(0);
    let both = (deployments("updated-0"), deployments("updated-0"), select(namespaces.to_vec()));
    let outcome = runner.run(&both, |(mut first, mut second, namespace)| {
        first["metadata"]["namespace"] = namespace.into();
        second["metadata"]["namespace"] = namespace.into();
        let Some((new, updated)) = new_and_updated(api, &unlabelled(&first), &unlabelled(&second)) else {
            return Ok(());
        };
        if !updated.is_ok_and(|updated| difference(&new, &updated, "").is_none()) {
            return Ok(());
        }
        compared.set(compared.get() + 1);
        let (new, updated) = new_and_updated(api, &first, &second).expect("the API server accepts them");
        let left = difference(&new, &updated.map_err(TestCaseError::fail)?, "template");
        prop_assert!(left.is_none(), "new and updated: {}", left.unwrap_or_default());
        Ok(())
    });
    report(outcome);
    let cases = usize::try_from(cases).unwrap();
    assert!(compared.get() > cases / 3, "only {} of {cases} cases are valid", compared.get());
}

fn unlabelled(object: &Value) -> Value {
    let mut object = object.clone();
    label(&mut object, None);
    object
}

/// Returns the template of the second manifest, both created and applied over the first; none if the API server rejects
/// one of the manifests by itself.
fn new_and_updated(api: &Api, first: &Value, second: &Value) -> Option<(Value, Result<Value, String>)> {
    let template = |object: Value| without_empty(&object["spec"]["template"]);
    let new = api.apply(second, true).ok()?;
    api.apply(first, false).ok()?;
    let updated = api.apply(second, true);
    api.delete(first);
    Some((template(new), updated.map(template)))
}
