//! Parts of a policy that are for something which policies know nothing of, such as a companion: they are read by that.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Merged;
use crate::api::ServingPolicySpec;

/// Reads a part of a policy.
pub trait Section: Sync {
    /// Checks what one policy writes, before anything is merged.
    ///
    /// # Errors
    /// Says which field is invalid, and why: what follows `spec.`.
    fn check(&self, _written: &ServingPolicySpec) -> Result<(), SettingsError> {
        Ok(())
    }

    /// Reads the part from merged settings; none where nothing is said.
    ///
    /// # Errors
    /// Says which field is invalid, and why.
    fn read(&self, merged: &Merged) -> Result<Option<Parsed>, SettingsError>;
}

/// A part of a policy that has been read.
#[derive(Clone)]
pub struct Parsed(Arc<dyn Any + Send + Sync>);

impl Parsed {
    /// Keeps a part that was read.
    #[must_use]
    pub fn new<T: Any + Send + Sync>(settings: T) -> Self {
        Self(Arc::new(settings))
    }

    /// Returns the part, where it is of this type.
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

/// Which field of a policy's settings is invalid, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SettingsError(pub String);

/// Reads one field; it was typed before, so what cannot be read is not there.
#[must_use]
pub fn field<T: DeserializeOwned>(object: &Value, name: &str) -> Option<T> {
    T::deserialize(object.get(name)?).ok()
}
