//! What goes wrong between the components of a test cluster and its API server, on purpose: by chance from a
//! seed ([`Odds`]) or told exactly ([`Faults::script`]). Everything that a network, a busy server or another
//! writer can do to a client; never what none of them could do. The administrator's own requests are spared.

mod wire;

pub(crate) use wire::{Servers, Wire};

use krate_api::{Reason, Status};
use krate_base::{Rng, Shutdown};
use krate_client::{Request, Verb};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The longest delay of a request.
const DELAY: u64 = 5_000;
/// After so long the answer to a request that hangs is given up.
const HANG: Duration = Duration::from_secs(30);
/// A watch that is to be cut lives at most so long, in milliseconds.
const WATCH_LIFE: u64 = 60_000;
/// A stale list is at most so many revisions old.
const STALENESS: u64 = 100;

/// One thing that goes wrong with one request.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The server answers with this, and does nothing.
    Refuse(Status),
    /// The connection breaks before the server has read the request.
    Reset,
    /// The server does what was asked, and the connection breaks before the answer is read.
    LoseAnswer,
    /// No answer comes until the client gives up; nothing was done.
    Hang,
    /// The server takes its time.
    Delay(Duration),
    /// Somebody else writes the object just before.
    Conflict,
    /// A list that may be of any age is an old one. Other requests are left alone.
    Stale,
}

/// How often what goes wrong, in requests of a thousand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Odds {
    /// 500, 503 or 504 at once.
    pub refuse: u32,
    /// 429 with a time to wait.
    pub throttle: u32,
    pub reset: u32,
    pub lose_answer: u32,
    pub hang: u32,
    pub delay: u32,
    pub conflict: u32,
    pub stale: u32,
    /// Watches, not requests: cut within a minute.
    pub cut_watches: u32,
}

impl Odds {
    /// A bad day: one request in eight goes wrong somehow.
    #[must_use]
    pub fn rough() -> Self {
        Self {
            refuse: 30,
            throttle: 20,
            reset: 20,
            lose_answer: 20,
            hang: 2,
            delay: 20,
            conflict: 20,
            stale: 0,
            cut_watches: 300,
        }
    }
}

type Listener = Box<dyn FnMut(&str, &Request) + Send>;
type Script = Box<dyn FnMut(&str, &Request) -> Option<Fault> + Send>;

/// The faults of a cluster. Clones share them.
#[derive(Clone)]
pub struct Faults(Arc<Inner>);

struct Inner {
    rng: Rng,
    state: Mutex<State>,
    /// By identity, what ends its present watches. Not a `watch` channel, which wakes in an order of its own.
    cuts: Mutex<BTreeMap<String, Shutdown>>,
    /// The highest revision that any answer carried.
    seen: AtomicU64,
}

#[derive(Default)]
struct State {
    /// By identity; the empty one is for everybody who has no odds of their own.
    odds: BTreeMap<String, Odds>,
    script: Option<Script>,
    listener: Option<Listener>,
    latency: Duration,
    done: BTreeMap<&'static str, u64>,
}

impl Faults {
    pub(crate) fn new(rng: Rng) -> Self {
        let inner = Inner { rng, state: Mutex::default(), cuts: Mutex::default(), seen: AtomicU64::new(0) };
        Self(Arc::new(inner))
    }

    /// From now on every component but the administrator has these odds.
    pub fn everywhere(&self, odds: Odds) {
        self.of("", odds);
    }

    /// From now on one component has these odds: `deployment-controller` and its like,
    /// `kube-controller-manager` (the shared caches), `kube-scheduler`, `kubelet/NODE`.
    pub fn of(&self, identity: &str, odds: Odds) {
        self.0.state.lock().odds.insert(identity.to_owned(), odds);
    }

    /// Shows every request to `script` first, with the identity of its sender, which may spoil it.
    pub fn script(&self, script: impl FnMut(&str, &Request) -> Option<Fault> + Send + 'static) {
        self.0.state.lock().script = Some(Box::new(script));
    }

    /// From now on every request of a component takes up to so long, healed or not. Without it no time passes
    /// in virtual time while components chase each other.
    pub fn latency(&self, longest: Duration) {
        self.0.state.lock().latency = longest;
    }

    /// Shows every request of every component to `listener`, whatever becomes of it.
    pub fn listen(&self, listener: impl FnMut(&str, &Request) + Send + 'static) {
        self.0.state.lock().listener = Some(Box::new(listener));
    }

    /// Nothing goes wrong any more. Watches that live on borrowed time still end.
    pub fn heal(&self) {
        let mut state = self.0.state.lock();
        state.odds.clear();
        state.script = None;
    }

    /// Ends the watches of one component, or (empty) of all.
    pub fn cut_watches(&self, identity: &str) {
        for (name, cut) in &mut *self.0.cuts.lock() {
            if identity.is_empty() || name == identity {
                std::mem::take(cut).cancel();
            }
        }
    }

