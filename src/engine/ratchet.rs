//! What becomes of findings: refused, warned of or recorded; and what an update did not make worse only warns.

use crate::api::Enforcement;
use crate::rules::{self, Context, Finding};

/// A finding of a rule, as strict as the policies make it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The rule's id.
    pub rule: &'static str,
    /// The policy that is strictest about the rule.
    pub policy: String,
    /// How strict it is.
    pub enforcement: Enforcement,
    /// What was found, and where.
    pub finding: Finding,
}

/// Findings, by what becomes of them.
#[derive(Debug, Default)]
pub(super) struct Judged {
    pub(super) violations: Vec<Violation>,
    pub(super) audited: Vec<Violation>,
    pub(super) warnings: Vec<String>,
}

/// Runs the rules over a workload.
pub(super) fn judge(context: &Context) -> Judged {
    let mut judged = Judged::default();
    let found = violations(context);
    if found.is_empty() {
        return judged;
    }
    let before = context.before().map(|before| violations(&before)).unwrap_or_default();
    for violation in found {
        let existing = before.iter().any(|old| old.is_same(&violation));
        match violation.enforcement {
            Enforcement::Enforce if existing => judged.warnings.push(violation.existing()),
            Enforcement::Enforce => judged.violations.push(violation),
            Enforcement::Warn => judged.warnings.push(violation.warning()),
            Enforcement::Audit => judged.audited.push(violation),
            Enforcement::Off => {}
        }
    }
    judged
}

fn violations(context: &Context) -> Vec<Violation> {
    let active = rules::ALL.iter().filter_map(|rule| {
        let (enforcement, policy) = context.effective.enforcement_of(*rule);
        (enforcement > Enforcement::Off).then_some((rule, enforcement, policy))
    });
    active
        .flat_map(|(rule, enforcement, policy)| {
            let findings = rule.check(context).into_iter();
            findings.map(move |finding| Violation { rule: rule.id(), policy: policy.to_owned(), enforcement, finding })
        })
        .collect()
}

impl Violation {
    /// Tells whether both say the same of the same container, wherever it stands in its list.
    fn is_same(&self, other: &Self) -> bool {
        self.rule == other.rule
            && self.finding.subject == other.finding.subject
            && self.finding.found == other.finding.found
    }

    fn warning(&self) -> String {
        format!("{}: {}: {}; expected {}", self.rule, self.finding.place, self.finding.found, self.finding.expected)
    }

    fn existing(&self) -> String {
        format!("{} (as before this update, so it is admitted)", self.warning())
    }
}
