//! The built-in rules and sections. They are passed in when a policy is compiled, so that policies do not depend on
//! particular ones.

use std::fmt;

use super::{Rule, Section};

/// The built-in rules and sections.
pub struct Builtin {
    /// The rules, in the order in which findings are reported.
    pub rules: &'static [&'static dyn Rule],
    /// The sections of a policy that their own module reads.
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
