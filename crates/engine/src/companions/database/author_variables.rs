//! What the author of a workload says of a database by variables of their own. Those are never overwritten, and a binding is
//! never mixed with them: it is made as a whole, or not at all.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Binding, DatabaseSettings, Unbound, Variable};
use crate::api::{DATABASE_ANNOTATION, DatabaseEnv, DatabasePart};
use crate::workload::{Annotations, Container, PriorBinding, Workload, items, refers_to};

/// The variables by which libpq is told of a server, whoever sets the others: an address besides the host, and a service whose
/// file comes before the other variables.
///
/// <https://www.postgresql.org/docs/current/libpq-envars.html> and
/// <https://www.postgresql.org/docs/current/libpq-pgservice.html>
const LIBPQ_SERVERS: [&str; 3] = ["PGHOST", "PGHOSTADDR", "PGSERVICE"];

/// The variables by which an author says which server to use, beside those that a policy names: those of libpq, the files that
/// hold its services and passwords, and the address that most frameworks read.
const SERVERS: [&str; 6] = ["PGHOST", "PGHOSTADDR", "PGSERVICE", "PGSERVICEFILE", "PGPASSFILE", "DATABASE_URL"];

/// The variables of a container that are its author's own, as far as they are about a database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Own {
    /// The one that says which server to use.
    server: Option<String>,
    /// Those that would be mixed with the binding's.
    pub(super) mixed: Vec<String>,
    /// Whether what `envFrom` brings may be about a database.
    is_open: bool,
}

impl Own {
    /// Reads the variables of a container beside those of a binding.
    fn of(container: &Container, binding: &Binding, env: &DatabaseEnv, prior: &PriorBinding) -> Self {
        let variables = binding.variables(env);
        let is_injected = |name: &str| prior.injected.contains(&(container.name().to_owned(), name.to_owned()));
        let theirs: Vec<&Value> = items(container.field("env"))
            .filter(|entry| entry["name"].as_str().is_some_and(|name| !is_injected(name)))
            .filter(|entry| !variables.iter().any(|variable| variable.is(entry)))
            .collect();
        Self {
            server: theirs.iter().find_map(|entry| server(entry, env)),
            mixed: mixed(container, &theirs, &variables, is_injected),
            is_open: items(container.field("envFrom")).any(|source| may_bring(source, &variables)),
        }
    }

    /// Says why a container gets no binding.
    fn problem(
        &self,
        container: &Container,
        settings: &DatabaseSettings,
        is_asked: bool,
        prior: &PriorBinding,
    ) -> Option<Unbound> {
        let (name, mixed) = (container.name(), self.mixed.join(", "));
        let is_kept = |server: &String| self.mixed.is_empty() && prior.holds && prior.beside.contains(server);
        if let Some(server) = self.server.as_ref().filter(|server| !is_asked && !is_kept(server)) {
            let instead = match &*mixed {
                "" => "bind Tidegate's as well".to_owned(),
                mixed => format!("bind Tidegate's instead once {mixed} {} removed", are(&self.mixed)),
            };
            return Some(Unbound::Elsewhere(format!(
                "container {name} sets {server}, so it has its own database; set the annotation {DATABASE_ANNOTATION}: \"true\" \
                 to {instead}, or none if no database is needed"
            )));
        }
        if !self.mixed.is_empty() {
            let message = format!(
                "container {name} sets {mixed} itself, and a database is bound with all its variables or not at all: remove \
                 {mixed}, or set the annotation {DATABASE_ANNOTATION}: none if no database is needed"
            );
            return Some(Unbound::Impossible(("VariablesConflict", message)));
        }
        (self.is_open && !is_asked && !settings.over_env_from && !prior.holds).then(|| {
            Unbound::Elsewhere(format!(
                "container {name} takes variables from `envFrom`, which may already name a database; set the annotation \
                 {DATABASE_ANNOTATION}: \"true\" to bind Tidegate's, whose variables take precedence, or none if no \
                 database is needed"
            ))
        })
    }

    /// Returns what the author should know of a binding that is made although they have not asked for it.
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
            "{what}: the database {} is bound anyway; set the annotation {DATABASE_ANNOTATION}: \"true\" to confirm this, or \
             none to leave it unbound",
            binding.name
        ))
    }
}

/// Says why a container gets no binding: its author has, or may have, another.
pub(super) fn problem(
    workload: &Workload,
    container: &Container,
    binding: &Binding,
    settings: &DatabaseSettings,
    prior: &PriorBinding,
) -> Option<Unbound> {
    Own::of(container, binding, &settings.env, prior).problem(container, settings, is_asked(workload), prior)
}

/// Returns the variables of a container that keep a binding from being made.
pub(super) fn in_the_way(
    container: &Container,
    binding: &Binding,
    settings: &DatabaseSettings,
    prior: &PriorBinding,
) -> Vec<String> {
    Own::of(container, binding, &settings.env, prior).mixed
}

/// Returns what the author of a workload should know of a binding that is made.
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

/// Tells whether the author of a workload asks for Tidegate's database.
fn is_asked(workload: &Workload) -> bool {
    Annotations::read(workload).database.said() == Some(true)
}

fn are(names: &[String]) -> &'static str {
    if names.len() == 1 { "is" } else { "are" }
}

/// Returns the name of a variable that says which server to use, unless it refers to that of the binding.
fn server(entry: &Value, env: &DatabaseEnv) -> Option<String> {
    let name = entry["name"].as_str()?;
    let told = env.variables();
    let lead = |part: DatabasePart| matches!(part, DatabasePart::Host | DatabasePart::Uri);
    let mut leading = told.iter().filter(|(_, part)| lead(*part)).map(|(name, _)| *name);
    let is_server = SERVERS.contains(&name) || leading.clone().any(|leading| leading == name);
    let is_ours = leading.any(|leading| refers_to(entry["value"].as_str().unwrap_or_default(), leading));
    (is_server && !is_ours).then(|| name.to_owned())
}

/// Returns the author's variables that would be mixed with those of a binding: of the same name, before which one of the
/// binding would have to stand, or another server for libpq.
fn mixed(
    container: &Container,
    theirs: &[&Value],
    variables: &[Variable],
    is_injected: impl Fn(&str) -> bool,
) -> Vec<String> {
    let is_libpq = |name: &str| DatabaseEnv::Libpq.variables().iter().any(|(known, _)| *known == name);
    let for_libpq = variables.iter().any(|variable| is_libpq(&variable.name));
    let is_in_the_way = |name: &&str| {
        variables.iter().any(|variable| variable.name == *name) || for_libpq && LIBPQ_SERVERS.contains(name)
    };
    let of_theirs = theirs.iter().filter_map(|entry| entry["name"].as_str()).filter(is_in_the_way);
    // A variable sees only those before it, and what is injected stands before all of the author's.
    let lacking = variables.iter().filter(|variable| container.env(&variable.name).is_none());
    let needed = lacking.flat_map(|variable| &variable.of).map(String::as_str);
    let behind = needed.filter(|name| container.env(name).is_some() && !is_injected(name));
    let found: BTreeSet<&str> = of_theirs.chain(behind).collect();
    found.into_iter().map(str::to_owned).collect()
}

/// Tells whether a source of `envFrom` may bring a variable that is about a database: what it brings is not known here, but all
/// of it begins with the prefix.
fn may_bring(source: &Value, variables: &[Variable]) -> bool {
    let prefix = source["prefix"].as_str().unwrap_or_default();
    let begins = |name: &str| name.len() > prefix.len() && name.starts_with(prefix);
    SERVERS.into_iter().chain(variables.iter().map(|variable| &*variable.name)).any(begins)
}
