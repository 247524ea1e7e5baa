//! The presets with the real servers: each is started by the command of a Deployment, with a toy model, and gets the
//! probes that Tidegate injects. No probe may fail while the server is healthy, none may succeed while it cannot
//! answer, and the queue metric has to move.

#![allow(clippy::unwrap_used, reason = "a helper of tests fails as a test does")]

#[path = "../common/policies.rs"]
mod policies;

mod kubelet;
mod server;

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use kubelet::{Probe, get, post};
use serde_json::{Value, json};
use server::{Server, installed};
use tidegate_engine::api::{Drain, Metrics};
use tidegate_engine::decision::{Operation, Request, User, decide};
use tidegate_engine::facts::{Apis, Facts, Namespace};
use tidegate_engine::runtimes::Runtimes;
use tidegate_engine::workload::Workload;

use policies::{SCOPE, in_force};

/// How long a request may take in addition to what its model takes.
const BUSY: Duration = Duration::from_secs(30);

/// The time between two probes; the kubelet's is longer.
const PERIOD: Duration = Duration::from_millis(200);

/// How long a request takes whose server is probed meanwhile, in seconds.
const SLOW: f64 = 4.0;

/// A server to start.
struct Real {
    preset: &'static str,
    annotations: Value,
    /// The container of a Deployment.
    container: fn(&Ports) -> Value,
    /// The path and the body of a request that takes this many seconds.
    request: fn(f64) -> (&'static str, Value),
    /// Whether a request that runs at SIGTERM is answered.
    finishes_requests: bool,
}

/// Unused ports.
struct Ports {
    http: u16,
    grpc: u16,
    metrics: u16,
}

impl Ports {
    fn free() -> Self {
        let listeners = [(); 3].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
        let [http, grpc, metrics] = listeners.map(|listener| listener.local_addr().unwrap().port());
        Self { http, grpc, metrics }
    }
}

/// What Tidegate says about a container.
struct Said {
    startup: Probe,
    readiness: Probe,
    liveness: Probe,
    metrics: Metrics,
    drain: Drain,
}

impl Said {
    /// Injects into a Deployment by the shipped policy `serving`.
    fn about(real: &Real, container: &Value) -> Self {
        let mut container = container.clone();
        container["name"] = "m".into();
        container["image"] = "registry.example.com/m:1".into();
        let mut object = json!({"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "m", "namespace": "ml", "labels": {SCOPE.0: SCOPE.1}, "annotations": real.annotations},
            "spec": {"template": {"spec": {"containers": [container]}}}});
        let shipped = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/policies/serving.yaml")).unwrap();
        let policies = in_force(&serde_saphyr::from_str::<Value>(&shipped).unwrap());
        let facts = Facts {
            namespaces: [("ml".to_owned(), Namespace::default())].into(),
            apis: Apis::all(),
            ..Facts::default()
        };
        let workload = Workload::view(&object).unwrap();
        let request =
            Request { user: User::named("jane"), ..Request::new(Operation::Create, workload, Timestamp::UNIX_EPOCH) };
        let decision = decide(&request, &policies, &facts);
        assert_eq!(decision.runtime.as_deref(), Some(real.preset));
        let warned = &decision.verdict.warned;
        assert!(!warned.iter().any(|violation| violation.rule == "readiness-before-load"), "{warned:?}");
        let recognition = Runtimes::shipped().recognise(&workload);
        let recognised = recognition.view(&workload);
        let (metrics, drain) = (recognised.runtime.unwrap().metrics.clone().unwrap(), recognised.drain().unwrap());
        json_patch::patch(&mut object, &decision.patch).unwrap();
        let container = &object["spec"]["template"]["spec"]["containers"][0];
        Self {
            startup: Probe::of(container, "startupProbe"),
            readiness: Probe::of(container, "readinessProbe"),
            liveness: Probe::of(container, "livenessProbe"),
            metrics,
            drain,
        }
    }

