//! Rules about the models that are served.

mod remote_code_without_revision;
mod unpinned_model_revision;

pub use remote_code_without_revision::RemoteCodeWithoutRevision;
pub use unpinned_model_revision::UnpinnedModelRevision;

use super::{added, snippet};
use crate::policy::Finding;
use crate::runtimes::Recognised;
use crate::workload::Container;

/// A model that a server downloads from a hub.
struct OnHub<'a> {
    container: &'a Container<'a>,
    name: &'a str,
    /// Whether its revision is named.
    is_pinned: bool,
    /// The flag that names one.
    flag: Option<&'a str>,
    /// The variable that names one.
    variable: Option<&'a str>,
    /// The list that the server's words stand in.
    words: &'static str,
}

impl OnHub<'_> {
    /// Starts a finding about it. What it should be is the rule's to say.
    fn finding(&self) -> Finding {
        let finding =
            Finding::in_container(self.container, self.words).found(format!("`{}` in whatever revision", self.name));
        finding.fix(match (self.flag, self.variable) {
            (_, Some(variable)) => snippet(&serde_json::json!({"env": [{"name": variable, "value": "<commit>"}]})),
            (Some(flag), None) => added(self.container, &format!("{flag}=<commit>")),
            (None, None) => String::new(),
        })
    }
}

/// Returns the model that a server downloads from a hub, where the runtime can be told a revision of it.
fn model_on_hub<'a>(recognised: &'a Recognised<'a>) -> Option<OnHub<'a>> {
    let (container, runtime) = recognised.known()?;
    let source = &runtime.model;
    if source.revision.flags.is_empty() && source.revision.env.is_empty() {
        return None;
    }
    let by_flag = recognised.words.value_of_any(&source.flags);
    let by_place = || source.after.as_deref().and_then(|word| recognised.words.after(word));
    let by_env = || source.env.iter().find_map(|name| container.env_value(name));
    let name = by_flag.or_else(by_place).or_else(by_env).filter(|name| is_on_hub(name))?;
    let by_flag = recognised.words.value_of_any(&source.revision.flags);
    let by_variable = || source.revision.env.iter().find_map(|name| container.env(name));
    // A branch moves; what a variable takes from elsewhere is not known to.
    let is_pinned = match (by_flag, by_variable()) {
        (Some(revision), _) => !is_branch(revision),
        (None, Some(entry)) => entry["value"].as_str().is_none_or(|revision| !is_branch(revision)),
        (None, None) => false,
    };
    Some(OnHub {
        container,
        name,
        is_pinned,
        flag: source.revision.flags.first().map(String::as_str),
        variable: source.revision.env.first().map(String::as_str),
        words: if container.field("args").is_null() { "command" } else { "args" },
    })
}

/// Tells whether a revision is a branch by its name, or none at all.
fn is_branch(revision: &str) -> bool {
    matches!(revision, "" | "main" | "master" | "HEAD")
}

/// Tells whether a model's name is `owner/name`: neither a path nor an address.
fn is_on_hub(name: &str) -> bool {
    let mut parts = name.split('/');
    let is_part = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.contains([':', '$']);
    matches!((parts.next(), parts.next(), parts.next()), (Some(owner), Some(name), None) if is_part(owner) && is_part(name))
}

/// Tells whether a server runs code that comes with its model.
fn runs_remote_code(recognised: &Recognised) -> bool {
    let Some((container, runtime)) = recognised.known() else { return false };
    let given = &runtime.model.remote_code;
    let is_off = |value: &str| matches!(value.to_lowercase().as_str(), "false" | "0" | "");
    let by_flag =
        given.flags.iter().any(|flag| recognised.words.has(flag) && !recognised.words.value(flag).is_some_and(is_off));
    by_flag || given.env.iter().filter_map(|name| container.env_value(name)).any(|value| !is_off(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_on_a_hub_is_told_from_a_path() {
        assert!(is_on_hub("meta-llama/Llama-3.1-8B") && is_on_hub("a/b.c"));
        for other in ["/models/a", "./a/b", "s3://a/b", "gpt2", "a/b/c", "a/", "$(MODEL)/b", "gs://a"] {
            assert!(!is_on_hub(other), "{other}");
        }
    }
}
