//! Decodes and answers reviews of the kind AdmissionReview.
//!
//! The envelope is decoded before the object, so that an answer has the `uid` even if the object cannot be parsed.
//! <https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/>

pub mod database_deletion;
pub mod policy_validation;

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use json_patch::Patch;
use k8s_openapi::jiff::Timestamp;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::report::{self, Cause};
use tidegate_engine::decision::{self, Evaluation, Operation, Request, User};
use tidegate_engine::facts::Facts;
use tidegate_engine::kind::Kind;
use tidegate_engine::policy::PolicySet;
use tidegate_engine::workload::{Sent, ValidationError, Workload};

const API_VERSION: &str = "admission.k8s.io/v1";
const KIND: &str = "AdmissionReview";

/// Which of the two webhooks is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Webhook {
    /// Changes the object and never refuses it.
    Mutate,
    /// Allows or refuses the object, and never changes it.
    Validate,
}

/// Why a body is not a valid review.
#[derive(Debug, thiserror::Error)]
pub enum BadReview {
    /// It cannot be parsed.
    #[error("the body is not an AdmissionReview")]
    Malformed(#[source] serde_json::Error),
    /// It has no kind.
    #[error("the body has no kind; must be an {KIND} of {API_VERSION}")]
    NoKind,
    /// It is a review of another version, or another kind.
    #[error("the body is a {kind} of {api_version}; must be an {KIND} of {API_VERSION}")]
    OtherKind {
        /// Its kind.
        kind: String,
        /// Its version.
        api_version: String,
    },
    /// It has no request.
    #[error("the AdmissionReview has no request with a uid")]
    NoRequest,
}

/// A review whose envelope is valid.
#[derive(Debug)]
pub struct Review<'a> {
    request: AdmissionRequest<'a, Sent>,
    /// Why its objects could not be parsed.
    problem: Option<String>,
    /// The name of the admitted revision to which the update rolls back.
    rollback: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "O: Deserialize<'de>"))]
struct Envelope<'a, O> {
    #[serde(borrow, default)]
    api_version: Cow<'a, str>,
    #[serde(borrow, default)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    request: Option<AdmissionRequest<'a, O>>,
}

/// The request of a review, with objects of type `O`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "O: Deserialize<'de>"))]
struct AdmissionRequest<'a, O> {
    #[serde(borrow, default)]
    uid: Cow<'a, str>,
    #[serde(borrow, default)]
    kind: GroupKind<'a>,
    #[serde(borrow, default)]
    operation: Cow<'a, str>,
    #[serde(borrow, default)]
    namespace: Cow<'a, str>,
    #[serde(borrow, default)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    sub_resource: Cow<'a, str>,
    #[serde(borrow, default)]
    user_info: UserInfo<'a>,
    object: Option<O>,
    old_object: Option<O>,
}

#[derive(Debug, Default, Deserialize)]
struct GroupKind<'a> {
    #[serde(borrow, default)]
    group: Cow<'a, str>,
    #[serde(borrow, default)]
    kind: Cow<'a, str>,
}

#[derive(Debug, Default, Deserialize)]
struct UserInfo<'a> {
    #[serde(borrow, default)]
    username: Cow<'a, str>,
    #[serde(borrow, default)]
    groups: Vec<Cow<'a, str>>,
}

/// Decodes the envelope of a review.
///
/// # Errors
/// If the body is not a valid review.
pub fn decode(body: &[u8]) -> Result<Review<'_>, BadReview> {
    match serde_json::from_slice::<Envelope<Sent>>(body) {
        Ok(envelope) => Ok(Review { request: envelope.request()?, problem: None, rollback: None }),
        Err(problem) => {
            let envelope: Envelope<IgnoredAny> = serde_json::from_slice(body).map_err(BadReview::Malformed)?;
            let request = envelope.request()?.without_objects();
            Ok(Review { request, problem: Some(problem.to_string()), rollback: None })
        }
    }
}

impl<'a, O> Envelope<'a, O> {
    fn request(self) -> Result<AdmissionRequest<'a, O>, BadReview> {
        if self.kind.is_empty() {
            return Err(BadReview::NoKind);
        }
        if self.kind != KIND || self.api_version != API_VERSION {
            let (kind, api_version) = (self.kind.into_owned(), self.api_version.into_owned());
            return Err(BadReview::OtherKind { kind, api_version });
        }
        self.request.filter(|request| !request.uid.is_empty()).ok_or(BadReview::NoRequest)
    }
}

