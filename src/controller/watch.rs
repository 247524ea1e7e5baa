//! Follows one kind of object. Every object is read alone: one that makes no sense does not disturb the others.

use std::collections::HashSet;
use std::mem;
use std::pin::pin;

use futures::{Stream, StreamExt as _};
use kube::runtime::watcher::{self, Event};
use kube::{Resource, ResourceExt as _};
use tracing::warn;

use crate::report;

/// Namespace and name of an object; the namespace is empty where there is none.
pub(super) type Key = (String, String);

/// Takes what a watch tells.
pub(super) trait Sink<K> {
    /// An object is there, or has changed.
    fn put(&mut self, key: Key, object: K);

    /// An object has gone.
    fn remove(&mut self, key: &Key);

    /// All objects that were there have been told.
    fn synced(&mut self) {}
}

/// How many objects are listed at a time: parsed, a page takes many times the room of what is kept of it.
const PAGE: u32 = 100;

/// Returns how objects are watched.
pub(super) fn config() -> watcher::Config {
    watcher::Config::default().page_size(PAGE)
}

/// Follows a watch for as long as it goes on: it starts again by itself, and what went away in between is told.
pub(super) async fn follow<K: Resource>(events: impl Stream<Item = watcher::Result<Event<K>>>, mut sink: impl Sink<K>) {
    let mut events = pin!(events);
    let mut known: HashSet<Key> = HashSet::new();
    let mut listed: HashSet<Key> = HashSet::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(object)) => {
                // A list that fails half-way is begun anew, and `listed` with it: what it told of is known already.
                known.insert(key_of(&object));
                listed.insert(key_of(&object));
                sink.put(key_of(&object), object);
            }
            Ok(Event::InitDone) => {
                known.difference(&listed).for_each(|gone| sink.remove(gone));
                known = mem::take(&mut listed);
                sink.synced();
            }
            Ok(Event::Apply(object)) => {
                known.insert(key_of(&object));
                sink.put(key_of(&object), object);
            }
            Ok(Event::Delete(object)) => {
                known.remove(&key_of(&object));
                sink.remove(&key_of(&object));
            }
            Err(error) => told(&error),
        }
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
    use std::collections::VecDeque;
    use std::convert::Infallible;
    use std::sync::{Arc, Mutex};
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
    struct Names(std::collections::BTreeSet<String>, usize);

    impl Sink<ConfigMap> for &mut Names {
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
}
