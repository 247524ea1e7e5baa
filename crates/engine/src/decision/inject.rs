//! What is injected into a pod template where its author left it out.

mod database;
mod pod;
mod probes;
mod resources;

use serde_json::Value;

use super::receipt::Receipt;
use super::subject::Subject;
use crate::companions;
use crate::facts::Facts;
use crate::policy::{Effective, PolicyRef};
use crate::runtimes::{Recognised, Recognition};
use crate::workload::{FieldOwnership, FieldPath, PriorBinding, Workload};

/// One value to inject where there is none.
#[derive(Clone, Debug, PartialEq)]
pub struct Injection {
    /// Where it goes, from the pod spec.
    pub path: FieldPath,
    /// What goes there; the fields of an object go there one by one.
    pub value: Value,
    /// Who says so.
    pub policy: PolicyRef,
}

/// Collects injections.
#[derive(Default)]
pub(super) struct Injector {
    injections: Vec<Injection>,
}

impl Injector {
    /// Adds a value on behalf of a policy.
    fn add(&mut self, path: FieldPath, value: Value, policy: &PolicyRef) {
        self.injections.push(Injection { path, value, policy: policy.clone() });
    }
}

/// The pod template with what was injected.
pub(super) struct Fresh {
    pub(super) template: Value,
    pub(super) receipt: Receipt,
    /// What was recognised in the workload; none where that may have changed with the template.
    pub(super) recognition: Option<Recognition>,
    /// What the author should know.
    pub(super) notes: Vec<String>,
}

/// Injects all that today's policies say into the user's part of a workload's pod template, and writes the receipt. `prior` is
/// how the workload was bound to its database before.
pub(super) fn afresh(
    asked: &Subject,
    mut template: Value,
    effective: &Effective,
    facts: &Facts,
    prior: &PriorBinding,
) -> Fresh {
    let workload = asked.workload.with_template(&template);
    let recognition = effective.runtimes().recognise(&workload);
    let target =
        Target { workload, ownership: &asked.ownership, recognised: recognition.view(&workload), effective, facts };
    let (injections, notes) = target.injections(prior);
    let mut receipt = Receipt::from_injections(&injections);
    let recognition = Some(recognition).filter(|_| !injections.iter().any(Injection::is_variable));
    // Backwards, for each new list item goes to the head of its list.
    for injection in injections.into_iter().rev() {
        injection.path.set(&mut template["spec"], injection.value);
    }
    receipt.sign(&template);
    Fresh { template, receipt, recognition, notes }
}

impl Injection {
    /// Returns whether it sets a variable of a container, by which that may run something else.
    fn is_variable(&self) -> bool {
        self.path.segments().get(2).is_some_and(|list| list == "env")
    }
}

/// A pod template to inject into, and what decides about that.
struct Target<'a> {
    workload: Workload<'a>,
    /// What its author declared.
    ownership: &'a FieldOwnership<'a>,
    recognised: Recognised<'a>,
    effective: &'a Effective,
    facts: &'a Facts,
}

impl Target<'_> {
    /// Returns what to inject, and what the author should know.
    fn injections(&self, prior: &PriorBinding) -> (Vec<Injection>, Vec<String>) {
        let Self { workload, ownership, recognised, effective, facts } = self;
        let (mut injector, mut notes) = (Injector::default(), Vec::new());
        // A path would lead to another container, or to none; the API server refuses such a pod anyway.
        if !workload.names_tell_containers() {
            return (injector.injections, notes);
        }
        for (class, defaults) in effective.container_defaults() {
            resources::inject(workload, class, defaults, &mut injector);
        }
        if let Some((settings, policy)) = effective.probes() {
            notes.extend(probes::inject(recognised, settings, policy, &mut injector));
        }
        if let Some((settings, policy)) = effective.pod() {
            let (least, _) = companions::autoscaler::replicas(effective, workload, facts);
            pod::Pod { workload, ownership, recognised, settings, policy, least, facts }.inject(&mut injector);
        }
        match companions::binding(workload, recognised, effective, facts, prior) {
            Ok(binding) => {
                if let (Some(binding), Some((settings, policy)), Some(container)) =
                    (binding, companions::database::settings(effective), recognised.container)
                {
                    notes.extend(companions::note(workload, &container, &binding, settings));
                    database::inject(&container, &binding, &settings.env, policy, &mut injector);
                }
            }
            Err(unbound) => notes.push(format!("no database is bound: {}", unbound.message())),
        }
        (injector.injections, notes)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{deployment, facts, policies, with_container};

    fn injected(object: &Value, spec: Value) -> (Value, Receipt) {
        let (policies, workload) = (policies(&[("serving", spec)]), Workload::view(object).unwrap());
        let effective = policies.resolve(&workload, &facts()).unwrap();
        let (asked, template) = (Subject::new(workload), workload.template().clone());
        let mut fresh = afresh(&asked, template, &effective, &facts(), &PriorBinding::default());
        (fresh.template["spec"].take(), fresh.receipt)
    }

    fn database() -> Value {
        let zalando = json!({"teamId": "acid", "version": "17", "volume": {"size": "1Gi"}});
        json!({"database": {"provider": "zalando", "zalando": zalando}})
    }

    fn limits() -> Value {
        json!({"resources": {"cpu": {"limits": {"cpu": "1", "memory": "1Gi"}}}})
    }

    #[test]
    fn variables_stand_at_the_head_in_their_order() {
        let (pod, _) = injected(&with_container(&json!({"env": [{"name": "A"}]})), database());
        let names: Vec<&str> = pod["containers"][0]["env"]
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| entry["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["PGHOST", "PGPORT", "PGDATABASE", "PGUSER", "PGPASSWORD", "PGSSLMODE", "A"]);
    }

    #[test]
    fn the_receipt_has_every_injected_field_and_nothing_else() {
        let (_, receipt) = injected(&with_container(&json!({"resources": {"limits": {"cpu": "2"}}})), limits());
        let paths: Vec<String> = receipt.entries().map(|entry| entry.path.to_string()).collect();
        assert_eq!(paths, ["containers/api/resources/limits/memory"]);
        assert_eq!(injected(&with_container(&json!({})), json!({})).1.entries().count(), 0);
    }

    #[test]
    fn containers_that_names_do_not_tell_get_nothing() {
        let twins = json!([{"name": "a", "image": "a:1"}, {"name": "a", "image": "b:1"}]);
        assert_eq!(injected(&deployment(&twins), limits()).0["containers"], twins);
    }

    #[test]
    fn a_pod_that_is_not_there_is_not_made_up() {
        let object = json!({"metadata": {"labels": {crate::testing::LABEL: "model-server"}}});
        assert_eq!(injected(&object, limits()).0, Value::Null);
    }
}
