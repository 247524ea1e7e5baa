//! How a model server can be probed. The workload's own settings take precedence over the preset, because probes of a
//! wrong port restart a healthy server.

use std::time::Duration;

use serde_json::Value;

use super::{loopback, recognise};
use crate::api::{Given, Port, Runtime, RuntimeProbe};
use crate::workload::{CommandLine, Container, Lookup};

/// How long a model server of an unknown runtime may take to start.
const UNKNOWN_STARTUP_BUDGET: Duration = Duration::from_mins(5);

/// Names that Kubernetes, Istio and Knative users give to the port that serves.
const SERVING_PORT_NAMES: [&str; 6] = ["http", "http1", "http2", "h2c", "https", "web"];

/// How a model server can be probed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The port that serves.
    pub port: u16,
    /// How to check whether it has started.
    pub startup: Handler,
    /// How to check whether it is ready.
    pub readiness: Handler,
    /// How to check whether it must be restarted.
    pub liveness: Handler,
    /// How long it may take to start.
    pub startup_budget: Duration,
}

/// The handler of a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Handler {
    /// An HTTP GET request.
    Http {
        /// The path.
        path: String,
        /// `HTTP` or `HTTPS`.
        scheme: &'static str,
    },
    /// A TCP connection.
    Tcp,
}

/// Returns the endpoint of a known runtime.
pub(super) fn of_runtime(container: &Container, runtime: &Runtime, words: &CommandLine) -> Result<Endpoint, String> {
    let without_http = without_http(runtime, words);
    if let Lookup::Found(word) = without_http {
        return Err(format!("`{word}` means that it does not serve HTTP; set its probes if it needs any"));
    }
    if let Some(why) = loopback::of(container, runtime, words) {
        return Err(format!("{why}, where the kubelet does not reach it; listen on 0.0.0.0, or set its probes"));
    }
    let (port, speaks_http) = port_of_runtime(container, runtime, words)?;
    certain(without_http)?;
    let scheme = if is_given(&runtime.tls, words)? { "HTTPS" } else { "HTTP" };
    let has_api_key = is_given(&runtime.api_key, words)?;
    let prefix =
        certain(words.given(&runtime.prefix.flags, &runtime.prefix.env))?.unwrap_or_default().trim_matches('/');
    let prefix = if prefix.is_empty() { String::new() } else { format!("/{prefix}") };
    let handler = |probe: &RuntimeProbe| match path(probe, has_api_key).filter(|_| speaks_http) {
        Some(path) => Handler::Http { path: format!("{prefix}{path}"), scheme },
        None => Handler::Tcp,
    };
    Ok(Endpoint {
        port,
        startup: handler(&runtime.probes.startup),
        readiness: handler(&runtime.probes.readiness),
        liveness: handler(&runtime.probes.liveness),
        startup_budget: runtime.startup_budget.into(),
    })
}

/// Returns the argument that means that a process does not serve HTTP.
pub(super) fn without_http<'r>(runtime: &'r Runtime, words: &CommandLine) -> Lookup<&'r str> {
    let has = |word: &'r String| words.has(word).map(|()| word.as_str());
    let all: Vec<Lookup<&str>> = runtime.without_http.iter().map(has).collect();
    let known = all.iter().find(|lookup| matches!(lookup, Lookup::Found(_))).cloned();
    known.unwrap_or_else(|| Lookup::first(all))
}

/// Returns a setting of a server, if it is certain.
fn certain<T>(found: Lookup<T>) -> Result<Option<T>, String> {
    found.known().map_err(|what| {
        format!("it is unknown {what}, and so is its port; write its arguments literally, or set its probes")
    })
}

/// Returns whether a flag or variable is set, whatever its value.
fn is_given(given: &Given, words: &CommandLine) -> Result<bool, String> {
    let by_env = given.env.iter().any(|name| words.has_env(name));
    Ok(by_env || certain(words.has_any(&given.flags))?.is_some())
}

/// Returns the path of a probe; none for a TCP probe.
fn path(probe: &RuntimeProbe, has_api_key: bool) -> Option<&str> {
    probe.path_with_api_key.as_deref().filter(|_| has_api_key).or(probe.path.as_deref())
}

/// Returns the endpoint of an unknown runtime, if its port is known.
pub(super) fn unknown(container: &Container) -> Result<Endpoint, String> {
    let port = probed_port(container).or_else(|| named_port(container)).or_else(|| only_port(container));
    let port = port.ok_or_else(|| {
        format!(
            "it declares {} TCP ports, and it is unknown which one serves; name one of them `http`, or set its probes",
            container.tcp_ports().count()
        )
    })?;
    Ok(Endpoint {
        port,
        startup: Handler::Tcp,
        readiness: Handler::Tcp,
        liveness: Handler::Tcp,
        startup_budget: UNKNOWN_STARTUP_BUDGET,
    })
}

