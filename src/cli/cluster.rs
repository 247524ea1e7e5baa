//! Connects commands to a cluster, and reads the facts that the controller uses there.

use std::path::PathBuf;

use anyhow::Context as _;
use kube::Client;
use kube::api::{Api, DynamicObject, ListParams};
use kube::config::{KubeConfigOptions, Kubeconfig};

use serde_json::Value;
use tracing::{debug, warn};

use crate::controller::{metrics_served, resource};
use crate::manifests::Manifests;
use tidegate_engine::companions::database::offered_versions;
use tidegate_engine::companions::{self, Watched, database};
use tidegate_engine::facts::{Apis, INFERENCE_POOL, SCALED_OBJECT};
use tidegate_engine::kind::{self, KINDS, Kind};
use tidegate_engine::workload::Workload;

/// Connects to the cluster of a kubeconfig, or of the environment if there is none.
pub(super) async fn connect(kubeconfig: Option<PathBuf>) -> anyhow::Result<Client> {
    let config = match kubeconfig {
        Some(path) => {
            let read = Kubeconfig::read_from(&path).with_context(|| format!("cannot read {}", path.display()))?;
            kube::Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await?
        }
        None => kube::Config::infer().await.context("no cluster configured: set KUBECONFIG or pass --kubeconfig")?,
    };
    let url = config.cluster_url.clone();
    let client = Client::try_from(config).context("cannot connect to the cluster")?;
    let version = client.apiserver_version().await.with_context(|| format!("cannot reach the API server at {url}"))?;
    debug!(version = version.git_version, "connected");
    Ok(client)
}

/// Returns the kind of workload that a word stands for, such as `deploy`.
pub(super) fn workload_kind(word: &str) -> anyhow::Result<&'static Kind> {
    let accepted = || kind::any(|kind| format!("{}/NAME", kind.kind.to_lowercase()));
    let unknown = || format!("unknown kind of model server `{}`: must be {}", word.to_lowercase(), accepted());
    Kind::called(word).with_context(unknown)
}

/// Returns all workloads in a namespace, or in the whole cluster, that can be model servers, of the kinds that the
/// cluster serves.
pub(super) async fn workloads(client: &Client, namespace: Option<&str>) -> anyhow::Result<Vec<Value>> {
    let mut workloads = Vec::new();
    for kind in KINDS {
        let named = (kind.group, kind.version, kind.kind);
        if kind.is_built_in || is_served(client, named).await? {
            workloads.extend(list(client, named, namespace).await?);
        }
    }
    Ok(workloads)
}

/// Returns all objects of a kind in a namespace or in the whole cluster.
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
    let found = api.list(&ListParams::default()).await.with_context(|| format!("cannot list {kind} objects"))?;
    found.into_iter().map(|object| json(object, &resource.api_version, kind)).collect()
}

/// Returns all policies of the cluster.
pub(super) async fn policies_of(client: &Client) -> anyhow::Result<Vec<Value>> {
    list(client, ("tidegate.dev", "v1alpha1", "ServingPolicy"), None).await
}

/// Returns all policies of the cluster; none if Tidegate is not installed, or if the user may not list them.
pub(super) async fn policies_if_served(client: &Client) -> anyhow::Result<Vec<Value>> {
    match policies_of(client).await {
        Err(error) if is_status(&error, 404) || is_status(&error, 403) => Ok(Vec::new()),
        found => found,
    }
}

/// Returns an object as JSON with its apiVersion and kind, which lists leave out.
pub(super) fn json(object: DynamicObject, version: &str, kind: &str) -> anyhow::Result<Value> {
    let mut value = serde_json::to_value(object)?;
    value["apiVersion"] = version.into();
    value["kind"] = kind.into();
    Ok(value)
}

