//! The database binding: environment variables that libpq and its relatives read.
//!
//! <https://www.postgresql.org/docs/current/libpq-envars.html>

use super::{Injector, which_container};
use crate::companions::Binding;
use crate::facts::{Facts, WorkloadRef};
use crate::policy::DatabaseSettings;
use crate::runtimes::Recognised;
use crate::workload::{Container, Path};

/// Injects the binding into the model server's container. A variable that its author set stays, and is reported.
pub(super) fn inject(
    workload: &WorkloadRef,
    recognised: &Recognised,
    settings: &DatabaseSettings,
    facts: &Facts,
    injector: &mut Injector,
) -> Vec<String> {
    let provider = settings.provider();
    if workload.name.is_empty() {
        return vec![
            "no database is bound: its name follows from the workload's, which `generateName` leaves open".into(),
        ];
    }
    if !provider.is_served(facts) {
        return vec![format!("no database is bound: the cluster does not serve {}", provider.api())];
    }
    if let Some(problem) = provider.problem(workload, facts) {
        return vec![format!("no database is bound: {problem}")];
    }
    let Some(container) = &recognised.container else {
        return vec![which_container(recognised, "no database is bound")];
    };
    bind(container, &provider.binding(workload), injector)
}

fn bind(container: &Container, binding: &Binding, injector: &mut Injector) -> Vec<String> {
    let variables = binding.variables();
    let (set, missing): (Vec<_>, Vec<_>) = variables.into_iter().partition(|(name, _)| container.env(name).is_some());
    for (name, source) in missing {
        let path = Path::new([container.list(), container.name(), "env", name]);
        injector.add(&path, source);
    }
    let names: Vec<&str> = set.iter().map(|(name, _)| *name).collect();
    if names.is_empty() {
        return Vec::new();
    }
    vec![format!(
        "container {} sets {} itself: the database {} is bound without it",
        container.name(),
        names.join(", "),
        binding.name
    )]
}
