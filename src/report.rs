//! Decisions as text for people: one writer for every door through which they are shown.

pub mod check;
pub mod docs;
pub mod explain;
pub mod policy_tests;

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;

use serde::Serialize;

use tidegate_engine::decision::{Evaluation, Excused, Verdict, Violation};
use tidegate_engine::workload::WorkloadRef;

/// Writes a refusal: every violation, with its field, what was found, what is expected and what to paste.
#[must_use]
pub fn refusal(kind: &str, namespace: &str, name: &str, verdict: &Verdict) -> String {
    let violations = plural(verdict.violations.len(), "violation");
    format!("tidegate refuses {kind} {namespace}/{name} for {violations}:\n{}", causes_text(verdict))
}

/// Writes every violation that a workload is refused for, a paragraph each.
fn causes_text(verdict: &Verdict) -> String {
    let numbered = verdict.violations.iter().enumerate();
    numbered.fold(String::new(), |text, (index, violation)| text + "\n" + &paragraph(index + 1, violation))
}

/// Writes how many there are of something.
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

/// How many workloads are named of which there may be more.
const MOST_NAMED: usize = 10;

/// Tells of workloads, each with its replicas, that have more of them than a policy allows; none where there are none.
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
            "{subject} {verb} more replicas than maxReplicas allows: {}{more}; none is stopped for that, each autoscaler's \
             maxReplicas goes down as the replicas do",
            named.join(", ")
        )
    })
}

/// One reason of a refusal, for programs.
#[derive(Debug, Serialize)]
pub struct Cause {
    /// The rule's id.
    pub reason: String,
    /// The field.
    pub field: String,
    /// What was found and what should be.
    pub message: String,
}

/// Returns the reasons of a refusal for programs.
#[must_use]
pub fn causes(verdict: &Verdict) -> Vec<Cause> {
    let cause = |violation: &Violation| Cause {
        reason: violation.rule.clone(),
        field: violation.finding.place.clone(),
        message: format!("found {}, expected {}", violation.finding.found, violation.finding.expected),
    };
    verdict.violations.iter().map(cause).collect()
}

/// Returns the warnings of a verdict. A patch that is still owed means that the mutating webhook was not asked: what it
/// would have said is said now.
#[must_use]
pub fn warnings(evaluation: &Evaluation, verdict: &Verdict) -> Vec<String> {
    let mut warnings: Vec<String> = verdict.warnings.iter().map(ToString::to_string).collect();
    if !evaluation.patch().is_empty() {
        warnings.push(
            "tidegate's mutating webhook was not reached: apply again to have what is missing injected".to_owned(),
        );
        warnings.extend(evaluation.notes());
    }
    warnings
}

/// Returns what the audit log should keep: the rules that were broken under policies in audit, and each use of an
/// exception.
#[must_use]
pub fn audit(verdict: &Verdict) -> BTreeMap<&'static str, String> {
    let at = |violation: &Violation| format!("{} at {}", violation.rule, violation.finding.place);
    let broken: Vec<String> = verdict.recorded.iter().map(at).collect();
    let excused = |excepted: &Excused| format!("{} by {}", at(&excepted.violation), excepted.exception);
    let excepted: Vec<String> = verdict.excused.iter().map(excused).collect();
    let told = [("violations", broken), ("exceptions", excepted)].into_iter().filter(|(_, lines)| !lines.is_empty());
    told.map(|(key, lines)| (key, lines.join("; "))).collect()
}

/// Writes an error with all of its causes in one line, each said once: some errors repeat their causes' words.
#[must_use]
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = plainly(error);
    let mut next = error.source();
    while let Some(cause) = next {
        let said = plainly(cause);
        if !text.contains(&said) {
            let _ = write!(text, ": {said}");
        }
        // What the API server said says it all.
        let is_answer = matches!(cause.downcast_ref(), Some(kube::Error::Api(_)));
        next = cause.source().filter(|_| !is_answer);
    }
    text
}

/// Writes one error; of an answer of the API server, what it says to people.
fn plainly(error: &(dyn Error + 'static)) -> String {
    match error.downcast_ref::<kube::Error>() {
        Some(kube::Error::Api(status)) if !status.message.is_empty() => status.message.clone(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use k8s_openapi::jiff::Timestamp;
    use serde_json::{Value, json};

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
    fn a_refusal_counts_its_violations_and_indents_what_to_paste() {
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
    fn causes_are_for_programs() {
        let verdict = Verdict { violations: vec![violation("api", "x")], ..Verdict::default() };
        let causes = serde_json::to_string(&causes(&verdict)).unwrap();
        let expected = r#"[{"reason":"some-rule","field":"spec.replicas","message":"found `3`, expected nothing"}]"#;
        assert_eq!(causes, expected);
    }

    #[test]
    fn a_verdict_repeats_the_notes_only_while_the_patch_is_owed() {
        let policies = policies(&[("serving", json!({"probes": {}, "rules": {"missing-memory-limit": {}}}))]);
        let facts = facts();
        let said = |object: &Value| {
            let workload = Workload::view(object).unwrap();
            let request = Request {
                operation: Operation::Create,
                workload,
                old: None,
                user: User::named("jane"),
                now: Timestamp::UNIX_EPOCH,
            };
            let evaluation = Evaluation::new(request, &policies, &facts);
            let verdict = Verdict { warnings: vec![Warning::Violation(violation("", "x"))], ..Verdict::default() };
            (evaluation.patch(), warnings(&evaluation, &verdict))
        };
        let mut object = with_container(&json!({}));
        let (patch, owed) = said(&object);
        let warning = "some-rule: spec.replicas: `3`; expected nothing";
        assert_eq!((owed.len(), &*owed[0]), (3, warning));
        assert!(owed[1].contains("mutating webhook was not reached") && owed[2].contains("no probes"), "{owed:?}");
        json_patch::patch(&mut object, &patch).unwrap();
        assert_eq!(said(&object).1, [warning]);
    }

    #[test]
    fn the_audit_log_keeps_what_was_broken_in_audit_alone() {
        let refused = Verdict { violations: vec![violation("", "x")], ..Verdict::default() };
        assert!(audit(&refused).is_empty());
        let audited = Verdict { recorded: vec![violation("", "x"), violation("a", "x")], ..Verdict::default() };
        let kept = "some-rule at spec.replicas; some-rule at spec.replicas".to_owned();
        assert_eq!(audit(&audited), [("violations", kept)].into());
    }

    #[test]
    fn an_error_is_told_with_its_causes() {
        #[derive(Debug, thiserror::Error)]
        #[error("{said}")]
        struct Failure {
            said: &'static str,
            source: Box<dyn Error + Send + Sync>,
        }
        let refused = kube::core::Status::failure("quota exceeded", "Forbidden").with_code(403).boxed();
        let inner = Failure { said: "cannot write", source: Box::new(io::Error::other("no such thing")) };
        let repeating = Failure { said: "failed: no such thing", source: Box::new(io::Error::other("no such thing")) };
        let of_api = Failure { said: "cannot apply it", source: Box::new(kube::Error::Api(refused)) };
        assert_eq!(chain(&inner), "cannot write: no such thing");
        assert_eq!(chain(&repeating), "failed: no such thing");
        assert_eq!(chain(&of_api), "cannot apply it: quota exceeded");
    }
}
