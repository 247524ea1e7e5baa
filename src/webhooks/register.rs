//! Makes, fills in and removes the webhook configurations of a cluster.

use std::time::Duration;

use axum::http::Uri;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use json_patch::{AddOperation, Patch as JsonPatch, PatchOperation, jsonptr::PointerBuf};
use kube::Client;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;
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
    /// They lead to another Tidegate, which answers.
    #[error(
        "the {kind} `{NAME}` leads to another Tidegate, at {url}: stop that one, or delete the configuration if it has gone"
    )]
    Taken {
        /// Of which kind.
        kind: &'static str,
        /// Where it leads to.
        url: String,
    },
    /// There is nothing to fill in.
    #[error("there is no {kind} `{NAME}` to fill the caBundle into: apply manifests/ first, or give --webhook-url")]
    Missing {
        /// Of which kind.
        kind: &'static str,
    },
}

const KINDS: [&str; 2] = ["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"];

/// Makes the configurations, or takes back what was changed in them. Those of another Tidegate that answers stay.
pub async fn apply(client: &Client, configurations: &[Value], url: &str) -> Result<(), RegisterError> {
    for kind in KINDS {
        let found = get(client, kind).await?;
        if let Some(other) = found.as_ref().and_then(url_of).filter(|other| !leads_to(other, url))
            && answers(&other).await
        {
            return Err(RegisterError::Taken { kind, url: other });
        }
    }
    for configuration in configurations {
        let kind = configuration["kind"].as_str().unwrap_or_default();
        let parameters = PatchParams::apply(MANAGER).force();
        let applied = api(client, kind).patch(NAME, &parameters, &Patch::Apply(configuration)).await;
        applied.map_err(|source| refused("apply", kind, source))?;
        info!(kind, name = NAME, "applied a webhook configuration");
    }
    Ok(())
}

/// Removes the configurations that lead to a URL; what has gone already, or leads elsewhere by now, is no error.
pub async fn remove(client: &Client, url: &str) -> Result<(), RegisterError> {
    for kind in KINDS {
        if !get(client, kind).await?.as_ref().and_then(url_of).is_some_and(|found| leads_to(&found, url)) {
            continue;
        }
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
        let found = get(client, kind).await?.ok_or(RegisterError::Missing { kind })?;
        if let Some(url) = url_of(&found) {
            return Err(RegisterError::Taken { kind, url });
        }
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

async fn get(client: &Client, kind: &'static str) -> Result<Option<DynamicObject>, RegisterError> {
    api(client, kind).get_opt(NAME).await.map_err(|source| refused("read", kind, source))
}

/// Where the first webhook of a configuration leads, unless it leads to a Service.
fn url_of(configuration: &DynamicObject) -> Option<String> {
    configuration.data["webhooks"][0]["clientConfig"]["url"].as_str().map(str::to_owned)
}

/// Tells whether a webhook's URL is one of the server at another, which has no path.
fn leads_to(webhook: &str, server: &str) -> bool {
    webhook.strip_prefix(server).is_some_and(|path| path.starts_with('/'))
}

/// Tells whether anybody listens where a URL leads: what is left of a Tidegate that was killed must not be in the way.
async fn answers(url: &str) -> bool {
    let Ok(url) = url.parse::<Uri>() else { return false };
    let (Some(host), port) = (url.host(), url.port_u16().unwrap_or(443)) else { return false };
    let connecting = TcpStream::connect((host.trim_matches(['[', ']']), port));
    matches!(timeout(Duration::from_secs(1), connecting).await, Ok(Ok(_)))
}

fn refused(verb: &'static str, kind: &str, source: kube::Error) -> RegisterError {
    RegisterError::Refused { verb, kind: kind.to_owned(), source: Box::new(source) }
}

fn api(client: &Client, kind: &str) -> Api<DynamicObject> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("admissionregistration.k8s.io", "v1", kind));
    Api::all_with(client.clone(), &resource)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn a_webhook_leads_to_the_server_whose_url_it_begins_with() {
        assert!(leads_to("https://127.0.0.1:8443/mutate", "https://127.0.0.1:8443"));
        assert!(!leads_to("https://127.0.0.1:84430/mutate", "https://127.0.0.1:8443"));
    }

    #[tokio::test]
    async fn a_server_answers_while_it_listens() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}/mutate", listener.local_addr().unwrap());
        assert!(answers(&url).await);
        drop(listener);
        assert!(!answers(&url).await);
    }
}
