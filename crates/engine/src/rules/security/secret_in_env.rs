//! ## What it checks
//! Tokens and API keys in plain text in environment variables, commands or arguments: variables such as `HF_TOKEN` and
//! `AWS_SECRET_ACCESS_KEY`, flags such as `--api-key`, and values in the format of a key of Hugging Face, NVIDIA,
//! OpenAI, AWS, GitHub and others. Values are never shown.
//! ## Why it matters
//! Anyone who may read Deployments, their history, backups or source repository has the key, which must then be
//! replaced everywhere.
//! ## Parameters
//! `names`: additional variables with secrets, such as `COMPANY_LICENSE`.
//! ## Instead
//! Put it in a Secret, and refer to that from the variable. An argument can use the variable: `$(NAME)`. Replace the
//! key: it has been exposed.

mod key;

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value};

use self::key::is_key;
use crate::policy::{Context, Finding, Rule};
use crate::rules::{is_written_out, parameters, this_source, written_out};
use crate::workload::{Container, items};

/// Variables that hold secrets.
const NAMES: [&str; 6] =
    ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_TOKEN", "HF_API_TOKEN", "AWS_SESSION_TOKEN", "GITHUB_TOKEN"];

/// The suffixes of the names of variables with secrets.
const ENDINGS: [&str; 8] = [
    "API_KEY",
    "API_KEYS",
    "API_TOKEN",
    "ACCESS_TOKEN",
    "AUTH_TOKEN",
    "SECRET_KEY",
    "SECRET_ACCESS_KEY",
    "CLIENT_SECRET",
];

/// Flags whose values are secrets.
const FLAGS: [&str; 7] =
    ["--api-key", "--api-keys", "--hf-token", "--hf-api-token", "--auth-token", "--access-token", "--admin-api-key"];

/// Common placeholders for a required key that is not checked.
const PLACEHOLDERS: [&str; 6] = ["empty", "none", "dummy", "fake", "not-needed", "placeholder"];

/// Finds secrets in plain text.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretInEnv {
    /// Additional variables with secrets.
    pub names: Vec<String>,
}

impl Rule for SecretInEnv {
    fn id(&self) -> &'static str {
        "secret-in-env"
    }

    fn source(&self) -> &'static str {
        this_source!()
    }

    fn with_params(&self, params: &Map<String, Value>) -> Result<Arc<dyn Rule>, String> {
        parameters::<Self>(params)
    }

    fn is_about_pods(&self) -> bool {
        true
    }

    fn check(&self, context: &Context) -> Vec<Finding> {
        let containers = context.workload.all_containers();
        containers.flat_map(|container| self.in_env(&container).into_iter().chain(in_arguments(&container))).collect()
    }
}

impl SecretInEnv {
    fn in_env(&self, container: &Container) -> Vec<Finding> {
        let entries = items(container.field("env"));
        let found = entries.filter_map(|entry| {
            let (name, value) = (entry["name"].as_str()?, entry["value"].as_str()?);
            let by_name = self.names_a_secret(name) && is_secret(value);
            (by_name || is_key(value)).then(|| written_out(container, name, "a secret"))
        });
        found.collect()
    }

    fn names_a_secret(&self, name: &str) -> bool {
        let upper = name.to_uppercase();
        NAMES.contains(&&*upper)
            || self.names.iter().any(|known| known == name)
            || ENDINGS.iter().any(|ending| {
                upper.strip_suffix(ending).is_some_and(|before| before.is_empty() || before.ends_with('_'))
            })
    }
}

