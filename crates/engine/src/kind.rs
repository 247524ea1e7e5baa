//! The kinds of workloads that can be model servers. Everything that depends on the kind is derived from the entries
//! here: watches, webhook rules, permissions, names of companions, locations of pod templates.
//!
//! To add a kind: write its entry in [`KINDS`], then `make generate`.

use serde_json::Value;

/// A kind of workload that can be a model server.
#[derive(Debug, PartialEq, Eq)]
pub struct Kind {
    /// Its API group.
    pub group: &'static str,
    /// The API version that is watched and requested.
    pub version: &'static str,
    /// Its name, such as `Deployment`. It must be unique, since workloads are identified by kind and name only.
    pub kind: &'static str,
    /// Its name in URLs, webhook rules and permissions.
    pub plural: &'static str,
    /// Its short names, as in kubectl.
    pub short_names: &'static [&'static str],
    /// Whether every cluster serves it. Other kinds are watched while their CustomResourceDefinition exists.
    pub is_built_in: bool,
    /// The suffix of the names of its workloads' companions; never change it. At most one kind has none.
    pub suffix: &'static str,
    /// JSON pointers to its pod templates. The first that an object has is the model server's.
    pub templates: &'static [&'static str],
    /// A JSON pointer to the number of pods in one replica, which then is a group of pods; none if it is a pod.
    pub group_size: Option<&'static str>,
    /// A JSON pointer to the reference to a workload whose pod template is used instead of its own.
    pub template_reference: Option<&'static str>,
    /// A regular expression for the part of its pods' names after the name of the workload and a dash.
    pub pods: &'static str,
    /// The defaults of the API server.
    pub defaults: Defaults,
    /// Whether a rollout without progress counts as failed after `spec.progressDeadlineSeconds`.
    pub has_progress_deadline: bool,
    /// Whether it has `spec.strategy.rollingUpdate` with `maxSurge` and `maxUnavailable`.
    pub has_surge: bool,
    /// The objects in which its controller keeps earlier pod templates, with the workload's annotations of that time.
    pub revisions: Option<&'static Revisions>,
}

/// A kind of object in which a controller keeps the earlier pod templates of its workloads.
#[derive(Debug, PartialEq, Eq)]
pub struct Revisions {
    /// Its API group.
    pub group: &'static str,
    /// Its API version.
    pub version: &'static str,
    /// Its name.
    pub kind: &'static str,
    /// Its name in URLs and permissions.
    pub plural: &'static str,
    /// The JSON pointer to the pod template.
    pub template: &'static str,
}

/// The revisions of a Deployment.
///
/// <https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#rolling-back-a-deployment>
const REPLICA_SETS: Revisions =
    Revisions { group: "apps", version: "v1", kind: "ReplicaSet", plural: "replicasets", template: "/spec/template" };

/// The revisions of a StatefulSet.
///
/// <https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/controller-revision-v1/>
const CONTROLLER_REVISIONS: Revisions = Revisions {
    group: "apps",
    version: "v1",
    kind: "ControllerRevision",
    plural: "controllerrevisions",
    template: "/data/spec/template",
};

/// The defaults of the API server outside the pod template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defaults {
    /// Those of a Deployment.
    Deployment,
    /// Those of a StatefulSet.
    StatefulSet,
    /// None that are known: those of a CustomResourceDefinition.
    None,
}

