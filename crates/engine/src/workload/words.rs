//! What a container runs, word by word.

use super::Container;
use super::shell::{self, Variable};

/// The words of one command, its program first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words(Vec<String>);

/// Programs that run another one, whose words stand among their own.
const WRAPPERS: &[&str] = &[
    "accelerate",
    "catatonit",
    "conda",
    "ddtrace-run",
    "dumb-init",
    "env",
    "gosu",
    "micromamba",
    "mpiexec",
    "mpirun",
    "nice",
    "nsys",
    "numactl",
    "opentelemetry-instrument",
    "poetry",
    "stdbuf",
    "su-exec",
    "sudo",
    "timeout",
    "tini",
    "torchrun",
    "uv",
];

/// Words of a shell's language that stand before a command.
const KEYWORDS: &[&str] = &["!", "command", "do", "else", "exec", "nohup", "then", "time", "{"];

impl Words {
    /// Returns the commands that a container runs: those of a shell's script, or the one that `command` and `args` are.
    /// References to variables whose values are written out are resolved.
    #[must_use]
    pub fn commands_of(container: &Container) -> Vec<Self> {
        let environment = environment(container);
        let words = words(container, &environment);
        let Some(place) = script(&words) else {
            return if words.is_empty() { Vec::new() } else { vec![Self(words)] };
        };
        let may_have_more = super::items(container.field("envFrom")).next().is_some();
        let known = |name: &str| match environment.iter().rev().find(|(known, _)| *known == name) {
            Some((_, Some(value))) => Variable::Is(value.clone()),
            None if !may_have_more => Variable::Unset,
            _ => Variable::Unknown,
        };
        shell::commands(&words[place], &known).into_iter().map(Self).collect()
    }

    /// Returns the words of several commands as those of one.
    #[must_use]
    pub fn joined(commands: &[Self]) -> Self {
        Self(commands.iter().flat_map(|Self(words)| words).cloned().collect())
    }

    /// Returns the same behind a program.
    #[must_use]
    pub fn behind(&self, program: &str) -> Self {
        Self([program].into_iter().chain(self.iter()).map(str::to_owned).collect())
    }

    /// Returns each word.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// Tells whether a flag is there, with or without a value. Python's programs take `_` for `-` in it.
    #[must_use]
    pub fn has(&self, flag: &str) -> bool {
        self.iter().any(|word| after_flag(word, flag).is_some())
    }

    /// Returns the value of `--flag value` or `--flag=value`; the last one counts, as it does for the programs themselves.
    #[must_use]
    pub fn value(&self, flag: &str) -> Option<&str> {
        let mut values = self.0.iter().enumerate().rev().filter_map(|(index, word)| match after_flag(word, flag)? {
            "" => self.0.get(index + 1).map(String::as_str),
            rest => rest.strip_prefix('='),
        });
        values.next()
    }

    /// Returns the value of the first of several flags that has one.
    #[must_use]
    pub fn value_of_any<'w>(&'w self, flags: &[String]) -> Option<&'w str> {
        flags.iter().find_map(|flag| self.value(flag))
    }

    /// Tells whether one of several flags is there.
    #[must_use]
    pub fn has_any(&self, flags: &[String]) -> bool {
        flags.iter().any(|flag| self.has(flag))
    }

    /// Returns what stands after a word, unless that is a flag.
    #[must_use]
    pub fn after(&self, word: &str) -> Option<&str> {
        let place = self.0.iter().position(|known| known == word)?;
        self.0.get(place + 1).map(String::as_str).filter(|next| !next.starts_with('-'))
    }

    /// Returns the program, without its folder; of Python, the module or the file that it runs.
    #[must_use]
    pub fn program(&self) -> Option<&str> {
        self.programs().next().map(|(program, _)| program)
    }

    /// Tells whether the command is a program with these words behind it, flags among them wherever they stand:
    /// `vllm serve`, `torchserve --start`.
    #[must_use]
    pub fn run(&self, command: &str) -> bool {
        let mut wanted = command.split(' ');
        let program = wanted.next().unwrap_or_default();
        let (flags, following): (Vec<&str>, Vec<&str>) = wanted.partition(|word| word.starts_with('-'));
        let is_it = |(found, rest): (&str, &[String])| {
            found == program
                && rest.len() >= following.len()
                && rest.iter().zip(&following).all(|(found, wanted)| found == wanted)
                && flags.iter().all(|flag| rest.iter().any(|word| word == flag))
        };
        self.programs().any(is_it)
    }

    /// Returns the program that is run, with what stands behind it. Behind a wrapper each word may be the program.
    fn programs(&self) -> impl Iterator<Item = (&str, &[String])> {
        let start = self.0.iter().take_while(|word| KEYWORDS.contains(&word.as_str())).count();
        let words = &self.0[start..];
        let is_wrapped = words.first().is_some_and(|word| WRAPPERS.contains(&bare(word)));
        let most = if is_wrapped { words.len() } else { words.len().min(1) };
        (0..most).map(|place| run_at(&words[place..]))
    }
}

