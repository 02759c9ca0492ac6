//! Holds back pods that have scheduling gates (KEP-3521).

use crate::framework::{Plugin, Reason};
use crate::queue::{Event, Events, Hint};
use crate::view::PodView;

pub const MESSAGE: &str = "Scheduling is blocked due to non-empty scheduling gates";

pub struct SchedulingGates;

impl Plugin for SchedulingGates {
    fn name(&self) -> &'static str {
        "SchedulingGates"
    }

    fn pre_enqueue(&self, pod: &PodView) -> Result<(), Reason> {
        if pod.gates.is_empty() { Ok(()) } else { Err(MESSAGE.into()) }
    }

    fn interests(&self) -> Events {
        Events::ITSELF
    }

    fn hint(&self, _: &PodView, event: &Event) -> Hint {
        matches!(event, Event::ItselfChanged { new, .. } if new.gates.is_empty()).into()
    }
}
