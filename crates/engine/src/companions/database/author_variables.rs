//! Database variables that the author of a workload sets. They are never overwritten, and a binding is never mixed with
//! them: it is injected completely or not at all.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Binding, DatabaseSettings, Unbound, Variable};
use crate::api::{DATABASE_ANNOTATION, DatabaseEnv, DatabasePart};
use crate::workload::{Annotations, Container, PriorBinding, Workload, items, refers_to};

/// The variables that make libpq use a server regardless of others: an address in addition to the host, and a service,
/// whose file takes precedence over other variables.
///
/// <https://www.postgresql.org/docs/current/libpq-envars.html> and
/// <https://www.postgresql.org/docs/current/libpq-pgservice.html>
const LIBPQ_SERVERS: [&str; 3] = ["PGHOST", "PGHOSTADDR", "PGSERVICE"];

/// The variables that select a server, in addition to those that a policy names: those of libpq, its files of services
/// and passwords, and the URL that most frameworks read.
const SERVERS: [&str; 6] = ["PGHOST", "PGHOSTADDR", "PGSERVICE", "PGSERVICEFILE", "PGPASSFILE", "DATABASE_URL"];

/// The database variables of a container that its author sets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Own {
    /// The variable that selects a server.
    server: Option<String>,
    /// The variables that would be mixed with the binding's.
    pub(super) mixed: Vec<String>,
    /// Whether `envFrom` may have variables about a database.
    is_open: bool,
}

impl Own {
    /// Reads the variables of a container that are not part of a binding.
    fn of(container: &Container, binding: &Binding, env: &DatabaseEnv, prior: &PriorBinding) -> Self {
        if container.field("env").is_null() && container.field("envFrom").is_null() {
            return Self::default();
        }
        let variables = binding.variables(env);
        let is_injected = |name: &str| prior.injected.contains(&(container.name().to_owned(), name.to_owned()));
        let own: Vec<&Value> = items(container.field("env"))
            .filter(|entry| entry["name"].as_str().is_some_and(|name| !is_injected(name)))
            .filter(|entry| !variables.iter().any(|variable| variable.is(entry)))
            .collect();
        Self {
            server: own.iter().find_map(|entry| server(entry, env)),
            mixed: mixed(container, &own, &variables, is_injected),
            is_open: items(container.field("envFrom")).any(|source| may_bring(source, &variables)),
        }
    }

    /// Returns why a container gets no binding.
    fn problem(
        &self,
        container: &Container,
        settings: &DatabaseSettings,
        is_asked: bool,
        prior: &PriorBinding,
    ) -> Option<Unbound> {
        let (name, mixed) = (container.name(), self.mixed.join(", "));
        let was_set = |server: &String| prior.user_variables.contains(&(name.to_owned(), server.clone()));
        let is_kept = |server: &String| self.mixed.is_empty() && prior.is_bound && was_set(server);
        if let Some(server) = self.server.as_ref().filter(|server| !is_asked && !is_kept(server)) {
            let instead = match &*mixed {
                "" => "bind Tidegate's as well".to_owned(),
                mixed => format!("bind Tidegate's instead once {mixed} {} removed", are(&self.mixed)),
            };
            return Some(Unbound::Elsewhere(format!(
                "container {name} sets {server}, so it has its own database; set the annotation {DATABASE_ANNOTATION}: \
                 \"true\" to {instead}, or none if no database is needed"
            )));
        }
        if !self.mixed.is_empty() {
            let message = format!(
                "container {name} sets {mixed} itself, and a database is bound with all its variables or not at all: \
                 leave {mixed} out, or set the annotation {DATABASE_ANNOTATION}: none if no database is needed"
            );
            return Some(Unbound::Impossible(("VariablesConflict", message)));
        }
        (self.is_open && !is_asked && !settings.over_env_from && !prior.is_bound).then(|| {
            Unbound::Elsewhere(format!(
                "container {name} takes variables from `envFrom`, which may already name a database; set the \
                 annotation {DATABASE_ANNOTATION}: \"true\" to bind Tidegate's, whose variables take precedence, or \
                 none if no database is needed"
            ))
        })
    }

