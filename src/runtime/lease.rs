//! Leadership by a `coordination.k8s.io` Lease: acquired and renewed by compare-and-swap on its `resourceVersion`.
//!
//! Leadership here is an optimisation, so that two controllers do not compute the same thing. Safety is in the compare-and-swap of each
//! grant, with the name of the term as a fence. So a leader whose API server is away does not end: it stops writing when its lease runs out, and goes on when it can renew it.
//!
//! Own code because no published crate for this builds with the `kube` that the rest uses; it is the algorithm of client-go's
//! `leaderelection`: a lease is judged by how long it has not changed as seen from here, never by comparing clocks.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

/// How long a lease holds without being renewed: what a crashed leader costs, and what a busy API server may take.
const DURATION: Duration = Duration::from_secs(15);
/// A third of it: two renewals may fail.
const RENEW_EVERY: Duration = Duration::from_secs(5);
/// After a failure.
const RETRY_EVERY: Duration = Duration::from_secs(2);
/// A request that takes longer has met a connection to a node that is gone.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a lease could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Reading failed.
    #[error("read lease {name}")]
    Read {
        /// The lease.
        name: String,
        /// The cause.
        #[source]
        source: kube::Error,
    },
    /// Writing failed, or another candidate was faster.
    #[error("write lease {name}")]
    Write {
        /// The lease.
        name: String,
        /// The cause.
        #[source]
        source: kube::Error,
    },
    /// The API server did not answer.
    #[error("no answer about lease {name} within {REQUEST_TIMEOUT:?}")]
    Timeout {
        /// The lease.
        name: String,
    },
}

/// A candidate for a lease.
#[derive(Debug)]
pub struct Elector {
    api: Api<Lease>,
    name: String,
    identity: String,
    seen: Option<Seen>,
    /// Name of the term; empty before the first.
    term: String,
    valid_until: watch::Sender<Instant>,
}

/// Tells whether the lease is held right now.
#[derive(Clone, Debug)]
pub struct Leadership(watch::Receiver<Instant>);

/// The lease as it was when it last changed, and when that was by the local clock.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    spec: LeaseSpec,
    at: Instant,
}

/// What a candidate does about a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Claim {
    /// There is none.
    Create,
    /// It is ours.
    Renew,
    /// It is free, or its holder has not renewed it for as long as it holds.
    Take,
    /// Another holds it.
    Wait,
}

/// Decides, from the lease's spec and the time for which it has not changed.
fn claim(spec: Option<&LeaseSpec>, unchanged_for: Duration, identity: &str) -> Claim {
    let Some(spec) = spec else { return Claim::Create };
    let holder = spec.holder_identity.as_deref().unwrap_or_default();
    // A lease without a duration, or with a hostile one, holds for as long as ours do.
    let holds = spec.lease_duration_seconds.and_then(|s| u64::try_from(s).ok()).map_or(DURATION, Duration::from_secs).min(DURATION);
    if holder == identity {
        Claim::Renew
    } else if holder.is_empty() || unchanged_for >= holds {
        Claim::Take
    } else {
        Claim::Wait
    }
}

impl Leadership {
    /// Whether the lease is held at this moment.
    pub fn is_held(&self) -> bool {
        Instant::now() < *self.0.borrow()
    }

    /// For tests and single runs: leadership that does not end within a day.
    pub fn assumed() -> Self {
        Self(watch::channel(Instant::now() + Duration::from_hours(24)).1)
    }
}

impl Elector {
    /// A candidate called `identity`, which must be unique among candidates.
    pub fn new(client: Client, namespace: &str, name: &str, identity: &str) -> Self {
        let valid_until = watch::channel(Instant::now()).0;
        Self {
            api: Api::namespaced(client, namespace),
            name: name.to_owned(),
            identity: identity.to_owned(),
            seen: None,
            term: String::new(),
            valid_until,
        }
    }

    /// Tells whether this candidate leads.
    pub fn leadership(&self) -> Leadership {
        Leadership(self.valid_until.subscribe())
    }

