//! A work queue of keys: each key is in it at most once and worked on by at most one worker at a time.
//!
//! A key that is added while it is being worked on comes back when that work is done. Keys can be added
//! after a delay, or after a back-off that doubles with each failure ([`RETRY_FIRST`] to [`RETRY_MAX`])
//! and is also held to an overall rate ([`RETRY_RATE`], [`RETRY_BURST`]). The queue's bound is the number
//! of distinct keys: the objects that exist. It never loses a key before shutdown.

use krate_base::metrics::Metrics;
use parking_lot::Mutex;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Pause before the first retry of a key.
pub const RETRY_FIRST: Duration = Duration::from_millis(5);
/// Longest pause before a retry of a key.
pub const RETRY_MAX: Duration = Duration::from_secs(1000);
/// Retries a second over all keys, once the burst is used up.
pub const RETRY_RATE: f64 = 10.0;
/// Retries that are not held to the overall rate.
pub const RETRY_BURST: f64 = 100.0;

const BUCKETS: &[f64] = &[0.0001, 0.001, 0.01, 0.1, 1.0, 10.0];

/// What a queue's keys need.
pub trait Key: Clone + Eq + Hash + Ord + Send + std::fmt::Debug + 'static {}
impl<T: Clone + Eq + Hash + Ord + Send + std::fmt::Debug + 'static> Key for T {}

/// A handle on a queue; clones share it.
pub struct Queue<K: Key = String>(Arc<Inner<K>>);

impl<K: Key> Clone for Queue<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

struct Inner<K: Key> {
    name: String,
    metrics: Metrics,
    state: Mutex<State<K>>,
    /// One permit is passed from worker to worker while there is something to take or to wait for.
    wake: Notify,
    closed: Notify,
}

struct State<K> {
    ready: VecDeque<K>,
    /// Since when each key waits to be worked on (ready, or being processed and to come again).
    dirty: HashMap<K, Instant>,
    processing: HashMap<K, Instant>,
    delayed: BTreeSet<(Instant, K)>,
    due: HashMap<K, Instant>,
    failures: HashMap<K, u32>,
    bucket: Bucket,
    shutdown: bool,
}

