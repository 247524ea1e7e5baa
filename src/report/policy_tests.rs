//! The results of `tidegate test`, as text.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::plural;
use crate::policy_tests::Outcome;

/// The results of all tests so far.
#[derive(Debug, Default)]
pub struct Summary {
    /// How many passed.
    pub passed: usize,
    /// How many failed.
    pub failed: usize,
    applied: BTreeSet<String>,
    violated: BTreeSet<String>,
}

impl Summary {
    /// Counts the outcome of a test, and returns its report.
    #[must_use]
    pub fn add(&mut self, name: &str, outcome: &Outcome) -> String {
        self.applied.extend(outcome.applied.iter().cloned());
        self.violated.extend(outcome.violated.iter().cloned());
        if outcome.differences.is_empty() {
            self.passed += 1;
            return format!("  ok      {name}\n");
        }
        self.failed += 1;
        let mut text = format!("  FAILED  {name}\n");
        for difference in &outcome.differences {
            let _ = writeln!(text, "          {difference}");
        }
        text
    }

    /// Returns how many tests passed, and which rules no test violates.
    #[must_use]
    pub fn text(&self) -> String {
        let Self { passed, failed, applied, violated } = self;
        let mut text = format!("{}: {passed} passed, {failed} failed\n", plural(passed + failed, "test"));
        let untested: Vec<&str> = applied.difference(violated).map(String::as_str).collect();
        let tested = applied.len() - untested.len();
        let _ = write!(text, "{tested} of {} are violated by a test", plural(applied.len(), "rule"));
        if !untested.is_empty() {
            let _ = write!(text, "; not covered: {}", untested.join(", "));
        }
        text + "\n"
    }
}
