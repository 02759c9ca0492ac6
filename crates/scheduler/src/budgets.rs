//! Disruption budgets as preemption sees them: how many pods may still go.

use crate::view::PodView;
use krate_api::labels::Selector;
use krate_api::object::DecodeError;
use krate_api::types::policy::v1::PodDisruptionBudget;
use krate_api::{Object, Shared};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// One budget.
#[derive(Clone, Debug)]
pub struct Budget {
    pub namespace: String,
    pub name: String,
    pub selector: Selector,
    pub allowed: i32,
    /// Pods whose disruption is counted already.
    pub disrupted: BTreeSet<String>,
}

impl Budget {
    /// `namespace/name`.
    #[must_use]
    pub fn key(&self) -> String {
        krate_api::object::key(&self.namespace, &self.name)
    }
}

impl krate_client::View for Budget {
    fn of(object: &Shared) -> Result<Arc<Self>, DecodeError> {
        let budget = object.typed::<PodDisruptionBudget>()?;
        let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        let status = budget.status.as_ref();
        let disrupted = status.and_then(|s| s.disrupted_pods.as_ref()).into_iter().flatten();
        Ok(Arc::new(Self {
            namespace: budget.meta().namespace.clone().unwrap_or_default(),
            name: budget.meta().name.clone().unwrap_or_default(),
            selector: Selector::of(selector).unwrap_or_else(|_| Selector::nothing()),
            allowed: status.and_then(|s| s.disruptions_allowed).unwrap_or(0),
            disrupted: disrupted.map(|(name, _)| name.clone()).collect(),
        }))
    }
}

/// All budgets, by `namespace/name`.
#[derive(Default)]
pub struct Budgets(pub HashMap<String, Arc<Budget>>);

impl Budgets {
    /// For each pod, taken away in this order: whether that would violate a budget.
    #[must_use]
    pub fn violated(&self, pods: &[Arc<PodView>]) -> Vec<bool> {
        let mut left: Vec<(&Budget, i32)> =
            self.0.values().map(|budget| (&**budget, budget.allowed)).collect();
        let mut violates = |pod: &PodView| {
            let mut violated = false;
            for (budget, allowed) in &mut left {
                let covers = budget.namespace == *pod.namespace
                    && !pod.labels.is_empty()
                    && budget.selector.matches(&pod.labels)
                    && !budget.disrupted.contains(&*pod.name);
                if covers {
                    *allowed -= 1;
                    violated |= *allowed < 0;
                }
            }
            violated
        };
        pods.iter().map(|pod| violates(pod)).collect()
    }
}
