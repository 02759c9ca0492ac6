//! The latest verdict of each probe of each running container, by container id.
//!
//! No entry means "not asked yet": alive, but neither started nor ready if there is such a probe.

use krate_api::types::core::v1::{Container, Probe};
use std::collections::HashMap;

/// Which of a container's three probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    Liveness,
    Readiness,
    Startup,
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::Startup, Self::Liveness, Self::Readiness];

    /// The word that begins the messages of events.
    pub fn word(self) -> &'static str {
        match self {
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
            Self::Startup => "Startup",
        }
    }

    pub fn of(self, container: &Container) -> Option<&Probe> {
        match self {
            Self::Liveness => container.liveness_probe.as_ref(),
            Self::Readiness => container.readiness_probe.as_ref(),
            Self::Startup => container.startup_probe.as_ref(),
        }
    }
}

/// Verdicts (`true` is success) of one pod's containers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Results {
    pub liveness: HashMap<String, bool>,
    pub readiness: HashMap<String, bool>,
    pub startup: HashMap<String, bool>,
}

impl Results {
    pub fn of(&self, kind: Kind) -> &HashMap<String, bool> {
        match kind {
            Kind::Liveness => &self.liveness,
            Kind::Readiness => &self.readiness,
            Kind::Startup => &self.startup,
        }
    }

    /// Notes a verdict; whether it is another than before.
    pub fn set(&mut self, kind: Kind, id: &str, passed: bool) -> bool {
        let map = match kind {
            Kind::Liveness => &mut self.liveness,
            Kind::Readiness => &mut self.readiness,
            Kind::Startup => &mut self.startup,
        };
        map.insert(id.to_owned(), passed) != Some(passed)
    }

    pub fn failed_liveness(&self, id: &str) -> bool {
        self.liveness.get(id) == Some(&false)
    }

    pub fn failed_startup(&self, id: &str) -> bool {
        self.startup.get(id) == Some(&false)
    }

    pub fn passed_startup(&self, id: &str) -> bool {
        self.startup.get(id) == Some(&true)
    }

    /// Whether a running container has started, and whether it is ready.
    pub fn verdict(&self, container: &Container, id: &str) -> (bool, bool) {
        let started = container.startup_probe.is_none() || self.passed_startup(id);
        let ready = container.readiness_probe.is_none() || self.readiness.get(id) == Some(&true);
        (started, started && ready)
    }

    /// Drops what is known of containers that are not among `ids`.
    pub fn keep(&mut self, ids: &[&str]) {
        for map in [&mut self.liveness, &mut self.readiness, &mut self.startup] {
            map.retain(|id, _| ids.contains(&id.as_str()));
        }
    }
}
