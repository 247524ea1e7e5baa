//! The command lines that a container runs, as far as they are known.

use std::iter;

use super::Container;
use super::environment::{Environment, Variable};
use super::shell::{self, Invocation, bare};
use super::text::{Kind, Text, Word};

/// The words of one command, beginning with its program, and its environment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandLine {
    words: Vec<Word>,
    environment: Environment,
}

/// The result of looking up a flag or a variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup<T> {
    /// It has this value.
    Found(T),
    /// It is absent.
    Absent,
    /// It is unknown. The text says what is, and follows "it is unknown".
    Unknown(String),
}

impl<T> Lookup<T> {
    /// Returns the value, if it is found.
    pub fn found(self) -> Option<T> {
        match self {
            Self::Found(value) => Some(value),
            Self::Absent | Self::Unknown(_) => None,
        }
    }

    /// Returns whether it is certainly absent.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }

    /// Returns the value, or `None` if it is absent.
    ///
    /// # Errors
    /// Returns why it is unknown.
    pub fn known(self) -> Result<Option<T>, String> {
        match self {
            Self::Found(value) => Ok(Some(value)),
            Self::Absent => Ok(None),
            Self::Unknown(why) => Err(why),
        }
    }

    /// Maps the value.
    pub fn map<U>(self, of: impl FnOnce(T) -> U) -> Lookup<U> {
        match self {
            Self::Found(value) => Lookup::Found(of(value)),
            Self::Absent => Lookup::Absent,
            Self::Unknown(why) => Lookup::Unknown(why),
        }
    }

    /// Returns the other result if this one is certainly absent.
    #[must_use]
    pub fn or_else(self, other: impl FnOnce() -> Self) -> Self {
        if self.is_absent() { other() } else { self }
    }

    /// Returns the first of several results that is not `Absent`.
    pub fn first(results: impl IntoIterator<Item = Self>) -> Self {
        results.into_iter().find(|result| !result.is_absent()).unwrap_or(Self::Absent)
    }
}

