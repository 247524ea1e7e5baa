//! The pages of `docs` that are generated from the code.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use tidegate_engine::api::{Runtime, RuntimeProbe};
use tidegate_engine::policy::Rule;
use tidegate_engine::rules;
use tidegate_engine::runtimes::{self, Runtimes};

/// Writes the page of all rules.
#[must_use]
pub fn rules() -> String {
    let mut text = "# Rules\n\n\
        The rules that model servers are checked against. A policy sets the enforcement of each rule \
        (`rules.ID.enforcement`: `enforce`, `warn`, `audit` or `off`); this page lists the defaults. `tidegate explain ID` \
        prints the page of a rule.\n\n\
        | Rule | Enforcement | What it checks |\n| --- | --- | --- |\n"
        .to_owned();
    for rule in rules::ALL {
        let _ = writeln!(text, "| [{0}](#{0}) | {1} | {2} |", rule.id(), rule.enforcement(), first_sentence(*rule));
    }
    for rule in rules::ALL {
        let _ = write!(text, "\n## {}\n\n", rule.id());
        for line in rules::page(*rule).lines() {
            match line.strip_prefix("## ") {
                Some("What it checks") => {}
                Some(heading) => {
                    let _ = write!(text, "\n**{heading}.** ");
                }
                None => {
                    let _ = writeln!(text, "{line}");
                }
            }
        }
    }
    text
}

/// Returns the first sentence of a rule's page: what it checks.
pub(super) fn first_sentence(rule: &dyn Rule) -> String {
    let page = rules::page(rule);
    let text = page.lines().skip(1).take_while(|line| !line.starts_with('#')).collect::<Vec<_>>().join(" ");
    text.split_once(". ").map_or(text.clone(), |(first, _)| format!("{first}."))
}

/// Writes the page of all runtimes.
#[must_use]
pub fn runtimes() -> String {
    let mut text = "# Runtimes\n\n\
        The runtimes (programs that serve models) that Tidegate knows. A runtime is recognised by a container's command and \
        arguments, or by its image if the container runs the image's own; the annotation `tidegate.dev/runtime` names one that \
        is not recognised, and `none` means that it is none of these. The workload takes precedence: a port set by flag, \
        variable, name or probe overrides the runtime's. A policy adds runtimes, or replaces them by name, in the form below \
        (`spec.runtimes`).\n\n\
        The last column is the version that was run to check the preset; `source only` means that it was not run.\n\n\
        | Runtime | Port | Startup | Readiness | Liveness | Start-up budget | Stop | Scale on | Verified with |\n\
        | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n"
        .to_owned();
    for runtime in Runtimes::shipped().iter() {
        let _ = writeln!(text, "{}", row(runtime));
    }
    for (runtime, preset) in Runtimes::shipped().iter().zip(runtimes::TEXTS) {
        let _ = write!(text, "\n## {}\n\n```yaml\n{}```\n", runtime.name, preset);
    }
    text
}

fn row(runtime: &Runtime) -> String {
    let port = ports(runtime);
    let path = |probe: &RuntimeProbe| probe.path.as_ref().map_or_else(|| "TCP".to_owned(), |path| format!("`{path}`"));
    let [startup, readiness, liveness] =
        [&runtime.probes.startup, &runtime.probes.readiness, &runtime.probes.liveness].map(path);
    let budget = runtime.startup_budget;
    let stop = runtime.drain.as_ref().map_or_else(String::new, |drain| {
        let set = drain.timeout.first().map_or_else(String::new, |flag| format!(", or as `{flag}` needs"));
        format!("sleeps {}, killed after {}{set}", drain.pre_stop, drain.grace_period)
    });
    let queue = runtime.metrics.as_ref().and_then(|metrics| metrics.queue.as_ref());
    let queue = queue.map_or_else(|| "CPU".to_owned(), |queue| format!("`{queue}`"));
    let name = &runtime.name;
    let verified = runtime.verified.as_deref().unwrap_or("source only");
    format!(
        "| [{name}](#{name}) | {port} | {startup} | {readiness} | {liveness} | {budget} | {stop} | {queue} | {verified} |"
    )
}

/// Returns the default ports of a runtime and its variants.
fn ports(runtime: &Runtime) -> String {
    let of_variants = runtime.variants.iter().filter_map(|variant| variant.port.as_ref());
    let all = [&runtime.port].into_iter().chain(of_variants);
    let ports: BTreeSet<u16> = all.flat_map(|port| [port.default, port.tcp_default]).flatten().collect();
    if ports.is_empty() {
        return "must be set".to_owned();
    }
    ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ")
}
