//! Servers that listen only on localhost, where neither the kubelet nor a Service reaches them.

use std::fmt;

use super::recognise;
use crate::api::{Host, Runtime};
use crate::workload::{CommandLine, Container, Lookup};

/// Why a server listens only on localhost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loopback<'a> {
    /// Its address is set to this.
    Set(&'a str),
    /// It is the default of the program.
    Default,
}

impl fmt::Display for Loopback<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Set(host) => write!(f, "it listens only on `{host}`"),
            Self::Default => f.write_str("by default it listens only on localhost"),
        }
    }
}

/// Returns why a server certainly listens only on localhost.
pub(super) fn of<'a>(container: &Container, runtime: &Runtime, words: &'a CommandLine) -> Option<Loopback<'a>> {
    let Host { flags, env, files, loopback } = runtime.host.as_ref()?;
    match words.given(flags, env) {
        Lookup::Found(host) => is_loopback(host).then_some(Loopback::Set(host)),
        Lookup::Absent => {
            let is_server = runtime.recognise.commands.iter().any(|command| words.run(command).is_some());
            let is_default = *loopback
                && is_server
                && !recognise::is_named(&runtime.recognise, container.image())
                && !files.iter().any(|ending| words.has_word_ending(ending));
            is_default.then_some(Loopback::Default)
        }
        Lookup::Unknown(_) => None,
    }
}

fn is_loopback(host: &str) -> bool {
    // It may be a URL: `http://127.0.0.1:11434`.
    let host = host.split_once("://").map_or(host, |(_, rest)| rest);
    host == "::1"
        || host.starts_with("[::1]")
        || host.starts_with("127.")
        || host.split(':').next() == Some("localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recognizes_the_names_of_localhost() {
        for host in ["127.0.0.1", "localhost", "::1", "127.0.0.1:11434", "http://localhost:80", "[::1]:80"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["0.0.0.0", "0.0.0.0:127", "::", "localhost.example.com", "http://10.0.0.1"] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