    /// Waits until this candidate holds the lease, and gives the name of the term that begins: no other term ever has the same.
    pub async fn acquire(&mut self) -> String {
        loop {
            match self.attempt().await {
                Ok(true) => return self.term.clone(),
                Ok(false) => {}
                Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "lease not acquired"),
            }
            sleep(RETRY_EVERY).await;
        }
    }

    /// Renews the lease until another candidate holds it. An API server that is away ends leadership for the time being, and not this.
    pub async fn keep(&mut self) {
        loop {
            let pause = match self.attempt().await {
                Ok(true) => RENEW_EVERY,
                Ok(false) => return,
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "lease not renewed");
                    RETRY_EVERY
                }
            };
            sleep(pause).await;
        }
    }

    /// Gives the lease up, so that the next candidate need not wait for its end.
    ///
    /// # Errors
    /// When it cannot be written; it then runs out by itself.
    pub async fn release(&mut self) -> Result<(), Error> {
        self.valid_until.send_replace(Instant::now());
        let Some(mut lease) = self.get().await? else { return Ok(()) };
        let Some(spec) = lease.spec.as_mut().filter(|s| s.holder_identity.as_deref() == Some(&self.identity)) else { return Ok(()) };
        spec.holder_identity = None;
        self.put(&lease).await.map(|_| ())
    }

    /// One turn: whether the lease is ours afterwards.
    async fn attempt(&mut self) -> Result<bool, Error> {
        // Taken before the request: the lease holds from when it was written, which is later.
        let now = Instant::now();
        let found = self.get().await?;
        let spec = found.as_ref().and_then(|l| l.spec.clone());
        let unchanged_for = self.watch_for_change(spec.as_ref(), now);
        let claim = claim(spec.as_ref(), unchanged_for, &self.identity);
        if claim == Claim::Wait {
            return Ok(false);
        }
        // A process that finds its own name on the lease is another process than the one that wrote it: that begins a term, too.
        let term_begins = self.term.is_empty() || claim != Claim::Renew;
        let lease = self.renewed(found.unwrap_or_default(), term_begins, Timestamp::now());
        let written = if claim == Claim::Create { self.create(&lease).await? } else { self.put(&lease).await? };
        if term_begins {
            let began = written.spec.and_then(|s| s.acquire_time).map(|t| t.0).unwrap_or_default();
            self.term = format!("{}@{began}", self.identity);
        }
        self.valid_until.send_replace(now + DURATION);
        Ok(true)
    }

    /// How long the lease has been as it is, by the local clock.
    fn watch_for_change(&mut self, spec: Option<&LeaseSpec>, now: Instant) -> Duration {
        let Some(spec) = spec else { return Duration::ZERO };
        match &self.seen {
            Some(seen) if seen.spec == *spec => now.duration_since(seen.at),
            _ => {
                self.seen = Some(Seen { spec: spec.clone(), at: now });
                Duration::ZERO
            }
        }
    }

    fn renewed(&self, mut lease: Lease, term_begins: bool, now: Timestamp) -> Lease {
        lease.metadata.name = Some(self.name.clone());
        let spec = lease.spec.get_or_insert_default();
        if term_begins {
            spec.acquire_time = Some(MicroTime(now));
            spec.lease_transitions = Some(spec.lease_transitions.unwrap_or(0).saturating_add(1));
        }
        spec.holder_identity = Some(self.identity.clone());
        spec.lease_duration_seconds = i32::try_from(DURATION.as_secs()).ok();
        spec.renew_time = Some(MicroTime(now));
        lease
    }

    async fn get(&self) -> Result<Option<Lease>, Error> {
        let answer = timeout(REQUEST_TIMEOUT, self.api.get_opt(&self.name)).await;
        let answer = answer.map_err(|_| Error::Timeout { name: self.name.clone() })?;
        answer.map_err(|source| Error::Read { name: self.name.clone(), source })
    }

    async fn create(&self, lease: &Lease) -> Result<Lease, Error> {
        self.written(timeout(REQUEST_TIMEOUT, self.api.create(&PostParams::default(), lease)).await)
    }

    /// Replaces the lease as it was read: `metadata.resourceVersion` makes it a compare-and-swap.
    async fn put(&self, lease: &Lease) -> Result<Lease, Error> {
        self.written(timeout(REQUEST_TIMEOUT, self.api.replace(&self.name, &PostParams::default(), lease)).await)
    }

    fn written(&self, answer: Result<Result<Lease, kube::Error>, tokio::time::error::Elapsed>) -> Result<Lease, Error> {
        // A conflict too is only a failed try: the next one reads who was faster.
        let answer = answer.map_err(|_| Error::Timeout { name: self.name.clone() })?;
        answer.map_err(|source| Error::Write { name: self.name.clone(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(holder: &str, seconds: i32) -> LeaseSpec {
        LeaseSpec { holder_identity: Some(holder.into()), lease_duration_seconds: Some(seconds), ..LeaseSpec::default() }
    }

    #[test]
    fn a_lease_is_taken_only_when_it_is_free_or_has_run_out() {
        let secs = Duration::from_secs;
        let cases = [
            (None, secs(0), Claim::Create),
            (Some(held("me", 15)), secs(0), Claim::Renew),
            (Some(held("me", 15)), secs(100), Claim::Renew),
            (Some(held("other", 15)), secs(0), Claim::Wait),
            (Some(held("other", 15)), secs(14), Claim::Wait),
            (Some(held("other", 15)), secs(15), Claim::Take),
            (Some(held("other", 5)), secs(5), Claim::Take),
            (Some(held("", 15)), secs(0), Claim::Take),
            (Some(LeaseSpec::default()), secs(0), Claim::Take),
            // Nobody holds a lease for ever by writing a large number, or none.
            (Some(held("other", i32::MAX)), secs(15), Claim::Take),
            (Some(held("other", -1)), secs(14), Claim::Wait),
        ];
        for (spec, unchanged_for, expected) in cases {
            assert_eq!(claim(spec.as_ref(), unchanged_for, "me"), expected, "{spec:?} for {unchanged_for:?}");
        }
    }
}
