//! Sections of a policy that another module parses, such as those of companions.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Merged;
use crate::api::ServingPolicySpec;

/// Parses a section of a policy.
pub trait Section: Sync {
    /// Checks the section of a single policy, before it is merged.
    ///
    /// # Errors
    /// Returns the invalid field and the reason, without the leading `spec.`.
    fn check(&self, _written: &ServingPolicySpec) -> Result<(), SettingsError> {
        Ok(())
    }

    /// Parses the section from merged settings; `None` if it is not set.
    ///
    /// # Errors
    /// Returns the invalid field and the reason.
    fn read(&self, merged: &Merged) -> Result<Option<Parsed>, SettingsError>;
}

/// A parsed section of a policy.
#[derive(Clone)]
pub struct Parsed(Arc<dyn Any + Send + Sync>);

impl Parsed {
    /// Wraps a parsed section.
    #[must_use]
    pub fn new<T: Any + Send + Sync>(settings: T) -> Self {
        Self(Arc::new(settings))
    }

    /// Returns the section if it has this type.
    #[must_use]
    pub fn get<T: Any>(&self) -> Option<&T> {
        self.0.downcast_ref()
    }
}

impl fmt::Debug for Parsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parsed").finish_non_exhaustive()
    }
}

/// The invalid field of a policy's settings, and the reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SettingsError(pub String);

/// Reads one field. The types were checked before, so a field that cannot be read is not set.
#[must_use]
pub fn field<T: DeserializeOwned>(object: &Value, name: &str) -> Option<T> {
    T::deserialize(object.get(name)?).ok()
}