/// Returns the port of the first of these: an existing probe, a flag or variable, a port name, the only port, the
/// runtime's default; and whether it serves HTTP. A flag or variable with an unknown value is an error: to try the next
/// source could contradict the author.
fn port_of_runtime(container: &Container, runtime: &Runtime, words: &CommandLine) -> Result<(u16, bool), String> {
    if let Some(port) = probed_port(container) {
        return Ok((port, true));
    }
    let Port { flags, env, image_env, addresses, tcp_flags, default, ignored, .. } = &runtime.port;
    let read = |what: &str, value: Option<&str>| {
        value.and_then(|value| value.parse().ok()).filter(|port| *port != 0).ok_or_else(|| {
            format!("its port is set by `{what}`, which is not a port number; write the number, or set its probes")
        })
    };
    let is_ignored = |value: &str| ignored.is_some_and(|ignored| value.parse() == Ok(ignored));
    if let Some((flag, value)) = by_flag(flags, words)?.filter(|(_, value)| !is_ignored(value)) {
        return Ok((read(&format!("{flag} {value}"), Some(value))?, true));
    }
    let of_image = image_env.iter().filter(|_| recognise::is_default(container));
    if let Some(name) = env.iter().chain(of_image).find(|name| words.has_env(name)) {
        return Ok((read(name, words.env(name).found())?, true));
    }
    if let Some(name) = addresses.iter().find(|name| words.has_env(name)) {
        let address = words.env(name).found().map(|address| port_of_address(address, *default));
        return Ok((read(name, address.as_deref())?, true));
    }
    if let Some((flag, value)) = by_flag(tcp_flags, words)? {
        return Ok((read(&format!("{flag} {value}"), Some(value))?, false));
    }
    default_port(container, runtime)
}

/// Returns the port of a server whose port nothing sets, and whether it serves HTTP.
fn default_port(container: &Container, runtime: &Runtime) -> Result<(u16, bool), String> {
    let Port { flags, tcp_default, default, fixed, default_varies, .. } = &runtime.port;
    let declared = || named_port(container).or_else(|| only_port(container)).filter(|_| !fixed);
    let (name, flags) = (&runtime.name, flags.join(" or "));
    if *default_varies {
        let unknown = || {
            format!(
                "the default port of {name} depends on its version or image, and is unknown; set {flags}, name its port \
                 `http`, or set its probes"
            )
        };
        return Ok((declared().ok_or_else(unknown)?, true));
    }
    // A runtime without a default port serves HTTP only if a port is set, whatever ports are declared.
    match (default, tcp_default) {
        (Some(default), _) => Ok((declared().unwrap_or(*default), true)),
        (None, Some(tcp)) => Ok((*tcp, false)),
        (None, None) => Err(format!("{name} has no default port; set {flags}, or set its probes")),
    }
}

/// Returns the first of several flags that has a value, and the value.
fn by_flag<'w>(flags: &'w [String], words: &'w CommandLine) -> Result<Option<(&'w String, &'w str)>, String> {
    certain(Lookup::first(flags.iter().map(|flag| words.value(flag).map(|value| (flag, value)))))
}

/// Returns the port in an address such as `0.0.0.0:11434`, `http://0.0.0.0` or `localhost`.
fn port_of_address(address: &str, default: Option<u16>) -> String {
    let (scheme, rest) = address.trim().split_once("://").unwrap_or(("", address.trim()));
    let authority = rest.split('/').next().unwrap_or_default();
    let port = authority.rsplit_once(':').map(|(_, port)| port).filter(|port| !port.ends_with(']'));
    match (port, scheme) {
        (Some(port), _) => port.to_owned(),
        (None, "http") => "80".to_owned(),
        (None, "https") => "443".to_owned(),
        (None, _) => default.map(|port| port.to_string()).unwrap_or_default(),
    }
}

fn probed_port(container: &Container) -> Option<u16> {
    let probes = ["readinessProbe", "startupProbe", "livenessProbe"].map(|probe| container.field(probe));
    let handlers = probes.into_iter().flat_map(|probe| [&probe["httpGet"]["port"], &probe["tcpSocket"]["port"]]);
    handlers.into_iter().find_map(|port| number_of(container, port))
}

/// Returns the number of a port that is set by number or name.
fn number_of(container: &Container, port: &Value) -> Option<u16> {
    match port {
        Value::Number(number) => u16::try_from(number.as_u64()?).ok(),
        Value::String(name) => container.tcp_ports().find(|(known, _)| *known == Some(name)).map(|(_, number)| number),
        _ => None,
    }
}

