//! Which of several replicas writes: the one that holds a Lease of `coordination.k8s.io`.
//!
//! No two machines' clocks are compared. A Lease has expired when it has not changed for its duration by the reader's own
//! clock; who holds it stops writing well before anybody can think so.
//! <https://kubernetes.io/docs/concepts/architecture/leases/>

use std::collections::hash_map::RandomState;
use std::fs;
use std::hash::{BuildHasher as _, Hasher as _};
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, ObjectMeta, PostParams};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::{debug, info, warn};

use crate::report;
use tidegate_engine::companions::{MANAGED_BY_LABEL, MANAGER};

/// How a leader is elected.
#[derive(Clone, Debug)]
pub struct Election {
    /// The namespace of the Lease.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Who stands: no two replicas may have the same.
    pub identity: String,
    /// How long a Lease that is not renewed keeps others from taking it; a second at least.
    pub duration: Duration,
}

/// Returns a name for this process that no other has: that of the machine or pod, and something random.
#[must_use]
pub fn new_identity() -> String {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    // The keys of every `RandomState` are random, which is all the randomness that a name needs.
    let random = RandomState::new().build_hasher().finish();
    format!("{}_{random:016x}", host.trim())
}

/// Whether this process leads, and until when it may believe so.
#[derive(Clone, Debug)]
pub(super) enum Leadership {
    /// There is nobody else.
    Alone,
    /// Until this moment; not at all where there is none.
    Until(Arc<Mutex<Option<Instant>>>),
}

impl Leadership {
    /// Leads from the start where there is no election, else not before it is won.
    pub(super) fn new(is_elected: bool) -> Self {
        if is_elected { Self::Until(Arc::default()) } else { Self::Alone }
    }

    /// Tells whether this process leads.
    pub(super) fn holds(&self) -> bool {
        match self {
            Self::Alone => true,
            Self::Until(until) => locked(until).is_some_and(|until| Instant::now() < until),
        }
    }

    /// Does something that only the leader may do, and gives up on it when the leadership ends; none where it has.
    pub(super) async fn write<T>(&self, writing: impl Future<Output = T>) -> Option<T> {
        let until = match self {
            Self::Alone => return Some(writing.await),
            Self::Until(until) => *locked(until),
        };
        let until = until.filter(|until| Instant::now() < *until)?;
        timeout_at(until, writing).await.ok()
    }

    /// Leads until this moment, or no longer where there is none. Tells whether it has led until now.
    fn set(&self, new: Option<Instant>) -> bool {
        let Self::Until(until) = self else { return true };
        let before = mem::replace(&mut *locked(until), new);
        before.is_some_and(|before| Instant::now() < before)
    }
}

fn locked(until: &Mutex<Option<Instant>>) -> MutexGuard<'_, Option<Instant>> {
    until.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What to do about the Lease.
#[derive(Debug, PartialEq)]
enum Step {
    /// Make it: there is none.
    Create,
    /// Take it from nobody, or from who has not renewed it in time.
    Take,
    /// Renew it: it is ours.
    Renew,
    /// Leave it, at least for so long.
    Wait(Duration),
}

/// Decides what to do about a Lease that has not changed for so long.
fn step(lease: Option<&LeaseSpec>, identity: &str, unchanged: Duration, own_duration: Duration) -> Step {
    let Some(lease) = lease else { return Step::Create };
    let holder = lease.holder_identity.as_deref().unwrap_or_default();
    if holder == identity {
        return Step::Renew;
    }
    let seconds = lease.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    let expires = seconds.map_or(own_duration, Duration::from_secs);
    match expires.checked_sub(unchanged) {
        Some(left) if !holder.is_empty() && !left.is_zero() => Step::Wait(left),
        _ => Step::Take,
    }
}

