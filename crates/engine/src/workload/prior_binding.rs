//! How a workload was bound to its database before this request.

use std::collections::BTreeSet;

use super::{Container, Workload, items};

/// How a workload has been bound to its database before, and which variables were injected rather than set by the user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PriorBinding {
    /// The injected variables in its pod template, by container and name.
    pub(crate) injected: BTreeSet<(String, String)>,
    /// Whether it is bound.
    pub(crate) is_bound: bool,
    /// The user's variables that it has as well, by container and name.
    pub(crate) user_variables: BTreeSet<(String, String)>,
}

impl PriorBinding {
    /// Returns how a workload is bound to its database, by the containers and names of its injected variables.
    #[must_use]
    pub fn new(injected: BTreeSet<(String, String)>, workload: &Workload) -> Self {
        if injected.is_empty() {
            return Self::default();
        }
        let all: Vec<_> = workload.all_containers().collect();
        let named = |container: &Container, name: &str| (container.name().to_owned(), name.to_owned());
        let variables = all.iter().flat_map(|container| names(container).map(move |name| named(container, name)));
        let user_variables = variables.filter(|variable| !injected.contains(variable)).collect();
        Self { user_variables, injected, is_bound: true }
    }

    /// Returns the same for a pod template from which injected fields have been removed: all variables in it are the
    /// user's.
    #[must_use]
    pub fn without_injected(self) -> Self {
        Self { injected: BTreeSet::new(), ..self }
    }

    /// Returns the prior binding of a created workload: it is bound again if a database was created for its name
    /// before.
    #[must_use]
    pub fn recreated(exists: bool) -> Self {
        Self { is_bound: exists, ..Self::default() }
    }
}

/// Returns the names of the variables of a container.
fn names<'a>(container: &Container<'a>) -> impl Iterator<Item = &'a str> + use<'a> {
    items(container.field("env")).filter_map(|entry| entry["name"].as_str())
}