    /// Returns a warning about a binding that the author did not request.
    fn note(&self, container: &Container, binding: &Binding) -> Option<String> {
        let what = match &self.server {
            Some(server) => format!("container {} sets {server}", container.name()),
            None if self.is_open => format!(
                "container {} takes variables from `envFrom`, over which those of the binding take precedence",
                container.name()
            ),
            None => return None,
        };
        Some(format!(
            "{what}: the database {} is bound anyway; set the annotation {DATABASE_ANNOTATION}: \"true\" to confirm \
             this, or none to leave it unbound",
            binding.name
        ))
    }
}

/// Returns why a container gets no binding: it has, or may have, another database.
pub(super) fn problem(
    workload: &Workload,
    container: &Container,
    binding: &Binding,
    settings: &DatabaseSettings,
    prior: &PriorBinding,
) -> Option<Unbound> {
    Own::of(container, binding, &settings.env, prior).problem(container, settings, is_asked(workload), prior)
}

/// Returns the variables of a container that prevent a binding.
pub(super) fn in_the_way(
    container: &Container,
    binding: &Binding,
    settings: &DatabaseSettings,
    prior: &PriorBinding,
) -> Vec<String> {
    Own::of(container, binding, &settings.env, prior).mixed
}

/// Returns a warning about a binding that the author of a workload did not request.
#[must_use]
pub fn note(
    workload: &Workload,
    container: &Container,
    binding: &Binding,
    settings: &DatabaseSettings,
) -> Option<String> {
    let own = Own::of(container, binding, &settings.env, &PriorBinding::default());
    own.note(container, binding).filter(|_| !is_asked(workload))
}

/// Returns whether the author of a workload requests Tidegate's database.
fn is_asked(workload: &Workload) -> bool {
    Annotations::new(workload).database().said() == Some(true)
}

fn are(names: &[String]) -> &'static str {
    if names.len() == 1 { "is" } else { "are" }
}

/// Returns the name of a variable that selects a server, unless it refers to one of the binding.
fn server(entry: &Value, env: &DatabaseEnv) -> Option<String> {
    let name = entry["name"].as_str()?;
    let named = env.variables();
    let is_server_part = |part: DatabasePart| matches!(part, DatabasePart::Host | DatabasePart::Uri);
    let mut server_names = named.iter().filter(|(_, part)| is_server_part(*part)).map(|(name, _)| *name);
    let is_server = SERVERS.contains(&name) || server_names.clone().any(|known| known == name);
    let is_of_binding = server_names.any(|known| refers_to(entry["value"].as_str().unwrap_or_default(), known));
    (is_server && !is_of_binding).then(|| name.to_owned())
}

/// Returns the author's variables that would be mixed with those of a binding: those with the same name, those that a
/// variable of the binding refers to, and those that select another server for libpq.
fn mixed(
    container: &Container,
    own: &[&Value],
    variables: &[Variable],
    is_injected: impl Fn(&str) -> bool,
) -> Vec<String> {
    let is_libpq = |name: &str| DatabaseEnv::Libpq.variables().iter().any(|(known, _)| *known == name);
    let for_libpq = variables.iter().any(|variable| is_libpq(&variable.name));
    let is_in_the_way = |name: &&str| {
        variables.iter().any(|variable| variable.name == *name) || for_libpq && LIBPQ_SERVERS.contains(name)
    };
    let conflicting = own.iter().filter_map(|entry| entry["name"].as_str()).filter(is_in_the_way);
    // A variable can refer only to those before it, and injected variables come before all of the author's.
    let lacking = variables.iter().filter(|variable| container.env(&variable.name).is_none());
    let needed = lacking.flat_map(|variable| &variable.of).map(String::as_str);
    let behind = needed.filter(|name| container.env(name).is_some() && !is_injected(name));
    let found: BTreeSet<&str> = conflicting.chain(behind).collect();
    found.into_iter().map(str::to_owned).collect()
}

/// Returns whether a source of `envFrom` may have a variable about a database. Its variables are unknown here, but all
/// have the prefix.
fn may_bring(source: &Value, variables: &[Variable]) -> bool {
    let prefix = source["prefix"].as_str().unwrap_or_default();
    let begins = |name: &str| name.len() > prefix.len() && name.starts_with(prefix);
    SERVERS.into_iter().chain(variables.iter().map(|variable| &*variable.name)).any(begins)
}
