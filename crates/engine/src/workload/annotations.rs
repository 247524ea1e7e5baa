//! The requests that annotations of a workload make.

use super::Workload;
use crate::api::{AUTOSCALING_ANNOTATION, DATABASE_ANNOTATION, MAX_REPLICAS_ANNOTATION, MIN_REPLICAS_ANNOTATION};

/// The requests in the annotations of a workload. The policy limits what is granted.
#[derive(Clone, Copy, Debug)]
pub struct Annotations<'a>(Workload<'a>);

/// The value of an annotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requested<'a, T> {
    /// The annotation is absent.
    Unsaid,
    /// A valid value.
    Said(T),
    /// An invalid value.
    Unclear(&'a str),
}

impl<T: Copy> Requested<'_, T> {
    /// Returns the value, if it is valid.
    #[must_use]
    pub fn said(&self) -> Option<T> {
        match self {
            Self::Said(value) => Some(*value),
            Self::Unsaid | Self::Unclear(_) => None,
        }
    }
}

impl<'a> Annotations<'a> {
    /// Returns the annotations of a workload.
    #[must_use]
    pub fn new(workload: &Workload<'a>) -> Self {
        Self(*workload)
    }

    /// Returns the requested minimum number of replicas.
    #[must_use]
    pub fn min_replicas(&self) -> Requested<'a, i32> {
        self.read(MIN_REPLICAS_ANNOTATION, |text| at_least(0, text))
    }

    /// Returns the requested maximum number of replicas.
    #[must_use]
    pub fn max_replicas(&self) -> Requested<'a, i32> {
        self.read(MAX_REPLICAS_ANNOTATION, |text| at_least(1, text))
    }

    /// Returns whether a database is requested.
    #[must_use]
    pub fn database(&self) -> Requested<'a, bool> {
        self.read(DATABASE_ANNOTATION, |text| match text {
            "true" => Some(true),
            "none" => Some(false),
            _ => None,
        })
    }

    /// Returns the annotation that says whether something other than Tidegate scales the workload.
    #[must_use]
    pub fn scaled_elsewhere(&self) -> Requested<'a, bool> {
        self.read(AUTOSCALING_ANNOTATION, |text| (text == "external").then_some(true))
    }

    /// Returns whether something other than Tidegate scales the workload.
    #[must_use]
    pub fn is_scaled_elsewhere(&self) -> bool {
        self.scaled_elsewhere().said() == Some(true)
    }

    fn read<T>(&self, key: &str, meaning: impl Fn(&str) -> Option<T>) -> Requested<'a, T> {
        let Some(text) = self.0.annotation(key) else { return Requested::Unsaid };
        meaning(text).map_or(Requested::Unclear(text), Requested::Said)
    }
}

/// Parses a number of replicas with a minimum.
fn at_least(least: i32, text: &str) -> Option<i32> {
    text.parse().ok().filter(|count| *count >= least)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn annotated(annotations: &Value) -> Value {
        json!({"metadata": {"annotations": annotations}})
    }

    #[test]
    fn tells_valid_from_invalid_values() {
        let object = annotated(&json!({MIN_REPLICAS_ANNOTATION: "2", MAX_REPLICAS_ANNOTATION: "many",
            DATABASE_ANNOTATION: "none"}));
        let annotations = Annotations::new(&Workload::view(&object).unwrap());
        assert_eq!(
            (annotations.min_replicas(), annotations.max_replicas()),
            (Requested::Said(2), Requested::Unclear("many"))
        );
        assert_eq!(
            (annotations.database(), annotations.scaled_elsewhere()),
            (Requested::Said(false), Requested::Unsaid)
        );
        assert_eq!((annotations.min_replicas().said(), annotations.max_replicas().said()), (Some(2), None));
    }

    #[test]
    fn the_maximum_must_not_be_zero() {
        let read = |text: &str| {
            let object = annotated(&json!({MIN_REPLICAS_ANNOTATION: text, MAX_REPLICAS_ANNOTATION: text}));
            let annotations = Annotations::new(&Workload::view(&object).unwrap());
            (annotations.min_replicas().said(), annotations.max_replicas().said())
        };
        assert_eq!((read("0"), read("1")), ((Some(0), None), (Some(1), Some(1))));
        assert!(["-1", "1.5", ""].iter().all(|text| read(text) == (None, None)));
    }
}