/// Programs that run another program, whose command line is among their arguments.
pub(super) const WRAPPERS: &[&str] = &[
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

/// Words of the shell language that may precede a command.
pub(super) const KEYWORDS: &[&str] = &["!", "command", "do", "else", "exec", "nohup", "then", "time", "{"];

impl CommandLine {
    /// Returns the commands that a container runs: those of a shell script, or the one in `command` and `args`.
    /// References to variables with literal values are resolved.
    #[must_use]
    pub fn commands_of(container: &Container, environment: &Environment) -> Vec<Self> {
        let words: Vec<Word> = environment.words(container).into_iter().map(Word::new).collect();
        match Invocation::find(&words) {
            Some(invocation) => shell::commands(&words, &invocation, environment),
            None if words.is_empty() => Vec::new(),
            None => vec![Self { words, environment: environment.clone() }],
        }
    }

    pub(super) fn new(words: Vec<Word>, environment: Environment) -> Self {
        Self { words, environment }
    }

    /// Returns the words of several commands as one command line.
    #[must_use]
    pub fn joined(commands: &[Self], environment: &Environment) -> Self {
        let environment = commands.last().map_or(environment, |last| &last.environment).clone();
        Self { words: commands.iter().flat_map(|command| &command.words).cloned().collect(), environment }
    }

    /// Returns the words, if all of them are known.
    #[must_use]
    pub fn known(&self) -> Option<Vec<&str>> {
        self.words.iter().map(Word::as_known).collect()
    }

    /// Returns the command line with a program prepended.
    #[must_use]
    pub fn behind(&self, program: &str) -> Self {
        let program = Word::new(Text::known(program));
        Self { words: iter::once(program).chain(self.words.iter().cloned()).collect(), ..self.clone() }
    }

    /// Marks the word at an index as an operand rather than a flag, such as the model or a directory.
    #[must_use]
    pub fn with_operand(mut self, index: usize) -> Self {
        if let Some(word) = self.words.get_mut(index).filter(|word| word.kind == Kind::One) {
            word.kind = Kind::Value;
        }
        self
    }

    /// Looks up a flag, with or without a value. Python programs accept `_` instead of `-` in flags.
    #[must_use]
    pub fn has(&self, flag: &str) -> Lookup<()> {
        let has_flag = |word: &Word| {
            !word.is_open() && after_flag(word.text.known_start(), flag).is_some_and(|rest| is_whole(word, rest))
        };
        if self.words.iter().any(has_flag) {
            return Lookup::Found(());
        }
        let mut unsure = (0..self.words.len()).filter(|place| self.may_be(*place, flag));
        unsure.next().map_or(Lookup::Absent, |place| self.unknown(place))
    }

    /// Looks up the value of `--flag value` or `--flag=value`; the last one counts, as in the programs themselves.
    #[must_use]
    pub fn value(&self, flag: &str) -> Lookup<&str> {
        let places = (0..self.words.len()).rev();
        Lookup::first(
            places.map(|place| if self.may_be(place, flag) { self.unknown(place) } else { self.value_at(place, flag) }),
        )
    }

    fn value_at(&self, place: usize, flag: &str) -> Lookup<&str> {
        let Some(word) = self.words[place].as_known() else { return Lookup::Absent };
        match after_flag(word, flag) {
            Some("") => match self.words.get(place + 1) {
                Some(value) => value.as_known().map_or_else(|| self.unknown(place + 1), Lookup::Found),
                None => Lookup::Absent,
            },
            Some(rest) => rest.strip_prefix('=').map_or(Lookup::Absent, Lookup::Found),
            None => Lookup::Absent,
        }
    }

    /// Describes an unknown word, with the flag before it if there is one.
    fn unknown<T>(&self, place: usize) -> Lookup<T> {
        let word = &self.words[place];
        let flag = place.checked_sub(1).and_then(|before| self.words[before].as_known()).filter(|word| is_flag(word));
        Lookup::Unknown(match (word.kind, flag) {
            (Kind::Doubt, _) => word.text.written(),
            (_, Some(flag)) => format!("what `{flag} {}` expands to", word.text.written()),
            (_, None) => format!("what `{}` expands to", word.text.written()),
        })
    }

    /// Returns whether an unknown word may be a flag. A single word after a flag without a value is taken for its
    /// value, as in `--model "$MODEL"`.
    fn may_be(&self, place: usize, flag: &str) -> bool {
        let word = &self.words[place];
        let is_value = || place > 0 && self.words[place - 1].as_known().is_some_and(is_flag);
        match word.kind {
            Kind::Doubt | Kind::Several => true,
            Kind::Value => false,
            Kind::One if word.as_known().is_some() => false,
            Kind::One if word.text.known_start().is_empty() => !is_value(),
            Kind::One => may_begin(word.text.known_start(), flag),
        }
    }

    /// Looks up the value of the first of several flags that has one.
    #[must_use]
    pub fn value_of_any<'w>(&'w self, flags: &[String]) -> Lookup<&'w str> {
        Lookup::first(flags.iter().map(|flag| self.value(flag)))
    }

    /// Looks up any of several flags.
    #[must_use]
    pub fn has_any(&self, flags: &[String]) -> Lookup<()> {
        let all: Vec<Lookup<()>> = flags.iter().map(|flag| self.has(flag)).collect();
        if all.contains(&Lookup::Found(())) { Lookup::Found(()) } else { Lookup::first(all) }
    }

    /// Looks up the value of an environment variable.
    #[must_use]
    pub fn env(&self, name: &str) -> Lookup<&str> {
        match self.environment.variables.get(name) {
            Some(Variable { value: Some(value), .. }) => {
                value.as_known().map_or_else(|| Lookup::Unknown(format!("what {name} is")), Lookup::Found)
            }
            _ => Lookup::Absent,
        }
    }

    /// Returns the name of the first environment variable with a prefix.
    #[must_use]
    pub fn env_starting_with(&self, prefix: &str) -> Option<&str> {
        let set = self.environment.variables.iter().filter(|(_, variable)| variable.value.is_some());
        set.map(|(name, _)| name.as_str()).find(|name| name.starts_with(prefix))
    }

    /// Looks up the value of the first of several environment variables that is set.
    #[must_use]
    pub fn env_of_any<'w>(&'w self, names: &[String]) -> Lookup<&'w str> {
        Lookup::first(names.iter().map(|name| self.env(name)))
    }

    /// Looks up the value of several flags, or else of several environment variables.
    #[must_use]
    pub fn given<'w>(&'w self, flags: &[String], names: &[String]) -> Lookup<&'w str> {
        self.value_of_any(flags).or_else(|| self.env_of_any(names))
    }

    /// Returns whether an environment variable is set, or may be.
    #[must_use]
    pub fn has_env(&self, name: &str) -> bool {
        !self.env(name).is_absent()
    }

    /// Returns whether a word has this ending, or may have it.
    #[must_use]
    pub fn has_word_ending(&self, ending: &str) -> bool {
        self.words.iter().any(|word| word.as_known().is_none_or(|word| word.ends_with(ending)))
    }

    /// Looks up the word after a word, unless it is a flag.
    #[must_use]
    pub fn after(&self, word: &str) -> Lookup<&str> {
        let Some(place) = self.words.iter().position(|known| known.as_known() == Some(word)) else {
            return self.words.iter().position(Word::is_open).map_or(Lookup::Absent, |open| self.unknown(open));
        };
        match self.words.get(place + 1) {
            Some(next) => match next.as_known() {
                Some(next) if next.starts_with('-') => Lookup::Absent,
                Some(next) => Lookup::Found(next),
                None => self.unknown(place + 1),
            },
            None => Lookup::Absent,
        }
    }

    /// Returns the name of the program, without its directory; for Python, the module or file that it runs.
    #[must_use]
    pub fn program(&self) -> Option<&str> {
        self.programs().next().map(|(program, _)| program)
    }

    /// Returns whether the command is a program with these arguments, such as `vllm serve` or `torchserve --start`;
    /// flags may be at any position, and a `*` at the end of the program matches any rest. Returns the index after them.
    #[must_use]
    pub fn run(&self, command: &str) -> Option<usize> {
        let mut wanted = command.split(' ');
        let program = wanted.next().unwrap_or_default();
        let (flags, following): (Vec<&str>, Vec<&str>) = wanted.partition(|word| word.starts_with('-'));
        let matches = |(found, place): &(&str, usize)| {
            let rest = &self.words[*place..];
            program.strip_suffix('*').map_or(*found == program, |start| found.starts_with(start))
                && rest.len() >= following.len()
                && rest.iter().zip(&following).all(|(found, wanted)| found.as_known() == Some(wanted))
                && flags.iter().all(|flag| rest.iter().any(|word| word.as_known() == Some(flag)))
        };
        self.programs().find(matches).map(|(_, place)| place + following.len())
    }

    /// Returns the program that is run, with the index after it. After a wrapper, each word may be the program.
    fn programs(&self) -> impl Iterator<Item = (&str, usize)> {
        let is_keyword = |word: &&Word| word.as_known().is_some_and(|word| KEYWORDS.contains(&word));
        let start = self.words.iter().take_while(is_keyword).count();
        let rest = &self.words[start..];
        let is_wrapped = rest.first().and_then(Word::as_known).is_some_and(|word| WRAPPERS.contains(&bare(word)));
        let most = if is_wrapped { rest.len() } else { rest.len().min(1) };
        (start..start + most).filter_map(|place| self.run_at(place))
    }

    /// Returns the program that the word at an index runs, with the index after it.
    fn run_at(&self, place: usize) -> Option<(&str, usize)> {
        let known = |place: usize| self.words.get(place).and_then(Word::as_known);
        let program = bare(known(place)?);
        if !program.starts_with("python") {
            return Some((program, place + 1));
        }
        // Python's own flags end with the module or the file.
        let mut next = place + 1;
        while known(next).is_some_and(|word| word.starts_with('-') && word != "-m") {
            next += 1;
        }
        let is_module = known(next) == Some("-m");
        next += usize::from(is_module);
        Some(match known(next) {
            Some(name) => (if is_module { name } else { bare(name) }, next + 1),
            None => (program, place + 1),
        })
    }
}

