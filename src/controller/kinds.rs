//! Which APIs are served: built-in kinds always, others while their CustomResourceDefinition is established.

use std::sync::Arc;

use kube::api::{Api, DynamicObject};
use kube::core::ApiResource;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Client, ResourceExt as _};
use serde_json::Value;
use tokio::sync::watch::{Receiver, Sender};
use tracing::info;

use super::informer::{self, Handler, Key, WatchTask, follow};
use super::resource;
use super::workloads::SharedStep;
use crate::server::health::Step;
use tidegate_engine::kind::Kind;
use tidegate_engine::workload::items;

/// Returns the API resource of a kind of workload.
#[must_use]
pub fn resource_of(kind: &Kind) -> ApiResource {
    ApiResource {
        group: kind.group.to_owned(),
        version: kind.version.to_owned(),
        api_version: kind.api_version(),
        kind: kind.kind.to_owned(),
        plural: kind.plural.to_owned(),
    }
}

/// Whether a kind is served; unknown at first.
#[derive(Debug)]
pub(super) struct Served {
    kind: &'static Kind,
    now: Sender<Option<bool>>,
}

impl Served {
    /// Creates the state of a kind, known only if it is built in.
    pub(super) fn new(kind: &'static Kind) -> Arc<Self> {
        Arc::new(Self { kind, now: Sender::new(kind.is_built_in.then_some(true)) })
    }

    /// Runs some work whenever the kind is served; calls `ended` when it no longer is. The first run gets the step of
    /// readiness; if the kind is not served at the start, the step is complete.
    pub(super) async fn during<Work: Future<Output = ()>>(
        &self,
        mut step: Option<SharedStep>,
        work: impl Fn(Option<SharedStep>) -> Work,
        ended: impl Fn(),
    ) {
        let mut now = self.now.subscribe();
        loop {
            until(&mut now, |known| known.is_some()).await;
            let first = step.take();
            if *now.borrow() == Some(true) {
                tokio::select! {
                    () = work(first) => return,
                    () = until(&mut now, |known| known != Some(true)) => ended(),
                }
            } else {
                drop(first);
                until(&mut now, |known| known == Some(true)).await;
            }
        }
    }

    /// Watches the definition of the kind; none if it is built in.
    pub(super) fn follow_definition(self: &Arc<Self>, client: &Client) -> Option<impl Future<Output = ()> + use<>> {
        Some(follow_definition(client, &self.kind.definition()?, Definition(Arc::clone(self))))
    }

    fn note(&self, is_served: bool) {
        let changed = self.now.send_if_modified(|now| now.replace(is_served) != Some(is_served));
        if changed {
            info!(kind = self.kind.kind, is_served, "discovered whether the API is served");
        }
    }
}

/// Waits until a condition holds. The caller holds the sender, so the channel is not closed.
async fn until(now: &mut Receiver<Option<bool>>, holds: impl Fn(Option<bool>) -> bool) {
    let _ = now.wait_for(|known| holds(*known)).await;
}

