//! ## What it checks
//! Servers that listen only on localhost: because of a flag or variable, or because it is the default of the program
//! outside its own images.
//! ## Why it matters
//! Neither the kubelet's probes nor a Service can reach it: the pod never becomes ready.
//! ## Instead
//! Listen on all addresses, `--host 0.0.0.0`, unless a proxy in the same pod serves the requests.

use crate::api::{Enforcement, Host};
use crate::policy::{Context, Finding, Rule};
use crate::rules::{added, this_source};
use crate::workload::Lookup;

/// Finds servers that are unreachable from outside their pod.
#[derive(Debug)]
pub struct LoopbackServer;

impl Rule for LoopbackServer {
    fn id(&self) -> &'static str {
        "loopback-server"
    }

    fn source(&self) -> &'static str {
        this_source!()
    }

    fn enforcement(&self) -> Enforcement {
        Enforcement::Warn
    }

    fn check(&self, context: &Context) -> Vec<Finding> {
        let recognised = context.recognised;
        let Some((container, runtime)) = recognised.known() else { return Vec::new() };
        let Some(Host { flags, env, loopback }) = &runtime.host else { return Vec::new() };
        let found = match recognised.words.given(flags, env) {
            Lookup::Found(host) if is_loopback(host) => format!("`{host}`"),
            Lookup::Absent if *loopback && !recognised.has_own_image() => {
                format!("nothing, so {} listens on localhost", runtime.name)
            }
            _ => return Vec::new(),
        };
        if let (None, Some(variable)) = (flags.first(), env.first()) {
            let finding =
                Finding::in_container(container, "env").found(found).expected("an address that other pods can reach");
            return vec![finding.fix(format!("env:\n  - name: {variable}\n    value: 0.0.0.0"))];
        }
        let words = if container.has_items("args") { "args" } else { "command" };
        let flag = flags.first().map_or("--host", String::as_str);
        let finding =
            Finding::in_container(container, words).found(found).expected("an address that other pods can reach");
        vec![finding.fix(added(container, &format!("{flag}=0.0.0.0")))]
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
