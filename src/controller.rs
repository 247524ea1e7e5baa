//! The controller: watches the cluster, asks the engine for plans, and carries them out.

mod apply;
mod autoscalers;
mod compressed;
mod databases;
mod events;
mod informer;
mod kinds;
mod leader;
mod observed;
mod orphans;
mod policies;
mod policy_store;
mod pools;
mod reconcile;
mod related;
mod reports;
mod revisions;
mod served_apis;
mod shared_replicas;
mod status;
mod template_users;
mod unlabelled;
mod watches;
mod workloads;

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use kube::api::DynamicObject;
use kube::core::{ApiResource, GroupVersionKind};
use kube::runtime::controller::{self, Config, applier};
use kube::runtime::reflector::Store;
use kube::{Client, Resource as _};
use serde_json::Value;
use tokio::task::{AbortHandle, JoinError, JoinSet};
use tracing::{Instrument as _, debug, info_span};

pub use apply::ApplyError;
pub use kinds::resource_of;
pub use leader::{Election, new_identity};
pub use pools::DEFINITION as POOLS;
pub use served_apis::metrics_served;

use crate::server::health::{Readiness, Step};
use crate::server::worker_threads::WorkerThreads;
use crate::shared_state::SharedState;
use apply::Writer;
use compressed::CompressedObject;
use events::Events;
use leader::{Candidate, Leadership};
use observed::Objects;
use policy_store::PolicyStore;
use reports::Reports;
use tidegate_engine::companions::MANAGER;
use tidegate_engine::kind::KINDS;
use tidegate_engine::policy::selector_of;
use tidegate_engine::workload::WorkloadRef;
use unlabelled::UnlabelledWorkloads;
use workloads::{Requests, SharedStep, Workloads};

/// Returns the names of the CustomResourceDefinitions of reports.
#[must_use]
pub fn report_definitions() -> [&'static str; 2] {
    Reports::definitions()
}

/// The options of the controller.
pub struct Options {
    /// How long to wait before creating an autoscaler, so that one in the same apply takes precedence.
    pub settle: Duration,
    /// How often every model server is reconciled without a change.
    pub resync: Duration,
    /// Whether policies are read from the cluster rather than from files.
    pub watch_policies: bool,
    /// Whether a report is written for each namespace.
    pub write_reports: bool,
    /// The leader election; none if this is the only replica.
    pub election: Option<Election>,
}

/// A running controller.
pub struct Controller {
    tasks: JoinSet<()>,
    /// The tasks that write to the cluster.
    writing: Vec<AbortHandle>,
    candidate: Option<Arc<Candidate>>,
}

impl Controller {
    /// Waits until a task ends, which none should.
    pub async fn ended(&mut self) -> Option<Result<(), JoinError>> {
        self.tasks.join_next().await
    }

    /// Stops the tasks that write, then lets another replica lead. The watches go on, so that the webhooks decide from
    /// current facts.
    pub async fn resign(&self) {
        self.writing.iter().for_each(AbortHandle::abort);
        while !self.writing.iter().all(AbortHandle::is_finished) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        if let Some(candidate) = &self.candidate {
            candidate.release().await;
        }
    }

    /// Returns, after [`resign`](Self::resign), whether another replica leads; without leader election there is none.
    pub async fn is_succeeded(&self) -> bool {
        match &self.candidate {
            Some(candidate) => candidate.is_succeeded().await,
            None => false,
        }
    }

    /// Stops all tasks.
    pub async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}

/// State shared by reconciliations.
struct Context {
    writer: Writer,
    events: Events,
    policy_store: Arc<PolicyStore>,
    state: Arc<SharedState>,
    objects: Arc<Objects>,
    wanted_since: reconcile::WantedSince,
    reports: Option<Arc<Reports>>,
    queue: Queue,
    /// Runs custom rules, one workload at a time: the webhooks are more urgent.
    workers: WorkerThreads,
    /// Held while databases are created or marked: otherwise two reconciliations could exceed `maxPerNamespace`.
    databases: tokio::sync::Mutex<()>,
    settle: Duration,
    resync: Duration,
}