/// Every kind of workload that can be a model server. The first is the default.
pub const KINDS: &[Kind] = &[
    Kind {
        group: "apps",
        version: "v1",
        kind: "Deployment",
        plural: "deployments",
        short_names: &["deploy"],
        is_built_in: true,
        suffix: "",
        templates: &["/spec/template"],
        group_size: None,
        template_reference: None,
        pods: "[a-z0-9]+-[a-z0-9]+",
        defaults: Defaults::Deployment,
        has_progress_deadline: true,
        has_surge: true,
        revisions: Some(&REPLICA_SETS),
    },
    Kind {
        group: "apps",
        version: "v1",
        kind: "StatefulSet",
        plural: "statefulsets",
        short_names: &["sts"],
        is_built_in: true,
        suffix: "-statefulset",
        templates: &["/spec/template"],
        group_size: None,
        template_reference: None,
        pods: "[0-9]+",
        defaults: Defaults::StatefulSet,
        has_progress_deadline: false,
        has_surge: false,
        revisions: Some(&CONTROLLER_REVISIONS),
    },
    // https://argo-rollouts.readthedocs.io/en/stable/features/specification/
    Kind {
        group: "argoproj.io",
        version: "v1alpha1",
        kind: "Rollout",
        plural: "rollouts",
        short_names: &["ro"],
        is_built_in: false,
        suffix: "-rollout",
        templates: &["/spec/template"],
        group_size: None,
        template_reference: Some("/spec/workloadRef"),
        pods: "[a-z0-9]+-[a-z0-9]+",
        defaults: Defaults::None,
        has_progress_deadline: true,
        has_surge: false,
        revisions: None,
    },
    // https://github.com/kubernetes-sigs/lws/blob/main/api/leaderworkerset/v1/leaderworkerset_types.go
    Kind {
        group: "leaderworkerset.x-k8s.io",
        version: "v1",
        kind: "LeaderWorkerSet",
        plural: "leaderworkersets",
        short_names: &["lws"],
        is_built_in: false,
        suffix: "-leaderworkerset",
        // Without a template for leaders, workers lead too.
        templates: &["/spec/leaderWorkerTemplate/leaderTemplate", "/spec/leaderWorkerTemplate/workerTemplate"],
        group_size: Some("/spec/leaderWorkerTemplate/size"),
        template_reference: None,
        pods: "[0-9]+(-[0-9]+)?",
        defaults: Defaults::None,
        has_progress_deadline: false,
        has_surge: false,
        revisions: None,
    },
];

/// The names of all kinds.
pub const NAMES: [&str; KINDS.len()] = {
    let mut names = [""; KINDS.len()];
    let mut index = 0;
    while index < KINDS.len() {
        names[index] = KINDS[index].kind;
        index += 1;
    }
    names
};

impl Kind {
    /// Returns the kind of this name.
    #[must_use]
    pub fn named(kind: &str) -> Option<&'static Self> {
        KINDS.iter().find(|known| known.kind == kind)
    }

    /// Returns the kind of this name in an API group, in any version.
    #[must_use]
    pub fn in_group(group: &str, kind: &str) -> Option<&'static Self> {
        Self::named(kind).filter(|known| known.group == group)
    }

    /// Returns the kind of the group of an `apiVersion`, in any version, and a `kind`.
    #[must_use]
    pub fn find(api_version: &str, kind: &str) -> Option<&'static Self> {
        let (group, _) = api_version.split_once('/')?;
        Self::in_group(group, kind)
    }

    /// Returns the kind of a workload; the first one if the object's kind is unknown.
    #[must_use]
    pub fn from_object(object: &Value) -> &'static Self {
        object["kind"].as_str().and_then(Self::named).unwrap_or(&KINDS[0])
    }

    /// Returns the kind of a resource name, as in kubectl, such as `deploy` or `deployments.apps`.
    #[must_use]
    pub fn called(word: &str) -> Option<&'static Self> {
        let word = word.to_lowercase();
        KINDS.iter().find(|known| {
            let name = word.strip_suffix(known.group).and_then(|rest| rest.strip_suffix('.')).unwrap_or(&word);
            name == known.kind.to_lowercase() || name == known.plural || known.short_names.contains(&name)
        })
    }

    /// Returns the `apiVersion` of its objects.
    #[must_use]
    pub fn api_version(&self) -> String {
        format!("{}/{}", self.group, self.version)
    }

    /// Returns the JSON pointer to the model server's pod template in an object.
    #[must_use]
    pub fn template(&self, object: &Value) -> &'static str {
        let is_there = |pointer: &&&str| object.pointer(pointer).is_some_and(|template| !template.is_null());
        self.templates.iter().find(is_there).unwrap_or(&self.templates[0])
    }

    /// Returns the name of its CustomResourceDefinition; none if it is built in.
    #[must_use]
    pub fn definition(&self) -> Option<String> {
        (!self.is_built_in).then(|| format!("{}.{}", self.plural, self.group))
    }
}

