//! Makes, fills in and removes the webhook configurations of a cluster.

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

/// A replica of Tidegate, as the API server is to ask it.
#[derive(Clone, Copy, Debug)]
pub struct Replica<'a> {
    /// The URL that leads to it and to its like, without a path; none where the Service of the manifests does.
    pub url: Option<&'a str>,
    /// The CA of its certificate.
    pub ca_pem: &'a str,
    /// Its name, which no other has.
    pub identity: &'a str,
}

/// Annotation on configurations that lead to a URL: the name of the only replica that was ever asked by them, or [`SEVERAL`].
const SERVED_BY_ANNOTATION: &str = "tidegate.dev/served-by";

/// What stands there as soon as there has been another.
const SEVERAL: &str = "several";

/// How often another may be faster: replicas start together, but not that many.
const MOST_RACES: u32 = 10;

/// How many CAs a `caBundle` has at most. A replica that is killed leaves its own behind, for nobody can tell.
const MOST_CAS: usize = 16;

/// How a certificate ends in a PEM file.
const PEM_END: &str = "-----END CERTIFICATE-----";

const KINDS: [&str; 2] = ["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"];

/// Makes the configurations that lead to the replica's URL, or takes back what was changed in them. Those of another Tidegate
/// that answers stay; other replicas that are asked by the same ones are trusted as before.
pub async fn apply(client: &Client, configurations: &[Value], replica: &Replica<'_>) -> Result<(), RegisterError> {
    for kind in KINDS {
        let others = get(client, kind).await?.filter(|found| !is_for(found, replica.url));
        if let Some(url) = others.as_ref().and_then(url_of)
            && answers(&url).await
        {
            return Err(RegisterError::Taken { kind, url });
        }
    }
    for configuration in configurations {
        let kind = configuration["kind"].as_str().unwrap_or_default();
        unless_lost_race(async || apply_kind(client, kind, configuration, replica).await).await?;
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

/// Returns a configuration of a replica, with what the one that is there says of other replicas that it leads to. It takes the
/// place of that one as it was read, and of no other.
fn shared(mut configuration: Value, found: Option<&DynamicObject>, replica: &Replica) -> Value {
    let ours = found.filter(|found| is_for(found, replica.url));
    let known = ours.map(bundle_of).unwrap_or_default();
    let bundle = with_ca(known, replica.ca_pem).unwrap_or_else(|| known.to_owned());
    for webhook in configuration.get_mut("webhooks").and_then(Value::as_array_mut).into_iter().flatten() {
        webhook["clientConfig"]["caBundle"] = bundle.clone().into();
    }
    let is_first = ours.is_none_or(|found| served_by(found) == Some(replica.identity));
    let served_by = if is_first { replica.identity } else { SEVERAL };
    configuration["metadata"]["annotations"][SERVED_BY_ANNOTATION] = served_by.into();
    if let Some(version) = found.and_then(|found| found.metadata.resource_version.clone()) {
        configuration["metadata"]["resourceVersion"] = version.into();
    }
    configuration
}

/// Removes the configurations that lead to the replica's URL, unless another replica serves them; `is_served` finds out, and is
/// asked where there may be another. Tells whether they stay. What has gone already, or leads elsewhere by now, is no error.
pub async fn remove(
    client: &Client,
    replica: &Replica<'_>,
    is_served: impl AsyncFn() -> bool,
) -> Result<bool, RegisterError> {
    let mut stays = false;
    unless_lost_race(async || {
        let found = ours(client, replica).await?;
        stays = found.iter().any(|(_, found)| may_have_others(found, replica)) && is_served().await;
        if !stays {
            delete(client, found).await?;
        }
        Ok(())
    })
    .await?;
    Ok(stays)
}

/// Returns the configurations that lead to the replica.
async fn ours(client: &Client, replica: &Replica<'_>) -> Result<Vec<(&'static str, DynamicObject)>, RegisterError> {
    let mut ours = Vec::new();
    for kind in KINDS {
        let found = get(client, kind).await?.filter(|found| is_for(found, replica.url));
        ours.extend(found.map(|found| (kind, found)));
    }
    Ok(ours)
}

/// Deletes configurations as they were read: a replica that has begun to serve them meanwhile has changed them.
async fn delete(client: &Client, found: Vec<(&'static str, DynamicObject)>) -> Result<(), RegisterError> {
    for (kind, found) in found {
        let preconditions =
            Preconditions { resource_version: found.metadata.resource_version, uid: found.metadata.uid };
        let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        match api(client, kind).delete(NAME, &parameters).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            result => drop(result.map_err(|source| refused("remove", kind, source))?),
        }
        info!(kind, name = NAME, "removed a webhook configuration");
    }
    Ok(())
}

/// Takes the CA of a replica that has stopped out of the configurations that other replicas serve.
pub async fn take_out(client: &Client, replica: &Replica<'_>) -> Result<(), RegisterError> {
    unless_lost_race(async || {
        for (kind, found) in ours(client, replica).await? {
            let bundles = bundles(&found, |bundle| without_ca(bundle, replica.ca_pem)).collect();
            change(client, kind, &found, bundles, "take the CA out of").await?;
        }
        Ok(())
    })
    .await
}

/// Fills the CA into the configurations that lead to the replica, beside those of other replicas.
pub async fn fill_in(client: &Client, replica: &Replica<'_>) -> Result<(), RegisterError> {
    for kind in KINDS {
        unless_lost_race(async || fill_in_kind(client, kind, replica).await).await?;
    }
    Ok(())
}

async fn fill_in_kind(client: &Client, kind: &'static str, replica: &Replica<'_>) -> Result<(), RegisterError> {
    let found = get(client, kind).await?.ok_or(RegisterError::Missing { kind })?;
    match url_of(&found) {
        Some(url) if !is_for(&found, replica.url) => Err(RegisterError::Taken { kind, url }),
        _ => change(client, kind, &found, missing(&found, replica), "fill the caBundle into").await,
    }
}

/// Fills the CA in again whenever it is taken out of the configurations, for as long as it is polled.
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
            warn!(error = report::chain(&error), "the caBundle could not be filled in");
        }
    }
}

