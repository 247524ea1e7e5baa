//! Applies, updates and deletes the webhook configurations of a cluster.

use std::time::Duration;

use axum::http::Uri;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures::{StreamExt as _, stream};
use json_patch::{AddOperation, Patch as JsonPatch, PatchOperation, TestOperation, jsonptr::PointerBuf};
use kube::Client;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, Preconditions};

use kube::core::{ApiResource, GroupVersionKind};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt as _, watcher as watch};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tracing::{info, warn};

use super::NAME;
use crate::report;
use tidegate_engine::companions::{MANAGER, contains};

/// Why the webhook configurations cannot be registered.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// The API server refused a change.
    #[error("cannot {verb} the {kind} `{NAME}`")]
    Refused {
        /// The attempted change.
        verb: &'static str,
        /// The kind of configuration.
        kind: String,
        /// The error of the API server.
        source: Box<kube::Error>,
    },
    /// They point to another Tidegate that is running.
    #[error(
        "{kind} `{NAME}` points to another Tidegate at {url}: stop that one, or delete the configuration if it is gone"
    )]
    Taken {
        /// The kind of configuration.
        kind: &'static str,
        /// The URL that it points to.
        url: String,
    },
    /// There is no configuration to add the `caBundle` to.
    #[error("{kind} `{NAME}` not found: apply manifests/ first, or pass --webhook-url")]
    Missing {
        /// The kind of configuration.
        kind: &'static str,
    },
}

impl RegisterError {
    /// Returns whether the configuration was changed concurrently.
    fn is_conflict(&self) -> bool {
        let Self::Refused { source, .. } = self else { return false };
        matches!(&**source, kube::Error::Api(status) if matches!(status.code, 409 | 422))
    }
}

/// A replica of Tidegate, as registered with the API server.
#[derive(Clone, Copy, Debug)]
pub struct Replica<'a> {
    /// The URL that it shares with other replicas, without a path; none if the Service of the manifests is used.
    pub url: Option<&'a str>,
    /// The CA of its certificate.
    pub ca_pem: &'a str,
    /// Its unique name.
    pub identity: &'a str,
}

/// Annotation on configurations with a URL: the name of the only replica that ever served them, or [`SEVERAL`].
const SERVED_BY_ANNOTATION: &str = "tidegate.dev/served-by";

/// The value of the annotation once more than one replica has served the configurations.
const SEVERAL: &str = "several";

/// How often to retry after a conflict with another replica.
const MAX_RETRIES: u32 = 10;

/// The most CAs in a `caBundle`. A replica that is killed leaves its CA behind.
const MOST_CAS: usize = 16;

/// The end of a certificate in a PEM file.
const PEM_END: &str = "-----END CERTIFICATE-----";

const KINDS: [&str; 2] = ["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"];

/// Applies the configurations with the replica's URL. Fails if they point to another Tidegate that is running; keeps
/// the CAs of other replicas behind the same URL.
pub async fn apply(client: &Client, configurations: &[Value], replica: &Replica<'_>) -> Result<(), RegisterError> {
    for kind in KINDS {
        let others = get(client, kind).await?.filter(|found| !is_for(found, replica.url));
        if let Some(url) = others.as_ref().and_then(url_of)
            && is_listening(&url).await
        {
            return Err(RegisterError::Taken { kind, url });
        }
    }
    for configuration in configurations {
        let kind = configuration["kind"].as_str().unwrap_or_default();
        retry_on_conflict(async || apply_kind(client, kind, configuration, replica).await).await?;
    }
    Ok(())
}

async fn apply_kind(
    client: &Client,
    kind: &str,
    configuration: &Value,
    replica: &Replica<'_>,
) -> Result<(), RegisterError> {
    let found = get(client, kind).await?;
    let configuration = shared(configuration.clone(), found.as_ref(), replica);
    if found.and_then(|found| serde_json::to_value(found).ok()).is_some_and(|found| contains(&found, &configuration)) {
        return Ok(());
    }
    let parameters = PatchParams::apply(MANAGER).force();
    let applied = api(client, kind).patch(NAME, &parameters, &Patch::Apply(&configuration)).await;
    applied.map_err(|source| refused("apply", kind, source))?;
    info!(kind, name = NAME, "applied a webhook configuration");
    Ok(())
}