    fn probes(&self) -> [&Probe; 3] {
        [&self.startup, &self.readiness, &self.liveness]
    }

    /// Reads a metric, summed as an autoscaler's query does.
    fn read(&self, name: &str, ports: &Ports) -> Option<f64> {
        let port = if self.metrics.port.is_some() { ports.metrics } else { ports.http };
        let (_, body) = get(port, &self.metrics.path, BUSY).ok()?;
        let of_queue = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        let values = body.lines().filter(of_queue).filter_map(|line| line.split(' ').next_back()?.parse::<f64>().ok());
        values.reduce(|sum, value| sum + value)
    }
}

/// A server under test.
struct Play {
    real: Real,
    ports: Ports,
    said: Said,
}

impl Play {
    fn start(&self) -> Server {
        let container = (self.real.container)(&self.ports);
        Server::start(self.real.preset, &installed(self.real.preset), &container)
    }

    /// Sends a request that takes this many seconds; returns whether it is answered.
    fn is_answered(&self, seconds: f64) -> bool {
        let (path, body) = (self.real.request)(seconds);
        let answer = post(self.ports.http, path, &body, BUSY + Duration::from_secs_f64(seconds));
        matches!(answer, Ok((200, _)))
    }

    /// Asks for the startup probe until it succeeds, and then for the others; a server that is ready answers.
    fn waits_until_ready(&self, server: &mut Server) {
        let begin = Instant::now();
        while let Err(error) = self.said.startup.ask() {
            assert!(server.runs() && begin.elapsed() < self.said.startup.window, "{error}\n{}", server.log());
            sleep(PERIOD);
        }
        for probe in self.said.probes() {
            probe.ask().unwrap_or_else(|error| panic!("{error}\n{}", server.log()));
        }
        let begin = Instant::now();
        let answers = self.is_answered(0.0);
        let is_soon = begin.elapsed() < Duration::from_secs(3);
        assert!(answers && is_soon, "is ready, but cannot answer\n{}", server.log());
    }

    /// Probes a server that is busy; its queue has to grow, if it reports one.
    fn is_healthy_under_load(&self, server: &Server) {
        let queue = || Some(self.said.read(self.said.metrics.queue.as_deref()?, &self.ports));
        let absent = || panic!("{:?} is absent\n{}", self.said.metrics, server.log());
        let before = queue().map(|before| before.unwrap_or_else(absent));
        let most = thread::scope(|scope| {
            let requests = [(); 4].map(|()| scope.spawn(|| self.is_answered(SLOW)));
            let mut most = before;
            while !requests.iter().any(thread::ScopedJoinHandle::is_finished) {
                for probe in self.said.probes() {
                    probe.ask().unwrap_or_else(|error| panic!("under load: {error}\n{}", server.log()));
                }
                let now = queue().map(Option::unwrap_or_default);
                if now > most {
                    most = now;
                }
                sleep(PERIOD);
            }
            for request in requests {
                assert!(request.join().unwrap(), "a request is not answered\n{}", server.log());
            }
            most
        });
        assert!(before.is_none() || most > before, "{:?} stays at {before:?} under load", self.said.metrics);
    }

    /// Terminates a server while it answers a request.
    fn stops(&self, mut server: Server) {
        let drain = &self.said.drain;
        let left = Duration::from(drain.grace_period).saturating_sub(drain.pre_stop.into());
        thread::scope(|scope| {
            let request = scope.spawn(|| self.is_answered(SLOW));
            sleep(Duration::from_secs(1));
            server.terminate();
            let is_answered = request.join().unwrap();
            assert_eq!(is_answered, self.real.finishes_requests, "a request at SIGTERM\n{}", server.log());
        });
        // What is left is killed, as by the kubelet.
        server.ends_within(left);
        drop(server);
        self.is_gone("it has stopped");
    }

