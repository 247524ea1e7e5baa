//! Many model servers in a cluster.

use std::path::Path;

use anyhow::{Context as _, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, Error};
use serde_json::{Value, json};

use crate::cluster::Cluster;

/// How many model servers there are in a namespace.
const PER_NAMESPACE: usize = 100;

/// How many are created at a time: enough to keep Tidegate busy, few enough for the API server.
const AT_A_TIME: usize = 16;

/// The kinds of objects that each model server gets.
const BESIDE: [(&str, &str, &str); 3] = [
    ("autoscaling", "v2", "HorizontalPodAutoscaler"),
    ("acid.zalan.do", "v1", "postgresql"),
    ("tidegate.dev", "v1alpha1", "ModelServer"),
];

/// Model servers that differ only in their names.
pub(crate) struct Fleet {
    client: Client,
    model: Value,
    size: usize,
}

impl Fleet {
    /// Starts without any.
    pub(crate) async fn new(cluster: &Cluster) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/model-server.yaml"))?;
        let model = serde_saphyr::from_str(&text)?;
        Ok(Self { client: client(&cluster.kubeconfig()).await?, model, size: 0 })
    }

    /// Returns how many there are.
    pub(crate) fn len(&self) -> usize {
        self.size
    }

    /// Creates more, up to this number.
    pub(crate) async fn grow(&mut self, size: usize) -> anyhow::Result<()> {
        for index in self.size.div_ceil(PER_NAMESPACE)..size.div_ceil(PER_NAMESPACE) {
            self.create(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace(index)}}))
                .await?;
        }
        let new = stream::iter(self.size..size).map(|index| {
            let mut object = self.model.clone();
            object["metadata"]["name"] = format!("model-{index}").into();
            object["metadata"]["namespace"] = namespace(index / PER_NAMESPACE).into();
            object["spec"]["replicas"] = 0.into();
            // As `kubectl apply` writes it.
            let applied = object.to_string() + "\n";
            object["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"] = applied.into();
            Ok(object)
        });
        new.try_for_each_concurrent(AT_A_TIME, async |object| self.create(&object).await).await?;
        self.size = size;
        Ok(())
    }

    /// Fails unless every model server has all its objects.
    pub(crate) async fn is_complete(&self) -> anyhow::Result<()> {
        for (group, version, kind) in BESIDE {
            let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
            let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource);
            let found = api.list_metadata(&ListParams::default()).await?.items.len();
            ensure!(found == self.size, "there are {found} of {kind} for {} model servers", self.size);
        }
        Ok(())
    }

    async fn create(&self, object: &Value) -> anyhow::Result<()> {
        let text = |field: &Value| field.as_str().unwrap_or_default().to_owned();
        let version = text(&object["apiVersion"]);
        let (group, version) = version.split_once('/').unwrap_or(("", &version));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &text(&object["kind"])));
        let api: Api<DynamicObject> = match object["metadata"]["namespace"].as_str() {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        };
        let typed: DynamicObject = serde_json::from_value(object.clone())?;
        match api.create(&PostParams::default(), &typed).await {
            Err(Error::Api(status)) if status.code == 409 => Ok(()),
            made => made.map(drop).with_context(|| format!("cannot create {}", object["metadata"]["name"])),
        }
    }
}

fn namespace(index: usize) -> String {
    format!("team-{index}")
}

async fn client(kubeconfig: &Path) -> anyhow::Result<Client> {
    let read = Kubeconfig::read_from(kubeconfig)?;
    let config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}