/// Returns a configuration of a replica, with the CAs and the annotation of other replicas from the existing one, and
/// with the terms that others have added to its namespace selectors. Its resourceVersion makes the update fail if the
/// existing one has changed.
fn shared(mut configuration: Value, found: Option<&DynamicObject>, replica: &Replica) -> Value {
    let own = found.filter(|found| is_for(found, replica.url));
    let known = own.map(bundle_of).unwrap_or_default();
    let bundle = with_ca(known, replica.ca_pem).unwrap_or_else(|| known.to_owned());
    for webhook in configuration.get_mut("webhooks").and_then(Value::as_array_mut).into_iter().flatten() {
        webhook["clientConfig"]["caBundle"] = bundle.clone().into();
        keep_namespace_terms(webhook, found);
    }
    let is_first = own.is_none_or(|found| served_by(found) == Some(replica.identity));
    let served_by = if is_first { replica.identity } else { SEVERAL };
    configuration["metadata"]["annotations"][SERVED_BY_ANNOTATION] = served_by.into();
    if let Some(version) = found.and_then(|found| found.metadata.resource_version.clone()) {
        configuration["metadata"]["resourceVersion"] = version.into();
    }
    configuration
}

/// Adds the terms of an existing webhook's namespace selector that are about other labels. Managed clusters add such
/// terms to every webhook, and add them again whenever they are removed.
///
/// <https://github.com/Azure/AKS/issues/4002>
fn keep_namespace_terms(webhook: &mut Value, found: Option<&DynamicObject>) {
    let existing = found.and_then(|found| found.data["webhooks"].as_array()).into_iter().flatten();
    let same = existing.filter(|existing| existing["name"] == webhook["name"]);
    let terms = same.filter_map(|same| same["namespaceSelector"]["matchExpressions"].as_array()).flatten();
    let own = webhook["namespaceSelector"]["matchExpressions"].as_array().map_or(&[][..], Vec::as_slice);
    let is_foreign = |term: &&Value| own.iter().all(|own| own["key"] != term["key"]);
    let foreign: Vec<Value> = terms.filter(is_foreign).cloned().collect();
    if let Some(expressions) = webhook["namespaceSelector"]["matchExpressions"].as_array_mut() {
        expressions.extend(foreign);
    }
}

/// Deletes the configurations with the replica's URL, unless another replica serves them; `is_served` is called if
/// there may be one. Returns whether they are kept. Configurations that are gone or point elsewhere are ignored.
pub async fn delete(
    client: &Client,
    replica: &Replica<'_>,
    is_served: impl AsyncFn() -> bool,
) -> Result<bool, RegisterError> {
    let mut is_kept = false;
    retry_on_conflict(async || {
        let found = ours(client, replica).await?;
        is_kept = found.iter().any(|(_, found)| may_have_others(found, replica)) && is_served().await;
        if !is_kept {
            delete_found(client, found).await?;
        }
        Ok(())
    })
    .await?;
    Ok(is_kept)
}

/// Returns the configurations that point to the replica.
async fn ours(client: &Client, replica: &Replica<'_>) -> Result<Vec<(&'static str, DynamicObject)>, RegisterError> {
    let mut ours = Vec::new();
    for kind in KINDS {
        let found = get(client, kind).await?.filter(|found| is_for(found, replica.url));
        ours.extend(found.map(|found| (kind, found)));
    }
    Ok(ours)
}

/// Deletes configurations unless they have changed since they were read: another replica may serve them now.
async fn delete_found(client: &Client, found: Vec<(&'static str, DynamicObject)>) -> Result<(), RegisterError> {
    for (kind, found) in found {
        let preconditions =
            Preconditions { resource_version: found.metadata.resource_version, uid: found.metadata.uid };
        let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        match api(client, kind).delete(NAME, &parameters).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            result => drop(result.map_err(|source| refused("delete", kind, source))?),
        }
        info!(kind, name = NAME, "deleted a webhook configuration");
    }
    Ok(())
}

