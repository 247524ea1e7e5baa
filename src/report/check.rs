//! The results of `tidegate check`, as data.

use serde::Serialize;

use super::plural;
use tidegate_engine::companions::{Companion, Wanted};
use tidegate_engine::decision::{Evaluation, Exempted, Receipt, Violation};
use tidegate_engine::workload::{Workload, unknown_fields};

/// The results of a check.
#[derive(Debug, Default, Serialize)]
pub struct Results {
    /// How many workloads had which result.
    pub summary: Tally,
    /// The conflicts between policies, one sentence each.
    pub conflicts: Vec<String>,
    /// What the API server would not take, whatever the policies: one sentence each, with the file and the place.
    pub invalid: Vec<String>,
    /// The result of each workload, in the order of the input.
    pub workloads: Vec<Checked>,
}

/// How many workloads had which result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Those that would be admitted without warnings.
    pub admitted: usize,
    /// Those that would be admitted with warnings.
    pub warned: usize,
    /// Those that would be refused.
    pub refused: usize,
    /// Those that are not model servers, or that no policy matches.
    pub skipped: usize,
    /// What the API server would not take, not all of which is a workload.
    pub invalid: usize,
}

/// The result of one workload.
#[derive(Debug, Serialize)]
pub struct Checked {
    /// The file that it is in.
    pub file: String,
    /// Its kind.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What would happen to it.
    pub result: Outcome,
    /// The violations for which it would be refused.
    pub violations: Vec<Located<Violation>>,
    /// The warnings that its author would get.
    pub warnings: Vec<String>,
    /// The violations that would only be recorded.
    pub recorded: Vec<Located<Violation>>,
    /// The violations that an exception allows.
    pub exempted: Vec<Located<Exempted>>,
    /// The paths of the fields that would be injected, from the pod spec.
    pub injected: Vec<String>,
    /// The objects that would be created beside it, one line each.
    pub companions: Vec<String>,
}

/// What would happen to a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// Nothing: it is not a model server, or no policy matches it.
    Skipped,
    /// It would be admitted, perhaps with warnings.
    Admitted,
    /// It would be refused.
    Refused,
}

/// Something about a field of the workload, with the place of the field.
#[derive(Debug, Serialize)]
pub struct Located<T> {
    /// What is about the field.
    #[serde(flatten)]
    pub found: T,
    /// The field, as a JSON pointer into the object.
    pub pointer: String,
}

impl Tally {
    /// Sums up the results in one line.
    #[must_use]
    pub fn summary(&self) -> String {
        let Self { admitted, warned, refused, skipped, invalid } = *self;
        let checked = admitted + warned + refused;
        let skipped = if skipped == 0 { String::new() } else { format!("; {skipped} skipped") };
        let invalid = if invalid == 0 { String::new() } else { format!("; {invalid} invalid") };
        format!(
            "{} checked: {admitted} admitted, {warned} admitted with warnings, {refused} refused{skipped}{invalid}",
            plural(checked, "workload")
        )
    }
}

impl Results {
    /// Adds what the API server would not take.
    pub fn add_invalid(&mut self, problems: impl IntoIterator<Item = String>) {
        self.invalid.extend(problems);
        self.summary.invalid = self.invalid.len();
    }

    /// Adds the result of a workload.
    pub fn add(&mut self, file: &str, workload: &Workload, evaluation: &Evaluation) {
        let checked = Checked::new(file, workload, evaluation);
        let count = match checked.result {
            Outcome::Skipped => &mut self.summary.skipped,
            Outcome::Refused => &mut self.summary.refused,
            Outcome::Admitted if checked.warnings.is_empty() => &mut self.summary.admitted,
            Outcome::Admitted => &mut self.summary.warned,
        };
        *count += 1;
        self.workloads.push(checked);
    }
}

impl Checked {
    fn new(file: &str, workload: &Workload, evaluation: &Evaluation) -> Self {
        let verdict = evaluation.verdict();
        let result = match verdict.allows() {
            _ if evaluation.policies().is_empty() => Outcome::Skipped,
            true => Outcome::Admitted,
            false => Outcome::Refused,
        };
        let (is_skipped, is_admitted) = (result == Outcome::Skipped, result == Outcome::Admitted);
        let pointer = |violation: &Violation| violation.finding.pointer(workload.object());
        let located = |violation: &Violation| Located { pointer: pointer(violation), found: violation.clone() };
        let exempted = |exempted: &Exempted| Located { pointer: pointer(&exempted.violation), found: exempted.clone() };
        let unknown = || unknown_fields(workload.object()).into_iter().map(|field| field.to_string());
        let verdict_warnings = || verdict.warnings.iter().map(ToString::to_string);
        let warnings = || unknown().chain(evaluation.notes()).chain(verdict_warnings());
        Self {
            file: file.to_owned(),
            kind: workload.kind().to_owned(),
            namespace: workload.namespace().to_owned(),
            name: workload.shown_name().to_owned(),
            result,
            violations: verdict.violations.iter().map(located).collect(),
            warnings: if is_skipped { Vec::new() } else { warnings().collect() },
            recorded: verdict.recorded.iter().map(located).collect(),
            exempted: verdict.exempted.iter().map(exempted).collect(),
            injected: if is_admitted { injected(evaluation) } else { Vec::new() },
            companions: if is_admitted { companions(evaluation) } else { Vec::new() },
        }
    }
}

/// Returns the paths of the fields that would be injected.
#[must_use]
pub fn injected(evaluation: &Evaluation) -> Vec<String> {
    let receipt = evaluation.receipt().into_iter();
    receipt.flat_map(Receipt::entries).map(|entry| entry.path.to_string()).collect()
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
            Wanted::Impossible { message, .. } | Wanted::Harmful { message, .. } | Wanted::Elsewhere(message) => {
                Some(format!("{what}: none: {message}"))
            }
        }
    };
    companions.each().filter_map(line).collect()
}
