//! Leader election over a Lease: of several processes with one name, one works.
//!
//! A leader renews its lease every [`RETRY`]; if it cannot for [`RENEW_DEADLINE`] it stops leading before
//! anybody else can start, because others wait [`LEASE`] from the last renewal that they saw, by their own
//! clocks. On shutdown the lease is released, so that the next leader need not wait.

use crate::api::Api;
use crate::request::Transport;
use krate_api::Status;
use krate_api::meta::MicroTime;
use krate_api::types::coordination::v1::{Lease, LeaseSpec};
use krate_base::{Clock, Rng, Shutdown, Supervisor};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long a lease holds after its last renewal, for those who watch it.
pub const LEASE: Duration = Duration::from_secs(15);
/// A leader that could not renew for this long stops leading.
pub const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// Pause between attempts to acquire or to renew.
pub const RETRY: Duration = Duration::from_secs(2);

/// Takes part in one election.
pub struct Elector {
    api: Api<Lease>,
    namespace: String,
    name: String,
    identity: String,
    clock: Clock,
    rng: Rng,
    /// The lease as last seen, and when it was first seen like this.
    seen: Option<(Arc<Lease>, Instant)>,
}

impl Elector {
    #[must_use]
    pub fn new(
        transport: Arc<dyn Transport>,
        namespace: &str,
        name: &str,
        identity: &str,
        clock: &Clock,
        rng: &Rng,
    ) -> Self {
        Self {
            api: Api::new(transport),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            identity: identity.to_owned(),
            clock: clock.clone(),
            rng: rng.clone(),
            seen: None,
        }
    }

    /// Runs `lead` whenever this process is the leader, until shutdown. The signal given to `lead` tells
    /// it to stop, at shutdown or when the lease is lost; the next term begins after it has ended.
    pub async fn run<F, Fut>(mut self, shutdown: Shutdown, mut lead: F)
    where
        F: FnMut(Shutdown) -> Fut + Send,
        Fut: Future<Output = ()> + Send,
    {
        while shutdown.run_until_cancelled(self.acquire()).await.is_some() {
            tracing::info!(lease = %self.name, identity = %self.identity, "leading");
            let term = shutdown.child_token();
            let keep = async {
                shutdown.run_until_cancelled(self.keep()).await;
                term.cancel();
            };
            futures::join!(keep, lead(term.clone()));
            if shutdown.is_cancelled() {
                break;
            }
            tracing::warn!(lease = %self.name, identity = %self.identity, "the lease is lost");
        }
        self.release().await;
    }

    /// As [`Elector::run`], with what `start` puts under a supervisor of the term's own.
    pub async fn supervise(
        self,
        supervisor: &Supervisor,
        shutdown: Shutdown,
        start: impl Fn(&Supervisor) + Send + Sync,
    ) {
        self.run(shutdown, |end| term(supervisor, end, &start)).await;
    }

    async fn acquire(&mut self) {
        loop {
            match self.attempt().await {
                Ok(true) => return,
                Ok(false) => {}
                Err(status) => tracing::debug!(lease = %self.name, %status, "cannot acquire the lease yet"),
            }
            tokio::time::sleep(self.rng.jitter(RETRY, 1.2)).await;
        }
    }

    /// Returns when the lease could not be renewed in time, or somebody else holds it.
    async fn keep(&mut self) {
        let mut deadline = Instant::now() + RENEW_DEADLINE;
        loop {
            tokio::time::sleep(RETRY.min(deadline.saturating_duration_since(Instant::now()))).await;
            match tokio::time::timeout_at(deadline, self.attempt()).await {
                Ok(Ok(true)) => deadline = Instant::now() + RENEW_DEADLINE,
                Ok(Ok(false)) => return,
                Ok(Err(status)) => tracing::debug!(lease = %self.name, %status, "cannot renew the lease"),
                Err(_) => return,
            }
            if Instant::now() >= deadline {
                return;
            }
        }
    }

    /// Acquires or renews once. `false`: another holds it.
    async fn attempt(&mut self) -> Result<bool, Status> {
        if let Some((lease, _)) = &self.seen
            && self.is_mine(lease)
            && let Ok(renewed) = self.api.update(self.taken(lease)).await
        {
            self.seen = Some((renewed, Instant::now()));
            return Ok(true);
        }
        let Some(lease) = self.api.get_opt(&self.namespace, &self.name).await? else {
            let mut lease = Lease::default();
            lease.metadata.namespace = Some(self.namespace.clone());
            lease.metadata.name = Some(self.name.clone());
            let mut lease = self.taken(&lease);
            lease.spec.get_or_insert_default().lease_transitions = Some(0);
            self.seen = Some((self.api.create(lease).await?, Instant::now()));
            return Ok(true);
        };
        if self.seen.as_ref().is_none_or(|(seen, _)| seen.spec != lease.spec) {
            self.seen = Some((lease.clone(), Instant::now()));
        }
        if !self.is_mine(&lease) && self.holds(&lease) {
            return Ok(false);
        }
        self.seen = Some((self.api.update(self.taken(&lease)).await?, Instant::now()));
        Ok(true)
    }

