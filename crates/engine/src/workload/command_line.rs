//! What a container runs, word by word, as far as that can be told.

use std::iter;

use super::Container;
use super::environment::{Environment, Variable};
use super::shell::{self, Invocation, bare};
use super::text::{Kind, Text, Word};

/// The words of one command, its program first, and the environment that it is run with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandLine {
    words: Vec<Word>,
    environment: Environment,
}

/// What can be told of something that may be said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told<T> {
    /// It is said.
    Yes(T),
    /// It is not said.
    No,
    /// It cannot be told; why not, in words that follow "it cannot be told".
    Unknown(String),
}

impl<T> Told<T> {
    /// Returns what is said, where that can be told.
    pub fn yes(self) -> Option<T> {
        match self {
            Self::Yes(value) => Some(value),
            Self::No | Self::Unknown(_) => None,
        }
    }

    /// Tells whether it is certain that nothing is said.
    pub fn is_no(&self) -> bool {
        matches!(self, Self::No)
    }

    /// Returns what is said, or that nothing is.
    ///
    /// # Errors
    /// Returns why it cannot be told.
    pub fn certain(self) -> Result<Option<T>, String> {
        match self {
            Self::Yes(value) => Ok(Some(value)),
            Self::No => Ok(None),
            Self::Unknown(why) => Err(why),
        }
    }

    /// Makes something else of what is said.
    pub fn map<U>(self, of: impl FnOnce(T) -> U) -> Told<U> {
        match self {
            Self::Yes(value) => Told::Yes(of(value)),
            Self::No => Told::No,
            Self::Unknown(why) => Told::Unknown(why),
        }
    }

    /// Asks elsewhere where it is certain that nothing is said.
    #[must_use]
    pub fn or_else(self, other: impl FnOnce() -> Self) -> Self {
        if self.is_no() { other() } else { self }
    }

    /// Returns the first of several answers that is not `No`.
    pub fn first(answers: impl IntoIterator<Item = Self>) -> Self {
        answers.into_iter().find(|answer| !answer.is_no()).unwrap_or(Self::No)
    }
}

/// Programs that run another one, whose words stand among their own.
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

/// Words of a shell's language that stand before a command.
pub(super) const KEYWORDS: &[&str] = &["!", "command", "do", "else", "exec", "nohup", "then", "time", "{"];

impl CommandLine {
    /// Returns the commands that a container runs: those of a shell's script, or the one that `command` and `args` are.
    /// References to variables whose values are written out are resolved.
    #[must_use]
    pub fn commands_of(container: &Container, environment: &Environment) -> Vec<Self> {
        let words: Vec<Word> = environment.words(container).into_iter().map(Word::of).collect();
        match Invocation::of(&words) {
            Some(invocation) => shell::commands(&words, &invocation, environment),
            None if words.is_empty() => Vec::new(),
            None => vec![Self { words, environment: environment.clone() }],
        }
    }

    pub(super) fn new(words: Vec<Word>, environment: Environment) -> Self {
        Self { words, environment }
    }

    /// Returns the words of several commands of a container as those of one.
    #[must_use]
    pub fn joined(commands: &[Self], environment: &Environment) -> Self {
        let environment = commands.last().map_or(environment, |last| &last.environment).clone();
        Self { words: commands.iter().flat_map(|command| &command.words).cloned().collect(), environment }
    }

    /// Returns each word, where all of them can be told.
    #[must_use]
    pub fn known(&self) -> Option<Vec<&str>> {
        self.words.iter().map(Word::told).collect()
    }

    /// Returns the same behind a program.
    #[must_use]
    pub fn behind(&self, program: &str) -> Self {
        let program = Word::of(Text::known(program));
        Self { words: iter::once(program).chain(self.words.iter().cloned()).collect(), ..self.clone() }
    }

    /// Returns the same where the word at a place is what the program is about, and no flag: the model, the folder.
    #[must_use]
    pub fn with_operand(mut self, place: usize) -> Self {
        if let Some(word) = self.words.get_mut(place).filter(|word| word.kind == Kind::One) {
            word.kind = Kind::Value;
        }
        self
    }

