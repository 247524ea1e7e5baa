//! The workloads that may be model servers, one store for each kind: those with the label, and all of the namespaces that
//! are labelled as a whole.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures::Stream;
use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use kube::api::{Api, DynamicObject};
use kube::core::ApiResource;
use kube::runtime::controller::{ReconcileReason, ReconcileRequest};
use kube::runtime::reflector::{ObjectRef, Store, store::Writer};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Client, ResourceExt as _};
use serde_json::Value;

use super::Queue;
use super::compressed::CompressedObject;
use super::informer::{self, Following, Handler, Key, follow};
use super::kinds::{Served, resource_of};
use crate::server::health::Step;
use tidegate_engine::kind::Kind;
use tidegate_engine::workload::WorkloadRef;

/// What the reconciliation of one kind is asked to look at.
pub(super) type Requests = UnboundedReceiver<ReconcileRequest<CompressedObject>>;

/// The workloads of one kind that are followed.
pub(super) struct Workloads {
    known_kind: &'static Kind,
    served: Arc<Served>,
    kind: ApiResource,
    known: Store<CompressedObject>,
    sender: UnboundedSender<ReconcileRequest<CompressedObject>>,
    /// Whether anybody looks yet.
    is_awake: AtomicBool,
    followed: Mutex<Followed>,
}

struct Followed {
    writer: Writer<CompressedObject>,
    /// By which watches a workload is seen: one that leaves the sight of one may still be in that of another.
    seen_by: HashMap<Key, BTreeSet<String>>,
}

impl Workloads {
    /// Begins to follow a kind; nothing is followed yet.
    pub(super) fn new(known_kind: &'static Kind) -> (Arc<Self>, Requests) {
        let (kind, served) = (resource_of(known_kind), Served::new(known_kind));
        let mut writer = Writer::new(kind.clone());
        // What is there is told one by one: the store counts as ready from the start.
        writer.apply_watcher_event(&watcher::Event::Init);
        writer.apply_watcher_event(&watcher::Event::InitDone);
        let known = writer.as_reader();
        let (sender, requests) = unbounded();
        let followed = Mutex::new(Followed { writer, seen_by: HashMap::new() });
        let is_awake = AtomicBool::default();
        (Arc::new(Self { known_kind, served, kind, known, sender, is_awake, followed }), requests)
    }

    pub(super) fn kind(&self) -> &'static str {
        self.known_kind.kind
    }

    pub(super) fn plural(&self) -> &'static str {
        self.known_kind.plural
    }

    /// Returns how the API server is asked for the workloads.
    pub(super) fn resource(&self) -> &ApiResource {
        &self.kind
    }

    /// Returns whether the kind is served.
    pub(super) fn served(&self) -> &Arc<Served> {
        &self.served
    }

    /// Returns the workloads that are followed.
    pub(super) fn known(&self) -> Store<CompressedObject> {
        self.known.clone()
    }

    /// Returns the names of the workloads that are followed.
    pub(super) fn references(&self) -> impl Iterator<Item = WorkloadRef> {
        self.known.state().into_iter().map(|known| WorkloadRef {
            namespace: known.namespace().unwrap_or_default(),
            kind: self.kind.kind.clone(),
            name: known.name_any(),
        })
    }

    /// Returns a workload that is followed.
    pub(super) fn stored(&self, workload: &WorkloadRef) -> Option<Value> {
        let reference = ObjectRef::new_with(&workload.name, self.kind.clone()).within(&workload.namespace);
        self.known.get(&reference).map(|known| known.to_json())
    }

    /// Has everything looked at that is known or described by what belongs to it, and from now on what is asked for.
    pub(super) fn wake(&self, described: &BTreeSet<WorkloadRef>) {
        self.is_awake.store(true, Ordering::SeqCst);
        self.push_where(|_| true);
        described.iter().filter(|workload| workload.kind == self.kind()).for_each(|workload| self.push(workload));
    }

    /// Has a workload looked at.
    pub(super) fn push(&self, workload: &WorkloadRef) {
        self.send(ObjectRef::new_with(&workload.name, self.kind.clone()).within(&workload.namespace));
    }

    /// Has all workloads looked at for which this holds.
    pub(super) fn push_where(&self, is_meant: impl Fn(&CompressedObject) -> bool) {
        for known in self.known.state().iter().filter(|known| is_meant(known)) {
            self.send(ObjectRef::from_obj_with(&**known, self.kind.clone()));
        }
    }

    fn send(&self, obj_ref: ObjectRef<CompressedObject>) {
        if !self.is_awake.load(Ordering::SeqCst) {
            return;
        }
        // The receiver is gone only at shutdown.
        let _ = self.sender.unbounded_send(ReconcileRequest { obj_ref, reason: ReconcileReason::Unknown });
    }

    /// Follows the workloads with these labels, in every namespace.
    pub(super) fn follow_labelled(
        self: &Arc<Self>,
        client: &Client,
        labels: &str,
        step: Step,
    ) -> impl Future<Output = ()> + use<> {
        let (this, client, labels) = (Arc::clone(self), client.clone(), labels.to_owned());
        async move {
            let begin = |step| {
                let (events, sight) = this.follow(Api::all_with(client.clone(), &this.kind), &labels, "", step);
                follow(events, sight)
            };
            this.served.during(Some(step.into()), begin, || this.forget("")).await;
        }
    }

    /// Follows all workloads of a namespace.
    fn follow_namespace(self: &Arc<Self>, client: &Client, namespace: &str, step: Option<SharedStep>) -> Following {
        let (this, client, namespace) = (Arc::clone(self), client.clone(), namespace.to_owned());
        Following::of(|gate| async move {
            let begin = |step| {
                let api = Api::namespaced_with(client.clone(), &namespace, &this.kind);
                let (events, sight) = this.follow(api, "", &namespace, step);
                follow(events, gate.before(sight))
            };
            this.served.during(step, begin, || gate.pass(|| this.forget(&namespace))).await;
        })
    }

    fn follow(
        self: &Arc<Self>,
        api: Api<DynamicObject>,
        labels: &str,
        watch: &str,
        step: Option<SharedStep>,
    ) -> (impl Stream<Item = watcher::Result<watcher::Event<DynamicObject>>> + use<>, Sight) {
        let events = watcher(api, informer::config().labels(labels)).default_backoff();
        (events, Sight { workloads: Arc::clone(self), watch: watch.to_owned(), step })
    }

    fn seen(&self, watch: &str, key: Key, object: DynamicObject) {
        let object = CompressedObject::new(object, &self.kind);
        let reference = ObjectRef::from_obj_with(&object, self.kind.clone());
        let mut followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        followed.seen_by.entry(key).or_default().insert(watch.to_owned());
        followed.writer.apply_watcher_event(&watcher::Event::Apply(object));
        drop(followed);
        self.send(reference);
    }

    fn lost(&self, watch: &str, key: &Key) {
        let mut followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(watches) = followed.seen_by.get_mut(key) else { return };
        watches.remove(watch);
        if !watches.is_empty() {
            return;
        }
        followed.seen_by.remove(key);
        let gone = CompressedObject::new(DynamicObject::new(&key.1, &self.kind).within(&key.0), &self.kind);
        let reference = ObjectRef::from_obj_with(&gone, self.kind.clone());
        followed.writer.apply_watcher_event(&watcher::Event::Delete(gone));
        drop(followed);
        self.send(reference);
    }

    /// Ends a watch: what only it has seen is followed no longer.
    fn forget(&self, watch: &str) {
        let followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        let seen: Vec<Key> =
            followed.seen_by.iter().filter(|(_, by)| by.contains(watch)).map(|(key, _)| key.clone()).collect();
        drop(followed);
        for key in &seen {
            self.lost(watch, key);
        }
    }
}

