//! Rules about how pods are rolled out, stopped and spread.

mod gpu_surge_deadlock;
mod grace_period_too_short;
mod missing_disruption_budget;
mod missing_pre_stop;
mod progress_deadline_too_short;
mod single_zone;

pub use gpu_surge_deadlock::GpuSurgeDeadlock;
pub use grace_period_too_short::GracePeriodTooShort;
pub use missing_disruption_budget::MissingDisruptionBudget;
pub use missing_pre_stop::MissingPreStop;
pub use progress_deadline_too_short::ProgressDeadlineTooShort;
pub use single_zone::SingleZone;
