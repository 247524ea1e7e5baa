//! One probe of a container.

use serde_json::Value;

use super::has_handler;

/// A probe that says how to ask.
///
/// <https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/#Probe>
#[derive(Clone, Copy, Debug)]
pub struct Probe<'a> {
    value: &'a Value,
}

impl<'a> Probe<'a> {
    /// Returns the probe in a field of a container; none where nobody says how to ask.
    pub(super) fn of(value: &'a Value) -> Option<Self> {
        has_handler(value).then_some(Self { value })
    }

    /// Returns the path that it asks for; none where it asks otherwise than by HTTP.
    #[must_use]
    pub fn path(&self) -> Option<&'a str> {
        let get = self.value["httpGet"].as_object()?;
        Some(get.get("path").and_then(Value::as_str).unwrap_or("/"))
    }

    /// Tells whether it only opens a connection.
    #[must_use]
    pub fn is_tcp(&self) -> bool {
        self.value["tcpSocket"].is_object()
    }

    /// Returns how it asks: its one handler, by the field that has it.
    #[must_use]
    pub fn handler(&self) -> Option<(&'static str, &'a Value)> {
        let fields = ["httpGet", "tcpSocket", "exec", "grpc"];
        fields.into_iter().map(|field| (field, &self.value[field])).find(|(_, handler)| !handler.is_null())
    }

    /// Returns how long, in seconds, it waits for an answer.
    #[must_use]
    pub fn timeout(&self) -> u64 {
        self.seconds("timeoutSeconds", 1)
    }

    /// Returns how long after the container's start, in seconds, it gives up: nothing shorter is waited for.
    #[must_use]
    pub fn window(&self) -> u64 {
        let (period, failures) = (self.seconds("periodSeconds", 10), self.seconds("failureThreshold", 3));
        self.seconds("initialDelaySeconds", 0).saturating_add(period.saturating_mul(failures))
    }

    fn seconds(&self, field: &str, default: u64) -> u64 {
        self.value[field].as_u64().unwrap_or(default)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_not_said_is_as_the_api_server_has_it() {
        let value = json!({"httpGet": {"port": 1}});
        let probe = Probe::of(&value).unwrap();
        assert_eq!((probe.path(), probe.timeout(), probe.window(), probe.is_tcp()), (Some("/"), 1, 30, false));
        let value =
            json!({"tcpSocket": {"port": 1}, "initialDelaySeconds": 5, "periodSeconds": 2, "failureThreshold": 4});
        let probe = Probe::of(&value).unwrap();
        assert_eq!((probe.path(), probe.window(), probe.is_tcp()), (None, 13, true));
        assert!(Probe::of(&json!({"periodSeconds": 2})).is_none());
    }
}