impl<K: Key> Queue<K> {
    #[must_use]
    pub fn new(name: &str, metrics: &Metrics) -> Self {
        Self(Arc::new(Inner {
            name: name.to_owned(),
            metrics: metrics.clone(),
            state: Mutex::new(State {
                ready: VecDeque::new(),
                dirty: HashMap::new(),
                processing: HashMap::new(),
                delayed: BTreeSet::new(),
                due: HashMap::new(),
                failures: HashMap::new(),
                bucket: Bucket { tokens: RETRY_BURST, at: None },
                shutdown: false,
            }),
            wake: Notify::new(),
            closed: Notify::new(),
        }))
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Adds a key to be worked on as soon as possible.
    pub fn add(&self, key: impl Into<K>) {
        let added = self.0.state.lock().push(key.into(), Instant::now());
        if added {
            self.count("workqueue_adds_total", "Total number of adds handled by workqueue.");
            self.0.wake.notify_one();
        }
    }

    /// Adds a key after a pause. Of several pauses for one key the earliest end counts.
    pub fn add_after(&self, key: impl Into<K>, pause: Duration) {
        if pause.is_zero() {
            return self.add(key);
        }
        let mut state = self.0.state.lock();
        if !state.shutdown {
            state.delay(key.into(), Instant::now() + pause);
            drop(state);
            self.0.wake.notify_one();
        }
    }

    /// Adds a key after the pause that its number of failures asks for.
    pub fn add_rate_limited(&self, key: impl Into<K>) {
        let key = key.into();
        let pause = self.0.state.lock().next_pause(&key, Instant::now());
        self.count("workqueue_retries_total", "Total number of retries handled by workqueue.");
        self.add_after(key, pause);
    }

    /// The key's work succeeded: its next failure is its first.
    pub fn forget(&self, key: &K) {
        self.0.state.lock().failures.remove(key);
    }

    /// How often the key was added by [`Queue::add_rate_limited`] since it was forgotten.
    #[must_use]
    pub fn failures(&self, key: &K) -> u32 {
        self.0.state.lock().failures.get(key).copied().unwrap_or(0)
    }

    /// The next key to work on; the caller must call [`Queue::done`] with it. `None` after shutdown.
    pub async fn get(&self) -> Option<K> {
        loop {
            let closed = self.0.closed.notified();
            let next = {
                let mut state = self.0.state.lock();
                if state.shutdown && state.ready.is_empty() {
                    return None;
                }
                state.move_due(Instant::now());
                if let Some((key, waited)) = state.take(Instant::now()) {
                    let more = !state.ready.is_empty() || !state.delayed.is_empty();
                    let depth = state.ready.len();
                    drop(state);
                    if more {
                        self.0.wake.notify_one();
                    }
                    self.taken(depth, waited);
                    return Some(key);
                }
                state.delayed.first().map(|(at, _)| *at)
            };
            match next {
                Some(at) => tokio::select! {
                    biased;
                    () = self.0.wake.notified() => {}
                    () = tokio::time::sleep_until(at) => {}
                    () = closed => {}
                },
                None => tokio::select! {
                    biased;
                    () = self.0.wake.notified() => {}
                    () = closed => {}
                },
            }
        }
    }

    /// The work on a key has ended. If it was added meanwhile it is ready again.
    pub fn done(&self, key: &K) {
        let mut state = self.0.state.lock();
        let Some(started) = state.processing.remove(key) else { return };
        let again = state.dirty.contains_key(key);
        if again {
            state.ready.push_back(key.clone());
        }
        drop(state);
        if again {
            self.0.wake.notify_one();
        }
        self.0.metrics.observe(
            "workqueue_work_duration_seconds",
            "How long in seconds processing an item from workqueue takes.",
            BUCKETS,
            self.labels(),
            started.elapsed().as_secs_f64(),
        );
    }

    /// Keys that are ready now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.state.lock().ready.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether nothing is ready and nothing is being worked on (keys may wait for their time).
    #[must_use]
    pub fn is_idle(&self) -> bool {
        let state = self.0.state.lock();
        state.ready.is_empty() && state.processing.is_empty()
    }

    /// Takes no more keys; workers end when the ready ones are worked on.
    pub fn shutdown(&self) {
        self.0.state.lock().shutdown = true;
        self.0.closed.notify_waiters();
        self.0.wake.notify_one();
    }

    fn labels(&self) -> Vec<(&'static str, String)> {
        vec![("name", self.0.name.clone())]
    }

    fn count(&self, name: &'static str, help: &'static str) {
        self.0.metrics.add(name, help, self.labels(), 1.0);
    }

    fn taken(&self, depth: usize, waited: Duration) {
        let help = "Current depth of workqueue.";
        self.0.metrics.set("workqueue_depth", help, self.labels(), depth as f64);
        self.0.metrics.observe(
            "workqueue_queue_duration_seconds",
            "How long in seconds an item stays in workqueue before being requested.",
            BUCKETS,
            self.labels(),
            waited.as_secs_f64(),
        );
    }
}

impl<K: Key> State<K> {
    /// Whether the key was not waiting already.
    fn push(&mut self, key: K, now: Instant) -> bool {
        if self.shutdown || self.dirty.contains_key(&key) {
            return false;
        }
        self.dirty.insert(key.clone(), now);
        if !self.processing.contains_key(&key) {
            self.ready.push_back(key);
        }
        true
    }

    fn delay(&mut self, key: K, at: Instant) {
        match self.due.get(&key) {
            Some(due) if *due <= at => return,
            Some(due) => {
                self.delayed.remove(&(*due, key.clone()));
            }
            None => {}
        }
        self.due.insert(key.clone(), at);
        self.delayed.insert((at, key));
    }

    fn move_due(&mut self, now: Instant) {
        while self.delayed.first().is_some_and(|(at, _)| *at <= now) {
            let Some((_, key)) = self.delayed.pop_first() else { return };
            self.due.remove(&key);
            self.push(key, now);
        }
    }

    fn take(&mut self, now: Instant) -> Option<(K, Duration)> {
        let key = self.ready.pop_front()?;
        let since = self.dirty.remove(&key).unwrap_or(now);
        self.processing.insert(key.clone(), now);
        Some((key, now - since))
    }

