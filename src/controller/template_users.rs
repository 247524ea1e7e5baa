//! Watches the workloads that may use the pod template of another one, such as Rollouts with `workloadRef`: the pods of
//! the other one are then run and scaled by them. They need no label for that.

use std::sync::Arc;

use kube::api::DynamicObject;

use super::informer::{Handler, Key, WatchTask};
use super::kinds::{OptionalApi, WhileServed, follow_definition, resource_of};
use super::raw;
use super::watches::Watches;
use crate::server::health::Step;
use tidegate_engine::kind::Kind;
use tidegate_engine::workload::{Workload, WorkloadRef};

impl Watches {
    /// Watches the workloads of a kind while its definition, which has this name, is established.
    pub(super) fn template_users(
        &self,
        kind: &'static Kind,
        definition: &str,
        step: Step,
    ) -> impl Future<Output = ()> + use<> {
        let users = TemplateUsers { watches: self.clone(), kind };
        follow_definition(&self.client, definition, WhileServed::new(users, step))
    }
}

/// A kind of workloads that may use the pod template of another one.
#[derive(Clone)]
struct TemplateUsers {
    watches: Watches,
    kind: &'static Kind,
}

impl TemplateUsers {
    /// Notes whose template a workload uses, and queues the workloads for which that is a change.
    fn note(&self, user: &WorkloadRef, source: Option<&WorkloadRef>) {
        let changed = self.watches.state.note(|facts| facts.note_template_user(user, source));
        for workload in &changed {
            self.watches.queue.push(workload);
        }
    }
}

impl OptionalApi for TemplateUsers {
    fn watch(&self, step: Arc<Step>) -> WatchTask {
        WatchTask::new(self.watches.events(&resource_of(self.kind)), OfKind { users: self.clone(), step })
    }

    fn forget(&self) {
        let users: Vec<WorkloadRef> = self.watches.state.read(|_, facts| {
            let all = facts.template_users.values().flatten();
            all.filter(|user| user.kind == self.kind.kind).cloned().collect()
        });
        for user in &users {
            self.note(user, None);
        }
    }
}

struct OfKind {
    users: TemplateUsers,
    step: Arc<Step>,
}

impl Handler<DynamicObject> for OfKind {
    fn put(&mut self, _: Key, object: DynamicObject) {
        let object = raw(object, &resource_of(self.users.kind));
        if let Ok(user) = Workload::view(&object) {
            self.users.note(&user.reference(), user.template_source().as_ref());
        }
    }

    fn remove(&mut self, (namespace, name): &Key) {
        let (namespace, kind, name) = (namespace.clone(), self.users.kind.kind.to_owned(), name.clone());
        self.users.note(&WorkloadRef { namespace, kind, name }, None);
    }

    fn synced(&mut self) {
        self.step.done();
    }
}
