//! Watches one kind of object. Every object is parsed alone: an invalid one does not affect the others.

use std::collections::HashSet;
use std::mem;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};

use futures::{Stream, StreamExt as _};
use kube::runtime::watcher::{self, Event};
use kube::{Resource, ResourceExt as _};
use tokio::task::JoinSet;
use tracing::{Instrument as _, warn};

use crate::report;

/// Namespace and name of an object; the namespace is empty for cluster-scoped objects.
pub(super) type Key = (String, String);

/// Handles the events of a watch.
pub(super) trait Handler<K> {
    /// An object was listed, created or changed.
    fn put(&mut self, key: Key, object: K);

    /// An object was deleted.
    fn remove(&mut self, key: &Key);

    /// All existing objects have been listed.
    fn synced(&mut self) {}

    /// Returns the keys of objects known from other sources, such as those just created. They count as deleted if the
    /// next list lacks them.
    fn known_keys(&self) -> Vec<Key> {
        Vec::new()
    }
}

/// The page size of lists: a parsed page takes many times the memory of what is stored.
const PAGE: u32 = 100;

/// Returns the configuration of watches.
pub(super) fn config() -> watcher::Config {
    watcher::Config::default().page_size(PAGE)
}

/// Passes the events of a watch to a handler. After an interruption the watch starts again, and the handler learns of
/// objects deleted in between.
pub(super) async fn follow<K: Resource>(
    events: impl Stream<Item = watcher::Result<Event<K>>>,
    mut handler: impl Handler<K>,
) {
    let mut events = pin!(events);
    let mut known: HashSet<Key> = HashSet::new();
    let mut listed: HashSet<Key> = HashSet::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => {
                listed.clear();
                known.extend(handler.known_keys());
            }
            Ok(Event::InitApply(object)) => {
                // A list that fails halfway restarts, and `listed` with it, but `known` keeps its objects.
                known.insert(key_of(&object));
                listed.insert(key_of(&object));
                handler.put(key_of(&object), object);
            }
            Ok(Event::InitDone) => {
                known.difference(&listed).for_each(|deleted| handler.remove(deleted));
                known = mem::take(&mut listed);
                handler.synced();
            }
            Ok(Event::Apply(object)) => {
                known.insert(key_of(&object));
                handler.put(key_of(&object), object);
            }
            Ok(Event::Delete(object)) => {
                known.remove(&key_of(&object));
                handler.remove(&key_of(&object));
            }
            Err(error) => log(&error),
        }
    }
}

/// The task of a watch that can be stopped.
#[derive(Default)]
pub(super) struct WatchTask {
    task: JoinSet<()>,
    flag: StopFlag,
}

impl WatchTask {
    /// Runs a watch until this is stopped or dropped.
    pub(super) fn new<K: Resource + Send + 'static>(
        events: impl Stream<Item = watcher::Result<Event<K>>> + Send + 'static,
        handler: impl Handler<K> + Send + 'static,
    ) -> Self {
        Self::spawn(|flag| follow(events, flag.guard(handler)))
    }

    /// Runs work with watches until this is stopped or dropped; their handlers must be guarded by the flag.
    pub(super) fn spawn<Work: Future<Output = ()> + Send + 'static>(work: impl FnOnce(StopFlag) -> Work) -> Self {
        let mut task = Self::default();
        task.task.spawn(work(task.flag.clone()).in_current_span());
        task
    }

    /// Stops the watch: its handler is not called any more, so its objects can be forgotten.
    pub(super) fn stop(&mut self) {
        self.flag.stop();
        self.task.abort_all();
    }
}

/// Keeps the handler of a stopped watch from being called: an aborted task goes on to its next await.
#[derive(Clone, Default)]
pub(super) struct StopFlag(Arc<Mutex<bool>>);

impl StopFlag {
    /// Calls a function unless the watch is stopped; the watch is not stopped meanwhile.
    pub(super) fn unless_stopped(&self, act: impl FnOnce()) {
        let is_stopped = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !*is_stopped {
            act();
        }
    }

    /// Guards a handler with this flag.
    pub(super) fn guard<H>(&self, handler: H) -> Guarded<H> {
        Guarded { handler, flag: self.clone() }
    }

    fn stop(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
    }
}

/// Calls a handler unless its watch is stopped.
pub(super) struct Guarded<H> {
    handler: H,
    flag: StopFlag,
}

impl<K, H: Handler<K>> Handler<K> for Guarded<H> {
    fn put(&mut self, key: Key, object: K) {
        self.flag.unless_stopped(|| self.handler.put(key, object));
    }

    fn remove(&mut self, key: &Key) {
        self.flag.unless_stopped(|| self.handler.remove(key));
    }

    fn synced(&mut self) {
        self.flag.unless_stopped(|| self.handler.synced());
    }

    fn known_keys(&self) -> Vec<Key> {
        self.handler.known_keys()
    }
}

fn log(error: &watcher::Error) {
    if is_missing(error) {
        warn!("the API server does not serve the watched kind: apply manifests/base/crds.yaml; trying again");
    } else {
        warn!(error = report::chain(error), "a watch was interrupted; restarting it");
    }
}

/// Returns whether the API server does not serve the watched kind.
fn is_missing(error: &watcher::Error) -> bool {
    use watcher::Error::{InitialListFailed, WatchStartFailed};
    let (InitialListFailed(source) | WatchStartFailed(source)) = error else { return false };
    matches!(source, kube::Error::Api(status) if status.code == 404)
}

