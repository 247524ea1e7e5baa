//! Leader election among replicas, by a Lease of `coordination.k8s.io`: only the leader writes.
//!
//! Clocks of different machines are never compared. A Lease has expired if, by the reader's own clock, it has not
//! changed for its duration; its holder stops writing well before that.
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

/// The settings of leader election.
#[derive(Clone, Debug)]
pub struct Election {
    /// The namespace of the Lease.
    pub namespace: String,
    /// The name of the Lease.
    pub name: String,
    /// The identity of this replica, which must be unique.
    pub identity: String,
    /// How long the Lease is valid after its last renewal, at least a second.
    pub duration: Duration,
}

/// Returns a unique identity for this process: the host name and a random suffix.
#[must_use]
pub fn new_identity() -> String {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    // The keys of every `RandomState` are random, which is enough for a name.
    let random = RandomState::new().build_hasher().finish();
    format!("{}_{random:016x}", host.trim())
}

/// Whether this replica leads, and until when.
#[derive(Clone, Debug)]
pub(super) enum Leadership {
    /// There is no leader election.
    Alone,
    /// It leads until this moment; not at all if there is none.
    Until(Arc<Mutex<Option<Instant>>>),
}

impl Leadership {
    /// Leads from the start without leader election, else once it is won.
    pub(super) fn new(is_elected: bool) -> Self {
        if is_elected { Self::Until(Arc::default()) } else { Self::Alone }
    }

    /// Returns whether this replica leads.
    pub(super) fn holds(&self) -> bool {
        match self {
            Self::Alone => true,
            Self::Until(until) => locked(until).is_some_and(|until| Instant::now() < until),
        }
    }

    /// Runs `writing` if this replica leads, and cancels it when the leadership ends; returns none then.
    pub(super) async fn write<T>(&self, writing: impl Future<Output = T>) -> Option<T> {
        let until = match self {
            Self::Alone => return Some(writing.await),
            Self::Until(until) => *locked(until),
        };
        let until = until.filter(|until| Instant::now() < *until)?;
        timeout_at(until, writing).await.ok()
    }

    /// Sets until when this replica leads, none to resign. Returns whether it has led until now.
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
    /// Create it: there is none.
    Create,
    /// Take it: it has no holder, or has expired.
    Take,
    /// Renew it: this replica holds it.
    Renew,
    /// Leave it, at least for this long.
    Wait(Duration),
}

/// Decides what to do about a Lease that has been unchanged for a time.
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

/// Returns the spec of a Lease once it is taken or renewed.
fn held(before: Option<&LeaseSpec>, identity: &str, duration: Duration, now: Timestamp) -> LeaseSpec {
    let is_renewal = before.is_some_and(|before| before.holder_identity.as_deref() == Some(identity));
    let transitions = before.and_then(|before| before.lease_transitions).unwrap_or_default();
    let acquired = before.filter(|_| is_renewal).and_then(|before| before.acquire_time.clone());
    LeaseSpec {
        holder_identity: Some(identity.to_owned()),
        lease_duration_seconds: Some(i32::try_from(duration.as_secs()).unwrap_or(i32::MAX)),
        acquire_time: Some(acquired.unwrap_or(MicroTime(now))),
        renew_time: Some(MicroTime(now)),
        lease_transitions: Some(if is_renewal || before.is_none() {
            transitions
        } else {
            transitions.saturating_add(1)
        }),
        ..before.cloned().unwrap_or_default()
    }
}

/// A candidate in leader election.
pub(super) struct Candidate {
    election: Election,
    leases: Api<Lease>,
    leadership: Leadership,
    seen: Mutex<Option<Seen>>,
    /// Whether the last attempt failed: only the first failure is logged.
    failing: AtomicBool,
}

/// The Lease as last seen, and since when it has been unchanged.
struct Seen {
    lease: Lease,
    since: Instant,
}

impl Candidate {
    /// Creates a candidate that is not running yet.
    pub(super) fn new(client: Client, election: Election, leadership: Leadership) -> Self {
        let leases = Api::namespaced(client, &election.namespace);
        Self { election, leases, leadership, seen: Mutex::default(), failing: AtomicBool::default() }
    }

    /// Takes part in the election while it is polled, and calls `won` whenever it becomes the leader, even if it lost
    /// the Lease only for a moment: writes in that moment were skipped.
    pub(super) async fn run(&self, won: impl Fn()) {
        let mut led = false;
        loop {
            let pause = self.attempt(&won).await;
            let leads = self.leadership.holds();
            if led && !leads {
                warn!(identity = self.election.identity, "this replica no longer leads");
            }
            led = leads;
            sleep(pause).await;
        }
    }