/// Returns the field names of a JSON pointer. Pointers of kinds have no escapes.
pub fn fields(pointer: &str) -> impl Iterator<Item = &str> {
    pointer.split('/').skip(1)
}

/// Returns a JSON pointer as a field path, such as `spec.template`.
#[must_use]
pub fn place(pointer: &str) -> String {
    fields(pointer).collect::<Vec<_>>().join(".")
}

/// Lists all kinds in a sentence, such as `Deployment, StatefulSet or Rollout`.
pub fn any(written: impl Fn(&Kind) -> String) -> String {
    let all: Vec<String> = KINDS.iter().map(written).collect();
    match all.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => all.concat(),
    }
}

/// Lists the names of all kinds in a sentence: `Deployment, StatefulSet or Rollout`.
#[must_use]
pub fn any_name() -> String {
    any(|kind| kind.kind.to_owned())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::*;

    #[test]
    fn names_and_suffixes_are_unique() {
        let unique = |field: fn(&Kind) -> &str| KINDS.iter().map(field).collect::<BTreeSet<_>>().len();
        assert_eq!([unique(|kind| kind.kind), unique(|kind| kind.suffix)], [KINDS.len(); 2]);
    }

    #[test]
    fn every_kind_is_complete() {
        for kind in KINDS {
            assert!(!kind.group.is_empty() && !kind.version.is_empty() && !kind.plural.is_empty(), "{kind:?}");
            assert!(!kind.templates.is_empty(), "{kind:?}");
            assert!(kind.templates.iter().all(|pointer| pointer.starts_with("/spec/") && !pointer.contains('~')));
        }
    }

    #[test]
    fn finds_kinds_by_api_version_and_by_kubectl_name() {
        let stateful = Kind::named("StatefulSet").unwrap();
        assert_eq!(
            (Kind::find("apps/v1", "StatefulSet"), stateful.api_version().as_str()),
            (Some(stateful), "apps/v1")
        );
        assert_eq!(Kind::find("apps/v1beta2", "StatefulSet"), Some(stateful), "the API server converts them");
        for (version, kind) in [("apps/v1", "ReplicaSet"), ("example.com/v1", "StatefulSet"), ("apps", "StatefulSet")] {
            assert_eq!(Kind::find(version, kind), None);
        }
        for word in ["sts", "statefulset", "StatefulSets", "statefulset.apps", "statefulsets.apps"] {
            assert_eq!(Kind::called(word), Some(stateful), "{word}");
        }
        assert_eq!((Kind::called("pod"), Kind::called("statefulset.example.com")), (None, None));
        assert_eq!(Kind::from_object(&json!({"kind": "StatefulSet"})), stateful);
        assert_eq!(Kind::from_object(&json!({})).kind, "Deployment");
    }

    #[test]
    fn only_custom_kinds_have_a_definition() {
        assert!(KINDS.iter().all(|kind| kind.is_built_in == kind.definition().is_none()));
        let [deployment, ..] = KINDS else { panic!("there are kinds") };
        let other = Kind { group: "example.com", plural: "servers", is_built_in: false, ..*deployment };
        assert_eq!(other.definition().as_deref(), Some("servers.example.com"));
    }

    #[test]
    fn the_first_template_of_an_object_is_the_model_servers() {
        let kind = Kind::named("LeaderWorkerSet").unwrap();
        let [leader, worker] = kind.templates else { panic!("it has two") };
        let of = |templates: Value| kind.template(&json!({"spec": {"leaderWorkerTemplate": templates}}));
        assert_eq!(of(json!({"leaderTemplate": {}, "workerTemplate": {}})), *leader);
        assert_eq!(of(json!({"leaderTemplate": null, "workerTemplate": {}})), *worker);
        assert_eq!(of(json!({})), *leader);
    }

    #[test]
    fn lists_kinds_in_a_sentence() {
        assert_eq!(any_name(), "Deployment, StatefulSet, Rollout or LeaderWorkerSet");
    }
}