/// Removes the CA of a replica that has stopped from the configurations that other replicas serve.
pub async fn remove_ca(client: &Client, replica: &Replica<'_>) -> Result<(), RegisterError> {
    retry_on_conflict(async || {
        for (kind, found) in ours(client, replica).await? {
            let bundles = bundles(&found, |bundle| without_ca(bundle, replica.ca_pem)).collect();
            change(client, kind, &found, bundles, "remove the CA from").await?;
        }
        Ok(())
    })
    .await
}

/// Adds the replica's CA to the configurations that point to it, next to those of other replicas.
pub async fn fill_in(client: &Client, replica: &Replica<'_>) -> Result<(), RegisterError> {
    for kind in KINDS {
        retry_on_conflict(async || fill_in_kind(client, kind, replica).await).await?;
    }
    Ok(())
}

async fn fill_in_kind(client: &Client, kind: &'static str, replica: &Replica<'_>) -> Result<(), RegisterError> {
    let found = get(client, kind).await?.ok_or(RegisterError::Missing { kind })?;
    match url_of(&found) {
        Some(url) if !is_for(&found, replica.url) => Err(RegisterError::Taken { kind, url }),
        _ => change(client, kind, &found, missing(&found, replica), "add the caBundle to").await,
    }
}

/// Adds the CA again whenever it is removed from the configurations, while it is polled.
pub async fn keep_filled_in(client: &Client, replica: &Replica<'_>) {
    let only = watcher::Config::default().fields(&format!("metadata.name={NAME}"));
    let follow = |kind| watch(api(client, kind), only.clone()).default_backoff().boxed();
    let mut events = stream::select_all(KINDS.map(follow));
    while let Some(event) = events.next().await {
        let Ok(Event::Apply(found) | Event::InitApply(found)) = event else { continue };
        if is_for(&found, replica.url)
            && !missing(&found, replica).is_empty()
            && let Err(error) = fill_in(client, replica).await
        {
            warn!(error = report::chain(&error), "cannot add the caBundle");
        }
    }
}

/// Retries after a conflict.
async fn retry_on_conflict(mut attempt: impl AsyncFnMut() -> Result<(), RegisterError>) -> Result<(), RegisterError> {
    let mut retries = 0;
    loop {
        match attempt().await {
            Err(error) if error.is_conflict() && retries < MAX_RETRIES => retries += 1,
            result => return result,
        }
    }
}

/// Patches a configuration unless it has changed since it was read.
async fn change(
    client: &Client,
    kind: &str,
    found: &DynamicObject,
    operations: Vec<PatchOperation>,
    verb: &'static str,
) -> Result<(), RegisterError> {
    if operations.is_empty() {
        return Ok(());
    }
    let path = PointerBuf::from_tokens(["metadata", "resourceVersion"]);
    let as_read = found.metadata.resource_version.clone().map(|version| TestOperation { path, value: version.into() });
    let patch = JsonPatch(as_read.map(PatchOperation::Test).into_iter().chain(operations).collect());
    let changed = api(client, kind).patch(NAME, &PatchParams::default(), &Patch::Json::<()>(patch)).await;
    changed.map_err(|source| refused(verb, kind, source))?;
    info!(kind, name = NAME, "changed the caBundle");
    Ok(())
}

/// Returns the operations that add the replica's CA to every webhook of a configuration, and mark it as served by
/// several replicas if another is named as the only one.
fn missing(configuration: &DynamicObject, replica: &Replica) -> Vec<PatchOperation> {
    let mut missing: Vec<PatchOperation> = bundles(configuration, |bundle| with_ca(bundle, replica.ca_pem)).collect();
    if replica.url.is_some() && ![Some(replica.identity), Some(SEVERAL)].contains(&served_by(configuration)) {
        missing.push(mark(configuration));
    }
    missing
}

/// Returns the operations that change the `caBundle` of each webhook, for those where `change` returns a new one.
fn bundles(
    configuration: &DynamicObject,
    change: impl Fn(&str) -> Option<String>,
) -> impl Iterator<Item = PatchOperation> {
    let webhooks = configuration.data["webhooks"].as_array().map_or(&[][..], Vec::as_slice);
    webhooks.iter().enumerate().filter_map(move |(index, webhook)| {
        let bundle = change(webhook["clientConfig"]["caBundle"].as_str().unwrap_or_default())?;
        let path = PointerBuf::from_tokens(["webhooks", &index.to_string(), "clientConfig", "caBundle"]);
        Some(PatchOperation::Add(AddOperation { path, value: bundle.into() }))
    })
}