    /// Releases the Lease if this replica holds it, so that another need not wait until it expires. Nothing may be
    /// written after this.
    pub(super) async fn release(&self) {
        if !self.leadership.holds() {
            return;
        }
        self.leadership.set(None);
        let Some(lease) = self.seen().as_ref().map(|seen| seen.lease.clone()) else { return };
        self.release_lease(lease).await;
    }

    async fn release_lease(&self, mut lease: Lease) {
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = Some(String::new());
        spec.renew_time = Some(MicroTime(Timestamp::now()));
        let released = timeout(self.retry(), self.leases.replace(&self.election.name, &parameters(), &lease)).await;
        match released {
            Ok(Ok(lease)) => {
                info!(identity = self.election.identity, "released the lease");
                *self.seen() = Some(Seen { lease, since: Instant::now() });
            }
            // It will expire.
            Ok(Err(error)) => debug!(error = report::chain(&error), "cannot release the lease"),
            Err(_) => debug!("timed out releasing the lease"),
        }
    }

    /// Returns, after this replica has stopped, whether another leads: it has taken or renewed the Lease. A holder that
    /// does not renew it may have been killed and does not count; this waits until another replica would have taken the
    /// Lease.
    pub(super) async fn is_succeeded(&self) -> bool {
        let mut until = None;
        loop {
            let read = timeout(self.deadline(), self.leases.get_opt(&self.election.name)).await;
            let found = read.ok().and_then(Result::ok).flatten();
            if let Some(lease) = found.as_ref().filter(|lease| self.is_written_by_another(lease)) {
                info!(identity = self.election.identity, by = holder(lease), "another replica leads");
                return true;
            }
            self.release_late_renewal(found.as_ref()).await;
            let free_in = || found.as_ref().map_or(Duration::ZERO, |lease| self.free_in(lease));
            let until = *until.get_or_insert_with(|| Instant::now() + free_in() + self.retry() * 3);
            if Instant::now() >= until {
                return false;
            }
            sleep(self.retry() / 4).await;
        }
    }

    /// Returns whether another replica has written the Lease since it was last seen.
    fn is_written_by_another(&self, lease: &Lease) -> bool {
        let holder = holder(lease);
        let is_known = |seen: &Seen| seen.lease.metadata.resource_version == lease.metadata.resource_version;
        !holder.is_empty()
            && holder != self.election.identity
            && self.seen().as_ref().is_some_and(|seen| !is_known(seen))
    }

    /// Releases the Lease again if the last renewal of this replica arrived after the release.
    async fn release_late_renewal(&self, lease: Option<&Lease>) {
        if let Some(lease) = lease.filter(|lease| holder(lease) == self.election.identity) {
            self.release_lease(lease.clone()).await;
        }
    }

    /// Returns how long it is until others may take the Lease.
    fn free_in(&self, lease: &Lease) -> Duration {
        let spec = lease.spec.clone().unwrap_or_default();
        match step(Some(&spec), &self.election.identity, self.unchanged(lease), self.election.duration) {
            Step::Wait(left) => left,
            Step::Create | Step::Take | Step::Renew => Duration::ZERO,
        }
    }

    /// How long a leader writes without having renewed its Lease: less than others wait.
    fn deadline(&self) -> Duration {
        self.election.duration * 2 / 3
    }

    /// How long to wait between attempts: several fit before the deadline.
    fn retry(&self) -> Duration {
        self.election.duration * 2 / 15
    }

    /// Takes or renews the Lease if possible; returns how long to wait then.
    async fn attempt(&self, won: impl Fn()) -> Duration {
        let start = Instant::now();
        let result = timeout(self.deadline(), self.acquire()).await;
        let is_new = !self.failing.swap(!matches!(result, Ok(Ok(_))), Ordering::Relaxed);
        match result {
            Ok(Ok(Some(left))) => {
                self.leadership.set(None);
                return left.min(self.retry());
            }
            Ok(Ok(None)) => {
                if !self.leadership.set(Some(start + self.deadline())) {
                    info!(identity = self.election.identity, "this replica leads");
                    won();
                }
            }
            // A leader remains leader until the deadline.
            Ok(Err(error)) if is_conflict(&error) => debug!("another replica wrote the lease first"),
            Ok(Err(error)) if is_new => warn!(error = report::chain(&error), "cannot acquire the lease; trying again"),
            Err(_) if is_new => warn!("timed out acquiring the lease; trying again"),
            Ok(Err(_)) | Err(_) => {}
        }
        self.retry()
    }

