//! Keeps what belongs to each model server in step: watches the cluster, asks the engine, carries out its plans.

mod apply;
mod autoscalers;
mod book;
mod databases;
mod events;
mod kept;
mod kinds;
mod leader;
mod observed;
mod orphans;
mod policies;
mod reconcile;
mod reports;
mod served;
mod sinks;
mod status;
mod strangers;
mod surroundings;
mod watch;
mod workloads;

use std::collections::{BTreeMap, BTreeSet};
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
pub use served::metrics_served;

use crate::server::health::Readiness;
use crate::server::slow_lane::SlowLane;
use crate::state::State;
use apply::Writer;
use book::Book;
use events::Events;
use kept::Kept;
use leader::{Candidate, Leadership};
use observed::Objects;
use reports::Reports;
use strangers::Strangers;
use tidegate_engine::companions::{self, MANAGER};
use tidegate_engine::kind::KINDS;
use tidegate_engine::workload::WorkloadRef;
use workloads::{Requests, Workloads};

/// Returns the names of the definitions of the reports that it writes where they are asked for.
#[must_use]
pub fn report_definitions() -> [&'static str; 2] {
    Reports::definitions()
}

/// What the controller needs to start.
pub struct Options {
    /// How long after it is first wanted an autoscaler is made, so that one in the same apply wins.
    pub settle: Duration,
    /// How often every model server is looked at although no watch told of a change.
    pub resync: Duration,
    /// Whether policies are read from the cluster; they are not where they come from files.
    pub watch_policies: bool,
    /// Whether a report is written for each namespace.
    pub write_reports: bool,
    /// How it is decided which of several replicas writes; where nothing is said, this is the only one.
    pub election: Option<Election>,
}

/// A controller that runs.
pub struct Controller {
    tasks: JoinSet<()>,
    /// Those that write.
    writing: Vec<AbortHandle>,
    candidate: Option<Arc<Candidate>>,
}

impl Controller {
    /// Waits until a part ends, which none should.
    pub async fn ended(&mut self) -> Option<Result<(), JoinError>> {
        self.tasks.join_next().await
    }

    /// Ends the parts that write, then lets another replica lead. The others go on: what is decided meanwhile follows from what
    /// is true.
    pub async fn resign(&self) {
        self.writing.iter().for_each(AbortHandle::abort);
        while !self.writing.iter().all(AbortHandle::is_finished) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        if let Some(candidate) = &self.candidate {
            candidate.release().await;
        }
    }

    /// Tells, after this replica has resigned, whether another leads; without an election there is no other.
    pub async fn is_succeeded(&self) -> bool {
        match &self.candidate {
            Some(candidate) => candidate.is_succeeded().await,
            None => false,
        }
    }

    /// Ends all parts.
    pub async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}

/// What reconciliations share.
struct Context {
    writer: Writer,
    events: Events,
    book: Arc<Book>,
    state: Arc<State>,
    objects: Arc<Objects>,
    wanted_since: reconcile::WantedSince,
    reports: Option<Arc<Reports>>,
    queue: Queue,
    /// Where workloads are judged by custom rules: one at a time, for people wait for the webhooks, and nobody for this.
    lane: SlowLane,
    /// Who makes or marks databases has the turn: otherwise two would each see room for one more.
    databases: tokio::sync::Mutex<()>,
    settle: Duration,
    resync: Duration,
}

impl Context {
    /// Returns the workloads, there or not, that databases were made for or ModelServers tell of: one that has gone while
    /// nobody led has left something behind.
    fn described(&self) -> BTreeSet<WorkloadRef> {
        let with_database = self.state.read(|_, facts| facts.with_database().collect::<Vec<_>>());
        with_database.into_iter().chain(self.objects.described()).collect()
    }
}

