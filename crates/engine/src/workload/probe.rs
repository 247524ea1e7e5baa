//! A probe of a container.

use serde_json::Value;

use super::has_handler;

/// A probe with a handler.
///
/// <https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/#Probe>
#[derive(Clone, Copy, Debug)]
pub struct Probe<'a> {
    value: &'a Value,
}

impl<'a> Probe<'a> {
    /// Returns the probe in a field of a container; none if it has no handler.
    pub(super) fn new(value: &'a Value) -> Option<Self> {
        has_handler(value).then_some(Self { value })
    }

    /// Returns the path of an HTTP probe.
    #[must_use]
    pub fn path(&self) -> Option<&'a str> {
        let get = self.value["httpGet"].as_object()?;
        Some(get.get("path").and_then(Value::as_str).unwrap_or("/"))
    }

    /// Returns whether it only opens a TCP connection.
    #[must_use]
    pub fn is_tcp(&self) -> bool {
        self.value["tcpSocket"].is_object()
    }

    /// Returns its handler and the field that holds it.
    #[must_use]
    pub fn handler(&self) -> Option<(&'static str, &'a Value)> {
        let fields = ["httpGet", "tcpSocket", "exec", "grpc"];
        fields.into_iter().map(|field| (field, &self.value[field])).find(|(_, handler)| !handler.is_null())
    }

    /// Returns its timeout in seconds.
    #[must_use]
    pub fn timeout(&self) -> u64 {
        self.seconds("timeoutSeconds", 1)
    }

    /// Returns the seconds after the container's start until it fails for good, at the earliest.
    #[must_use]
    pub fn window(&self) -> u64 {
        self.seconds("initialDelaySeconds", 0).saturating_add(self.patience())
    }

    /// Returns the seconds from its first failure until it fails for good.
    #[must_use]
    pub fn patience(&self) -> u64 {
        self.period().saturating_mul(self.seconds("failureThreshold", 3))
    }

    /// Returns the seconds between two probes.
    #[must_use]
    pub fn period(&self) -> u64 {
        self.seconds("periodSeconds", 10)
    }

    /// Returns the `failureThreshold` with which it fails no sooner than after a number of seconds.
    #[must_use]
    pub fn failures_within(&self, seconds: u64) -> u64 {
        let period = self.seconds("periodSeconds", 10).max(1);
        seconds.saturating_sub(self.seconds("initialDelaySeconds", 0)).div_ceil(period).max(1)
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
    fn absent_fields_have_the_defaults_of_the_api_server() {
        let value = json!({"httpGet": {"port": 1}});
        let probe = Probe::new(&value).unwrap();
        assert_eq!((probe.path(), probe.timeout(), probe.window(), probe.is_tcp()), (Some("/"), 1, 30, false));
        let value =
            json!({"tcpSocket": {"port": 1}, "initialDelaySeconds": 5, "periodSeconds": 2, "failureThreshold": 4});
        let probe = Probe::new(&value).unwrap();
        assert_eq!((probe.path(), probe.window(), probe.is_tcp()), (None, 13, true));
        assert!(Probe::new(&json!({"periodSeconds": 2})).is_none());
    }
}