    fn is_mine(&self, lease: &Lease) -> bool {
        holder(lease) == self.identity
    }

    /// Whether somebody's lease still counts, by our own clock since we saw it.
    fn holds(&self, lease: &Lease) -> bool {
        let spec = lease.spec.as_ref();
        let seconds = spec.and_then(|s| s.lease_duration_seconds).unwrap_or(0);
        let lasts = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        !holder(lease).is_empty() && self.seen.as_ref().is_some_and(|(_, at)| at.elapsed() < lasts)
    }

    /// The lease as it is when we hold it from now on.
    fn taken(&self, lease: &Lease) -> Lease {
        let now = MicroTime(self.clock.now_micros());
        let old = lease.spec.clone().unwrap_or_default();
        let mine = self.is_mine(lease);
        let transitions = old.lease_transitions.unwrap_or(0);
        let mut taken = lease.clone();
        taken.spec = Some(LeaseSpec {
            acquire_time: if mine { old.acquire_time.clone() } else { Some(now.clone()) },
            renew_time: Some(now),
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(LEASE.as_secs()).ok(),
            lease_transitions: Some(if mine { transitions } else { transitions.saturating_add(1) }),
            ..old
        });
        taken
    }

    async fn release(&mut self) {
        let Some((lease, _)) = self.seen.take().filter(|(lease, _)| self.is_mine(lease)) else { return };
        let mut freed = self.taken(&lease);
        if let Some(spec) = &mut freed.spec {
            spec.holder_identity = Some(String::new());
            spec.lease_duration_seconds = Some(1);
        }
        if let Err(status) = self.api.update(freed).await {
            tracing::debug!(lease = %self.name, %status, "cannot release the lease; it will expire");
        }
    }
}

/// One term of leadership: everything starts afresh, and has ended when this returns.
pub async fn term(supervisor: &Supervisor, end: Shutdown, start: &(impl Fn(&Supervisor) + Send + Sync)) {
    let part = supervisor.within(end.clone());
    start(&part);
    end.cancelled().await;
    part.stop().await;
}

fn holder(lease: &Lease) -> &str {
    lease.spec.as_ref().and_then(|s| s.holder_identity.as_deref()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Fake;
    use krate_base::Timestamp;
    use parking_lot::Mutex;

    struct World {
        fake: Fake,
        clock: Clock,
        rng: Rng,
        leaders: Arc<Mutex<Vec<&'static str>>>,
    }

    fn world() -> World {
        let (clock, rng) = (Clock::starting_at(Timestamp::UNIX_EPOCH), Rng::from_seed(1));
        World { fake: Fake::new(clock.clone(), rng.clone()), clock, rng, leaders: Arc::default() }
    }

    fn candidate(world: &World, name: &'static str) -> Shutdown {
        let shutdown = Shutdown::new();
        let elector =
            Elector::new(world.fake.transport(), "kube-system", "x", name, &world.clock, &world.rng);
        let (leaders, end) = (world.leaders.clone(), shutdown.clone());
        tokio::spawn(async move {
            let lead = move |term: Shutdown| {
                let leaders = leaders.clone();
                async move {
                    leaders.lock().push(name);
                    term.cancelled().await;
                    leaders.lock().retain(|n| *n != name);
                }
            };
            elector.run(end, lead).await;
        });
        shutdown
    }

    async fn seconds(n: u64) {
        tokio::time::sleep(Duration::from_secs(n)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn one_leads_and_hands_over_when_it_leaves() {
        let world = world();
        let a = candidate(&world, "a");
        seconds(1).await;
        let _b = candidate(&world, "b");
        seconds(60).await;
        assert_eq!(*world.leaders.lock(), ["a"]);
        a.cancel();
        seconds(5).await;
        assert_eq!(*world.leaders.lock(), ["b"]);
        let spec = world.fake.get::<Lease>("kube-system", "x").unwrap().spec.clone().unwrap();
        assert_eq!(spec.holder_identity.as_deref(), Some("b"));
        assert_eq!(spec.lease_transitions, Some(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_that_cannot_renew_stops_before_another_starts() {
        let world = world();
        let _a = candidate(&world, "a");
        seconds(20).await;
        world.fake.fail(|r| {
            (r.plural == "leases").then(|| Status::failure(krate_api::Reason::ServiceUnavailable, "away"))
        });
        seconds(7).await;
        assert_eq!(*world.leaders.lock(), ["a"]);
        seconds(6).await;
        assert!(world.leaders.lock().is_empty());
        world.fake.heal();
        seconds(10).await;
        assert_eq!(*world.leaders.lock(), ["a"]);
    }
}
