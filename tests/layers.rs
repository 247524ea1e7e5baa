//! Holds the sources to their layers: what decides knows no client, clock or `async`, and no module looks upwards.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The layers that talk to people, the API server and the clock; those before them are pure.
const SHELLS: [&str; 3] = ["server", "controller", "cli"];

/// What a pure module does not name.
const FORBIDDEN: &[&str] = &[
    "async",
    "await",
    "axum",
    "hyper",
    "kube::Api",
    "kube::Client",
    "kube::Config",
    "kube::api",
    "kube::client",
    "kube::runtime",
    "rustls",
    "std::env",
    "std::fs",
    "std::net",
    "std::process",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
    "Instant::now",
    "OffsetDateTime::now_utc",
    "Timestamp::now",
    "SystemTime::now",
    "time::OffsetDateTime::now_utc",
    "time::UtcDateTime::now",
    "tokio",
    "tracing",
    "dbg!",
    "eprint!",
    "eprintln!",
    "print!",
    "println!",
];

/// A file of a pure layer that may name something all the same.
struct Allowance {
    file: &'static str,
    name: &'static str,
}

const ALLOWANCES: &[Allowance] = &[];

/// A module that looks upwards all the same.
struct Exception {
    module: &'static str,
    looks_at: &'static str,
}

const EXCEPTIONS: &[Exception] = &[
    // A policy names rules: compiling it finds the names that no rule has, and how strict a rule is depends on the rule.
    Exception { module: "policy", looks_at: "rules" },
    // A policy brings runtimes of its own beside those that are known.
    Exception { module: "policy", looks_at: "runtimes" },
    // The settings of a database know their provider, so that whoever reads them needs no list of providers.
    Exception { module: "policy", looks_at: "companions" },
];

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The layers as the crate's front page lists them, the lowest first.
fn layers() -> Vec<Vec<String>> {
    let front_page = fs::read_to_string(sources().join("lib.rs")).unwrap();
    let items = front_page.lines().filter_map(|line| line.strip_prefix("//! - "));
    let modules = items.map(|item| item.split("[`").skip(1).filter_map(|link| link.split('`').next()));
    modules.map(|modules| modules.map(str::to_owned).collect()).collect()
}

fn pure() -> Vec<String> {
    layers().into_iter().flatten().filter(|module| !SHELLS.contains(&module.as_str())).collect()
}

/// The files of a module, by their names under `src`.
fn files(module: &str) -> Vec<(String, String)> {
    fn walk(path: &Path, found: &mut Vec<PathBuf>) {
        if path.is_dir() {
            for entry in fs::read_dir(path).unwrap() {
                walk(&entry.unwrap().path(), found);
            }
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path.to_owned());
        }
    }
    let root = sources();
    let mut found = Vec::new();
    walk(&root.join(format!("{module}.rs")), &mut found);
    if root.join(module).exists() {
        walk(&root.join(module), &mut found);
    }
    let read = |path: PathBuf| {
        let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
        (name, fs::read_to_string(path).unwrap())
    };
    found.into_iter().map(read).collect()
}

/// Every path and word of a source, imports spelt out; without comments, texts and tests.
fn names(source: &str) -> BTreeSet<String> {
    let code = without_tests(&without_texts(source));
    let mut names = BTreeSet::new();
    for (index, _) in code.match_indices("use ") {
        if code[..index].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        if let Some(end) = code[index..].find(';') {
            expand("", &code[index + 4..index + end], &mut names);
        }
    }
    let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | ':' | '!');
    names.extend(code.split(|c| !is_part(c)).map(|word| word.trim_matches(':').to_owned()));
    names
}

/// Spells out an import: `a::{b, c::d}` is `a::b` and `a::c::d`.
fn expand(prefix: &str, import: &str, names: &mut BTreeSet<String>) {
    let import = import.trim();
    let Some((head, list)) = import.split_once('{') else {
        let path = import.split(" as ").next().unwrap_or_default().trim();
        names.insert(format!("{prefix}{path}"));
        return;
    };
    let list = list.strip_suffix('}').unwrap_or(list);
    let (mut depth, mut start) = (0, 0);
    for (index, c) in list.char_indices().chain([(list.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                if !list[start..index].trim().is_empty() {
                    expand(&format!("{prefix}{}", head.trim()), &list[start..index], names);
                }
                start = index + 1;
            }
            _ => {}
        }
    }
}

/// Leaves out comments and what stands between quotes.
fn without_texts(source: &str) -> String {
    let mut code = String::new();
    let mut rest = source;
    while let Some(c) = rest.chars().next() {
        let skipped = match c {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '"' => text_length(rest),
            'r' if rest.starts_with("r\"") || rest.starts_with("r#\"") => {
                let end = if rest.starts_with("r#") { "\"#" } else { "\"" };
                rest[3..].find(end).map_or(rest.len(), |at| at + 3 + end.len())
            }
            '\'' => character_length(rest),
            _ => 0,
        };
        if skipped == 0 {
            code.push(c);
            rest = &rest[c.len_utf8()..];
        } else {
            rest = &rest[skipped..];
        }
    }
    code
}

