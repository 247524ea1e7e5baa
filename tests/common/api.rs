//! A blocking client of the API server, faster than kubectl.

use std::path::Path;

use kube::api::{
    ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams,
};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config, Error};
use serde_json::Value;
use tokio::runtime::Runtime;

/// A blocking client.
pub(crate) struct Api {
    runtime: Runtime,
    client: Client,
}

impl Api {
    /// Connects to the API server of a kubeconfig.
    pub(crate) fn connect(kubeconfig: &Path) -> Self {
        let runtime = Runtime::new().unwrap();
        let client = runtime.block_on(async {
            let read = Kubeconfig::read_from(kubeconfig).unwrap();
            let config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await.unwrap();
            Client::try_from(config).unwrap()
        });
        Self { runtime, client }
    }

    /// Returns an object; none if it does not exist or its kind is not served.
    pub(crate) fn get(&self, kind: &str, namespace: &str, name: &str) -> Option<Value> {
        match self.runtime.block_on(self.of(kind, namespace).get(name)) {
            Ok(found) => Some(json(&found)),
            Err(Error::Api(status)) if status.code == 404 => None,
            Err(error) => panic!("cannot read {kind} {namespace}/{name}: {error}"),
        }
    }

    /// Returns all objects of a kind in a namespace.
    pub(crate) fn list(&self, kind: &str, namespace: &str) -> Vec<Value> {
        let found = self.runtime.block_on(self.of(kind, namespace).list(&ListParams::default()));
        let found = found.unwrap_or_else(|error| panic!("cannot list {kind} in {namespace}: {error}"));
        found.items.iter().map(json).collect()
    }

    /// Returns the object that would be stored, or the error of the API server.
    pub(crate) fn create_dry_run(&self, object: &Value) -> Result<Value, String> {
        let text = |field: &Value| field.as_str().unwrap_or_default().to_owned();
        let of = self.of(&text(&object["kind"]), &text(&object["metadata"]["namespace"]));
        let parameters = PostParams { dry_run: true, ..PostParams::default() };
        let typed: DynamicObject = serde_json::from_value(object.clone()).unwrap();
        let stored = self.runtime.block_on(of.create(&parameters, &typed));
        stored.map(|stored| json(&stored)).map_err(|error| error.to_string())
    }

    /// Applies an object with server-side apply, as a dry run or not.
    pub(crate) fn apply(&self, object: &Value, dry_run: bool) -> Result<Value, String> {
        let text = |field: &Value| field.as_str().unwrap_or_default().to_owned();
        let of = self.of(&text(&object["kind"]), &text(&object["metadata"]["namespace"]));
        let parameters = PatchParams { dry_run, ..PatchParams::apply("jane") };
        let name = text(&object["metadata"]["name"]);
        let stored = self.runtime.block_on(of.patch(&name, &parameters, &Patch::Apply(object)));
        stored.map(|stored| json(&stored)).map_err(|error| error.to_string())
    }

    /// Deletes an existing object.
    pub(crate) fn delete(&self, object: &Value) {
        let text = |field: &Value| field.as_str().unwrap_or_default().to_owned();
        let of = self.of(&text(&object["kind"]), &text(&object["metadata"]["namespace"]));
        let name = text(&object["metadata"]["name"]);
        self.runtime.block_on(of.delete(&name, &DeleteParams::background())).unwrap();
    }

    fn of(&self, kind: &str, namespace: &str) -> kube::Api<DynamicObject> {
        let (group, version) = match kind {
            "Deployment" | "ReplicaSet" | "StatefulSet" => ("apps", "v1"),
            "HorizontalPodAutoscaler" => ("autoscaling", "v2"),
            "Namespace" | "Pod" => ("", "v1"),
            "ModelServer" | "ServingException" | "ServingPolicy" => ("tidegate.dev", "v1alpha1"),
            "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration" => ("admissionregistration.k8s.io", "v1"),
            "CustomResourceDefinition" => ("apiextensions.k8s.io", "v1"),
            "Event" => ("events.k8s.io", "v1"),
            "Lease" => ("coordination.k8s.io", "v1"),
            "postgresql" => ("acid.zalan.do", "v1"),
            "Report" => ("openreports.io", "v1alpha1"),
            "PolicyReport" => ("wgpolicyk8s.io", "v1alpha2"),
            "PodDisruptionBudget" => ("policy", "v1"),
            "ScaledObject" => ("keda.sh", "v1alpha1"),
            "Cluster" => ("postgresql.cnpg.io", "v1"),
            "Rollout" => ("argoproj.io", "v1alpha1"),
            "LeaderWorkerSet" => ("leaderworkerset.x-k8s.io", "v1"),
            other => panic!("unknown kind {other}"),
        };
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        if namespace.is_empty() {
            return kube::Api::all_with(self.client.clone(), &resource);
        }
        kube::Api::namespaced_with(self.client.clone(), namespace, &resource)
    }
}

fn json(object: &DynamicObject) -> Value {
    serde_json::to_value(object).unwrap()
}