/// Returns what the first word of a command runs, with what stands behind it.
fn run_at(words: &[String]) -> (&str, &[String]) {
    let (first, rest) = words.split_first().expect("there is a word at each place");
    let program = bare(first);
    if !program.starts_with("python") {
        return (program, rest);
    }
    // Python's own flags end with the module or the file.
    let options = rest.iter().take_while(|word| word.starts_with('-') && *word != "-m").count();
    let module = rest.get(options).is_some_and(|word| word == "-m");
    match rest.get(options + usize::from(module)) {
        Some(name) => (if module { name } else { bare(name) }, &rest[options + usize::from(module) + 1..]),
        None => (program, rest),
    }
}

/// Returns a word without the folder of its file.
fn bare(word: &str) -> &str {
    word.rsplit('/').next().unwrap_or(word)
}

/// Returns what stands in a word after a flag: nothing, or `=` and a value.
fn after_flag<'w>(word: &'w str, flag: &str) -> Option<&'w str> {
    let (head, rest) = (word.get(..flag.len())?, &word[flag.len()..]);
    let same = |(one, other): (char, char)| one == other || (one == '_' && other == '-');
    let is_flag = head.chars().zip(flag.chars()).all(same) && (rest.is_empty() || rest.starts_with('='));
    is_flag.then_some(rest)
}

/// The variables of a container, in their order; without a value where that is not written out.
type Environment<'a> = Vec<(&'a str, Option<String>)>;

/// Reads the variables of a container. A value may refer to those before it.
fn environment<'a>(container: &Container<'a>) -> Environment<'a> {
    let mut known: Environment = Vec::new();
    for entry in super::items(container.field("env")) {
        let Some(name) = entry["name"].as_str() else { continue };
        let is_elsewhere = !entry["valueFrom"].is_null();
        let value = (!is_elsewhere).then(|| expanded(entry["value"].as_str().unwrap_or_default(), &known));
        known.push((name, value));
    }
    known
}

fn words(container: &Container, environment: &Environment) -> Vec<String> {
    let texts = ["command", "args"].into_iter().flat_map(|field| super::items(container.field(field)));
    texts.filter_map(|word| word.as_str()).map(|word| expanded(word, environment)).collect()
}

/// Tells whether a container runs the script of a shell.
pub(super) fn is_script(container: &Container) -> bool {
    script(&words(container, &Environment::new())).is_some()
}

/// Returns the place of the script of a shell, wherever a wrapper such as `tini --` puts that shell.
fn script(words: &[String]) -> Option<usize> {
    let shell = words.iter().position(|word| is_shell(word))?;
    let is_command =
        |word: &String| word.strip_prefix('-').is_some_and(|flags| !flags.starts_with('-') && flags.ends_with('c'));
    let option = words[shell + 1..].iter().position(is_command)?;
    // Between the shell and its `-c` stand only other options, and what `-o` is followed by.
    let between = &words[shell + 1..=shell + option];
    let is_option = |(index, word): (usize, &String)| {
        word.starts_with('-') || index > 0 && between[index - 1].starts_with('-') && between[index - 1].ends_with('o')
    };
    let place = shell + option + 2;
    (between.iter().enumerate().all(is_option) && place < words.len()).then_some(place)
}

fn is_shell(word: &str) -> bool {
    matches!(bare(word), "sh" | "bash" | "ash" | "dash" | "zsh")
}

/// Tells whether a text refers to a variable by `$(NAME)`, for which the kubelet puts its value.
pub(crate) fn refers_to(text: &str, name: &str) -> bool {
    let environment: Environment = vec![(name, Some(String::new()))];
    expanded(text, &environment) != expanded(text, &Environment::new())
}

