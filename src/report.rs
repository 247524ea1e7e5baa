//! Decisions as text: shared by webhooks, commands and statuses.

pub mod check;
pub mod docs;
pub mod explain;
mod format;
pub mod policy_tests;

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;

use serde::Serialize;
use serde_json::Value;

pub use format::{Format, changes};
use tidegate_engine::decision::{Evaluation, Exempted, Verdict, Violation};
use tidegate_engine::workload::WorkloadRef;

/// Writes a refusal: every violation with its field, what was found, what is expected, and a fix to paste.
#[must_use]
pub fn refusal(kind: &str, namespace: &str, name: &str, verdict: &Verdict) -> String {
    let violations = plural(verdict.violations.len(), "violation");
    format!("tidegate refuses {kind} {namespace}/{name} for {violations}:\n{}", paragraphs(verdict.violations.iter()))
}

/// Writes one paragraph for each violation.
fn paragraphs<'v>(violations: impl Iterator<Item = &'v Violation>) -> String {
    let mut text = String::new();
    for (index, violation) in violations.enumerate() {
        let _ = write!(text, "\n{}", paragraph(index + 1, violation));
    }
    text
}

/// Writes a count with a noun.
pub(crate) fn plural(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

fn paragraph(number: usize, violation: &Violation) -> String {
    let finding = &violation.finding;
    let subject =
        if finding.container.is_empty() { String::new() } else { format!(" (container {})", finding.container) };
    let mut text = format!("{number}. {}{subject}: {}\n", violation.rule, finding.place);
    let _ = writeln!(text, "   found:    {}", finding.found);
    let _ = writeln!(text, "   expected: {}", finding.expected);
    let _ = writeln!(text, "   policy:   {}", violation.policy);
    if !finding.fix.is_empty() {
        let _ = writeln!(text, "   instead:");
    }
    for line in finding.fix.lines() {
        let _ = writeln!(text, "     {line}");
    }
    text
}

/// The most workloads to name in a message.
const MOST_NAMED: usize = 10;

/// Writes a message about workloads with more replicas than a policy allows, each with its replicas; none if there are
/// none.
#[must_use]
pub fn held(replicas: &BTreeMap<&WorkloadRef, i64>) -> Option<String> {
    let of = |(workload, count): (&&WorkloadRef, &i64)| {
        format!("{} {}/{} ({count})", workload.kind, workload.namespace, workload.name)
    };
    let named: Vec<String> = replicas.iter().take(MOST_NAMED).map(of).collect();
    let more = replicas.len().saturating_sub(MOST_NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let (subject, verb) = (plural(replicas.len(), "model server"), if replicas.len() == 1 { "has" } else { "have" });
    (!named.is_empty()).then(|| {
        format!(
            "{subject} {verb} more replicas than maxReplicas allows: {}{more}; no replica is stopped: each autoscaler's \
             maxReplicas is lowered as its replicas go down",
            named.join(", ")
        )
    })
}

/// One cause of a refusal, for `status.details.causes`.
#[derive(Debug, Serialize)]
pub struct Cause {
    /// The rule's id.
    pub reason: String,
    /// The field.
    pub field: String,
    /// What was found and what is expected.
    pub message: String,
}

/// Returns the causes of a refusal.
#[must_use]
pub fn causes(verdict: &Verdict) -> Vec<Cause> {
    let cause = |violation: &Violation| Cause {
        reason: violation.rule.clone(),
        field: violation.finding.place.clone(),
        message: format!("found {}, expected {}", violation.finding.found, violation.finding.expected),
    };
    verdict.violations.iter().map(cause).collect()
}

/// Returns the warnings of a verdict. If there is still something to patch, the mutating webhook was not called; its
/// warnings are included.
#[must_use]
pub fn warnings(evaluation: &Evaluation, verdict: &Verdict) -> Vec<String> {
    let mut warnings: Vec<String> = verdict.warnings.iter().map(ToString::to_string).collect();
    if !evaluation.patch().is_empty() {
        warnings.push(
            "tidegate's mutating webhook was not reached: apply again to have the missing fields injected".to_owned(),
        );
        warnings.extend(evaluation.notes());
    }
    warnings
}

/// Returns the audit annotations: violations under policies in audit, uses of exceptions, and violations that a rollback
/// is allowed with.
#[must_use]
pub fn audit(verdict: &Verdict) -> BTreeMap<&'static str, String> {
    let at = |violation: &Violation| format!("{} at {}", violation.rule, violation.finding.place);
    let violations: Vec<String> = verdict.recorded.iter().map(at).collect();
    let exempted = |exempted: &Exempted| format!("{} by {}", at(&exempted.violation), exempted.exception);
    let exceptions: Vec<String> = verdict.exempted.iter().map(exempted).collect();
    let rolled_back: Vec<String> = verdict.rolled_back.iter().map(at).collect();
    let annotations = [("violations", violations), ("exceptions", exceptions), ("rollback", rolled_back)];
    annotations.into_iter().filter(|(_, lines)| !lines.is_empty()).map(|(key, lines)| (key, lines.join("; "))).collect()
}

/// Writes an error with all of its causes on one line, without repetitions: some errors include their cause's text.
#[must_use]
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = message(error);
    let mut next = error.source();
    while let Some(cause) = next {
        let message = message(cause);
        if !text.contains(&message) {
            let _ = write!(text, ": {message}");
        }
        // The message of the API server is complete; its causes add nothing.
        let is_answer = matches!(cause.downcast_ref(), Some(kube::Error::Api(_)));
        next = cause.source().filter(|_| !is_answer);
    }
    text
}

