//! The earlier revisions of a workload, read when an update that may be a rollback would be refused. They are not
//! watched: they are many, and rarely needed.

use kube::Client;
use kube::api::{Api, DynamicObject, ListParams};
use serde_json::Value;
use tracing::warn;

use super::{raw, resource};
use crate::report;
use tidegate_engine::kind::Kind;
use tidegate_engine::policy::selector_of;
use tidegate_engine::workload::WorkloadRef;

/// The most revisions that are read. A Deployment keeps ten by default (`spec.revisionHistoryLimit`).
const LIMIT: u32 = 100;

/// Lists the objects of a workload's kind of revisions that match the labels of its selector; none if that fails.
pub(super) fn list(
    client: &Client,
    workload: &WorkloadRef,
    selector: &Value,
) -> impl Future<Output = Vec<Value>> + use<> {
    let (client, namespace, labels) = (client.clone(), workload.namespace.clone(), labels(selector));
    let revisions = Kind::named(&workload.kind).and_then(|kind| kind.revisions);
    async move {
        let Some(revisions) = revisions else { return Vec::new() };
        let kind = resource(revisions.group, revisions.version, revisions.kind);
        let api: Api<DynamicObject> = Api::namespaced_with(client, &namespace, &kind);
        match api.list(&ListParams::default().labels(&labels).limit(LIMIT)).await {
            Ok(found) => found.items.into_iter().map(|object| raw(object, &kind)).collect(),
            Err(error) => {
                warn!(error = report::chain(&error), kind = revisions.kind, namespace, "cannot list revisions");
                Vec::new()
            }
        }
    }
}

/// Writes the labels of a workload's selector as a label selector of the API. Its expressions only select fewer
/// objects.
fn labels(selector: &Value) -> String {
    let labels = selector["matchLabels"].as_object().into_iter().flatten();
    selector_of(&labels.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect())
}
