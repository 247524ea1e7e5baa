//! What policies say of autoscaling, parsed and with every default filled in.

use serde_json::{Map, Value};

use crate::api::{AutoscalingEngine, Fallback, Keda, Queue};
use crate::policy::{Merged, field};
use crate::quantity::Quantity;
use crate::workload::{Annotations, Requested, Workload};

/// The autoscaler of each model server.
#[derive(Clone, Debug, PartialEq)]
pub struct AutoscalingSettings {
    /// What makes and keeps it.
    pub engine: AutoscalingEngine,
    /// The least number of replicas.
    pub min_replicas: i32,
    /// The most replicas.
    pub max_replicas: i32,
    /// The metrics, as `autoscaling/v2` has them.
    pub metrics: Vec<Map<String, Value>>,
    /// How many requests may wait, where that counts.
    pub queue: Option<QueueSettings>,
    /// What KEDA is told, for that engine.
    pub keda: Option<KedaSettings>,
    /// The behavior, as `autoscaling/v2` has it.
    pub behavior: Map<String, Value>,
    /// Whether updates leave `spec.replicas` to the autoscaler.
    pub preserve_replicas: bool,
}

/// Scaling by how many requests wait.
#[derive(Clone, Debug, PartialEq)]
pub struct QueueSettings {
    /// How many may wait for each replica.
    pub average_value: Quantity,
    /// What the metrics adapter calls the metric; none where that follows from the runtime.
    pub metric: Option<String>,
}

/// What KEDA is told.
#[derive(Clone, Debug, PartialEq)]
pub struct KedaSettings {
    /// The URL of Prometheus.
    pub server_address: String,
    /// What is asked; none for how many requests wait.
    pub query: Option<String>,
    /// How much of it there may be for each replica.
    pub threshold: Quantity,
    /// Above what a workload without replicas gets one.
    pub activation_threshold: Option<Quantity>,
    /// How many seconds pass between two questions.
    pub polling_interval: Option<i32>,
    /// How many seconds after nothing waits the last replica goes.
    pub cooldown_period: Option<i32>,
    /// What holds while Prometheus does not answer.
    pub fallback: Option<Fallback>,
}

impl AutoscalingSettings {
    /// Tells whether Tidegate makes an autoscaler for a workload, whose author may say that it is scaled elsewhere.
    #[must_use]
    pub fn is_wanted(&self, workload: &Workload) -> bool {
        self.engine != AutoscalingEngine::None && !Annotations::read(workload).is_scaled_elsewhere()
    }

    /// Returns the least and the most replicas of a workload: what its author asks for where that is within the policy's
    /// bounds, else what the policy says.
    #[must_use]
    pub fn replicas(&self, workload: &Workload) -> (i32, i32) {
        let (least, most) = (self.min_replicas, self.max_replicas);
        let annotations = Annotations::read(workload);
        let granted = |wish: Requested<i32>| wish.said().filter(|count| (least..=most).contains(count));
        let asked =
            (granted(annotations.min_replicas).unwrap_or(least), granted(annotations.max_replicas).unwrap_or(most));
        if asked.0 <= asked.1 { asked } else { (least, most) }
    }

    /// Returns how many replicas a workload has, where those are more than the policy allows; none where its author asks for
    /// so few.
    #[must_use]
    pub fn above(&self, workload: &Workload) -> Option<i64> {
        let (_, most) = self.replicas(workload);
        let is_asked = Annotations::read(workload).max_replicas.said() == Some(most);
        workload.replicas().filter(|replicas| *replicas > i64::from(most) && !is_asked)
    }
}

/// Why the merged settings of autoscaling are invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AutoscalingSettingsError {
    /// The bounds of autoscaling exclude each other.
    #[error("autoscaling: minReplicas {min} and maxReplicas {max}: must be 0 <= minReplicas <= maxReplicas")]
    Replicas {
        /// `minReplicas`.
        min: i32,
        /// `maxReplicas`.
        max: i32,
    },
    /// Nothing would tell when the first replica is needed.
    #[error(
        "autoscaling: minReplicas 0 needs a metric that exists without pods (type Object or External), or engine keda"
    )]
    ScaleToZero,
    /// The same, for the engine that asks Prometheus.
    #[error(
        "autoscaling.keda: minReplicas 0 needs a query for requests that wait in front of the pods, at a gateway or an ingress: a server \
         without pods has no queue of its own"
    )]
    ScaleToZeroQuery,
    /// The engine lacks a setting.
    #[error("autoscaling.keda: engine keda needs serverAddress, the URL of Prometheus")]
    Keda,
}

