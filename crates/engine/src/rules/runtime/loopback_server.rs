//! ## What it checks
//! Servers that listen only on localhost: because of a flag or variable, or because it is the default of the program
//! outside its own images.
//! ## Why it matters
//! Neither the kubelet's probes nor a Service can reach it: the pod never becomes ready.
//! ## Instead
//! Listen on all addresses, `--host 0.0.0.0`, unless a proxy in the same pod serves the requests.

use crate::api::Enforcement;
use crate::policy::{Context, Finding, Rule};
use crate::rules::{added, this_source};
use crate::runtimes::Loopback;

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
        let found = match recognised.loopback() {
            Some(Loopback::Set(host)) => format!("`{host}`"),
            Some(Loopback::Default) => format!("nothing, so {} listens on localhost", runtime.name),
            None => return Vec::new(),
        };
        let (flags, env) = runtime.host.as_ref().map_or((&[][..], &[][..]), |host| (&host.flags, &host.env));
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
