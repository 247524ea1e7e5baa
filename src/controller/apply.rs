//! Carries out one action.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams, Preconditions};
use kube::core::{ApiResource, GroupVersionKind};
use kube::runtime::events::{self, Reporter};
use serde_json::Value;
use tracing::info;

use super::leader::Leadership;
use tidegate_engine::companions::MANAGER;
use tidegate_engine::companions::plan::Action;

/// Why an action could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The API server refused it.
    #[error("cannot {verb} {object}")]
    Refused {
        /// What was tried.
        verb: &'static str,
        /// Kind and name.
        object: String,
        /// Why.
        source: Box<kube::Error>,
    },
    /// Another replica writes: this one may not, or no longer.
    #[error("this replica does not lead")]
    NotLeading,
    /// Looking at the workload failed: a fault in Tidegate.
    #[error("the workload could not be looked at: a fault in tidegate, told above")]
    Panicked,
    /// The object is not one: a fault in Tidegate.
    #[error("a planned object cannot be read")]
    Malformed(#[from] serde_json::Error),
}

impl ApplyError {
    /// Tells whether the same would be refused again: by a validation, a webhook, a quota or for want of permission.
    pub(super) fn is_lasting(&self) -> bool {
        let Self::Refused { source, .. } = self else { return true };
        matches!(&**source, kube::Error::Api(status) if matches!(status.code, 400 | 403 | 422))
    }
}

/// The API server, to be written to by the leader alone.
#[derive(Clone)]
pub(super) struct Writer {
    client: Client,
    leadership: Leadership,
}

impl Writer {
    pub(super) fn new(client: Client, leadership: Leadership) -> Self {
        Self { client, leadership }
    }

    /// Tells whether anything would be written now.
    pub(super) fn leads(&self) -> bool {
        self.leadership.holds()
    }

    /// Does what only the leader may do.
    pub(super) async fn write<T>(&self, writing: impl Future<Output = Result<T, ApplyError>>) -> Result<T, ApplyError> {
        self.leadership.write(writing).await.unwrap_or(Err(ApplyError::NotLeading))
    }
}

/// Carries out an action. Deleting what has gone already is no error.
pub(super) async fn apply(writer: &Writer, action: &Action) -> Result<(), ApplyError> {
    writer.write(carry_out(&writer.client, action)).await
}

async fn carry_out(client: &Client, action: &Action) -> Result<(), ApplyError> {
    match action {
        Action::Create(object) => {
            let parameters = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
            let typed: DynamicObject = serde_json::from_value(object.clone())?;
            told("create", object, api_of(client, object).create(&parameters, &typed).await.map(drop))
        }
        Action::Apply(object) => {
            let result = api_of(client, object).patch(name_of(object), &ours(), &Patch::Apply(object)).await;
            told("apply", object, result.map(drop))
        }
        Action::Merge(object) => {
            let parameters = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
            let result = api_of(client, object).patch(name_of(object), &parameters, &Patch::Merge(object)).await;
            told("add to", object, result.map(drop))
        }
        Action::Delete(object) => {
            let uid = object["metadata"]["uid"].as_str().map(str::to_owned);
            let parameters = DeleteParams {
                preconditions: Some(Preconditions { uid, resource_version: None }),
                ..DeleteParams::default()
            };
            match api_of(client, object).delete(name_of(object), &parameters).await {
                Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
                result => told("delete", object, result.map(drop)),
            }
        }
    }
}

/// Writes Events, as the leader alone may.
pub(super) struct Recorder {
    writer: Writer,
    recorder: events::Recorder,
}

impl Recorder {
    /// Writes in the name of a reporter.
    pub(super) fn new(writer: Writer, reporter: Reporter) -> Self {
        Self { recorder: events::Recorder::new(writer.client.clone(), reporter), writer }
    }

    /// Writes an event, or counts it in the one that it repeats.
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

/// Reads the object of this kind and name; none where it is not there or cannot be read.
pub(super) async fn read(writer: &Writer, object: &Value) -> Option<DynamicObject> {
    look(writer, object).await.ok().flatten()
}

/// Reads the object of this kind and name; none where it is not there.
pub(super) async fn look(writer: &Writer, object: &Value) -> Result<Option<DynamicObject>, ApplyError> {
    let result = api_of(&writer.client, object).get_opt(name_of(object)).await;
    result.map_err(|source| refused("read", object, source))
}

/// Writes the status of an object of ours.
pub(super) async fn apply_status(writer: &Writer, object: &Value) -> Result<(), ApplyError> {
    let written = async {
        let api = api_of(&writer.client, object);
        let result = api.patch_status(name_of(object), &ours(), &Patch::Apply(object)).await;
        result.map(drop).map_err(|source| refused("write the status of", object, source))
    };
    writer.write(written).await
}

fn ours() -> PatchParams {
    PatchParams::apply(MANAGER).force()
}

fn told(verb: &'static str, object: &Value, result: kube::Result<()>) -> Result<(), ApplyError> {
    result.map_err(|source| refused(verb, object, source))?;
    let namespace = text(&object["metadata"]["namespace"]);
    info!(verb, kind = text(&object["kind"]), namespace, name = name_of(object), "changed a companion");
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
    ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, text(&object["kind"])))
}

fn name_of(object: &Value) -> &str {
    text(&object["metadata"]["name"])
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