/// Returns what a Lease says once it is taken or renewed.
fn held(before: Option<&LeaseSpec>, identity: &str, duration: Duration, now: Timestamp) -> LeaseSpec {
    let is_ours = before.is_some_and(|before| before.holder_identity.as_deref() == Some(identity));
    let transitions = before.and_then(|before| before.lease_transitions).unwrap_or_default();
    let acquired = before.filter(|_| is_ours).and_then(|before| before.acquire_time.clone());
    LeaseSpec {
        holder_identity: Some(identity.to_owned()),
        lease_duration_seconds: Some(i32::try_from(duration.as_secs()).unwrap_or(i32::MAX)),
        acquire_time: Some(acquired.unwrap_or(MicroTime(now))),
        renew_time: Some(MicroTime(now)),
        lease_transitions: Some(if is_ours || before.is_none() { transitions } else { transitions.saturating_add(1) }),
        ..before.cloned().unwrap_or_default()
    }
}

/// Stands for election, and keeps what it has won.
pub(super) struct Candidate {
    election: Election,
    leases: Api<Lease>,
    leadership: Leadership,
    seen: Mutex<Option<Seen>>,
    /// Whether the last attempt failed: it is told once.
    failing: AtomicBool,
}

/// The Lease as it was seen last, and since when it has been so.
struct Seen {
    lease: Lease,
    since: Instant,
}

impl Candidate {
    /// Does not stand yet.
    pub(super) fn new(client: Client, election: Election, leadership: Leadership) -> Self {
        let leases = Api::namespaced(client, &election.namespace);
        Self { election, leases, leadership, seen: Mutex::default(), failing: AtomicBool::default() }
    }

    /// Stands for election for as long as it is polled, and says when it is won: also after it was lost for a moment only,
    /// for what was to be written in that moment was not.
    pub(super) async fn stand(&self, won: impl Fn()) {
        let mut led = false;
        loop {
            let pause = self.attempt(&won).await;
            let leads = self.leadership.holds();
            if led && !leads {
                warn!(identity = self.election.identity, "this replica leads no longer");
            }
            led = leads;
            sleep(pause).await;
        }
    }

    /// Gives the Lease back where it is ours, so that another need not wait until it expires. Nothing may be written after
    /// this.
    pub(super) async fn release(&self) {
        if !self.leadership.holds() {
            return;
        }
        self.leadership.set(None);
        let Some(lease) = self.seen().as_ref().map(|seen| seen.lease.clone()) else { return };
        self.give_back(lease).await;
    }

    async fn give_back(&self, mut lease: Lease) {
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = Some(String::new());
        spec.renew_time = Some(MicroTime(Timestamp::now()));
        let released = timeout(self.retry(), self.leases.replace(&self.election.name, &ours(), &lease)).await;
        match released {
            Ok(Ok(lease)) => {
                info!(identity = self.election.identity, "gave the lease back");
                *self.seen() = Some(Seen { lease, since: Instant::now() });
            }
            // It expires by itself.
            Ok(Err(error)) => debug!(error = report::chain(&error), "the lease was not given back"),
            Err(_) => debug!("the lease was not given back in time"),
        }
    }

    /// Tells, once this replica stands no longer, whether another does: that one takes the Lease, or renews it. Who holds it and
    /// is silent may have been killed and does not count; it is waited for until whoever else is there would have taken it.
    pub(super) async fn is_succeeded(&self) -> bool {
        let mut until = None;
        loop {
            let read = timeout(self.deadline(), self.leases.get_opt(&self.election.name)).await;
            let found = read.ok().and_then(Result::ok).flatten();
            if let Some(lease) = found.as_ref().filter(|lease| self.is_anothers_news(lease)) {
                info!(identity = self.election.identity, by = holder(lease), "this replica is succeeded");
                return true;
            }
            self.give_back_late(found.as_ref()).await;
            let free_in = || found.as_ref().map_or(Duration::ZERO, |lease| self.free_in(lease));
            let until = *until.get_or_insert_with(|| Instant::now() + free_in() + self.retry() * 3);
            if Instant::now() >= until {
                return false;
            }
            sleep(self.retry() / 4).await;
        }
    }

    /// Tells whether another replica has written a Lease since it was seen last.
    fn is_anothers_news(&self, lease: &Lease) -> bool {
        let holder = holder(lease);
        let is_known = |seen: &Seen| seen.lease.metadata.resource_version == lease.metadata.resource_version;
        !holder.is_empty()
            && holder != self.election.identity
            && self.seen().as_ref().is_some_and(|seen| !is_known(seen))
    }

