//! Whether the kinds of workloads are served: built-in ones always, others while their definition is established.

use std::sync::Arc;

use kube::Client;
use kube::api::{Api, DynamicObject};
use kube::core::ApiResource;
use kube::runtime::{WatchStreamExt as _, watcher};
use serde_json::Value;
use tokio::sync::watch::{Receiver, Sender};
use tracing::info;

use super::informer::{self, Handler, Key, follow};
use super::resource;
use super::workloads::SharedStep;
use tidegate_engine::kind::Kind;
use tidegate_engine::workload::items;

/// Returns how the API server is asked for the workloads of a kind.
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

/// Whether a kind is served, once that is known.
#[derive(Debug)]
pub(super) struct Served {
    kind: &'static Kind,
    now: Sender<Option<bool>>,
}

impl Served {
    /// Begins with what is known of a kind without asking.
    pub(super) fn new(kind: &'static Kind) -> Arc<Self> {
        Arc::new(Self { kind, now: Sender::new(kind.is_built_in.then_some(true)) })
    }

    /// Does some work for as long as the kind is served, each time that it is; `ended` is called when it no longer is. The work
    /// is given the step of readiness the first time; where the kind is not served at the start, the step is done by that.
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

    /// Follows the definition of the kind; none where it is built in.
    pub(super) fn follow_definition(self: &Arc<Self>, client: &Client) -> Option<impl Future<Output = ()> + use<>> {
        let only = informer::config().fields(&format!("metadata.name={}", self.kind.definition()?));
        let definitions = resource("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &definitions);
        Some(follow(watcher(api, only).default_backoff(), Definition(Arc::clone(self))))
    }

    fn note(&self, is_served: bool) {
        let changed = self.now.send_if_modified(|now| now.replace(is_served) != Some(is_served));
        if changed {
            info!(kind = self.kind.kind, is_served, "whether the API is served was learnt");
        }
    }
}

/// Waits until something holds of what is known. The sender is held by whoever asks, so the channel is not closed.
async fn until(now: &mut Receiver<Option<bool>>, holds: impl Fn(Option<bool>) -> bool) {
    let _ = now.wait_for(|known| holds(*known)).await;
}

/// Follows the definition of a kind.
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

/// Tells whether a version is served by a definition.
fn serves(definition: &Value, version: &str) -> bool {
    let is_served = |found: &Value| found["name"] == version && found["served"] == true;
    is_established(definition) && items(&definition["spec"]["versions"]).any(is_served)
}

/// Tells whether the API server serves what a definition defines.
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
    type Told = Arc<Mutex<Vec<&'static str>>>;

    /// Works on a kind for as long as it is served; the work never ends by itself.
    fn work_on(served: &Arc<Served>, step: SharedStep) -> Told {
        let told = Told::default();
        let (served, heard) = (Arc::clone(served), Arc::clone(&told));
        tokio::spawn(async move {
            let begin = |_| {
                heard.lock().unwrap().push("begun");
                std::future::pending()
            };
            served.during(Some(step), begin, || heard.lock().unwrap().push("ended")).await;
        });
        told
    }

    async fn settle(told: &Told) -> Vec<&'static str> {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        told.lock().unwrap().clone()
    }

    #[tokio::test(start_paused = true)]
    async fn a_built_in_kind_is_followed_at_once_and_has_no_definition() {
        let (served, readiness) = (Served::new(&KINDS[0]), Readiness::default());
        let told = work_on(&served, readiness.step("workloads").into());
        assert_eq!(settle(&told).await, ["begun"]);
        assert!(served.kind.definition().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn another_kind_is_followed_while_its_definition_is_established() {
        let (served, readiness) = (Served::new(&DEFINED), Readiness::default());
        let told = work_on(&served, readiness.step("workloads").into());
        let mut handler = Definition(Arc::clone(&served));
        let (key, v1) = ((String::new(), "servers.example.com".to_owned()), json!([{"name": "v1", "served": true}]));
        assert_eq!((settle(&told).await, readiness.missing()), (vec![], vec!["workloads"]), "nothing is known yet");
        handler.put(key.clone(), definition("False", &v1));
        handler.put(key.clone(), definition("True", &json!([{"name": "v2", "served": true}])));
        handler.synced();
        assert_eq!((settle(&told).await, readiness.missing()), (vec![], vec![]), "there is nothing to be seen first");
        handler.put(key.clone(), definition("True", &v1));
        handler.put(key.clone(), definition("True", &v1));
        assert_eq!(settle(&told).await, ["begun"]);
        handler.remove(&key);
        assert_eq!(settle(&told).await, ["begun", "ended"]);
        handler.put(key, definition("True", &v1));
        assert_eq!(settle(&told).await, ["begun", "ended", "begun"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_cluster_without_the_definition_is_not_waited_for() {
        let (served, readiness) = (Served::new(&DEFINED), Readiness::default());
        let told = work_on(&served, readiness.step("workloads").into());
        Definition(Arc::clone(&served)).synced();
        assert_eq!((settle(&told).await, readiness.missing()), (vec![], vec![]));
    }

    #[test]
    fn a_kind_is_asked_for_by_its_own_plural() {
        let found = resource_of(&DEFINED);
        assert_eq!((found.api_version.as_str(), found.plural.as_str()), ("example.com/v1", "servers"));
        for kind in KINDS {
            assert_eq!(resource_of(kind), resource(kind.group, kind.version, kind.kind));
        }
    }
}
