//! What is injected into a pod template where its author left it out.

mod database;
mod probes;
mod resources;

use serde_json::Value;

use super::receipt::Receipt;
use crate::api::CONTAINER_ANNOTATION;
use crate::facts::Facts;
use crate::policy::{Effective, PolicyRef};
use crate::runtimes::{self, Recognised};
use crate::workload::{Path, Workload};

/// One value to inject: a single field, so that each can give way alone.
#[derive(Clone, Debug, PartialEq)]
pub struct Injection {
    /// Where it goes, from the pod spec.
    pub path: Path,
    /// What goes there.
    pub value: Value,
    /// Who says so.
    pub policy: PolicyRef,
}

/// Collects injections on behalf of one policy.
pub(super) struct Injector<'p> {
    policy: &'p PolicyRef,
    injections: Vec<Injection>,
}

impl<'p> Injector<'p> {
    fn new(policy: &'p PolicyRef) -> Self {
        Self { policy, injections: Vec::new() }
    }

    /// Adds a value, one injection for each of its fields.
    fn add(&mut self, path: &Path, value: Value) {
        match value {
            Value::Object(fields) => fields.into_iter().for_each(|(name, value)| self.add(&path.join(&name), value)),
            value => self.injections.push(Injection { path: path.clone(), value, policy: self.policy.clone() }),
        }
    }
}

/// Injects all that today's policies say into the user's part of an object, and writes the receipt.
pub(super) fn afresh(
    mut object: Value,
    effective: &Effective,
    facts: &Facts,
    notes: &mut Vec<String>,
) -> (Value, Receipt) {
    // Taking out what is ours leaves the types as they were seen.
    let injections = match Workload::view(&object) {
        Ok(workload) => planned(&workload, effective, facts, notes),
        Err(_) => Vec::new(),
    };
    // Backwards, for each new list item goes to the head of its list.
    for injection in injections.iter().rev() {
        injection.path.set(&mut object["spec"]["template"]["spec"], injection.value.clone());
    }
    let receipt = Receipt::write(&object["spec"]["template"], &injections);
    (object, receipt)
}

fn planned(workload: &Workload, effective: &Effective, facts: &Facts, notes: &mut Vec<String>) -> Vec<Injection> {
    // A path would lead to another container, or to none; the API server refuses such a pod anyway.
    if !workload.names_tell_containers() {
        return Vec::new();
    }
    let recognised = runtimes::recognise(workload);
    let mut injections = Vec::new();
    for (class, defaults, policy) in effective.container_defaults() {
        let mut injector = Injector::new(policy);
        resources::inject(workload, class, defaults, &mut injector);
        injections.append(&mut injector.injections);
    }
    if let Some((settings, policy)) = effective.probes() {
        let mut injector = Injector::new(policy);
        notes.extend(probes::inject(&recognised, settings, &mut injector));
        injections.append(&mut injector.injections);
    }
    if let Some((settings, policy)) = effective.database() {
        let mut injector = Injector::new(policy);
        notes.extend(database::inject(&workload.reference(), &recognised, settings, facts, &mut injector));
        injections.append(&mut injector.injections);
    }
    injections
}

/// Tells the author which container is meant where several could be.
fn which_container(recognised: &Recognised, what: &str) -> String {
    let why = recognised.problem.as_deref().unwrap_or("it cannot be told which container is the model server");
    format!("{what}: {why}; name it in the annotation {CONTAINER_ANNOTATION}")
}
