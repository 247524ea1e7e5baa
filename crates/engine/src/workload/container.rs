//! A container of a pod template.

use serde_json::Value;

use super::accelerator::is_gpu;
use super::{Image, Probe, command_line};
use crate::kind;
use crate::quantity::Quantity;

/// A container or init container of a pod template.
#[derive(Clone, Copy, Debug)]
pub struct Container<'a> {
    template: &'static str,
    list: &'static str,
    index: usize,
    value: &'a Value,
}

impl<'a> Container<'a> {
    pub(super) fn new(template: &'static str, list: &'static str, index: usize, value: &'a Value) -> Self {
        Self { template, list, index, value }
    }

    /// Returns the container's name.
    #[must_use]
    pub fn name(&self) -> &'a str {
        self.value["name"].as_str().unwrap_or_default()
    }

    /// Returns the list that the container is in: `containers` or `initContainers`.
    #[must_use]
    pub fn list(&self) -> &'static str {
        self.list
    }

    /// Returns a field of the container; null if it is absent.
    #[must_use]
    pub fn field(&self, name: &str) -> &'a Value {
        &self.value[name]
    }

    /// Returns whether a list of the container has items. The API server stores no empty list.
    #[must_use]
    pub fn has_items(&self, field: &str) -> bool {
        super::items(self.field(field)).next().is_some()
    }

    /// Returns the container's image.
    #[must_use]
    pub fn image(&self) -> Image<'a> {
        Image::new(self.value["image"].as_str().unwrap_or_default())
    }

    /// Returns the path of a field of the container, such as `spec.template.spec.containers[0].image`.
    #[must_use]
    pub fn place(&self, field: &str) -> String {
        format!("{}.spec.{}[{}].{field}", kind::place(self.template), self.list, self.index)
    }

    /// Returns whether this is an init container that keeps running (a sidecar).
    #[must_use]
    pub fn is_restartable(&self) -> bool {
        self.value["restartPolicy"] == "Always"
    }

    /// Returns a request (`of` = `requests`) or limit (`limits`) if it is set and valid.
    #[must_use]
    pub fn resource(&self, of: &str, name: &str) -> Option<Quantity> {
        Quantity::from_json(self.value["resources"][of].get(name)?).ok()
    }

    /// Returns whether a request or limit is set, valid or not.
    #[must_use]
    pub fn has_resource(&self, of: &str, name: &str) -> bool {
        !self.value["resources"][of][name].is_null()
    }

    /// Returns whether the container has a request for a resource of its own; a limit counts as a request.
    #[must_use]
    pub fn requests(&self, name: &str) -> bool {
        ["requests", "limits"].iter().any(|of| self.has_resource(of, name))
    }

    /// Returns whether the container requests a GPU, by an extended resource or by a resource claim.
    #[must_use]
    pub fn has_gpu(&self) -> bool {
        let resources = &self.value["resources"];
        let extended = |of: &str| {
            let named = resources[of].as_object();
            named.is_some_and(|named| named.iter().any(|(name, amount)| is_gpu(name) && !is_zero(amount)))
        };
        let claims = resources["claims"].as_array().is_some_and(|claims| !claims.is_empty());
        claims || extended("limits") || extended("requests")
    }

    /// Returns the name of the extended resource by which it requests a GPU.
    #[must_use]
    pub fn gpu_resource(&self) -> Option<&'a str> {
        let of = |of: &str| {
            let named = self.value["resources"][of].as_object().into_iter().flatten();
            named.filter(|(name, amount)| is_gpu(name) && !is_zero(amount)).map(|(name, _)| name.as_str()).next()
        };
        of("limits").or_else(|| of("requests"))
    }

    /// Returns whether it runs a shell script.
    #[must_use]
    pub fn runs_script(&self) -> bool {
        command_line::is_script(self)
    }

    /// Returns the entry of an environment variable, from any source. Of several entries the last counts.
    #[must_use]
    pub fn env(&self, name: &str) -> Option<&'a Value> {
        self.value["env"].as_array()?.iter().rfind(|entry| entry["name"] == name)
    }

    /// Returns a probe of the container, if it has a handler.
    #[must_use]
    pub fn probe(&self, field: &str) -> Option<Probe<'a>> {
        Probe::new(&self.value[field])
    }

    /// Returns the names and numbers of the container's TCP ports.
    pub fn tcp_ports(&self) -> impl Iterator<Item = (Option<&'a str>, u16)> + use<'a> {
        let ports = self.value["ports"].as_array().map_or(&[][..], Vec::as_slice);
        ports.iter().filter(|port| port["protocol"].as_str().is_none_or(|protocol| protocol == "TCP")).filter_map(
            |port| {
                let number = port["containerPort"].as_u64()?;
                Some((port["name"].as_str(), u16::try_from(number).ok()?))
            },
        )
    }
}

fn is_zero(amount: &Value) -> bool {
    Quantity::from_json(amount).is_ok_and(|amount| amount.is_zero())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn container(value: &Value) -> Container<'_> {
        Container::new("/spec/template", "containers", 0, value)
    }

    #[test]
    fn detects_gpu_requests() {
        assert!(container(&json!({"resources": {"limits": {"nvidia.com/mig-1g.5gb": 1}}})).has_gpu());
        assert!(container(&json!({"resources": {"claims": [{"name": "gpu"}]}})).has_gpu());
        let by_class = json!({"resources": {"limits": {"deviceclass.resource.kubernetes.io/gpu.nvidia.com": 1}}});
        assert!(container(&by_class).has_gpu());
        assert!(!container(&json!({"resources": {"limits": {"nvidia.com/gpu": "0"}}})).has_gpu());
        assert!(!container(&json!({"resources": {"limits": {"nvidia.com/gpumem": 1}}})).has_gpu());
    }

    #[test]
    fn returns_tcp_ports_only() {
        let value =
            json!({"ports": [{"containerPort": 53, "protocol": "UDP"}, {"containerPort": 8080, "name": "http"}]});
        assert_eq!(container(&value).tcp_ports().collect::<Vec<_>>(), [(Some("http"), 8080)]);
    }
}