impl<O> AdmissionRequest<'_, O> {
    fn into_owned(self) -> AdmissionRequest<'static, O> {
        fn owned(text: Cow<str>) -> Cow<'static, str> {
            text.into_owned().into()
        }
        let groups = self.user_info.groups.into_iter().map(owned).collect();
        AdmissionRequest {
            uid: owned(self.uid),
            kind: GroupKind { group: owned(self.kind.group), kind: owned(self.kind.kind) },
            operation: owned(self.operation),
            namespace: owned(self.namespace),
            name: owned(self.name),
            sub_resource: owned(self.sub_resource),
            user_info: UserInfo { username: owned(self.user_info.username), groups },
            object: self.object,
            old_object: self.old_object,
        }
    }
}

impl<'a, O> AdmissionRequest<'a, O> {
    fn without_objects<P>(self) -> AdmissionRequest<'a, P> {
        let Self { uid, kind, operation, namespace, name, sub_resource, user_info, .. } = self;
        AdmissionRequest {
            uid,
            kind,
            operation,
            namespace,
            name,
            sub_resource,
            user_info,
            object: None,
            old_object: None,
        }
    }
}

/// Views an object as a workload.
fn view(Sent(object): &Sent) -> Result<Workload<'_>, Unreadable> {
    Workload::view(object).map_err(Unreadable::Shape)
}

/// Why an object cannot be checked.
#[derive(Debug, thiserror::Error)]
enum Unreadable {
    #[error("the request has no object")]
    Missing,
    #[error("the object cannot be parsed: {0}")]
    Json(String),
    #[error("the object is not a valid workload")]
    Shape(#[source] ValidationError),
}

impl Review<'_> {
    /// Returns the review detached from the bytes that it was decoded from.
    #[must_use]
    pub fn into_owned(self) -> Review<'static> {
        Review { request: self.request.into_owned(), problem: self.problem, rollback: self.rollback }
    }

    /// Returns the UID of the request, which the answer must carry.
    #[must_use]
    pub fn uid(&self) -> &str {
        &self.request.uid
    }

    /// Returns the namespace of the object.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.request.namespace
    }

    /// Returns the name of the object to show: while there is none, the prefix that the API server will make one from.
    #[must_use]
    pub fn name(&self) -> &str {
        let object = self.request.object.as_ref().filter(|_| self.request.name.is_empty());
        object.and_then(|object| view(object).ok()).map_or(&self.request.name, |workload| workload.shown_name())
    }

    /// Returns the answer of a webhook.
    #[must_use]
    pub fn answer(&self, webhook: Webhook, now: Timestamp, policies: &PolicySet, facts: &Facts) -> Answer<'_> {
        if !self.is_supported() {
            return Answer::allow(self.uid());
        }
        let rollback = self.rollback.as_deref();
        let evaluation =
            self.request(now).map(|request| Evaluation::new(request, policies, facts).rolling_back_to(rollback));
        match (evaluation, webhook) {
            // Whatever the webhook is registered for, only model servers are refused.
            (Ok(evaluation), _) if evaluation.is_unlabelled() => Answer::allow(self.uid()),
            (Ok(evaluation), Webhook::Mutate) => self.mutation(&evaluation),
            (Ok(evaluation), Webhook::Validate) => self.verdict(&evaluation),
            (Err(unreadable), webhook) => self.failure(webhook, &report::chain(&unreadable)),
        }
    }

    /// Returns whether a webhook may take long to answer: custom rules of policies apply to the object.
    #[must_use]
    pub fn may_take_long(&self, webhook: Webhook, policies: &PolicySet, facts: &Facts) -> bool {
        let is_checked = webhook == Webhook::Validate && policies.has_custom_rules() && self.is_supported();
        // If the label is removed, the policies of the old object apply, but none of their custom rules.
        let object = self.request.object.as_ref().filter(|_| is_checked).and_then(|object| view(object).ok());
        let effective = object.and_then(|workload| policies.resolve(&workload, facts));
        effective.is_some_and(|effective| effective.has_custom_rules())
    }

    /// Returns the workload if it may have the template of an earlier revision.
    #[must_use]
    pub fn may_be_rollback(&self) -> Option<Workload<'_>> {
        let is_update = self.is_supported() && self.request.operation == "UPDATE";
        let workload = view(self.request.object.as_ref().filter(|_| is_update)?).ok()?;
        decision::may_be_rollback(&workload).then_some(workload)
    }

    /// Finds the admitted revision whose template the workload has; the next answer allows a rollback to it. Returns
    /// whether there is one.
    pub fn find_revision(&mut self, revisions: &[Value]) -> bool {
        let found = self.may_be_rollback().and_then(|workload| decision::revision_of(&workload, revisions));
        self.rollback = found;
        self.rollback.is_some()
    }

    /// Returns the answer for a failed decision: the mutating webhook allows the object with a warning, the validating
    /// one refuses it.
    #[must_use]
    pub fn failure(&self, webhook: Webhook, why: &str) -> Answer<'_> {
        match webhook {
            Webhook::Mutate => {
                let warnings = vec![format!("tidegate did not change the object: {why}")];
                Answer { warnings, ..Answer::allow(self.uid()) }
            }
            Webhook::Validate => {
                Answer::refuse(self.uid(), format!("tidegate cannot check the object: {why}"), Vec::new())
            }
        }
    }

    /// Returns whether the request creates or updates a kind that can be a model server, and no subresource of it.
    fn is_supported(&self) -> bool {
        let request = &self.request;
        Kind::in_group(&request.kind.group, &request.kind.kind).is_some()
            && request.sub_resource.is_empty()
            && matches!(&*request.operation, "CREATE" | "UPDATE")
    }

    /// Returns the request for the engine.
    fn request(&self, now: Timestamp) -> Result<Request<'_>, Unreadable> {
        if let Some(problem) = &self.problem {
            return Err(Unreadable::Json(problem.clone()));
        }
        let request = &self.request;
        let workload = request.object.as_ref().ok_or(Unreadable::Missing).and_then(view)?;
        let old = request.old_object.as_ref().map(view).transpose()?;
        let operation = if request.operation == "CREATE" { Operation::Create } else { Operation::Update };
        let user = User { name: &request.user_info.username, groups: &request.user_info.groups };
        Ok(Request { operation, workload, old, user, now })
    }

    fn mutation(&self, evaluation: &Evaluation) -> Answer<'_> {
        let patch = evaluation.patch();
        Answer {
            patch_type: (!patch.is_empty()).then_some("JSONPatch"),
            patch,
            warnings: evaluation.notes(),
            ..Answer::allow(self.uid())
        }
    }

    fn verdict(&self, evaluation: &Evaluation) -> Answer<'_> {
        let verdict = evaluation.verdict();
        let answer = if verdict.allows() {
            Answer::allow(self.uid())
        } else {
            Answer::refuse(
                self.uid(),
                report::refusal(self.kind(), self.namespace(), self.name(), verdict),
                report::causes(verdict),
            )
        };
        let warnings = report::warnings(evaluation, verdict);
        Answer { warnings, audit_annotations: report::audit(verdict), ..answer }
    }

    fn kind(&self) -> &str {
        &self.request.kind.kind
    }
}