/// Writes one error without its causes; for an API error, only its message.
fn message(error: &(dyn Error + 'static)) -> String {
    match error.downcast_ref::<kube::Error>() {
        Some(kube::Error::Api(status)) if !status.message.is_empty() => status.message.clone(),
        _ => error.to_string(),
    }
}

/// Writes a value on one line, a string without quotes.
pub(crate) fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use k8s_openapi::jiff::Timestamp;
    use serde_json::json;

    use tidegate_engine::api::Enforcement;
    use tidegate_engine::decision::{Operation, Request, User, Warning};
    use tidegate_engine::policy::Finding;
    use tidegate_engine::testing::{facts, policies, with_container};
    use tidegate_engine::workload::Workload;

    fn violation(container: &str, fix: &str) -> Violation {
        let finding = Finding {
            place: "spec.replicas".into(),
            container: container.into(),
            field: "replicas".into(),
            found: "`3`".into(),
            expected: "nothing".into(),
            fix: fix.into(),
            not_evaluated: false,
        };
        Violation { rule: "some-rule".into(), policy: "serving".into(), enforcement: Enforcement::Enforce, finding }
    }

    #[test]
    fn refusal_counts_violations_and_indents_fixes() {
        let verdict =
            Verdict { violations: vec![violation("", "a:\n  b: 1"), violation("api", "c: 2")], ..Verdict::default() };
        insta::assert_snapshot!(refusal("Deployment", "ml", "api", &verdict), @r#"
        tidegate refuses Deployment ml/api for 2 violations:

        1. some-rule: spec.replicas
           found:    `3`
           expected: nothing
           policy:   serving
           instead:
             a:
               b: 1

        2. some-rule (container api): spec.replicas
           found:    `3`
           expected: nothing
           policy:   serving
           instead:
             c: 2
        "#);
    }

    #[test]
    fn writes_causes_as_json() {
        let verdict = Verdict { violations: vec![violation("api", "x")], ..Verdict::default() };
        let causes = serde_json::to_string(&causes(&verdict)).unwrap();
        let expected = r#"[{"reason":"some-rule","field":"spec.replicas","message":"found `3`, expected nothing"}]"#;
        assert_eq!(causes, expected);
    }

    #[test]
    fn repeats_notes_only_while_there_is_something_to_patch() {
        let policies = policies(&[("serving", json!({"probes": {}, "rules": {"missing-memory-limit": {}}}))]);
        let facts = facts();
        let warned = |object: &Value| {
            let workload = Workload::view(object).unwrap();
            let request = Request {
                user: User::named("jane"),
                ..Request::new(Operation::Create, workload, Timestamp::UNIX_EPOCH)
            };
            let evaluation = Evaluation::new(request, &policies, &facts);
            let verdict = Verdict { warnings: vec![Warning::Violation(violation("", "x"))], ..Verdict::default() };
            (evaluation.patch(), warnings(&evaluation, &verdict))
        };
        let mut object = with_container(&json!({}));
        let (patch, before) = warned(&object);
        let warning = "some-rule: spec.replicas: `3`; expected nothing";
        assert_eq!((before.len(), &*before[0]), (3, warning));
        let [_, reached, probes] = &before[..] else { panic!("{before:?}") };
        assert!(reached.contains("mutating webhook was not reached") && probes.contains("no probes"), "{before:?}");
        json_patch::patch(&mut object, &patch).unwrap();
        assert_eq!(warned(&object).1, [warning]);
    }

    #[test]
    fn audit_annotations_list_only_violations_in_audit() {
        let refused = Verdict { violations: vec![violation("", "x")], ..Verdict::default() };
        assert!(audit(&refused).is_empty());
        let audited = Verdict { recorded: vec![violation("", "x"), violation("a", "x")], ..Verdict::default() };
        let kept = "some-rule at spec.replicas; some-rule at spec.replicas".to_owned();
        assert_eq!(audit(&audited), [("violations", kept)].into());
    }

    #[test]
    fn writes_an_error_with_its_causes() {
        #[derive(Debug, thiserror::Error)]
        #[error("{text}")]
        struct Failure {
            text: &'static str,
            source: Box<dyn Error + Send + Sync>,
        }
        let refused = kube::core::Status::failure("quota exceeded", "Forbidden").with_code(403).boxed();
        let inner = Failure { text: "cannot write", source: Box::new(io::Error::other("no such file")) };
        let repeating = Failure { text: "failed: no such file", source: Box::new(io::Error::other("no such file")) };
        let of_api = Failure { text: "cannot apply it", source: Box::new(kube::Error::Api(refused)) };
        assert_eq!(chain(&inner), "cannot write: no such file");
        assert_eq!(chain(&repeating), "failed: no such file");
        assert_eq!(chain(&of_api), "cannot apply it: quota exceeded");
    }
}
