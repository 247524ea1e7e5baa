//! Writes to the API server.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams, Preconditions};
use kube::core::ApiResource;
use kube::runtime::events::{self, Reporter};
use serde_json::{Value, json};
use tracing::info;

use super::leader::Leadership;
use super::resource;
use tidegate_engine::companions::MANAGER;
use tidegate_engine::companions::plan::Action;

/// Why an action failed.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The API server refused it.
    #[error("cannot {verb} {object}")]
    Refused {
        /// The attempted change.
        verb: &'static str,
        /// Kind and name.
        object: String,
        /// The error of the API server.
        source: Box<kube::Error>,
    },
    /// This replica is not the leader.
    #[error("this replica is not the leader")]
    NotLeading,
    /// The reconciliation panicked: a bug in Tidegate.
    #[error("the reconciliation panicked: this is a bug in tidegate, logged above")]
    Panicked,
    /// A planned object is invalid: a bug in Tidegate.
    #[error("invalid planned object")]
    Malformed(#[from] serde_json::Error),
}

impl ApplyError {
    /// Returns whether a retry would fail again: because of validation, a webhook, a quota or missing permissions.
    pub(super) fn is_lasting(&self) -> bool {
        let Self::Refused { source, .. } = self else { return true };
        matches!(&**source, kube::Error::Api(status) if matches!(status.code, 400 | 403 | 422))
    }
}

/// Writes to the API server, if this replica leads.
#[derive(Clone)]
pub(super) struct Writer {
    client: Client,
    leadership: Leadership,
}

impl Writer {
    pub(super) fn new(client: Client, leadership: Leadership) -> Self {
        Self { client, leadership }
    }

    /// Returns whether this replica leads.
    pub(super) fn leads(&self) -> bool {
        self.leadership.holds()
    }

    /// Runs `writing`, if this replica leads.
    pub(super) async fn write<T>(&self, writing: impl Future<Output = Result<T, ApplyError>>) -> Result<T, ApplyError> {
        self.leadership.write(writing).await.unwrap_or(Err(ApplyError::NotLeading))
    }
}

/// Carries out an action. Deleting an object that is already gone succeeds.
pub(super) async fn apply(writer: &Writer, action: &Action) -> Result<(), ApplyError> {
    writer.write(carry_out(&writer.client, action)).await
}

async fn carry_out(client: &Client, action: &Action) -> Result<(), ApplyError> {
    match action {
        Action::Create(object) => {
            let parameters = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
            let typed: DynamicObject = serde_json::from_value(object.clone())?;
            logged("create", object, api_of(client, object).create(&parameters, &typed).await.map(drop))
        }
        Action::Apply(object) => {
            let result = api_of(client, object).patch(name_of(object), &forced(), &Patch::Apply(object)).await;
            logged("apply", object, result.map(drop))
        }
        Action::Merge(object) => {
            let parameters = PatchParams::apply(MANAGER);
            let result = api_of(client, object).patch(name_of(object), &parameters, &Patch::Merge(object)).await;
            logged("patch", object, result.map(drop))
        }
        Action::Delete(object) => {
            let uid = object["metadata"]["uid"].as_str().map(str::to_owned);
            let parameters = DeleteParams {
                preconditions: Some(Preconditions { uid, resource_version: None }),
                ..DeleteParams::default()
            };
            match api_of(client, object).delete(name_of(object), &parameters).await {
                Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
                result => logged("delete", object, result.map(drop)),
            }
        }
    }
}

/// Writes Events, if this replica leads.
pub(super) struct Recorder {
    writer: Writer,
    recorder: events::Recorder,
}

impl Recorder {
    /// Creates a recorder for a reporter.
    pub(super) fn new(writer: Writer, reporter: Reporter) -> Self {
        Self { recorder: events::Recorder::new(writer.client.clone(), reporter), writer }
    }

    /// Writes an event, or increments the count of the one that it repeats.
    pub(super) async fn publish(&self, event: &events::Event, on: &ObjectReference) -> Result<(), ApplyError> {
        let published = async {
            self.recorder.publish(event, on).await.map_err(|source| {
                let object = format!("event {}", event.reason);
                ApplyError::Refused { verb: "write", object, source: Box::new(source) }
            })
        };
        self.writer.write(published).await
    }
}

/// Reads the object with this kind and name; none if it does not exist or cannot be read.
pub(super) async fn read(writer: &Writer, object: &Value) -> Option<DynamicObject> {
    get(writer, object).await.ok().flatten()
}

/// Reads the object with this kind and name; none if it does not exist.
pub(super) async fn get(writer: &Writer, object: &Value) -> Result<Option<DynamicObject>, ApplyError> {
    let result = api_of(&writer.client, object).get_opt(name_of(object)).await;
    result.map_err(|source| refused("read", object, source))
}

/// Changes the object with this kind and name by a JSON patch, if this replica leads.
pub(super) async fn patch(writer: &Writer, object: &Value, patch: json_patch::Patch) -> Result<(), ApplyError> {
    let parameters = PatchParams::apply(MANAGER);
    let written = async {
        let api = api_of(&writer.client, object);
        let result = api.patch(name_of(object), &parameters, &Patch::Json::<()>(patch)).await;
        logged("patch", object, result.map(drop))
    };
    writer.write(written).await
}

/// Returns the apiVersion, kind, name and namespace of an object, as the base of a patch.
pub(super) fn identity(object: &Value) -> Value {
    let metadata = json!({"name": object["metadata"]["name"], "namespace": object["metadata"]["namespace"]});
    json!({"apiVersion": object["apiVersion"], "kind": object["kind"], "metadata": metadata})
}

/// Returns whether two objects in one namespace have the same kind and name.
pub(super) fn is_same_object(one: &Value, other: &Value) -> bool {
    one["kind"] == other["kind"] && one["metadata"]["name"] == other["metadata"]["name"]
}

/// Returns the patch that sets the status of an object.
pub(super) fn status_patch(object: &Value, status: Value) -> Value {
    let mut patch = identity(object);
    patch["status"] = status;
    patch
}

/// Applies a patch of the status of one of Tidegate's own objects.
pub(super) async fn apply_status(writer: &Writer, patch: &Value) -> Result<(), ApplyError> {
    let written = async {
        let api = api_of(&writer.client, patch);
        let result = api.patch_status(name_of(patch), &forced(), &Patch::Apply(patch)).await;
        result.map(drop).map_err(|source| refused("write the status of", patch, source))
    };
    writer.write(written).await
}

fn forced() -> PatchParams {
    PatchParams::apply(MANAGER).force()
}

fn logged(verb: &'static str, object: &Value, result: kube::Result<()>) -> Result<(), ApplyError> {
    result.map_err(|source| refused(verb, object, source))?;
    let namespace = text(&object["metadata"]["namespace"]);
    info!(verb, kind = text(&object["kind"]), namespace, name = name_of(object), "changed an object");
    Ok(())
}

fn refused(verb: &'static str, object: &Value, source: kube::Error) -> ApplyError {
    let named = format!("{} {}", text(&object["kind"]), name_of(object));
    ApplyError::Refused { verb, object: named, source: Box::new(source) }
}

fn api_of(client: &Client, object: &Value) -> Api<DynamicObject> {
    let resource = resource_of(object);
    match object["metadata"]["namespace"].as_str() {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    }
}

fn resource_of(object: &Value) -> ApiResource {
    let (group, version) = text(&object["apiVersion"]).split_once('/').unwrap_or_default();
    resource(group, version, text(&object["kind"]))
}

fn name_of(object: &Value) -> &str {
    text(&object["metadata"]["name"])
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