/// Asks for workloads to be looked at.
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

    /// Returns a workload that is followed.
    fn stored(&self, workload: &WorkloadRef) -> Option<Value> {
        self.0.iter().find(|workloads| workloads.kind() == workload.kind)?.stored(workload)
    }

    fn push_all(&self) {
        self.push_where(|_| true);
    }

    fn push_namespace(&self, namespace: &str) {
        let is_inside = |workload: &Kept| workload.meta().namespace.as_deref() == Some(namespace);
        self.push_where(is_inside);
    }

    fn push_where(&self, is_meant: impl Fn(&Kept) -> bool) {
        for workloads in &*self.0 {
            workloads.push_where(&is_meant);
        }
    }
}

/// Starts the watches and the reconciliation; they run until what is returned is dropped. Each watch is a step of
/// readiness.
pub fn start(client: &Client, state: &Arc<State>, options: &Options, readiness: &Readiness) -> Controller {
    let (workloads, requests): (Vec<Arc<Workloads>>, Vec<Requests>) = KINDS.iter().map(Workloads::new).unzip();
    let queue = Queue(workloads.into());
    state.look_up_by({
        let queue = queue.clone();
        move |workload| queue.stored(workload)
    });
    let objects = Arc::new(Objects::default());
    let from_files = (!options.watch_policies).then_some(policies::POLICIES);
    let watched = [policies::POLICIES, policies::EXCEPTIONS].into_iter().filter(|watch| Some(*watch) != from_files);
    let strangers = Strangers::new(state);
    let leadership = Leadership::new(options.election.is_some());
    let (book, statuses) = Book::open(state, queue.clone(), Arc::clone(&strangers), leadership.clone(), watched);
    let writer = Writer::new(client.clone(), leadership.clone());
    let context = Arc::new(Context {
        writer: writer.clone(),
        events: Events::new(writer.clone(), options.election.as_ref().map_or(MANAGER, |election| &election.identity)),
        book: Arc::clone(&book),
        state: Arc::clone(state),
        objects: Arc::clone(&objects),
        wanted_since: reconcile::WantedSince::default(),
        reports: options.write_reports.then(|| Reports::new(writer.clone())),
        queue: queue.clone(),
        lane: SlowLane::new(1),
        databases: tokio::sync::Mutex::default(),
        settle: options.settle,
        resync: options.resync,
    });

    let (mut tasks, mut writing) = (JoinSet::new(), Vec::new());
    let watches = sinks::Watches {
        client: client.clone(),
        state: Arc::clone(state),
        objects,
        queue: queue.clone(),
        strangers: Arc::clone(&strangers),
    };
    spawn(&mut tasks, "namespaces", watches.namespaces(readiness.step("namespaces")));
    spawn(&mut tasks, "autoscalers", watches.autoscalers(readiness.step("autoscalers")));
    spawn(&mut tasks, "scaled objects", watches.scaled_objects(readiness.step("scaled objects")));
    spawn(&mut tasks, "metrics APIs", watches.metrics_apis(readiness.step("metrics APIs")));
    spawn(&mut tasks, "model servers", watches.model_servers(readiness.step("model servers")));
    for api in companions::database::apis() {
        spawn(&mut tasks, "databases", watches.databases(api, readiness.step(api.definition)));
    }
    spawn(&mut tasks, "claims", watches.claims(readiness.step("claims")));
    for watched in companions::watched() {
        spawn(&mut tasks, watched.kind, watches.companion(watched, readiness.step(watched.kind)));
    }
    spawn(&mut tasks, "services", watches.services(readiness.step("services")));
    spawn(&mut tasks, "version", watches.clone().version(readiness.step("version")));
    for workloads in queue.kinds() {
        if let Some(definition) = workloads.served().follow_definition(client) {
            spawn(&mut tasks, "kinds", definition);
        }
        spawn(&mut tasks, "strangers", strangers.follow(client, workloads, readiness.clone()));
    }
    spawn(&mut tasks, "strangers", strangers.decide());
    if options.watch_policies {
        let step = readiness.step(policies::POLICIES);
        spawn(&mut tasks, policies::POLICIES, policies::follow(client.clone(), Arc::clone(&book), step));
    }
    let step = readiness.step(policies::EXCEPTIONS);
    spawn(&mut tasks, policies::EXCEPTIONS, policies::follow_exceptions(client.clone(), Arc::clone(&book), step));
    if let Some(reports) = &context.reports {
        for definition in Reports::definitions() {
            spawn(&mut tasks, "reports", reports.kinds(client, definition));
        }
        writing.push(spawn(&mut tasks, "reports", Arc::clone(reports).write()));
    }
    writing.push(spawn(&mut tasks, "statuses", book::write(writer, statuses)));
    spawn(&mut tasks, "counts", Arc::clone(&book).tick());
    let candidate =
        options.election.clone().map(|election| Arc::new(Candidate::new(client.clone(), election, leadership)));
    if let Some(candidate) = &candidate {
        let (candidate, context, readiness) = (Arc::clone(candidate), Arc::clone(&context), readiness.clone());
        let queue = queue.clone();
        writing.push(spawn(&mut tasks, "election", async move {
            // Who does not know the cluster yet is no leader.
            readiness.reached().await;
            let won = || {
                let described = context.described();
                queue.kinds().iter().for_each(|workloads| workloads.wake(&described));
                book.tell_all();
            };
            candidate.stand(won).await;
        }));
    }
    let scope = state.read(|policies, _| label_selector(policies.scope()));
    for (workloads, requests) in queue.kinds().iter().zip(requests) {
        let step = readiness.step(workloads.plural());
        spawn(&mut tasks, "workloads", workloads.follow_labelled(client, &scope, step));
        let (context, workloads, readiness) = (Arc::clone(&context), Arc::clone(workloads), readiness.clone());
        writing.push(spawn(&mut tasks, "reconciliation", async move {
            // What is looked at too early would be taken for something that nobody cares for, and not be looked at again.
            readiness.reached().await;
            workloads.wake(&context.described());
            reconcile_all(context, workloads.known(), requests).await;
        }));
    }
    Controller { tasks, writing, candidate }
}