/// Returns whether a word is a flag without a value.
fn is_flag(word: &str) -> bool {
    word.starts_with('-') && word.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

/// Returns whether the flag at the beginning of a word is known to end there.
fn is_whole(word: &Word, rest: &str) -> bool {
    !rest.is_empty() || word.as_known().is_some()
}

/// Returns whether a word with this beginning may be a flag, or the flag and its value.
fn may_begin(begin: &str, flag: &str) -> bool {
    match after_flag(begin, flag) {
        Some(_) => true,
        None => flag.get(..begin.len()).is_some_and(|head| after_flag(begin, head) == Some("")),
    }
}

/// Returns the rest of a word after a flag: nothing, or `=` and a value.
fn after_flag<'w>(word: &'w str, flag: &str) -> Option<&'w str> {
    let (head, rest) = (word.get(..flag.len())?, &word[flag.len()..]);
    let same = |(one, other): (char, char)| one == other || (one == '_' && other == '-');
    let is_flag = head.chars().zip(flag.chars()).all(same) && (rest.is_empty() || rest.starts_with('='));
    is_flag.then_some(rest)
}

/// Returns whether a container runs a shell script.
pub(super) fn is_script(container: &Container) -> bool {
    let words: Vec<Word> = Environment::new(container).words(container).into_iter().map(Word::new).collect();
    Invocation::find(&words).is_some()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn words(mut value: Value) -> Vec<CommandLine> {
        value["env"] = json!([
            {"name": "PORT", "value": "9000"}, {"name": "OTHER", "value": "$(PORT)"}, {"name": "ARGS", "value": "--a b"},
            {"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}
        ]);
        let container = Container::new("/spec/template", "containers", 0, &value);
        CommandLine::commands_of(&container, &Environment::new(&container))
    }

    fn commands(value: Value) -> Vec<String> {
        let written =
            |words: &CommandLine| words.words.iter().map(|word| word.text.written()).collect::<Vec<_>>().join(" ");
        words(value).iter().map(written).collect()
    }

    fn script(text: &str) -> CommandLine {
        words(json!({"command": ["sh", "-c", text]})).pop().unwrap()
    }

    fn of(text: &str) -> CommandLine {
        let words = text.split(' ').map(|word| Word::new(Text::known(word))).collect();
        CommandLine::new(words, Environment::default())
    }

    #[test]
    fn finds_a_shell_after_a_wrapper_and_with_options() {
        for command in [
            &["tini", "--", "bash", "-e", "-xc", "a b; c", "name"][..],
            &["/bin/bash", "-euxo", "pipefail", "-c", "a b; c"],
            &["sh", "-ce", "a b; c"],
        ] {
            assert_eq!(commands(json!({"command": command})), ["a b", "c"]);
        }
        assert_eq!(commands(json!({"command": ["bash", "start it.sh", "-c", "a b"]})), ["bash start it.sh -c a b"]);
        assert_eq!(commands(json!({"command": ["bash", "-c"]})), ["bash -c"]);
        assert_eq!(commands(json!({})), [""; 0]);
    }

    #[test]
    fn does_not_split_arguments_that_are_not_a_script() {
        assert_eq!(commands(json!({"args": ["--prompt", "a; b"]})), ["--prompt a; b"]);
    }

    #[test]
    fn looks_up_flags_as_programs_do() {
        let words = of("/usr/bin/vllm serve org/model --port 1 --port=2 --dry_run -p");
        assert_eq!(words.value("--port"), Lookup::Found("2"));
        assert_eq!((words.value("-p"), words.value("--por")), (Lookup::Absent, Lookup::Absent));
        let has = |flag: &str| words.has(flag);
        assert_eq!([has("--dry-run"), has("-p"), has("--dry")], [Lookup::Found(()), Lookup::Found(()), Lookup::Absent]);
        assert_eq!((words.after("serve"), words.after("org/model")), (Lookup::Found("org/model"), Lookup::Absent));
    }

    #[test]
    fn finds_a_program_in_any_directory_and_after_a_wrapper() {
        for text in ["/opt/bin/vllm serve m", "exec vllm serve m", "tini -- vllm serve m", "env A=1 vllm serve m"] {
            assert!(of(text).run("vllm serve").is_some(), "{text}");
        }
        for text in ["vllm bench serve", "echo vllm serve", "python deploy.py vllm serve", "vllm"] {
            assert_eq!(of(text).run("vllm serve"), None, "{text}");
        }
        assert_eq!(of("python3.12 -u -m sglang.launch_server").run("sglang.launch_server"), Some(4));
        assert_eq!(of("python -m other --module sglang.launch_server").run("sglang.launch_server"), None);
        assert!(of("torchserve --foreground --start").run("torchserve --start").is_some());
        assert_eq!((of("python /app/run.py a").program(), of("python").program()), (Some("run.py"), Some("python")));
    }

    #[test]
    fn a_script_uses_the_variables_of_the_container() {
        let written = |text: &str| commands(json!({"command": ["sh", "-c", text]})).remove(0);
        assert_eq!(written("a $PORT ${OTHER:-1} ${MISSING:-2}"), "a 9000 9000 2");
        assert_eq!(written("a $SECRET ${SECRET:-3}"), "a $SECRET ${SECRET:-3}");
        let from = json!({"command": ["sh", "-c", "a ${MISSING:-2}"], "envFrom": [{"configMapRef": {"name": "c"}}]});
        assert_eq!(commands(from), ["a ${MISSING:-2}"], "`envFrom` may set it");
    }

    #[test]
    fn flags_that_unknown_words_may_contain_are_unknown() {
        let unknown = |what: &str| Lookup::Unknown(format!("what `{what}` expands to"));
        for (text, expected) in [
            ("a $ARGS", Lookup::Found("b")),
            ("a \"$ARGS\"", Lookup::Absent),
            ("a $SECRET", unknown("$SECRET")),
            ("a \"$SECRET\"", unknown("$SECRET")),
            ("a $NOBODY_SETS_IT", unknown("$NOBODY_SETS_IT")),
            ("a $(cat flags)", unknown("$(cat flags)")),
            ("a --a $SECRET", unknown("--a $SECRET")),
            ("a --a \"$SECRET\"", unknown("--a $SECRET")),
            ("a --a=\"$SECRET\"", unknown("--a=$SECRET")),
            ("a --\"$SECRET\"", unknown("--$SECRET")),
            ("a $SECRET --a 1", Lookup::Found("1")),
            ("a --a 1 $SECRET", unknown("$SECRET")),
            ("a --b \"$SECRET\"", Lookup::Absent),
            ("a --b=\"$SECRET\"", Lookup::Absent),
            ("a \"b $SECRET\"", Lookup::Absent),
            ("a \"$@\"", Lookup::Absent),
            ("if b; then a --a 1; fi", Lookup::Unknown("which branch of its script is taken".to_owned())),
            ("b && a --a 1", Lookup::Found("1")),
        ] {
            assert_eq!(script(text).value("--a"), expected, "{text}");
        }
    }

    #[test]
    fn a_program_gets_the_variables_that_its_script_exports() {
        for (text, expected) in [
            ("export A=1; a", Lookup::Found("1")),
            ("A=1 a", Lookup::Found("1")),
            // The image may set it, and thus export it.
            ("A=1; a", Lookup::Unknown("what A is".to_owned())),
            ("a", Lookup::Absent),
            ("export PORT; a", Lookup::Absent),
        ] {
            let commands = words(json!({"command": ["sh", "-c", text]}));
            assert_eq!(commands.last().unwrap().env("A"), expected, "{text}");
            assert_eq!(commands.last().unwrap().env("PORT"), Lookup::Found("9000"), "{text}");
        }
    }
}