/// The length of a text in quotes.
fn text_length(rest: &str) -> usize {
    let mut escaped = false;
    for (index, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return index + 1,
            _ => {}
        }
    }
    rest.len()
}

/// The length of a character in quotes; zero for a lifetime.
fn character_length(rest: &str) -> usize {
    let mut chars = rest.char_indices().skip(1);
    match (chars.next(), chars.next(), chars.next()) {
        (Some((_, '\\')), _, Some((end, '\''))) => end + 1,
        (Some((_, '\\')), ..) => rest[2..].find('\'').map_or(0, |end| end + 3),
        (_, Some((end, '\'')), _) => end + 1,
        _ => 0,
    }
}

/// Leaves out the modules of tests, which end in a brace at the beginning of a line.
fn without_tests(code: &str) -> String {
    let mut kept = String::new();
    let mut lines = code.lines();
    while let Some(line) = lines.next() {
        if line.trim() == "#[cfg(test)]" {
            let declared = lines.next().unwrap_or_default();
            if declared.trim_end().ends_with('{') {
                lines.find(|line| *line == "}");
            }
        } else {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

fn is_below(name: &str, path: &str) -> bool {
    name.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// The modules of this crate that a source looks at.
fn looked_at(source: &str) -> BTreeSet<String> {
    let names = names(source);
    let paths = names.iter().filter_map(|name| name.strip_prefix("crate::"));
    paths.map(|path| path.split("::").next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn the_front_page_lists_every_layer() {
    let modules: Vec<String> = layers().concat();
    for module in
        ["quantity", "digest", "api", "facts", "workload", "policy", "runtimes", "rules", "companions", "engine"]
    {
        assert!(modules.iter().any(|listed| listed == module), "{module} is not listed");
    }
    assert!(modules.ends_with(&SHELLS.map(str::to_owned)), "{modules:?}");
}

#[test]
fn what_decides_knows_no_client_clock_or_async() {
    let mut wrong = Vec::new();
    let mut allowed = 0;
    for (file, source) in pure().iter().flat_map(|module| files(module)) {
        for name in names(&source) {
            let Some(forbidden) = FORBIDDEN.iter().find(|forbidden| is_below(&name, forbidden)) else { continue };
            if ALLOWANCES.iter().any(|allowance| file == allowance.file && *forbidden == allowance.name) {
                allowed += 1;
            } else {
                wrong.push(format!("{file} names {name}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(allowed >= ALLOWANCES.len(), "an allowance that nobody needs any more should go");
}

#[test]
fn no_module_looks_upwards() {
    let layers = layers();
    let layer_of = |module: &str| layers.iter().position(|layer| layer.iter().any(|listed| listed == module));
    let (mut wrong, mut needed) = (Vec::new(), BTreeSet::new());
    for module in pure() {
        for (file, source) in files(&module) {
            for other in looked_at(&source) {
                let is_lower = layer_of(&other).is_some_and(|layer| Some(layer) <= layer_of(&module));
                let exception = EXCEPTIONS.iter().any(|known| known.module == module && known.looks_at == other);
                if exception {
                    needed.insert((module.clone(), other));
                } else if !is_lower {
                    wrong.push(format!("{file} looks at {other}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(needed.len(), EXCEPTIONS.len(), "an exception that nobody needs any more should go");
}

#[test]
fn names_are_read_as_the_compiler_reads_them() {
    let source = r##"
        //! tokio in a comment
        use std::{env, io::{self, Read as _}};
        pub(crate) use crate::policy::{Policy, rules::{A}};
        fn f<'a>(quote: char) -> &'a str { let _ = ['"', '\'', '\u{1}']; "println!() \" std::fs" /* */ }
        fn g() { crate::engine::decide(); std::time::Instant::now(); x.await; println!("a"); }
#[cfg(test)]
mod tests {
    use tokio::net;
}
        const RAW: &str = r#"tracing "quoted" "#;
    "##;
    let names = names(source);
    for name in ["std::env", "std::io::self", "crate::policy::rules::A", "std::time::Instant::now", "await", "println!"]
    {
        assert!(names.contains(name), "{name} is not in {names:?}");
    }
    for name in ["tokio", "tokio::net", "std::fs", "tracing", "quoted"] {
        assert!(!names.contains(name), "{name} is in {names:?}");
    }
    assert_eq!(looked_at(source), ["engine".to_owned(), "policy".to_owned()].into());
}
