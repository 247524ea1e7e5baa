//! The formats in which `tidegate check` prints its results.

use std::fmt::Write as _;

use clap::ValueEnum;

use super::check::{Checked, Outcome, Results};
use super::{paragraphs, plural};
use tidegate_engine::api::Enforcement;
use tidegate_engine::decision::Exempted;

/// A format of results.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Text for people.
    #[default]
    Text,
    /// One JSON object.
    Json,
}

impl Format {
    /// Writes results in this format, with a newline at the end.
    ///
    /// # Panics
    /// Never: results are plain data.
    #[must_use]
    pub fn render(self, results: &Results) -> String {
        match self {
            Self::Text => text(results),
            Self::Json => serde_json::to_string_pretty(results).expect("results are plain data") + "\n",
        }
    }
}

fn text(results: &Results) -> String {
    let mut text = String::new();
    for conflict in &results.conflicts {
        let _ = writeln!(text, "policies: {conflict}");
    }
    for problem in &results.invalid {
        let _ = writeln!(text, "{problem}");
    }
    for checked in &results.workloads {
        text.push_str(&workload(checked));
    }
    format!("{text}\n{}\n", results.summary.summary())
}

fn workload(checked: &Checked) -> String {
    let Checked { file, kind, namespace, name, violations, warnings, recorded, exempted, .. } = checked;
    let mut text = format!("{file}: {kind} {namespace}/{name}: {}\n", result(checked));
    text.push_str(&paragraphs(violations.iter().map(|violation| &violation.found)));
    for warning in warnings {
        let _ = writeln!(text, "  warning: {warning}");
    }
    for violation in recorded {
        let _ = writeln!(text, "  recorded: {}", violation.found);
    }
    let is_recorded = |exempted: &&Exempted| exempted.violation.enforcement == Enforcement::Audit;
    for exempted in exempted.iter().map(|exempted| &exempted.found).filter(is_recorded) {
        let _ = writeln!(text, "  recorded: {exempted}");
    }
    text + &changes(checked.injected.len(), &checked.companions)
}

fn result(checked: &Checked) -> String {
    match (checked.result, checked.warnings.len()) {
        (Outcome::Skipped, _) => "skipped: not a model server, or no policy matches it".to_owned(),
        (Outcome::Admitted, 0) => "admitted".to_owned(),
        (Outcome::Admitted, count) => format!("admitted with {}", plural(count, "warning")),
        (Outcome::Refused, _) => format!("refused for {}", plural(checked.violations.len(), "violation")),
    }
}

/// Lists what would be injected and created.
#[must_use]
pub fn changes(injected: usize, companions: &[String]) -> String {
    let mut text = String::new();
    if injected > 0 {
        let _ = writeln!(text, "  injected: {}", plural(injected, "field"));
    }
    for line in companions {
        let _ = writeln!(text, "  {line}");
    }
    text
}
