//! What a check of files found, as text.

use std::fmt::Write as _;

use super::{causes_text, plural};
use tidegate_engine::api::Enforcement;
use tidegate_engine::companions::{Companion, Wanted};
use tidegate_engine::decision::Evaluation;
use tidegate_engine::workload::Workload;

/// How many workloads came to what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Those that would be admitted without a word.
    pub conforming: usize,
    /// Those that would be admitted with warnings.
    pub warned: usize,
    /// Those that would be refused.
    pub refused: usize,
    /// Those that are no model servers, or that no policy is for.
    pub skipped: usize,
}

impl Tally {
    /// Sums it up in a line.
    #[must_use]
    pub fn told(&self) -> String {
        let Self { conforming, warned, refused, skipped } = *self;
        let judged = conforming + warned + refused;
        let skipped = if skipped == 0 { String::new() } else { format!("; {skipped} not judged") };
        format!(
            "{} judged: {conforming} admitted, {warned} admitted with warnings, {refused} refused{skipped}",
            plural(judged, "workload")
        )
    }
}

/// Spells out what would become of one workload, and counts it.
#[must_use]
pub fn workload(file: &str, workload: &Workload, evaluation: &Evaluation, tally: &mut Tally) -> String {
    let head = format!("{file}: {} {}/{}", workload.kind(), workload.namespace(), workload.name());
    if evaluation.policies().is_empty() {
        tally.skipped += 1;
        return format!("{head}: not judged: it is no model server, or no policy is for it\n");
    }
    let (verdict, notes) = (evaluation.verdict(), evaluation.notes());
    let warnings: Vec<String> = notes.iter().cloned().chain(verdict.warnings.iter().map(ToString::to_string)).collect();
    let (word, count) = match (verdict.violations.len(), warnings.len()) {
        (0, 0) => ("admitted".to_owned(), &mut tally.conforming),
        (0, count) => (format!("admitted with {}", plural(count, "warning")), &mut tally.warned),
        (count, _) => (format!("refused for {}", plural(count, "violation")), &mut tally.refused),
    };
    *count += 1;
    let mut text = format!("{head}: {word}\n");
    text.push_str(&causes_text(verdict));
    for warning in warnings {
        let _ = writeln!(text, "  warning: {warning}");
    }
    for violation in &verdict.recorded {
        let _ = writeln!(text, "  recorded: {violation}");
    }
    for excused in verdict.excused.iter().filter(|excused| excused.violation.enforcement == Enforcement::Audit) {
        let _ = writeln!(text, "  recorded: {excused}");
    }
    if verdict.allows() {
        text.push_str(&made(evaluation));
    }
    text
}

/// Lists what would be injected and made.
#[must_use]
pub fn made(evaluation: &Evaluation) -> String {
    let mut text = String::new();
    let injected = evaluation.receipt().map_or(0, |receipt| receipt.entries().count());
    if injected > 0 {
        let _ = writeln!(text, "  injected: {}", plural(injected, "field"));
    }
    for line in companions(evaluation) {
        let _ = writeln!(text, "  {line}");
    }
    text
}

/// Tells of each companion that is wanted what becomes of it, a line each.
#[must_use]
pub fn companions(evaluation: &Evaluation) -> Vec<String> {
    let companions = evaluation.companions();
    let others = evaluation.autoscaler_of_others();
    let told = |(companion, wanted): (&dyn Companion, &Wanted)| {
        let what = companion.title().split_once(' ').map_or("", |(_, title)| title);
        match wanted {
            Wanted::Nothing | Wanted::Declined => None,
            _ if let ("autoscaler", Some(found)) = (what, others) => {
                Some(format!("{what}: {} {}, which somebody else keeps", found.kind, found.name))
            }
            Wanted::Object(object) | Wanted::Theirs(object) => {
                let text_of = |field: &serde_json::Value| field.as_str().unwrap_or_default().to_owned();
                let (kind, name) = (text_of(&object["kind"]), text_of(&object["metadata"]["name"]));
                Some(format!("{what}: {kind} {name}"))
            }
            Wanted::Impossible { message, .. } | Wanted::Elsewhere(message) => Some(format!("{what}: none: {message}")),
        }
    };
    companions.each().filter_map(told).collect()
}
