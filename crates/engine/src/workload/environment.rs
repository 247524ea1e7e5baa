//! The environment of a container, and the expansion of references to it by the kubelet.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Container;
use super::text::Text;

/// A variable of the environment, or of a shell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Variable {
    /// Its value; none if it is not set.
    pub(super) value: Option<Text>,
    /// Whether it is exported to programs; none if that is unknown.
    pub(super) is_exported: Option<bool>,
}

impl Variable {
    /// Returns an exported variable.
    pub(super) fn exported(value: Text) -> Self {
        Self { value: Some(value), is_exported: Some(true) }
    }
}

/// Variables by name.
pub(super) type Variables = BTreeMap<String, Variable>;

/// The environment of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    /// The variables in `env`.
    pub(super) variables: Arc<Variables>,
    /// Whether other variables may be set as well.
    pub(super) may_have_more: bool,
}

impl Environment {
    /// Returns the environment of a container: a value may refer to earlier variables, and the last of several entries
    /// counts.
    #[must_use]
    pub fn new(container: &Container) -> Self {
        let may_have_more = super::items(container.field("envFrom")).next().is_some();
        let mut known = Self { variables: Arc::default(), may_have_more };
        for entry in super::items(container.field("env")) {
            let Some(name) = entry["name"].as_str() else { continue };
            let is_written = entry["valueFrom"].is_null();
            let written = || known.expanded(entry["value"].as_str().unwrap_or_default());
            let value = if is_written { written() } else { Text::unknown(format!("$({name})")) };
            Arc::make_mut(&mut known.variables).insert(name.to_owned(), Variable::exported(value));
        }
        known
    }

    /// Returns the command and arguments of a container.
    pub(super) fn words(&self, container: &Container) -> Vec<Text> {
        let texts = ["command", "args"].into_iter().flat_map(|field| super::items(container.field(field)));
        texts.filter_map(|word| word.as_str()).map(|word| self.expanded(word)).collect()
    }

    /// Expands `$(NAME)` as the kubelet does. References to unknown names are kept, and `$$` is an escaped `$`.
    ///
    /// <https://kubernetes.io/docs/tasks/inject-data-application/define-interdependent-environment-variables/>
    fn expanded(&self, word: &str) -> Text {
        let mut text = Text::default();
        let mut rest = word;
        while let Some(at) = rest.find('$') {
            text.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix('$') {
                text.push('$');
                rest = after;
            } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
                text.append(&self.reference(name));
                rest = after;
            } else {
                text.push('$');
            }
        }
        text.push_str(rest);
        text
    }

    fn reference(&self, name: &str) -> Text {
        let written = format!("$({name})");
        match self.variables.get(name) {
            Some(variable) => variable.value.clone().unwrap_or_default(),
            None if self.may_have_more => Text::unknown(written),
            None => Text::known(written),
        }
    }
}

/// Returns whether a text refers to a variable by `$(NAME)`, which the kubelet expands.
pub(crate) fn refers_to(text: &str, name: &str) -> bool {
    let variables = Variables::from([(name.to_owned(), Variable::exported(Text::default()))]);
    let environment = Environment { variables: Arc::new(variables), may_have_more: false };
    environment.expanded(text) != Environment::default().expanded(text)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn argument(word: &str, more: &Value) -> Text {
        let mut value = json!({"args": [word], "env": [
            {"name": "PORT", "value": "1"}, {"name": "PORT", "value": "9000"}, {"name": "OTHER", "value": "$(PORT)0"},
            {"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
            {"name": "MADE", "value": "x$(SECRET)"}
        ]});
        json_patch::merge(&mut value, more);
        let container = Container::new("/spec/template", "containers", 0, &value);
        Environment::new(&container).words(&container).remove(0)
    }

    #[test]
    fn expands_references_to_literal_values() {
        let known = |word: &str| argument(word, &json!({})).as_known().map(str::to_owned);
        for (word, expected) in [
            ("--port=$(PORT)", "--port=9000"),
            ("$(PORT)$(OTHER)-$", "900090000-$"),
            ("$$(PORT)", "$(PORT)"),
            ("$$$(PORT)", "$9000"),
            ("$(MISSING) $PORT $(PORT $(", "$(MISSING) $PORT $(PORT $("),
        ] {
            assert_eq!(known(word).as_deref(), Some(expected), "{word}");
        }
        assert_eq!((known("$(SECRET)"), known("$(MADE)")), (None, None));
        assert_eq!(argument("a$(MADE)", &json!({})).known_start(), "ax");
    }

    #[test]
    fn other_variables_may_be_set_by_env_from() {
        let from = json!({"envFrom": [{"configMapRef": {"name": "c"}}]});
        assert_eq!(argument("$(MISSING)", &from).as_known(), None);
        assert_eq!(argument("$(PORT)", &from).as_known(), Some("9000"));
    }
}
