//! Rules about how pods are rolled out, stopped and spread.

mod gpu_surge_deadlock;
mod grace_period_too_short;
mod missing_disruption_budget;
mod missing_pre_stop;
mod progress_deadline_too_short;
mod queue_not_on_pods;
mod queue_surge_deadlock;
mod single_zone;
pub(super) mod surge;

pub use gpu_surge_deadlock::GpuSurgeDeadlock;
pub use grace_period_too_short::GracePeriodTooShort;
pub use missing_disruption_budget::MissingDisruptionBudget;
pub use missing_pre_stop::MissingPreStop;
pub use progress_deadline_too_short::ProgressDeadlineTooShort;
pub use queue_not_on_pods::QueueNotOnPods;
pub use queue_surge_deadlock::QueueSurgeDeadlock;
pub use single_zone::SingleZone;
