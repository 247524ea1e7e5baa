//! Rules about replicas and autoscalers.

mod replicas_under_autoscaler;

pub use replicas_under_autoscaler::ReplicasUnderAutoscaler;
