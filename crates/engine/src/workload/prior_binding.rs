//! How a workload was bound to its database before this request.

use std::collections::BTreeSet;

use super::{Container, Workload, items};

/// How a workload has been led to its database so far: what was injected for that is not its author's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PriorBinding {
    /// The variables in its pod template that were injected, by container and name.
    pub(crate) injected: BTreeSet<(String, String)>,
    /// Whether it is led to it at all.
    pub(crate) holds: bool,
    /// The author's own variables beside which it is.
    pub(crate) beside: BTreeSet<String>,
}

impl PriorBinding {
    /// Returns how a workload is led to its database, by the containers and names of the variables that were injected
    /// into it.
    #[must_use]
    pub fn by(injected: BTreeSet<(String, String)>, workload: &Workload) -> Self {
        if injected.is_empty() {
            return Self::default();
        }
        let named = |(container, name): (&Container, &str)| (container.name().to_owned(), name.to_owned());
        let all: Vec<_> = workload.all_containers().collect();
        let variables = all.iter().flat_map(|container| names(container).map(move |name| (container, name)));
        let beside =
            variables.filter(|variable| !injected.contains(&named(*variable))).map(|(_, name)| name.to_owned());
        Self { beside: beside.collect(), injected, holds: true }
    }

    /// Returns the same for a pod template from which all that was injected has been taken out: what is in it now is
    /// its author's.
    #[must_use]
    pub fn before(self) -> Self {
        Self { injected: BTreeSet::new(), ..self }
    }

    /// Returns what holds for a workload that is made: where a database was made for one of its name before, it is led
    /// to that again.
    #[must_use]
    pub fn again(is_there: bool) -> Self {
        Self { holds: is_there, ..Self::default() }
    }
}

/// Returns the names of the variables of a container.
fn names<'a>(container: &Container<'a>) -> impl Iterator<Item = &'a str> + use<'a> {
    items(container.field("env")).filter_map(|entry| entry["name"].as_str())
}