/// Finds secrets in the command and arguments of a container as written. References to variables reveal nothing.
fn in_arguments(container: &Container) -> Vec<Finding> {
    let lists = ["command", "args"].into_iter();
    let found = lists.filter_map(|list| {
        let texts = items(container.field(list)).filter_map(Value::as_str);
        let words: Vec<&str> = texts.flat_map(str::split_whitespace).map(|word| word.trim_matches(['"', '\''])).collect();
        let what = words.iter().enumerate().find_map(|(index, word)| secret_at(word, words.get(index + 1)))?;
        Some(
            Finding::in_container(container, list)
                .found(format!("{what} is followed by a secret in plain text"))
                .expected("a variable that takes it from a Secret")
                .fix("env:\n  - name: API_KEY\n    valueFrom:\n      secretKeyRef:\n        name: <secret>\n        key: <key>\n\
                          # and where the secret stands: $(API_KEY)"),
        )
    });
    found.collect()
}

/// Returns a description of an argument that contains, or is followed by, a secret.
fn secret_at(word: &str, next: Option<&&str>) -> Option<String> {
    let (flag, value) = word.split_once('=').map_or((word, next.copied()), |(flag, value)| (flag, Some(value)));
    let value = value.unwrap_or_default().trim_matches(['"', '\'']);
    if FLAGS.contains(&&*flag.replace('_', "-")) && is_secret(value) && !value.starts_with('-') {
        return Some(format!("`{flag}`"));
    }
    let is_bare = is_key(word);
    (is_bare || (word.contains('=') && is_key(value)))
        .then(|| if is_bare { "an argument".to_owned() } else { format!("`{flag}`") })
}

/// Returns whether a value is a real secret.
fn is_secret(value: &str) -> bool {
    is_written_out(value) && !PLACEHOLDERS.iter().any(|placeholder| value.trim().eq_ignore_ascii_case(placeholder))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::with_container;
    use crate::workload::Workload;

    const RULE: SecretInEnv = SecretInEnv { names: Vec::new() };

    fn of_env(name: &str, value: &str) -> usize {
        let object = with_container(&json!({"env": [{"name": name, "value": value}]}));
        let container = Workload::view(&object).unwrap().containers().next().unwrap();
        RULE.in_env(&container).len()
    }

    fn of_args(args: &[&str]) -> Vec<Finding> {
        let object = with_container(&json!({"args": args}));
        let container = Workload::view(&object).unwrap().containers().next().unwrap();
        in_arguments(&container)
    }

    #[test]
    fn detects_secrets_by_name_or_value() {
        let key = format!("hf_{}", "aBcDe".repeat(7).split_at(34).0);
        for (name, value) in
            [("HF_TOKEN", "x"), ("OPENAI_API_KEY", "x"), ("MY_API_KEY", "x"), ("API_KEY", "x"), ("OTHER", &*key)]
        {
            assert_eq!(of_env(name, value), 1, "{name}");
        }
        for (name, value) in [
            ("HF_TOKEN", ""),
            ("HF_TOKEN", "$(TOKEN)"),
            ("OPENAI_API_KEY", "EMPTY"),
            ("MAX_TOKENS", "1"),
            ("TOKENIZERS_PARALLELISM", "true"),
            ("MONKEYAPI_KEY", "x"),
            ("OTHER", "hf_home"),
            ("OTHER", "sk-learn"),
            ("MODEL_NAME", "sk-learn-regression-model-v2"),
        ] {
            assert_eq!(of_env(name, value), 0, "{name}={value}");
        }
    }

    #[test]
    fn detects_secrets_in_arguments() {
        for args in [
            &["--api-key", "s3cret"][..],
            &["--api_key=s3cret"],
            &["sh", "-c", "vllm serve m --api-key 's3cret' --port 1"],
        ] {
            let found = of_args(args);
            assert_eq!(found.len(), 1, "{args:?}");
            assert!(!format!("{found:?}").contains("s3cret"), "no value is shown");
        }
        for args in [
            &["--api-key", "$(KEY)"][..],
            &["--api-key=$KEY"],
            &["--api-key", "--port", "1"],
            &["--api-key"],
            &["--port", "1"],
            &["--served-model-name", "sk-learn-regression-model-v2"],
            &["--served-model-name=sk-learn-regression-model-v2"],
        ] {
            assert_eq!(of_args(args), [], "{args:?}");
        }
    }
}