fn named_port(container: &Container) -> Option<u16> {
    SERVING_PORT_NAMES
        .iter()
        .find_map(|name| container.tcp_ports().find(|(known, _)| *known == Some(name)).map(|(_, number)| number))
}

fn only_port(container: &Container) -> Option<u16> {
    let mut ports = container.tcp_ports();
    match (ports.next(), ports.next()) {
        (Some((_, only)), None) => Some(only),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::runtimes::Runtimes;
    use crate::workload::Workload;

    fn endpoint(container: &Value) -> Result<Endpoint, String> {
        let object = json!({"spec": {"template": {"spec": {"containers": [container]}}}});
        let workload = Workload::view(&object).unwrap();
        Runtimes::shipped().recognise(&workload).view(&workload).endpoint()
    }

    fn vllm(more: &Value) -> Endpoint {
        let mut container = json!({"name": "m", "image": "vllm/vllm-openai:v0.11.0"});
        json_patch::merge(&mut container, more);
        endpoint(&container).unwrap()
    }

    fn http(path: &str, scheme: &'static str) -> Handler {
        Handler::Http { path: path.into(), scheme }
    }

    #[test]
    fn ports_of_the_workload_take_precedence() {
        assert_eq!(vllm(&json!({})).port, 8000);
        assert_eq!(vllm(&json!({"ports": [{"containerPort": 9000}]})).port, 9000);
        let two = json!([{"containerPort": 9000}, {"containerPort": 9001, "name": "http"}]);
        assert_eq!(vllm(&json!({"ports": two})).port, 9001);
        assert_eq!(vllm(&json!({"ports": two, "args": ["--port", "9002"]})).port, 9002);
        assert_eq!(vllm(&json!({"args": ["--port=9002"], "readinessProbe": {"httpGet": {"port": 9003}}})).port, 9003);
        assert_eq!(vllm(&json!({"ports": two, "livenessProbe": {"tcpSocket": {"port": "http"}}})).port, 9001);
    }

    #[test]
    fn reads_shell_commands_like_arguments() {
        let shell = json!({"name": "m", "image": "python:3.12", "command": ["/bin/sh", "-c"],
            "args": ["vllm serve org/model --port 9000 --ssl-keyfile /tls/key"]});
        let endpoint = endpoint(&shell).unwrap();
        assert_eq!((endpoint.port, endpoint.readiness), (9000, http("/v1/models", "HTTPS")));
    }

    #[test]
    fn does_not_guess_unknown_ports() {
        let port = |args: Value, env: Value| {
            let container = json!({"name": "m", "image": "vllm/vllm-openai:v1", "args": args, "env": env,
                "ports": [{"containerPort": 8000}]});
            endpoint(&container).map(|found| found.port)
        };
        let (nothing, known) = (json!([]), json!([{"name": "PORT", "value": "9000"}]));
        assert_eq!(port(json!(["--port", "$(PORT)"]), known.clone()), Ok(9000));
        assert_eq!(port(json!(["--port=$(PORT)"]), known), Ok(9000));
        for args in [json!(["--port", "$(PORT)"]), json!(["--port", "http"]), json!(["--port=99999"])] {
            let error = port(args.clone(), nothing.clone()).unwrap_err();
            assert!(error.contains("is not a port number"), "{args}: {error}");
        }
    }

    #[test]
    fn probes_of_a_server_with_an_api_key_need_no_key() {
        assert_eq!(vllm(&json!({})).readiness, http("/v1/models", "HTTP"));
        assert_eq!(vllm(&json!({"args": ["--api-key", "x"]})).readiness, http("/health", "HTTP"));
        assert_eq!(vllm(&json!({"env": [{"name": "VLLM_API_KEY", "valueFrom": {}}]})).startup, http("/health", "HTTP"));
        assert_eq!(vllm(&json!({})).liveness, http("/health", "HTTP"));
    }

    #[test]
    fn an_unknown_runtime_needs_one_known_port() {
        let of = |ports: Value| {
            endpoint(&json!({"name": "a", "image": "app:1", "ports": ports})).map(|found| found.port).ok()
        };
        assert_eq!(of(json!([{"containerPort": 8080}])), Some(8080));
        assert_eq!(of(json!([])), None);
        assert_eq!(of(json!([{"containerPort": 8080}, {"containerPort": 9090}])), None);
        assert_eq!(
            of(json!([{"containerPort": 9090, "name": "metrics"}, {"containerPort": 8080, "name": "http"}])),
            Some(8080)
        );
    }
}