/// The answer of a webhook to one request.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer<'a> {
    uid: &'a str,
    /// Whether the request is allowed.
    pub allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch_type: Option<&'static str>,
    /// Written by [`Answer::encode`], which need not escape base64.
    #[serde(skip)]
    patch: Patch,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    audit_annotations: BTreeMap<&'static str, String>,
}

#[derive(Debug, Serialize)]
struct Status {
    code: u16,
    reason: &'static str,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Details>,
}

#[derive(Debug, Serialize)]
struct Details {
    causes: Vec<Cause>,
}

impl<'a> Answer<'a> {
    fn allow(uid: &'a str) -> Self {
        Self {
            uid,
            allowed: true,
            status: None,
            patch_type: None,
            patch: Patch::default(),
            warnings: Vec::new(),
            audit_annotations: BTreeMap::new(),
        }
    }

    fn refuse(uid: &'a str, message: String, causes: Vec<Cause>) -> Self {
        let details = (!causes.is_empty()).then_some(Details { causes });
        let status = Status { code: 403, reason: "Forbidden", message, details };
        Self { allowed: false, status: Some(status), ..Self::allow(uid) }
    }

    /// Encodes the answer as a review.
    ///
    /// # Panics
    /// Never: an answer is plain data.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Reply<'a> {
            api_version: &'static str,
            kind: &'static str,
            response: &'a Answer<'a>,
        }
        let reply = Reply { api_version: API_VERSION, kind: KIND, response: self };
        let mut encoded = serde_json::to_string(&reply).expect("an answer is plain data");
        if !self.patch.is_empty() {
            let patch = serde_json::to_vec(&self.patch).expect("a patch is plain data");
            let end = encoded.split_off(encoded.len() - "}}".len());
            encoded.reserve(patch.len() * 4 / 3 + 32);
            encoded.push_str(",\"patch\":\"");
            BASE64_STANDARD.encode_string(patch, &mut encoded);
            encoded.push('"');
            encoded.push_str(&end);
        }
        encoded.into_bytes()
    }
}