/// Reads what decisions about the workloads of a namespace depend on. The policies are those of the cluster, unless
/// `input` already has some.
pub(super) async fn read_around(client: &Client, namespace: &str, input: &mut Manifests) -> anyhow::Result<()> {
    let known: Api<DynamicObject> = Api::all_with(client.clone(), &resource("", "v1", "Namespace"));
    let found = known.get(namespace).await.with_context(|| format!("cannot read namespace {namespace}"))?;
    let mut objects = vec![json(found, "v1", "Namespace")?];
    if input.policies.is_empty() {
        objects.extend(policies_of(client).await?);
    }
    objects.extend(list(client, ("tidegate.dev", "v1alpha1", "ServingException"), Some(namespace)).await?);
    objects.extend(list(client, ("autoscaling", "v2", "HorizontalPodAutoscaler"), Some(namespace)).await?);
    let apis = apis(client).await?;
    let mut beside = vec![("", "v1", "PersistentVolumeClaim"), ("", "v1", "Service")];
    beside.extend(apis.keda.then_some(("keda.sh", "v1alpha1", SCALED_OBJECT)));
    beside.extend(is_served(client, INFERENCE_POOL).await?.then_some(INFERENCE_POOL));
    let mut served = apis;
    beside.extend(database::apis().filter(|api| *(api.served)(&mut served)).map(|api| api.kind));
    for kind in beside {
        objects.extend(list_if_allowed(client, kind, namespace).await?.unwrap_or_default());
    }
    for Watched { group, version, kind, begin, .. } in companions::watched() {
        let Some(found) = list_if_allowed(client, (group, version, kind), namespace).await? else { continue };
        begin(&mut input.facts);
        objects.extend(found);
    }
    for kind in KINDS.iter().filter(|kind| kind.template_reference.is_some()) {
        let named = (kind.group, kind.version, kind.kind);
        let served = is_served(client, named).await?;
        let found = if served { list_if_allowed(client, named, namespace).await? } else { None };
        for user in found.iter().flatten().filter_map(|object| Workload::view(object).ok()) {
            input.facts.note_template_user(&user.reference(), user.template_source().as_ref());
        }
    }
    for object in objects {
        input.add_text("the cluster", &object.to_string(), namespace)?;
    }
    input.facts.apis = apis;
    let definitions: Api<DynamicObject> =
        Api::all_with(client.clone(), &resource("apiextensions.k8s.io", "v1", "CustomResourceDefinition"));
    let definition = definitions.get("postgresqls.acid.zalan.do").await;
    input.facts.zalando_versions = definition.map(|found| offered_versions(&found.data)).unwrap_or_default();
    Ok(())
}

/// Returns all objects of a kind in a namespace; none if the user may not list them.
async fn list_if_allowed(
    client: &Client,
    kind: (&str, &str, &str),
    namespace: &str,
) -> anyhow::Result<Option<Vec<Value>>> {
    match list(client, kind, Some(namespace)).await {
        Ok(found) => Ok(Some(found)),
        Err(error) if is_status(&error, 403) => {
            warn!(kind = kind.2, namespace, "not allowed to list these objects; rules that depend on them are skipped");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Returns whether the API server answered with this status code.
fn is_status(error: &anyhow::Error, code: u16) -> bool {
    matches!(error.downcast_ref(), Some(kube::Error::Api(status)) if status.code == code)
}

/// Returns which APIs the cluster serves.
async fn apis(client: &Client) -> anyhow::Result<Apis> {
    let version = client.apiserver_version().await?;
    let mut apis = Apis::parse(&version.major, &version.minor);
    for api in database::apis() {
        *(api.served)(&mut apis) = is_served(client, api.kind).await?;
    }
    apis.keda = is_served(client, ("keda.sh", "v1alpha1", SCALED_OBJECT)).await?;
    (apis.custom_metrics, apis.external_metrics) = metrics_of(client).await?;
    Ok(apis)
}

/// Returns whether the cluster serves a kind.
async fn is_served(client: &Client, (group, version, kind): (&str, &str, &str)) -> anyhow::Result<bool> {
    match client.list_api_group_resources(&format!("{group}/{version}")).await {
        Ok(found) => Ok(found.resources.iter().any(|resource| resource.kind == kind)),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
        Err(error) => Err(error).context("cannot discover the APIs of the cluster"),
    }
}

/// Returns whether the custom and the external metrics APIs are served. A user who may not list `APIService` objects
/// learns only whether the API groups exist.
async fn metrics_of(client: &Client) -> anyhow::Result<(bool, bool)> {
    let services: Api<DynamicObject> =
        Api::all_with(client.clone(), &resource("apiregistration.k8s.io", "v1", "APIService"));
    match services.list(&ListParams::default()).await {
        Ok(services) => Ok(metrics_served(&services.items)),
        Err(kube::Error::Api(status)) if status.code == 403 => {
            let groups = client.list_api_groups().await.context("cannot discover the APIs of the cluster")?;
            let exists = |name: &str| groups.groups.iter().any(|group| group.name == name);
            Ok((exists("custom.metrics.k8s.io"), exists("external.metrics.k8s.io")))
        }
        Err(error) => Err(error).context("cannot discover the APIs of the cluster"),
    }
}