    fn is_gone(&self, when: &str) {
        for probe in self.said.probes() {
            assert!(probe.ask().is_err(), "{} succeeds although {when}", probe.name);
        }
    }
}

/// Starts a server, kills it while it loads, starts it again, and lets it serve and stop.
fn plays(real: Real) {
    let ports = Ports::free();
    let said = Said::about(&real, &(real.container)(&ports));
    let play = Play { real, ports, said };
    let loading = play.start();
    sleep(Duration::from_secs(2));
    drop(loading);
    play.is_gone("it was killed while loading");

    let mut server = play.start();
    play.waits_until_ready(&mut server);
    play.is_healthy_under_load(&server);
    play.stops(server);
}

#[test]
fn the_installed_servers_are_those_that_presets_are_verified_with() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/dev/runtimes");
    let files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    for runtime in Runtimes::shipped().iter() {
        let own = files.iter().filter(|file| file.file_stem().is_some_and(|name| name == runtime.name.as_str()));
        let text = own.map(|file| fs::read_to_string(file).unwrap()).collect::<String>();
        let version = runtime.verified.as_deref().map(|version| version.trim_start_matches('b'));
        let is_same = text.is_empty() || version.is_some_and(|version| text.contains(version));
        assert!(is_same, "{}: {version:?} is not in {text}", runtime.name);
    }
}

#[test]
#[ignore = "installs the server"]
fn bentoml() {
    plays(Real {
        preset: "bentoml",
        annotations: Value::Null,
        container: |ports| {
            json!({
                "command": ["bentoml", "serve", "service:Slow", "--host", "0.0.0.0"],
                "args": ["--port", ports.http.to_string()],
                "env": [{"name": "BENTOML_DO_NOT_TRACK", "value": "true"}]
            })
        },
        request: |seconds| ("/wait", json!({"seconds": seconds})),
        finishes_requests: true,
    });
}

#[test]
#[ignore = "installs the server"]
fn mlserver() {
    plays(Real {
        preset: "mlserver",
        annotations: Value::Null,
        container: |ports| {
            let variable = |name: &str, port: u16| json!({"name": name, "value": port.to_string()});
            json!({"command": ["mlserver", "start", "."], "env": [
                {"name": "MLSERVER_HOST", "value": "0.0.0.0"},
                variable("MLSERVER_HTTP_PORT", ports.http), variable("MLSERVER_GRPC_PORT", ports.grpc),
                variable("MLSERVER_METRICS_PORT", ports.metrics)
            ]})
        },
        request: |seconds| {
            let input = json!({"name": "seconds", "shape": [1], "datatype": "FP64", "data": [seconds]});
            ("/v2/models/slow/infer", json!({"inputs": [input]}))
        },
        finishes_requests: false,
    });
}

#[test]
#[ignore = "installs the server"]
fn kserve() {
    plays(Real {
        preset: "kserve",
        annotations: json!({"tidegate.dev/runtime": "kserve"}),
        container: |ports| {
            json!({"command": ["python", "server.py"],
                "args": ["--http_port", ports.http.to_string(), "--enable_grpc", "false"]})
        },
        request: |seconds| ("/v1/models/slow:predict", json!({"instances": [seconds]})),
        finishes_requests: true,
    });
}

#[test]
#[ignore = "installs the server"]
fn triton() {
    plays(Real {
        preset: "triton",
        annotations: Value::Null,
        container: |ports| {
            let flag = |name: &str, port: u16| format!("--{name}-port={port}");
            let address = |name: &str| format!("--{name}-address=0.0.0.0");
            json!({
                "command": ["tritonserver", "--model-repository=models"],
                "args": [
                    flag("http", ports.http), flag("grpc", ports.grpc), flag("metrics", ports.metrics),
                    address("http"), address("grpc"), address("metrics")
                ]
            })
        },
        request: |seconds| {
            let input = json!({"name": "SECONDS", "shape": [1], "datatype": "FP64", "data": [seconds]});
            ("/v2/models/slow/infer", json!({"inputs": [input]}))
        },
        finishes_requests: true,
    });
}