    /// Tells whether a flag is there, with or without a value. Python's programs take `_` for `-` in it.
    #[must_use]
    pub fn has(&self, flag: &str) -> Told<()> {
        let is_there = |word: &Word| {
            !word.is_open() && after_flag(word.text.begin(), flag).is_some_and(|rest| is_whole(word, rest))
        };
        if self.words.iter().any(is_there) {
            return Told::Yes(());
        }
        let mut unsure = (0..self.words.len()).filter(|place| self.may_be(*place, flag));
        unsure.next().map_or(Told::No, |place| self.unknown(place))
    }

    /// Returns the value of `--flag value` or `--flag=value`; the last one counts, as it does for the programs themselves.
    #[must_use]
    pub fn value(&self, flag: &str) -> Told<&str> {
        let places = (0..self.words.len()).rev();
        Told::first(
            places.map(|place| if self.may_be(place, flag) { self.unknown(place) } else { self.value_at(place, flag) }),
        )
    }

    fn value_at(&self, place: usize, flag: &str) -> Told<&str> {
        let Some(word) = self.words[place].told() else { return Told::No };
        match after_flag(word, flag) {
            Some("") => match self.words.get(place + 1) {
                Some(value) => value.told().map_or_else(|| self.unknown(place + 1), Told::Yes),
                None => Told::No,
            },
            Some(rest) => rest.strip_prefix('=').map_or(Told::No, Told::Yes),
            None => Told::No,
        }
    }

    /// Says what is not known of a word; of one behind a flag, with that.
    fn unknown<T>(&self, place: usize) -> Told<T> {
        let word = &self.words[place];
        let flag = place.checked_sub(1).and_then(|before| self.words[before].told()).filter(|word| is_flag(word));
        Told::Unknown(match (word.kind, flag) {
            (Kind::Doubt, _) => word.text.written(),
            (_, Some(flag)) => format!("what `{flag} {}` stands for", word.text.written()),
            (_, None) => format!("what `{}` stands for", word.text.written()),
        })
    }

    /// Tells whether a word that is not known may be a flag. A single one behind a flag without a value is taken to be that:
    /// `--model "$MODEL"`.
    fn may_be(&self, place: usize, flag: &str) -> bool {
        let word = &self.words[place];
        let is_value = || place > 0 && self.words[place - 1].told().is_some_and(is_flag);
        match word.kind {
            Kind::Doubt | Kind::Several => true,
            Kind::Value => false,
            Kind::One if word.told().is_some() => false,
            Kind::One if word.text.begin().is_empty() => !is_value(),
            Kind::One => may_begin(word.text.begin(), flag),
        }
    }

