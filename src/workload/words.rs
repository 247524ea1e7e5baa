//! What a container runs, word by word, as far as that can be told without running it.

use super::Container;

/// Returns the words that a container runs, command first. References to variables whose values are written out are
/// resolved; the script of a shell is split into its words.
pub(super) fn of(container: &Container) -> Vec<String> {
    let texts = ["command", "args"].into_iter().filter_map(|field| container.field(field).as_array()).flatten();
    let words: Vec<String> = texts.filter_map(|word| word.as_str()).map(|word| expanded(word, container)).collect();
    let Some(place) = script(&words) else { return words };
    let before = words[..place].iter().cloned();
    let after = words[place + 1..].iter().cloned();
    before.chain(split(&words[place], container)).chain(after).collect()
}

/// Returns the place of the script of a shell, wherever a wrapper such as `tini --` puts that shell.
fn script(words: &[String]) -> Option<usize> {
    let shell = words.iter().position(|word| is_shell(word))?;
    let is_command =
        |word: &String| word.strip_prefix('-').is_some_and(|flags| !flags.starts_with('-') && flags.ends_with('c'));
    let option = words[shell + 1..].iter().position(is_command)?;
    // Between the shell and its `-c` stand only other options.
    let are_options = words[shell + 1..=shell + option].iter().all(|word| word.starts_with('-'));
    let place = shell + option + 2;
    (are_options && place < words.len()).then_some(place)
}

fn is_shell(word: &str) -> bool {
    matches!(word.rsplit('/').next(), Some("sh" | "bash" | "ash" | "dash"))
}

/// Puts the values of variables in the place of `$(NAME)`, as the kubelet does before anything runs.
///
/// <https://kubernetes.io/docs/tasks/inject-data-application/define-command-argument-container/>
fn expanded(word: &str, container: &Container) -> String {
    let mut text = String::new();
    let mut rest = word;
    while let Some(at) = rest.find('$') {
        text.push_str(&rest[..at]);
        rest = &rest[at..];
        let name = rest.strip_prefix("$(").and_then(|inner| inner.split_once(')')).map(|(name, _)| name);
        let value = name.and_then(|name| literal(name, container));
        let taken = match (value, rest.as_bytes().get(1)) {
            (Some(value), _) => {
                text.push_str(value);
                name.map_or(1, |name| name.len() + 3)
            }
            // `$$` is one `$`, which begins no reference.
            (None, Some(b'$')) => {
                text.push_str("$$");
                2
            }
            (None, _) => {
                text.push('$');
                1
            }
        };
        rest = &rest[taken..];
    }
    text + rest
}

/// Returns the value of a variable that is written out and refers to nothing else.
fn literal<'a>(name: &str, container: &Container<'a>) -> Option<&'a str> {
    container.env_value(name).filter(|value| !value.contains('$'))
}

/// Splits a shell script into words: at white space and control operators, with quotes and line continuations taken off
/// and variables resolved that the script does not set itself.
fn split(script: &str, container: &Container) -> Vec<String> {
    let script = script.replace("\\\n", " ");
    let bare = script
        .split(|c: char| c.is_whitespace() || matches!(c, ';' | '&' | '|'))
        .map(|word| word.trim_matches(['"', '\'']))
        .filter(|word| !word.is_empty());
    let words: Vec<&str> = bare.collect();
    let sets = |name: &str| words.iter().any(|word| word.strip_prefix(name).is_some_and(|rest| rest.starts_with('=')));
    let resolved = |word: &&str| match variable(word).filter(|(_, name)| !sets(name)) {
        Some((before, name)) => {
            literal(name, container).map_or_else(|| (*word).to_owned(), |value| format!("{before}{value}"))
        }
        None => (*word).to_owned(),
    };
    let grouped = |word: String| if word.contains('$') { word } else { word.trim_matches(['(', ')']).to_owned() };
    words.iter().map(resolved).map(grouped).filter(|word| !word.is_empty()).collect()
}

/// Returns what stands before the shell variable that a word ends in, and its name: `--port=$PORT`, `"${PORT}"`.
fn variable(word: &str) -> Option<(&str, &str)> {
    let (before, rest) = word.split_once('$')?;
    let rest = rest.trim_end_matches(['"', '\'']);
    let name = match rest.strip_prefix('{') {
        // With `${NAME:-default}` the variable counts where it is set.
        Some(inner) => inner.strip_suffix('}')?.split(":-").next()?,
        None => rest,
    };
    let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    is_name.then_some((before.trim_end_matches(['"', '\'']), name))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn words(mut value: Value) -> Vec<String> {
        value["env"] = json!([
            {"name": "PORT", "value": "9000"}, {"name": "OTHER", "value": "$(PORT)"},
            {"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}
        ]);
        of(&Container::new("containers", 0, &value))
    }

    fn script(text: &str) -> Vec<String> {
        words(json!({"command": ["/bin/sh", "-c", text]})).split_off(2)
    }

    #[test]
    fn a_shell_script_is_split_into_its_words() {
        let found = words(json!({
            "command": ["/bin/sh", "-c"], "args": ["pip list && vllm serve m \\\n --port '9000'; true"]
        }));
        assert_eq!(found, ["/bin/sh", "-c", "pip", "list", "vllm", "serve", "m", "--port", "9000", "true"]);
        assert_eq!(script("(vllm serve m)"), ["vllm", "serve", "m"]);
    }

    #[test]
    fn a_shell_behind_a_wrapper_and_with_options_is_one_too() {
        let wrapped = json!({"command": ["tini", "--", "bash", "-e", "-xc", "vllm serve m", "name"]});
        assert_eq!(words(wrapped), ["tini", "--", "bash", "-e", "-xc", "vllm", "serve", "m", "name"]);
        let file = ["bash", "start it.sh", "-c", "a b"];
        assert_eq!(words(json!({"command": file})), file);
        assert_eq!(words(json!({"command": ["bash", "-c"]})), ["bash", "-c"]);
    }

    #[test]
    fn arguments_that_are_no_script_stay_whole() {
        assert_eq!(words(json!({"args": ["--prompt", "a; b"]})), ["--prompt", "a; b"]);
    }

    #[test]
    fn references_are_resolved_where_the_value_is_written_out() {
        let args = |word: &str| words(json!({"args": [word]})).remove(0);
        assert_eq!(args("--port=$(PORT)"), "--port=9000");
        assert_eq!(args("$(PORT)$(PORT)-$"), "90009000-$");
        for kept in ["$$(PORT)", "$(SECRET)", "$(MISSING)", "$(OTHER)", "$PORT", "$(PORT", "$("] {
            assert_eq!(args(kept), kept);
        }
    }

    #[test]
    fn a_shells_variables_are_resolved_unless_the_script_sets_them() {
        for text in ["$PORT", "${PORT}", "\"$PORT\"", "${PORT:-8000}"] {
            assert_eq!(script(&format!("vllm --port {text}"))[2], "9000", "{text}");
            assert_eq!(script(&format!("vllm --port={text}"))[1], "--port=9000", "{text}");
        }
        assert_eq!(script("export PORT=1; vllm --port $PORT"), ["export", "PORT=1", "vllm", "--port", "$PORT"]);
        for text in ["$SECRET", "${MISSING:-8000}", "$(cat port)", "$((PORT+1))", "${PORT#x}"] {
            assert!(script(&format!("vllm --port {text}"))[2].contains('$'), "{text}");
        }
    }
}
