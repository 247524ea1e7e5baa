//! Follows the autoscalers, whoever made them: HorizontalPodAutoscalers, and KEDA's ScaledObjects for as long as there is
//! KEDA.

use std::sync::Arc;

use kube::ResourceExt as _;
use kube::api::{Api, DynamicObject};
use kube::core::ApiResource;
use kube::runtime::{WatchStreamExt as _, watcher};
use serde_json::Value;
use tracing::info;

use super::informer::{self, Following, Handler, Key, follow};
use super::kinds::is_established;
use super::watches::Watches;
use super::{raw, resource};
use crate::server::health::Step;
use tidegate_engine::companions::{autoscaler_of, names};
use tidegate_engine::facts::{Autoscaler, SCALED_OBJECT};
use tidegate_engine::workload::WorkloadRef;

impl Watches {
    /// Follows the HorizontalPodAutoscalers.
    pub(super) fn autoscalers(&self, step: Step) -> impl Future<Output = ()> + use<> {
        let kind = resource("autoscaling", "v2", "HorizontalPodAutoscaler");
        let autoscalers = Autoscalers { watches: self.clone(), kind };
        follow(self.events(&autoscalers.kind), Hpas { autoscalers, step })
    }

    /// Follows the ScaledObjects for as long as their API is served.
    pub(super) fn scaled_objects(&self, step: Step) -> impl Future<Output = ()> + use<> {
        let kind = resource("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &kind);
        let only = informer::config().fields("metadata.name=scaledobjects.keda.sh");
        let definition = Definition { watches: self.clone(), following: None, step: Arc::new(step) };
        follow(watcher(api, only).default_backoff(), definition)
    }
}

/// What both kinds of autoscalers have in common.
struct Autoscalers {
    watches: Watches,
    kind: ApiResource,
}

impl Autoscalers {
    fn put(&self, key: &Key, object: DynamicObject) {
        let object = raw(object, &self.kind);
        let before = self.remember(key, Some(object.clone()));
        self.note(key, before.as_ref(), Some(&object));
    }

    fn remove(&self, key: &Key) {
        let before = self.remember(key, None);
        self.note(key, before.as_ref(), None);
    }

    /// Remembers an object, or forgets it, and returns what it was before.
    fn remember(&self, key: &Key, object: Option<Value>) -> Option<Value> {
        self.watches.objects.note(|kinds| {
            let known = kinds.of(&self.kind.group, &self.kind.kind);
            match object {
                Some(object) => known.insert(key.clone(), &object),
                None => known.remove(key),
            }
        })
    }

    /// Notes in one go what an autoscaler scales now instead of before, so that nobody sees it scale nothing in between,
    /// and has all looked at whom that concerns.
    fn note(&self, key: &Key, before: Option<&Value>, now: Option<&Value>) {
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
        // One that has the name of ours may scale something else.
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

/// Follows the definition of KEDA's API, and the ScaledObjects for as long as it is established.
struct Definition {
    watches: Watches,
    following: Option<Following>,
    step: Arc<Step>,
}

impl Handler<DynamicObject> for Definition {
    fn put(&mut self, _: Key, definition: DynamicObject) {
        if is_established(&definition.data) && self.following.is_none() {
            info!(name = definition.name_any(), "the API is served");
            let kind = resource("keda.sh", "v1alpha1", SCALED_OBJECT);
            let events = self.watches.events(&kind);
            let autoscalers = Autoscalers { watches: self.watches.clone(), kind };
            let objects = ScaledObjects { autoscalers, step: Arc::clone(&self.step) };
            self.following = Some(Following::new(events, objects));
        }
    }

    fn remove(&mut self, key: &Key) {
        info!(name = key.1, "the API is no longer served");
        if let Some(mut following) = self.following.take() {
            following.end();
        }
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

    /// Without the API there are no ScaledObjects to be seen first.
    fn synced(&mut self) {
        if self.following.is_none() {
            self.step.done();
        }
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

    /// The API counts as served once it is known which workloads are scaled by it.
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
    fn ours_of_either_kind_is_told_by_name_label_and_annotation() {
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