    /// Gives the Lease back where what this replica wrote last arrived after that.
    async fn give_back_late(&self, lease: Option<&Lease>) {
        if let Some(lease) = lease.filter(|lease| holder(lease) == self.election.identity) {
            self.give_back(lease.clone()).await;
        }
    }

    /// Returns how long it is until a Lease may be taken by others.
    fn free_in(&self, lease: &Lease) -> Duration {
        let spec = lease.spec.clone().unwrap_or_default();
        match step(Some(&spec), &self.election.identity, self.unchanged(lease), self.election.duration) {
            Step::Wait(left) => left,
            Step::Create | Step::Take | Step::Renew => Duration::ZERO,
        }
    }

    /// How long a leader goes on without having renewed its Lease: less than others wait.
    fn deadline(&self) -> Duration {
        self.election.duration * 2 / 3
    }

    /// How long to wait between two attempts: several fit before the deadline.
    fn retry(&self) -> Duration {
        self.election.duration * 2 / 15
    }

    /// Looks at the Lease and takes or renews it where that is its turn; returns how long to wait then.
    async fn attempt(&self, won: impl Fn()) -> Duration {
        let begun = Instant::now();
        let looked = timeout(self.deadline(), self.look()).await;
        let is_new = !self.failing.swap(!matches!(looked, Ok(Ok(_))), Ordering::Relaxed);
        match looked {
            Ok(Ok(Some(left))) => {
                self.leadership.set(None);
                return left.min(self.retry());
            }
            Ok(Ok(None)) => {
                if !self.leadership.set(Some(begun + self.deadline())) {
                    info!(identity = self.election.identity, "this replica leads: it writes from now on");
                    won();
                }
            }
            // Whoever leads does so until the deadline.
            Ok(Err(error)) if is_conflict(&error) => debug!("another replica was faster"),
            Ok(Err(error)) if is_new => warn!(error = report::chain(&error), "the lease cannot be had; trying again"),
            Err(_) if is_new => warn!("the API server does not answer about the lease; trying again"),
            Ok(Err(_)) | Err(_) => {}
        }
        self.retry()
    }

    /// Takes or renews the Lease; returns for how long it is another's where it is.
    async fn look(&self) -> kube::Result<Option<Duration>> {
        let found = self.leases.get_opt(&self.election.name).await?;
        let unchanged = found.as_ref().map_or(Duration::ZERO, |lease| self.unchanged(lease));
        let (identity, duration) = (&self.election.identity, self.election.duration);
        let spec = found.as_ref().map(|lease| lease.spec.clone().unwrap_or_default());
        let step = step(spec.as_ref(), identity, unchanged, duration);
        if let Step::Wait(left) = step {
            return Ok(Some(left));
        }
        let spec = Some(held(spec.as_ref(), identity, duration, Timestamp::now()));
        let written = match found {
            Some(lease) => self.leases.replace(&self.election.name, &ours(), &Lease { spec, ..lease }).await?,
            None => self.leases.create(&ours(), &Lease { metadata: self.metadata(), spec }).await?,
        };
        *self.seen() = Some(Seen { lease: written, since: Instant::now() });
        Ok(None)
    }

    /// Returns for how long a Lease has been as it is, as far as this process has seen.
    fn unchanged(&self, lease: &Lease) -> Duration {
        let mut seen = self.seen();
        let version = |lease: &Lease| lease.metadata.resource_version.clone();
        if let Some(seen) = seen.as_ref().filter(|seen| version(&seen.lease) == version(lease)) {
            return seen.since.elapsed();
        }
        *seen = Some(Seen { lease: lease.clone(), since: Instant::now() });
        Duration::ZERO
    }

    fn metadata(&self) -> ObjectMeta {
        let labels = [(MANAGED_BY_LABEL.to_owned(), MANAGER.to_owned())].into();
        ObjectMeta { name: Some(self.election.name.clone()), labels: Some(labels), ..ObjectMeta::default() }
    }

