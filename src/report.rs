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
