//! The autoscaling settings of policies, parsed and with defaults filled in.

use serde_json::{Map, Value};

use crate::api::{AutoscalingEngine, Fallback, Keda, Queue};
use crate::policy::{Merged, field};
use crate::quantity::Quantity;
use crate::workload::{Annotations, Requested, Workload};

/// The autoscaling settings.
#[derive(Clone, Debug, PartialEq)]
pub struct AutoscalingSettings {
    /// The engine that scales.
    pub engine: AutoscalingEngine,
    /// The minimum number of replicas.
    pub min_replicas: i32,
    /// The maximum number of replicas.
    pub max_replicas: i32,
    /// The metrics, as in `autoscaling/v2`.
    pub metrics: Vec<Map<String, Value>>,
    /// How many requests may wait, for scaling on the queue.
    pub queue: Option<QueueSettings>,
    /// The settings of engine `keda`.
    pub keda: Option<KedaSettings>,
    /// The behavior, as in `autoscaling/v2`.
    pub behavior: Map<String, Value>,
    /// Whether updates leave `spec.replicas` to the autoscaler.
    pub preserve_replicas: bool,
    /// Whether autoscalers do not own `spec.replicas`.
    pub share_replicas: bool,
}

/// The settings for scaling on waiting requests.
#[derive(Clone, Debug, PartialEq)]
pub struct QueueSettings {
    /// How many requests may wait per replica.
    pub average_value: Quantity,
    /// The metrics adapter's name for the metric; `None` to derive it from the runtime.
    pub metric: Option<String>,
}

/// The settings of engine `keda`.
#[derive(Clone, Debug, PartialEq)]
pub struct KedaSettings {
    /// The URL of Prometheus.
    pub server_address: String,
    /// The query; `None` for waiting requests.
    pub query: Option<String>,
    /// The target value per replica.
    pub threshold: Quantity,
    /// The value above which a workload is scaled up from zero.
    pub activation_threshold: Option<Quantity>,
    /// The seconds between two queries.
    pub polling_interval: Option<i32>,
    /// The seconds without waiting requests before scaling to zero.
    pub cooldown_period: Option<i32>,
    /// The fallback while Prometheus does not answer.
    pub fallback: Option<Fallback>,
}

impl AutoscalingSettings {
    /// Returns whether Tidegate creates an autoscaler for a workload. Its author may declare that it is scaled
    /// elsewhere.
    #[must_use]
    pub fn is_wanted(&self, workload: &Workload) -> bool {
        self.engine != AutoscalingEngine::None && !Annotations::new(workload).is_scaled_elsewhere()
    }

    /// Returns the minimum and maximum replicas of a workload: the requested ones if they are within the policy's
    /// bounds, or else the policy's.
    #[must_use]
    pub fn replicas(&self, workload: &Workload) -> (i32, i32) {
        let (least, most) = (self.min_replicas, self.max_replicas);
        let annotations = Annotations::new(workload);
        let granted = |requested: Requested<i32>| requested.said().filter(|count| (least..=most).contains(count));
        let asked =
            (granted(annotations.min_replicas()).unwrap_or(least), granted(annotations.max_replicas()).unwrap_or(most));
        if asked.0 <= asked.1 { asked } else { (least, most) }
    }

    /// Returns the replicas of a workload if the policy allows fewer; `None` if its author requests the lower maximum.
    #[must_use]
    pub fn above(&self, workload: &Workload) -> Option<i64> {
        let (_, most) = self.replicas(workload);
        let is_asked = Annotations::new(workload).max_replicas().said() == Some(most);
        workload.replicas().filter(|replicas| *replicas > i64::from(most) && !is_asked)
    }
}

/// Why the merged settings of autoscaling are invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AutoscalingSettingsError {
    /// `minReplicas` and `maxReplicas` are invalid together.
    #[error("autoscaling: minReplicas {min} and maxReplicas {max}: must be 0 <= minReplicas <= maxReplicas")]
    Replicas {
        /// `minReplicas`.
        min: i32,
        /// `maxReplicas`.
        max: i32,
    },
    /// No metric could scale up from zero.
    #[error(
        "autoscaling: minReplicas 0 needs a metric that exists without pods (type Object or External), or engine keda"
    )]
    ScaleToZero,
    /// The same, for engine `keda`.
    #[error(
        "autoscaling.keda: minReplicas 0 needs a query for requests that wait in front of the pods, at a gateway or an \
         ingress: a server without pods has no queue of its own"
    )]
    ScaleToZeroQuery,
    /// The engine lacks a setting.
    #[error("autoscaling.keda: engine keda needs serverAddress, the URL of Prometheus")]
    Keda,
}

/// Parses the autoscaling settings.
pub(super) fn read(merged: &Merged) -> Result<Option<AutoscalingSettings>, AutoscalingSettingsError> {
    let Some(written) = merged.values().get("autoscaling") else { return Ok(None) };
    let engine = field(written, "engine").unwrap_or_default();
    let (least, most) = default_bounds(engine);
    let min = field(written, "minReplicas").unwrap_or(least);
    let max = field(written, "maxReplicas").unwrap_or(most);
    if !(0..=max).contains(&min) || max == 0 {
        return Err(AutoscalingSettingsError::Replicas { min, max });
    }
    let metrics: Vec<Map<String, Value>> = field(&without_nulls(written), "metrics").unwrap_or_default();
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
        share_replicas: field(written, "shareReplicas").unwrap_or(true),
    }))
}

/// Returns the default bounds. With engine `none`, autoscalers of users are not bounded by default.
fn default_bounds(engine: AutoscalingEngine) -> (i32, i32) {
    match engine {
        AutoscalingEngine::Hpa | AutoscalingEngine::Keda => (1, 10),
        AutoscalingEngine::None => (0, i32::MAX),
    }
}

/// Returns the behavior with tolerances as strings: a ScaledObject does not accept fractions there.
fn behavior(written: &Value) -> Map<String, Value> {
    let mut behavior: Map<String, Value> = field(&without_nulls(written), "behavior").unwrap_or_default();
    for tolerance in behavior.values_mut().filter_map(|rules| rules.get_mut("tolerance")) {
        if let Ok(quantity) = Quantity::from_json(tolerance) {
            *tolerance = quantity.to_string().into();
        }
    }
    behavior
}

/// Removes nulls, which have no meaning: the API server does not return them.
fn without_nulls(written: &Value) -> Value {
    match written {
        Value::Object(fields) => {
            let fields = fields.iter().filter(|(_, value)| !value.is_null());
            fields.map(|(name, value)| (name.clone(), without_nulls(value))).collect()
        }
        Value::Array(items) => items.iter().map(without_nulls).collect(),
        value => value.clone(),
    }
}

/// The default for how many requests may wait per replica.
const WAITING: &str = "5";

fn waiting() -> Quantity {
    WAITING.parse().expect("this is a quantity")
}

fn queue(written: &Value) -> Option<QueueSettings> {
    let Queue { average_value, metric } = field(written, "queue")?;
    Some(QueueSettings { average_value: average_value.unwrap_or_else(waiting), metric })
}

/// Returns the KEDA settings; `None` without `serverAddress`, which has no default.
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