    /// Returns the value of the first of several flags that has one.
    #[must_use]
    pub fn value_of_any<'w>(&'w self, flags: &[String]) -> Told<&'w str> {
        Told::first(flags.iter().map(|flag| self.value(flag)))
    }

    /// Tells whether one of several flags is there.
    #[must_use]
    pub fn has_any(&self, flags: &[String]) -> Told<()> {
        let all: Vec<Told<()>> = flags.iter().map(|flag| self.has(flag)).collect();
        if all.contains(&Told::Yes(())) { Told::Yes(()) } else { Told::first(all) }
    }

    /// Returns the value of a variable of the environment.
    #[must_use]
    pub fn env(&self, name: &str) -> Told<&str> {
        match self.environment.variables.get(name) {
            Some(Variable { value: Some(value), .. }) => {
                value.told().map_or_else(|| Told::Unknown(format!("what {name} is")), Told::Yes)
            }
            _ => Told::No,
        }
    }

    /// Returns the value of the first of several variables that is set.
    #[must_use]
    pub fn env_of_any<'w>(&'w self, names: &[String]) -> Told<&'w str> {
        Told::first(names.iter().map(|name| self.env(name)))
    }

    /// Returns what is given by one of several flags, or else by one of several variables.
    #[must_use]
    pub fn given<'w>(&'w self, flags: &[String], names: &[String]) -> Told<&'w str> {
        self.value_of_any(flags).or_else(|| self.env_of_any(names))
    }

    /// Tells whether a variable of the environment is set, whatever its value.
    #[must_use]
    pub fn has_env(&self, name: &str) -> bool {
        !self.env(name).is_no()
    }

    /// Returns what stands after a word, unless that is a flag.
    #[must_use]
    pub fn after(&self, word: &str) -> Told<&str> {
        let Some(place) = self.words.iter().position(|known| known.told() == Some(word)) else {
            return self.words.iter().position(Word::is_open).map_or(Told::No, |open| self.unknown(open));
        };
        match self.words.get(place + 1) {
            Some(next) => match next.told() {
                Some(told) if told.starts_with('-') => Told::No,
                Some(told) => Told::Yes(told),
                None => self.unknown(place + 1),
            },
            None => Told::No,
        }
    }

    /// Returns the program, without its folder; of Python, the module or the file that it runs.
    #[must_use]
    pub fn program(&self) -> Option<&str> {
        self.programs().next().map(|(program, _)| program)
    }

    /// Tells whether the command is a program with these words behind it, flags among them wherever they stand:
    /// `vllm serve`, `torchserve --start`. Returns the place behind them.
    #[must_use]
    pub fn run(&self, command: &str) -> Option<usize> {
        let mut wanted = command.split(' ');
        let program = wanted.next().unwrap_or_default();
        let (flags, following): (Vec<&str>, Vec<&str>) = wanted.partition(|word| word.starts_with('-'));
        let is_it = |(found, place): &(&str, usize)| {
            let rest = &self.words[*place..];
            *found == program
                && rest.len() >= following.len()
                && rest.iter().zip(&following).all(|(found, wanted)| found.told() == Some(wanted))
                && flags.iter().all(|flag| rest.iter().any(|word| word.told() == Some(flag)))
        };
        self.programs().find(is_it).map(|(_, place)| place + following.len())
    }

    /// Returns the program that is run, with the place behind it. Behind a wrapper each word may be the program.
    fn programs(&self) -> impl Iterator<Item = (&str, usize)> {
        let is_keyword = |word: &&Word| word.told().is_some_and(|told| KEYWORDS.contains(&told));
        let start = self.words.iter().take_while(is_keyword).count();
        let rest = &self.words[start..];
        let is_wrapped = rest.first().and_then(Word::told).is_some_and(|word| WRAPPERS.contains(&bare(word)));
        let most = if is_wrapped { rest.len() } else { rest.len().min(1) };
        (start..start + most).filter_map(|place| self.run_at(place))
    }

    /// Returns what the word at a place runs, with the place behind it.
    fn run_at(&self, place: usize) -> Option<(&str, usize)> {
        let told = |place: usize| self.words.get(place).and_then(Word::told);
        let program = bare(told(place)?);
        if !program.starts_with("python") {
            return Some((program, place + 1));
        }
        // Python's own flags end with the module or the file.
        let mut next = place + 1;
        while told(next).is_some_and(|word| word.starts_with('-') && word != "-m") {
            next += 1;
        }
        let is_module = told(next) == Some("-m");
        next += usize::from(is_module);
        Some(match told(next) {
            Some(name) => (if is_module { name } else { bare(name) }, next + 1),
            None => (program, place + 1),
        })
    }
}

/// Tells whether a word is a flag without a value.
fn is_flag(word: &str) -> bool {
    word.starts_with('-') && word.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

/// Tells whether what is known of a word goes on to what stands behind a flag in it.
fn is_whole(word: &Word, rest: &str) -> bool {
    !rest.is_empty() || word.told().is_some()
}

/// Tells whether a word of which this is the beginning may be a flag, or the flag and its value.
fn may_begin(begin: &str, flag: &str) -> bool {
    match after_flag(begin, flag) {
        Some(_) => true,
        None => flag.get(..begin.len()).is_some_and(|head| after_flag(begin, head) == Some("")),
    }
}

/// Returns what stands in a word after a flag: nothing, or `=` and a value.
fn after_flag<'w>(word: &'w str, flag: &str) -> Option<&'w str> {
    let (head, rest) = (word.get(..flag.len())?, &word[flag.len()..]);
    let same = |(one, other): (char, char)| one == other || (one == '_' && other == '-');
    let is_flag = head.chars().zip(flag.chars()).all(same) && (rest.is_empty() || rest.starts_with('='));
    is_flag.then_some(rest)
}

