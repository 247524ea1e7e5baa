//! Compares the interpretation of scripts with real shells.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};
use tempfile::TempDir;
use tidegate_engine::workload::{CommandLine, Environment, Lookup, Workload};

/// The program that scripts run: it writes each argument, followed by NUL, and the end of a record.
const HELPER: &str = "#!/bin/sh\n{ for word; do printf '%s\\0' \"$word\"; done; printf '\\036\\0'; } >> \"$NOTES\"\n";

/// The directory of the program. It is written once, before any shell is started: a file that is open for writing
/// cannot be executed.
static BIN: LazyLock<TempDir> = LazyLock::new(|| {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("serve");
    fs::write(&path, HELPER).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    folder
});

/// Variables with a literal value in the container.
const KNOWN: [(&str, &str); 5] =
    [("A", "--port 9000"), ("B", ""), ("C", "x  y* \tz"), ("D", "--port=1\n--quiet=2 "), ("E", "a\\b'c\"d")];

/// Variables from a Secret (`F`), or that only the image sets (`G`).
const UNKNOWN: [&str; 2] = ["F", "G"];

/// The shells that are available everywhere.
const SHELLS: [&str; 2] = ["sh", "bash"];

/// A script, its parameters, and the values of unknown variables.
#[derive(Clone, Debug)]
struct Case {
    script: String,
    parameters: Vec<String>,
    unknown: Vec<String>,
    shell: &'static str,
}

impl Case {
    fn command(&self) -> Vec<&str> {
        let called = [self.shell, "-c", &self.script, "name"];
        called.into_iter().chain(self.parameters.iter().map(String::as_str)).collect()
    }

    /// Returns the arguments of each call of the helper by a real shell.
    fn real(&self) -> Vec<Vec<String>> {
        LazyLock::force(&BIN);
        let folder = TempDir::new().unwrap();
        let (empty, notes) = (folder.path().join("empty"), folder.path().join("notes"));
        fs::create_dir(&empty).unwrap();
        let command = self.command();
        // Ends scripts that loop forever.
        let mut shell = Command::new("timeout");
        shell.args(["10", &format!("/bin/{}", command[0])]).args(&command[1..]).current_dir(&empty);
        shell.env_clear().envs(KNOWN).envs(UNKNOWN.into_iter().zip(&self.unknown));
        shell.env("PATH", format!("{}:/usr/bin:/bin", BIN.path().display())).env("NOTES", &notes);
        shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        let noted = fs::read_to_string(&notes).unwrap_or_default();
        let words = |record: &str| record.split_terminator('\0').map(str::to_owned).collect();
        noted.split_terminator("\u{1e}\0").map(words).collect()
    }

    /// Returns the interpreted commands that may call the helper.
    fn interpreted(&self) -> Vec<CommandLine> {
        let mut env: Vec<Value> = KNOWN.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
        env.push(json!({"name": "F", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}));
        // The kubelet expands `$(…)` first, but here no name in it is a variable.
        let command: Vec<String> = self.command().iter().map(|word| word.replace("$$", "$$$$")).collect();
        let container = json!({"name": "m", "image": "m:1", "command": command, "env": env});
        let object = json!({"spec": {"template": {"spec": {"containers": [container]}}}});
        let container = Workload::view(&object).unwrap().containers().next().unwrap();
        let commands = CommandLine::commands_of(&container, &Environment::new(&container)).into_iter();
        commands.filter(|words| words.program().is_none_or(|program| program == "serve")).collect()
    }
}

/// Returns the value of the last `--port`, as servers do.
fn port(words: &[String]) -> Option<&str> {
    let at = |place: usize| match words[place].strip_prefix("--port")? {
        "" => words.get(place + 1).map(String::as_str),
        rest => rest.strip_prefix('='),
    };
    (0..words.len()).rev().find_map(at)
}

