//! The results of `tidegate check`, as text.

use std::fmt::Write as _;

use super::{causes_text, plural};
use tidegate_engine::api::Enforcement;
use tidegate_engine::companions::{Companion, Wanted};
use tidegate_engine::decision::Evaluation;
use tidegate_engine::workload::Workload;

/// How many workloads had which result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Those that would be admitted without warnings.
    pub conforming: usize,
    /// Those that would be admitted with warnings.
    pub warned: usize,
    /// Those that would be refused.
    pub refused: usize,
    /// Those that are not model servers, or that no policy matches.
    pub skipped: usize,
}

impl Tally {
    /// Sums up the results in one line.
    #[must_use]
    pub fn summary(&self) -> String {
        let Self { conforming, warned, refused, skipped } = *self;
        let checked = conforming + warned + refused;
        let skipped = if skipped == 0 { String::new() } else { format!("; {skipped} skipped") };
        format!(
            "{} checked: {conforming} admitted, {warned} admitted with warnings, {refused} refused{skipped}",
            plural(checked, "workload")
        )
    }
}

/// Writes the result for one workload, and counts it.
#[must_use]
pub fn workload(file: &str, workload: &Workload, evaluation: &Evaluation, tally: &mut Tally) -> String {
    let head = format!("{file}: {} {}/{}", workload.kind(), workload.namespace(), workload.name());
    if evaluation.policies().is_empty() {
        tally.skipped += 1;
        return format!("{head}: skipped: not a model server, or no policy matches it\n");
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
        text.push_str(&changes(evaluation));
    }
    text
}

/// Lists what would be injected and created.
#[must_use]
pub fn changes(evaluation: &Evaluation) -> String {
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

/// Returns one line for each companion that is requested.
#[must_use]
pub fn companions(evaluation: &Evaluation) -> Vec<String> {
    let companions = evaluation.companions();
    let others = evaluation.autoscaler_of_others();
    let line = |(companion, wanted): (&dyn Companion, &Wanted)| {
        let what = companion.title().split_once(' ').map_or("", |(_, title)| title);
        match wanted {
            Wanted::Nothing | Wanted::Declined => None,
            _ if let ("autoscaler", Some(found)) = (what, others) => {
                Some(format!("{what}: {} {}, not managed by tidegate", found.kind, found.name))
            }
            Wanted::Object(object) | Wanted::Theirs(object) => {
                let text_of = |field: &serde_json::Value| field.as_str().unwrap_or_default().to_owned();
                let (kind, name) = (text_of(&object["kind"]), text_of(&object["metadata"]["name"]));
                Some(format!("{what}: {kind} {name}"))
            }
            Wanted::Impossible { message, .. } | Wanted::Elsewhere(message) => Some(format!("{what}: none: {message}")),
        }
    };
    companions.each().filter_map(line).collect()
}