/// Puts the values of variables in the place of `$(NAME)`, as the kubelet does before anything runs.
///
/// <https://kubernetes.io/docs/tasks/inject-data-application/define-command-argument-container/>
fn expanded(word: &str, environment: &Environment) -> String {
    let mut text = String::new();
    let mut rest = word;
    while let Some(at) = rest.find('$') {
        text.push_str(&rest[..at]);
        rest = &rest[at..];
        let name = rest.strip_prefix("$(").and_then(|inner| inner.split_once(')')).map(|(name, _)| name);
        let known = name.and_then(|name| environment.iter().rev().find(|(known, _)| *known == name));
        let taken = match (known.and_then(|(_, value)| value.as_ref()), rest.as_bytes().get(1)) {
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn commands(mut value: Value) -> Vec<String> {
        value["env"] = json!([
            {"name": "PORT", "value": "9000"}, {"name": "OTHER", "value": "$(PORT)"},
            {"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}
        ]);
        let commands = Words::commands_of(&Container::new("/spec/template", "containers", 0, &value));
        commands.iter().map(|words| words.0.join(" ")).collect()
    }

    fn of(text: &str) -> Words {
        Words(text.split(' ').map(str::to_owned).collect())
    }

    #[test]
    fn a_shell_behind_a_wrapper_and_with_options_is_one_too() {
        for command in [
            &["tini", "--", "bash", "-e", "-xc", "a b; c", "name"][..],
            &["/bin/bash", "-euxo", "pipefail", "-c", "a b; c"],
        ] {
            assert_eq!(commands(json!({"command": command})), ["a b", "c"]);
        }
        assert_eq!(commands(json!({"command": ["bash", "start it.sh", "-c", "a b"]})), ["bash start it.sh -c a b"]);
        assert_eq!(commands(json!({"command": ["bash", "-c"]})), ["bash -c"]);
        assert_eq!(commands(json!({})), [""; 0]);
    }

    #[test]
    fn arguments_that_are_no_script_stay_whole() {
        assert_eq!(commands(json!({"args": ["--prompt", "a; b"]})), ["--prompt a; b"]);
    }

    #[test]
    fn flags_are_read_as_programs_read_them() {
        let words = of("/usr/bin/vllm serve org/model --port 1 --port=2 --dry_run -p");
        assert_eq!((words.value("--port"), words.value("-p"), words.value("--por")), (Some("2"), None, None));
        assert!(words.has("--dry-run") && words.has("-p") && !words.has("--dry"));
        assert_eq!((words.after("serve"), words.after("org/model")), (Some("org/model"), None));
    }

    #[test]
    fn a_program_is_known_wherever_it_lies_and_whoever_starts_it() {
        for text in ["/opt/bin/vllm serve m", "exec vllm serve m", "tini -- vllm serve m", "env A=1 vllm serve m"] {
            assert!(of(text).run("vllm serve"), "{text}");
        }
        for text in ["vllm bench serve", "echo vllm serve", "python deploy.py vllm serve", "vllm"] {
            assert!(!of(text).run("vllm serve"), "{text}");
        }
        assert!(of("python3.12 -u -m sglang.launch_server").run("sglang.launch_server"));
        assert!(!of("python -m other --module sglang.launch_server").run("sglang.launch_server"));
        assert!(of("torchserve --foreground --start").run("torchserve --start"));
        assert_eq!((of("python /app/run.py a").program(), of("python").program()), (Some("run.py"), Some("python")));
    }

    #[test]
    fn references_are_resolved_where_the_value_is_written_out() {
        let args = |word: &str| commands(json!({"args": [word]})).remove(0);
        assert_eq!(args("--port=$(PORT)"), "--port=9000");
        assert_eq!(args("$(PORT)$(OTHER)-$"), "90009000-$");
        for kept in ["$$(PORT)", "$(SECRET)", "$(MISSING)", "$PORT", "$(PORT", "$("] {
            assert_eq!(args(kept), kept);
        }
    }

    #[test]
    fn a_shells_variables_are_those_of_the_container() {
        let script = |text: &str| commands(json!({"command": ["sh", "-c", text]})).remove(0);
        assert_eq!(script("a $PORT ${OTHER:-1} ${MISSING:-2}"), "a 9000 9000 2");
        assert_eq!(script("a $SECRET ${SECRET:-3}"), "a $SECRET ${SECRET:-3}");
        let from = json!({"command": ["sh", "-c", "a ${MISSING:-2}"], "envFrom": [{"configMapRef": {"name": "c"}}]});
        assert_eq!(commands(from), ["a ${MISSING:-2}"], "it may be among those");
    }
}
