//! Why a pod could not be placed, in the original's words.

use crate::framework::{Reason, Unfit};
use crate::table::Slot;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// There is no node at all.
pub const NO_NODES: &str = "no nodes available to schedule pods";

/// Said of pods that hold no claims which could be given back.
const NO_CLAIMS: &str = "no new claims to deallocate";

/// What the nodes said in one attempt.
#[derive(Clone, Debug, Default)]
pub struct Diagnosis {
    /// How many nodes there are.
    pub nodes: usize,
    pub unfit: HashMap<Slot, Unfit>,
    /// Nodes that no plugin was asked about because the pod cannot be there, and what is said of each.
    pub excluded: usize,
    pub exclusion: Reason,
    /// Said of all nodes at once.
    pub rejection: Option<Unfit>,
    /// Plugins that refused a node: events that they are interested in may help.
    pub plugins: BTreeSet<&'static str>,
    pub post_filter: String,
}

impl Diagnosis {
    /// Takes over what was said when no room could be made. Of the two who can make room, those who look
    /// after claims on devices always speak first.
    pub fn refused_room(&mut self, preemption: &str) {
        if !preemption.is_empty() {
            self.post_filter = format!("{NO_CLAIMS}, {preemption}");
        }
    }

    /// The message of the pod's condition and event.
    #[must_use]
    pub fn message(&self) -> String {
        if self.nodes == 0 {
            return NO_NODES.to_owned();
        }
        let mut text = match &self.rejection {
            Some(unfit) => format!("0/{} nodes are available: {}.", self.nodes, unfit.reasons.join(", ")),
            None => {
                let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
                for reason in self.unfit.values().flat_map(|unfit| &unfit.reasons) {
                    *counts.entry(reason).or_default() += 1;
                }
                if self.excluded > 0 {
                    *counts.entry(&self.exclusion).or_default() += self.excluded;
                }
                summary(self.nodes, &counts)
            }
        };
        if !self.post_filter.is_empty() {
            text.push(' ');
            text.push_str(&self.post_filter);
        }
        text
    }
}

/// `0/3 nodes are available: 1 Insufficient cpu, 2 Too many pods.`
#[must_use]
pub fn summary(nodes: usize, counts: &BTreeMap<&str, usize>) -> String {
    let mut parts: Vec<String> = counts.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    parts.sort();
    let mut text = format!("0/{nodes} nodes are available:");
    if !parts.is_empty() {
        text.push(' ');
        text.push_str(&parts.join(", "));
        text.push('.');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_counted_and_sorted_as_text() {
        let mut diagnosis = Diagnosis { nodes: 12, ..Diagnosis::default() };
        let cpu = || Unfit::for_now("Insufficient cpu");
        let both = Unfit {
            reasons: vec!["Insufficient cpu".into(), "Insufficient memory".into()],
            resolvable: true,
        };
        diagnosis.unfit.extend((0..9).map(|slot| (slot, cpu())));
        diagnosis.unfit.insert(9, both);
        diagnosis.unfit.insert(10, Unfit::for_good("node(s) had untolerated taint(s)"));
        diagnosis.unfit.insert(11, Unfit::for_good("node(s) were unschedulable"));
        assert_eq!(
            diagnosis.message(),
            "0/12 nodes are available: 1 Insufficient memory, 1 node(s) had untolerated taint(s), \
             1 node(s) were unschedulable, 10 Insufficient cpu."
        );
        diagnosis.post_filter = "preemption: not eligible due to preemptionPolicy=Never.".into();
        assert!(
            diagnosis
                .message()
                .ends_with("10 Insufficient cpu. preemption: not eligible due to preemptionPolicy=Never.")
        );
        assert_eq!(Diagnosis::default().message(), NO_NODES);
    }
}
