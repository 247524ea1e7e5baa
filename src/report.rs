//! Decisions as text for people: one writer for every door through which they are shown.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;

use crate::admission::Cause;
use crate::engine::{Decision, Violation};

/// Writes a refusal: every violation, with its field, what was found, what is expected and what to paste.
#[must_use]
pub fn refusal(kind: &str, namespace: &str, name: &str, decision: &Decision) -> String {
    let count = decision.violations.len();
    let violations = if count == 1 { "1 violation".to_owned() } else { format!("{count} violations") };
    let mut text = format!("tidegate refuses {kind} {namespace}/{name} for {violations}:\n");
    for (index, violation) in decision.violations.iter().enumerate() {
        let _ = write!(text, "\n{}", paragraph(index + 1, violation));
    }
    text
}

fn paragraph(number: usize, violation: &Violation) -> String {
    let finding = &violation.finding;
    let subject = if finding.subject.is_empty() { String::new() } else { format!(" (container {})", finding.subject) };
    let mut text = format!("{number}. {}{subject}: {}\n", violation.rule, finding.place);
    let _ = writeln!(text, "   found:    {}", finding.found);
    let _ = writeln!(text, "   expected: {}", finding.expected);
    let _ = writeln!(text, "   policy:   {}", violation.policy);
    let _ = writeln!(text, "   instead:");
    for line in finding.instead.lines() {
        let _ = writeln!(text, "     {line}");
    }
    text
}

/// Returns the reasons of a refusal for programs.
#[must_use]
pub fn causes(decision: &Decision) -> Vec<Cause> {
    let cause = |violation: &Violation| Cause {
        reason: violation.rule,
        field: violation.finding.place.clone(),
        message: format!("found {}, expected {}", violation.finding.found, violation.finding.expected),
    };
    decision.violations.iter().map(cause).collect()
}

/// Returns the warnings of a verdict. A patch that is still owed means that the mutating webhook was not asked: what it
/// would have said is said now.
#[must_use]
pub fn warnings(decision: &Decision) -> Vec<String> {
    let mut warnings = decision.warnings.clone();
    if !decision.patch.is_empty() {
        warnings.push(
            "tidegate's mutating webhook was not reached: apply again to have what is missing injected".to_owned(),
        );
        warnings.extend(decision.notes.iter().cloned());
    }
    warnings
}

/// Returns what the audit log should keep: the rules that were broken under policies in audit.
#[must_use]
pub fn audit(decision: &Decision) -> BTreeMap<&'static str, String> {
    let broken: Vec<String> =
        decision.audited.iter().map(|found| format!("{} at {}", found.rule, found.finding.place)).collect();
    if broken.is_empty() { BTreeMap::new() } else { BTreeMap::from([("violations", broken.join("; "))]) }
}

/// Writes an error with all of its causes in one line.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let _ = write!(text, ": {cause}");
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::api::Enforcement;
    use crate::policy::LoadError;
    use crate::rules::Finding;

    fn violation(subject: &str, instead: &str) -> Violation {
        let finding = Finding {
            place: "spec.replicas".into(),
            subject: subject.into(),
            found: "`3`".into(),
            expected: "nothing".into(),
            instead: instead.into(),
        };
        Violation { rule: "some-rule", policy: "serving".into(), enforcement: Enforcement::Enforce, finding }
    }

    #[test]
    fn a_refusal_counts_its_violations_and_indents_what_to_paste() {
        let decision =
            Decision { violations: vec![violation("", "a:\n  b: 1"), violation("api", "c: 2")], ..Decision::default() };
        insta::assert_snapshot!(refusal("Deployment", "ml", "api", &decision), @r#"
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
        let decision = Decision { violations: vec![violation("api", "x")], ..Decision::default() };
        let causes = serde_json::to_string(&causes(&decision)).unwrap();
        let expected = r#"[{"reason":"some-rule","field":"spec.replicas","message":"found `3`, expected nothing"}]"#;
        assert_eq!(causes, expected);
    }

    #[test]
    fn a_verdict_repeats_the_notes_only_while_the_patch_is_owed() {
        let (notes, warnings) = (vec!["a note".to_owned()], vec!["a warning".to_owned()]);
        let mut decision = Decision { notes, warnings, ..Decision::default() };
        assert_eq!(super::warnings(&decision), ["a warning"]);
        decision.patch = crate::engine::between(&serde_json::json!({}), &serde_json::json!({"a": 1}));
        let said = super::warnings(&decision);
        assert_eq!((said.len(), &*said[0], &*said[2]), (3, "a warning", "a note"));
        assert!(said[1].contains("mutating webhook was not reached"));
    }

    #[test]
    fn the_audit_log_keeps_what_was_broken_in_audit_alone() {
        let refused = Decision { violations: vec![violation("", "x")], ..Decision::default() };
        assert!(audit(&refused).is_empty());
        let audited = Decision { audited: vec![violation("", "x"), violation("a", "x")], ..Decision::default() };
        let kept = "some-rule at spec.replicas; some-rule at spec.replicas".to_owned();
        assert_eq!(audit(&audited), [("violations", kept)].into());
    }

    #[test]
    fn an_error_is_told_with_its_causes() {
        let error = LoadError::Read { path: "policy.yaml".into(), source: io::Error::other("no such thing") };
        assert_eq!(chain(&error), "cannot read policies from policy.yaml: no such thing");
    }
}