    /// Takes or renews the Lease; if another replica holds it, returns for how long.
    async fn acquire(&self) -> kube::Result<Option<Duration>> {
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
            Some(lease) => self.leases.replace(&self.election.name, &parameters(), &Lease { spec, ..lease }).await?,
            None => self.leases.create(&parameters(), &Lease { metadata: self.metadata(), spec }).await?,
        };
        *self.seen() = Some(Seen { lease: written, since: Instant::now() });
        Ok(None)
    }

    /// Returns for how long this process has seen the Lease unchanged.
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

fn parameters() -> PostParams {
    PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() }
}

/// Returns whether another replica has written the Lease in between.
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
            // Long ago by any clock: times of other machines must not matter.
            renew_time: Some(MicroTime(Timestamp::UNIX_EPOCH)),
            ..LeaseSpec::default()
        }
    }

    #[test]
    fn decides_by_holder_and_time_since_renewal() {
        let seconds = Duration::from_secs;
        let table = [
            (None, 0, Step::Create),
            (Some(lease(Some("me"), Some(15))), 0, Step::Renew),
            // Its holder may renew it however late: no other has taken it.
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
        for (lease, unchanged, expected) in table {
            let found = step(lease.as_ref(), "me", seconds(unchanged), DURATION);
            assert_eq!(found, expected, "{lease:?} after {unchanged} s");
        }
    }

    #[test]
    fn counts_transitions_but_not_renewals() {
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
    fn writes_times_in_microseconds() {
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
    async fn writes_nothing_once_leadership_has_ended() {
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

    /// A replica `me` that has seen this Lease, and whose API server gives this answer after a number of seconds.
    fn candidate(seen: Lease, answer: impl Fn(u64) -> Lease + Send + Sync + 'static) -> Candidate {
        let begun = Instant::now();
        let answer = move |request: Request<Body>| {
            let mut lease = answer(begun.elapsed().as_secs());
            if request.method() == "PUT" {
                // The only write is the release.
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

    /// The Lease with a holder, at a version.
    fn named(holder: &str, version: &str) -> Lease {
        let metadata = ObjectMeta {
            name: Some("tidegate".to_owned()),
            resource_version: Some(version.to_owned()),
            ..ObjectMeta::default()
        };
        Lease { metadata, spec: Some(lease(Some(holder), Some(15))) }
    }

    /// Whether another replica leads, and after how many seconds that is known.
    async fn succeeded(candidate: Candidate) -> (bool, u64) {
        let begun = Instant::now();
        (candidate.is_succeeded().await, begun.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn a_replica_that_takes_or_renews_the_lease_leads() {
        let free = || named("", "1");
        assert_eq!(succeeded(candidate(free(), |_| named("", "1"))).await, (false, 6));
        let taken = |after: u64| if after < 2 { named("", "1") } else { named("other", "2") };
        assert_eq!(succeeded(candidate(free(), taken)).await, (true, 2));
        assert_eq!(succeeded(candidate(free(), |_| named("other", "2"))).await, (true, 0), "while it was released");
        let renewed = |after: u64| named("other", if after < 1 { "1" } else { "2" });
        assert_eq!(succeeded(candidate(named("other", "1"), renewed)).await, (true, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_holder_that_does_not_renew_the_lease_does_not_lead() {
        let held = || named("killed", "1");
        assert_eq!(succeeded(candidate(held(), |_| named("killed", "1"))).await, (false, 15 + 6));
        let taken = |after: u64| if after < 17 { named("killed", "1") } else { named("third", "2") };
        assert_eq!(succeeded(candidate(held(), taken)).await, (true, 17), "a third takes it when it expires");
        let stops_too = |after: u64| named(if after < 1 { "killed" } else { "" }, if after < 1 { "1" } else { "2" });
        assert!(!succeeded(candidate(held(), stops_too)).await.0);
    }

    #[tokio::test(start_paused = true)]
    async fn releases_the_lease_again_after_a_late_renewal() {
        let candidate = candidate(named("", "1"), |_| named("me", "2"));
        assert!(!candidate.is_succeeded().await);
        assert_eq!(candidate.seen().as_ref().map(|seen| holder(&seen.lease).to_owned()), Some(String::new()));
    }
}