/// Returns the operation that marks a configuration as served by several replicas.
fn mark(configuration: &DynamicObject) -> PatchOperation {
    let (path, value) = match configuration.metadata.annotations {
        Some(_) => (vec!["metadata", "annotations", SERVED_BY_ANNOTATION], SEVERAL.into()),
        None => (vec!["metadata", "annotations"], json!({SERVED_BY_ANNOTATION: SEVERAL})),
    };
    PatchOperation::Add(AddOperation { path: PointerBuf::from_tokens(path), value })
}

fn served_by(configuration: &DynamicObject) -> Option<&str> {
    configuration.metadata.annotations.as_ref()?.get(SERVED_BY_ANNOTATION).map(String::as_str)
}

/// Returns whether a configuration may have other replicas, by its annotation or its CAs. A killed replica leaves both
/// behind; replicas with the same CA differ only by name.
fn may_have_others(configuration: &DynamicObject, replica: &Replica) -> bool {
    served_by(configuration) != Some(replica.identity) || without_ca(bundle_of(configuration), replica.ca_pem).is_some()
}

fn bundle_of(configuration: &DynamicObject) -> &str {
    configuration.data["webhooks"][0]["clientConfig"]["caBundle"].as_str().unwrap_or_default()
}

/// Returns a `caBundle` with this CA appended; none if it is there already. Drops the oldest CAs above the limit.
fn with_ca(bundle: &str, ca_pem: &str) -> Option<String> {
    let (mut all, own) = (in_bundle(bundle), certificates(ca_pem));
    if own.iter().all(|certificate| all.contains(certificate)) {
        return None;
    }
    all.retain(|certificate| !own.contains(certificate));
    all.drain(..(all.len() + own.len()).saturating_sub(MOST_CAS).min(all.len()));
    all.extend(own);
    Some(as_bundle(&all))
}

/// Returns a `caBundle` without this CA; none if it is not there, or is the only one.
fn without_ca(bundle: &str, ca_pem: &str) -> Option<String> {
    let (all, own) = (in_bundle(bundle), certificates(ca_pem));
    let others: Vec<String> = all.iter().filter(|certificate| !own.contains(certificate)).cloned().collect();
    (!others.is_empty() && others.len() < all.len()).then(|| as_bundle(&others))
}

fn in_bundle(bundle: &str) -> Vec<String> {
    let decoded = BASE64_STANDARD.decode(bundle).unwrap_or_default();
    certificates(&String::from_utf8_lossy(&decoded))
}

fn as_bundle(certificates: &[String]) -> String {
    BASE64_STANDARD.encode(certificates.join("\n") + "\n")
}

fn certificates(pem: &str) -> Vec<String> {
    let blocks = pem.split_inclusive(PEM_END).filter(|block| block.contains(PEM_END));
    blocks.map(|block| block.trim().to_owned()).collect()
}

async fn get(client: &Client, kind: &str) -> Result<Option<DynamicObject>, RegisterError> {
    api(client, kind).get_opt(NAME).await.map_err(|source| refused("read", kind, source))
}

/// Returns the URL of the first webhook of a configuration; none if it uses a Service.
fn url_of(configuration: &DynamicObject) -> Option<String> {
    configuration.data["webhooks"][0]["clientConfig"]["url"].as_str().map(str::to_owned)
}

/// Returns whether a configuration points to this URL, or to a Service if there is none.
fn is_for(configuration: &DynamicObject, url: Option<&str>) -> bool {
    match (url_of(configuration), url) {
        (Some(found), Some(url)) => is_below(&found, url),
        (found, url) => found.is_none() && url.is_none(),
    }
}

/// Returns whether a webhook's URL is a path below the server's URL.
fn is_below(webhook: &str, server: &str) -> bool {
    webhook.strip_prefix(server).is_some_and(|path| path.starts_with('/'))
}

