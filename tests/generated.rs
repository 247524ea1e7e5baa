//! Holds decisions to what a real API server says of Deployments that nobody thought of.
//!
//! The same cases in each run: `PROPTEST_RNG_SEED` chooses others, `PROPTEST_CASES` more.

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

/// Policies that give much, little, and only one side of a pair; none refuses anything.
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

/// The same policy without what narrows it.
fn policy_for_all(policy: &Value) -> Value {
    let mut policy = policy.clone();
    policy["spec"]["match"] = Value::Null;
    policy
}

fn create(object: &Value, policy: &Value) -> Decision {
    let facts = Facts { apis: Apis::all(), ..Facts::default() };
    let workload = Workload::view(object).unwrap();
    let request = Request {
        operation: Operation::Create,
        workload,
        old: None,
        user: User::named("jane"),
        now: Timestamp::UNIX_EPOCH,
    };
    decide(&request, &in_force(&policy_for_all(policy)), &facts)
}

/// Asks the API server what it would store, past Tidegate: without the label, and without what it adds itself.
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

/// Tells of a case that fails, in a form that can be applied.
fn tell<T: Serialize>(outcome: Result<(), TestError<T>>) {
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(reason, case)) => panic!("{reason}\n{}", serde_json::to_string(&case).unwrap()),
        Err(TestError::Abort(reason)) => panic!("{reason}"),
    }
}

/// Leaves out what is empty: so does server-side apply with what it takes the last field out of.
fn said(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let said = fields.iter().map(|(name, value)| (name.clone(), said(value)));
            said.filter(|(_, value)| !(value.is_null() || *value == json!({}) || *value == json!([]))).collect()
        }
        Value::Array(items) => items.iter().map(said).collect(),
        other => other.clone(),
    }
}

/// Names the first place at which two values differ.
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
fn the_api_server_accepts_what_comes_out_whenever_it_accepted_what_went_in() {
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
        prop_assert!(changed.is_none(), "the API server changes what came out: {}", changed.unwrap_or_default());
        let again = create(&after, &policy).patch;
        prop_assert!(again.is_empty(), "deciding again: {again}");
        Ok(())
    });
    tell(outcome);
    let cases = usize::try_from(cases).unwrap();
    assert!(accepted.get() > cases / 2, "only {} of {cases} cases say something", accepted.get());
    assert!(changed.get() > cases / 2, "only {} of {cases} are changed", changed.get());
}

#[test]
#[ignore = "needs the control plane"]
fn what_comes_from_a_file_is_completed_as_the_api_server_does() {
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
        prop_assert_eq!(&stored["spec"], &completed["spec"], "what is null and what is absent");
        prop_assert_eq!(&stored["status"], &completed["status"]);
        Ok(())
    });
    tell(outcome);
    let cases = usize::try_from(cases).unwrap();
    assert!(compared.get() > cases / 2, "only {} of {cases} cases say something", compared.get());
}

/// What is left of the old version would show: an injected value that does not give way, or one that is not injected
/// any more. Where server-side apply itself leaves something of the old version, nothing is to be learnt.
#[test]
#[ignore = "needs the control plane"]
fn an_update_comes_out_as_the_same_manifest_does_when_it_is_new() {
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
    tell(outcome);
    let cases = usize::try_from(cases).unwrap();
    assert!(compared.get() > cases / 3, "only {} of {cases} cases say something", compared.get());
}

fn unlabelled(object: &Value) -> Value {
    let mut object = object.clone();
    label(&mut object, None);
    object
}

/// Returns the template of the second manifest, where it is new and where it is applied over the first; none where the
/// API server accepts one of the manifests not even by itself.
fn new_and_updated(api: &Api, first: &Value, second: &Value) -> Option<(Value, Result<Value, String>)> {
    let template = |object: Value| said(&object["spec"]["template"]);
    let new = api.apply(second, true).ok()?;
    api.apply(first, false).ok()?;
    let updated = api.apply(second, true);
    api.delete(first);
    Some((template(new), updated.map(template)))
}
