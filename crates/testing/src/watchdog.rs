//! Facts that must hold at every step, checked at every change that an informer sees.

use krate_client::{Informer, View};
use parking_lot::Mutex;
use std::sync::Arc;

/// Most breaches that are kept.
const KEPT: usize = 20;

/// Watches over one fact. [`Watchdog::check`] says whether it always held.
#[derive(Clone)]
pub struct Watchdog(Arc<Mutex<Vec<String>>>);

impl Watchdog {
    pub(crate) fn start<V: View>(
        informer: &Informer<V>,
        fact: impl Fn(&Informer<V>) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        let breaches = Arc::new(Mutex::new(vec![]));
        let (seen, all) = (breaches.clone(), informer.clone());
        informer.subscribe(move |_, _| {
            if let Err(breach) = fact(&all) {
                let mut breaches = seen.lock();
                if breaches.len() < KEPT {
                    breaches.push(breach);
                }
            }
        });
        Self(breaches)
    }

    /// What was the case when the fact did not hold, if that ever happened.
    pub fn result(&self) -> Result<(), String> {
        let breaches = self.0.lock();
        if breaches.is_empty() { Ok(()) } else { Err(breaches.join("\n")) }
    }

    /// # Panics
    /// When the fact did not hold at some step, with what was the case.
    pub fn check(&self) {
        let breaches = self.0.lock();
        assert!(breaches.is_empty(), "did not hold at every step:\n{}", breaches.join("\n"));
    }
}
