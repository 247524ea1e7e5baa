//! What comes with Tidegate. It is handed in when a policy is compiled: policies know what a rule is, not which rules there
//! are.

use super::Rule;

/// What comes with Tidegate.
#[derive(Debug)]
pub struct Builtin {
    /// The rules, in the order in which their findings are reported.
    pub rules: &'static [&'static dyn Rule],
}

impl Builtin {
    /// Returns the rule of this name.
    #[must_use]
    pub fn rule(&self, id: &str) -> Option<&'static dyn Rule> {
        self.rules.iter().copied().find(|rule| rule.id() == id)
    }
}