    /// What went wrong so far, and how often.
    #[must_use]
    pub fn done(&self) -> BTreeMap<&'static str, u64> {
        self.0.state.lock().done.clone()
    }

    fn cuts(&self, identity: &str) -> Shutdown {
        self.0.cuts.lock().entry(identity.to_owned()).or_default().clone()
    }

    /// How long this request is on its way.
    fn way(&self) -> Duration {
        let longest = self.0.state.lock().latency;
        let millis = u64::try_from(longest.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(if millis == 0 { 0 } else { self.0.rng.below(millis + 1) })
    }

    fn note(&self, revision: u64) {
        self.0.seen.fetch_max(revision, Ordering::Relaxed);
    }

    /// A revision of a while ago.
    fn past(&self) -> u64 {
        let seen = self.0.seen.load(Ordering::Relaxed);
        seen.saturating_sub(self.0.rng.below(STALENESS)).max(1)
    }

    fn count(&self, what: &'static str) {
        *self.0.state.lock().done.entry(what).or_default() += 1;
    }

    /// What goes wrong with this request, if anything.
    fn of_request(&self, identity: &str, request: &Request) -> Option<Fault> {
        let mut state = self.0.state.lock();
        if let Some(listener) = &mut state.listener {
            listener(identity, request);
        }
        if let Some(fault) = state.script.as_mut().and_then(|script| script(identity, request)) {
            return Some(fault);
        }
        let odds = state.odds(identity)?;
        let at = self.0.rng.below(1000);
        let fault = odds.pick(u32::try_from(at).unwrap_or(0))?;
        let fault = self.flesh_out(fault);
        let reading = matches!(request.verb, Verb::Get | Verb::List);
        (!reading || !matches!(fault, Fault::Conflict | Fault::LoseAnswer)).then_some(fault)
    }

    /// For how long a new watch of this component lives, if it is to be cut.
    fn watch_life(&self, identity: &str) -> Option<Duration> {
        let odds = self.0.state.lock().odds(identity)?;
        let cut = self.0.rng.below(1000) < u64::from(odds.cut_watches);
        cut.then(|| Duration::from_millis(self.0.rng.below(WATCH_LIFE)))
    }

    fn flesh_out(&self, pick: Pick) -> Fault {
        match pick {
            Pick::Refuse => Fault::Refuse(match self.0.rng.below(3) {
                0 => Status::internal("something went wrong on purpose"),
                1 => Status::failure(Reason::ServiceUnavailable, "the server is not available on purpose"),
                _ => timeout(),
            }),
            Pick::Throttle => {
                let seconds = i32::try_from(1 + self.0.rng.below(3)).unwrap_or(1);
                Fault::Refuse(Status::too_many_requests("too many requests on purpose", seconds))
            }
            Pick::Reset => Fault::Reset,
            Pick::LoseAnswer => Fault::LoseAnswer,
            Pick::Hang => Fault::Hang,
            Pick::Delay => Fault::Delay(Duration::from_millis(self.0.rng.below(DELAY))),
            Pick::Conflict => Fault::Conflict,
            Pick::Stale => Fault::Stale,
        }
    }
}

impl State {
    fn odds(&self, identity: &str) -> Option<Odds> {
        self.odds.get(identity).or_else(|| self.odds.get("")).copied()
    }
}

#[derive(Clone, Copy)]
enum Pick {
    Refuse,
    Throttle,
    Reset,
    LoseAnswer,
    Hang,
    Delay,
    Conflict,
    Stale,
}

impl Odds {
    /// What a number below a thousand stands for.
    fn pick(&self, at: u32) -> Option<Pick> {
        let shares = [
            (self.refuse, Pick::Refuse),
            (self.throttle, Pick::Throttle),
            (self.reset, Pick::Reset),
            (self.lose_answer, Pick::LoseAnswer),
            (self.hang, Pick::Hang),
            (self.delay, Pick::Delay),
            (self.conflict, Pick::Conflict),
            (self.stale, Pick::Stale),
        ];
        let mut upto = 0;
        shares.into_iter().find_map(|(share, pick)| {
            upto += share;
            (at < upto).then_some(pick)
        })
    }
}

/// What a client sees of a connection that broke.
pub(crate) fn reset() -> Status {
    Status::failure(Reason::ServiceUnavailable, "connection reset by peer")
}

fn timeout() -> Status {
    Status::failure(Reason::Timeout, "request did not complete within requested timeout")
}

#[cfg(test)]
mod tests {
    use super::*;
    use krate_api::types::core::v1::Pod;

    fn count(seed: u64) -> (u32, Vec<bool>) {
        let faults = Faults::new(Rng::from_seed(seed));
        faults.everywhere(Odds { reset: 250, ..Odds::default() });
        let request = Request::of::<Pod>(Verb::Update, "default", "web");
        let all: Vec<bool> = (0..1000).map(|_| faults.of_request("x", &request).is_some()).collect();
        (u32::try_from(all.iter().filter(|f| **f).count()).unwrap(), all)
    }

    #[test]
    fn the_odds_hold_and_the_seed_fixes_them() {
        let (count, first) = count(1);
        assert!((200..300).contains(&count), "{count}");
        assert_eq!(super::tests::count(1).1, first);
        assert_ne!(super::tests::count(2).1, first);
    }

    #[test]
    fn own_odds_go_before_those_of_everybody() {
        let faults = Faults::new(Rng::from_seed(1));
        faults.everywhere(Odds { reset: 1000, ..Odds::default() });
        faults.of("kube-scheduler", Odds::default());
        let request = Request::of::<Pod>(Verb::Get, "default", "web");
        assert!(faults.of_request("kube-scheduler", &request).is_none());
        assert!(faults.of_request("job-controller", &request).is_some());
        faults.heal();
        assert!(faults.of_request("job-controller", &request).is_none());
    }
}