/// Tells whether a container runs the script of a shell.
pub(super) fn is_script(container: &Container) -> bool {
    let words: Vec<Word> = Environment::of(container).words(container).into_iter().map(Word::of).collect();
    Invocation::of(&words).is_some()
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
        CommandLine::commands_of(&container, &Environment::of(&container))
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
        let words = text.split(' ').map(|word| Word::of(Text::known(word))).collect();
        CommandLine::new(words, Environment::default())
    }

    #[test]
    fn a_shell_behind_a_wrapper_and_with_options_is_one_too() {
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
    fn arguments_that_are_no_script_stay_whole() {
        assert_eq!(commands(json!({"args": ["--prompt", "a; b"]})), ["--prompt a; b"]);
    }

    #[test]
    fn flags_are_read_as_programs_read_them() {
        let words = of("/usr/bin/vllm serve org/model --port 1 --port=2 --dry_run -p");
        assert_eq!(words.value("--port"), Told::Yes("2"));
        assert_eq!((words.value("-p"), words.value("--por")), (Told::No, Told::No));
        let has = |flag: &str| words.has(flag);
        assert_eq!([has("--dry-run"), has("-p"), has("--dry")], [Told::Yes(()), Told::Yes(()), Told::No]);
        assert_eq!((words.after("serve"), words.after("org/model")), (Told::Yes("org/model"), Told::No));
    }

    #[test]
    fn a_program_is_known_wherever_it_lies_and_whoever_starts_it() {
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
    fn a_shells_variables_are_those_of_the_container() {
        let written = |text: &str| commands(json!({"command": ["sh", "-c", text]})).remove(0);
        assert_eq!(written("a $PORT ${OTHER:-1} ${MISSING:-2}"), "a 9000 9000 2");
        assert_eq!(written("a $SECRET ${SECRET:-3}"), "a $SECRET ${SECRET:-3}");
        let from = json!({"command": ["sh", "-c", "a ${MISSING:-2}"], "envFrom": [{"configMapRef": {"name": "c"}}]});
        assert_eq!(commands(from), ["a ${MISSING:-2}"], "it may be among those");
    }

    #[test]
    fn what_words_that_cannot_be_told_may_hide_is_unknown() {
        let unknown = |what: &str| Told::Unknown(format!("what `{what}` stands for"));
        for (text, expected) in [
            ("a $ARGS", Told::Yes("b")),
            ("a \"$ARGS\"", Told::No),
            ("a $SECRET", unknown("$SECRET")),
            ("a \"$SECRET\"", unknown("$SECRET")),
            ("a $NOBODY_SETS_IT", unknown("$NOBODY_SETS_IT")),
            ("a $(cat flags)", unknown("$(cat flags)")),
            ("a --a $SECRET", unknown("--a $SECRET")),
            ("a --a \"$SECRET\"", unknown("--a $SECRET")),
            ("a --a=\"$SECRET\"", unknown("--a=$SECRET")),
            ("a --\"$SECRET\"", unknown("--$SECRET")),
            ("a $SECRET --a 1", Told::Yes("1")),
            ("a --a 1 $SECRET", unknown("$SECRET")),
            ("a --b \"$SECRET\"", Told::No),
            ("a --b=\"$SECRET\"", Told::No),
            ("a \"b $SECRET\"", Told::No),
            ("a \"$@\"", Told::No),
            ("if b; then a --a 1; fi", Told::Unknown("which branch of its script is taken".to_owned())),
            ("b && a --a 1", Told::Yes("1")),
        ] {
            assert_eq!(script(text).value("--a"), expected, "{text}");
        }
    }

    #[test]
    fn a_program_sees_what_its_script_exports() {
        for (text, expected) in [
            ("export A=1; a", Told::Yes("1")),
            ("A=1 a", Told::Yes("1")),
            // The image may set and so export it.
            ("A=1; a", Told::Unknown("what A is".to_owned())),
            ("a", Told::No),
            ("export PORT; a", Told::No),
        ] {
            let commands = words(json!({"command": ["sh", "-c", text]}));
            assert_eq!(commands.last().unwrap().env("A"), expected, "{text}");
            assert_eq!(commands.last().unwrap().env("PORT"), Told::Yes("9000"), "{text}");
        }
    }
}
