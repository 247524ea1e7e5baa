//! Makes, fills in and removes the webhook configurations of a cluster.

use std::collections::HashMap;
use std::time::Duration;

use axum::http::Uri;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures::{StreamExt as _, stream};
use json_patch::{AddOperation, Patch as JsonPatch, PatchOperation, TestOperation, jsonptr::PointerBuf};
use kube::Client;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt as _, watcher as watch};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tracing::{info, warn};

use super::NAME;
use tidegate_engine::companions::{MANAGER, contains};
use crate::report;

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

impl RegisterError {
    /// Tells whether somebody else changed the configuration in between.
    fn is_lost_race(&self) -> bool {
        let Self::Refused { source, .. } = self else { return false };
        matches!(&**source, kube::Error::Api(status) if matches!(status.code, 409 | 422))
    }
}

/// How often another may be faster: replicas start together, but not that many.
const MOST_RACES: u32 = 10;

/// How many CAs a `caBundle` has at most. A replica that has gone leaves its own behind, for nobody can tell.
const MOST_CAS: usize = 16;

/// How a certificate ends in a PEM file.
const PEM_END: &str = "-----END CERTIFICATE-----";

const KINDS: [&str; 2] = ["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"];

/// Makes the configurations, or takes back what was changed in them. Those of another Tidegate that answers stay.
pub async fn apply(client: &Client, configurations: &[Value], url: &str) -> Result<(), RegisterError> {
    let mut as_found = HashMap::new();
    for kind in KINDS {
        let found = get(client, kind).await?;
        if let Some(other) = found.as_ref().and_then(url_of).filter(|other| !leads_to(other, url))
            && answers(&other).await
        {
            return Err(RegisterError::Taken { kind, url: other });
        }
        as_found.insert(kind, found);
    }
    for configuration in configurations {
        let kind = configuration["kind"].as_str().unwrap_or_default();
        let found = as_found.get(kind).and_then(Option::as_ref).and_then(|found| serde_json::to_value(found).ok());
        if found.is_some_and(|found| contains(&found, configuration)) {
            continue;
        }
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

/// Fills the CA into the configurations that the manifests made, beside those of other replicas.
pub async fn fill_in(client: &Client, ca_pem: &str) -> Result<(), RegisterError> {
    for kind in KINDS {
        let mut races = 0;
        while let Err(error) = fill_in_kind(client, kind, ca_pem).await {
            races += 1;
            if races > MOST_RACES || !error.is_lost_race() {
                return Err(error);
            }
        }
    }
    Ok(())
}

async fn fill_in_kind(client: &Client, kind: &'static str, ca_pem: &str) -> Result<(), RegisterError> {
    let found = get(client, kind).await?.ok_or(RegisterError::Missing { kind })?;
    if let Some(url) = url_of(&found) {
        return Err(RegisterError::Taken { kind, url });
    }
    let patch = missing_bundles(&found, ca_pem);
    if !patch.is_empty() {
        let filled = api(client, kind).patch(NAME, &PatchParams::default(), &Patch::Json::<()>(patch)).await;
        filled.map_err(|source| refused("fill the caBundle into", kind, source))?;
        info!(kind, name = NAME, "filled in the caBundle");
    }
    Ok(())
}

/// Fills the CA in again whenever it is taken out of the configurations, for as long as it is polled.
pub async fn keep_filled_in(client: &Client, ca_pem: &str) {
    let only = watcher::Config::default().fields(&format!("metadata.name={NAME}"));
    let follow = |kind| watch(api(client, kind), only.clone()).default_backoff().boxed();
    let mut events = stream::select_all(KINDS.map(follow));
    while let Some(event) = events.next().await {
        let Ok(Event::Apply(found) | Event::InitApply(found)) = event else { continue };
        if !missing_bundles(&found, ca_pem).is_empty()
            && let Err(error) = fill_in(client, ca_pem).await
        {
            warn!(error = report::chain(&error), "the caBundle could not be filled in");
        }
    }
}

/// Returns the operations that make every webhook of a configuration trust this CA too.
fn missing_bundles(configuration: &DynamicObject, ca_pem: &str) -> JsonPatch {
    let webhooks = configuration.data["webhooks"].as_array().map_or(&[][..], Vec::as_slice);
    let fill = webhooks.iter().enumerate().filter_map(|(index, webhook)| {
        let bundle = with_ca(webhook["clientConfig"]["caBundle"].as_str().unwrap_or_default(), ca_pem)?;
        let path = PointerBuf::from_tokens(["webhooks", &index.to_string(), "clientConfig", "caBundle"]);
        Some(PatchOperation::Add(AddOperation { path, value: bundle.into() }))
    });
    let mut patch: Vec<PatchOperation> = fill.collect();
    if let Some(version) = configuration.metadata.resource_version.clone().filter(|_| !patch.is_empty()) {
        // Another replica that fills in its own at the same time is not to be overwritten.
        let path = PointerBuf::from_tokens(["metadata", "resourceVersion"]);
        patch.insert(0, PatchOperation::Test(TestOperation { path, value: version.into() }));
    }
    JsonPatch(patch)
}

/// Returns a `caBundle` with this CA at its end; none where it is there. The oldest give way.
fn with_ca(bundle: &str, ca_pem: &str) -> Option<String> {
    let decoded = BASE64_STANDARD.decode(bundle).unwrap_or_default();
    let text = String::from_utf8_lossy(&decoded);
    let certificates = |text: &str| -> Vec<String> {
        let blocks = text.split_inclusive(PEM_END).filter(|block| block.contains(PEM_END));
        blocks.map(|block| block.trim().to_owned()).collect()
    };
    let (mut all, own) = (certificates(&text), certificates(ca_pem));
    if own.iter().all(|certificate| all.contains(certificate)) {
        return None;
    }
    all.retain(|certificate| !own.contains(certificate));
    all.drain(..(all.len() + own.len()).saturating_sub(MOST_CAS).min(all.len()));
    all.extend(own);
    Some(BASE64_STANDARD.encode(all.join("\n") + "\n"))
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
    use serde_json::json;
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn a_webhook_leads_to_the_server_whose_url_it_begins_with() {
        assert!(leads_to("https://127.0.0.1:8443/mutate", "https://127.0.0.1:8443"));
        assert!(!leads_to("https://127.0.0.1:84430/mutate", "https://127.0.0.1:8443"));
    }

    fn certificate(name: &str) -> String {
        format!("-----BEGIN CERTIFICATE-----\n{name}\n{PEM_END}\n")
    }

    #[test]
    fn a_bundle_has_the_ca_of_every_replica() {
        let decoded = |bundle: &str| String::from_utf8(BASE64_STANDARD.decode(bundle).unwrap()).unwrap();
        let one = with_ca("", &certificate("one")).unwrap();
        assert_eq!(decoded(&one), certificate("one"));
        let both = with_ca(&one, &certificate("two")).unwrap();
        assert_eq!(decoded(&both), certificate("one") + &certificate("two"));
        assert_eq!(with_ca(&both, &certificate("one")), None);
        assert_eq!(with_ca(&both, &certificate("two")), None);
    }

    #[test]
    fn the_oldest_cas_of_a_bundle_give_way() {
        let name = |number: usize| certificate(&format!("ca-{number}"));
        let bundle = (0..MOST_CAS + 3).fold(String::new(), |bundle, number| with_ca(&bundle, &name(number)).unwrap());
        let text = String::from_utf8(BASE64_STANDARD.decode(&bundle).unwrap()).unwrap();
        assert_eq!(text.matches(PEM_END).count(), MOST_CAS);
        assert!(text.starts_with(&name(3)) && text.ends_with(&name(MOST_CAS + 2)));
        let whole = (0..MOST_CAS + 3).map(name).collect::<String>();
        assert!(with_ca(&bundle, &whole).is_some(), "a file with more of them is taken as it is");
    }

    #[test]
    fn what_is_filled_in_is_held_to_what_was_read() {
        let configuration = |bundle: &str| -> DynamicObject {
            let read = json!({
                "metadata": {"name": NAME, "resourceVersion": "7"},
                "webhooks": [{"clientConfig": {"caBundle": bundle}}, {"clientConfig": {}}]
            });
            serde_json::from_value(read).unwrap()
        };
        let bundle = with_ca("", &certificate("one")).unwrap();
        let patch = serde_json::to_value(missing_bundles(&configuration(&bundle), &certificate("one"))).unwrap();
        assert_eq!(patch[0], json!({"op": "test", "path": "/metadata/resourceVersion", "value": "7"}));
        assert_eq!(patch[1], json!({"op": "add", "path": "/webhooks/1/clientConfig/caBundle", "value": bundle}));
        assert_eq!(patch[2], Value::Null);
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
