//! A change of the table in the making: what was there and what should be, of which only the difference is told.

use super::layout::{Layout, Picker};
use crate::nft::{Element, Op, Value};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The elements of a set: by key and end of range, what they lead to.
type Elements = BTreeMap<&'static str, HashMap<(Vec<u8>, Option<Vec<u8>>), Option<Value>>>;

/// A change in the making.
#[derive(Default)]
pub(super) struct Difference {
    pub made: BTreeSet<Picker>,
    pub unmade: BTreeSet<Picker>,
    old: Elements,
    new: Elements,
}

impl Difference {
    /// One that begins with new chains.
    pub fn making(pickers: impl IntoIterator<Item = Picker>) -> Self {
        Self { made: pickers.into_iter().collect(), ..Self::default() }
    }

    /// The element should be there.
    pub fn add(&mut self, set: &'static str, element: Element) {
        self.new.entry(set).or_default().insert((element.key, element.end), element.value);
    }

    /// The element was there; it goes if it is not added too.
    pub fn remove(&mut self, set: &'static str, element: Element) {
        self.old.entry(set).or_default().insert((element.key, element.end), element.value);
    }

    /// What is there now, by what this change did so far, goes.
    pub fn replace(&mut self, set: &'static str, element: Element) {
        let key = (element.key, element.end);
        if self.new.entry(set).or_default().remove(&key).is_none() {
            self.old.entry(set).or_default().insert(key, element.value);
        }
    }

    /// New chains, then elements, deletions before additions, then chains that are not kept any more.
    pub fn ops(&mut self, layout: &Layout) -> Vec<Op> {
        let mut ops: Vec<Op> = self.made.iter().flat_map(|picker| layout.make(picker)).collect();
        for (set, old) in &mut self.old {
            let Some(new) = self.new.get_mut(set) else { continue };
            old.retain(|key, value| {
                let same = new.get(key) == Some(value);
                if same {
                    new.remove(key);
                }
                !same
            });
        }
        for (set, elements) in std::mem::take(&mut self.old) {
            let elements = listed(elements, false);
            if !elements.is_empty() {
                ops.push(Op::DeleteElements { set: set.into(), elements });
            }
        }
        for (set, elements) in std::mem::take(&mut self.new) {
            let elements = listed(elements, true);
            if !elements.is_empty() {
                ops.push(Op::AddElements { set: set.into(), elements });
            }
        }
        ops.extend(self.unmade.iter().flat_map(|picker| layout.unmake(picker)));
        ops
    }
}

fn listed(elements: HashMap<(Vec<u8>, Option<Vec<u8>>), Option<Value>>, values: bool) -> Vec<Element> {
    let mut list: Vec<Element> = elements
        .into_iter()
        .map(|((key, end), value)| Element { key, end, value: value.filter(|_| values) })
        .collect();
    list.sort_by(|a, b| a.key.cmp(&b.key));
    list
}