/// Returns the arguments of the helper.
fn arguments<'w>(words: &'w [&'w str]) -> &'w [&'w str] {
    let place = words.iter().position(|word| *word == "serve").unwrap();
    &words[place + 1..]
}

/// A part of a word whose expansion is known and the same in all shells.
fn known_part() -> impl Strategy<Value = String> {
    let name = || select(KNOWN.map(|(name, _)| name).to_vec());
    prop_oneof![
        4 => "[a-z0-9][a-z0-9=:*-]{0,5}",
        1 => Just("--port".to_owned()),
        1 => "'[a-z $\"\\\\*]{0,5}'",
        2 => "\"[a-z '*]{0,5}\"",
        1 => "\\\\[a-z $\"'\\\\*;&|]",
        1 => "\"\\\\[a-z $\"`\\\\]\"",
        1 => Just("\\\n".to_owned()),
        2 => name().prop_map(|name| format!("${{{name}}}")),
        2 => name().prop_map(|name| format!("\"${{{name}}}\"")),
        1 => (name(), select(vec![":-", ":+", "-", "+"]), "[a-z ]{0,4}|\"[a-z ]{1,4}\"|\\$A|\"\\$C\"")
            .prop_map(|(name, sign, word)| format!("${{{name}{sign}{word}}}")),
        1 => (name(), select(vec![":-", ":+"]), "[a-z ]{0,4}|\\$A")
            .prop_map(|(name, sign, word)| format!("\"${{{name}{sign}{word}}}\"")),
        1 => select(vec!["$1", "\"$2\"", "$@", "$*", "\"$*\"", "$#", "\"$0\"", "$9", "${1:-x}"])
            .prop_map(str::to_owned),
    ]
}

/// A part of a word, known or unknown.
fn any_part() -> impl Strategy<Value = String> {
    let unknown = select(vec![
        "$F",
        "\"$F\"",
        "$G",
        "\"${G}\"",
        "${F:-x}",
        "${F:+--port=2}",
        "$(echo --port 3)",
        "\"$(echo a b)\"",
        "`echo --port=4`",
        "$((1 + 2))",
        "${A#--}",
        "${#A}",
        "$?",
        "~",
        "${E%c*}",
        "$'a\\tb'",
        "{a,b}",
        "\"${A:=x}\"",
        "${N:=--port 5}",
    ]);
    prop_oneof![3 => known_part(), 1 => unknown.prop_map(str::to_owned)]
}

fn word(part: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    let parts = prop::collection::vec(part, 1..4).prop_map(|parts| parts.concat());
    prop_oneof![8 => parts, 1 => Just("\"$@\"".to_owned())]
}

fn words(word: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    prop::collection::vec(word, 0..4).prop_map(|words| words.join(" "))
}

/// A statement that is always run once.
fn plain(word: impl Strategy<Value = String> + Clone + 'static) -> impl Strategy<Value = String> {
    let name = || select(vec!["A", "B", "C", "H", "N"]);
    let one = || word.clone();
    prop_oneof![
        6 => words(one()).prop_map(|words| format!("serve @ {words}")),
        1 => words(one()).prop_map(|words| format!("H=1 serve @ {words} 2>&1 >/dev/null </dev/null")),
        2 => (name(), one()).prop_map(|(name, word)| format!("{name}={word}")),
        1 => (name(), select(vec!["1", "\"${C}z\"", "'$A'"])).prop_map(|(name, value)| format!("export {name}={value}")),
        1 => name().prop_map(|name| format!("unset {name}")),
        1 => words(one()).prop_map(|words| format!("set -- {words}")),
        1 => Just("true && :".to_owned()),
        1 => words(one()).prop_map(|words| format!("serve @ {words} <<X\n--port 9\nX\n:")),
        1 => words(one()).prop_map(|words| format!("( serve @ {words} )")),
        1 => words(one()).prop_map(|words| format!("{{ B=2; serve @ {words}; }}")),
        1 => words(one()).prop_map(|words| format!("sh -c 'serve @ \"$@\" $A' name {words}")),
        1 => words(one()).prop_map(|words| format!("f() {{ serve @ \"$@\" $1; }}; f {words}")),
        1 => words(one()).prop_map(|words| format!("# comment {}\nserve @ {words} # --port 6", words.replace('\n', " "))),
    ]
}

/// Any statement, whose effect may depend on unknown values.
fn any_statement() -> impl Strategy<Value = String> {
    let condition = select(vec!["true", "false", "test -n \"$F\"", "[ \"$G\" = x ]", "! false", "serve @ --port 10"]);
    let simple = plain(word(any_part()).boxed()).boxed();
    simple.prop_recursive(3, 12, 3, move |inner| {
        let (condition, inner) = (condition.clone().prop_map(str::to_owned).boxed(), inner.boxed());
        let more = select(vec![
            "IFS=:", "set -e", "exit 1", "eval \"A=3; serve @ $A $F\"", "read A < /dev/null", "set -- $F", "A=$F", "exec serve @ $A",
            ". ./nothing", "local A=1", "f() { local A=6; serve @ $A; }; f; serve @ $A", "readonly B=3", "cd /", "A+=x", "return", "shift", "shift 2", "f() { return; serve @; }; f", "eval $F", "unset F", "set -f", "trap 'A=4' EXIT",
        ]);
        prop_oneof![
            2 => inner.clone(),
            2 => (condition.clone(), inner.clone(), inner.clone())
                .prop_map(|(test, one, two)| format!("if {test}; then\n{one}\nelse\n{two}\nfi")),
            1 => (condition.clone(), inner.clone()).prop_map(|(test, one)| format!("if {test}; then\n{one}\nfi")),
            1 => (condition.clone(), inner.clone()).prop_map(|(test, one)| format!("{test} && {{\n{one}\n}}")),
            1 => (condition, inner.clone()).prop_map(|(test, one)| format!("{test} || {{\n{one}\n}}")),
            1 => (inner.clone(), "[a-c \"$A]{0,4}").prop_map(|(one, _)| format!("for A in 1 \"$C\" $F; do\n{one}\ndone")),
            1 => inner.clone().prop_map(|one| format!("for B in $F; do\n{one}\ndone")),
            1 => inner.clone().prop_map(|one| format!("for A; do\n{one}\nshift\ndone")),
            1 => inner.clone().prop_map(|one| format!("while true; do\n{one}\nbreak; A=5\ndone")),
            1 => (inner.clone(), inner.clone())
                .prop_map(|(one, two)| format!("for X in 1 2; do\n{one}\n[ $X = 2 ] || continue\n{two}\ndone")),
            1 => (inner.clone(), inner.clone()).prop_map(|(one, two)| format!("case $F in *y*)\n{one}\n;; *)\n{two}\n;; esac")),
            1 => inner.clone().prop_map(|one| format!("g() {{\n{one}\n}}\ng $A\ng \"$F\"")),
            1 => inner.clone().prop_map(|one| format!("(\n{one}\n)")),
            1 => inner.clone().prop_map(|one| format!("{{\n{one}\n}} | cat")),
            1 => inner.prop_map(|one| format!("{{\n{one}\n}} & wait")),
            3 => more.prop_map(str::to_owned),
        ]
    })
}

/// Joins statements, and numbers the calls of the helper.
fn script(statements: &[String]) -> String {
    let mut parts = statements.join("\n").split('@').map(str::to_owned).collect::<Vec<_>>().into_iter();
    let mut script = parts.next().unwrap_or_default();
    for (number, part) in parts.enumerate() {
        // `$@` is not a call.
        let is_call = script.ends_with("serve ");
        let mark = if is_call { format!("c{number}") } else { "@".to_owned() };
        script.push_str(&mark);
        script.push_str(&part);
    }
    script
}

fn case(statement: impl Strategy<Value = String>) -> impl Strategy<Value = Case> {
    let parameters = prop::collection::vec(select(vec!["", "p", "q r", "--port", "7", "*"]), 0..3);
    let unknown = prop::collection::vec(select(vec!["", "x", "u v", "--port 8", "--port=11", "xyz*"]), 2);
    let owned = |texts: Vec<&str>| texts.into_iter().map(str::to_owned).collect();
    (prop::collection::vec(statement, 1..6), parameters, unknown, select(SHELLS.to_vec())).prop_map(
        move |(statements, parameters, unknown, shell)| Case {
            script: script(&statements),
            parameters: owned(parameters),
            unknown: owned(unknown),
            shell,
        },
    )
}

proptest! {
    #[test]
    fn known_words_are_those_of_real_shells(case in case(plain(word(known_part()).boxed()))) {
        let interpreted: Option<Vec<Vec<String>>> = case.interpreted().iter().map(|words| {
            Some(arguments(&words.known()?).iter().map(|word| (*word).to_owned()).collect())
        }).collect();
        prop_assert_eq!(interpreted, Some(case.real()));
    }

    #[test]
    fn each_real_call_fits_an_interpreted_command(case in case(any_statement())) {
        let interpreted = case.interpreted();
        for real in case.real() {
            let fits = |words: &CommandLine| {
                let is_same = words.known().is_none_or(|known| arguments(&known).iter().eq(&real));
                let is_port = match words.value("--port") {
                    Lookup::Found(value) => port(&real) == Some(value),
                    Lookup::Absent => port(&real).is_none(),
                    Lookup::Unknown(_) => true,
                };
                is_same && is_port
            };
            let known = || interpreted.iter().map(|words| (words.known(), words.value("--port"))).collect::<Vec<_>>();
            prop_assert!(interpreted.iter().any(fits), "{:?} is none of {:#?}", real, known());
        }
    }
}