/// Reads what is said of autoscaling.
pub(super) fn read(merged: &Merged) -> Result<Option<AutoscalingSettings>, AutoscalingSettingsError> {
    let Some(written) = merged.values().get("autoscaling") else { return Ok(None) };
    let engine = field(written, "engine").unwrap_or_default();
    let (least, most) = default_bounds(engine);
    let min = field(written, "minReplicas").unwrap_or(least);
    let max = field(written, "maxReplicas").unwrap_or(most);
    if !(0..=max).contains(&min) || max == 0 {
        return Err(AutoscalingSettingsError::Replicas { min, max });
    }
    let metrics: Vec<Map<String, Value>> = field(&said(written), "metrics").unwrap_or_default();
    let is_there_without_pods =
        |metric: &Map<String, Value>| metric["type"] == "Object" || metric["type"] == "External";
    if min == 0 && engine == AutoscalingEngine::Hpa && !metrics.iter().any(is_there_without_pods) {
        return Err(AutoscalingSettingsError::ScaleToZero);
    }
    let keda = keda(written);
    if engine == AutoscalingEngine::Keda && keda.is_none() {
        return Err(AutoscalingSettingsError::Keda);
    }
    if min == 0 && engine == AutoscalingEngine::Keda && keda.as_ref().is_some_and(|keda| keda.query.is_none()) {
        return Err(AutoscalingSettingsError::ScaleToZeroQuery);
    }
    Ok(Some(AutoscalingSettings {
        engine,
        min_replicas: min,
        max_replicas: max,
        metrics,
        queue: queue(written),
        keda,
        behavior: behavior(written),
        preserve_replicas: field(written, "preserveReplicas").unwrap_or(true),
    }))
}

/// Returns the bounds where a policy does not say: without an autoscaler of Tidegate's there are none for those of authors.
fn default_bounds(engine: AutoscalingEngine) -> (i32, i32) {
    match engine {
        AutoscalingEngine::Hpa | AutoscalingEngine::Keda => (1, 10),
        AutoscalingEngine::None => (0, i32::MAX),
    }
}

/// Returns the behavior, with tolerances as texts: a ScaledObject takes no fraction there.
fn behavior(written: &Value) -> Map<String, Value> {
    let mut behavior: Map<String, Value> = field(&said(written), "behavior").unwrap_or_default();
    for tolerance in behavior.values_mut().filter_map(|rules| rules.get_mut("tolerance")) {
        if let Ok(quantity) = Quantity::from_json(tolerance) {
            *tolerance = quantity.to_string().into();
        }
    }
    behavior
}

/// Returns what is said without its nulls, which say nothing: the API server does not write them back.
fn said(written: &Value) -> Value {
    match written {
        Value::Object(fields) => {
            let fields = fields.iter().filter(|(_, value)| !value.is_null());
            fields.map(|(name, value)| (name.clone(), said(value))).collect()
        }
        Value::Array(items) => items.iter().map(said).collect(),
        value => value.clone(),
    }
}

/// How many requests may wait for each replica where a policy does not say.
const WAITING: &str = "5";

fn waiting() -> Quantity {
    WAITING.parse().expect("this is a quantity")
}

fn queue(written: &Value) -> Option<QueueSettings> {
    let Queue { average_value, metric } = field(written, "queue")?;
    Some(QueueSettings { average_value: average_value.unwrap_or_else(waiting), metric })
}

/// Returns what KEDA is told; none without the one thing that has no default.
fn keda(written: &Value) -> Option<KedaSettings> {
    let Keda { server_address, query, threshold, activation_threshold, polling_interval, cooldown_period, fallback } =
        field(written, "keda")?;
    Some(KedaSettings {
        server_address: server_address?,
        query,
        threshold: threshold.unwrap_or_else(waiting),
        activation_threshold,
        polling_interval,
        cooldown_period,
        fallback,
    })
}
