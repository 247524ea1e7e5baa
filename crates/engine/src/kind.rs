//! The kinds of workloads that can be model servers. All that depends on the kind follows from the entries here: what is
//! watched, which webhook rules and permissions there are, how companions are named, where pods are described.
//!
//! To add a kind: write its entry in [`KINDS`], then `make generate`.

use serde_json::Value;

/// A kind of workload that can be a model server.
#[derive(Debug, PartialEq, Eq)]
pub struct Kind {
    /// Its API group.
    pub group: &'static str,
    /// The version of its API that is watched and asked about.
    pub version: &'static str,
    /// Its name, such as `Deployment`. Each entry has its own, since workloads are named by kind and name alone.
    pub kind: &'static str,
    /// Its name in URLs, webhook rules and permissions.
    pub plural: &'static str,
    /// What people call it beside that, as kubectl takes it.
    pub short_names: &'static [&'static str],
    /// Whether every cluster serves it. Another one is followed where its CustomResourceDefinition is, and while it is.
    pub is_built_in: bool,
    /// What it adds to the names of what is made for its workloads, which are final. At most one kind adds nothing.
    pub suffix: &'static str,
    /// Where its pod templates are, as JSON pointers. The first is the one that the model server runs by.
    pub templates: &'static [&'static str],
    /// A regular expression for what the names of its pods have after the name of the workload and a dash.
    pub pods: &'static str,
    /// What the API server fills in.
    pub defaults: Defaults,
    /// Whether a rollout without progress counts as failed after `spec.progressDeadlineSeconds`.
    pub has_progress_deadline: bool,
    /// Whether `spec.strategy.rollingUpdate` says how many pods more and how many less there may be during a rollout.
    pub has_surge: bool,
}

/// What the API server fills in beside the pod template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defaults {
    /// What it fills in for a Deployment.
    Deployment,
    /// What it fills in for a StatefulSet.
    StatefulSet,
}

/// Every kind of workload that can be a model server. The first is the one that is meant where nothing is said.
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
        pods: "[a-z0-9]+-[a-z0-9]+",
        defaults: Defaults::Deployment,
        has_progress_deadline: true,
        has_surge: true,
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
        pods: "[0-9]+",
        defaults: Defaults::StatefulSet,
        has_progress_deadline: false,
        has_surge: false,
    },
];

/// The names of all kinds.
pub const NAMES: [&str; KINDS.len()] = {
    let mut names = [""; KINDS.len()];
    let mut place = 0;
    while place < KINDS.len() {
        names[place] = KINDS[place].kind;
        place += 1;
    }
    names
};

impl Kind {
    /// Returns the kind of this name.
    #[must_use]
    pub fn named(kind: &str) -> Option<&'static Self> {
        KINDS.iter().find(|known| known.kind == kind)
    }

    /// Returns the kind of this name in an API group, whatever the version.
    #[must_use]
    pub fn in_group(group: &str, kind: &str) -> Option<&'static Self> {
        Self::named(kind).filter(|known| known.group == group)
    }

    /// Returns the kind of an `apiVersion`, whatever the version, and a `kind`.
    #[must_use]
    pub fn find(api_version: &str, kind: &str) -> Option<&'static Self> {
        let (group, _) = api_version.split_once('/')?;
        Self::in_group(group, kind)
    }

    /// Returns the kind of a workload; the first one where the object names none that is known.
    #[must_use]
    pub fn from_object(object: &Value) -> &'static Self {
        object["kind"].as_str().and_then(Self::named).unwrap_or(&KINDS[0])
    }

    /// Returns the kind that people mean by a word, as kubectl takes it, such as `deploy` or `deployments.apps`.
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

    /// Returns where the pod template is that the model server runs by, as a JSON pointer.
    #[must_use]
    pub const fn template(&self) -> &'static str {
        self.templates[0]
    }

    /// Returns the name of the CustomResourceDefinition that it is served by; none where every cluster serves it.
    #[must_use]
    pub fn definition(&self) -> Option<String> {
        (!self.is_built_in).then(|| format!("{}.{}", self.plural, self.group))
    }
}

/// Returns the names of the fields on the way to what a JSON pointer points at. No pointer of a kind has an escape in it.
pub fn fields(pointer: &str) -> impl Iterator<Item = &str> {
    pointer.split('/').skip(1)
}

/// Returns the place that a JSON pointer points at as people write it, such as `spec.template`.
#[must_use]
pub fn place(pointer: &str) -> String {
    fields(pointer).collect::<Vec<_>>().join(".")
}

/// Lists all kinds in a sentence, such as `Deployment or StatefulSet`.
pub fn any(written: impl Fn(&Kind) -> String) -> String {
    let all: Vec<String> = KINDS.iter().map(written).collect();
    match all.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => all.concat(),
    }
}

/// Lists the names of all kinds in a sentence: `Deployment or StatefulSet`.
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
    fn no_two_kinds_are_taken_for_each_other() {
        let unlike = |field: fn(&Kind) -> &str| KINDS.iter().map(field).collect::<BTreeSet<_>>().len();
        assert_eq!([unlike(|kind| kind.kind), unlike(|kind| kind.suffix)], [KINDS.len(); 2]);
    }

    #[test]
    fn every_entry_is_whole() {
        for kind in KINDS {
            assert!(!kind.group.is_empty() && !kind.version.is_empty() && !kind.plural.is_empty(), "{kind:?}");
            assert!(!kind.templates.is_empty(), "{kind:?}");
            assert!(kind.templates.iter().all(|pointer| pointer.starts_with("/spec/") && !pointer.contains('~')));
        }
    }

    #[test]
    fn a_kind_is_found_by_what_objects_and_people_call_it() {
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
    fn what_is_not_built_in_is_served_by_its_definition() {
        assert!(KINDS.iter().all(|kind| kind.is_built_in == kind.definition().is_none()));
        let [deployment, ..] = KINDS else { panic!("there are kinds") };
        let other = Kind { group: "example.com", plural: "servers", is_built_in: false, ..*deployment };
        assert_eq!(other.definition().as_deref(), Some("servers.example.com"));
    }

    #[test]
    fn kinds_are_listed_as_in_a_sentence() {
        assert_eq!(any_name(), "Deployment or StatefulSet");
    }
}
