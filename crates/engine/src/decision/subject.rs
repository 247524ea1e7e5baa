//! One state of a workload in a request, with values that are computed from it once, on first use.

use std::cell::OnceCell;

use super::receipt::{self, Receipt};
use crate::policy::Effective;
use crate::runtimes::Recognition;
use crate::workload::{FieldOwnership, FieldPath, PriorBinding, Workload};

/// A workload as it is submitted, or as it is stored.
pub(super) struct Subject<'a> {
    pub(super) workload: Workload<'a>,
    /// The fields that users have declared.
    pub(super) ownership: FieldOwnership<'a>,
    receipt: OnceCell<Option<Receipt>>,
    prior: OnceCell<PriorBinding>,
    recognition: OnceCell<Recognition>,
}

impl<'a> Subject<'a> {
    pub(super) fn new(workload: Workload<'a>) -> Self {
        Self {
            workload,
            ownership: FieldOwnership::new(workload, injected),
            receipt: OnceCell::new(),
            prior: OnceCell::new(),
            recognition: OnceCell::new(),
        }
    }

    /// Returns its receipt.
    pub(super) fn receipt(&self) -> Option<&Receipt> {
        self.receipt.get_or_init(|| Receipt::read(&self.workload)).as_ref()
    }

    /// Returns its database binding, by its receipt.
    pub(super) fn prior(&self) -> &PriorBinding {
        self.prior.get_or_init(|| receipt::prior_binding(self.receipt(), &self.workload))
    }

    /// Returns which of its containers is the model server, and what it runs.
    pub(super) fn recognition(&self, effective: &Effective) -> &Recognition {
        self.recognition.get_or_init(|| effective.runtimes().recognise(&self.workload))
    }
}

/// Returns the fields that were injected, by the receipt, and still have the injected value.
fn injected(workload: &Workload) -> Vec<FieldPath> {
    let Some(receipt) = Receipt::read(workload) else { return Vec::new() };
    receipt.entries().filter(|entry| entry.is_in(workload.pod_spec())).map(|entry| entry.path.clone()).collect()
}
