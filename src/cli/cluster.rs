//! The way to the cluster.

use std::path::PathBuf;

use anyhow::Context as _;
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{ApiResource, GroupVersionKind};
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
