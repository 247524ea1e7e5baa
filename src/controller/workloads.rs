//! The workloads that may be model servers, one store per kind: those with the label, and all in namespaces labelled as
//! a whole.

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
use super::informer::{self, Handler, Key, WatchTask, follow};
use super::kinds::{Served, resource_of};
use crate::server::health::Step;
use tidegate_engine::kind::Kind;
use tidegate_engine::workload::WorkloadRef;

/// The requested reconciliations of one kind.
pub(super) type Requests = UnboundedReceiver<ReconcileRequest<CompressedObject>>;

/// The watched workloads of one kind.
pub(super) struct Workloads {
    known_kind: &'static Kind,
    served: Arc<Served>,
    kind: ApiResource,
    known: Store<CompressedObject>,
    sender: UnboundedSender<ReconcileRequest<CompressedObject>>,
    /// Whether requests are accepted yet.
    is_active: AtomicBool,
    watched: Mutex<Watched>,
}

struct Watched {
    writer: Writer<CompressedObject>,
    /// The watches that see each workload: one that leaves one watch may still be in another.
    seen_by: HashMap<Key, BTreeSet<String>>,
}

impl Workloads {
    /// Creates the store of a kind; nothing is watched yet.
    pub(super) fn new(known_kind: &'static Kind) -> (Arc<Self>, Requests) {
        let (kind, served) = (resource_of(known_kind), Served::new(known_kind));
        let mut writer = Writer::new(kind.clone());
        // Objects are added one by one, so the store counts as ready from the start.
        writer.apply_watcher_event(&watcher::Event::Init);
        writer.apply_watcher_event(&watcher::Event::InitDone);
        let known = writer.as_reader();
        let (sender, requests) = unbounded();
        let watched = Mutex::new(Watched { writer, seen_by: HashMap::new() });
        let is_active = AtomicBool::default();
        (Arc::new(Self { known_kind, served, kind, known, sender, is_active, watched }), requests)
    }

