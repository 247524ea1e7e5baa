//! What is different in some containers of a runtime.

use std::sync::Arc;

use super::recognise;
use crate::api::{Builds, Given, OwnImage, Runtime, When};
use crate::workload::{CommandLine, Container, Lookup};

/// Returns a runtime as it is in a container, with the sections of the variants that apply.
pub(super) fn of(runtime: Arc<Runtime>, container: &Container, words: &CommandLine) -> Arc<Runtime> {
    let applies = |when: &When| Applied { runtime: &runtime, container, words }.applies(when);
    let variants: Vec<_> = runtime.variants.iter().filter(|variant| applies(&variant.when)).collect();
    if variants.is_empty() {
        return runtime;
    }
    let mut own = Runtime::clone(&runtime);
    // In reverse, because the first counts.
    for variant in variants.into_iter().rev() {
        own.port = variant.port.clone().unwrap_or(own.port);
        own.probes = variant.probes.clone().unwrap_or(own.probes);
        own.metrics = variant.metrics.clone().or(own.metrics);
        own.inference_paths = variant.inference_paths.clone().unwrap_or(own.inference_paths);
    }
    Arc::new(own)
}

/// A container that variants may apply to. What is unknown does not apply.
struct Applied<'a> {
    runtime: &'a Runtime,
    container: &'a Container<'a>,
    words: &'a CommandLine,
}

impl Applied<'_> {
    fn applies(&self, when: &When) -> bool {
        let When { given, values, image } = when;
        given.iter().all(|given| self.is_given(given))
            && values.iter().all(|(name, values)| self.has_value(name, values))
            && image.as_ref().is_none_or(|image| self.has_image(image))
    }

    fn is_given(&self, given: &Given) -> bool {
        given.env.iter().any(|name| self.words.has_env(name)) || self.words.has_any(&given.flags) == Lookup::Found(())
    }

    fn has_value(&self, name: &str, values: &[String]) -> bool {
        let found = self.words.env(name).found();
        found.is_some_and(|found| values.iter().any(|pattern| recognise::is_like(pattern, found)))
    }

    fn has_image(&self, wanted: &OwnImage) -> bool {
        let OwnImage { contains, builds, own_command } = wanted;
        let image = self.container.image();
        recognise::is_named(&self.runtime.recognise, image)
            && (contains.is_empty() || contains.iter().any(|part| image.text().contains(part.as_str())))
            && builds.as_ref().is_none_or(|builds| image.tag().is_some_and(|tag| is_within(builds, tag)))
            && (!own_command || recognise::is_default(self.container))
    }
}

/// Returns whether a tag has a build number in a range.
fn is_within(builds: &Builds, tag: &str) -> bool {
    let build = tag.split('-').find_map(|part| part.strip_prefix(&builds.prefix)?.parse::<u64>().ok());
    build.is_some_and(|build| builds.from.is_none_or(|from| from <= build) && builds.to.is_none_or(|to| build <= to))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::runtimes::Runtimes;
    use crate::workload::Workload;

    /// Returns the default port and the probed path of a runtime of a policy, in a container.
    fn found(container: &Value) -> (Option<u16>, Option<String>) {
        let runtime = json!({
            "name": "own", "recognise": {"images": ["own"], "commands": ["own"]}, "startupBudget": "1m",
            "port": {"default": 1}, "probes": {"readiness": {"path": "/ready"}},
            "variants": [
                {"when": {"image": {"builds": {"prefix": "b", "to": 10}}}, "port": {"default": 2}},
                {"when": {"image": {"ownCommand": true}}, "port": {"default": 3}},
                {"when": {"given": [{"flags": ["--key"]}, {"flags": ["--prefix"], "env": ["PREFIX"]}]}, "probes": {}},
                {"when": {"values": {"MODE": ["light*"]}}, "probes": {"readiness": {"path": "/light"}}}
            ]
        });
        let runtimes = Runtimes::with([Arc::new(serde_json::from_value::<Runtime>(runtime).unwrap())]);
        let object = json!({"spec": {"template": {"spec": {"containers": [container]}}}});
        let workload = Workload::view(&object).unwrap();
        let recognition = runtimes.recognise(&workload);
        let runtime = recognition.view(&workload).runtime.unwrap();
        (runtime.port.default, runtime.probes.readiness.path.clone())
    }

    #[test]
    fn the_first_variant_that_applies_sets_a_section() {
        let of = |image: &str, command: &[&str], env: Value| {
            let command = if command.is_empty() { Value::Null } else { json!(command) };
            found(&json!({"name": "m", "image": image, "command": command, "env": env}))
        };
        let (ready, light) = (Some("/ready".to_owned()), Some("/light".to_owned()));
        let mode = |value: &str| json!([{"name": "MODE", "value": value}]);
        assert_eq!(of("other:1", &["own"], json!([])), (Some(1), ready.clone()));
        assert_eq!(of("other:server-b9", &["own"], json!([])), (Some(1), ready.clone()));
        assert_eq!(of("own:server-b9", &[], json!([])), (Some(2), ready.clone()));
        assert_eq!(of("own:server-b11", &[], json!([])), (Some(3), ready.clone()));
        assert_eq!(of("own:b9-cuda", &["own"], json!([])), (Some(2), ready.clone()));
        assert_eq!(of("own:1", &["own", "--key"], json!([])), (Some(1), ready.clone()));
        assert_eq!(of("own:1", &["own", "--key", "--prefix=/a"], json!([])), (Some(1), None));
        let prefix = json!([{"name": "PREFIX", "valueFrom": {}}, {"name": "MODE", "value": "light"}]);
        assert_eq!(of("own:1", &["own", "--key"], prefix), (Some(1), None));
        assert_eq!(of("own:1", &["own"], mode("lighter")), (Some(1), light));
        assert_eq!(of("own:1", &["own"], mode("full")), (Some(1), ready));
    }
}