    fn next_pause(&mut self, key: &K, now: Instant) -> Duration {
        let failures = self.failures.entry(key.clone()).or_default();
        let pause =
            RETRY_FIRST.saturating_mul(1u32.checked_shl(*failures).unwrap_or(u32::MAX)).min(RETRY_MAX);
        *failures = failures.saturating_add(1);
        pause.max(self.bucket.reserve(now, RETRY_RATE, RETRY_BURST))
    }
}

/// A bucket of permissions that fills at a rate; who takes one that is not there yet waits for it.
#[derive(Debug)]
pub(crate) struct Bucket {
    pub(crate) tokens: f64,
    pub(crate) at: Option<Instant>,
}

impl Bucket {
    /// Takes one permission; how long until it is there.
    pub(crate) fn reserve(&mut self, now: Instant, rate: f64, burst: f64) -> Duration {
        self.fill(now, rate, burst);
        self.tokens -= 1.0;
        if self.tokens >= 0.0 { Duration::ZERO } else { Duration::from_secs_f64(-self.tokens / rate) }
    }

    /// Takes one permission if there is one.
    pub(crate) fn try_take(&mut self, now: Instant, rate: f64, burst: f64) -> bool {
        self.fill(now, rate, burst);
        let there = self.tokens >= 1.0;
        if there {
            self.tokens -= 1.0;
        }
        there
    }

    fn fill(&mut self, now: Instant, rate: f64, burst: f64) {
        let passed = self.at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.tokens = (self.tokens + passed.as_secs_f64() * rate).min(burst);
        self.at = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue() -> Queue {
        Queue::new("test", &Metrics::default())
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_is_queued_once() {
        let queue = queue();
        queue.add("a");
        queue.add("a");
        queue.add("b");
        assert_eq!(queue.get().await.as_deref(), Some("a"));
        assert_eq!(queue.get().await.as_deref(), Some("b"));
        assert!(queue.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_added_while_worked_on_comes_back_after() {
        let queue = queue();
        queue.add("a");
        let key = queue.get().await.unwrap();
        queue.add("a");
        assert!(queue.is_empty(), "not handed to a second worker");
        queue.done(&key);
        assert_eq!(queue.get().await, Some(key));
    }

    #[tokio::test(start_paused = true)]
    async fn delayed_keys_come_in_time_order_and_the_earliest_delay_counts() {
        let queue = queue();
        let start = Instant::now();
        queue.add_after("late", Duration::from_secs(20));
        queue.add_after("soon", Duration::from_secs(30));
        queue.add_after("soon", Duration::from_secs(10));
        queue.add_after("soon", Duration::from_secs(40));
        assert_eq!(queue.get().await.as_deref(), Some("soon"));
        assert_eq!(start.elapsed().as_secs(), 10);
        assert_eq!(queue.get().await.as_deref(), Some("late"));
        assert_eq!(start.elapsed().as_secs(), 20);
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_worker_takes_over_the_wait_of_a_busy_one() {
        let queue = queue();
        let (a, b) = (queue.clone(), queue.clone());
        let first = tokio::spawn(async move { a.get().await });
        let second = tokio::spawn(async move { b.get().await });
        tokio::task::yield_now().await;
        queue.add_after("later", Duration::from_secs(5));
        queue.add("now");
        let mut got = [first.await.unwrap().unwrap(), second.await.unwrap().unwrap()];
        got.sort();
        assert_eq!(got, ["later", "now"]);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_back_off_and_are_forgotten() {
        let queue = queue();
        for n in 0..4 {
            let start = Instant::now();
            queue.add_rate_limited("a");
            let key = queue.get().await.unwrap();
            // Tokio's timers have a resolution of a millisecond.
            assert_eq!(start.elapsed().as_millis(), 5 << n);
            queue.done(&key);
        }
        queue.forget(&"a".to_owned());
        assert_eq!(queue.failures(&"a".to_owned()), 0);
    }

    #[test]
    fn the_pause_has_a_ceiling() {
        let mut state = State::<String> {
            ready: VecDeque::new(),
            dirty: HashMap::new(),
            processing: HashMap::new(),
            delayed: BTreeSet::new(),
            due: HashMap::new(),
            failures: HashMap::from([("a".to_owned(), 60)]),
            bucket: Bucket { tokens: RETRY_BURST, at: None },
            shutdown: false,
        };
        assert_eq!(state.next_pause(&"a".to_owned(), Instant::now()), RETRY_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn shutdown_ends_all_workers() {
        let queue = queue();
        let workers: Vec<_> = (0..3)
            .map(|_| {
                let queue = queue.clone();
                tokio::spawn(async move { queue.get().await })
            })
            .collect();
        tokio::task::yield_now().await;
        queue.shutdown();
        for worker in workers {
            assert_eq!(worker.await.unwrap(), None);
        }
        queue.add("late");
        assert!(queue.is_empty());
    }
}
