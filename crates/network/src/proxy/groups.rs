//! A group of endpoints as the kernel knows it: each has a number below their count, one is chosen by its number.
//!
//! Those that stay keep their numbers. Who comes takes the number of one that goes; if more go than come, the last
//! ones move into the holes. So a change costs the elements of those that come, go and move.

use super::change::Difference;
use super::layout::{ENDPOINTS, Layout, Pick, STICKY};
use super::plan::{Backend, Group};

use crate::nft::Element;

/// The endpoints of a group by their numbers.
#[derive(Debug)]
pub(super) struct Numbered {
    number: u32,
    /// What it is now, as it was asked for.
    group: Group,
    places: Vec<Backend>,
}

impl Numbered {
    /// An empty group.
    pub fn new(number: u32) -> Self {
        Self { number, group: Group::default(), places: vec![] }
    }

    pub fn number(&self) -> u32 {
        self.number
    }

    pub fn pick(&self) -> Pick {
        Pick::of(self.places.len(), self.group.sticky)
    }

    /// All of its elements, by set.
    pub fn elements(&self) -> impl Iterator<Item = (&'static str, Element)> + '_ {
        let endpoints =
            (0u32..).zip(&self.places).map(|(at, b)| (ENDPOINTS, Layout::endpoint(self.number, at, b)));
        let sticky = self.group.sticky.map_or(&[][..], |_| &self.places);
        endpoints.chain(sticky.iter().map(|b| (STICKY, Layout::sticky(self.number, b))))
    }

    /// Becomes what is wanted.
    pub fn change(&mut self, wanted: &Group, change: &mut Difference) {
        if self.group == *wanted {
            return;
        }
        let gone = without(&self.group.backends, &wanted.backends);
        let come = without(&wanted.backends, &self.group.backends);
        let was_sticky = self.group.sticky.is_some();
        if was_sticky {
            let forget = if wanted.sticky.is_some() { &gone } else { &self.places };
            forget.iter().for_each(|b| change.remove(STICKY, Layout::sticky(self.number, b)));
        }
        self.place(&gone, &come, change);
        self.group = wanted.clone();
        if wanted.sticky.is_some() {
            let keep = if was_sticky { &come } else { &self.places };
            keep.iter().for_each(|b| change.add(STICKY, Layout::sticky(self.number, b)));
        }
    }

    /// Gives numbers to those that come, and closes the holes of those that go.
    fn place(&mut self, gone: &[Backend], come: &[Backend], change: &mut Difference) {
        let numbered = (0u32..).zip(&self.places);
        let mut holes: Vec<u32> =
            numbered.filter(|(_, b)| gone.binary_search(b).is_ok()).map(|(at, _)| at).collect();
        let mut come = come.iter().copied();
        // The last holes stay: what is beyond the new end falls away by itself.
        let mut filled = 0;
        for (hole, backend) in holes.iter().zip(come.by_ref()) {
            self.put(*hole, Some(backend), change);
            filled += 1;
        }
        holes.drain(..filled);
        for backend in come {
            self.put(u32::try_from(self.places.len()).unwrap_or(u32::MAX), Some(backend), change);
        }
        // From the last hole on: then whatever is last is none.
        for hole in holes.into_iter().rev() {
            let last = u32::try_from(self.places.len()).unwrap_or(u32::MAX) - 1;
            let moved = (last != hole).then(|| self.places[last as usize]);
            self.put(last, None, change);
            if let Some(moved) = moved {
                self.put(hole, Some(moved), change);
            }
        }
    }

    /// Writes or takes away (then it is the last) one number.
    fn put(&mut self, at: u32, backend: Option<Backend>, change: &mut Difference) {
        let index = at as usize;
        if let Some(old) = self.places.get(index) {
            change.replace(ENDPOINTS, Layout::endpoint(self.number, at, old));
        }
        match backend {
            Some(new) => {
                change.add(ENDPOINTS, Layout::endpoint(self.number, at, &new));
                if index < self.places.len() { self.places[index] = new } else { self.places.push(new) }
            }
            None => self.places.truncate(index),
        }
    }
}

/// What `of` has and `others` has not; both are sorted.
fn without(of: &[Backend], others: &[Backend]) -> Vec<Backend> {
    let mut others = others.iter().peekable();
    let is_alone = |backend: &&Backend| {
        while others.next_if(|other| other < backend).is_some() {}
        others.peek() != Some(backend)
    };
    of.iter().filter(is_alone).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::IpAddr;

    fn group(of: &[u8]) -> Group {
        let mut backends: Vec<Backend> = of.iter().map(|i| (IpAddr::from([10, 0, 0, *i]), 80)).collect();
        backends.sort();
        backends.dedup();
        Group { backends, sticky: None }
    }

    fn places(numbered: &Numbered) -> Vec<u8> {
        let last = |b: &Backend| match b.0 {
            IpAddr::V4(ip) => ip.octets()[3],
            IpAddr::V6(_) => unreachable!(),
        };
        numbered.places.iter().map(last).collect()
    }

    #[test]
    fn endpoints_keep_their_numbers() {
        let mut numbered = Numbered::new(1);
        let mut to = |of: &[u8]| {
            numbered.change(&group(of), &mut Difference::default());
            places(&numbered)
        };
        assert_eq!(to(&[1, 2, 3]), [1, 2, 3]);
        assert_eq!(to(&[0, 1, 2, 3]), [1, 2, 3, 0]);
        assert_eq!(to(&[0, 2, 3]), [0, 2, 3], "the last takes the place of the first");
        assert_eq!(to(&[9, 2, 3]), [9, 2, 3], "who comes takes the place of who goes");
        assert_eq!(to(&[3]), [3]);
        assert_eq!(to(&[]), [0u8; 0]);
    }

    proptest! {
        #[test]
        fn every_endpoint_has_one_number(history in proptest::collection::vec(proptest::collection::vec(0u8..20, 0..15), 1..8)) {
            let mut numbered = Numbered::new(1);
            for of in history {
                numbered.change(&group(&of), &mut Difference::default());
                let mut have = numbered.places.clone();
                have.sort();
                prop_assert_eq!(have, group(&of).backends);
            }
        }
    }
}