/// Returns whether a server listens at a URL: configurations left by a killed Tidegate are replaced.
async fn is_listening(url: &str) -> bool {
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
    fn matches_webhook_urls_below_the_server_url() {
        assert!(is_below("https://127.0.0.1:8443/mutate", "https://127.0.0.1:8443"));
        assert!(!is_below("https://127.0.0.1:84430/mutate", "https://127.0.0.1:8443"));
    }

    fn certificate(name: &str) -> String {
        format!("-----BEGIN CERTIFICATE-----\n{name}\n{PEM_END}\n")
    }

    #[test]
    fn bundle_contains_the_ca_of_every_replica() {
        let decoded = |bundle: &str| String::from_utf8(BASE64_STANDARD.decode(bundle).unwrap()).unwrap();
        let one = with_ca("", &certificate("one")).unwrap();
        assert_eq!(decoded(&one), certificate("one"));
        let both = with_ca(&one, &certificate("two")).unwrap();
        assert_eq!(decoded(&both), certificate("one") + &certificate("two"));
        assert_eq!(with_ca(&both, &certificate("one")), None);
        assert_eq!(with_ca(&both, &certificate("two")), None);
    }

    #[test]
    fn drops_the_oldest_cas_of_a_full_bundle() {
        let name = |number: usize| certificate(&format!("ca-{number}"));
        let bundle = (0..MOST_CAS + 3).fold(String::new(), |bundle, number| with_ca(&bundle, &name(number)).unwrap());
        let text = String::from_utf8(BASE64_STANDARD.decode(&bundle).unwrap()).unwrap();
        assert_eq!(text.matches(PEM_END).count(), MOST_CAS);
        assert!(text.starts_with(&name(3)) && text.ends_with(&name(MOST_CAS + 2)));
        let whole = (0..MOST_CAS + 3).map(name).collect::<String>();
        assert!(with_ca(&bundle, &whole).is_some(), "a file with more CAs is added whole");
    }

    #[test]
    fn removes_a_ca_only_if_others_remain() {
        let name = |number: usize| certificate(&format!("ca-{number}"));
        let bundle = (1..=2).fold(String::new(), |bundle, number| with_ca(&bundle, &name(number)).unwrap());
        assert_eq!(without_ca(&bundle, &name(1)), with_ca("", &name(2)));
        assert_eq!(without_ca(&bundle, &name(3)), None, "it is not there");
        assert_eq!(
            without_ca(&bundle, &(name(1) + &name(2))),
            None,
            "without one, any CA of the system would be trusted"
        );
    }

    const URL: &str = "https://127.0.0.1:8443";

    /// A configuration with this URL, or a Service, and this `caBundle`.
    fn configuration(url: Option<&str>, served_by: Option<&str>, bundle: &str) -> DynamicObject {
        let mut client_config = json!({"caBundle": bundle});
        if let Some(url) = url {
            client_config["url"] = format!("{url}/mutate").into();
        }
        let mut read = json!({
            "metadata": {"name": NAME, "resourceVersion": "7"},
            "webhooks": [{"clientConfig": client_config}, {"clientConfig": {}}]
        });
        if let Some(served_by) = served_by {
            read["metadata"]["annotations"] = json!({SERVED_BY_ANNOTATION: served_by});
        }
        serde_json::from_value(read).unwrap()
    }

    fn replica<'a>(url: Option<&'a str>, identity: &'a str, ca_pem: &'a str) -> Replica<'a> {
        Replica { url, ca_pem, identity }
    }

    #[test]
    fn adds_only_missing_cas() {
        let one = certificate("one");
        let bundle = with_ca("", &one).unwrap();
        let patch = missing(&configuration(None, None, &bundle), &replica(None, "one", &one));
        let patch = serde_json::to_value(patch).unwrap();
        assert_eq!(patch, json!([{"op": "add", "path": "/webhooks/1/clientConfig/caBundle", "value": bundle}]));
    }

    #[test]
    fn marks_a_configuration_that_names_another_replica_as_served_by_several() {
        let one = certificate("one");
        let marked = |served_by: Option<&str>| {
            let patch = missing(&configuration(Some(URL), served_by, ""), &replica(Some(URL), "one", &one));
            serde_json::to_value(patch).unwrap()[2]["value"].clone()
        };
        assert_eq!((marked(Some("one")), marked(Some(SEVERAL))), (Value::Null, Value::Null));
        assert_eq!(marked(Some("two")), SEVERAL);
        assert_eq!(marked(None), json!({SERVED_BY_ANNOTATION: SEVERAL}));
    }

    #[test]
    fn replicas_behind_one_url_keep_each_others_ca() {
        let (one, two) = (certificate("one"), certificate("two"));
        let own =
            json!({"metadata": {"name": NAME}, "webhooks": [{"clientConfig": {"url": "u"}}, {"clientConfig": {}}]});
        let of = |found: Option<&DynamicObject>, identity: &str| {
            let applied = shared(own.clone(), found, &replica(Some(URL), identity, &two));
            let bundles = [0, 1].map(|index| applied["webhooks"][index]["clientConfig"]["caBundle"].clone());
            assert_eq!(bundles[0], bundles[1]);
            let metadata = &applied["metadata"];
            let served_by = metadata["annotations"][SERVED_BY_ANNOTATION].as_str().unwrap().to_owned();
            (in_bundle(bundles[0].as_str().unwrap()).len(), served_by, metadata["resourceVersion"].clone())
        };
        let bundle = with_ca("", &one).unwrap();
        assert_eq!(of(None, "two"), (1, "two".to_owned(), Value::Null));
        let beside = configuration(Some(URL), Some("one"), &bundle);
        assert_eq!(of(Some(&beside), "two"), (2, SEVERAL.to_owned(), "7".into()));
        assert_eq!(of(Some(&beside), "one"), (2, "one".to_owned(), "7".into()), "it restarted under the same name");
        let elsewhere = configuration(Some("https://127.0.0.1:1"), Some("one"), &bundle);
        assert_eq!(
            of(Some(&elsewhere), "two"),
            (1, "two".to_owned(), "7".into()),
            "a replica at another URL is not trusted"
        );
        assert_eq!(of(Some(&configuration(None, None, &bundle)), "two"), (1, "two".to_owned(), "7".into()));
    }

    #[test]
    fn keeps_terms_that_others_added_to_a_namespace_selector() {
        let term = |key: &str, values: Value| json!({"key": key, "operator": "NotIn", "values": values});
        let webhook = |terms: &[&Value]| json!({"name": "workloads", "clientConfig": {}, "namespaceSelector": {"matchExpressions": terms}});
        let (own, outdated) = (term("name", json!(["a", "b"])), term("name", json!(["a"])));
        let foreign = term("control-plane", json!(["true"]));
        let found = json!({"metadata": {"name": NAME}, "webhooks": [webhook(&[&outdated, &foreign])]});
        let found: DynamicObject = serde_json::from_value(found).unwrap();
        let applied = |found: Option<&DynamicObject>| {
            let configuration = json!({"metadata": {"name": NAME}, "webhooks": [webhook(&[&own])]});
            let mut applied = shared(configuration, found, &replica(Some(URL), "one", &certificate("one")));
            applied["webhooks"][0]["namespaceSelector"]["matchExpressions"].take()
        };
        assert_eq!(applied(None), json!([own]));
        assert_eq!(applied(Some(&found)), json!([own, foreign]));
    }

    #[test]
    fn has_no_other_replicas_if_name_and_ca_are_its_own() {
        let (one, two) = (certificate("one"), certificate("two"));
        let own = with_ca("", &one).unwrap();
        let both = with_ca(&own, &two).unwrap();
        let may = |served_by: Option<&str>, bundle: &str| {
            may_have_others(&configuration(Some(URL), served_by, bundle), &replica(Some(URL), "one", &one))
        };
        assert!(!may(Some("one"), &own));
        assert!(may(Some("one"), &both) && may(Some(SEVERAL), &own) && may(Some("two"), &own) && may(None, &own));
    }

    #[tokio::test]
    async fn a_server_is_listening_until_it_is_dropped() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}/mutate", listener.local_addr().unwrap());
        assert!(is_listening(&url).await);
        drop(listener);
        assert!(!is_listening(&url).await);
    }
}
