//! Follows one kind of object. Every object is read alone: one that makes no sense does not disturb the others.

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

/// Namespace and name of an object; the namespace is empty where there is none.
pub(super) type Key = (String, String);

/// Takes what a watch tells.
pub(super) trait Handler<K> {
    /// An object is there, or has changed.
    fn put(&mut self, key: Key, object: K);

    /// An object has gone.
    fn remove(&mut self, key: &Key);

    /// All objects that were there have been told.
    fn synced(&mut self) {}

    /// Returns what is known by other ways than this watch, such as what was just made. It has gone where the list that begins
    /// does not have it.
    fn noted(&self) -> Vec<Key> {
        Vec::new()
    }
}

/// How many objects are listed at a time: parsed, a page takes many times the room of what is kept of it.
const PAGE: u32 = 100;

/// Returns how objects are watched.
pub(super) fn config() -> watcher::Config {
    watcher::Config::default().page_size(PAGE)
}

/// Follows a watch for as long as it goes on: it starts again by itself, and what went away in between is told.
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
                known.extend(handler.noted());
            }
            Ok(Event::InitApply(object)) => {
                // A list that fails half-way is begun anew, and `listed` with it: what it told of is known already.
                known.insert(key_of(&object));
                listed.insert(key_of(&object));
                handler.put(key_of(&object), object);
            }
            Ok(Event::InitDone) => {
                known.difference(&listed).for_each(|gone| handler.remove(gone));
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
            Err(error) => told(&error),
        }
    }
}

/// A watch that can be ended.
#[derive(Default)]
pub(super) struct Following {
    task: JoinSet<()>,
    gate: Gate,
}

impl Following {
    /// Follows a watch for as long as this is kept.
    pub(super) fn new<K: Resource + Send + 'static>(
        events: impl Stream<Item = watcher::Result<Event<K>>> + Send + 'static,
        handler: impl Handler<K> + Send + 'static,
    ) -> Self {
        Self::of(|gate| follow(events, gate.before(handler)))
    }

    /// Does what follows watches for as long as this is kept; what they tell passes the gate.
    pub(super) fn of<Work: Future<Output = ()> + Send + 'static>(work: impl FnOnce(Gate) -> Work) -> Self {
        let mut following = Self::default();
        following.task.spawn(work(following.gate.clone()).in_current_span());
        following
    }

    /// Ends the watch: nothing is told any more, so that what it has told can be forgotten for good.
    pub(super) fn end(&mut self) {
        self.gate.close();
        self.task.abort_all();
    }
}

/// Lets nothing pass once a watch has ended: a task that is aborted goes on to its next await.
#[derive(Clone, Default)]
pub(super) struct Gate(Arc<Mutex<bool>>);

impl Gate {
    /// Does something, unless the watch has ended; it does not end meanwhile.
    pub(super) fn pass(&self, act: impl FnOnce()) {
        let is_closed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !*is_closed {
            act();
        }
    }

    /// Puts the gate before a handler.
    pub(super) fn before<S>(&self, handler: S) -> Ending<S> {
        Ending { handler, gate: self.clone() }
    }

    fn close(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
    }
}

/// Tells a handler what passes a gate.
pub(super) struct Ending<S> {
    handler: S,
    gate: Gate,
}

impl<K, S: Handler<K>> Handler<K> for Ending<S> {
    fn put(&mut self, key: Key, object: K) {
        self.gate.pass(|| self.handler.put(key, object));
    }

    fn remove(&mut self, key: &Key) {
        self.gate.pass(|| self.handler.remove(key));
    }

    fn synced(&mut self) {
        self.gate.pass(|| self.handler.synced());
    }

    fn noted(&self) -> Vec<Key> {
        self.handler.noted()
    }
}

fn told(error: &watcher::Error) {
    if is_missing(error) {
        warn!("the API server does not know what is watched: apply manifests/base/crds.yaml; trying again");
    } else {
        warn!(error = report::chain(error), "a watch was interrupted; it starts again");
    }
}

/// Tells whether the API server does not serve the kind that is watched.
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
    async fn what_went_away_during_an_interruption_is_told() {
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

    /// An API server that answers one request after the other with these, and then no more.
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
    async fn what_went_away_while_a_list_was_begun_anew_is_told() {
        // `a` was on the first page of a list that failed, twice, and was deleted before there was a whole one.
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

    /// Names that are noted in another way too.
    struct Made(BTreeSet<String>);

    impl Handler<ConfigMap> for &mut Made {
        fn put(&mut self, key: Key, _: ConfigMap) {
            self.0.insert(key.1);
        }
        fn remove(&mut self, key: &Key) {
            self.0.remove(&key.1);
        }
        fn noted(&self) -> Vec<Key> {
            self.0.iter().map(|name| (String::new(), name.clone())).collect()
        }
    }

    #[tokio::test]
    async fn what_was_made_and_went_away_before_the_watch_told_of_it_is_told() {
        let mut made = Made(["made".to_owned(), "gone".to_owned()].into());
        let events = [Event::Init, Event::InitApply(named("made")), Event::InitDone];
        follow(stream::iter(events.map(Ok)), &mut made).await;
        assert_eq!(made.0, ["made".to_owned()].into());
    }

    /// Takes long to put something.
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
    async fn nothing_is_told_once_a_watch_has_ended() {
        let (begun, beginning) = mpsc::channel();
        let names = Arc::new(Mutex::new(Vec::new()));
        let events = stream::iter([Event::Apply(named("a")), Event::Apply(named("b"))].map(Ok));
        let mut following = Following::new(events, Slow { begun, names: Arc::clone(&names) });
        beginning.recv().unwrap();
        following.end();
        names.lock().unwrap().clear();
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(*names.lock().unwrap(), Vec::<String>::new());
    }
}
