//! What the pods on the nodes want of pods that are still to come: their terms, and in which domains those
//! who carry them are. Pods of one template share their terms, so there are few.

use crate::view::{NodeView, PodTerm, PodView};
use std::collections::HashMap;

/// Those who carry a term in one domain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    pub pods: i64,
    /// The sum of their weights.
    pub weight: i64,
}

type Domains = HashMap<String, Load>;

/// Terms, and by domain (a value of the term's topology label) who carries them.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Terms(HashMap<PodTerm, Domains>);

impl Terms {
    fn count(&mut self, node: &NodeView, term: &PodTerm, weight: i64, by: i64) {
        let Some(value) = node.labels.get(&term.key) else { return };
        if !self.0.contains_key(term) {
            self.0.insert(term.clone(), Domains::new());
        }
        let Some(domains) = self.0.get_mut(term) else { return };
        if !domains.contains_key(value) {
            domains.insert(value.clone(), Load::default());
        }
        let Some(load) = domains.get_mut(value) else { return };
        load.pods += by;
        load.weight += by * weight;
        if load.pods == 0 {
            domains.remove(value);
        }
        if domains.is_empty() {
            self.0.remove(term);
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (&PodTerm, &HashMap<String, Load>)> {
        self.0.iter()
    }
}

/// All terms that are carried.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Carried {
    pub required: Terms,
    pub required_anti: Terms,
    /// Weights are negative for anti-affinity.
    pub preferred: Terms,
}

impl Carried {
    /// A pod came to a node (`by` 1) or left it (`by` -1).
    pub fn count(&mut self, node: &NodeView, pod: &PodView, by: i64) {
        let Some(affinity) = &pod.affinity else { return };
        affinity.required.iter().for_each(|term| self.required.count(node, term, 1, by));
        affinity.required_anti.iter().for_each(|term| self.required_anti.count(node, term, 1, by));
        for (weight, term) in &affinity.preferred {
            self.preferred.count(node, term, *weight, by);
        }
    }
}