impl Context {
    /// Returns the workloads, existing or not, that have a database or a ModelServer: one that was deleted while there
    /// was no leader has left them behind.
    fn described(&self) -> BTreeSet<WorkloadRef> {
        let with_database = self.state.read(|_, facts| facts.with_database().collect::<Vec<_>>());
        with_database.into_iter().chain(self.objects.described()).collect()
    }
}

/// Requests reconciliation of workloads.
#[derive(Clone)]
struct Queue(Arc<[Arc<Workloads>]>);

impl Queue {
    fn kinds(&self) -> &[Arc<Workloads>] {
        &self.0
    }

    fn push(&self, workload: &WorkloadRef) {
        if let Some(workloads) = self.0.iter().find(|workloads| workloads.kind() == workload.kind) {
            workloads.push(workload);
        }
    }

    /// Returns a watched workload.
    fn stored(&self, workload: &WorkloadRef) -> Option<Value> {
        self.0.iter().find(|workloads| workloads.kind() == workload.kind)?.stored(workload)
    }

    fn push_all(&self) {
        self.push_where(|_| true);
    }

    fn push_namespace(&self, namespace: &str) {
        self.push_where(|workload| workload.meta().namespace.as_deref() == Some(namespace));
    }

    fn push_where(&self, matches: impl Fn(&CompressedObject) -> bool) {
        for workloads in &*self.0 {
            workloads.push_where(&matches);
        }
    }
}

/// Starts the tasks of the controller.
struct Parts<'p> {
    client: &'p Client,
    readiness: &'p Readiness,
    tasks: JoinSet<()>,
    /// The tasks that write to the cluster.
    writing: Vec<AbortHandle>,
}

impl Parts<'_> {
    /// Runs a task while the controller runs.
    fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        self.tasks.spawn(task.instrument(info_span!("controller", part = name)))
    }

    /// Runs a task that writes to the cluster, which is stopped before another replica leads.
    fn spawn_writing(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let task = self.spawn(name, task);
        self.writing.push(task);
    }

    /// Runs a watch, which must sync before Tidegate is ready.
    fn watch<F>(&mut self, name: &'static str, follow: impl FnOnce(Step) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let step = self.readiness.step(name);
        self.spawn(name, follow(step));
    }
}

/// Starts the watches and the reconciliation; they run until the returned controller is dropped. Each watch is a step
/// of readiness.
pub fn start(client: &Client, state: &Arc<SharedState>, options: &Options, readiness: &Readiness) -> Controller {
    let mut parts = Parts { client, readiness, tasks: JoinSet::new(), writing: Vec::new() };
    let (workloads, requests): (Vec<Arc<Workloads>>, Vec<Requests>) = KINDS.iter().map(Workloads::new).unzip();
    let queue = Queue(workloads.into());
    state.set_lookup({
        let queue = queue.clone();
        move |workload| queue.stored(workload)
    });
    state.set_revisions({
        let client = client.clone();
        move |workload, selector| Box::pin(revisions::list(&client, workload, selector))
    });
    let objects = Arc::new(Objects::default());
    let unlabelled = UnlabelledWorkloads::new(state);
    let leadership = Leadership::new(options.election.is_some());
    let writer = Writer::new(client.clone(), leadership.clone());
    let (policy_store, statuses) = PolicyStore::open(
        state,
        queue.clone(),
        Arc::clone(&unlabelled),
        leadership.clone(),
        policies::watched(options.watch_policies),
    );
    let watches = watches::Watches {
        client: client.clone(),
        state: Arc::clone(state),
        objects: Arc::clone(&objects),
        queue: queue.clone(),
        unlabelled: Arc::clone(&unlabelled),
    };
    watches.start(&mut parts);
    unlabelled.start(&queue, &mut parts);
    policies::start(&policy_store, options.watch_policies, &mut parts);
    policy_store::start(&policy_store, writer.clone(), statuses, &mut parts);
    let context = Arc::new(Context {
        writer: writer.clone(),
        events: Events::new(writer.clone(), options.election.as_ref().map_or(MANAGER, |election| &election.identity)),
        policy_store,
        state: Arc::clone(state),
        objects,
        wanted_since: reconcile::WantedSince::default(),
        reports: options.write_reports.then(|| Reports::new(writer)),
        queue,
        workers: WorkerThreads::new(1),
        databases: tokio::sync::Mutex::default(),
        settle: options.settle,
        resync: options.resync,
    });
    if let Some(reports) = &context.reports {
        reports.start(&mut parts);
    }
    let candidate =
        options.election.clone().map(|election| Arc::new(Candidate::new(client.clone(), election, leadership)));
    if let Some(candidate) = &candidate {
        start_election(candidate, &context, &mut parts);
    }
    start_reconciling(&context, requests, &mut parts);
    Controller { tasks: parts.tasks, writing: parts.writing, candidate }
}

