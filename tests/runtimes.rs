//! What is made of model servers in the forms that people write them, and of what is none.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::fs;

use serde::Deserialize;
use serde_json::{Value, json};
use tidegate::runtimes::{Handler, Recognised, recognise};
use tidegate::workload::Workload;

#[derive(Deserialize)]
struct Known {
    page: String,
    container: Value,
    is: Expected,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
struct Expected {
    runtime: Option<String>,
    port: u16,
    path: String,
    #[serde(default)]
    scheme: Option<String>,
    budget: u64,
}

fn table<T: serde::de::DeserializeOwned>(name: &str) -> Vec<T> {
    let path = format!("{}/tests/cases/runtimes/{name}.yaml", env!("CARGO_MANIFEST_DIR"));
    serde_saphyr::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

fn with<T>(container: &Value, ask: impl FnOnce(Recognised) -> T) -> T {
    let object = json!({"spec": {"template": {"spec": {"containers": [container]}}}});
    ask(recognise(&Workload::view(&object).unwrap()))
}

#[test]
fn model_servers_are_probed_as_their_pages_say() {
    let wrong = table::<Known>("known").into_iter().filter_map(|Known { page, container, is }| {
        let found = with(&container, |recognised| {
            let runtime = recognised.preset_name().map(str::to_owned);
            recognised.endpoint().map(|endpoint| {
                let (path, scheme) = match endpoint.readiness {
                    Handler::Http { path, scheme } => (path, Some(scheme.to_owned())),
                    Handler::Tcp => ("tcp".to_owned(), None),
                };
                Expected { runtime, port: endpoint.port, path, scheme, budget: endpoint.startup_budget.as_secs() }
            })
        });
        (found.as_ref() != Ok(&is)).then(|| format!("{page}: {found:?}, not {is:?}"))
    });
    let wrong: Vec<String> = wrong.collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn nothing_else_is_taken_for_one() {
    for container in table::<Value>("unknown") {
        let found = with(&container, |recognised| recognised.preset_name());
        assert_eq!(found, None, "{container}");
    }
}

#[test]
fn a_worker_that_serves_nothing_is_not_probed() {
    let worker = json!({"name": "w", "image": "vllm/vllm-openai:v0.11.0", "args": ["--headless"]});
    let told = with(&worker, |recognised| recognised.endpoint()).unwrap_err();
    assert!(told.contains("--headless"), "{told}");
}
