//! The way to the cluster.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use kube::Client;
use kube::api::{Api, DynamicObject, ListParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::Value;
use tracing::debug;

/// Connects to the cluster of a kubeconfig, or else of the environment.
pub(super) async fn connect(kubeconfig: Option<PathBuf>) -> anyhow::Result<Client> {
    let config = match kubeconfig {
        Some(path) => {
            let read = Kubeconfig::read_from(&path).with_context(|| format!("cannot read {}", path.display()))?;
            kube::Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await?
        }
        None => kube::Config::infer().await.context("cannot find a cluster: set KUBECONFIG or give --kubeconfig")?,
    };
    let url = config.cluster_url.clone();
    let client = Client::try_from(config).context("cannot connect to the cluster")?;
    let version = client.apiserver_version().await.with_context(|| format!("cannot reach the API server at {url}"))?;
    debug!(version = version.git_version, "connected");
    Ok(client)
}

pub(super) fn resource(group: &str, version: &str, kind: &str) -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind))
}

/// Returns the kind of workload that people mean by a word, such as `deploy`.
pub(super) fn workload_kind(word: &str) -> anyhow::Result<&'static str> {
    match word.to_lowercase().as_str() {
        "deployment" | "deployments" | "deploy" | "deployment.apps" => Ok("Deployment"),
        "statefulset" | "statefulsets" | "sts" | "statefulset.apps" => Ok("StatefulSet"),
        other => bail!("`{other}` is no kind of model server; write deployment/NAME or statefulset/NAME"),
    }
}

/// Returns all objects of a kind, in a namespace or of the whole cluster.
pub(super) async fn list(
    client: &Client,
    (group, version, kind): (&str, &str, &str),
    namespace: Option<&str>,
) -> anyhow::Result<Vec<Value>> {
    let resource = resource(group, version, kind);
    let api: Api<DynamicObject> = match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    let found = api.list(&ListParams::default()).await.with_context(|| format!("cannot read the {kind} objects"))?;
    found.into_iter().map(|object| json(object, &resource.api_version, kind)).collect()
}

/// Returns all policies of the cluster.
pub(super) async fn policies_of(client: &Client) -> anyhow::Result<Vec<Value>> {
    list(client, ("tidegate.dev", "v1alpha1", "ServingPolicy"), None).await
}

/// Returns the JSON of an object, with its kind, which lists leave out.
pub(super) fn json(object: DynamicObject, version: &str, kind: &str) -> anyhow::Result<Value> {
    let mut value = serde_json::to_value(object)?;
    value["apiVersion"] = version.into();
    value["kind"] = kind.into();
    Ok(value)
}
