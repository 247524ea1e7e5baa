//! Runs `tests/cases/reports`: inputs that broke other tools, with what `check` and the webhooks make of them under the
//! shipped policy. Each folder has an `expected.yaml` with an entry for each of its files.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use tidegate::admission::{self, Webhook};
use tidegate::manifests::{Manifests, evaluation};
use tidegate::policy_tests::Expected;
use tidegate_engine::policy::{PolicySet, shipped};
use tidegate_engine::workload::Workload;

/// What is expected of a file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Outcome {
    /// What the API server would not take, without the name of the file.
    #[serde(default)]
    invalid: Vec<String>,
    /// What the policy makes of each workload.
    #[serde(default)]
    workloads: BTreeMap<String, Expected>,
}

fn cases() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/reports");
    let mut cases: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    cases
}

fn expected(case: &Path) -> BTreeMap<String, Outcome> {
    let path = case.join("expected.yaml");
    serde_saphyr::from_str(&fs::read_to_string(&path).unwrap())
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn policies(input: &Manifests) -> PolicySet {
    input.policy_set([("app.kubernetes.io/component".to_owned(), "model-server".to_owned())].into())
}

fn new() -> Manifests {
    let mut input = Manifests::new();
    input.add_text("serving", shipped("serving").unwrap(), "").unwrap();
    input
}

fn checks(file: &str, bytes: &[u8], expected: &Outcome) -> Vec<String> {
    let mut input = new();
    let errors = input.add_all(file, bytes, "ml");
    let invalid: Vec<String> =
        errors.iter().map(|error| error.to_string().replacen(&format!("{file}: "), "", 1)).collect();
    let mut wrong = Vec::new();
    if invalid != expected.invalid {
        wrong.push(format!("invalid: {invalid:#?}"));
    }
    let policies = policies(&input);
    let mut names = BTreeSet::new();
    for found in &input.workloads {
        let name = Workload::view(&found.object).unwrap().shown_name();
        names.insert(name.to_owned());
        let Some(expected) = expected.workloads.get(name) else { continue };
        let evaluation = evaluation(&found.object, None, Timestamp::UNIX_EPOCH, &policies, &input.facts);
        wrong.extend(
            expected.compared(&evaluation).differences.iter().map(|difference| format!("{name}: {difference}")),
        );
    }
    if !names.iter().eq(expected.workloads.keys()) {
        wrong.push(format!("workloads: {names:?}"));
    }
    wrong
}

/// Answers a review as both webhooks do, one after the other, and compares the stored object.
fn reviews(bytes: &[u8], expected: &Outcome) -> Vec<String> {
    let mut body: Value = serde_json::from_slice(bytes).unwrap();
    let mut input = new();
    input.add_text("review", &body["request"]["object"].to_string(), "").unwrap();
    let (policies, now) = (policies(&input), Timestamp::UNIX_EPOCH);
    let answer = |bytes: &[u8], webhook: Webhook| -> Value {
        let review = admission::decode(bytes).unwrap();
        serde_json::from_slice(&review.answer(webhook, now, &policies, &input.facts).encode()).unwrap()
    };
    let mutated = answer(bytes, Webhook::Mutate);
    let given = body["request"]["object"].clone();
    let patch = BASE64_STANDARD.decode(mutated["response"]["patch"].as_str().unwrap()).unwrap();
    let patch: json_patch::Patch = serde_json::from_slice(&patch).unwrap();
    json_patch::patch(&mut body["request"]["object"], &patch).unwrap();
    let mut wrong = changed(&given, &body["request"]["object"], "");
    let validated = answer(&serde_json::to_vec(&body).unwrap(), Webhook::Validate);
    let (name, expected) = expected.workloads.first_key_value().unwrap();
    let evaluation = evaluation(&given, None, now, &policies, &input.facts);
    if evaluation.to_json() != body["request"]["object"] {
        wrong.push("the patch does not make what check says".to_owned());
    }
    if validated["response"]["allowed"] != expected.refused.is_empty() {
        wrong.push(format!("{validated}"));
    }
    wrong.extend(expected.compared(&evaluation).differences.iter().map(|difference| format!("{name}: {difference}")));
    wrong
}

/// Returns what of the given object is not as it was: everything else has been added.
fn changed(given: &Value, stored: &Value, place: &str) -> Vec<String> {
    match (given, stored) {
        (Value::Object(given), Value::Object(stored)) => given
            .iter()
            .flat_map(|(name, value)| {
                changed(value, stored.get(name).unwrap_or(&Value::Null), &format!("{place}/{name}"))
            })
            .collect(),
        (Value::Array(given), Value::Array(stored)) if given.iter().all(Value::is_object) => given
            .iter()
            .zip(stored.iter().map(Some).chain(std::iter::repeat(None)))
            .enumerate()
            .flat_map(|(index, (value, stored))| {
                changed(value, stored.unwrap_or(&Value::Null), &format!("{place}/{index}"))
            })
            .collect(),
        _ if given == stored => Vec::new(),
        _ => vec![format!("{place} was {given} and is {stored}")],
    }
}

#[test]
fn every_file_has_the_expected_outcome() {
    let mut wrong = Vec::new();
    for case in cases() {
        for (file, expected) in expected(&case) {
            let bytes = fs::read(case.join(&file)).unwrap();
            let found =
                if file == "review.json" { reviews(&bytes, &expected) } else { checks(&file, &bytes, &expected) };
            let name = case.file_name().unwrap().display();
            wrong.extend(found.iter().map(|difference| format!("{name}/{file}: {difference}")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_file_is_listed() {
    for case in cases() {
        let files = fs::read_dir(&case).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let files: BTreeSet<String> = files.filter(|file| file != "expected.yaml").collect();
        assert_eq!(files, expected(&case).into_keys().collect(), "{}", case.display());
    }
}
