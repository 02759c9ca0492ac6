//! Thresholds: how little of what may be left, and whether that has been reached for long enough. Pure.

use krate_base::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signal {
    MemoryAvailable,
    NodeFsAvailable,
    NodeFsInodesFree,
    ImageFsAvailable,
    ImageFsInodesFree,
    PidAvailable,
}

/// A node's condition that follows from signals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pressure {
    Memory,
    Disk,
    Pid,
}

impl Pressure {
    /// The type of the node's condition.
    #[must_use]
    pub fn condition(self) -> &'static str {
        match self {
            Self::Memory => "MemoryPressure",
            Self::Disk => "DiskPressure",
            Self::Pid => "PIDPressure",
        }
    }

    /// The taint that the node gets; who tolerates it is let in.
    #[must_use]
    pub fn taint(self) -> &'static str {
        match self {
            Self::Memory => "node.kubernetes.io/memory-pressure",
            Self::Disk => "node.kubernetes.io/disk-pressure",
            Self::Pid => "node.kubernetes.io/pid-pressure",
        }
    }
}

pub(crate) const NAMES: [(Signal, &str); 6] = [
    (Signal::MemoryAvailable, "memory.available"),
    (Signal::NodeFsAvailable, "nodefs.available"),
    (Signal::NodeFsInodesFree, "nodefs.inodesFree"),
    (Signal::ImageFsAvailable, "imagefs.available"),
    (Signal::ImageFsInodesFree, "imagefs.inodesFree"),
    (Signal::PidAvailable, "pid.available"),
];

impl Signal {
    /// The resource that messages name.
    #[must_use]
    pub fn resource(self) -> &'static str {
        match self {
            Self::MemoryAvailable => "memory",
            Self::NodeFsAvailable | Self::ImageFsAvailable => "ephemeral-storage",
            Self::NodeFsInodesFree | Self::ImageFsInodesFree => "inodes",
            Self::PidAvailable => "pids",
        }
    }

    #[must_use]
    pub fn pressure(self) -> Pressure {
        match self {
            Self::MemoryAvailable => Pressure::Memory,
            Self::PidAvailable => Pressure::Pid,
            _ => Pressure::Disk,
        }
    }

    /// Whether its amounts are bytes.
    #[must_use]
    pub fn is_bytes(self) -> bool {
        matches!(self, Self::MemoryAvailable | Self::NodeFsAvailable | Self::ImageFsAvailable)
    }
}

/// How much must be left.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    Absolute(i64),
    /// A share of the capacity, 0 to 1.
    Share(f64),
}

impl Amount {
    #[must_use]
    pub fn of(self, capacity: i64) -> i64 {
        match self {
            Self::Absolute(amount) => amount,
            Self::Share(share) => (capacity as f64 * share) as i64,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Threshold {
    pub signal: Signal,
    pub least: Amount,
    /// A soft threshold has to be met for this long, and its pods get their grace; a hard one acts at once.
    pub grace: Option<Duration>,
}

/// The thresholds of a node.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub thresholds: Vec<Threshold>,
    /// Longest grace of pods that a soft threshold evicts (`evictionMaxPodGracePeriod`), in seconds.
    pub max_pod_grace: i64,
    /// How long a condition stays after its threshold was met last (`evictionPressureTransitionPeriod`).
    pub transition: Duration,
}

impl Default for Config {
    fn default() -> Self {
        let hard = |signal, least| Threshold { signal, least, grace: None };
        Self {
            thresholds: vec![
                hard(Signal::MemoryAvailable, Amount::Absolute(100 << 20)),
                hard(Signal::NodeFsAvailable, Amount::Share(0.10)),
                hard(Signal::NodeFsInodesFree, Amount::Share(0.05)),
                hard(Signal::ImageFsAvailable, Amount::Share(0.15)),
                hard(Signal::ImageFsInodesFree, Amount::Share(0.05)),
            ],
            max_pod_grace: 0,
            transition: Duration::from_secs(5 * 60),
        }
    }
}

impl Config {
    /// What the hard threshold of a signal keeps free of `capacity`; pods cannot have it.
    #[must_use]
    pub fn reserved(&self, signal: Signal, capacity: i64) -> i64 {
        let hard = self.thresholds.iter().find(|t| t.signal == signal && t.grace.is_none());
        hard.map_or(0, |t| t.least.of(capacity))
    }
}

/// Reads `memory.available<100Mi,nodefs.available<10%`, as the original's `--eviction-hard` has it.
pub fn parse(text: &str) -> Result<Vec<Threshold>, String> {
    text.split(',').map(str::trim).filter(|t| !t.is_empty()).map(parse_one).collect()
}

fn parse_one(text: &str) -> Result<Threshold, String> {
    let (name, amount) = text.split_once('<').ok_or_else(|| {
        format!("invalid eviction threshold syntax {text}, expected <signal><operator><value>")
    })?;
    let signal = NAMES.iter().find(|(_, known)| *known == name).map(|(signal, _)| *signal);
    let signal = signal.ok_or_else(|| format!("unsupported eviction signal {name}"))?;
    let least = match amount.strip_suffix('%') {
        Some(share) => Amount::Share(share.parse::<f64>().map_err(|e| e.to_string())? / 100.0),
        None => {
            let exact = krate_api::quantity::Quantity::parse(amount).map_err(|e| e.to_string())?;
            Amount::Absolute(exact.value())
        }
    };
    Ok(Threshold { signal, least, grace: None })
}

/// What is left of something, and of how much.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    pub available: i64,
    pub capacity: i64,
}

pub type Readings = BTreeMap<Signal, Reading>;

/// Remembers since when thresholds are met.
#[derive(Debug, Default)]
pub struct Tracker {
    /// By the threshold's place in the configuration.
    since: BTreeMap<usize, Timestamp>,
    last: BTreeMap<Pressure, Timestamp>,
}

/// What follows from an observation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    pub pressures: BTreeSet<Pressure>,
    /// Thresholds to act on, memory first.
    pub act: Vec<Threshold>,
    /// When to look again although nothing may have happened.
    pub again: Option<Timestamp>,
}

