//! Injects fields that are missing from a pod template.

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

/// A value to inject into an absent field.
#[derive(Clone, Debug, PartialEq)]
pub struct Injection {
    /// The path of the field, from the pod spec.
    pub path: FieldPath,
    /// The value; the fields of an object are injected one by one.
    pub value: Value,
    /// The policy that injects it.
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

/// The pod template with injected fields.
pub(super) struct Fresh {
    pub(super) template: Value,
    pub(super) receipt: Receipt,
    /// What was recognised in the workload; none if the injected variables may have changed that.
    pub(super) recognition: Option<Recognition>,
    /// Notes for the user.
    pub(super) notes: Vec<String>,
}

/// Injects the fields of the current policies into the user's part of a workload's pod template, and creates the
/// receipt. `prior` is how the workload was bound to its database before.
pub(super) fn into_template(
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
    // In reverse, because each new item is inserted at the head of its list.
    for injection in injections.into_iter().rev() {
        injection.path.set(&mut template["spec"], injection.value);
    }
    receipt.sign(&template);
    Fresh { template, receipt, recognition, notes }
}

impl Injection {
    /// Returns whether it sets a variable of a container, which may change what the container runs.
    fn is_variable(&self) -> bool {
        self.path.segments().get(2).is_some_and(|list| list == "env")
    }
}

/// A pod template to inject into, with the policies and facts.
struct Target<'a> {
    workload: Workload<'a>,
    /// The fields that users have declared.
    ownership: &'a FieldOwnership<'a>,
    recognised: Recognised<'a>,
    effective: &'a Effective,
    facts: &'a Facts,
}

impl Target<'_> {
    /// Returns the injections, and notes for the user.
    fn injections(&self, prior: &PriorBinding) -> (Vec<Injection>, Vec<String>) {
        let Self { workload, ownership, recognised, effective, facts } = self;
        let (mut injector, mut notes) = (Injector::default(), Vec::new());
        // Paths name containers, so their names must be unique; the API server refuses other pods anyway.
        if !workload.has_unique_container_names() {
            return (injector.injections, notes);
        }
        for (class, defaults) in effective.container_defaults() {
            resources::inject(workload, class, defaults, &mut injector);
        }
        if let Some((settings, policy)) = effective.probes() {
            notes.extend(probes::inject(recognised, settings, policy, &mut injector));
        }
        if let Some((settings, policy)) = effective.pod() {
            let (least, _) = companions::autoscaler::replicas(effective, workload, recognised, facts);
            let pod = pod::Pod { workload, ownership, recognised, settings, policy, least, facts };
            notes.extend(pod.inject(&mut injector));
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
        let mut fresh = into_template(&asked, template, &effective, &facts(), &PriorBinding::default());
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
    fn injects_variables_at_the_head_in_order() {
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
    fn the_receipt_holds_the_injected_fields_only() {
        let (_, receipt) = injected(&with_container(&json!({"resources": {"limits": {"cpu": "2"}}})), limits());
        let paths: Vec<String> = receipt.entries().map(|entry| entry.path.to_string()).collect();
        assert_eq!(paths, ["containers/api/resources/limits/memory"]);
        assert_eq!(injected(&with_container(&json!({})), json!({})).1.entries().count(), 0);
    }

    #[test]
    fn injects_nothing_if_container_names_are_not_unique() {
        let twins = json!([{"name": "a", "image": "a:1"}, {"name": "a", "image": "b:1"}]);
        assert_eq!(injected(&deployment(&twins), limits()).0["containers"], twins);
    }

    #[test]
    fn injects_nothing_without_a_pod_template() {
        let object = json!({"metadata": {"labels": {crate::testing::LABEL: "model-server"}}});
        assert_eq!(injected(&object, limits()).0, Value::Null);
    }
}
