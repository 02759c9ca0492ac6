//! How fast nodes may be emptied: the more of a zone is out of order, the likelier is it the network, and
//! the slower we go. Documented with Nodes, "Rate limits on eviction".

use crate::nodes::{NodeView, ZONE};
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::Instant;

/// Between two nodes of a zone in good order.
const PACE: Duration = Duration::from_secs(10);
/// Between two nodes of a big zone in bad order.
const SLOW_PACE: Duration = Duration::from_secs(100);
/// A zone of at most this many nodes in bad order is left alone.
const BIG: usize = 50;
/// The share of nodes out of order from which a zone is in bad order.
const UNHEALTHY: f64 = 0.55;
const REGION: &str = "topology.kubernetes.io/region";

#[derive(Debug, Default)]
struct Zone {
    ready: usize,
    not_ready: usize,
    /// When the next node may be tainted.
    next: Option<Instant>,
}

/// The zones of a cluster.
#[derive(Debug, Default)]
pub struct Zones(HashMap<String, Zone>);

#[must_use]
pub fn zone_of(node: &NodeView) -> String {
    let label = |key: &str| node.metadata.labels.get(key).map(String::as_str).unwrap_or_default();
    format!("{}:{}", label(REGION), label(ZONE))
}

impl Zones {
    /// A node came, went, or changed. Whether that is news for other nodes: their zone, or all of them, may now
    /// be treated in another way.
    pub fn change(&mut self, old: Option<(String, bool)>, new: Option<(String, bool)>) -> bool {
        let touched: Vec<String> = [&old, &new].into_iter().flatten().map(|(zone, _)| zone.clone()).collect();
        let standing = |zones: &Self| {
            let paces: Vec<_> = touched.iter().map(|zone| zones.0.get(zone).map(Zone::pace)).collect();
            (zones.all_down(), paces)
        };
        let before = standing(self);
        if let Some((zone, ready)) = old {
            let zone = self.0.entry(zone).or_default();
            let count = if ready { &mut zone.ready } else { &mut zone.not_ready };
            *count = count.saturating_sub(1);
        }
        if let Some((zone, ready)) = new {
            let zone = self.0.entry(zone).or_default();
            *(if ready { &mut zone.ready } else { &mut zone.not_ready }) += 1;
        }
        standing(self) != before
    }

    /// Nobody is ready anywhere: it is we who are cut off, and nothing is to be emptied.
    #[must_use]
    pub fn all_down(&self) -> bool {
        self.0.values().all(|z| z.ready == 0) && self.0.values().any(|z| z.not_ready > 0)
    }

    /// Permission to taint a node of a zone now, or how long until it may be asked for again (`None`: not
    /// before something changes).
    pub fn ask(&mut self, zone: &str, now: Instant) -> Result<(), Option<Duration>> {
        if self.all_down() {
            return Err(None);
        }
        let zone = self.0.entry(zone.to_owned()).or_default();
        let Some(pace) = zone.pace() else { return Err(None) };
        if let Some(next) = zone.next.filter(|next| *next > now) {
            return Err(Some(next - now));
        }
        zone.next = Some(now + pace);
        Ok(())
    }
}

impl Zone {
    fn pace(&self) -> Option<Duration> {
        let all = self.ready + self.not_ready;
        let share = self.not_ready as f64 / all.max(1) as f64;
        if self.ready == 0 || self.not_ready <= 2 || share < UNHEALTHY {
            Some(PACE)
        } else if all > BIG {
            Some(SLOW_PACE)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zones(ready: usize, not_ready: usize) -> Zones {
        let mut zones = Zones::default();
        for n in 0..ready + not_ready {
            zones.change(None, Some(("z".to_owned(), n < ready)));
        }
        zones
    }

    #[test]
    fn a_change_is_news_only_when_it_changes_how_nodes_are_treated() {
        let mut zones = zones(0, 5);
        let ready = |is: bool| Some(("z".to_owned(), is));
        assert!(zones.change(ready(false), ready(true)), "not everything is down any more");
        assert!(!zones.change(ready(true), ready(true)));
        assert!(!zones.change(ready(false), ready(true)), "two of five are ready: still in bad order");
        assert!(zones.change(ready(false), ready(true)), "three are: in good order");
        assert!(!zones.change(None, ready(true)));
    }

    #[tokio::test(start_paused = true)]
    async fn pace_follows_the_state_of_the_zone() {
        let now = Instant::now();
        let mut good = zones(1, 1);
        assert_eq!(good.ask("z", now), Ok(()));
        assert_eq!(good.ask("z", now), Err(Some(PACE)));
        assert_eq!(zones(4, 6).ask("z", now), Err(None), "a small zone in bad order");
        let mut big = zones(40, 60);
        assert_eq!(big.ask("z", now), Ok(()));
        assert_eq!(big.ask("z", now), Err(Some(SLOW_PACE)));
        assert_eq!(zones(0, 3).ask("z", now), Err(None), "everything is down");
    }
}