impl Tracker {
    pub fn observe(&mut self, config: &Config, readings: &Readings, now: Timestamp) -> Outcome {
        let mut out = Outcome::default();
        let mut again = |at: Timestamp| out.again = Some(out.again.map_or(at, |known| known.min(at)));
        let mut act = Vec::new();
        for (place, threshold) in config.thresholds.iter().enumerate() {
            if !is_met(threshold, readings) {
                self.since.remove(&place);
                continue;
            }
            let since = *self.since.entry(place).or_insert(now);
            self.last.insert(threshold.signal.pressure(), now);
            let due = crate::sync::backoff::plus(since, threshold.grace.unwrap_or_default());
            if due <= now { act.push(*threshold) } else { again(due) }
        }
        self.last.retain(|_, last| {
            let until = crate::sync::backoff::plus(*last, config.transition);
            if now < until {
                again(until);
            }
            now < until || *last == now
        });
        act.sort_by_key(|t| t.signal);
        out.pressures = self.last.keys().copied().collect();
        out.act = act;
        out
    }
}

#[must_use]
pub fn is_met(threshold: &Threshold, readings: &Readings) -> bool {
    readings.get(&threshold.signal).is_some_and(|r| r.available < threshold.least.of(r.capacity))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn memory(available: i64) -> Readings {
        [(Signal::MemoryAvailable, Reading { available, capacity: 1 << 30 })].into()
    }

    #[test]
    fn a_condition_stays_for_a_while() {
        let (config, mut tracker) = (Config::default(), Tracker::default());
        assert_eq!(tracker.observe(&config, &memory(200 << 20), at(0)), Outcome::default());
        let low = tracker.observe(&config, &memory(50 << 20), at(10));
        assert_eq!((low.act.len(), low.pressures.contains(&Pressure::Memory)), (1, true));
        let after = tracker.observe(&config, &memory(200 << 20), at(20));
        assert!(after.act.is_empty() && after.pressures.contains(&Pressure::Memory));
        assert_eq!(after.again, Some(at(310)));
        assert!(tracker.observe(&config, &memory(200 << 20), at(310)).pressures.is_empty());
    }

    #[test]
    fn a_soft_threshold_waits_for_its_grace() {
        let mut config = Config { thresholds: parse("memory.available<10%").unwrap(), ..Config::default() };
        config.thresholds[0].grace = Some(Duration::from_secs(60));
        let mut tracker = Tracker::default();
        let first = tracker.observe(&config, &memory(50 << 20), at(0));
        assert!(first.act.is_empty() && !first.pressures.is_empty());
        assert_eq!(first.again, Some(at(60)));
        assert_eq!(tracker.observe(&config, &memory(50 << 20), at(60)).act.len(), 1);
        tracker.observe(&config, &memory(500 << 20), at(61));
        assert!(tracker.observe(&config, &memory(50 << 20), at(62)).act.is_empty(), "it counts anew");
    }

    #[test]
    fn thresholds_as_they_are_written() {
        let read = parse("memory.available<100Mi,nodefs.inodesFree<5%").unwrap();
        assert_eq!(read[0].least, Amount::Absolute(100 << 20));
        assert_eq!(read[1].least, Amount::Share(0.05));
        assert!(parse("memory.available>1").is_err() && parse("moon.available<1").is_err());
        assert_eq!(Config::default().reserved(Signal::MemoryAvailable, 1 << 30), 100 << 20);
    }
}