fn key_of<K: Resource>(object: &K) -> Key {
    (object.namespace().unwrap_or_default(), object.name_any())
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, VecDeque};
    use std::convert::Infallible;
    use std::sync::mpsc;
    use std::time::Duration;

    use axum::http::{Request, Response};
    use futures::stream;
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::api::Api;
    use kube::client::Body;
    use serde_json::{Value, json};
    use tokio::time::timeout;

    use super::*;

    #[derive(Default)]
    struct Names(BTreeSet<String>, usize);

    impl Handler<ConfigMap> for &mut Names {
        fn put(&mut self, key: Key, _: ConfigMap) {
            self.0.insert(key.1);
        }
        fn remove(&mut self, key: &Key) {
            self.0.remove(&key.1);
        }
        fn synced(&mut self) {
            self.1 += 1;
        }
    }

    fn named(name: &str) -> ConfigMap {
        let mut object = ConfigMap::default();
        object.metadata.name = Some(name.to_owned());
        object
    }

    #[tokio::test]
    async fn removes_objects_deleted_during_an_interruption() {
        let mut names = Names::default();
        let events = [
            Event::Init,
            Event::InitApply(named("a")),
            Event::InitApply(named("b")),
            Event::InitDone,
            Event::Apply(named("c")),
            Event::Init,
            Event::InitApply(named("b")),
            Event::InitDone,
        ];
        follow(stream::iter(events.map(Ok)), &mut names).await;
        assert_eq!((names.0.into_iter().collect::<Vec<_>>(), names.1), (vec!["b".to_owned()], 2));
    }

    /// An API server that gives these answers, one per request, and then none.
    fn api(answers: impl IntoIterator<Item = (u16, Value)>) -> Api<ConfigMap> {
        let answers = Arc::new(Mutex::new(answers.into_iter().collect::<VecDeque<_>>()));
        let answer = move |_: Request<Body>| {
            let next = answers.lock().unwrap().pop_front();
            async move {
                let Some((status, body)) = next else { return std::future::pending().await };
                let body = Body::from(body.to_string().into_bytes());
                Ok::<_, Infallible>(Response::builder().status(status).body(body).unwrap())
            }
        };
        Api::all(kube::Client::new(tower::service_fn(answer), "default"))
    }

    fn page(names: &[&str], more: &str) -> (u16, Value) {
        let items: Vec<Value> = names.iter().map(|name| json!({"metadata": {"name": name}})).collect();
        let metadata = json!({"resourceVersion": "7", "continue": more});
        (200, json!({"apiVersion": "v1", "kind": "ConfigMapList", "metadata": metadata, "items": items}))
    }

    fn failure(code: u16) -> (u16, Value) {
        (
            code,
            json!({"apiVersion": "v1", "kind": "Status", "status": "Failure", "message": "", "reason": "", "code": code}),
        )
    }

    #[tokio::test(start_paused = true)]
    async fn removes_objects_deleted_while_a_list_restarted() {
        // `a` was on the first page of a list that failed twice, and was deleted before a list was complete.
        let answers = [
            page(&["a", "b"], "more"),
            failure(410),
            page(&["b"], "more"),
            failure(500),
            page(&["c"], "more"),
            page(&["d"], ""),
        ];
        let (mut names, events) = (Names::default(), watcher::watcher(api(answers), config()));
        let _ = timeout(Duration::from_secs(1), follow(events, &mut names)).await;
        assert_eq!((names.0.into_iter().collect::<Vec<_>>(), names.1), (vec!["c".to_owned(), "d".to_owned()], 1));
    }

    /// Names that are also known from another source.
    struct Created(BTreeSet<String>);

    impl Handler<ConfigMap> for &mut Created {
        fn put(&mut self, key: Key, _: ConfigMap) {
            self.0.insert(key.1);
        }
        fn remove(&mut self, key: &Key) {
            self.0.remove(&key.1);
        }
        fn known_keys(&self) -> Vec<Key> {
            self.0.iter().map(|name| (String::new(), name.clone())).collect()
        }
    }

    #[tokio::test]
    async fn removes_created_objects_deleted_before_the_watch_saw_them() {
        let mut created = Created(["created".to_owned(), "deleted".to_owned()].into());
        let events = [Event::Init, Event::InitApply(named("created")), Event::InitDone];
        follow(stream::iter(events.map(Ok)), &mut created).await;
        assert_eq!(created.0, ["created".to_owned()].into());
    }

    /// A handler that is slow to put an object.
    struct Slow {
        begun: mpsc::Sender<()>,
        names: Arc<Mutex<Vec<String>>>,
    }

    impl Handler<ConfigMap> for Slow {
        fn put(&mut self, key: Key, _: ConfigMap) {
            let _ = self.begun.send(());
            std::thread::sleep(Duration::from_millis(100));
            self.names.lock().unwrap().push(key.1);
        }
        fn remove(&mut self, _: &Key) {}
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn handler_is_not_called_once_a_watch_is_stopped() {
        let (begun, beginning) = mpsc::channel();
        let names = Arc::new(Mutex::new(Vec::new()));
        let events = stream::iter([Event::Apply(named("a")), Event::Apply(named("b"))].map(Ok));
        let mut task = WatchTask::new(events, Slow { begun, names: Arc::clone(&names) });
        beginning.recv().unwrap();
        task.stop();
        names.lock().unwrap().clear();
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(*names.lock().unwrap(), Vec::<String>::new());
    }
}