/// Watches one CustomResourceDefinition.
pub(super) fn follow_definition<H: Handler<DynamicObject>>(
    client: &Client,
    name: &str,
    handler: H,
) -> impl Future<Output = ()> + use<H> {
    let only = informer::config().fields(&format!("metadata.name={name}"));
    let definitions = resource("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &definitions);
    follow(watcher(api, only).default_backoff(), handler)
}

/// An API that not every cluster serves.
pub(super) trait OptionalApi {
    /// Reads its CustomResourceDefinition.
    fn defined(&self, _definition: &Value) {}

    /// Starts to watch its objects; the step is complete once they have synced.
    fn watch(&self, step: Arc<Step>) -> WatchTask;

    /// Forgets its objects: it is no longer served.
    fn forget(&self);
}

/// Watches the objects of an API while its definition is established.
pub(super) struct WhileServed<A> {
    api: A,
    task: Option<WatchTask>,
    step: Arc<Step>,
}

impl<A> WhileServed<A> {
    pub(super) fn new(api: A, step: Step) -> Self {
        Self { api, task: None, step: Arc::new(step) }
    }
}

impl<A: OptionalApi> Handler<DynamicObject> for WhileServed<A> {
    fn put(&mut self, _: Key, definition: DynamicObject) {
        self.api.defined(&definition.data);
        if is_established(&definition.data) && self.task.is_none() {
            info!(name = definition.name_any(), "the API is served");
            self.task = Some(self.api.watch(Arc::clone(&self.step)));
        }
    }

    fn remove(&mut self, key: &Key) {
        info!(name = key.1, "the API is no longer served");
        if let Some(mut task) = self.task.take() {
            task.stop();
        }
        self.api.forget();
    }

    /// Without the API there are no objects to wait for.
    fn synced(&mut self) {
        if self.task.is_none() {
            self.step.done();
        }
    }
}

/// Watches the definition of a kind of workload.
struct Definition(Arc<Served>);

impl Handler<DynamicObject> for Definition {
    fn put(&mut self, _: Key, definition: DynamicObject) {
        self.0.note(serves(&definition.data, self.0.kind.version));
    }

    fn remove(&mut self, _: &Key) {
        self.0.note(false);
    }

    fn synced(&mut self) {
        if self.0.now.borrow().is_none() {
            self.0.note(false);
        }
    }
}

/// Returns whether a definition serves a version.
fn serves(definition: &Value, version: &str) -> bool {
    let is_served = |found: &Value| found["name"] == version && found["served"] == true;
    is_established(definition) && items(&definition["spec"]["versions"]).any(is_served)
}

/// Returns whether a definition is established.
pub(super) fn is_established(definition: &Value) -> bool {
    items(&definition["status"]["conditions"]).any(|found| found["type"] == "Established" && found["status"] == "True")
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use serde_json::json;
    use tidegate_engine::kind::KINDS;

    use super::*;
    use crate::server::health::Readiness;

    static DEFINED: Kind = Kind { group: "example.com", plural: "servers", is_built_in: false, ..KINDS[0] };

    fn definition(established: &str, versions: &Value) -> DynamicObject {
        let conditions = json!([{"type": "Established", "status": established}]);
        let mut object = DynamicObject::new("servers.example.com", &resource("", "v1", "any"));
        object.data = json!({"spec": {"versions": versions}, "status": {"conditions": conditions}});
        object
    }

    /// What has happened to the work on a kind.
    type Log = Arc<Mutex<Vec<&'static str>>>;

    /// Runs work while a kind is served; the work never ends by itself.
    fn work_on(served: &Arc<Served>, step: SharedStep) -> Log {
        let log = Log::default();
        let (served, written) = (Arc::clone(served), Arc::clone(&log));
        tokio::spawn(async move {
            let begin = |_| {
                written.lock().unwrap().push("started");
                std::future::pending()
            };
            served.during(Some(step), begin, || written.lock().unwrap().push("ended")).await;
        });
        log
    }

    async fn settle(log: &Log) -> Vec<&'static str> {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        log.lock().unwrap().clone()
    }

    #[tokio::test(start_paused = true)]
    async fn a_built_in_kind_is_watched_at_once_and_has_no_definition() {
        let (served, readiness) = (Served::new(&KINDS[0]), Readiness::default());
        let log = work_on(&served, readiness.step("workloads").into());
        assert_eq!(settle(&log).await, ["started"]);
        assert!(served.kind.definition().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn another_kind_is_watched_while_its_definition_is_established() {
        let (served, readiness) = (Served::new(&DEFINED), Readiness::default());
        let log = work_on(&served, readiness.step("workloads").into());
        let mut handler = Definition(Arc::clone(&served));
        let (key, v1) = ((String::new(), "servers.example.com".to_owned()), json!([{"name": "v1", "served": true}]));
        assert_eq!((settle(&log).await, readiness.missing()), (vec![], vec!["workloads"]), "nothing is known yet");
        handler.put(key.clone(), definition("False", &v1));
        handler.put(key.clone(), definition("True", &json!([{"name": "v2", "served": true}])));
        handler.synced();
        assert_eq!((settle(&log).await, readiness.missing()), (vec![], vec![]), "there is nothing to wait for");
        handler.put(key.clone(), definition("True", &v1));
        handler.put(key.clone(), definition("True", &v1));
        assert_eq!(settle(&log).await, ["started"]);
        handler.remove(&key);
        assert_eq!(settle(&log).await, ["started", "ended"]);
        handler.put(key, definition("True", &v1));
        assert_eq!(settle(&log).await, ["started", "ended", "started"]);
    }

    #[tokio::test(start_paused = true)]
    async fn does_not_wait_for_a_missing_definition() {
        let (served, readiness) = (Served::new(&DEFINED), Readiness::default());
        let log = work_on(&served, readiness.step("workloads").into());
        Definition(Arc::clone(&served)).synced();
        assert_eq!((settle(&log).await, readiness.missing()), (vec![], vec![]));
    }

    #[test]
    fn resource_uses_the_plural_of_the_kind() {
        let found = resource_of(&DEFINED);
        assert_eq!((found.api_version.as_str(), found.plural.as_str()), ("example.com/v1", "servers"));
        for kind in KINDS {
            assert_eq!(resource_of(kind), resource(kind.group, kind.version, kind.kind));
        }
    }
}
