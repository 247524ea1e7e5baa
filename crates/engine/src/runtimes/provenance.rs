//! How the runtime of a model server is known.

use std::fmt;

use crate::api::RUNTIME_ANNOTATION;

/// How the runtime of a model server is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Provenance {
    /// The workload's author says it, by the annotation.
    Declared,
    /// It is inferred from the container's command, which is like this one.
    Command(String),
    /// It is inferred from the container's image, whose own command is run.
    Image,
    /// It is unknown.
    #[default]
    Unresolved,
}

impl fmt::Display for Provenance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Declared => write!(f, "declared by the annotation {RUNTIME_ANNOTATION}"),
            Self::Command(command) => write!(f, "inferred from its command, `{command}`"),
            Self::Image => f.write_str("inferred from its image"),
            Self::Unresolved => f.write_str("unresolved"),
        }
    }
}
