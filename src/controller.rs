//! Keeps what belongs to each model server in step: watches the cluster, asks the engine, carries out its plans.

mod apply;
mod book;
mod observed;
mod plan;
mod policies;
mod reconcile;
mod sinks;
mod status;
mod watch;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::channel::mpsc::{UnboundedSender, unbounded};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use kube::api::{Api, DynamicObject};
use kube::core::{ApiResource, GroupVersionKind};
use kube::runtime::controller::{self, Config, ReconcileReason, ReconcileRequest, applier};
use kube::runtime::reflector::{ObjectRef, Store, store::Writer};
use kube::runtime::{WatchStreamExt as _, reflector, watcher};
use kube::{Client, ResourceExt as _};
use serde_json::Value;
use tokio::task::JoinSet;
use tracing::{Instrument as _, debug, info_span};

pub use apply::ApplyError;
pub use observed::Observed;
pub use plan::{Action, Plan, Standing, plan};

use crate::facts::WorkloadRef;
use crate::server::health::Readiness;
use crate::state::State;
use book::Book;
use observed::Objects;

/// What the controller needs to start.
pub struct Options {
    /// How long after it is first wanted an autoscaler is made, so that one in the same apply wins.
    pub settle: Duration,
    /// How often every model server is looked at although no watch told of a change.
    pub resync: Duration,
    /// Whether policies are read from the cluster; they are not where they come from files.
    pub watch_policies: bool,
}

/// What reconciliations share.
struct Context {
    client: Client,
    book: Arc<Book>,
    state: Arc<State>,
    objects: Arc<Objects>,
    wanted_since: reconcile::WantedSince,
    settle: Duration,
    resync: Duration,
}

/// Asks for a workload to be looked at.
#[derive(Clone)]
struct Queue {
    sender: UnboundedSender<ReconcileRequest<DynamicObject>>,
    deployments: ApiResource,
    known: Store<DynamicObject>,
}

impl Queue {
    fn push(&self, workload: &WorkloadRef) {
        if workload.kind == "Deployment" {
            let reference = ObjectRef::new_with(&workload.name, self.deployments.clone()).within(&workload.namespace);
            self.send(reference);
        }
    }

    fn push_all(&self) {
        self.push_where(|_| true);
    }

    fn push_namespace(&self, namespace: &str) {
        self.push_where(|deployment| deployment.metadata.namespace.as_deref() == Some(namespace));
    }

    fn push_where(&self, is_meant: impl Fn(&DynamicObject) -> bool) {
        for known in self.known.state().iter().filter(|known| is_meant(known)) {
            self.send(ObjectRef::from_obj_with(&**known, self.deployments.clone()));
        }
    }

    fn send(&self, obj_ref: ObjectRef<DynamicObject>) {
        // The receiver is gone only at shutdown.
        let _ = self.sender.unbounded_send(ReconcileRequest { obj_ref, reason: ReconcileReason::Unknown });
    }
}

/// Starts the watches and the reconciliation; they run until the returned set is dropped. Each watch is a step of
/// readiness.
pub fn start(client: &Client, state: &Arc<State>, options: &Options, readiness: &Readiness) -> JoinSet<()> {
    let deployments = resource("apps", "v1", "Deployment");
    let writer = Writer::new(deployments.clone());
    let (sender, requests) = unbounded();
    let queue = Queue { sender, deployments: deployments.clone(), known: writer.as_reader() };
    let objects = Arc::new(Objects::default());
    let from_files = (!options.watch_policies).then_some(policies::POLICIES);
    let watched = [policies::POLICIES, policies::EXCEPTIONS].into_iter().filter(|watch| Some(*watch) != from_files);
    let (book, statuses) = Book::open(state, queue.clone(), watched);
    let context = Arc::new(Context {
        client: client.clone(),
        book: Arc::clone(&book),
        state: Arc::clone(state),
        objects: Arc::clone(&objects),
        wanted_since: reconcile::WantedSince::default(),
        settle: options.settle,
        resync: options.resync,
    });

    let mut tasks = JoinSet::new();
    let watches = sinks::Watches { client: client.clone(), state: Arc::clone(state), objects, queue: queue.clone() };
    spawn(&mut tasks, "namespaces", watches.namespaces(readiness.step("namespaces")));
    spawn(&mut tasks, "autoscalers", watches.autoscalers(readiness.step("autoscalers")));
    spawn(&mut tasks, "model servers", watches.model_servers());
    spawn(&mut tasks, "databases", watches.databases(readiness.step("databases")));
    if options.watch_policies {
        let step = readiness.step(policies::POLICIES);
        spawn(&mut tasks, policies::POLICIES, policies::follow(client.clone(), Arc::clone(&book), step));
    }
    let step = readiness.step(policies::EXCEPTIONS);
    spawn(&mut tasks, policies::EXCEPTIONS, policies::follow_exceptions(client.clone(), Arc::clone(&book), step));
    spawn(&mut tasks, "statuses", book::write(client.clone(), statuses));
    spawn(&mut tasks, "counts", book.tick());
    let scope = state.read(|policies, _| label_selector(policies.scope()));
    let readiness = readiness.clone();
    spawn(&mut tasks, "reconciliation", async move {
        // What is looked at too early would be taken for something that nobody cares for, and not be looked at again.
        readiness.reached().await;
        reconcile_all(context, writer, requests, deployments, scope).await;
    });
    tasks
}

fn spawn(tasks: &mut JoinSet<()>, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
    tasks.spawn(task.instrument(info_span!("controller", part = name)));
}

/// Follows the model servers and looks at each that changes or is asked for.
async fn reconcile_all(
    context: Arc<Context>,
    writer: Writer<DynamicObject>,
    requests: impl futures::Stream<Item = ReconcileRequest<DynamicObject>>,
    deployments: ApiResource,
    scope: String,
) {
    let api: Api<DynamicObject> = Api::all_with(context.client.clone(), &deployments);
    let store = writer.as_reader();
    let followed = reflector(writer, watcher(api, watcher::Config::default().labels(&scope)).default_backoff())
        .modify(|deployment| deployment.managed_fields_mut().clear())
        .touched_objects();
    let changed = followed.map_ok(move |changed| ReconcileRequest {
        obj_ref: ObjectRef::from_obj_with(&changed, deployments.clone()),
        reason: ReconcileReason::ObjectUpdated,
    });
    let queue = stream::select(changed, requests.map(Ok));
    let config = Config::default().concurrency(CONCURRENCY);
    let reconcile = |deployment, context| Box::pin(reconcile::guarded(deployment, context));
    let done = applier(reconcile, reconcile::retry, Arc::clone(&context), store, Box::pin(queue), config);
    done.for_each_concurrent(usize::from(CONCURRENCY), |result| async {
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
    object.managed_fields_mut().clear();
    let mut value = serde_json::to_value(object).unwrap_or_default();
    value["apiVersion"] = resource.api_version.clone().into();
    value["kind"] = resource.kind.clone().into();
    value
}
