//! What is made of model servers in the forms that people write them, and of what is none.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::collections::BTreeMap;
use std::fs;

use serde::Deserialize;
use serde_json::{Value, json};
use tidegate_engine::runtimes::{Endpoint, Handler, Recognised, Runtimes};
use tidegate_engine::workload::Workload;

/// A model server as the page shows it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Known {
    page: String,
    container: Value,
    /// Containers that stand before it.
    #[serde(default)]
    others: Vec<Value>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    is: Expected,
}

/// What is to be made of it.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    runtime: Option<String>,
    #[serde(default)]
    port: Option<u16>,
    #[serde(default)]
    path: Option<String>,
    #[serde(default)]
    scheme: Option<String>,
    #[serde(default)]
    budget: Option<u64>,
    /// What its author is told, where nothing can be injected.
    #[serde(default)]
    told: Option<String>,
}

impl Expected {
    fn of(recognised: &Recognised) -> Self {
        let runtime = recognised.name().map(str::to_owned);
        match recognised.endpoint() {
            Ok(Endpoint { port, readiness, startup_budget, .. }) => {
                let (path, scheme) = match readiness {
                    Handler::Http { path, scheme } => (path, Some(scheme.to_owned())),
                    Handler::Tcp => ("tcp".to_owned(), None),
                };
                let budget = Some(startup_budget.as_secs());
                Self { runtime, port: Some(port), path: Some(path), scheme, budget, told: None }
            }
            Err(told) => Self { runtime, told: Some(told), ..Self::default() },
        }
    }

    fn is_met_by(&self, found: &Self) -> bool {
        match (&self.told, &found.told) {
            (Some(expected), Some(told)) => self.runtime == found.runtime && told.contains(expected.as_str()),
            _ => self == found,
        }
    }
}

fn table<T: serde::de::DeserializeOwned>(name: &str) -> Vec<T> {
    let path = format!("{}/tests/cases/runtimes/{name}.yaml", env!("CARGO_MANIFEST_DIR"));
    serde_saphyr::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

fn with<T>(containers: &[&Value], annotations: &BTreeMap<String, String>, ask: impl FnOnce(&Recognised) -> T) -> T {
    let metadata = json!({"annotations": annotations});
    let object = json!({"metadata": metadata, "spec": {"template": {"spec": {"containers": containers}}}});
    ask(&Runtimes::shipped().recognise(&Workload::view(&object).unwrap()))
}

#[test]
fn model_servers_are_probed_as_their_pages_say() {
    let table = table::<Known>("known");
    assert!(table.len() >= 80);
    let wrong = table.into_iter().filter_map(|Known { page, container, others, annotations, is }| {
        let containers: Vec<&Value> = others.iter().chain([&container]).collect();
        let (found, name) = with(&containers, &annotations, |recognised| {
            (Expected::of(recognised), recognised.container.map(|found| found.name().to_owned()))
        });
        let is_right = is.is_met_by(&found) && name.as_deref() == container["name"].as_str();
        (!is_right).then(|| format!("{page}: {found:?} in {name:?}, not {is:?}"))
    });
    let wrong: Vec<String> = wrong.collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn nothing_else_is_taken_for_one() {
    let table = table::<Value>("unknown");
    assert!(table.len() >= 30);
    let taken = table.iter().filter_map(|container| {
        with(&[container], &BTreeMap::new(), |recognised| Some(format!("{}: {container}", recognised.name()?)))
    });
    let taken: Vec<String> = taken.collect();
    assert!(taken.is_empty(), "{}", taken.join("\n"));
}
