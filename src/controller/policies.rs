//! Follows the policies and the exceptions to them. Each is compiled alone: where one makes no sense, its last good version
//! stays in force and the others are not disturbed.

use std::sync::Arc;

use kube::Client;
use kube::api::{Api, DynamicObject};
use kube::core::ApiResource;
use kube::runtime::{WatchStreamExt as _, watcher};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::book::Book;
use super::watch::{self, Key, Sink};
use super::{raw, resource};
use crate::report;
use crate::server::health::Step;
use tidegate_engine::BUILTIN;
use tidegate_engine::api::{ServingException, ServingPolicy};
use tidegate_engine::policy::{Exception, Policy};

/// The names of the two watches.
pub(super) const POLICIES: &str = "policies";
pub(super) const EXCEPTIONS: &str = "exceptions";

/// Follows the policies.
pub(super) async fn follow(client: Client, book: Arc<Book>, step: Step) {
    let kind = resource("tidegate.dev", "v1alpha1", "ServingPolicy");
    let events = watcher(Api::all_with(client, &kind), watch::config()).default_backoff();
    watch::follow(events, Policies { book, kind, step }).await;
}

/// Follows the exceptions.
pub(super) async fn follow_exceptions(client: Client, book: Arc<Book>, step: Step) {
    let kind = resource("tidegate.dev", "v1alpha1", "ServingException");
    let events = watcher(Api::all_with(client, &kind), watch::config()).default_backoff();
    watch::follow(events, Exceptions { book, kind, step }).await;
}

struct Policies {
    book: Arc<Book>,
    kind: ApiResource,
    step: Step,
}

impl Sink<DynamicObject> for Policies {
    fn put(&mut self, key: Key, object: DynamicObject) {
        let compile = |object: &Value| {
            let policy: ServingPolicy = read(object)?;
            Policy::compile(&policy, &BUILTIN).map_err(|error| report::chain(&error))
        };
        self.book.put_policy(&key.1, raw(object, &self.kind), compile);
    }

    fn remove(&mut self, key: &Key) {
        self.book.remove_policy(&key.1);
    }

    fn synced(&mut self) {
        self.book.synced(POLICIES);
        self.step.done();
    }
}

struct Exceptions {
    book: Arc<Book>,
    kind: ApiResource,
    step: Step,
}

impl Sink<DynamicObject> for Exceptions {
    fn put(&mut self, key: Key, object: DynamicObject) {
        let compile = |object: &Value| {
            let exception: ServingException = read(object)?;
            Exception::compile(&exception).map_err(|error| report::chain(&error))
        };
        self.book.put_exception(key, raw(object, &self.kind), compile);
    }

    fn remove(&mut self, key: &Key) {
        self.book.remove_exception(key);
    }

    fn synced(&mut self) {
        self.book.synced(EXCEPTIONS);
        self.step.done();
    }
}

fn read<T: DeserializeOwned>(object: &Value) -> Result<T, String> {
    serde_json::from_value(object.clone()).map_err(|error| report::chain(&error))
}
