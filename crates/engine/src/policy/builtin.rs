//! What comes with Tidegate. It is handed in when a policy is compiled: policies know what a rule and a section are, not which
//! there are.

use std::fmt;

use super::{Rule, Section};

/// What comes with Tidegate.
pub struct Builtin {
    /// The rules, in the order in which their findings are reported.
    pub rules: &'static [&'static dyn Rule],
    /// The sections of a policy that are read by what they are for.
    pub sections: &'static [&'static dyn Section],
}

impl fmt::Debug for Builtin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builtin").field("rules", &self.rules).finish_non_exhaustive()
    }
}

impl Builtin {
    /// Returns the rule of this name.
    #[must_use]
    pub fn rule(&self, id: &str) -> Option<&'static dyn Rule> {
        self.rules.iter().copied().find(|rule| rule.id() == id)
    }
}