/// Tries again where somebody else was faster.
async fn unless_lost_race(mut attempt: impl AsyncFnMut() -> Result<(), RegisterError>) -> Result<(), RegisterError> {
    let mut races = 0;
    loop {
        match attempt().await {
            Err(error) if error.is_lost_race() && races < MOST_RACES => races += 1,
            result => return result,
        }
    }
}

/// Changes a configuration as it was read: what others change at the same time is not overwritten.
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

/// Returns the operations that make every webhook of a configuration trust the replica too, and tell that there are several
/// where another has written itself down as the only one.
fn missing(configuration: &DynamicObject, replica: &Replica) -> Vec<PatchOperation> {
    let mut missing: Vec<PatchOperation> = bundles(configuration, |bundle| with_ca(bundle, replica.ca_pem)).collect();
    if replica.url.is_some() && ![Some(replica.identity), Some(SEVERAL)].contains(&served_by(configuration)) {
        missing.push(mark(configuration));
    }
    missing
}

/// Returns the operations that make something else of the `caBundle` of each webhook, where it is to be something else.
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

/// Returns the operation that tells that several replicas serve a configuration.
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

/// Tells whether a configuration says that it may lead to other replicas too. One that was killed has left its name and its CA
/// behind; one whose CA is the same may be known by its name alone.
fn may_have_others(configuration: &DynamicObject, replica: &Replica) -> bool {
    served_by(configuration) != Some(replica.identity) || without_ca(bundle_of(configuration), replica.ca_pem).is_some()
}

fn bundle_of(configuration: &DynamicObject) -> &str {
    configuration.data["webhooks"][0]["clientConfig"]["caBundle"].as_str().unwrap_or_default()
}

/// Returns a `caBundle` with this CA at its end; none where it is there. The oldest give way.
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

/// Returns a `caBundle` without this CA; none where it is not there, or is all that there is.
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

/// Where the first webhook of a configuration leads, unless it leads to a Service.
fn url_of(configuration: &DynamicObject) -> Option<String> {
    configuration.data["webhooks"][0]["clientConfig"]["url"].as_str().map(str::to_owned)
}

/// Tells whether a configuration leads to a URL, or to a Service where there is none.
fn is_for(configuration: &DynamicObject, url: Option<&str>) -> bool {
    match (url_of(configuration), url) {
        (Some(found), Some(url)) => leads_to(&found, url),
        (found, url) => found.is_none() && url.is_none(),
    }
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
    fn a_ca_is_taken_out_beside_others_only() {
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

    /// What leads to this URL, or to a Service, with this `caBundle`, as it is read.
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
    fn what_is_filled_in_is_what_is_missing() {
        let one = certificate("one");
        let bundle = with_ca("", &one).unwrap();
        let patch = missing(&configuration(None, None, &bundle), &replica(None, "one", &one));
        let patch = serde_json::to_value(patch).unwrap();
        assert_eq!(patch, json!([{"op": "add", "path": "/webhooks/1/clientConfig/caBundle", "value": bundle}]));
    }

    #[test]
    fn a_replica_that_finds_another_written_down_as_the_only_one_tells_that_there_are_several() {
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
    fn replicas_that_are_led_to_by_one_url_keep_each_others_ca() {
        let (one, two) = (certificate("one"), certificate("two"));
        let own =
            json!({"metadata": {"name": NAME}, "webhooks": [{"clientConfig": {"url": "u"}}, {"clientConfig": {}}]});
        let of = |found: Option<&DynamicObject>, identity: &str| {
            let made = shared(own.clone(), found, &replica(Some(URL), identity, &two));
            let bundles = [0, 1].map(|index| made["webhooks"][index]["clientConfig"]["caBundle"].clone());
            assert_eq!(bundles[0], bundles[1]);
            let metadata = &made["metadata"];
            let served_by = metadata["annotations"][SERVED_BY_ANNOTATION].as_str().unwrap().to_owned();
            (in_bundle(bundles[0].as_str().unwrap()).len(), served_by, metadata["resourceVersion"].clone())
        };
        let bundle = with_ca("", &one).unwrap();
        assert_eq!(of(None, "two"), (1, "two".to_owned(), Value::Null));
        let beside = configuration(Some(URL), Some("one"), &bundle);
        assert_eq!(of(Some(&beside), "two"), (2, SEVERAL.to_owned(), "7".into()));
        assert_eq!(of(Some(&beside), "one"), (2, "one".to_owned(), "7".into()), "it has come back under its name");
        let elsewhere = configuration(Some("https://127.0.0.1:1"), Some("one"), &bundle);
        assert_eq!(of(Some(&elsewhere), "two"), (1, "two".to_owned(), "7".into()), "what has gone is not trusted");
        assert_eq!(of(Some(&configuration(None, None, &bundle)), "two"), (1, "two".to_owned(), "7".into()));
    }

    #[test]
    fn a_replica_is_alone_where_neither_name_nor_ca_is_anothers() {
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
    async fn a_server_answers_while_it_listens() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}/mutate", listener.local_addr().unwrap());
        assert!(answers(&url).await);
        drop(listener);
        assert!(!answers(&url).await);
    }
}