/// What one watch sees of the workloads of a kind.
struct Sight {
    workloads: Arc<Workloads>,
    watch: String,
    step: Option<SharedStep>,
}

impl Handler<DynamicObject> for Sight {
    fn put(&mut self, key: Key, object: DynamicObject) {
        self.workloads.seen(&self.watch, key, object);
    }

    fn remove(&mut self, key: &Key) {
        self.workloads.lost(&self.watch, key);
    }

    fn synced(&mut self) {
        self.step = None;
    }
}

/// A step of readiness that is done when all have let go of it.
#[derive(Clone)]
pub(super) struct SharedStep(#[expect(dead_code, reason = "what counts is when it is dropped")] Arc<DoneWhenDropped>);

struct DoneWhenDropped(Step);

impl Drop for DoneWhenDropped {
    fn drop(&mut self) {
        self.0.done();
    }
}

impl From<Step> for SharedStep {
    fn from(step: Step) -> Self {
        Self(Arc::new(DoneWhenDropped(step)))
    }
}

/// Follows the workloads of namespaces that are labelled as a whole, for as long as they are.
pub(super) struct WholeNamespaces {
    client: Client,
    queue: Queue,
    /// Done when the workloads of all namespaces have been seen that were there at the start.
    step: Option<SharedStep>,
    following: HashMap<String, Vec<Following>>,
}

impl WholeNamespaces {
    pub(super) fn new(client: Client, queue: Queue, step: Step) -> Self {
        Self { client, queue, step: Some(step.into()), following: HashMap::new() }
    }

    /// Notes that all namespaces have been told that were there at the start.
    pub(super) fn synced(&mut self) {
        self.step = None;
    }

    /// Notes whether all workloads of a namespace are model servers.
    pub(super) fn note(&mut self, namespace: &str, is_whole: bool) {
        if is_whole == self.following.contains_key(namespace) {
            return;
        }
        if is_whole {
            let follow =
                |workloads: &Arc<Workloads>| workloads.follow_namespace(&self.client, namespace, self.step.clone());
            self.following.insert(namespace.to_owned(), self.queue.kinds().iter().map(follow).collect());
        } else {
            self.following.remove(namespace).into_iter().flatten().for_each(|mut following| following.end());
            for workloads in self.queue.kinds() {
                workloads.forget(namespace);
            }
        }
    }
}
