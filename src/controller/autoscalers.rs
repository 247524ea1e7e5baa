//! Watches all autoscalers: HorizontalPodAutoscalers, and KEDA's ScaledObjects while their API is served.

use std::sync::Arc;

use kube::api::DynamicObject;
use kube::core::ApiResource;
use serde_json::Value;

use super::informer::{Handler, Key, WatchTask, follow};
use super::kinds::{OptionalApi, WhileServed, follow_definition};
use super::watches::Watches;
use super::{raw, resource};
use crate::server::health::Step;
use tidegate_engine::companions::{autoscaler_of, names};
use tidegate_engine::facts::{Autoscaler, SCALED_OBJECT};
use tidegate_engine::workload::WorkloadRef;

impl Watches {
    /// Watches the HorizontalPodAutoscalers.
    pub(super) fn autoscalers(&self, step: Step) -> impl Future<Output = ()> + use<> {
        let kind = resource("autoscaling", "v2", "HorizontalPodAutoscaler");
        let autoscalers = Autoscalers { watches: self.clone(), kind };
        follow(self.events(&autoscalers.kind), Hpas { autoscalers, step })
    }

    /// Watches the ScaledObjects while their API is served.
    pub(super) fn scaled_objects(&self, step: Step) -> impl Future<Output = ()> + use<> {
        let keda = Keda { watches: self.clone() };
        follow_definition(&self.client, "scaledobjects.keda.sh", WhileServed::new(keda, step))
    }
}

/// The parts common to both kinds of autoscalers.
struct Autoscalers {
    watches: Watches,
    kind: ApiResource,
}

impl Autoscalers {
    fn put(&self, key: &Key, object: DynamicObject) {
        let object = raw(object, &self.kind);
        let before = self.store(key, Some(object.clone()));
        self.update(key, before.as_ref(), Some(&object));
    }

    fn remove(&self, key: &Key) {
        let before = self.store(key, None);
        self.update(key, before.as_ref(), None);
    }

    /// Stores or removes an object, and returns its previous version.
    fn store(&self, key: &Key, object: Option<Value>) -> Option<Value> {
        self.watches.objects.note(|kinds| {
            let known = kinds.of(&self.kind.group, &self.kind.kind);
            match object {
                Some(object) => known.insert(key.clone(), &object),
                None => known.remove(key),
            }
        })
    }

    /// Changes the target of an autoscaler in one step, so that it always has one, and queues the workloads affected.
    fn update(&self, key: &Key, before: Option<&Value>, now: Option<&Value>) {
        let (target_before, target) = (before.and_then(Autoscaler::target), now.and_then(Autoscaler::target));
        let is_derived = now.is_some_and(Autoscaler::is_derived);
        let autoscaler =
            now.filter(|_| !is_derived).zip(target.as_ref()).map(|(now, target)| autoscaler_of(now, target));
        self.watches.state.note(|facts| {
            if let Some(before) = &target_before {
                facts.forget_autoscaler(before, &self.kind.kind, &key.1);
                facts.forget_derived_autoscaler(before, &key.1);
            }
            match (target.clone(), autoscaler) {
                (Some(target), Some(autoscaler)) => facts.autoscalers.entry(target).or_default().push(autoscaler),
                (Some(target), None) => {
                    facts.derived_autoscalers.entry(target).or_default().insert(key.1.clone());
                }
                (None, _) => {}
            }
        });
        target_before.iter().chain(&target).for_each(|target| self.watches.queue.push(target));
        // One with the name that Tidegate gives to the autoscaler of a workload may have another target.
        if let Some((kind, name)) = names::scaled_by(&key.1) {
            let (namespace, kind, name) = (key.0.clone(), kind.to_owned(), name.to_owned());
            self.watches.queue.push(&WorkloadRef { namespace, kind, name });
        }
    }
}

struct Hpas {
    autoscalers: Autoscalers,
    step: Step,
}

impl Handler<DynamicObject> for Hpas {
    fn put(&mut self, key: Key, object: DynamicObject) {
        self.autoscalers.put(&key, object);
    }

    fn remove(&mut self, key: &Key) {
        self.autoscalers.remove(key);
    }

    fn synced(&mut self) {
        self.step.done();
    }
}

/// The API of KEDA.
struct Keda {
    watches: Watches,
}

impl OptionalApi for Keda {
    fn watch(&self, step: Arc<Step>) -> WatchTask {
        let kind = resource("keda.sh", "v1alpha1", SCALED_OBJECT);
        let events = self.watches.events(&kind);
        WatchTask::new(events, ScaledObjects { autoscalers: Autoscalers { watches: self.watches.clone(), kind }, step })
    }

    fn forget(&self) {
        self.watches.state.note(|facts| {
            facts.apis.keda = false;
            facts.autoscalers.retain(|_, known| {
                known.retain(|found| found.kind != SCALED_OBJECT);
                !known.is_empty()
            });
        });
        self.watches.objects.note(|kinds| kinds.of("keda.sh", SCALED_OBJECT).clear());
        self.watches.queue.push_all();
    }
}

struct ScaledObjects {
    autoscalers: Autoscalers,
    step: Arc<Step>,
}

impl Handler<DynamicObject> for ScaledObjects {
    fn put(&mut self, key: Key, object: DynamicObject) {
        self.autoscalers.put(&key, object);
    }

    fn remove(&mut self, key: &Key) {
        self.autoscalers.remove(key);
    }

    /// The API counts as served once the existing ScaledObjects are known.
    fn synced(&mut self) {
        self.autoscalers.watches.state.note(|facts| facts.apis.keda = true);
        self.autoscalers.watches.queue.push_all();
        self.step.done();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn own_autoscalers_are_recognised_by_name_label_and_annotation() {
        let target = WorkloadRef { namespace: "ml".into(), kind: "Deployment".into(), name: "api".into() };
        let ours = |kind: &str, name: &str| {
            let labels = json!({"app.kubernetes.io/managed-by": "tidegate"});
            let annotations = json!({"tidegate.dev/workload": "Deployment/api"});
            let metadata = json!({"name": name, "namespace": "ml", "labels": labels, "annotations": annotations});
            autoscaler_of(&json!({"kind": kind, "metadata": metadata, "spec": {}}), &target).ours
        };
        assert!(ours("ScaledObject", "api-tidegate") && ours("HorizontalPodAutoscaler", "api-tidegate"));
        assert!(!ours("ScaledObject", "copy"));
    }
}