fn spawn(tasks: &mut JoinSet<()>, name: &'static str, task: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
    tasks.spawn(task.instrument(info_span!("controller", part = name)))
}

/// Looks at each workload of a kind that is asked for.
async fn reconcile_all(context: Arc<Context>, known: Store<Kept>, requests: Requests) {
    let config = Config::default().concurrency(CONCURRENCY);
    let reconcile = |workload, context| Box::pin(reconcile::guarded(workload, context));
    let done = applier(reconcile, reconcile::retry, Arc::clone(&context), known, requests.map(Ok), config);
    done.for_each_concurrent(usize::from(CONCURRENCY), |result: Result<_, controller::Error<_, Infallible>>| async {
        match result {
            Ok((object, _)) => debug!(%object, "reconciled"),
            Err(controller::Error::ObjectNotFound(object)) => reconcile::gone(&object, &context).await,
            // Failures were told where they happened.
            Err(error) => debug!(%error, "not reconciled"),
        }
    })
    .await;
}

/// How many workloads are looked at at a time: enough to hide the API server's latency, few enough to spare it.
const CONCURRENCY: u16 = 8;

fn label_selector(labels: &BTreeMap<String, String>) -> String {
    let pairs: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    pairs.join(",")
}

fn resource(group: &str, version: &str, kind: &str) -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind))
}

/// Returns the JSON of an object, with its kind, which lists leave out, and without its managed fields.
fn raw(mut object: DynamicObject, resource: &ApiResource) -> Value {
    object.metadata.managed_fields = None;
    let mut value = serde_json::to_value(object).unwrap_or_default();
    value["apiVersion"] = resource.api_version.clone().into();
    value["kind"] = resource.kind.clone().into();
    value
}
