//! Rules about the models that are served.

mod remote_code_without_revision;
mod unpinned_model_revision;

pub use remote_code_without_revision::RemoteCodeWithoutRevision;
pub use unpinned_model_revision::UnpinnedModelRevision;

use super::{added, snippet};
use crate::policy::Finding;
use crate::runtimes::Recognised;
use crate::workload::{Container, Lookup};

/// A model that a server downloads from a hub.
struct OnHub<'a> {
    container: &'a Container<'a>,
    name: &'a str,
    /// Whether its revision is fixed.
    is_pinned: bool,
    /// The flag that sets a revision.
    flag: Option<&'a str>,
    /// The variable that sets a revision.
    variable: Option<&'a str>,
    /// The field with the server's arguments.
    words: &'static str,
}

impl OnHub<'_> {
    /// Starts a finding about it, without the expectation, which depends on the rule.
    fn finding(&self) -> Finding {
        let finding = Finding::in_container(self.container, self.words)
            .found(format!("`{}` without a fixed revision", self.name));
        finding.fix(match (self.flag, self.variable) {
            (_, Some(variable)) => snippet(&serde_json::json!({"env": [{"name": variable, "value": "<commit>"}]})),
            (Some(flag), None) => added(self.container, &format!("{flag}=<commit>")),
            (None, None) => String::new(),
        })
    }
}

/// Returns the model that a server downloads from a hub, if the runtime accepts a revision.
fn model_on_hub<'a>(recognised: &'a Recognised<'a>) -> Option<OnHub<'a>> {
    let (container, runtime) = recognised.known()?;
    let source = &runtime.model;
    if source.revision.flags.is_empty() && source.revision.env.is_empty() {
        return None;
    }
    let name = recognised.model().found().filter(|name| is_on_hub(name))?;
    // A branch moves. An unknown revision is not known to move.
    let is_pinned = match recognised.words.given(&source.revision.flags, &source.revision.env) {
        Lookup::Found(revision) => !is_branch(revision),
        Lookup::Unknown(_) => true,
        Lookup::Absent => false,
    };
    Some(OnHub {
        container,
        name,
        is_pinned,
        flag: source.revision.flags.first().map(String::as_str),
        variable: source.revision.env.first().map(String::as_str),
        words: if container.has_items("args") { "args" } else { "command" },
    })
}

/// Returns whether a revision is empty or has the name of a branch.
fn is_branch(revision: &str) -> bool {
    matches!(revision, "" | "main" | "master" | "HEAD")
}

/// Returns whether a model's name is `owner/name`, rather than a path or URL.
fn is_on_hub(name: &str) -> bool {
    let mut parts = name.split('/');
    let is_part = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.contains([':', '$']);
    matches!((parts.next(), parts.next(), parts.next()), (Some(owner), Some(name), None) if is_part(owner) && is_part(name))
}

/// Returns whether a server runs code that is part of its model.
fn runs_remote_code(recognised: &Recognised) -> bool {
    let Some(runtime) = recognised.runtime else { return false };
    let given = &runtime.model.remote_code;
    let is_off = |value: &str| matches!(value.to_lowercase().as_str(), "false" | "0" | "");
    let words = &recognised.words;
    let by_flag =
        |flag: &String| words.has(flag) == Lookup::Found(()) && !words.value(flag).found().is_some_and(is_off);
    given.flags.iter().any(by_flag)
        || given.env.iter().filter_map(|name| words.env(name).found()).any(|value| !is_off(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distinguishes_models_on_a_hub_from_paths() {
        assert!(is_on_hub("meta-llama/Llama-3.1-8B") && is_on_hub("a/b.c"));
        for other in ["/models/a", "./a/b", "s3://a/b", "gpt2", "a/b/c", "a/", "$(MODEL)/b", "gs://a"] {
            assert!(!is_on_hub(other), "{other}");
        }
    }
}