    fn seen(&self) -> MutexGuard<'_, Option<Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn holder(lease: &Lease) -> &str {
    lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default()
}

fn ours() -> PostParams {
    PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() }
}

/// Tells whether somebody else has written in between: where a Lease was replaced or made, the race is lost.
fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use axum::http::{Request, Response};
    use kube::client::Body;

    use super::*;

    const DURATION: Duration = Duration::from_secs(15);

    fn lease(holder: Option<&str>, seconds: Option<i32>) -> LeaseSpec {
        LeaseSpec {
            holder_identity: holder.map(str::to_owned),
            lease_duration_seconds: seconds,
            lease_transitions: Some(3),
            acquire_time: Some(MicroTime(Timestamp::UNIX_EPOCH)),
            // Long ago by any clock: what another machine wrote there says nothing.
            renew_time: Some(MicroTime(Timestamp::UNIX_EPOCH)),
            ..LeaseSpec::default()
        }
    }

    #[test]
    fn what_is_done_follows_from_the_holder_and_from_how_long_it_has_been_silent() {
        let seconds = Duration::from_secs;
        let table = [
            (None, 0, Step::Create),
            (Some(lease(Some("me"), Some(15))), 0, Step::Renew),
            // Whoever holds it may renew it however late: nobody else has taken it.
            (Some(lease(Some("me"), Some(15))), 60, Step::Renew),
            (Some(lease(Some("other"), Some(15))), 0, Step::Wait(seconds(15))),
            (Some(lease(Some("other"), Some(15))), 14, Step::Wait(seconds(1))),
            (Some(lease(Some("other"), Some(15))), 15, Step::Take),
            (Some(lease(Some("other"), Some(60))), 30, Step::Wait(seconds(30))),
            (Some(lease(Some("other"), Some(5))), 6, Step::Take),
            (Some(lease(Some("other"), None)), 10, Step::Wait(seconds(5))),
            (Some(lease(Some("other"), Some(-1))), 10, Step::Wait(seconds(5))),
            (Some(lease(Some(""), Some(15))), 0, Step::Take),
            (Some(lease(None, Some(15))), 0, Step::Take),
        ];
        for (lease, unchanged, wanted) in table {
            let found = step(lease.as_ref(), "me", seconds(unchanged), DURATION);
            assert_eq!(found, wanted, "{lease:?} after {unchanged} s");
        }
    }

    #[test]
    fn a_lease_that_changes_hands_counts_that_and_one_that_is_renewed_does_not() {
        let now: Timestamp = "2026-01-02T03:04:05.678901Z".parse().unwrap();
        let transitions = |before: Option<LeaseSpec>| {
            let held = held(before.as_ref(), "me", DURATION, now);
            assert_eq!(held.holder_identity.as_deref(), Some("me"));
            assert_eq!((held.lease_duration_seconds, held.renew_time), (Some(15), Some(MicroTime(now))));
            (held.lease_transitions, held.acquire_time)
        };
        let (new, old) = (Some(MicroTime(now)), Some(MicroTime(Timestamp::UNIX_EPOCH)));
        assert_eq!(transitions(None), (Some(0), new.clone()));
        assert_eq!(transitions(Some(lease(Some("me"), Some(15)))), (Some(3), old));
        assert_eq!(transitions(Some(lease(Some("other"), Some(15)))), (Some(4), new.clone()));
        assert_eq!(transitions(Some(lease(Some(""), Some(15)))), (Some(4), new));
    }

    #[test]
    fn times_are_written_in_microseconds() {
        let now: Timestamp = "2026-01-02T03:04:05.6789Z".parse().unwrap();
        let written = serde_json::to_value(held(None, "me", DURATION, now)).unwrap();
        assert_eq!(written["renewTime"], "2026-01-02T03:04:05.678900Z");
    }

    #[test]
    fn identities_differ() {
        assert_ne!(new_identity(), new_identity());
        assert!(new_identity().contains('_'));
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_written_once_leadership_has_ended() {
        let leadership = Leadership::new(true);
        assert_eq!(leadership.write(async { 1 }).await, None);
        assert!(!leadership.set(Some(Instant::now() + DURATION)), "it had not led");
        assert_eq!(leadership.write(async { 1 }).await, Some(1));
        assert!(leadership.set(Some(Instant::now() + DURATION)), "it had led");
        // It ends while something is being written that takes too long.
        let begun = Instant::now();
        assert_eq!(leadership.write(sleep(DURATION * 2)).await, None);
        assert_eq!((begun.elapsed(), leadership.holds()), (DURATION, false));
        assert_eq!(leadership.write(async { 1 }).await, None);
        assert!(!leadership.set(Some(Instant::now() + DURATION)), "it had ended in between");
        assert_eq!(Leadership::new(false).write(async { 1 }).await, Some(1));
    }

    /// A replica `me` that has seen this Lease, and whose API server answers so after so many seconds.
    fn candidate(seen: Lease, answer: impl Fn(u64) -> Lease + Send + Sync + 'static) -> Candidate {
        let begun = Instant::now();
        let answer = move |request: Request<Body>| {
            let mut lease = answer(begun.elapsed().as_secs());
            if request.method() == "PUT" {
                // What is written takes the place of what is there; nothing else is.
                lease = named("", "written");
            }
            let body = Body::from(serde_json::to_vec(&lease).unwrap());
            async { Ok::<_, Infallible>(Response::new(body)) }
        };
        let client = Client::new(tower::service_fn(answer), "default");
        let (namespace, name) = ("default".to_owned(), "tidegate".to_owned());
        let election = Election { namespace, name, identity: "me".to_owned(), duration: DURATION };
        let candidate = Candidate::new(client, election, Leadership::new(true));
        *candidate.seen() = Some(Seen { lease: seen, since: Instant::now() });
        candidate
    }

    /// The Lease, held by somebody, at a version.
    fn named(holder: &str, version: &str) -> Lease {
        let metadata = ObjectMeta {
            name: Some("tidegate".to_owned()),
            resource_version: Some(version.to_owned()),
            ..ObjectMeta::default()
        };
        Lease { metadata, spec: Some(lease(Some(holder), Some(15))) }
    }

    /// Whether a replica is succeeded, and after how many seconds it knows.
    async fn succeeded(candidate: Candidate) -> (bool, u64) {
        let begun = Instant::now();
        (candidate.is_succeeded().await, begun.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_or_renews_the_lease_succeeds_a_replica_that_stops() {
        let free = || named("", "1");
        assert_eq!(succeeded(candidate(free(), |_| named("", "1"))).await, (false, 6));
        let taken = |after: u64| if after < 2 { named("", "1") } else { named("other", "2") };
        assert_eq!(succeeded(candidate(free(), taken)).await, (true, 2));
        assert_eq!(succeeded(candidate(free(), |_| named("other", "2"))).await, (true, 0), "while it was given back");
        let renewed = |after: u64| named("other", if after < 1 { "1" } else { "2" });
        assert_eq!(succeeded(candidate(named("other", "1"), renewed)).await, (true, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn who_holds_the_lease_and_is_silent_does_not_succeed() {
        let held = || named("killed", "1");
        assert_eq!(succeeded(candidate(held(), |_| named("killed", "1"))).await, (false, 15 + 6));
        let taken = |after: u64| if after < 17 { named("killed", "1") } else { named("third", "2") };
        assert_eq!(succeeded(candidate(held(), taken)).await, (true, 17), "a third takes it when it expires");
        let stops_too = |after: u64| named(if after < 1 { "killed" } else { "" }, if after < 1 { "1" } else { "2" });
        assert!(!succeeded(candidate(held(), stops_too)).await.0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewal_that_arrives_late_is_given_back() {
        let candidate = candidate(named("", "1"), |_| named("me", "2"));
        assert!(!candidate.is_succeeded().await);
        assert_eq!(candidate.seen().as_ref().map(|seen| holder(&seen.lease).to_owned()), Some(String::new()));
    }
}