/// Starts leader election once the caches have synced; a new leader reconciles everything.
fn start_election(candidate: &Arc<Candidate>, context: &Arc<Context>, parts: &mut Parts) {
    let (candidate, context, readiness) = (Arc::clone(candidate), Arc::clone(context), parts.readiness.clone());
    parts.spawn_writing("election", async move {
        readiness.reached().await;
        let won = || {
            let described = context.described();
            context.queue.kinds().iter().for_each(|workloads| workloads.activate(&described));
            context.policy_store.write_statuses();
        };
        candidate.run(won).await;
    });
}

/// Watches the workloads of each kind, and reconciles those that are requested.
fn start_reconciling(context: &Arc<Context>, requests: Vec<Requests>, parts: &mut Parts) {
    let selectors: Vec<String> =
        context.state.read(|policies, _| policies.scope().selectors().iter().map(selector_of).collect());
    for (workloads, requests) in context.queue.kinds().iter().zip(requests) {
        let step: SharedStep = parts.readiness.step(workloads.plural()).into();
        for selector in &selectors {
            parts.spawn("workloads", workloads.follow_labelled(parts.client, selector, step.clone()));
        }
        let (context, workloads, readiness) = (Arc::clone(context), Arc::clone(workloads), parts.readiness.clone());
        parts.spawn_writing("reconciliation", async move {
            // A workload reconciled before the caches have synced would seem unmanaged.
            readiness.reached().await;
            workloads.activate(&context.described());
            reconcile_all(context, workloads.known(), requests).await;
        });
    }
}

/// Reconciles the requested workloads of a kind.
async fn reconcile_all(context: Arc<Context>, known: Store<CompressedObject>, requests: Requests) {
    let config = Config::default().concurrency(CONCURRENCY);
    let reconcile = |workload, context| Box::pin(reconcile::guarded(workload, context));
    let results = applier(reconcile, reconcile::retry, Arc::clone(&context), known, requests.map(Ok), config);
    results
        .for_each_concurrent(usize::from(CONCURRENCY), |result: Result<_, controller::Error<_, Infallible>>| async {
            match result {
                Ok((object, _)) => debug!(%object, "reconciled"),
                Err(controller::Error::ObjectNotFound(object)) => reconcile::removed(&object, &context).await,
                // Failures have been logged by `retry`.
                Err(error) => debug!(%error, "not reconciled"),
            }
        })
        .await;
}

/// How many workloads are reconciled at a time: enough to hide the API server's latency, few enough not to overload it.
const CONCURRENCY: u16 = 8;

pub(crate) fn resource(group: &str, version: &str, kind: &str) -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind))
}

/// Returns an object as JSON with its apiVersion and kind, which lists leave out, and without its managed fields.
fn raw(mut object: DynamicObject, resource: &ApiResource) -> Value {
    object.metadata.managed_fields = None;
    let mut value = serde_json::to_value(object).unwrap_or_default();
    value["apiVersion"] = resource.api_version.clone().into();
    value["kind"] = resource.kind.clone().into();
    value
}
