//! Makes, fills in and removes the webhook configurations of a cluster.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use json_patch::{AddOperation, Patch as JsonPatch, PatchOperation, jsonptr::PointerBuf};
use kube::Client;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::Value;
use tracing::info;

use super::NAME;
use crate::companions::MANAGER;

/// Why the webhook configurations are not as they should be.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// The API server refused a change.
    #[error("cannot {verb} the {kind} `{NAME}`")]
    Refused {
        /// What was tried.
        verb: &'static str,
        /// Of which kind.
        kind: String,
        /// Why.
        source: Box<kube::Error>,
    },
    /// There is nothing to fill in.
    #[error("there is no {kind} `{NAME}` to fill the caBundle into: apply manifests/ first, or give --webhook-url")]
    Missing {
        /// Of which kind.
        kind: &'static str,
    },
}

const KINDS: [&str; 2] = ["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"];

/// Makes the configurations, or takes back what was changed in them.
pub async fn apply(client: &Client, configurations: &[Value]) -> Result<(), RegisterError> {
    for configuration in configurations {
        let kind = configuration["kind"].as_str().unwrap_or_default();
        let parameters = PatchParams::apply(MANAGER).force();
        let applied = api(client, kind).patch(NAME, &parameters, &Patch::Apply(configuration)).await;
        applied.map_err(|source| refused("apply", kind, source))?;
        info!(kind, name = NAME, "applied a webhook configuration");
    }
    Ok(())
}

/// Removes the configurations; what has gone already is no error.
pub async fn remove(client: &Client) -> Result<(), RegisterError> {
    for kind in KINDS {
        match api(client, kind).delete(NAME, &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            result => drop(result.map_err(|source| refused("remove", kind, source))?),
        }
        info!(kind, name = NAME, "removed a webhook configuration");
    }
    Ok(())
}

/// Fills the CA into the configurations that the manifests made.
pub async fn fill_in(client: &Client, ca_pem: &str) -> Result<(), RegisterError> {
    let ca_bundle = BASE64_STANDARD.encode(ca_pem);
    for kind in KINDS {
        let api = api(client, kind);
        let found = api.get_opt(NAME).await.map_err(|source| refused("read", kind, source))?;
        let found = found.ok_or(RegisterError::Missing { kind })?;
        let patch = missing_bundles(&found, &ca_bundle);
        if !patch.is_empty() {
            let filled = api.patch(NAME, &PatchParams::default(), &Patch::Json::<()>(patch)).await;
            filled.map_err(|source| refused("fill the caBundle into", kind, source))?;
            info!(kind, name = NAME, "filled in the caBundle");
        }
    }
    Ok(())
}

/// Returns the operations that give every webhook of a configuration this CA.
fn missing_bundles(configuration: &DynamicObject, ca_bundle: &str) -> JsonPatch {
    let webhooks = configuration.data["webhooks"].as_array().map_or(&[][..], Vec::as_slice);
    let other = webhooks.iter().enumerate().filter(|(_, webhook)| webhook["clientConfig"]["caBundle"] != ca_bundle);
    let fill = other.map(|(index, _)| {
        let path = PointerBuf::from_tokens(["webhooks", &index.to_string(), "clientConfig", "caBundle"]);
        PatchOperation::Add(AddOperation { path, value: ca_bundle.into() })
    });
    JsonPatch(fill.collect())
}

fn refused(verb: &'static str, kind: &str, source: kube::Error) -> RegisterError {
    RegisterError::Refused { verb, kind: kind.to_owned(), source: Box::new(source) }
}

fn api(client: &Client, kind: &str) -> Api<DynamicObject> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("admissionregistration.k8s.io", "v1", kind));
    Api::all_with(client.clone(), &resource)
}