    pub(super) fn kind(&self) -> &'static str {
        self.known_kind.kind
    }

    pub(super) fn plural(&self) -> &'static str {
        self.known_kind.plural
    }

    /// Returns the API resource of the workloads.
    pub(super) fn resource(&self) -> &ApiResource {
        &self.kind
    }

    /// Returns whether the kind is served.
    pub(super) fn served(&self) -> &Arc<Served> {
        &self.served
    }

    /// Returns the watched workloads.
    pub(super) fn known(&self) -> Store<CompressedObject> {
        self.known.clone()
    }

    /// Returns the references of the watched workloads.
    pub(super) fn references(&self) -> impl Iterator<Item = WorkloadRef> {
        self.known.state().into_iter().map(|known| WorkloadRef {
            namespace: known.namespace().unwrap_or_default(),
            kind: self.kind.kind.clone(),
            name: known.name_any(),
        })
    }

    /// Returns a watched workload.
    pub(super) fn stored(&self, workload: &WorkloadRef) -> Option<Value> {
        let reference = ObjectRef::new_with(&workload.name, self.kind.clone()).within(&workload.namespace);
        self.known.get(&reference).map(|known| known.to_json())
    }

    /// Accepts requests from now on, and queues all known workloads and those `described` by their companions.
    pub(super) fn activate(&self, described: &BTreeSet<WorkloadRef>) {
        self.is_active.store(true, Ordering::SeqCst);
        self.push_where(|_| true);
        described.iter().filter(|workload| workload.kind == self.kind()).for_each(|workload| self.push(workload));
    }

    /// Queues a workload.
    pub(super) fn push(&self, workload: &WorkloadRef) {
        self.send(ObjectRef::new_with(&workload.name, self.kind.clone()).within(&workload.namespace));
    }

    /// Queues all workloads that match.
    pub(super) fn push_where(&self, matches: impl Fn(&CompressedObject) -> bool) {
        for known in self.known.state().iter().filter(|known| matches(known)) {
            self.send(ObjectRef::from_obj_with(&**known, self.kind.clone()));
        }
    }

    fn send(&self, obj_ref: ObjectRef<CompressedObject>) {
        if !self.is_active.load(Ordering::SeqCst) {
            return;
        }
        // The receiver is gone only at shutdown.
        let _ = self.sender.unbounded_send(ReconcileRequest { obj_ref, reason: ReconcileReason::Unknown });
    }

    /// Watches the workloads with these labels in every namespace.
    pub(super) fn follow_labelled(
        self: &Arc<Self>,
        client: &Client,
        labels: &str,
        step: SharedStep,
    ) -> impl Future<Output = ()> + use<> {
        let (this, client, labels) = (Arc::clone(self), client.clone(), labels.to_owned());
        async move {
            let start = |step| {
                let (events, handler) = this.follow(Api::all_with(client.clone(), &this.kind), &labels, &labels, step);
                follow(events, handler)
            };
            this.served.during(Some(step), start, || this.forget(&labels)).await;
        }
    }

    /// Watches all workloads in a namespace.
    fn follow_namespace(self: &Arc<Self>, client: &Client, namespace: &str, step: Option<SharedStep>) -> WatchTask {
        let (this, client, namespace) = (Arc::clone(self), client.clone(), namespace.to_owned());
        WatchTask::spawn(|flag| async move {
            let start = |step| {
                let api = Api::namespaced_with(client.clone(), &namespace, &this.kind);
                let (events, handler) = this.follow(api, "", &namespace, step);
                follow(events, flag.guard(handler))
            };
            this.served.during(step, start, || flag.unless_stopped(|| this.forget(&namespace))).await;
        })
    }

    fn follow(
        self: &Arc<Self>,
        api: Api<DynamicObject>,
        labels: &str,
        watch: &str,
        step: Option<SharedStep>,
    ) -> (impl Stream<Item = watcher::Result<watcher::Event<DynamicObject>>> + use<>, WorkloadHandler) {
        let events = watcher(api, informer::config().labels(labels)).default_backoff();
        (events, WorkloadHandler { workloads: Arc::clone(self), watch: watch.to_owned(), step })
    }

    fn seen(&self, watch: &str, key: Key, object: DynamicObject) {
        let object = CompressedObject::new(object, &self.kind);
        let reference = ObjectRef::from_obj_with(&object, self.kind.clone());
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        watched.seen_by.entry(key).or_default().insert(watch.to_owned());
        watched.writer.apply_watcher_event(&watcher::Event::Apply(object));
        drop(watched);
        self.send(reference);
    }

    fn lost(&self, watch: &str, key: &Key) {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(watches) = watched.seen_by.get_mut(key) else { return };
        watches.remove(watch);
        if !watches.is_empty() {
            return;
        }
        watched.seen_by.remove(key);
        let removed = CompressedObject::new(DynamicObject::new(&key.1, &self.kind).within(&key.0), &self.kind);
        let reference = ObjectRef::from_obj_with(&removed, self.kind.clone());
        watched.writer.apply_watcher_event(&watcher::Event::Delete(removed));
        drop(watched);
        self.send(reference);
    }

    /// Removes the workloads that only this watch sees: it has ended.
    fn forget(&self, watch: &str) {
        let watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let seen: Vec<Key> =
            watched.seen_by.iter().filter(|(_, by)| by.contains(watch)).map(|(key, _)| key.clone()).collect();
        drop(watched);
        for key in &seen {
            self.lost(watch, key);
        }
    }
}

/// Handles one watch of the workloads of a kind.
struct WorkloadHandler {
    workloads: Arc<Workloads>,
    watch: String,
    step: Option<SharedStep>,
}

impl Handler<DynamicObject> for WorkloadHandler {
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

/// A step of readiness that is complete once all clones are dropped.
#[derive(Clone)]
pub(super) struct SharedStep(#[expect(dead_code, reason = "used only by its drop")] Arc<DoneWhenDropped>);

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

/// Watches the workloads in namespaces while these are labelled as a whole.
pub(super) struct WholeNamespaces {
    client: Client,
    queue: Queue,
    /// Complete once the workloads in all namespaces that existed at the start have synced.
    step: Option<SharedStep>,
    tasks: HashMap<String, Vec<WatchTask>>,
}

impl WholeNamespaces {
    pub(super) fn new(client: Client, queue: Queue, step: Step) -> Self {
        Self { client, queue, step: Some(step.into()), tasks: HashMap::new() }
    }

    /// Marks the namespaces as synced.
    pub(super) fn synced(&mut self) {
        self.step = None;
    }

    /// Starts or stops to watch a namespace, by whether all of its workloads are model servers.
    pub(super) fn update(&mut self, namespace: &str, is_whole: bool) {
        if is_whole == self.tasks.contains_key(namespace) {
            return;
        }
        if is_whole {
            let follow =
                |workloads: &Arc<Workloads>| workloads.follow_namespace(&self.client, namespace, self.step.clone());
            self.tasks.insert(namespace.to_owned(), self.queue.kinds().iter().map(follow).collect());
        } else {
            self.tasks.remove(namespace).into_iter().flatten().for_each(|mut task| task.stop());
            for workloads in self.queue.kinds() {
                workloads.forget(namespace);
            }
        }
    }
}
